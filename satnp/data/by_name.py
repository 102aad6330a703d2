"""Files of other programs with a row for each photo: region features, and guidance vectors. Both are .npz files.

    regions     names (n,), features (n, k, D), boxes (n, k, 4): x1, y1, x2, y2 in pixels of the photo, mask (n, k): 1 for a
                region and 0 for none, because photos may have fewer than k regions; for neural_baby_talk also classes (C,),
                the words of each class with commas between them, and the last C features are the class probabilities
    guidance    names (n,), vectors (n, G)

The row of a photo has the photo's name as in the captions file, or this name without folder and ending, or COCO's image id.
Rows of other photos are ignored.
"""

from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from satnp.captioners.glstm import guidance_rows
from satnp.data.features import annotate
from satnp.data.names import hint, some
from satnp.errors import InputError
from satnp.files import Pickled, map_npz, refusing, there

CHUNK = 256  # photos that are checked at a time
NUMBERS, NAMES = "fiu", "USiu"  # kinds of dtypes
TEXTS = {name: f"{name} of a text type, for example np.array({name}, dtype=str)" for name in ("names", "classes")}
ROUNDING = 0.01  # of a sum of probabilities, which may be float16
NOT_FINITE = "has {} of {{}} that are not finite numbers; make this row again"


class Table(NamedTuple):
    """The arrays of a file, and the row of each name in it."""

    path: Path
    rows: dict
    arrays: dict

    def rows_of(self, names, ids=None):
        """The rows of photos: names, and their COCO ids if known -> (N,). Raises InputError if a photo has none."""
        found = []
        for n, name in enumerate(names):
            also = [name, PurePosixPath(name).stem, *([] if ids is None else [str(ids[n])])]
            found.append(next((self.rows[key] for key in also if key in self.rows), None))
        missing = [name for name, row in zip(names, found, strict=True) if row is None]
        if missing:
            near = hint(missing, names, self.rows)
            raise InputError(
                f"{self.path} has no row for {len(missing)} of the {len(names)} photos (the first is {some(missing)}); "
                f"{f'{near}: write both alike' if near else 'add what is missing'}"
            )
        owners = {}
        for name, row in zip(names, found, strict=True):
            if owners.setdefault(row, name) != name:
                both = f"{owners[row]} and for {name}"
                raise InputError(f"{self.path} has one row for {both}; give each a row with the photo's whole name")
        return np.array(found, int)


class Regions(NamedTuple):
    """The regions of the photos in a file, read when they are asked for."""

    table: Table

    @property
    def sizes(self):
        """(k, D)"""
        return self.table.arrays["features"].shape[1:]

    @property
    def classes(self):
        """The words of each class: C texts. Raises: InputError when the file has no classes."""
        return tuple(_read(self.table.path, {"classes": ("C",)}).arrays["classes"])

    def of(self, names, ids=None, classes=()):
        """The features of photos (N, k, D), 0 where there is no region: names, and COCO ids if known -> RegionFeatures

        classes: those whose probabilities are the last features.
        Raises: InputError when a photo has no row or no region, a mask is not 0 or 1, a number is not finite, the box of a
        region is empty, the file has other classes, or the probabilities of classes do not sum to 1.
        """
        if classes and self.classes != classes:
            raise InputError(
                f"{self.table.path} has the classes {some(self.classes)}, but the model reads {some(classes)}; give a file "
                "with the same classes in the same order"
            )
        found = RegionFeatures(self.table.arrays["features"], self.table.arrays["mask"], self.table.rows_of(names, ids))
        for start in tqdm(range(0, len(names), CHUNK), desc="checking regions", leave=False, disable=None):
            x, rows = found[start : start + CHUNK], found.rows[start : start + CHUNK]
            of, mask, boxes = (names[start:], self.table.path), self.table.arrays["mask"][rows], self.boxes(rows)
            odd = (mask != 0) & (mask != 1)
            _refuse(odd, "has a mask of {} with other values than 0 and 1; give 1 for a region and 0 for none", *of)
            _refuse(~np.isfinite(x), NOT_FINITE.format("features"), *of)
            _refuse(~np.isfinite(boxes), NOT_FINITE.format("boxes"), *of)
            there = x.any(axis=2)
            _refuse(~there.any(axis=1), "has no region of {} with features; give at least one", *of)
            for a, b, low, high in ((0, 2, "x1", "x2"), (1, 3, "y1", "y2")):
                empty = there & (boxes[..., b] <= boxes[..., a])
                _refuse(empty, f"has boxes of {{}} with {high} <= {low}; give x1, y1, x2, y2 in pixels of the photo", *of)
            if classes:
                P = x[..., -len(classes) :].astype(np.float32)
                odd = there & ((P < 0).any(axis=2) | (abs(P.sum(axis=2) - 1) > ROUNDING))
                _refuse(odd, "has last features of {} that are not class probabilities; let them sum to 1", *of)
        return found

    def boxes(self, rows):
        """(N, k, 4), 0 where there is no region"""
        return np.where(self.table.arrays["mask"][rows][..., None] != 0, self.table.arrays["boxes"][rows], 0)


class RegionFeatures:
    """The region features of N photos: x[i] are those of photos i (n, k, D), a new array with 0 where there is no region."""

    def __init__(self, features, mask, rows):
        self.features, self.mask, self.rows = features, mask, rows
        self.nbytes = 0 if isinstance(features, np.memmap) else len(rows) * features[:1].nbytes

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, photos):
        rows = self.rows[photos]
        return np.where(self.mask[rows][..., None] != 0, self.features[rows], 0).astype(self.features.dtype, copy=False)


class Guidance(NamedTuple):
    """The guidance vectors of the photos in a file."""

    table: Table

    @property
    def size(self):
        """G"""
        return self.table.arrays["vectors"].shape[1]

    def of(self, names, ids=None):
        """The vectors of photos (N, G). Raises: InputError when a photo has no row, or a number is not finite."""
        vectors = np.asarray(self.table.arrays["vectors"][self.table.rows_of(names, ids)], np.float32)
        _refuse(~np.isfinite(vectors), NOT_FINITE.format("vectors"), names, self.table.path)
        return vectors


class Guided:
    """Annotations with the guidance of N photos behind them: x[i] are those of photos i (n, L + R, D).

    `features` (N, L, D) are those of the photos, memory-mapped; None: the model computes them when they are asked for.
    """

    def __init__(self, model, photos, vectors, features=None):
        self.model, self.photos, self.features = model, photos, features
        self.guidance = guidance_rows(vectors, model.config.D)
        self.nbytes = self.guidance.nbytes  # the features are memory-mapped

    def __len__(self):
        return len(self.guidance)

    def __getitem__(self, photos):
        seen = annotate(self.model, self.photos[photos]) if self.features is None else self.features[photos]
        return np.concatenate([seen, self.guidance[photos]], axis=1)


def read_regions(path):
    """Read the .npz file `path` -> Regions"""
    return Regions(_read(path, {"features": ("n", "k", "D"), "boxes": ("n", "k", 4), "mask": ("n", "k")}))


def read_guidance(path):
    """Read the .npz file `path` -> Guidance"""
    return Guidance(_read(path, {"vectors": ("n", "G")}))


def _read(path, shapes):
    """Read a file with names (n,) and the arrays `shapes` {name: its axes} -> Table"""
    path, sizes = Path(path), {}
    if not there(path):
        raise InputError(f"there is no file {path}; give an .npz file with names, {', '.join(shapes)}")
    wanted = {"names": ("n",), **shapes}
    with refusing(f"{path} is not a complete .npz file", "make it again"):
        try:
            arrays = map_npz(path, wanted)
        except Pickled as error:
            give = TEXTS.get(error.name, "numbers")
            raise InputError(f"{path} has Python objects in {error.name}; give {give}") from None
    for name, axes in wanted.items():
        said = f"give {name} with shape ({', '.join(map(str, axes))})"
        if name not in arrays:
            raise InputError(f"{path} has no array {name!r}; {said}")
        x = arrays[name]
        kinds = NAMES if name in TEXTS else NUMBERS + "b" * (name == "mask")
        if x.dtype.kind not in kinds or x.dtype.hasobject:
            raise InputError(f"{path} has {name} of type {x.dtype}; give {TEXTS.get(name, 'numbers')}")
        fits = x.ndim == len(axes) and all(
            size == axis if isinstance(axis, int) else size == sizes.setdefault(axis, size)
            for size, axis in zip(x.shape, axes, strict=True)
        )
        if not fits or 0 in x.shape:
            known = "".join(f", {axis} = {sizes[axis]}" for axis in axes if axis in sizes)
            raise InputError(f"{path} has {name} with shape {x.shape}; {said}{known}")
    for name in TEXTS.keys() & arrays.keys():
        try:
            arrays[name] = [x.decode() if isinstance(x, bytes) else str(x) for x in arrays[name]]
        except (UnicodeDecodeError, SystemError):  # NumPy raises SystemError for a number that is no character
            raise InputError(f"{path} has {name} that are not text; give {TEXTS[name]}") from None
    names = arrays.pop("names")
    rows = {name: row for row, name in enumerate(names)}
    if len(rows) < len(names):
        twice = next(name for row, name in enumerate(names) if rows[name] != row)
        raise InputError(f"{path} has two rows for {twice}; give one row for each photo")
    return Table(path, rows, arrays)


def _refuse(bad, sentence, names, path):
    """Raise InputError for the first photo of `bad` (n, ...) with a true value; its name is put in place of {}."""
    bad = bad.reshape(len(bad), -1).any(axis=1)
    if bad.any():
        raise InputError(f"{path} {sentence.format(names[int(bad.argmax())])}")
