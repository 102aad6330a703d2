"""The definition of convolution, a plain sum. satnp/layers/conv.py computes it by matrix products."""

import numpy as np

from satnp.arrays.backend import xp_of


def conv2d(x, W, b, stride=1, padding=0):
    """out[n, p, q] = sum_ij x[n, p*stride + i - padding, q*stride + j - padding] W[i, j] + b

    x (N, R, S, C), W (K, K, C, F), b (F,) -> out (N, P, Q, F); cells outside x are 0.
    """
    N, R, S, _ = x.shape
    K, _, _, F = W.shape
    P, Q = ((size + 2 * padding - K) // stride + 1 for size in (R, S))
    out = xp_of(x).zeros((N, P, Q, F), dtype=x.dtype)
    for n, p, q in np.ndindex(N, P, Q):
        out[n, p, q] = b
        for i, j in np.ndindex(K, K):
            r, s = p * stride + i - padding, q * stride + j - padding
            if 0 <= r < R and 0 <= s < S:
                out[n, p, q] += x[n, r, s] @ W[i, j]
    return out
