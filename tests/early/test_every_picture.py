"""Triples of sentences, and the sentence whose triple fits a photo best."""

import numpy as np
import pytest

from satnp.early import every_picture
from satnp.early.factors import exact
from satnp.early.photos import Photos
from satnp.early.triples import triple_of


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("a black dog is running through the wet grass", ("dog", "run", "gras")),
        ("two dogs run in the grass", ("dog", "run", "gras")),
        ("a man with a red hat is sitting on a wooden bench", ("man", "sit", "bench")),
        ("the boy laying face down on a skateboard is being pushed along the ground by another boy",
         ("boy", "lay", "ground")),
        ("a child at the beach", ("child", None, "beach")),
        ("brown dog", ("dog", None, None)),
        ("a small green circle is above a cyan square", ("circl", None, "squar")),
        ("", (None, None, None)),
    ],
)  # fmt: skip
def test_triples_by_rule(sentence, wanted):
    assert triple_of(sentence.split()) == wanted


WORDS = ["<pad>", "<start>", "<end>", "<unk>", "a", "dog", "cat", "runs", "sits", "in", "grass", "snow"]
SENTENCES = ["a dog runs in grass", "a dog sits in snow", "a cat sits in grass", "a cat runs in snow"]


@pytest.fixture
def learned(rng):
    """Photos of four kinds whose features say object, action and scene, each with one sentence."""
    kinds = np.arange(40) % 4
    annotations = 0.3 * rng.standard_normal((40, 2, 6))
    for n, kind in enumerate(kinds):
        for word in SENTENCES[kind].split():
            if word in WORDS[5:9] + WORDS[10:]:
                annotations[n, :, [5, 6, 7, 8, 10, 11].index(WORDS.index(word))] += 2
    captions = [[[1, *(WORDS.index(word) for word in SENTENCES[kind].split()), 2]] for kind in kinds]
    photos = Photos(annotations, captions, annotations, captions, WORDS)
    config, p = every_picture.fit(every_picture.Config(V=len(WORDS), D=6, k=8, epochs=60, rate=0.01), photos)
    return annotations, kinds, config, p


def test_a_photo_gets_the_sentence_with_its_meaning(learned):
    annotations, kinds, config, p = learned
    said = [" ".join(WORDS[i] for i in found.ids[:-1]) for found in every_picture.describe(p, config, annotations)]
    assert np.mean([words == SENTENCES[kind] for words, kind in zip(said, kinds, strict=True)]) >= 0.9


def test_the_sentence_has_the_largest_score_of_all_and_the_exact_meaning_no_smaller_one(learned):
    annotations, _, config, p = learned
    triples = p.triples.astype(int)
    for (_, graph), values in zip(
        every_picture._graphs(p, config, annotations), every_picture.meaning(p, config, annotations), strict=True
    ):
        best = max(graph.score(triple) for triple in triples)
        assert graph.score(values) == pytest.approx(exact(graph)[1]) and graph.score(values) >= best - 1e-9


def test_edges_are_zero_for_independent_words_and_positive_for_words_that_go_together():
    """dog-grass, dog-snow, cat-grass and cat-snow are equally frequent; one action goes with one object each."""
    sentences = ["a dog runs in grass", "a dog runs in snow", "a cat sits in grass", "a cat sits in snow"]
    captions = [[[1, *(WORDS.index(word) for word in s.split()), 2]] for s in 50 * sentences]
    annotations = np.ones((200, 1, 2), np.float32)
    photos = Photos(annotations, captions, annotations, captions, WORDS)
    config, p = every_picture.fit(every_picture.Config(V=len(WORDS), D=2, epochs=1), photos)
    np.testing.assert_allclose(p.objects_scenes[1:, 1:], 0, atol=0.02)
    dog, cat = 1, 2  # equally frequent, in order of their first sentence
    assert p.objects_actions[dog, 1] > 0.5 > -1 > p.objects_actions[dog, 2] and p.objects_actions[cat, 2] > 0.5
