"""f_att, the score of each location for Show, Attend and Tell: additive, general or dot (`config.f_att`).

    additive   e_ti = v . tanh(a_i W_a + b_a + h_{t-1} W_s) + c_a     Xu et al. 2015, eq. 4
    general    e_ti = a_i W_a . h_{t-1}                               Luong et al. 2015
    dot        e_ti = a_i . h_{t-1} / sqrt(D)

The keys (a_i W_a + b_a, a_i W_a or a_i) are computed once, before the loop. Their gradient is computed once, after it.
"""

from satnp.arrays.backend import xp_of
from satnp.layers import (
    additive_keys_backward,
    additive_look_backward,
    additive_query_backward,
    additive_scores_forward,
    beam_additive_scores,
    beam_products,
    dot_keys_backward,
    dot_query_backward,
    dot_scores_forward,
    exponentials,
    rows,
    softmax_backward,
)


def attention_keys(p, config, annotations):
    """The keys of N photos: annotations (N, L, D) -> keys (N, L, A), F

    Additive keys are stored as F = exp(-2 keys) if float32 can hold it; keys is then None. Otherwise F is None.
    """
    if config.f_att == "dot":
        return annotations, None
    N, L, D = annotations.shape
    keys = (annotations.reshape(N * L, D) @ p.W_a).reshape(N, L, -1)
    if config.f_att == "general":
        return keys, None
    keys += p.b_a
    F = exponentials(keys)
    return (keys, None) if F is None else (None, F)


def attention_keys_backward(p, config, cache, h_prev, dscores, dqueries, g, frozen):
    """Adds the gradients of f_att's weights, summed over all steps, to `g` -> dannotations (N, L, D), None if frozen

    cache of show_attend_tell.forward, h_prev (T*N, H), dscores (T, N, L), dqueries (T, N, A)
    """
    annotations, (T, N, L), D = cache.annotations, dscores.shape, config.D
    if config.f_att == "dot" and frozen:
        return None
    if config.f_att == "additive":
        dkeys, dv, dc = additive_keys_backward(dscores, cache.queries, cache.steps[0].scores)
        g.add(W_s=h_prev.T @ rows(dqueries), v=dv, c_a=dc, b_a=dkeys.sum(axis=(0, 1)))
    else:
        dkeys = dot_keys_backward(dscores, h_prev.reshape(T, N, -1) * _query_scale(config))
        if config.f_att == "dot":
            return dkeys
    dkeys = dkeys.reshape(N * L, -1)
    g.add(W_a=annotations.reshape(N * L, D).T @ dkeys)
    return None if frozen else (dkeys @ p.W_a.T).reshape(N, L, D)


def attention_scores_forward(p, config, keys, h, F=None, out=None):
    """e_t = f_att(a, h_{t-1}): keys (N, L, A) and F from attention_keys, h (N, H) -> scores (N, L)

    Additive: h W_s (N, A) is written to `out` if it is given.
    """
    if config.f_att == "additive":
        return additive_scores_forward(keys, xp_of(h).matmul(h, p.W_s, out=out), p.v, p.c_a, F)
    return dot_scores_forward(keys, h * _query_scale(config))


def attention_look_backward(p, config, dalpha, step, out):
    """dalpha (N, L) -> dh (N, H); writes dscores (N, L) and, if additive, dquery (N, A) to the two arrays of `out`."""
    if config.f_att == "additive":
        _, dquery = additive_look_backward(dalpha, step.softmax.alpha, step.scores, out)
        return dquery @ p.W_s.T
    dscores, dquery = out
    dscores[...] = softmax_backward(dalpha, step.softmax)
    return attention_query_backward(p, config, dscores, step.scores, dquery)


def attention_query_backward(p, config, dscores, cache, out=None):
    """dscores (N, L) -> dh (N, H); if additive, writes dquery (N, A) to `out`."""
    if config.f_att == "additive":
        return additive_query_backward(dscores, cache, out) @ p.W_s.T
    return dot_query_backward(dscores, cache) * _query_scale(config)


def beam_scores(p, config, keys, F, h, photos):
    """attention_scores_forward for R captions in decoding: h (R, H), photos (R,) the photo of each -> scores (R, L)"""
    if config.f_att == "additive":
        return beam_additive_scores(keys, F, h @ p.W_s, p.v, p.c_a, photos)
    return beam_products(h * _query_scale(config), keys.swapaxes(1, 2), photos)


def _query_scale(config):
    return config.D**-0.5 if config.f_att == "dot" else 1
