"""Cutting maps (N, R, S, C) into pieces that fit the cache and occupy all cores."""

from itertools import pairwise

from satnp import threads


def blocks(N, rows, most):
    """[(photos, rows)] as slices that cover N maps of `rows` rows, `most` rows at a time: of whole maps, or parts of one.

    Neighbours are of one size, and their count is a multiple of the cores where that can be.
    """
    if rows <= most:
        return [(photos, slice(0, rows)) for photos in _cut(N, most // rows)]
    return [(slice(n, n + 1), part) for n in range(N) for part in _cut(rows, max(1, most))]


def parallel_blocks(work, pieces):
    """[work(pieces of one core), ...], all cores at once; each has its own workspace for all its pieces."""
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


def _cut(size, most):
    cores = threads.cores()
    count = min(size, cores * -(-size // (cores * most)))
    return [slice(a, b) for a, b in pairwise(size * k // count for k in range(count + 1))]
