"""Photos in two splits, photos that captions or lists name but nobody has, names that nearly fit, names that lead out."""

import json
import shutil
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from satnp.checkpoint import save
from satnp.cli import main
from satnp.data import forms
from satnp.data import split as split_module
from satnp.data.by_name import read_guidance
from satnp.data.datasets import load_split, load_splits
from satnp.data.names import hint, leads_out
from satnp.encoders import squeezenet
from satnp.errors import InputError
from satnp.training.presets import find_preset, new_model
from tests.data.test_datasets import (
    KARPATHY,
    NAMES,
    PARTS,
    SAID,
    TINY,
    TOKEN,
    dealt,
    mangle,
    write_coco,
    write_karpathy,
    write_names,
    write_token_with_lists,
    write_tsv,
    write_tsv_with_lists,
)
from tests.small_world import write_flickr8k, write_weights

NFC, NFD = (unicodedata.normalize(form, "café.jpg") for form in ("NFC", "NFD"))
COMMANDS = {
    "train": "train --config {w}/tiny.toml --out {t}/new",
    "features": "features --encoder squeezenet1_1 --weights {w}/w.npz --config {w}/recipe.toml --features {t}/new",
    "evaluate": "evaluate {w}/small.npz --split test --beam 1 --json {t}/new",
    "compare": "compare --config {w}/tiny.toml --init {w}/small.npz --captioners show_attend_tell --beam 1 --out {t}/new",
}


@pytest.fixture(scope="module")
def world(encoders, no_figures, tmp_path_factory):
    """Data without a fault, `good`, the settings of a training of a second, weights, and a checkpoint."""
    w = tmp_path_factory.mktemp("splits")
    write_tsv_with_lists(w / "good")
    tiny = TINY.replace("epochs = 2", "epochs = 1").replace("batch_size = 8", "batch_size = 64")
    (w / "tiny.toml").write_text(tiny)
    (w / "recipe.toml").write_text(tiny[tiny.index("[recipe]") :])
    write_weights(w / "w.npz", squeezenet, 0)
    preset = replace(find_preset("folder", path=w / "tiny.toml"), encoder="small")
    save(w / "small.npz", new_model(preset, load_split("folder", "train", w / "good")))
    return w


def run(command, w, t, root, *more):
    line = COMMANDS[command].format(w=w, t=t)
    return main([*line.split(), "--data", "folder", "--root", str(root), *more])


def add(path, *names):
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(f"{name}\n" for name in names)


def flickr8k(root):
    write_flickr8k(root, 4, 3, 2)
    return "flickr8k", None


def coco_with_lists(root):
    write_coco(root)
    parts = {"train": NAMES[:23], "val": NAMES[23:26], "test": NAMES[26:]}
    for split, names in parts.items():
        add(root / f"{split}.txt", *names)
    return "coco", parts


def twice_in_karpathy(root):
    data = json.loads((root / KARPATHY).read_text())
    data["images"].append(data["images"][0] | {"split": "val"})
    (root / KARPATHY).write_text(json.dumps(data))


DEV = "Flickr8k_text/Flickr_8k.devImages.txt"
# form, what is done to its files, the splits with a photo in common, how many they have in common and the first of them
SHARED = {
    "folder": (write_tsv_with_lists, lambda root: add(root / "val.txt", "06.jpg", "07.jpg"), "train", "val", 2, "06.jpg"),
    "test in train": (write_tsv_with_lists, lambda root: add(root / "test.txt", "03.jpg"), "train", "test", 1, "03.jpg"),
    "val in test": (write_tsv_with_lists, lambda root: add(root / "test.txt", "22.jpg"), "val", "test", 1, "22.jpg"),
    "written otherwise": (write_tsv_with_lists, lambda root: (
        add(root / "val.txt", ".//06.jpg"), add(root / "captions.tsv", ".//06.jpg\ta dog")
    ), "train", "val", 1, "06.jpg"),
    "flickr8k": (flickr8k, lambda root: add(root / DEV, "test-00001.jpg"), "val", "test", 1, "test-00001.jpg"),
    "flickr30k": (write_token_with_lists, lambda root: add(root / "val.txt", "04"), "train", "val", 1, "04.jpg"),
    "with and without .jpg": (
        write_token_with_lists, lambda root: add(root / "val.txt", "04.jpg"), "train", "val", 1, "04.jpg"),
    "coco": (coco_with_lists, lambda root: add(root / "val.txt", "28.jpg"), "val", "test", 1, "28.jpg"),
    "two files of coco": (coco_with_lists, lambda root: add(root / "val.txt", "04.jpg"), "train", "val", 1, "04.jpg"),
    "coco without lists": (write_coco, lambda root: [
        shutil.move(photo, root / photo.name) for photo in root.glob("*2014/*")
    ] and mangle(root / "annotations/captions_val2014.json", ('"23.jpg"', '"04.jpg"')), "train", "", 1, "04.jpg"),
}  # fmt: skip


@pytest.mark.parametrize("what", SHARED)
def test_a_photo_in_two_splits_is_named(tmp_path, what):
    form, change, a, b, count, name = SHARED[what]
    kind, _ = form(tmp_path)
    change(tmp_path)
    for which in ("train", "val", "test") if "coco" not in what else ("train", "val"):
        with pytest.raises(InputError) as found:
            load_splits(kind, ("train", "val") if what == "coco without lists" else (which,), tmp_path, skip_bad=True)
        said = str(found.value)
        assert said.startswith(f"{a} and {b}") and f" of {tmp_path} have {count} of their photos in common" in said
        assert f"(the first is {name}" in said and said.endswith(": put each photo into one split only")


def test_a_photo_in_two_splits_of_one_file_is_named(tmp_path):
    write_karpathy(tmp_path)
    twice_in_karpathy(tmp_path)
    for split in PARTS:
        with pytest.raises(InputError, match=r"train2014/00\.jpg in the split train and.* in val: give each photo one"):
            load_split("karpathy", split, tmp_path)


def test_a_photo_twice_in_one_list_is_named(tmp_path):
    write_token_with_lists(tmp_path)
    add(tmp_path / "val.txt", "23.jpg")  # the list has 23
    with pytest.raises(InputError, match=r" has 23\.jpg twice in val: name each photo once"):
        load_split("flickr30k", "test", tmp_path)


def test_two_photos_of_one_name_in_two_folders_are_two(tmp_path):
    kind, parts = coco_with_lists(tmp_path)
    shutil.copy(tmp_path / "train2014/01.jpg", tmp_path / "val2014/00.jpg")
    mangle(tmp_path / "annotations/captions_val2014.json", ('"23.jpg"', '"00.jpg"'))
    mangle(tmp_path / "val.txt", ("23.jpg", "00.jpg"))
    found = load_splits(kind, parts, tmp_path)
    assert [found[split].photos[0] for split in ("train", "val")] == [tmp_path / f"{x}2014/00.jpg" for x in ("train", "val")]
    assert found["val"].ids[0] == 7 * (40 - 23)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_a_photo_in_two_splits(world, tmp_path, capsys, command):
    write_tsv_with_lists(tmp_path / "data")
    add(tmp_path / "data/test.txt", "03.jpg")
    assert run(command, world, tmp_path, tmp_path / "data") == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and not (tmp_path / "new").exists()
    assert err.startswith("satnp: train and test of ") and "1 of their photos in common (the first is 03.jpg)" in err


def test_captions_are_read_once(tmp_path, monkeypatch):
    write_tsv_with_lists(tmp_path)
    (tmp_path / "Images").mkdir()
    for name in NAMES:
        (tmp_path / name).rename(tmp_path / "Images" / name)
    read, paths = forms.read_text, []
    monkeypatch.setattr(forms, "read_text", lambda path: paths.append(path.name) or read(path))
    for which in (PARTS, ["val"]):
        found = load_splits("folder", which, tmp_path)
        assert sorted(paths) == ["captions.tsv", "test.txt", "train.txt", "val.txt"]
        assert found["val"].photos[0] == tmp_path / "Images/22.jpg"
        paths.clear()


def test_equal_bytes_under_two_names_are_counted(tmp_path, capsys, monkeypatch):
    kind, _ = write_tsv_with_lists(tmp_path)
    rng, opened, whole = np.random.default_rng(0), [], []
    for k, name in enumerate(NAMES):  # pixels of chance, so that the files have different sizes
        Image.fromarray(rng.integers(0, 256, (4 + k, 60, 3), np.uint8)).save(tmp_path / name)
    for one, other in ((0, 24), (1, 25), (2, 27), (26, 23), (3, 4)):
        shutil.copy(tmp_path / NAMES[one], tmp_path / NAMES[other])
    photo = (tmp_path / "05.jpg").read_bytes()  # alike in size and at its beginning
    (tmp_path / "05.jpg").write_bytes(photo + bytes(5000) + b"a")
    (tmp_path / "22.jpg").write_bytes(photo + bytes(5000) + b"b")
    for key, seen in (("_beginning", opened), ("_hash", whole)):
        at = getattr(split_module, key)
        monkeypatch.setattr(split_module, key, lambda path, at=at, seen=seen: seen.append(path.name) or at(path))
    load_splits(kind, ("train", "val"), tmp_path)
    assert capsys.readouterr().err == (
        "warning: photos that are in several splits under other names, with equal bytes: 4 (00.jpg in train is 24.jpg in "
        "val); remove the copies, or put them into one split\n"
    )
    copies = [NAMES[k] for k in (0, 1, 2, 5, 22, 23, 24, 25, 26, 27)]
    assert sorted(opened) == copies and sorted(whole) == copies
    load_split(kind, "test", tmp_path)
    load_splits(kind, ("val", "test"), tmp_path)  # nothing is trained
    assert not capsys.readouterr().err


def test_equal_bytes_of_what_is_left_out_do_not_count(tmp_path, capsys):
    kind, _ = write_tsv_with_lists(tmp_path)
    for name in ("00.jpg", "22.jpg"):
        (tmp_path / name).write_bytes(b"no photo")
    load_splits(kind, ("train", "val"), tmp_path, skip_bad=True)
    assert "warning" not in capsys.readouterr().err


GONE = {"train": "05.jpg", "val": "24.jpg", "test": "28.jpg"}  # photos that nobody has; x.jpg etc. have no captions either


@pytest.fixture
def faulty(tmp_path):
    """Data where each split names a photo that nobody has and one without captions, and the same data without them."""
    for where in ("bad", "good"):
        write_tsv_with_lists(tmp_path / where)
    for split, name in GONE.items():
        (tmp_path / "bad" / name).unlink()
        mangle(tmp_path / f"good/{split}.txt", (f"{name}\n", ""))
        add(tmp_path / f"bad/{split}.txt", f"without-{split}.jpg")
        shutil.copy(tmp_path / "bad/00.jpg", tmp_path / f"bad/without-{split}.jpg")
    return tmp_path


def test_what_nobody_has_is_left_out_if_that_is_asked_for(faulty, capsys):
    with pytest.raises(InputError, match=r"1 of the 23 photos \(the first is without-train\.jpg\) have no captions in "):
        load_splits("folder", PARTS, faulty / "bad")
    found, good = load_splits("folder", PARTS, faulty / "bad", skip_bad=True), load_splits("folder", PARTS, faulty / "good")
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line.startswith("satnp: ")]
    for split, name in GONE.items():
        photos = tuple(faulty / "bad" / photo for photo in good[split].names)
        assert found[split] == good[split]._replace(photos=photos, skipped=2)
        assert f"satnp: skipped: without-{split}.jpg has no captions in {faulty}/bad/captions.tsv" in lines
        assert f"satnp: skipped: there is no photo {faulty}/bad/{name}; check the name" in lines
    assert len(lines) == 6


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_leaves_out_what_nobody_has(world, faulty, capsys, command):
    assert run(command, world, faulty, faulty / "bad") == 2
    split, count = ("test", 5) if command == "evaluate" else ("train", 23)
    assert f"1 of the {count} photos (the first is without-{split}.jpg) have no captions in " in capsys.readouterr().err
    assert run(command, world, faulty, faulty / "bad", "--skip-bad") == 0
    out, err = capsys.readouterr()
    count = {"evaluate": "2 of 5"}.get(command, "4 of 28")
    assert err.splitlines()[-1] == f"satnp: skipped {count} photos"
    shutil.move(faulty / "new", faulty / "bad-new")
    assert run(command, world, faulty, faulty / "good") == 0
    of_good, err = capsys.readouterr()
    assert "skipped" not in err
    if command == "train":
        a, b = (np.load(faulty / where / "best.npz") for where in ("bad-new", "new"))
        assert a.files == b.files and all((a[name] == b[name]).all() for name in a.files if name != "header")
    elif command == "features":
        assert [line.partition(":")[0] for line in out.splitlines()] == ["21 photos", "3 photos"]
        stores = (sorted((faulty / where).glob("*.npy")) for where in ("bad-new", "new"))
        one, other = ({path.name: path.read_bytes() for path in paths} for paths in stores)
        assert one == other and len(one) == 2
    else:
        one, other = (json.loads(path.read_text()) for path in (
            (faulty / "bad-new", faulty / "new") if command == "evaluate"
            else (faulty / "bad-new/compare.json", faulty / "new/compare.json")
        ))  # fmt: skip
        if command == "evaluate":
            assert (one["photos"], one["skipped"]) == (3, 2)
            assert one | {"skipped": 0} == other
        else:
            assert [row["nll"] for row in one] == [row["nll"] for row in other] and one[0]["data"] == other[0]["data"]


def test_the_name_of_flickr8k_that_never_existed_is_left_out(tmp_path, capsys):
    write_names(tmp_path)
    token = "".join(f"{name}#{k}\t{said}\n" for name in NAMES for k, said in enumerate(SAID[name]))
    (tmp_path / TOKEN).write_text(token + "2258277193_586949ec62.jpg.1#0\tpeople waiting for the subway\n")
    more = {"root": tmp_path, "captions": tmp_path / TOKEN}
    with pytest.raises(InputError, match=r"1 of the 31 photos \(the first is 2258277193_586949ec62\.jpg\.1\) have no file"):
        load_splits("folder", PARTS, **more)
    found = load_splits("folder", PARTS, **more, skip_bad=True)
    assert sorted(name for split in found.values() for name in split.names) == NAMES
    assert sum(split.skipped for split in found.values()) == 1


def test_what_was_missing_stays_left_out_and_what_was_there_must_stay(tmp_path, capsys):
    kind, _ = write_tsv_with_lists(tmp_path / "data")
    photo = tmp_path / "data/05.jpg"
    photo.rename(tmp_path / "05.jpg")
    first = load_splits(kind, ("train", "val"), tmp_path / "data", skip_bad=True, notes=tmp_path / "notes")
    (tmp_path / "05.jpg").rename(photo)
    capsys.readouterr()
    assert load_splits(kind, ("train", "val"), tmp_path / "data", skip_bad=True, notes=tmp_path / "notes") == first
    assert "05.jpg" not in first["train"].names and f"{photo}; check the name (noted in " in capsys.readouterr().err
    (tmp_path / "data/06.jpg").unlink()
    with pytest.raises(InputError, match=r"06\.jpg is missing, but was read when .*photos-\w+\.json was written: put it"):
        load_splits(kind, ("train", "val"), tmp_path / "data", skip_bad=True, notes=tmp_path / "notes")


def test_five_names_and_the_count(tmp_path):
    kind, _ = write_tsv(tmp_path)
    for name in NAMES[:7]:
        (tmp_path / name).unlink()
    said = (
        f"7 of the 30 photos (the first is 00.jpg, then 01.jpg, 02.jpg, 03.jpg, 04.jpg) have no file in {tmp_path}: "
        "add what is missing, or leave photos out with --skip-bad"
    )
    with pytest.raises(InputError) as found:
        load_split(kind, "val", tmp_path)
    assert str(found.value) == said
    for name in NAMES[7:]:
        (tmp_path / name).unlink()
    for skip_bad in (False, True):
        with pytest.raises(InputError, match=r"(\d+) of the \1 photos .* have no file in .*: add what is missing$"):
            load_splits(kind, PARTS, tmp_path, skip_bad=skip_bad) if skip_bad else load_split(kind, "val", tmp_path)


# a name that is missing, the name that is there, and in what they differ
NEAR = {
    "capitals": ("a.jpg", "A.JPG", "small and capital letters"),
    "small letters": ("A.JPG", "a.jpg", "small and capital letters"),
    "backslashes": (r"imgs\a.jpg", "imgs/a.jpg", r"\ for /"),
    "backslashes and a folder": (r"imgs\a.jpg", "a.jpg", "its folder"),
    "number": ("a.jpg#0", "a.jpg", "what follows the name"),
    "a column": ("a.jpg,train", "a.jpg", "what follows the name"),
    "a language and a number": ("a.jpg#en#0", "a.jpg", "what follows the name"),
    "a colon": ("a.jpg:", "a.jpg", "what follows the name"),
    "a query": ("a.jpg?size=2", "a.jpg", "what follows the name"),
    "a dot": ("a.jpg.", "a.jpg", "what follows the name"),
    "find": ("./x//a.jpg", "x/a.jpg", "how its folder is written"),
    "COCO of 2014": ("COCO_x_07.jpg", "07.jpg", "zeros or COCO_ in front"),
    "COCO's number": ("42", "000000000042.jpg", "zeros or COCO_ in front"),
    "signs": ("my dog.jpg", "my_dog.jpg", "spaces and signs"),
    "quotes": ('"a.jpg"', "a.jpg", "quotes or brackets"),
    "a list of Python": ("'a.jpg',", "a.jpg", "quotes or brackets"),
    "curly quotes": ("“a.jpg”", "a.jpg", "quotes or brackets"),
    "brackets": ("[a.jpg]", "a.jpg", "quotes or brackets"),
    "no ending": ("a", "a.jpg", "its ending"),
    "another ending": ("a.jpeg", "a.jpg", "its ending"),
    "an ending too much": ("a.jpg", "a.jpg.jpg", "its ending"),
    "an ending that is not there": ("a.jpg", "a", "its ending"),
    "NFC": (NFC, NFD, "Unicode form (NFC or NFD)"),
    "NFD": (NFD, NFC, "Unicode form (NFC or NFD)"),
    "spaces": (" a.jpg ", "a.jpg", "spaces or invisible characters"),
    "a space in the file's name": ("a.jpg", "a.jpg ", "spaces or invisible characters"),
    "no width": ("a\u200b.jpg", "a.jpg", "spaces or invisible characters"),
    "a web address": ("my%20dog.jpg", "my dog.jpg", "letters written as %20"),
    "a folder too much": ("imgs/a.jpg", "a.jpg", "its folder"),
    "a folder too few": ("a.jpg", "imgs/a.jpg", "its folder"),
    "much at once": (r'"imgs\A.JPG"', "a.png", "its folder"),
}
JPG = ("no ending", "an ending too much")  # lists may leave out .jpg


def shown(name):
    return name if name.isprintable() and name == name.strip() else repr(name)


@pytest.mark.parametrize("what", [what for what in NEAR if what != "find"])  # that file is found
def test_a_file_that_nearly_fits_is_named(tmp_path, what):
    wanted, there, differs = NEAR[what]
    names = NAMES[:3]
    for name in (*names, there):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name, "PNG")
    (tmp_path / "captions.json").write_text(json.dumps({name: ["a dog"] for name in (*names, wanted)}))
    with pytest.raises(InputError) as found:
        load_split("folder", "val", tmp_path)
    assert str(found.value) == (
        f"1 of the 4 photos (the first is {shown(wanted)}) have no file in {tmp_path}; there is {shown(there)}, which "
        f"differs from {shown(wanted)} in {differs}: write both alike, or leave photos out with --skip-bad"
    )


@pytest.mark.parametrize("what", [what for what in NEAR if what not in JPG and NEAR[what][0] == NEAR[what][0].strip()])
def test_captions_whose_name_nearly_fits_that_of_a_list_are_named(tmp_path, what):
    wanted, there, differs = NEAR[what]
    (tmp_path / "captions.json").write_text(json.dumps({name: ["a dog"] for name in (*NAMES[:3], there)}))
    add(tmp_path / "val.txt", NAMES[0], wanted)
    with pytest.raises(InputError) as found:
        load_split("folder", "val", tmp_path)
    assert str(found.value) == (
        f"1 of the 2 photos (the first is {shown(wanted)}) have no captions in {tmp_path}/captions.json; there is "
        f"{shown(there)}, which differs from {shown(wanted)} in {differs}: write both alike, or leave photos out with "
        "--skip-bad"
    )


@pytest.mark.parametrize("header", ["image", "file_name", "Photo"])
def test_a_header_is_named(tmp_path, header):
    write_tsv_with_lists(tmp_path)
    mangle(tmp_path / "val.txt", ("22.jpg", f"{header}\n22.jpg"))
    with pytest.raises(InputError, match=rf"have no captions in .*; {header} looks like a header, whose line must go: "):
        load_split("folder", "val", tmp_path)
    (tmp_path / "captions.json").write_text(json.dumps({header: ["caption"]} | SAID))
    (tmp_path / "captions.tsv").unlink()
    for split in PARTS:
        (tmp_path / f"{split}.txt").unlink()
    with pytest.raises(InputError, match=rf"have no file in .*; {header} looks like a header, whose line must go: "):
        load_split("folder", "val", tmp_path)


def test_no_name_is_named_that_is_wanted_itself_or_is_one_of_several():
    assert not hint(["b.jpg"], ["a.jpg", "b.jpg"], ["a.jpg", "c.jpg"])
    assert not hint(["a.jpg"], ["A.JPG", "a.jpg"], ["A.JPG"])
    assert not hint(["a.jpg"], ["c.jpg", "a.jpg"], ["x/a.jpg", "y/a.jpg"])
    assert hint(["x.jpg", "a.jpg"], ["c.jpg", "x.jpg", "a.jpg"], ["A.JPG", "c.jpg"]).startswith("there is A.JPG")


def test_a_message_has_as_many_names_as_fit(tmp_path):
    kind, _ = write_tsv(tmp_path)
    mangle(tmp_path / "captions.tsv", ("00.jpg", f"{70 * 'x'}.jpg"))
    for k in range(1, 6):
        mangle(tmp_path / "captions.tsv", (f"0{k}.jpg", f"{k}{49 * 'x'}.jpg"))
    with pytest.raises(InputError) as found:
        load_split(kind, "val", tmp_path)
    said = str(found.value)
    assert said.startswith(f"6 of the 36 photos (the first is {28 * 'x'}...{24 * 'x'}.jpg, then 1xxx") and len(said) < 300
    assert said.endswith(": add what is missing, or leave photos out with --skip-bad")


def test_a_photo_in_the_folder_of_another_split_is_found(tmp_path):
    kind, _ = write_coco(tmp_path)
    shutil.move(tmp_path / "train2014/03.jpg", tmp_path / "val2014/03.jpg")
    with pytest.raises(InputError, match="there is val2014/03.jpg, which differs from 03.jpg in its folder: write both"):
        load_split(kind, "train", tmp_path)


def test_a_row_of_a_file_of_vectors_that_nearly_fits_is_named(tmp_path):
    np.savez(tmp_path / "g.npz", names=np.array(["A.JPG", "b"]), vectors=np.zeros((2, 3)))
    guidance = read_guidance(tmp_path / "g.npz")
    with pytest.raises(InputError) as found:
        guidance.of(("b.jpg", "a.jpg", "c.jpg"))
    assert str(found.value) == (
        f"{tmp_path}/g.npz has no row for 2 of the 3 photos (the first is a.jpg, then c.jpg); there is A.JPG, which differs "
        "from a.jpg in small and capital letters: write both alike"
    )


@pytest.mark.parametrize(
    ("there", "words"),
    [(["valid.txt", "dev.TXT"], "dev.TXT in {} is not read"), (["Train.txt"], "Train.txt in {} is not read"), ([], "")],
)
def test_lists_by_other_names_are_named(tmp_path, capsys, there, words):
    write_tsv(tmp_path)
    for name in (*there, "train.jpg"):
        add(tmp_path / name, NAMES[0])
    assert load_split("folder", "val", tmp_path).names == tuple(dealt(NAMES, 3)["val"])
    err = capsys.readouterr().err
    assert words.format(tmp_path) in err and err.count("\n") == len(there[:1])


def test_a_list_that_lacks_is_named(tmp_path):
    write_tsv(tmp_path)
    add(tmp_path / "test.txt", *NAMES[:3])
    with pytest.raises(InputError, match=f"{tmp_path} has test.txt, but no val.txt: give a list of each split, or remove"):
        load_split("folder", "val", tmp_path)


def test_the_splits_of_the_file_come_before_lists_and_a_line_says_so(tmp_path, capsys):
    write_tsv_with_lists(tmp_path)
    records = [{"image": name, "caption": "a dog", "split": "val" if name == NAMES[0] else "train"} for name in NAMES]
    (tmp_path / "splits.json").write_text(json.dumps(records))
    captions = tmp_path / "splits.json"
    assert load_split("folder", "val", tmp_path, captions=captions).names == (NAMES[0],)
    assert f"the splits are those of {captions}; the lists train.txt, val.txt and test.txt" in capsys.readouterr().err
    with pytest.raises(InputError, match="has no photos for test: give some photos this split in splits.json"):
        load_split("folder", "test", tmp_path, captions=captions)


OUTSIDE = [
    "/etc/passwd", "../x.jpg", "..", "a/../../x.jpg", r"..\x.jpg", r"a\..\..\x.jpg", r"C:\x.jpg", "C:/x.jpg", "c:x.jpg",
    "file:///x.jpg", "https://x.org/x.jpg", r"\\server\x.jpg", r"\x.jpg", "//x.jpg", "./../x.jpg",
]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_out_is_refused_as_such(tmp_path, name):
    root = tmp_path / "data"
    write_tsv_with_lists(root)
    Image.new("RGB", (4, 4)).save(tmp_path / "x.jpg")
    words = f"names {name}, which is not inside {root}: name the photos in that folder"
    add(root / "captions.tsv", f"{name}\ta dog")
    with pytest.raises(InputError) as found:
        load_splits("folder", ("val",), root, skip_bad=True)
    assert str(found.value) == f"{root}/captions.tsv {words}"
    mangle(root / "captions.tsv", (f"{name}\ta dog\n", ""))
    add(root / "test.txt", name)
    for split in PARTS:
        with pytest.raises(InputError) as found:
            load_split("folder", split, root)
        assert str(found.value) == f"the list of test {words}"


@pytest.mark.parametrize(("filepath", "filename"), [("/etc", "passwd"), ("..", "x.jpg"), ("train2014/..", "../x.jpg")])
def test_a_folder_that_leads_out_is_refused_as_such(tmp_path, filepath, filename):
    write_karpathy(tmp_path)
    mangle(tmp_path / KARPATHY, ('"filepath": "train2014", "filename": "00.jpg"',
                                 f'"filepath": "{filepath}", "filename": "{filename}"'))  # fmt: skip
    with pytest.raises(InputError, match=f"names {filepath}/{filename}, which is not inside "):
        load_split("karpathy", "test", tmp_path)


@pytest.mark.parametrize("name", ["a/../x.jpg", "..x.jpg", "a/..b/x.jpg", "...", "12:30.jpg", " /x.jpg", "~/x.jpg"])
def test_other_names_do_not_lead_out(name):
    assert not leads_out(name)


def test_a_link_to_a_photo_elsewhere_is_a_photo(tmp_path):
    write_tsv_with_lists(tmp_path / "data")
    shutil.move(tmp_path / "data/22.jpg", tmp_path / "elsewhere.jpg")
    (tmp_path / "data/22.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    assert list(load_split("folder", "val", tmp_path / "data").names) == PARTS["val"]
