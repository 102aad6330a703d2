"""Read captions files. A file is read as what its content looks like; unless that is one of the first forms, a line says so.

    name <tab> caption     one caption on each line
    name#k <tab> sentence  *.token and *.token.txt, as in Flickr8k and Flickr30k
    name| k| sentence      *.csv, as in the results.csv of Flickr30k
    JSON                   {name: [captions]}, Karpathy's dataset_*.json and COCO's captions_*.json

    tables                 cells with tabs, bars, semicolons or commas between them, with or without a header. Several
                           captions on a line are several captions of its photo. A line that can be read in two ways is
                           refused.
    records                a JSON list, JSON lines, {"train": records, ...}, or columns, as pandas writes them
    {name: caption}        JSON

Columns of a header and keys of a record have names such as image and caption, or file_name and text (NAME and CAPTION in
data.tables); `split` has the split. In JSON a caption may be a list of words, as Karpathy's `tokens` where `raw` is missing;
these words stay as they are.
"""

import codecs
import json
import re
from collections import Counter
from functools import cache
from pathlib import PurePath

from satnp.data.captions import Words, tokenise
from satnp.data.names import leads_out
from satnp.data.tables import (
    BETWEEN_CAPTIONS,
    COUNTED,
    MISSING,
    PHOTO,
    SPLIT_NAMES,
    Entry,
    captions_in,
    columns_of,
    of_cell,
    read_table,
)
from satnp.errors import InputError
from satnp.files import refusing
from satnp.terminal import complain

SPLITS = ("train", "val", "test")
BYTE_ORDER_MARKS = {  # that of UTF-32 starts with that of UTF-16
    codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16",
}  # fmt: skip
NO_TEXT = {  # how files begin that people give for a table, and what they are
    b"PK\x03\x04": "an Excel workbook or another ZIP file", b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"PAR1": "a Parquet file", b"ARROW1": "an Arrow file", b"\x1f\x8b": "a gzip file", b"SQLite": "a database",
    b"%PDF": "a PDF", b"\x89HDF": "an HDF5 file", b"\x93NUMPY": "an array of NumPy",
}  # fmt: skip
NAMES = "{name: [captions]}"
# thirteen letters of Thai, Lao, Burmese, Khmer, Japanese or Chinese, which are written without spaces between words
GLUED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]{13}")


def read_captions(path):
    """Read a captions file -> ({photo name: [sentence]} in file order, {name: split} or None, {name: id} or None)

    Splits and ids are None if the file has none; the ids are COCO's image ids, which coco-caption's files use. A sentence
    that the file has as a list of words is a `captions.Words`.
    Raises: InputError when the file cannot be read, has none of the forms above, or has no captions.
    """
    text, ids = read_text(path), None
    named = path.suffix.lower() in (".json", ".jsonl", ".ndjson")
    if (data := _json(text, path, named)) is not None:
        entries, ids, form = _from_json(*data, path)
    else:
        entries, form = read_table(text, path)
    captions, splits = _gather(entries, path)
    sentences = [sentence for said in captions.values() for sentence in said]
    if not sentences:
        raise InputError(f"{path} has no captions: give a file with at least one for each photo")
    if form:
        say_once(f"{path} is read as {form}")
    _warn_of_missing_spaces(sentences, path)
    return captions, splits, ids


def read_names(path):
    """Read the photo names in a split list, one per line."""
    names = [line.strip() for line in read_text(path).split("\n") if line.strip()]
    if not names or len(set(names)) < len(names):
        raise InputError(f"{path} is empty or names a photo twice: write one photo name per line, each name once")
    return names


def read_text(path):
    """Read a text in UTF-8, or in UTF-16 or UTF-32 with a byte order mark. Line ends become line feeds."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}): put that file there, or name another") from None
    for mark, kind in NO_TEXT.items():
        if content.startswith(mark):
            raise InputError(f"{path} is {kind}, which is no text: save it as CSV or JSON in UTF-8, and give that file")
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "UTF-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not {encoding} text (byte {error.start}): save it as UTF-8") from None
    if "\0" in text:
        raise InputError(f"{path} is not {encoding} text (it has the character NUL): save it as UTF-8")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


@cache
def say_once(text, begin="satnp"):
    """Print a line to stderr, unless this process has printed it before."""
    complain(text, begin)


def _warn_of_missing_spaces(sentences, path):
    """Warn if most captions are one word to satnp, or have a part without spaces that is too long for one."""
    sample = sentences[:: -(-len(sentences) // 1000)]
    glued = [sentence for sentence in sample if (words := tokenise(sentence))
             and (len(words) == 1 or len(sentence.split()) == 1 or any(map(GLUED.search, words)))]  # fmt: skip
    if len(glued) > len(sample) / 2:
        say_once(
            f"most captions in {path} are one word to satnp, as {glued[0][:40]!r} is; write spaces between words, "
            "or give each caption as a list of words in JSON", "warning",
        )


def _gather(entries, path):
    """Collect the entries -> ({name: [sentence]}, {name: split} or None)"""
    captions, splits = {}, {}
    for where, name, sentences, split in entries:
        if not all(isinstance(x, str) and x.encode(errors="ignore").decode() == x for x in (name, *sentences)):
            raise InputError(f"{path} has a name or a caption that is not text, at {name!r}: give strings")
        if split is not None:
            said, split = split, SPLIT_NAMES.get(str(split).strip().lower())
            if split is None:
                raise InputError(f"{path} has {name} in the split {said!r}: give train, restval, val or test")
        if splits.setdefault(name, split) != split:
            raise InputError(
                f"{path} has {name} in the split {splits[name]} and, in {where}, in {split}: give each photo one split"
            )
        captions.setdefault(name, []).extend(sentences)
    if any(splits.values()) and None in splits.values():
        name = next(name for name, split in splits.items() if split is None)
        raise InputError(f"{path} gives a split to some photos, but not to {name}: give each photo one split")
    return captions, splits if any(splits.values()) else None


def _json(text, path, named):
    """The value of a JSON text, and whether it has a value on each line; None for another text, unless `named` JSON."""
    if not named and not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text, object_pairs_hook=_object), False
    except InputError as error:
        raise InputError(f"{path} {error}") from None
    except (ValueError, RecursionError) as error:
        values = []
        for number, line in enumerate(text.split("\n"), 1):
            try:
                values += [json.loads(line, object_pairs_hook=_object)] if line.strip() else []
            except (ValueError, RecursionError) as wrong:
                if values:
                    raise InputError(f"line {number} of {path} is not JSON ({wrong}): give a complete file") from None
                break
        if values:
            return values, True
        if named:
            raise InputError(f"{path} is not JSON ({error}): give a complete file") from None
        return None


def _object(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise InputError(f"has {key!r} twice in one object: write it once, with a list of all that belongs to it")
    return found


def _from_json(data, lines, path):
    """[Entry], {name: id} or None, the form in words or None"""
    form, images = _from_records, isinstance(data, dict) and data.get("images")
    if isinstance(images, list) and "annotations" in data:
        form = _from_coco
    elif isinstance(images, list) and any(isinstance(image, dict) and "sentences" in image for image in images):
        form = _from_karpathy
    try:
        entries, ids, told = form(data, path)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        seen = f"an entry has no {error}" if isinstance(error, KeyError) else "an entry has the wrong type"
        raise InputError(f"{path} does not have the form of {form.__doc__} ({seen}): give a complete file") from None
    words = any(isinstance(sentence, Words) for entry in entries for sentence in entry.captions)
    if words and not told:
        told = form.__doc__ if form is not _from_records else NAMES
    kind = "JSON lines of" if lines else "JSON,"
    return entries, ids, told and f"{kind} {told}" + "; lists of words stay as they are" * words


def _from_karpathy(data, path):
    """Karpathy's dataset_*.json"""
    entries, ids, owners = [], {}, {}
    for k, image in enumerate(data["images"], 1):
        name = "/".join(filter(None, (image.get("filepath"), image["filename"])))
        said = captions_in(image["sentences"])
        if any(isinstance(sentence, dict) for sentence in said):
            raise KeyError("raw")
        entries.append(Entry(f"image {k}", name, said, image.get("split")))
        if "cocoid" in image and owners.setdefault(_number(image["cocoid"]), name) != name:
            names = f"{owners[_number(image['cocoid'])]} and for {name}"
            raise InputError(f"{path} has the id {image['cocoid']} for {names}: give each photo an id of its own")
        if "cocoid" in image and ids.setdefault(name, image["cocoid"]) != image["cocoid"]:
            raise InputError(f"{path} has {name} with the ids {ids[name]} and {image['cocoid']}: give each photo one id")
    return entries, _of_one_type(ids) if len(ids) == len({entry.name for entry in entries}) else None, None


def _from_coco(data, path):
    """COCO's captions_*.json"""
    names, ids, entries = {}, {}, []
    for image in data["images"]:
        key, name = _number(image["id"]), image["file_name"]
        if type(key) not in (int, str):
            raise InputError(f"{path} has {name} with the id {key!r}: give a number or a text")
        if names.setdefault(key, name) != name:
            raise InputError(f"{path} has the id {key} for {names[key]} and for {name}: give each photo an id of its own")
        if _number(ids.setdefault(name, image["id"])) != key:
            raise InputError(f"{path} has {name} with the ids {ids[name]} and {image['id']}: give each photo one id")
        entries.append(Entry(f"image {key}", name, []))
    for annotation in data["annotations"]:
        key = _number(annotation["image_id"])
        if key not in names:
            raise InputError(f"{path} has a caption for image {annotation['image_id']}, which it does not list: list it")
        said = annotation["caption"]
        entries.append(Entry(f"image {key}", names[key], captions_in([said] if isinstance(said, list) else said)))
    same = _of_one_type(ids, [annotation["image_id"] for annotation in data["annotations"]])
    told = None if same == ids else "COCO's captions_*.json; ids that are text and ids that are numbers are the same"
    return entries, same, told


def _number(i):
    """The number 17 for "17" and 17.0; other ids stay as they are."""
    if isinstance(i, str) and i.strip().isdecimal() and len(i) < 20 or isinstance(i, float) and i.is_integer():
        return int(i)
    return i


def _of_one_type(ids, others=()):
    """The ids {name: id}; as numbers, if these and the other ids are both numbers and text."""
    same = {type(i) for i in (*ids.values(), *others)} in ({int}, {str}, set())
    return ids if same else {name: _number(i) for name, i in ids.items()}


def _from_records(data, path):
    """records with the name of a photo and its captions"""
    found = list(_entries(data, path))
    entries, told = [entry for entry, _ in found], next((form for _, form in found if form), None)
    counted = [COUNTED.fullmatch(entry.name) if isinstance(entry.name, str) else None for entry in entries]
    if entries and all(counted):
        entries = [entry._replace(name=name[1]) for entry, name in zip(entries, counted, strict=True)]
        told = f"{told or NAMES}; #k behind the names is left out"
    return entries, None, told


def _entries(data, path, split=None, where=None):
    """Yield (Entry, form in words, or None for NAMES) of records, [name, caption], {name: captions} and {split: these}.

    `where` says which entry of a list `data` is, and is None for the whole file.
    """
    columns = columns_of(tuple(data)) if isinstance(data, dict) and len(data) < 100 else None  # more keys are photos
    if isinstance(data, list) and where is None:
        for k, value in enumerate(data, 1):
            yield from _entries(value, path, split, f"entry {k}")
    elif isinstance(data, list) and len(data) > 1:
        yield Entry(where, data[0], captions_in(data[1:]), split), "lists [name, caption]"
    elif not isinstance(data, dict):
        raise InputError(
            f"{path} is JSON of another form: give {NAMES}, Karpathy's dataset_*.json or COCO's captions_*.json, or records "
            "of image and caption"
        )
    elif where is None and isinstance(data.get("columns"), list) and isinstance(data.get("data"), list):  # pandas' "split"
        if any(len(row) != len(data["columns"]) for row in data["data"]):
            raise InputError(f"{path} has rows of several lengths: give rows of one length")
        yield from _entries([dict(zip(data["columns"], row, strict=True)) for row in data["data"]], path, split)
    elif columns and where is None and isinstance([*data.values()][columns.name], list | dict):
        table = [[*x.values()] if isinstance(x, dict) else x for x in data.values()]
        if len({len(x) for x in table}) > 1:
            raise InputError(f"{path} has columns of several lengths: give columns of one length")
        yield from _entries([dict(zip(data, row, strict=True)) for row in zip(*table, strict=True)], path, split)
    elif columns:
        yield _record(data, path, split, where or "entry 1")
    elif data and all(key.strip().lower() in SPLIT_NAMES and isinstance(x, list | dict) for key, x in data.items()):
        for key, value in data.items():
            yield from _entries(value, path, key)
    elif where is None and (records := _only_list(data)):
        yield from _entries(records, path, split)
    elif where is None or all(map(PHOTO.fullmatch, data)):
        for name, value in data.items():
            place = f"the entry {name!r}"
            numbered = isinstance(value, dict) and value and all(key.isdecimal() for key in value)
            if isinstance(value, dict) and not numbered:
                yield _record(value, path, split, place, name)
            elif isinstance(value, str):
                yield Entry(place, name, _several(value, path, place), split), "{name: caption}"
            elif numbered:
                said = _each(captions_in([*value.values()]), path, place)
                yield Entry(place, name, said, split), "{name: {number: caption}}"
            else:
                yield Entry(place, name, _each(captions_in(value), path, place), split), NAMES if split else None
    else:
        yield _record(data, path, split, where)


def _only_list(data):
    """The list of records in an object that has one such list, under a key that is not the name of a photo; or None."""
    lists = [value for key, value in data.items() if isinstance(value, list) and value and isinstance(value[0], dict)
             and not PHOTO.fullmatch(key) and (len(data) == 1 or columns_of(tuple(value[0])))]  # fmt: skip
    return lists[0] if len(lists) == 1 else None


def _record(record, path, split, where, name=None):
    """(Entry, form in words) of a record. `name`: its key in the file, which names the photo if the record does not."""
    columns = columns_of(tuple(record)) or name and columns_of(tuple(record), nameless=True)
    if not columns:
        keys = ", ".join(record)[:80]
        raise InputError(f"{where} of {path} has the keys {keys!r}: call its photo's name image, and its caption caption")
    values = [*record.values()]
    columns = columns.of(values)
    named = columns.name is not None and not (name and PHOTO.fullmatch(name))
    name = columns.named(values) if named else name
    if isinstance(name, int | float):
        raise InputError(f"{where} of {path} names its photo with the number {name}: give the name of the photo's file")
    said = []
    for value in (values[i] for i in columns.captions):
        if isinstance(value, str) and not columns.words:
            said += _several(value, path, where) if not MISSING.fullmatch(value) or len(columns.captions) == 1 else []
        elif len(columns.captions) == 1 or value is not None and value == value:  # pandas writes null or NaN for none
            said += _each(captions_in(value, columns.words), path, where)
    split = split if columns.split is None else values[columns.split]
    form = f"records: {columns.told(tuple(record))}" if named else "{name: record}"
    return Entry(where, name, said, split), form


def _each(captions, path, where):
    """The captions of a list, of which each string must be one caption; those that stand for none are left out."""
    for text in captions:
        if isinstance(text, str) and not isinstance(text, Words) and BETWEEN_CAPTIONS.search(text.strip()):
            raise InputError(f"{where} of {path} may have several captions in {text[:40]!r}: give each as a text of its own")
    return [text for text in captions if not (len(captions) > 1 and isinstance(text, str) and MISSING.fullmatch(text))]


def _several(text, path, where):
    """The captions in one string: one, or those of a list as JSON, Python and NumPy write it."""
    try:
        return _each(of_cell(text, False), path, where)
    except ValueError as error:
        raise InputError(f"{where} of {path} has {text[:40]!r}: {error}") from None


def read_images(path):
    """Read the photos that a file of COCO lists (image_info_*.json, or one with captions) -> {photo name: image id}

    Raises: InputError when the file is none of COCO, lists no photos, or lists a photo or an id twice.
    """
    text = read_text(path)
    with refusing(f"{path} is not a list of COCO's photos", "give an image_info_*.json, or photos"):
        images = json.loads(text)["images"]
        found = {image["file_name"]: _number(image["id"]) for image in images}
        if odd := [i for name, i in found.items() if not isinstance(name, str) or type(i) is not int]:
            raise ValueError(f"the photo with the id {odd[0]!r} must have an id that is a number, and a name that is text")
        if not found or len(set(found.values())) < len(images):
            raise ValueError("it lists no photos, or one of them twice")
        if outside := [name for name in found if leads_out(name)]:
            raise ValueError(f"{outside[0]} is not a name in a folder")
    return found


def image_id(name):
    """The id of a photo in files of results: the number in COCO's names (COCO_val2014_000000000042.jpg, or the last part
    alone), otherwise the name without folder and ending."""
    number = re.fullmatch(r"(?:COCO_\w+_)?(\d{12})", PurePath(name).stem)
    return int(number[1]) if number else PurePath(name).stem
