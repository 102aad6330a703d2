"""Convolution as one product over patches. Images are (N, R, S, C): photos, rows, columns, channels."""

from typing import NamedTuple

from satnp.backend import xp_of


class ConvCache(NamedTuple):
    x_shape: tuple
    patches: object
    W: object
    stride: int
    padding: int


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

    A cross-correlation, as everywhere in deep learning. The plain sum is in satnp/reference/conv.py.
    """
    N, R, S, C = x.shape
    K, _, _, F = W.shape
    P, Q = output_size(R, K, stride, padding), output_size(S, K, stride, padding)
    patches = _patches(pad(x, padding, padding), K, stride, P, Q)
    out = patches @ W.reshape(K * K * C, F)
    out += b
    return out.reshape(N, P, Q, F), ConvCache(x.shape, patches, W, stride, padding)


def conv2d_backward(dout, cache):
    """dout (N, P, Q, F) -> dx (N, R, S, C), dW (K, K, C, F), db (F,)"""
    dW, db = conv2d_backward_weights(dout, cache)
    dx = conv2d_backward_input(dout, cache)
    return dx, dW, db


def conv2d_backward_weights(dout, cache):
    """dout (N, P, Q, F) -> dW (K, K, C, F), db (F,)"""
    dout = dout.reshape(-1, dout.shape[-1])
    return (cache.patches.T @ dout).reshape(cache.W.shape), dout.sum(axis=0)


def conv2d_backward_input(dout, cache):
    """dout (N, P, Q, F) -> dx (N, R, S, C): each cell hears, through each weight, from the output that it fed."""
    (N, R, S, C), _, W, stride, padding = cache
    _, P, Q, F = dout.shape
    K = W.shape[0]
    dout = dout.reshape(N * P * Q, F)
    dx = xp_of(dout).zeros((N, R + 2 * padding, S + 2 * padding, C), dtype=dout.dtype)
    for i in range(K):
        for j in range(K):
            dx[:, window(i, stride, P), window(j, stride, Q)] += (dout @ W[i, j].T).reshape(N, P, Q, C)
    return dx[:, padding : padding + R, padding : padding + S]


def _patches(x, K, stride, P, Q):
    """Every K x K window of x as a row: (N*P*Q, K*K*C)."""
    N, R, S, C = x.shape
    windows = xp_of(x).lib.stride_tricks.sliding_window_view(x, (K, K), axis=(1, 2))
    return windows[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3).reshape(N * P * Q, K * K * C)
