"""Read captions from tables, and from the records of JSON files, whose keys are named like columns."""

import ast
import csv
import io
import json
import posixpath
import re
import tokenize
from collections import Counter
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from satnp.data.captions import Words
from satnp.data.names import leads_out
from satnp.errors import InputError

MARKS = {"\t": ("a tab", "tabs"), "|": ("a bar", "bars"), ";": ("a semicolon", "semicolons"), ",": ("a comma", "commas")}
PHOTO = re.compile(r".*\.(?:jpe?g|jfif|png|webp|gif|bmp|tiff?|p[gp]m|hei[cf]|avif)(?:\.\d+)?(?:#\d+)?", re.I | re.S)
COUNTED = re.compile(r"(.+)#\d+", re.S)
# between captions, a column of another kind: splits, languages, numbers, dates, addresses, and the like
NO_CAPTION = re.compile(r"train|val|dev|test|[a-z]{2}(-[a-z]{2})?|\w+://\S+|[\w.,:%+-]*\d[\w.,:%+-]*", re.I | re.A)
QUOTED = re.compile(r'\s*"(?:[^"]|"")*"\s*')
LIST = re.compile(r"""\s*(?:\[\s*["'[{]|[({]\s*["'[].*[)}]\s*$)""", re.S)
# Flickr30k's public file lacks the second bar once, after 2199200615.jpg| 4
BAR_MISSING = re.compile(r"\s*(\d+)\s*(.*)")
# what may be between two captions in one cell
BETWEEN_CAPTIONS = re.compile(
    r"""\||[\n\t\v\f\x85\u2028\u2029]|\\[nt]|<br|</?s>|<sep|\[SEP\]|##|&#1[03];|(?<!:)//|\s~\s|"""
    r"""^".*"\s*[,;]\s*".*"$|[.!?]\s*[;/]\s*\w.*[.!?]$""", re.I,
)  # fmt: skip
MISSING = re.compile(r"\s*(?:nan|null|none|n/?a|#n/a)?\s*", re.I)  # what spreadsheets and pandas write for an empty cell
UNNAMED = re.compile(r"(?:unnamed\d*)?")  # the plain name of a column without a title

SPLIT_NAMES = {
    "train": "train", "training": "train", "restval": "train", "val": "val", "valid": "val", "validation": "val",
    "dev": "val", "test": "test", "testing": "test",
}  # fmt: skip
NAME = re.compile(r"(?:image|img|photo|picture|pic|file|fname|name|path|id)+s?")
# kinds of captions; where a table has several kinds, the first one is taken
KINDS = (
    "caption", "sentence", "text", "comment", "description", "desc", "raw", "token", "word", "title", "prompt", "label",
    "alt", "reference",
)  # fmt: skip
CAPTION = re.compile(rf"(?:image|img|photo)?({'|'.join(KINDS)})s?(?:text|str)?s?(?:\d*|one|two|three|four|five)")
SPLIT = re.compile("(?:data)?(?:split|set|subset|partition)(?:name)?")


class Entry(NamedTuple):
    """Captions of a photo, and where they are in the file; `split` is None if the file has none."""

    where: str
    name: str
    captions: list
    split: str | None = None


class Columns(NamedTuple):
    """The columns of the photo's name, its captions and its split (or None); `words`: the captions are lists of words.

    `names` and `splits` are all columns that may have the name and the split, `path` the one that may have its folder.
    """

    name: int
    captions: tuple
    split: int | None = None
    words: bool = False
    names: tuple = ()
    splits: tuple = ()
    path: int | None = None

    def of(self, values):
        """These columns for a line with these values: of several names or splits, the first that looks like one."""
        here = {i: value.strip() for i, value in enumerate(values) if isinstance(value, str)}
        names = [i for i in self.names if PHOTO.fullmatch(here.get(i, "")) and not leads_out(here[i])]
        splits = [i for i in self.splits if here.get(i, "").lower() in SPLIT_NAMES]
        return self._replace(
            name=names[0] if names else self.name, split=splits[0] if splits and self.split is None else self.split
        )

    def named(self, values):
        """The photo's name in the values of a line. As in Karpathy's records, a column of paths may have only its folder."""
        name, folder = values[self.name], values[self.path] if self.path is not None and self.path < len(values) else None
        if self.path == self.name or not isinstance(name, str) or not isinstance(folder, str):
            return name
        if leads_out(folder) or PHOTO.fullmatch(folder.strip()):
            return name
        return posixpath.join(folder.strip(), name.strip())

    def told(self, keys):
        """Say which of the keys these are."""
        captions = [repr(keys[i]) for i in self.captions]
        said = f"photos in {keys[self.name]!r}, captions in {', '.join(captions[:5] + ['...'] * (len(captions) > 5))}"
        return said if self.split is None else f"{said}, splits in {keys[self.split]!r}"


@lru_cache
def columns_of(keys, nameless=False):
    """Find the Columns by their names; None if there are no captions or, unless `nameless`, no names of photos."""
    plain = [re.sub(r"[\W_]", "", key).lower() for key in keys]
    names = sorted(
        (i for i, key in enumerate(plain) if NAME.fullmatch(key)),
        key=lambda i: (plain[i] == "id", plain[i].endswith("id"), "file" not in plain[i]),
    )
    kinds = [(found := CAPTION.fullmatch(key)) and found[1] for key in plain]
    if not any(kinds) or not (names or nameless):
        return None
    kind = next(kind for kind in KINDS if kind in kinds)
    captions = tuple(i for i, other in enumerate(kinds) if other == kind)
    splits = tuple(i for i, key in enumerate(plain) if SPLIT.fullmatch(key))
    path = plain.index("filepath") if "filepath" in plain and "filename" in plain else None
    names.sort(key=lambda i: i == path)
    return Columns(
        names[0] if names else None, captions, plain.index("split") if "split" in plain else None,
        kind in ("token", "word"), tuple(names), splits, path,
    )  # fmt: skip


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
        header = _with_unnamed(header, keys, rows)
        header = header.of(rows[0][1]) if rows else header
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
        said = [cell for i, cell in enumerate(cells)
                if (i in columns.captions or i >= layout.width) and not MISSING.fullmatch(cell)]  # fmt: skip
        if doubt := _doubt(said, layout, lines[number - 1]):
            raise InputError(f"{where}: {doubt}")
        try:
            said = [caption for cell in said for caption in of_cell(cell, columns.words)]
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None
        if len(said) > 1 and not several:
            several = f"; several captions on a line, as the {len(said)} on line {number}, belong to its photo"
        name = columns.named(cells).strip()
        name = COUNTED.fullmatch(name)[1] if layout.counted else name
        split = None if columns.split is None else "".join(cells[columns.split : columns.split + 1])
        entries.append(Entry(f"line {number}", name, said or [""], split))
    told = layout.told(path, keys if header else None)
    if several:
        told = (told or f"a table with {MARKS[mark][1]} between its cells") + several
    return entries, told


def _with_unnamed(header, keys, rows):
    """The Columns of a header, with the columns without a title behind its captions, if they have text: a spreadsheet may
    have a title above the first caption only."""
    plain = [re.sub(r"[\W_]", "", key).lower() for key in keys]
    more = [i for i in range(header.captions[0] + 1, len(keys)) if i not in header.captions and UNNAMED.fullmatch(plain[i])]
    used = [i for i in more if any(len(cells) > i and not MISSING.fullmatch(cells[i]) for _, cells in rows)]
    return header._replace(captions=tuple(sorted((*header.captions, *used))))


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


def of_cell(cell, words):
    """The captions in a cell: one, or those of a list as JSON, Python and NumPy write it.

    Raises: ValueError for what begins like a list and is none.
    """
    if not LIST.match(cell):
        return captions_in(cell, words)
    with suppress(ValueError, RecursionError):
        return captions_in(json.loads(cell), words)
    try:
        value = ast.literal_eval(cell.strip())
        value = list(value) if isinstance(value, tuple | set) else value
        tokens = tokenize.generate_tokens(io.StringIO(cell.strip()).readline)
        texts = [ast.literal_eval(token.string) for token in tokens if token.type == tokenize.STRING]
    except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
        raise ValueError("it is not a list as JSON or Python writes it") from None
    # NumPy writes no commas: ['A dog' 'Two dogs'], which Python reads as one text
    numpys = isinstance(value, list) and all(isinstance(text, str) for text in value) and len(texts) > len(value)
    return captions_in(texts if numpys else value, words)


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
    sure = layout.columns.names and spaced == marks  # a header says how many captions there are
    if layout.mark in ";," and len(cells) > 1 and '"' not in line and spaced and not sure:
        return f"it may have {MARKS[layout.mark][0]} inside of a caption; put this caption in quotation marks"
    return None
