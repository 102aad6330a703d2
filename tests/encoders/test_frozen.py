"""A frozen, pretrained encoder: its features are kept, its weights are left alone, and a cut training goes on."""

import json
import re
import shutil
import signal
from dataclasses import replace
from math import prod

import numpy as np
import pytest

from satnp import load
from satnp.cli import main
from satnp.data.datasets import load_split
from satnp.encoders import squeezenet
from satnp.errors import InputError
from satnp.training.presets import PRESETS, find_preset, new_model
from satnp.training.trainer import Trainer, read_log
from tests.small_world import write_flickr8k, write_weights

TINY = (
    "[config]\nM = 8\nH = 12\nA = 6\n"
    "[recipe]\nepochs = 1\nbatch_size = 4\nlog_every = 2\nvalidate_every = 3\nmin_count = 1\nmirror = true\n"
)
EVALUATE = "evaluate {best} --data flickr8k --root {root} --split test --beam 2 --json {out}"


@pytest.fixture(scope="module")
def world(encoders, no_figures, tmp_path_factory):
    """A folder with data, weights, other.npz with other weights, and the finished training `whole`."""
    folder = tmp_path_factory.mktemp("frozen")
    write_flickr8k(folder / "data", train=3, val=2, test=2)
    (folder / "tiny.toml").write_text(TINY)
    for seed, name in enumerate(("weights", "other")):
        write_weights(folder / f"{name}.npz", squeezenet, seed)
    assert main(train_line(folder, "whole")) == 0
    return folder


def train_line(folder, out, *more, data="data", weights="weights"):
    line = f"train --data flickr8k --root {folder / data} --weights {folder / weights}.npz"
    return [*line.split(), *f"--config {folder}/tiny.toml --out {folder / out}".split(), *more]


def assert_same_archive(a, b):
    with np.load(a) as a, np.load(b) as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_features_are_kept_and_the_weights_are_left_alone(world):
    model = load(world / "whole/best.npz")
    wanted = squeezenet.load(world / "weights.npz", model.encoder_config)
    np.testing.assert_array_equal(model.params.part("encoder").flat, wanted.flat)
    assert model.frozen and model.grid == squeezenet.Config().grid
    stores = {path.stem: np.load(path) for path in (world / "whole/features").glob("*.npy")}
    assert sorted(x.shape for x in stores.values()) == [(photos, prod(model.grid), 512) for photos in (2, 3, 3)]
    (mirrored,) = (stem for stem in stores if stem.endswith("-mirrored"))
    assert not np.array_equal(stores[mirrored], stores[mirrored.removesuffix("-mirrored")])


@pytest.mark.slow
@pytest.mark.parametrize("cut", [2, 3])
def test_a_cut_training_goes_on_to_the_same_bits(world, monkeypatch, cut):
    train_step, out = Trainer._train_step, f"cut-{cut}"

    def stepping(trainer):
        if trainer.step + 1 == cut:
            signal.raise_signal(signal.SIGINT)
        return train_step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", stepping)
        assert main(train_line(world, out, "--features", str(world / "whole/features"))) == 130
    assert read_log(world / out / "metrics.jsonl")[-1]["step"] <= cut
    assert main(train_line(world, out, "--features", str(world / "whole/features"), "--resume")) == 0
    assert not (world / out / "features").exists()
    for name in ("last.npz", "best.npz"):
        assert_same_archive(world / "whole" / name, world / out / name)
    assert read_log(world / out / "metrics.jsonl") == read_log(world / "whole/metrics.jsonl")


@pytest.mark.parametrize("what", ["encoder weights", "captions"])
def test_resume_refuses_what_differs_by_its_name(world, capsys, what):
    changes = {"weights": "other"}
    if what == "captions":
        changes = {"data": "swapped"}
        tokens = shutil.copytree(world / "data", world / "swapped") / "Flickr8k_text/Flickr8k.token.txt"
        text = tokens.read_text()
        for old, new in (("train-00000", "swap"), ("train-00001", "train-00000"), ("swap", "train-00001")):
            text = text.replace(old, new)
        tokens.write_text(text)
    before, features = (world / "whole/last.npz").read_bytes(), sorted((world / "whole/features").iterdir())
    capsys.readouterr()
    assert main(train_line(world, "whole", "--resume", **changes)) == 2
    (sentence,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("satnp: "))
    assert re.search(rf"began with other options: {what} \w{{16}}, now \w{{16}}; leave", sentence)
    assert (world / "whole/last.npz").read_bytes() == before
    assert sorted((world / "whole/features").iterdir()) == features  # none were computed first


@pytest.mark.parametrize(("more", "says"), [
    (["--finetune-from", "fire9"], "finetune_from none, now fire9"),
    (["--preprocessing", "torchvision"], "encoder_config.preprocessing."),
    (["--encoder", "small"], "encoder squeezenet1_1, now small"),
    (["--encoder", "small", "--batch-size", "7"], "encoder squeezenet1_1, now small; recipe.batch_size 4, now 7"),
])  # fmt: skip
def test_resume_names_the_encoder_that_differs(world, capsys, more, says):
    line = train_line(world, "whole", "--resume", *more)
    if "small" in more:
        line[line.index("--weights") : line.index("--weights") + 2] = []
    assert main(line) == 2
    (sentence,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("satnp: "))
    assert f" options: {says}" in sentence and (f"{says}; leave" in sentence) == ("preprocessing" not in says)


def test_a_training_of_the_whole_encoder_knows_what_it_began_from(world, tmp_path):
    train, val = (load_split("flickr8k", split, world / "data") for split in ("train", "val"))

    def trainer(weights, init=None):
        preset = replace(find_preset("flickr8k", path=world / "tiny.toml"), encoder="squeezenet1_1")
        model = new_model(preset, train, world / f"{weights}.npz", finetune_from="conv1")
        assert not model.keeps_features
        return Trainer(model, preset.recipe, train, val, tmp_path, init=init)

    def refused(weights, init, says):
        with pytest.raises(InputError, match=f"options: {says}"):
            trainer(weights, init).resume()

    trainer("weights").save()
    trainer("weights").resume()
    refused("other", None, r"encoder weights \w{16}, now \w{16}; leave")
    refused("weights", "this", r"init none, now this; leave")
    trainer("weights", "this").save()
    trainer("weights", "this").resume()
    trainer("other").resume()  # the weights came from the checkpoint; --init and --weights do not matter any more
    refused("weights", "that", r"init this, now that; leave")


@pytest.mark.parametrize("command", ["caption {best} {photo} --json {out}", EVALUATE], ids=["caption", "evaluate"])
def test_given_weights_take_the_place_of_the_checkpoints(world, tmp_path, command):
    photo = world / "data/Flicker8k_Dataset/test-00000.jpg"
    line = command.format(best=world / "whole/best.npz", photo=photo, root=world / "data", out=tmp_path / "out.json")
    found = []
    for more in ([], ["--weights", f"{world}/weights.npz"], ["--weights", f"{world}/other.npz"]):
        assert main([*line.split(), *more]) == 0
        found.append(json.loads((tmp_path / "out.json").read_text()))
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.slow
def test_a_decoder_alone_trains_on_every_device(xp, rng, world, tmp_path):
    split, val = (load_split("flickr8k", name, world / "data") for name in ("train", "val"))
    plain, mirrored = rng.random((2, 3, prod(squeezenet.Config().grid), 512)).astype(np.float16)
    recipe = replace(PRESETS["flickr8k"].recipe, epochs=1, batch_size=4, min_count=1, learning_rate=0.05, warmup=0)
    recipe = replace(recipe, optimiser="sgd")  # Adam makes whole steps of rounding errors
    preset = replace(PRESETS["flickr8k"], encoder="squeezenet1_1", config={"M": 8, "H": 12, "A": 6}, recipe=recipe)
    model = new_model(preset, split, world / "weights.npz")
    host, device = (
        Trainer(model.on(library), recipe, split, val, tmp_path / name, plain, mirrored, val_features=plain[:2])
        for name, library in (("host", np), ("device", xp))
    )
    start = host.params.flat.copy()
    assert host.run() and device.run()
    assert np.abs(host.params.flat - start).max() > 0.01
    for name, x in host.params.items():
        there = device.params[name]
        np.testing.assert_allclose(there if xp is np else there.get(), x, atol=1e-5, err_msg=name)
    batch = host.photos.batch(np.repeat([0, 1, 2], 20), rng)
    turned = [np.array_equal(x, mirrored[n]) for n, x in zip(np.repeat([0, 1, 2], 20), batch, strict=True)]
    assert 15 < sum(turned) < 45
