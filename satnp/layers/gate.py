"""The gate beta, which says how much of the context each word uses."""

from typing import NamedTuple

from satnp.arrays.elementwise import elementwise
from satnp.arrays.kernels import gate_gradient
from satnp.layers.activations import sigmoid, sigmoid_gradient


class GateCache(NamedTuple):
    h: object
    context: object
    W: object
    beta: object  # (N, G); on a device (N, D), with a scalar gate repeated


def gate_forward(h, context, W, b, out=None):
    """z = beta * context,  beta = sigmoid(h W + b)

    h (N, H), context (N, D), W (H, G), b (G,) -> z (N, D), written to `out` if given

    G = 1 is the paper's scalar gate (Xu et al. 2015, section 4.2.1); G = D is one gate per feature, as in
    github.com/sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning.
    """
    z, beta = _gated(h @ W, b, context, out=(out, None))
    return z, GateCache(h, context, W, beta)


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


def gate_backward_preactivation(dz, cache, out=None):
    """dz (N, D) -> gradient with respect to h W + b (N, G), written to `out` if given"""
    if cache.W.shape[1] == 1:
        return gate_gradient(dz, cache.context, cache.beta, out=(out,))
    return sigmoid_gradient(dz * cache.context, cache.beta, out=(out,))
