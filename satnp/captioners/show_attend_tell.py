"""Show, Attend and Tell with soft attention (Xu et al. 2015).

    (i, f, o, g)_t = (sigmoid, sigmoid, sigmoid, tanh)(E[y_{t-1}] W_x + h_{t-1} W_h + z_t W_z + b)      eq. 1
    c_t = f_t * c_{t-1} + i_t * g_t,    h_t = o_t * tanh(c_t)                                           eqs. 2-3
    e_ti = f_att(a_i, h_{t-1}),         alpha_t = softmax over i of e_t                                 eqs. 4-5
    z_t = beta_t sum_i alpha_ti a_i,    beta_t = sigmoid(h_{t-1} W_beta + b_beta)                       eqs. 6, 13
    h_0, c_0 = tanh(mean_i a_i W_h0 + b_h0), tanh(mean_i a_i W_c0 + b_c0)
    p(y_t) = softmax(tanh(E[y_{t-1}] + h_t L_h + z_t L_z + b_m) L_o + b_o)                              eq. 7

    loss = mean over captions of  -sum_t log p(y_t) + penalty * sum_i (1 - sum_t alpha_ti)^2            eq. 14

Only what depends on h_{t-1} is inside the loop over time. The same model written step by step, as printed above, is in
satnp/reference/show_attend_tell.py, and tests hold the two equal.

Where the authors' public code differs from the paper (the paper is the default; `Config` names what can be chosen):

    authors' code                                               here
    first input a zero vector, no start word                    <start>, an ordinary word
    weights 0.01 N(0, 1)                                        N(0, 1 / fan-in), so that no layer starts asleep
    W_h orthogonal, biases 0                                    the same
    penalty averaged over locations, summed over the batch      eq. 14: penalty = alpha_c N / L gives theirs
    early stopping on validation NLL                            on BLEU-4 of free-running captions, as in the paper
    no gradient clipping                                        the recipe's `clip`
    Adam with a wrong bias correction                           Kingma & Ba's
    dropout on h_t and on the deep output                       those, and on E[y_{t-1}] (`dropout`)
    f_att additive                                              `attention`: additive, general, dot
    beta a scalar (popular ports: a vector)                     `gate`: scalar, vector
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from satnp.backend import xp_of
from satnp.captioners.contract import State
from satnp.errors import InputError
from satnp.layers import (
    additive_scores_backward,
    additive_scores_forward,
    affine_backward,
    affine_forward,
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
    dropout_mask,
    embedding_backward,
    embedding_forward,
    gate_backward_preactivation,
    gate_forward,
    initial_state_backward,
    initial_state_forward,
    log_softmax,
    lstm_cell_backward,
    lstm_cell_forward,
    softmax_backward,
    softmax_forward,
)
from satnp.parameters import Parameters


@dataclass(frozen=True)
class Config:
    """Sizes (see the symbols in the README) and choices; the defaults are the paper's."""

    V: int
    D: int = 512
    M: int = 512
    H: int = 1000
    A: int = 512
    attention: str = "additive"  # additive, general or dot (which needs D = H)
    gate: str = "scalar"         # scalar: one beta a photo; vector: one a feature
    penalty: float = 1.0         # lambda of eq. 14
    dropout: float = 0.5         # of E[y_{t-1}], of h_t on its way out, of the deep output

    def __post_init__(self):
        if self.attention not in ("additive", "general", "dot"):
            raise InputError(f"attention is {self.attention!r}; choose additive, general or dot")
        if self.gate not in ("scalar", "vector"):
            raise InputError(f"gate is {self.gate!r}; choose scalar or vector")
        if self.attention == "dot" and self.D != self.H:
            raise InputError(f"dot attention needs D = H, but D is {self.D} and H is {self.H}; choose general attention")
        for name in ("V", "D", "M", "H", "A"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; choose a size of 1 or more")
        if not 0 <= self.penalty < float("inf"):
            raise InputError(f"penalty is {self.penalty}; choose 0 or more")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}; choose a rate from 0 to below 1")


class Noise(NamedTuple):
    """Dropout masks: words (T, N, M), state (T, N, H), hidden (T, N, M); None means no dropout."""

    words: object = None
    state: object = None
    hidden: object = None


class Cache(NamedTuple):
    params: object
    config: object
    annotations: object
    nll: object         # (), mean over captions of -sum_t log p(y_t)
    alphas: object      # (T, N, L)
    h_prev: object      # (T, N, H)
    z: object           # (T, N, D)
    steps: list
    start: object
    embedding: object
    dropouts: tuple
    words: object       # (T*N, M), after dropout
    deep: object
    vocabulary: object
    entropy: object
    doubly: object


class Step(NamedTuple):
    scores: object
    softmax: object
    gate: object
    cell: object


def shapes(config):
    """{name: shape} of the parameters, in the order of the equations."""
    V, D, M, H, A = config.V, config.D, config.M, config.H, config.A
    f_att = {
        "additive": {"W_a": (D, A), "W_s": (H, A), "b_a": (A,), "v": (A,), "c_a": (1,)},
        "general": {"W_a": (D, H)},
        "dot": {},
    }[config.attention]
    G = {"scalar": 1, "vector": D}[config.gate]
    return {
        "E": (V, M), "W_x": (M, 4 * H), "W_h": (H, 4 * H), "W_z": (D, 4 * H), "b": (4 * H,),
        **f_att,
        "W_beta": (H, G), "b_beta": (G,),
        "W_h0": (D, H), "b_h0": (H,), "W_c0": (D, H), "b_c0": (H,),
        "L_h": (H, M), "L_z": (D, M), "b_m": (M,), "L_o": (M, V), "b_o": (V,),
    }  # fmt: skip


def init(config, rng):
    """Parameters on the host, float32: N(0, 1 / fan-in), W_h orthogonal a gate, biases 0."""
    params = Parameters(shapes(config))
    for name, x in params.items():
        if name == "E":
            x[...] = rng.standard_normal(x.shape) / np.sqrt(x.shape[1])
        elif name == "W_h":
            for gate in range(4):
                x[:, gate * config.H : (gate + 1) * config.H] = _orthogonal(rng, config.H)
        elif not name.startswith(("b", "c")):
            x[...] = rng.standard_normal(x.shape) / np.sqrt(x.shape[0])
    return params


def _orthogonal(rng, H):
    q, r = np.linalg.qr(rng.standard_normal((H, H)))
    return q * np.sign(np.diag(r))


def draw_noise(config, T, N, rng):
    """Dropout masks for T steps of N captions, host arrays, time first: more padding changes no earlier sample."""
    if config.dropout == 0:
        return Noise()
    M, H = config.M, config.H
    mask = dropout_mask(rng, (T, N, M + H + M), config.dropout)
    return Noise(mask[:, :, :M], mask[:, :, M : M + H], mask[:, :, M + H :])


def forward(params, config, batch, noise):
    """Loss of a batch.

    batch: annotations (N, L, D), captions (N, T+1), mask (N, T); noise from draw_noise -> loss (), cache

    Units: nats a caption.
    """
    p, xp = params, xp_of(batch.annotations)
    annotations = batch.annotations
    N, L, D = annotations.shape
    y_prev, y = batch.captions[:, :-1].T, batch.captions[:, 1:].T
    mask = batch.mask.T
    T, H = len(y), config.H

    # before the loop: all that the photo and the given words decide
    words, embedding = embedding_forward(y_prev.ravel(), p.E)
    words, words_dropout = dropout_forward(words, _rows(noise.words))
    word_gates = (words @ p.W_x + p.b).reshape(T, N, 4 * H)
    keys = attention_keys(p, config, annotations)
    (h, c), start = initial_state_forward(annotations, p.W_h0, p.b_h0, p.W_c0, p.b_c0)

    # the loop: what depends on h_{t-1}
    alphas = xp.empty((T, N, L), dtype=h.dtype)
    h_all = xp.empty((T + 1, N, H), dtype=h.dtype)
    z_all = xp.empty((T, N, D), dtype=h.dtype)
    h_all[0] = h
    steps = []
    for t in range(T):
        scores, scores_cache = attention_scores_forward(p, config, keys, h)
        alpha, softmax_cache = softmax_forward(scores)
        context, _ = context_forward(alpha, annotations)
        z, gate_cache = gate_forward(h, context, p.W_beta, p.b_beta)
        gates = word_gates[t] + h @ p.W_h + z @ p.W_z
        (h, c), cell_cache = lstm_cell_forward(gates, c)
        alphas[t], z_all[t], h_all[t + 1] = alpha, z, h
        steps.append(Step(scores_cache, softmax_cache, gate_cache, cell_cache))

    # after the loop: the words that all states predict
    h_out, state_dropout = dropout_forward(h_all[1:].reshape(T * N, H), _rows(noise.state))
    hidden, deep = deep_output_forward(words, h_out, z_all.reshape(T * N, D), p.L_h, p.L_z, p.b_m)
    hidden, hidden_dropout = dropout_forward(hidden, _rows(noise.hidden))
    logits, vocabulary = affine_forward(hidden, p.L_o, p.b_o)
    nll, entropy = cross_entropy_forward(logits, y.ravel(), mask.ravel() / N)
    penalty, doubly = doubly_stochastic_forward(alphas, mask)
    loss = nll + config.penalty * penalty

    dropouts = words_dropout, state_dropout, hidden_dropout
    return loss, Cache(
        p, config, annotations, nll, alphas, h_all[:-1], z_all, steps, start, embedding, dropouts, words,
        deep, vocabulary, entropy, doubly,
    )  # fmt: skip


def backward(cache, grads, frozen=False):
    """Adds dloss/dparams into `grads` -> dannotations (N, L, D), or None where the encoder is frozen."""
    p, config, annotations, g = cache.params, cache.config, cache.annotations, grads
    words_dropout, state_dropout, hidden_dropout = cache.dropouts
    xp = xp_of(annotations)
    T, N, L = cache.alphas.shape
    D, H = config.D, config.H
    one = xp.ones((), dtype=annotations.dtype)

    # after the loop, backwards
    dalphas = doubly_stochastic_backward(config.penalty * one, cache.doubly)
    dlogits = cross_entropy_backward(one, cache.entropy)
    dhidden, dL_o, db_o = affine_backward(dlogits, cache.vocabulary)
    dhidden = dropout_backward(dhidden, hidden_dropout)
    dwords, dh_out, dz_out, dL_h, dL_z, db_m = deep_output_backward(dhidden, cache.deep)
    dh_out = dropout_backward(dh_out, state_dropout).reshape(T, N, H)
    dz_out = dz_out.reshape(T, N, D)

    # the loop, backwards
    dgates_all = xp.empty((T, N, 4 * H), dtype=dh_out.dtype)
    dgate_all = xp.empty((T, N, p.b_beta.shape[0]), dtype=dh_out.dtype)
    dcontext_all = xp.empty((T, N, D), dtype=dh_out.dtype)
    dqueries, datt = [], Attention()
    dh = dc = xp.zeros((N, H), dtype=dh_out.dtype)
    for t in reversed(range(T)):
        step = cache.steps[t]
        dgates, dc = lstm_cell_backward((dh + dh_out[t], dc), step.cell)
        dz = dz_out[t] + dgates @ p.W_z.T
        dgate, dcontext = gate_backward_preactivation(dz, step.gate), dz * step.gate.beta
        dalpha = (annotations @ dcontext[:, :, None])[:, :, 0] + dalphas[t]
        dscores = softmax_backward(dalpha, step.softmax)
        dh_att, dquery, datt = attention_scores_backward(p, config, dscores, step.scores, datt)
        dh = dgates @ p.W_h.T + dgate @ p.W_beta.T + dh_att
        dgates_all[t], dgate_all[t], dcontext_all[t] = dgates, dgate, dcontext
        dqueries.append(dquery)

    # before the loop, backwards, with every weight gradient as one product over all steps
    dannotations, dW_h0, db_h0, dW_c0, db_c0 = initial_state_backward((dh, dc), cache.start)
    h_prev, z = cache.h_prev.reshape(T * N, H), cache.z.reshape(T * N, D)
    dgates, dgate = _rows(dgates_all), _rows(dgate_all)
    dwords = dwords + dgates @ p.W_x.T
    g.E[...] += embedding_backward(dropout_backward(dwords, words_dropout), cache.embedding)
    g.W_x[...] += cache.words.T @ dgates
    g.W_h[...] += h_prev.T @ dgates
    g.W_z[...] += z.T @ dgates
    g.b[...] += dgates.sum(axis=0)
    dannotations_att = attention_keys_backward(p, config, annotations, h_prev, dqueries[::-1], datt, g, frozen)
    g.W_beta[...] += h_prev.T @ dgate
    g.b_beta[...] += dgate.sum(axis=0)
    g.W_h0[...] += dW_h0
    g.b_h0[...] += db_h0
    g.W_c0[...] += dW_c0
    g.b_c0[...] += db_c0
    g.L_h[...] += dL_h
    g.L_z[...] += dL_z
    g.b_m[...] += db_m
    g.L_o[...] += dL_o
    g.b_o[...] += db_o
    if frozen:
        return None
    dannotations = dannotations + cache.alphas.transpose(1, 2, 0) @ dcontext_all.transpose(1, 0, 2)
    return dannotations + dannotations_att


def start(params, config, annotations):
    """State before the first word: annotations (N, L, D) -> State with one beam a photo."""
    (h, c), _ = initial_state_forward(annotations, params.W_h0, params.b_h0, params.W_c0, params.b_c0)
    return State((annotations, attention_keys(params, config, annotations)), (h[:, None], c[:, None]))


def step(params, config, state, words):
    """One word more: words (N, B) the last ones -> log_probs (N, B, V), state, alpha (N, B, L)"""
    p, xp = params, xp_of(words)
    (annotations, keys), (h, c) = state
    N, B, H = h.shape
    scores = [attention_scores_forward(p, config, keys, h[:, beam])[0] for beam in range(B)]
    alpha, _ = softmax_forward(xp.stack(scores, axis=1))
    context = (alpha @ annotations).reshape(N * B, -1)
    h = h.reshape(N * B, H)
    z, _ = gate_forward(h, context, p.W_beta, p.b_beta)
    words, _ = embedding_forward(words.ravel(), p.E)
    gates = words @ p.W_x + h @ p.W_h + z @ p.W_z + p.b
    (h, c), _ = lstm_cell_forward(gates, c.reshape(N * B, H))
    hidden, _ = deep_output_forward(words, h, z, p.L_h, p.L_z, p.b_m)
    logits, _ = affine_forward(hidden, p.L_o, p.b_o)
    beams = h.reshape(N, B, H), c.reshape(N, B, H)
    return log_softmax(logits).reshape(N, B, -1), State(state.photo, beams), alpha


class Attention(NamedTuple):
    """Sums over the steps of the gradients that f_att shares between them."""

    keys: object = 0
    v: object = 0
    c: object = 0


def attention_keys(p, config, annotations):
    """The part of f_att that depends on the photo alone: annotations (N, L, D) -> keys (N, L, A)"""
    if config.attention == "dot":
        return annotations
    N, L, D = annotations.shape
    keys = annotations.reshape(N * L, D) @ p.W_a
    if config.attention == "additive":
        keys += p.b_a
    return keys.reshape(N, L, -1)


def attention_keys_backward(p, config, annotations, h_prev, dqueries, sums, g, frozen):
    """Adds f_att's weight gradients, one product each over all steps -> dannotations (N, L, D), None where frozen

    h_prev (T*N, H), dqueries: T of (N, A), sums: the gradients that the steps share
    """
    if config.attention == "dot":
        return sums.keys
    N, L, D = annotations.shape
    dkeys = sums.keys.reshape(N * L, -1)
    g.W_a[...] += annotations.reshape(N * L, D).T @ dkeys
    if config.attention == "additive":
        g.W_s[...] += h_prev.T @ _rows(xp_of(dkeys).stack(dqueries))
        g.v[...] += sums.v
        g.c_a[...] += sums.c
        g.b_a[...] += dkeys.sum(axis=0)
    return None if frozen else (dkeys @ p.W_a.T).reshape(N, L, D)


def attention_scores_forward(p, config, keys, h):
    """e_t = f_att(a, h_{t-1}): keys (N, L, A), h (N, H) -> scores (N, L)"""
    if config.attention == "additive":
        return additive_scores_forward(keys, h @ p.W_s, p.v, p.c_a)
    return dot_scores_forward(keys, h * _query_scale(config))


def attention_scores_backward(p, config, dscores, cache, sums):
    """dscores (N, L) -> dh (N, H), dquery (N, A), the sums so far plus this step's"""
    if config.attention == "additive":
        dkeys, dquery, dv, dc = additive_scores_backward(dscores, cache)
        dh = dquery @ p.W_s.T
    else:
        dkeys, dquery = dot_scores_backward(dscores, cache)
        dv = dc = 0
        dh = dquery * _query_scale(config)
    dkeys += sums.keys
    return dh, dquery, Attention(dkeys, sums.v + dv, sums.c + dc)


def _query_scale(config):
    return config.D**-0.5 if config.attention == "dot" else 1


def _rows(x):
    """(T, N, H) -> (T*N, H): one product over all steps."""
    return None if x is None else x.reshape(-1, x.shape[-1])
