"""The lessons: each is whole and keeps its times (slow: each is run), and `python -m lessons` does what it says."""

import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lessons import __main__ as runner

ROOT = Path(__file__).parents[2]
SECTIONS = ["Predict", "Run", "Look", "Check by number", "Break it", "Exercises", "Next"]
PATHS = list(runner.find_lessons().values())
every_lesson = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name.partition("_")[0])

TINY = """\
# %% [markdown]
# # 07 A tiny lesson
#
# - time: 2 minutes
# - cpu: 1 second
# - before: 02, 05
# - equations: none
# - about: satnp.layers.tanh_forward
#
# It has one idea.

# %%
import numpy as np
from kit import MARK

from satnp.layers import tanh_forward

x, untouched, n = np.ones((2, 3)), np.zeros(5, np.int8), 4
print("first", MARK)

# %%
y, cache = tanh_forward(2 * x)
x[1, 2] = 7
same, several, kept = x, [np.zeros(3), np.ones(3)], {"a": np.arange(2, dtype=np.int64)}
print("second", __file__[-10:])

# %%
print("third", tanh_forward(y)[0].shape)
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder with one lesson, and a kit of its own beside it."""
    (tmp_path / "07_tiny.py").write_text(TINY)
    (tmp_path / "kit.py").write_text("MARK = 'from the kit beside it'\n")
    monkeypatch.setattr(runner, "FOLDER", tmp_path)
    return tmp_path


def environment(**more):
    ours = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "SATNP_DATA", "DISPLAY")}
    return ours | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80"} | more


def on_terminal(folder, arguments, *dialogue, **more):
    """Type into `python -m lessons` on a terminal: dialogue of (what to wait for, what to type) -> (exit status, screen)"""
    pty = pytest.importorskip("pty")
    command = (
        "import sys; from pathlib import Path; from lessons import __main__ as runner;"
        "runner.FOLDER = Path(sys.argv.pop(1)); sys.exit(runner.main())"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", command, str(folder), *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**more), start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    screen, seen, ends = "", 0, time.monotonic() + 60
    try:
        for awaited, typed in [*dialogue, (None, None)]:
            while awaited is None or awaited not in screen[seen:]:
                assert select.select([ours], [], [], max(0, ends - time.monotonic()))[0], f"no {awaited!r} in {screen}"
                try:
                    screen += os.read(ours, 4096).decode().replace("\r\n", "\n")
                except OSError:  # the other end is closed
                    assert awaited is None, f"no {awaited!r} in {screen}"
                    break
            if awaited is not None:
                seen = screen.index(awaited, seen) + len(awaited)
                os.write(ours, typed.encode())
        return process.wait(10), screen
    finally:
        process.kill()
        os.close(ours)


def test_no_two_lessons_have_the_same_number():
    numbers = [path.name.partition("_")[0] for path in PATHS]
    assert list(runner.find_lessons()) == numbers == sorted(set(numbers)) and len(numbers) >= 20


@every_lesson
def test_the_header_says_what_a_reader_needs(path):
    lesson = runner.read(path)
    assert lesson.number == path.name.partition("_")[0]
    assert 5 <= lesson.minutes <= 120 and 1 <= lesson.seconds < 60
    assert all(number < lesson.number for number in lesson.before)
    assert callable(lesson.function) and runner.first_line(lesson.function) > 1


@every_lesson
def test_the_sections_follow_each_other(path):
    texts = "\n".join(cell.text for cell in runner.read(path).cells if cell.is_text)
    found = [heading for heading in re.findall(r"^## (.+?) *$", texts, re.MULTILINE) if heading in SECTIONS]
    assert set(found) == set(SECTIONS)
    assert found[:2] == SECTIONS[:2] and found[-3:] == SECTIONS[-3:]  # it may go round the first four more than once
    assert found.count("Next") == found.count("Exercises") == found.count("Break it") == 1


@every_lesson
def test_a_notebook_has_the_same_cells(path):
    jupytext = pytest.importorskip("jupytext")
    cells = [cell for cell in jupytext.read(path).cells if cell.source]
    assert [(cell.cell_type == "markdown", cell.source.strip("\n")) for cell in cells] == [
        (cell.is_text, cell.text.strip("\n")) for cell in runner.read(path).cells
    ]


def test_all_lessons_together_take_less_than_ten_minutes():
    assert sum(runner.read(path).seconds for path in PATHS) < 600


@pytest.mark.slow
@every_lesson
def test_a_lesson_runs_within_the_time_it_states(path, tmp_path):
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path,
        env=environment(SATNP_LESSONS=str(tmp_path / "figures"), TMPDIR=str(tmp_path)),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
    )  # fmt: skip
    took = time.monotonic() - started
    assert done.returncode == 0, done.stdout[-2000:]
    assert took <= runner.read(path).seconds, f"took {took:.1f} s"
    figures = re.findall(r"^figure: (.+)\n  see: (.+)", done.stdout, re.MULTILINE)
    assert all(Path(file).read_bytes().startswith(b"\x89PNG") and see for file, see in figures)
    assert len(figures) == done.stdout.count("figure: ") == len(list(tmp_path.glob("figures/*.png")))


@pytest.mark.slow
@every_lesson
def test_a_lesson_calls_what_it_is_about(path, tmp_path):
    number, line = path.name.partition("_")[0], runner.first_line(runner.read(path).function)
    status, screen = on_terminal(
        runner.FOLDER, [number, "--break"], ("(Pdb) ", "q\n"), SATNP_LESSONS=str(tmp_path), TMPDIR=str(tmp_path)
    )
    assert status == 0 and f"({line})" in screen


def test_the_map_fits_a_terminal(capsys):
    assert runner.main([]) == 0
    said = capsys.readouterr().out
    assert all(len(line) <= 80 for line in said.splitlines())
    for path in PATHS:
        lesson = runner.read(path)
        (row,) = (line for line in said.splitlines() if line.startswith(f"{lesson.number:4}"))
        assert f"{lesson.minutes} min" in row and f"{lesson.seconds} s" in row


def test_a_lesson_runs_as_the_script_would(tiny):
    process = subprocess.run(
        [sys.executable, "07_tiny.py"], cwd=tiny, env=environment(), capture_output=True, text=True, check=True
    )
    status, screen = on_terminal(tiny, ["7"])
    assert (status, screen) == (
        0,
        process.stdout,
    ) and "first from the kit beside it\nsecond 07_tiny.py\nthird (2, 3)" in screen


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["42"], "there is no lesson 42; there are 07"),
        (["tanh"], "there is no lesson tanh; there are 07"),
        (["--step"], "give the number of a lesson first, such as: python -m lessons 05 --step"),
        (["7", "--step", "--break"], "--step and --break cannot be combined; choose one"),
        (["7", "--step"], "--step reads from the keyboard; run it in a terminal"),
        (["7", "--break"], "--break reads from the keyboard; run it in a terminal"),
        (["7", "--stop"], "lesson 07 takes no --stop; leave it out"),
        (["7", "8"], "lesson 07 takes no 8; leave it out"),
    ],
)
def test_bad_input_is_one_sentence(tiny, capsys, monkeypatch, arguments, sentence):
    monkeypatch.setattr("sys.stdin", open(os.devnull))
    assert runner.main(arguments) == 2
    assert capsys.readouterr() == ("", f"lessons: {sentence}\n")


def test_a_header_that_lacks_something_is_named(tiny, capsys):
    (tiny / "07_tiny.py").write_text(TINY.replace("# - cpu: 1 second\n", ""))
    assert runner.main([]) == 2
    assert "the header of 07_tiny.py has no valid cpu" in capsys.readouterr().err


def test_step_shows_a_cell_runs_it_and_shows_its_arrays(tiny):
    status, screen = on_terminal(
        tiny, ["07", "--step"], ("[1/4] Enter: on", "\n"), ("[2/4] Enter: run this", "\n"), ("[3/4]", "\n"), ("[4/4]", "\n")
    )
    assert status == 0
    assert "\033[1m07 A tiny lesson\033[0m" in screen and "\033[35mimport\033[0m numpy" in screen
    plain = re.sub("\033\\[\\d+m", "", screen)
    texts = [cell.text for cell in runner.split(TINY)]
    shown = [plain.index(text) for text in texts[1:]]
    printed = [plain.index(f"\n{word}") for word in ("first from the kit", "second", "third")]
    assert sorted(shown + printed) == [x for pair in zip(shown, printed, strict=True) for x in pair]
    rows = re.findall(r"^  (made|changed) +(\S+) +(\(.*\)) +(\S.*)$", plain, re.MULTILINE)
    assert rows == [  # cache.out is y, and `same` is x
        ("made", "x", "(2, 3)", "float64"), ("made", "untouched", "(5,)", "int8"),
        ("changed", "x", "(2, 3)", "float64"), ("made", "y", "(2, 3)", "float64"),
        ("made", "several[:]", "(3,)", "float64 x 2"), ("made", "kept['a']", "(2,)", "int64"),
    ]  # fmt: skip


def test_step_without_colours_and_left_at_once(tiny):
    status, screen = on_terminal(tiny, ["07", "--step"], ("[1/4]", "\n"), ("[2/4]", "q\n"), NO_COLOR="1")
    assert status == 0 and "\033" not in screen and "first from" not in screen
    assert TINY.partition("# %%\n")[2].partition("\n\n# %%")[0] in screen


def test_an_error_in_a_cell_names_its_line_in_the_file(tiny):
    (tiny / "07_tiny.py").write_text(TINY.replace("x[1, 2] = 7", "x[1, 3] = 7"))
    status, screen = on_terminal(tiny, ["07", "--step"], ("[1/4]", "\n"), ("[2/4]", "\n"), ("[3/4]", "\n"), NO_COLOR="1")
    line = TINY.splitlines().index("x[1, 2] = 7") + 1
    assert status == 1 and f'07_tiny.py", line {line}, in <module>' in screen and "IndexError" in screen


def test_break_stops_on_the_first_line_of_the_function(tiny):
    from satnp.layers import activations

    function = activations.tanh_forward
    source, start = Path(activations.__file__).read_text().splitlines(), function.__code__.co_firstlineno
    line = runner.first_line(function)
    status, screen = on_terminal(
        tiny, ["07", "--break"], ("(Pdb) ", "p x.sum()\n"), ("12.0", ""), ("(Pdb) ", "u\n"), ("(Pdb) ", "c\n")
    )
    assert status == 0 and start < line and '"""' not in source[line - 1]
    stop = f"activations.py({line})tanh_forward()\n-> {source[line - 1].strip()}\n"
    assert stop in screen
    assert screen.index("first from") < screen.index(stop) < screen.index("second")
    caller = TINY.splitlines().index("y, cache = tanh_forward(2 * x)") + 1
    assert f"07_tiny.py({caller})<module>()" in screen and screen.count("\n-> ") == 2  # it stops at the first call alone


def test_break_can_be_left_and_says_where_nothing_was_called(tiny):
    status, screen = on_terminal(tiny, ["07", "--break"], ("(Pdb) ", "q\n"))
    assert status == 0 and "first from" in screen and "second" not in screen and "Traceback" not in screen
    (tiny / "07_tiny.py").write_text(TINY.replace("layers.tanh_forward", "layers.sigmoid_forward"))
    status, screen = on_terminal(tiny, ["07", "--break"])
    assert status == 1 and "lesson 07 never called satnp.layers.sigmoid_forward" in screen and "third" in screen


def test_colours_change_no_character():
    for path in [*PATHS, Path(runner.__file__)]:
        code = path.read_text(encoding="utf-8").rstrip()
        assert re.sub("\033\\[\\d+m", "", runner.highlighted(code, True)) == code != runner.highlighted(code, True)
