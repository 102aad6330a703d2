"""LRCN-2f (Donahue et al. 2015), factored, with two layers: an LSTM for the words, and one that also reads the photo.

    h1_t = LSTM1(E[y_{t-1}])
    h2_t = LSTM2([h1_t ; v]),    v = mean_i a_i                  the photo at every step
    p(y_t) = softmax(h2_t W_p + b_p)

The affine map of LSTM2 is h1_t U_h1 + h2_{t-1} U_h2 + v U_v + b_2; v U_v + b_2 is the same at each step.

Differs: v is the output of a fully connected layer of the encoder in the paper.
"""

from dataclasses import dataclass
from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.captioners.config import Validated
from satnp.captioners.initialise import standardise
from satnp.captioners.recurrent import Recurrent
from satnp.layers import lstm_cell_backward, lstm_cell_forward, mean_annotation_backward, mean_annotation_forward


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    M: int = 512
    H: int = 512
    dropout: float = 0.5  # of E[y_{t-1}] and of h2_t on its way to the vocabulary layer


ORTHOGONAL = "W_h", "U_h2"
CHECKS = {"": Config(V=9, D=4, M=3, H=5, dropout=0.4), "bare": Config(V=8, D=3, M=5, H=4, dropout=0.0)}


class Photo(NamedTuple):
    gates: object  # (N, 4H), v U_v + b_2


class PhotoCache(NamedTuple):
    mean: object
    v: object      # (N, D)


class Step(NamedTuple):
    h1_prev: object
    cell1: object
    hh: object     # (N, 2H), h1_t and h2_{t-1}
    cell2: object


def shapes(config):
    V, D, M, H = config.V, config.D, config.M, config.H
    return {
        "E": (V, M), "W_x": (M, 4 * H), "W_h": (H, 4 * H), "b": (4 * H,),
        "U_v": (D, 4 * H), "U_h1": (H, 4 * H), "U_h2": (H, 4 * H), "b_2": (4 * H,), "W_p": (H, V), "b_p": (V,),
    }  # fmt: skip


def prepare(p, config, corpus):
    """Standardise v over the photos of the corpus."""
    standardise(p.U_v, p.b_2, mean_annotation_forward(corpus.annotations)[0])


def photo_forward(p, config, annotations):
    """annotations (N, L, D) -> Photo, state (h1, c1, h2, c2) of zeros (N, H), cache"""
    v, mean = mean_annotation_forward(annotations)
    zeros = xp_of(v).zeros((len(v), config.H), dtype=v.dtype)
    return Photo(v @ p.U_v + p.b_2), (zeros, zeros, zeros, zeros), PhotoCache(mean, v)


def photo_backward(p, config, dstate, deferred, cache, frozen):
    """Backward of photo_forward, from the sum over all steps -> dannotations (N, L, D), None if frozen"""
    (mean, v), dgates = cache, deferred.sums["gates"]
    deferred.g.add(U_v=v.T @ dgates, b_2=dgates.sum(axis=0))
    return None if frozen else mean_annotation_backward(dgates @ p.U_v.T, mean)


def cell_forward(p, config, photo, word, state):
    """word (N, 4H), state (h1, c1, h2, c2), each (N, H) -> out (h2,), state, None, cache"""
    h1_prev, c1, h2, c2 = state
    (h1, c1), cell1 = lstm_cell_forward(h1_prev @ p.W_h, c1, word)
    hh = xp_of(h1).concatenate([h1, h2], axis=1)
    (h2, c2), cell2 = lstm_cell_forward(hh @ p.stacked("U_h1", "U_h2"), c2, photo.gates)
    return (h2,), (h1, c1, h2, c2), None, Step(h1_prev, cell1, hh, cell2)


def cell_backward(p, config, dout, dstate, dalpha, step, deferred):
    """dout (dh2 (N, H),), dstate (dh1, dc1, dh2, dc2), each (N, H) -> dword (N, 4H), dstate"""
    (dh_out,), (dh1, dc1, dh2, dc2), H = dout, dstate, config.H
    dgates2, dc2 = lstm_cell_backward((dh2 + dh_out, dc2), step.cell2)
    deferred.sum(gates=dgates2)
    dhh = deferred.product(dgates2, step.hh, "U_h1", "U_h2")
    dgates1, dc1 = lstm_cell_backward((dh1 + dhh[:, :H], dc1), step.cell1)
    dh1 = deferred.product(dgates1, step.h1_prev, "W_h")
    return dgates1, (dh1, dc1, dhh[:, H:], dc2)


captioner = Recurrent(__name__)
