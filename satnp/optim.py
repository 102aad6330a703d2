"""Optimisers over one flat buffer: each reads `grads`, writes `params`, and keeps what it remembers in `state`.

The rate `lr` is a number, or (P,), one for each parameter. `factor`, from clip_factor, is what gradients are multiplied by.

On the host a step goes chunk by chunk, so that a chunk of all the buffers stays in the cache, on all cores.
"""

import numpy as np

from satnp.backend import xp_of
from satnp.threads import parallel, shares

CHUNK = 1 << 17


def clip_factor(grads, limit):
    """Norm of `grads` (P,), and the factor that makes it at most `limit`; 0-d arrays.

    Source: Pascanu et al. 2013. No `if`: nothing waits for a device.
    """
    xp = xp_of(grads)
    norm = xp.sqrt((grads * grads).sum()) if xp is not np else np.sqrt(np.dot(grads, grads))
    return norm, xp.minimum(limit / (norm + 1e-12), xp.ones_like(norm))


def sgd(params, grads, state, lr, factor=1, momentum=0.9):
    """velocity = momentum * velocity - lr * g;  params += velocity. All (P,)."""

    def update(x, g, v, rate):
        v *= momentum
        v -= rate * factor * g
        x += v

    _in_chunks(update, params, grads, state["velocity"], lr)


def rmsprop(params, grads, state, lr, factor=1, decay=0.95, eps=1e-6):
    """square = decay * square + (1 - decay) g^2;  params -= lr * g / sqrt(square + eps). All (P,).

    Source: Tieleman & Hinton 2012; the paper's choice for Flickr8k.
    """
    xp = xp_of(params)

    def update(x, g, s, rate):
        g = factor * g
        s *= decay
        s += (1 - decay) * g * g
        x -= rate * g / xp.sqrt(s + eps)

    _in_chunks(update, params, grads, state["square"], lr)


def adam(params, grads, state, lr, factor=1, beta1=0.9, beta2=0.999, eps=1e-8):
    """mean, square: moving averages of g and g^2, each divided by 1 - beta^step; params -= lr * mean / (sqrt(square) + eps).

    Source: Kingma & Ba 2015. All (P,).
    """
    xp = xp_of(params)
    step = state["step"] = state["step"] + 1
    root, rest = float(np.sqrt(1 - beta2**step)), 1 - beta1**step

    def update(x, g, m, s, rate):
        g = factor * g
        m *= beta1
        m += (1 - beta1) * g
        s *= beta2
        s += (1 - beta2) * g * g
        x -= rate * root / rest * m / (xp.sqrt(s) + eps * root)

    _in_chunks(update, params, grads, state["mean"], state["square"], lr)


def average(mean, params, keep):
    """mean = keep * mean + (1 - keep) * params, in place. Both (P,).

    Source: Polyak & Juditsky 1992, as an exponential moving average.
    """

    def update(m, x):
        m += (1 - keep) * (x - m)

    _in_chunks(update, mean, params)


OPTIMISERS = {"sgd": (sgd, ("velocity",)), "rmsprop": (rmsprop, ("square",)), "adam": (adam, ("mean", "square"))}


def new_state(name, params):
    """Zeroed memory of optimiser `name` for the flat `params` (P,)."""
    return {"step": 0} | {buffer: xp_of(params).zeros_like(params) for buffer in OPTIMISERS[name][1]}


def _in_chunks(update, *buffers):
    """update(the same stretch of each buffer), stretch by stretch; a number is in each of them."""
    if xp_of(buffers[0]) is not np:
        update(*buffers)
        return

    def share(part):
        for start in range(part.start, part.stop, CHUNK):
            stretch = slice(start, min(start + CHUNK, part.stop))
            update(*(x if np.ndim(x) == 0 else x[stretch] for x in buffers))

    parallel(share, shares(len(buffers[0]), 4 * CHUNK))
