"""Attention for several captions per photo, without a copy of the photo's keys and annotations for each caption.

Each row r = 0 .. R-1 is a caption of photo photos[r]. photos (R,) is sorted and lies on the host.
"""

import numpy as np

from satnp.arrays.backend import to_device, xp_of
from satnp.layers.attention import BLOCK, saturation, summands


def beam_additive_scores(keys, F, query, v, c, photos):
    """e_ri = v . tanh(keys_ni + query_r) + c for each row r of photo n

    keys (N, L, A) or None, F from `exponentials` or None, query (R, A), v (A,), c (1,), photos (R,) -> scores (R, L)
    """
    if xp_of(query) is not np:
        query, rows = _by_place(query, len(keys), photos)
        t = [xp_of(keys).tanh(keys + q[:, None, :]).reshape(-1, len(v)) @ v for q in query]
        return xp_of(keys).stack(t).reshape(len(query), *keys.shape[:2])[rows] + c
    x, y, ratio = summands(keys, query, F)
    _, L, A = x.shape
    scores = np.empty((len(query), L), query.dtype)
    most = max(1, BLOCK // (L * A))
    R = np.empty((most, L, A), query.dtype)
    for n, start, end in _of_one_photo(photos):
        for row in range(start, end, most):
            rows = slice(row, min(row + most, end))
            t = saturation(x[n], y[rows, None], ratio, R[: rows.stop - row])
            np.dot(t.reshape(-1, A), v, out=scores[rows].reshape(-1))
    return (v.sum() + c) - 2 * scores


def beam_products(x, A, photos):
    """out_r = x_r A_n for each row r of photo n: x (R, K), A (N, K, J), photos (R,) -> out (R, J)"""
    if xp_of(A) is not np:
        x, rows = _by_place(x, len(A), photos)
        return (x.swapaxes(0, 1) @ A).swapaxes(0, 1)[rows]
    out = np.empty((len(x), A.shape[2]), np.result_type(x, A))
    for n, start, end in _of_one_photo(photos):
        np.dot(x[start:end], A[n], out=out[start:end])
    return out


def _of_one_photo(photos):
    """Yield (photo, start, stop): the rows of the photo are start : stop."""
    starts = np.flatnonzero(np.diff(photos, prepend=-1))
    yield from zip(photos[starts], starts, [*starts[1:], len(photos)], strict=True)


def _by_place(x, N, photos):
    """Copy x (R, K) to (B, N, K): caption b of photo n, or zeros if there is none. Also return the index of each row."""
    xp, place = xp_of(x), np.arange(len(photos)) - np.searchsorted(photos, photos)
    rows = to_device(place, xp), to_device(photos, xp)
    dense = xp.zeros((place.max() + 1, N, x.shape[1]), dtype=x.dtype)
    dense[rows] = x
    return dense, rows
