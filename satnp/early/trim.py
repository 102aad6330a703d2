"""Retrieve and trim: take a sentence of similar photos, and cut the phrases that do not fit the photo. Xu et al. 2015
describe systems like that of Kuznetsova et al. 2012 in this way: a step removes what is true of the retrieved photo only.

    sentence: that of retrieval.py
    phrases that may be cut: a preposition and the words up to the next preposition or verb; a word of DESCRIBING before a
        noun
    gain(w) = log p_w / (1 - p_w) - log tau / (1 - tau)        p_w by a detector (words.py); 0 for words without one
    junction(a, b) = log p(b | a) - log p(b)                   of two words that a cut puts side by side
    score(cut) = sum of gain over the words that stay + g * sum of junction over the new pairs

The best cut is found by enumeration of all subsets of the phrases. tau and g are those with the best BLEU-4 on the
validation photos.

Differs: Kuznetsova et al. put a caption together from phrases of several sentences, by integer linear programming.
"""

from dataclasses import dataclass, fields, replace
from itertools import combinations, pairwise, product
from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import to_host
from satnp.arrays.parameters import Parameters
from satnp.captioners.attributes import FUNCTION_WORDS
from satnp.captioners.config import Validated
from satnp.data.captions import END, START
from satnp.decoding import Decoded
from satnp.early import retrieval, words
from satnp.early.photos import sentence, sentences_of, stored
from satnp.early.triples import BE, COLOURS, PREPOSITIONS, is_action
from satnp.scores.metrics import bleu

SIZES = "P", "S", "T", "K", "B"  # of Config, which fit() sets
THRESHOLDS = 0.001, 0.003, 0.01, 0.03, 0.1  # tau, from which fit() chooses
GRAMMAR = 0.0, 0.3, 1.0, 3.0                # g
BEGINNINGS = PREPOSITIONS - frozenset("of to left right".split()) | {"next"}  # of a phrase
ENDS = BEGINNINGS | BE | frozenset("and while that who which as".split())  # before which a phrase ends
MOST = 8         # phrases of a sentence that may be cut, the first ones
SMOOTHING = 0.1  # share of p(b) in p(b | a)
DESCRIBING = COLOURS | frozenset("""
small big large little young old older tall short long huge tiny beautiful pretty colorful wet dry dirty wooden metal striped
plaid sandy grassy snowy rocky muddy bearded shirtless barefoot busy crowded empty steep bright shallow deep
""".split())


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    k: int = 30           # neighbours
    detected: int = 500   # words that may have a detector
    whole: bool = False   # as in words.Config, and so are hidden and H
    hidden: bool = False
    H: int = 256
    detecting: int = 12   # epochs of the detectors
    P: int = 1            # as in retrieval.Config, and so are S and T
    S: int = 1
    T: int = 1
    K: int = 1            # words that have a detector
    B: int = 1            # pairs of words that follow each other


def of_retrieval(config):
    """The Config of retrieval.py."""
    return retrieval.Config(**{f.name: getattr(config, f.name) for f in fields(retrieval.Config)})


def shapes(config):
    return retrieval.shapes(of_retrieval(config)) | words.shapes(words.detectors(config)) | {
        "detected": (config.K,),         # the words that have a detector
        "phrases": (config.S, MOST, 2),  # start and stop, then -1
        "frequency": (config.V,),        # p(b)
        "pairs": (config.B, 3),          # a, b, how often b follows a, as a share of a; in rising order
        "choice": (2,),                  # tau and g
    }  # fmt: skip


def phrases(said):
    """The spans [(start, stop)] of a tokenised sentence that may be cut, the first MOST

    A preposition at the beginning, or a phrase with "and" behind it, is not cut: what stays would not be a sentence.
    """
    found, noun = [], 0
    for t, word in enumerate(said):
        if word in BEGINNINGS and t:
            stop = next((k for k in range(t + 1, len(said)) if said[k] in ENDS or is_action(said[k])), len(said))
            if stop > t + 1 and said[stop : stop + 1] != ["and"]:
                found.append((t, stop))
        elif word in DESCRIBING and t >= noun:  # with those that follow it, as in "black and white dog"
            noun = t + 1
            while said[noun : noun + 1] and (said[noun] in DESCRIBING or said[noun] == "and" and
                                             said[noun + 1 : noun + 2] and said[noun + 1] in DESCRIBING):  # fmt: skip
                noun += 1
            if said[noun : noun + 1] and said[noun] not in FUNCTION_WORDS:
                found.append((t, noun))
    return found[:MOST]


def cuts(length, spans):
    """All ways to cut some of the spans from a sentence of `length` words: the sets of words that stay, as rising tuples

    The first is the whole sentence, and none is empty.
    """
    found = {tuple(range(length)): None}
    for n in range(1, len(spans) + 1):
        for chosen in combinations(spans, n):
            gone = {t for start, stop in chosen for t in range(start, stop)}
            found[tuple(t for t in range(length) if t not in gone)] = None
    return [stay for stay in found if stay]


def fit(config, photos):
    """Learn to retrieve, train the detectors, find the phrases of all sentences, count pairs, and choose tau and g."""
    ids, _ = sentences_of(photos.captions)
    with_ends = np.concatenate([[START, *said, END] for said in ids])
    pairs, counts = np.unique(np.stack([with_ends[:-1], with_ends[1:]], axis=1), axis=0, return_counts=True)
    detected = words.seen_words(photos.words, config.detected)
    of, found = retrieval.fit(of_retrieval(config), photos)
    config = replace(config, P=of.P, S=of.S, T=of.T, K=len(detected), B=len(pairs))
    p = Parameters(shapes(config))
    y, val_y = (words.said(captions, detected) for captions in (photos.captions, photos.val_captions))
    trained, _ = words.train(words.detectors(config), photos.annotations, y, photos.val_annotations, val_y, photos.seed)
    for name, x in (*found.items(), *trained.items()):
        p[name][...] = x
    p.detected[...] = detected
    for row, said in zip(p.phrases, ids, strict=True):
        spans = phrases([photos.words[i] for i in said])
        row[...] = -1
        row[: len(spans)] = np.reshape(spans, (-1, 2))
    frequency = np.bincount(with_ends, minlength=config.V)
    p.frequency[...] = frequency / len(with_ends)
    p.pairs[...] = np.column_stack([pairs, counts / frequency[pairs[:, 0]]])
    p.choice[...] = choose(p, config, photos)
    return config, p


def choose(p, config, photos):
    """The tau and g with the best BLEU-4 on the validation photos"""
    options = options_of(p, config, photos.val_annotations)
    references = [[sentence(ids[1:-1]) for ids in said] for said in photos.val_captions]
    found = {}
    for tau, g in product(THRESHOLDS, GRAMMAR):
        candidates = [sentence(best(of, tau, g)) for of in options]
        found[tau, g] = bleu(candidates, references)[0][3]
    return max(found, key=found.get)


class Option(NamedTuple):
    """A sentence after a cut: ids; the sum of log p_w / (1 - p_w) over its words with a detector, and their number; the sum
    of junction over its new pairs."""

    ids: list
    seen: float
    number: int
    joined: float


def best(options, tau, g):
    """The ids of the Option with the largest score, of equal ones the first."""
    each = np.log(tau / (1 - tau))
    return max(options, key=lambda x: x.seen - each * x.number + g * x.joined).ids


def options_of(p, config, annotations):
    """annotations (N, L, D), a host array -> of N photos the Options of the retrieved sentence, the uncut one first"""
    p_w, found = words.detect_all(p, words.detectors(config), annotations), []
    p_w = np.clip(p_w, words.FLOOR, 1 - words.FLOOR)
    table = p.pairs[:, 0].astype(np.int64) * config.V + p.pairs[:, 1].astype(np.int64)
    odds = np.full((len(p_w), config.V), np.nan)
    odds[:, p.detected.astype(int)] = np.log(p_w / (1 - p_w))
    for row, odd in zip(retrieval.retrieve(p, config, annotations), odds, strict=True):
        ids = stored(p.sentences[row])
        spans = [tuple(span) for span in p.phrases[row].astype(int) if span[0] >= 0]
        found.append([_option(p, config, table, ids, stay, odd) for stay in cuts(len(ids), spans)])
    return found


def _option(p, config, table, ids, stay, odds):
    content = [ids[t] for t in stay if not np.isnan(odds[ids[t]])]
    around = [(START, -1), *((ids[t], t) for t in stay), (END, len(ids))]
    new = [(a, b) for (a, s), (b, t) in pairwise(around) if t > s + 1]
    return Option([ids[t] for t in stay], sum(float(odds[i]) for i in content), len(content),
                  sum(junction(p, config, table, a, b) for a, b in new))  # fmt: skip


def junction(p, config, table, a, b):
    """log p(b | a) - log p(b), SMOOTHING of p(b | a) being p(b); table: the pairs as rising numbers a V + b"""
    at = np.searchsorted(table, a * config.V + b)
    share = float(p.pairs[at, 2]) if at < len(table) and table[at] == a * config.V + b else 0.0
    return float(np.log((1 - SMOOTHING) * share / float(p.frequency[b]) + SMOOTHING))


def describe(p, config, annotations):
    """annotations (N, L, D) -> list of N Decoded"""
    p = p.on(to_host(p.flat))
    tau, g = map(float, p.choice)
    return [Decoded([*best(of, tau, g), END], None, None) for of in options_of(p, config, to_host(annotations))]
