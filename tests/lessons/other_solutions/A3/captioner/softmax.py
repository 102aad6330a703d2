"""Another right A3: the whole Jacobian."""

import numpy as np


def softmax_forward(scores):
    e = np.exp(scores - scores.max(1)[:, None])
    alpha = e / e.sum(1)[:, None]
    return alpha, alpha


def softmax_backward(dalpha, cache):
    jacobian = np.eye(cache.shape[1], dtype=cache.dtype) * cache[:, None] - cache[:, :, None] * cache[:, None, :]
    return np.einsum("nij,nj->ni", jacobian, dalpha)
