"""Convolution as matrix products. Images are (N, R, S, C): photos, rows, columns, channels.

One pair of functions selects among several algorithms. Their definition, a plain sum, is in satnp/reference/conv.py.
"""

from math import prod
from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import xp_of
from satnp.arrays.products import summed_product, tall_product
from satnp.arrays.threads import parallel, shares
from satnp.layers import winograd
from satnp.layers.activations import OutputCache, relu6_backward, relu_backward
from satnp.layers.blocks import RELU, RELU6, blocks, finishing, on_host, parallel_blocks, region, scratch

PATCHES = 2**21  # bytes of patches or lines at a time, so that they stay in the cache


class ConvCache(NamedTuple):
    x: object
    W: object
    stride: int
    padding: int


class ConvReluCache(NamedTuple):
    conv: object
    relu: object


class ExpandCache(NamedTuple):
    middle: object
    window: object
    relu: object


def output_size(size, K, stride, padding=0, ceil=False):
    """Return how many windows of K cells, `stride` apart, fit into `size` cells with `padding` on both sides."""
    room = size + 2 * padding - K
    if not ceil:
        return room // stride + 1
    windows = -(-room // stride) + 1
    # the last window must start inside the photo or its left padding
    return windows - 1 if (windows - 1) * stride >= size + padding else windows


def same_padding(size, K, stride):
    """Return how many cells to pad before and after `size` cells, so that ceil(size / stride) windows of K cells fit.

    Of an odd number of cells, the last is padded after, as in TensorFlow: windows of 3 cells with stride 2 get (0, 1) on an
    even size, where symmetric padding would shift the whole map by one cell.
    """
    total = max(0, (-(-size // stride) - 1) * stride + K - size)
    return total // 2, total - total // 2


def window(k, stride, count):
    """Return the slice that selects cell k of each of `count` windows."""
    return slice(k, k + stride * (count - 1) + 1, stride)


def pad(x, before, after, value=0):
    """Pad rows and columns of `x` (N, R, S, C) with `value`: `before` and `after` cells; `after` may be (rows, columns)."""
    if before == 0 and after in (0, (0, 0)):
        return x
    after_rows, after_columns = after if isinstance(after, tuple) else (after, after)
    N, R, S, C = x.shape
    out = xp_of(x).full((N, before + R + after_rows, before + S + after_columns, C), value, dtype=x.dtype)
    out[:, before : before + R, before : before + S] = x
    return out


def conv2d_forward(x, W, b, stride=1, padding=0):
    """out[n, p, q] = sum_ij x[n, p*stride + i - padding, q*stride + j - padding] W[i, j] + b

    x (N, R, S, C), W (K, K, C, F), b (F,) -> out (N, P, Q, F)

    A cross-correlation, as everywhere in deep learning. Real NumPy arrays use the fastest algorithm for their sizes; all
    other arrays use one product over all patches. Relative error in float32:

        pointwise_correlate   < 1e-6    1x1: one product of the cells and W
        winograd.correlate    < 3e-6    3x3, stride 1, many channels: a quarter of the multiplications
        lines_correlate       < 1e-6    stride 1, few filters: a product for each row of the kernel, with fewer copies
        patches_correlate     < 1e-6    all other sizes: a product over the patches of a few rows at a time
    """
    return _correlate(x, W, b, stride, padding), ConvCache(x, W, stride, padding)


def conv2d_relu_forward(x, W, b, stride=1, padding=0):
    """out = max(conv2d(x), 0), with the maximum taken while the sum is still in the processor's cache

    x (N, R, S, C), W (K, K, C, F), b (F,) -> out (N, P, Q, F)
    """
    out = _correlate(x, W, b, stride, padding, RELU)
    return out, ConvReluCache(ConvCache(x, W, stride, padding), OutputCache(out))


def conv2d_relu_backward(dout, cache):
    """dout (N, P, Q, F) -> dx (N, R, S, C), dW (K, K, C, F), db (F,)"""
    return conv2d_backward(relu_backward(dout, cache.relu), cache.conv)


def conv2d_relu6_forward(x, W, b, stride=1, padding=0):
    """out = min(max(conv2d(x), 0), 6), clipped while the sum is still in the processor's cache

    x (N, R, S, C), W (K, K, C, F), b (F,) -> out (N, P, Q, F)
    """
    out = _correlate(x, W, b, stride, padding, RELU6)
    return out, ConvReluCache(ConvCache(x, W, stride, padding), OutputCache(out))


def conv2d_relu6_backward(dout, cache):
    """dout (N, P, Q, F) -> dx (N, R, S, C), dW (K, K, C, F), db (F,)"""
    return conv2d_backward(relu6_backward(dout, cache.relu), cache.conv)


def expand_relu_forward(x, W1, b1, W3, b3):
    """out = [max(conv2d(x; W1), 0) ; max(conv2d(x; W3), 0)], concatenated along the channels

    x (N, R, S, C), W1 (1, 1, C, F), b1 (F,), W3 (3, 3, C, G), b3 (G,) -> out (N, R, S, F + G)

    Both use the same patches: W1 reads the center cell of each 3 x 3 window of W3.
    """
    xp = xp_of(x)
    if on_host(x, W1, b1, W3, b3):
        out = patches_correlate(x, W3, np.concatenate([b1, b3]), 1, 1, RELU, W1[0, 0])
    else:
        out = xp.concatenate([whole_correlate(x, W1, b1, 1, 0, RELU), whole_correlate(x, W3, b3, 1, 1, RELU)], axis=3)
    return out, ExpandCache(ConvCache(x, W1, 1, 0), ConvCache(x, W3, 1, 1), OutputCache(out))


def expand_relu_backward(dout, cache):
    """dout (N, R, S, F + G) -> dx (N, R, S, C), dW1 (1, 1, C, F), db1 (F,), dW3 (3, 3, C, G), db3 (G,)"""
    F, dout = cache.middle.W.shape[3], relu_backward(dout, cache.relu)
    dx1, dW1, db1 = conv2d_backward(dout[..., :F], cache.middle)
    dx3, dW3, db3 = conv2d_backward(dout[..., F:], cache.window)
    return dx1 + dx3, dW1, db1, dW3, db3


def conv2d_backward(dout, cache):
    """dout (N, P, Q, F) -> dx (N, R, S, C), dW (K, K, C, F), db (F,)"""
    dW, db = conv2d_backward_weights(dout, cache)
    dx = conv2d_backward_input(dout, cache)
    return dx, dW, db


def conv2d_backward_weights(dout, cache):
    """dout (N, P, Q, F) -> dW (K, K, C, F), db (F,)"""
    x, W, stride, padding = cache
    dW = _weight_gradient(x, dout, W, stride, padding)
    dout = dout.reshape(-1, dout.shape[3])
    return dW, xp_of(dout).ones(len(dout), dtype=dout.dtype) @ dout


def conv2d_backward_input(dout, cache):
    """dout (N, P, Q, F) -> dx (N, R, S, C)

    For each weight, the gradient of an output, times the weight, is added to the cell that this output read.
    """
    x, W, stride, padding = cache
    xp, (N, R, S, C), (_, P, Q, F), K = xp_of(dout), x.shape, dout.shape, W.shape[0]
    if on_host(x, W, dout) and stride == 1 and padding < K:  # a convolution with the kernel rotated by 180 degrees
        back = np.ascontiguousarray(W[::-1, ::-1].swapaxes(2, 3))
        return _correlate(dout, back, np.zeros(C, dout.dtype), 1, K - 1 - padding)
    dx, rows = xp.zeros((N, R + 2 * padding, S + 2 * padding, C), dtype=dout.dtype), dout.reshape(-1, F)
    for i in range(K):
        for j in range(K):
            dx[:, window(i, stride, P), window(j, stride, Q)] += (rows @ W[i, j].T).reshape(N, P, Q, C)
    return dx[:, padding : padding + R, padding : padding + S]


def _correlate(x, W, b, stride, padding, bounds=None):
    """Run the fastest of the algorithms below for these sizes."""
    (K, _, C, F), R, S = W.shape, *(size + 2 * padding for size in x.shape[1:3])
    if K > min(R, S):
        raise ValueError(f"a window of {K} x {K} cells does not fit into a map of {R} x {S}")
    if not on_host(x, W, b):
        return whole_correlate(x, W, b, stride, padding, bounds)
    if K == 1 and stride == 1 and padding == 0:
        return pointwise_correlate(x, W, b, bounds)
    if winograd.pays(x.shape, W.shape, stride, padding):
        return winograd.correlate(x, W, b, padding, bounds)
    if stride == 1 and F < K * C:  # (K - 1) F numbers to add for each cell, in place of (K - 1) K C to copy
        return lines_correlate(x, W, b, padding, bounds)
    return patches_correlate(x, W, b, stride, padding, bounds)


def _weight_gradient(x, dout, W, stride, padding):
    if not on_host(x, dout):
        return whole_weight_gradient(x, dout, W, stride, padding)
    if W.shape[0] == 1 and stride == 1 and padding == 0:
        return pointwise_weight_gradient(x, dout)
    if winograd.pays(x.shape, W.shape, stride, padding):
        return winograd.weight_gradient(x, dout, padding)
    return lines_weight_gradient(x, dout, W, stride, padding)


def whole_correlate(x, W, b, stride, padding, bounds=None):
    """One product: the windows of x, each as a row, times W."""
    (N, R, S, C), (K, _, _, F) = x.shape, W.shape
    P, Q = output_size(R, K, stride, padding), output_size(S, K, stride, padding)
    out = _windows(pad(x, padding, padding), K, stride).reshape(N * P * Q, K * K * C) @ W.reshape(K * K * C, F)
    out = out.reshape(N, P, Q, F)
    finishing(b, Q, bounds)(out, out)
    return out


def whole_weight_gradient(x, dout, W, stride, padding):
    K, _, C, F = W.shape
    patches = _windows(pad(x, padding, padding), K, stride).reshape(-1, K * K * C)
    return (patches.T @ dout.reshape(-1, F)).reshape(W.shape)


def pointwise_correlate(x, W, b, bounds=None):
    """1 x 1 convolution: each cell is a row of the product."""
    (N, R, S, C), F = x.shape, W.shape[3]
    rows, out, finish = x.reshape(N * R, S, C), np.empty((N * R, S, F), dtype=x.dtype), finishing(b, S, bounds)

    def work(part):
        y = out[part]
        tall_product(rows[part].reshape(-1, C), W[0, 0], out=y.reshape(-1, F))
        finish(y, y)

    parallel(work, shares(N * R, 2**24 // max(1, S * C * F)))
    return out.reshape(N, R, S, F)


def pointwise_weight_gradient(x, dout):
    C, F = x.shape[3], dout.shape[3]
    return (x.reshape(-1, C).T @ dout.reshape(-1, F)).reshape(1, 1, C, F)


def patches_correlate(x, W, b, stride, padding, bounds=None, middle=None):
    """Like whole_correlate, but for a few rows at a time, so that their patches stay in the cache.

    middle (C, G) holds 1 x 1 filters for the center cell of each window; their result is out[..., :G], and b is (G + F,).
    """
    K, _, C, F = W.shape
    windows = _padded_windows(x, K, stride, padding)
    N, P, Q = windows.shape[:3]
    G = 0 if middle is None else middle.shape[1]
    W, cell = W.reshape(K * K * C, F), K * K // 2 * C
    out, finish = np.empty((N, P, Q, G + F), dtype=x.dtype), finishing(b, Q, bounds)

    def work(pieces):
        for piece in pieces:
            patches, y = _patches(windows[piece]), out[piece]
            sums = y.reshape(-1, G + F)
            tall_product(patches, W, out=sums[:, G:])
            if G:
                tall_product(patches[:, cell : cell + C], middle, out=sums[:, :G])
            finish(y, y)

    parallel_blocks(work, _pieces(windows))
    return out


def lines_correlate(x, W, b, padding, bounds=None):
    """Like patches_correlate with stride 1, but only 1 / K of the copies: out is the sum of a product for each row of W."""
    (N, R, S, C), (K, _, _, F) = x.shape, W.shape
    P, Q = output_size(R, K, 1, padding), output_size(S, K, 1, padding)
    W, out, finish = W.reshape(K, K * C, F), np.empty((N, P, Q, F), dtype=x.dtype), finishing(b, Q, bounds)

    def work(pieces):
        for photos, rows in pieces:
            first, *others = _lines(photos, rows, x, K, 1, padding)
            y = out[photos, rows]
            sums = tall_product(first, W[0], out=y.reshape(*first.shape[:2], F))
            for lines, weights in zip(others, W[1:], strict=True):
                sums += tall_product(lines, weights, out=scratch("product", sums.shape, x.dtype))
            finish(y, y)

    parallel_blocks(work, _line_blocks(N, P, Q, K, 1, x))
    return out


def lines_weight_gradient(x, dout, W, stride, padding):
    """dW[i] = lines^T dout, with the lines that W[i] reads, some rows of x at a time"""
    K, (N, P, Q, F) = len(W), dout.shape

    def gradient(photos, rows):
        return np.stack([summed_product(lines, dout[photos, rows].reshape(*lines.shape[:2], F))
                         for lines in _lines(photos, rows, x, K, stride, padding)])  # fmt: skip

    def work(pieces):
        return sum(gradient(*piece) for piece in pieces)

    return sum(parallel_blocks(work, _line_blocks(N, P, Q, K, stride, x))).reshape(W.shape)


def _windows(x, K, stride):
    """Every K x K window of x: (N, P, Q, K, K, C), a view."""
    (N, R, S, C), (photo, row, column, channel) = x.shape, x.strides
    shape = N, output_size(R, K, stride), output_size(S, K, stride), K, K, C
    strides = photo, stride * row, stride * column, row, column, channel
    return xp_of(x).lib.stride_tricks.as_strided(x, shape, strides)


def _padded_windows(x, K, stride, padding):
    """Return the windows of zero-padded x, which is made contiguous, so that a patch is copied in runs of K * C numbers."""
    return _windows(np.ascontiguousarray(pad(x, padding, padding)), K, stride)


def _pieces(windows):
    """Return pieces (photos, rows) whose patches take PATCHES bytes or fewer."""
    N, P, *sizes = windows.shape
    return blocks(N, P, PATCHES // (prod(sizes) * windows.itemsize))


def _patches(windows):
    """Copy windows (n, k, Q, K, K, C) to rows (n * k * Q, K * K * C) of a buffer that this thread's next call overwrites."""
    out = scratch("patches", windows.shape, windows.dtype)
    out[...] = windows
    return out.reshape(-1, prod(windows.shape[3:]))


def _lines(photos, rows, x, K, stride, padding):
    """Return what row i of the kernel reads for the output `rows` of `photos`, for each i < K: (n, k * Q, K * C).

    A line is one row of a window, K * C numbers, and is copied once. Lines of rows that are `stride` apart lie next to each
    other, so that those for row i of the kernel are one matrix.
    """
    n, k, S, C = photos.stop - photos.start, rows.stop - rows.start, x.shape[2] + 2 * padding, x.shape[3]
    r, Q = (k - 1) * stride + K, output_size(S, K, stride)
    seen = scratch("padded", (n, r, S, C), x.dtype)
    region(x, photos, rows.start * stride - padding, -padding, seen)
    photo, row, column, channel = seen.strides
    lines = scratch("lines", (n, stride, -(-r // stride), Q, K, C), x.dtype)
    for first in range(stride):
        part = seen[:, first::stride]
        shape, strides = (n, part.shape[1], Q, K, C), (photo, stride * row, stride * column, column, channel)
        lines[:, first, : part.shape[1]] = np.lib.stride_tricks.as_strided(part, shape, strides)
    return [lines[:, i % stride, i // stride : i // stride + k].reshape(n, k * Q, K * C) for i in range(K)]


def _line_blocks(N, P, Q, K, stride, x):
    return blocks(N, P, PATCHES // (stride * Q * K * x.shape[3] * x.itemsize))
