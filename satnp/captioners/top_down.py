"""Bottom-Up and Top-Down attention (Anderson et al. 2018): one LSTM attends, a second LSTM predicts the words.

    h1_t = LSTM1([h2_{t-1} ; v ; E[y_{t-1}]]),    v = mean_i a_i                                  eqs. 1-2
    e_ti = w . tanh(a_i W_a + h1_t W_s),    alpha_t = softmax over i of e_t                       eqs. 3-4
    z_t = sum_i alpha_ti a_i                                                                      eq. 5
    h2_t = LSTM2([z_t ; h1_t])                                                                    eqs. 1, 6
    p(y_t) = softmax(h2_t W_p + b_p)                                                              eq. 7

With `regions`, the annotations are region features (N, k, D), and a region whose features are all 0 is absent: it is not in
the mean v, alpha is exactly 0 there, and so is its gradient. Without, they are the grid of an encoder.

The affine map of LSTM1 is E[y] W_x + v W_v + h1_{t-1} W_h1 + h2_{t-1} W_h2 + b; v W_v is the same at each step.

Differs: the attention has biases b_a and c_a.
"""

from dataclasses import dataclass
from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.captioners.config import Validated
from satnp.captioners.locations import Locations, attend_forward, locations, present_regions
from satnp.captioners.recurrent import Recurrent
from satnp.layers import (
    affine_forward,
    lstm_cell_backward,
    lstm_cell_forward,
    masked_mean_backward,
    masked_mean_forward,
    mean_annotation_backward,
    mean_annotation_forward,
)


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    M: int = 512
    H: int = 512
    A: int = 512
    regions: bool = False # the annotations are region features; those that are all 0 are absent
    penalty: float = 0.0  # lambda of Xu et al. 2015, eq. 14; not in the paper
    dropout: float = 0.5  # of E[y_{t-1}] and of h2_t on its way to the vocabulary layer


ORTHOGONAL = "W_h1", "U_h2"
CHECKS = {
    "": Config(V=9, D=4, M=3, H=5, A=7, penalty=0.7, dropout=0.4),
    "bare": Config(V=8, D=6, M=4, H=3, A=2, penalty=0.0, dropout=0.0),
    "regions": Config(V=9, D=4, M=3, H=5, A=6, regions=True, penalty=0.7, dropout=0.4),
}


class Photo(NamedTuple):
    locations: Locations
    gates: object  # (N, 4H), v W_v


class PhotoCache(NamedTuple):
    keys: object
    mean: object
    v: object      # (N, D)


class Step(NamedTuple):
    hh: object     # (N, 2H), h1_{t-1} and h2_{t-1}
    cell1: object
    h1: object
    attend: object
    zhh: object    # (N, D + 2H), z_t, h1_t and h2_{t-1}
    cell2: object


def shapes(config):
    V, D, M, H, A = config.V, config.D, config.M, config.H, config.A
    return {
        "E": (V, M), "W_x": (M, 4 * H), "W_v": (D, 4 * H), "W_h1": (H, 4 * H), "W_h2": (H, 4 * H), "b": (4 * H,),
        "W_a": (D, A), "W_s": (H, A), "b_a": (A,), "w": (A,), "c_a": (1,),
        "U_z": (D, 4 * H), "U_h1": (H, 4 * H), "U_h2": (H, 4 * H), "b_2": (4 * H,), "W_p": (H, V), "b_p": (V,),
    }  # fmt: skip


def photo_forward(p, config, annotations):
    """annotations (N, L, D) -> Photo, state (h1, c1, h2, c2) of zeros (N, H), cache"""
    N, L, D = annotations.shape
    if config.regions:
        present = present_regions(annotations)
        v, mean = masked_mean_forward(annotations, present)
    else:
        present = None
        v, mean = mean_annotation_forward(annotations)
    keys, affine = affine_forward(annotations.reshape(N * L, D), p.W_a, p.b_a)
    zeros = xp_of(v).zeros((N, config.H), dtype=v.dtype)
    photo = Photo(locations(keys.reshape(N, L, -1), annotations, present), v @ p.W_v)
    return photo, (zeros, zeros, zeros, zeros), PhotoCache(affine, mean, v)


def photo_backward(p, config, dstate, deferred, cache, frozen):
    """Backward of photo_forward, from the sums over all steps -> dannotations (N, L, D), None if frozen"""
    affine, mean, v = cache
    dgates, dkeys = deferred.sums["gates"], deferred.keys("w", "c_a").reshape(-1, config.A)
    deferred.g.add(W_v=v.T @ dgates, W_a=affine.x.T @ dkeys, b_a=dkeys.sum(axis=0))
    if frozen:
        return None
    dannotations, mean_backward = deferred.vectors(), masked_mean_backward if config.regions else mean_annotation_backward
    return dannotations + (dkeys @ p.W_a.T).reshape(dannotations.shape) + mean_backward(dgates @ p.W_v.T, mean)


def cell_forward(p, config, photo, word, state):
    """word (N, 4H), state (h1, c1, h2, c2), each (N, H) -> out (h2,), state, alpha (N, L), cache"""
    (h1, c1, h2, c2), xp = state, xp_of(word)
    hh = xp.concatenate([h1, h2], axis=1)
    (h1, c1), cell1 = lstm_cell_forward(hh @ p.stacked("W_h1", "W_h2") + photo.gates, c1, word)
    z, alpha, attend = attend_forward(photo.locations, h1 @ p.W_s, p.w, p.c_a)
    zhh = xp.concatenate([z, h1, h2], axis=1)
    (h2, c2), cell2 = lstm_cell_forward(zhh @ p.stacked("U_z", "U_h1", "U_h2") + p.b_2, c2)
    return (h2,), (h1, c1, h2, c2), alpha, Step(hh, cell1, h1, attend, zhh, cell2)


def cell_backward(p, config, dout, dstate, dalpha, step, deferred):
    """dout (dh2 (N, H),), dstate (dh1, dc1, dh2, dc2), each (N, H), dalpha (N, L) or None -> dword (N, 4H), dstate"""
    (dh_out,), (dh1, dc1, dh2, dc2), D, H = dout, dstate, config.D, config.H
    dgates2, dc2 = lstm_cell_backward((dh2 + dh_out, dc2), step.cell2)
    dzhh = deferred.product(dgates2, step.zhh, "U_z", "U_h1", "U_h2", bias="b_2")
    dz, dh1, dh2 = dzhh[:, :D], dh1 + dzhh[:, D : D + H], dzhh[:, D + H :]
    dquery = deferred.attend(dz, dalpha, step.attend)
    dh1 = dh1 + deferred.product(dquery, step.h1, "W_s")
    dgates1, dc1 = lstm_cell_backward((dh1, dc1), step.cell1)
    deferred.sum(gates=dgates1)
    dhh = deferred.product(dgates1, step.hh, "W_h1", "W_h2")
    return dgates1, (dhh[:, :H], dc1, dh2 + dhh[:, H:], dc2)


captioner = Recurrent(__name__)
