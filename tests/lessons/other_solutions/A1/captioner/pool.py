"""Another right A1: window by window, the place of the maximum kept by the forward."""

import numpy as np
from captioner.conv import shape


def max_pool_forward(x, K, stride, ceil=False):
    N, R, S, C = x.shape
    P, Q = shape(R, K, stride, ceil=ceil), shape(S, K, stride, ceil=ceil)
    out, where = np.empty((N, P, Q, C), x.dtype), {}
    for n, p, q, c in np.ndindex(N, P, Q, C):
        seen = x[n, p * stride : min(p * stride + K, R), q * stride : min(q * stride + K, S), c]
        i, j = np.unravel_index(np.argmax(seen), seen.shape)
        where[n, p, q, c] = n, p * stride + i, q * stride + j, c
        out[n, p, q, c] = seen[i, j]
    return out, (x.shape, where)


def max_pool_backward(dout, cache):
    dx = np.zeros(cache[0], dout.dtype)
    for index, place in cache[1].items():
        dx[place] += dout[index]
    return dx


def average_pool_forward(x, K, stride):
    P, Q = (shape(n, K, stride) for n in x.shape[1:3])
    rows, columns = ([slice(k * stride, k * stride + K) for k in range(count)] for count in (P, Q))
    means = [[x[:, p, q].mean(axis=(1, 2)) for q in columns] for p in rows]
    return np.array(means).transpose(2, 0, 1, 3), (x, K, stride)


def average_pool_backward(dout, cache):
    x, K, stride = cache
    dx = np.zeros(x.shape, dout.dtype)
    for p, q in np.ndindex(dout.shape[1:3]):
        dx[:, p * stride : p * stride + K, q * stride : q * stride + K] += dout[:, p : p + 1, q : q + 1] / K**2
    return dx
