"""The CBAM block: one shared network, two sigmoids, channels first; and encoders with the block behind them."""

import json

import numpy as np
import pytest

from satnp import load
from satnp.arrays.backend import to_host
from satnp.arrays.parameters import Parameters
from satnp.cli import main
from satnp.encoders import ENCODERS, small, squeezenet
from satnp.encoders.cbam import NAMES
from satnp.encoders.photos import Preprocessing
from satnp.layers import cbam_backward, cbam_forward, channel_gate_forward, location_gate_forward
from satnp.training.trainer import read_log
from tests.small_world import write_flickr8k, write_weights

CONFIG = small.Config((2, 3, 5), Preprocessing(12))
TINY = (
    "[config]\nM = 8\nH = 12\nA = 6\n[recipe]\nepochs = 1\nbatch_size = 4\nwarmup = 0\nmin_count = 1\nmirror = false\n"
)
small_cbam, squeezenet_cbam = ENCODERS["small_cbam"], ENCODERS["squeezenet1_1_cbam"]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gates(rng, N=2, R=4, S=5, C=6, K=3):
    x = rng.standard_normal((N, R, S, C))
    return x, [rng.standard_normal(shape) for shape in ((C, K), (K,), (K, C), (C,))]


def test_channels_are_weighted_by_one_network_of_their_means_and_maxima(rng):
    x, (W_1, b_1, W_2, b_2) = gates(rng)
    out, _ = channel_gate_forward(x, W_1, b_1, W_2, b_2)
    for n, photo in enumerate(x):
        cells = photo.reshape(-1, x.shape[3])
        scores = sum(np.maximum(y @ W_1 + b_1, 0) @ W_2 + b_2 for y in (cells.mean(axis=0), cells.max(axis=0)))
        np.testing.assert_allclose(out[n], photo * sigmoid(scores), rtol=1e-12, atol=1e-15)


def test_locations_are_weighted_by_a_convolution_of_their_mean_and_maximum(rng):
    x, _ = gates(rng)
    W, b = rng.standard_normal((7, 7, 2, 1)), rng.standard_normal(1)
    out, _ = location_gate_forward(x, W, b)
    maps = np.pad(np.stack([x.mean(axis=3), x.max(axis=3)], axis=3), ((0, 0), (3, 3), (3, 3), (0, 0)))
    for n, r, s in np.ndindex(x.shape[:3]):
        weight = sigmoid((maps[n, r : r + 7, s : s + 7] * W[..., 0]).sum() + b[0])
        np.testing.assert_allclose(out[n, r, s], x[n, r, s] * weight, rtol=1e-12, atol=1e-15)


def test_the_block_weighs_the_small_cnns_map(rng):
    params = small_cbam.init(CONFIG, rng)
    images = rng.uniform(0, 255, (3, 12, 12, 3)).astype(np.float32)
    found, _ = small_cbam.forward(params, CONFIG, images)
    own = Parameters(small.shapes(CONFIG))
    own.flat[...] = params.flat[: own.flat.size]
    plain, _ = small.forward(own, CONFIG, images)
    seen = plain > 0
    weight = found[seen] / plain[seen]
    assert found.shape == (3, 9, 5) and not found[~seen].any()
    assert 0 < weight.min() < weight.max() < 1  # products of two sigmoids


def test_the_gates_are_alike_on_every_device(xp, rng):
    x, weights = gates(rng)
    W, b = rng.standard_normal((7, 7, 2, 1)), rng.standard_normal(1)
    for forward, inputs in ((channel_gate_forward, (x, *weights)), (location_gate_forward, (x, W, b))):
        np.testing.assert_allclose(to_host(forward(*map(xp.asarray, inputs))[0]), forward(*inputs)[0], rtol=1e-12)


def block(rng, K=7, **shape):
    """A map and the parameters of the block: x, [W_1, b_1, W_2, b_2, W, b]"""
    x, weights = gates(rng, **shape)
    return x, [*weights, rng.standard_normal((K, K, 2, 1)), rng.standard_normal(1)]


def test_one_network_serves_the_means_and_the_maxima(rng):
    _, weights = gates(rng)
    same = np.broadcast_to(rng.standard_normal(6), (1, 4, 5, 6))  # the mean and the maximum of each channel are equal
    for k in range(4):
        weights[k] = weights[k] + rng.standard_normal(weights[k].shape)
        W_1, b_1, W_2, b_2 = weights
        m = (channel_gate_forward(same, *weights)[0] / same)[0, 0, 0]
        np.testing.assert_allclose(np.log(m / (1 - m)), 2 * (np.maximum(same[0, 0, 0] @ W_1 + b_1, 0) @ W_2 + b_2))


@pytest.mark.parametrize("bias", [-9, 9])
def test_the_gates_are_sigmoids_which_may_all_be_open_or_all_closed(rng, bias):
    x, weights = block(rng)
    weights = [weight * (0.1 if weight.ndim > 1 else 0) for weight in weights]
    weights[3], weights[5] = weights[3] + bias / 2, weights[5] + bias
    _, cache = cbam_forward(x, *weights)
    for m in (cache.channels.weights, cache.locations.weights):
        assert 0 < m.min() and m.max() < 1
        assert (m > 0.9).all() if bias > 0 else (m < 0.1).all()


def test_the_channels_are_weighted_before_the_locations(rng):
    x, weights = block(rng)
    weights[3][0] = -1000  # the gate removes channel 0
    x[..., 0] = 0
    peaks = []
    for at in ((0, 0), (3, 4)):  # with the same mean and maximum
        x[:, *at, 0] = 50
        peaks.append(cbam_forward(x, *weights)[0])
        x[:, *at, 0] = 0
    assert not peaks[0][..., 0].any()
    np.testing.assert_allclose(peaks[0], peaks[1], rtol=1e-12)  # the locations' gate does not see channel 0


def test_the_block_and_its_gradients_are_pytorchs(rng):
    torch = pytest.importorskip("torch")
    x, weights = block(rng)
    out, cache = cbam_forward(x, *weights)
    dout = rng.standard_normal(out.shape)
    ours = [out, *cbam_backward(dout, cache)]
    t = [torch.tensor(a, requires_grad=True) for a in (x, *weights)]
    F, (W_1, b_1, W_2, b_2, W, b) = t[0].permute(0, 3, 1, 2), t[1:]
    scores = sum((y @ W_1 + b_1).relu() @ W_2 + b_2 for y in (F.mean(dim=(2, 3)), F.amax(dim=(2, 3))))
    F = scores.sigmoid()[:, :, None, None] * F
    pooled = torch.stack([F.mean(dim=1), F.amax(dim=1)], dim=1)
    F = torch.nn.functional.conv2d(pooled, W.permute(3, 2, 0, 1), b, padding=3).sigmoid() * F
    theirs = F.permute(0, 2, 3, 1)
    theirs.backward(torch.tensor(dout))
    for found, wanted in zip(ours, [theirs.detach(), *(a.grad for a in t)], strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-10, atol=1e-12)


def test_old_checkpoints_of_small_cbam_have_these_names():
    shapes = small_cbam.shapes(CONFIG)
    assert list(shapes)[-6:] == ["W_c1", "b_c1", "W_c2", "b_c2", "W_s", "b_s"] and list(shapes)[0] == "W0"
    assert shapes["W_c1"] == (5, 1) and shapes["W_s"] == (7, 7, 2, 1)


def test_a_new_block_weights_all_channels_and_locations_alike(tmp_path, rng):
    write_weights(tmp_path / "weights.npz", squeezenet, 0)
    config = squeezenet_cbam.Config(squeezenet.PREPROCESSING["caffe"])
    params, base = (encoder.load(tmp_path / "weights.npz", config) for encoder in (squeezenet_cbam, squeezenet))
    np.testing.assert_array_equal(params.before("cbam").flat, base.flat)
    np.testing.assert_array_equal(params.flat, squeezenet_cbam.load(tmp_path / "weights.npz", config).flat)
    images = rng.integers(0, 256, (1, 224, 224, 3), np.uint8)
    plain, found = squeezenet.forward(base, config, images)[0], squeezenet_cbam.forward(params, config, images)[0]
    np.testing.assert_allclose(found, plain * sigmoid(2) ** 2, rtol=1e-5)
    assert params["cbam.W_c1"].shape == (512, 32) and params["cbam.W_c1"].std() > 0


@pytest.fixture(scope="module")
def world(encoders, no_figures, tmp_path_factory):
    """A folder with data, SqueezeNet weights and the training `whole` of a block behind them."""
    folder = tmp_path_factory.mktemp("cbam")
    write_flickr8k(folder / "data", train=3, val=2, test=2)
    (folder / "tiny.toml").write_text(TINY)
    write_weights(folder / "weights.npz", squeezenet, 0)
    assert train(folder, "whole") == 0
    return folder


def train(folder, out, *more, weights=None, encoder="squeezenet1_1_cbam"):
    line = f"train --data flickr8k --root {folder}/data --encoder {encoder} --config {folder}/tiny.toml --out {folder / out}"
    if encoder != "small_cbam":
        more = ("--weights", str(weights or folder / "weights.npz"), *more)
    return main([*line.split(), *more])


def moved(folder, out):
    """The layers of the encoder that the training `out` changed."""
    model = load(folder / out / "best.npz")
    before = squeezenet_cbam.load(folder / "weights.npz", model.encoder_config)
    after = model.params.part("encoder")
    return {name.partition(".")[0] for name, x in after.items() if not np.array_equal(x, before[name])}


def test_behind_public_weights_the_block_alone_is_trained_on_maps_that_are_stored_once(world):
    model = load(world / "whole/best.npz")
    assert model.finetune_from == "cbam" and not model.frozen and moved(world, "whole") == {"cbam"}
    before = squeezenet_cbam.load(world / "weights.npz", model.encoder_config)
    assert all(not np.array_equal(model.params[f"encoder.cbam.{name}"], before[f"cbam.{name}"]) for name in NAMES)
    stores = [np.load(path) for path in (world / "whole/features").glob("*.npy")]
    assert sorted(x.shape for x in stores) == [(photos, *model.grid, 512) for photos in (2, 3)]
    assert len(read_log(world / "whole/metrics.jsonl")) > 0


def test_stored_maps_give_the_annotations_of_the_photos(world, rng):
    model = load(world / "whole/best.npz")
    size = model.encoder_config.preprocessing.size
    images = rng.integers(0, 256, (2, size, size, 3), np.uint8)
    whole, _ = squeezenet_cbam.forward(model.params.part("encoder"), model.encoder_config, images)
    rounding = 2e-5 * whole.max()  # a product of one photo is not rounded as a product of two
    np.testing.assert_allclose(model.annotate(images), whole, rtol=0, atol=rounding)
    np.testing.assert_allclose(model.encode(model.keepable(images))[0], whole, rtol=0, atol=rounding)


def test_earlier_layers_can_be_trained_with_it(world):
    assert train(world, "fire9", "--finetune-from", "fire9") == 0
    assert moved(world, "fire9") == {"fire9", "cbam"}


def test_it_captions_and_scores(world, tmp_path, capsys):
    photo = world / "data/Flicker8k_Dataset/test-00000.jpg"
    assert main(["caption", f"{world}/whole/best.npz", f"{photo}", "--json", f"{tmp_path}/c.json"]) == 0
    assert np.array(json.loads((tmp_path / "c.json").read_text())[0]["alpha"]).ndim == 3
    assert main(["caption", f"{world}/whole/best.npz", f"{photo}", "--weights", f"{world}/weights.npz"]) == 2
    assert "has a fine-tuned encoder of its own" in capsys.readouterr().err


def test_without_weights_it_says_what_is_missing(world, capsys):
    line = f"train --data flickr8k --root {world}/data --encoder squeezenet1_1_cbam --out {world}/no"
    assert main(line.split()) == 2
    assert "the encoder squeezenet1_1_cbam has pretrained weights; give their file" in capsys.readouterr().err
    assert train(world, "no", "--finetune-from", "fire10") == 2
    assert "choose one of conv1, fire2, fire3, fire4, fire5, fire6, fire7, fire8, fire9, cbam" in capsys.readouterr().err


@pytest.mark.slow
def test_a_few_steps_behind_the_real_weights(shared_data, no_figures, tmp_path):
    write_flickr8k(tmp_path / "data", train=3, val=2, test=2)
    (tmp_path / "tiny.toml").write_text(TINY)
    assert train(tmp_path, "run", weights=shared_data / "cnn/squeezenet1_1.safetensors") == 0
    losses = [record["loss"] for record in read_log(tmp_path / "run/metrics.jsonl") if record["kind"] == "train"]
    assert np.isfinite(losses).all() and load(tmp_path / "run/best.npz").grid == (13, 13)


@pytest.mark.slow
def test_a_captioner_trains_with_the_small_encoder_and_the_block(tmp_path):
    write_flickr8k(tmp_path / "data")
    (tmp_path / "tiny.toml").write_text(TINY)
    assert train(tmp_path, "run", encoder="small_cbam") == 0
    model, photo = load(tmp_path / "run/best.npz"), next((tmp_path / "data/Flicker8k_Dataset").glob("test-*.jpg"))
    assert model.encoder == "small_cbam" and len(model.caption(str(photo)).words) > 0
