"""Show, Attend and Tell's soft attention on the frame: the twin of the hand-made satnp/captioners/show_attend_tell.py.

It has the same parameters in the same order; L_o and b_o are called W_p and b_p.
"""

from dataclasses import dataclass
from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.captioners.config import Validated
from satnp.captioners.locations import Locations, attend_forward, locations
from satnp.captioners.recurrent import Recurrent
from satnp.layers import (
    affine_forward,
    deep_output_backward,
    deep_output_forward,
    gate_backward_preactivation,
    gate_forward,
    initial_state_backward,
    initial_state_forward,
    lstm_cell_backward,
    lstm_cell_forward,
)


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    M: int = 512
    H: int = 1000
    A: int = 512
    penalty: float = 1.0
    dropout: float = 0.5


CHECKS = {"": Config(V=9, D=4, M=3, H=5, A=7, penalty=0.7, dropout=0.4)}


class Photo(NamedTuple):
    locations: Locations


class Step(NamedTuple):
    hz: object  # (N, H + D), h_{t-1} and z_t
    attend: object
    gate: object
    cell: object


def shapes(config):
    V, D, M, H, A = config.V, config.D, config.M, config.H, config.A
    return {
        "E": (V, M), "W_x": (M, 4 * H), "W_h": (H, 4 * H), "W_z": (D, 4 * H), "b": (4 * H,),
        "W_a": (D, A), "W_s": (H, A), "b_a": (A,), "v": (A,), "c_a": (1,), "W_beta": (H, 1), "b_beta": (1,),
        "W_h0": (D, H), "b_h0": (H,), "W_c0": (D, H), "b_c0": (H,),
        "L_h": (H, M), "L_z": (D, M), "b_m": (M,), "W_p": (M, V), "b_p": (V,),
    }  # fmt: skip


def photo_forward(p, config, annotations):
    N, L, D = annotations.shape
    keys, affine = affine_forward(annotations.reshape(N * L, D), p.W_a, p.b_a)
    state, start = initial_state_forward(annotations, p.W_h0, p.b_h0, p.W_c0, p.b_c0)
    return Photo(locations(keys.reshape(N, L, -1), annotations)), state, (affine, start)


def photo_backward(p, config, dstate, deferred, cache, frozen):
    affine, start = cache
    dannotations, dW_h0, db_h0, dW_c0, db_c0 = initial_state_backward(dstate, start)
    dkeys = deferred.keys("v", "c_a").reshape(-1, config.A)
    deferred.g.add(W_h0=dW_h0, b_h0=db_h0, W_c0=dW_c0, b_c0=db_c0, W_a=affine.x.T @ dkeys, b_a=dkeys.sum(axis=0))
    return None if frozen else dannotations + deferred.vectors() + (dkeys @ p.W_a.T).reshape(dannotations.shape)


def cell_forward(p, config, photo, word, state):
    h, c = state
    context, alpha, attend = attend_forward(photo.locations, h @ p.W_s, p.v, p.c_a)
    z, gate = gate_forward(h, context, p.W_beta, p.b_beta)
    hz = xp_of(h).concatenate([h, z], axis=1)
    (h, c), cell = lstm_cell_forward(hz @ p.stacked("W_h", "W_z"), c, word)
    return (h, z), (h, c), alpha, Step(hz, attend, gate, cell)


def cell_backward(p, config, dout, dstate, dalpha, step, deferred):
    (dh_out, dz_out), (dh, dc), H = dout, dstate, config.H
    h = step.hz[:, :H]
    dgates, dc = lstm_cell_backward((dh + dh_out, dc), step.cell)
    dhz = deferred.product(dgates, step.hz, "W_h", "W_z")
    dz = dhz[:, H:] + dz_out
    dgate = gate_backward_preactivation(dz, step.gate)
    dh = dhz[:, :H] + deferred.product(dgate, h, "W_beta", bias="b_beta")
    dquery = deferred.attend(dz * step.gate.beta, dalpha, step.attend)
    dh = dh + deferred.product(dquery, h, "W_s")
    return dgates, (dh, dc)


def output_forward(p, config, photo, words, out):
    return deep_output_forward(words, *out, p.L_h, p.L_z, p.b_m)


def output_backward(p, config, dhidden, deferred, cache):
    dwords, dh, dz, dL_h, dL_z, db_m = deep_output_backward(dhidden, cache)
    deferred.g.add(L_h=dL_h, L_z=dL_z, b_m=db_m)
    return dwords, (dh, dz)


captioner = Recurrent(__name__)
