"""Detect, order and choose: the search held against all sentences, and what the parts do on photos with known words."""

from itertools import product

import numpy as np
import pytest

from satnp.arrays.parameters import Parameters
from satnp.data.captions import END, START
from satnp.decoding import NEVER, may_say
from satnp.early import fang, words
from satnp.early.photos import Photos
from satnp.errors import InputError
from satnp.layers import log_softmax

V = 8  # four specials and four words
CAPTIONS = [[1, 4, 5, 6, 2], [1, 4, 5, 7, 2], [1, 6, 4, 5, 2], [1, 4, 5, 6, 2], [1, 7, 2], [1, 7, 2]]


def tiny(rng, **choices):
    """A language model with random weights, in which the words 6 and 7 have the same root."""
    grams = fang.count(CAPTIONS)
    config = fang.Config(V=V, D=3, K=4, F=len(grams), **choices)
    p = Parameters(fang.shapes(config))
    p.flat[...] = rng.standard_normal(p.flat.size)
    p.grams[...], p.root[...], p.threshold[...] = grams, [0, 1, 2, 3, 4, 5, 6, 6], 0.3
    p.detected[...] = [4, 5, 6, 7]
    return config, p


def plain_log_p(p, config, ids, log_p, likely):
    """log p of a sentence and the number of likely words that it says, word by word and n-gram by n-gram."""
    grams = {tuple(int(i) for i in row if i >= 0): f for f, row in enumerate(p.grams)}
    total, covered, left, before = 0.0, 0, set(np.flatnonzero(likely)), [START, START, START]
    for t, word in enumerate(ids):
        logits = p.b.astype(float)
        for w in range(V):
            of = [grams[k] for n in (1, 2, 3) if (k := (*before[-n:], w)) in grams]
            logits[w] += sum(p.theta[f] for f in of)
            if w in left:
                logits[w] += p.u[w] + p.s[0] * log_p[w] + sum(p.phi[f] for f in of)
            if not left:
                logits[w] += p.e[w]
        total += may_say(log_softmax(logits[None]), t)[0, word]
        said = {w for w in left if p.root[w] == p.root[word]}
        covered, left, before = covered + bool(said), left - said, [*before, word]
    return total, covered


@pytest.mark.parametrize("seed", range(4))
def test_the_search_finds_the_best_of_all_sentences(seed):
    rng = np.random.default_rng(seed)
    config, p = tiny(rng, beam=200, best=12, cover=2, longest=3)
    p_w = rng.uniform(0.05, 0.95, (2, 4)).astype(np.float32)
    log_p = fang.log_probabilities(p, p_w)
    likely = fang.likely_words(p, log_p)
    assert likely[:, 4:].tolist() == (p_w >= p.threshold).tolist() and not likely[:, :4].any()
    sayable = [w for w in range(V) if w not in (*NEVER, END)]
    for n, found in enumerate(fang.search(p, config, log_p)):
        every = [(*ids, END) for T in (1, 2, 3) for ids in product(sayable, repeat=T)]
        of = {ids: plain_log_p(p, config, ids, log_p[n], likely[n]) for ids in every}
        best = sorted(of, key=lambda ids: (-min(of[ids][1], 2), -of[ids][0]))[:12]
        assert [tuple(x.ids) for x in found] == best
        for x in found:
            assert x.log_prob == pytest.approx(of[tuple(x.ids)][0], abs=1e-4) and x.covered == of[tuple(x.ids)][1]


def test_the_loss_is_that_of_the_plain_computation(rng):
    config, p = tiny(rng, decay=0.0)
    log_p = fang.log_probabilities(p, rng.uniform(0.05, 0.95, (6, 4)).astype(np.float32))
    likely = fang.likely_words(p, log_p)
    batch = fang.batch_of(p, config, fang.orders(config, p.grams), CAPTIONS, log_p, likely)
    logits, *_ = fang._logits(p, batch.remaining, batch.log_p, batch.grams)
    found = log_softmax(logits)[np.arange(len(logits)), batch.targets]
    start = 0
    for n, ids in enumerate(CAPTIONS):
        T = len(ids) - 1
        history, left = [START, START, START], set(np.flatnonzero(likely[n]))
        grams = {tuple(int(i) for i in row if i >= 0): f for f, row in enumerate(p.grams)}
        for t, word in enumerate(ids[1:]):
            of = lambda w: [grams[k] for m in (1, 2, 3) if (k := (*history[-m:], w)) in grams]  # noqa: B023, E731
            plain = np.array([
                p.b[w] + p.theta[of(w)].sum() + (w in left) * (p.u[w] + p.s[0] * log_p[n, w] + p.phi[of(w)].sum())
                + (not left) * p.e[w] for w in range(V)
            ])  # fmt: skip
            assert found[start + t] == pytest.approx(log_softmax(plain[None])[0, word], abs=1e-4)
            left, history = left - {w for w in left if p.root[w] == p.root[word]}, [*history, word]
        start += T
    assert start == len(logits)


def test_n_grams_are_those_that_occur_twice():
    found = {tuple(int(i) for i in row if i >= 0) for row in fang.count(CAPTIONS)}
    assert {(1, 4), (4, 5), (1, 1, 4), (1, 4, 5), (4, 5, 6), (1, 1, 4, 5), (7, 2)} <= found
    assert not {(1, 6), (5, 2), (4, 5, 7)} & found  # once each


WORDS = ["<pad>", "<start>", "<end>", "<unk>", "a", "and", "dog", "cat", "ball", "tree"]


@pytest.fixture(scope="module")
def learned():
    """Photos with two of four things, each at one location; a caption names both, in the order of the vocabulary."""
    rng = np.random.default_rng(0)
    annotations, captions, places = 0.1 * rng.standard_normal((200, 4, 5)).astype(np.float32), [], []
    for a in annotations:
        things = np.sort(rng.choice(4, 2, replace=False))
        where = rng.choice(4, 2, replace=False)
        a[where, things] += 10
        captions.append(2 * [[START, 4, 6 + things[0], 5, 4, 6 + things[1], END]])
        places.append(dict(zip((things + 6).tolist(), where.tolist(), strict=True)))
    photos = Photos(annotations[:150], captions[:150], annotations[150:], captions[150:], WORDS)
    config = fang.Config(V=len(WORDS), D=5, likely=2.0, detecting=200, epochs=60, beam=8, best=8, longest=8)
    return *fang.fit(config, photos), annotations[150:], captions[150:], places[150:]


def test_a_photo_gets_a_sentence_with_its_words(learned):
    config, p, annotations, captions, _ = learned
    said = fang.describe(p, config, annotations)
    assert np.mean([x.ids == of[0][1:] for x, of in zip(said, captions, strict=True)]) >= 0.95
    assert all(x.log_prob < 0 for x in said)


def test_the_map_of_a_word_is_largest_where_its_object_is(learned):
    config, p, annotations, _, places = learned
    hits = []
    for said, of in zip(fang.describe(p, config, annotations), places, strict=True):
        assert said.alphas.shape == (len(said.ids), 4)
        np.testing.assert_allclose(said.alphas.sum(axis=1), 1, rtol=1e-5)
        assert (said.alphas[-1] == 0.25).all()  # <end> is nowhere
        hits += [said.alphas[said.ids.index(word)].argmax() == at for word, at in of.items() if word in said.ids]
    assert len(hits) >= 90 and np.mean(hits) >= 0.95


def test_a_word_that_is_far_from_every_location_is_everywhere_alike(rng):
    config, p = tiny(rng)
    p.b_d[...] = -300
    found = fang.places(p, config, rng.standard_normal((5, 3)).astype(np.float32), [4, 5, END])
    np.testing.assert_allclose(found, 0.2, rtol=1e-5)


def test_likely_words_are_said_and_counted_once(learned):
    config, p, annotations, *_ = learned
    log_p = fang.log_probabilities(p, words.detect_all(p, words.detectors(config), annotations[:5]))
    likely = fang.likely_words(p, log_p)
    assert likely.sum(axis=1).mean() == pytest.approx(2, abs=0.5)
    for n, of in enumerate(fang.search(p, config, log_p)):
        for said in of:
            assert said.covered == len({p.root[i] for i in said.ids if likely[n, i]})
        best = of[0]
        assert best.covered == likely[n].sum()


def test_captions_without_anything_to_learn_are_refused(rng):
    annotations = rng.standard_normal((2, 2, 5)).astype(np.float32)
    one, two = [[[1, 4, 2]]] * 2, [[[1, 4, 2]], [[1, 6, 2]]]
    for captions, why in ((two, "no two of the 2 captions"), (one, "of 6 words has none")):
        photos = Photos(annotations, captions, annotations, captions, WORDS if "two" in why else WORDS[:6])
        with pytest.raises(InputError, match=why):
            fang.fit(fang.Config(V=len(photos.words), D=5, detecting=1), photos)


def test_training_photos_are_described_by_detectors_that_did_not_see_them(rng, monkeypatch):
    seen, train = [], words.train

    def spy(config, annotations, y, val_annotations, val_y, seed=0, photos=None):
        seen.append(photos)
        return train(config, annotations, y, val_annotations, val_y, seed, photos)

    monkeypatch.setattr(words, "train", spy)
    annotations = rng.standard_normal((9, 2, 5)).astype(np.float32)
    photos = Photos(annotations, 9 * [[[1, 4, 6, 2]]], annotations[:2], 2 * [[[1, 4, 6, 2]]], WORDS)
    config = fang.Config(V=len(WORDS), D=5, K=4, F=1, detecting=1)
    p = Parameters(fang.shapes(config))
    p.detected[...] = range(6, 10)
    p_w, val_p_w = fang.detect_unseen(p, config, photos)
    assert p_w.shape == (9, 4) and val_p_w.shape == (2, 4)
    assert sorted(np.concatenate(seen[:2]).tolist()) == list(range(9)) and seen[2] is None
