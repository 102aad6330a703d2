"""Show, Attend and Tell with soft and with hard attention (Xu et al. 2015).

    (i, f, o, g)_t = (sigmoid, sigmoid, sigmoid, tanh)(E[y_{t-1}] W_x + h_{t-1} W_h + z_t W_z + b)      eq. 1
    c_t = f_t * c_{t-1} + i_t * g_t,    h_t = o_t * tanh(c_t)                                           eqs. 2-3
    e_ti = f_att(a_i, h_{t-1}),         alpha_t = softmax over i of e_t                                 eqs. 4-5
    z_t = beta_t sum_i alpha_ti a_i,    beta_t = sigmoid(h_{t-1} W_beta + b_beta)                       eqs. 6, 13
    h_0, c_0 = tanh(mean_i a_i W_h0 + b_h0), tanh(mean_i a_i W_c0 + b_c0)
    p(y_t) = softmax(tanh(E[y_{t-1}] + h_t L_h + z_t L_z + b_m) L_o + b_o)                              eq. 7

    loss = mean over captions of  -sum_t log p(y_t) + penalty * sum_i (1 - sum_t alpha_ti)^2            eq. 14

Hard attention looks at one location, drawn from the weights, and climbs the bound L_s <= log p(y | a) of eq. 10 by its
sampled gradient (section 4.1). Of the cost C = -L_s, with r = sum_t log p(y_t | s, a) the reward of the caption:

    s_t ~ Multinoulli(alpha_t),   z_t = beta_t sum_i s_ti a_i                                           eqs. 8-9
    dC/de_t = -lambda_r (r - b) (s_t - alpha_t)             the REINFORCE term of the scores
              + lambda_e alpha_t * (log alpha_t + H_t)      the entropy term; H_t the entropy of alpha_t
    b_k = 0.9 b_{k-1} + 0.1 r                               the baseline; the gradient of step k uses b_{k-1}

With probability one half an image is shown its expected value alpha_t in place of s_t; only there does the likelihood
reach the scores. These terms go on through f_att into its weights and into h_{t-1}, so through the whole recurrence.

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
    f_att additive                                              `f_att`: additive, general, dot
    beta a scalar (popular ports: a vector)                     `gate`: scalar, vector
    hard: reward the mean over words of a cost, /10             the sum of log p: reward_weight = N / (10 T) gives theirs
    hard: entropy weight 0.002, not divided by N                divided like all else: entropy_weight = 0.002 N
    hard: one coin a minibatch                                  one an image (`coin`)
    hard: no beta in eq. 9, but in the code                     beta, as in the code
    hard: the penalty's gradient lost by accident               kept; `penalty` = 0 drops it
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import to_device, xp_of
from satnp.arrays.elementwise import elementwise
from satnp.arrays.parameters import Parameters
from satnp.arrays.products import few_rows_product, for_few_rows
from satnp.captioners.contract import State
from satnp.errors import InputError
from satnp.estimators import (
    after,
    draw,
    entropy,
    entropy_gradient,
    leave_one_out,
    local_expectation,
    moving_average,
    reinforce,
    straight_through,
    to_go,
    total,
)
from satnp.layers import (
    SoftmaxCache,
    additive_keys_backward,
    additive_look_backward,
    additive_query_backward,
    additive_scores_forward,
    affine_forward,
    beam_additive_scores,
    beam_products,
    context_forward,
    context_weights_backward,
    deep_output_backward,
    deep_output_forward,
    dot_keys_backward,
    dot_query_backward,
    dot_scores_forward,
    doubly_stochastic_backward,
    doubly_stochastic_forward,
    dropout_backward,
    dropout_forward,
    dropout_mask,
    embedding_backward,
    embedding_forward,
    exponentials,
    gate_backward_preactivation,
    gate_forward,
    initial_state_backward,
    initial_state_forward,
    log_softmax,
    lstm_cell_backward,
    lstm_cell_forward,
    soft_attention,
    softmax_backward,
    softmax_forward,
    vocabulary_backward,
    vocabulary_forward,
)

LARGEST = 1_000_000  # of the sizes below


@dataclass(frozen=True)
class Config:
    """Sizes (see the symbols in the README) and choices; the defaults are the paper's."""

    V: int
    D: int = 512
    M: int = 512
    H: int = 1000
    A: int = 512
    attention: str = "soft"      # soft: alpha_t weighs all locations; hard: one location is drawn from it
    f_att: str = "additive"      # additive, general or dot (which needs D = H)
    gate: str = "scalar"         # scalar: one beta a photo; vector: one a feature
    penalty: float = 1.0         # lambda of eq. 14
    dropout: float = 0.5         # of E[y_{t-1}], of h_t on its way out, of the deep output

    # hard attention only; the paper gives no values for its two lambdas
    estimator: str = "reinforce"      # reinforce, reward_to_go, local_expectation or gumbel_st
    baseline: str = "moving_average"  # none, moving_average or leave_one_out (which needs samples >= 2)
    samples: int = 1                  # S, paths drawn for each caption
    coin: str = "image"               # alpha_t in place of s_t, one coin an image, one a minibatch, or none
    coin_chance: float = 0.5          # of alpha_t; the paper's coin is fair
    reward: str = "sum"               # sum or mean of log p over a caption's words
    reward_weight: float = 1.0        # lambda_r
    entropy_weight: float = 0.01      # lambda_e
    temperature: float = 1.0          # of gumbel_st
    decoding: str = "expectation"     # expectation, argmax or sampling

    def __post_init__(self):
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} is {getattr(self, name)!r}; choose {', '.join(choices[:-1])} or {choices[-1]}")
        if self.f_att == "dot" and self.D != self.H:
            raise InputError(f"f_att dot needs D = H, but D is {self.D} and H is {self.H}; choose general")
        for name in ("V", "D", "M", "H", "A", "samples"):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise InputError(f"{name} is {getattr(self, name)}; choose 1 to {LARGEST}")
        for name in ("penalty", "reward_weight", "entropy_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)}; choose 0 or more")
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"temperature is {self.temperature}; choose a number above 0")
        if not 0 <= self.coin_chance <= 1:
            raise InputError(f"coin_chance is {self.coin_chance}; choose a chance from 0 to 1")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}; choose a rate from 0 to below 1")
        if self.hard and self.baseline == "leave_one_out" and self.samples < 2:
            raise InputError("baseline leave_one_out compares samples of one caption; choose samples of 2 or more")

    @property
    def hard(self):
        return self.attention == "hard"


CHOICES = {
    "attention": ("soft", "hard"),
    "f_att": ("additive", "general", "dot"),
    "gate": ("scalar", "vector"),
    "estimator": ("reinforce", "reward_to_go", "local_expectation", "gumbel_st"),
    "baseline": ("none", "moving_average", "leave_one_out"),
    "coin": ("image", "minibatch", "none"),
    "reward": ("sum", "mean"),
    "decoding": ("expectation", "argmax", "sampling"),
}


class Noise(NamedTuple):
    """What is random in a pass over N captions, and what training remembers from the passes before.

    Dropout masks words (T, N, M), state (T, N, H), hidden (T, N, M); None means no dropout. Hard attention: gumbel
    (T, S*N, L) draws the locations, sample by sample (rows 0 to N-1 are sample 0); None means no drawing, so that
    `decoding` says where to look. expected (N,) is 1 where alpha_t is used in place of s_t. baseline () is b.
    """

    words: object = None
    state: object = None
    hidden: object = None
    gumbel: object = None
    expected: object = None
    baseline: object = None


class Cache(NamedTuple):
    params: object
    config: object
    annotations: object
    nll: object         # (), mean over captions of -sum_t log p(y_t)
    alphas: object      # (T, N, L)
    looks: object       # (T, N, L), what the context was formed with: alpha_t, or s_t
    hz: object          # (T + 1, N, H + D), h_{t-1} and z_t; the last row has h_T alone
    queries: object     # (T, N, A), h_{t-1} as f_att sees it; None where that is h_{t-1} itself
    steps: list
    start: object
    embedding: object
    dropouts: tuple
    words: object       # (T*N, M), after dropout
    deep: object
    vocabulary: object
    doubly: object
    hard: object        # Hard, or None
    baseline: object    # b, for the next pass

    @property
    def h_prev(self):
        """h_{t-1} (T, N, H)"""
        return self.hz[:-1, :, : self.config.H]

    @property
    def z(self):
        """z_t (T, N, D)"""
        return self.hz[:-1, :, self.config.H :]

    @property
    def told(self):
        betas = [step.gate.beta for step in self.steps]
        return Told(self.config, self.nll, self.alphas, betas, self.doubly.mask, self.hard, self.baseline)


class Told(NamedTuple):
    """What a log tells of a pass. It holds nothing that only the way back needs."""

    config: object
    nll: object
    alphas: object
    betas: list         # T of (N, G)
    mask: object        # (T, N)
    hard: object
    baseline: object


class Hard(NamedTuple):
    """What hard attention keeps of a pass, N being S times the captions: scores (T, N, L), gumbel (T, N, L),
    expected (N,), log_p (T, N) and mask (T, N) of the words, ahead (T, N, L) or None, and the baseline () it met."""

    scores: object
    gumbel: object
    expected: object
    log_p: object
    mask: object
    ahead: object
    baseline: object


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
    }[config.f_att]
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


def draw_noise(config, T, N, L, rng):
    """Dropout masks, coins and Gumbel numbers for T steps of N captions; host arrays, drawn step by step.

    More padding changes no earlier number.
    """
    M, H, S = config.M, config.H, config.samples
    expected, masks, gumbel = None, [], []
    if config.hard:
        coins = {"image": N, "minibatch": 1, "none": 0}[config.coin]
        expected = np.resize(rng.random(coins) < config.coin_chance, N) if coins else np.zeros(N)
        expected = expected.astype(np.float32)
    for _ in range(T):
        if config.dropout:
            masks.append(dropout_mask(rng, (N, M + H + M), config.dropout))
        if config.hard:
            gumbel.append(rng.gumbel(size=(S * N, L)).astype(np.float32))
    masks = np.stack(masks) if masks else None
    words, state, hidden = (None, None, None) if masks is None else np.split(masks, (M, M + H), axis=2)
    return Noise(words, state, hidden, np.stack(gumbel) if gumbel else None, expected)


def forward(params, config, batch, noise):
    """Loss of a batch; with hard attention and S samples, the mean over the samples.

    batch: annotations (N, L, D), captions (N, T+1), mask (N, T); noise from draw_noise -> loss (), cache

    Units: nats a caption.
    """
    p, xp = params, xp_of(batch.annotations)
    if config.hard and noise.gumbel is not None:
        batch, noise = _for_each_sample(config.samples, batch, noise)
    annotations = batch.annotations
    N, L, D = annotations.shape
    y_prev, y = batch.captions[:, :-1].T, batch.captions[:, 1:].T
    mask = batch.mask.T
    T, H = len(y), config.H

    # before the loop: all that the photo and the given words decide
    words, embedding = embedding_forward(y_prev.ravel(), p.E)
    words, words_dropout = dropout_forward(words, _rows(noise.words))
    word_gates = words @ p.W_x
    word_gates += p.b
    word_gates = word_gates.reshape(T, N, 4 * H)
    keys, F = attention_keys(p, config, annotations)
    (h, c), start = initial_state_forward(annotations, p.W_h0, p.b_h0, p.W_c0, p.b_c0)

    # the loop: what depends on h_{t-1}; what all steps make of a kind lies side by side, and in hz h_{t-1} beside z_t
    hz = xp.empty((T + 1, N, H + D), dtype=h.dtype)
    alphas = xp.empty((T, N, L), dtype=h.dtype)
    queries = xp.empty((T, N, config.A), dtype=h.dtype) if config.f_att == "additive" else None
    looks, all_scores = (xp.empty_like(alphas), xp.empty_like(alphas)) if config.hard else (alphas, None)
    W_hz = for_few_rows(p.stacked("W_h", "W_z").T, N)
    gumbel = [None] * T if noise.gumbel is None else noise.gumbel
    steps = []
    hz[0, :, :H] = h
    for t in range(T):
        query = None if queries is None else queries[t]
        scores, scores_cache = attention_scores_forward(p, config, keys, h, F, out=query)
        if config.hard:
            all_scores[t], (alphas[t], _) = scores, softmax_forward(scores)
            alpha = alphas[t]
            looks[t] = choose(config, scores, alpha, gumbel[t], noise.expected)
            context, _ = context_forward(looks[t], annotations)
        else:
            alpha, context = soft_attention(scores, annotations, out=alphas[t])
        _, gate_cache = gate_forward(h, context, p.W_beta, p.b_beta, out=hz[t, :, H:])  # z_t
        (h, c), cell_cache = lstm_cell_forward(few_rows_product(hz[t], W_hz), c, word_gates[t])
        hz[t + 1, :, :H] = h
        gate_cache = gate_cache._replace(h=None)  # hz has it
        steps.append(Step(scores_cache, SoftmaxCache(alpha), gate_cache, cell_cache))
    del W_hz  # as large as the weights

    # after the loop: the words that all states predict
    h_out, state_dropout = dropout_forward(_rows(hz[1:, :, :H]), _rows(noise.state))
    hidden, deep = deep_output_forward(words, h_out, _rows(hz[:-1, :, H:]), p.L_h, p.L_z, p.b_m)
    hidden, hidden_dropout = dropout_forward(hidden, _rows(noise.hidden))
    nll, vocabulary = vocabulary_forward(hidden, p.L_o, p.b_o, y.ravel(), mask.ravel() / N)
    penalty, doubly = doubly_stochastic_forward(alphas, mask)
    loss = nll + config.penalty * penalty

    hard, baseline = None, noise.baseline
    if config.hard and noise.gumbel is not None:
        log_p = vocabulary.log_p.reshape(T, N)
        ahead = None
        if config.estimator == "local_expectation":
            ahead = look_ahead(p, config, annotations, word_gates, words, hz[:-1, :, :H], steps, noise, y)
        baseline = xp.zeros((), dtype=mask.dtype) if baseline is None else baseline
        hard = Hard(all_scores, noise.gumbel, noise.expected, log_p, mask, ahead, baseline)
        baseline = moving_average(baseline, _reward(config, total, hard)[0], 1 - noise.expected)
        loss = loss - config.entropy_weight * (mask * entropy(all_scores)).sum() / N
    dropouts = words_dropout, state_dropout, hidden_dropout
    return loss, Cache(
        p, config, annotations, nll, alphas, looks, hz, queries, steps, start, embedding, dropouts, words,
        deep, vocabulary, doubly, hard, baseline,
    )  # fmt: skip


def backward(cache, grads, frozen=False):
    """Adds dloss/dparams into `grads` -> dannotations (N, L, D), or None where the encoder is frozen.

    Of a cache that nobody else holds, what is large is let go when it has been used.
    """
    p, config, annotations, g = cache.params, cache.config, cache.annotations, grads
    words_dropout, state_dropout, hidden_dropout = cache.dropouts
    hard = cache.hard
    xp = xp_of(annotations)
    T, N, L = cache.alphas.shape
    D, H = config.D, config.H

    # after the loop, backwards
    dalphas = doubly_stochastic_backward(config.penalty, cache.doubly)
    dscores_hard = None if hard is None else score_gradients(config, cache)
    dhidden, dL_o, db_o = vocabulary_backward(1.0, cache.vocabulary)
    cache = cache._replace(vocabulary=None)  # the largest of it, (T*N, V)
    g.add(L_o=dL_o, b_o=db_o)
    del dL_o  # a gradient as large as the vocabulary is not kept
    dhidden = dropout_backward(dhidden, hidden_dropout)
    dwords, dh_out, dz_out, dL_h, dL_z, db_m = deep_output_backward(dhidden, cache.deep)
    g.add(L_h=dL_h, L_z=dL_z, b_m=db_m)
    dh_out = dropout_backward(dh_out, state_dropout).reshape(T, N, H)
    dz_out = dz_out.reshape(T, N, D)

    # the loop, backwards
    W_hz = p.stacked("W_h", "W_z")
    dgates, dgate, dcontext, dscores = (
        xp.empty((T, N, size), dtype=dh_out.dtype) for size in (4 * H, p.W_beta.shape[1], D, L)
    )
    dqueries = None if cache.queries is None else xp.empty_like(cache.queries)
    nothing = xp.zeros((N, H), dtype=dh_out.dtype)
    dh_out = [nothing, *dh_out]  # dh_out[t] is that of h_t; no word hears h_0
    dh, dc = dh_out[T], nothing
    for t in reversed(range(T)):
        step, dquery = cache.steps[t], None if dqueries is None else dqueries[t]
        _, dc = lstm_cell_backward((dh, dc), step.cell, out=dgates[t])
        dhz = few_rows_product(dgates[t], W_hz)
        dz, _ = _through_gate(dz_out[t], dhz[:, H:], step.gate.beta, out=(None, dcontext[t]))
        gate_backward_preactivation(dz, step.gate, out=dgate[t])
        if hard is None:
            dalpha = context_weights_backward(dcontext[t], annotations, dalphas[t])
            dh_att = attention_look_backward(p, config, dalpha, step, out=(dscores[t], dquery))
        else:  # the likelihood stops at a location that was drawn
            expected, dlook = hard.expected[:, None], context_weights_backward(dcontext[t], annotations)
            dscores[t] = softmax_backward(expected * dlook + dalphas[t], step.softmax) + dscores_hard[t]
            if config.estimator == "gumbel_st":
                dsample = (1 - expected) * dlook
                dscores[t] += straight_through(dsample, hard.scores[t], hard.gumbel[t], config.temperature)
            dh_att = attention_query_backward(p, config, dscores[t], step.scores, out=dquery)
        dh = _to_state(dh_out[t], dhz[:, :H], dh_att, *_outer(dgate[t], p.W_beta))

    # before the loop, backwards, with every weight gradient as one product over all steps
    dannotations, dW_h0, db_h0, dW_c0, db_c0 = initial_state_backward((dh, dc), cache.start)
    g.add(W_h0=dW_h0, b_h0=db_h0, W_c0=dW_c0, b_c0=db_c0)
    hz, dgates, dgate = _rows(cache.hz[:-1]), _rows(dgates), _rows(dgate)
    h_prev = hz[:, :H]
    dwords += dgates @ p.W_x.T
    g.add(W_x=cache.words.T @ dgates, b=dgates.sum(axis=0), W_beta=h_prev.T @ dgate, b_beta=dgate.sum(axis=0))
    dW_hz = g.stacked("W_h", "W_z")
    dW_hz += hz.T @ dgates
    del dgates  # the largest that the loop made
    g.add(E=embedding_backward(dropout_backward(dwords, words_dropout), cache.embedding))
    dannotations_att = attention_keys_backward(p, config, cache, h_prev, dscores, dqueries, g, frozen)
    if frozen:
        return None
    dannotations_context = cache.looks.transpose(1, 2, 0) @ dcontext.transpose(1, 0, 2)
    dannotations = _sum(dannotations, dannotations_context, dannotations_att)
    return dannotations if hard is None else dannotations.reshape(config.samples, -1, L, D).sum(axis=0)


@elementwise
def _through_gate(dz_out, dz_next, beta):
    dz = dz_out + dz_next
    return dz, dz * beta


@elementwise
def _to_state(dh_out, dh_next, dh_att, dgate, weight):
    return dh_out + dh_next + dh_att + dgate * weight


@elementwise
def _sum(a, b, c):
    return a + b + c


def _outer(dgate, W):
    """Two factors whose broadcast product is dgate W^T, (N, H): the one gate of a row needs no matrix product."""
    return (dgate, W.T) if W.shape[1] == 1 else (dgate @ W.T, 1.0)


def diagnostics(told):
    """{name: ()} of a pass: the entropy of alpha_t in nats and beta_t, means over the words. With hard attention also the
    share of the images at their expected value, the mean reward of the others in nats, and the baseline that it met."""
    xp, hard, mask = xp_of(told.alphas), told.hard, told.mask
    # a softmax forgets what is added to all scores, so log alpha does for them
    scores = xp.log(xp.maximum(told.alphas, 1e-30)) if hard is None else hard.scores
    beta = xp.stack([beta.mean(axis=1) for beta in told.betas])
    found = {
        "alpha_entropy": (mask * entropy(scores)).sum() / mask.sum(),
        "beta": (mask * beta).sum() / mask.sum(),
    }
    if hard is not None:
        reward, sampled = _reward(told.config, total, hard)[0], 1 - hard.expected
        found["reward"] = (sampled * reward).sum() / xp.maximum(sampled.sum(), 1)
        found["baseline"] = hard.baseline
        found["expected"] = hard.expected.mean()
    return found


def weights(told):
    """{name: ()} of what the means in `diagnostics` and the baseline are over: they make one mean of several passes'."""
    words, hard = told.mask.sum(), told.hard
    found = {"alpha_entropy": words, "beta": words}
    if hard is not None:  # a pass where no image was sampled says next to nothing, and leaves b as it was
        sampled = xp_of(hard.mask).maximum((1 - hard.expected).sum(), 1e-20)
        found |= {"reward": sampled, "baseline": sampled, "expected": hard.mask.shape[1]}
    return found


def choose(config, scores, alpha, gumbel=None, expected=None):
    """Where hard attention looks: s_t drawn from alpha_t (N, L), or alpha_t itself where `expected` (N,) is 1.

    Without gumbel (N, L) nothing is drawn: the largest alpha_t where `decoding` says argmax, else alpha_t.
    """
    if gumbel is None:
        return draw(scores, xp_of(scores).zeros_like(alpha)) if config.decoding == "argmax" else alpha
    sample = draw(scores, gumbel)
    return sample if expected is None else xp_of(scores).where(expected[:, None] > 0, alpha, sample)


def score_gradients(config, cache):
    """What hard attention adds to dloss/de_t for all steps at once: REINFORCE and entropy -> dscores (T, N, L)"""
    hard, alphas, looks = cache.hard, cache.alphas, cache.looks
    share = hard.mask / hard.mask.shape[1]  # of each word in a mean over captions
    dscores = entropy_gradient(hard.scores, alphas, config.entropy_weight * share)
    if config.estimator == "gumbel_st":
        return dscores
    paid = config.reward_weight * share
    if config.estimator == "local_expectation":
        now = paid * (1 - hard.expected) / _words_counted(config, hard)
        return dscores + local_expectation(now[:, :, None] * hard.ahead, looks, alphas, paid * advantage(config, hard))
    return dscores + reinforce(looks, alphas, paid * advantage(config, hard))


# What a choice is paid with, by estimator: a function of estimators/rewards.py.
REWARDS = {"reinforce": total, "reward_to_go": to_go, "local_expectation": after}


def advantage(config, hard):
    """r - b of each choice: (T, N)"""
    part = REWARDS[config.estimator]
    reward = _reward(config, part, hard)
    if config.baseline == "none":
        return reward
    if config.baseline == "moving_average":
        # b is of whole captions; a part of one is compared with its share of the words
        return reward - hard.baseline * part(hard.mask, hard.mask) / _length(hard)
    T, rows = reward.shape
    of_samples = reward.reshape(T, config.samples, -1).transpose(1, 0, 2)
    return reward - leave_one_out(of_samples).transpose(1, 0, 2).reshape(T, rows)


def _reward(config, part, hard):
    return part(hard.log_p, hard.mask) / _words_counted(config, hard)


def _words_counted(config, hard):
    """What a reward is divided by: 1, or the caption's words where it is a mean. (N,)"""
    return _length(hard) if config.reward == "mean" else 1


def _length(hard):
    """Words of each caption (N,), 1 for one of padding alone."""
    return xp_of(hard.mask).maximum(hard.mask.sum(axis=0), 1)


def look_ahead(p, config, annotations, word_gates, words, h_prev, steps, noise, targets):
    """What each location would have said: log p(y_t | s_1 .. s_{t-1}, s_t = i) -> (T, N, L)

    L evaluations of cell and output a step, from the state that the drawn path has reached; dropout as in the pass.
    """
    xp, (T, N, _) = xp_of(annotations), h_prev.shape
    L, D = annotations.shape[1:]
    words = words.reshape(T, N, -1)
    ahead = xp.empty((T, N, L), dtype=h_prev.dtype)

    def each(x):
        """(N, K) -> (N*L, K), each row L times"""
        return None if x is None else xp.repeat(x, L, axis=0)

    for t, step in enumerate(steps):
        z = (step.gate.beta[:, None] * annotations).reshape(N * L, D)
        gates = each(word_gates[t] + h_prev[t] @ p.W_h) + z @ p.W_z
        (h, _), _ = lstm_cell_forward(gates, each(step.cell.c_prev))
        h, _ = dropout_forward(h, each(None if noise.state is None else noise.state[t]))
        hidden, _ = deep_output_forward(each(words[t]), h, z, p.L_h, p.L_z, p.b_m)
        hidden, _ = dropout_forward(hidden, each(None if noise.hidden is None else noise.hidden[t]))
        logits, _ = affine_forward(hidden, p.L_o, p.b_o)
        log_p = log_softmax(logits)[xp.arange(N * L), xp.repeat(targets[t], L)]
        ahead[t] = log_p.reshape(N, L)
    return ahead


def _for_each_sample(S, batch, noise):
    """The batch S times over, sample by sample; the samples of a caption share its dropout and its coin."""
    if S == 1:
        return batch, noise
    xp = xp_of(batch.mask)

    def again(x, axis):
        return None if x is None else xp.concatenate([x] * S, axis=axis)

    masks = (again(x, 1) for x in (noise.words, noise.state, noise.hidden))
    batch = type(batch)(*(again(x, 0) for x in batch))
    return batch, Noise(*masks, noise.gumbel, again(noise.expected, 0), noise.baseline)


def decoding_noise(config, N, L, steps, rng):
    """Gumbel numbers (N, steps, L) for decoding that draws its locations, on the host; None where nothing is drawn."""
    if config.hard and config.decoding == "sampling":
        return rng.gumbel(size=(N, steps, L)).astype(np.float32)
    return None


def start(params, config, annotations, gumbel=None):
    """State before the first word: annotations (N, L, D), gumbel from decoding_noise -> State of one caption a photo"""
    (h, c), _ = initial_state_forward(annotations, params.W_h0, params.b_h0, params.W_c0, params.b_c0)
    keys, F = attention_keys(params, config, annotations)
    photo, captions = (annotations, keys, F), (h, c)
    if gumbel is not None:
        photo, captions = (*photo, gumbel), (*captions, xp_of(h).zeros(len(h), dtype=int))
    return State(photo, captions, np.arange(len(h)))


def step(params, config, state, words, parents):
    """One word more: words (R,) go on with the captions `parents` (R,) of state -> log_probs (R, V), State, look (R, L)

    look is alpha_t with soft attention, and what `decoding` made of it with hard attention. Captions that go on with the
    same one look alike: what depends on h_{t-1} alone is computed once for them.
    """
    p, (annotations, keys, F, *gumbel), xp = params, state.photo, xp_of(state.photo[0])
    begun, back = np.unique(parents, return_inverse=True)
    photos, begun, back = state.photos[begun], to_device(begun, xp), to_device(back, xp)
    h, c, *t = (x[begun] for x in state.captions)  # the last where locations are drawn
    if config.f_att == "additive":
        scores = beam_additive_scores(keys, F, h @ p.W_s, p.v, p.c_a, photos)
    else:
        scores = beam_products(h * _query_scale(config), keys.swapaxes(1, 2), photos)
    look, _ = softmax_forward(scores)
    if config.hard:  # captions of a photo share its numbers
        numbers = gumbel[0][to_device(photos, xp), t[0]] if gumbel else None
        look = choose(config, scores, look, numbers)
    z, _ = gate_forward(h, beam_products(look, annotations, photos), p.W_beta, p.b_beta)
    said, which = (to_device(x, xp) for x in np.unique(words, return_inverse=True))
    words, _ = embedding_forward(said, p.E)
    gates = (xp.concatenate([h, z], axis=1) @ p.stacked("W_h", "W_z"))[back]
    gates += (words @ p.W_x + p.b)[which]
    (h, c), _ = lstm_cell_forward(gates, c[back])
    hidden, _ = deep_output_forward(words[which], h, z[back], p.L_h, p.L_z, p.b_m)
    logits, _ = affine_forward(hidden, p.L_o, p.b_o)
    captions = h, c, *(drawn[back] + 1 for drawn in t)
    return log_softmax(logits), State(state.photo, captions, state.photos[parents]), look[back]


def attention_keys(p, config, annotations):
    """The part of f_att that depends on the photo alone: annotations (N, L, D) -> keys (N, L, A), F

    One of the two is None: of additive keys F from `exponentials`, of the same size, is kept in their place, unless they are
    too large for it.
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
    """Adds f_att's weight gradients, each for all steps at once -> dannotations (N, L, D), None where frozen

    cache of forward, h_prev (T*N, H), dscores (T, N, L), dqueries (T, N, A)
    """
    annotations, (T, N, L), D = cache.annotations, dscores.shape, config.D
    if config.f_att == "dot" and frozen:
        return None
    if config.f_att == "additive":
        dkeys, dv, dc = additive_keys_backward(dscores, cache.queries, cache.steps[0].scores)
        g.add(W_s=h_prev.T @ _rows(dqueries), v=dv, c_a=dc, b_a=dkeys.sum(axis=(0, 1)))
    else:
        dkeys = dot_keys_backward(dscores, h_prev.reshape(T, N, -1) * _query_scale(config))
        if config.f_att == "dot":
            return dkeys
    dkeys = dkeys.reshape(N * L, -1)
    g.add(W_a=annotations.reshape(N * L, D).T @ dkeys)
    return None if frozen else (dkeys @ p.W_a.T).reshape(N, L, D)


def attention_scores_forward(p, config, keys, h, F=None, out=None):
    """e_t = f_att(a, h_{t-1}): keys (N, L, A) and F from attention_keys, h (N, H) -> scores (N, L)

    Additive: `out` (N, A) is where h W_s is written.
    """
    if config.f_att == "additive":
        return additive_scores_forward(keys, xp_of(h).matmul(h, p.W_s, out=out), p.v, p.c_a, F)
    return dot_scores_forward(keys, h * _query_scale(config))


def attention_look_backward(p, config, dalpha, step, out):
    """dalpha (N, L) -> dh (N, H); dscores (N, L) and the additive dquery (N, A) are written to the two of `out`"""
    if config.f_att == "additive":
        _, dquery = additive_look_backward(dalpha, step.softmax.alpha, step.scores, out)
        return dquery @ p.W_s.T
    dscores, dquery = out
    dscores[...] = softmax_backward(dalpha, step.softmax)
    return attention_query_backward(p, config, dscores, step.scores, dquery)


def attention_query_backward(p, config, dscores, cache, out=None):
    """dscores (N, L) -> dh (N, H); the additive dquery (N, A) is written to `out`"""
    if config.f_att == "additive":
        return additive_query_backward(dscores, cache, out) @ p.W_s.T
    return dot_query_backward(dscores, cache) * _query_scale(config)


def _query_scale(config):
    return config.D**-0.5 if config.f_att == "dot" else 1


def _rows(x):
    """(T, N, H) -> (T*N, H): one product over all steps."""
    return None if x is None else x.reshape(-1, x.shape[-1])
