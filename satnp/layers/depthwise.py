"""Depthwise convolution: each channel has a K x K filter of its own. Images are (N, R, S, C), with C channels.

Its definition, a plain sum, is in satnp/reference/conv.py.
"""

from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import xp_of
from satnp.layers.activations import OutputCache, relu6_backward
from satnp.layers.blocks import RELU6, blocks, finishing, on_host, parallel_blocks, region, scratch
from satnp.layers.conv import same_padding, window

RUN = 1200  # most numbers in the inner loop of a sum: its filters and its results stay in the first-level cache
SMALL, PIECE = 2**17, 2**19  # numbers of x in a piece: with smaller pieces the threads wait for each other


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
    return (rows_correlate if on_host(x, W, b) else whole_correlate)(x, W, b, stride, bounds)


def whole_correlate(x, W, b, stride, bounds=None):
    """The sum over the K * K weights of whole maps: x (N, R, S, C), W (K, K, C), b (C,) -> out (N, P, Q, C)"""
    xp, (N, R, S, C), K = xp_of(x), x.shape, len(W)
    P, Q, top, left = sizes(R, S, K, stride)
    seen = region(x, slice(0, N), -top, -left, xp.empty((N, _reach(P, K, stride), _reach(Q, K, stride), C), dtype=x.dtype))
    out = sum(seen[:, window(i, stride, P), window(j, stride, Q)] * W[i, j] for i in range(K) for j in range(K))
    finishing(b, Q, bounds)(out, out)
    return out


def rows_correlate(x, W, b, stride, bounds=None):
    """Like whole_correlate, but for a few rows at a time, with runs of several cells in the inner loop; the same shapes."""
    (N, R, S, C), K = x.shape, len(W)
    P, Q, top, left = sizes(R, S, K, stride)
    filters, out, finish = run_filters(W, Q, stride), np.empty((N, P, Q, C), x.dtype), finishing(b, Q, bounds)

    def work(pieces):
        for photos, rows in pieces:
            y = out[photos, rows]
            seen = scratch("seen", (*read_sizes(y, K, stride), C), x.dtype)
            sum_windows(region(x, photos, rows.start * stride - top, -left, seen), filters, stride, y)
            finish(y, y)

    parallel_blocks(work, pieces_of(N, P, x.size, stride * S * C))
    return out


def run_filters(W, Q, stride):
    """Return W (K, K, C) repeated for the cells of a run: (K, K, m * C). m divides Q, the number of columns of the results.

    With stride 1 the cells that a weight multiplies lie next to each other, so that m of them are one inner loop.
    """
    most = RUN // W.shape[2] if stride == 1 else 1
    return np.tile(W, next(m for m in range(max(1, min(Q, most)), 0, -1) if Q % m == 0))


def sum_windows(x, filters, stride, out):
    """out (n, k, Q, C) = the sums over the windows of x (n, r, s, C), contiguous, times the `run_filters`"""
    out, (photo, row, column, number) = out.reshape(*out.shape[:2], -1, filters.shape[2]), x.strides
    run = stride * column if stride > 1 else filters.shape[2] * number
    strides = row, column, photo, stride * row, run, number
    windows = np.ndarray((*filters.shape[:2], *out.shape), x.dtype, x, 0, strides)
    np.einsum("ijnpqx,ijx->npqx", windows, filters, out=out)


def read_sizes(out, K, stride):
    """(n, r, s): the number of photos, rows and columns that the windows of the results `out` (n, k, Q, C) cover."""
    n, k, Q, _ = out.shape
    return n, _reach(k, K, stride), _reach(Q, K, stride)


def pieces_of(N, P, numbers, row):
    """blocks(N, P) of at most PIECE of the `numbers` in the map that is read; one row of results reads `row` of them."""
    return blocks(N, P, max(1, min(PIECE, max(SMALL, numbers // 2)) // row))


def sizes(R, S, K, stride):
    """(P, Q, top, left): the size of the result, and the padding before the first row and column."""
    return -(-R // stride), -(-S // stride), same_padding(R, K, stride)[0], same_padding(S, K, stride)[0]


def _reach(count, K, stride):
    """How many cells `count` windows of K cells, `stride` apart, cover."""
    return (count - 1) * stride + K
