"""Captions files as people have them: what each is taken for, what is refused with its line, and what is said about it."""

import csv
import io
import json

import pytest

from satnp.data.captions import Words, tokenise
from satnp.data.datasets import load_split
from satnp.data.forms import read_captions, read_images
from satnp.errors import InputError
from tests.data.test_datasets import NAMES, PARTS, SAID, dealt, write_lists, write_photos

DOG, DOGS, CAT = "A dog , in a \"hat\" .", "Two dogs .", "A cat; it sleeps ."
WANTED = {"a.jpg": [DOG, DOGS], "b c.png": [CAT]}
PAIRS = [(name, said) for name, sentences in WANTED.items() for said in sentences]
WIDE = [[name, *sentences, *[""] * (2 - len(sentences))] for name, sentences in WANTED.items()]


def table(rows, mark=",", quoting=csv.QUOTE_MINIMAL, end="\n"):
    file = io.StringIO()
    csv.writer(file, delimiter=mark, quoting=quoting, lineterminator=end).writerows(rows)
    return file.getvalue()


def joined(rows, mark="\t"):
    return "".join(mark.join(row) + "\n" for row in rows)


def records(**keys):
    """The pairs as records with these keys for the photo's name and the caption."""
    return [dict(zip(keys.values(), pair, strict=True)) for pair in PAIRS]


HEADER = ("image", "caption")
IN = "photos in 'image', captions in 'caption'"
COMMAS = "is read as a table with commas between its cells"
RECORDS = records(image="image", caption="caption")
COLUMNS = dict(zip(HEADER, zip(*PAIRS, strict=True), strict=True))
LIST = {name: sentences if len(sentences) > 1 else sentences[0] for name, sentences in WANTED.items()}
# (file, content, words of the line about it)
FORMS = {
    "Kaggle's captions.txt": ("captions.txt", table([HEADER, *PAIRS]), f"{COMMAS} and a header: {IN}"),
    "a CSV without a header": ("captions.csv", table(PAIRS), COMMAS),
    "a CSV of quoted cells": ("captions.csv", table([HEADER, *PAIRS], quoting=csv.QUOTE_ALL), IN),
    "a CSV from Windows": ("captions.csv", "\ufeff" + table([HEADER, *PAIRS], end="\r\n"), IN),
    "a CSV in UTF-16": ("captions.csv", table([HEADER, *PAIRS]).encode("utf-16"), IN),
    "a TSV in UTF-16": ("captions.tsv", joined(PAIRS).encode("utf-16"), None),
    "semicolons": ("captions.csv", table([HEADER, *PAIRS], ";"), f"with semicolons between its cells and a header: {IN}"),
    "semicolons without a header": ("captions.csv", table(PAIRS, ";"), "with semicolons between its cells"),
    "spaces behind the commas": (
        "captions.txt", 'image_name, comment_number, comment\na.jpg, 0, "A dog , in a ""hat"" ."\na.jpg, 1, Two dogs .\n'
        "b c.png, 0, A cat; it sleeps .\n", "photos in 'image_name', captions in 'comment'",
    ),
    "pandas' index": (
        "captions.csv", table([("", *HEADER), *((k, *pair) for k, pair in enumerate(PAIRS))]), f"a header: {IN}",
    ),
    "numbers before the names": (
        "captions.csv", table((k, *pair) for k, pair in enumerate(PAIRS)), "photos in cell 2, captions from cell 3 on",
    ),
    "other columns": (
        "captions.csv", table([("id", "url", "Caption Text", "File-Name"), *((7, "http://x/y", c, n) for n, c in PAIRS)]),
        "photos in 'File-Name', captions in 'Caption Text'",
    ),
    "Hugging Face's metadata.csv": (
        "metadata.csv", table([("file_name", "text"), *PAIRS]), "'file_name', captions in 'text'",
    ),
    "columns of captions": (
        "captions.csv", table([("image", "caption_1", "caption_2"), *WIDE]),
        "captions in 'caption_1', 'caption_2'; several captions on a line, as the 2 on line 2, belong to its photo",
    ),
    "columns of captions without a header": ("captions.csv", table(WIDE), "as the 2 on line 1, belong to its photo"),
    "lines of several lengths, with quotation marks": (
        "captions.csv", "".join(table([(name, *said)], quoting=csv.QUOTE_ALL) for name, said in WANTED.items()),
        "as the 2 on line 1, belong to its photo",
    ),
    "more cells than the header, with quotation marks": (
        "captions.csv", '"image","caption"\n' + "".join(table([(n, *c)], quoting=csv.QUOTE_ALL) for n, c in WANTED.items()),
        "as the 2 on line 2, belong to its photo",
    ),
    "Excel's own first line": ("captions.csv", "sep=;\n" + table([HEADER, *PAIRS], ";"), "with semicolons"),
    "a list in a cell": (
        "captions.csv", table([("filename", "raw"), *((name, json.dumps(said)) for name, said in WANTED.items())]),
        "captions in 'raw'; several captions on a line, as the 2 on line 2",
    ),
    "a list of Python's in a cell": (
        "captions.csv", table((name, str(said)) for name, said in WANTED.items()), "the 2 on line 1",
    ),
    "a list of NumPy's in a cell": (
        "captions.csv", table([HEADER, ["a.jpg", f"[{DOG!r}\n {DOGS!r}]"], ["b c.png", f"[{CAT!r}]"]]), "the 2 on line 2",
    ),
    "Karpathy's sentences in a cell": (
        "captions.csv", table([("filename", "sentences"), *((n, str([{"raw": x, "tokens": ["a"]} for x in said]))
                                                            for n, said in WANTED.items())]), "the 2 on line 2",
    ),
    "a tuple in a cell": (
        "captions.csv", table([HEADER, *((name, str(tuple(said))) for name, said in WANTED.items())]), "the 2 on line 2",
    ),
    "several columns of names": (
        "captions.csv", table([("name", "path", "image", "caption"), *(("Bo", f"/x/{n}", n, c) for n, c in PAIRS)]), IN,
    ),
    "a TSV": ("captions.tsv", joined(PAIRS), None),
    "a TSV with a header": ("captions.tsv", joined([HEADER, *PAIRS]), f"with tabs between its cells and a header: {IN}"),
    "a spreadsheet's TSV": ("captions.tsv", table([HEADER, *PAIRS], "\t"), f"a header: {IN}"),
    "several captions on a line": (
        "captions.tsv", joined((name, *said) for name, said in WANTED.items()),
        "a table with tabs between its cells; several captions on a line, as the 2 on line 1, belong to its photo",
    ),
    "several captions on a line, and a header": (
        "captions.tsv", joined([HEADER, *((name, *said) for name, said in WANTED.items())]), "as the 2 on line 2",
    ),
    "empty cells behind the captions": ("captions.tsv", joined(WIDE).replace("\n", "\t\t\n"), "as the 2 on line 1"),
    "numbered captions in a TSV": (
        "captions.tsv", joined((n, "0", c) for n, c in PAIRS), "photos in cell 1, captions from cell 3 on",
    ),
    "a token file": ("x.token", joined((f"{name}#{k}", said) for k, (name, said) in enumerate(PAIRS)), None),
    "a token file by another name": (
        "captions.txt", joined((f"{n}#{k}", c) for k, (n, c) in enumerate(PAIRS)), "#k behind the names is left out",
    ),
    "several captions on a line of a token file": (
        "x.token", joined((f"{name}#0", *said) for name, said in WANTED.items()), "as the 2 on line 1, belong to its photo",
    ),
    "a TSV by the name of a token file": ("x.token", joined(PAIRS), "a table with tabs between its cells"),
    "bars": ("results.csv", joined(((n, " 0", f" {c}") for n, c in PAIRS), "|"), None),
    "bars without numbers": ("captions.txt", joined(PAIRS, "|"), "a table with bars between its cells"),
    "JSON of names": ("captions.json", json.dumps(WANTED), None),
    "one string for each name": ("captions.json", json.dumps(LIST), "is read as JSON, {name: caption}"),
    "records": ("captions.json", json.dumps(RECORDS), f"is read as JSON, records: {IN}"),
    "records of file names and texts": (
        "captions.json", json.dumps(records(name="file_name", caption="text")), "photos in 'file_name', captions in 'text'",
    ),
    "records with lists": (
        "captions.json", json.dumps([{"id": 3, "img": name, "sentences": said} for name, said in WANTED.items()]),
        "photos in 'img', captions in 'sentences'",
    ),
    "records of sentences": (
        "captions.json",
        json.dumps([{"filename": name, "sentences": [{"raw": x, "id": 0} for x in said]} for name, said in WANTED.items()]),
        "photos in 'filename', captions in 'sentences'",
    ),
    "records by name": (
        "captions.json", json.dumps({n: {"captions": said} for n, said in WANTED.items()}), "{name: record}",
    ),
    "numbered captions by name": (
        "captions.json", json.dumps({name: dict(enumerate(said)) for name, said in WANTED.items()}),
        "{name: {number: caption}}",
    ),
    "names with #k in JSON": (
        "captions.json", json.dumps({f"{n}#{k}": c for k, (n, c) in enumerate(PAIRS)}), "#k behind the names is left out",
    ),
    "records in an object": ("captions.json", json.dumps({"version": 1, "annotations": RECORDS}), IN),
    "records of images": ("captions.json", json.dumps({"images": RECORDS}), IN),
    "lists of a name and captions": (
        "captions.json", json.dumps([[n, *said] for n, said in WANTED.items()]), "[name, caption]",
    ),
    "columns of lists": ("captions.json", json.dumps(COLUMNS), IN),
    "pandas' columns": ("captions.json", json.dumps({key: dict(enumerate(x)) for key, x in COLUMNS.items()}), IN),
    "pandas' table": (
        "captions.json", json.dumps({"columns": HEADER, "index": [0, 1, 2], "data": PAIRS}), IN,
    ),
    "Karpathy's with plain sentences, without splits": (
        "dataset.json", json.dumps({"images": [{"filename": n, "sentences": said} for n, said in WANTED.items()]}), None,
    ),
    "records of TextCaps": (
        "captions.json", json.dumps({"type": "val", "data": records(name="image_path", caption="caption_str")}),
        "photos in 'image_path', captions in 'caption_str'",
    ),
    "records of references": (
        "captions.json", json.dumps([{"fname": n, "references": said} for n, said in WANTED.items()]), "in 'references'",
    ),
    "pandas' rows": ("captions.json", json.dumps(dict(enumerate(RECORDS))), IN),
    "JSON lines": (
        "captions.jsonl", "".join(json.dumps(x) + "\n" for x in RECORDS), f"is read as JSON lines of records: {IN}",
    ),
    "JSON lines by the name of JSON": ("captions.json", "\n".join(map(json.dumps, RECORDS)), "JSON lines of records"),
    "Hugging Face's metadata.jsonl": (
        "metadata.jsonl", "".join(json.dumps(x) + "\r\n" for x in records(name="file_name", caption="text")),
        "JSON lines of records: photos in 'file_name', captions in 'text'",
    ),
    "records in a text file": ("captions.txt", json.dumps(RECORDS, indent=1), IN),
}  # fmt: skip


def read(path, content, capsys):
    """(captions, splits, ids) and what is said about the file, which is said once."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found, err = read_captions(path), capsys.readouterr().err
    assert read_captions(path) == found and not capsys.readouterr().err
    return found, err


@pytest.mark.parametrize("what", FORMS)
def test_a_file_is_taken_for_what_it_is_and_a_line_says_so(tmp_path, capsys, what):
    file, content, words = FORMS[what]
    found, err = read(tmp_path / file, content, capsys)
    assert {name: [x.strip() for x in said] for name, said in found[0].items()} == WANTED and found[1:] == (None, None)
    if words is None:
        assert not err
    else:
        assert err.startswith(f"satnp: {tmp_path / file} is read as ") and words in err and err.count("\n") == 1


SPLIT = {"a.jpg": "train", "b c.png": "val"}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("captions.csv", table([("image", "split", "caption"), *((n, SPLIT[n], c) for n, c in PAIRS)])),
        ("captions.csv", table([(*HEADER, "set", "Subset Name"), *((n, c, 7, SPLIT[n]) for n, c in PAIRS)])),
        ("captions.tsv", joined([("split", *HEADER), *((SPLIT[n].upper(), n, c) for n, c in PAIRS)])),
        ("captions.json", json.dumps([{"image": n, "caption": c, "split": SPLIT[n]} for n, c in PAIRS])),
        ("captions.json", json.dumps({"train": RECORDS[:2], "validation": RECORDS[2:]})),
        ("captions.json", json.dumps({"train": {"a.jpg": [DOG, DOGS]}, "dev": {"b c.png": CAT}, "test": {}})),
        ("captions.jsonl", "\n".join(json.dumps({"split": SPLIT[n], "file_name": n, "text": c}) for n, c in PAIRS)),
    ],
)
def test_splits_in_the_file_are_those_of_the_photos(tmp_path, capsys, file, content):
    assert read(tmp_path / file, content, capsys)[0] == (WANTED, SPLIT, None)


def test_a_list_in_a_cell_may_have_the_escapes_of_json(tmp_path):
    (tmp_path / "captions.csv").write_text(table([HEADER, ["a.jpg", json.dumps(["A 🐕/dog"]).replace("/", "\\/")]]))
    assert read_captions(tmp_path / "captions.csv")[0] == {"a.jpg": ["A 🐕/dog"]}


def test_a_name_and_its_folder_in_two_columns_are_one_name(tmp_path, capsys):
    keys = ("filepath", "filename", "sentences", "split")
    rows = [("val2014", "a.jpg", [DOG], "val"), ("train2014", "a.jpg", [CAT], "train")]
    wanted = ({"val2014/a.jpg": [DOG], "train2014/a.jpg": [CAT]}, {"val2014/a.jpg": "val", "train2014/a.jpg": "train"}, None)
    lines = "\n".join(json.dumps(dict(zip(keys, row, strict=True))) for row in rows)
    assert read(tmp_path / "captions.jsonl", lines, capsys)[0] == wanted
    cells = table([keys, *((path, name, said, split) for path, name, (said,), split in rows)])
    assert read(tmp_path / "captions.csv", cells, capsys)[0] == wanted


# Every caption as a list of words: they are not changed

TOKENS = {"a.jpg": [["Ein", "Hund", ",", "rennt", "."], ["Hunde"]], "b c.png": [["一只", "猫"]]}
KARPATHY = [
    {"filename": name, "split": "train", "sentences": [{"tokens": words} for words in said]} for name, said in TOKENS.items()
]


@pytest.mark.parametrize(
    ("content", "form"),
    [
        ({"images": KARPATHY}, "JSON, Karpathy's dataset_*.json"),
        (TOKENS, "JSON, {name: [captions]}"),
        ([{"image": n, "tokens": words} for n, said in TOKENS.items() for words in said], "JSON, records: photos in"),
        ([{"image": n, "captions": said} for n, said in TOKENS.items()], "JSON, records: photos in 'image'"),
        ([{"image": n, "tokens": " ".join(words)} for n, said in TOKENS.items() for words in said], "captions in 'tokens'"),
        (
            {"images": [{"id": k, "file_name": name} for k, name in enumerate(TOKENS)],
             "annotations": [{"image_id": k, "caption": x} for k, said in enumerate(TOKENS.values()) for x in said]},
            "JSON, COCO's captions_*.json",
        ),
    ],
)  # fmt: skip
def test_ones_own_words_stay_as_they_are(tmp_path, capsys, content, form):
    (captions, *_), err = read(tmp_path / "captions.json", json.dumps(content), capsys)
    assert {name: [tokenise(x) for x in said] for name, said in captions.items()} == TOKENS
    assert all(isinstance(x, Words) for said in captions.values() for x in said)
    assert form in err and "; lists of words stay as they are\n" in err and err.count("\n") == 1


def test_karpathys_raw_sentences_come_before_his_tokens(tmp_path, capsys):
    images = [image | {"sentences": [{"raw": "A Dog.", "tokens": ["x"]}]} for image in KARPATHY]
    (captions, *_), err = read(tmp_path / "dataset_x.json", json.dumps({"images": images}), capsys)
    assert captions == {name: ["A Dog."] for name in TOKENS} and not err


def test_training_and_references_have_the_same_words(tmp_path):
    write_photos(tmp_path)
    said = {name: [["Ein", "Hund", str(k)]] for k, name in enumerate(NAMES)}
    (tmp_path / "captions.json").write_text(json.dumps(said))
    for split in PARTS:
        found = load_split("folder", split, tmp_path)
        assert list(found.captions) == [said[name] for name in found.names]


# What can be read in two ways, or in none: (file, content, words of the sentence)
TSV, TXT, CSV, JSON, JSONL = "captions.tsv", "captions.txt", "captions.csv", "captions.json", "captions.jsonl"
REFUSED = {
    "a comma in a caption": (
        TXT, "image,caption\na.jpg,A dog\nb.jpg,A cat, asleep\n", "line 3 of ", "quotation marks around a cell that",
    ),
    "a comma in a caption without a header": (
        CSV, "a.jpg,A dog\nb.jpg,A cat, asleep\nc.jpg,A cow\n", "line 2 of ", "a comma and a caption, with",
    ),
    "a comma in every caption": (
        CSV, "a.jpg,A dog, asleep\nb.jpg,A cat, asleep\n", "line 1 of ", "it may have a comma inside of a caption",
    ),
    "a comma and a space in every caption": (
        CSV, "a.jpg, A dog, asleep\nb.jpg, A cat, asleep\n", "line 1 of ", "it may have a comma inside of a caption",
    ),
    "a comma in a name": (
        CSV, "a.jpg,A dog\nb,1.jpg,A cat\nc.jpg,A cow\n", "line 2 of ", "it must be a photo's name, a comma",
    ),
    "commas in all names": (CSV, "a, 1.jpg,A dog\nb, 1.jpg,A cat\n", "line 1 of ", "'1.jpg' in the place of a caption"),
    "a semicolon in a caption": (
        CSV, "a.jpg;A dog\nb.jpg;A cat; asleep\n", "line 2 of ", "around a cell that has a semicolon",
    ),
    "a quotation mark that stays open": (CSV, 'a.jpg,A dog\nb.jpg,"A cat\nc.jpg,A cow\n', "line 2 of ", "quotation marks"),
    "a quotation mark that closes far below": (
        CSV, 'a.jpg,A dog\nb.jpg,"A cat\nc.jpg,A cow"\nd.jpg,A hen\n', "line 2 of ", "several captions in one cell",
    ),
    "quotation marks inside of a cell": (CSV, 'a.jpg,"A "big" dog"\n', "line 1 of ", "write those inside of it twice"),
    "two photos on a line": (TSV, "a.jpg\tA dog\tb.jpg\tA cat\n", "line 1 of ", "has 'b.jpg' in the place of a caption"),
    "a photo for a caption": (TSV, "a.jpg\tA dog\nc.jpg\tb.jpg\n", "line 2 of ", "has 'b.jpg' in the place of a caption"),
    "a number among captions": (
        TSV, "a.jpg\tA dog\nb.jpg\tA cat\t7\nc.jpg\tA cow\n", "line 2 of ", "it has '7' among its captions",
    ),
    "a split among captions": (TSV, "a.jpg\tA dog\tval\nb.jpg\tA cat\ttrain\n", "line 1 of ", "it has 'val' among its"),
    "a score among captions": (CSV, "a.jpg,A dog,0.9\nb.jpg,A cat,1\n", "line 1 of ", "it has '0.9' among its captions"),
    "an address among captions": (TSV, "a.jpg\tA dog\thttp://x.org/a\n", "line 1 of ", "'http://x.org/a' among its"),
    "a date among captions": (TSV, "a.jpg\tA dog\t2020-01-31\n", "line 1 of ", "it has '2020-01-31' among its"),
    "a language among captions": (TSV, "a.jpg\tpt-BR\tUm gato\n", "line 1 of ", "it has 'pt-BR' among its captions"),
    "half of a list": (TSV, "a.jpg\t['A dog', 'Two\n", "line 1 of ", "it is not a list as JSON or Python writes it"),
    "a header of unknown names": (
        CSV, "image,caption_en,caption_de\na.jpg,A dog,Ein Hund\n", "line 1 of ", "no names of columns that satnp knows",
    ),
    "captions in a ragged CSV": (CSV, "a.jpg,A dog\nb.jpg,A cat,A cow\n", "line 2 of ", "a comma and a caption, with"),
    "a merged cell": (TSV, "a.jpg\tA dog\n\tTwo dogs\n", "line 2 of ", "it must be a photo's name, a tab and a caption"),
    "captions with a bar between them": (
        TSV, "a.jpg\tA dog\nb.jpg\tA cat | A cow\n", "line 2 of ", "several captions in one cell",
    ),
    "sentences with a semicolon between them": (
        TSV, "b.jpg\tA cat . ; A cow .\n", "line 1 of ", "several captions in one cell",
    ),
    "lines in a cell": (CSV, 'image,caption\na.jpg,"A dog\nA cat"\n', "line 2 of ", "several captions in one cell"),
    "cells beyond a header's last": (
        TSV, "image\tcaption\turl\na.jpg\tA dog\tx\tTwo dogs\n", "line 2 of ", "it must be 3 cells with tabs between them"
    ),
    "a line without a number": (TSV, "a.jpg\t0\tA dog\nb.jpg\t0\tA cat\nc.jpg\tA cow\tTwo\n", "line 3 of ", "it must be"),
    "a line without #k": (
        TXT, "a.jpg#0\tA dog\na.jpg#1\tA cat\nb.jpg\tA cow\n", "line 3 of ", "NAME.jpg#k, a tab and a sentence",
    ),
    "a split that is none": (CSV, "image,caption,split\na.jpg,A dog,eval\n", "has a.jpg in the split 'eval': give train"),
    "no split": (CSV, "image,caption,split\na.jpg,A dog,\n", "has a.jpg in the split ''"),
    "a photo in two splits": (
        CSV, "image,caption,split\na.jpg,A dog,train\na.jpg,A cat,val\n", "a.jpg in the split train and, in line 3, in val",
    ),
    "splits of some photos": (
        JSON, '[{"image": "a.jpg", "caption": "A", "split": "val"}, {"image": "b.jpg", "caption": "A"}]',
        "gives a split to some photos, but not to b.jpg",
    ),
    "half of a line of JSON": (JSONL, '{"image": "a.jpg", "text": "A dog"}\n{"image": "b', "line 2 of ", "is not JSON ("),
    "a record without a caption": (
        JSON, '[{"image": "a.jpg", "captions": ["A"]}, {"image": "b.jpg"}]', "entry 2 of ", "'image'",
    ),
    "a record without a photo": (JSON, '[{"caption": "A dog", "size": 3}]', "entry 1 of ", "call its photo's name image"),
    "a record of lines": (
        JSON, '[{"image": "a.jpg", "caption": "A dog\\nA cat"}]', "entry 1 of ", "may have several captions in 'A dog",
    ),
    "a string of lines": (JSON, '{"a.jpg": "A dog\\nA cat"}', "the entry 'a.jpg' of ", "may have several captions in"),
    "a name twice": (JSON, '{"a.jpg": "A dog", "b.jpg": "x", "a.jpg": "A cat"}', "has 'a.jpg' twice in one object"),
    "rows of several lengths": (
        JSON, '{"columns": ["image", "caption"], "data": [["a.jpg"]]}', "has rows of several lengths: give rows of one",
    ),
    "quoted captions in a cell": (TSV, 'a.jpg\t"A dog", "Two dogs"\n', "line 1 of ", "several captions in one cell"),
    "columns of several lengths": (
        JSON, '{"image": ["a.jpg", "b.jpg"], "caption": ["A dog"]}', "columns of several lengths",
    ),
    "a number for a caption": (
        JSON, '[{"image": "a.jpg", "caption": 3}]', "a name or a caption that is not text, at 'a.jpg'",
    ),
    "a header alone": (CSV, "image,caption\n", "has no captions"),
    "UTF-16 without its mark": (TSV, "a.jpg\tA dog\n".encode("utf-16-le"), "has the character NUL): save it as UTF-8"),
    "an Excel workbook": (CSV, b"PK\x03\x04\x14\0", "an Excel workbook or another ZIP file", "save it as CSV or JSON in"),
    "a Parquet file": (CSV, b"PAR1\x15\x04", "is a Parquet file, which is no text", "save it as CSV or JSON in UTF-8"),
    "half of a letter in UTF-16": (TSV, "a.jpg\tA".encode("utf-16")[:-1], "is not UTF-16 text (byte "),
}  # fmt: skip


BETWEEN = ["<br>", "\\n", "|", " // ", " ### ", " [SEP] ", " / ", " ; ", "\\t", "&#10;", "<sep>", " </s> ", " ~ ", "\u2028",
           "\u2029", "\x85", "\v", "\f"]  # fmt: skip


@pytest.mark.parametrize("between", BETWEEN)
def test_captions_in_one_cell_are_not_taken_for_one(tmp_path, between):
    (tmp_path / TSV).write_text(f"a.jpg\tA dog .{between}Two dogs .\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"line 1 of .* several captions in one cell"):
        read_captions(tmp_path / TSV)


@pytest.mark.parametrize("between", [*BETWEEN, "\t", "\n"])
def test_captions_in_one_string_of_json_are_not_taken_for_one(tmp_path, between):
    said = f"A dog .{between}Two dogs ."
    for data in ({"a.jpg": said}, {"a.jpg": [said]}, [{"image": "a.jpg", "caption": said}],
                 [{"image": "a.jpg", "captions": ["A cat .", said]}]):  # fmt: skip
        (tmp_path / "c.json").write_text(json.dumps(data))
        with pytest.raises(InputError, match=r" of .*c\.json may have several captions in 'A dog"):
            read_captions(tmp_path / "c.json")


@pytest.mark.parametrize("text", ["['A dog .', 'Two dogs .']", '["A dog .", "Two dogs ."]', "['A dog .' 'Two dogs .']"])
def test_a_list_in_a_string_of_json_is_a_list(tmp_path, text):
    for data in ({"a.jpg": text}, [{"image": "a.jpg", "captions": text}]):
        (tmp_path / "c.json").write_text(json.dumps(data))
        assert read_captions(tmp_path / "c.json")[0] == {"a.jpg": ["A dog .", "Two dogs ."]}


@pytest.mark.parametrize("title", ["", "Unnamed: {}", " "])
@pytest.mark.parametrize("mark", [",", "\t"])
def test_captions_behind_the_last_title_of_a_spreadsheet_are_captions(tmp_path, title, mark):
    header = ["image", "captions", *(title.format(k) for k in (2, 3, 4))]
    lines = [header, ["a.jpg", "A dog", "Two dogs", "Three dogs", ""], ["b.jpg", "A cat", "", "", ""]]
    (tmp_path / "captions.csv").write_text("".join(mark.join(line) + "\n" for line in lines))
    assert read_captions(tmp_path / "captions.csv")[0] == {"a.jpg": ["A dog", "Two dogs", "Three dogs"], "b.jpg": ["A cat"]}


def test_titles_with_a_number_in_words_are_of_captions(tmp_path):
    (tmp_path / "captions.csv").write_text("image,Caption one,Caption two\na.jpg,A dog,Two dogs\n")
    assert read_captions(tmp_path / "captions.csv")[0] == {"a.jpg": ["A dog", "Two dogs"]}


@pytest.mark.parametrize("filler", ["nan", "NaN", "NULL", "None", "N/A", "#N/A", " "])
def test_what_stands_for_an_empty_cell_is_no_caption(tmp_path, filler):
    (tmp_path / "captions.csv").write_text(f"image,caption1,caption2\na.jpg,A dog,{filler}\nb.jpg,A cat,Two cats\n")
    (tmp_path / "c.json").write_text(json.dumps([
        {"image": "a.jpg", "caption1": "A dog", "caption2": filler},
        {"image": "b.jpg", "caption1": "A cat", "caption2": "Two cats"},
    ]))  # fmt: skip
    for file in ("captions.csv", "c.json"):
        assert read_captions(tmp_path / file)[0] == {"a.jpg": ["A dog"], "b.jpg": ["A cat", "Two cats"]}, file


@pytest.mark.parametrize(
    "said", ["See http://x.org .", "A dog / a cat .", "A dog , at 10:30 ; a cat", 'It says "a" , "b" .', "It is no. #1 ."]
)
def test_these_signs_are_a_part_of_a_caption(tmp_path, said):
    (tmp_path / TSV).write_text(f"a.jpg\t{said}\n")
    assert read_captions(tmp_path / TSV)[0] == {"a.jpg": [said]}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_told_apart_is_refused_with_its_place(tmp_path, what):
    file, content, *words = REFUSED[what]
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as refused:
        read_captions(tmp_path / file)
    assert all(part in str(refused.value) for part in words), refused.value


@pytest.mark.parametrize("i", [42, "42", "000000000042", 42.0])
def test_the_ids_of_a_list_of_photos_are_numbers(tmp_path, i):
    (tmp_path / JSON).write_text(json.dumps({"images": [{"id": i, "file_name": "a.jpg"}]}))
    assert read_images(tmp_path / JSON) == {"a.jpg": 42}


@pytest.mark.parametrize(("i", "name"), [("x", "a.jpg"), (True, "a.jpg"), (1.5, "a.jpg"), (7, None)])
def test_a_list_of_photos_with_odd_ids_is_refused(tmp_path, i, name):
    (tmp_path / JSON).write_text(json.dumps({"images": [{"id": i, "file_name": name}]}))
    with pytest.raises(InputError, match=f"the photo with the id {i!r} must have an id that is a number, and a name"):
        read_images(tmp_path / JSON)


# COCO's ids


def write_coco(path, ids, of):
    images = [{"id": i, "file_name": name} for i, name in zip(ids, WANTED, strict=True)]
    annotations = [{"image_id": of[n], "caption": x} for n, said in enumerate(WANTED.values()) for x in said]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


@pytest.mark.parametrize(
    ("ids", "of", "found"),
    [
        ((7, 8), (7, 8), (7, 8)),
        (("7", "8"), ("7", "8"), ("7", "8")),
        (("7", "8"), (7, 8), (7, 8)),
        ((7, 8), ("7", "000008"), (7, 8)),
        ((7.0, 8.0), (7, 8), (7, 8)),
        (("x7", "x8"), ("x7", "x8"), ("x7", "x8")),
    ],
)
def test_ids_may_be_text_in_one_place_and_numbers_in_another(tmp_path, capsys, ids, of, found):
    captions, _, named = read_captions(write_coco(tmp_path / "c.json", ids, of))
    assert captions == WANTED
    assert json.dumps(named) == json.dumps(dict(zip(WANTED, found, strict=True)))
    assert ("ids that are text and ids that are numbers are the same" in capsys.readouterr().err) == (found != ids)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([(1, "a.jpg"), (2, "a.jpg")], "has a.jpg with the ids 1 and 2: give each photo one id"),
        ([(1, "a.jpg"), (1, "b.jpg")], "has the id 1 for a.jpg and for b.jpg: give each photo an id of its own"),
        ([(1, "a.jpg"), ("1", "b.jpg")], "has the id 1 for a.jpg and for b.jpg"),
        ([(1, "a.jpg"), (2, "b.jpg"), (1, "a.jpg")], None),
    ],
)
def test_an_image_has_one_entry(tmp_path, images, words):
    data = {"images": [{"id": i, "file_name": n} for i, n in images], "annotations": [{"image_id": 1, "caption": "A dog"}]}
    (tmp_path / "c.json").write_text(json.dumps(data))
    if words is None:
        assert read_captions(tmp_path / "c.json")[0] == {"a.jpg": ["A dog"], "b.jpg": []}
    else:
        with pytest.raises(InputError, match=words):
            read_captions(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [({"split": "val"}, "in the split train and, in image 3, in val"), ({"cocoid": 9}, "a.jpg with the ids 7 and 9")],
)
def test_an_image_of_karpathys_is_in_one_split(tmp_path, change, words):
    images = [image | {"cocoid": 7 + k} for k, image in enumerate(KARPATHY)]
    (tmp_path / "c.json").write_text(json.dumps({"images": [*images, images[0] | change]}))
    with pytest.raises(InputError, match=words):
        read_captions(tmp_path / "c.json")


def test_an_id_of_karpathys_is_of_one_photo(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"images": [image | {"cocoid": 7} for image in KARPATHY]}))
    with pytest.raises(InputError, match="has the id 7 for a.jpg and for .*: give each photo an id of its own"):
        read_captions(tmp_path / "c.json")


@pytest.mark.parametrize("i", [True, None, 1.5, [3]])
def test_an_id_of_cocos_is_a_number_or_a_text(tmp_path, i):
    data = {"images": [{"id": i, "file_name": "a.jpg"}], "annotations": [{"image_id": i, "caption": "A dog"}]}
    (tmp_path / "c.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="has a.jpg with the id .*: give a number or a text|has the wrong type"):
        read_captions(tmp_path / "c.json")


# Folders


def kaggle(root):
    """Kaggle's copy of Flickr8k, of 30 photos."""
    write_photos(root / "Images")
    (root / "captions.txt").write_text(table([HEADER, *((name, said) for name in NAMES for said in SAID[name])]))


@pytest.mark.parametrize("kind", ["folder", "flickr8k", "flickr30k"])
def test_kaggles_copies_are_read_as_they_are(tmp_path, capsys, kind):
    kaggle(tmp_path)
    for split, names in dealt(NAMES, 3).items():
        found = load_split(kind, split, tmp_path)
        assert list(found.names) == names
        assert list(found.captions) == [[tokenise(said) for said in SAID[name]] for name in names]
        assert list(found.photos) == [tmp_path / "Images" / name for name in names]
    err = capsys.readouterr().err
    assert err.count(f"{tmp_path}/captions.txt is read as a table") == 1
    assert err.count("Kaggle's copy of Flickr8k, without the official splits") == (kind == "flickr8k")
    assert err.count("\n") == 1 + (kind == "flickr8k")


def test_kaggles_copy_with_the_official_lists_has_the_official_splits(tmp_path, capsys):
    kaggle(tmp_path)
    (tmp_path / "Flickr8k_text").mkdir()
    for split, part in (("train", "train"), ("val", "dev"), ("test", "test")):
        (tmp_path / f"Flickr8k_text/Flickr_8k.{part}Images.txt").write_text("\n".join(PARTS[split]))
    for split, names in PARTS.items():
        found = load_split("flickr8k", split, tmp_path)
        assert list(found.names) == names and found.photos[0] == tmp_path / "Images" / names[0]
    assert "Kaggle" not in capsys.readouterr().err


@pytest.mark.parametrize("photos", ["", "images", "Images", "my photos"])
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("captions.csv", table([HEADER, *((name, said) for name in NAMES for said in SAID[name])])),
        ("captions.jsonl", "\n".join(json.dumps({"image": name, "captions": SAID[name]}) for name in NAMES)),
        ("metadata.jsonl", "\n".join(json.dumps({"file_name": name, "text": x}) for name in NAMES for x in SAID[name])),
        ("metadata.csv", table([("file_name", "text"), *((name, x) for name in NAMES for x in SAID[name])])),
    ],
)
def test_the_usual_files_of_a_folder_are_found_with_their_photos(tmp_path, photos, file, content):
    write_photos(tmp_path / photos)
    (tmp_path / "runs").mkdir()
    (tmp_path / file).write_text(content)
    write_lists(tmp_path)
    for split, names in PARTS.items():
        found = load_split("folder", split, tmp_path)
        assert list(found.photos) == [tmp_path / photos / name for name in names]
        assert list(found.captions) == [[tokenise(said) for said in SAID[name]] for name in names]


def test_names_with_a_folder_are_in_the_folder_of_the_data(tmp_path):
    write_photos(tmp_path / "images")
    (tmp_path / "captions.tsv").write_text("".join(f"images/{name}\ta dog\n" for name in NAMES))
    assert load_split("folder", "val", tmp_path).photos[0].parent == tmp_path / "images"


def test_photos_in_two_folders_are_not_told_apart(tmp_path):
    for folder in ("large", "small"):
        write_photos(tmp_path / folder)
    (tmp_path / "captions.tsv").write_text("".join(f"{name}\ta dog\n" for name in NAMES))
    with pytest.raises(InputError, match="has the photos in large and in small: give one of them with --root"):
        load_split("folder", "val", tmp_path)
    assert load_split("folder", "val", tmp_path / "small", captions=tmp_path / "captions.tsv").names


def test_a_folder_with_copies_of_the_photos_does_not_replace_them(tmp_path):
    write_photos(tmp_path, NAMES[:20])
    write_photos(tmp_path / "copies")
    (tmp_path / "captions.tsv").write_text("".join(f"{name}\ta dog\n" for name in NAMES))
    with pytest.raises(InputError, match="10 of the 30 photos"):
        load_split("folder", "val", tmp_path)


# Languages

CHINESE = ["一只狗在草地上奔跑", "两只猫，在睡觉。"]
JAPANESE = ["犬が草の上を走っている。", "猫 が いる、とても大きくて白い猫が寝ています"]
THAI = ["สุนัขสีน้ำตาลกำลังวิ่งบนสนามหญ้า", "แมวสองตัวกำลังนอนหลับ บนโซฟาในห้องนั่งเล่น"]
SPACED = [["一 只 狗 在 草地 上"], ["สุนัข สี น้ำตาล กำลัง วิ่ง"], ["कुत्ता दौड़ रहा है।"], ["개가 뛴다"], ["Rindfleischetikett gut"]]


@pytest.mark.parametrize("said", [CHINESE, JAPANESE, THAI, ["Dog.", "Cat .", "A big cow"]])
def test_captions_without_spaces_are_warned_of(tmp_path, capsys, said):
    (tmp_path / "captions.tsv").write_text("".join(f"{k}.jpg\t{x}\n" for k, x in enumerate(said)), encoding="utf-8")
    for _ in range(2):
        read_captions(tmp_path / "captions.tsv")
    err = capsys.readouterr().err
    assert err.startswith(f"warning: most captions in {tmp_path}/captions.tsv are one word to satnp, as {said[0]!r} is; ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("said", [*SPACED, [*CHINESE, "a dog", "a cat"], ["Dog", "A cat"], ["...", "."]])
def test_captions_with_spaces_are_not(tmp_path, capsys, said):
    (tmp_path / "captions.tsv").write_text("".join(f"{k}.jpg\t{x}\n" for k, x in enumerate(said)), encoding="utf-8")
    read_captions(tmp_path / "captions.tsv")
    assert not capsys.readouterr().err
