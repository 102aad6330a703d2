"""Depthwise convolution: each channel has a K x K filter of its own. Images are (N, R, S, C), with C channels.

Its definition, a plain sum, is in satnp/reference/conv.py.
"""

from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import xp_of
from satnp.layers.activations import OutputCache, relu6_backward
from satnp.layers.blocks import RELU6, blocks, finishing, parallel_blocks, region, scratch
from satnp.layers.conv import same_padding, window

RUN = 1200     # most numbers in the inner loop of a sum: its filters and its results stay in the first-level cache
SMALL, PIECE = 2**16, 2**20  # numbers of x at a time: threads that make many short calls wait for each other


class DepthwiseCache(NamedTuple):
    x: object
    W: object
    stride: int


class DepthwiseRelu6Cache(NamedTuple):
    conv: DepthwiseCache
    relu: OutputCache


def depthwise_forward(x, W, b, stride=1):
    """out[n, p, q, c] = sum_ij x[n, p*stride + i - top, q*stride + j - left, c] W[i, j, c] + b[c]

    x (N, R, S, C), W (K, K, C), b (C,) -> out (N, P, Q, C)

    The padding is conv.same_padding, so that P = ceil(R / stride) and Q = ceil(S / stride).

    Source: Howard et al. 2017 (MobileNets), eq. 3.
    """
    return _correlate(x, W, b, stride), DepthwiseCache(x, W, stride)


def depthwise_backward(dout, cache):
    """dout (N, P, Q, C) -> dx (N, R, S, C), dW (K, K, C), db (C,)

    For each weight, the gradient of an output, times the weight, is added to the cell that this output read.
    """
    x, W, stride = cache
    xp, (N, R, S, C), (_, P, Q, _), K = xp_of(dout), x.shape, dout.shape, len(W)
    (top, bottom), (left, right) = same_padding(R, K, stride), same_padding(S, K, stride)
    dx = xp.empty((N, top + R + bottom, left + S + right, C), dtype=dout.dtype)

    def work(pieces):
        dW = xp.zeros(W.shape, dtype=dout.dtype)
        for photos, _ in pieces:
            fed, d = dx[photos], dout[photos]
            seen = region(x, photos, -top, -left, xp.empty(fed.shape, dtype=x.dtype))
            fed[...] = 0
            for i in range(K):
                for j in range(K):
                    cells = slice(None), window(i, stride, P), window(j, stride, Q)
                    fed[cells] += d * W[i, j]
                    dW[i, j] += (seen[cells] * d).sum(axis=(0, 1, 2))
        return dW

    pieces = blocks(N, 1, max(1, PIECE // (R * S * C))) if xp is np else [(slice(0, N), None)]
    dW = sum(parallel_blocks(work, pieces))
    return dx[:, top : top + R, left : left + S], dW, dout.sum(axis=(0, 1, 2))


def depthwise_relu6_forward(x, W, b, stride=1):
    """out = min(max(depthwise(x), 0), 6), clipped while the sum is still in the processor's cache

    x (N, R, S, C), W (K, K, C), b (C,) -> out (N, P, Q, C)
    """
    out = _correlate(x, W, b, stride, RELU6)
    return out, DepthwiseRelu6Cache(DepthwiseCache(x, W, stride), OutputCache(out))


def depthwise_relu6_backward(dout, cache):
    """dout (N, P, Q, C) -> dx (N, R, S, C), dW (K, K, C), db (C,)"""
    return depthwise_backward(relu6_backward(dout, cache.relu), cache.conv)


def _correlate(x, W, b, stride, bounds=None):
    """Run rows_correlate for real NumPy arrays of one dtype, and whole_correlate for all others."""
    on_host = xp_of(x, W, b) is np and x.dtype.kind == "f" and x.dtype == W.dtype == b.dtype
    return (rows_correlate if on_host else whole_correlate)(x, W, b, stride, bounds)


def whole_correlate(x, W, b, stride, bounds=None):
    """The sum over the K * K weights of whole maps."""
    xp, (N, R, S, C), K = xp_of(x), x.shape, len(W)
    P, Q, top, left = _sizes(R, S, K, stride)
    seen = region(x, slice(0, N), -top, -left, xp.empty((N, _reach(P, K, stride), _reach(Q, K, stride), C), dtype=x.dtype))
    out = sum(seen[:, window(i, stride, P), window(j, stride, Q)] * W[i, j] for i in range(K) for j in range(K))
    finishing(b, Q, bounds)(out, out)
    return out


def rows_correlate(x, W, b, stride, bounds=None):
    """Like whole_correlate, but for a few rows at a time, with runs of several cells in the inner loop.

    Columns that are `stride` apart are copied next to each other, so that such a run is contiguous for every weight.
    """
    (N, R, S, C), K = x.shape, len(W)
    P, Q, top, left = _sizes(R, S, K, stride)
    cells = next(m for m in range(max(1, min(Q, RUN // C)), 0, -1) if Q % m == 0)
    runs, columns = (Q // cells, cells * C), -(-_reach(Q, K, stride) // stride)
    filters = np.tile(W, cells)
    out, finish = np.empty((N, P, Q, C), x.dtype), finishing(b, Q, bounds)

    def work(pieces):
        for photos, rows in pieces:
            n, k = photos.stop - photos.start, rows.stop - rows.start
            y = out[photos, rows]
            sums = y.reshape(n, k, *runs)
            for first in range(min(stride, K)):
                seen = scratch("seen", (n, _reach(k, K, stride), columns, C), x.dtype)
                region(x, photos, rows.start * stride - top, first - left, seen, stride)
                found = sums if first == 0 else scratch("sums", sums.shape, x.dtype)
                _sum(seen, filters[:, first::stride], stride, C, found)
                if first:
                    sums += found
            finish(y, y)

    numbers = min(PIECE, max(SMALL, x.size // 2))
    parallel_blocks(work, blocks(N, P, max(1, numbers // (stride * S * C))))
    return out


def _sizes(R, S, K, stride):
    """(P, Q, top, left): the size of the result, and the padding before the first row and column."""
    return -(-R // stride), -(-S // stride), same_padding(R, K, stride)[0], same_padding(S, K, stride)[0]


def _reach(count, K, stride):
    """How many cells `count` windows of K cells, `stride` apart, cover."""
    return (count - 1) * stride + K


def _sum(x, filters, stride, C, out):
    """out[n, p, q] = sum_ij x[n, p*stride + i, q + j] filters[i, j], where q counts runs of cells

    x (n, r, s, C), filters (K, A, run), out (n, k, Q / cells, run)
    """
    photo, row, _, number = x.strides
    strides = row, C * number, photo, stride * row, out.shape[3] * number, number
    windows = np.lib.stride_tricks.as_strided(x, (*filters.shape[:2], *out.shape), strides)
    np.einsum("ijnpqx,ijx->npqx", windows, filters, out=out)
