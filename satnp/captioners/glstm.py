"""gLSTM (Jia et al. 2015): an LSTM with a guidance vector in all its gates, the same at each step.

    h_0, c_0 = LSTM(v W_i + b_i)                                  once, as in Show and Tell;  v = mean_i a_i
    (i, f, o, g)_t = (sigmoid, sigmoid, sigmoid, tanh)(E[y_{t-1}] W_x + h_{t-1} W_h + b + guidance W_q + b_q)
    p(y_t) = softmax(h_t W_p + b_p)

`guidance` is "image", where the guidance is v (the paper's variant with the image as guidance), or "file": a vector (G,) for
each photo, made by another program (the paper has a CCA projection, or text that was retrieved for the photo). A vector from
a file comes in the last ceil(G / D) rows of the annotations, row by row, and zeros behind it: see guidance_rows. Training
does not change the encoder then (training/presets.py).

Differs: the biases b_i and b_q; v is the mean annotation.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import xp_of
from satnp.captioners import show_and_tell
from satnp.captioners.config import Validated, check_choices
from satnp.captioners.initialise import standardise
from satnp.captioners.recurrent import Recurrent
from satnp.layers import mean_annotation_backward


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    M: int = 512
    H: int = 512
    G: int = 512          # size of a guidance vector from a file
    guidance: str = "image"  # image or file
    tanh: bool = True     # h = o * tanh(c); False: h = o * c
    dropout: float = 0.5  # of E[y_{t-1}] and of h_t on its way to the vocabulary layer

    def __post_init__(self):
        super().__post_init__()
        check_choices(self, {"guidance": ("image", "file")})


CHECKS = {
    "": Config(V=9, D=4, M=3, H=5, dropout=0.4),
    "bare": Config(V=8, D=3, M=5, H=4, tanh=False, dropout=0.0),
    "file": Config(V=9, D=4, M=3, H=5, G=6, guidance="file", dropout=0.4),
}


class Photo(NamedTuple):
    gates: object  # (N, 4H), guidance W_q + b_q


class PhotoCache(NamedTuple):
    image: object     # of Show and Tell
    guidance: object  # (N, G) from a file, or None


def shapes(config):
    read = config.G if config.guidance == "file" else config.D
    return show_and_tell.shapes(config) | {"W_q": (read, 4 * config.H), "b_q": (4 * config.H,)}


def guidance_rows(vectors, D):
    """vectors (N, G), on the host -> (N, R, D), R = ceil(G / D): what follows the annotations of the photo's locations"""
    N, G = vectors.shape
    rows = np.zeros((N, -(-G // D) * D), vectors.dtype)
    rows[:, :G] = vectors
    return rows.reshape(N, -1, D)


def _split(config, annotations):
    """annotations (N, L + R, D) -> those of the photo (N, L, D), guidance (N, G) from a file; or annotations, None"""
    if config.guidance == "image":
        return annotations, None
    L = annotations.shape[1] - -(-config.G // config.D)
    return annotations[:, :L], annotations[:, L:].reshape(len(annotations), -1)[:, : config.G]


def prepare(p, config, corpus):
    """That of Show and Tell, and the guidance is standardised too."""
    annotations, guidance = _split(config, corpus.annotations)
    show_and_tell.prepare(p, config, corpus._replace(annotations=annotations))
    standardise(p.W_q, p.b_q, annotations.mean(axis=1) if guidance is None else guidance)


def photo_forward(p, config, annotations):
    """annotations (N, L, D) -> Photo, state (h_0 (N, H), c_0 (N, H)), cache"""
    annotations, guidance = _split(config, annotations)
    _, state, image = show_and_tell.photo_forward(p, config, annotations)
    gates = (image.v if guidance is None else guidance) @ p.W_q + p.b_q
    return Photo(gates), state, PhotoCache(image, guidance)


def photo_backward(p, config, dstate, deferred, cache, frozen):
    """dstate (dh_0 (N, H), dc_0 (N, H)), and the sum over all steps -> dannotations (N, L, D), None if frozen"""
    (image, guidance), dgates = cache, deferred.sums["gates"]
    deferred.g.add(W_q=(image.v if guidance is None else guidance).T @ dgates, b_q=dgates.sum(axis=0))
    dannotations = show_and_tell.photo_backward(p, config, dstate, deferred, image, frozen)
    if frozen:
        return None
    dguidance = dgates @ p.W_q.T
    if guidance is None:
        return dannotations + mean_annotation_backward(dguidance, image.mean)
    N, G, D, xp = len(dguidance), config.G, config.D, xp_of(dguidance)
    behind = xp.zeros((N, -G % D), dtype=dguidance.dtype)
    return xp.concatenate([dannotations, xp.concatenate([dguidance, behind], axis=1).reshape(N, -1, D)], axis=1)


def cell_forward(p, config, photo, word, state):
    """word (N, 4H), state (h (N, H), c (N, H)) -> out (h,), state, None, cache"""
    h_prev, c = state
    (h, c), cell = show_and_tell.lstm_forward(config, h_prev @ p.W_h + photo.gates, c, word)
    return (h,), (h, c), None, show_and_tell.Step(h_prev, cell)


def cell_backward(p, config, dout, dstate, dalpha, step, deferred):
    """dout (dh (N, H),), dstate (dh (N, H), dc (N, H)) -> dword (N, 4H), dstate"""
    dgates, dstate = show_and_tell.cell_backward(p, config, dout, dstate, dalpha, step, deferred)
    deferred.sum(gates=dgates)
    return dgates, dstate


captioner = Recurrent(__name__)
