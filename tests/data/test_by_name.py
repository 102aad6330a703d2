"""Regions and guidance from files: read by the photos' names, converted from the public form, and used by every command."""

import json
import zipfile
from base64 import b64encode

import numpy as np
import pytest
import regions as converter
from PIL import Image

from satnp import load
from satnp.cli import main
from satnp.data import datasets
from satnp.data.by_name import TEXTS, Guided, read_guidance, read_regions
from satnp.data.datasets import load_split
from satnp.encoders import squeezenet
from satnp.errors import InputError
from satnp.files import map_npz
from satnp.model import Model
from satnp.scores.evaluation import evaluate
from tests.small_world import write_flickr8k, write_weights

K, D, G = 5, 6, 9


def photos(root):
    return sorted(path.name for path in (root / "Flicker8k_Dataset").glob("*.jpg"))


def write_regions(path, names, rng, **changes):
    """Random regions of photos of 80 x 60 pixels, one to K each; `changes` {array: another one, or None for none}"""
    n = 3 if names is None else len(names)
    corners = np.sort(rng.uniform(0, 1, (n, K, 2, 2)), axis=2) * (80, 60)
    mask = np.arange(K) <= rng.integers(0, K, n)[:, None]
    features = rng.random((n, K, D)).astype(np.float16)
    arrays = {"names": names, "features": features, "boxes": corners.reshape(n, K, 4), "mask": mask} | changes
    np.savez(path, **{name: x for name, x in arrays.items() if x is not None})
    return path


def write_tsv(path, photos):
    """photos {name: (boxes, features)} -> path, a file in the public form"""
    lines = []
    for name, (boxes, features) in photos.items():
        arrays = [b64encode(x.astype("<f4").tobytes()).decode() for x in (boxes, features)]
        lines.append("\t".join([name, "80", "60", str(len(boxes)), *arrays]) + "\n")
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="module")
def world(encoders, tmp_path_factory):
    """A folder with the data, regions.npz, guidance.npz and a tiny recipe, and the options of a training of seconds."""
    folder, rng = tmp_path_factory.mktemp("by_name"), np.random.default_rng(0)
    root = write_flickr8k(folder / "data", train=12, val=4, test=3)
    names = [name.removesuffix(".jpg") for name in photos(root)][::-1]  # in another order, without ending
    write_regions(folder / "regions.npz", names, rng)
    np.savez_compressed(folder / "guidance.npz", names=np.array(names), vectors=rng.standard_normal((len(names), G)))
    write_weights(folder / "w.npz", squeezenet, 0)
    (folder / "tiny.toml").write_text(
        "[config]\nM = 8\nH = 12\ndropout = 0.1\n[recipe]\nepochs = 2\nbatch_size = 8\nmin_count = 1\n"
    )
    return folder, f"--data flickr8k --root {root}"


@pytest.fixture(scope="module")
def trained(world):
    """Top-Down on regions and gLSTM on guidance, in the folders regions and guidance."""
    folder, data = world
    for name, captioner, more in (
        ("regions", "top_down", ""),
        ("guidance", "glstm", f"--encoder squeezenet1_1 --weights {folder / 'w.npz'}"),
    ):
        line = f"train {data} --captioner {captioner} --config {folder / 'tiny.toml'} --out {folder / name} {more}"
        assert main([*line.split(), f"--{name}", f"{folder / name}.npz"]) == 0
    return folder, data


@pytest.mark.parametrize("name", ["regions", "guidance"])
def test_a_model_that_reads_a_file_is_resumed_evaluated_and_captions(trained, name, tmp_path, capsys):
    folder, data = trained
    best, file = folder / name / "best.npz", f"--{name} {folder / name}.npz"
    model = load(best)
    assert (model.encoder == "regions") == (name == "regions") and model.frozen
    assert (model.config.regions if name == "regions" else model.config.G == G)
    assert main(f"evaluate {best} {data} --split test --beam 2 {file} --json {tmp_path / 's.json'} "
                f"--results {tmp_path / 'r.json'}".split()) == 0
    scored = {row["image_id"]: row["caption"] for row in json.loads((tmp_path / "r.json").read_text())}
    paths = [folder / "data/Flicker8k_Dataset" / photo for photo in scored]
    line = f"caption {best} {' '.join(map(str, paths))} --beam 2 --json {tmp_path / 'c.json'} --figures {tmp_path}"
    assert main([*line.split(), *file.split()]) == 0
    rows = json.loads((tmp_path / "c.json").read_text())
    assert [row["caption"] for row in rows] == list(scored.values())
    for path, row in zip(paths, rows, strict=True):
        with Image.open(tmp_path / f"{path.stem}.png") as figure:
            assert figure.size[0] > 200
        if name == "regions":
            absent = read_regions(folder / "regions.npz").of([path.name])[0].any(axis=1) == 0
            assert not np.array(row["alpha"])[:, 0, absent].any()
        else:
            assert row["alpha"] is None
    capsys.readouterr()
    for command in (f"evaluate {best} {data} --split test", f"caption {best} {paths[0]}"):
        assert main(command.split()) == 2
        out, err = capsys.readouterr()
        assert err.count("\n") == 1 and f"give it with --{name} FILE.npz" in err and not out
    with pytest.raises(InputError, match="the model reads"):
        model.caption(paths[0])
    with pytest.raises(InputError, match="the model reads"):
        evaluate(model, load_split("flickr8k", "test", folder / "data"), beam=1)


def test_guidance_changes_what_is_said(trained):
    """With two vectors exchanged, the log-probabilities are exchanged or change."""
    folder, data = trained
    model, split = load(folder / "guidance/best.npz"), load_split("flickr8k", "test", folder / "data")
    vectors = read_guidance(folder / "guidance.npz").of(split.names)
    one, two = (
        model.decode(Guided(model, split.photos, v)[: len(split.names)].astype(np.float32), beam=1)
        for v in (vectors, 3 * vectors[::-1])
    )
    assert [a.log_prob for a in one] != [b.log_prob for b in two]


def test_a_training_on_regions_continues_to_the_same_bits(trained, tmp_path):
    folder, data = trained
    line = f"train {data} --captioner top_down --config {folder / 'tiny.toml'} --regions {folder / 'regions.npz'}".split()
    assert main([*line, "--out", str(folder / "regions"), "--resume"]) == 0
    assert main([*line, "--out", str(tmp_path / "more"), "--init", str(folder / "regions/best.npz"), "--epochs", "1"]) == 0


@pytest.mark.slow
def test_regions_learn_from_the_rewards_of_captions_and_from_own_words(trained, tmp_path):
    folder, data = trained
    recipe = (folder / "tiny.toml").read_text()
    (tmp_path / "scst.toml").write_text(recipe + 'objective = "scst"\nsamples = 2\n')
    (tmp_path / "own.toml").write_text(recipe + "scheduled_sampling = 0.5\n")
    for name, more in (("scst", f"--init {folder / 'regions/best.npz'} --skip-bad"), ("own", "")):
        line = f"train {data} --captioner top_down --regions {folder / 'regions.npz'} --epochs 1 {more}"
        assert main(f"{line} --config {tmp_path / name}.toml --out {tmp_path / name}".split()) == 0


def test_rows_are_found_by_name_by_stem_and_by_coco_id(tmp_path, rng):
    names = ["a.jpg", "b", "17"]
    regions = read_regions(write_regions(tmp_path / "r.npz", names, rng))
    assert regions.table.rows_of(["val/b.jpg", "a.jpg", "x.jpg"], ids=(1, 2, 17)).tolist() == [1, 0, 2]
    assert read_regions(write_regions(tmp_path / "r.npz", np.array([b"a", b"b", b"c"]), rng)).table.rows.keys() == {*"abc"}
    assert read_regions(write_regions(tmp_path / "r.npz", [3, 1, 2], rng)).table.rows == {"3": 0, "1": 1, "2": 2}
    with pytest.raises(InputError, match=r"has no row for 2 of the 3 photos \(the first is x.jpg, then y.jpg\); add"):
        regions.of(["a.jpg", "x.jpg", "y.jpg"])
    with pytest.raises(InputError, match="has one row for x/b.jpg and for y/b.jpg; give each a row with the photo's whole"):
        regions.of(["x/b.jpg", "y/b.jpg"])


@pytest.mark.parametrize("compressed", [False, True])
def test_features_are_zero_where_the_mask_is_whatever_the_file_has_there(tmp_path, rng, compressed):
    features, mask = rng.random((3, K, D)).astype(np.float16), np.ones((3, K), np.uint8)
    mask[0, 2:], mask[1, 0] = 0, 0
    features[0, 2:], features[1, 0] = np.nan, 7
    path = write_regions(tmp_path / "r.npz", ["a", "b", "c"], rng, features=features, mask=mask)
    if compressed:
        np.savez_compressed(path, **np.load(path))
    found = read_regions(path).of(["b.jpg", "a.jpg"])
    assert isinstance(found.features, np.memmap) != compressed
    assert not found[:][0, 0].any() and not found[1:][0, 2:].any() and len(found) == 2
    np.testing.assert_array_equal(found[np.array([1, 0])][0, :2], features[0, :2])
    boxes = read_regions(path).boxes(found.rows)
    assert not boxes[0, 0].any() and boxes[0, 1:].any(axis=1).all()


SENTENCES = {
    "has no array 'mask'; give mask with shape (n, k)": {"mask": None},
    "has no array 'names'; give names with shape (n)": {"names": None},
    "has features with shape (3, 30); give features with shape (n, k, D)": {"features": np.ones((3, 30))},
    "has boxes with shape (3, 4, 4); give boxes with shape (n, k, 4), n = 3, k = 5": {"boxes": np.ones((3, 4, 4))},
    "has mask with shape (2, 5); give mask with shape (n, k), n = 3, k = 5": {"mask": np.ones((2, 5))},
    f"has names of type float64; give {TEXTS['names']}": {"names": np.ones(3)},
    f"has names that are not text; give {TEXTS['names']}": {"names": np.array([97, 98, 2**30], "<u4").view("<U1")},
    "has features of type complex128; give numbers": {"features": np.ones((3, K, D), complex)},
    "has two rows for a; give one row for each photo": {"names": np.array(["a", "b", "a"])},
    "has features of b that are not finite numbers": {"features": np.full((3, K, D), [[[1]], [[np.nan]], [[1]]])},
    "has boxes of a that are not finite numbers": {"boxes": np.full((3, K, 4), np.inf)},
    "has no region of c with features; give at least one": {"mask": [[1] * K, [1] * K, [0] * K]},
    "has Python objects in boxes; give numbers": {"boxes": np.array([[None] * K] * 3)},
    f"has Python objects in names; give {TEXTS['names']}": {"names": np.array(["a", "b", "c"], object)},
    "has a mask of b with other values than 0 and 1; give 1 for a region": {"mask": [[1] * K, [0.5] * K, [1] * K]},
    "has a mask of c with other values": {"mask": [[1] * K, [1] * K, [np.nan] * K]},
    "has boxes of a with x2 <= x1; give x1, y1, x2, y2 in pixels of the photo": {"boxes": np.full((3, K, 4), [9, 0, 5, 5])},
    "has boxes of a with y2 <= y1; give x1, y1, x2, y2 in pixels": {"boxes": np.full((3, K, 4), [0, 7, 5, 7])},
}


@pytest.mark.parametrize("sentence", SENTENCES)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_that_does_not_fit_gets_one_sentence(tmp_path, rng, sentence, compressed):
    path = write_regions(tmp_path / "r.npz", **{"names": ["a", "b", "c"], "rng": rng} | SENTENCES[sentence])
    if compressed:
        np.savez_compressed(path, **np.load(path, allow_pickle=True))
    with pytest.raises(InputError) as refusal:
        read_regions(path).of(["a", "b", "c"])
    assert f"{path} {sentence}" in str(refusal.value) and "\n" not in str(refusal.value)


def test_an_absent_region_may_have_any_box(tmp_path, rng):
    features, mask, boxes = np.ones((2, K, D)), np.ones((2, K), bool), np.full((2, K, 4), [1.0, 1, 2, 2])
    mask[0, 1], features[1, 2], boxes[0, 1], boxes[1, 2] = False, 0, np.nan, 0
    path = write_regions(tmp_path / "r.npz", ["a", "b"], rng, features=features, mask=mask, boxes=boxes)
    assert len(read_regions(path).of(["a", "b"])) == 2


def test_an_entry_that_is_no_array_gets_one_sentence(tmp_path):
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "g.npz", "w", method) as archive:
            archive.writestr("names.npy", "a\nb\n")
        with pytest.raises(InputError, match="is not a complete .npz file"):
            read_guidance(tmp_path / "g.npz")


def test_guidance_that_does_not_fit_gets_one_sentence(tmp_path):
    path = tmp_path / "g.npz"
    for vectors, sentence in (
        (np.ones((2, 3, 4)), "has vectors with shape (2, 3, 4); give vectors with shape (n, G)"),
        (np.array([[1, 2], [1, np.inf]]), "has vectors of b.jpg that are not finite"),
    ):
        np.savez(path, names=np.array(["a", "b"]), vectors=vectors)
        with pytest.raises(InputError) as refusal:
            read_guidance(path).of(["a.jpg", "b.jpg"])
        assert sentence in str(refusal.value)
    with pytest.raises(InputError, match="there is no file .*none.npz; give an .npz file with names, vectors"):
        read_guidance(tmp_path / "none.npz")


HEADERS = [
    "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 2",  # tokenize.TokenError
    "{'descr': '<f8' 'fortran_order'= False",
    "\x00" * 20,
    "  {'descr': '<f8',\n 'shape'",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 'two'), }",
    "{'descr': 'nothing', 'fortran_order': False, 'shape': (3, 2), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 200), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (-3, 2), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (3L, 2), }",
    "(" * 300,
    "",
]


def entry(header, version=1):
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode("latin1") + bytes(48)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("header", HEADERS)
def test_a_broken_npy_header_gets_one_sentence(tmp_path, header, method, recwarn, capfd):
    path = tmp_path / "g.npz"
    for version in (1, 2, 9):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("vectors.npy", entry(header, version))
        with pytest.raises(InputError, match=r"is not a complete .npz file|has no array 'names'") as refusal:
            read_guidance(path)
        assert "\n" not in str(refusal.value) and not recwarn.list


def test_a_cut_or_changed_file_gets_one_sentence_or_is_read(tmp_path, rng):
    whole = write_regions(tmp_path / "r.npz", ["a", "b", "c"], rng).read_bytes()
    for end in rng.integers(0, len(whole), 40):
        (tmp_path / "cut.npz").write_bytes(whole[:end])
        with pytest.raises(InputError, match="is not a complete .npz file"):
            read_regions(tmp_path / "cut.npz")
    for _ in range(300):
        changed = bytearray(whole)
        changed[rng.integers(len(whole))] = rng.integers(256)
        (tmp_path / "changed.npz").write_bytes(changed)
        try:
            read_regions(tmp_path / "changed.npz").of(["a", "b", "c"])
        except InputError as refusal:
            assert "\n" not in str(refusal)


@pytest.mark.parametrize("kind", ["regions", "guidance"])
def test_no_flipped_bit_gives_other_numbers(tmp_path, rng, kind):
    path, names = tmp_path / "x.npz", ["a", "b"]
    if kind == "regions":
        write_regions(path, names, rng)
    else:
        np.savez_compressed(path, names=np.array(names), vectors=rng.random((2, G)))
    read = {"regions": lambda: read_regions(path).of(names)[:], "guidance": lambda: read_guidance(path).of(names)}[kind]
    whole, wanted, refused = path.read_bytes(), np.array(read()), 0
    for place in range(0, len(whole), 3):
        wrong = bytearray(whole)
        wrong[place] ^= 1 << place % 8
        path.write_bytes(wrong)
        try:
            np.testing.assert_array_equal(read(), wanted, err_msg=f"{place}")
        except InputError as refusal:
            refused += "\n" not in str(refusal)
    assert refused > len(whole) / 6


def test_of_a_large_array_only_the_header_is_checked(tmp_path, rng, monkeypatch):
    path = write_regions(tmp_path / "r.npz", ["a", "b"], rng, features=np.ones((2, K, D), np.float16))
    monkeypatch.setattr("satnp.files.CHECKED", 2 * K * D * 2)  # without the header
    whole = path.read_bytes()
    start = whole.index(b"\x93NUMPY", whole.index(b"features.npy"))
    for place in range(start, start + 128):
        wrong = bytearray(whole)
        wrong[place] ^= 1 << place % 8
        path.write_bytes(wrong)
        try:
            np.testing.assert_array_equal(read_regions(path).table.arrays["features"], np.ones((2, K, D)))
        except InputError as refusal:
            assert "\n" not in str(refusal)
    path.write_bytes(whole.replace(b"\0<\0<", b"\0<\0=", 1))  # a number: nobody reads the whole file
    assert read_regions(path).table.arrays["features"].max() == 1.25


def test_arrays_are_mapped_as_they_are_read(tmp_path, rng):
    arrays = {
        "a": rng.random((3, 4)), "b": np.asfortranarray(rng.random((3, 4))), "c": np.array(["x", "yy"]),
        "d": np.zeros((0, 3)), "e": np.array(1.5),
    }  # fmt: skip
    np.savez(tmp_path / "x.npz", **arrays)
    found = map_npz(tmp_path / "x.npz", arrays)
    assert found.keys() == arrays.keys()
    for name, x in arrays.items():
        np.testing.assert_array_equal(found[name], x)
    assert isinstance(found["a"], np.memmap) and not found["a"].flags.writeable
    (tmp_path / "x.npz").write_bytes(b"")
    with pytest.raises(ValueError, match="it is not a zip file, or is truncated"):
        map_npz(tmp_path / "x.npz", ["a"])


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("--regions {f}/regions.npz", "--regions is for top_down and neural_baby_talk; leave it out for show_attend_"),
        ("--captioner top_down --guidance {f}/guidance.npz", "--guidance is for glstm; leave it out for top_down"),
        ("--captioner top_down --regions {f}/regions.npz --encoder small", "takes the place of an encoder; leave out --enc"),
        ("--captioner top_down --regions {f}/regions.npz --weights {f}/w.npz", "regions have no encoder; leave out --we"),
        ("--captioner top_down --regions {f}/none.npz", "there is no file"),
        ("--captioner top_down --regions {f}/guidance.npz", "has no array 'features'"),
        ("--captioner top_down --regions {f}/few.npz", "has no row for 10 of the 12 photos (the first is train-00002.jpg"),
        ("--captioner top_down --encoder small --config {f}/regions.toml", "give it with --regions FILE.npz"),
        ("--captioner glstm --encoder small --config {f}/guidance.toml", "give it with --guidance FILE.npz"),
        ("--captioner glstm --encoder small --guidance {f}/guidance.npz", "needs an encoder that is not trained"),
    ],
)
def test_a_training_that_cannot_read_its_file_gets_one_sentence(world, capsys, rng, more, sentence):
    folder, data = world
    write_regions(folder / "few.npz", ["train-00000", "train-00001"], rng)
    (folder / "regions.toml").write_text("[config]\nregions = true\n")
    (folder / "guidance.toml").write_text("[config]\nguidance = 'file'\n")
    assert main(f"train {data} {more.format(f=folder)} --out {folder / 'new'}".split()) == 2
    out, err = capsys.readouterr()
    assert sentence in err and err.startswith("satnp: ") and err.count("\n") == 1
    assert not (folder / "new").exists()


def test_a_file_of_other_sizes_or_for_another_model_is_refused(trained, capsys, rng):
    folder, data = trained
    names = [name.removesuffix(".jpg") for name in photos(folder / "data")]
    write_regions(folder / "wide.npz", names, rng, features=rng.random((len(names), K, D + 1)))
    np.savez(folder / "short.npz", names=np.array(names), vectors=np.ones((len(names), 2)))
    for line, sentence in (
        ("regions/best.npz --regions {f}/wide.npz", "has 5 regions of each photo with 7 features, but the model reads 5"),
        ("guidance/best.npz --guidance {f}/short.npz", "has vectors of 2 numbers, but the model reads a guidance vector"),
        ("guidance/best.npz --regions {f}/regions.npz", "the model reads no regions from a file; leave out --regions"),
        ("regions/best.npz --regions {f}/regions.npz --guidance {f}/guidance.npz", "reads no guidance from a file; leave"),
        ("regions/best.npz --regions {f}/regions.npz --weights {f}/w.npz", "has no pretrained weights"),
    ):
        assert main(f"evaluate {folder}/{line.format(f=folder)} {data} --split test".split()) == 2
        out, err = capsys.readouterr()
        assert sentence in err and err.startswith("satnp: ") and err.count("\n") == 1 and not out


@pytest.mark.parametrize("more", ["--encoder small", "--weights {f}/w.npz", "--weights {f}/w.npz --finetune-from fire8"])
def test_a_training_on_a_grid_does_not_start_from_one_on_regions(trained, tmp_path, capsys, more):
    folder, data = trained
    start = f"--init {folder / 'regions/best.npz'} --out {tmp_path / 'x'}"
    line = f"train {data} --captioner top_down {more.format(f=folder)} {start}"
    assert main(line.split()) == 2
    assert "has another encoder than this training" in capsys.readouterr().err


def test_a_checkpoint_that_trains_its_encoder_and_reads_a_file_is_refused(trained):
    model = load(trained[0] / "guidance/best.npz")
    with pytest.raises(InputError, match="its encoder is trained, but it reads a file"):
        Model.from_header(model.header() | {"frozen": False})


def test_where_regions_look_is_not_scored_as_on_a_grid(trained, tmp_path, rng, monkeypatch):
    folder, _ = trained
    monkeypatch.setitem(datasets.SCENES, "val", 3)
    write_regions(tmp_path / "scenes.npz", [f"val-{k:05d}" for k in range(3)], rng)
    line = f"evaluate {folder / 'regions/best.npz'} --data scenes --split val --regions {tmp_path / 'scenes.npz'}"
    assert main(f"{line} --beam 1 --json {tmp_path / 's.json'}".split()) == 0
    scores = json.loads((tmp_path / "s.json").read_text())
    assert "true_captions" in scores and "pointing_accuracy" not in scores


def photos_with(rng, **counts):
    """{name: (boxes, features)} of photos with these numbers of boxes"""
    return {name: (np.sort(rng.random((count, 4)) * 60), 9 * rng.random((count, D))) for name, count in counts.items()}


def test_the_public_form_is_converted(tmp_path, rng, capsys):
    first, second = photos_with(rng, **{"391895": 2, "7": 4}), photos_with(rng, **{"12": 1})
    paths = [write_tsv(tmp_path / f"{k}.tsv", part) for k, part in enumerate((first, second))]
    assert converter.main([*map(str, paths), "--out", str(tmp_path / "r.npz")]) == 0
    assert f"{tmp_path / 'r.npz'}: 3 photos, at most 4 regions, {D} features" in capsys.readouterr().out
    regions = read_regions(tmp_path / "r.npz")
    found = regions.of(["COCO_7.jpg", "12.jpg", "391895"], ids=(7, 0, 0))
    for n, name in enumerate(("7", "12", "391895")):
        boxes, features = (first | second)[name]
        np.testing.assert_allclose(found[n : n + 1][0, : len(features)], features, rtol=1e-3)
        np.testing.assert_allclose(regions.boxes(found.rows[n])[: len(boxes)], boxes, rtol=1e-6)
        assert not found[n : n + 1][0, len(features) :].any() and not regions.boxes(found.rows[n])[len(boxes) :].any()
    assert regions.sizes == (4, D) and isinstance(found.features, np.memmap) and found.features.dtype == np.float16
    with np.load(tmp_path / "r.npz") as archive:
        assert set(archive.files) == {"names", "features", "boxes", "mask"} and archive["mask"].sum() == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.tsv", "1.tsv", "r.npz"]


BROKEN_LINES = {
    "it has 5 columns": lambda line: line.rpartition("\t")[0],
    "Invalid base64-encoded string": lambda line: line[:-3],
    "boxes of photo": lambda line: line.replace("\t3\t", "\t4\t"),
    "invalid literal for int()": lambda line: line.replace("\t3\t", "\tthree\t"),
    "is broken (it has 1 columns": lambda line: "",
    "0 boxes of photo": lambda line: line.replace("\t3\t", "\t0\t"),
    "a number is not finite": lambda line: line.rpartition("\t")[0]
    + "\t" + b64encode(np.full(3 * D, 1e6, "<f4").tobytes()).decode(),
    "features of each box, but the lines before have": lambda line: line.rpartition("\t")[0]
    + "\t" + b64encode(np.ones(3 * D + 3, "<f4").tobytes()).decode(),
    "is of photo 1, as is line 1 of": lambda line: line.replace("2\t80", "1\t80"),
}  # fmt: skip


@pytest.mark.parametrize("sentence", BROKEN_LINES)
def test_a_broken_line_gets_one_sentence_and_no_file(tmp_path, rng, capsys, sentence):
    path = write_tsv(tmp_path / "x.tsv", photos_with(rng, **{"1": 2, "2": 3, "3": 1}))
    lines = path.read_text().splitlines()
    lines[1] = BROKEN_LINES[sentence](lines[1])
    path.write_text("\n".join(lines) + "\n")
    assert converter.main([str(path), "--out", str(tmp_path / "r.npz")]) == 2
    out, err = capsys.readouterr()
    said = err.splitlines()[-1]
    assert said.startswith(f"regions: line 2 of {path}") and sentence in said and not out
    assert [p.name for p in tmp_path.iterdir()] == ["x.tsv"]


def test_the_converter_names_a_missing_file_an_empty_one_and_a_name_that_is_no_npz(tmp_path, capsys):
    (tmp_path / "empty.tsv").touch()
    for line, sentence in (
        (f"{tmp_path}/none.tsv --out {tmp_path}/r.npz", f"{tmp_path}/none.tsv: No such file"),
        (f"{tmp_path}/empty.tsv --out {tmp_path}/r.npz", "has no lines"),
        (f"{tmp_path}/empty.tsv --out {tmp_path}/r.zip", "give a name that ends in .npz"),
    ):
        assert converter.main(line.split()) == 2
        assert sentence in capsys.readouterr().err.splitlines()[-1]
