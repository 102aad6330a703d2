"""Max and average pooling over K x K windows of (N, R, S, C) images."""

from typing import NamedTuple

from satnp.backend import xp_of
from satnp.layers.conv import output_size, pad, window


class MaxPoolCache(NamedTuple):
    x: object
    out: object
    K: int
    stride: int


class AveragePoolCache(NamedTuple):
    x_shape: tuple
    K: int
    stride: int


def max_pool_forward(x, K, stride, ceil=False):
    """out[n, p, q] = max over i, j < K of x[n, p*stride + i, q*stride + j]

    x (N, R, S, C) -> out (N, P, Q, C)

    ceil=True also takes the windows that stick out at the far edges (as the Caffe networks do).
    """
    xp = xp_of(x)
    P, Q = (output_size(n, K, stride, ceil=ceil) for n in x.shape[1:3])
    padded = _pad_far(x, K, stride, P, Q, -xp.inf)
    out = None
    for i, j in _offsets(K):
        seen = padded[:, window(i, stride, P), window(j, stride, Q)]
        out = seen.copy() if out is None else xp.maximum(out, seen)
    return out, MaxPoolCache(x, out, K, stride)


def max_pool_backward(dout, cache):
    """dout (N, P, Q, C) -> dx (N, R, S, C); of equal maxima the first in reading order gets the gradient."""
    x, out, K, stride = cache
    xp = xp_of(x)
    _, P, Q, _ = out.shape
    padded = _pad_far(x, K, stride, P, Q, -xp.inf)
    dx = xp.zeros(padded.shape, dtype=dout.dtype)
    left = dout.copy()
    for i, j in _offsets(K):
        cells = window(i, stride, P), window(j, stride, Q)
        taken = left * (padded[:, cells[0], cells[1]] == out)
        dx[:, cells[0], cells[1]] += taken
        left -= taken
    return dx[:, : x.shape[1], : x.shape[2]]


def average_pool_forward(x, K, stride):
    """out[n, p, q] = mean over i, j < K of x[n, p*stride + i, q*stride + j]

    x (N, R, S, C) -> out (N, P, Q, C)
    """
    P, Q = (output_size(n, K, stride) for n in x.shape[1:3])
    out = sum(x[:, window(i, stride, P), window(j, stride, Q)] for i, j in _offsets(K)) / K**2
    return out, AveragePoolCache(x.shape, K, stride)


def average_pool_backward(dout, cache):
    """dout (N, P, Q, C) -> dx (N, R, S, C)"""
    shape, K, stride = cache
    _, P, Q, _ = dout.shape
    dx = xp_of(dout).zeros(shape, dtype=dout.dtype)
    for i, j in _offsets(K):
        dx[:, window(i, stride, P), window(j, stride, Q)] += dout / K**2
    return dx


def _offsets(K):
    return [(i, j) for i in range(K) for j in range(K)]


def _pad_far(x, K, stride, P, Q, value):
    """x with `value` after its last rows and columns, as far as the last windows reach."""
    far = tuple(max(0, (n - 1) * stride + K - size) for n, size in zip((P, Q), x.shape[1:3], strict=True))
    return pad(x, 0, far, value)
