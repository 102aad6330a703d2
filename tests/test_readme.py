"""The README's table points at functions that exist, with the shapes it says."""

import importlib
import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.+?) \| `(satnp[\w.]+)` \| (\(.*?\)) \|$", README, re.MULTILINE)


def test_the_table_is_there():
    assert len(ROWS) >= 12


@pytest.mark.parametrize(("equation", "name", "shape"), ROWS)
def test_each_row_resolves_to_a_pair_with_that_shape(equation, name, shape):
    module, _, function = name.rpartition(".")
    module = importlib.import_module(module)
    doc = getattr(module, function).__doc__
    assert callable(getattr(module, function.replace("forward", "backward")))
    shapes = re.findall(r"\([^()]*\)", doc.split("->")[1])
    assert shape in shapes, f"{name} returns {shapes}"


def test_the_breakpoint_exists():
    line, file = re.search(r"the line `(.+?) \.\.\.` in `(.+?)`", README).groups()
    assert (Path(__file__).parents[1] / file).read_text().count(line) == 1


def test_the_commands_are_those_of_the_command_line():
    from satnp.cli import _parser

    commands = re.findall(r"^ *satnp (.+)$", README, re.MULTILINE)
    runs = [_parser().parse_args(command.split()).run.__name__ for command in commands]
    assert set(runs) == {"train", "evaluate", "caption", "compare", "rank", "regions", "release"}


def test_the_cell_of_write_your_own_is_the_toys():
    (shown,) = re.findall(r"```python\n(def cell_forward.+?)```", README, re.DOTALL)
    shown = [re.sub(r"\s*#.*", "", line) for line in shown.splitlines() if line]
    toy = (Path(__file__).parent / "captioners/toy.py").read_text(encoding="utf-8")
    assert "\n".join(shown) in toy.replace("\n\n\n", "\n")
