"""The loss of a box regression."""

from typing import NamedTuple

from satnp.arrays.backend import xp_of


class SmoothL1Cache(NamedTuple):
    d: object       # (N, K), x - y
    small: object   # (N, K) bool, |d| < 1
    weights: object


def smooth_l1_forward(x, y, weights):
    """loss = sum_n weights_n sum_k s(x_nk - y_nk),    s(d) = d^2 / 2 if |d| < 1, else |d| - 1/2

    x (N, K), y (N, K), weights (N,) -> loss ()

    Its slope is at most 1, so a number that is far off does not outweigh all others. Source: Girshick 2015, eq. 3.
    """
    xp, d = xp_of(x), x - y
    small = (d.real < 1) & (d.real > -1)
    s = xp.where(small, d * d / 2, xp.sign(d.real) * d - 0.5)
    return (weights[:, None] * s).sum(), SmoothL1Cache(d, small, weights)


def smooth_l1_backward(dloss, cache):
    """dloss () -> dx (N, K)"""
    d, small, weights = cache
    xp = xp_of(d)
    return dloss * weights[:, None] * xp.where(small, d, xp.sign(d.real))
