"""The kinds of data that --data can name, and where each kind has its files in the folder --root.

    scenes      no files: the scenes are rendered
    moving_scenes  the same with clips, in which something moves
    flickr8k    Flickr8k_text/Flickr8k.token.txt, Flickr8k_text/Flickr_8k.{trainImages,devImages,testImages}.txt,
                Flicker8k_Dataset/; or Kaggle's copy: captions.txt, Images/
    flickr30k   results_20130124.token or results.csv, flickr30k-images/ (or flickr30k_images/)
    coco        annotations/captions_{train,val}*.json; the photos of captions_X.json are in X/
    karpathy    dataset_*.json; the photos are at the filepath and filename that it gives
    folder      captions.{tsv,json,jsonl,csv,txt} or metadata.{jsonl,csv}; the photos are at the names that it gives, in the
                folder itself or in one folder in it, such as Images/

--captions FILE names another captions file, in any form that data.forms reads. The splits come from the captions file, or
from the lists train.txt, val.txt and test.txt in the folder, with one photo name per line. Without either, the names are
sorted by their SHA-256: the first tenth (at most 5,000) is val, the next tenth is test, and all others are train. COCO's
test captions are not public, so all of captions_train is train, one half of captions_val (at most 5,000) is val, and the
other half is test.
"""

from collections import Counter
from contextlib import suppress
from hashlib import sha256
from itertools import combinations
from os.path import isfile
from pathlib import Path
from posixpath import normpath
from typing import NamedTuple

from satnp.data import moving_scenes, scenes
from satnp.data.captions import MAX_WORDS, tokenise
from satnp.data.forms import SPLITS, read_captions, read_names, say_once
from satnp.data.names import files_below, hint, leads_out, some
from satnp.data.split import Split, readable, warn_of_copies
from satnp.data.tables import SPLIT_NAMES
from satnp.errors import InputError
from satnp.files import there
from satnp.terminal import complain

SCENES = {"train": 5500, "val": 500, "test": 500}
CLIPS = {"train": 4000, "val": 500, "test": 500}
HELD_OUT = 5000  # largest number of photos in val or test, where _deal chooses them


class _Source(NamedTuple):
    """Where a split is: its captions file, the folder of its photos, its list of names or None, and `parts` of _deal.

    The folder is None if it is found by the names in the captions file, which is then that of all splits.
    """

    path: Path
    folder: Path | None
    listed: list | None
    parts: int | None


def load_split(kind, split, root=None, seed=0, captions=None):
    """Load the `split` of the data of `kind` -> Split, as load_splits does."""
    return load_splits(kind, (split,), root, seed, captions)[split]


def load_splits(kind, which, root=None, seed=0, captions=None, skip_bad=False, notes=None):
    """Load the splits `which` (of train, val and test) of the data of `kind` (one of KINDS) -> {split: Split}

    `root` is the folder with the files of the data set, `captions` a captions file that replaces the usual one; `seed` is
    the seed of the scenes. If a split has a list of its own, only the captions and photos of that list must exist. A
    caption that consists of punctuation only is left out. With `skip_bad`, photos that have no captions, are missing or
    cannot be read are left out, and split.readable notes the latter two in the folder `notes`; a line to stderr names each.
    If train is loaded with another split, a line to stderr says how many photos of several splits have equal bytes.
    Raises: InputError when a photo is in two splits, a file or a photo is missing, or a file has invalid content.
    """
    if kind not in KINDS:
        raise InputError(f"there is no data of kind {kind!r}: choose one of {', '.join(KINDS)}")
    for split in which:
        if split not in SPLITS:
            raise InputError(f"there is no split {split!r} of {kind}: choose one of {', '.join(SPLITS)}")
    if kind in RENDERED:
        if root is not None or captions is not None:
            raise InputError(f"--data {kind} draws its photos and reads no files; leave out --root and --captions")
        return {split: RENDERED[kind](split, seed) for split in which}
    if root is None:
        raise InputError(f"--data {kind} needs its folder; give it with --root DIR")
    root = Path(root)
    if not there(root, Path.is_dir):
        raise InputError(f"there is no folder {root}: give the one that holds the files of {kind}")
    sources = {split: _Source(*LAYOUTS[kind](root, split, captions and Path(captions))) for split in which}
    files = {}
    for path, folder, *_ in sources.values():
        if path not in files:
            files[path] = read_captions(path)
            _refuse_outside(files[path][0], path, folder or root)
    for split in set(SPLITS) - set(which):
        with suppress(InputError):  # a split that is not loaded need not have its files
            sources[split] = _Source(*LAYOUTS[kind](root, split, captions and Path(captions)))
    if None in (source.folder for source in sources.values()):
        ((sentences, *_),) = files.values()
        folder = _folder_of_photos(root, list(sentences))
        sources = {split: source._replace(folder=folder) for split, source in sources.items()}
    names = {split: _names(kind, split, source, files) for split, source in sources.items()}
    places = {split: (sources[split].folder, names[split]) for split in SPLITS if names.get(split)}
    _refuse_shared(places, root)
    loaded = {}
    for split in which:
        loaded[split] = _load(split, sources[split], names[split], files[sources[split].path], root, skip_bad)
        if skip_bad:
            loaded[split] = readable(loaded[split], notes)
    if {"train"} < set(which):
        photos = {split: [folder / name for name in found] for split, (folder, found) in places.items()}
        warn_of_copies(photos | {split: found.photos for split, found in loaded.items()})
    return loaded


def _scenes(split, seed):
    return _rendered(scenes.make_scenes(SCENES[split], split, seed), "image")


def _clips(split, seed):
    return _rendered(moving_scenes.make_clips(CLIPS[split], split, seed), "frames")


def _rendered(drawn, pixels):
    """The Split of scenes or clips, whose attribute `pixels` is the photo or the clip."""
    return Split(
        tuple(x.name for x in drawn),
        tuple([tokenise(caption) for caption in x.captions] for x in drawn),
        tuple(getattr(x, pixels) for x in drawn),
        tuple(drawn),
    )


def _names(kind, split, source, files):
    """The names of `split` in their order; None if only a captions file that was not read could tell them."""
    _refuse_outside(source.listed or (), f"the list of {split}", source.folder)
    if source.path not in files:
        return source.listed
    sentences, splits, _ = files[source.path]
    if splits:
        if source.listed is not None:
            say_once(f"the splits are those of {source.path}; the lists train.txt, val.txt and test.txt are not used")
        return [name for name in sentences if splits[name] == split]
    if kind == "karpathy":
        raise InputError(
            f"{source.path} does not say which photos are {split}: give a dataset_*.json, or choose --data folder"
        )
    if source.listed is None:
        return _deal(list(sentences), split, source.parts)
    # Flickr30k's lists name the photos without .jpg
    return [f"{name}.jpg" if f"{name}.jpg" in sentences else name for name in source.listed]


def _load(split, source, names, file, root, skip_bad):
    """Make the Split of `names`. With `skip_bad`, those without captions are left out, but not those without a photo."""
    (sentences, splits, ids), path, folder = file, source.path, source.folder
    # _deal chooses among all names
    checked = names if skip_bad or splits or source.listed is not None else list(sentences)
    words = {name: _words(name, sentences.get(name, ()), path) for name in checked}
    silent = [name for name in checked if not words[name]]
    _require(checked, silent, f"no captions in {path}", lambda: sentences, skip_bad)
    absent = [name for name in checked if not isfile(folder / name)]
    _require(checked, absent, f"no file in {folder}", lambda: files_below(root, folder), skip_bad)
    for name in silent:
        complain(f"skipped: {some([name])} has no captions in {path}")
    names = [name for name in names if words[name]]
    if not names:
        what = "captions of at least three photos, or a list for " + split
        what = f"some photos this split in {path.name}" if splits else what
        raise InputError(f"{path} has no photos for {split}: give {what}")
    return Split(
        tuple(names),
        tuple(words[name] for name in names),
        tuple(folder / name for name in names),
        ids=ids and tuple(ids[name] for name in names),
        skipped=len(silent),
    )


def _words(name, sentences, path):
    captions = [tokenise(sentence) for sentence in sentences]
    for k, (sentence, words) in enumerate(zip(sentences, captions, strict=True), 1):
        if not sentence.strip() or len(words) > MAX_WORDS:
            seen = f"has {len(words)} words" if words else "is empty"
            raise InputError(f"caption {k} of {name} in {path} {seen}: give 1 to {MAX_WORDS} words, or remove the caption")
    return [words for words in captions if words]


def _require(names, missing, what, there, skip_bad):
    """Raise InputError if any of the `names` is `missing`, or with `skip_bad` if all are; there() gives those that exist."""
    if missing and (not skip_bad or len(missing) == len(names)):
        near = hint(missing, names, there())
        what += f"; {near}: write both alike" if near else ": add what is missing"
        what += ", or leave photos out with --skip-bad" if len(missing) < len(names) else ""
        count = f"{len(missing)} of the {len(names)} photos (the first is "
        raise InputError(f"{count}{some(missing, count + what)}) have {what}")


def _refuse_outside(names, where, folder):
    """Raise InputError if a name in the file `where` is no place inside the folder."""
    for name in names:
        if leads_out(name):
            raise InputError(f"{where} names {some([name])}, which is not inside {folder}: name the photos in that folder")


def _refuse_shared(places, root):
    """Raise InputError if two of the splits {split: (folder, names)} have a photo in common, or one has it twice.

    A name that is written in two ways is the same photo; two files of one name in two folders are not.
    """
    found = {split: {normpath(name): name for name in names} for split, (_, names) in places.items()}
    for split, (_, names) in places.items():
        if len(found[split]) < len(names):
            twice, _ = Counter(map(normpath, names)).most_common(1)[0]
            raise InputError(f"{root} has {some([twice])} twice in {split}: name each photo once")
    for a, b in combinations(places, 2):
        (one, _), (other, _) = places[a], places[b]
        both = [x for x in found[a] if x in found[b] and (one == other or not isfile(one / x) or not isfile(other / x))]
        if both:
            raise InputError(
                f"{a} and {b} of {root} have {len(both)} of their photos in common (the first is {some(both)}): "
                "put each photo into one split only"
            )


def _deal(names, split, parts):
    """Choose the names of `split`, in their order: of `parts` equal parts, one is val, one is test, the others are train."""
    held = min(HELD_OUT, -(-len(names) // parts)) if parts > 1 else 0
    dealt = sorted(names, key=lambda name: sha256(name.encode()).digest())
    chosen = set({"val": dealt[:held], "test": dealt[held : 2 * held], "train": dealt[2 * held :]}[split])
    return [name for name in names if name in chosen]


def _listed(root, split):
    """Read the list of names of `split`; None if the folder has no lists."""
    lists = [f"{name}.txt" for name in SPLITS if (root / f"{name}.txt").exists()]
    if lists and f"{split}.txt" not in lists:
        raise InputError(f"{root} has {lists[0]}, but no {split}.txt: give a list of each split, or remove {lists[0]}")
    if lists:
        return read_names(root / f"{split}.txt")
    others = sorted(path.name for path in root.glob("*.[tT][xX][tT]") if path.stem.lower() in SPLIT_NAMES)
    if others:
        say_once(
            f"{others[0]} in {root} is not read, and satnp chooses the splits; call the lists train.txt, val.txt, test.txt",
            "warning",
        )
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


# one function per kind -> the values of a _Source


def _flickr8k(root, split, path):
    text, own = root / "Flickr8k_text", (root / "captions.txt").is_file()
    if own and not text.is_dir():
        say_once(
            f"{root} is read as Kaggle's copy of Flickr8k, without the official splits: a tenth of the photos is "
            "val, a tenth is test; for the official splits put Flickr_8k.*Images.txt into Flickr8k_text"
        )
        return _folder(root, split, path)
    part = {"train": "train", "val": "dev", "test": "test"}[split]
    names = read_names(text / f"Flickr_8k.{part}Images.txt")
    token = text / "Flickr8k.token.txt"
    photos = root / ("Images" if own and not (root / "Flicker8k_Dataset").is_dir() else "Flicker8k_Dataset")
    return path or (root / "captions.txt" if own and not token.is_file() else token), photos, names, None


def _flickr30k(root, split, path):
    path = path or _find(root, "results_20130124.token", "results.csv", "captions.txt")
    names = ("flickr30k-images", "flickr30k_images", "Images")
    photos = next((root / name for name in names if (root / name).is_dir()), root)
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
    path = path or _find(root, *FOLDER)
    return path, None, _listed(root, split), 10


def _folder_of_photos(root, names):
    """`root` if it has photos of these names, else the folder in it that has the most of them."""
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir())
    sample = names[:: -(-len(names) // 100)]
    found = {folder: sum(isfile(folder / name) for name in sample) for folder in (root, *folders)}
    if found.pop(root) or not any(found.values()):
        return root
    best, *others = [folder for folder in folders if found[folder] == max(found.values())]
    if others:
        raise InputError(
            f"{root} has the photos in {best.name} and in {others[0].name}: give one of them with --root and the captions "
            "with --captions"
        )
    return best


FOLDER = (
    "captions.tsv", "captions.json", "captions.jsonl", "captions.csv", "captions.txt", "metadata.jsonl", "metadata.csv"
)  # fmt: skip
LAYOUTS = {"flickr8k": _flickr8k, "flickr30k": _flickr30k, "coco": _coco, "karpathy": _karpathy, "folder": _folder}
RENDERED = {"scenes": _scenes, "moving_scenes": _clips}
KINDS = (*RENDERED, *LAYOUTS)
