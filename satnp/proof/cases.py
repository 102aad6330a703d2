"""Helpers to build the cases of gradient checks."""

import numpy as np

from satnp.arrays.backend import xp_of
from satnp.arrays.parameters import Parameters
from satnp.layers import log_softmax


def inputs(**entries):
    """The `make` of a Case. An entry is a shape, filled with normal numbers, or a function of rng that returns the array."""

    def make(rng):
        return {n: entry(rng) if callable(entry) else rng.standard_normal(entry) for n, entry in entries.items()}

    return make


def random_weights(shapes, rng):
    """{name: array}: He-normal weights, normal biases."""
    fan_in = {name: np.prod(shape[:-1]) if len(shape) > 1 else 4 for name, shape in shapes.items()}
    return {name: rng.standard_normal(shape) * np.sqrt(2 / fan_in[name]) for name, shape in shapes.items()}


def pack(shapes, arrays):
    """Parameters made of `arrays`, from any array library. If one array is complex, all become complex."""
    flat = xp_of(*arrays).concatenate([x.ravel() for x in arrays])
    return Parameters(shapes, flat=flat)


def unpack(params, scale=1):
    """The arrays of Parameters, in order, each multiplied by `scale`."""
    return tuple(x * scale for _, x in params.items())


def sampled_log_p(scores, sample):
    """log p of the sampled locations: scores (..., L), sample (..., L) one-hot -> (...,)

    The other locations contribute 0, even if their log p is -inf.
    """
    xp = xp_of(scores)
    return xp.where(sample > 0, log_softmax(scores), 0).sum(axis=-1)
