"""Cutting maps (N, R, S, C) into pieces that fit the cache and occupy all cores."""

import math
import threading
from itertools import pairwise

import numpy as np

from satnp.arrays import threads
from satnp.arrays.backend import xp_of

_here = threading.local()


def blocks(N, rows, most):
    """[(photos, rows)] as slices that cover N maps of `rows` rows, `most` rows at a time: of whole maps, or parts of one.

    They are of about one size, an even number of them where that can be, and the same whatever the cores: another cut
    would round differently.
    """
    if rows <= most:
        return [(photos, slice(0, rows)) for photos in _cut(N, most // rows)]
    return [(slice(n, n + 1), part) for n in range(N) for part in _cut(rows, max(1, most))]


def parallel_blocks(work, pieces):
    """[work(pieces of one core), ...], all cores at once."""
    return threads.parallel(work, [pieces[part] for part in threads.shares(len(pieces))])


def region(x, photos, top, left, out):
    """`out` (n, r, s, C) = x[photos, top : top + r, left : left + s], and 0 where that lies outside x."""
    _, R, S, _ = x.shape
    rows, columns = range(top, top + out.shape[1]), range(left, left + out.shape[2])
    r, s = (slice(max(seen.start, 0), min(seen.stop, size)) for seen, size in ((rows, R), (columns, S)))
    if len(rows) > r.stop - r.start or len(columns) > s.stop - s.start:
        out.fill(0)
    out[:, r.start - top : r.stop - top, s.start - left : s.stop - left] = x[photos, r, s]
    return out


def finishing(b, S, relu):
    """finish(y, out): out = y + b, or max(y + b, 0), the last touch of a convolution, while y is in the cache

    b (F,); y (..., S, F), of S columns -> out (..., S, F)
    """
    xp, zero = xp_of(b), 0
    if xp is np:
        zero = np.zeros((S, len(b)), b.dtype)  # NumPy has no fast loop for the maximum with a scalar
        b = b + zero  # for a whole row of cells: each run of F numbers would cost as much as 500

    def finish(y, out):
        xp.add(y, b, out=out)
        if relu:
            xp.maximum(out, zero, out=out)

    return finish


def scratch(name, shape, dtype):
    """This thread's array of that name, kept from call to call (a fresh one costs more than what is computed in it)."""
    kept = _here.__dict__.setdefault(name, np.empty(0, np.uint8))
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if kept.size < size:
        kept = _here.__dict__[name] = np.empty(size, np.uint8)
    return kept[:size].view(dtype).reshape(shape)


def _cut(size, most):
    count = max(1, min(size, 2 * -(-size // (2 * most))))
    return [slice(a, b) for a, b in pairwise(size * k // count for k in range(count + 1))]
