"""Decode captions: beam search (beam 1 is greedy) and sampling, batched over photos and beams."""

from dataclasses import dataclass
from math import exp
from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import to_device, to_host, xp_of
from satnp.arrays.shares import in_shares, parameters_of_a_word, shares_of
from satnp.data.captions import END, PAD, SPECIALS, START, UNK
from satnp.errors import InputError
from satnp.layers import log_softmax

NEVER = PAD, START, UNK  # words that a caption never contains: not drawn, not found, and without probability in a loss
MIN_LENGTH = 1  # words of a caption before <end> may follow, unless another number is asked for
GROUPS = 128  # number of groups of words in _bound
LENGTH_SCORES = "polynomial", "min_hinge", "max_hinge", "gaussian"


@dataclass(frozen=True)
class LengthScore:
    """How finished captions of different lengths are compared: by log p / f(T), T words, <end> included.

        polynomial   f(T) = T^power;  with power 0, the most probable caption ranks first
        min_hinge    f(T) = min(T, mu)
        max_hinge    f(T) = max(T, mu)
        gaussian     f(T) = exp(-(T - mu)^2 / (2 sigma^2)), at least 1e-200, so that ranks are finite

    mu and sigma are the mean and the standard deviation of T over the training captions.

    Source: Jia et al. 2015.
    Pitfall: log p is negative, so the Gaussian must divide: a caption of unusual length then ranks lower. Multiplied by it,
    log p of such a caption would come near 0, and it would rank first.
    """

    kind: str = "polynomial"
    power: float = 0.0
    mu: float = 0.0
    sigma: float = 0.0

    def __post_init__(self):
        if self.kind not in LENGTH_SCORES:
            raise InputError(f"length_score is {self.kind!r}; choose {', '.join(LENGTH_SCORES[:-1])} or {LENGTH_SCORES[-1]}")
        if not 0 <= self.power <= 100:
            raise InputError(f"length_power is {self.power}; choose 0 to 100")
        for name, value in (("mu", self.mu), ("sigma", self.sigma)):
            if not 0 <= value < float("inf"):
                raise InputError(f"{name} of the lengths is {value}; it has to be 0 or more")
        needed = {"polynomial": (), "gaussian": ("mu", "sigma")}.get(self.kind, ("mu",))
        if not all(getattr(self, name) for name in needed):
            raise InputError(
                f"length_score is {self.kind} with mu {self.mu} and sigma {self.sigma}; it needs the mean (mu) and a spread "
                "(sigma) of the lengths of the training captions, so choose polynomial"
            )

    def divisor(self, T):
        """f(T)"""
        if self.kind == "polynomial":
            return T**self.power
        if self.kind == "gaussian":
            z = (T - self.mu) / self.sigma
            return max(exp(-0.5 * z * z), 1e-200)
        return (min if self.kind == "min_hinge" else max)(T, self.mu)


class Decoded(NamedTuple):
    """ids (T,) with <end> last, unless the caption was cut at max_length; log_prob in nats, by the probabilities of
    `may_say`; alphas (T, L), or None for a captioner without attention."""

    ids: list
    log_prob: float
    alphas: object


def beam_search(
    captioner, params, config, annotations, beam=3, max_length=40, length_score=LengthScore(), rng=None,
    min_length=MIN_LENGTH, every=False,
):  # fmt: skip
    """Find a probable caption of each photo by beam search: annotations (N, L, D) -> list of N Decoded.

    rng draws the random numbers of the captioner's steps (the locations of hard attention, if it samples them).

    Each photo has `beam` places for captions. A caption that ends with <end>, or has `max_length` words, is finished and
    leaves its place empty. <end> does not come before `min_length` words. The result is the finished caption that ranks
    first by `length_score` (default: the most probable one, as in the paper). With `every` it is the list of all finished
    captions, the first one first; without, the search ends when no other caption can rank first. Raises InputError for a
    beam or max_length below 1, or a min_length that is not from 0 to max_length.
    """
    if beam < 1 or max_length < 1:
        raise InputError(f"beam is {beam} and max_length {max_length}; give a beam and a max_length of 1 or more")
    _check_min_length(min_length, max_length)
    state = captioner.start(params, config, annotations, _noise(captioner, config, annotations, max_length, rng))

    def search(part):
        share = state.share(part)
        return _search(captioner, params, config, share, part.start, beam, max_length, length_score, min_length, every)

    shares = shares_of(len(annotations), xp_of(annotations), parameters_of_a_word(params))
    return [decoded for found in in_shares(search, shares) for decoded in found]


def _search(captioner, params, config, state, first, beam, max_length, length_score, min_length, every):
    """beam_search from the State of captions without words; `first` is the number of its first photo."""
    N = len(state.photos)
    best = np.full(N, -np.inf)  # largest log p / f(T) of the finished captions
    finished = [[] for _ in range(N)]
    places = np.full(N, beam)
    words, parents, total = np.full(N, START), np.arange(N), np.zeros(N)
    steps = []
    divisors = np.array([length_score.divisor(T) for T in range(1, max_length + 1)])
    for t in range(1, max_length + 1):
        log_p, state, look = captioner.step(params, config, state, words, parents)
        steps.append((words, parents, None if look is None else to_host(look)))
        log_p = may_say(to_host(log_p), t - 1, min_length)
        parents, words, total = best_words(log_p, total, state.photos - first, places)
        photos = state.photos[parents] - first
        ends = (words == END) | (t == max_length)
        for k in np.flatnonzero(ends):
            n, rank = photos[k], total[k] / divisors[t - 1]
            places[n] -= 1
            if rank > best[n] or every:
                best[n] = max(best[n], rank)
                finished[n].append((rank, t, parents[k], words[k], total[k]))
        # a photo stays open while one of its captions would rank first if all its further words had probability 1,
        # at the length with the largest f
        hope = np.full(N, -np.inf)
        np.maximum.at(hope, photos[~ends], total[~ends] / divisors[t:].max(initial=divisors[-1]))
        keep = ~ends & (every | (hope > best))[photos]
        if not keep.any():
            break
        parents, words, total = parents[keep], words[keep], total[keep]
    if [] in finished:
        raise InputError("the model's probabilities are not finite; use another checkpoint, or lower learning_rate")
    ranked = (sorted(of, key=lambda caption: -caption[0])[: None if every else 1] for of in finished)
    found = [[_trace(steps[:t], *last) for _, t, *last in of] for of in ranked]
    return found if every else [best for (best,) in found]


def best_words(log_p, total, photos, places):
    """Add one word to the captions and keep the places[n] best ones of each photo n, photo by photo, best first.

    log_p (R, V), total (R,), photos (R,) -> rows, words and totals of the captions kept
    """
    rows, words = divmod(np.flatnonzero(log_p >= _bound(log_p, places.max())[:, None]), log_p.shape[1])
    scores = total[rows] + log_p[rows, words]
    order = np.lexsort((-scores, photos[rows]))
    owners = photos[rows[order]]
    ranks = np.arange(len(order)) - np.searchsorted(owners, owners)
    chosen = order[(ranks < places[owners]) & np.isfinite(scores[order])]
    return rows[chosen], words[chosen], scores[chosen]


def _bound(x, k):
    """A bound that at least k (or all) numbers in each row of x (R, V) reach, and few others: (R,)

    It is the k-th largest of the maxima of groups; maxima over columns are faster than sorting.
    """
    R, V = x.shape
    grouped = V // GROUPS * GROUPS
    maxima = np.concatenate([x[:, :grouped].reshape(R, -1, GROUPS).max(axis=1, initial=-np.inf), x[:, grouped:]], axis=1)
    return np.partition(maxima, -k, axis=1)[:, -k] if k <= maxima.shape[1] else x.min(axis=1)


def _trace(steps, row, word, log_prob):
    """Collect the caption that ends with `word` after the last of the steps, from its end to its beginning."""
    ids, alphas = [int(word)], []
    for words, parents, look in reversed(steps):
        alphas.append(None if look is None else look[row])
        ids.append(int(words[row]))
        row = parents[row]
    return Decoded(ids[-2::-1], float(log_prob), _stack(alphas[::-1]))


def _stack(alphas, axis=0):
    """The alphas of all steps as one array, or None for a captioner without attention."""
    return None if alphas[0] is None else np.stack(alphas, axis)


def sample(captioner, params, config, annotations, rng, max_length=40, temperature=1.0, min_length=MIN_LENGTH):
    """Draw one caption per photo from p^(1/temperature), word by word: annotations (N, L, D) -> list of N Decoded.

    <end> does not come before `min_length` words. log_prob is that of temperature 1. Raises InputError for a max_length
    below 1, a temperature of 0 or less, or a min_length that is not from 0 to max_length.
    """
    if max_length < 1 or temperature <= 0:
        raise InputError(
            f"max_length is {max_length} and temperature {temperature}; "
            "give a max_length of 1 or more and a temperature above 0"
        )
    _check_min_length(min_length, max_length)
    noise = _noise(captioner, config, annotations, max_length, rng)
    uniform = rng.random((len(annotations), max_length))
    ids, log_prob, alphas = sample_words(
        captioner, params, config, annotations, uniform, noise, temperature, min_length
    )  # fmt: skip
    lengths = np.where((ids == END).any(axis=1), (ids == END).argmax(axis=1) + 1, ids.shape[1])
    return [
        Decoded(ids[n, :T].tolist(), float(log_prob[n]), None if alphas is None else alphas[n, :T])
        for n, T in enumerate(lengths)
    ]


def sample_words(
    captioner, params, config, annotations, uniform, noise=None, temperature=1.0, min_length=MIN_LENGTH
):  # fmt: skip
    """Draw captions from p^(1/temperature) with given random numbers, S captions of each photo, of min_length words or more.

    annotations (N, L, D); uniform (N*S, steps) from 0 to 1, host, photo by photo; noise (N, ...) from decoding_noise
    -> ids (N*S, T <= steps), log_prob (N*S,), alphas (N*S, T, L) or None, host arrays. Each id after <end> is <end>.
    """
    (R, max_length), N = uniform.shape, len(annotations)
    state = captioner.start(params, config, annotations, noise)
    words, parents = np.full(R, START), np.repeat(np.arange(N), R // N)
    ids, alphas, log_prob, ended = [], [], np.zeros(R), np.zeros(R, bool)
    for t in range(max_length):
        log_p, state, alpha = captioner.step(params, config, state, words, parents)
        log_p = may_say(to_host(log_p).astype(np.float64), t, min_length)
        parents = np.arange(R)
        words = np.where(ended, END, draw_words(log_p / temperature, uniform[:, t]))
        log_prob += np.where(ended, 0, log_p[parents, words])
        ids.append(words)
        alphas.append(None if alpha is None else to_host(alpha))
        ended |= words == END
        if ended.all():
            break
    return np.stack(ids, axis=1), log_prob, _stack(alphas, axis=1)


def unsaid(V, min_length=MIN_LENGTH):
    """What a caption does not contain: words at any place, and (<end>, the number of words that come before it).

    The two are Batch.never and Batch.late of a loss in which captions have the probabilities of decoding. A vocabulary of V
    words that has none but <end> and those of NEVER may say <end> at once.
    """
    return NEVER, (END, min_length if V > len(SPECIALS) else 0)


def may_say(log_p, t, min_length=MIN_LENGTH):
    """log p of each word, given that a caption may contain it after t others: log_p (R, V) on the host, changed -> (R, V)"""
    never, (end, words) = unsaid(log_p.shape[1], min_length)
    excluded = [*never, end] if t < words else list(never)
    p = np.exp(log_p[:, excluded]).sum(axis=1, keepdims=True)
    log_p[:, excluded] = -np.inf
    if p.max() > 0.5:  # 1 - p would be inexact
        return log_softmax(log_p)
    log_p -= np.log1p(-p)
    return log_p


def draw_words(log_p, uniform):
    """Draw a word from each row by its probabilities: log_p (R, V), uniform (R,) from 0 to 1, host arrays -> words (R,)"""
    total = np.exp(log_p).cumsum(axis=1)
    return (total <= uniform[:, None] * total[:, -1:]).sum(axis=1)


def _check_min_length(min_length, max_length):
    if not 0 <= min_length <= max_length:
        raise InputError(f"min_length is {min_length} and max_length {max_length}; give a min_length from 0 to max_length")


def _noise(captioner, config, annotations, max_length, rng):
    N, L, _ = annotations.shape
    noise = captioner.decoding_noise(config, N, L, max_length, rng)
    return noise if noise is None else to_device(noise, xp_of(annotations))
