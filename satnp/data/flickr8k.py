"""Flickr8k (Hodosh, Young and Hockenmaier, 2013) in its official layout.

    ROOT/Flicker8k_Dataset/NAME.jpg
    ROOT/Flickr8k_text/Flickr8k.token.txt                             NAME.jpg#k <tab> sentence
    ROOT/Flickr8k_text/Flickr_8k.{trainImages,devImages,testImages}.txt
"""

import os
from pathlib import Path

from satnp.data.captions import tokenise
from satnp.data.split import Split
from satnp.errors import InputError

LISTS = {"train": "Flickr_8k.trainImages.txt", "val": "Flickr_8k.devImages.txt", "test": "Flickr_8k.testImages.txt"}


def load_split(root, split):
    """The `split` ("train", "val" or "test") of the Flickr8k in the folder `root`, as a Split.

    Only this split's list, captions and photos need to be there; anything else is passed over. A caption without a
    word is left out (the official train and validation captions have none).
    Raises: InputError when a file or a photo is missing or a file is not in the official form.
    """
    if split not in LISTS:
        raise InputError(f"there is no split {split!r} of Flickr8k: choose one of {', '.join(LISTS)}")
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"there is no folder {root}: give the folder that holds Flicker8k_Dataset and Flickr8k_text")
    names = [line.strip() for line in _lines(root / "Flickr8k_text" / LISTS[split]) if line.strip()]
    if not names or len(set(names)) < len(names):
        raise InputError(f"{LISTS[split]} is empty or names a photo twice: it must have each photo's name on a line")
    captions = _read_captions(root / "Flickr8k_text" / "Flickr8k.token.txt", names)
    _require(names, {name for name in names if captions[name]}, "captions in Flickr8k.token.txt", split)
    folder = root / "Flicker8k_Dataset"
    _require(names, set(os.listdir(folder)) if folder.is_dir() else (), f"a photo in {folder}", split)
    return Split(tuple(names), tuple(captions[name] for name in names), tuple(folder / name for name in names))


def _read_captions(path, names):
    captions = {name: [] for name in names}
    for number, line in enumerate(_lines(path), 1):
        label, tab, sentence = line.partition("\t")
        name, hash_sign, _ = label.rpartition("#")
        if line.strip() and not (tab and hash_sign):
            raise InputError(f"line {number} of {path} is {line[:60]!r}: it must be NAME.jpg#k, a tab and a sentence")
        words = tokenise(sentence) if name in captions else []
        if words:
            captions[name].append(words)
    return captions


def _lines(path):
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}): put Flickr8k's official text file there") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: put Flickr8k's official text file there") from error


def _require(names, present, what, split):
    missing = [name for name in names if name not in present]
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(names)} {split} photos (the first is {missing[0]}) are without {what}: "
            "add what is missing"
        )
