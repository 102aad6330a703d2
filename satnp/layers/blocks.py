"""Cut maps (N, R, S, C) into pieces that fit in the cache and keep all cores busy."""

import math
import threading
from itertools import pairwise

import numpy as np

from satnp.arrays import threads
from satnp.arrays.backend import xp_of

RELU, RELU6 = (0, None), (0, 6)
_here = threading.local()


def on_host(*arrays):
    """Return whether all arrays are real NumPy arrays of one dtype. Other arrays use the plain algorithm."""
    return xp_of(*arrays) is np and arrays[0].dtype.kind == "f" and len({x.dtype for x in arrays}) == 1


def blocks(N, rows, most):
    """Return slices [(photos, rows)] that cover N maps of `rows` rows: whole maps or part of one, `most` rows or fewer each.

    The pieces have nearly equal sizes. Outside of a share of `threads.parallel` their number is even if possible, for two
    cores. They do not depend on the number of cores beyond that, because sums over other pieces round differently.
    """
    if rows <= most:
        return [(photos, slice(0, rows)) for photos in _cut(N, most // rows)]
    return [(slice(n, n + 1), part) for n in range(N) for part in _cut(rows, max(1, most))]


def parallel_blocks(work, pieces):
    """Call work(share of pieces) on each core, in parallel, and return the list of results."""
    return threads.parallel(work, [pieces[part] for part in threads.shares(len(pieces))])


def region(x, photos, top, left, out, step=1):
    """`out` (n, r, s, C) = x[photos, top : top + r, left : left + step * s : step], and 0 outside x."""
    cells, read = inside(x, top, left, out, step)
    out[cells] = x[photos, *read]
    return out


def inside(x, top, left, out, step=1):
    """Which cells of a `region` are inside x -> their index in `out`, and their rows and columns in x. Clears the others."""
    (_, R, S, _), (_, r, s, _) = x.shape, out.shape
    above, before = max(-top, 0), max(-(left // step), 0)
    below, behind = min(r, R - top), min(s, -((left - S) // step))
    rows, columns = slice(above, below), slice(before, behind)
    for border in (out[:, :above], out[:, below:], out[:, rows, :before], out[:, rows, behind:]):
        if border.size:
            border[...] = 0
    read = slice(top + above, top + below), slice(left + step * before, left + step * behind, step)
    return (slice(None), rows, columns), read


def finishing(b, S, bounds=None):
    """Return finish(y, out), the last step of a convolution, run while y is in the cache: out = y + b, clipped to `bounds`

    b (F,); y (..., S, F), with S columns -> out (..., S, F)

    bounds: None, RELU or RELU6, as (least, most); most may be None.
    """
    xp, (least, most) = xp_of(b), bounds or (None, None)
    if xp is np:
        row = np.zeros((S, len(b)), b.dtype)
        b = b + row  # a whole row of cells: a NumPy loop over only F numbers would cost as much as one over 500
        if most is None and least is not None:
            least = row + b.dtype.type(least)  # NumPy's maximum of an array and a scalar is slow, its clip is not

    def finish(y, out):
        xp.add(y, b, out=out)
        if most is not None:
            xp.clip(out, least, most, out=out)
        elif least is not None:
            xp.maximum(out, least, out=out)

    return finish


def scratch(name, shape, dtype):
    """Return this thread's buffer `name`. Calls reuse its memory, because allocating it costs more than the computation."""
    kept = _here.__dict__.setdefault(name, np.empty(0, np.uint8))
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if kept.size < size:
        kept = _here.__dict__[name] = np.empty(size, np.uint8)
    return kept[:size].view(dtype).reshape(shape)


def _cut(size, most):
    unit = 1 if threads.on_one_core() else 2
    count = max(1, min(size, unit * -(-size // (unit * most))))
    return [slice(a, b) for a, b in pairwise(size * k // count for k in range(count + 1))]
