"""Max and average pooling over K x K windows of (N, R, S, C) images."""

from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import xp_of
from satnp.layers.activations import OutputCache, relu_backward
from satnp.layers.blocks import blocks
from satnp.layers.conv import output_size, pad, window

BLOCK = 2**20  # elements of x at a time; with smaller blocks the cores wait for Python's lock


class MaxPoolCache(NamedTuple):
    x: object
    out: object
    K: int
    stride: int
    relu: bool


class AveragePoolCache(NamedTuple):
    x_shape: tuple
    K: int
    stride: int


def max_pool_forward(x, K, stride, ceil=False, relu=False):
    """out[n, p, q] = max over i, j < K of x[n, p*stride + i, q*stride + j]

    x (N, R, S, C) -> out (N, P, Q, C)

    ceil=True also uses windows that extend past the last row or column, as Caffe does. relu=True returns max(out, 0), which
    is the pool of max(x, 0).
    """
    xp, (N, R, S, C) = xp_of(x), x.shape
    P, Q = output_size(R, K, stride, ceil=ceil), output_size(S, K, stride, ceil=ceil)
    out = xp.empty((N, P, Q, C), dtype=x.dtype)
    least = [xp.zeros((Q, C), dtype=x.dtype)] if relu else []

    for photos, rows in blocks(N, P, BLOCK // (stride * S * C)) if xp is np else [(slice(0, N), slice(0, P))]:
        top, bottom = rows.start * stride, (rows.stop - 1) * stride + K
        seen = _pad_far(x[photos, top:bottom], K, stride, rows.stop - rows.start, Q, -xp.inf)
        tall = _largest([seen[:, window(i, stride, rows.stop - rows.start)] for i in range(K)])
        _largest([tall[:, :, window(j, stride, Q)] for j in range(K)] + least, out[photos, rows])
    return out, MaxPoolCache(x, out, K, stride, relu)


def max_pool_backward(dout, cache):
    """dout (N, P, Q, C) -> dx (N, R, S, C); of equal maxima in a window, the first in row-major order gets the gradient."""
    x, out, K, stride, relu = cache
    xp = xp_of(x)
    _, P, Q, C = out.shape
    padded = _pad_far(x, K, stride, P, Q, -xp.inf)
    dx = xp.empty(padded.shape, dtype=dout.dtype)
    in_one = K == stride and padded.shape[1:3] == (K * P, K * Q)  # each cell is in one window

    for photos, _ in blocks(len(x), 1, max(1, BLOCK // (P * Q * C))) if xp is np else [(slice(0, len(x)), None)]:
        if not in_one:
            dx[photos] = 0
        left = relu_backward(dout[photos], OutputCache(out[photos])) if relu else dout[photos].copy()
        for i, j in _offsets(K):
            cells, taken = (photos, window(i, stride, P), window(j, stride, Q)), left
            if (i, j) != (K - 1, K - 1):  # the last cell gets what is left
                taken = (padded[cells] == out[photos]).astype(dout.dtype)
                taken *= left
                left -= taken
            if K > stride:  # windows overlap
                taken += dx[cells]
            dx[cells] = taken
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


def _largest(arrays, out=None):
    """Elementwise maximum of arrays. Pooling over rows, then over columns takes 2K steps instead of K * K."""
    xp = xp_of(arrays[0])
    if len(arrays) == 1:
        arrays = arrays * 2
    out = xp.maximum(arrays[0], arrays[1], out=out)
    for x in arrays[2:]:
        xp.maximum(out, x, out=out)
    return out


def _offsets(K):
    return [(i, j) for i in range(K) for j in range(K)]


def _pad_far(x, K, stride, P, Q, value):
    """Pad x with `value` after its last row and column, as far as the last windows reach."""
    far = tuple(max(0, (n - 1) * stride + K - size) for n, size in zip((P, Q), x.shape[1:3], strict=True))
    return pad(x, 0, far, value)
