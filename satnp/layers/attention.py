"""Where to look: three scores e_ti = f_att(a_i, h_{t-1}), and the context that the weights pick out.

What depends on the photo alone (`keys`) is formed once a caption by the caller:

    additive   keys = annotations W_a + b, query = h W_s      Bahdanau et al. 2015; Xu et al. 2015, eq. 4
    general    keys = annotations W_a,     query = h          Luong et al. 2015
    dot        keys = annotations,         query = h / sqrt(D)
"""

from typing import NamedTuple

import numpy as np

from satnp.backend import xp_of
from satnp.threads import parallel, shares


class AdditiveCache(NamedTuple):
    keys: object
    query: object
    v: object
    F: object  # exp(-2 keys) and
    E: object  # exp(2 query), or None where tanh is taken


class DotCache(NamedTuple):
    keys: object
    query: object


class ContextCache(NamedTuple):
    alpha: object
    annotations: object


def additive_scores_forward(keys, query, v, c, F=None):
    """e_i = v . tanh(keys_i + query) + c

    keys (N, L, A), query (N, A), v (A,), c (1,), F from `exponentials` -> scores (N, L)

    On the host a photo at a time, in the cache, and with tanh = 1 - 2R. Nothing of size (N, L, A) is kept: the backward
    makes it again.
    """
    cache = AdditiveCache(keys, query, v, F, None if F is None else exponentials(-query))
    if not _on_host(keys, query, v):
        return _times(xp_of(keys).tanh(keys + query[:, None, :]), v) + c, cache
    scores = np.empty(keys.shape[:2], keys.dtype)

    def share(photos):
        for rows, R in _blocks(photos, keys):
            scores[rows] = _times(_saturation(cache, rows, R), v)

    parallel(share, shares(len(keys)))
    scores *= -2
    scores += v.sum() + c
    return scores, cache


def additive_scores_backward(dscores, cache):
    """dscores (N, L) -> dkeys (N, L, A), dquery (N, A), dv (A,), dc (1,)

    dc is zero behind a softmax, which no constant moves.
    """
    dquery = additive_query_backward(dscores, cache)
    dkeys, dv, dc = additive_keys_backward(dscores[None], [cache])
    return dkeys, dquery, dv, dc


def additive_query_backward(dscores, cache):
    """dscores (N, L) -> dquery (N, A): the part that a step back in time waits for"""
    keys, query, v = cache[:3]
    if not _on_host(keys, query, v):
        t = xp_of(keys).tanh(keys + query[:, None, :])
        return (dscores[:, :, None] * (1 - t * t)).sum(axis=1) * v
    dquery = np.empty_like(query)

    def share(photos):
        for rows, R in _blocks(photos, keys):
            _saturation(cache, rows, R)
            R -= R * R
            for n, slope in zip(range(rows.start, rows.stop), R, strict=True):
                np.dot(dscores[n], slope, out=dquery[n])

    parallel(share, shares(len(keys)))
    dquery *= 4 * v
    return dquery


def additive_keys_backward(dscores, caches):
    """dscores (T, N, L), T caches of the same keys -> dkeys (N, L, A), dv (A,), dc (1,), summed over the steps"""
    keys, _, v = caches[0][:3]
    dc = dscores.sum().reshape(1)
    if not _on_host(keys, v):
        dkeys, dv = xp_of(keys).zeros_like(keys), 0
        for d, cache in zip(dscores, caches, strict=True):
            t = xp_of(keys).tanh(keys + cache.query[:, None, :])
            dv = dv + d.ravel() @ t.reshape(-1, len(v))
            dkeys += d[:, :, None] * (1 - t * t)
        return dkeys * v, dv, dc
    dkeys = np.zeros_like(keys)

    def share(photos):
        dR = np.zeros_like(v)
        for rows, R in _blocks(photos, keys):
            for d, cache in zip(dscores[:, rows], caches, strict=True):
                _saturation(cache, rows, R)
                dR += d.ravel() @ R.reshape(-1, len(v))
                R -= R * R
                R *= d[:, :, None]
                dkeys[rows] += R
            dkeys[rows] *= 4 * v
        return dR

    return dkeys, dc - 2 * sum(parallel(share, shares(len(keys)))), dc


LARGEST = 40  # of keys and queries whose exp(2 x) a float32 can hold, twice


def exponentials(keys):
    """F = exp(-2 keys), or None where that is too large or too small for a float32

    With E = exp(2 query):  tanh(keys + query) = 1 - 2R,  R = F / (F + E). An addition and a division a step for a tanh.
    """
    return np.exp(-2 * keys) if _on_host(keys) and np.abs(keys).max(initial=0) <= LARGEST else None


def _saturation(cache, rows, out):
    """R = (1 - tanh(keys + query)) / 2 of some photos, written to `out` (G, L, A)"""
    keys, query, _, F, E = cache
    if E is None:
        np.tanh(np.add(keys[rows], query[rows, None, :], out=out), out=out)
        out *= -0.5
        out += 0.5
        return out
    return np.divide(F[rows], np.add(F[rows], E[rows, None, :], out=out), out=out)


def _blocks(photos, keys):
    """Yield (rows, memory (G, L, A)) for a few photos at a time, so that the memory, always the same, stays in the cache."""
    _, L, A = keys.shape
    step = max(1, (1 << 17) // (L * A))
    memory = np.empty((min(step, len(keys)), L, A), keys.dtype)
    for start in range(photos.start, photos.stop, step):
        rows = slice(start, min(start + step, photos.stop))
        yield rows, memory[: rows.stop - start]


def _times(t, v):
    """t (N, L, A), v (A,) -> (N, L)"""
    return (t.reshape(-1, len(v)) @ v).reshape(t.shape[:2])


def _on_host(*arrays):
    """Real NumPy arrays? A complex step goes through the equation as it is printed."""
    return xp_of(*arrays) is np and all(x.dtype.kind == "f" for x in arrays)


def dot_scores_forward(keys, query):
    """e_i = keys_i . query

    keys (N, L, A), query (N, A) -> scores (N, L)
    """
    return _vector_products(query, keys.swapaxes(1, 2)), DotCache(keys, query)


def dot_scores_backward(dscores, cache):
    """dscores (N, L) -> dkeys (N, L, A), dquery (N, A)"""
    return dot_keys_backward(dscores[None], [cache]), dot_query_backward(dscores, cache)


def dot_query_backward(dscores, cache):
    """dscores (N, L) -> dquery (N, A)"""
    return _vector_products(dscores, cache.keys)


def dot_keys_backward(dscores, caches):
    """dscores (T, N, L), T caches of the same keys -> dkeys (N, L, A), summed over the steps"""
    queries = xp_of(dscores).stack([cache.query for cache in caches])
    return dscores.transpose(1, 2, 0) @ queries.transpose(1, 0, 2)


def context_forward(alpha, annotations):
    """context = sum_i alpha_i a_i

    alpha (N, L), annotations (N, L, D) -> context (N, D)

    Source: Xu et al. 2015, eq. 13 (soft attention, before the gate).
    """
    return _vector_products(alpha, annotations), ContextCache(alpha, annotations)


def context_backward(dcontext, cache):
    """dcontext (N, D) -> dalpha (N, L), dannotations (N, L, D)"""
    alpha, annotations = cache
    dannotations = alpha[:, :, None] * dcontext[:, None, :]
    return context_weights_backward(dcontext, annotations), dannotations


def context_weights_backward(dcontext, annotations):
    """dcontext (N, D), annotations (N, L, D) -> dalpha (N, L)"""
    return _vector_products(dcontext, annotations.swapaxes(1, 2))


def _vector_products(x, A):
    """out_n = x_n A_n: x (N, K), A (N, K, J) -> out (N, J)"""
    if not _on_host(x, A):
        return (x[:, None, :] @ A)[:, 0]
    out = np.empty((len(x), A.shape[2]), x.dtype)

    def share(photos):  # one by one, three times as fast as all in one matmul
        for n in range(photos.start, photos.stop):
            np.dot(x[n], A[n], out=out[n])

    parallel(share, shares(len(x)))
    return out
