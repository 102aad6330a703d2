"""Optimisers over one flat buffer: each reads `grads`, writes `params`, and keeps what it remembers in `state`.

The rate `lr` is a number, or (P,), one for each parameter.

On the host a step goes chunk by chunk, so that a chunk of all the buffers stays in the cache.
"""

import numpy as np

from satnp.backend import xp_of

CHUNK = 1 << 15


def clip_by_global_norm(grads, limit):
    """Scale `grads` (P,) in place so that its norm is at most `limit` -> the norm before, a 0-d array.

    Source: Pascanu et al. 2013. No `if`: nothing waits for a device.
    """
    xp = xp_of(grads)
    norm = xp.sqrt((grads * grads).sum()) if xp is not np else np.sqrt(np.dot(grads, grads))
    grads *= xp.minimum(limit / (norm + 1e-12), xp.ones_like(norm))
    return norm


def sgd(params, grads, state, lr, momentum=0.9):
    """velocity = momentum * velocity - lr * g;  params += velocity. All (P,)."""
    for x, g, v, rate in _chunks(params, grads, state["velocity"], lr):
        v *= momentum
        v -= rate * g
        x += v


def rmsprop(params, grads, state, lr, decay=0.95, eps=1e-6):
    """square = decay * square + (1 - decay) g^2;  params -= lr * g / sqrt(square + eps). All (P,).

    Source: Tieleman & Hinton 2012; the paper's choice for Flickr8k.
    """
    xp = xp_of(params)
    for x, g, s, rate in _chunks(params, grads, state["square"], lr):
        s *= decay
        s += (1 - decay) * g * g
        x -= rate * g / xp.sqrt(s + eps)


def adam(params, grads, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    """mean, square: moving averages of g and g^2, each divided by 1 - beta^step; params -= lr * mean / (sqrt(square) + eps).

    Source: Kingma & Ba 2015. All (P,).
    """
    xp = xp_of(params)
    step = state["step"] = state["step"] + 1
    root, rest = float(np.sqrt(1 - beta2**step)), 1 - beta1**step
    for x, g, m, s, rate in _chunks(params, grads, state["mean"], state["square"], lr):
        m *= beta1
        m += (1 - beta1) * g
        s *= beta2
        s += (1 - beta2) * g * g
        x -= rate * root / rest * m / (xp.sqrt(s) + eps * root)


def average(mean, params, keep):
    """mean = keep * mean + (1 - keep) * params, in place. Both (P,).

    Source: Polyak & Juditsky 1992, as an exponential moving average.
    """
    for m, x in _chunks(mean, params):
        m += (1 - keep) * (x - m)


OPTIMISERS = {"sgd": (sgd, ("velocity",)), "rmsprop": (rmsprop, ("square",)), "adam": (adam, ("mean", "square"))}


def new_state(name, params):
    """Zeroed memory of optimiser `name` for the flat `params` (P,)."""
    return {"step": 0} | {buffer: xp_of(params).zeros_like(params) for buffer in OPTIMISERS[name][1]}


def _chunks(*buffers):
    """Tuples of the same stretch of each buffer; a number is in each of them."""
    if xp_of(buffers[0]) is not np:
        return [buffers]
    size = buffers[0].size
    return (tuple(x if np.ndim(x) == 0 else x[i : i + CHUNK] for x in buffers) for i in range(0, size, CHUNK))
