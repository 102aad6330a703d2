"""The formulations of the depthwise convolution against the plain sum, its gradient, and the padding of TensorFlow."""

import numpy as np
import pytest

from satnp.layers import (
    conv2d_forward,
    conv2d_relu6_forward,
    depthwise,
    depthwise_backward,
    depthwise_forward,
    depthwise_relu6_forward,
    inverted_residual_backward,
    inverted_residual_forward,
    separable_forward,
)
from satnp.layers.conv import same_padding
from satnp.reference import conv as reference
from tests import strict

SIZES = [(2, 7, 6, 3), (1, 8, 9, 5), (3, 4, 4, 2), (2, 1, 2, 3), (1, 3, 2, 1)]


@pytest.fixture(params=["whole maps", "one row at a time", "short runs"])
def pieces(request, monkeypatch):
    if request.param != "whole maps":
        monkeypatch.setattr(depthwise, "PIECE", 1)
    if request.param == "short runs":
        monkeypatch.setattr(depthwise, "RUN", 1)


def relative(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


def draw(rng, size, K, dtype=np.float64):
    return [rng.standard_normal(shape).astype(dtype) for shape in (size, (K, K, size[3]), size[3:])]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("K", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (2, 1), (2, 3), (1, 2)])
def test_every_formulation_is_the_plain_sum(K, stride, size, cores, pieces, rng):
    x, W, b = draw(rng, size, K)
    wanted = reference.depthwise(x, W, b, stride)
    assert relative(depthwise_forward(x, W, b, stride)[0], wanted) < 1e-12
    on_device = depthwise_forward(*map(strict.asarray, (x, W, b)), stride)[0]
    assert relative(on_device.get(), wanted) < 1e-12


@pytest.mark.parametrize(("K", "stride"), [(3, 1), (3, 2), (5, 2)])
def test_the_gradients_do_not_depend_on_the_pieces(K, stride, cores, pieces, rng):
    x, W, b = draw(rng, (3, 8, 7, 4), K)
    out, cache = depthwise_forward(x, W, b, stride)
    dout = rng.standard_normal(out.shape)
    device_cache = depthwise_forward(*map(strict.asarray, (x, W, b)), stride)[1]
    wanted = depthwise_backward(strict.asarray(dout), device_cache)
    for one, other in zip(depthwise_backward(dout, cache), wanted, strict=True):
        assert relative(one, other.get()) < 1e-12


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("K", "stride", "same"), [(3, 1, True), (3, 1, False), (5, 2, False), (2, 1, True), (2, 3, False)])
def test_a_block_in_pieces_is_its_three_convolutions(K, stride, same, size, cores, pieces, rng):
    C, E = size[3], 6 * size[3]
    F = C if same else 4
    x, W1, b1 = (5 * rng.standard_normal(shape) for shape in (size, (1, 1, C, E), (E,)))
    W2, b2, W3, b3 = (rng.standard_normal(shape) for shape in ((K, K, E), (E,), (1, 1, E, F), (F,)))
    deep = depthwise_relu6_forward(conv2d_relu6_forward(x, W1, b1)[0], W2, b2, stride)[0]
    wanted = conv2d_forward(deep, W3, b3)[0] + (x if same else 0)
    found, cache = inverted_residual_forward(x, W1, b1, W2, b2, W3, b3, stride)
    assert relative(found, wanted) < 1e-12
    on_device = [strict.asarray(a) for a in (x, W1, b1, W2, b2, W3, b3)]
    there, device_cache = inverted_residual_forward(*on_device, stride)
    assert relative(there.get(), wanted) < 1e-12
    gradients = inverted_residual_backward(wanted, cache), inverted_residual_backward(strict.asarray(wanted), device_cache)
    for one, other in zip(*gradients, strict=True):
        assert relative(one, other.get()) < 1e-12

    wanted = conv2d_forward(depthwise_relu6_forward(x, W2[..., :C], b2[:C], stride)[0], W3[:, :, :C], b3)[0]
    assert relative(separable_forward(x, W2[..., :C], b2[:C], W3[:, :, :C], b3, stride)[0], wanted) < 1e-12


@pytest.mark.parametrize(("K", "C"), [(3, 144), (5, 672)])
def test_in_float32_the_error_is_below_1e_6(K, C, rng):
    x, W, b = draw(rng, (1, 14, 14, C), K, np.float32)
    wanted, _ = depthwise_forward(*(a.astype(np.float64) for a in (x, W, b)))
    found, _ = depthwise_forward(x, W, b)
    assert found.dtype == np.float32 and relative(found, wanted) < 1e-6
    np.testing.assert_array_equal(depthwise_relu6_forward(x, W, b)[0], found.clip(0, 6))


@pytest.mark.parametrize(
    ("size", "K", "stride", "wanted"),
    [(224, 3, 2, (0, 1)), (112, 5, 2, (1, 2)), (7, 3, 2, (1, 1)), (7, 5, 1, (2, 2)), (7, 2, 1, (0, 1)), (4, 1, 2, (0, 0))],
)
def test_the_padding_is_tensorflows(size, K, stride, wanted):
    assert same_padding(size, K, stride) == wanted
