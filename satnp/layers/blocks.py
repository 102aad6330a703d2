"""Cut maps (N, R, S, C) into pieces that fit in the cache and keep all cores busy."""

import math
import threading
from itertools import pairwise

import numpy as np

from satnp.arrays import threads
from satnp.arrays.backend import xp_of

RELU, RELU6 = (0, None), (0, 6)
_here = threading.local()


def blocks(N, rows, most):
    """Return slices [(photos, rows)] that cover N maps of `rows` rows: whole maps or part of one, `most` rows or fewer each.

    The pieces have nearly equal sizes, and their number is even if possible. They do not depend on the number of cores,
    because sums over other pieces round differently.
    """
    if rows <= most:
        return [(photos, slice(0, rows)) for photos in _cut(N, most // rows)]
    return [(slice(n, n + 1), part) for n in range(N) for part in _cut(rows, max(1, most))]


def parallel_blocks(work, pieces):
    """Call work(share of pieces) on each core, in parallel, and return the list of results."""
    return threads.parallel(work, [pieces[part] for part in threads.shares(len(pieces))])


def region(x, photos, top, left, out):
    """`out` (n, r, s, C) = x[photos, top : top + r, left : left + s], and 0 outside x."""
    _, R, S, _ = x.shape
    rows, columns = range(top, top + out.shape[1]), range(left, left + out.shape[2])
    r, s = (slice(max(seen.start, 0), min(seen.stop, size)) for seen, size in ((rows, R), (columns, S)))
    if len(rows) > r.stop - r.start or len(columns) > s.stop - s.start:
        out.fill(0)
    out[:, r.start - top : r.stop - top, s.start - left : s.stop - left] = x[photos, r, s]
    return out


def finishing(b, S, bounds=None):
    """Return finish(y, out), the last step of a convolution, run while y is in the cache: out = y + b, clipped to `bounds`

    b (F,); y (..., S, F), with S columns -> out (..., S, F)

    bounds: None, RELU or RELU6, as (least, most); most may be None.
    """
    xp, (least, most) = xp_of(b), bounds or (None, None)
    if xp is np:
        row = np.zeros((S, len(b)), b.dtype)
        b = b + row  # a whole row of cells: a NumPy loop over only F numbers would cost as much as one over 500
        # NumPy's maximum of an array and a scalar is slow
        least, most = (None if bound is None else row + b.dtype.type(bound) for bound in (least, most))

    def finish(y, out):
        xp.add(y, b, out=out)
        if least is not None:
            xp.maximum(out, least, out=out)
        if most is not None:
            xp.minimum(out, most, out=out)

    return finish


def scratch(name, shape, dtype):
    """Return this thread's buffer `name`. Calls reuse its memory, because allocating it costs more than the computation."""
    kept = _here.__dict__.setdefault(name, np.empty(0, np.uint8))
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if kept.size < size:
        kept = _here.__dict__[name] = np.empty(size, np.uint8)
    return kept[:size].view(dtype).reshape(shape)


def _cut(size, most):
    count = max(1, min(size, 2 * -(-size // (2 * most))))
    return [slice(a, b) for a, b in pairwise(size * k // count for k in range(count + 1))]
