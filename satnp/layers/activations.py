"""Elementwise nonlinearities."""

from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import xp_of
from satnp.arrays.elementwise import elementwise


class OutputCache(NamedTuple):
    out: object


def relu_forward(x):
    """out = max(x, 0)

    x (N, H) -> out (N, H)
    """
    if xp_of(x) is np and x.dtype.kind == "f" and x.ndim == 4 and x.flags.c_contiguous:
        (N, R, S, C), out = x.shape, np.empty(x.shape, x.dtype)
        zeros = np.zeros(S * C, x.dtype)  # NumPy's maximum of an array and a scalar is slow
        np.maximum(x.reshape(N * R, S * C), zeros, out=out.reshape(N * R, S * C))
    else:
        out = xp_of(x).maximum(x, 0)
    return out, OutputCache(out)


def relu_backward(dout, cache):
    """dout (N, H) -> dx (N, H); the derivative at exactly 0 is taken as 0."""
    (out,) = cache
    positive = out > 0
    if xp_of(out) is np:
        positive = positive.astype(out.dtype)  # NumPy takes twice as long to multiply by booleans
    return dout * positive


def relu6_forward(x):
    """out = min(max(x, 0), 6)

    x (N, H) -> out (N, H)

    Source: Krizhevsky 2010, Convolutional deep belief networks on CIFAR-10.
    """
    xp = xp_of(x)
    out = xp.minimum(xp.maximum(x, 0), 6)
    return out, OutputCache(out)


def relu6_backward(dout, cache):
    """dout (N, H) -> dx (N, H); the derivative at exactly 0 and 6 is taken as 0."""
    (out,) = cache
    return dout * ((out > 0) & (out < 6))


def tanh_forward(x):
    """out = tanh x

    x (N, H) -> out (N, H)
    """
    out = xp_of(x).tanh(x)
    return out, OutputCache(out)


def tanh_backward(dout, cache):
    """dout (N, H) -> dx (N, H)"""
    (out,) = cache
    return tanh_gradient(dout, out)


@elementwise
def tanh_gradient(dout, out):
    return dout * (1 - out * out)


def scaled_tanh_forward(x):
    """out = 1.7159 tanh(2x / 3), so that out(1) = 1 and out(-1) = -1

    x (N, H) -> out (N, H)

    Source: LeCun et al. 1998, Efficient BackProp, section 4.4.
    """
    out = scaled_tanh(x)
    return out, OutputCache(out)


@elementwise
def scaled_tanh(x):
    return 1.7159 * xp_of(x).tanh(2 / 3 * x)


def scaled_tanh_backward(dout, cache):
    """dout (N, H) -> dx (N, H)"""
    (out,) = cache
    return scaled_tanh_gradient(dout, out)


@elementwise
def scaled_tanh_gradient(dout, out):
    return dout * 2 / 3 * (1.7159 - out * out / 1.7159)


@elementwise
def sigmoid(x):
    """1 / (1 + exp(-x)), computed from tanh, which does not overflow for any x."""
    return 0.5 * xp_of(x).tanh(0.5 * x) + 0.5


def sigmoid_forward(x):
    """out = 1 / (1 + exp(-x))

    x (N, H) -> out (N, H)
    """
    out = sigmoid(x)
    return out, OutputCache(out)


def sigmoid_backward(dout, cache):
    """dout (N, H) -> dx (N, H)"""
    (out,) = cache
    return sigmoid_gradient(dout, out)


@elementwise
def sigmoid_gradient(dout, out):
    return dout * out * (1 - out)
