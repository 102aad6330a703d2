"""How satnp is laid out: no room imports from a later one, and importing satnp changes nothing in the process."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import satnp

ROOT = Path(satnp.__file__).parent
# Each room imports from itself and from rooms before it.
ROOMS = [
    "terminal", "errors", "files", "arrays", "layers", "estimators", "encoders", "captioners", "reference", "data",
    "decoding", "scores", "early", "model", "checkpoint", "page", "training", "figures", "compare", "proof", "demo", "cli",
    "__init__", "__main__",
]  # fmt: skip
MODULES = sorted(ROOT.rglob("*.py"))


def room(path):
    """errors.py -> errors, layers/lstm.py -> layers"""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path):
    """The rooms that a module imports, inside of functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module == "satnp":
            names = [x.name for x in node.names if x.name in ROOMS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("satnp."):
            names = [node.module.split(".")[1]]
        elif isinstance(node, ast.Import):
            names = [x.name.split(".")[1] for x in node.names if x.name.startswith("satnp.")]
        found |= set(names)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_from_itself_and_the_rooms_before_it(path):
    assert imported(path) <= set(ROOMS[: ROOMS.index(room(path)) + 1])


def test_every_room_is_in_the_readme():
    text = (ROOT.parent / "README.md").read_text(encoding="utf-8")
    listed = re.search(r"^## Contributing$(.*?)^- \*\*A layer", text, re.MULTILINE | re.DOTALL)[1]
    for name in {room(path) for path in MODULES} - {"__init__", "__main__"}:
        assert re.search(rf"\b{name}\b", listed), name


def test_importing_satnp_changes_nothing_in_the_process():
    code = (
        "import os, sys; before = dict(os.environ), set(sys.modules); import satnp\n"
        "assert dict(os.environ) == before[0]; assert not {'numpy', 'ctypes'} & (set(sys.modules) - before[1])"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tune_leaves_a_variable_that_is_set_as_it_is():
    code = (
        "import os; from satnp.arrays.runtime import tune; tune()\n"
        "print(os.environ['OPENBLAS_THREAD_TIMEOUT'], os.environ.get('OMP_NUM_THREADS'))"
    )
    said = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env).stdout.split()
        for env in ({"PYTHONPATH": str(ROOT.parent)}, {"PYTHONPATH": str(ROOT.parent), "OPENBLAS_THREAD_TIMEOUT": "9"})
    ]
    assert said == [["20", "None"], ["9", "None"]]


def test_the_bounds_of_the_requirements_are_those_of_the_package():
    """`.ci/run` installs the lower bounds of requirements.txt, which must be those of pyproject.toml."""
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    dev = [bound for bound in project["optional-dependencies"]["dev"] if bound.startswith("pytest")]
    listed = (ROOT.parent / "requirements.txt").read_text(encoding="utf-8").split("\n")
    assert listed == [*project["dependencies"], *dev, "-e .", ""]
    assert all(re.fullmatch(r"[a-z0-9-]+[>=]=[\d.]+", bound) for bound in listed[:-2])
