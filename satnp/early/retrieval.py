"""Retrieval: a photo gets a sentence of the most similar training photos (Devlin et al. 2015, "Exploring Nearest Neighbor
Approaches for Image Captioning").

    v = mean_i a_i, standardised over the training photos, and of length 1
    neighbours: the k training photos whose v has the largest product with that of the photo
    caption: of all sentences of the neighbours, the one with the largest sum of sim(c, c') over the other sentences c'
    sim(c, c') = mean over n = 1..4 of the cosine of their n-grams, each weighted by tf-idf, as in CIDEr

With k = 1 the caption is a sentence of the nearest photo. With many neighbours it is the sentence that says what most of the
others say: the "consensus" of the neighbours.

Differs: the paper takes features of a fully connected layer, the sum over the most similar sentences only, and BLEU or CIDEr
as sim.
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from satnp.arrays.backend import to_host
from satnp.arrays.parameters import Parameters
from satnp.captioners.config import Validated
from satnp.data.captions import END
from satnp.decoding import Decoded
from satnp.early.photos import directions, means, sentences_of, standardise, store, stored

SIZES = "P", "S", "T"  # of Config, which fit() sets
N_GRAMS = 1, 2, 3, 4


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    k: int = 30   # neighbours
    P: int = 1    # training photos
    S: int = 1    # their sentences
    T: int = 1    # words of the longest one


def shapes(config):
    return {
        "mean": (config.D,), "deviation": (config.D,), "v": (config.P, config.D),
        "sentences": (config.S, config.T),           # word ids, then -1
        "photo_of": (config.S,),                     # in rising order
        "weights": (len(N_GRAMS), config.S, config.T),  # idf of the n-gram that begins at each word
    }  # fmt: skip


def fit(config, photos):
    """Keep the vectors of the training photos, their sentences, and the weights of the sentences' n-grams."""
    ids, photo_of = sentences_of(photos.captions)
    config = replace(config, P=len(photos.captions), S=len(ids), T=max(map(len, ids)))
    p = Parameters(shapes(config))
    v = means(photos.annotations)
    standardise(p, v)
    p.v[...], p.photo_of[...] = directions(p, v), photo_of
    store(ids, p.sentences)
    for n, weights in zip(N_GRAMS, p.weights, strict=True):
        frequency = Counter()
        for captions in photos.captions:
            frequency.update({gram for caption in captions for gram in _grams(caption[1:-1], n)})
        for row, words in zip(weights, ids, strict=True):
            grams = _grams(words, n)
            row[: len(grams)] = [np.log(config.P / frequency[gram]) for gram in grams]
    return config, p


def _grams(words, n):
    return [tuple(words[t : t + n]) for t in range(len(words) - n + 1)]


def describe(p, config, annotations):
    """annotations (N, L, D) -> list of N Decoded"""
    p = p.on(to_host(p.flat))
    return [Decoded([*stored(p.sentences[row]), END], None, None) for row in retrieve(p, config, annotations)]


def retrieve(p, config, annotations):
    """annotations (N, L, D), p on the host -> of N photos the row of the chosen sentence"""
    found = []
    for row in directions(p, means(annotations)) @ p.v.T:
        nearest = np.argsort(-row, kind="stable")[: config.k]
        rows = np.flatnonzero(np.isin(p.photo_of, nearest))
        found.append(int(rows[consensus(p.sentences[rows].astype(int), p.weights[:, rows])]))
    return found


def consensus(sentences, weights):
    """The sentence that is most similar to the others: sentences (S, T), weights (4, S, T) -> its row"""
    (S, T), similar = sentences.shape, 0
    for n, weight in zip(N_GRAMS, weights, strict=True):
        if n > T:
            break
        grams = np.lib.stride_tricks.sliding_window_view(sentences, n, axis=1)
        present = (grams >= 0).all(axis=2)
        row, _ = np.nonzero(present)
        kinds, kind = np.unique(grams[present], axis=0, return_inverse=True)
        counts = np.zeros((S, len(kinds)), np.float32)
        np.add.at(counts, (row, kind.ravel()), weight[:, : grams.shape[1]][present])
        counts /= np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-12)
        similar = similar + counts @ counts.T
    return int((similar.sum(axis=1) - np.diag(similar)).argmax())
