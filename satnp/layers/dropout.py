"""Dropout. The caller draws the mask, so that a run can be repeated and a pass can be checked."""

from typing import NamedTuple

import numpy as np


class DropoutCache(NamedTuple):
    mask: object


def dropout_mask(rng, shape, rate, dtype=np.float32):
    """Return a random host array of `shape`: 0 with probability `rate`, else 1 / (1 - rate), so that its mean is 1."""
    return (rng.random(shape, dtype=np.float32) >= rate).astype(dtype) / dtype(1 - rate)


def dropout_forward(x, mask):
    """out = x * mask; out = x if mask is None.

    x (N, H), mask (N, H) -> out (N, H)

    Source: Srivastava et al. 2014; inverted, so that captioning needs no rescaling.
    """
    return (x if mask is None else x * mask), DropoutCache(mask)


def dropout_backward(dout, cache):
    """dout (N, H) -> dx (N, H)"""
    (mask,) = cache
    return dout if mask is None else dout * mask
