"""Where to look: three scores e_ti = f_att(a_i, h_{t-1}), and the context that the weights pick out.

What depends on the photo alone (`keys`) is formed once a caption by the caller:

    additive   keys = annotations W_a + b, query = h W_s      Bahdanau et al. 2015; Xu et al. 2015, eq. 4
    general    keys = annotations W_a,     query = h          Luong et al. 2015
    dot        keys = annotations,         query = h / sqrt(D)
"""

from typing import NamedTuple

from satnp.backend import xp_of


class AdditiveCache(NamedTuple):
    keys: object
    query: object
    v: object


class DotCache(NamedTuple):
    keys: object
    query: object


class ContextCache(NamedTuple):
    alpha: object
    annotations: object


def additive_scores_forward(keys, query, v, c):
    """e_i = v . tanh(keys_i + query) + c

    keys (N, L, A), query (N, A), v (A,), c (1,) -> scores (N, L)

    The tanh is not kept: the backward makes it again, so nothing of size (N, L, A) is stored per step.
    """
    N, L, A = keys.shape
    t = xp_of(keys).tanh(keys + query[:, None, :])
    scores = (t.reshape(N * L, A) @ v).reshape(N, L) + c
    return scores, AdditiveCache(keys, query, v)


def additive_scores_backward(dscores, cache):
    """dscores (N, L) -> dkeys (N, L, A), dquery (N, A), dv (A,), dc (1,)

    dc is zero behind a softmax, which no constant moves.
    """
    keys, query, v = cache
    N, L, A = keys.shape
    t = xp_of(keys).tanh(keys + query[:, None, :])
    dc = dscores.sum().reshape(1)
    dv = dscores.reshape(N * L) @ t.reshape(N * L, A)
    dkeys = t
    dkeys *= t
    dkeys -= 1
    dkeys *= -dscores[:, :, None]
    dkeys *= v
    dquery = dkeys.sum(axis=1)
    return dkeys, dquery, dv, dc


def dot_scores_forward(keys, query):
    """e_i = keys_i . query

    keys (N, L, A), query (N, A) -> scores (N, L)
    """
    return (keys @ query[:, :, None])[:, :, 0], DotCache(keys, query)


def dot_scores_backward(dscores, cache):
    """dscores (N, L) -> dkeys (N, L, A), dquery (N, A)"""
    keys, query = cache
    dkeys = dscores[:, :, None] * query[:, None, :]
    dquery = (dscores[:, None, :] @ keys)[:, 0]
    return dkeys, dquery


def context_forward(alpha, annotations):
    """context = sum_i alpha_i a_i

    alpha (N, L), annotations (N, L, D) -> context (N, D)

    Source: Xu et al. 2015, eq. 13 (soft attention, before the gate).
    """
    return (alpha[:, None, :] @ annotations)[:, 0], ContextCache(alpha, annotations)


def context_backward(dcontext, cache):
    """dcontext (N, D) -> dalpha (N, L), dannotations (N, L, D)"""
    alpha, annotations = cache
    dalpha = (annotations @ dcontext[:, :, None])[:, :, 0]
    dannotations = alpha[:, :, None] * dcontext[:, None, :]
    return dalpha, dannotations
