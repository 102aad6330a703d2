"""The initial state of the decoder, computed from the mean annotation."""

from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.arrays.elementwise import elementwise
from satnp.layers.activations import tanh_gradient
from satnp.layers.affine import AffineCache, affine_backward


class InitialStateCache(NamedTuple):
    L: int
    affine_h: object
    h: object
    affine_c: object
    c: object


def initial_state_forward(annotations, W_h, b_h, W_c, b_c):
    """h_0 = tanh(mean_i a_i W_h + b_h),  c_0 = tanh(mean_i a_i W_c + b_c)

    annotations (N, L, D), W_h (D, H), b_h (H,), W_c (D, H), b_c (H,) -> h (N, H), c (N, H)

    Source: Xu et al. 2015, section 3.1.2: two separate networks.
    """
    mean = annotations.mean(axis=1)
    h, c = _first_state(mean @ W_h, b_h), _first_state(mean @ W_c, b_c)
    return (h, c), InitialStateCache(annotations.shape[1], AffineCache(mean, W_h), h, AffineCache(mean, W_c), c)


@elementwise
def _first_state(x, b):
    return xp_of(x).tanh(x + b)


def initial_state_backward(dout, cache):
    """dh (N, H), dc (N, H) -> dannotations (N, L, D), dW_h (D, H), db_h (H,), dW_c (D, H), db_c (H,)"""
    dh, dc = dout
    dpre_c = tanh_gradient(dc, cache.c)
    dmean_c, dW_c, db_c = affine_backward(dpre_c, cache.affine_c)
    dpre_h = tanh_gradient(dh, cache.h)
    dmean_h, dW_h, db_h = affine_backward(dpre_h, cache.affine_h)
    dmean = _of_each_location(dmean_h, dmean_c, cache.L)
    (N, D), L = dmean.shape, cache.L
    dannotations = xp_of(dmean).broadcast_to(dmean[:, None, :], (N, L, D))
    return dannotations, dW_h, db_h, dW_c, db_c


@elementwise
def _of_each_location(dmean_h, dmean_c, L):
    return (dmean_h + dmean_c) / L
