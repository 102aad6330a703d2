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
vectors to one point. The sum over words is divided by their number, so that margins mean the same for all lengths. After
`epochs` the learning rate rises twice more ("warm restarts": Loshchilov and Hutter 2017), which makes the vectors better.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import to_device, to_host, xp_of
from satnp.arrays.parameters import Parameters
from satnp.captioners.config import Validated, check_choices
from satnp.captioners.initialise import initialise, standardise
from satnp.data.captions import END
from satnp.decoding import Decoded
from satnp.early.fitting import fit_parameters, minibatches
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
MIRRORS = True
CYCLES, AGAIN = 2, 0.6  # cycles of the rate after the first one, see Config
CHOICES = {"sentences": ("lstm", "words"), "negatives": ("hardest", "all")}
ORTHOGONAL = "W_h", "W_f", "W_r"
CHUNK = 256  # sentences whose vectors are computed together


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    M: int = 300             # of a word
    K: int = 512             # of the space
    sentences: str = "lstm"
    negatives: str = "hardest"
    margin: float = 0.2
    dropout: float = 0.3     # of E[w_t]
    photo_dropout: float = 0.2  # of the features of a photo
    epochs: int = 14
    again: int = 4           # epochs of each cycle after these, in which the rate falls from AGAIN times `rate`
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


class Packed(NamedTuple):
    """The R words of N sentences, step by step: in each step those of the sentences that are long enough, the longest first.

    order (N,): the sentences from the longest to the shortest; words (R,): t*N + n of each word; steps: the T slices of R.
    """

    order: object
    words: object
    steps: list


class SentencesCache(NamedTuple):
    packed: Packed
    shape: tuple       # (N, T)
    embedding: object
    dropout: object
    words: object      # (R, M)
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
    """Those, the vectors of the training photos, and their sentences, for "lstm" with their vectors."""
    kept = {"photos": (config.P, config.K), "sentences": (config.S, config.T), "photo_of": (config.S,)}
    vectors = {"y": (config.S, config.K)} if config.sentences == "lstm" else {}
    return learned_shapes(config) | kept | vectors


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


def pack(mask):
    """Which words a mask (N, T) leaves -> Packed. A step of a sentence's network then computes nothing for padding."""
    lengths = to_host(mask).sum(axis=1).astype(int)
    order = np.argsort(-lengths, kind="stable")
    alive = (lengths[:, None] > np.arange(mask.shape[1])).sum(axis=0)
    ends = np.cumsum(alive)
    words = np.concatenate([t * len(mask) + order[:n] for t, n in enumerate(alive)])
    order, words = (to_device(x, xp_of(mask)) for x in (order, words))
    return Packed(order, words, [slice(end - n, end) for n, end in zip(alive, ends, strict=True)])


def sentences_forward(p, config, sentences, mask, dropout=None):
    """sentences (N, T), mask (N, T) -> y (N, K) of length 1, or s (N, T, K) for "words"; cache"""
    xp, (N, T), packed = xp_of(p.E), sentences.shape, pack(mask)
    words, embedding = embedding_forward(sentences.T.ravel()[packed.words], p.E)
    words, drop = dropout_forward(words, None if dropout is None else rows(dropout)[packed.words])
    fed, cache = words @ p.W_x + p.b, SentencesCache(packed, (N, T), embedding, drop, words, [], None)
    if config.sentences == "lstm":
        h = c = xp.zeros((N, config.K), dtype=fed.dtype)
        last = xp.zeros_like(h)
        for step in packed.steps:
            n = step.stop - step.start
            (h_new, c), cell = lstm_cell_forward(h[:n] @ p.W_h, c[:n], fed[step])
            cache.steps.append((h[:n], cell))
            last[packed.order[:n]], h = h_new, h_new
        y, normalise = normalise_forward(last)
        return y, cache._replace(normalise=normalise)
    e, relu_e = relu_forward(fed)
    f, forth = _recurrent_forward(p, "f", e, N, packed.steps)
    r, back = _recurrent_forward(p, "r", e, N, packed.steps[::-1])
    both = f + r
    said, relu_s = relu_forward(both @ p.W_d + p.b_d)
    s = xp.zeros((T * N, config.K), dtype=said.dtype)
    s[packed.words] = said
    return s.reshape(T, N, -1).transpose(1, 0, 2), cache._replace(more=(relu_e, forth, back, both, relu_s))


def sentences_backward(p, config, dy, cache, grads):
    """dy (N, K) or (N, T, K): adds to grads"""
    xp, packed = xp_of(dy), cache.packed
    if config.sentences == "lstm":
        dh = normalise_backward(dy, cache.normalise)[packed.order]  # of a shorter sentence it waits for its last word
        dc, dfed = xp.zeros_like(dh), xp.empty((len(packed.words), 4 * config.K), dtype=dh.dtype)
        for step, (_, cell) in zip(reversed(packed.steps), reversed(cache.steps), strict=True):
            n = step.stop - step.start
            dfed[step], dc[:n] = lstm_cell_backward((dh[:n], dc[:n]), cell)
            dh[:n] = dfed[step] @ p.W_h.T
        grads.add(W_h=xp.concatenate([h for h, _ in cache.steps]).T @ dfed)
    else:
        relu_e, forth, back, both, relu_s = cache.more
        ds = relu_backward(rows(dy.transpose(1, 0, 2))[packed.words], relu_s)
        grads.add(W_d=both.T @ ds, b_d=ds.sum(axis=0))
        dboth, N = ds @ p.W_d.T, cache.shape[0]
        de = _recurrent_backward(p, "f", dboth, N, forth, grads) + _recurrent_backward(p, "r", dboth, N, back, grads)
        dfed = relu_backward(de, relu_e)
    grads.add(W_x=cache.words.T @ dfed, b=dfed.sum(axis=0))
    dwords = dropout_backward(dfed @ p.W_x.T, cache.dropout)
    grads.add(E=embedding_backward(dwords, cache.embedding))


def _recurrent_forward(p, name, e, N, steps):
    """f_t = ReLU(e_t + f_{t-1} W + b), W and b of this name: e (R, K), steps in the network's order -> f (R, K), cache"""
    xp, W, b = xp_of(e), p[f"W_{name}"], p[f"b_{name}"]
    state, f, cache = xp.zeros((N, e.shape[1]), dtype=e.dtype), xp.empty_like(e), []
    for step in steps:
        n = step.stop - step.start
        before = state[:n].copy()
        f[step], relu = relu_forward(e[step] + before @ W + b)
        state[:n] = f[step]
        cache.append((step, before, relu))
    return f, cache


def _recurrent_backward(p, name, df, N, cache, grads):
    """df (R, K) -> de (R, K); adds dW and db to grads"""
    xp, W = xp_of(df), p[f"W_{name}"]
    carried, de, dW = xp.zeros((N, df.shape[1]), dtype=df.dtype), xp.empty_like(df), 0
    for step, before, relu in reversed(cache):
        n = step.stop - step.start
        de[step] = relu_backward(df[step] + carried[:n], relu)
        carried[:n] = de[step] @ W.T
        dW += before.T @ de[step]
    grads.add(**{f"W_{name}": dW, f"b_{name}": de.sum(axis=0)})
    return de


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
    mirrored = None if photos.mirrored is None else seen_of(config, photos.mirrored)
    p, batches = init(config, rng), minibatches(len(pairs), config.batch, rng)
    prepare(p, config, seen[rng.permutation(len(seen))[:512]].astype(np.float32))

    def draw(rng):
        chosen = [pairs[i] for i in next(batches)]
        of = np.array([n for n, _ in chosen])
        sentences, mask = padded([ids for _, ids in chosen])
        others = (of[:, None] != of).astype(np.float32)
        dropout = draw_dropout(config, sentences.shape[1], len(of), rng)
        annotations = seen[of].astype(np.float32)
        if mirrored is not None:
            turned = rng.random(len(of)) < 0.5
            annotations[turned] = mirrored[of[turned]]
        annotations *= dropout_mask(rng, annotations.shape, config.photo_dropout)
        return Batch(annotations, sentences, mask, others, dropout)

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
    for epochs, rate in ((config.epochs, config.rate), *CYCLES * [(config.again, AGAIN * config.rate)]):
        fit_parameters(p, draw, work, epochs * steps, rate, rng, validate, steps, "ranking", "sum of recalls")
    whole = Parameters(shapes(config))
    for name, x in p.items():
        whole[name][...] = x
    whole.photos[...] = photo_vectors(p, config, seen)
    whole.photo_of[...] = photo_of
    store(ids, whole.sentences)
    if config.sentences == "lstm":
        parts = np.array_split(np.argsort(list(map(len, ids)), kind="stable"), -(-len(ids) // CHUNK))
        for part in parts:
            whole.y[part] = sentences_forward(p, config, *padded([ids[r] for r in part]))[0]
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


def similarities(p, config, seen, sentences, chunk=CHUNK):
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
        if config.sentences == "lstm":
            S = photos_forward(p, config, seen[n : n + 1])[0] @ p.y[rows].T
        else:
            S = similarities(p, config, seen[n : n + 1], [stored(row) for row in p.sentences[rows]])
        found.append(Decoded([*stored(p.sentences[rows[S[0].argmax()]]), END], None, None))
    return found
