"""What the tables of all rooms build their cases with."""

import numpy as np

from satnp.arrays.backend import xp_of
from satnp.arrays.parameters import Parameters
from satnp.layers import log_softmax


def inputs(**entries):
    """make(rng) of a Case: a shape stands for normal numbers, a function of rng for what it returns."""

    def make(rng):
        return {n: entry(rng) if callable(entry) else rng.standard_normal(entry) for n, entry in entries.items()}

    return make


def random_weights(shapes, rng):
    """{name: array}: He-normal weights, normal biases."""
    fan_in = {name: np.prod(shape[:-1]) if len(shape) > 1 else 4 for name, shape in shapes.items()}
    return {name: rng.standard_normal(shape) * np.sqrt(2 / fan_in[name]) for name, shape in shapes.items()}


def pack(shapes, arrays):
    """Parameters with the given arrays, of any array module; one complex array makes all of them complex."""
    flat = xp_of(*arrays).concatenate([x.ravel() for x in arrays])
    return Parameters(shapes, flat=flat)


def unpack(params, scale=1):
    """The arrays of Parameters in their order, each times `scale`."""
    return tuple(x * scale for _, x in params.items())


def sampled_log_p(scores, sample):
    """log p of the one-hot rows `sample`, (...,); the other places contribute 0, however small their probability."""
    xp = xp_of(scores)
    return xp.where(sample > 0, log_softmax(scores), 0).sum(axis=-1)
