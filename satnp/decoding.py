"""From a trained captioner to sentences: beam search (beam 1 is greedy) and sampling, batched over photos and beams."""

from typing import NamedTuple

import numpy as np

from satnp.backend import to_device, to_host, xp_of
from satnp.captioners.contract import State
from satnp.data.captions import END, PAD, START, UNK
from satnp.errors import InputError

NEVER = [PAD, START, UNK]  # words that no caption says


class Decoded(NamedTuple):
    """ids (T,) with <end> last, unless the caption was cut at the longest length; log_prob in nats; alphas (T, L)."""

    ids: list
    log_prob: float
    alphas: object


def beam_search(captioner, params, config, annotations, beam=3, max_length=40, length_power=0.0, rng=None):
    """The most probable caption found for each photo: annotations (N, L, D) -> list of N Decoded.

    rng draws what is random in a step of the captioner (the locations of hard attention, if it samples them).

    Each photo has `beam` places for captions. One that says <end>, or is `max_length` words long, is finished and
    leaves its place empty. The answer is the finished one with the largest log p / T^length_power (0: the most
    probable one, as in the paper). Raises InputError for a beam or max_length below 1, or a negative length_power.
    """
    if beam < 1 or max_length < 1 or length_power < 0:
        raise InputError(
            f"beam is {beam}, max_length {max_length} and length_power {length_power}; "
            "give a beam and a max_length of 1 or more and a length_power of 0 or more"
        )
    xp, N = xp_of(annotations), len(annotations)
    state = _start(captioner, params, config, annotations, max_length, rng)
    open_photos = np.arange(N)
    words = np.full((N, 1), START)
    total = np.zeros((N, 1))
    ids = np.zeros((N, 1, 0), np.int64)
    alphas = np.zeros((N, 1, 0, annotations.shape[1]), np.float32)
    finished = [[] for _ in range(N)]
    for t in range(1, max_length + 1):
        log_p, state, alpha = captioner.step(params, config, state, to_device(words, xp))
        log_p = to_host(log_p).astype(np.float64)
        log_p[:, :, NEVER] = -np.inf
        total, parents, words = _best(total[:, :, None] + log_p, beam)
        places = beam - np.array([len(finished[photo]) for photo in open_photos])
        total[np.arange(total.shape[1]) >= places[:, None]] = -np.inf
        rows = np.arange(len(parents))[:, None]
        ids = np.concatenate([ids[rows, parents], words[:, :, None]], axis=2)
        alphas = np.concatenate([alphas, to_host(alpha)[:, :, None]], axis=2)[rows, parents]
        ends = (words == END) | (t == max_length)
        for row, k in np.argwhere(ends & np.isfinite(total)):
            decoded = Decoded(ids[row, k].tolist(), float(total[row, k]), alphas[row, k])
            finished[open_photos[row]].append((decoded.log_prob / t**length_power, decoded))
        total[ends] = -np.inf
        # a photo stays open while one of its captions can still rank first, should the rest of it be certain
        hope = total.max(axis=1) / max_length**length_power
        best = np.array([max((rank for rank, _ in finished[photo]), default=-np.inf) for photo in open_photos])
        keep = np.flatnonzero(hope > best)
        if len(keep) == 0:
            break
        state = _select(state, keep, parents[keep], xp)
        open_photos, words, total, ids, alphas = (x[keep] for x in (open_photos, words, total, ids, alphas))
    if not all(finished):
        raise InputError("the model's probabilities are not numbers; take another checkpoint, or train at a lower rate")
    return [max(photo, key=lambda scored: scored[0])[1] for photo in finished]


def sample(captioner, params, config, annotations, rng, max_length=40, temperature=1.0):
    """One caption a photo drawn from p^(1/temperature), word by word: annotations (N, L, D) -> list of N Decoded.

    log_prob is the caption's own, at temperature 1. Raises InputError for a max_length below 1 or a temperature not
    above 0.
    """
    if max_length < 1 or temperature <= 0:
        raise InputError(
            f"max_length is {max_length} and temperature {temperature}; "
            "give a max_length of 1 or more and a temperature above 0"
        )
    xp, N = xp_of(annotations), len(annotations)
    state = _start(captioner, params, config, annotations, max_length, rng)
    words = np.full((N, 1), START)
    ids, alphas, log_prob = [], [], np.zeros(N)
    open_photos = np.ones(N, bool)
    for _ in range(max_length):
        log_p, state, alpha = captioner.step(params, config, state, to_device(words, xp))
        log_p = to_host(log_p)[:, 0].astype(np.float64)
        log_p[:, NEVER] = -np.inf
        words = (log_p / temperature + rng.gumbel(size=log_p.shape)).argmax(axis=1)[:, None]
        log_prob += np.where(open_photos, log_p[np.arange(N), words[:, 0]], 0)
        ids.append(words[:, 0])
        alphas.append(to_host(alpha)[:, 0])
        open_photos &= words[:, 0] != END
        if not open_photos.any():
            break
    ids, alphas = np.stack(ids, axis=1), np.stack(alphas, axis=1)
    lengths = np.where((ids == END).any(axis=1), (ids == END).argmax(axis=1) + 1, ids.shape[1])
    return [Decoded(ids[n, :T].tolist(), float(log_prob[n]), alphas[n, :T]) for n, T in enumerate(lengths)]


def _start(captioner, params, config, annotations, max_length, rng):
    N, L, _ = annotations.shape
    noise = captioner.decoding_noise(config, N, L, max_length, rng)
    return captioner.start(params, config, annotations, noise if noise is None else to_device(noise, xp_of(annotations)))


def _best(scores, beam):
    """The `beam` best (or all) of scores (N, B, V) -> their scores, beams and words, each (N, beam), best first."""
    N, B, V = scores.shape
    flat = scores.reshape(N, B * V)
    beam = min(beam, B * V)
    best = np.sort(np.argpartition(-flat, beam - 1, axis=1)[:, :beam])
    order = np.argsort(-np.take_along_axis(flat, best, axis=1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)
    return np.take_along_axis(flat, best, axis=1), best // V, best % V


def _select(state, photos, parents, xp):
    """The state of the photos that go on, their beams taken from `parents` (N', B)."""
    whole = len(photos) == len(state.beams[0])
    photos = to_device(photos, xp)
    rows, parents = photos[:, None], to_device(parents, xp)
    shared = state.photo if whole else tuple(x[photos] for x in state.photo)
    return State(shared, tuple(x[rows, parents] for x in state.beams))
