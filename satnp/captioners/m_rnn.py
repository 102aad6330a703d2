"""m-RNN (Mao et al. 2015): the word, the state and the photo meet in a multimodal layer, at every word.

    r_t = ReLU(r_{t-1} W_h + E[y_{t-1}])
    m_t = g(E[y_{t-1}] V_w + r_t V_r + v V_i + b_m),    g(x) = 1.7159 tanh(2x/3)
    p(y_t) = softmax(m_t W_p + b_p),    v = mean_i a_i

The recurrent layer does not read the photo: it remembers words only. g is `scaled_tanh` in layers/activations.py.

Differs: the paper has a second layer between the words and E, and v is the output of a fully connected layer of the encoder;
there is no b_m. As in show_and_tell.py, `prepare` standardises v.
"""

from dataclasses import dataclass
from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.captioners.config import Validated
from satnp.captioners.initialise import standardise
from satnp.captioners.recurrent import Recurrent
from satnp.layers import (
    mean_annotation_backward,
    mean_annotation_forward,
    relu_backward,
    relu_forward,
    scaled_tanh_backward,
    scaled_tanh_forward,
)


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    M: int = 512          # of E[y] and of r_t
    A: int = 512          # of the multimodal layer
    dropout: float = 0.5  # of E[y_{t-1}], of r_t on its way to the multimodal layer, and of m_t

    @property
    def H(self):
        return self.M


CHECKS = {"": Config(V=9, D=4, M=3, A=6, dropout=0.4), "bare": Config(V=8, D=3, M=5, A=4, dropout=0.0)}


class Photo(NamedTuple):
    image: object  # (N, A), v V_i + b_m


class PhotoCache(NamedTuple):
    mean: object
    v: object      # (N, D)


class Step(NamedTuple):
    r_prev: object
    relu: object


class Output(NamedTuple):
    words: object  # (T*N, M)
    r: object      # (T*N, M)
    tanh: object
    N: int


def shapes(config):
    V, D, M, A = config.V, config.D, config.M, config.A
    return {
        "E": (V, M), "W_h": (M, M), "V_w": (M, A), "V_r": (M, A), "V_i": (D, A), "b_m": (A,), "W_p": (A, V), "b_p": (V,),
    }  # fmt: skip


def prepare(p, config, corpus):
    """Standardise v over the photos of the corpus."""
    standardise(p.V_i, p.b_m, mean_annotation_forward(corpus.annotations)[0])


def photo_forward(p, config, annotations):
    """annotations (N, L, D) -> Photo, state (r_0 (N, M),) of zeros, cache"""
    v, mean = mean_annotation_forward(annotations)
    r = xp_of(v).zeros((len(v), config.M), dtype=v.dtype)
    return Photo(v @ p.V_i + p.b_m), (r,), PhotoCache(mean, v)


def photo_backward(p, config, dstate, deferred, cache, frozen):
    """Backward of photo_forward, from the sum over all steps -> dannotations (N, L, D), None if frozen"""
    (mean, v), dimage = cache, deferred.sums["image"]
    deferred.g.add(V_i=v.T @ dimage, b_m=dimage.sum(axis=0))
    return None if frozen else mean_annotation_backward(dimage @ p.V_i.T, mean)


def cell_forward(p, config, photo, word, state):
    """word (N, M), state (r (N, M),) -> out (r,), state, None, cache"""
    (r_prev,) = state
    r, relu = relu_forward(word + r_prev @ p.W_h)
    return (r,), (r,), None, Step(r_prev, relu)


def cell_backward(p, config, dout, dstate, dalpha, step, deferred):
    """dout (dr (N, M),), dstate (dr (N, M),) -> dword (N, M), dstate"""
    dsum = relu_backward(dout[0] + dstate[0], step.relu)
    return dsum, (deferred.product(dsum, step.r_prev, "W_h"),)


def output_forward(p, config, photo, words, out):
    """words (T*N, M), out (r (T*N, M),) -> m (T*N, A), cache"""
    N, A = photo.image.shape
    x = (words @ p.V_w + out[0] @ p.V_r).reshape(-1, N, A) + photo.image  # each photo's, at each of its steps
    m, tanh = scaled_tanh_forward(x.reshape(-1, A))
    return m, Output(words, out[0], tanh, N)


def output_backward(p, config, dhidden, deferred, cache):
    """dhidden (T*N, A) -> dwords (T*N, M), dout (dr (T*N, M),)"""
    dx = scaled_tanh_backward(dhidden, cache.tanh)
    deferred.sum(image=dx.reshape(-1, cache.N, config.A).sum(axis=0))
    deferred.g.add(V_w=cache.words.T @ dx, V_r=cache.r.T @ dx)
    return dx @ p.V_w.T, (dx @ p.V_r.T,)


captioner = Recurrent(__name__)
