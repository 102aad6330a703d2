"""From Captions to Visual Concepts and Back (Fang et al. 2015): detect words, put them in order, and choose a sentence.

1. Detect: p_w of the commonest words, by noisy-OR over the locations or, with `whole`, from the mean annotation (words.py).
   The likely words of a photo are those with p_w above a threshold: `likely` words a photo on average.
2. Order: a maximum entropy language model over the whole vocabulary, which knows the likely words that are left,

       log p(w_t) = logit_w - log sum_v exp(logit_v)
       logit_w = b_w + sum_{n=2..4} theta[w_{t-n+1} ... w_{t-1} w]                                 n-gram-
               + r_w (u_w + s log p_w + sum_{n=2..4} phi[w_{t-n+1} ... w_{t-1} w])                 attribute, score, n-gram+
               + 1(no word is left) e_w                                                            end

   r_w is 1 if w is likely and no word with its root is said yet, else 0. The n-grams are those that the training captions
   have LEAST times or more.
3. Choose: a beam search makes a list of captions. The one with the largest w . (log p, T, likely words said, log p / T) is
   taken; T is its length, with <end>. mert.py finds the w with the best BLEU-4 on the validation photos.

Differs: in the paper theta belongs to the words with r_w = 0 only. Here phi is added to theta, so a likely word also uses
what theta has learned from photos where the word is not likely. In the paper the detectors are the last layers of a network
that is trained with them, only the same form of a word counts as said, and the choice uses one more number: how well the
whole sentence fits the photo (DMSM). Here the language model is trained on p_w of detectors that did not see the photo
(FOLDS), because detectors have not seen a test photo either.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import to_host, xp_of
from satnp.arrays.parameters import Parameters
from satnp.captioners.attributes import root
from satnp.captioners.config import Validated
from satnp.data.captions import END, SPECIALS, START, pad
from satnp.decoding import Decoded, best_words, may_say
from satnp.early import words
from satnp.early.fitting import fit_parameters, minibatches
from satnp.early.mert import mert
from satnp.early.photos import sentence
from satnp.errors import InputError
from satnp.layers import cross_entropy_backward, cross_entropy_forward, log_softmax
from satnp.scores.metrics import bleu_counts

SIZES = "K", "F"  # of Config, which fit() sets
SAYS_WORDS = True
ORDERS = 1, 2, 3  # words before the last one of an n-gram
FOLDS = 2
LEAST = 2         # times that the training captions have an n-gram of the model
NOWHERE = 1e-12   # smallest probability of a word at a location


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    detected: int = 500     # words that may have a detector
    whole: bool = False     # as in words.Config, and so are hidden and H
    hidden: bool = False
    H: int = 256
    detecting: int = 12     # epochs of the detectors
    likely: float = 12.0    # likely words of a photo, on average
    epochs: int = 4         # of the language model
    batch: int = 64
    rate: float = 0.02
    decay: float = 1e-6     # weight of |theta|^2 / 2 and |phi|^2 / 2 in the loss
    beam: int = 20
    best: int = 30          # captions in the list of a photo
    cover: int = 4          # likely words that they have to say to come first in it
    longest: int = 20       # words of a caption
    K: int = 1              # words that have a detector
    F: int = 1              # n-grams


class Batch(NamedTuple):
    """R words to predict: targets (R,); weights (R,) of their -log p; remaining (R, V), 1.0 for the likely words that are
    left; log_p (R, V), log p_w; grams [(rows, words, features)], for each order all n-grams of the model that may end here:
    three int arrays (G,), in which no pair of row and word occurs twice."""

    targets: object
    weights: object
    remaining: object
    log_p: object
    grams: list


def learned_shapes(config):
    """{name: shape} of the language model."""
    V, F = config.V, config.F
    return {"b": (V,), "u": (V,), "s": (1,), "e": (V,), "theta": (F,), "phi": (F,)}


def shapes(config):
    return words.shapes(words.detectors(config)) | learned_shapes(config) | {
        "grams": (config.F, len(ORDERS) + 1),  # word ids, -1 before the first one, in rising order
        "detected": (config.K,),               # the words that have a detector
        "root": (config.V,),                   # words with the same number have the same root
        "threshold": (1,), "w": (4,),
    }  # fmt: skip


def forward(p, config, batch):
    """sum of weight * -log p(target) + decay/2 (|theta|^2 + |phi|^2) -> loss (), cache"""
    logits, left, ended = _logits(p, batch.remaining, batch.log_p, batch.grams)
    loss, cross_entropy = cross_entropy_forward(logits, batch.targets, batch.weights)
    loss = loss + 0.5 * config.decay * ((p.theta * p.theta).sum() + (p.phi * p.phi).sum())
    return loss, (p, config, batch, left, ended, cross_entropy)


def _logits(p, remaining, log_p, grams):
    """remaining (R, V), log_p (R, V), grams -> logits (R, V), remaining log_p (R, V), 1.0 where no word is left (R, 1)"""
    left, ended = remaining * log_p, (remaining.sum(axis=1, keepdims=True) == 0).astype(remaining.dtype)
    logits = p.b + remaining * p.u + p.s * left + ended * p.e
    for rows, said, features in grams:
        logits[rows, said] += p.theta[features] + remaining[rows, said] * p.phi[features]
    return logits, left, ended


def backward(cache, grads):
    """Adds the gradients of the language model to grads."""
    p, config, batch, left, ended, cross_entropy = cache
    dlogits = cross_entropy_backward(1.0, cross_entropy)
    grads.add(
        b=dlogits.sum(axis=0), u=(batch.remaining * dlogits).sum(axis=0), s=(left * dlogits).sum(),
        e=(ended * dlogits).sum(axis=0), theta=config.decay * p.theta, phi=config.decay * p.phi,
    )  # fmt: skip
    xp = xp_of(dlogits)
    for rows, said, features in batch.grams:
        d = dlogits[rows, said]
        for name, x in (("theta", d), ("phi", batch.remaining[rows, said] * d)):
            grads.add(**{name: xp.bincount(features, x, len(p.theta)).astype(x.dtype)})


class Order(NamedTuple):
    """The n-grams of one order: contexts (C,), numbers in rising order; those of context c are the features starts[c] to
    starts[c + 1]; words (F,), the last words of all features."""

    contexts: object
    starts: object
    words: object


def orders(config, grams):
    """grams (F, 4), as in shapes -> {order: Order}"""
    grams, found = grams.astype(np.int64), {}
    length = (grams >= 0).sum(axis=1) - 1
    for n in ORDERS:
        of = np.flatnonzero(length == n)  # features with the same context follow each other
        contexts, starts = np.unique(_number(config, grams[of, -1 - n : -1]), return_index=True)
        first = of[0] if len(of) else 0
        found[n] = Order(contexts, np.append(starts, len(of)) + first, grams[:, -1])
    return found


def _number(config, context):
    """One number for each row of words (R, n)."""
    return context @ config.V ** np.arange(context.shape[1])[::-1]


def n_grams(config, table, history):
    """The `grams` of a Batch after the words history (R, 3); table: orders()"""
    found = []
    for n, order in table.items():
        keys = _number(config, history[:, -n:])
        at = np.searchsorted(order.contexts, keys)
        known = np.flatnonzero(at < len(order.contexts))
        known = known[order.contexts[at[known]] == keys[known]]
        starts = order.starts[at[known]]
        counts = order.starts[at[known] + 1] - starts
        features = np.arange(counts.sum()) + np.repeat(starts - counts.cumsum() + counts, counts)
        found.append((np.repeat(known, counts), order.words[features], features))
    return found


def count(captions):
    """The n-grams of the captions, lists of ids with <start> and <end>, that occur LEAST times or more -> (F, 4)"""
    found = []
    padded = [np.array([START, START, *ids]) for ids in captions]
    for n in ORDERS:
        windows = np.concatenate([np.lib.stride_tricks.sliding_window_view(x[2 - n + 1 :], n + 1) for x in padded])
        grams, counts = np.unique(windows, axis=0, return_counts=True)
        grams = grams[counts >= LEAST]
        found.append(np.pad(grams, ((0, 0), (len(ORDERS) - n, 0)), constant_values=-1))
    return np.concatenate(found)


def log_probabilities(p, p_w):
    """p_w (N, K) -> log p_w (N, V), log words.FLOOR for words without detector"""
    log_p = np.full((len(p_w), len(p.root)), np.log(words.FLOOR), p_w.dtype)
    log_p[:, p.detected.astype(int)] = np.log(np.maximum(p_w, words.FLOOR))
    return log_p


def likely_words(p, log_p):
    """log p_w (N, V) -> which words are likely (N, V) bool"""
    return np.exp(log_p) >= p.threshold


def batch_of(p, config, table, captions, log_p, likely):
    """The words of N captions (lists of ids) of photos with log_p (N, V) and likely (N, V) -> Batch"""
    ids, mask = pad(captions)
    remaining, left = [], likely
    for said in ids[:, :-1].T:
        left = left & (p.root != p.root[said][:, None])
        remaining.append(left)
    n, t = np.nonzero(mask)
    history = np.concatenate([np.full((len(ids), 2), START), ids], axis=1)
    history = np.stack([history[n, t + k] for k in range(3)], axis=1)
    weights = np.full(len(n), 1 / len(ids), log_p.dtype)
    remaining = np.stack(remaining, axis=1)[n, t].astype(log_p.dtype)
    return Batch(ids[n, t + 1], weights, remaining, log_p[n], n_grams(config, table, history))


def fit(config, photos):
    """Train the detectors, the language model on what they say of the training photos, and the weights of the choice."""
    rng = np.random.default_rng([photos.seed, 8])
    detected = words.seen_words(photos.words, config.detected)
    captions = [ids for of_photo in photos.captions for ids in of_photo]
    photo_of = np.repeat(np.arange(len(photos.captions)), [len(of_photo) for of_photo in photos.captions])
    grams = count(captions)
    if not len(grams):
        raise InputError(f"no two of the {len(captions)} captions have a pair of words in common; give more captions")
    config = replace(config, K=len(detected), F=len(grams))
    p = Parameters(shapes(config))
    p.grams[...], p.detected[...] = grams, detected
    roots = {}
    p.root[...] = [roots.setdefault(word if word in SPECIALS else root(word), len(roots)) for word in photos.words]
    p_w, val_p_w = detect_unseen(p, config, photos)
    log_p, val_log_p = log_probabilities(p, p_w), log_probabilities(p, val_p_w)
    p.threshold[...] = max(2 * words.FLOOR, np.quantile(val_p_w, 1 - min(1, config.likely / config.K)))
    order(p, config, captions, photo_of, log_p, photos.val_captions, val_log_p, rng)
    lists = search(p, config, val_log_p)
    p.w[...] = choose_weights(lists, photos.val_captions, rng)
    return config, p


def detect_unseen(p, config, photos):
    """Train detectors -> p_w (N, K) of the training photos by detectors that did not see them, p_w of the validation photos

    p gets the detectors that saw all training photos, with which the validation photos are described.
    """
    of = words.detectors(config)
    y, val_y = (words.said(captions, p.detected) for captions in (photos.captions, photos.val_captions))
    N, p_w = len(y), np.zeros(y.shape, np.float32)
    fold = np.arange(N) % FOLDS
    for k in range(FOLDS if N >= FOLDS else 0):
        seen, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        found, _ = words.train(of, photos.annotations, y, photos.val_annotations, val_y, photos.seed, seen)
        p_w[held] = words.detect_all(found, of, photos.annotations, held)
    found, _ = words.train(of, photos.annotations, y, photos.val_annotations, val_y, photos.seed)
    for name, x in found.items():
        p[name][...] = x
    return p_w, words.detect_all(found, of, photos.val_annotations)


def order(p, config, captions, photo_of, log_p, val_captions, val_log_p, rng):
    """Train the language model on captions, S lists of ids of the photos photo_of (S,), whose words have log_p (P, V). The
    epoch with the largest likelihood of val_captions, of each photo a list, with val_log_p (N, V), is kept."""
    model, table = Parameters(learned_shapes(config)), orders(config, p.grams)
    batches = minibatches(len(captions), config.batch, rng)
    frequency = np.bincount(np.concatenate(captions), minlength=config.V) + 0.1
    model.b[...] = np.log(frequency / frequency.sum())
    likely, val_likely = likely_words(p, log_p), likely_words(p, val_log_p)
    val = [(ids, n) for n, said in enumerate(val_captions) for ids in said]

    def draw(rng):
        rows = next(batches)
        return batch_of(p, config, table, [captions[r] for r in rows], log_p[photo_of[rows]],
                        likely[photo_of[rows]])  # fmt: skip

    def work(batch, grads):
        loss, cache = forward(model, config, batch)
        backward(cache, grads)
        return loss

    def validate():
        total = 0
        for k in range(0, len(val), 200):
            ids, n = zip(*val[k : k + 200], strict=True)
            batch = batch_of(p, config, table, list(ids), val_log_p[list(n)], val_likely[list(n)])
            total -= float(forward(model, replace(config, decay=0.0), batch)[0]) * len(ids)
        return total / len(val)

    steps = -(-len(captions) // config.batch)
    fit_parameters(model, draw, work, config.epochs * steps, config.rate, rng, validate, steps, "language model",
                   "log p of a validation caption")  # fmt: skip
    for name, x in model.items():
        p[name][...] = x


class Said(NamedTuple):
    """A caption of a list: ids with <end>, log p, the number of likely words (by their roots) that it says."""

    ids: list
    log_prob: float
    covered: int


def search(p, config, log_p, chunk=50):
    """Beam search: log p_w (N, V) -> of N photos the list of `best` Said, as best_of orders them

    A caption goes on until it has `longest` words; each of the beam also ends here, and what ended is kept.
    """
    table, found = orders(config, p.grams), []
    for k in range(0, len(log_p), chunk):
        found += _search(p, config, table, log_p[k : k + chunk])
    return found


def _search(p, config, table, log_p):
    N = len(log_p)
    remaining = likely_words(p, log_p)
    history, ids, photo = np.full((N, 3), START), np.zeros((N, 0), int), np.arange(N)
    total, covered, ended = np.zeros(N), np.zeros(N, int), [[] for _ in range(N)]
    for t in range(config.longest + 1):
        logits, _, _ = _logits(p, remaining.astype(log_p.dtype), log_p[photo], n_grams(config, table, history))
        following = may_say(log_softmax(logits), t)
        for r in np.flatnonzero(np.isfinite(following[:, END])):
            ended[photo[r]].append(Said([*ids[r].tolist(), END], float(total[r] + following[r, END]), int(covered[r])))
        following[:, END] = -np.inf
        if t == config.longest or not np.isfinite(following).any():
            break
        rows, said, total = best_words(following, total, photo, np.full(N, config.beam))
        same = p.root == p.root[said][:, None]
        covered = covered[rows] + (remaining[rows] & same).any(axis=1)
        remaining, photo = remaining[rows] & ~same, photo[rows]
        ids = np.concatenate([ids[rows], said[:, None]], axis=1)
        history = np.concatenate([history[rows, 1:], said[:, None]], axis=1)
    return [best_of(config, of) for of in ended]


def best_of(config, ended):
    """The `best` of a list of Said: the most probable of those that say `cover` likely words or more, then of those that say
    one word less, and so on"""
    return sorted(ended, key=lambda said: (-min(said.covered, config.cover), -said.log_prob))[: config.best]


def features(said):
    """(log p, T, likely words said, log p / T) of each of a list of Said: (M, 4)"""
    return np.array([[x.log_prob, len(x.ids), x.covered, x.log_prob / len(x.ids)] for x in said])


def choose_weights(lists, captions, rng):
    """The weights (4,) by mert.py for lists of Said of photos with these captions (lists of ids)."""
    references = [[sentence(ids[1:-1]) for ids in said] for said in captions]
    pairs = [(sentence(x.ids[:-1]), of) for said, of in zip(lists, references, strict=True) for x in said]
    counts = np.column_stack(bleu_counts(*map(list, zip(*pairs, strict=True))))
    parts = np.split(counts, np.cumsum([len(said) for said in lists])[:-1])
    return mert(np.array([1.0, 0, 0, 0]), [features(said) for said in lists], parts, rng)[0]


def describe(p, config, annotations):
    """annotations (N, L, D) -> list of N Decoded; the alphas show where each word is, as `places` gives them"""
    p, annotations = p.on(to_host(p.flat)), to_host(annotations)
    lists = search(p, config, log_probabilities(p, words.detect_all(p, words.detectors(config), annotations)))
    best = [said[int((features(said) @ p.w).argmax())] for said in lists]
    return [Decoded(x.ids, x.log_prob, places(p, config, a, x.ids)) for x, a in zip(best, annotations, strict=True)]


def places(p, config, annotations, ids):
    """Where each word is: annotations (L, D), T ids -> shares (T, L)

    The probabilities of the word at the locations, divided by their sum; the same everywhere for a word without
    detector, or far from every location.
    """
    at = np.maximum(words.where(p, words.detectors(config), annotations[None].astype(p.flat.dtype))[0].T, NOWHERE)
    shares = np.full((config.V, at.shape[1]), 1 / at.shape[1])
    shares[p.detected.astype(int)] = at / at.sum(axis=1, keepdims=True)
    return shares[ids]
