"""Show, Attend and Tell step by step, as in the paper: every step computes every equation, and nothing is precomputed.

Config, Noise and all signatures are those of satnp/captioners/show_attend_tell.py; tests check that this faster form gives
the same results. Comments name the equations of Xu et al. 2015; `backward` follows the lines of `forward` in reverse.
With hard attention a step looks at a sampled location. The likelihood has no gradient with respect to a sample, so
`choice_backward` estimates the gradient with respect to the scores. Without noise.gumbel every step uses alpha_t.
"""

from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.estimators import (
    draw,
    entropy,
    entropy_gradient,
    leave_one_out,
    local_expectation,
    moving_average,
    reinforce,
    straight_through,
)
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
    log_softmax,
    lstm_cell_backward,
    lstm_cell_forward,
    softmax_backward,
    softmax_forward,
)


class Step(NamedTuple):
    scores: object
    f_att: object
    softmax: object
    look: object     # (N, L), the weights of the context: alpha_t, or the sample s_t
    ahead: object    # (N, L), log p of this word for each location; None if the estimator does not use it
    embedding: object
    words: object
    word: object
    cross_entropy: object


class Word(NamedTuple):
    """The caches of word_forward, in the order of its calls."""

    context: object
    gate: object
    affine: object
    cell: object
    state: object
    deep: object
    hidden: object
    vocabulary: object


class Choices(NamedTuple):
    """The inputs of choice_backward for the whole caption: gumbel (T, N, L); sampled (N,), which is 1 where locations were
    drawn; log_p (T, N) and mask (T, N) of the words; baseline (), the b of this pass."""

    gumbel: object
    sampled: object
    log_p: object
    mask: object
    baseline: object


class Cache(NamedTuple):
    params: object
    config: object
    annotations: object
    start: object
    steps: list
    doubly: object
    choices: object     # Choices, or None
    baseline: object    # b, for the next pass


def forward(params, config, batch, noise):
    """Loss of a batch; with hard attention and S samples, the mean over the samples.

    batch: annotations (N, L, D), captions (N, T+1), mask (N, T); noise from draw_noise -> loss (), cache
    """
    p, xp = params, xp_of(batch.mask)
    hard = config.hard and noise.gumbel is not None
    S = config.samples if hard else 1
    annotations, captions, mask = (xp.concatenate([x] * S) for x in batch[:3])  # S copies of the batch
    N, T = mask.shape
    masks = [[None] * T if x is None else xp.concatenate([x] * S, axis=1) for x in noise[:3]]
    sampled = 1 - xp.concatenate([noise.expected] * S) if hard else None

    (h, c), start = initial_state_forward(annotations, p.W_h0, p.b_h0, p.W_c0, p.b_c0)  # h_0, c_0
    loss, alphas, steps = 0, [], []
    for t in range(T):
        scores, f_att = f_att_forward(p, config, annotations, h)  # eq. 4
        alpha, softmax = softmax_forward(scores)  # eq. 5
        look, ahead = alpha, None
        if hard:
            look = xp.where(sampled[:, None] > 0, draw(scores, noise.gumbel[t]), alpha)  # eq. 8
            loss = loss - config.entropy_weight * (mask[:, t] * entropy(scores)).sum() / N
        Ey, embedding = embedding_forward(captions[:, t], p.E)
        Ey, words = dropout_forward(Ey, masks[0][t])
        if hard and config.estimator == "local_expectation":
            ahead = look_ahead(p, annotations, Ey, h, c, masks[1][t], masks[2][t], captions[:, t + 1])
        (logits, h, c), word = word_forward(p, annotations, look, Ey, h, c, masks[1][t], masks[2][t])
        nll, cross_entropy = cross_entropy_forward(logits, captions[:, t + 1], mask[:, t] / N)
        loss = loss + nll  # eq. 14
        alphas.append(alpha)
        steps.append(Step(scores, f_att, softmax, look, ahead, embedding, words, word, cross_entropy))
    penalty, doubly = doubly_stochastic_forward(xp.stack(alphas), mask.T)
    loss = loss + config.penalty * penalty

    choices, b = None, noise.baseline
    if hard:
        log_p = xp.stack([step.cross_entropy.log_p for step in steps])
        b = xp.zeros((), dtype=mask.dtype) if b is None else b
        choices = Choices(noise.gumbel, sampled, log_p, mask.T, b)
        b = moving_average(b, reward(config, choices), sampled)
    return loss, Cache(p, config, annotations, start, steps, doubly, choices, b)


def backward(cache, grads):
    """Add dloss/dparams to `grads` -> dannotations (N, L, D)"""
    p, config, annotations, start, steps, doubly, choices, _ = cache
    g = grads
    xp, (N, L, D) = xp_of(annotations), annotations.shape
    one = xp.ones((), dtype=annotations.dtype)
    drawn = 0 if choices is None else choices.sampled[:, None]

    dalphas = doubly_stochastic_backward(config.penalty * one, doubly)
    dannotations = xp.zeros_like(annotations)
    dh = dc = xp.zeros((N, config.H), dtype=annotations.dtype)
    for t in reversed(range(len(steps))):
        step = steps[t]
        dlogits = cross_entropy_backward(one, step.cross_entropy)
        dannotations_word, dlook, dEy, dh, dc = word_backward(config, dlogits, dh, dc, step.word, g)
        g.E[...] += embedding_backward(dropout_backward(dEy, step.words), step.embedding)
        dalpha = dalphas[t] + (1 - drawn) * dlook  # no gradient flows through a sampled location
        dscores = softmax_backward(dalpha, step.softmax)
        if choices is not None:
            dscores = dscores + choice_backward(config, drawn * dlook, step, choices, t)
        dannotations_att, dh_att = f_att_backward(config, dscores, step.f_att, g)
        dh = dh + dh_att
        dannotations = dannotations + dannotations_word + dannotations_att

    dannotations_start, dW_h0, db_h0, dW_c0, db_c0 = initial_state_backward((dh, dc), start)
    g.W_h0[...] += dW_h0
    g.b_h0[...] += db_h0
    g.W_c0[...] += dW_c0
    g.b_c0[...] += db_c0
    S = 1 if choices is None else config.samples
    return (dannotations + dannotations_start).reshape(S, N // S, L, D).sum(axis=0)


def choice_backward(config, dsample, step, choices, t):
    """Estimate the gradient with respect to the scores of step t (section 4.1): dsample (N, L) -> dscores (N, L)

    dsample is the gradient of the loss with respect to s_t. The reward of s_t is log p of all words for reinforce, of the
    words from step t on for reward_to_go, and of the words after step t for local_expectation, which averages log p
    of the word of step t over all locations. gumbel_st uses the derivative of a softmax instead of the sample.
    """
    scores, alpha, look = step.scores, step.softmax.alpha, step.look
    weight = choices.mask[t] / len(look)
    dscores = entropy_gradient(scores, alpha, config.entropy_weight * weight)  # lambda_e dH/de
    if config.estimator == "gumbel_st":
        return dscores + straight_through(dsample, scores, choices.gumbel[t], config.temperature)
    first = {"reinforce": 0, "reward_to_go": t, "local_expectation": t + 1}[config.estimator]
    advantage = reward(config, choices, first) - baseline(config, choices, first)  # r - b
    if config.estimator == "local_expectation":
        dchoice = local_expectation(step.ahead / counted(config, choices)[:, None], look, alpha, advantage)
    else:
        dchoice = reinforce(look, alpha, advantage)
    return dscores + (config.reward_weight * weight * choices.sampled)[:, None] * dchoice  # lambda_r (r - b) d log p(s)


def reward(config, choices, first=0):
    """r = sum of log p(y_t) over the words from step `first` on, divided by `counted`: (N,)"""
    return (choices.mask * choices.log_p)[first:].sum(axis=0) / counted(config, choices)


def counted(config, choices):
    """Return the divisor of a sum of log p, (N,): 1, or the number of words if the reward is a mean."""
    words = length(choices)
    return words if config.reward == "mean" else xp_of(words).ones_like(words)


def length(choices):
    """Return the number of words of each caption (N,), or 1 if a caption is padding only."""
    return xp_of(choices.mask).maximum(choices.mask.sum(axis=0), 1)


def baseline(config, choices, first):
    """Return the baseline b of the reward from step `first` on: (N,)"""
    words = length(choices)
    if config.baseline == "none":
        return 0 * words
    if config.baseline == "moving_average":  # b is for whole captions, so scale it by the share of words
        return choices.baseline * choices.mask[first:].sum(axis=0) / words
    return leave_one_out(reward(config, choices, first).reshape(config.samples, -1)).ravel()


def look_ahead(p, annotations, Ey, h, c, state_mask, hidden_mask, y):
    """log p(y_t | s_1 .. s_{t-1}, s_t = i) for each location i: (N, L)"""
    xp, (N, L, _) = xp_of(h), annotations.shape
    log_p = []
    for i in range(L):
        look = xp.zeros((N, L), dtype=h.dtype)
        look[:, i] = 1
        (logits, _, _), _ = word_forward(p, annotations, look, Ey, h, c, state_mask, hidden_mask)
        log_p.append(log_softmax(logits)[xp.arange(N), y])
    return xp.stack(log_p, axis=1)


def word_forward(p, annotations, look, Ey, h, c, state_mask, hidden_mask):
    """The part of a step after attention: look (N, L), Ey (N, M), h (N, H), c (N, H) -> (logits (N, V), h, c), cache"""
    xp = xp_of(h)
    seen, context = context_forward(look, annotations)  # eq. 9, or 13
    z, gate = gate_forward(h, seen, p.W_beta, p.b_beta)  # eq. 6
    Eyhz = xp.concatenate([Ey, h, z], axis=1)
    gates, affine = affine_forward(Eyhz, xp.concatenate([p.W_x, p.W_h, p.W_z]), p.b)  # eq. 1
    (h, c), cell = lstm_cell_forward(gates, c)  # eqs. 2-3
    out, state = dropout_forward(h, state_mask)
    out, deep = deep_output_forward(Ey, out, z, p.L_h, p.L_z, p.b_m)  # eq. 7
    out, hidden = dropout_forward(out, hidden_mask)
    logits, vocabulary = affine_forward(out, p.L_o, p.b_o)
    return (logits, h, c), Word(context, gate, affine, cell, state, deep, hidden, vocabulary)


def word_backward(config, dlogits, dh, dc, cache, g):
    """dlogits (N, V), dh (N, H), dc (N, H) -> dannotations (N, L, D), dlook (N, L), dEy (N, M), dh, dc; adds to `g`"""
    M, H = config.M, config.H
    dout, dL_o, db_o = affine_backward(dlogits, cache.vocabulary)
    dout = dropout_backward(dout, cache.hidden)
    dEy_out, dout, dz_out, dL_h, dL_z, db_m = deep_output_backward(dout, cache.deep)
    dh = dh + dropout_backward(dout, cache.state)
    dgates, dc = lstm_cell_backward((dh, dc), cache.cell)
    dEyhz, dW, db = affine_backward(dgates, cache.affine)
    dEy, dh, dz = dEyhz[:, :M], dEyhz[:, M : M + H], dEyhz[:, M + H :]
    dh_gate, dseen, dW_beta, db_beta = gate_backward(dz + dz_out, cache.gate)
    dlook, dannotations = context_backward(dseen, cache.context)
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
    return dannotations, dlook, dEy + dEy_out, dh + dh_gate, dc


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
    """dscores (N, L) -> dannotations (N, L, D), dh (N, H); adds to `g`"""
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
