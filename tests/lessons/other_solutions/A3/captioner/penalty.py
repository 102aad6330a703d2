"""Another right A3: caption by caption."""

import numpy as np


def doubly_stochastic_forward(alphas, mask):
    left = 1 - np.einsum("tn,tnl->nl", mask, alphas)
    return np.mean((left * left).sum(1)), (left, mask)


def doubly_stochastic_backward(dpenalty, cache):
    left, mask = cache
    return np.einsum("tn,nl->tnl", mask, -2 * left * dpenalty / len(left))
