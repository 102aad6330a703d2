"""Attention: three score functions e_ti = f_att(a_i, h_{t-1}), and the context, the weighted sum of the annotations.

The caller computes `keys`, which depend on the photo only, once per caption, and `query` at every step:

    additive   keys = annotations W_a + b, query = h W_s      Bahdanau et al. 2015; Xu et al. 2015, eq. 4
    general    keys = annotations W_a,     query = h          Luong et al. 2015
    dot        keys = annotations,         query = h / sqrt(D)
"""

from typing import NamedTuple

import numpy as np

from satnp.arrays import kernels
from satnp.arrays.backend import xp_of
from satnp.arrays.elementwise import elementwise


class AdditiveCache(NamedTuple):
    keys: object  # None if F is used instead
    query: object
    v: object
    F: object     # exp(-2 keys), or None


class DotCache(NamedTuple):
    keys: object
    query: object


class ContextCache(NamedTuple):
    alpha: object
    annotations: object


def additive_scores_forward(keys, query, v, c, F=None):
    """e_i = v . tanh(keys_i + query) + c

    keys (N, L, A), query (N, A), v (A,), c (1,), F from `exponentials` -> scores (N, L)

    keys may be None if F is given. On the host, tanh is computed as 1 - 2R, for a few photos at a time, so that R stays in
    the cache. No array of shape (N, L, A) is kept: the backward pass recomputes it.
    """
    cache = AdditiveCache(keys, query, v, F)
    if not _on_host(keys, query, v):
        return kernels.scores(keys, query, v, c), cache
    x, y, ratio = summands(keys, query, F)
    scores = np.empty(x.shape[:2], x.dtype)
    for rows, R in _blocks(x):
        np.dot(saturation(x[rows], y[rows, None], ratio, R), v, out=scores[rows])
    scores *= -2
    scores += v.sum() + c
    return scores, cache


def additive_scores_backward(dscores, cache):
    """dscores (N, L) -> dkeys (N, L, A), dquery (N, A), dv (A,), dc (1,)

    dc is zero if a softmax follows, because adding a constant to all scores does not change the softmax.
    """
    dkeys, dv, dc = additive_keys_backward(dscores[None], cache.query[None], cache)
    return dkeys, additive_query_backward(dscores, cache), dv, dc


def additive_query_backward(dscores, cache, out=None):
    """dscores (N, L) -> dquery (N, A), written to `out` if given

    This is the only part of the backward pass that the gradient of the previous step depends on.
    """
    keys, query, v, F = cache
    if not _on_host(keys, query, v):
        return kernels.query_gradient(dscores, keys, query, v, out=(out,))
    dquery = np.empty(query.shape, query.dtype) if out is None else out
    x, y, ratio = summands(keys, query, F)
    for rows, slopes in _blocks(x):
        slope(x[rows], y[rows, None], ratio, slopes)
        np.vecmat(dscores[rows], slopes, out=dquery[rows])
    dquery *= 4 * v * y if ratio else v
    return dquery


def additive_look_backward(dalpha, alpha, cache, out=(None, None)):
    """softmax_backward followed by additive_query_backward

    dalpha (N, L), alpha (N, L) -> dscores (N, L), dquery (N, A), written to the two arrays of `out` if given
    """
    keys, query, v, _ = cache
    if not _on_host(keys, query, v):
        return kernels.look_gradient(dalpha, alpha, keys, query, v, out=out)
    dscores = kernels.softmax_gradient(dalpha, alpha, out=out[:1])
    return dscores, additive_query_backward(dscores, cache, out[1])


def additive_keys_backward(dscores, queries, cache, dqueries=None):
    """dscores (T, N, L), queries (T, N, A), cache of any step -> dkeys (N, L, A), dv (A,), dc (1,), summed over T steps

    The gradient with respect to the queries is added to `dqueries` (T, N, A), if given.
    """
    keys, _, v, F = cache
    A, dc = len(v), dscores.sum().reshape(1)
    if not _on_host(keys, queries, v):
        dkeys, dv = kernels.keys_gradient(dscores, keys, queries, v)
        if dqueries is not None:
            steps = zip(dscores, queries, strict=True)
            dqueries += xp_of(v).stack([kernels.query_gradient(d, keys, query, v) for d, query in steps])
        return dkeys, dv.sum(axis=0), dc
    x, y, ratio = summands(keys, queries, F)
    dkeys, dR = np.empty_like(x), np.zeros_like(v)
    for n, cells, R in _all_steps(x, y, ratio):
        d = np.ascontiguousarray(dscores[:, n, cells].T)
        dR += d.ravel() @ R.reshape(-1, A)
        R -= R * R
        np.vecmat(d, R, out=dkeys[n, cells])
        dkeys[n, cells] *= 4 * v
        if dqueries is not None:
            dqueries[:, n] += 4 * v * np.vecmat(d.T, R.swapaxes(0, 1))
    return dkeys, dc - 2 * dR, dc


def additive_steps_forward(keys, query, v, c, F=None):
    """additive_scores_forward at all steps at once, for queries that no context changes

    keys (N, L, A), query (R, A), v (A,), c (1,), F from `exponentials` -> scores (R, L)

    The R = T*N rows are those of T steps, below each other: row t * N + n is step t of photo n.
    """
    cache, N, A = AdditiveCache(keys, query, v, F), len(keys if F is None else F), len(v)
    queries = query.reshape(-1, N, A)
    if not _on_host(keys, query, v):
        return xp_of(keys, query).concatenate([kernels.scores(keys, q, v, c) for q in queries]), cache
    x, y, ratio = summands(keys, queries, F)
    scores = np.empty((len(queries), N, x.shape[1]), x.dtype)
    for n, cells, R in _all_steps(x, y, ratio):
        scores[:, n, cells] = (R.reshape(-1, A) @ v).reshape(-1, len(queries)).T
    scores *= -2
    scores += v.sum() + c
    return scores.reshape(len(query), -1), cache


def additive_steps_backward(dscores, cache):
    """dscores (R, L) -> dkeys (N, L, A), dquery (R, A), dv (A,), dc (1,)"""
    N = len(cache.keys if cache.F is None else cache.F)
    queries = cache.query.reshape(-1, N, len(cache.v))
    dqueries = xp_of(queries).zeros_like(queries)
    dkeys, dv, dc = additive_keys_backward(dscores.reshape(len(queries), N, -1), queries, cache, dqueries)
    return dkeys, dqueries.reshape(cache.query.shape), dv, dc


LARGEST = 20   # bound of |keys| and |query| for the use of F and E: (exp(2 * 20) + exp(2 * 20))^2 fits in a float32
BLOCK = 1 << 19  # elements of R at a time: 2 MiB of float32; with smaller blocks the cores wait for Python's lock


def exponentials(keys):
    """F = exp(-2 keys), or None if it might overflow in float32 or if keys is on a device.

    With E = exp(2 query):  tanh(keys + query) = 1 - 2R,  R = F / (F + E). At each step an addition and a division replace
    the tanh.
    """
    if not _on_host(keys) or max(keys.max(initial=0), -keys.min(initial=0)) > LARGEST:
        return None
    return _exponentials(keys)


@elementwise
def _exponentials(keys):
    return xp_of(keys).exp(-2 * keys)


def summands(keys, query, F):
    """Return (x, y, ratio) for `saturation`: F, E, True if both exist, else keys, query, False.

    If keys is None, the keys are computed from F.
    """
    E = None if F is None else exponentials(-query)
    if E is not None:
        return F, E, True
    if keys is None:
        keys = np.log(F)
        keys *= -0.5
    return keys, query, False


def saturation(x, y, ratio, out):
    """R = (1 - tanh(keys + query)) / 2, written to `out`; x, y are F, E if `ratio`, else keys, query"""
    np.add(x, y, out=out)
    if ratio:
        return np.divide(x, out, out=out)
    np.tanh(out, out=out)
    out *= -0.5
    out += 0.5
    return out


def slope(x, y, ratio, out):
    """1 - tanh(keys + query)^2 = 4 E F / (F + E)^2, written to `out`; if `ratio`, the caller multiplies by 4 E"""
    np.add(x, y, out=out)
    if ratio:
        np.multiply(out, out, out=out)
        return np.divide(x, out, out=out)
    np.tanh(out, out=out)
    np.multiply(out, out, out=out)
    return np.subtract(1, out, out=out)


def _blocks(keys):
    """Yield (rows, buffer (G, L, A)) for a few photos at a time. The buffer is reused, so that it stays in the cache."""
    N, L, A = keys.shape
    step = max(1, BLOCK // (L * A))
    memory = np.empty((min(step, N), L, A), keys.dtype)
    for start in range(0, N, step):
        rows = slice(start, min(start + step, N))
        yield rows, memory[: rows.stop - start]


def _all_steps(x, y, ratio):
    """Yield (photo, locations, R (l, T, A)) for a few locations of a photo at all steps, where x (N, L, A), y (T, N, A)"""
    (N, L, A), T = x.shape, len(y)
    step = max(1, BLOCK // (T * A))
    memory = np.empty((min(step, L), T, A), x.dtype)
    for n in range(N):
        y_n = np.ascontiguousarray(y[:, n])
        for start in range(0, L, step):
            cells = slice(start, min(start + step, L))
            yield n, cells, saturation(x[n, cells, None], y_n, ratio, memory[: cells.stop - start])


def _on_host(*arrays):
    """Return whether all arrays, except None, are real NumPy arrays. Complex arrays use the plain equation."""
    arrays = [x for x in arrays if x is not None]
    return xp_of(*arrays) is np and all(x.dtype.kind == "f" for x in arrays)


def dot_scores_forward(keys, query):
    """e_i = keys_i . query

    keys (N, L, A), query (N, A) -> scores (N, L)
    """
    return _vector_products(query, keys), DotCache(keys, query)


def dot_scores_backward(dscores, cache):
    """dscores (N, L) -> dkeys (N, L, A), dquery (N, A)"""
    return dot_keys_backward(dscores[None], cache.query[None]), dot_query_backward(dscores, cache)


def dot_query_backward(dscores, cache):
    """dscores (N, L) -> dquery (N, A)"""
    return _weighted_sum(dscores, cache.keys)


def dot_keys_backward(dscores, queries):
    """dscores (T, N, L), queries (T, N, A) -> dkeys (N, L, A), summed over the steps"""
    return dscores.transpose(1, 2, 0) @ queries.transpose(1, 0, 2)


def soft_attention(scores, annotations, out=None):
    """Soft attention: softmax_forward followed by context_forward

    scores (N, L), annotations (N, L, D) -> alpha (N, L), context (N, D); alpha is written to `out` if given
    """
    if not _on_host(scores, annotations):
        return kernels.soft_attention(scores, annotations, out=(out, None))
    alpha = kernels.softmax(scores, out=(out,))
    return alpha, _weighted_sum(alpha, annotations)


def context_forward(alpha, annotations):
    """context = sum_i alpha_i a_i

    alpha (N, L), annotations (N, L, D) -> context (N, D)

    The rows of all T steps at once, alpha (T*N, L), are taken too, and give T*N contexts.

    Source: Xu et al. 2015, eq. 13 (soft attention, before the gate).
    """
    return _weighted_sum(alpha, annotations), ContextCache(alpha, annotations)


def context_backward(dcontext, cache):
    """dcontext (N, D) -> dalpha (N, L), dannotations (N, L, D)"""
    alpha, annotations = cache
    dannotations = alpha[:, :, None] * dcontext[:, None, :]
    return context_weights_backward(dcontext, annotations), dannotations


def context_weights_backward(dcontext, annotations, dalpha=None):
    """dcontext (N, D), annotations (N, L, D) -> dalpha (N, L); adds the `dalpha` (N, L) of other uses of alpha, if given

    The rows of all T steps at once, each (T*N, ...), are taken too.
    """
    if dalpha is None:
        return _vector_products(dcontext, annotations)
    if _on_host(dcontext, annotations) or len(dcontext) > len(annotations):
        return _vector_products(dcontext, annotations) + dalpha
    return kernels.vector_products_plus(dcontext, annotations, dalpha)


def _weighted_sum(x, vectors):
    """x (N, L), vectors (N, L, D) -> (N, D); x (T*N, L) -> (T*N, D)"""
    if len(x) > len(vectors):
        return _at_all_steps(x, vectors)
    return np.vecmat(x, vectors) if _on_host(x, vectors) else kernels.weighted_sum(x, vectors)


def _vector_products(x, vectors):
    """x (N, D), vectors (N, L, D) -> (N, L); x (T*N, D) -> (T*N, L)"""
    if len(x) > len(vectors):
        return _at_all_steps(x, vectors.swapaxes(1, 2))
    return np.matvec(vectors, x) if _on_host(x, vectors) else kernels.vector_products(x, vectors)


def _at_all_steps(x, A):
    """out_tn = x_tn A_n, one product a photo: x (T*N, K), A (N, K, J) -> out (T*N, J)"""
    out = x.reshape(-1, len(A), x.shape[1]).swapaxes(0, 1) @ A
    return out.swapaxes(0, 1).reshape(len(x), -1)
