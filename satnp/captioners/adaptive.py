"""Adaptive attention with a visual sentinel (Lu et al. 2017): a word may attend to the LSTM's memory in place of the photo.

    v_i = ReLU(a_i W_a + b_a),    v_g = ReLU(mean_i a_i W_b + b_b),    x_t = [E[y_{t-1}] ; v_g]
    h_t, m_t = LSTM(x_t, h_{t-1}, m_{t-1})
    g_t = sigmoid(x_t W_x5 + h_{t-1} W_h5),    s_t = g_t * tanh(m_t)                     eqs. 9-10, the visual sentinel
    e_ti = w . tanh(v_i W_v + h_t W_g),        e_ts = w . tanh(s_t W_s + h_t W_g)        eqs. 6, 12
    [alpha_t ; beta_t] = softmax over the L locations and the sentinel of [e_t ; e_ts]   eqs. 7, 12
    z_t = sum_i alpha_ti v_i + beta_t s_t                                                eqs. 8, 11
    p(y_t) = softmax((z_t + h_t) W_p + b_p)                                              eq. 13

The attention uses h_t, where Show, Attend and Tell uses h_{t-1}. No state depends on z_t, so attention is computed after the
loop over time, for all steps at once. The sentinel's gate g_t is computed as a fifth gate of the LSTM. `alpha` leaves the
sentinel out: it sums to 1 - beta_t. Without `sentinel` this is the paper's spatial attention.

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
    additive_steps_backward,
    affine_forward,
    lstm_cell_backward,
    lstm_cell_forward,
    mean_annotation_backward,
    mean_annotation_forward,
    relu_backward,
    relu_forward,
    rows,
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


class Step(NamedTuple):
    h_prev: object
    cell: object
    gate: object  # g_t


class Attention(NamedTuple):
    out: tuple        # h (T*N, H), and s (T*N, H) with the sentinel
    scores: object    # cache of e_ti
    sentinel: object  # cache of e_ts
    softmax: object
    vectors: object   # (N, L, H)


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
    dgates, dkeys, dv = deferred.sums["gates"], rows(deferred.sums["keys"]), rows(deferred.vectors())
    dv += dkeys @ p.W_v.T
    da = relu_backward(dv, cache.relu_a)
    db = relu_backward(dgates @ p.W_vg.T, cache.relu_b)
    deferred.g.add(
        W_vg=cache.v_g.T @ dgates, W_b=cache.b.x.T @ db, b_b=db.sum(axis=0),
        W_v=cache.v.T @ dkeys, W_a=cache.a.x.T @ da, b_a=da.sum(axis=0),
    )  # fmt: skip
    if frozen:
        return None
    dmean = mean_annotation_backward(db @ p.W_b.T, cache.mean)
    return (da @ p.W_a.T).reshape(dmean.shape) + dmean


def cell_forward(p, config, photo, word, state):
    """word (N, 5H), state (h, m), each (N, H) -> out (h, s), each (N, H), state, None, cache; (h,) without the sentinel"""
    (h_prev, m), H = state, config.H
    gates = word + photo.gates + h_prev @ p.W_h
    (h, m), cell = lstm_cell_forward(gates[:, : 4 * H], m)
    if not config.sentinel:
        return (h,), (h, m), None, Step(h_prev, cell, None)
    g, gate = sigmoid_forward(gates[:, 4 * H :])
    return (h, g * cell.tanh_c), (h, m), None, Step(h_prev, cell, gate)


def cell_backward(p, config, dout, dstate, dalpha, step, deferred):
    """dout (dh, ds), dstate (dh, dm), each (N, H) -> dword (N, 5H), dstate"""
    (dh_out, *ds), (dh, dm) = dout, dstate
    if config.sentinel:
        (ds,), tanh_m = ds, step.cell.tanh_c
        dm = dm + ds * step.gate.out * (1 - tanh_m * tanh_m)
    dgates, dm = lstm_cell_backward((dh_out + dh, dm), step.cell)
    if config.sentinel:
        dgates = xp_of(dgates).concatenate([dgates, sigmoid_backward(ds * tanh_m, step.gate)], axis=1)
    deferred.sum(gates=dgates)
    return dgates, (deferred.product(dgates, step.h_prev, "W_h"), dm)


def attention_forward(p, config, photo, out):
    """out (h, s), each (T*N, H) -> out (z + h (T*N, H),), alpha (T*N, L), cache"""
    h, locations, sentinel = out[0], photo.locations, None
    query = h @ p.W_g
    scores, scores_cache = scores_forward(locations, query, p.w, p.c_a)
    L = scores.shape[1]
    if config.sentinel:
        s = out[1]
        score, sentinel = additive_scores_forward((s @ p.W_s)[:, None], query, p.w, p.c_a)
        scores = xp_of(s).concatenate([scores, score], axis=1)
    weights, softmax = softmax_forward(scores)
    alpha, beta = weights[:, :L], weights[:, L:]
    z = context_of(locations, alpha)
    if config.sentinel:
        z = z + beta * s
    return (z + h,), alpha, Attention(out, scores_cache, sentinel, softmax, locations.vectors)


def attention_backward(p, config, dout, dalpha, deferred, cache):
    """dout (dz (T*N, H),), dalpha (T*N, L) or None -> dout (dh, ds), each (T*N, H)"""
    (dz,), h, L, weights = dout, cache.out[0], cache.vectors.shape[1], cache.softmax.alpha
    dweights = deferred.context(dz, weights[:, :L], cache.vectors, dalpha)
    if config.sentinel:
        s, beta = cache.out[1], weights[:, L:]
        dbeta = (dz * s).sum(axis=1, keepdims=True)
        dweights = xp_of(s).concatenate([dweights, dbeta], axis=1)
    dscores = softmax_backward(dweights, cache.softmax)
    deferred.sums["keys"], dquery, dw, dc_a = additive_steps_backward(dscores[:, :L], cache.scores)
    deferred.g.add(w=dw, c_a=dc_a)
    if not config.sentinel:
        return (dz + deferred.product(dquery, h, "W_g"),)
    dkey, dquery_s, dw, dc_a = additive_scores_backward(dscores[:, L:], cache.sentinel)
    deferred.g.add(w=dw, c_a=dc_a)
    ds = beta * dz + deferred.product(dkey[:, 0], s, "W_s")
    return dz + deferred.product(dquery + dquery_s, h, "W_g"), ds


def diagnostics(told):
    """{name: (T, N)}: beta_t, the weight of the sentinel"""
    return {"beta": 1 - told.alphas.sum(axis=2)} if told.config.sentinel else {}


captioner = Recurrent(__name__)
