"""A pretrained encoder that is trained from one of its layers on, with a learning rate of its own."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from satnp import load
from satnp.arrays.backend import to_device, to_host
from satnp.cli import main
from satnp.data.datasets import load_split
from satnp.encoders import ENCODERS, squeezenet, vgg
from satnp.encoders.weights import he_normal
from satnp.training.presets import PRESETS, new_model
from satnp.training.trainer import Trainer, read_log
from tests.small_world import write_flickr8k, write_weights

TINY = (
    "[config]\nM = 8\nH = 12\nA = 6\n"
    "[recipe]\nepochs = 1\nbatch_size = 4\nvalidate_every = 3\nmin_count = 1\nmirror = true\n"
)


@pytest.fixture(scope="module")
def world(encoders, no_figures, tmp_path_factory):
    """A folder with data, SqueezeNet weights and the training `whole` from fire9 on."""
    folder = tmp_path_factory.mktemp("finetune")
    write_flickr8k(folder / "data", train=3, val=2, test=2)
    (folder / "tiny.toml").write_text(TINY)
    write_weights(folder / "weights.npz", squeezenet, 0)
    assert train(folder, "whole", "--finetune-from", "fire9") == 0
    return folder


def train(folder, out, *more):
    line = f"train --data flickr8k --root {folder}/data --weights {folder}/weights.npz --config {folder}/tiny.toml"
    return main([*line.split(), "--out", f"{folder / out}", *more])


@pytest.fixture
def new_trainer(world, tmp_path, rng):
    """function(xp, finetune_from, **recipe) -> Trainer on random features"""
    split, val = (load_split("flickr8k", name, world / "data") for name in ("train", "val"))
    config = {"M": 8, "H": 12, "A": 6, "dropout": 0.0}
    preset = replace(PRESETS["flickr8k"], encoder="squeezenet1_1", config=config)
    maps = rng.random((5, *squeezenet.Config().grid, 512)).astype(np.float16)

    def new(xp, finetune_from, **changes):
        recipe = replace(preset.recipe, min_count=1, batch_size=4, warmup=0, mirror=False, averaging=0.0, **changes)
        model = new_model(replace(preset, recipe=recipe), split, world / "weights.npz", finetune_from=finetune_from)
        (tmp_path / "run").mkdir(exist_ok=True)
        return Trainer(model.on(xp), recipe, split, val, tmp_path / "run", maps[:3], None, maps[3:])

    return new


def test_only_the_layers_from_there_on_move(world):
    model = load(world / "whole/best.npz")
    assert not model.frozen and model.finetune_from == "fire9"
    before = squeezenet.load(world / "weights.npz", model.encoder_config)
    for name, x in model.params.part("encoder").items():
        assert np.array_equal(x, before[name]) != name.startswith("fire9"), name
    stores = [np.load(path) for path in (world / "whole/features").glob("*.npy")]
    assert sorted(x.shape for x in stores) == [(photos, *squeezenet.Config().grid, 512) for photos in (2, 3, 3)]


def test_kept_maps_give_the_annotations_of_the_photos(world):
    model = load(world / "whole/best.npz")
    size = model.encoder_config.preprocessing.size
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    kept, _ = model.encode(model.keepable(images))
    rounding = 2e-5 * kept.max()  # a product of one photo is not rounded as a product of two
    np.testing.assert_allclose(kept, model.annotate(images), rtol=0, atol=rounding)


@pytest.mark.parametrize("function", ["annotate", "keepable"])
def test_where_nothing_is_trained_the_caches_of_one_layer_at_a_time_are_held(world, function):
    model, image = load(world / "whole/best.npz"), np.zeros((1, 224, 224, 3), np.uint8)

    def peak(run):
        tracemalloc.start()
        try:
            run(image)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    whole = peak(lambda image: squeezenet.forward(model.params.part("encoder"), model.encoder_config, image))
    assert peak(getattr(model, function)) < whole / 2


@pytest.mark.parametrize(
    ("name", "layer"),
    [("squeezenet1_1", layer) for layer in ("conv1", "fire2", "fire4", "fire8")]
    + [("squeezenet1_1_cbam", layer) for layer in ("conv1", "fire8", "cbam")],
)
def test_gradients_from_a_layer_on_are_those_of_the_whole_encoder(xp, rng, name, layer):
    encoder = ENCODERS[name]
    config = encoder.Config(replace(encoder.PREPROCESSING["torchvision"], size=39))
    params = he_normal(encoder.shapes(config), rng)
    params = params.on(to_device(params.flat, xp))
    images = to_device(rng.integers(0, 256, (2, 39, 39, 3), dtype=np.uint8), xp)
    annotations, cache = encoder.forward(params, config, images)
    upstream = to_device(rng.standard_normal(annotations.shape).astype(np.float32), xp)
    whole, part = params.zeros_like(), params.zeros_like()
    encoder.backward(upstream, cache, whole)
    x = images if layer == "conv1" else encoder.feature_map(params, config, images, stop=layer)[0]
    again, cache = encoder.forward(params, config, x, start=layer)
    np.testing.assert_array_equal(to_host(again), to_host(annotations))
    encoder.backward(upstream, cache, part)
    np.testing.assert_array_equal(to_host(part.since(layer).flat), to_host(whole.since(layer).flat))
    assert not to_host(part.flat)[: len(part.flat) - len(part.since(layer).flat)].any()
    assert all(to_host(g).any() for _, g in part.since(layer).items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimiser", "layer"), [("sgd", "fire9"), ("rmsprop", "fire9"), ("adam", "fire9"), ("sgd", "conv1")]
)
def test_the_encoder_has_a_learning_rate_of_its_own(new_trainer, xp, optimiser, layer):
    def moved(rate):
        t = new_trainer(xp, layer, encoder_learning_rate=rate, optimiser=optimiser, learning_rate=1e-3, epochs=3)
        start = t.params.flat.copy()
        t._train_step()
        moved = t.params.on(to_host(t.params.flat - start).astype(float))
        return moved.part("encoder").flat, moved.part("decoder").flat

    slow, fast = moved(1e-4), moved(1e-2)
    np.testing.assert_array_equal(slow[1], fast[1])
    assert np.linalg.norm(fast[0]) == pytest.approx(100 * np.linalg.norm(slow[0]), rel=0.01)


@pytest.mark.slow
def test_fine_tuning_on_the_strict_device_trains_to_the_same_numbers(new_trainer, xp):
    found = []
    for library in (np, xp):
        t = new_trainer(library, "fire9", epochs=1, learning_rate=1e-2, optimiser="sgd")  # Adam steps on rounding errors
        assert t.run()
        found.append({name: to_host(x).copy() for name, x in t.params.items()})
    for name, x in found[0].items():
        np.testing.assert_allclose(found[1][name], x, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("cut", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_cut_fine_tuning_goes_on_to_the_same_bits(world, monkeypatch, cut):
    train_step, out = Trainer._train_step, f"cut-{cut}"
    more = ("--finetune-from", "fire9", "--features", f"{world}/whole/features")

    def killed(trainer):
        if trainer.step == cut:
            raise KeyboardInterrupt
        return train_step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", killed)
        (world / f"{out}.toml").write_text(TINY + "save_every = 1\n")
        assert train(world, out, *more, "--config", f"{world}/{out}.toml") == 130
    assert train(world, out, *more, "--config", f"{world}/{out}.toml", "--resume") == 0
    for name in ("last.npz", "best.npz"):
        with np.load(world / "whole" / name) as a, np.load(world / out / name) as b:
            for key in a.files:
                if key != "header":
                    np.testing.assert_array_equal(a[key], b[key], err_msg=key)
    assert read_log(world / out / "metrics.jsonl") == read_log(world / "whole/metrics.jsonl")


@pytest.mark.slow
def test_fine_tuning_starts_from_a_training_with_frozen_features(world, tmp_path, capsys):
    assert train(world, "frozen") == 0
    assert train(world, "on", "--finetune-from", "fire8", "--init", f"{world}/frozen/best.npz") == 0
    write_weights(tmp_path / "other.npz", squeezenet, 1)
    more = ("--finetune-from", "fire8", "--init", f"{world}/frozen/best.npz", "--weights", f"{tmp_path}/other.npz")
    assert train(world, "no", *more) == 2
    assert "has other encoder weights than this training" in capsys.readouterr().err
    more = ("--finetune-from", "conv1", "--init", f"{world}/frozen/best.npz", "--preprocessing", "torchvision")
    assert train(world, "no", *more) == 2
    assert "has another preprocessing than this training" in capsys.readouterr().err


def test_a_fine_tuned_checkpoint_captions_from_pixels_and_scores_as_in_training(world, tmp_path, capsys):
    photo = world / "data/Flicker8k_Dataset/test-00000.jpg"
    assert main(["caption", f"{world}/whole/best.npz", f"{photo}"]) == 0
    line = f"evaluate {world}/whole/best.npz --data flickr8k --root {world}/data --split val --beam 1"
    assert main([*line.split(), "--json", f"{tmp_path}/s.json"]) == 0
    validated = [r for r in read_log(world / "whole/metrics.jsonl") if r["kind"] == "val"]
    found = json.loads((tmp_path / "s.json").read_text())
    (at_best,) = [r for r in validated if r["step"] == found["step"]]
    assert found["CIDEr"] == pytest.approx(at_best["CIDEr"], abs=1e-6)
    assert main([*line.split(), "--weights", f"{world}/weights.npz"]) == 2
    assert "has a fine-tuned encoder of its own" in capsys.readouterr().err


@pytest.mark.slow
def test_from_the_first_layer_on_pixels_are_read_and_nothing_is_kept(world):
    (world / "all.toml").write_text(TINY.replace("batch_size = 4", "batch_size = 16"))
    assert train(world, "all", "--finetune-from", "conv1", "--config", f"{world}/all.toml") == 0
    model = load(world / "all/last.npz")
    assert model.finetune_from is None and not model.frozen and not (world / "all/features").exists()
    assert not np.array_equal(model.params["encoder.conv1.W"], load(world / "whole/best.npz").params["encoder.conv1.W"])


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--finetune-from", "fire10"), "the encoder squeezenet1_1 has no layer 'fire10'; choose one of conv1, fire2,"),
        (("--finetune-from", "fire9", "--encoder-learning-rate", "0"), "encoder_learning_rate is 0.0; choose a number"),
        (("--encoder", "small", "--finetune-from", "fire9"), "leave out --weights, --preprocessing and --finetune-from"),
        (("--encoder", "vgg19"), "does not have the weights of this encoder"),
    ],
)  # fmt: skip
def test_what_cannot_be_fine_tuned_is_refused(world, capsys, more, sentence):
    assert train(world, "refused", *more) == 2
    assert sentence in capsys.readouterr().err
    assert not (world / "refused/last.npz").exists()


def test_the_preprocessing_travels_with_the_checkpoint(world):
    assert train(world, "rgb", "--preprocessing", "torchvision") == 0
    config = load(world / "rgb/best.npz").encoder_config
    assert config.preprocessing == squeezenet.PREPROCESSING["torchvision"] != squeezenet.Config().preprocessing
    assert vgg.Config().preprocessing == replace(config.preprocessing, size=224)
    black = config.preprocessing(np.zeros((1, 1, 1, 3), np.uint8), np.float64)
    np.testing.assert_allclose(black[0, 0, 0], [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
