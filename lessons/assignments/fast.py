"""The additive scores of all steps, fast: arrays common to all steps are computed once, and rows in one matrix product."""

from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.layers.affine import affine_backward, affine_forward
from satnp.layers.attention import additive_keys_backward, additive_query_backward, additive_scores_forward, exponentials


class AllScoresCache(NamedTuple):
    keys: object  # the cache of affine_forward
    query: object  # of affine_forward
    shape: tuple  # T, N, L
    steps: list  # the cache of additive_scores_forward, a step each


def all_scores_forward(annotations, h, W_a, W_s, b, v):
    """e_ti = v . tanh(a_i W_a + h_t W_s + b), for the T steps of N captions

    annotations (N, L, D), h (T, N, H), W_a (D, A), W_s (H, A), b (A,), v (A,) -> scores (T, N, L)
    """
    xp, (T, N, H), (_, L, D), A = xp_of(h), h.shape, annotations.shape, len(v)
    keys, keys_cache = affine_forward(annotations.reshape(N * L, D), W_a, b)
    query, query_cache = affine_forward(h.reshape(T * N, H), W_s, 0 * b)
    keys, query = keys.reshape(N, L, A), query.reshape(T, N, A)
    F, zero = exponentials(keys), 0 * v[:1]
    scores, steps = zip(*(additive_scores_forward(keys, query[t], v, zero, F) for t in range(T)), strict=True)
    return xp.stack(scores), AllScoresCache(keys_cache, query_cache, (T, N, L), steps)


def all_scores_backward(dscores, cache):
    """dscores (T, N, L) -> dannotations (N, L, D), dh (T, N, H), dW_a (D, A), dW_s (H, A), db (A,), dv (A,)"""
    xp, (T, N, L), steps = xp_of(dscores), cache.shape, cache.steps
    queries = xp.stack([step.query for step in steps])
    dkeys, dv, _ = additive_keys_backward(dscores, queries, steps[0])
    dquery = xp.stack([additive_query_backward(dscores[t], steps[t]) for t in range(T)])
    drows, dW_a, db = affine_backward(dkeys.reshape(N * L, -1), cache.keys)
    dh, dW_s, _ = affine_backward(dquery.reshape(T * N, -1), cache.query)
    return drows.reshape(N, L, -1), dh.reshape(T, N, -1), dW_a, dW_s, db, dv
