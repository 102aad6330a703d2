"""Minimum error rate training: its line search held against a grid of values."""

import numpy as np
import pytest

from satnp.early.mert import bleu4, chosen, envelope, line_search, mert
from satnp.scores.metrics import bleu, bleu_counts

WORDS = "a dog cat runs sits on in the grass snow".split()


def lists_of(rng, N=12, M=9, J=3):
    """N photos with M random captions of J features, and the captions and references."""
    def sentence():
        return " ".join(rng.choice(WORDS, rng.integers(4, 8)))

    lists, counts, said, references = [], [], [], []
    for _ in range(N):
        true = sentence().split()
        captions = []
        for _ in range(M):
            words = list(true)
            for t in rng.choice(len(words), rng.integers(0, 4), replace=False):
                words[t] = rng.choice(WORDS)
            captions.append(" ".join(words))
        references.append([" ".join(true), sentence()])
        said.append(captions)
        lists.append(rng.standard_normal((M, J)))
        counts.append(np.column_stack(bleu_counts(captions, M * [references[-1]])))
    return lists, counts, said, references


def test_the_envelope_is_the_largest_line_everywhere(rng):
    for _ in range(50):
        slopes, offsets = rng.integers(-3, 4, 12).astype(float), rng.integers(-5, 6, 12).astype(float)
        changes, lines = envelope(slopes, offsets)
        assert len(lines) == len(changes) + 1 and (np.diff(changes) > 0).all()
        for gamma in np.linspace(-12, 12, 401):
            best = (offsets + gamma * slopes).max()
            k = lines[np.searchsorted(changes, gamma)]
            assert offsets[k] + gamma * slopes[k] == pytest.approx(best, abs=1e-9)


def test_bleu_of_a_choice_is_that_of_its_captions(rng):
    lists, counts, said, references = lists_of(rng)
    rows = chosen(np.ones(3), lists)
    assert bleu4(rows, counts) == pytest.approx(bleu([s[m] for s, m in zip(said, rows, strict=True)], references)[0][3])


@pytest.mark.parametrize("seed", range(5))
def test_no_point_of_a_grid_is_better_than_the_line_search(seed):
    rng = np.random.default_rng(seed)
    lists, counts, *_ = lists_of(rng)
    w, d = rng.standard_normal((2, 3))
    gamma, best = line_search(w, d, lists, counts)
    grid = [bleu4(chosen(w + x * d, lists), counts) for x in np.linspace(-20, 20, 4001)]
    assert best == pytest.approx(bleu4(chosen(w + gamma * d, lists), counts), abs=1e-12)
    assert best >= max(grid) - 1e-12 and max(grid) > min(grid) + 0.01


def test_training_never_lowers_bleu_and_often_raises_it(rng):
    gained = 0
    for _ in range(5):
        lists, counts, *_ = lists_of(rng)
        w = rng.standard_normal(3)
        before = bleu4(chosen(w, lists), counts)
        found, after = mert(w, lists, counts, rng, starts=1)
        assert after >= before and after == bleu4(chosen(found, lists), counts)
        gained += after > before + 0.01
    assert gained >= 4


def test_captions_that_differ_in_nothing_give_gamma_0():
    counts = [np.array([[2, 1, 0, 0, 2, 1, 0, 0, 2, 2.0]])] * 3
    gamma, score = line_search(np.ones(2), np.ones(2), [np.ones((1, 2))] * 3, counts)
    assert gamma == 0 and score == bleu4([0, 0, 0], counts)
