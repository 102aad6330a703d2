"""Another right A3: einsum for every sum."""

import numpy as np


def additive_scores_forward(keys, query, v, c, F=None):
    t = np.tanh(keys + query[:, None])
    return np.einsum("nla,a->nl", t, v) + c, (t, v)


def additive_scores_backward(dscores, cache):
    t, v = cache
    dsum = np.einsum("nl,a->nla", dscores, v) * (1 - t**2)
    return dsum, dsum.sum(1), np.einsum("nl,nla->a", dscores, t), np.array([dscores.sum()])


def context_forward(alpha, annotations):
    return np.einsum("nl,nld->nd", alpha, annotations), [alpha, annotations]


def context_backward(dcontext, cache):
    alpha, annotations = cache
    return np.einsum("nd,nld->nl", dcontext, annotations), np.einsum("nl,nd->nld", alpha, dcontext)
