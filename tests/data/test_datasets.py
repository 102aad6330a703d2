"""Captions in every form that people have them: read alike, trained on from the command line, refused in one sentence."""

import json
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image

from satnp import load
from satnp.cli import main
from satnp.data import datasets
from satnp.data.captions import tokenise
from satnp.data.datasets import KINDS, load_split
from satnp.data.forms import read_captions
from satnp.data.scenes import make_scenes
from satnp.errors import InputError
from satnp.training.trainer import read_log

TINY = (
    'encoder = "small"\n[config]\nM = 6\nH = 8\nA = 4\ndropout = 0.0\n'
    "[recipe]\nepochs = 2\nbatch_size = 8\nmin_count = 1\nmirror = false\naveraging = 0.0\nlog_every = 1\n"
)
NAMES = [f"{k:02}.jpg" for k in range(30)]
SAID = dict(zip(NAMES, ([f"{c}." for c in scene.captions] for scene in make_scenes(30, "train", seed=0)), strict=True))
PARTS = {"train": NAMES[:22], "val": NAMES[22:26], "test": NAMES[26:]}


def dealt(names, held):
    """The rule of splits without lists: val, test and train by the SHA-256 of the names."""
    order = sorted(names, key=lambda name: sha256(name.encode()).hexdigest())
    parts = {"val": order[:held], "test": order[held : 2 * held], "train": order[2 * held :]}
    return {split: [name for name in names if name in part] for split, part in parts.items()}


def write_photos(folder, names=NAMES):
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        Image.new("RGB", (16, 12), (8 * k % 256, 100, 50)).save(folder / name)


def write_lists(root, end=""):
    for split, names in PARTS.items():
        (root / f"{split}.txt").write_text("".join(name.removesuffix(end) + "\n" for name in names))


def write_tsv(root):
    write_photos(root)
    (root / "captions.tsv").write_text("".join(f"{name}\t{said}\n" for name in NAMES for said in SAID[name]))
    return "folder", dealt(NAMES, 3)


def write_tsv_with_lists(root):
    write_tsv(root)
    write_lists(root)
    return "folder", PARTS


def write_names(root):
    write_photos(root)
    (root / "captions.json").write_text(json.dumps(SAID))
    return "folder", dealt(NAMES, 3)


def write_token(root):
    write_photos(root / "flickr30k-images")
    lines = [f"{name}#{k}\t{said}\n" for name in NAMES for k, said in enumerate(SAID[name])]
    (root / "results_20130124.token").write_text("".join(lines))
    return "flickr30k", dealt(NAMES, 3)


def write_token_with_lists(root):
    write_token(root)
    write_lists(root, end=".jpg")
    return "flickr30k", PARTS


def write_bars(root):
    write_photos(root / "flickr30k_images")
    lines = [f"{name}| {k}| {said}\n" for name in NAMES for k, said in enumerate(SAID[name])]
    lines[4] = lines[4].replace("| ", "").replace("jpg", "jpg| ")  # as one line of the public file is
    assert lines[4].count("|") == 1
    (root / "results.csv").write_text("image_name| comment_number| comment\n" + "".join(lines))
    return "flickr30k", dealt(NAMES, 3)


def write_karpathy(root):
    images = []
    for split, names in PARTS.items():
        folder = "val2014" if split == "val" else "train2014"
        write_photos(root / folder, names)
        for k, name in enumerate(names):
            sentences = [{"raw": said, "tokens": said.rstrip(".").split()} for said in SAID[name]]
            said_split = "restval" if split == "train" and k < 5 else split
            cocoid = {"cocoid": coco_id(name)}
            images.append({"filepath": folder, "filename": name, "split": said_split, "sentences": sentences} | cocoid)
    (root / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    return "karpathy", {s: [f"{'val' if s == 'val' else 'train'}2014/{name}" for name in PARTS[s]] for s in PARTS}


def coco_id(name):
    """A number as COCO's photos have, which is not their place in the file."""
    return 7 * (40 - int(name[-6:-4]))


def coco(names):
    return {
        "images": [{"id": coco_id(name), "file_name": name} for name in names],
        "annotations": [
            {"image_id": coco_id(name), "id": 1, "caption": said} for name in reversed(names) for said in SAID[name]
        ],
    }


def write_coco(root):
    (root / "annotations").mkdir(parents=True)
    for part, names in (("train", NAMES[:23]), ("val", NAMES[23:])):
        write_photos(root / f"{part}2014", names)
        (root / f"annotations/captions_{part}2014.json").write_text(json.dumps(coco(names)))
    return "coco", {"train": NAMES[:23]} | {s: n for s, n in dealt(NAMES[23:], 4).items() if s != "train"}


FORMS = [
    write_tsv, write_tsv_with_lists, write_names, write_token, write_token_with_lists, write_bars, write_karpathy, write_coco
]  # fmt: skip


@pytest.mark.parametrize("write", FORMS)
def test_every_form_gives_the_same_captions_in_its_splits(tmp_path, write):
    kind, parts = write(tmp_path)
    for split, names in parts.items():
        found = load_split(kind, split, tmp_path)
        assert list(found.names) == names
        assert list(found.captions) == [[tokenise(said) for said in SAID[name[-6:]]] for name in names]
        assert all(path.is_file() and path.name == name[-6:] for path, name in zip(found.photos, names, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("write", FORMS)
def test_ten_steps_from_every_form(tmp_path, capsys, write):
    kind, parts = write(tmp_path / "data")
    (tmp_path / "tiny.toml").write_text(TINY)
    data = ["--data", kind, "--root", str(tmp_path / "data")]
    assert main(["train", *data, "--config", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "run")]) == 0
    steps = [record["step"] for record in read_log(tmp_path / "run/metrics.jsonl") if record["kind"] == "train"]
    assert len(steps) >= 10 and steps == list(range(1, len(steps) + 1))
    assert "circle" in load(tmp_path / "run/best.npz").vocabulary.words
    results = ["--results", str(tmp_path / "results.json")]
    assert main(["evaluate", str(tmp_path / "run/best.npz"), *data, "--split", "test", "--beam", "1", *results]) == 0
    named = [row["image_id"] for row in json.loads((tmp_path / "results.json").read_text())]
    assert named == [coco_id(name) if kind in ("coco", "karpathy") else name for name in parts["test"]]


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("my.tsv", "".join(f"{n}\t{c}\r\n\r\n" for n in NAMES for c in SAID[n]).encode("utf-8-sig"), dealt(NAMES, 3)),
        ("said.json", json.dumps(SAID).encode("utf-8-sig"), dealt(NAMES, 3)),
        ("mine.json", json.dumps(coco(NAMES)).encode(), dealt(NAMES, 3)),
        ("my.token.txt", "".join(f"{n}#0\t{c}\n" for n in NAMES for c in SAID[n]).encode(), dealt(NAMES, 3)),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "coco", "flickr30k"])
def test_captions_may_lie_elsewhere_in_any_form(tmp_path, kind, name, content, parts):
    write_photos(tmp_path / "photos")
    (tmp_path / name).write_bytes(content)
    for split, names in parts.items():
        found = load_split(kind, split, tmp_path / "photos", captions=tmp_path / name)
        assert list(found.names) == names
        assert found.captions[0] == [tokenise(said) for said in SAID[names[0]]]


def test_photos_have_ids_only_where_the_file_says_all_of_them(tmp_path):
    write_karpathy(tmp_path)
    assert load_split("karpathy", "test", tmp_path).ids == tuple(map(coco_id, PARTS["test"]))
    mangle(tmp_path / KARPATHY, (f', "cocoid": {coco_id("00.jpg")}', ""))
    assert load_split("karpathy", "test", tmp_path).ids is None


def test_the_splits_depend_on_the_names_alone(tmp_path):
    write_tsv(tmp_path)
    before = {split: set(load_split("folder", split, tmp_path).names) for split in PARTS}
    lines = (tmp_path / "captions.tsv").read_text().splitlines()
    (tmp_path / "captions.tsv").write_text("\n".join(sorted(lines, key=lambda line: sha256(line.encode()).digest())))
    assert before == {split: set(load_split("folder", split, tmp_path).names) for split in PARTS}
    assert sorted(name for names in before.values() for name in names) == NAMES
    assert {split: len(names) for split, names in before.items()} == {"train": 24, "val": 3, "test": 3}


def test_large_sets_hold_out_no_more_than_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "HELD_OUT", 2)
    write_tsv(tmp_path)
    assert {split: list(load_split("folder", split, tmp_path).names) for split in PARTS} == dealt(NAMES, 2)


def test_three_photos_make_three_splits(tmp_path):
    write_photos(tmp_path, NAMES[:3])
    (tmp_path / "captions.tsv").write_text("".join(f"{name}\ta dog\n" for name in NAMES[:3]))
    assert {name for split in PARTS for name in load_split("folder", split, tmp_path).names} == set(NAMES[:3])


def test_a_split_with_its_own_list_needs_nothing_else(tmp_path):
    write_tsv_with_lists(tmp_path)
    for name in PARTS["train"]:
        (tmp_path / name).unlink()
    (tmp_path / "test.txt").unlink()
    assert list(load_split("folder", "val", tmp_path).names) == PARTS["val"]


def test_photos_without_captions_and_captions_of_dots_are_passed_over(tmp_path):
    write_tsv(tmp_path)
    (tmp_path / "other.jpg").touch()
    with open(tmp_path / "captions.tsv", "a") as file:
        file.write("00.jpg\t ... \n")
    found = [load_split("folder", split, tmp_path) for split in PARTS]
    assert sorted(name for split in found for name in split.names) == NAMES
    assert all(caption for split in found for captions in split.captions for caption in captions)


KARPATHY, VAL, TOKEN = "dataset_coco.json", "annotations/captions_val2014.json", "results_20130124.token"
TAB, BAR = "it must be a photo's name, a tab and a caption", "it must be NAME.jpg| k| and a sentence"
FEW = "(the first is {}) have no "
# form, its file, what is done to it (another content, one text for another, None: removed), words of the sentence
MANGLED = {
    "empty caption": (write_tsv, "captions.tsv", (SAID["03.jpg"][1], " "), "caption 2 of 03.jpg in ", " is empty: give 1"),
    "200 words": (write_tsv, "captions.tsv", (SAID["04.jpg"][0], "dog " * 200), "caption 1 of 04.jpg in ", "has 200 words"),
    "latin-1": (write_tsv, "captions.tsv", b"00.jpg\ta caf\xe9\n", "captions.tsv is not UTF-8 text (byte 12): save"),
    "half of utf-16": (write_tsv, "captions.tsv", "00.jpg\ta dog\n".encode("utf-16")[:-1], "is not UTF-16 text (byte 26)"),
    "no photo": (write_tsv, "05.jpg", None, "1 of the 30 photos", FEW.format("05.jpg"), "no file in"),
    "no tab": (write_tsv, "captions.tsv", ("01.jpg\t", "01.jpg "), "line 6 of ", TAB),
    "no name": (write_tsv, "captions.tsv", ("01.jpg\t", "\t"), "line 6 of ", TAB),
    "no captions": (write_tsv, "captions.tsv", "\n", "captions.tsv has no captions: give a file"),
    "no file": (write_tsv, "captions.tsv", None, "there is no captions.tsv or captions.json or ", "--captions FILE"),
    "two photos": (write_tsv, "captions.tsv", "00.jpg\ta dog\n01.jpg\ta cat\n", "has no photos for train: give"),
    "unknown name": (write_tsv_with_lists, "val.txt", ("22.jpg", "x.jpg"), "1 of the 4", FEW.format("x.jpg"), "captions"),
    "name twice": (write_tsv_with_lists, "val.txt", ("22.jpg", "23.jpg"), "val.txt is empty or names a photo twice"),
    "no list": (write_tsv_with_lists, "val.txt", None, " has train.txt, but no val.txt: give a list of each split"),
    "list in latin-1": (write_tsv_with_lists, "val.txt", b"\xe9.jpg", "val.txt is not UTF-8 text (byte 0)"),
    "no JSON": (write_names, "captions.json", ("{", ""), "captions.json is not JSON (", "give a complete file"),
    "half of JSON": (write_names, "captions.json", json.dumps(SAID)[:200], "captions.json is not JSON ("),
    "deep JSON": (write_names, "captions.json", "[" * 100_000, "captions.json is not JSON ("),
    "a list": (write_names, "captions.json", "[1]", "is JSON of another form: give {name: [captions]}, Karpathy's"),
    "one number": (write_names, "captions.json", '{"00.jpg": 3}', "a name or a caption that is not text, at '00.jpg'"),
    "numbers": (write_names, "captions.json", '{"00.jpg": [3]}', "has a name or a caption that is not text, at '00.jpg'"),
    "nothing": (write_names, "captions.json", "{}", "captions.json has no captions"),
    "an empty list": (write_names, "captions.json", json.dumps(SAID | {"00.jpg": []}), FEW.format("00.jpg"), "captions in"),
    "no hash": (write_token, TOKEN, ("00.jpg#0", "00.jpg"), "line 1 of ", "it must be NAME.jpg#k, a tab and a sentence"),
    "no bar": (write_bars, "results.csv", ("00.jpg| 0|", "00.jpg "), "line 2 of ", BAR),
    "neither": (write_bars, "results.csv", None, f"there is no {TOKEN} or results.csv or captions.txt in "),
    "no raw": (write_karpathy, KARPATHY, ('[{"raw"', '[{}, {"raw"'), "Karpathy's dataset_*.json (an entry has no 'raw')"),
    "odd split": (write_karpathy, KARPATHY, ('"restval"', '"x"'), "has train2014/00.jpg in the split 'x': give train"),
    "odd image": (write_karpathy, KARPATHY, ("[{", "[3, {"), "Karpathy's dataset_*.json (an entry has the wrong type)"),
    "no splits": (write_karpathy, KARPATHY, json.dumps(SAID), "does not say which photos are train: give a dataset_"),
    "two files": (write_karpathy, "dataset_x.json", "{}", "has dataset_coco.json and dataset_x.json: choose one with"),
    "no image": (write_coco, VAL, ('"image_id": 77', '"image_id": 8'), "has a caption for image 8, which it does not list"),
    "no caption": (write_coco, VAL, ('"caption"', '"text"'), "form of COCO's captions_*.json (an entry has no 'caption')"),
    "photo of COCO": (write_coco, "train2014/00.jpg", None, "1 of the 23 photos", FEW.format("00.jpg"), "no file in"),
}


def mangle(path, change):
    if change is None:
        path.unlink()
    elif isinstance(change, tuple):
        assert change[0] in path.read_text()
        path.write_text(path.read_text().replace(*change, 1))
    else:
        path.write_bytes(change if isinstance(change, bytes) else change.encode())


@pytest.mark.parametrize("what", MANGLED)
def test_what_is_mangled_gets_one_sentence(tmp_path, capsys, what):
    form, file, change, *words = MANGLED[what]
    kind, _ = form(tmp_path / "data")
    mangle(tmp_path / "data" / file, change)
    (tmp_path / "tiny.toml").write_text(TINY)
    line = f"train --data {kind} --root {tmp_path}/data --config {tmp_path}/tiny.toml --out {tmp_path}/new"
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("satnp: ") and err.count("\n") == 1 and err.endswith("\n")
    assert all(part in err for part in words), err
    assert not (tmp_path / "new").exists()


def test_unknown_kinds_and_splits_are_named(tmp_path):
    with pytest.raises(InputError, match=f"no data of kind 'mscoco': choose one of {', '.join(KINDS)}"):
        load_split("mscoco", "val", tmp_path)
    with pytest.raises(InputError, match="no split 'dev' of scenes: choose one of train, val, test"):
        load_split("scenes", "dev")
    with pytest.raises(InputError, match="--data coco needs its folder; give it with --root DIR"):
        load_split("coco", "val")
    with pytest.raises(InputError, match=r"cannot read .*none\.tsv \(No such file"):
        load_split("folder", "val", tmp_path, captions=tmp_path / "none.tsv")
    with pytest.raises(InputError, match=r"cannot read .* \(Is a directory\)"):
        load_split("folder", "val", tmp_path, captions=str(tmp_path))


@pytest.mark.slow
def test_the_real_flickr8k_reads_alike_as_karpathys_file(shared_data, tmp_path):
    root = shared_data / "flickr8k"
    captions, splits, ids = read_captions(root / "Flickr8k_text/Flickr8k.token.txt")
    assert splits is None and ids is None and len(captions) == 7000
    images = [
        {"filename": name, "split": "val", "sentences": [{"raw": said} for said in sentences]}
        for name, sentences in captions.items()
    ]
    (tmp_path / "dataset_flickr8k.json").write_text(json.dumps({"images": images}))
    found = load_split("karpathy", "val", root / "Flicker8k_Dataset", captions=tmp_path / "dataset_flickr8k.json")
    plain = load_split("flickr8k", "val", root)
    rows = np.array([found.names.index(name) for name in plain.names])
    assert [found.captions[row] for row in rows] == list(plain.captions)
