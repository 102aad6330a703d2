"""Read captions files, in these forms:

    *.json                {name: [captions]}, Karpathy's dataset_*.json or COCO's captions_*.json, told apart by their keys
    *.token, *.token.txt  name#k <tab> sentence, as in Flickr8k and Flickr30k
    *.csv                 name| k| sentence, as in the results.csv of Flickr30k
    any other             name <tab> caption
"""

import json
import re
from pathlib import PurePath

from satnp.errors import InputError

SPLITS = ("train", "val", "test")


def read_captions(path):
    """Read a captions file -> ({photo name: [sentence]} in file order, {name: split} or None, {name: id} or None)

    Splits and ids are None if the file has none; the ids are COCO's image ids, which coco-caption's files use.
    Raises: InputError when the file cannot be read, has none of the forms above, or has no captions.
    """
    text = read_text(path)
    captions, splits, ids = _from_json(text, path) if path.suffix == ".json" else (_from_lines(text, path), None, None)
    if not any(captions.values()):
        raise InputError(f"{path} has no captions: give a file with at least one for each photo")
    return captions, splits, ids


def read_names(path):
    """Read the photo names in a split list, one per line."""
    names = [line.strip() for line in read_text(path).split("\n") if line.strip()]
    if not names or len(set(names)) < len(names):
        raise InputError(f"{path} is empty or names a photo twice: write one photo name per line, each name once")
    return names


def read_text(path):
    """Read a UTF-8 text file, with or without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}): put that file there, or name another") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None


_TAB = re.compile(r"(?P<name>[^\t]+)\t(?P<sentence>.*)"), "a photo's name, a tab and a caption"
_TOKEN = re.compile(r"(?P<name>[^\t]+)#\d+\t(?P<sentence>.*)"), "NAME.jpg#k, a tab and a sentence"
# Flickr30k's public file lacks the second bar once, after 2199200615.jpg| 4
_BARS = re.compile(r"(?P<name>[^|]+)\|\s*\d+\s*\|?(?P<sentence>.*)"), "NAME.jpg| k| and a sentence"


def _from_lines(text, path):
    pattern, form = _BARS if path.suffix == ".csv" else _TOKEN if ".token" in path.suffixes else _TAB
    captions = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or (path.suffix == ".csv" and number == 1 and line.startswith("image_name")):
            continue
        found = pattern.fullmatch(line)
        if not found:
            raise InputError(f"line {number} of {path} is {line[:60]!r}: it must be {form}")
        captions.setdefault(found["name"].strip(), []).append(found["sentence"])
    return captions


def _from_json(text, path):
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}): give a complete file") from None
    if isinstance(data, dict) and isinstance(data.get("images"), list):
        form = _from_coco if "annotations" in data else _from_karpathy
    elif isinstance(data, dict) and all(isinstance(sentences, list) for sentences in data.values()):
        form = _from_names
    else:
        raise InputError(
            f"{path} is JSON of another form: give {{name: [captions]}}, Karpathy's dataset_*.json or COCO's captions_*.json"
        )
    try:
        captions, splits, ids = form(data, path)
    except (KeyError, TypeError, AttributeError) as error:
        seen = f"an entry has no {error}" if isinstance(error, KeyError) else "an entry has the wrong type"
        raise InputError(f"{path} does not have the form of {form.__doc__} ({seen}): give a complete file") from None
    for name, sentences in captions.items():
        if not all(isinstance(x, str) and x.encode(errors="ignore").decode() == x for x in (name, *sentences)):
            raise InputError(f"{path} has a name or a caption that is not text, at {name!r}: give strings")
    return captions, splits, ids


def _from_names(data, path):
    """{name: [captions]}"""
    return data, None, None


def _from_karpathy(data, path):
    """Karpathy's dataset_*.json"""
    captions, splits, ids = {}, {}, {}
    for image in data["images"]:
        name = "/".join(filter(None, (image.get("filepath"), image["filename"])))
        captions.setdefault(name, []).extend(sentence["raw"] for sentence in image["sentences"])
        if "cocoid" in image:
            ids[name] = image["cocoid"]
        splits[name] = image["split"].replace("restval", "train")
        if splits[name] not in SPLITS:
            raise InputError(f"{path} has {name} in the split {image['split']!r}: give train, restval, val or test")
    return captions, splits, ids if len(ids) == len(captions) else None


def _from_coco(data, path):
    """COCO's captions_*.json"""
    names = {image["id"]: image["file_name"] for image in data["images"]}
    captions = {name: [] for name in names.values()}
    for annotation in data["annotations"]:
        if annotation["image_id"] not in names:
            raise InputError(f"{path} has a caption for image {annotation['image_id']}, which it does not list: list it")
        captions[names[annotation["image_id"]]].append(annotation["caption"])
    return captions, None, {name: i for i, name in names.items()}


def read_images(path):
    """Read the photos that a file of COCO lists (image_info_*.json, or one with captions) -> {photo name: image id}

    Raises: InputError when the file is none of COCO, lists no photos, or lists a photo or an id twice.
    """
    try:
        images = json.loads(read_text(path))["images"]
        found = {str(image["file_name"]): int(str(image["id"])) for image in images}
        if not found or len(set(found.values())) < len(images):
            raise ValueError("it lists no photos, or one of them twice")
        if outside := [name for name in found if PurePath(name).is_absolute() or ".." in PurePath(name).parts]:
            raise ValueError(f"{outside[0]} is not a name in a folder")
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not a list of COCO's photos ({error}); give an image_info_*.json, or photos") from None
    return found


def image_id(name):
    """The id of a photo in files of results: the number in COCO's names (COCO_val2014_000000000042.jpg, or the last part
    alone), otherwise the name without folder and ending."""
    number = re.fullmatch(r"(?:COCO_\w+_)?(\d{12})", PurePath(name).stem)
    return int(number[1]) if number else PurePath(name).stem
