"""The naive forms that A6 should beat: right, as plain as the equations and slow, one number or one row at a time."""

from typing import NamedTuple

import numpy as np

from satnp.reference.conv import conv2d


class NaiveCache(NamedTuple):
    """The inputs of the forward."""

    inputs: tuple


def naive_conv2d_forward(x, W, b, stride=1, padding=0):
    """The same as conv2d_forward."""
    return conv2d(x, W, b, stride, padding), NaiveCache((x, W, stride, padding))


def naive_conv2d_backward(dout, cache):
    """The same as conv2d_backward."""
    ((x, W, stride, padding),) = cache
    (N, P, Q, F), (_, R, S, _), K = dout.shape, x.shape, W.shape[0]
    dx, dW, db = np.zeros_like(x), np.zeros_like(W), np.zeros(F, x.dtype)
    for n, p, q in np.ndindex(N, P, Q):
        db += dout[n, p, q]
        for i, j in np.ndindex(K, K):
            r, s = p * stride + i - padding, q * stride + j - padding
            if 0 <= r < R and 0 <= s < S:
                dW[i, j] += x[n, r, s][:, None] * dout[n, p, q]
                dx[n, r, s] += W[i, j] @ dout[n, p, q]
    return dx, dW, db


def naive_embedding_forward(ids, E):
    """The same as embedding_forward."""
    return E[ids], NaiveCache((ids, E.shape))


def naive_embedding_backward(dout, cache):
    """The same as embedding_backward."""
    ((ids, shape),) = cache
    dE = np.zeros(shape, dout.dtype)
    for word, d in zip(ids, dout, strict=True):
        dE[word] += d
    return dE


def naive_scores_forward(annotations, h, W_a, W_s, b, v):
    """The same as all_scores_forward."""
    (T, N, _), L = h.shape, annotations.shape[1]
    scores = np.zeros((T, N, L), h.dtype)
    for t, n, i in np.ndindex(T, N, L):
        scores[t, n, i] = v @ np.tanh(annotations[n, i] @ W_a + h[t, n] @ W_s + b)
    return scores, NaiveCache((annotations, h, W_a, W_s, b, v))


def naive_scores_backward(dscores, cache):
    """The same as all_scores_backward."""
    ((annotations, h, W_a, W_s, b, v),) = cache
    grads = da, dh, dW_a, dW_s, db, dv = tuple(np.zeros_like(x) for x in cache.inputs)
    for t, n, i in np.ndindex(dscores.shape):
        tanh = np.tanh(annotations[n, i] @ W_a + h[t, n] @ W_s + b)
        dv += dscores[t, n, i] * tanh
        dpre = dscores[t, n, i] * v * (1 - tanh * tanh)
        da[n, i] += W_a @ dpre
        dh[t, n] += W_s @ dpre
        dW_a += annotations[n, i][:, None] * dpre
        dW_s += h[t, n][:, None] * dpre
        db += dpre
    return grads
