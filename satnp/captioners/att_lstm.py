"""Attributes to captions (Wu et al. 2016): an LSTM reads which words belong to the photo, once, as its first word.

    z_j = a_j W_d + b_d,    V_att = 1 - prod_j (1 - sigmoid(z_j))   K probabilities: the attribute is at one location or more
    h_0, c_0 = LSTM(V_att W_ea + b_ea)                              once, from a state of zeros; its output is not used
    (i, f, o, g)_t = (sigmoid, sigmoid, sigmoid, tanh)(E[y_{t-1}] W_x + h_{t-1} W_h + b)
    p(y_t) = softmax(h_t W_p + b_p)

The attributes are the K commonest words of the captions, without function words; attributes.py says which words are one
attribute. With `each_step`, (V_att W_ea + b_ea) W_x is also added to the gates at every step, like gLSTM's guidance.

`prepare` trains the detector W_d, b_d on the words of the captions. After that the captions train it on: their gradient
reaches it through V_att like any other layer.

Differs: the paper's detector is a network of its own, whose outputs are max-pooled over regions; ours is one layer on the
annotations, joined over locations by the noisy-OR of Fang et al. 2015. The paper has no b_ea; as in show_and_tell.py, it
lets `prepare` standardise V_att.
"""

from dataclasses import dataclass
from typing import NamedTuple

from satnp.arrays.backend import to_device, xp_of
from satnp.captioners.attributes import attributes_of, labels
from satnp.captioners.config import Validated
from satnp.captioners.detector import BATCH, attributes_forward, train_detector
from satnp.captioners.initialise import standardise
from satnp.captioners.recurrent import Recurrent
from satnp.layers import (
    affine_backward,
    affine_forward,
    lstm_cell_backward,
    lstm_cell_forward,
    noisy_or_backward,
    rows,
)

CORPUS = 1024  # photos on which `prepare` trains the detector


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    K: int = 256          # attributes
    M: int = 512
    H: int = 512
    each_step: bool = False
    dropout: float = 0.5  # of E[y_{t-1}] and of h_t on its way to the vocabulary layer


CHECKS = {
    "": Config(V=9, D=4, K=6, M=3, H=5, dropout=0.4),
    "each step": Config(V=8, D=3, K=7, M=5, H=4, each_step=True, dropout=0.0),
}


class Photo(NamedTuple):
    gates: object  # (N, 4H), (V_att W_ea + b_ea) W_x


class PhotoCache(NamedTuple):
    scores: object
    noisy_or: object
    image: object  # of V_att W_ea + b_ea
    x: object      # (N, M), V_att W_ea + b_ea
    cell: object


class Step(NamedTuple):
    h_prev: object
    cell: object


def shapes(config):
    V, D, K, M, H = config.V, config.D, config.K, config.M, config.H
    return {
        "E": (V, M), "W_d": (D, K), "b_d": (K,), "W_ea": (K, M), "b_ea": (M,), "W_x": (M, 4 * H), "W_h": (H, 4 * H),
        "b": (4 * H,), "W_p": (H, V), "b_p": (V,),
    }  # fmt: skip


def prepare(p, config, corpus):
    """Train the detector on the words of the corpus' captions; then standardise V_att and open the forget gates, as in
    show_and_tell.py."""
    y, xp = labels(corpus.said, attributes_of(corpus.words, config.K), config.K), xp_of(p.W_d)
    train_detector(p, corpus.annotations, to_device(y.astype(p.W_d.dtype), xp))
    parts = (corpus.annotations[n : n + BATCH] for n in range(0, len(y), BATCH))
    standardise(p.W_ea, p.b_ea, xp.concatenate([attributes_forward(p, part)[0] for part in parts]))
    p.b[config.H : 2 * config.H] = 1


def photo_forward(p, config, annotations):
    """h_0, c_0 = LSTM(V_att W_ea + b_ea): annotations (N, L, D) -> Photo, or () without each_step, state, cache"""
    found, (scores, noisy_or) = attributes_forward(p, annotations)
    x, image = affine_forward(found, p.W_ea, p.b_ea)
    gates = x @ p.W_x
    state, cell = lstm_cell_forward(gates + p.b, xp_of(x).zeros((len(x), config.H), dtype=x.dtype))
    return Photo(gates) if config.each_step else (), state, PhotoCache(scores, noisy_or, image, x, cell)


def photo_backward(p, config, dstate, deferred, cache, frozen):
    """dstate (dh_0 (N, H), dc_0 (N, H)), and the sum over all steps -> dannotations (N, L, D), None if frozen"""
    dfirst, _ = lstm_cell_backward(dstate, cache.cell)
    dgates = dfirst + deferred.sums["gates"] if config.each_step else dfirst
    dfound, dW_ea, db_ea = affine_backward(dgates @ p.W_x.T, cache.image)
    dscores = rows(noisy_or_backward(dfound, cache.noisy_or))
    annotations = cache.scores.x
    deferred.g.add(
        W_x=cache.x.T @ dgates, b=dfirst.sum(axis=0), W_ea=dW_ea, b_ea=db_ea,
        W_d=annotations.T @ dscores, b_d=dscores.sum(axis=0),
    )  # fmt: skip
    return None if frozen else (dscores @ p.W_d.T).reshape(len(dfirst), -1, config.D)


def cell_forward(p, config, photo, word, state):
    """word (N, 4H), state (h (N, H), c (N, H)) -> out (h,), state, None, cache"""
    h_prev, c = state
    gates = h_prev @ p.W_h
    (h, c), cell = lstm_cell_forward(gates + photo.gates if config.each_step else gates, c, word)
    return (h,), (h, c), None, Step(h_prev, cell)


def cell_backward(p, config, dout, dstate, dalpha, step, deferred):
    """dout (dh (N, H),), dstate (dh (N, H), dc (N, H)) -> dword (N, 4H), dstate"""
    (dh_out,), (dh, dc) = dout, dstate
    dgates, dc = lstm_cell_backward((dh_out + dh, dc), step.cell)
    if config.each_step:
        deferred.sum(gates=dgates)
    return dgates, (deferred.product(dgates, step.h_prev, "W_h"), dc)


captioner = Recurrent(__name__)
