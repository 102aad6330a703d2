"""The frame of all captioners with a recurrent cell. A captioner's module has its equations, as forward and backward pairs:

    Config, shapes(config) -> {name: shape}
    photo_forward(p, config, annotations) -> photo, state, cache
        What depends only on the photo. photo: NamedTuple of arrays (N, ...) and Locations; state: tuple of (N, ...), the
        state before the first word.
    photo_backward(p, config, dstate, deferred, cache, frozen) -> dannotations (N, L, D), or None if frozen
    cell_forward(p, config, photo, word, state) -> out, state, alpha, cache
        One step, for R captions: word (R, K), out a tuple of (R, ...), alpha (R, L) or None for a cell without attention.
    cell_backward(p, config, dout, dstate, dalpha, cache, deferred) -> dword, dstate
        The gradients with respect to word and to the state before. A value that is in out and in the state gets the sum of
        its dout and its dstate. dalpha (N, L) is the gradient of the penalty with respect to alpha, or None.
    attention_forward(p, config, photo, out) -> out, alpha, cache
        Optional, for attention that no state depends on: the cells' out of all steps, each (T*N, ...), to the out that
        takes its place, and alpha (T*N, L). The cells' alpha is None then. Decoding calls it with the R rows of one step.
    attention_backward(p, config, dout, dalpha, deferred, cache) -> dout
        dalpha (T*N, L), or None.
    output_forward(p, config, photo, words, out) -> hidden, cache
        Optional: words (T*N, M) and out, each (T*N, ...), to the vector that the vocabulary layer reads. Without this pair
        the vocabulary layer reads out[0].
    output_backward(p, config, dhidden, deferred, cache) -> dwords, dout
    logits_forward(p, config, photo, out) -> logits (T*N, V), cache
        Optional, in place of the vocabulary layer and of an output pair: out, each (T*N, ...), out[0] after dropout, to
        numbers whose softmax is p(y). The pair uses W_p and b_p itself.
    logits_backward(p, config, dlogits, deferred, cache) -> dout

`p` are the parameters. `deferred` (deferred.py) collects the gradients of weights, keys and vectors over the steps; the
frame calls its finish() before photo_backward. `deferred.g.add(W=dW)` adds a gradient that is complete. Attention is in
locations.py.

Three parameters belong to the frame: E (V, M), the word embedding, and W_p (Q, V), b_p (V,), the vocabulary layer, which
reads Q numbers. A captioner with a W_x (M, K) and a b (K,) is given E[y] W_x + b as its word, computed once for all steps;
other captioners are given E[y]. initialise() sets parameters whose name begins with b or c to 0, and those in ORTHOGONAL
(default W_h, of shape (H, k H)) to orthogonal blocks. Parameters that p.stacked() joins must be neighbours in `shapes`.

The frame computes the words and their dropout, the loop over time, the vocabulary layer, the loss and its penalty, every
weight gradient as one product over all steps, decoding for any number of captions a photo, and statistics for the log.
Config has the sizes V, D, M, a `dropout` rate (0 for none), H if there is an output pair (the width of out[0]) and, for a
captioner with alpha, optionally `penalty` (lambda of Xu et al. 2015, eq. 14). The presets set M, H and A by these names.
A captioner that needs the grid of the annotations has a size `rows`, which the encoder gives, like D.

Optional names: ORTHOGONAL; prepare(p, config, corpus), which changes initial parameters (contract.py), and CORPUS, the
largest number of photos that it gets (default 256); diagnostics(told) -> {name: (T, N)}, statistics for the log;
channels(cache of cell_forward) -> beta (N, D), map (N, L, D), the weights of a map's channels (contract.py); and CHECKS
{option: Config}, tiny Configs for which `satnp gradcheck` checks the captioner ("" is the option without a name). What a
forward pass may do, so that complex step can check it, is at the top of satnp/proof/gradcheck.py.
"""

import sys
from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import to_device, xp_of
from satnp.arrays.products import packed
from satnp.captioners.contract import State
from satnp.captioners.deferred import Deferred
from satnp.captioners.initialise import initialise
from satnp.captioners.locations import Locations
from satnp.captioners.word_gates import WordGates
from satnp.estimators import entropy
from satnp.layers import (
    doubly_stochastic_backward,
    doubly_stochastic_forward,
    dropout_backward,
    dropout_forward,
    dropout_mask,
    embedding_backward,
    embedding_forward,
    log_softmax,
    rows,
    vocabulary_backward_factors,
    vocabulary_forward,
    word_loss_backward,
    word_loss_forward,
)


class Noise(NamedTuple):
    """Dropout masks, or None: words (T, N, M) for E[y], out (T, N, H) for out[0], hidden (T, N, K) for the output of
    an output layer. baseline () is carried for the trainer."""

    words: object = None
    out: object = None
    hidden: object = None
    baseline: object = None


class Told(NamedTuple):
    """The small part of a Cache that the log needs."""

    config: object
    nll: object
    alphas: object  # (T, N, L), or None
    mask: object    # (T, N)
    baseline: object


class Cache(NamedTuple):
    params: object
    config: object
    nll: object         # (), mean over captions of -sum_t log p(y_t)
    alphas: object      # (T, N, L), or None
    mask: object        # (T, N)
    photo: object       # of photo_forward
    embedding: object
    words: object       # (T*N, M), after dropout
    steps: list         # T caches of cell_forward
    state: tuple        # after the last step
    attention: object   # of attention_forward
    output: object      # of output_forward or logits_forward
    vocabulary: object  # of vocabulary_forward or word_loss_forward
    doubly: object
    dropouts: tuple
    baseline: object

    @property
    def told(self):
        return Told(self.config, self.nll, self.alphas, self.mask, self.baseline)


class Recurrent:
    """The captioner whose pairs are in the module called `name`; see contract.py for the methods."""

    Noise = Noise

    def __init__(self, name):
        self.name = name

    @property
    def pairs(self):
        """The module; its functions are looked up at each call, so that a planted bug takes effect."""
        return sys.modules[self.name]

    @property
    def Config(self):
        return self.pairs.Config

    @property
    def CHECKS(self):
        return self.pairs.CHECKS

    @property
    def prepare(self):
        return getattr(self.pairs, "prepare", None)

    @property
    def corpus(self):
        return getattr(self.pairs, "CORPUS", 256)

    @property
    def has_attention(self):
        return hasattr(self.pairs, "attention_forward")

    @property
    def has_output(self):
        return hasattr(self.pairs, "output_forward")

    @property
    def has_logits(self):
        return hasattr(self.pairs, "logits_forward")

    def shapes(self, config):
        return self.pairs.shapes(config)

    def init(self, config, rng):
        return initialise(self.shapes(config), rng, getattr(self.pairs, "ORTHOGONAL", ("W_h",)))

    def draw_noise(self, config, T, N, L, rng):
        """Dropout masks for T steps of N captions, drawn step by step: more padding does not change earlier numbers."""
        if not config.dropout:
            return Noise()
        shapes = self.shapes(config)
        read = shapes["W_p"][0]
        sizes = (shapes["E"][1], config.H, read) if self.has_output else (shapes["E"][1], read, 0)
        masks = np.stack([dropout_mask(rng, (N, sum(sizes)), config.dropout) for _ in range(T)])
        words, out, hidden = np.split(masks, np.cumsum(sizes)[:2], axis=2)
        return Noise(words, out, hidden if self.has_output else None)

    def forward(self, params, config, batch, noise):
        """Loss of a minibatch: Batch, noise from draw_noise -> loss (), cache. Units: nats a caption."""
        p, pairs, xp = params, self.pairs, xp_of(batch.annotations)
        mask, y = batch.mask.T, batch.captions[:, 1:].T
        y_prev = batch.captions[:, :-1] if batch.given is None else batch.given
        T, N = mask.shape

        # before the loop: everything that depends only on the photo and on the given words
        words, embedding = embedding_forward(y_prev.T.ravel(), p.E)
        words, words_dropout = dropout_forward(words, rows(noise.words))
        word = _words_forward(p, words).reshape(T, N, -1)
        photo, state, photo_cache = pairs.photo_forward(p, config, batch.annotations)

        # the loop: what depends on the state
        steps, outs, alphas = [], [], []
        for t in range(T):
            out, state, alpha, cache = pairs.cell_forward(p, config, photo, word[t], state)
            steps.append(cache)
            outs.append(out)
            alphas.append(alpha)
        del word
        alphas = None if alpha is None else xp.stack(alphas)

        # after the loop: what no state depends on, and the words that all states predict
        outs, attention = tuple(rows(xp.stack(x)) for x in zip(*outs, strict=True)), None
        if self.has_attention:
            outs, alphas, attention = pairs.attention_forward(p, config, photo, outs)
            alphas = alphas.reshape(T, N, -1)
        out, *others = outs
        del outs
        hidden, out_dropout = dropout_forward(out, rows(noise.out))
        output = hidden_dropout = doubly = None
        if self.has_output:
            hidden, output = pairs.output_forward(p, config, photo, words, (hidden, *others))
            hidden, hidden_dropout = dropout_forward(hidden, rows(noise.hidden))
        weights = mask.ravel() / N if batch.weights is None else batch.weights.T.ravel()
        late = batch.late[0], batch.late[1] * N
        said = y.ravel(), weights, batch.smoothing, batch.never, batch.temperature, late
        if self.has_logits:
            logits, output = pairs.logits_forward(p, config, photo, (hidden, *others))
            loss, vocabulary = word_loss_forward(logits, *said)
        else:
            loss, vocabulary = vocabulary_forward(hidden, p.W_p, p.b_p, *said)
        is_loss = batch.weights is None and not batch.smoothing
        nll = loss if is_loss else -xp.dot(mask.ravel() / N, vocabulary.log_p)
        if getattr(config, "penalty", 0):
            penalty, doubly = doubly_stochastic_forward(alphas, mask)
            penalty = penalty - _absent(photo, alphas.dtype) / N  # an absent location adds (1 - 0)^2
            loss = loss + config.penalty * penalty
        dropouts = words_dropout, out_dropout, hidden_dropout
        return loss, Cache(
            p, config, nll, alphas, mask, photo_cache, embedding, words, steps, state, attention, output, vocabulary, doubly,
            dropouts, noise.baseline,
        )  # fmt: skip

    def backward(self, cache, grads, frozen=False, dloss=1.0):
        """Adds dloss times dloss/dparams into `grads` -> dannotations (N, L, D), or None if the encoder is frozen."""
        p, config, g, pairs, steps = cache.params, cache.config, grads, self.pairs, list(cache.steps)
        words_dropout, out_dropout, hidden_dropout = cache.dropouts
        T, N = cache.mask.shape
        xp, deferred = xp_of(cache.mask), Deferred(p, g)

        # after the loop, backwards
        dalphas = None if cache.doubly is None else doubly_stochastic_backward(dloss * config.penalty, cache.doubly)
        dwords, others = 0, ()
        if self.has_logits:
            dlogits = word_loss_backward(dloss, cache.vocabulary)
            dout, *others = pairs.logits_backward(p, config, dlogits, deferred, cache.output)
        else:
            dout, *factors, db_p = vocabulary_backward_factors(dloss, cache.vocabulary)
            g.add_product(*factors, "W_p")
            g.add(b_p=db_p)
            del factors  # one is the largest array, (T*N, V)
        if self.has_output:
            dhidden = dropout_backward(dout, hidden_dropout)
            dwords, (dout, *others) = pairs.output_backward(p, config, dhidden, deferred, cache.output)
        douts = dropout_backward(dout, out_dropout), *others
        cache = cache._replace(steps=None, vocabulary=None, output=None)  # its large parts
        if self.has_attention:
            douts, dalphas = pairs.attention_backward(p, config, douts, rows(dalphas), deferred, cache.attention), None
            cache = cache._replace(attention=None)
        douts = [x.reshape(T, N, -1) for x in douts]

        # the loop, backwards; the state after the last step is not used
        dstate, dword = tuple(xp.zeros_like(x) for x in cache.state), [None] * T
        for t in reversed(range(T)):
            dout, dalpha = tuple(x[t] for x in douts), None if dalphas is None else dalphas[t]
            dword[t], dstate = pairs.cell_backward(p, config, dout, dstate, dalpha, steps.pop(), deferred)

        # before the loop, backwards, with each weight gradient as one product over all steps
        deferred.finish()
        dannotations = pairs.photo_backward(p, config, dstate, deferred, cache.photo, frozen)
        dwords = dwords + _words_backward(p, g, rows(xp.stack(dword)), cache.words)
        g.add(E=embedding_backward(dropout_backward(dwords, words_dropout), cache.embedding))
        return dannotations

    def diagnostics(self, told):
        """Means over the words: the entropy of alpha_t in nats, and the statistics of the captioner's own `diagnostics`."""
        found = self._diagnostics(told)
        return {name: (told.mask * x).sum() / told.mask.sum() for name, x in found.items()}

    def weights(self, told):
        return dict.fromkeys(self._diagnostics(told), told.mask.sum())

    def _diagnostics(self, told):
        """{name: (T, N)}"""
        if told.alphas is None:
            return {}
        xp = xp_of(told.alphas)
        found = {"alpha_entropy": entropy(xp.log(xp.maximum(told.alphas, 1e-30)))}
        return found | (self.pairs.diagnostics(told) if hasattr(self.pairs, "diagnostics") else {})

    @property
    def channels(self):
        return self._channels if hasattr(self.pairs, "channels") else None

    def _channels(self, params, config, batch):
        steps = self.forward(params, config, batch, Noise())[1].steps
        return tuple(xp_of(batch.mask).stack(x) for x in zip(*map(self.pairs.channels, steps), strict=True))

    def decoding_noise(self, config, N, L, steps, rng):
        return None

    def start(self, params, config, annotations, noise=None):
        photo, state, _ = self.pairs.photo_forward(params, config, annotations)
        times_W_p = None if self.has_logits else packed(params.W_p)
        word_gates = WordGates(params) if "W_x" in params.shapes else None
        return State(photo, state, np.arange(len(annotations)), times_W_p, word_gates)

    def step(self, params, config, state, words, parents):
        p, pairs, xp, photos = params, self.pairs, xp_of(params.E), state.photos[parents]
        parent, words = to_device(parents, xp), np.asarray(words)
        said, _ = embedding_forward(to_device(words, xp), p.E)
        photo, word = _of_captions(state.photo, photos), state.word_gates(words) if state.word_gates else said
        out, captions, alpha, _ = pairs.cell_forward(p, config, photo, word, tuple(x[parent] for x in state.captions))
        if self.has_attention:
            out, alpha, _ = pairs.attention_forward(p, config, photo, out)
        if self.has_logits:
            logits, _ = pairs.logits_forward(p, config, photo, out)
        else:
            hidden = pairs.output_forward(p, config, photo, said, out)[0] if self.has_output else out[0]
            times_W_p = state.weights
            logits = times_W_p(hidden)
            logits += p.b_p
        return log_softmax(logits), state._replace(captions=captions, photos=photos), alpha


def _of_captions(photo, photos):
    """`photo` for the captions of photos (R,): Locations are read in place, other arrays (N, ...) are indexed by row."""
    return type(photo)(*(
        x._replace(photos=photos) if isinstance(x, Locations) else x[to_device(photos, xp_of(x))] for x in photo
    ))  # fmt: skip


def _absent(photo, dtype):
    """The number of absent locations of all photos, ()"""
    present = next((x.present for x in photo if isinstance(x, Locations)), None)
    return 0 if present is None else (~present).sum(dtype=dtype)


def _words_forward(p, words):
    """words (T*N, M) -> E[y] W_x + b (T*N, K), or E[y] itself if the captioner has no W_x"""
    if "W_x" not in p.shapes:
        return words
    word = words @ p.W_x
    word += p.b
    return word


def _words_backward(p, g, dword, words):
    """dword (T*N, K), words (T*N, M) -> dwords (T*N, M); adds dW_x and db"""
    if "W_x" not in p.shapes:
        return dword
    g.add(W_x=words.T @ dword, b=dword.sum(axis=0))
    return dword @ p.W_x.T
