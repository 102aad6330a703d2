"""Read captions from tables, and from the records of JSON files, whose keys are named like columns."""

import ast
import csv
import re
from collections import Counter
from functools import lru_cache
from typing import NamedTuple

from satnp.data.captions import Words
from satnp.errors import InputError

MARKS = {"\t": ("a tab", "tabs"), "|": ("a bar", "bars"), ";": ("a semicolon", "semicolons"), ",": ("a comma", "commas")}
PHOTO = re.compile(r".*\.(?:jpe?g|jfif|png|webp|gif|bmp|tiff?|p[gp]m|hei[cf]|avif)(?:\.\d+)?(?:#\d+)?", re.I | re.S)
COUNTED = re.compile(r"(.+)#\d+", re.S)
NO_CAPTION = re.compile(r"[-+]?\d[\d.,:%]*|train|val|dev|test", re.I)  # between captions, a column of another kind
QUOTED = re.compile(r'\s*"(?:[^"]|"")*"\s*')
LIST = re.compile(r"""\s*\[\s*["'[]""")
# Flickr30k's public file lacks the second bar once, after 2199200615.jpg| 4
BAR_MISSING = re.compile(r"\s*(\d+)\s*(.*)")
# what may be between two captions in one cell
BETWEEN_CAPTIONS = re.compile(r"\||\n|[.!?]\s*;\s*\w.*[.!?]$")

NAME = re.compile(r"(?:image|img|photo|picture|pic|file|name|path|id)+s?")
# kinds of captions; where a table has several kinds, the first one is taken
KINDS = (
    "caption", "sentence", "text", "comment", "description", "desc", "raw", "token", "word", "title", "prompt", "label"
)  # fmt: skip
CAPTION = re.compile(rf"(?:image|img|photo)?({'|'.join(KINDS)})s?(?:text)?\d*")


class Entry(NamedTuple):
    """Captions of a photo, and where they are in the file; `split` is None if the file has none."""

    where: str
    name: str
    captions: list
    split: str | None = None


class Columns(NamedTuple):
    """The columns of the photo's name, its captions and its split (or None); `words`: the captions are lists of words."""

    name: int
    captions: tuple
    split: int | None = None
    words: bool = False

    def told(self, keys):
        """Say which of the keys these are."""
        captions = [repr(keys[i]) for i in self.captions]
        said = f"photos in {keys[self.name]!r}, captions in {', '.join(captions[:5] + ['...'] * (len(captions) > 5))}"
        return said if self.split is None else f"{said}, splits in {keys[self.split]!r}"


@lru_cache
def columns_of(keys, nameless=False):
    """Find the Columns by their names; None if there are no captions or, unless `nameless`, no names of photos."""
    plain = [re.sub(r"[\W_]", "", key).lower() for key in keys]
    names = [i for i, key in enumerate(plain) if NAME.fullmatch(key)]
    kinds = [(found := CAPTION.fullmatch(key)) and found[1] for key in plain]
    if not any(kinds) or not (names or nameless):
        return None
    name = min(names, default=None, key=lambda i: (plain[i] == "id", plain[i].endswith("id"), "file" not in plain[i]))
    kind = next(kind for kind in KINDS if kind in kinds)
    captions = tuple(i for i, other in enumerate(kinds) if other == kind)
    return Columns(name, captions, plain.index("split") if "split" in plain else None, kind in ("token", "word"))


def captions_in(value, words=False):
    """The captions in a value: a string, a list of words if `words`, a record that has captions, or a list of these."""
    if isinstance(value, list):
        if words and value and all(isinstance(word, str) for word in value):
            return [Words(" ".join(value))]
        return [caption for x in value for caption in captions_in(x, words or isinstance(x, list))]
    if isinstance(value, dict) and (columns := columns_of(tuple(value), nameless=True)):
        return [caption for i in columns.captions for caption in captions_in([*value.values()][i], columns.words)]
    return [Words(value) if words and isinstance(value, str) else value]


class Layout(NamedTuple):
    """How the lines of a table are read: the Columns of `width` cells, of which a line has `least` or more.

    `mark` is between the cells, `number` is the column of a caption's number, or None, and `counted` says that the names end
    with #k.
    """

    columns: Columns
    width: int
    least: int
    mark: str
    number: int | None
    counted: bool

    @property
    def ends_in_caption(self):
        return self.columns.captions[-1] == self.width - 1

    @property
    def open_end(self):
        """Whether further cells are captions too. Semicolons and commas may be a part of one."""
        return self.mark in "\t|" and self.ends_in_caption

    def wanted(self):
        """Say what a line must be."""
        a_mark, marks = MARKS[self.mark]
        if self.counted:
            return f"NAME.jpg#k, {a_mark} and a sentence"
        if self.mark == "|" and self.number == 1:
            return "NAME.jpg| k| and a sentence"
        said = f"{self.width} cells with {marks} between them"
        said = f"a photo's name, {a_mark} and a caption" if self.width == 2 else said
        return said if self.mark in "\t|" else f"{said}, with quotation marks around a cell that has {a_mark} in it"

    def told(self, path, keys):
        """Say how the table is read; None for a form that data.forms lists first."""
        if self.mark == "|" and self.number == 1 and path.suffix == ".csv":
            return None
        if self[:4] == (Columns(0, (1,)), 2, 2, "\t") and not keys and self.counted == (".token" in path.suffixes):
            return None
        said = f"a table with {MARKS[self.mark][1]} between its cells"
        if keys:
            said += f" and a header: {self.columns.told(keys)}"
        elif self.columns.captions != (1,):
            said += f": photos in cell {self.columns.name + 1}, captions from cell {self.columns.captions[0] + 1} on"
        return said + "; #k behind the names is left out" * self.counted


def read_table(text, path):
    """Read the cells of a table -> ([Entry], its form in words, or None for a form that data.forms lists first)

    Raises: InputError for the first line that does not fit the others, or that can be read in two ways.
    """
    lines = text.split("\n")
    if lines[0].lower().startswith("sep="):  # Excel's own line
        lines[0] = ""
    mark = _mark_between_cells([line for line in lines if line.strip()][:1000])
    rows = _rows(lines, mark, path)
    if not rows:
        return [], None
    keys = tuple(cell.strip() for cell in rows[0][1])
    header = None if any(map(PHOTO.fullmatch, keys)) else columns_of(keys)
    if header:
        del rows[0]
    layout = _layout([cells for _, cells in rows], mark, header, len(keys))
    if not header and len(keys) > 2 and len(rows) > 1 and not PHOTO.fullmatch(keys[layout.columns.name]) and all(
        len(cells) > layout.columns.name and PHOTO.fullmatch(cells[layout.columns.name].strip()) for _, cells in rows[1:]
    ):  # fmt: skip
        raise InputError(
            f"line {rows[0][0]} of {path} is {lines[rows[0][0] - 1][:60]!r}: it has no names of columns that satnp knows; "
            "name them image and caption"
        )
    entries, several = [], ""
    for number, cells in rows:
        where = f"line {number} of {path} is {lines[number - 1][:60]!r}"
        # quotation marks around all cells show where each begins and ends
        open_end = layout.open_end or layout.ends_in_caption and lines[number - 1].count(f'{mark}"') >= len(cells) - 1
        if not _fits(cells, layout, open_end):
            raise InputError(f"{where}: it must be {layout.wanted()}")
        columns = layout.columns
        said = [cell for i, cell in enumerate(cells) if (i in columns.captions or i >= layout.width) and cell.strip()]
        if doubt := _doubt(said, layout, lines[number - 1]):
            raise InputError(f"{where}: {doubt}")
        said = [caption for cell in said for caption in _of_cell(cell, columns.words)]
        if len(said) > 1 and not several:
            several = f"; several captions on a line, as the {len(said)} on line {number}, belong to its photo"
        name = cells[columns.name].strip()
        name = COUNTED.fullmatch(name)[1] if layout.counted else name
        split = None if columns.split is None else "".join(cells[columns.split : columns.split + 1])
        entries.append(Entry(f"line {number}", name, said or [""], split))
    told = layout.told(path, keys if header else None)
    if several:
        told = (told or f"a table with {MARKS[mark][1]} between its cells") + several
    return entries, told


def _layout(rows, mark, header, width):
    """The Layout of rows of cells; `header` is the Columns that a header of `width` cells names, or None."""

    def most(test):
        return sum(1 for cells in rows if test(cells)) > len(rows) / 2

    def decimal(column):
        return most(lambda cells: len(cells) > column + 1 and cells[column].strip().isdecimal())

    columns = header
    if not header:
        name = int(decimal(0) and most(lambda cells: PHOTO.fullmatch(cells[min(1, len(cells) - 1)].strip())))
        first = name + 2 if most(lambda cells: len(cells) > name + 2) and decimal(name + 1) else name + 1
        width = first + 1
        if mark in ";,":  # captions may have these marks, so all lines must have the same number of cells
            width = max(width, Counter(map(len, rows)).most_common(1)[0][0])
        columns = Columns(name, tuple(range(first, width)))
    number = columns.captions[0] - 1
    number = number if number not in (-1, columns.name) and decimal(number) else None
    if mark == "|" and number == 1:
        for cells in rows:
            if len(cells) == 2 and (found := BAR_MISSING.fullmatch(cells[1])):
                cells[1:] = found.groups()
    least = max(columns.name, columns.captions[0]) + 1 if header else width
    return Layout(columns, width, least, mark, number, most(
        lambda cells: len(cells) > columns.name and COUNTED.fullmatch(cells[columns.name].strip())
    ))  # fmt: skip


def _fits(cells, layout, open_end):
    """Whether the cells of a line have the layout. `open_end`: it may have any number of captions."""
    least = max(layout.columns.name, layout.columns.captions[0]) + 1 if open_end else layout.least
    name = cells[layout.columns.name].strip() if len(cells) >= least else ""
    return (
        name != ""
        and (open_end or not any(cell.strip() for cell in cells[layout.width :]))
        and (layout.number is None or cells[layout.number].strip().isdecimal())
        and (not layout.counted or COUNTED.fullmatch(name) is not None)
    )


def _mark_between_cells(lines):
    """The mark between the keys of a header, or else behind the most names of photos, or else on the most lines."""
    for mark in MARKS:
        if lines and columns_of(tuple(_cells(lines[0], mark))):
            return mark
    found = {mark: [line for line in lines if mark in line] for mark in MARKS}
    behind = {mark: sum(any(PHOTO.fullmatch(cell.strip()) for cell in _cells(line, mark, 2)[:2]) for line in found[mark])
              for mark in MARKS}  # fmt: skip
    return max(MARKS, key=lambda mark: (behind[mark], len(found[mark])))


def _cells(line, mark, most=-1):
    """Split a line at its marks, or at the first `most` of them. Quotation marks around a whole cell are left out."""
    cells = line.split(mark, most)
    return [cell.strip()[1:-1].replace('""', '"') if QUOTED.fullmatch(cell) else cell for cell in cells]


def _rows(lines, mark, path):
    """[(line number, cells)] of the lines that are not blank"""
    if mark in "\t|":
        return [(number, _cells(line, mark)) for number, line in enumerate(lines, 1) if line.replace(mark, "").strip()]
    rows, number = [], 1
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=mark, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((number, cells))
            number = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"line {number} of {path} is {lines[number - 1][:60]!r} ({error}): put a cell in one pair of quotation marks, "
            "and write those inside of it twice"
        ) from None
    return rows


def _of_cell(cell, words):
    """The captions in a cell: one, or those of a list as JSON and Python write it."""
    try:
        return captions_in(ast.literal_eval(cell.strip()) if LIST.match(cell) else cell, words)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return captions_in(cell, words)


def _doubt(cells, layout, line):
    """Say why the captions in the cells of a line may be other ones; None if they are these."""
    numbered = layout.counted or layout.number is not None  # then a cell is one caption
    for cell in map(str.strip, cells):
        if PHOTO.fullmatch(cell) and " " not in cell:
            return f"it has {cell[:40]!r} in the place of a caption; give each photo its own line"
        if len(cells) > 1 and NO_CAPTION.fullmatch(cell):
            return f"it has {cell[:40]!r} among its captions; leave it out, or write a header that names the columns"
        if not numbered and not LIST.match(cell) and BETWEEN_CAPTIONS.search(cell):
            return "it may have several captions in one cell; write each on its own line, or remove the sign between them"
    marks, spaced = line.count(layout.mark), line.count(f"{layout.mark} ")
    if layout.mark in ";," and len(cells) > 1 and '"' not in line and 0 < spaced < marks:
        return f"it may have {MARKS[layout.mark][0]} inside of a caption; put this caption in quotation marks"
    return None
