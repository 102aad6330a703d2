"""gLSTM (Jia et al. 2015): an LSTM with a guidance vector in all its gates, the same at each step.

    h_0, c_0 = LSTM(v W_i + b_i)                                  once, as in Show and Tell;  v = mean_i a_i
    (i, f, o, g)_t = (sigmoid, sigmoid, sigmoid, tanh)(E[y_{t-1}] W_x + h_{t-1} W_h + b + guidance W_q + b_q)
    p(y_t) = softmax(h_t W_p + b_p)

The guidance is v, the photo itself (the paper's variant with the image as guidance).
"""

from dataclasses import dataclass
from typing import NamedTuple

from satnp.captioners import show_and_tell
from satnp.captioners.config import Validated
from satnp.captioners.initialise import standardise
from satnp.captioners.recurrent import Recurrent
from satnp.layers import mean_annotation_backward


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    M: int = 512
    H: int = 512
    tanh: bool = True     # h = o * tanh(c); False: h = o * c
    dropout: float = 0.5  # of E[y_{t-1}] and of h_t on its way to the vocabulary layer


CHECKS = {"": Config(V=9, D=4, M=3, H=5, dropout=0.4), "bare": Config(V=8, D=3, M=5, H=4, tanh=False, dropout=0.0)}


class Photo(NamedTuple):
    gates: object  # (N, 4H), guidance W_q + b_q


def shapes(config):
    D, H = config.D, config.H
    return show_and_tell.shapes(config) | {"W_q": (D, 4 * H), "b_q": (4 * H,)}


def prepare(p, config, corpus):
    """That of Show and Tell, and the guidance is standardised too."""
    show_and_tell.prepare(p, config, corpus)
    standardise(p.W_q, p.b_q, corpus.annotations.mean(axis=1))


def photo_forward(p, config, annotations):
    """annotations (N, L, D) -> Photo, state (h_0 (N, H), c_0 (N, H)), cache"""
    _, state, cache = show_and_tell.photo_forward(p, config, annotations)
    return Photo(cache.v @ p.W_q + p.b_q), state, cache


def photo_backward(p, config, dstate, deferred, cache, frozen):
    """dstate (dh_0 (N, H), dc_0 (N, H)), and the sum over all steps -> dannotations (N, L, D), None if frozen"""
    dgates = deferred.sums["gates"]
    deferred.g.add(W_q=cache.v.T @ dgates, b_q=dgates.sum(axis=0))
    dannotations = show_and_tell.photo_backward(p, config, dstate, deferred, cache, frozen)
    return None if frozen else dannotations + mean_annotation_backward(dgates @ p.W_q.T, cache.mean)


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
