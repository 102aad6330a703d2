"""Lessons and their answers as files: scripts of py:percent cells.

The first cell of a lesson is its header:

    # %% [markdown]
    # # 06 An LSTM backward, through time
    #
    # - time: 40 minutes
    # - cpu: 5 seconds
    # - before: 02, 05
    # - equations: Xu et al. 2015, eqs. 1-3
    # - about: satnp.layers.lstm_cell_backward

answers/06.py has the answers. For each exercise a text cell, then cells of code that run in the namespace of the lesson:

    # %% [markdown]
    # ## 1
    #
    # - hint: Start from the last step.
    # - hint: The gradient of c has two parts there.
    #
    # The answer in words.
"""

import ast
import inspect
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name

FOLDER = Path(__file__).parent
FIELDS = {
    "time": r"(\d+) minutes",
    "cpu": r"(\d+) seconds?",
    "before": r"(.*)",
    "equations": r"(.+)",
    "about": r"(satnp\.\S+)",
}
NUMBER = r"\d\d[a-z]?"
EXERCISE = re.compile(r"^(\d+)\. .+\n(?:   .*\n|\n)*", re.MULTILINE)
HINT = r"- hint: (.+(?:\n  .+)*)\n*"

# The short path, in minutes: three hours for the lessons without their sections Break it and Exercises.
SHORT = {"00": 30, "01": 25, "05": 25, "09": 35, "11": 40, "14": 25}


class BadInput(Exception):
    """A wrong command line or lesson file; the message is one sentence for the user."""


@dataclass(frozen=True, eq=False)
class Cell:
    """A cell: `text` without its line `# %%`, and `first`, the line number of the text in the file."""

    is_text: bool
    text: str
    first: int


@dataclass(frozen=True)
class Lesson:
    """A lesson with its header: minutes of reading, seconds of computing, the numbers of the lessons to read before."""

    path: Path
    number: str
    title: str
    minutes: int
    seconds: int
    before: tuple
    equations: str
    about: str
    cells: tuple

    @property
    def function(self):
        return inspect.unwrap(resolve_name(self.about))

    @property
    def answers_path(self):
        return self.path.parent / "answers" / f"{self.number}.py"


@dataclass(frozen=True)
class Answer:
    """The answer to one exercise: its hints, and cells of which the first is the text."""

    hints: tuple
    cells: tuple


def find_lessons():
    """{number: path}"""
    return {path.name.partition("_")[0]: path for path in sorted(FOLDER.glob("[0-9][0-9]*_*.py"))}


def find(number):
    """The path of a lesson; `number` is written as 05 or 5."""
    lessons = find_lessons()
    name = re.sub(r"^(?=\d(?!\d))", "0", number)
    if name not in lessons:
        raise BadInput(f"there is no lesson {number}; there are {', '.join(lessons)}")
    return lessons[name]


def short_path():
    """What the map and the contents of the book say about the short path, and about the times of reading."""
    lessons = ", ".join(f"{number} ({minutes} min)" for number, minutes in SHORT.items())
    return (
        f"The short path, {len(SHORT)} lessons in {sum(SHORT.values()) / 60:.0f} hours: {lessons}. Leave out the sections "
        "Break it and Exercises, and take the results of the lessons between them as given. (Reading times are estimates.)"
    )


def read(path):
    """Parse a lesson file -> Lesson. Raises BadInput if a field of its header is missing."""
    cells = split(path.read_text(encoding="utf-8"))
    header = cells[0].text if cells and cells[0].is_text else ""
    found = {"title": re.search(rf"^# ({NUMBER}) (.+)$", header, re.MULTILINE)}
    found |= {name: re.search(rf"^- {name}: ?{what}$", header, re.MULTILINE) for name, what in FIELDS.items()}
    for name, match in found.items():
        if match is None:
            raise BadInput(f"the header of {path.name} has no valid {name}; lessons/cells.py shows how to write it")
    number, title = found["title"].groups()
    minutes, seconds, before, equations, about = (found[name][1].strip() for name in FIELDS)
    before = tuple(re.findall(NUMBER, before))
    return Lesson(path, number, title, int(minutes), int(seconds), before, equations, about, tuple(cells))


def read_answers(lesson):
    """{number of the exercise: Answer}; empty if the lesson has no answers."""
    answers, exercise = {}, None
    cells = split(lesson.answers_path.read_text(encoding="utf-8")) if lesson.answers_path.is_file() else []
    for cell in cells:
        if cell.is_text and (heading := re.match(r"## (\d+)\s+", cell.text + "\n")):
            exercise, rest = heading[1], cell.text[heading.end() :]
            hints = re.match(rf"(?:{HINT})*", rest)[0]
            lines = cell.text[: heading.end() + len(hints)].count("\n")
            text = Cell(True, rest[len(hints) :], cell.first + lines)
            answers[exercise] = Answer(tuple(" ".join(x.split()) for x in re.findall(HINT, hints)), (text,))
        elif exercise:
            answers[exercise] = Answer(answers[exercise].hints, (*answers[exercise].cells, cell))
    return answers


def exercises(lesson):
    """The numbers of the lesson's exercises."""
    return [match[1] for cell in lesson.cells if cell.is_text for match in EXERCISE.finditer(exercise_section(cell.text)[1])]


def exercise_section(text):
    """Cut the text of a cell -> (what is before its section Exercises, the section, what is after it)"""
    section = re.search(r"^## Exercises\n.*?(?=^## |\Z)", f"{text}\n", re.MULTILINE | re.DOTALL)
    return (text[: section.start()], section[0], text[section.end() :]) if section else (text, "", "")


def split(source):
    """The cells of a py:percent file; lines before the first cell are ignored."""
    lines, cells = source.splitlines(), []
    starts = [k for k, line in enumerate(lines) if line.startswith("# %%")] + [len(lines)]
    for start, end in zip(starts, starts[1:], strict=False):
        is_text, body = "[markdown]" in lines[start], lines[start + 1 : end]
        if is_text:
            body = [re.sub("^# ?", "", line) for line in body]
        text = "\n".join(body).rstrip()
        if text:
            cells.append(Cell(is_text, text, start + 2))
    return cells


def first_line(function):
    """The line number of the first statement after the signature and the docstring."""
    lines, start = inspect.getsourcelines(function)
    body = ast.parse(textwrap.dedent("".join(lines))).body[0].body
    has_docstring = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) and len(body) > 1
    return start - 1 + body[has_docstring].lineno
