"""Helpers for the other files, in plain NumPy."""

from functools import wraps

import numpy as np


def xp_of(*arrays):
    """The array library of the arrays: here always NumPy."""
    return np


def takes_out(function):
    """`function` with one more argument, `out`: the arrays to write its results to, with None for a new array."""

    @wraps(function)
    def call(*args, out=None):
        found = function(*args)
        if out is None:
            return found
        kept = []
        for place, x in zip(out, found if isinstance(found, tuple) else (found,), strict=True):
            if place is not None:
                place[...] = x
            kept.append(x if place is None else place)
        return tuple(kept) if isinstance(found, tuple) else kept[0]

    return call


def elementwise(formula):
    """Decorator of a formula that is applied to each element."""
    return takes_out(formula)


def parallel(work, parts):
    """[work(part) for part in parts]"""
    return [work(part) for part in parts]


def shares(size, least=1):
    """All of range(size), as one slice."""
    return [slice(0, size)]


def on_one_core():
    """True: everything runs on one core."""
    return True


def tall_product(x, W, out=None):
    """x W, written to `out` if given"""
    return np.matmul(x, W, out=out)


wide_product = tall_product


def summed_product(x, y):
    """x^T y, and the sum over the matrices of stacks x (..., M, K), y (..., M, N)"""
    x, y = (z.reshape(-1, z.shape[-1]) for z in (x, y))
    return x.T @ y
