"""Show and Tell, or NIC (Vinyals et al. 2015): an LSTM reads the photo once, as its first word.

    v = mean_i a_i,    h_0, c_0 = LSTM(v W_i + b_i)               once, from a state of zeros; its output is not used
    (i, f, o, g)_t = (sigmoid, sigmoid, sigmoid, tanh)(E[y_{t-1}] W_x + h_{t-1} W_h + b)
    c_t = f_t * c_{t-1} + i_t * g_t,    h_t = o_t * tanh(c_t)     eqs. 4-8; without `tanh`, h_t = o_t * c_t as in the paper
    p(y_t) = softmax(h_t W_p + b_p)                               eq. 9

`prepare` standardises v over training photos and lets the LSTM keep what it has read: without both, it ignores the photo for
thousands of steps (tests/benchmarks/results/family_scenes.md).

Differs: the paper has no b_i, and v is the output of a fully connected layer of the encoder.
"""

from dataclasses import dataclass
from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.captioners.config import Validated
from satnp.captioners.initialise import standardise
from satnp.captioners.recurrent import Recurrent
from satnp.layers import (
    lstm_cell_backward,
    lstm_cell_forward,
    lstm_cell_without_tanh_backward,
    lstm_cell_without_tanh_forward,
    mean_annotation_backward,
    mean_annotation_forward,
)


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    M: int = 512
    H: int = 512
    tanh: bool = True     # h = o * tanh(c); False: the paper's h = o * c
    dropout: float = 0.5  # of E[y_{t-1}] and of h_t on its way to the vocabulary layer


CHECKS = {"": Config(V=9, D=4, M=3, H=5, dropout=0.4), "bare": Config(V=8, D=3, M=5, H=4, tanh=False, dropout=0.0)}


class PhotoCache(NamedTuple):
    mean: object
    v: object      # (N, D)
    x: object      # (N, M), v W_i + b_i
    cell: object


class Step(NamedTuple):
    h_prev: object
    cell: object


def shapes(config):
    V, D, M, H = config.V, config.D, config.M, config.H
    return {
        "E": (V, M), "W_i": (D, M), "b_i": (M,), "W_x": (M, 4 * H), "W_h": (H, 4 * H), "b": (4 * H,),
        "W_p": (H, V), "b_p": (V,),
    }  # fmt: skip


def prepare(p, config, corpus):
    """Standardise v over the photos of the corpus, and set the bias of the forget gates to 1 (Jozefowicz et al.
    2015)."""
    standardise(p.W_i, p.b_i, mean_annotation_forward(corpus.annotations)[0])
    p.b[config.H : 2 * config.H] = 1


def lstm_forward(config, gates, c_prev, more=None):
    """The LSTM cell with or without tanh: gates (N, 4H), c_prev (N, H), more (N, 4H) -> (h (N, H), c (N, H)), cache

    Source: Vinyals et al. 2015, eqs. 4-8, which have h = o * c.
    """
    return (lstm_cell_forward if config.tanh else lstm_cell_without_tanh_forward)(gates, c_prev, more)


def lstm_backward(config, dout, cache):
    """Backward of lstm_forward: dout (dh (N, H), dc (N, H)) -> dgates (N, 4H), dc_prev (N, H)"""
    return (lstm_cell_backward if config.tanh else lstm_cell_without_tanh_backward)(dout, cache)


def photo_forward(p, config, annotations):
    """h_0, c_0 = LSTM(v W_i + b_i): annotations (N, L, D) -> photo (), state (h_0 (N, H), c_0 (N, H)), cache"""
    v, mean = mean_annotation_forward(annotations)
    x = v @ p.W_i + p.b_i
    zeros = xp_of(v).zeros((len(v), config.H), dtype=v.dtype)
    state, cell = lstm_forward(config, x @ p.W_x + p.b, zeros)
    return (), state, PhotoCache(mean, v, x, cell)


def photo_backward(p, config, dstate, deferred, cache, frozen):
    """dstate (dh_0 (N, H), dc_0 (N, H)) -> dannotations (N, L, D), None if frozen"""
    mean, v, x, cell = cache
    dgates, _ = lstm_backward(config, dstate, cell)
    dx = dgates @ p.W_x.T
    deferred.g.add(W_x=x.T @ dgates, b=dgates.sum(axis=0), W_i=v.T @ dx, b_i=dx.sum(axis=0))
    return None if frozen else mean_annotation_backward(dx @ p.W_i.T, mean)


def cell_forward(p, config, photo, word, state):
    """word (N, 4H), state (h (N, H), c (N, H)) -> out (h,), state, None, cache"""
    h_prev, c = state
    (h, c), cell = lstm_forward(config, h_prev @ p.W_h, c, word)
    return (h,), (h, c), None, Step(h_prev, cell)


def cell_backward(p, config, dout, dstate, dalpha, step, deferred):
    """dout (dh (N, H),), dstate (dh (N, H), dc (N, H)) -> dword (N, 4H), dstate"""
    (dh_out,), (dh, dc) = dout, dstate
    dgates, dc = lstm_backward(config, (dh_out + dh, dc), step.cell)
    dh = deferred.product(dgates, step.h_prev, "W_h")
    return dgates, (dh, dc)


captioner = Recurrent(__name__)
