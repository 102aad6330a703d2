"""The split of a data set, as training, evaluation and the feature store use it."""

import hashlib
import os
from contextlib import nullcontext, suppress
from hashlib import sha256
from os import PathLike
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

import numpy as np

from satnp.encoders.photos import read_photo
from satnp.errors import InputError
from satnp.files import lock, read_json, write_json
from satnp.terminal import complain


class Split(NamedTuple):
    """Photos in a fixed order: names, captions of each photo (lists of words), and the photos as `read_photo` takes them, or
    clips as `encoders.clips.read_clip` does.

    `scenes` has the data.scenes.Scene of each photo or the data.moving_scenes.Clip of each clip, for their scores, or is
    None. `ids` has COCO's image ids, or is None if the captions file has none. `skipped` is the number of photos that were
    left out.
    """

    names: tuple
    captions: tuple
    photos: tuple
    scenes: tuple | None = None
    ids: tuple | None = None
    skipped: int = 0

    @property
    def digest(self):
        """Hash of the photo names in their order."""
        return sha256("\n".join(self.names).encode()).hexdigest()[:8]

    @property
    def contents(self):
        """Hash of `digest` and of the size of each photo's file, or of the pixels if the photo is not a path."""
        digest = sha256(self.digest.encode())
        for photo in self.photos:
            if isinstance(photo, str | PathLike):
                digest.update(b"%d " % Path(photo).stat().st_size)
            else:  # pixels, of a photo or of a clip, or a photo in another form
                digest.update((photo if isinstance(photo, np.ndarray) else read_photo(photo)).tobytes())
        return digest.hexdigest()[:8]


def readable(split, folder=None):
    """Return the split without the photos that cannot be read, and print a line about each of those to stderr.

    With a `folder`, its file photos-DIGEST.json records them, so that a resumed training, or another training with the
    features in this folder, leaves out the same photos.
    Raises: InputError when no photo can be read, or one is missing that was read when the file was written.
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
        complain(f"skipped: {reason}{where}")
    rows = [row for row, name in enumerate(split.names) if name not in bad]
    if not rows:
        raise InputError(f"none of the {len(bad)} photos can be read (the first is {split.names[0]}); give undamaged photos")
    kept = Split(
        *(x and tuple(x[row] for row in rows) for x in (split.names, split.captions, split.photos, split.scenes, split.ids)),
        split.skipped + len(bad),
    )
    paths = [photo for photo in kept.photos if isinstance(photo, str | os.PathLike)]
    if where and (gone := [path for path in paths if not os.path.isfile(path)]):
        raise InputError(f"{gone[0]} is missing, but was read when {note} was written: put it back, or remove that note")
    return kept


def _unreadable(split):
    """Read all photos -> {name: reason} of those that cannot be read."""
    from tqdm import tqdm  # imported here, because the import takes a quarter of the time of `satnp --help`

    bad = {}
    for name, photo in zip(split.names, tqdm(split.photos, desc="reading", unit="photo"), strict=True):
        try:
            read_photo(photo)
        except InputError as error:
            bad[name] = str(error)
    return bad


def _noted(note, split):
    """The {name: reason} in a note, or None if the note is not valid for these photos."""
    match note:
        case {"photos": int(photos), "bad": dict(bad)} if photos == len(split.names) and bad.keys() <= set(split.names):
            return bad
    return None


def warn_of_copies(photos):
    """Print a line to stderr if files of different splits have equal bytes: photos {split: paths}

    Only files of one size are opened, and only those that begin alike are read to their end.
    """
    groups = [[(split, path) for split, paths in photos.items() for path in paths]]
    for key in (_size, _beginning, _hash):
        groups = [part for group in groups for part in _alike(group, key) if len({split for split, _ in part}) > 1]
    if groups:
        (a, one), *others = groups[0]
        b, other = next((split, path) for split, path in others if split != a)
        complain(
            f"photos that are in several splits under other names, with equal bytes: {len(groups)} "
            f"({one.name} in {a} is {other.name} in {b}); remove the copies, or put them into one split",
            "warning",
        )


def _alike(group, key):
    """Divide the (split, path) of a group into lists with the same key(path), without those that have none."""
    parts = {}
    for split, path in group:
        with suppress(OSError, ValueError):  # missing, or not allowed to be read
            parts.setdefault(key(path), []).append((split, path))
    return parts.values()


def _size(path):
    found = path.stat()
    if not S_ISREG(found.st_mode):
        raise ValueError(f"{path} is no file")
    return found.st_size


def _beginning(path):
    with open(path, "rb") as file:
        return file.read(4096)


def _hash(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
