"""Show, Attend and Tell step by step, as the paper prints it: every equation at every step, nothing formed in advance.

The same Config, Noise and signatures as satnp/captioners/show_attend_tell.py, whose faster form tests hold equal to this.
Each comment names the equation of Xu et al. 2015; `backward` takes the lines of `forward` in reverse.
"""

from typing import NamedTuple

from satnp.backend import xp_of
from satnp.layers import (
    additive_scores_backward,
    additive_scores_forward,
    affine_backward,
    affine_forward,
    context_backward,
    context_forward,
    cross_entropy_backward,
    cross_entropy_forward,
    deep_output_backward,
    deep_output_forward,
    dot_scores_backward,
    dot_scores_forward,
    doubly_stochastic_backward,
    doubly_stochastic_forward,
    dropout_backward,
    dropout_forward,
    embedding_backward,
    embedding_forward,
    gate_backward,
    gate_forward,
    initial_state_backward,
    initial_state_forward,
    lstm_cell_backward,
    lstm_cell_forward,
    softmax_backward,
    softmax_forward,
)


class Step(NamedTuple):
    f_att: object
    softmax: object
    context: object
    gate: object
    embedding: object
    words: object
    affine: object
    cell: object
    state: object
    deep: object
    hidden: object
    vocabulary: object
    entropy: object


class Cache(NamedTuple):
    params: object
    config: object
    annotations: object
    start: object
    steps: list
    doubly: object


def forward(params, config, batch, noise):
    """Loss of a batch.

    batch: annotations (N, L, D), captions (N, T+1), mask (N, T); noise from draw_noise -> loss (), cache
    """
    p, annotations, captions, mask = params, *batch
    xp, (N, T) = xp_of(annotations), mask.shape
    masks = [[None] * T if x is None else x for x in noise]

    (h, c), start = initial_state_forward(annotations, p.W_h0, p.b_h0, p.W_c0, p.b_c0)  # h_0, c_0
    loss, alphas, steps = 0, [], []
    for t in range(T):
        scores, f_att = f_att_forward(p, config, annotations, h)  # eq. 4
        alpha, softmax = softmax_forward(scores)  # eq. 5
        soft, context = context_forward(alpha, annotations)  # eq. 13
        z, gate = gate_forward(h, soft, p.W_beta, p.b_beta)  # eq. 6
        Ey, embedding = embedding_forward(captions[:, t], p.E)
        Ey, words = dropout_forward(Ey, masks[0][t])
        Eyhz = xp.concatenate([Ey, h, z], axis=1)
        gates, affine = affine_forward(Eyhz, xp.concatenate([p.W_x, p.W_h, p.W_z]), p.b)  # eq. 1
        (h, c), cell = lstm_cell_forward(gates, c)  # eqs. 2-3
        out, state = dropout_forward(h, masks[1][t])
        out, deep = deep_output_forward(Ey, out, z, p.L_h, p.L_z, p.b_m)  # eq. 7
        out, hidden = dropout_forward(out, masks[2][t])
        logits, vocabulary = affine_forward(out, p.L_o, p.b_o)
        nll, entropy = cross_entropy_forward(logits, captions[:, t + 1], mask[:, t] / N)
        loss = loss + nll  # eq. 14
        alphas.append(alpha)
        steps.append(Step(
            f_att, softmax, context, gate, embedding, words, affine, cell, state, deep, hidden, vocabulary, entropy
        ))  # fmt: skip
    penalty, doubly = doubly_stochastic_forward(xp.stack(alphas), mask.T)
    return loss + config.penalty * penalty, Cache(p, config, annotations, start, steps, doubly)


def backward(cache, grads):
    """Adds dloss/dparams into `grads` -> dannotations (N, L, D)"""
    p, config, annotations, start, steps, doubly = cache
    g, M, H = grads, config.M, config.H
    xp, N = xp_of(annotations), len(annotations)
    one = xp.ones((), dtype=annotations.dtype)

    dalphas = doubly_stochastic_backward(config.penalty * one, doubly)
    dannotations = xp.zeros_like(annotations)
    dh = dc = xp.zeros((N, H), dtype=annotations.dtype)
    for step, dalpha in zip(reversed(steps), dalphas[::-1], strict=True):
        dlogits = cross_entropy_backward(one, step.entropy)
        dout, dL_o, db_o = affine_backward(dlogits, step.vocabulary)
        dout = dropout_backward(dout, step.hidden)
        dEy_out, dout, dz_out, dL_h, dL_z, db_m = deep_output_backward(dout, step.deep)
        dh = dh + dropout_backward(dout, step.state)
        dgates, dc = lstm_cell_backward((dh, dc), step.cell)
        dEyhz, dW, db = affine_backward(dgates, step.affine)
        dEy, dh, dz = dEyhz[:, :M], dEyhz[:, M : M + H], dEyhz[:, M + H :]
        dEy = dropout_backward(dEy + dEy_out, step.words)
        dE = embedding_backward(dEy, step.embedding)
        dh_gate, dsoft, dW_beta, db_beta = gate_backward(dz + dz_out, step.gate)
        dalpha_context, dannotations_context = context_backward(dsoft, step.context)
        dscores = softmax_backward(dalpha + dalpha_context, step.softmax)
        dannotations_att, dh_att = f_att_backward(config, dscores, step.f_att, g)

        dh = dh + dh_gate + dh_att
        dannotations = dannotations + dannotations_context + dannotations_att
        g.E[...] += dE
        g.W_x[...] += dW[:M]
        g.W_h[...] += dW[M : M + H]
        g.W_z[...] += dW[M + H :]
        g.b[...] += db
        g.W_beta[...] += dW_beta
        g.b_beta[...] += db_beta
        g.L_h[...] += dL_h
        g.L_z[...] += dL_z
        g.b_m[...] += db_m
        g.L_o[...] += dL_o
        g.b_o[...] += db_o

    dannotations_start, dW_h0, db_h0, dW_c0, db_c0 = initial_state_backward((dh, dc), start)
    g.W_h0[...] += dW_h0
    g.b_h0[...] += db_h0
    g.W_c0[...] += dW_c0
    g.b_c0[...] += db_c0
    return dannotations + dannotations_start


def f_att_forward(p, config, annotations, h):
    """The scores of eq. 4: annotations (N, L, D), h (N, H) -> scores (N, L), cache

    additive: v . tanh(a_i W_a + h W_s + b_a) + c_a;  general: a_i W_a h;  dot: a_i . h / sqrt(D)
    """
    N, L, D = annotations.shape
    if config.f_att == "dot":
        scores, dot = dot_scores_forward(annotations, h / D**0.5)
        return scores, (dot,)
    b_a = p.b_a if config.f_att == "additive" else 0
    keys, affine_a = affine_forward(annotations.reshape(N * L, D), p.W_a, b_a)
    keys = keys.reshape(N, L, -1)
    if config.f_att == "general":
        scores, dot = dot_scores_forward(keys, h)
        return scores, (dot, affine_a)
    query, affine_s = affine_forward(h, p.W_s, 0)
    scores, additive = additive_scores_forward(keys, query, p.v, p.c_a)
    return scores, (additive, affine_a, affine_s)


def f_att_backward(config, dscores, cache, g):
    """dscores (N, L) -> dannotations (N, L, D), dh (N, H); adds into `g`"""
    if config.f_att == "dot":
        dannotations, dquery = dot_scores_backward(dscores, cache[0])
        return dannotations, dquery / config.D**0.5
    if config.f_att == "general":
        dkeys, dh = dot_scores_backward(dscores, cache[0])
    else:
        dkeys, dquery, dv, dc_a = additive_scores_backward(dscores, cache[0])
        dh, dW_s, _ = affine_backward(dquery, cache[2])
        g.v[...] += dv
        g.c_a[...] += dc_a
        g.W_s[...] += dW_s
    N, L, _ = dkeys.shape
    dannotations, dW_a, db_a = affine_backward(dkeys.reshape(N * L, -1), cache[1])
    g.W_a[...] += dW_a
    if config.f_att == "additive":
        g.b_a[...] += db_a
    return dannotations.reshape(N, L, -1), dh
