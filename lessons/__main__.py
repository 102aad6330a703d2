"""Lists the lessons, runs one, shows hints and answers, or makes a book of all."""

from satnp.arrays.runtime import tune

if __name__ == "__main__":
    tune()  # before NumPy is imported

# isort: split
import argparse
import os
import sys
import textwrap
from itertools import zip_longest
from pathlib import Path

from satnp.terminal import any_text

from . import progress
from .cells import SHORT, BadInput, exercises, find, find_lessons, read, read_answers, short_path
from .steps import Steps, break_in, run
from .terminal import dim, print_cell, wrapped

COMMANDS = """\
python -m lessons 05              prints a lesson and runs it
python -m lessons 05 --step       shows each cell, runs it, lists its arrays
python -m lessons 05 --break      stops in pdb in the function that it explains
python -m lessons 05 --hint 2     a hint for exercise 2, then the next
python -m lessons 05 --answer 2   the answer to exercise 2
python -m lessons book --out DIR  all lessons as pages for a browser"""


@any_text()
def main(arguments=None):
    """Run the command -> exit status: 0 done, 1 the lesson failed, 2 bad input, 130 interrupted, 141 stdout was closed"""
    parser = argparse.ArgumentParser(prog="python -m lessons", description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("lesson", nargs="?", metavar="NUMBER", help="a lesson, or `book`; default: the map of the lessons")
    parser.add_argument("--step", action="store_true", help="show a cell, wait for Enter or Python, run it, show its arrays")
    parser.add_argument("--break", action="store_true", help="stop in pdb at the first call of the function it explains")
    parser.add_argument("--hint", metavar="EXERCISE", help="show the next hint for this exercise")
    parser.add_argument("--answer", metavar="EXERCISE", help="show the answer to this exercise")
    parser.add_argument("--out", metavar="DIR", help="the folder of the book")
    args, rest = parser.parse_known_args(arguments)
    options = {name: value for name, value in vars(args).items() if name != "lesson" and value not in (False, None)}
    try:
        if len(options) > 1:
            raise BadInput(f"--{' and --'.join(options)} cannot be combined; choose one")
        if args.lesson == "book":
            return make_book(options, rest)
        if args.out is not None:
            raise BadInput("--out belongs to the book: python -m lessons book --out DIR")
        if args.lesson is None:
            if options or rest:
                raise BadInput("give the number of a lesson first, such as: python -m lessons 05 --step")
            print_map([read(path) for path in find_lessons().values()])
            return 0
        lesson = read(find(args.lesson))
        if rest and "argparse" not in lesson.path.read_text(encoding="utf-8"):
            raise BadInput(f"lesson {lesson.number} takes no {rest[0]}; leave it out")
        for name in {"step", "break"} & options.keys():
            if not sys.stdin.isatty():
                raise BadInput(f"--{name} reads from the keyboard; run it in a terminal")
        if "hint" in options:
            print_hints(lesson, args.hint)
        elif "answer" in options:
            print_answer(lesson, args.answer)
        elif "break" in options:
            return break_in(lesson, rest)
        elif "step" in options:
            Steps(lesson, rest).go()
        else:
            run(lesson, rest)
        return 0
    except BadInput as error:
        print(f"lessons: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of stdout has closed it, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())
        return 141
    except KeyboardInterrupt:
        print("\nlessons: interrupted", file=sys.stderr)
        return 130


def print_map(lessons):
    """Print a row for each lesson, the short path, and the commands."""
    print(f"    {'lesson':37}reading  computing  before       so far")
    for lesson in lessons:
        known = progress.of(lesson.number)
        ran, count = known.get("stopped", (0, 0))
        state = "done" if "done" in known else f"at {ran + 1}/{count}" if ran else ""
        times = f"{lesson.minutes:3} min {lesson.seconds:8} s  "
        columns = textwrap.wrap(lesson.title, 36), textwrap.wrap(" ".join(lesson.before), 11)
        number = f"{lesson.number}{'*' if lesson.number in SHORT else ''}"
        for k, (title, before) in enumerate(zip_longest(*columns, fillvalue="")):
            row = f"{'' if k else number:4}{title:37}{'' if k else times:20}{before:13}{'' if k else state}"
            print(row.rstrip())
    minutes, seconds = sum(lesson.minutes for lesson in lessons), sum(lesson.seconds for lesson in lessons)
    print(f"{'':41}{minutes / 60:3.0f} h {seconds / 60:10.1f} min\n")
    print(wrapped(f"* {short_path()}", "  "))
    print(f"\n{COMMANDS}")


def print_hints(lesson, exercise):
    """Print the hints for an exercise, one more than the last time."""
    answer = find_answer(lesson, exercise)
    hints = progress.of(lesson.number).get("hints", {})
    seen, count = hints.get(exercise, 0), len(answer.hints)
    for k, hint in enumerate(answer.hints[: seen + 1], 1):
        print(wrapped(f"hint {k} of {count}: {hint}"))
    if seen >= count:
        print(f"There are no more hints; the answer: python -m lessons {lesson.number} --answer {exercise}")
    else:
        progress.remember(lesson.number, hints=hints | {exercise: seen + 1})


def print_answer(lesson, exercise):
    for cell in find_answer(lesson, exercise).cells:
        print_cell(cell)
    print(dim(f"The code needs the names of lesson {lesson.number}, as at the prompt of --step."))


def find_answer(lesson, exercise):
    answers = read_answers(lesson)
    if exercise not in answers:
        what = "answer to exercise" if exercise in exercises(lesson) else "exercise"
        raise BadInput(f"lesson {lesson.number} has no {what} {exercise}; there are {', '.join(answers) or 'none'}")
    return answers[exercise]


def make_book(options, rest):
    """Make the book -> exit status"""
    if rest or not options.keys() <= {"out"}:
        raise BadInput("the command for the book is: python -m lessons book --out DIR")
    if "out" not in options:
        raise BadInput("--out is missing; give the folder for the pages: python -m lessons book --out DIR")
    try:
        from . import book
    except ImportError as error:
        raise BadInput(f'the book needs the package {error.name}; run: pip install -e ".[lessons]"') from None
    lessons = [read(path) for path in find_lessons().values()]
    return book.make(lessons, Path(options["out"]))


if __name__ == "__main__":
    sys.exit(main())
