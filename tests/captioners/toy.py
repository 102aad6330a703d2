"""A whole captioner in one short file: a plain RNN that adds the mean annotation at each step.

    h_t = tanh(E[y_{t-1}] W_x + h_{t-1} W_h + v W_v + b),    v = mean_i a_i,    h_0 = 0
    p(y_t) = softmax(h_t W_p + b_p)
"""

from dataclasses import dataclass
from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.captioners.config import Validated
from satnp.captioners.recurrent import Recurrent
from satnp.layers import mean_annotation_backward, mean_annotation_forward, tanh_backward, tanh_forward


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    M: int = 512
    H: int = 512
    dropout: float = 0.5


CHECKS = {"": Config(V=9, D=4, M=3, H=5, dropout=0.4)}


class Photo(NamedTuple):
    x: object  # (N, H), v W_v


def shapes(config):
    V, D, M, H = config.V, config.D, config.M, config.H
    return {"E": (V, M), "W_x": (M, H), "W_h": (H, H), "W_v": (D, H), "b": (H,), "W_p": (H, V), "b_p": (V,)}


def photo_forward(p, config, annotations):
    v, mean = mean_annotation_forward(annotations)
    return Photo(v @ p.W_v), (xp_of(v).zeros((len(v), config.H), dtype=v.dtype),), (mean, v)


def photo_backward(p, config, dstate, deferred, cache, frozen):
    (mean, v), dx = cache, deferred.sums["x"]
    deferred.g.add(W_v=v.T @ dx)
    return None if frozen else mean_annotation_backward(dx @ p.W_v.T, mean)


def cell_forward(p, config, photo, word, state):
    h, tanh = tanh_forward(word + state[0] @ p.W_h + photo.x)
    return (h,), (h,), None, (state[0], tanh)


def cell_backward(p, config, dout, dstate, dalpha, step, deferred):
    h_prev, tanh = step
    dx = tanh_backward(dout[0] + dstate[0], tanh)
    deferred.sum(x=dx)
    return dx, (deferred.product(dx, h_prev, "W_h"),)


captioner = Recurrent(__name__)
