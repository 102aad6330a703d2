"""python -m lessons.assignments build | grade"""

import argparse
import importlib
import os
import sys
from pathlib import Path

from lessons.assignments.declare import HIDDEN, PUBLIC
from satnp.errors import InputError
from satnp.terminal import any_text, complain

NAMES = "A1", "A2", "A3", "A4", "A5", "A6"


@any_text()
def main(arguments=None):
    """Run one command -> exit status: 0 done, 2 bad input, 130 interrupted."""
    args = _parser().parse_args(arguments)
    try:
        _fresh(args.out)
        assignment = importlib.import_module(f"lessons.assignments.{args.assignment.lower()}").ASSIGNMENT
        if assignment.points != 100:
            complain(f"the points of {assignment.name} add up to {assignment.points}, not to 100; left so", "warning")
        return args.run(assignment, args)
    except InputError as error:
        complain(str(error), "assignments")
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        complain(f"{error.strerror or error}{where}; fix that and run again", "assignments")
    except KeyboardInterrupt:
        complain("interrupted, nothing was written", "assignments")
        return 130
    return 2


def _parser():
    parser = argparse.ArgumentParser(prog="python -m lessons.assignments", description="Course assignments cut from satnp.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, run, summary in (
        ("build", _build, "write the starter, the folder that students get"),
        ("grade", _grade, "grade submissions, each a folder or a zip that contains captioner/"),
    ):
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(run=run)
        sub.add_argument("assignment", type=str.upper, choices=NAMES, metavar="ASSIGNMENT", help=", ".join(NAMES))
        if name == "grade":
            sub.add_argument("submissions", nargs="+", type=Path, metavar="SUBMISSION")
            sub.add_argument("--seed", type=int, default=HIDDEN, help=f"seed of the hidden arrays; default: {HIDDEN}")
        sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    return parser


def _fresh(out):
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out} exists and is not empty; give a new or empty folder")


def _build(assignment, args):
    from lessons.assignments.build import build

    build(assignment, args.out)
    print(f"{assignment.name}, {assignment.title}: {args.out}; cd there, pip install -r requirements.txt, python check.py")
    return 0


def _grade(assignment, args):
    if not hasattr(os, "wait4"):
        raise InputError("grading needs the limits of Linux or macOS; run it there (build works anywhere)")
    if args.seed <= PUBLIC:
        raise InputError(f"--seed {args.seed} is not allowed: {PUBLIC} is the starter's own seed; choose 1 or more")
    for path in args.submissions:
        if not path.exists():
            raise InputError(f"there is no {path}; give folders or zips that exist")
    from lessons.assignments.grade import grade, table

    print(table(assignment, grade(assignment, args.submissions, args.out, args.seed)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
