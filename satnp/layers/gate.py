"""The gate beta: how much of the picture this word needs."""

from typing import NamedTuple

from satnp.elementwise import elementwise
from satnp.kernels import vector_products
from satnp.layers.activations import sigmoid, sigmoid_gradient


class GateCache(NamedTuple):
    h: object
    context: object
    W: object
    beta: object


def gate_forward(h, context, W, b):
    """z = beta * context,  beta = sigmoid(h W + b)

    h (N, H), context (N, D), W (H, G), b (G,) -> z (N, D)

    G = 1 is the paper's scalar (Xu et al. 2015, section 4.2.1); G = D gates every feature by itself, as popular ports do.
    """
    z, beta = _gated(h @ W, b, context)
    return z, GateCache(h, context, W, beta[:, : W.shape[1]])


@elementwise
def _gated(x, b, context):
    beta = sigmoid(x + b)
    return beta * context, beta


def gate_backward(dz, cache):
    """dz (N, D) -> dh (N, H), dcontext (N, D), dW (H, G), db (G,)"""
    h, context, W, beta = cache
    dcontext = dz * beta
    dpre = gate_backward_preactivation(dz, cache)
    dh = dpre @ W.T
    return dh, dcontext, h.T @ dpre, dpre.sum(axis=0)


def gate_backward_preactivation(dz, cache):
    """dz (N, D) -> gradient at h W + b (N, G)"""
    dbeta = vector_products(dz, cache.context[:, None]) if cache.beta.shape[1] == 1 else dz * cache.context
    return sigmoid_gradient(dbeta, cache.beta)
