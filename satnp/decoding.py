"""From a trained captioner to sentences: beam search (beam 1 is greedy) and sampling, batched over photos and beams."""

from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import to_device, to_host, xp_of
from satnp.arrays.threads import parallel, shares
from satnp.data.captions import END, PAD, START, UNK
from satnp.errors import InputError

NEVER = [PAD, START, UNK]  # words that no caption says
SHARE = 8  # photos at least, for a core of its own
GROUPS = 64  # of words, whose maxima bound the best


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
    noise = _noise(captioner, config, annotations, max_length, rng)

    def search(part):
        state = captioner.start(params, config, annotations[part], noise if noise is None else noise[part])
        return _search(captioner, params, config, state, beam, max_length, length_power)

    on_host, N = xp_of(annotations) is np, len(annotations)
    found = parallel(search, shares(N, SHARE) if on_host else [slice(0, N)])
    return [decoded for part in found for decoded in part]


def _search(captioner, params, config, state, beam, max_length, length_power):
    """beam_search from the State of captions that have no word yet."""
    N = len(state.photos)
    best = np.full(N, -np.inf)  # of the finished captions
    winner = [None] * N
    places = np.full(N, beam)
    words, parents, total = np.full(N, START), np.arange(N), np.zeros(N)
    steps = []
    for t in range(1, max_length + 1):
        log_p, state, look = captioner.step(params, config, state, words, parents)
        steps.append((words, parents, to_host(look)))
        log_p = to_host(log_p)
        log_p[:, NEVER] = -np.inf
        parents, words, total = _best(log_p, total, state.photos, places)
        photos = state.photos[parents]
        ends = (words == END) | (t == max_length)
        for k in np.flatnonzero(ends):
            n, rank = photos[k], total[k] / t**length_power
            places[n] -= 1
            if rank > best[n]:
                best[n], winner[n] = rank, (t, parents[k], words[k], total[k])
        # a photo stays open while one of its captions can still rank first, should the rest of it be certain
        hope = np.full(N, -np.inf)
        np.maximum.at(hope, photos[~ends], total[~ends] / max_length**length_power)
        keep = ~ends & (hope > best)[photos]
        if not keep.any():
            break
        parents, words, total = parents[keep], words[keep], total[keep]
    if None in winner:
        raise InputError("the model's probabilities are not numbers; take another checkpoint, or train at a lower rate")
    return [_trace(steps[:t], *last) for t, *last in winner]


def _best(log_p, total, photos, places):
    """The places[n] best captions of each photo n with one word more, photo by photo, the best first.

    log_p (R, V), total (R,), photos (R,) -> their rows, words and totals
    """
    rows, words = divmod(np.flatnonzero(log_p >= _bound(log_p, places.max())[:, None]), log_p.shape[1])
    scores = total[rows] + log_p[rows, words]
    order = np.lexsort((-scores, photos[rows]))
    owners = photos[rows[order]]
    ranks = np.arange(len(order)) - np.searchsorted(owners, owners)
    chosen = order[(ranks < places[owners]) & np.isfinite(scores[order])]
    return rows[chosen], words[chosen], scores[chosen]


def _bound(x, k):
    """A number that at least k (or all) of each row of x (R, V) reach, and few more do: (R,)

    The k-th largest of the maxima of groups; a maximum of columns is faster than any sorting.
    """
    R, V = x.shape
    grouped = V // GROUPS * GROUPS
    maxima = np.concatenate([x[:, :grouped].reshape(R, -1, GROUPS).max(axis=1, initial=-np.inf), x[:, grouped:]], axis=1)
    return np.partition(maxima, -k, axis=1)[:, -k] if k <= maxima.shape[1] else x.min(axis=1)


def _trace(steps, row, word, log_prob):
    """The caption that ended with `word` after the last of the steps, from its end to its beginning."""
    ids, alphas = [int(word)], []
    for words, parents, look in reversed(steps):
        alphas.append(look[row])
        ids.append(int(words[row]))
        row = parents[row]
    return Decoded(ids[-2::-1], float(log_prob), np.stack(alphas[::-1]))


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
    N = len(annotations)
    noise = _noise(captioner, config, annotations, max_length, rng)
    state = captioner.start(params, config, annotations, noise)
    words, parents = np.full(N, START), np.arange(N)
    ids, alphas, log_prob = [], [], np.zeros(N)
    open_photos = np.ones(N, bool)
    for _ in range(max_length):
        log_p, state, alpha = captioner.step(params, config, state, words, parents)
        log_p = to_host(log_p).astype(np.float64)
        log_p[:, NEVER] = -np.inf
        words = (log_p / temperature + rng.gumbel(size=log_p.shape)).argmax(axis=1)
        log_prob += np.where(open_photos, log_p[parents, words], 0)
        ids.append(words)
        alphas.append(to_host(alpha))
        open_photos &= words != END
        if not open_photos.any():
            break
    ids, alphas = np.stack(ids, axis=1), np.stack(alphas, axis=1)
    lengths = np.where((ids == END).any(axis=1), (ids == END).argmax(axis=1) + 1, ids.shape[1])
    return [Decoded(ids[n, :T].tolist(), float(log_prob[n]), alphas[n, :T]) for n, T in enumerate(lengths)]


def _noise(captioner, config, annotations, max_length, rng):
    N, L, _ = annotations.shape
    noise = captioner.decoding_noise(config, N, L, max_length, rng)
    return noise if noise is None else to_device(noise, xp_of(annotations))
