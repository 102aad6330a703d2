"""The lessons: each is whole, and `python -m lessons` does what it says. test_book.py runs all of them."""

import json
import os
import re
import select
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from lessons import __main__ as runner
from lessons import cells, progress
from lessons.formulas import DISPLAY, as_text, formulas
from lessons.terminal import WIDTH, formatted, highlighted

ROOT = Path(__file__).parents[2]
SECTIONS = ["Predict", "Run", "Look", "Check by number", "Break it", "Exercises", "Next"]
PATHS = list(cells.find_lessons().values())
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

# %% [markdown]
# ## Exercises
#
# 1. What is twice of it?
#    Say it.
# 2. And then?
"""

ANSWERS = """\
# %% [markdown]
# # Answers to lesson 07

# %% [markdown]
# ## 1
#
# - hint: Twice a number $x$ is
#   $x + x$.
# - hint: Multiply.
#
# It is $2 x$:
#
# $$
# 2 \\cdot 1 = 2
# $$

# %%
assert 2 * n == 8

# %% [markdown]
# ## 2
#
# - hint: There is one.
#
# In words.

# %%
print("no", kept)
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder with one lesson, and a kit of its own beside it."""
    (tmp_path / "07_tiny.py").write_text(TINY)
    (tmp_path / "kit.py").write_text("MARK = 'from the kit beside it'\n")
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "07.py").write_text(ANSWERS)
    monkeypatch.setattr(cells, "FOLDER", tmp_path)
    monkeypatch.setattr(progress, "FILE", tmp_path / "figures" / "progress.json")
    return tmp_path


def environment(**more):
    ours = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "SATNP_DATA", "DISPLAY")}
    return ours | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80"} | more


def on_terminal(folder, arguments, *dialogue, **more):
    """Type into `python -m lessons` on a terminal: dialogue of (what to wait for, what to type) -> (exit status, screen)"""
    pty = pytest.importorskip("pty")
    command = (
        "import sys; from pathlib import Path; from lessons import cells, __main__ as runner;"
        "cells.FOLDER = Path(sys.argv.pop(1)); sys.exit(runner.main())"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", command, str(folder), *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env=environment(**{"SATNP_LESSONS": str(folder / "figures")} | more),
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
    assert list(cells.find_lessons()) == numbers == sorted(set(numbers)) and len(numbers) >= 20


@every_lesson
def test_the_header_says_what_a_reader_needs(path):
    lesson = cells.read(path)
    assert lesson.number == path.name.partition("_")[0]
    assert 5 <= lesson.minutes <= 120 and 1 <= lesson.seconds <= 60
    assert all(number < lesson.number for number in lesson.before)
    assert callable(lesson.function) and cells.first_line(lesson.function) > 1


@every_lesson
def test_the_sections_follow_each_other(path):
    texts = "\n".join(cell.text for cell in cells.read(path).cells if cell.is_text)
    found = [heading for heading in re.findall(r"^## (.+?) *$", texts, re.MULTILINE) if heading in SECTIONS]
    assert set(found) == set(SECTIONS)
    assert found[:2] == SECTIONS[:2] and found[-3:] == SECTIONS[-3:]  # it may go round the first four more than once
    assert found.count("Next") == found.count("Exercises") == found.count("Break it") == 1


@every_lesson
def test_a_notebook_has_the_same_cells(path):
    jupytext = pytest.importorskip("jupytext")
    theirs = [cell for cell in jupytext.read(path).cells if cell.source]
    assert [(cell.cell_type == "markdown", cell.source.strip("\n")) for cell in theirs] == [
        (cell.is_text, cell.text.strip("\n")) for cell in cells.read(path).cells
    ]


def test_all_lessons_together_take_less_than_twelve_minutes():
    assert sum(cells.read(path).seconds for path in PATHS) < 720


@pytest.mark.slow
@every_lesson
def test_a_lesson_calls_what_it_is_about(path, tmp_path):
    number, line = path.name.partition("_")[0], cells.first_line(cells.read(path).function)
    status, screen = on_terminal(
        cells.FOLDER, [number, "--break"], ("(Pdb) ", "q\n"), SATNP_LESSONS=str(tmp_path), TMPDIR=str(tmp_path)
    )
    assert status == 0 and f"({line})" in screen


def test_the_readme_links_every_lesson():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in PATHS:
        assert re.search(rf"\| {path.name.partition('_')[0]} \| \[.+?\]\(lessons/{path.name}\) \|", readme), path.name


def test_the_map_fits_a_terminal(capsys):
    assert runner.main([]) == 0
    said = capsys.readouterr().out
    assert all(len(line) <= 80 for line in said.splitlines())
    for path in PATHS:
        lesson = cells.read(path)
        (row,) = (line for line in said.splitlines() if re.match(rf"{lesson.number}[ *]", line))
        assert f"{lesson.minutes} min" in row and f"{lesson.seconds} s" in row


def test_a_lesson_prints_its_text_and_code_and_what_the_script_prints(tiny):
    process = subprocess.run(
        [sys.executable, "07_tiny.py"], cwd=tiny, env=environment(), capture_output=True, text=True, check=True
    )
    assert process.stdout == "first from the kit beside it\nsecond 07_tiny.py\nthird (2, 3)\n"
    status, screen = on_terminal(tiny, ["7"], NO_COLOR="1")
    assert status == 0
    code = [textwrap.indent(cell.text, "    ") + "\n\n" for cell in cells.split(TINY) if not cell.is_text]
    parts = [x for pair in zip(code, process.stdout.splitlines(keepends=True), strict=True) for x in pair]
    parts = ["A tiny lesson\n----", "It has one idea.\n", *parts, "1. What is twice of it? Say"]
    places = [screen.index(part) for part in parts]
    assert places == sorted(places)
    assert progress_of(tiny) == {"07": {"done": True}}


def progress_of(folder):
    return json.loads((folder / "figures" / "progress.json").read_text())


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
        (["7", "--hint", "1", "--answer", "1"], "--hint and --answer cannot be combined; choose one"),
        (["7", "--hint", "3"], "lesson 07 has no exercise 3; there are 1, 2"),
        (["7", "--out", "x"], "--out belongs to the book: python -m lessons book --out DIR"),
        (["--answer", "1"], "give the number of a lesson first, such as: python -m lessons 05 --step"),
        (["book"], "--out is missing; give the folder for the pages: python -m lessons book --out DIR"),
        (["book", "--step"], "the command for the book is: python -m lessons book --out DIR"),
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
        tiny, ["07", "--step"],
        ("[1/5] Enter: on", "\n"), ("[2/5] Enter: run this", "\n"), ("[3/5]", "\n"), ("[4/5]", "\n"), ("[5/5]", "\n"),
    )  # fmt: skip
    assert status == 0
    assert "\033[1m07 A tiny lesson\033[0m" in screen and "\033[35mimport\033[0m numpy" in screen
    plain = re.sub("\033\\[\\d+m", "", screen)
    shown = [plain.index(cell.text) for cell in cells.split(TINY) if not cell.is_text]
    printed = [plain.index(f"\n{word}") for word in ("first from the kit", "second", "third")]
    assert sorted(shown + printed) == [x for pair in zip(shown, printed, strict=True) for x in pair]
    rows = re.findall(r"^  (made|changed) +(\S+) +(\(.*\)) +(\S.*)$", plain, re.MULTILINE)
    assert rows == [  # cache.out is y, and `same` is x
        ("made", "x", "(2, 3)", "float64"), ("made", "untouched", "(5,)", "int8"),
        ("changed", "x", "(2, 3)", "float64"), ("made", "y", "(2, 3)", "float64"),
        ("made", "several[:]", "(3,)", "float64 x 2"), ("made", "kept['a']", "(2,)", "int64"),
    ]  # fmt: skip


def test_step_without_colours_and_left_at_once(tiny):
    status, screen = on_terminal(tiny, ["07", "--step"], ("[1/5]", "\n"), ("[2/5]", "q\n"), NO_COLOR="1")
    assert status == 0 and "\033" not in screen and "first from" not in screen
    assert textwrap.indent(TINY.partition("# %%\n")[2].partition("\n\n# %%")[0], "    ") in screen


def test_step_goes_back_and_runs_nothing_twice(tiny):
    status, screen = on_terminal(
        tiny, ["07", "--step"], ("[1/5]", "\n"), ("[2/5] Enter: run this", "\n"), ("[3/5] Enter: run this", "b\n"),
        ("[2/5] Enter: on", "b\n"), ("[1/5] Enter: on", "b\n"), ("[1/5] Enter: on", "\n"), ("[2/5] Enter: on", "\n"),
        ("[3/5] Enter: run this", "\n"), ("[4/5]", "q\n"), NO_COLOR="1",
    )  # fmt: skip
    assert status == 0 and screen.count("first from") == screen.count("second 07") == 1 and "\nthird" not in screen


def test_step_takes_python_and_nothing_ends(tiny):
    status, screen = on_terminal(
        tiny, ["07", "--step"], ("[1/5]", "\n"), ("[2/5]", "\n"),
        ("[3/5]", "x.sum() + 0.5\n"), ("6.5", "1 / 0\n"), ("ZeroDivisionError", "x = (\n"), ("... ", "2)\n"),
        ("[3/5] ", "for k in range(2):\n"), ("... ", "  print('turn', k)\n"), ("... ", "\n"),
        ("turn 1", "x = np.ones((2, 3))\n"), ("[3/5]", "\n"), ("second", ""), ("[4/5]", "exit()\n"), NO_COLOR="1",
    )  # fmt: skip
    assert status == 0 and "turn 0" in screen and "lessons:" not in screen


def test_a_cell_that_fails_after_a_change_ends_nothing(tiny):
    status, screen = on_terminal(
        tiny, ["07", "--step"], ("[1/5]", "\n"), ("[2/5]", "\n"), ("[3/5]", "kept = tanh_forward\n"),
        ("[3/5]", "tanh_forward = 3\n"), ("[3/5]", "\n"), ("The cell failed.", ""), ("[3/5] Enter: run this", "q\n"),
        ("goes on at cell 3 of 5", ""), NO_COLOR="1",
    )  # fmt: skip
    assert status == 0 and "TypeError: 'int' object is not callable" in screen and "steps.py" not in screen
    status, screen = on_terminal(
        tiny, ["07", "--step"], ("You stopped", "\n"), ("[3/5]", "tanh, tanh_forward = tanh_forward, 3\n"), ("[3/5]", "\n"),
        ("The cell failed.", ""), ("[3/5]", "tanh_forward = tanh\n"), ("[3/5]", "\n"), ("second", ""), ("[4/5]", "q\n"),
        NO_COLOR="1",
    )  # fmt: skip
    assert status == 0


def test_step_resumes_where_it_stopped(tiny):
    on_terminal(tiny, ["07", "--step"], ("[1/5]", "\n"), ("[2/5]", "\n"), ("[3/5]", "\n"), ("[4/5]", "q\n"))
    assert progress_of(tiny) == {"07": {"stopped": [3, 5]}}
    status, screen = on_terminal(
        tiny, ["07", "--step"], ("You stopped at cell 4 of 5", "\n"), ("[4/5] Enter: run this", "\n"), ("[5/5]", "\n"),
        NO_COLOR="1",
    )  # fmt: skip
    assert status == 0 and "third (2, 3)" in screen and "first from" not in screen and "\nsecond" not in screen
    assert progress_of(tiny) == {"07": {"done": True}}
    for typed, awaited in (("s\n", "[1/5]"), ("q\n", None)):
        progress_file = tiny / "figures" / "progress.json"
        progress_file.write_text('{"07": {"stopped": [3, 5]}}')
        more = [(awaited, "q\n")] if awaited else []
        status, screen = on_terminal(tiny, ["07", "--step"], ("You stopped", typed), *more)
        assert status == 0 and progress_of(tiny) == {"07": {"stopped": [3, 5]}}
    progress_file.write_text('{"07": {"stopped": [3, 9]}}')  # the lesson has other cells now
    status, screen = on_terminal(tiny, ["07", "--step"], ("[1/5]", "q\n"))
    assert status == 0 and "You stopped" not in screen


def test_the_map_says_what_was_done(tiny, capsys):
    for known, state in (({}, ""), ({"stopped": (2, 5)}, "at 3/5"), ({"stopped": None, "done": True}, "done")):
        progress.remember("07", **known)
        runner.main([])
        (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("07 "))
        assert row.endswith(state or "02 05")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"07": 3}', '{"07": {"done": 1, "stopped": [5, 2], "hints": [1]}}', "\0"])
def test_a_damaged_memory_is_ignored(tiny, capsys, text):
    progress.FILE.parent.mkdir()
    progress.FILE.write_text(text)
    assert progress.of("07") == {}
    assert runner.main([]) == runner.main(["7", "--hint", "1"]) == 0
    assert progress.of("07") == {"hints": {"1": 1}}


def test_a_memory_that_cannot_be_written_is_said_and_ends_nothing(tiny, capsys):
    progress.FILE.mkdir(parents=True)
    assert runner.main(["7", "--hint", "1"]) == 0
    assert "hint 1 of 2" in (said := capsys.readouterr()).out and said.err.count("\n") == 1 and "not remembered" in said.err


def test_hints_come_one_by_one_and_the_answer_with_its_code(tiny, capsys):
    first, second = "hint 1 of 2: Twice a number x is x + x.\n", "hint 2 of 2: Multiply.\n"
    end = "There are no more hints; the answer: python -m lessons 07 --answer 1\n"
    for said in (first, first + second, first + second + end, first + second + end):
        assert runner.main(["7", "--hint", "1"]) == 0 and capsys.readouterr().out == said
    assert runner.main(["7", "--hint", "2"]) == 0 and capsys.readouterr().out == "hint 1 of 1: There is one.\n"
    assert runner.main(["07", "--answer", "1"]) == 0
    said = capsys.readouterr().out
    assert "It is 2 x:\n\n    2 · 1 = 2\n" in said and "\n    assert 2 * n == 8\n" in said and "hint" not in said


def test_the_short_path_is_six_lessons_in_three_hours():
    short = {number: cells.read(cells.find(number)) for number in cells.SHORT}
    assert len(short) == 6 and sum(cells.SHORT.values()) <= 180 and list(short) == sorted(short)
    assert all(cells.SHORT[number] <= lesson.minutes for number, lesson in short.items())


@every_lesson
def test_every_exercise_has_hints_and_an_answer(path):
    lesson = cells.read(path)
    wanted, answers = cells.exercises(lesson), cells.read_answers(lesson)
    assert wanted == [str(k) for k in range(1, len(wanted) + 1)] and wanted
    assert list(answers) == wanted, f"answers/{lesson.number}.py lacks {set(wanted) - set(answers)}"
    for answer in answers.values():
        assert 1 <= len(answer.hints) <= 3 and answer.cells[0].text
        code = "\n".join(cell.text for cell in answer.cells if not cell.is_text)
        assert re.search(r"\bassert\b|\bnear\(|\bargs\.root\b", code)  # args.root: photos that the lesson need not have
    first, second, *_ = cells.split(lesson.answers_path.read_text(encoding="utf-8"))
    assert first.text == f"# Answers to lesson {lesson.number}" and second.text.startswith("## 1\n")


@every_lesson
def test_formulas_can_be_read_in_a_terminal(path):
    lesson = cells.read(path)
    for cell in (*lesson.cells, *(cell for answer in cells.read_answers(lesson).values() for cell in answer.cells)):
        if cell.is_text:
            for latex in formulas(cell.text):
                assert "\\" not in as_text(latex)
            for indent, latex in DISPLAY.findall(cell.text):
                assert all(len(f"{indent}    {line}") <= WIDTH for line in as_text(latex).split("\n")), latex
            assert "$" not in re.sub(r"`[^`]+`", "", formatted(cell.text, False)), f"line {cell.first}"


def test_an_error_in_a_cell_names_its_line_in_the_file(tiny):
    (tiny / "07_tiny.py").write_text(TINY.replace("x[1, 2] = 7", "x[1, 3] = 7"))
    status, screen = on_terminal(
        tiny, ["07", "--step"], ("[1/5]", "\n"), ("[2/5]", "\n"), ("[3/5]", "\n"), ("The cell failed", ""), ("[3/5]", "q\n"),
        NO_COLOR="1",
    )  # fmt: skip
    line = TINY.splitlines().index("x[1, 2] = 7") + 1
    assert status == 0 and f'07_tiny.py", line {line}, in <module>' in screen and "IndexError" in screen


def test_break_stops_on_the_first_line_of_the_function(tiny):
    from satnp.layers import activations

    function = activations.tanh_forward
    source, start = Path(activations.__file__).read_text().splitlines(), function.__code__.co_firstlineno
    line = cells.first_line(function)
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
    for path in [*PATHS, Path(cells.__file__)]:
        code = path.read_text(encoding="utf-8").rstrip()
        assert re.sub("\033\\[\\d+m", "", highlighted(code, True)) == code != highlighted(code, True)
