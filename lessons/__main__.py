"""Lists the lessons, or runs one: whole, cell by cell, or up to the function that it explains.

A lesson is a script of py:percent cells whose first cell is its header:

    # %% [markdown]
    # # 06 An LSTM backward, through time
    #
    # - time: 40 minutes
    # - cpu: 5 seconds
    # - before: 02, 05
    # - equations: Xu et al. 2015, eqs. 1-3
    # - about: satnp.layers.lstm_cell_backward
"""

from satnp.arrays.runtime import tune

if __name__ == "__main__":
    tune()  # before NumPy is imported

# isort: split
import argparse
import ast
import builtins
import inspect
import io
import keyword
import os
import pdb
import re
import sys
import textwrap
import tokenize
import types
import zlib
from bdb import BdbQuit
from collections import Counter
from dataclasses import dataclass, fields, is_dataclass
from itertools import islice, zip_longest
from pathlib import Path
from pkgutil import resolve_name

import numpy as np

from satnp.arrays.parameters import Parameters
from satnp.terminal import any_text

FOLDER = Path(__file__).parent
FIELDS = {
    "time": r"(\d+) minutes",
    "cpu": r"(\d+) seconds?",
    "before": r"(.*)",
    "equations": r"(.+)",
    "about": r"(satnp\.\S+)",
}
AS_IS, ITEM = r"#|\||    ", r"[-*] |\d+\. "  # headings, tables, formulas; list items
WIDTH = 79
ROWS = 12  # the most that the table of arrays has

BOLD, DIM, OFF = "\033[1m", "\033[2m", "\033[0m"
COLOURS = {"keyword": "\033[35m", "string": "\033[32m", "number": "\033[36m", "comment": "\033[2m", "builtin": "\033[34m"}


class BadInput(Exception):
    """A wrong command line or lesson file; the message is one sentence for the user."""


@dataclass(frozen=True)
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


def find_lessons():
    """{number: path}"""
    return {path.name.partition("_")[0]: path for path in sorted(FOLDER.glob("[0-9][0-9]*_*.py"))}


def read(path):
    """Parse a lesson file -> Lesson. Raises BadInput if a field of its header is missing."""
    cells = split(path.read_text(encoding="utf-8"))
    header = cells[0].text if cells and cells[0].is_text else ""
    found = {"title": re.search(r"^# (\d\d[a-z]?) (.+)$", header, re.MULTILINE)}
    found |= {name: re.search(rf"^- {name}: ?{what}$", header, re.MULTILINE) for name, what in FIELDS.items()}
    for name, match in found.items():
        if match is None:
            raise BadInput(f"the header of {path.name} has no valid {name}; lessons/__main__.py shows how to write it")
    number, title = found["title"].groups()
    minutes, seconds, before, equations, about = (found[name][1].strip() for name in FIELDS)
    before = tuple(re.findall(r"\d\d[a-z]?", before))
    return Lesson(path, number, title, int(minutes), int(seconds), before, equations, about, tuple(cells))


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


@any_text()
def main(arguments=None):
    """Run the command -> exit status: 0 done, 1 the lesson failed, 2 bad input, 130 interrupted, 141 stdout was closed"""
    parser = argparse.ArgumentParser(prog="python -m lessons", description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("lesson", nargs="?", metavar="NUMBER", help="default: the map of the lessons")
    parser.add_argument("--step", action="store_true", help="show a cell, wait for Enter, run it, show its arrays")
    parser.add_argument("--break", action="store_true", help="stop in pdb at the first call of the function it explains")
    args, rest = parser.parse_known_args(arguments)
    step, stop = args.step, vars(args)["break"]
    try:
        if args.lesson is None:
            if step or stop or rest:
                raise BadInput("give the number of a lesson first, such as: python -m lessons 05 --step")
            print_map([read(path) for path in find_lessons().values()])
            return 0
        lesson = read(find(args.lesson))
        if rest and "argparse" not in lesson.path.read_text(encoding="utf-8"):
            raise BadInput(f"lesson {lesson.number} takes no {rest[0]}; leave it out")
        if step and stop:
            raise BadInput("--step and --break cannot be combined; choose one")
        if (step or stop) and not sys.stdin.isatty():
            raise BadInput(f"{'--step' if step else '--break'} reads from the keyboard; run it in a terminal")
        return run(lesson, rest, step, stop)
    except BadInput as error:
        print(f"lessons: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of stdout has closed it, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())
        return 141
    except KeyboardInterrupt:
        print("\nlessons: interrupted", file=sys.stderr)
        return 130


def find(number):
    """The path of a lesson; `number` is written as 05 or 5."""
    lessons = find_lessons()
    name = re.sub(r"^(?=\d(?!\d))", "0", number)
    if name not in lessons:
        raise BadInput(f"there is no lesson {number}; there are {', '.join(lessons)}")
    return lessons[name]


def print_map(lessons):
    """Print a row for each lesson, and the commands."""
    print(f"    {'lesson':44}reading  computing  before")
    for lesson in lessons:
        times = f"{lesson.minutes:3} min {lesson.seconds:8} s  "
        columns = textwrap.wrap(lesson.title, 43), textwrap.wrap(" ".join(lesson.before), 11)
        for k, (title, before) in enumerate(zip_longest(*columns, fillvalue="")):
            print(f"{'' if k else lesson.number:4}{title:44}{'' if k else times:20}{before}".rstrip())
    minutes, seconds = sum(lesson.minutes for lesson in lessons), sum(lesson.seconds for lesson in lessons)
    print(f"{'':48}{minutes / 60:3.0f} h {seconds / 60:10.1f} min\n")
    print("python -m lessons 05          runs a lesson")
    print("python -m lessons 05 --step   shows each cell, runs it, shows the arrays it made")
    print("python -m lessons 05 --break  stops in pdb in the function the lesson is about")


def run(lesson, arguments, step, stop):
    """Run the lesson as a script with the command line `arguments` -> exit status"""
    sys.path.insert(0, str(lesson.path.parent))  # so that `import kit` works, as in `python lessons/05_lstm.py`
    sys.argv = [str(lesson.path), *arguments]
    module = types.ModuleType("__main__")
    module.__file__ = str(lesson.path)
    sys.modules["__main__"] = module
    if step:
        return step_through(lesson, vars(module))
    code = compile(lesson.path.read_text(encoding="utf-8"), str(lesson.path), "exec")
    if stop:
        return break_in(lesson, code, vars(module))
    exec(code, vars(module))
    return 0


def step_through(lesson, namespace):
    """Show each cell, wait, run it, show the arrays that it made or changed."""
    count, colours = len(lesson.cells), in_colour()
    for k, cell in enumerate(lesson.cells, 1):
        print(f"\n{formatted(cell.text, colours) if cell.is_text else highlighted(cell.text, colours)}\n")
        if not go_on(f"[{k}/{count}] Enter: {'on' if cell.is_text else 'run this'}, q: quit ", colours):
            return 0
        if cell.is_text:
            continue
        before = digests(namespace)
        # empty lines in front, so that tracebacks and pdb show the line numbers of the file
        exec(compile("\n" * (cell.first - 1) + cell.text, str(lesson.path), "exec"), namespace)
        print_arrays(namespace, before, colours)
    print(f"the end of lesson {lesson.number}")
    return 0


def go_on(prompt, colours):
    """Wait for Enter -> False for q or the end of the input"""
    try:
        return input(f"{DIM}{prompt}{OFF}" if colours else prompt).strip().lower() not in ("q", "quit")
    except EOFError:
        print()
        return False


def in_colour():
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def formatted(text, colours):
    """Markdown for a terminal: headings bold, paragraphs and list items wrapped, all other lines as they are."""
    blocks = []
    for line in text.splitlines():
        if blocks and blocks[-1] and not re.match(AS_IS, blocks[-1]) and not re.match(rf"$|{AS_IS}|{ITEM}", line):
            blocks[-1] += f" {line.strip()}"
        else:
            blocks.append(line)
    return "\n".join(_formatted(block, colours) for block in blocks)


def _formatted(block, colours):
    if block.startswith("#"):
        heading = block.lstrip("# ")
        return f"{BOLD}{heading}{OFF}" if colours else f"{heading}\n{'-' * len(heading)}"
    if re.match(AS_IS, block):
        return block
    item = re.match(ITEM, block)
    return textwrap.fill(block, WIDTH, subsequent_indent=" " * item.end() if item else "", break_on_hyphens=False)


def highlighted(code, colours):
    """Python source with terminal colours."""
    if not colours:
        return code
    lines, out, at, before = code.splitlines(keepends=True), [], (1, 0), None
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        colour = COLOURS.get(_sort(token))
        if colour and before != ".":
            out += [_between(lines, at, token.start), colour, token.string, OFF]
            at = token.end
        before = token.string
    return "".join([*out, _between(lines, at, (len(lines) + 1, 0))])


def _sort(token):
    name = tokenize.tok_name[token.type]
    if name == "NAME":
        if keyword.iskeyword(token.string):
            return "keyword"
        return "builtin" if hasattr(builtins, token.string) else None
    return "string" if name.startswith("FSTRING") else name.lower()


def _between(lines, start, end):
    """The text from (line, column) to (line, column), lines counted from 1."""
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]]
    last = lines[end[0] - 1][: end[1]] if end[0] <= len(lines) else ""
    return "".join([lines[start[0] - 1][start[1] :], *lines[start[0] : end[0] - 1], last])


def arrays(namespace):
    """{name: array}: the arrays by name, then those inside of tuples, lists, dicts, dataclasses and Parameters.

    An array with two names is listed under the first.
    """
    levels = [{}, {}, {}]

    def look(name, x, level):
        if isinstance(x, np.ndarray):
            levels[level][name] = x
        elif level < 2:
            for part, inner in _parts(x):
                look(name + part, inner, level + 1)

    for name, x in list(namespace.items()):
        if not name.startswith("_"):
            look(name, x, 0)
    found, names = levels[0] | levels[1] | levels[2], {}
    for name, x in found.items():
        names.setdefault((x.ctypes.data, x.shape, x.strides), name)
    return {name: found[name] for name in names.values()}


def _parts(x):
    if isinstance(x, Parameters):
        return [(f".{name}", view) for name, view in x.items()]
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return [(f".{name}", inner) for name, inner in zip(x._fields, x, strict=True)]
    if isinstance(x, (tuple, list)):
        return [(f"[{k}]", inner) for k, inner in enumerate(x)]
    if isinstance(x, dict):
        return [(f"[{key!r}]", inner) for key, inner in x.items()]
    if is_dataclass(x) and not isinstance(x, type):
        return [(f".{field.name}", getattr(x, field.name)) for field in fields(x)]
    return []


def digests(namespace):
    return {name: (x.shape, x.dtype, zlib.crc32(x.tobytes())) for name, x in arrays(namespace).items()}


def print_arrays(namespace, before, colours):
    """Print a row for each array that is new or has changed since `before`, the digests of then."""
    now, after = arrays(namespace), digests(namespace)
    rows = Counter(  # one row for the arrays of a list
        ("changed" if name in before else "made", re.sub(r"\[\d+\]", "[:]", name), str(x.shape), str(x.dtype))
        for name, x in now.items()
        if before.get(name) != after[name]
    )
    if rows:
        print()
    for (what, name, shape, dtype), count in islice(rows.items(), ROWS):
        line = f"  {what:8} {name:26} {shape:20} {dtype}{f' x {count}' if count > 1 else ''}"
        print(f"{DIM}{line}{OFF}" if colours else line)
    if len(rows) > ROWS:
        print(f"  ... and {len(rows) - ROWS} more")


def break_in(lesson, code, namespace):
    """Run the lesson up to the first call of the function that it explains, and start pdb on its first line."""
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
        exec(code, namespace)
    except BdbQuit:
        return 0
    finally:
        sys.settrace(None)
    if not stopped:
        print(f"lessons: lesson {lesson.number} never called {lesson.about}", file=sys.stderr)
    return 0 if stopped else 1


def first_line(function):
    """The line number of the first statement after the signature and the docstring."""
    lines, start = inspect.getsourcelines(function)
    body = ast.parse(textwrap.dedent("".join(lines))).body[0].body
    has_docstring = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) and len(body) > 1
    return start - 1 + body[has_docstring].lineno


if __name__ == "__main__":
    sys.exit(main())
