"""Retrieve and trim: phrases by rule, the best cut, and that a cut adds nothing."""

from itertools import combinations

import numpy as np
import pytest

from satnp.data.captions import END, START
from satnp.early import retrieval, trim
from satnp.early.photos import Photos


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("a black dog is running through the wet grass", ["black", "through the wet grass", "wet"]),
        ("a man in a red hat on a bench", ["in a red hat", "red", "on a bench"]),
        ("a black and white dog jumps over a fence", ["black and white", "over a fence"]),
        ("a boy with a ball and a girl play", []),  # what "and" joins to the phrase would be left behind
        ("in the park a dog runs", []),
        ("a group of people sits in front of a house", ["in front of a house"]),
        ("the sky is blue", []),  # no noun behind it
        ("a dog looks up", []),
        ("", []),
    ],
)
def test_phrases_by_rule(sentence, wanted):
    words = sentence.split()
    assert [" ".join(words[start:stop]) for start, stop in trim.phrases(words)] == wanted


def test_cuts_are_all_sentences_that_a_set_of_phrases_leaves():
    found = trim.cuts(6, [(1, 2), (3, 6), (4, 5)])
    every = set()
    for n in range(4):
        for spans in combinations([{1}, {3, 4, 5}, {4}], n):
            every.add(tuple(sorted(set(range(6)).difference(*spans))))
    assert set(found) == every and len(found) == len(every) and found[0] == (0, 1, 2, 3, 4, 5)
    assert trim.cuts(1, [(0, 1)]) == [(0,)]


WORDS = "<pad> <start> <end> <unk> a dog cat runs in on the grass snow black white".split()


@pytest.fixture(scope="module")
def learned():
    """Photos whose features say which words are true; half of the captions have a phrase that is not."""
    rng = np.random.default_rng(0)
    index, annotations, captions, true = WORDS.index, [], [], []
    for n in range(240):
        animal, colour, place = rng.choice(["dog", "cat"]), rng.choice(["black", "white"]), rng.choice(["grass", "snow"])
        bare = n % 2 == 0
        a = 0.1 * rng.standard_normal((2, 6))
        for word, on in ((animal, True), (colour, not bare), (place, not bare)):
            a[rng.integers(2), ["dog", "cat", "black", "white", "grass", "snow"].index(word)] += 10 * on
        said = f"a {animal} runs" if bare else f"a {colour} {animal} runs in the {place}"
        annotations.append(a)
        captions.append([[START, *map(index, said.split()), END]])
        true.append(said)
    annotations = np.array(annotations, np.float32)
    photos = Photos(annotations[:200], captions[:200], annotations[200:], captions[200:], WORDS)
    config, p = trim.fit(trim.Config(V=len(WORDS), D=6, k=1, detecting=200), photos)
    return config, p, annotations[200:], captions[200:]


def test_a_cut_adds_no_word_and_keeps_the_order(learned):
    config, p, annotations, _ = learned
    rows = retrieval.retrieve(p, config, annotations)
    for row, said in zip(rows, trim.describe(p, config, annotations), strict=True):
        whole = iter(p.sentences[row])
        assert all(i in whole for i in said.ids[:-1]) and said.ids[-1] == END and len(said.ids) > 1


def test_the_choice_is_the_best_of_all_cuts_computed_plainly(learned):
    """On sentences of other photos, so that there is something to cut; the score is computed here with dictionaries."""
    config, p, annotations, _ = learned
    p_w = np.clip(trim.words.detect_all(p, trim.words.detectors(config), annotations), 1e-6, 1 - 1e-6).astype(float)
    detected = p.detected.astype(int).tolist()
    pairs = {(int(a), int(b)): float(x) for a, b, x in p.pairs}
    for n, options in enumerate(trim.options_of(p, config, annotations)):
        for option in options:
            content = [i for i in option.ids if i in detected]
            assert option.number == len(content)
            wanted = sum(np.log(p_w[n, k] / (1 - p_w[n, k])) for k in map(detected.index, content))
            assert option.seen == pytest.approx(wanted, rel=1e-3)
        assert options[0].joined == 0 and trim.best(options, 1e-6, 0) == options[0].ids
        shortest = min(options, key=lambda x: len(x.ids))
        assert trim.best(options, 1 - 1e-6, 0) == shortest.ids
        for option in options[1:]:
            whole = pairwise_of(options[0].ids)
            new = [pair for pair in pairwise_of(option.ids) if pair not in whole]
            wanted = sum(np.log(0.9 * pairs.get(pair, 0) / p.frequency[pair[1]] + 0.1) for pair in new)
            assert option.joined == pytest.approx(wanted, rel=1e-4)


def pairwise_of(ids):
    ids = [START, *ids, END]
    return list(zip(ids[:-1], ids[1:], strict=True))


def test_phrases_that_the_detectors_do_not_see_are_cut(learned):
    config, p, annotations, captions = learned
    bare = [n for n, said in enumerate(captions) if len(said[0]) == 5]
    full = {"a black dog runs in the grass": "a dog runs", "a white cat runs in the snow": "a cat runs"}
    sentences = {" ".join(WORDS[int(i)] for i in row if i >= 0): r for r, row in enumerate(p.sentences)}
    for n in bare[:6]:
        animal = WORDS[captions[n][0][2]]
        row = sentences[next(said for said in full if animal in said)]
        p_other = p.on(p.flat.copy())
        p_other.v[...] = 0
        p_other.v[int(p.photo_of[row])] = retrieval.directions(p, retrieval.means(annotations[n : n + 1]))[0]
        (options,) = trim.options_of(p_other, config, annotations[n : n + 1])
        said = " ".join(WORDS[i] for i in trim.best(options, 0.1, 1.0))
        assert said == f"a {animal} runs"
