"""The CBAM block: one shared network, two sigmoids, and the small CNN with the block behind it."""

import numpy as np
import pytest

from satnp import load
from satnp.arrays.backend import to_host
from satnp.arrays.parameters import Parameters
from satnp.cli import main
from satnp.encoders import small, small_cbam
from satnp.encoders.photos import Preprocessing
from satnp.layers import channel_gate_forward, location_gate_forward
from tests.small_world import write_flickr8k

CONFIG = small.Config((2, 3, 5), Preprocessing(12))


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


@pytest.mark.slow
def test_a_captioner_trains_with_it(tmp_path, capsys):
    write_flickr8k(tmp_path / "data")
    (tmp_path / "tiny.toml").write_text(
        '[config]\nM = 8\nH = 12\nA = 6\n[recipe]\nepochs = 1\nbatch_size = 8\nmin_count = 1\nmirror = false\n'
    )
    line = f"train --data flickr8k --root {tmp_path}/data --encoder small_cbam --config {tmp_path}/tiny.toml"
    assert main(f"{line} --out {tmp_path}/run".split()) == 0
    model, photo = load(tmp_path / "run/best.npz"), next((tmp_path / "data/Flicker8k_Dataset").glob("test-*.jpg"))
    assert model.encoder == "small_cbam" and len(model.caption(str(photo)).words) > 0
