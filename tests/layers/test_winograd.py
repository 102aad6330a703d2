"""Every formulation of the convolution against the plain sum, and what they cost in digits and memory."""

import tracemalloc

import numpy as np
import pytest

from satnp.arrays import threads
from satnp.encoders import squeezenet
from satnp.layers import (
    conv,
    conv2d_backward,
    conv2d_forward,
    conv2d_relu_backward,
    conv2d_relu_forward,
    expand_relu_backward,
    expand_relu_forward,
    max_pool_backward,
    max_pool_forward,
    winograd,
)
from satnp.layers.blocks import blocks, region
from satnp.proof.gradcheck import Case, check_gradients
from satnp.reference.conv import conv2d

# {name: (out, dW) of a 3x3 convolution with stride 1}, each forced
FORMS = {
    "patches": (
        lambda x, W, b, padding: conv.patches_correlate(x, W, b, 1, padding),
        lambda x, dout, W, padding: conv.lines_weight_gradient(x, dout, W, 1, padding),
    ),
    "lines": (conv.lines_correlate, lambda x, dout, W, padding: conv.lines_weight_gradient(x, dout, W, 1, padding)),
    "winograd": (winograd.correlate, lambda x, dout, W, padding: winograd.weight_gradient(x, dout, padding)),
}
ERRORS = {"patches": 1e-6, "lines": 1e-6, "winograd": 3e-6}  # relative L2 in float32, in the docstring of conv2d_forward
form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture
def small_pieces(monkeypatch):
    """Several blocks even of the tiny maps of tests."""
    monkeypatch.setattr(winograd, "TILES", 4)
    monkeypatch.setattr(conv, "PATCHES", 4000)


def draw(rng, N, R, S, C, F, dtype=np.float64):
    return [rng.standard_normal(shape).astype(dtype) for shape in ((N, R, S, C), (3, 3, C, F), (F,))]


def plain_gradient(x, dout, padding):
    """dW, location by location."""
    N, P, Q, F = dout.shape
    x, dW = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0))), np.zeros((3, 3, x.shape[3], F))
    for n, p, q in np.ndindex(N, P, Q):
        dW += x[n, p : p + 3, q : q + 3, :, None] * dout[n, p, q]
    return dW


def relative(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


@form
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("size", [(1, 3, 4), (2, 8, 8), (3, 10, 7), (1, 21, 18)])
def test_every_formulation_is_the_plain_sum(form, padding, size, cores, small_pieces, rng):
    correlate, weight_gradient = FORMS[form]
    x, W, b = draw(rng, *size, 3, 5)
    wanted = conv2d(x, W, b, 1, padding)
    dout = rng.standard_normal(wanted.shape)
    assert relative(correlate(x, W, b, padding), wanted) < 1e-12
    assert relative(weight_gradient(x, dout, W, padding), plain_gradient(x, dout, padding)) < 1e-12


def test_a_1x1_product_is_the_plain_sum(rng):
    x, W, b = rng.standard_normal((2, 5, 4, 3)), rng.standard_normal((1, 1, 3, 5)), rng.standard_normal(5)
    assert relative(conv.pointwise_correlate(x, W, b), conv2d(x, W, b)) < 1e-12
    dout = rng.standard_normal((2, 5, 4, 5))
    assert relative(conv.pointwise_weight_gradient(x, dout)[0, 0], np.einsum("nrsc,nrsf->cf", x, dout)) < 1e-12


@form
def test_the_gradients_of_every_formulation(form, monkeypatch, small_pieces):
    monkeypatch.setattr(winograd, "pays", lambda x, W, stride, padding: form == "winograd")
    shapes = {"x": (2, 7, 6, 3), "W": (3, 3, 3, 4), "b": (4,)}
    for forward, backward in ((conv2d_forward, conv2d_backward), (conv2d_relu_forward, conv2d_relu_backward)):
        case = Case(form, lambda rng: {n: rng.standard_normal(s) for n, s in shapes.items()},
                    lambda x, W, b, forward=forward: forward(x, W, b, 1, 1), backward)  # fmt: skip
        result = check_gradients(case)
        assert result.passed and result.error <= 1e-10, result.findings


@form
def test_the_error_in_float32_is_the_one_stated(form, rng):
    correlate, weight_gradient = FORMS[form]
    x, W, b = draw(rng, 2, 28, 28, 128, 64)
    x = np.maximum(x, 0)
    dout = rng.standard_normal((2, 28, 28, 64))
    near = [a.astype(np.float32) for a in (x, W, b, dout)]
    assert 1e-8 < relative(correlate(*near[:3], 1), correlate(x, W, b, 1)) < ERRORS[form]
    found = weight_gradient(near[0], near[3], near[1], 1)
    assert found.dtype == np.float32
    assert 1e-8 < relative(found, weight_gradient(x, dout, W, 1)) < ERRORS[form]


@form
def test_the_error_on_a_photo_with_squeezenets_weights(form, shared_data, monkeypatch):
    config = squeezenet.Config()
    params = squeezenet.load(shared_data / "cnn" / "squeezenet1_1.safetensors", config)
    with np.load(shared_data / "cnn" / "golden_squeezenet1_1.npz") as golden:
        images = np.stack([golden[key] for key in golden.files if key.endswith("/rgb_uint8")][:1])
    wanted = squeezenet.feature_map(params.on(params.flat.astype(np.float64)), config, images)[0]
    if form == "winograd":
        monkeypatch.setattr(conv, "patches_correlate", expand_by_winograd(conv.patches_correlate))
    assert 1e-8 < relative(squeezenet.feature_map(params, config, images)[0], wanted) < 1e-5


def expand_by_winograd(patches_correlate):
    """SqueezeNet's 3x3 convolutions but the first, which has a stride."""

    def correlate(x, W, b, stride, padding, bounds=None, middle=None):
        if middle is None:
            return patches_correlate(x, W, b, stride, padding, bounds)
        G = middle.shape[1]
        one = conv.pointwise_correlate(x, middle[None, None], b[:G], bounds)
        return np.concatenate([one, winograd.correlate(x, W, b[G:], padding, bounds)], axis=3)

    return correlate


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128])
def test_expand_is_two_convolutions_side_by_side(dtype, cores, small_pieces, rng):
    x, W3, b3 = draw(rng, 2, 9, 7, 3, 5, dtype)
    W1, b1 = rng.standard_normal((1, 1, 3, 4)).astype(dtype), rng.standard_normal(4).astype(dtype)
    out, cache = expand_relu_forward(x, W1, b1, W3, b3)
    assert out.dtype == dtype and out.flags.c_contiguous
    dout = rng.standard_normal(out.shape).astype(dtype)
    dx, *found = expand_relu_backward(dout, cache)
    both = [conv2d_relu_forward(x, W1, b1), conv2d_relu_forward(x, W3, b3, padding=1)]
    np.testing.assert_allclose(out, np.concatenate([y for y, _ in both], axis=3), rtol=1e-5, atol=1e-5)
    (dx1, *of1), (dx3, *of3) = (
        conv2d_relu_backward(d, c) for d, (_, c) in zip((dout[..., :4], dout[..., 4:]), both, strict=True)
    )
    for a, b in zip((dx, *found), (dx1 + dx3, *of1, *of3), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@form
def test_one_thread_and_two_agree_and_the_same_comes_twice(form, dtype, monkeypatch, rng):
    """Two threads share the channels, and BLAS adds up a product of half as many columns in another order."""
    correlate, weight_gradient = FORMS[form]
    x, W, b = draw(rng, 3, 30, 29, 16, 32, dtype)
    dout, found = rng.standard_normal((3, 30, 29, 32)).astype(dtype), []
    error = ERRORS[form] * np.finfo(dtype).eps / np.finfo(np.float32).eps
    for cores in (1, 2, 2):
        monkeypatch.setattr(threads, "cores", lambda cores=cores: cores)
        threads._pool.cache_clear()
        found.append((correlate(x, W, b, 1), weight_gradient(x, dout, W, 1)))
    threads._pool.cache_clear()
    for one, two, again in zip(*found, strict=True):
        assert relative(one, two) < error
        np.testing.assert_array_equal(two, again)


@form
def test_no_patches_are_kept(form, monkeypatch, rng):
    monkeypatch.setattr(winograd, "pays", lambda x, W, stride, padding: form == "winograd")
    monkeypatch.setattr(threads, "cores", lambda: 1)
    x, W, b = draw(rng, 8, 64, 64, 32, 4, np.float32)
    conv2d_forward(x, W, b, padding=1)  # the scratch arrays of this thread are there now
    tracemalloc.start()
    out, cache = conv2d_forward(x, W, b, padding=1)
    kept, peak = tracemalloc.get_traced_memory()
    dx, dW, db = conv2d_backward(out, cache)
    _, peak_backward = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert cache.x is x and cache.W is W
    padded = 1.1 * x.nbytes if form == "patches" else 0  # x once more, with zeros around it
    assert kept < 1.1 * out.nbytes and peak < 1.5 * out.nbytes + padded
    assert peak_backward < 3 * x.nbytes  # patches would be nine times x


def test_blocks_cover_everything_once():
    for N, rows, most in ((1, 7, 3), (8, 7, 40), (3, 10, 10), (5, 4, 1), (2, 5, 0)):
        seen = np.zeros((N, rows), int)
        for photos, part in blocks(N, rows, most):
            seen[photos, part] += 1
            assert seen[photos, part].size <= max(most, 1)
        assert (seen == 1).all()


def test_a_region_is_0_outside_the_map(rng):
    x = rng.standard_normal((2, 3, 4, 1))
    padded = np.pad(x, ((0, 0), (5, 5), (5, 5), (0, 0)))
    for top, left, height, width in ((-1, -1, 5, 6), (0, 0, 3, 4), (1, 2, 5, 3), (-2, 1, 3, 2)):
        found = region(x, slice(0, 2), top, left, np.full((2, height, width, 1), np.nan))
        np.testing.assert_array_equal(found, padded[:, top + 5 : top + 5 + height, left + 5 : left + 5 + width])


@pytest.mark.parametrize("channels", [(3, 4), (64, 64)])
def test_no_photos_have_no_maps_and_gradients_of_zero(channels):
    C, F = channels
    out, cache = conv2d_forward(np.zeros((0, 8, 8, C)), np.zeros((3, 3, C, F)), np.zeros(F), padding=1)
    dx, dW, db = conv2d_backward(out, cache)
    assert out.shape == (0, 8, 8, F) and dx.shape == (0, 8, 8, C) and not dW.any() and not db.any()
    pooled, cache = max_pool_forward(out, 2, 2, relu=True)
    assert pooled.shape == (0, 4, 4, F) and max_pool_backward(pooled, cache).shape == (0, 8, 8, F)
