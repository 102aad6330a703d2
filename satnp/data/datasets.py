"""The kinds of data that --data can name, and where each kind has its files in the folder --root.

    scenes      no files: the scenes are rendered
    flickr8k    Flickr8k_text/Flickr8k.token.txt, Flickr8k_text/Flickr_8k.{trainImages,devImages,testImages}.txt,
                Flicker8k_Dataset/
    flickr30k   results_20130124.token or results.csv, flickr30k-images/ (or flickr30k_images/)
    coco        annotations/captions_{train,val}*.json; the photos of captions_X.json are in X/
    karpathy    dataset_*.json; the photos are at the filepath and filename that it gives
    folder      captions.tsv or captions.json; the photos are at the names that it gives

--captions FILE names another captions file, in any form that data.forms reads. The splits come from the captions file, or
from the lists train.txt, val.txt and test.txt in the folder, with one photo name per line. Without either, the names are
sorted by their SHA-256: the first tenth (at most 5,000) is val, the next tenth is test, and all others are train. COCO's
test captions are not public, so all of captions_train is train, one half of captions_val (at most 5,000) is val, and the
other half is test.
"""

from hashlib import sha256
from pathlib import Path

from satnp.data import scenes
from satnp.data.captions import MAX_WORDS, tokenise
from satnp.data.forms import SPLITS, read_captions, read_names
from satnp.data.split import Split
from satnp.errors import InputError
from satnp.files import there

SCENES = {"train": 5500, "val": 500, "test": 500}
HELD_OUT = 5000  # largest number of photos in val or test, where _deal chooses them


def load_split(kind, split, root=None, seed=0, captions=None):
    """Load the `split` (train, val or test) of the data of `kind` (one of KINDS) -> Split.

    `root` is the folder with the files of the data set, `captions` a captions file that replaces the usual one; `seed` is
    the seed of the scenes. If the split has a list of its own, only the captions and photos of that list must exist. A
    caption that consists of punctuation only is left out.
    Raises: InputError when a file or a photo is missing, or a file has invalid content.
    """
    if kind not in KINDS:
        raise InputError(f"there is no data of kind {kind!r}: choose one of {', '.join(KINDS)}")
    if split not in SPLITS:
        raise InputError(f"there is no split {split!r} of {kind}: choose one of {', '.join(SPLITS)}")
    if kind == "scenes":
        if root is not None or captions is not None:
            raise InputError("--data scenes draws its photos and reads no files; leave out --root and --captions")
        drawn = scenes.make_scenes(SCENES[split], split, seed)
        return Split(
            tuple(scene.name for scene in drawn),
            tuple([tokenise(caption) for caption in scene.captions] for scene in drawn),
            tuple(scene.image for scene in drawn),
            tuple(drawn),
        )
    if root is None:
        raise InputError(f"--data {kind} needs its folder; give it with --root DIR")
    root = Path(root)
    if not there(root, Path.is_dir):
        raise InputError(f"there is no folder {root}: give the one that holds the files of {kind}")
    path, folder, names, parts = LAYOUTS[kind](root, split, captions and Path(captions))
    sentences, splits, ids = read_captions(path)
    if splits:
        names = [name for name in sentences if splits[name] == split]
    elif kind == "karpathy":
        raise InputError(f"{path} does not say which photos are {split}: give a dataset_*.json, or choose --data folder")
    elif names is not None:  # Flickr30k's lists name the photos without .jpg
        names = [f"{name}.jpg" if f"{name}.jpg" in sentences else name for name in names]
    checked = list(sentences) if names is None else names  # _deal chooses among all names
    words = {name: _words(name, sentences.get(name, ()), path) for name in checked}
    _require(checked, {name for name in checked if words[name]}, f"no captions in {path}")
    _require(checked, {name for name in checked if there(folder / name)}, f"no file in {folder}")
    if names is None:
        names = _deal(checked, split, parts)
    if not names:
        raise InputError(f"{path} has no photos for {split}: give captions of at least three photos, or a list for {split}")
    return Split(
        tuple(names),
        tuple(words[name] for name in names),
        tuple(folder / name for name in names),
        ids=ids and tuple(ids[name] for name in names),
    )


def _words(name, sentences, path):
    captions = [tokenise(sentence) for sentence in sentences]
    for k, (sentence, words) in enumerate(zip(sentences, captions, strict=True), 1):
        if not sentence.strip() or len(words) > MAX_WORDS:
            seen = f"has {len(words)} words" if words else "is empty"
            raise InputError(f"caption {k} of {name} in {path} {seen}: give 1 to {MAX_WORDS} words, or remove the caption")
    return [words for words in captions if words]


def _require(names, present, what):
    missing = [name for name in names if name not in present]
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(names)} photos (the first is {missing[0]}) have {what}: add what is missing"
        )


def _deal(names, split, parts):
    """Choose the names of `split`, in their order: of `parts` equal parts, one is val, one is test, the others are train."""
    held = min(HELD_OUT, -(-len(names) // parts)) if parts > 1 else 0
    dealt = sorted(names, key=lambda name: sha256(name.encode()).digest())
    chosen = set({"val": dealt[:held], "test": dealt[held : 2 * held], "train": dealt[2 * held :]}[split])
    return [name for name in names if name in chosen]


def _listed(root, split):
    """Read the list of names of `split`; None if the folder has no lists."""
    if any((root / f"{name}.txt").exists() for name in SPLITS):
        return read_names(root / f"{split}.txt")
    return None


def _find(root, *patterns):
    """Find the file in `root` that matches the first pattern with a match; two matches are an error."""
    for pattern in patterns:
        found = sorted(root.glob(pattern))
        if len(found) > 1:
            raise InputError(f"{root} has {found[0].name} and {found[1].name}: choose one with --captions FILE")
        if found:
            return found[0]
    raise InputError(f"there is no {' or '.join(patterns)} in {root}: put it there, or name one with --captions FILE")


# one function per kind -> (captions file, folder of the photos, names in the list of the split or None, `parts` of _deal)


def _flickr8k(root, split, path):
    text = root / "Flickr8k_text"
    part = {"train": "train", "val": "dev", "test": "test"}[split]
    names = read_names(text / f"Flickr_8k.{part}Images.txt")
    return path or text / "Flickr8k.token.txt", root / "Flicker8k_Dataset", names, None


def _flickr30k(root, split, path):
    path = path or _find(root, "results_20130124.token", "results.csv")
    photos = next((root / name for name in ("flickr30k-images", "flickr30k_images") if (root / name).is_dir()), root)
    return path, photos, _listed(root, split), 10


def _coco(root, split, path):
    parts = 10
    if path is None:
        path = _find(root, f"annotations/captions_{'train' if split == 'train' else 'val'}*.json")
        parts = 1 if split == "train" else 2
    photos = root / path.stem.removeprefix("captions_")
    return path, photos if photos.is_dir() else root, _listed(root, split), parts


def _karpathy(root, split, path):
    return path or _find(root, "dataset_*.json"), root, None, None


def _folder(root, split, path):
    return path or _find(root, "captions.tsv", "captions.json"), root, _listed(root, split), 10


LAYOUTS = {"flickr8k": _flickr8k, "flickr30k": _flickr30k, "coco": _coco, "karpathy": _karpathy, "folder": _folder}
KINDS = ("scenes", *LAYOUTS)
