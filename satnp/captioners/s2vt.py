"""S2VT, sequence to sequence - video to text (Venugopalan et al. 2015): an LSTM reads the frames, another says the words.

    (i, f, o, g)_k = (sigmoid, sigmoid, sigmoid, tanh)([a_k ; a_k - a_{k-1}] U_a + h_{k-1} U_h + b_a)      the frames
    (i, f, o, g)_t = (sigmoid, sigmoid, sigmoid, tanh)(E[y_{t-1}] W_x + h_{t-1} W_h + b)                   the words
    c = f * c_before + i * g,    h = o * tanh(c)            of both, from zeros, and from h and c of the last frame
    p(y_t) = softmax(h_t W_p + b_p)

The annotations a_1 ... a_K are the frames of a clip in the order of time, and a_0 = a_1. The mean over the frames is the
same for the clip played backwards; the state of an LSTM is not. `prepare` standardises what the first LSTM reads over
training clips, and sets the biases of both forget gates to 1, as in show_and_tell.py. Of a photo, the first LSTM reads
the locations, row by row.

Differs: the paper stacks two LSTMs, which run over the frames and then over the words: the first reads frames, the second
reads h of the first and the words. Here one LSTM reads the frames, and its last state starts the one that reads words, the
encoder-decoder of Sutskever et al. 2014. The paper embeds the frames before its LSTM; here U_a reads them. It has a second
network for optical flow; here the LSTM also reads the difference from the frame before.
"""

from dataclasses import dataclass
from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.captioners.config import Validated
from satnp.captioners.initialise import standardise
from satnp.captioners.recurrent import Recurrent
from satnp.layers import lstm_cell_backward, lstm_cell_forward, rows


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    M: int = 512
    H: int = 512
    dropout: float = 0.5  # of E[y_{t-1}] and of h_t on its way to the vocabulary layer


ORTHOGONAL = "U_h", "W_h"
CHECKS = {"": Config(V=9, D=4, M=3, H=5, dropout=0.4), "bare": Config(V=8, D=3, M=5, H=4, dropout=0.0)}


class Step(NamedTuple):
    h_prev: object
    cell: object


class PhotoCache(NamedTuple):
    frames: object  # (K*N, 2D)
    steps: list     # a Step for each frame


def shapes(config):
    V, D, M, H = config.V, config.D, config.M, config.H
    return {
        "E": (V, M), "U_a": (2 * D, 4 * H), "U_h": (H, 4 * H), "b_a": (4 * H,),
        "W_x": (M, 4 * H), "W_h": (H, 4 * H), "b": (4 * H,), "W_p": (H, V), "b_p": (V,),
    }  # fmt: skip


def prepare(p, config, corpus):
    """Standardise what the first LSTM reads, and set the biases of the forget gates to 1 (Jozefowicz et al. 2015)."""
    standardise(p.U_a, p.b_a, frames_forward(corpus.annotations))
    for bias in (p.b_a, p.b):
        bias[config.H : 2 * config.H] += 1


def frames_forward(annotations):
    """[a_k ; a_k - a_{k-1}]: annotations (N, K, D) -> frames (K*N, 2D), the first frame of all clips first"""
    a = annotations.transpose(1, 0, 2)
    step = xp_of(a).zeros_like(a)
    step[1:] = a[1:] - a[:-1]
    return rows(xp_of(a).concatenate([a, step], axis=2))


def frames_backward(dframes, N):
    """dframes (K*N, 2D) -> dannotations (N, K, D)"""
    da, dstep = xp_of(dframes).split(dframes.reshape(-1, N, dframes.shape[1]), 2, axis=2)
    da = da.copy()
    da[1:] += dstep[1:]
    da[:-1] -= dstep[1:]
    return da.transpose(1, 0, 2)


def photo_forward(p, config, annotations):
    """Read the frames: annotations (N, K, D) -> photo (), state (h_K (N, H), c_K (N, H)), cache"""
    N, K, _ = annotations.shape
    frames = frames_forward(annotations)
    gates = (frames @ p.U_a + p.b_a).reshape(K, N, -1)
    h = c = xp_of(frames).zeros((N, config.H), dtype=gates.dtype)
    steps = []
    for k in range(K):
        h_prev = h
        (h, c), cell = lstm_cell_forward(h_prev @ p.U_h, c, gates[k])
        steps.append(Step(h_prev, cell))
    return (), (h, c), PhotoCache(frames, steps)


def photo_backward(p, config, dstate, deferred, cache, frozen):
    """dstate (dh_K (N, H), dc_K (N, H)) -> dannotations (N, K, D), None if frozen"""
    (dh, dc), N, xp = dstate, len(dstate[0]), xp_of(dstate[0])
    dgates = []
    for step in reversed(cache.steps):
        dgates_k, dc = lstm_cell_backward((dh, dc), step.cell)
        dh = dgates_k @ p.U_h.T
        dgates.append(dgates_k)
    dgates, h_prev = (rows(xp.stack(x)) for x in (dgates[::-1], [step.h_prev for step in cache.steps]))
    deferred.g.add(U_a=cache.frames.T @ dgates, U_h=h_prev.T @ dgates, b_a=dgates.sum(axis=0))
    return None if frozen else frames_backward(dgates @ p.U_a.T, N)


def cell_forward(p, config, photo, word, state):
    """word (N, 4H), state (h (N, H), c (N, H)) -> out (h,), state, None, cache"""
    h_prev, c = state
    (h, c), cell = lstm_cell_forward(h_prev @ p.W_h, c, word)
    return (h,), (h, c), None, Step(h_prev, cell)


def cell_backward(p, config, dout, dstate, dalpha, step, deferred):
    """dout (dh (N, H),), dstate (dh (N, H), dc (N, H)) -> dword (N, 4H), dstate"""
    (dh_out,), (dh, dc) = dout, dstate
    dgates, dc = lstm_cell_backward((dh_out + dh, dc), step.cell)
    return dgates, (deferred.product(dgates, step.h_prev, "W_h"), dc)


captioner = Recurrent(__name__)
