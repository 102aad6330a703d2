"""Convolution as products of matrices. Images are (N, R, S, C): photos, rows, columns, channels.

Several formulations stand behind one pair; the plain sum, their definition, is in satnp/reference/conv.py.
"""

from typing import NamedTuple

import numpy as np

from satnp.backend import xp_of
from satnp.layers import winograd
from satnp.layers.activations import OutputCache, relu_backward
from satnp.layers.blocks import blocks, finish, parallel_blocks, region, scratch
from satnp.threads import parallel, shares

PATCHES = 2**21  # bytes of patches at a time, so that they stay in the cache


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
    """How many windows of K cells fit, `stride` apart, into `size` cells with `padding` on both sides."""
    room = size + 2 * padding - K
    if not ceil:
        return room // stride + 1
    windows = -(-room // stride) + 1
    # the last window must start inside the photo or its left padding
    return windows - 1 if (windows - 1) * stride >= size + padding else windows


def window(k, stride, count):
    """Slice of the cells that are the k-th of their window."""
    return slice(k, k + stride * (count - 1) + 1, stride)


def pad(x, before, after, value=0):
    """`x` (N, R, S, C) with `value` around its rows and columns; `before`, `after` in cells, or (rows, columns)."""
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

    A cross-correlation, as everywhere in deep learning. Real numbers in NumPy take the fastest formulation for their
    sizes, all others a product over all patches at once. Relative error in float32:

        pointwise_correlate   < 1e-6    1x1: the cells times W
        winograd.correlate    < 3e-6    3x3, stride 1, many channels: a quarter of the multiplications
        patches_correlate     < 1e-6    what remains: a product over the patches of some rows at a time
    """
    return _correlate(x, W, b, stride, padding), ConvCache(x, W, stride, padding)


def conv2d_relu_forward(x, W, b, stride=1, padding=0):
    """out = max(conv2d(x), 0), taken while the sum is still in the processor's cache

    x (N, R, S, C), W (K, K, C, F), b (F,) -> out (N, P, Q, F)
    """
    out = _correlate(x, W, b, stride, padding, True)
    return out, ConvReluCache(ConvCache(x, W, stride, padding), OutputCache(out))


def conv2d_relu_backward(dout, cache):
    """dout (N, P, Q, F) -> dx (N, R, S, C), dW (K, K, C, F), db (F,)"""
    return conv2d_backward(relu_backward(dout, cache.relu), cache.conv)


def expand_relu_forward(x, W1, b1, W3, b3):
    """out = [max(conv2d(x; W1), 0) ; max(conv2d(x; W3), 0)], side by side: what W1 wants is the middle of W3's windows

    x (N, R, S, C), W1 (1, 1, C, F), b1 (F,), W3 (3, 3, C, G), b3 (G,) -> out (N, R, S, F + G)
    """
    xp = xp_of(x)
    if _on_host(x, W1, b1, W3, b3):
        out = patches_correlate(x, W3, np.concatenate([b1, b3]), 1, 1, True, W1[0, 0])
    else:
        out = xp.concatenate([whole_correlate(x, W1, b1, 1, 0, True), whole_correlate(x, W3, b3, 1, 1, True)], axis=3)
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
    """dout (N, P, Q, F) -> dx (N, R, S, C): each cell hears, through each weight, from the output that it fed."""
    x, W, stride, padding = cache
    (N, R, S, C), (_, P, Q, F), K = x.shape, dout.shape, W.shape[0]
    back = W[::-1, ::-1].swapaxes(2, 3)  # the sum over outputs is a convolution with the kernel turned around
    if _on_host(x, W, dout) and winograd.pays(dout.shape, back.shape, stride, K - 1 - padding):
        return winograd.correlate(dout, back, np.zeros(C, dout.dtype), K - 1 - padding)
    xp = xp_of(dout)
    dx = xp.zeros((N, R + 2 * padding, S + 2 * padding, C), dtype=dout.dtype)

    def work(pieces):
        for photos, _ in pieces:
            rows = dout[photos].reshape(-1, F)
            for i in range(K):
                for j in range(K):
                    dx[photos, window(i, stride, P), window(j, stride, Q)] += (rows @ W[i, j].T).reshape(-1, P, Q, C)

    a_photo = P * Q * max(C, F) * dout.itemsize
    parallel_blocks(work, blocks(N, 1, max(1, PATCHES // a_photo)) if xp is np else [(slice(0, N), None)])
    return dx[:, padding : padding + R, padding : padding + S]


def _on_host(*arrays):
    """Are all of them real arrays of one dtype of NumPy's? All others go the plain way."""
    return xp_of(*arrays) is np and arrays[0].dtype.kind == "f" and len({x.dtype for x in arrays}) == 1


def _correlate(x, W, b, stride, padding, relu=False):
    """The best formulation for these sizes, of those below."""
    if not _on_host(x, W, b):
        return whole_correlate(x, W, b, stride, padding, relu)
    if W.shape[0] == 1 and stride == 1 and padding == 0:
        return pointwise_correlate(x, W, b, relu)
    if winograd.pays(x.shape, W.shape, stride, padding):
        return winograd.correlate(x, W, b, padding, relu)
    return patches_correlate(x, W, b, stride, padding, relu)


def _weight_gradient(x, dout, W, stride, padding):
    if not _on_host(x, dout):
        return whole_weight_gradient(x, dout, W, stride, padding)
    if W.shape[0] == 1 and stride == 1 and padding == 0:
        return pointwise_weight_gradient(x, dout)
    if winograd.pays(x.shape, W.shape, stride, padding):
        return winograd.weight_gradient(x, dout, padding)
    return patches_weight_gradient(x, dout, W, stride, padding)


def whole_correlate(x, W, b, stride, padding, relu=False):
    """Every window of x as a row, times W."""
    (N, R, S, C), (K, _, _, F) = x.shape, W.shape
    P, Q = output_size(R, K, stride, padding), output_size(S, K, stride, padding)
    out = _windows(pad(x, padding, padding), K, stride).reshape(N * P * Q, K * K * C) @ W.reshape(K * K * C, F)
    finish(out, b, relu, out)
    return out.reshape(N, P, Q, F)


def whole_weight_gradient(x, dout, W, stride, padding):
    K, _, C, F = W.shape
    patches = _windows(pad(x, padding, padding), K, stride).reshape(-1, K * K * C)
    return (patches.T @ dout.reshape(-1, F)).reshape(W.shape)


def pointwise_correlate(x, W, b, relu=False):
    """1 x 1: the cells are the rows."""
    C, F = W.shape[2:]
    rows, W = x.reshape(-1, C), W.reshape(C, F)
    out = np.empty((len(rows), F), dtype=x.dtype)

    def work(part):
        finish(np.matmul(rows[part], W, out=out[part]), b, relu, out[part])

    parallel(work, shares(len(rows), 2**24 // (C * F)))
    return out.reshape(*x.shape[:3], F)


def pointwise_weight_gradient(x, dout):
    C, F = x.shape[3], dout.shape[3]
    return (x.reshape(-1, C).T @ dout.reshape(-1, F)).reshape(1, 1, C, F)


def patches_correlate(x, W, b, stride, padding, relu=False, middle=None):
    """As the whole, some rows at a time, whose patches stay in the cache.

    middle (C, G): filters that see the cell in the middle alone; out[..., :G] is theirs, b (G + F,)
    """
    (N, R, S, C), (K, _, _, F) = x.shape, W.shape
    P, Q = output_size(R, K, stride, padding), output_size(S, K, stride, padding)
    G = 0 if middle is None else middle.shape[1]
    out, cell = np.empty((N, P, Q, G + F), dtype=x.dtype), K * K // 2 * C

    def work(pieces):
        for photos, rows in pieces:
            patches, y = _patches(x, photos, rows, K, stride, padding, Q), out[photos, rows].reshape(-1, G + F)
            np.matmul(patches, W.reshape(K * K * C, F), out=y[:, G:])
            if G:
                np.matmul(patches[:, cell : cell + C], middle, out=y[:, :G])
            finish(y, b, relu, y)

    parallel_blocks(work, _row_blocks(x, K, P, Q))
    return out


def patches_weight_gradient(x, dout, W, stride, padding):
    (_, P, Q, F), K = dout.shape, W.shape[0]

    def work(pieces):
        return sum(
            _patches(x, photos, rows, K, stride, padding, Q).T @ dout[photos, rows].reshape(-1, F) for photos, rows in pieces
        )

    return sum(parallel_blocks(work, _row_blocks(x, K, P, Q))).reshape(W.shape)


def _row_blocks(x, K, P, Q):
    return blocks(x.shape[0], P, PATCHES // (Q * K * K * x.shape[3] * x.itemsize))


def _windows(x, K, stride):
    """Every K x K window of x: (N, P, Q, K, K, C), a view."""
    windows = xp_of(x).lib.stride_tricks.sliding_window_view(x, (K, K), axis=(1, 2))
    return windows[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)


def _patches(x, photos, rows, K, stride, padding, Q):
    """The windows of these rows of outputs, Q in a row, as rows: (n * k * Q, K * K * C)"""
    n, k, C = photos.stop - photos.start, rows.stop - rows.start, x.shape[3]
    seen = scratch("seen", (n, (k - 1) * stride + K, (Q - 1) * stride + K, C), x.dtype)
    out = scratch("patches", (n, k, Q, K, K, C), x.dtype)
    out[...] = _windows(region(x, photos, rows.start * stride - padding, -padding, seen), K, stride)
    return out.reshape(n * k * Q, K * K * C)
