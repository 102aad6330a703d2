"""The split of a data set, as training, evaluation and the feature store use it."""

from contextlib import nullcontext
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from satnp.encoders.photos import read_photo
from satnp.errors import InputError
from satnp.files import lock, read_json, write_json
from satnp.terminal import complain


class Split(NamedTuple):
    """Photos in a fixed order: names, captions of each photo (lists of words), and the photos as `read_photo` takes them.

    `scenes` has the data.scenes.Scene of each photo, for the scores of attention, or is None. `ids` has COCO's image ids,
    or is None if the captions file has none.
    """

    names: tuple
    captions: tuple
    photos: tuple
    scenes: tuple | None = None
    ids: tuple | None = None

    @property
    def digest(self):
        """Hash of the photo names in their order."""
        return sha256("\n".join(self.names).encode()).hexdigest()[:8]

    @property
    def contents(self):
        """Hash of `digest` and of the size of each photo's file, or of the pixels if the photo is not a path."""
        digest = sha256(self.digest.encode())
        for photo in self.photos:
            path = isinstance(photo, str | PathLike)
            digest.update(b"%d " % Path(photo).stat().st_size if path else read_photo(photo).tobytes())
        return digest.hexdigest()[:8]


def readable(split, folder=None):
    """Return the split without the photos that cannot be read, and print a line about each of those to stderr.

    With a `folder`, its file photos-DIGEST.json records them, so that a resumed training, or another training with the
    features in this folder, leaves out the same photos.
    Raises: InputError when no photo can be read.
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
    return Split(*(field and tuple(field[row] for row in rows) for field in split))


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
