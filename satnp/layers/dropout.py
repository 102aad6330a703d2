"""Dropout with the mask drawn by the caller, so that every run can be repeated and every pass checked."""

from typing import NamedTuple

import numpy as np


class DropoutCache(NamedTuple):
    mask: object


def dropout_mask(rng, shape, rate, dtype=np.float32):
    """0 with probability `rate`, else 1 / (1 - rate), so that its mean is 1; a host array of `shape`."""
    return (rng.random(shape, dtype=np.float32) >= rate).astype(dtype) / dtype(1 - rate)


def dropout_forward(x, mask):
    """out = x * mask; mask None keeps everything.

    x (N, H), mask (N, H) -> out (N, H)

    Source: Srivastava et al. 2014, in the inverted form (nothing to rescale when captioning).
    """
    return (x if mask is None else x * mask), DropoutCache(mask)


def dropout_backward(dout, cache):
    """dout (N, H) -> dx (N, H)"""
    (mask,) = cache
    return dout if mask is None else dout * mask
