"""One look at the photo: the scores decide where, the gate decides how much. Each line calls one layer."""

from typing import NamedTuple

from satnp.layers.affine import affine_backward, affine_forward
from satnp.layers.attention import additive_scores_backward, additive_scores_forward, context_backward, context_forward
from satnp.layers.gate import gate_backward, gate_forward
from satnp.layers.softmax import softmax_backward, softmax_forward


class LookCache(NamedTuple):
    """The caches of the layers, in the order of the forward pass."""

    keys: object
    query: object
    scores: object
    softmax: object
    context: object
    gate: object


def look_forward(annotations, h, W_a, W_s, b, v, c, W_beta, b_beta):
    """z = beta sum_i alpha_i a_i;  alpha = softmax(v . tanh(a_i W_a + b + h W_s) + c),  beta = sigmoid(h W_beta + b_beta)

    annotations (N, L, D), h (N, H), W_a (D, A), W_s (H, A), b (A,), v (A,), c (1,), W_beta (H, 1), b_beta (1,)
    -> z (N, D), alpha (N, L)

    Source: Xu et al. 2015, eqs. 4-6 and 13, section 4.2.1.
    """
    N, L, D = annotations.shape
    keys, keys_cache = affine_forward(annotations.reshape(N * L, D), W_a, b)
    query, query_cache = affine_forward(h, W_s, 0 * b)
    scores, scores_cache = additive_scores_forward(keys.reshape(N, L, -1), query, v, c)
    alpha, softmax_cache = softmax_forward(scores)
    context, context_cache = context_forward(alpha, annotations)
    z, gate_cache = gate_forward(h, context, W_beta, b_beta)
    return (z, alpha), LookCache(keys_cache, query_cache, scores_cache, softmax_cache, context_cache, gate_cache)


def look_backward(dout, cache):
    """dz (N, D), dalpha (N, L) -> dannotations (N, L, D), dh (N, H), dW_a (D, A), dW_s (H, A), db (A,), dv (A,), dc (1,),
    dW_beta (H, 1), db_beta (1,)

    dalpha is the upstream gradient of alpha, from the doubly stochastic penalty.
    """
    dz, dalpha = dout
    dh_gate, dcontext, dW_beta, db_beta = gate_backward(dz, cache.gate)
    dalpha_context, dannotations = context_backward(dcontext, cache.context)
    dscores = softmax_backward(dalpha + dalpha_context, cache.softmax)
    dkeys, dquery, dv, dc = additive_scores_backward(dscores, cache.scores)
    dh, dW_s, _ = affine_backward(dquery, cache.query)
    drows, dW_a, db = affine_backward(dkeys.reshape(len(cache.keys.x), -1), cache.keys)
    return dannotations + drows.reshape(dannotations.shape), dh + dh_gate, dW_a, dW_s, db, dv, dc, dW_beta, db_beta
