"""Weights as 8-bit integers, each column or each row with a factor of its own: a quarter of the bytes of float32."""

import numpy as np

from satnp.errors import InputError

LEVELS = 127  # the integers are -127 to 127
LARGEST = 1e38  # q s might overflow near the largest number of float32, 3.4e38


def quantise(W):
    """q = round(W / s), s = max |W| / 127 over each column, or over each row if that loses less of W

    W (C, ..., F) float -> q (C, ..., F) int8, s (1, ..., F) or (C, ..., 1) float32

    Of an element w, |w - q s| <= s / 2: at most 0.4 % of the largest in its column or row, and about 0.8 % of the norm of a
    trained matrix. A zero stays zero.
    Raises: InputError for a value that is not finite, or beyond LARGEST.
    """
    if not np.abs(W).max(initial=0.0) <= LARGEST:
        raise InputError(f"weights with a number that is not finite, or beyond {LARGEST}, cannot be quantised; train again")
    found = [_along(W, axis) for axis in (-1, 0)]
    return min(found, key=lambda x: np.linalg.norm((W - dequantise(*x)).ravel()))


def _along(W, axis):
    others = tuple(k for k in range(W.ndim) if k != axis % W.ndim)
    s = (np.abs(W).max(axis=others, keepdims=True, initial=0.0) / LEVELS).astype(np.float32)
    q = np.rint(np.divide(W, s, out=np.zeros_like(W), where=s > 0))
    return q.clip(-LEVELS, LEVELS).astype(np.int8), s  # clip: s of very small numbers is rounded, or 0


def dequantise(q, s):
    """W = q s

    q (C, ..., F) int8, s (1, ..., F) or (C, ..., 1) float32 -> W (C, ..., F) float32
    Raises: ValueError when they do not belong together. A damaged s may give W values that are not finite.
    """
    if q.dtype != np.int8 or s.dtype != np.float32 or s.ndim != q.ndim or np.broadcast_shapes(q.shape, s.shape) != q.shape:
        raise ValueError(f"integers {q.shape} of {q.dtype} do not fit factors {s.shape} of {s.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        return q * s
