"""Ranking models: what gradient checks cannot see, and the command that scores them."""

import json

import numpy as np
import pytest

from satnp.cli import main
from satnp.early import ranking
from satnp.early.photos import Photos
from satnp.scores.precision import average_precision, mean_average_precision
from satnp.scores.ranking import ranks, recalls
from tests.small_world import write_flickr8k

SENTENCES = "lstm", "words"


def test_ranks_are_those_of_a_sorted_list(rng):
    S, of = rng.standard_normal((6, 15)), np.sort(rng.integers(0, 6, 15))
    of[:6] = np.arange(6)
    of.sort()
    found = ranks(S, of)
    for n in range(6):
        order = np.argsort(-S[n])
        others = [r for r in order if of[r] != n or r == next(r for r in order if of[r] == n)]
        assert found["photo to sentence"][n] == 1 + others.index(next(r for r in order if of[r] == n))
    for r in range(15):
        assert found["sentence to photo"][r] == 1 + list(np.argsort(-S[:, r])).index(of[r])


def test_equal_similarities_give_the_worst_ranks():
    of = np.repeat(np.arange(4), 2)
    found = ranks(np.zeros((4, 8)), of)
    assert found["photo to sentence"].tolist() == [7] * 4 and found["sentence to photo"].tolist() == [4] * 8
    assert recalls(found)["photo to sentence"] == {"R@1": 0.0, "R@5": 0.0, "R@10": 1.0, "median": 7.0}


def test_average_precision_by_hand_with_ties_and_without_a_true_photo():
    truth = np.array([True, False, True, False])
    assert average_precision(np.array([4.0, 3.0, 2.0, 1.0]), truth) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.zeros(4), truth) == pytest.approx((1 / 3 + 2 / 4) / 2)  # true ones last
    scores = np.array([[4.0, 1.0], [3.0, 1.0], [2.0, 1.0], [1.0, 1.0]])
    mean, each = mean_average_precision(scores, np.stack([truth, 0 * truth], axis=1).astype(bool))
    assert mean == each[0] and np.isnan(each[1])


def world(rng):
    """Four kinds of photos, each with a location that has a feature of its own, and sentences with a word of their own."""
    kinds, L, D = np.arange(24) % 4, 3, 6
    annotations = 0.1 * rng.standard_normal((24, L, D))
    annotations[np.arange(24), rng.integers(0, L, 24), kinds] += 3
    captions = [[[1, *rng.integers(9, 12, rng.integers(1, 4)), 4 + kind, 2] for _ in range(2)] for kind in kinds]
    return annotations, Photos(annotations, captions, annotations, captions, [])


def tiny(sentences):
    return ranking.Config(
        V=12, D=6, M=8, K=16, sentences=sentences, negatives="all", dropout=0.0, photo_dropout=0.0, epochs=40, again=1,
        batch=8, rate=0.01, k=24,
    )


@pytest.mark.parametrize("sentences", SENTENCES)
def test_it_learns_which_word_belongs_to_which_photo_and_where_it_is(sentences, rng, capsys):
    annotations, photos = world(rng)
    config, p = ranking.fit(tiny(sentences), photos)
    for n, said in enumerate(ranking.describe(p, config, annotations)):
        assert said.ids[-2] == 4 + n % 4
    if sentences == "words":
        found = [ranking.alignment(p, config, annotations[n : n + 1], [4 + n % 4])[0] for n in range(24)]
        np.testing.assert_allclose(np.sum(found, axis=1), 1)
        right = [share.argmax() == annotations[n, :, n % 4].argmax() for n, share in enumerate(found)]
        assert sum(right) >= 16  # a third of 24 by chance


@pytest.mark.parametrize("sentences", SENTENCES)
def test_neither_padding_nor_other_sentences_change_a_similarity(sentences, rng):
    config = tiny(sentences)
    p = ranking.init(config, rng)
    seen = rng.standard_normal((3, 1 if sentences == "lstm" else 4, 6)).astype(np.float32)
    said = [[4, 5, 6], [7], [8, 9, 10, 11, 4]]
    together = ranking.similarities(p, config, seen, said)
    alone = np.concatenate([ranking.similarities(p, config, seen, [ids]) for ids in said], axis=1)
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert np.abs(together - ranking.similarities(p, config, seen, [ids[::-1] for ids in said])).max() > 1e-3


@pytest.fixture
def folder(encoders, tmp_path):
    write_flickr8k(tmp_path / "data")
    for name, text in (
        ("first", 'encoder = "small"\n[config]\nM = 8\nH = 12\n[recipe]\nepochs = 1\nbatch_size = 8\nmirror = false\n'),
        ("lstm", "[config]\nM = 8\nK = 12\nbatch = 8\nepochs = 2\n[recipe]\n"),
        ("words", '[config]\nsentences = "words"\nM = 8\nK = 12\nbatch = 8\nepochs = 2\n[recipe]\n'),
    ):
        (tmp_path / f"{name}.toml").write_text(f"{text}min_count = 1\n")
    line = f"train --data flickr8k --root {tmp_path / 'data'} --config {tmp_path / 'first.toml'} --out {tmp_path / 'run'}"
    assert main(line.split()) == 0
    return tmp_path


def test_the_command_prints_recalls_and_draws_where_the_words_are(folder, capsys):
    data = f"--data flickr8k --root {folder / 'data'}"
    for sentences in SENTENCES:
        start = f"--init {folder / 'run/best.npz'} --config {folder / sentences}.toml --captioner ranking"
        assert main(f"train {data} {start} --out {folder / sentences}".split()) == 0
    capsys.readouterr()
    line = f"rank {folder}/words/best.npz {data} --split test --json {folder}/r.json --figures {folder}/f"
    assert main(line.split()) == 0
    out, found = capsys.readouterr().out.splitlines(), json.loads((folder / "r.json").read_text())
    assert out[0] == f"{found['photos']} photos and {found['sentences']} sentences of flickr8k test"
    assert out[1].startswith("  photo to sentence   R@1 ") and out[2].startswith("  sentence to photo   R@1 ")
    assert found["photo to sentence"].keys() == {"R@1", "R@5", "R@10", "median"}
    assert len(list((folder / "f").glob("*.png"))) == min(5, found["photos"])
    assert main(f"rank {folder}/lstm/best.npz {data} --split test --figures {folder}/g".split()) == 2
    assert 'sentences = "lstm"' in capsys.readouterr().err and not (folder / "g").exists()
    assert main(f"rank {folder}/run/best.npz {data} --split test".split()) == 2
    assert "which does not rank; give one that satnp train --captioner ranking wrote" in capsys.readouterr().err
