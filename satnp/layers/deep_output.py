"""The deep output layer up to its tanh. The affine layer to the vocabulary follows it."""

from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.arrays.elementwise import elementwise
from satnp.layers.activations import tanh_gradient


class DeepOutputCache(NamedTuple):
    h: object
    z: object
    L_h: object
    L_z: object
    out: object


def deep_output_forward(words, h, z, L_h, L_z, b):
    """out = tanh(E[y_{t-1}] + h_t L_h + z_t L_z + b)

    words (N, M), h (N, H), z (N, D), L_h (H, M), L_z (D, M), b (M,) -> out (N, M)

    Source: Xu et al. 2015, eq. 7; the tanh is missing in the printed equation, which the authors call a typo.
    """
    out = tanh_of_sum(words, h @ L_h, z @ L_z, b)
    return out, DeepOutputCache(h, z, L_h, L_z, out)


@elementwise
def tanh_of_sum(words, h, z, b):
    return xp_of(b).tanh(words + h + z + b)


def deep_output_backward(dout, cache):
    """dout (N, M) -> dwords (N, M), dh (N, H), dz (N, D), dL_h (H, M), dL_z (D, M), db (M,)"""
    h, z, L_h, L_z, out = cache
    dpre = tanh_gradient(dout, out)
    dz = dpre @ L_z.T
    dL_z = z.T @ dpre
    dh = dpre @ L_h.T
    dL_h = h.T @ dpre
    return dpre, dh, dz, dL_h, dL_z, dpre.sum(axis=0)
