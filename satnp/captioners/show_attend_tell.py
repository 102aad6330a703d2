"""Show, Attend and Tell with soft and with hard attention (Xu et al. 2015).

    (i, f, o, g)_t = (sigmoid, sigmoid, sigmoid, tanh)(E[y_{t-1}] W_x + h_{t-1} W_h + z_t W_z + b)      eq. 1
    c_t = f_t * c_{t-1} + i_t * g_t,    h_t = o_t * tanh(c_t)                                           eqs. 2-3
    e_ti = f_att(a_i, h_{t-1}),         alpha_t = softmax over i of e_t                                 eqs. 4-5
    z_t = beta_t sum_i alpha_ti a_i,    beta_t = sigmoid(h_{t-1} W_beta + b_beta)                       eqs. 6, 13
    h_0, c_0 = tanh(mean_i a_i W_h0 + b_h0), tanh(mean_i a_i W_c0 + b_c0)
    p(y_t) = softmax(tanh(E[y_{t-1}] + h_t L_h + z_t L_z + b_m) L_o + b_o)                              eq. 7

    loss = mean over captions of  -sum_t log p(y_t) + penalty * sum_i (1 - sum_t alpha_ti)^2            eq. 14

Hard attention looks at one location, drawn with probabilities alpha_t, and maximises the bound L_s <= log p(y | a) of
eq. 10 with a sampled gradient (section 4.1). The cost is C = -L_s, the caption's reward r = sum_t log p(y_t | s, a):

    s_t ~ Multinoulli(alpha_t),   z_t = beta_t sum_i s_ti a_i                                           eqs. 8-9
    dC/de_t = -lambda_r (r - b) (s_t - alpha_t)             the REINFORCE term of the scores
              + lambda_e alpha_t * (log alpha_t + H_t)      the entropy term; H_t the entropy of alpha_t
    b_k = 0.9 b_{k-1} + 0.1 r                               the baseline; the gradient of step k uses b_{k-1}

With probability one half an image uses the expected value alpha_t in place of s_t; only then does the likelihood have a
gradient with respect to the scores. dC/de_t goes on through f_att to its weights and to h_{t-1}, so through all steps.

Only what depends on h_{t-1} is inside the loop over time. The same model written step by step, as printed above, is in
satnp/reference/show_attend_tell.py; tests check that both give the same numbers.

Where the authors' public code differs from the paper (the paper is the default; `Config` names what can be chosen):

    authors' code                                               here
    first input a zero vector, no start word                    <start>, an ordinary word
    weights 0.01 N(0, 1)                                        N(0, 1 / fan-in), which keeps the scale of activations
    W_h orthogonal, biases 0                                    the same
    penalty averaged over locations, summed over the batch      eq. 14: penalty = alpha_c N / L gives theirs
    early stopping on validation NLL                            on BLEU-4 of free-running captions, as in the paper
    no gradient clipping                                        the recipe's `clip`
    Adam with a wrong bias correction                           Kingma & Ba's
    dropout on h_t and on the deep output                       those, and on E[y_{t-1}] (`dropout`)
    f_att additive                                              `f_att`: additive, general, dot
    beta a scalar                                               `gate`: scalar, vector
    hard: reward = mean over words of the cost, / 10            the sum of log p: reward_weight = N / (10 T) gives theirs
    hard: entropy weight 0.002, not divided by N                divided by N like all terms: entropy_weight = 0.002 N
    hard: one coin a minibatch                                  one an image (`coin`)
    hard: no beta in eq. 9, but in the code                     beta, as in the code
    hard: the penalty's gradient lost by accident               kept; `penalty` = 0 drops it
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import to_device, xp_of
from satnp.arrays.elementwise import elementwise
from satnp.arrays.products import few_rows_product, packed
from satnp.captioners.config import Validated, check_choices
from satnp.captioners.contract import State
from satnp.captioners.f_att import (
    attention_keys,
    attention_keys_backward,
    attention_look_backward,
    attention_query_backward,
    attention_scores_forward,
    beam_scores,
)
from satnp.captioners.hard_attention import choices_forward, for_each_sample, look_ahead
from satnp.captioners.initialise import initialise
from satnp.captioners.word_gates import WordGates
from satnp.errors import InputError
from satnp.estimators import entropy, straight_through, total
from satnp.estimators.choices import choose, reward, score_gradients
from satnp.layers import (
    SoftmaxCache,
    beam_products,
    context_forward,
    context_weights_backward,
    deep_output_backward,
    deep_output_forward,
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
    rows,
    soft_attention,
    softmax_backward,
    softmax_forward,
    tanh_of_sum,
    vocabulary_backward_factors,
    vocabulary_forward,
)


@dataclass(frozen=True)
class Config(Validated):
    """Sizes (see the symbols in the README) and choices; the defaults are the paper's."""

    V: int
    D: int = 512
    M: int = 512
    H: int = 1000
    A: int = 512
    attention: str = "soft"      # soft: alpha_t weights all locations; hard: one location is drawn from it
    f_att: str = "additive"      # additive, general or dot (which needs D = H)
    gate: str = "scalar"         # scalar: one beta a photo; vector: one a feature
    penalty: float = 1.0         # lambda of eq. 14
    dropout: float = 0.5         # of E[y_{t-1}], of h_t on its way out, of the deep output

    # hard attention only; the paper gives no values for its two lambdas
    estimator: str = "reinforce"      # reinforce, reward_to_go, local_expectation or gumbel_st
    baseline: str = "moving_average"  # none, moving_average or leave_one_out (which needs samples >= 2)
    samples: int = 1                  # S, paths drawn for each caption
    coin: str = "image"               # chooses alpha_t in place of s_t: one coin for each image, for each minibatch, or none
    coin_chance: float = 0.5          # probability of alpha_t; the paper's coin is fair
    reward: str = "sum"               # sum or mean of log p over a caption's words
    reward_weight: float = 1.0        # lambda_r
    entropy_weight: float = 0.01      # lambda_e
    temperature: float = 1.0          # of gumbel_st
    decoding: str = "expectation"     # expectation, argmax or sampling

    def __post_init__(self):
        super().__post_init__()
        check_choices(self, CHOICES)
        if self.f_att == "dot" and self.D != self.H:
            raise InputError(f"f_att dot needs D = H, but D is {self.D} and H is {self.H}; choose general")
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"temperature is {self.temperature}; choose a number above 0")
        if not 0 <= self.coin_chance <= 1:
            raise InputError(f"coin_chance is {self.coin_chance}; choose a chance from 0 to 1")
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
    """The random numbers of a pass over N captions, and the baseline from the passes before.

    Dropout masks words (T, N, M), state (T, N, H), hidden (T, N, M); None means no dropout. Hard attention: gumbel
    (T, S*N, L) draws the locations, sample by sample (rows 0 to N-1 are sample 0); None means no drawing: `decoding`
    gives the weights of the context. expected (N,) is 1 where alpha_t is used in place of s_t. baseline () is b.
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
    looks: object       # (T, N, L), the weights of the context: alpha_t or s_t
    hz: object          # (T + 1, N, H + D), h_{t-1} and z_t; the last row holds only h_T
    queries: object     # (T, N, A), h_{t-1} W_s of additive f_att, else None
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
    """The part of a Cache that the log needs, without the arrays that only the backward pass needs."""

    config: object
    nll: object
    alphas: object
    betas: list         # T of (N, G)
    mask: object        # (T, N)
    hard: object
    baseline: object


class Loop(NamedTuple):
    """The results of the loop over time; see Cache."""

    hz: object
    alphas: object
    looks: object
    scores: object      # (T, N, L), e_t; None with soft attention
    queries: object
    steps: list


class LoopGradients(NamedTuple):
    dgates: object      # (T, N, 4H), of the LSTM's pre-activations
    dgate: object       # (T, N, G), of the gate's pre-activation
    dcontext: object    # (T, N, D)
    dscores: object     # (T, N, L)
    dqueries: object    # (T, N, A), or None
    dstate: tuple       # dh_0 (N, H), dc_0 (N, H)


class Step(NamedTuple):
    scores: object
    softmax: object
    gate: object
    cell: object


class Weights(NamedTuple):
    """Functions of decoding: x -> x W"""

    W_hz: object
    L_h: object
    L_z: object
    L_o: object


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
    """Parameters on the host, float32: N(0, 1 / fan-in), W_h orthogonal for each gate, biases 0."""
    return initialise(shapes(config), rng)


def draw_noise(config, T, N, L, rng):
    """Dropout masks, coins and Gumbel numbers for T steps of N captions; host arrays, drawn step by step.

    More padding does not change earlier numbers.
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
    """Loss of a minibatch. With hard attention and S samples a caption, the mean over the samples.

    batch: Batch with annotations (N, L, D), captions (N, T+1), mask (N, T); noise from draw_noise -> loss (), cache

    Units: nats a caption. Source: Xu et al. 2015, eq. 14.
    """
    p, xp, H = params, xp_of(batch.annotations), config.H
    if config.hard and noise.gumbel is not None:
        batch, noise = for_each_sample(config.samples, batch, noise)
    annotations, mask, y = batch.annotations, batch.mask.T, batch.captions[:, 1:].T
    y_prev = batch.captions[:, :-1] if batch.given is None else batch.given
    T, N = mask.shape

    # before the loop: everything that depends only on the photo and on the given words
    words, embedding = embedding_forward(y_prev.T.ravel(), p.E)
    words, words_dropout = dropout_forward(words, rows(noise.words))
    word_gates = words @ p.W_x
    word_gates += p.b
    word_gates = word_gates.reshape(T, N, 4 * H)
    keys, F = attention_keys(p, config, annotations)
    state, start = initial_state_forward(annotations, p.W_h0, p.b_h0, p.W_c0, p.b_c0)

    loop = loop_forward(p, config, annotations, keys, F, word_gates, state, noise)
    hz, alphas = loop.hz, loop.alphas

    # after the loop: the words that all states predict
    h_out, state_dropout = dropout_forward(rows(hz[1:, :, :H]), rows(noise.state))
    hidden, deep = deep_output_forward(words, h_out, rows(hz[:-1, :, H:]), p.L_h, p.L_z, p.b_m)
    hidden, hidden_dropout = dropout_forward(hidden, rows(noise.hidden))
    weights = mask.ravel() / N if batch.weights is None else batch.weights.T.ravel()
    loss, vocabulary = vocabulary_forward(
        hidden, p.L_o, p.b_o, y.ravel(), weights, batch.smoothing, batch.never, batch.temperature,
        (batch.late[0], batch.late[1] * N),
    )
    is_loss = batch.weights is None and not batch.smoothing
    nll = loss if is_loss else -xp.dot(mask.ravel() / N, vocabulary.log_p)
    penalty, doubly = doubly_stochastic_forward(alphas, mask)
    loss = loss + config.penalty * penalty

    hard, baseline = None, noise.baseline
    if config.hard and noise.gumbel is not None:
        log_p, ahead = vocabulary.log_p.reshape(T, N), None
        if config.estimator == "local_expectation":
            ahead = look_ahead(p, config, annotations, word_gates, words, hz[:-1, :, :H], loop.steps, noise, y)
        given = None if batch.weights is None else batch.weights.T
        cost, hard, baseline = choices_forward(config, noise, loop.scores, alphas, loop.looks, log_p, mask, ahead, given)
        loss = loss + cost
    dropouts = words_dropout, state_dropout, hidden_dropout
    return loss, Cache(
        p, config, annotations, nll, alphas, loop.looks, hz, loop.queries, loop.steps, start, embedding, dropouts, words,
        deep, vocabulary, doubly, hard, baseline,
    )  # fmt: skip


def loop_forward(p, config, annotations, keys, F, word_gates, state, noise):
    """The loop over time: only what depends on h_{t-1}.

    annotations (N, L, D), keys and F from attention_keys, word_gates (T, N, 4H), state (h_0, c_0) -> Loop

    Each step writes to arrays of all steps; hz holds h_{t-1} and z_t side by side.
    """
    (h, c), xp, H = state, xp_of(annotations), config.H
    T, (N, L, D) = len(word_gates), annotations.shape
    hz = xp.empty((T + 1, N, H + D), dtype=h.dtype)
    alphas = xp.empty((T, N, L), dtype=h.dtype)
    queries = xp.empty((T, N, config.A), dtype=h.dtype) if config.f_att == "additive" else None
    looks, all_scores = (xp.empty_like(alphas), xp.empty_like(alphas)) if config.hard else (alphas, None)
    times_W_hz = packed(p.stacked("W_h", "W_z"), N)
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
        (h, c), cell_cache = lstm_cell_forward(times_W_hz(hz[t]), c, word_gates[t])
        hz[t + 1, :, :H] = h
        gate_cache = gate_cache._replace(h=None)  # h is in hz
        steps.append(Step(scores_cache, SoftmaxCache(alpha), gate_cache, cell_cache))
    return Loop(hz, alphas, looks, all_scores, queries, steps)


def backward(cache, grads, frozen=False, dloss=1.0):
    """Adds dloss times dloss/dparams into `grads` -> dannotations (N, L, D), or None if the encoder is frozen.

    Large parts of the cache are freed after their last use, if the caller holds no reference to the cache.
    """
    p, config, g = cache.params, cache.config, grads
    words_dropout, state_dropout, hidden_dropout = cache.dropouts
    T, N, L = cache.alphas.shape
    D, H = config.D, config.H

    # after the loop, backwards
    dalphas = doubly_stochastic_backward(dloss * config.penalty, cache.doubly)
    dhidden, *factors, db_o = vocabulary_backward_factors(dloss, cache.vocabulary)
    g.add_product(*factors, "L_o")
    g.add(b_o=db_o)
    cache, factors = cache._replace(vocabulary=None, steps=list(cache.steps)), None  # errors (T*N, V) are its largest part
    dhidden = dropout_backward(dhidden, hidden_dropout)
    dwords, dh_out, dz_out, dL_h, dL_z, db_m = deep_output_backward(dhidden, cache.deep)
    g.add(L_h=dL_h, L_z=dL_z, b_m=db_m)
    dh_out = dropout_backward(dh_out, state_dropout).reshape(T, N, H)

    dscores = None if cache.hard is None else dloss * score_gradients(config, cache.hard)
    loop = loop_backward(cache, dh_out, dz_out.reshape(T, N, D), dalphas, dscores)

    # before the loop, backwards, with each weight gradient as one product over all steps
    dannotations, dW_h0, db_h0, dW_c0, db_c0 = initial_state_backward(loop.dstate, cache.start)
    g.add(W_h0=dW_h0, b_h0=db_h0, W_c0=dW_c0, b_c0=db_c0)
    hz, dgates, dgate = rows(cache.hz[:-1]), rows(loop.dgates), rows(loop.dgate)
    loop = loop._replace(dgates=None)
    h_prev = hz[:, :H]
    dwords += dgates @ p.W_x.T
    g.add(b=dgates.sum(axis=0), W_beta=h_prev.T @ dgate, b_beta=dgate.sum(axis=0))
    g.add_product(cache.words, dgates, "W_x")
    g.add_product(hz, dgates, "W_h", "W_z")
    del dgates  # the largest array that the loop has made
    g.add(E=embedding_backward(dropout_backward(dwords, words_dropout), cache.embedding))
    dannotations_att = attention_keys_backward(p, config, cache, h_prev, loop.dscores, loop.dqueries, g, frozen)
    if frozen:
        return None
    dannotations_context = cache.looks.transpose(1, 2, 0) @ loop.dcontext.transpose(1, 0, 2)
    dannotations = _sum(dannotations, dannotations_context, dannotations_att)
    return dannotations if cache.hard is None else dannotations.reshape(config.samples, -1, L, D).sum(axis=0)


def loop_backward(cache, dh_out, dz_out, dalphas, dscores_hard):
    """The loop over time, backwards: dh and dc go from step to step; the other gradients are kept for all steps.

    cache from forward; upstream gradients dh_out (T, N, H) and dz_out (T, N, D) from the output layer, dalphas (T, N, L)
    from the penalty, dscores_hard (T, N, L) from the choices of hard attention, or None -> LoopGradients
    """
    p, config, annotations, hard = cache.params, cache.config, cache.annotations, cache.hard
    (T, N, L), H, xp = cache.alphas.shape, config.H, xp_of(annotations)
    W_hz = p.stacked("W_h", "W_z")
    dgates, dgate, dcontext, dscores = (
        xp.empty((T, N, size), dtype=dh_out.dtype) for size in (4 * H, p.W_beta.shape[1], config.D, L)
    )
    dqueries = None if cache.queries is None else xp.empty_like(cache.queries)
    zeros = xp.zeros((N, H), dtype=dh_out.dtype)
    dh_out = [zeros, *dh_out]  # dh_out[t] belongs to h_t; the output layer does not read h_0
    dh, dc = dh_out[T], zeros
    for t in reversed(range(T)):
        # each step's cache is freed after its use; the first one has what the keys' gradient needs
        step, dquery = cache.steps.pop() if t else cache.steps[0], None if dqueries is None else dqueries[t]
        _, dc = lstm_cell_backward((dh, dc), step.cell, out=dgates[t])
        dhz = few_rows_product(dgates[t], W_hz)
        dz, _ = _through_gate(dz_out[t], dhz[:, H:], step.gate.beta, out=(None, dcontext[t]))
        gate_backward_preactivation(dz, step.gate, out=dgate[t])
        if hard is None:
            dalpha = context_weights_backward(dcontext[t], annotations, dalphas[t])
            dh_att = attention_look_backward(p, config, dalpha, step, out=(dscores[t], dquery))
        else:  # the likelihood's gradient stops at a location that was drawn
            expected, dlook = hard.expected[:, None], context_weights_backward(dcontext[t], annotations)
            dscores[t] = softmax_backward(expected * dlook + dalphas[t], step.softmax) + dscores_hard[t]
            if config.estimator == "gumbel_st":
                dsample = (1 - expected) * dlook
                dscores[t] += straight_through(dsample, hard.scores[t], hard.gumbel[t], config.temperature)
            dh_att = attention_query_backward(p, config, dscores[t], step.scores, out=dquery)
        dh = _to_state(dh_out[t], dhz[:, :H], dh_att, *_outer(dgate[t], p.W_beta))
    return LoopGradients(dgates, dgate, dcontext, dscores, dqueries, (dh, dc))


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
    """Two factors whose broadcast product is dgate W^T, (N, H): with one gate a row, no matrix product is needed."""
    return (dgate, W.T) if W.shape[1] == 1 else (dgate @ W.T, 1.0)


def diagnostics(told):
    """Statistics of a forward pass, {name: ()}: the entropy of alpha_t in nats and beta_t, as means over the words.

    With hard attention also the share of the images that used their expected value, the mean reward of the other images
    in nats, and the baseline that the rewards were compared with.
    """
    xp, hard, mask = xp_of(told.alphas), told.hard, told.mask
    # softmax is invariant to a constant added to all scores, so log alpha serves as the scores
    scores = xp.log(xp.maximum(told.alphas, 1e-30)) if hard is None else hard.scores
    found = {
        "alpha_entropy": (mask * entropy(scores)).sum() / mask.sum(),
        "beta": (mask * _gates(told)).sum() / mask.sum(),
    }
    if hard is not None:
        rewards, sampled = reward(told.config, total, hard)[0], 1 - hard.expected
        found["reward"] = (sampled * rewards).sum() / xp.maximum(sampled.sum(), 1)
        found["baseline"] = hard.baseline
        found["expected"] = hard.expected.mean()
    return found


def weights(told):
    """{name: ()}: the count that each mean in `diagnostics`, and the baseline, is over. The trainer uses the counts to
    average the statistics of several ranks."""
    words, hard = told.mask.sum(), told.hard
    found = {"alpha_entropy": words, "beta": words}
    if hard is not None:  # without a sampled image a pass has no reward and leaves b as it was: a count of almost 0
        sampled = xp_of(hard.mask).maximum((1 - hard.expected).sum(), 1e-20)
        found |= {"reward": sampled, "baseline": sampled, "expected": hard.mask.shape[1]}
    return found


def gates(params, config, batch):
    """beta_t, or its mean over the features, when the captioner says the words of the batch -> (T, N)"""
    return _gates(forward(params, config, batch, Noise())[1].told)


def _gates(told):
    return xp_of(told.alphas).stack([beta.mean(axis=1) for beta in told.betas])


def decoding_noise(config, N, L, steps, rng):
    """Gumbel numbers (N, steps, L) on the host if decoding samples its locations, else None."""
    if config.hard and config.decoding == "sampling":
        return rng.gumbel(size=(N, steps, L)).astype(np.float32)
    return None


def start(params, config, annotations, gumbel=None):
    """The decoding State before the first word: annotations (N, L, D), gumbel from decoding_noise -> one caption a photo"""
    (h, c), _ = initial_state_forward(annotations, params.W_h0, params.b_h0, params.W_c0, params.b_c0)
    keys, F = attention_keys(params, config, annotations)
    photo, captions = (annotations, keys, F), (h, c)
    if gumbel is not None:
        photo, captions = (*photo, gumbel), (*captions, xp_of(h).zeros(len(h), dtype=int))
    weights = Weights(*map(packed, (params.stacked("W_h", "W_z"), params.L_h, params.L_z, params.L_o)))
    return State(photo, captions, np.arange(len(h)), weights, WordGates(params))


def step(params, config, state, words, parents):
    """One more word: caption `parents[r]` of `state` is continued with words[r] -> log_probs (R, V), State, look (R, L)

    words (R,), parents (R,). look is alpha_t for soft attention, and what `config.decoding` makes of it for hard attention.
    What depends only on h_{t-1} is computed once for all captions with the same parent.
    """
    p, (annotations, keys, F, *gumbel), xp = params, state.photo, xp_of(state.photo[0])
    words, weights = np.asarray(words), state.weights
    begun, back = np.unique(parents, return_inverse=True)
    photos, begun, back = state.photos[begun], to_device(begun, xp), to_device(back, xp)
    h, c, *t = (x[begun] for x in state.captions)  # t, the number of words, where locations are drawn
    scores = beam_scores(p, config, keys, F, h, photos)
    look, _ = softmax_forward(scores)
    if config.hard:  # the captions of a photo share its Gumbel numbers
        numbers = gumbel[0][to_device(photos, xp), t[0]] if gumbel else None
        look = choose(config, scores, look, numbers)
    z, _ = gate_forward(h, beam_products(look, annotations, photos), p.W_beta, p.b_beta)
    gates = weights.W_hz(xp.concatenate([h, z], axis=1))[back]
    (h, c), _ = lstm_cell_forward(gates, c[back], state.word_gates(words))
    said, _ = embedding_forward(to_device(words, xp), p.E)
    hidden = tanh_of_sum(said, weights.L_h(h), weights.L_z(z)[back], p.b_m)
    logits = weights.L_o(hidden)
    logits += p.b_o
    captions = h, c, *(drawn[back] + 1 for drawn in t)
    return log_softmax(logits), state._replace(captions=captions, photos=state.photos[parents]), look[back]
