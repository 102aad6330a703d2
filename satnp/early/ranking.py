"""Rank sentences for a photo, and photos for a sentence: both become vectors of one space of K dimensions.

    sentences = "lstm" (Kiros, Salakhutdinov and Zemel 2014)
        x_k = v_k W_v + b_v,    v = mean_i a_i;    y_l = h_T of an LSTM that reads the words of sentence l
        S_kl = cos(x_k, y_l)
    sentences = "words" (Karpathy and Fei-Fei 2015)
        v_i = a_i W_v + b_v of each location;    e_t = ReLU(E[w_t] W_x + b)                            eqs. 1-2
        f_t = ReLU(e_t + f_{t-1} W_f + b_f),    r_t = ReLU(e_t + r_{t+1} W_r + b_r)                    eqs. 3-4
        s_t = ReLU((f_t + r_t) W_d + b_d)                                                              eq. 5
        S_kl = sum_t max_i v_i . s_t / T                                                               eq. 8

The loss is the hinge loss of layers/ranking.py over all pairs of a minibatch: a photo must be more similar to its own
sentence than to another photo's, by `margin`, and a sentence to its own photo. A photo's caption is the most similar of the
sentences of the k nearest training photos.

Differs: Kiros et al. take a random few of the others for each pair, Karpathy and Fei-Fei all of them; `negatives` is
"hardest" (Faghri et al. 2018) by default, after `warm` epochs with all: from random weights the hardest others push all
vectors to one point. The sum over words is divided by their number, so that margins mean the same for all lengths.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import to_host, xp_of
from satnp.arrays.parameters import Parameters
from satnp.captioners.config import Validated, check_choices
from satnp.captioners.deferred import Deferred
from satnp.captioners.initialise import initialise, standardise
from satnp.data.captions import END
from satnp.decoding import Decoded
from satnp.early.fitting import fit_parameters
from satnp.early.photos import sentences_of, store, stored
from satnp.layers import (
    alignment_backward,
    alignment_forward,
    dropout_backward,
    dropout_forward,
    dropout_mask,
    embedding_backward,
    embedding_forward,
    lstm_cell_backward,
    lstm_cell_forward,
    mean_annotation_backward,
    mean_annotation_forward,
    normalise_backward,
    normalise_forward,
    ranking_loss_backward,
    ranking_loss_forward,
    relu_backward,
    relu_forward,
    rows,
)
from satnp.scores.ranking import ranks, recalls

SIZES = "P", "S", "T"  # of Config, which fit() sets
CHOICES = {"sentences": ("lstm", "words"), "negatives": ("hardest", "all")}
ORTHOGONAL = "W_h", "W_f", "W_r"


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    M: int = 300             # of a word
    K: int = 1024            # of the space
    sentences: str = "lstm"
    negatives: str = "hardest"
    margin: float = 0.2
    dropout: float = 0.2     # of E[w_t]
    epochs: int = 15
    warm: int = 2            # of these, those with all negatives at the beginning
    batch: int = 128
    rate: float = 5e-4
    k: int = 60              # training photos whose sentences may be a caption
    P: int = 1               # training photos
    S: int = 1               # their sentences
    T: int = 1               # words of the longest one

    def __post_init__(self):
        super().__post_init__()
        check_choices(self, CHOICES)


CHECKS = {
    "": Config(V=9, D=4, M=3, K=5, negatives="all", margin=1.0, dropout=0.4),
    "hardest": Config(V=8, D=3, M=5, K=4, margin=1.0, dropout=0.0),
    "words": Config(V=9, D=4, M=3, K=5, sentences="words", negatives="all", margin=1.0, dropout=0.4),
}


class Batch(NamedTuple):
    """N photos, each with a sentence: annotations (N, L, D), sentences (N, T) word ids, mask (N, T) with 1 for each word,
    others (N, N), 1 where sentence l is not of photo k, dropout (T, N, M) or None."""

    annotations: object
    sentences: object
    mask: object
    others: object
    dropout: object = None


class PhotosCache(NamedTuple):
    seen: object   # (N, D) or (N*L, D)
    shape: tuple   # of the annotations
    normalise: object
    mean: object


class SentencesCache(NamedTuple):
    mask: object       # (T, N, 1)
    embedding: object
    dropout: object
    words: object      # (T*N, M)
    steps: list
    normalise: object
    more: object = None


class Cache(NamedTuple):
    p: object
    config: object
    photos: object
    sentences: object
    similarity: object
    loss: object


def learned_shapes(config):
    """{name: shape} of the parameters that have gradients."""
    V, D, M, K = config.V, config.D, config.M, config.K
    photo = {"E": (V, M), "W_v": (D, K), "b_v": (K,)}
    if config.sentences == "lstm":
        return photo | {"W_x": (M, 4 * K), "W_h": (K, 4 * K), "b": (4 * K,)}
    return photo | {
        "W_x": (M, K), "b": (K,), "W_f": (K, K), "b_f": (K,), "W_r": (K, K), "b_r": (K,), "W_d": (K, K), "b_d": (K,),
    }  # fmt: skip


def shapes(config):
    """Those, the vectors of the training photos, and their sentences."""
    kept = {"photos": (config.P, config.K), "sentences": (config.S, config.T), "photo_of": (config.S,)}
    return learned_shapes(config) | kept


def init(config, rng):
    return initialise(learned_shapes(config), rng, ORTHOGONAL)


def prepare(p, config, annotations):
    """Standardise what W_v reads over some photos (N, L, D)."""
    seen = annotations.mean(axis=1) if config.sentences == "lstm" else rows(annotations)
    standardise(p.W_v, p.b_v, seen)


def draw_dropout(config, T, N, rng):
    """The dropout masks of T words of N sentences, or None."""
    return dropout_mask(rng, (T, N, config.M), config.dropout) if config.dropout else None


def photos_forward(p, config, annotations):
    """annotations (N, L, D) -> x (N, K) of length 1, or v (N, L, K) for "words"; cache"""
    N, L, D = annotations.shape
    if config.sentences == "words":
        seen = rows(annotations)
        return (seen @ p.W_v + p.b_v).reshape(N, L, -1), PhotosCache(seen, annotations.shape, None, None)
    seen, mean = mean_annotation_forward(annotations)
    x, normalise = normalise_forward(seen @ p.W_v + p.b_v)
    return x, PhotosCache(seen, annotations.shape, normalise, mean)


def photos_backward(p, config, dx, cache, grads):
    """dx (N, K) or (N, L, K) -> dannotations (N, L, D); adds to grads"""
    seen, shape, normalise, mean = cache
    dx = rows(dx) if normalise is None else normalise_backward(dx, normalise)
    grads.add(W_v=seen.T @ dx, b_v=dx.sum(axis=0))
    dseen = dx @ p.W_v.T
    return dseen.reshape(shape) if mean is None else mean_annotation_backward(dseen, mean)


def sentences_forward(p, config, sentences, mask, dropout=None):
    """sentences (N, T), mask (N, T) -> y (N, K) of length 1, or s (N, T, K) for "words"; cache"""
    xp, (N, T) = xp_of(p.E), sentences.shape
    words, embedding = embedding_forward(sentences.T.ravel(), p.E)
    words, drop = dropout_forward(words, None if dropout is None else rows(dropout))
    fed, present = (words @ p.W_x + p.b).reshape(T, N, -1), mask.T[:, :, None]
    cache = SentencesCache(present, embedding, drop, words, [], None)
    if config.sentences == "lstm":
        h = c = xp.zeros((N, config.K), dtype=words.dtype)
        for x, m in zip(fed, present, strict=True):
            (h_new, c_new), cell = lstm_cell_forward(h @ p.W_h, c, x)
            cache.steps.append((h, cell))
            h, c = m * h_new + (1 - m) * h, m * c_new + (1 - m) * c  # behind the last word nothing changes
        y, normalise = normalise_forward(h)
        return y, cache._replace(normalise=normalise)
    e, relu_e = relu_forward(rows(fed))
    e = e.reshape(fed.shape)
    f, forth = _recurrent_forward(p, "f", e, present)
    r, back = _recurrent_forward(p, "r", e[::-1], present[::-1])
    both = rows(f + r[::-1])
    s, relu_s = relu_forward(both @ p.W_d + p.b_d)
    return s.reshape(T, N, -1).transpose(1, 0, 2), cache._replace(more=(relu_e, forth, back, both, relu_s))


def sentences_backward(p, config, dy, cache, grads):
    """dy (N, K) or (N, T, K): adds to grads"""
    deferred, (T, N, _) = Deferred(p, grads), cache.mask.shape
    if config.sentences == "lstm":
        dh, dfed = normalise_backward(dy, cache.normalise), [None] * T
        dc = xp_of(dh).zeros_like(dh)
        for t in reversed(range(T)):
            (h, cell), m = cache.steps[t], cache.mask[t]
            dfed[t], dc_prev = lstm_cell_backward((m * dh, m * dc), cell)
            dh = (1 - m) * dh + deferred.product(dfed[t], h, "W_h")
            dc = (1 - m) * dc + dc_prev
        deferred.finish()
        dfed = rows(xp_of(dh).stack(dfed))
    else:
        relu_e, forth, back, both, relu_s = cache.more
        ds = relu_backward(rows(dy.transpose(1, 0, 2)), relu_s)
        grads.add(W_d=both.T @ ds, b_d=ds.sum(axis=0))
        dboth = (ds @ p.W_d.T).reshape(T, N, -1)
        de = _recurrent_backward(p, "f", dboth, forth, grads) + _recurrent_backward(p, "r", dboth[::-1], back, grads)[::-1]
        dfed = relu_backward(rows(de), relu_e)
    grads.add(W_x=cache.words.T @ dfed, b=dfed.sum(axis=0))
    dwords = dropout_backward(dfed @ p.W_x.T, cache.dropout)
    grads.add(E=embedding_backward(dwords, cache.embedding))


def _recurrent_forward(p, name, e, present):
    """f_t = mask_t ReLU(e_t + f_{t-1} W + b), W and b of this name: e (T, N, K), present (T, N, 1) -> f (T, N, K), cache"""
    xp, W, b = xp_of(e), p[f"W_{name}"], p[f"b_{name}"]
    f, made, steps = xp.zeros_like(e[0]), [], []
    for x, m in zip(e, present, strict=True):
        new, relu = relu_forward(x + f @ W + b)
        steps.append((f, relu, m))
        f = m * new
        made.append(f)
    return xp.stack(made), steps


def _recurrent_backward(p, name, df, steps, grads):
    """df (T, N, K) -> de (T, N, K); adds dW and db to grads"""
    deferred, carried, de = Deferred(p, grads), 0, [None] * len(steps)
    for t in reversed(range(len(steps))):
        f_prev, relu, m = steps[t]
        de[t] = relu_backward(m * (df[t] + carried), relu)
        carried = deferred.product(de[t], f_prev, f"W_{name}", bias=f"b_{name}")
    deferred.finish()
    return xp_of(df).stack(de)


def similarity_forward(config, x, y, mask):
    """What photos_forward and sentences_forward give, for N photos and R sentences -> S (N, R), cache"""
    if config.sentences == "lstm":
        return x @ y.T, (x, y)
    return alignment_forward(x, y, mask / mask.sum(axis=1, keepdims=True))


def similarity_backward(config, dS, cache):
    """dS (N, R) -> dx, dy"""
    if config.sentences == "lstm":
        x, y = cache
        return dS @ y, dS.T @ x
    return alignment_backward(dS, cache)


def forward(p, config, batch):
    """The ranking loss of a Batch -> loss (), cache"""
    x, photos = photos_forward(p, config, batch.annotations)
    y, sentences = sentences_forward(p, config, batch.sentences, batch.mask, batch.dropout)
    S, similarity = similarity_forward(config, x, y, batch.mask)
    loss, ranking = ranking_loss_forward(S, batch.others, config.margin, config.negatives == "hardest")
    return loss, Cache(p, config, photos, sentences, similarity, ranking)


def backward(cache, grads):
    """Adds dloss/dparams to grads -> dannotations (N, L, D)"""
    p, config, photos, sentences, similarity, ranking = cache
    dx, dy = similarity_backward(config, ranking_loss_backward(1.0, ranking), similarity)
    sentences_backward(p, config, dy, sentences, grads)
    return photos_backward(p, config, dx, photos, grads)


def fit(config, photos):
    """Train on pairs of a photo and one of its sentences; the epoch with the largest sum of recalls on the validation photos
    is kept."""
    rng = np.random.default_rng([photos.seed, 6])
    ids, photo_of = sentences_of(photos.captions)
    pairs = list(zip(photo_of.tolist(), ids, strict=True))
    config = replace(config, P=len(photos.captions), S=len(pairs), T=max(map(len, ids)))
    seen, val = (seen_of(config, x) for x in (photos.annotations, photos.val_annotations))
    p, order = init(config, rng), []
    prepare(p, config, seen[rng.permutation(len(seen))[:512]].astype(np.float32))

    def draw(rng):
        nonlocal order
        order = order or np.split(rng.permutation(len(pairs)), range(config.batch, len(pairs), config.batch))
        chosen = [pairs[i] for i in order.pop()]
        of = np.array([n for n, _ in chosen])
        sentences, mask = padded([ids for _, ids in chosen])
        others = (of[:, None] != of).astype(np.float32)
        dropout = draw_dropout(config, sentences.shape[1], len(of), rng)
        return Batch(seen[of].astype(np.float32), sentences, mask, others, dropout)

    def work(batch, grads):
        nonlocal step
        loss, cache = forward(p, first if step < config.warm * steps else config, batch)
        backward(cache, grads)
        step += 1
        return loss

    def validate():
        sentences, of = sentences_of(photos.val_captions)
        found = recalls(ranks(similarities(p, config, val, sentences), of))
        return sum(share for way in found.values() for name, share in way.items() if name != "median")

    steps, step, first = -(-len(pairs) // config.batch), 0, replace(config, negatives="all")
    fit_parameters(p, draw, work, config.epochs * steps, config.rate, rng, validate, steps, "ranking")
    whole = Parameters(shapes(config))
    for name, x in p.items():
        whole[name][...] = x
    whole.photos[...] = photo_vectors(p, config, seen)
    whole.photo_of[...] = photo_of
    store(ids, whole.sentences)
    return config, whole


def seen_of(config, annotations, chunk=500):
    """What the photos' side reads: annotations (N, L, D), or, for "lstm", their mean (N, 1, D)"""
    if config.sentences == "words":
        return annotations
    parts = (annotations[n : n + chunk] for n in range(0, len(annotations), chunk))
    return np.concatenate([part.mean(axis=1, keepdims=True, dtype=np.float32) for part in parts])


def padded(sentences):
    """Lists of word ids -> (R, T) int, mask (R, T)"""
    lengths = np.array([len(ids) for ids in sentences])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = np.concatenate(sentences)
    return ids, mask.astype(np.float32)


def photo_vectors(p, config, seen, chunk=250):
    """One vector of length 1 for each photo, for "words" the mean over its locations: (N, K)"""
    found = []
    for n in range(0, len(seen), chunk):
        x, _ = photos_forward(p, config, seen[n : n + chunk].astype(np.float32))
        found.append(x if x.ndim == 2 else normalise_forward(x.mean(axis=1))[0])
    return np.concatenate(found)


def similarities(p, config, seen, sentences, chunk=256):
    """S (N, R) of photos, as seen_of gives them, and sentences, lists of word ids."""
    S = np.empty((len(seen), len(sentences)), np.float32)
    photos = [(n, photos_forward(p, config, seen[n : n + 64].astype(np.float32))[0]) for n in range(0, len(seen), 64)]
    for r in range(0, len(sentences), chunk):
        ids, mask = padded(sentences[r : r + chunk])
        y, _ = sentences_forward(p, config, ids, mask)
        for n, x in photos:
            S[n : n + 64, r : r + chunk] = similarity_forward(config, x, y, mask)[0]
    return S


def alignment(p, config, annotations, ids):
    """Where each word of a sentence is, for "words": annotations (1, L, D), T word ids -> shares (T, L)

    max(v_i . s_t, 0) over the locations i, divided by their sum; a word that fits nowhere has the same share everywhere.
    """
    v, _ = photos_forward(p, config, annotations)
    s, _ = sentences_forward(p, config, *padded([ids]))
    products = np.maximum(to_host(v)[0] @ to_host(s)[0].T, 0).T
    total = products.sum(axis=1, keepdims=True)
    return np.where(total > 0, products / np.maximum(total, 1e-12), 1 / products.shape[1])


def describe(p, config, annotations):
    """annotations (N, L, D) -> list of N Decoded, the sentence of the k nearest training photos that is most similar"""
    p = p.on(to_host(p.flat))
    seen, found = seen_of(config, to_host(annotations)), []
    near = np.argsort(-photo_vectors(p, config, seen) @ p.photos.T, axis=1, kind="stable")[:, : config.k]
    for n, nearest in enumerate(near):
        rows = np.flatnonzero(np.isin(p.photo_of, nearest))
        sentences = [stored(row) for row in p.sentences[rows]]
        best = similarities(p, config, seen[n : n + 1], sentences)[0].argmax()
        found.append(Decoded([*sentences[best], END], None, None))
    return found
