"""Clips: reading their files, and the encoder that computes a vector for each frame."""

import io

import numpy as np
import pytest
from PIL import Image

from satnp import load
from satnp.checkpoint import save
from satnp.cli import main
from satnp.data import datasets, moving_scenes
from satnp.data.datasets import load_split
from satnp.encoders import clips, small
from satnp.encoders.clips import picture, read_clip, read_input
from satnp.encoders.photos import Preprocessing, read_photo
from satnp.errors import InputError
from satnp.files import read_json
from satnp.training.presets import PRESETS, find_preset, new_model
from satnp.training.trainer import read_log

CONFIG = clips.Config((2, 3, 5), Preprocessing(12), frames=4)
GREYS = np.linspace(0, 240, 16).astype(np.uint8)


def animation(count, format, size=(6, 4), **how):
    """The bytes of a file whose frame k is all grey, GREYS[k]"""
    first, *more = (Image.new("RGB", size, (int(grey),) * 3) for grey in GREYS[:count])
    file = io.BytesIO()
    first.save(file, format, save_all=True, append_images=more, **how)
    return file.getvalue()


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_frames_are_read_at_equal_distances(format):
    how = {"lossless": True} if format == "WEBP" else {}
    for count, wanted in ((15, [0, 2, 4, 6, 8, 10, 12, 14]), (8, range(8)), (2, [0, 0, 0, 0, 1, 1, 1, 1])):
        found = read_clip(animation(count, format, **how), 8)
        assert found.shape == (8, 4, 6, 3) and found.dtype == np.uint8
        assert (found == GREYS[list(wanted), None, None, None]).all()
    assert read_clip(animation(3, format, **how), 5, size=9).shape == (5, 9, 9, 3)
    assert (read_photo(animation(3, format, **how)) == GREYS[0]).all()  # a photo is the first frame


def test_a_path_an_image_and_an_array_are_read_alike(tmp_path, rng):
    array = rng.integers(0, 256, (5, 7, 6, 3), dtype=np.uint8)
    first, *more = map(Image.fromarray, array)
    first.save(tmp_path / "a.png", save_all=True, append_images=more)
    with Image.open(tmp_path / "a.png") as image:
        for clip in (tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes(), image, array):
            assert (read_clip(clip, 5) == array).all()
        assert image.tell() == 0


def test_pages_of_several_sizes_get_that_of_the_first():
    first, second = Image.new("RGB", (6, 4)), Image.new("RGB", (9, 9))
    file = io.BytesIO()
    first.save(file, "TIFF", save_all=True, append_images=[second])
    assert read_clip(file.getvalue(), 2).shape == (2, 4, 6, 3)


def test_a_clip_that_cannot_be_read_gets_a_sentence(tmp_path):
    Image.new("RGB", (5, 5)).save(tmp_path / "still.png")
    with pytest.raises(InputError, match=r"still.png has one frame, and the model captions clips; give an animated GIF"):
        read_clip(tmp_path / "still.png", 8)
    with pytest.raises(InputError, match=r"array \(5, 5, 3\); give two frames or more"):
        read_clip(np.zeros((5, 5, 3), np.uint8), 8)
    with pytest.raises(InputError, match="cannot be read as a photo"):
        read_clip(animation(8, "PNG")[:150], 8)
    with pytest.raises(InputError, match="there is no photo"):
        read_clip(tmp_path / "none.gif", 8)
    with pytest.raises(InputError, match="frames is 1"):
        clips.Config(frames=1)


def test_what_an_encoder_reads_and_what_is_drawn(rng):
    clip = rng.integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)
    assert (read_input(CONFIG, clip) == clip).all()
    strip = picture(clip)
    assert strip.shape == (12, 51, 3) and (strip[:, 12::13] == 255).all()
    assert all((strip[:, 13 * k : 13 * k + 12] == frame).all() for k, frame in enumerate(clip))
    assert (picture(clip[0]) == clip[0]).all() and (read_input(CONFIG.photo, clip[0]) == clip[0]).all()


def world(rng):
    params = clips.init(CONFIG, rng)
    return params, rng.integers(0, 256, (2, 4, 12, 12, 3), dtype=np.uint8)


def test_the_vectors_are_the_formula(rng):
    params, pixels = world(rng)
    found, _ = clips.forward(params, CONFIG, pixels)
    assert found.shape == (2, *CONFIG.grid[1:], CONFIG.D) == (2, 4, 21)
    y, x = np.divmod(np.arange(9), 3) - np.ones((2, 1))
    for n, clip in enumerate(pixels):
        F, _ = small.forward(params, CONFIG.photo, clip)
        for k in range(4):
            change = abs(F[k] - F[max(0, k - 1)]).mean(axis=0)
            moments = [(place[:, None] * F[k]).mean(axis=0) for place in (np.ones(9), x, y)]
            parts = [*moments, change, [2 * k / 3 - 1]]
            np.testing.assert_allclose(found[n, k], np.concatenate(parts), atol=1e-5)


def test_the_mean_over_the_frames_does_not_know_their_order(rng):
    params, pixels = world(rng)
    one, other = (clips.forward(params, CONFIG, x)[0] for x in (pixels, pixels[:, ::-1]))
    np.testing.assert_allclose(one.mean(axis=1), other.mean(axis=1), atol=1e-5)
    assert abs(one - other).max() > 0.01


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """moving_scenes of few clips, and the checkpoint of an untrained captioner of photos."""
    monkeypatch.setattr(datasets, "CLIPS", {"train": 24, "val": 4, "test": 4})
    for where in ("scores.evaluation", "compare"):  # starting Java takes long
        monkeypatch.setattr(f"satnp.{where}.meteor_or_reason", lambda *_: (None, "METEOR is left out"))
    monkeypatch.setattr(datasets, "SCENES", {"train": 4, "val": 2, "test": 2})
    save(tmp_path / "photos.npz", new_model(PRESETS["scenes"], load_split("scenes", "train")))
    sizes, recipe = "M = 16\nH = 32\ndropout = 0.0", "epochs = 50\nvalidate_every = 1000\nlearning_rate = 1e-2"
    (tmp_path / "tiny.toml").write_text(f"[config]\n{sizes}\n[recipe]\n{recipe}\n")
    return tmp_path


def train(folder, *more):
    how = ["--config", str(folder / "tiny.toml"), "--out", str(folder / "out"), *more]
    return main(["train", "--data", "moving_scenes", *how])


@pytest.mark.parametrize("captioner", ["show_attend_tell", "s2vt"])
def test_training_and_captioning_of_clips(tiny, capsys, captioner):
    init = str(tiny / "photos.npz")
    assert train(tiny, "--init", init, "--captioner", captioner) == 0
    losses = [record["loss"] for record in read_log(tiny / "out" / "metrics.jsonl") if record["kind"] == "train"]
    assert losses[-1] < 1 < 2 < losses[0]  # nats a word
    model, photos = load(tiny / "out" / "best.npz"), load(init)
    assert model.encoder == "small_frames" and model.frozen
    assert (model.params.part("encoder").flat == photos.params.part("encoder").flat).all()
    clip = load_split("moving_scenes", "test").scenes[0]
    moving_scenes.write_clip(tiny / "clip.png", clip)
    assert str(model.caption(tiny / "clip.png")) == str(model.caption(clip.frames))
    capsys.readouterr()
    best = str(tiny / "out" / "best.npz")
    assert main(["caption", best, str(tiny / "clip.png"), "--figures", str(tiny / "f"), "--page", str(tiny / "p.html")]) == 0
    assert (tiny / "f" / "clip.png").exists() and (tiny / "p.html").exists()
    assert main(["evaluate", best, "--data", "moving_scenes", "--split", "test"]) == 0
    assert "true_backwards" in capsys.readouterr().out
    Image.new("RGB", (64, 64)).save(tiny / "still.png")
    assert main(["caption", best, str(tiny / "still.png")]) == 2
    assert "has one frame, and the model captions clips" in capsys.readouterr().err
    assert main(["caption", init, str(tiny / "clip.png")]) == 0  # the first frame
    assert main(["caption", best, str(tiny / "clip.png"), "--with", init, "--page", str(tiny / "p.html")]) == 2
    assert "some of these checkpoints caption clips and others photos" in capsys.readouterr().err


def test_comparison_and_early_systems_take_clips(tiny):
    how = ["--init", str(tiny / "photos.npz"), "--captioners", "s2vt", "retrieval", "--epochs", "1"]
    assert main(["compare", "--data", "moving_scenes", *how, "--out", str(tiny / "compare")]) == 0
    rows = read_json(tiny / "compare" / "compare.json")
    assert (tiny / "compare" / "compare.png").exists() and all("true_backwards" in row for row in rows)


def test_without_init_the_encoder_is_trained_too(tiny):
    (tiny / "tiny.toml").write_text("[recipe]\nsteps = 2\n[encoder_config]\nsize = 32\nframes = 3\n")
    assert train(tiny) == 0
    model = load(tiny / "out" / "best.npz")
    assert not model.frozen and model.encoder_config.frames == 3
    assert (model.params.part("encoder").flat != clips.init(model.encoder_config, np.random.default_rng([0, 0])).flat).any()


def test_encoders_of_photos_and_of_clips_are_not_confused(tiny, capsys):
    with pytest.raises(InputError, match="moving_scenes are clips, which the encoder small does not read"):
        find_preset("moving_scenes", encoder="small")
    with pytest.raises(InputError, match="scenes are photos, which the encoder small_frames does not read"):
        find_preset("scenes", encoder="small_frames")
    model = new_model(find_preset("moving_scenes"), load_split("moving_scenes", "train"))
    with pytest.raises(InputError, match="--init has the encoder small_frames, and the data are photos"):
        new_model(PRESETS["scenes"], load_split("scenes", "train"), encoder=model)


@pytest.mark.parametrize(("line", "sentence"), [
    ("train --data moving_scenes --captioner babytalk --init {0} --out {1}/x", "babytalk finds objects in photos"),
    ("train --data moving_scenes --captioner neural_baby_talk --out {1}/x", "neural_baby_talk finds objects in photos"),
    ("train --data moving_scenes --captioner top_down --regions {1}/r.npz --out {1}/x", "--regions is for photos, and"),
    ("evaluate {0} --data moving_scenes --split test", "describes photos, and moving_scenes are clips; give other data"),
    ("evaluate {2} --data scenes --split test", "describes clips, and scenes are photos; give other data"),
    ("regions --data scenes --init {2} --out {1}/r.npz", "has no encoder of photos; give a checkpoint that has one"),
])  # fmt: skip
def test_clips_and_photos_are_not_confused(tiny, capsys, line, sentence):
    save(tiny / "clips.npz", new_model(find_preset("moving_scenes"), load_split("moving_scenes", "train")))
    assert main(line.format(tiny / "photos.npz", tiny, tiny / "clips.npz").split()) == 2
    assert sentence in capsys.readouterr().err
    assert not (tiny / "x").exists() and not (tiny / "r.npz").exists()
