"""What `python -m lessons` shows on a terminal: Markdown, Python source, and the arrays that a cell has made."""

import builtins
import io
import keyword
import os
import re
import sys
import textwrap
import tokenize
import zlib
from collections import Counter
from dataclasses import fields, is_dataclass
from itertools import islice, zip_longest

import numpy as np

from satnp.arrays.parameters import Parameters

from . import formulas

WIDTH = 79
NO_BREAK = "\N{NO-BREAK SPACE}"
ROWS = 12  # the most that the table of arrays has
AS_IS, ITEM = r"#|    ", r" {0,3}(?:[-*]|\d+\.) "  # headings, tables, listings; list items
FENCE = re.compile(r"^```.*\n((?:.*\n)*?)```$", re.MULTILINE)
TABLE = re.compile(r"^\|.*\n\|[-:| ]+\|(?:\n\|.*)*", re.MULTILINE)

BOLD, DIM, OFF = "\033[1m", "\033[2m", "\033[0m"
COLOURS = {"keyword": "\033[35m", "string": "\033[32m", "number": "\033[36m", "comment": "\033[2m", "builtin": "\033[34m"}


def in_colour():
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def dim(text):
    return f"{DIM}{text}{OFF}" if in_colour() else text


def print_cell(cell):
    """Print a cell: its text formatted, or its code with colours; without colours the code is indented."""
    print(f"\n{formatted(cell.text, in_colour()) if cell.is_text else highlighted(cell.text, in_colour())}\n")


def formatted(text, colours):
    """Markdown for a terminal: paragraphs and list items wrapped, headings bold, formulas and tables as plain text."""
    text = FENCE.sub(lambda match: textwrap.indent(match[1].rstrip(), "    "), text)
    text = formulas.DISPLAY.sub(lambda match: textwrap.indent(formulas.as_text(match[2]), f"{match[1]}    "), text)
    text = TABLE.sub(lambda match: textwrap.indent(_table(match[0]), "    "), text)
    blocks = []
    for line in text.splitlines():
        if blocks and blocks[-1] and not re.match(AS_IS, blocks[-1]) and not re.match(rf"$|{AS_IS}|{ITEM}", line):
            blocks[-1] += f" {line.strip()}"
        else:
            blocks.append(line)
    return "\n".join(_formatted(block, colours) for block in blocks)


def _formatted(block, colours):
    if block.startswith("#"):
        heading = formulas.in_text(block.lstrip("# "))
        return f"{BOLD}{heading}{OFF}" if colours else f"{heading}\n{'-' * len(heading)}"
    if re.match(AS_IS, block):
        return block
    item = re.match(ITEM, block)
    return wrapped(block, " " * item.end() if item else "")


def wrapped(text, indent=""):
    """Wrap a paragraph, but no formula; the lines after the first begin with `indent`."""
    text = formulas.in_text(text, NO_BREAK)
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False).replace(NO_BREAK, " ")


def _table(markdown):
    """A Markdown table with aligned columns; the cells of the widest columns are wrapped if it is too wide."""
    head, _, *rows = [
        [formulas.in_text(cell.strip(), NO_BREAK) for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        for line in markdown.splitlines()
    ]
    widths = [max(len(row[k]) for row in (head, *rows) if k < len(row)) for k in range(len(head))]
    while sum(widths) + 2 * len(widths) > WIDTH - 4:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in (head, ["-" * width for width in widths], *rows):
        cells = [textwrap.wrap(cell, width) for cell, width in zip(row, widths, strict=False)]
        for parts in zip_longest(*cells, fillvalue=""):
            lines.append("  ".join(f"{part:{width}}" for part, width in zip(parts, widths, strict=False)).rstrip())
    return "\n".join(lines).replace(NO_BREAK, " ").replace("\\|", "|")


def highlighted(code, colours):
    """Python source with terminal colours; without them it is indented, as Markdown marks code."""
    if not colours:
        return textwrap.indent(code, "    ")
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


def print_arrays(namespace, before):
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
        print(dim(f"  {what:8} {name:26} {shape:20} {dtype}{f' x {count}' if count > 1 else ''}"))
    if len(rows) > ROWS:
        print(f"  ... and {len(rows) - ROWS} more")
