"""What an early system learns from, and what several of them keep of it."""

from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import to_host

DEVIATION = 1e-3  # smallest standard deviation of a feature, as a share of the largest


class Photos(NamedTuple):
    """Training photos, and validation photos for choices: annotations (N, L, D), host arrays of any float type; captions, of
    each photo a list of lists of word ids, <start> first and <end> last; words, those of the vocabulary; seed.

    scenes: the data.scenes.Scene of each training photo, or None. mirrored (N, L, D): the annotations of the training photos
    when they are mirrored, or None.
    """

    annotations: object
    captions: list
    val_annotations: object
    val_captions: list
    words: list
    seed: int = 0
    scenes: tuple | None = None
    mirrored: object = None


def sentences_of(captions):
    """The sentences of all photos, as lists of word ids without <start> and <end>, and the photo of each (S,)"""
    ids = [caption[1:-1] for of_photo in captions for caption in of_photo]
    return ids, np.repeat(np.arange(len(captions)), [len(of_photo) for of_photo in captions])


def store(sentences, out):
    """Write lists of word ids into the rows of out (S, T), with -1 behind the last word."""
    out[...] = -1
    for row, ids in zip(out, sentences, strict=True):
        row[: len(ids)] = ids


def stored(row):
    """The word ids in a row that `store` wrote, a list"""
    return row[row >= 0].astype(int).tolist()


def sentence(ids):
    """Word ids as a text, which the scores can compare with others"""
    return " ".join(map(str, ids))


def means(annotations, chunk=500):
    """annotations (N, L, D) -> their mean (N, D), float32, on the host"""
    parts = (annotations[n : n + chunk] for n in range(0, len(annotations), chunk))
    return np.concatenate([to_host(part).mean(axis=1, dtype=np.float32) for part in parts])


def standardise(p, v):
    """Set p.mean and p.deviation (D,) to those of v (N, D)."""
    deviation = v.std(axis=0)
    p.mean[...], p.deviation[...] = v.mean(axis=0), np.maximum(deviation, DEVIATION * deviation.max() or 1)


def standardised(p, v):
    """v (N, D) -> with mean 0 and deviation 1 over the training photos"""
    return (v - p.mean) / p.deviation


def directions(p, v):
    """v (N, D) -> standardised, and of length 1: products are cosines"""
    v = standardised(p, v)
    return v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12)
