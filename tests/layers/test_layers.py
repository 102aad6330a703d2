"""What each layer computes, held against the formula written out; the gradients are in test_gradcheck.py."""

import numpy as np
import pytest

from satnp import layers
from satnp.arrays.backend import to_device, to_host
from satnp.layers import pool
from satnp.layers.conv import output_size
from satnp.proof import layers as layer_checks
from satnp.reference.conv import conv2d

CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def put(xp, *arrays):
    return [to_device(x, xp) for x in arrays]


@pytest.mark.parametrize("case", layer_checks.CASES, ids=lambda case: case.name)
def test_float32_stays_float32(case, xp, rng):
    inputs = [x.astype(np.float32) if x.dtype.kind == "f" else x for x in case.make(rng).values()]
    out, cache = case.forward(*put(xp, *inputs))
    several = isinstance(out, tuple)
    dout = tuple(xp.ones(x.shape, dtype=xp.float32) for x in (out if several else (out,)))
    grads = case.backward(dout if several else dout[0], cache)
    for x in (*(out if several else (out,)), *(grads if isinstance(grads, tuple) else (grads,))):
        assert x.dtype == np.float32


@pytest.mark.parametrize("K", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_conv2d_is_the_plain_sum(xp, rng, K, stride, padding):
    x, W, b = put(xp, *(rng.standard_normal(shape) for shape in ((2, 7, 6, 3), (K, K, 3, 4), (4,))))
    out, _ = layers.conv2d_forward(x, W, b, stride, padding)
    np.testing.assert_allclose(to_host(out), to_host(conv2d(x, W, b, stride, padding)), **CLOSE)


def test_a_window_that_is_larger_than_the_map_is_refused(xp):
    x, W, b = (xp.zeros(shape) for shape in ((1, 4, 2, 1), (3, 3, 1, 1), (1,)))
    with pytest.raises(ValueError, match="3 x 3 cells does not fit into a map of 4 x 2"):
        layers.conv2d_forward(x, W, b)


@pytest.mark.parametrize(
    ("size", "K", "stride", "ceil", "windows"),
    [
        (64, 2, 2, False, 32), (7, 3, 2, False, 3), (6, 3, 2, False, 2), (6, 3, 2, True, 3), (7, 3, 2, True, 3),
        (111, 3, 2, True, 55), (55, 3, 2, True, 27), (27, 3, 2, True, 13), (6, 2, 3, True, 2), (2, 3, 2, True, 1),
    ],
)  # fmt: skip
def test_how_many_windows_fit(size, K, stride, ceil, windows):
    assert output_size(size, K, stride, ceil=ceil) == windows


@pytest.mark.parametrize(("K", "stride", "ceil"), [(2, 2, False), (3, 2, False), (3, 2, True), (2, 3, True)])
@pytest.mark.parametrize("block", [2**15, 1])
def test_max_pool_takes_the_largest_of_each_window(xp, rng, monkeypatch, K, stride, ceil, block):
    monkeypatch.setattr(pool, "BLOCK", block)
    x = rng.standard_normal((2, 7, 6, 3))
    out = to_host(layers.max_pool_forward(to_device(x, xp), K, stride, ceil)[0])
    for n, p, q, c in np.ndindex(out.shape):
        r, s = p * stride, q * stride
        assert out[n, p, q, c] == x[n, r : r + K, s : s + K, c].max()


def test_of_equal_maxima_the_first_gets_the_gradient(xp):
    x = to_device(np.zeros((1, 4, 4, 1)), xp)
    out, cache = layers.max_pool_forward(x, 2, 2)
    dx = layers.max_pool_backward(xp.ones_like(out), cache)
    np.testing.assert_array_equal(to_host(dx)[0, :, :, 0], [[1, 0, 1, 0], [0, 0, 0, 0]] * 2)


def test_average_pool(xp, rng):
    x = rng.standard_normal((2, 7, 6, 3))
    out = to_host(layers.average_pool_forward(to_device(x, xp), 3, 2)[0])
    assert out.shape == (2, 3, 2, 3)
    for n, p, q, c in np.ndindex(out.shape):
        assert out[n, p, q, c] == pytest.approx(x[n, 2 * p : 2 * p + 3, 2 * q : 2 * q + 3, c].mean(), abs=1e-14)


def test_nothing_overflows(xp):
    with np.errstate(all="raise", under="ignore"):
        big = to_device(np.array([[-1e4, 0.0, 1e4]]), xp)
        np.testing.assert_allclose(to_host(layers.sigmoid(big)), [[0, 0.5, 1]])
        np.testing.assert_allclose(to_host(layers.softmax(big)), [[0, 0, 1]])
        np.testing.assert_allclose(to_host(layers.log_softmax(big)), [[-2e4, -1e4, 0]])


def test_relu_passes_nothing_at_exactly_0(xp):
    x = to_device(np.array([[-1.0, 0.0, 2.0]]), xp)
    out, cache = layers.relu_forward(x)
    np.testing.assert_array_equal(to_host(out), [[0, 0, 2]])
    np.testing.assert_array_equal(to_host(layers.relu_backward(xp.ones_like(x), cache)), [[0, 0, 1]])


def test_cross_entropy_is_in_nats_and_weights_words(xp, rng):
    logits, targets, weights = rng.standard_normal((5, 4)), np.array([0, 3, 3, 1, 2]), np.array([1, 0, 2, 1, 0.5])
    loss, _ = layers.cross_entropy_forward(*put(xp, logits, targets, weights))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert float(to_host(loss)) == pytest.approx(-(weights * np.log(p[range(5), targets])).sum(), rel=1e-12)
    loss, _ = layers.cross_entropy_forward(*put(xp, 0 * logits, targets, np.ones(5)))
    assert float(to_host(loss)) == pytest.approx(5 * np.log(4), rel=1e-12)


def test_dropout_keeps_the_mean(rng):
    mask = layers.dropout_mask(rng, (200, 300), 0.25)
    assert mask.dtype == np.float32
    assert set(np.unique(mask)) == {np.float32(0), np.float32(1) / np.float32(0.75)}
    assert mask.mean() == pytest.approx(1, abs=0.01)


def test_no_mask_is_no_dropout(xp):
    x = xp.ones((2, 3))
    out, cache = layers.dropout_forward(x, None)
    assert out is x and layers.dropout_backward(x, cache) is x


def test_embedding_adds_up_repeated_words(xp):
    ids, E = put(xp, np.array([2, 0, 2]), np.zeros((4, 2)))
    _, cache = layers.embedding_forward(ids, E)
    dE = layers.embedding_backward(to_device(np.array([[1.0, 2], [3, 4], [5, 6]]), xp), cache)
    np.testing.assert_array_equal(to_host(dE), [[3, 4], [0, 0], [6, 8], [0, 0]])


def test_lstm_cell_is_eqs_1_to_3(xp, rng):
    gates, c_prev = rng.standard_normal((3, 20)), rng.standard_normal((3, 5))
    (h, c), _ = layers.lstm_cell_forward(*put(xp, gates, c_prev))
    i, f, o, g = (gates[:, 5 * k : 5 * k + 5] for k in range(4))
    wanted = sigmoid(f) * c_prev + sigmoid(i) * np.tanh(g)
    np.testing.assert_allclose(to_host(c), wanted, **CLOSE)
    np.testing.assert_allclose(to_host(h), sigmoid(o) * np.tanh(wanted), **CLOSE)


def test_the_scores_location_by_location(xp, rng):
    keys, query, v, c = (rng.standard_normal(shape) for shape in ((2, 5, 4), (2, 4), (4,), (1,)))
    additive, _ = layers.additive_scores_forward(*put(xp, keys, query, v, c))
    dot, _ = layers.dot_scores_forward(*put(xp, keys, query))
    for n, i in np.ndindex(2, 5):
        assert to_host(additive)[n, i] == pytest.approx(v @ np.tanh(keys[n, i] + query[n]) + c[0], rel=1e-12)
        assert to_host(dot)[n, i] == pytest.approx(keys[n, i] @ query[n], rel=1e-12)


@pytest.mark.parametrize("G", [1, 4])
def test_the_gated_context(xp, rng, G):
    alpha, annotations = rng.random((2, 5)), rng.standard_normal((2, 5, 4))
    h, W, b = rng.standard_normal((2, 3)), rng.standard_normal((3, G)), rng.standard_normal(G)
    context, _ = layers.context_forward(*put(xp, alpha, annotations))
    wanted = np.einsum("nl,nld->nd", alpha, annotations)
    np.testing.assert_allclose(to_host(context), wanted, **CLOSE)
    z, _ = layers.gate_forward(to_device(h, xp), context, *put(xp, W, b))
    np.testing.assert_allclose(to_host(z), sigmoid(h @ W + b) * wanted, **CLOSE)


def test_a_target_of_T_over_L_in_the_penalty_changes_no_gradient(xp, rng):
    T, N, L = 6, 3, 4
    mask = np.ones((T, N))
    mask[4:, 1] = 0
    scores = [to_device(rng.standard_normal((N, L)), xp) for _ in range(T)]
    alphas, caches = zip(*map(layers.softmax_forward, scores), strict=True)
    stacked, mask = xp.stack(alphas), to_device(mask, xp)
    penalty, cache = layers.doubly_stochastic_forward(stacked, mask)
    ours = layers.doubly_stochastic_backward(xp.ones(()), cache)
    total = (mask[:, :, None] * stacked).sum(axis=0)
    assert float(to_host(penalty)) == pytest.approx(float(to_host(((1 - total) ** 2).sum())) / N, rel=1e-12)
    theirs = mask[:, :, None] * (2 / N * (total - T / L))
    assert np.abs(to_host(ours - theirs)).max() > 0.1
    for t in range(T):
        first, second = (to_host(layers.softmax_backward(dalphas[t], caches[t])) for dalphas in (ours, theirs))
        np.testing.assert_allclose(first, second, rtol=1e-12, atol=1e-14)
