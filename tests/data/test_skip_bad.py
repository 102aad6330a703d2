"""One bad photo among many stops the run, or with --skip-bad is reported, left out, and left out again the next time."""

import json
import os
import shutil
import struct
from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageFile

from satnp.checkpoint import save
from satnp.cli import main
from satnp.data.datasets import load_split
from satnp.data.split import readable
from satnp.encoders import squeezenet
from satnp.training.presets import PRESETS, new_model
from satnp.training.trainer import Trainer
from tests.encoders.test_photos import write_chunks
from tests.encoders.test_weights import write_safetensors
from tests.small_world import write_flickr8k

TINY = (
    "[config]\nM = 6\nH = 8\nA = 4\n"
    "[recipe]\nepochs = 2\nbatch_size = 8\nmin_count = 1\npatience = 0\nsave_every = 3\nvalidate_every = 6\nmirror = true\n"
)
BAD = {"train": ["train-00001.jpg", "train-00005.jpg"], "val": ["val-00002.jpg"], "test": ["test-00003.jpg"]}
SKIPPED = "satnp: skipped: {} cannot be read as a photo (it is not {}); give a whole, readable JPEG or PNG file"


@pytest.fixture(scope="module")
def world(encoders, no_figures, tmp_path_factory):
    """Data with bad photos, `bad`, the same without them, `good`, and weights of SqueezeNet drawn at random."""
    folder = tmp_path_factory.mktemp("skip")
    write_flickr8k(folder / "bad", 12, 4, 4)
    shutil.copytree(folder / "bad", folder / "good")
    for part, names in (("train", BAD["train"]), ("dev", BAD["val"]), ("test", BAD["test"])):
        path = folder / f"good/Flickr8k_text/Flickr_8k.{part}Images.txt"
        path.write_text("".join(f"{name}\n" for name in path.read_text().split() if name not in names))
        for name in names:
            (folder / "bad/Flicker8k_Dataset" / name).write_bytes(b"no photo")
    (folder / "tiny.toml").write_text(TINY)
    config = squeezenet.Config()
    params, names = squeezenet.init(config, np.random.default_rng(0)), squeezenet.tensor_names(config)
    arrays = {names[ours]: x.transpose(3, 2, 0, 1) if x.ndim == 4 else x for ours, x in params.items()}
    write_safetensors(folder / "w.safetensors", arrays)
    save(folder / "small.npz", new_model(PRESETS["scenes"], load_split("flickr8k", "train", folder / "good")))
    return folder


def train(world, data, out, *more):
    """Status of a training."""
    line = f"train --data flickr8k --root {world}/{data} --config {world}/tiny.toml --out {out}"
    return main([*line.split(), "--weights", f"{world}/w.safetensors", *more])


def arrays(path):
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files if name != "header"}


def assert_same_bits(a, b):
    for name in ("last.npz", "best.npz"):
        one, other = arrays(a / name), arrays(b / name)
        assert one.keys() == other.keys()
        for key, x in one.items():
            np.testing.assert_array_equal(other[key], x, err_msg=f"{name}: {key}")


def skipped(err):
    return [line for line in err.replace("\r", "\n").splitlines() if line.startswith("satnp: skipped")]


@pytest.fixture(scope="module")
def good(world):
    """A training without the bad photos."""
    assert train(world, "good", world / "run") == 0
    return world / "run"


@pytest.mark.slow
def test_a_training_leaves_bad_photos_and_their_captions_out(world, good, tmp_path, capsys):
    assert train(world, "bad", tmp_path / "a") == 2
    assert f"{BAD['train'][0]} cannot be read as a photo (it is not an image)" in capsys.readouterr().err
    assert train(world, "bad", tmp_path / "bad", "--skip-bad") == 0
    *lines, last = skipped(capsys.readouterr().err)
    wanted = [SKIPPED.format(world / "bad/Flicker8k_Dataset" / name, "an image") for name in (*BAD["train"], *BAD["val"])]
    assert lines == wanted and last == "satnp: skipped 3 of 16 photos"
    assert_same_bits(good, tmp_path / "bad")
    stores = {run: sorted((run / "features").glob("features-*")) for run in (good, tmp_path / "bad")}
    one, other = ({path.name: path.read_bytes() for path in paths} for paths in stores.values())
    assert one == other and len(one) == 6  # train, mirrored and val, each with its note


@pytest.mark.slow
def test_what_was_left_out_is_left_out_again_and_resuming_gives_the_same_bits(world, good, tmp_path, capsys, monkeypatch):
    run = partial(train, world, "bad", tmp_path / "bad", "--skip-bad")
    train_step = Trainer._train_step

    def dying(trainer):
        if trainer.step == 7:
            raise KeyboardInterrupt
        return train_step(trainer)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_train_step", dying)
        assert run() == 130
    photo, copy = world / "bad/Flicker8k_Dataset" / BAD["train"][1], tmp_path / "photo"
    shutil.move(photo, copy)
    try:
        shutil.copy(world / "good/Flicker8k_Dataset" / photo.name, photo)  # mended, but not for this training
        capsys.readouterr()
        assert run("--resume") == 0
    finally:
        shutil.move(copy, photo)
    out, err = capsys.readouterr()
    assert "resumed at step 6" in out and "reading" not in err  # the photos are not read again
    note = next((tmp_path / "bad/features").glob("photos-*.json"))
    assert len(skipped(err)) == 4 and any(f"JPEG or PNG file (noted in {note.parent}/photos-" in x for x in skipped(err))
    assert_same_bits(good, tmp_path / "bad")


@pytest.mark.parametrize(
    "content", ["", '{"photos": 12, "bad": {"tr', "[]", '{"photos": 11, "bad": {}}', '{"photos": 12, "bad": {"x.jpg": "x"}}']
)
def test_a_note_that_cannot_be_trusted_is_made_again(world, tmp_path, content):
    split = load_split("flickr8k", "train", world / "bad")
    assert readable(split, tmp_path) == load_split("flickr8k", "train", world / "good")._replace(
        photos=tuple(photo for photo in split.photos if photo.name not in BAD["train"]), skipped=2
    )
    (note,) = tmp_path.iterdir()
    whole = note.read_bytes()
    note.write_text(content)
    assert len(readable(split, tmp_path).names) == 10 and note.read_bytes() == whole


def test_an_evaluation_leaves_bad_photos_out_and_says_how_many(world, tmp_path, capsys):
    line = "evaluate {w}/small.npz --data flickr8k --root {w}/{data} --split test --beam 1 --json {t}/{data}.json"
    assert main(line.format(w=world, t=tmp_path, data="bad").split()) == 2
    assert "cannot be read as a photo" in capsys.readouterr().err and not (tmp_path / "bad.json").exists()
    assert main([*line.format(w=world, t=tmp_path, data="bad").split(), "--skip-bad"]) == 0
    lines = skipped(capsys.readouterr().err)
    assert len(lines) == 2 and lines[-1] == "satnp: skipped 1 of 4 photos"
    assert main(line.format(w=world, t=tmp_path, data="good").split()) == 0
    bad, good = (json.loads((tmp_path / f"{data}.json").read_text()) for data in ("bad", "good"))
    assert (bad["photos"], bad["skipped"], good["skipped"]) == (3, 1, 0)
    assert bad | {"skipped": 0} == good


def caption(world, photos, *more):
    return main(["caption", str(world / "small.npz"), *map(str, photos), "--beam", "1", *more])


def test_a_bad_photo_among_captioned_ones_is_skipped_only_if_that_is_asked_for(world, tmp_path, capsys):
    photos = sorted((world / "bad/Flicker8k_Dataset").glob("t*"))  # train-00001 is the sixth
    out = ["--json", str(tmp_path / "out.json")]
    assert caption(world, photos, *out) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "out.json").exists()
    assert caption(world, [*photos, tmp_path / "none.jpg"], *out, "--skip-bad") == 0
    said, err = capsys.readouterr()
    good = [photo for photo in photos if photo.name not in BAD["train"] + BAD["test"]]
    assert [line.partition(": ")[0] for line in said.splitlines()] == [str(photo) for photo in good]
    assert [row["photo"] for row in json.loads((tmp_path / "out.json").read_text())] == [str(photo) for photo in good]
    *lines, last = err.splitlines()
    assert lines[:3] == [SKIPPED.format(photo, "an image") for photo in photos if photo not in good]
    assert lines[3] == f"satnp: skipped: there is no photo {tmp_path}/none.jpg; check the name"
    assert last == f"satnp: skipped 4 of {len(photos) + 1} photos"


@pytest.fixture
def flat(world, tmp_path):
    """Data of which one photo of `test` declares 60,000,000 rows, and another needs more memory than there is."""
    shutil.copytree(world / "good", tmp_path / "data")
    photos = tmp_path / "data/Flicker8k_Dataset"
    header = struct.pack(">IIBBBBB", 1, 6 * 10**7, 8, 0, 0, 0, 0)
    write_chunks(photos / "test-00000.jpg", (b"IHDR", header), (b"IDAT", b""))
    Image.new("L", (80, 61)).save(photos / "test-00002.jpg")
    load = ImageFile.ImageFile.load

    def loaded(image):
        if image.size == (80, 61):
            raise MemoryError
        return load(image)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", loaded)
        yield photos


@pytest.mark.parametrize("command", ["caption", "evaluate"])
def test_a_photo_that_needs_too_much_memory_is_left_out_like_any_other(world, flat, capsys, command):
    line = {
        "caption": f"caption {world}/small.npz {flat}/test-00000.jpg {flat}/test-00001.jpg {flat}/test-00002.jpg",
        "evaluate": f"evaluate {world}/small.npz --data flickr8k --root {flat.parent} --split test",
    }[command]
    assert main([*line.split(), "--beam", "1", "--skip-bad"]) == 0
    *lines, last = skipped(capsys.readouterr().err)
    too_long = f"{flat}/test-00000.jpg has 1 x 60000000 pixels; at most 65500 a side are read; give a smaller copy"
    assert lines == [
        f"satnp: skipped: {too_long}",
        f"satnp: skipped: {flat}/test-00002.jpg needs more memory than there is; give a smaller copy",
    ]
    assert last == "satnp: skipped 2 of 3 photos"
    assert main([*line.split(), "--beam", "1"]) == 2
    assert capsys.readouterr().err == f"satnp: {too_long}\n"


def test_a_figure_that_needs_too_much_memory_is_left_out_and_nothing_else(world, tmp_path, capsys, monkeypatch):
    def drawn(photo, words, alphas, grid, path, title=None, boxes=None):
        if path.stem == "test-00000":
            raise MemoryError
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"figure")

    monkeypatch.setattr("satnp.figures.attention_figure", drawn)
    photos = [str(world / f"good/Flicker8k_Dataset/test-0000{k}.jpg") for k in (0, 1)]
    line = ["caption", f"{world}/small.npz", *photos, "--figures", f"{tmp_path}/f", "--json", f"{tmp_path}/c.json"]
    assert main([*line, "--skip-bad"]) == 0
    told = f"satnp: there is no figure of {photos[0]}: drawing it needs more memory than there is\n"
    assert capsys.readouterr().err == told
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["test-00001.png"]
    assert [row["photo"] for row in json.loads((tmp_path / "c.json").read_text())] == photos
    assert main(line) == 2


def test_nothing_but_bad_photos_is_refused(world, tmp_path, capsys):
    bad = [world / "bad/Flicker8k_Dataset" / name for name in BAD["train"]]
    assert caption(world, bad, "--skip-bad", "--json", str(tmp_path / "out.json")) == 2
    *lines, last = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert last == f"satnp: none of the 2 photos can be read (the first is {bad[0]}); give undamaged photos"
    shutil.copytree(world / "bad", tmp_path / "data")
    for photo in (tmp_path / "data/Flicker8k_Dataset").glob("val-*"):
        photo.write_bytes(b"")
    assert train(tmp_path, "data", tmp_path / "new", "--skip-bad", "--config", str(world / "tiny.toml")) == 2
    err = capsys.readouterr().err
    assert err.endswith("satnp: none of the 4 photos can be read (the first is val-00000.jpg); give undamaged photos\n")
    assert not (tmp_path / "new/last.npz").exists()


@pytest.mark.slow
@pytest.mark.parametrize("encoders", ["tiny"], indirect=True)
def test_one_bad_photo_among_thousands(world, tmp_path, capsys):
    photos = [tmp_path / f"{k:04}.jpg" for k in range(3000)]
    for photo in photos:
        os.link(world / "good/Flicker8k_Dataset/test-00000.jpg", photo)
    photos[2345].unlink()
    photos[2345].write_bytes((world / "good/Flicker8k_Dataset/test-00000.jpg").read_bytes()[:900])
    assert caption(world, [tmp_path / "*.jpg"], "--skip-bad") == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 2999 and err.count("\n") == 2
    assert err.startswith(f"satnp: skipped: {photos[2345]} cannot be read as a photo (") and " skipped 1 of 3000 " in err
