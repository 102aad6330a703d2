"""Runs a lesson: whole, cell by cell, or up to the function that it explains."""

import inspect
import io
import os
import pdb
import sys
import traceback
import types
from bdb import BdbQuit
from code import InteractiveInterpreter
from contextlib import redirect_stdout, suppress
from pathlib import Path

from . import progress
from .cells import first_line
from .terminal import digests, dim, print_arrays, print_cell


def start(lesson, arguments):
    """Make the process look like one that runs the script with the command line `arguments` -> the script's namespace"""
    sys.path.insert(0, str(lesson.path.parent))  # so that `import kit` works, as in `python lessons/05_lstm.py`
    sys.argv = [str(lesson.path), *arguments]
    module = types.ModuleType("__main__")
    module.__file__ = str(lesson.path)
    sys.modules["__main__"] = module
    return vars(module)


def execute(lesson, cell, namespace):
    # empty lines in front, so that tracebacks and pdb show the line numbers of the file
    exec(compile("\n" * (cell.first - 1) + cell.text, str(lesson.path), "exec"), namespace)


def run(lesson, arguments):
    """Print each cell, and run it if it is code."""
    namespace = start(lesson, arguments)
    for cell in lesson.cells:
        print_cell(cell)
        if not cell.is_text:
            execute(lesson, cell, namespace)
    progress.remember(lesson.number, done=True)


class Steps:
    """A lesson that is read cell by cell: `at` is the cell on the screen, and the code of the cells before `ran` has run."""

    def __init__(self, lesson, arguments):
        self.lesson, self.namespace = lesson, start(lesson, arguments)
        self.at = self.ran = 0

    def go(self):
        """Show the cells until the last one or until the reader quits."""
        with suppress(ImportError):  # Windows has none
            import readline  # input() then has a history, and keys to edit the line

            readline.parse_and_bind("set enable-bracketed-paste off")
        cells = self.lesson.cells
        if not self.resume():
            return
        while self.at < len(cells):
            print_cell(cells[self.at])
            command = self.ask()
            if command == "q":
                again = f"python -m lessons {self.lesson.number} --step"
                print(f"{again} goes on at cell {self.ran + 1} of {len(cells)}" if self.ran else f"start again: {again}")
                return
            if command == "b":
                self.at = max(0, self.at - 1)
                continue
            if self.at == self.ran and not self.run_next():
                continue
            self.at += 1
            self.remember()
        progress.remember(self.lesson.number, done=True, stopped=None)
        print(f"the end of lesson {self.lesson.number}; a hint: python -m lessons {self.lesson.number} --hint 1")

    def remember(self):
        count = len(self.lesson.cells)
        progress.remember(self.lesson.number, stopped=(self.ran, count) if self.ran < count else None)

    def resume(self):
        """Ask whether to go on where the last time ended -> False to quit"""
        count = len(self.lesson.cells)
        cell, cells = progress.of(self.lesson.number).get("stopped", (0, count))
        if not cell or cells != count:  # nothing is known, or the lesson has changed since
            return True
        print(f"You stopped at cell {cell + 1} of {count}.")
        command = self.input("Enter: go on there, s: from the start, q: quit ").strip().lower()
        if not command:
            print(dim("running the code of the cells before this one, without its output ..."), flush=True)
            with redirect_stdout(io.StringIO()):
                for done in self.lesson.cells[:cell]:
                    if not done.is_text:
                        execute(self.lesson, done, self.namespace)
            self.at = self.ran = cell
        return command != "q"

    def run_next(self):
        """Run the next cell -> False if it failed, as when the reader has given another value to a name that it uses"""
        cell = self.lesson.cells[self.ran]
        if not cell.is_text:
            before = digests(self.namespace)
            try:
                execute(self.lesson, cell, self.namespace)
            except Exception as error:
                frames = traceback.extract_tb(error.__traceback__)
                inside = [frame for frame in frames if frame.filename == str(self.lesson.path)] or frames[-1:]
                print("".join(traceback.format_list(inside) + traceback.format_exception_only(error)), end="")
                print("The cell failed. Did you change a name that it uses? Set it right; then Enter runs the cell again.")
                return False
            print_arrays(self.namespace, before)
        self.ran += 1
        return True

    def ask(self):
        """Run what the reader types, line by line -> "" for Enter, "b" or "q\""""
        cell = self.lesson.cells[self.at]
        enter = "on" if cell.is_text or self.at < self.ran else "run this"
        prompt = f"[{self.at + 1}/{len(self.lesson.cells)}] Enter: {enter}, b: back, q: quit, or Python: "
        while True:
            line = self.input(prompt).strip()
            command = {"quit": "q", "back": "b"}.get(line.lower(), line.lower())
            if command in ("", "b", "q"):
                return command
            if self.python(line) == "q":
                return "q"
            prompt = f"[{self.at + 1}/{len(self.lesson.cells)}] "

    def python(self, line):
        """Run one statement in the lesson's namespace; an exception is shown and ends nothing."""
        interpreter = InteractiveInterpreter(self.namespace)
        try:
            while interpreter.runsource(line, "<you>"):
                more = self.input("... ", end=None)
                if more is None:
                    return "q"
                line += f"\n{more}"
        except SystemExit:  # exit()
            return "q"
        except KeyboardInterrupt:  # it ends the statement, not the lesson
            print("\nKeyboardInterrupt")
        return None

    def input(self, prompt, end="q"):
        """The next line that is typed; `end` if there are no more."""
        try:
            return input(prompt)
        except EOFError:
            print()
            return end


def break_in(lesson, arguments):
    """Run the script up to the first call of the function that it explains, and start pdb there -> exit status"""
    code = compile(lesson.path.read_text(encoding="utf-8"), str(lesson.path), "exec")
    function, debugger = lesson.function, pdb.Pdb()
    stopped = False

    def trace(frame, event, _):
        nonlocal stopped
        if frame.f_code is not function.__code__:
            return None
        stopped = True
        debugger.set_trace(frame)  # it stops at the next line, which is the first of the function
        return debugger.trace_dispatch

    file, line = Path(inspect.getsourcefile(function)), first_line(function)
    print(f"stops in {function.__name__}, {os.path.relpath(file)}:{line}")
    print("n: next line, p NAME: print, l: list, u: up to the caller, c: go on, q: quit")
    sys.settrace(trace)
    try:
        exec(code, start(lesson, arguments))
    except BdbQuit:
        return 0
    finally:
        sys.settrace(None)
    if not stopped:
        print(f"lessons: lesson {lesson.number} never called {lesson.about}", file=sys.stderr)
    return 0 if stopped else 1
