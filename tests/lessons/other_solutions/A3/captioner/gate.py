"""Another right A3: the gate, one or one a feature."""

import numpy as np


def gate_forward(h, context, W, b):
    beta = 1 / (1 + np.exp(-(h @ W + b)))
    return beta * context, (h, context, W, beta)


def gate_backward(dz, cache):
    h, context, W, beta = cache
    d = dz * context
    if W.shape[1] == 1:
        d = d.sum(1, keepdims=True)
    d = d * beta * (1 - beta)
    return d @ W.T, dz * beta, np.einsum("nh,ng->hg", h, d), d.sum(0)
