"""Optimisers over flat buffers: each reads `grads`, updates `params` in place, and keeps its moving averages in `state`.

The learning rate `lr` is a number, or (P,), one per parameter. The gradients are multiplied by `factor` (see clip_factor).
"""

import numpy as np

from satnp.arrays.backend import xp_of
from satnp.arrays.elementwise import elementwise


def clip_factor(grads, limit):
    """Norm of `grads` (P,), and the factor that scales it to at most `limit`; both 0-d arrays.

    Source: Pascanu et al. 2013. There is no `if`, so the host does not wait for a device.
    """
    return _norm_and_factor(xp_of(grads).dot(grads, grads), limit)


@elementwise
def _norm_and_factor(square, limit):
    xp = xp_of(square)
    norm = xp.sqrt(square)
    return norm, xp.minimum(limit / (norm + 1e-12), 1.0)


def sgd(params, grads, state, lr, factor=1, momentum=0.9):
    """velocity = momentum * velocity - lr * g;  params += velocity. All (P,)."""
    velocity = state["velocity"]
    _sgd(params, grads, velocity, lr, factor, momentum, out=(params, velocity))


@elementwise
def _sgd(x, g, v, rate, factor, momentum):
    v = momentum * v - rate * factor * g
    return x + v, v


def rmsprop(params, grads, state, lr, factor=1, decay=0.95, eps=1e-6):
    """square = decay * square + (1 - decay) g^2;  params -= lr * g / sqrt(square + eps). All (P,).

    Source: Tieleman & Hinton 2012; the paper's choice for Flickr8k.
    """
    square = state["square"]
    _rmsprop(params, grads, square, lr, factor, decay, 1 - decay, eps, out=(params, square))


@elementwise
def _rmsprop(x, g, s, rate, factor, decay, new, eps):
    g = factor * g
    s = decay * s + new * g * g
    return x - rate * g / xp_of(x).sqrt(s + eps), s


def adam(params, grads, state, lr, factor=1, beta1=0.9, beta2=0.999, eps=1e-8):
    """mean, square: moving averages of g and g^2, each divided by 1 - beta^step; params -= lr * mean / (sqrt(square) + eps).

    Source: Kingma & Ba 2015. All (P,).
    """
    step, mean, square = state["step"] + 1, state["mean"], state["square"]
    state["step"], root, rest = step, float(np.sqrt(1 - beta2**step)), 1 - beta1**step
    betas = beta1, 1 - beta1, beta2, 1 - beta2  # float64 here; a kernel would compute 1 - beta in float32
    _adam(params, grads, mean, square, lr, factor, root / rest, *betas, eps * root, out=(params, mean, square))


@elementwise
def _adam(x, g, m, s, rate, factor, correction, beta1, new1, beta2, new2, eps):
    g = factor * g
    m = beta1 * m + new1 * g
    s = beta2 * s + new2 * g * g
    return x - rate * correction * m / (xp_of(x).sqrt(s) + eps), m, s


def average(mean, params, keep):
    """mean = keep * mean + (1 - keep) * params, in place. Both (P,).

    Source: Polyak & Juditsky 1992, as an exponential moving average.
    """
    _average(mean, params, 1 - keep, out=(mean,))


@elementwise
def _average(m, x, new):
    return m + new * (x - m)


OPTIMISERS = {"sgd": (sgd, ("velocity",)), "rmsprop": (rmsprop, ("square",)), "adam": (adam, ("mean", "square"))}


def new_state(name, params):
    """The initial state of optimiser `name` for the flat `params` (P,): all buffers are zero."""
    return {"step": 0} | {buffer: xp_of(params).zeros_like(params) for buffer in OPTIMISERS[name][1]}

