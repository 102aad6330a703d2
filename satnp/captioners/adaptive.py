"""Adaptive attention with a visual sentinel (Lu et al. 2017): a word may attend to the LSTM's memory in place of the photo.

    v_i = ReLU(a_i W_a + b_a),    v_g = ReLU(mean_i a_i W_b + b_b),    x_t = [E[y_{t-1}] ; v_g]
    h_t, m_t = LSTM(x_t, h_{t-1}, m_{t-1})
    g_t = sigmoid(x_t W_x5 + h_{t-1} W_h5),    s_t = g_t * tanh(m_t)                     eqs. 9-10, the visual sentinel
    e_ti = w . tanh(v_i W_v + h_t W_g),        e_ts = w . tanh(s_t W_s + h_t W_g)        eqs. 6, 12
    [alpha_t ; beta_t] = softmax over the L locations and the sentinel of [e_t ; e_ts]   eqs. 7, 12
    z_t = sum_i alpha_ti v_i + beta_t s_t                                                eqs. 8, 11
    p(y_t) = softmax((z_t + h_t) W_p + b_p)                                              eq. 13

The attention uses h_t, where Show, Attend and Tell uses h_{t-1}. The sentinel's gate g_t is computed as a fifth gate of the
LSTM. `alpha` leaves the sentinel out: it sums to 1 - beta_t. Without `sentinel` this is the paper's spatial attention.

Differs: the affine maps of the photo and of the gates have biases.
"""

from dataclasses import dataclass
from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.captioners.config import Validated
from satnp.captioners.locations import Locations, context_of, locations, scores_forward
from satnp.captioners.recurrent import Recurrent
from satnp.layers import (
    additive_scores_backward,
    additive_scores_forward,
    affine_forward,
    lstm_cell_backward,
    lstm_cell_forward,
    mean_annotation_backward,
    mean_annotation_forward,
    relu_backward,
    relu_forward,
    sigmoid_backward,
    sigmoid_forward,
    softmax_backward,
    softmax_forward,
)


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    M: int = 512
    H: int = 512
    A: int = 512
    sentinel: bool = True
    dropout: float = 0.5  # of E[y_{t-1}] and of z_t + h_t


CHECKS = {
    "": Config(V=9, D=4, M=3, H=5, A=7, dropout=0.4),
    "spatial": Config(V=8, D=6, M=4, H=3, A=2, sentinel=False, dropout=0.4),
}


class Photo(NamedTuple):
    locations: Locations  # of v_i
    gates: object         # (N, 5H), v_g W_vg; 4H without the sentinel


class PhotoCache(NamedTuple):
    a: object      # caches of v_i: affine map and ReLU
    relu_a: object
    b: object      # caches of v_g: affine map and ReLU
    relu_b: object
    v: object      # (N*L, H)
    v_g: object    # (N, M)
    mean: object


class Sentinel(NamedTuple):
    gate: object
    s: object      # (N, H), s_t
    score: object
    beta: object   # (N, 1)


class Step(NamedTuple):
    h_prev: object
    cell: object
    h: object
    scores: object
    softmax: object
    vectors: object
    sentinel: Sentinel


def shapes(config):
    V, D, M, H, A = config.V, config.D, config.M, config.H, config.A
    gates = (5 if config.sentinel else 4) * H
    sentinel = {"W_s": (H, A)} if config.sentinel else {}
    return {
        "E": (V, M), "W_a": (D, H), "b_a": (H,), "W_b": (D, M), "b_b": (M,),
        "W_x": (M, gates), "W_vg": (M, gates), "W_h": (H, gates), "b": (gates,),
        "W_v": (H, A), "W_g": (H, A), **sentinel, "w": (A,), "c_a": (1,), "W_p": (H, V), "b_p": (V,),
    }  # fmt: skip


def photo_forward(p, config, annotations):
    """annotations (N, L, D) -> Photo, state (h, m) of zeros (N, H), cache"""
    N, L, D = annotations.shape
    a, affine_a = affine_forward(annotations.reshape(N * L, D), p.W_a, p.b_a)
    v, relu_a = relu_forward(a)
    v_bar, mean = mean_annotation_forward(annotations)
    b, affine_b = affine_forward(v_bar, p.W_b, p.b_b)
    v_g, relu_b = relu_forward(b)
    zeros = xp_of(v).zeros((N, config.H), dtype=v.dtype)
    photo = Photo(locations((v @ p.W_v).reshape(N, L, -1), v.reshape(N, L, -1)), v_g @ p.W_vg)
    return photo, (zeros, zeros), PhotoCache(affine_a, relu_a, affine_b, relu_b, v, v_g, mean)


def photo_backward(p, config, dstate, deferred, cache, frozen):
    """Backward of photo_forward, from the sums over all steps -> dannotations (N, L, D), None if frozen"""
    dgates, dkeys = deferred.sums["gates"], deferred.keys("w", "c_a").reshape(-1, config.A)
    db = relu_backward(dgates @ p.W_vg.T, cache.relu_b)
    da = relu_backward(deferred.vectors().reshape(cache.v.shape) + dkeys @ p.W_v.T, cache.relu_a)
    deferred.g.add(
        W_vg=cache.v_g.T @ dgates, W_b=cache.b.x.T @ db, b_b=db.sum(axis=0),
        W_v=cache.v.T @ dkeys, W_a=cache.a.x.T @ da, b_a=da.sum(axis=0),
    )  # fmt: skip
    if frozen:
        return None
    dmean = mean_annotation_backward(db @ p.W_b.T, cache.mean)
    return (da @ p.W_a.T).reshape(dmean.shape) + dmean


def cell_forward(p, config, photo, word, state):
    """word (N, 5H), state (h, m), each (N, H) -> out (z + h (N, H),), state, alpha (N, L), cache"""
    (h_prev, m), xp, H, sentinel = state, xp_of(word), config.H, None
    gates = word + photo.gates + h_prev @ p.W_h
    (h, m), cell = lstm_cell_forward(gates[:, : 4 * H], m)
    query = h @ p.W_g
    scores, scores_cache = scores_forward(photo.locations, query, p.w, p.c_a)
    if config.sentinel:
        g, gate = sigmoid_forward(gates[:, 4 * H :])
        s = g * cell.tanh_c
        score, score_cache = additive_scores_forward((s @ p.W_s)[:, None], query, p.w, p.c_a)
        scores = xp.concatenate([scores, score], axis=1)
    alpha, softmax = softmax_forward(scores)
    if config.sentinel:
        alpha, beta = alpha[:, :-1], alpha[:, -1:]
        sentinel = Sentinel(gate, s, score_cache, beta)
        z = context_of(photo.locations, alpha) + beta * s
    else:
        z = context_of(photo.locations, alpha)
    return (z + h,), (h, m), alpha, Step(h_prev, cell, h, scores_cache, softmax, photo.locations.vectors, sentinel)


def cell_backward(p, config, dout, dstate, dalpha, step, deferred):
    """dout (dz (N, H),), dstate (dh, dm), each (N, H) -> dword (N, 5H), dstate"""
    (dz,), (dh, dm), L = dout, dstate, step.vectors.shape[1]
    dalpha = deferred.context(dz, step.softmax.alpha[:, :L], step.vectors)
    if config.sentinel:
        dquery, dm, dgate = _sentinel_backward(p, dz, dalpha, dm, step, deferred)
    else:
        dquery, dgate = deferred.scores(softmax_backward(dalpha, step.softmax), step.scores), None
    dh = dh + dz + deferred.product(dquery, step.h, "W_g")
    dgates, dm = lstm_cell_backward((dh, dm), step.cell)
    dgates = dgates if dgate is None else xp_of(dz).concatenate([dgates, dgate], axis=1)
    deferred.sum(gates=dgates)
    dh = deferred.product(dgates, step.h_prev, "W_h")
    return dgates, (dh, dm)


def _sentinel_backward(p, dz, dalpha, dm, step, deferred):
    """dz (N, H), dalpha (N, L), dm (N, H) -> dquery (N, A), dm (N, H), dgate (N, H) before the sigmoid"""
    (gate, s, score, beta), tanh_m, xp = step.sentinel, step.cell.tanh_c, xp_of(dz)
    dbeta = (dz * s).sum(axis=1, keepdims=True)
    dscores = softmax_backward(xp.concatenate([dalpha, dbeta], axis=1), step.softmax)
    dkey, dquery, dw, dc_a = additive_scores_backward(dscores[:, -1:], score)
    deferred.g.add(w=dw, c_a=dc_a)
    dquery = dquery + deferred.scores(dscores[:, :-1], step.scores)
    ds = beta * dz + deferred.product(dkey[:, 0], s, "W_s")
    dm = dm + ds * gate.out * (1 - tanh_m * tanh_m)
    return dquery, dm, sigmoid_backward(ds * tanh_m, gate)


def diagnostics(told):
    """{name: (T, N)}: beta_t, the weight of the sentinel"""
    return {"beta": 1 - told.alphas.sum(axis=2)} if told.config.sentinel else {}


captioner = Recurrent(__name__)
