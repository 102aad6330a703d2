"""The whole captioner: it predicts the next word from a photo's annotations and the words so far. A line calls one layer."""

from typing import NamedTuple

import numpy as np

from lessons.assignments.look import look_backward, look_forward
from satnp.arrays.optim import adam
from satnp.layers.affine import affine_backward, affine_forward
from satnp.layers.deep_output import deep_output_backward, deep_output_forward
from satnp.layers.embedding import embedding_backward, embedding_forward
from satnp.layers.initial_state import initial_state_backward, initial_state_forward
from satnp.layers.lstm import lstm_cell_backward, lstm_cell_forward
from satnp.layers.penalty import doubly_stochastic_backward, doubly_stochastic_forward
from satnp.layers.softmax import cross_entropy_backward, cross_entropy_forward


class Weights(NamedTuple):
    """The parameters, or their gradients."""

    E: object       # (V, M)
    W_x: object     # (M, 4H)
    W_h: object     # (H, 4H)
    W_z: object     # (D, 4H)
    b: object       # (4H,)
    W_a: object     # (D, A)
    W_s: object     # (H, A)
    b_a: object     # (A,)
    v: object       # (A,)
    c_a: object     # (1,)
    W_beta: object  # (H, 1)
    b_beta: object  # (1,)
    W_h0: object    # (D, H)
    b_h0: object    # (H,)
    W_c0: object    # (D, H)
    b_c0: object    # (H,)
    L_h: object     # (H, M)
    L_z: object     # (D, M)
    b_m: object     # (M,)
    L_o: object     # (M, V)
    b_o: object     # (V,)


def shapes(V, D, M, H, A):
    """The shapes of the parameters, as Weights."""
    return Weights(
        (V, M), (M, 4 * H), (H, 4 * H), (D, 4 * H), (4 * H,), (D, A), (H, A), (A,), (A,), (1,), (H, 1), (1,),
        (D, H), (H,), (D, H), (H,), (H, M), (D, M), (M,), (M, V), (V,),
    )  # fmt: skip


class WordCache(NamedTuple):
    """The caches of the layers, in the order of the forward pass."""

    embedding: object
    look: object
    gates: object
    cell: object
    deep: object
    vocabulary: object


class CaptionerCache(NamedTuple):
    weights: Weights
    start: object    # of initial_state_forward
    words: list      # a WordCache for each step
    entropies: list  # of cross_entropy_forward, one for each step
    penalty: object  # of doubly_stochastic_forward


def word_forward(annotations, words, h, c, weights):
    """One step: annotations (N, L, D), words (N,), h (N, H), c (N, H) -> logits (N, V), h, c, alpha (N, L)

    Eqs. 1-7 of Xu et al. 2015: E[y], the look z from h_{t-1}, the LSTM of E[y] and z, the deep output of E[y], h_t and z.
    """
    p = weights
    Ey, embedding = embedding_forward(words, p.E)
    (z, alpha), look = look_forward(annotations, h, p.W_a, p.W_s, p.b_a, p.v, p.c_a, p.W_beta, p.b_beta)
    x, W = np.concatenate([Ey, h, z], axis=1), np.concatenate([p.W_x, p.W_h, p.W_z])
    gates, affine = affine_forward(x, W, p.b)
    (h, c), cell = lstm_cell_forward(gates, c)
    hidden, deep = deep_output_forward(Ey, h, z, p.L_h, p.L_z, p.b_m)
    logits, vocabulary = affine_forward(hidden, p.L_o, p.b_o)
    return (logits, h, c, alpha), WordCache(embedding, look, affine, cell, deep, vocabulary)


def word_backward(dout, cache):
    """dlogits (N, V), dh (N, H), dc (N, H), dalpha (N, L) -> dannotations (N, L, D), dh, dc, Weights of gradients

    The inputs dh, dc are the gradients of h_t, c_t from step t + 1; the results dh, dc are the gradients of h_{t-1},
    c_{t-1}. The gradients of W_h0, b_h0, W_c0, b_c0, which a step does not use, are 0.
    """
    dlogits, dh, dc, dalpha = dout
    M, H = cache.embedding.shape[1], dh.shape[1]
    dhidden, dL_o, db_o = affine_backward(dlogits, cache.vocabulary)
    dEy, dh_out, dz, dL_h, dL_z, db_m = deep_output_backward(dhidden, cache.deep)
    dgates, dc = lstm_cell_backward((dh + dh_out, dc), cache.cell)
    dx, dW, db = affine_backward(dgates, cache.gates)
    dW_x, dW_h, dW_z = np.split(dW, [M, M + H])
    dEy, dh, dz = dEy + dx[:, :M], dx[:, M : M + H], dz + dx[:, M + H :]
    dannotations, dh_look, dW_a, dW_s, db_a, dv, dc_a, dW_beta, db_beta = look_backward((dz, dalpha), cache.look)
    dE = embedding_backward(dEy, cache.embedding)
    look = dW_a, dW_s, db_a, dv, dc_a, dW_beta, db_beta
    grads = Weights(dE, dW_x, dW_h, dW_z, db, *look, 0, 0, 0, 0, dL_h, dL_z, db_m, dL_o, db_o)
    return dannotations, dh + dh_look, dc, grads


def captioner_forward(annotations, captions, mask, *weights):
    """loss = mean over captions of  -sum_t mask_t log p(y_t) + sum_i (1 - sum_t mask_t alpha_ti)^2

    annotations (N, L, D), captions (N, T+1) int with <start> first, mask (N, T), then each array of Weights -> loss ()

    Step t reads captions[:, t] and predicts captions[:, t + 1]; mask[:, t] is its weight. Source: Xu et al. 2015, eq. 14.
    """
    p, N, T = Weights(*weights), len(mask), mask.shape[1]
    (h, c), start = initial_state_forward(annotations, p.W_h0, p.b_h0, p.W_c0, p.b_c0)
    loss, alphas, words, entropies = 0, [], [], []
    for t in range(T):
        (logits, h, c, alpha), word = word_forward(annotations, captions[:, t], h, c, p)
        nll, entropy = cross_entropy_forward(logits, captions[:, t + 1], mask[:, t] / N)
        loss = loss + nll
        alphas.append(alpha)
        words.append(word)
        entropies.append(entropy)
    penalty, doubly = doubly_stochastic_forward(np.stack(alphas), mask.T)
    return loss + penalty, CaptionerCache(p, start, words, entropies, doubly)


def captioner_backward(dloss, cache):
    """dloss () -> dannotations (N, L, D), then the gradient of each array of Weights"""
    p, start, words, entropies, doubly = cache
    dalphas = doubly_stochastic_backward(dloss, doubly)
    grads = Weights(*map(np.zeros_like, p))
    dh = dc = np.zeros_like(start.h)
    dannotations = 0
    for t in reversed(range(len(words))):
        dlogits = cross_entropy_backward(dloss, entropies[t])
        dseen, dh, dc, more = word_backward((dlogits, dh, dc, dalphas[t]), words[t])
        dannotations = dannotations + dseen
        grads = Weights(*(g + m for g, m in zip(grads, more, strict=True)))
    dmean, *first = initial_state_backward((dh, dc), start)
    grads = grads._replace(**dict(zip(("W_h0", "b_h0", "W_c0", "b_c0"), first, strict=True)))
    return dannotations + dmean, *grads


SIZES = {"M": 16, "H": 32, "A": 16}
STEPS, BATCH, RATE = 400, 32, 0.02


def train(annotations, captions, mask, photos):
    """Train on captioned photos, then caption other photos.

    annotations (N, L, D), captions (N, T+1) int with <start> first and <end> last, mask (N, T) 1 where a word counts,
    photos (P, L, D) -> said (P, T) int: the likeliest word of each step; the first step reads <start>, whose id is 0

    annotations, mask and photos are float32. The limit is 60 seconds on one core. Choose the sizes, the learning rate and
    the optimiser yourself.
    """
    rng, (N, T), V = np.random.default_rng(0), mask.shape, int(captions.max()) + 1
    wanted = shapes(V, annotations.shape[2], **SIZES)
    start = [rng.standard_normal(x) / np.sqrt(x[0]) if len(x) > 1 else np.zeros(x) for x in wanted]
    start[Weights._fields.index("v")] = rng.standard_normal(SIZES["A"]) / np.sqrt(SIZES["A"])
    flat = np.concatenate([x.ravel() for x in start]).astype(np.float32)
    state = {"step": 0, "mean": np.zeros_like(flat), "square": np.zeros_like(flat)}
    weights = _views(flat, wanted)
    for step in range(STEPS):
        some = rng.choice(N, BATCH, replace=False)
        _, cache = captioner_forward(annotations[some], captions[some], mask[some], *weights)
        _, *grads = captioner_backward(np.float32(1), cache)
        grads = np.concatenate([np.ravel(g) for g in grads])
        adam(flat, grads, state, RATE * (1 - step / STEPS))
    (h, c), _ = initial_state_forward(photos, weights.W_h0, weights.b_h0, weights.W_c0, weights.b_c0)
    words, said = np.zeros(len(photos), int), []
    for _ in range(T):
        (logits, h, c, _), _ = word_forward(photos, words, h, c, weights)
        words = logits.argmax(axis=1)
        said.append(words)
    return np.stack(said, axis=1)


def _views(flat, wanted):
    """Weights whose arrays are views of `flat` (P,), one after the other."""
    ends = np.cumsum([int(np.prod(x)) for x in wanted])
    return Weights(*(flat[end - int(np.prod(x)) : end].reshape(x) for x, end in zip(wanted, ends, strict=True)))
