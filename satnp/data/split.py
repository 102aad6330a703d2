"""One split of any data set, as training, evaluation and the feature store see it."""

import sys
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from satnp.encoders.photos import read_photo
from satnp.errors import InputError
from satnp.files import lock, read_json, write_json


class Split(NamedTuple):
    """Photos in a fixed order: their names, each one's captions (lists of words), and each photo as read_photo takes it.

    `scenes` holds the data.scenes.Scene of each photo where there is one, so that looking can be scored; `ids` COCO's
    number of each photo where the captions file has them.
    """

    names: tuple
    captions: tuple
    photos: tuple
    scenes: tuple | None = None
    ids: tuple | None = None

    @property
    def digest(self):
        """A name for exactly these photos in this order, whatever is in them."""
        return sha256("\n".join(self.names).encode()).hexdigest()[:8]

    @property
    def contents(self):
        """The same, with how large each photo's file is, or its pixels where it is no file."""
        digest = sha256(self.digest.encode())
        for photo in self.photos:
            digest.update(photo.tobytes() if isinstance(photo, np.ndarray) else b"%d " % Path(photo).stat().st_size)
        return digest.hexdigest()[:8]


def readable(split, folder=None):
    """The split without the photos that cannot be read; stderr gets a line about each.

    With a `folder`, its photos-DIGEST.json remembers them, so that a training that is resumed, or is run once more on
    the features kept there, leaves out the same.
    Raises: InputError when none can be read.
    """
    note = folder and Path(folder) / f"photos-{split.digest}.json"
    bad = note and _noted(read_json(note), split)
    where = "" if bad is None else f" (noted in {note})"
    if bad is None:
        with lock(note.with_suffix(".lock"), wait=True) if note else nullcontext():  # two trainings may share the folder
            bad = note and _noted(read_json(note), split)
            if bad is None:
                bad = _unreadable(split)
                if note:
                    write_json(note, {"photos": len(split.names), "bad": bad})
    for reason in bad.values():
        print(f"satnp: skipped: {reason}{where}", file=sys.stderr)
    rows = [row for row, name in enumerate(split.names) if name not in bad]
    if not rows:
        raise InputError(f"none of the {len(bad)} photos from {split.names[0]} on can be read; give whole photos")
    return Split(*(field and tuple(field[row] for row in rows) for field in split))


def _unreadable(split):
    """{name: reason} of the photos that cannot be read."""
    from tqdm import tqdm  # a quarter of the time of `satnp --help`

    bad = {}
    for name, photo in zip(split.names, tqdm(split.photos, desc="reading", unit="photo"), strict=True):
        try:
            read_photo(photo)
        except InputError as error:
            bad[name] = str(error)
    return bad


def _noted(note, split):
    """{name: reason} of a note that is whole and about these photos, else None."""
    match note:
        case {"photos": int(photos), "bad": dict(bad)} if photos == len(split.names) and bad.keys() <= set(split.names):
            return bad
    return None
