"""The definitions of convolution and depthwise convolution, plain sums. satnp/layers computes them faster."""

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


def depthwise(x, W, b, stride=1):
    """out[n, p, q, c] = sum_ij x[n, p*stride + i - top, q*stride + j - left, c] W[i, j, c] + b[c]

    x (N, R, S, C), W (K, K, C), b (C,) -> out (N, P, Q, C); P = ceil(R / stride), Q = ceil(S / stride). Cells outside x are
    0; of the cells that the windows need there, half, rounded down, are above and to the left.
    """
    (N, R, S, C), K = x.shape, len(W)
    P, Q = -(-R // stride), -(-S // stride)
    top, left = (max(0, (count - 1) * stride + K - size) // 2 for count, size in ((P, R), (Q, S)))
    out = xp_of(x).zeros((N, P, Q, C), dtype=x.dtype)
    for n, p, q in np.ndindex(N, P, Q):
        out[n, p, q] = b
        for i, j in np.ndindex(K, K):
            r, s = p * stride + i - top, q * stride + j - left
            if 0 <= r < R and 0 <= s < S:
                out[n, p, q] += x[n, r, s] * W[i, j]
    return out
