"""How visual words are: 1 - beta of a captioner with a sentinel, word by word and as a table over captions."""

import numpy as np
import pytest

from satnp.model import Caption
from satnp.scores.visual import visual, visual_words


def caption(sentence, *sums):
    """The Caption of words whose alpha (3 x 4 locations) have these sums, unevenly spread."""
    share = np.arange(12).reshape(3, 4) / 66
    return Caption(sentence.split(), -1.0, np.array(sums)[:, None, None] * share)


def test_each_word_has_the_sum_of_its_own_map():
    np.testing.assert_allclose(visual(caption("a dog", 0.25, 0.75)), [0.25, 0.75])
    np.testing.assert_allclose(visual(caption("a dog", 0.25, 0.75, 0.5)), [0.25, 0.75])  # the third map is that of <end>
    assert visual(caption("", 0.5)).shape == (0,)


def test_the_table_has_means_over_all_occurrences_most_visual_first():
    captions = [
        caption("a dog of a dog", 0.2, 0.9, 0.0, 0.4, 0.7, 0.5),
        caption("a cat", 0.6, 1.0),
        caption("dog of", 0.8, 0.2),
    ]
    table = visual_words(captions, least=2)
    assert [(word, count) for word, _, count in table] == [("dog", 3), ("a", 3), ("of", 2)]
    assert [value for _, value, _ in table] == pytest.approx([0.8, 0.4, 0.1])
    assert [word for word, _, _ in visual_words(captions, least=1)] == ["cat", "dog", "a", "of"]
    assert [word for word, _, _ in visual_words(captions, least=3)] == ["dog", "a"]
    assert visual_words(captions) == [] == visual_words([])
