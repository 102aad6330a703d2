"""NeuralTalk (Karpathy and Fei-Fei 2015): a recurrent network without gates, which reads the photo at its first step.

    h_t = ReLU(E[y_{t-1}] W_x + h_{t-1} W_h + b + [t = 1] (v W_i + b_i)),    v = mean_i a_i        eqs. 13-14
    p(y_t) = softmax(h_t W_p + b_p)                                                                eq. 15

b_p starts from the logarithm of the words' frequencies, so that the network need not learn them first (the authors' code).
With `each_step`, the photo is added at every step, as the authors' code does by default.

Differs: in the paper v is the output of a fully connected layer of the encoder, and there is no b_i.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import to_device, xp_of
from satnp.captioners.config import Validated
from satnp.captioners.initialise import standardise
from satnp.captioners.recurrent import Recurrent
from satnp.layers import mean_annotation_backward, mean_annotation_forward, relu_backward, relu_forward


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    M: int = 512
    H: int = 512
    each_step: bool = False
    dropout: float = 0.5  # of E[y_{t-1}] and of h_t on its way to the vocabulary layer


CHECKS = {
    "": Config(V=9, D=4, M=3, H=5, dropout=0.4),
    "each step": Config(V=8, D=3, M=5, H=4, each_step=True, dropout=0.0),
}


class PhotoCache(NamedTuple):
    mean: object
    v: object       # (N, D)


class Step(NamedTuple):
    h_prev: object
    relu: object


def shapes(config):
    V, D, M, H = config.V, config.D, config.M, config.H
    return {
        "E": (V, M), "W_i": (D, H), "b_i": (H,), "W_x": (M, H), "W_h": (H, H), "b": (H,), "W_p": (H, V), "b_p": (V,),
    }  # fmt: skip


def prepare(p, config, corpus):
    """Standardise v over the photos of the corpus, and set b_p to the logarithm of the words' frequencies; a word without
    occurrence counts as one."""
    standardise(p.W_i, p.b_i, mean_annotation_forward(corpus.annotations)[0])
    counts = np.maximum(corpus.counts, 1)
    p.b_p[...] = to_device(np.log(counts / counts.sum()).astype(p.b_p.dtype), xp_of(p.b_p))


def photo_forward(p, config, annotations):
    """annotations (N, L, D) -> photo (), state (h_0 (N, H), v W_i + b_i (N, H): what step 1 adds), cache"""
    v, mean = mean_annotation_forward(annotations)
    image = v @ p.W_i + p.b_i
    return (), (xp_of(image).zeros_like(image), image), PhotoCache(mean, v)


def photo_backward(p, config, dstate, deferred, cache, frozen):
    """dstate (dh_0 (N, H), dimage (N, H)) -> dannotations (N, L, D), None if frozen"""
    (mean, v), (_, dimage) = cache, dstate
    deferred.g.add(W_i=v.T @ dimage, b_i=dimage.sum(axis=0))
    return None if frozen else mean_annotation_backward(dimage @ p.W_i.T, mean)


def cell_forward(p, config, photo, word, state):
    """word (N, H), state (h (N, H), image (N, H)) -> out (h,), state, None, cache"""
    h_prev, image = state
    h, relu = relu_forward(word + h_prev @ p.W_h + image)
    return (h,), (h, image if config.each_step else xp_of(h).zeros_like(image)), None, Step(h_prev, relu)


def cell_backward(p, config, dout, dstate, dalpha, step, deferred):
    """dout (dh (N, H),), dstate (dh (N, H), dimage (N, H)) -> dword (N, H), dstate"""
    (dh_out,), (dh, dimage) = dout, dstate
    dsum = relu_backward(dh_out + dh, step.relu)
    dh = deferred.product(dsum, step.h_prev, "W_h")
    return dsum, (dh, dimage + dsum if config.each_step else dsum)


captioner = Recurrent(__name__)
