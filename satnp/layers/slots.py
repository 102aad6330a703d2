"""Words that name a region (Lu et al. 2018): a pointer chooses the sentinel, which leaves the word to the vocabulary, or a
region, whose class has words of its own."""

from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.layers.softmax import log_softmax

LEAST = 1e-30  # a class probability of 0 counts as this number, whose logarithm is finite


class SlotsCache(NamedTuple):
    classes: object
    log_pointer: object  # (N, k+1)
    log_text: object     # (N, V), log p(sentinel) q(y)
    named: list          # for each class: (N, k, F), log p(i) P_i(class) p(form) of its F forms
    forms: list          # for each class: (N, k, F), p(form | class)
    log_p: object        # (N, V)
    G: int
    words: tuple
    unknown: int


def slots_forward(text, pointer, classes, fine, plural, words, unknown):
    """p(y) = p(sentinel) q(y) + sum_i p(i) P_i(class of y) p(form y | class, i),    the last sum for visual words only

    text (N, V), pointer (N, k+1), classes (N, k, C), fine (N, k, G), plural (N, k) -> log_p (N, V)

    The visual words are `words`: for each of the C classes a tuple of pairs (singular, plural), one for each of the G
    fine-grained words, in order; -1 for a form that the vocabulary lacks.

    p(i), p(sentinel)       softmax of `pointer`, the sentinel last; -inf for a region that is absent
    P_i                     `classes`, the class probabilities of region i
    p(form | class, i)      The score of a form is fine_ig, plus plural_i if it is a plural. This is the softmax of the
                            scores of all forms of the class. For a class with a singular and a plural of each word it is
                            p(fine-grained word) p(plural), with softmax(fine_i) and sigmoid(plural_i).
    q                       softmax of `text` over the words that are not visual in this photo. A word is visual if its
                            class is the most probable one of a region.

    The probabilities of all words sum to 1, and none is 0. A class without words is named by the word `unknown`.

    Source: Lu et al. 2018, sections 3.1 and 3.2. Units: nats.
    """
    xp, k, g = xp_of(text), classes.shape[1], 0
    shown = _shown(classes)
    log_pointer, log_classes = log_softmax(pointer), xp.log(xp.maximum(classes, LEAST))
    text, named, forms = text.copy(), [], []
    for c, pairs in enumerate(words):
        found = _forms(pairs, g)
        for y, _, _ in found:
            text[:, y] = xp.where(shown[:, c], -xp.inf, text[:, y])
        scores = [fine[:, :, n] + plural if b else fine[:, :, n] for _, n, b in found] or [0 * plural]
        of_class = log_softmax(xp.stack(scores, axis=2))
        named.append(log_pointer[:, :k, None] + log_classes[:, :, c, None] + of_class)
        forms.append(xp.exp(of_class))
        g += len(pairs)
    log_text = log_softmax(text) + log_pointer[:, k:]
    log_p = log_text.copy()
    for c, pairs in enumerate(words):
        for j, y in enumerate(_ids(pairs, unknown)):
            ways = xp.concatenate([log_p[:, y : y + 1], named[c][:, :, j]], axis=1)
            largest = ways.max(axis=1, keepdims=True)
            log_p[:, y] = largest[:, 0] + xp.log(xp.exp(ways - largest).sum(axis=1))
    return log_p, SlotsCache(classes, log_pointer, log_text, named, forms, log_p, fine.shape[2], words, unknown)


def slots_backward(dlog_p, cache):
    """dlog_p (N, V) -> dtext (N, V), dpointer (N, k+1), dclasses (N, k, C), dfine (N, k, G), dplural (N, k)"""
    classes, log_pointer, log_text, named, forms, log_p, G, words, unknown = cache
    (N, k), xp, g = classes.shape[:2], xp_of(classes), 0
    dtext = dlog_p * xp.exp(log_text - log_p)
    dregions, dplural = (xp.zeros((N, k), dtype=log_p.dtype) for _ in range(2))
    dclasses, dfine = xp.zeros_like(classes), xp.zeros((N, k, G), dtype=log_p.dtype)
    for c, pairs in enumerate(words):
        ids = _ids(pairs, unknown)
        share = [dlog_p[:, y, None] * xp.exp(named[c][:, :, j] - log_p[:, y, None]) for j, y in enumerate(ids)]
        dnamed = xp.stack(share, axis=2)
        total = dnamed.sum(axis=2)
        dregions += total
        dclasses[:, :, c] = total / xp.maximum(classes[:, :, c], LEAST)
        dscores = dnamed - forms[c] * total[:, :, None]
        for j, (_, n, b) in enumerate(_forms(pairs, g)):
            dfine[:, :, n] += dscores[:, :, j]
            if b:
                dplural += dscores[:, :, j]
        g += len(pairs)
    dlog_pointer = xp.concatenate([dregions, dtext.sum(axis=1, keepdims=True)], axis=1)
    dpointer = dlog_pointer - xp.exp(log_pointer) * dlog_pointer.sum(axis=1, keepdims=True)
    q = xp.exp(log_text - log_pointer[:, k:])
    return dtext - q * dlog_pointer[:, k:], dpointer, dclasses, dfine, dplural


def _shown(classes):
    """classes (N, k, C) -> (N, C), True for a class that is the most probable one of a region"""
    real = classes.real
    return ((real == real.max(axis=2, keepdims=True)) & (real > 0)).any(axis=1)


def _forms(pairs, g):
    """[(word, fine-grained word, 1 for the plural form, else 0)] of a class whose fine-grained words begin with number g"""
    return [(y, g + n, b) for n, pair in enumerate(pairs) for b, y in enumerate(pair) if y >= 0]


def _ids(pairs, unknown):
    return [y for y, _, _ in _forms(pairs, 0)] or [unknown]
