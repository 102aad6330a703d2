"""Soft attention as an approximation of hard attention's expectation (Xu et al. 2015, section 4.2.1), in numbers.

If step t looked at location i alone, the next word would have the logits

    n_ti = tanh(E[y_{t-1}] + h_t L_h + beta_t a_i L_z + b_m) L_o + b_o
    E[p]    = sum_i alpha_ti softmax(n_ti)                                      what hard attention predicts
    NWGM[p] = prod_i exp(n_ti)^alpha_ti / its sum = softmax(sum_i alpha_ti n_ti)
    soft    = softmax(n_t), n_t with z_t = beta_t sum_i alpha_ti a_i            what soft attention predicts

The normalised weighted geometric mean (NWGM) equals this softmax for any n. It equals soft attention's prediction only if
n is affine in a_i: without the tanh, and with h_t held at the soft pass's value, although h_t depends on z_t. If h_t is
recomputed, the cell runs again for each location with beta_t a_i in place of z_t, from the soft pass's h_{t-1}, c_{t-1}.
"""

from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import to_host, xp_of
from satnp.captioners import show_attend_tell as sat
from satnp.errors import InputError
from satnp.layers import affine_forward, context_forward, deep_output_forward, lstm_cell_forward, softmax

VARIANTS = [(tanh, h) for tanh in (True, False) for h in ("held", "recomputed")]
PAIRS = {
    "soft-nwgm": ("soft", "nwgm"),
    "soft-expectation": ("soft", "expectation"),
    "nwgm-expectation": ("nwgm", "expectation"),
}


class Predictions(NamedTuple):
    """Three distributions (N, V) of the next word."""

    soft: object
    nwgm: object
    expectation: object


def compare(params, config, batch):
    """Total variations between the predictions under teacher forcing: {(tanh, h) of VARIANTS: {pair of PAIRS: (words,)}}

    The arrays are on the host and hold the words that count, step by step. Variants without the tanh leave it out of the
    output layer of all three predictions and keep the states.
    Raises InputError if the captioner's attention is hard.
    """
    mask = to_host(batch.mask).T > 0
    found = {variant: {pair: [] for pair in PAIRS} for variant in VARIANTS}
    for counts, step in zip(mask, predictions(params, config, batch), strict=True):
        for variant, predicted in step.items():
            for pair, (p, q) in PAIRS.items():
                distance = total_variation(getattr(predicted, p), getattr(predicted, q))
                found[variant][pair].append(to_host(distance)[counts])
    return {variant: {pair: np.concatenate(x) for pair, x in pairs.items()} for variant, pairs in found.items()}


def predictions(params, config, batch):
    """Yield {(tanh, h): Predictions} for each step of a captioner with soft attention, without dropout."""
    if config.hard:
        raise InputError("attention is hard; give a captioner trained with soft attention")
    p, xp, (N, L, D) = params, xp_of(batch.annotations), batch.annotations.shape
    _, cache = sat.forward(p, config, batch, sat.Noise())
    words, h_soft = (x.reshape(*cache.z.shape[:2], -1) for x in (cache.words, cache.deep.h))
    for t, step in enumerate(cache.steps):
        alpha, h, z = cache.alphas[t], h_soft[t], cache.z[t]
        z_each = (step.gate.beta[:, None] * batch.annotations).reshape(N * L, D)
        gates = words[t] @ p.W_x + cache.h_prev[t] @ p.W_h + p.b
        words_each, h_held, gates, c_prev = (xp.repeat(x, L, axis=0) for x in (words[t], h, gates, step.cell.c_prev))
        (h_recomputed, _), _ = lstm_cell_forward(gates + z_each @ p.W_z, c_prev)
        h_each = {"held": h_held, "recomputed": h_recomputed}
        found = {}
        for tanh, which in VARIANTS:
            n = logits(p, words_each, h_each[which], z_each, tanh).reshape(N, L, -1)
            soft = softmax(logits(p, words[t], h, z, tanh))
            found[tanh, which] = Predictions(soft, nwgm(alpha, n), expectation(alpha, n))
        yield found


def logits(p, words, h, z, tanh):
    """words (N, M), h (N, H), z (N, D) -> (N, V), with the tanh of eq. 7 or without it"""
    hidden = deep_output_forward(words, h, z, p.L_h, p.L_z, p.b_m)[0] if tanh else words + h @ p.L_h + z @ p.L_z + p.b_m
    return affine_forward(hidden, p.L_o, p.b_o)[0]


def nwgm(alpha, n):
    """softmax(sum_i alpha_i n_i): alpha (N, L), n (N, L, V) -> (N, V)"""
    return softmax(context_forward(alpha, n)[0])


def expectation(alpha, n):
    """sum_i alpha_i softmax(n_i): alpha (N, L), n (N, L, V) -> (N, V)"""
    return context_forward(alpha, softmax(n))[0]


def total_variation(p, q):
    """Half the sum of |p - q|, from 0 to 1: the largest difference in probability of any set of words. (N, V) -> (N,)"""
    return 0.5 * xp_of(p).abs(p - q).sum(axis=1)
