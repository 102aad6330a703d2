"""The scores against coco-caption's own numbers, and against small cases worked out by hand."""

import json
import math
import os
import shutil

import numpy as np
import pytest

from satnp.errors import InputError
from satnp.scores import metrics
from satnp.scores.metrics import bleu, cider_d, document_frequency, matched, meteor, rouge_l, score

KEYS = ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"]


def test_gold_scores_of_the_official_programs(shared_data):
    gold = json.loads((shared_data / "metrics" / "gold_flickr8k_val_human0_vs_4.json").read_text(encoding="utf-8"))
    scores = score(gold["candidates"], gold["references"])
    assert list(scores.corpus) == KEYS and list(scores.per_photo) == list(gold["candidates"])
    assert scores.corpus == pytest.approx({k: gold["corpus"][k] for k in KEYS}, rel=0, abs=1e-9)
    for name, photo in scores.per_photo.items():
        assert photo == pytest.approx({k: gold["per_image"][name][k] for k in KEYS}, rel=0, abs=1e-9)


def test_the_order_of_the_photos_does_not_matter():
    candidates = {"a": "a dog runs", "b": "two men sit"}
    references = {"b": ["two men", "men sit down"], "a": ["a dog", "the dog runs fast"]}
    assert score(candidates, references).per_photo["b"] == pytest.approx(
        score(dict(reversed(candidates.items())), references).per_photo["b"]
    )


def test_scores_are_plain_numbers_that_json_can_write():
    scores = score({"a": "a dog"}, {"a": ["a dog runs"]})
    assert json.loads(json.dumps(scores.corpus)) == scores.corpus
    assert json.loads(json.dumps(scores.per_photo)) == scores.per_photo


def test_bleu_clips_each_ngram_by_the_reference_that_has_most_of_it():
    corpus, photos = bleu(["the the the cat"], [["the cat sat on", "the the dog ran"]])
    # words: "the" counts 2 of 3, "cat" 1; pairs: "the the" 1 of 2, "the cat" 1
    np.testing.assert_allclose(corpus[:2], [3 / 4, math.sqrt(3 / 4 * 2 / 3)], atol=1e-8)
    assert corpus[2] < 1e-4
    np.testing.assert_allclose(photos, [corpus])


def test_bleu_of_a_caption_shorter_than_its_closest_reference():
    corpus, _ = bleu(["a dog"], [["a dog runs", "a dog runs on the grass"]])
    np.testing.assert_allclose(corpus[:2], math.exp(1 - 3 / 2), atol=1e-8)


def test_bleu_takes_the_shorter_of_two_equally_close_references():
    for references in (["a b c", "a b c d e"], ["a b c d e", "a b c"]):
        corpus, _ = bleu(["a b c d"], [references])
        assert corpus[0] == pytest.approx(1, abs=1e-8)  # 3, not 5, which would cost exp(1 - 5/4)


def test_where_no_n_gram_matched_bleu_is_not_0_but_the_count_is():
    said, people = ["a b c x", "y"], [["a b c d", "b c x"], ["z"]]
    np.testing.assert_array_equal(matched(said, people), [4, 3, 2, 0])
    assert 0 < bleu(said, people)[0][3] < 1e-3
    np.testing.assert_array_equal(matched(["a a b c d"], [["a b c d"]]), [4, 3, 2, 1])  # clipped


def test_bleu_of_a_corpus_adds_counts_and_lengths_before_it_divides():
    corpus, photos = bleu(["a", "b c x"], [["a a a"], ["b c d"]])
    assert corpus[0] == pytest.approx(3 / 4 * math.exp(1 - 6 / 4), abs=1e-8)
    np.testing.assert_allclose(photos[:, 0], [math.exp(1 - 3), 2 / 3], atol=1e-8)


def test_rouge_takes_the_best_precision_and_the_best_recall_from_different_references():
    # with "a b c d e f": P = 3/4, R = 3/6; with "a": P = 1/4, R = 1
    mean, photos = rouge_l(["a c x f"], [["a b c d e f", "a"]])
    p, r = 3 / 4, 1
    assert mean == photos[0] == pytest.approx((1 + 1.44) * p * r / (r + 1.44 * p), abs=1e-15)


def test_rouge_is_zero_without_a_common_word_and_needs_the_same_order():
    assert rouge_l(["a b"], [["c d"]])[0] == 0
    assert rouge_l(["a b"], [["b a"]])[0] == pytest.approx(1 / 2)


def test_cider_worked_out_by_hand():
    candidates, references = ["a dog", "a cat"], [["a dog runs"], ["a cat"]]
    # "a" occurs with both photos and weighs nothing, every other n-gram weighs log 2.
    # photo 1: n = 1: c = dog, r = dog, runs: 1/√2; n = 2: c = "a dog", r = "a dog", "dog runs": 1/√2; times exp(-1/72)
    # photo 2: n = 1 and n = 2 are 1; no caption has more than two words, so n = 3 and n = 4 are 0
    mean, photos = cider_d(candidates, references)
    np.testing.assert_allclose(photos, [10 * math.sqrt(2) / 4 * math.exp(-1 / 72), 10 * 2 / 4], rtol=1e-14)
    assert mean == pytest.approx(photos.mean())


def test_cider_clips_a_repeated_word_but_not_its_norm():
    frequency = document_frequency([["dog"], ["cat"]])
    _, photos = cider_d(["dog dog"], [["dog"]], frequency)
    assert photos[0] == pytest.approx(10 / 4 * (1 / 2) * math.exp(-1 / 72))


def test_cider_of_a_single_photo_is_zero_unless_frequencies_come_from_elsewhere():
    assert cider_d(["a dog runs on grass"], [["a dog runs on grass"]])[0] == 0
    frequency = document_frequency([["a dog", "a dog"], ["a cat"], ["the sea"]])
    assert frequency.photos == 3 and frequency.counts[("a",)] == 2 and frequency.counts[("a", "dog")] == 1
    assert cider_d(["a dog runs on grass"], [["a dog runs on grass"]], frequency)[0] == pytest.approx(10)


def test_empty_captions():
    scores = score({"a": "", "b": "a dog runs on grass"}, {"a": ["a dog"], "b": ["a dog runs on grass"]})
    assert all(value < 1e-9 for value in scores.per_photo["a"].values())
    assert all(np.isfinite(list(scores.corpus.values())))
    assert rouge_l([""], [["", "a dog"]])[0] == pytest.approx(1)  # as coco-caption: one empty word found again


@pytest.mark.parametrize(
    ("candidates", "references", "words"),
    [
        ({"a": "x"}, {"b": ["x"]}, "2 photos .* 'a'"),
        ({}, {}, "0 captions"),
        ({"a": "x"}, {"a": []}, "at least one tokenised sentence"),
        ({"a": "x"}, {"a": "x y"}, "at least one tokenised sentence"),
        ({"a": ["x"]}, {"a": ["x"]}, "join its words"),
    ],
)
def test_bad_input_is_named(candidates, references, words):
    with pytest.raises(InputError, match=words):
        score(candidates, references)


@pytest.mark.slow
def test_gold_meteor_of_the_official_program(shared_data):
    pytest.importorskip("pycocoevalcap", reason='METEOR wants pip install -e ".[meteor]"')
    if not shutil.which("java"):
        pytest.skip("METEOR wants Java")
    gold = json.loads((shared_data / "metrics" / "gold_flickr8k_val_human0_vs_4.json").read_text(encoding="utf-8"))
    candidates, references = list(gold["candidates"].values()), [gold["references"][name] for name in gold["candidates"]]
    corpus, photos = meteor(candidates, references)
    assert corpus == gold["corpus"]["METEOR"]
    assert photos.tolist() == [gold["per_image"][name]["METEOR"] for name in gold["candidates"]]


JAVA = """#!/bin/sh
echo $$ > "{folder}/pid"
echo "$@" > "{folder}/arguments"
{does}
"""
ANSWERS = """while read -r line; do
    echo "$line" >> "{folder}/asked"
    case "$line" in EVAL*) echo 0.25; echo 0.5; echo 0.375;; *) echo "3 2 1";; esac
done"""


@pytest.fixture
def java(tmp_path, monkeypatch):
    """Put a program `java` that does what it is told first in the path, and a jar beside it: -> the function that tells."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "pycocoevalcap/meteor").mkdir(parents=True)
    (tmp_path / "pycocoevalcap/__init__.py").touch()
    (tmp_path / "pycocoevalcap/meteor/meteor-1.5.jar").touch()

    def tell(does):
        (tmp_path / "java").write_text(JAVA.format(folder=tmp_path, does=does.format(folder=tmp_path)))
        (tmp_path / "java").chmod(0o755)
        return tmp_path

    return tell


def gone(folder):
    """Has the child ended, and been waited for?"""
    try:
        os.kill(int((folder / "pid").read_text()), 0)
    except ProcessLookupError:
        return True
    return False


TWO = ["a dog runs", "two ||| men"], [["a dog", "the dog runs"], ["men sit"]]


def test_meteor_asks_the_program_in_its_own_words(java):
    folder = java(ANSWERS)
    corpus, photos = meteor(*TWO)
    assert (corpus, photos.tolist()) == (0.375, [0.25, 0.5]) and gone(folder)
    assert (folder / "asked").read_text().splitlines() == [
        "SCORE ||| a dog ||| the dog runs ||| a dog runs", "SCORE ||| men sit ||| two  men", "EVAL ||| 3 2 1 ||| 3 2 1"
    ]  # fmt: skip
    assert (folder / "arguments").read_text().endswith("meteor/meteor-1.5.jar - - -stdio -l en -norm\n")


@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("echo first >&2; echo no heap >&2; exit 1", "failed and printed 'no heap'; run it by hand: .*java -Xmx2G"),
        ("read -r line; echo 1 2", "failed and printed 'nothing'"),
        ("while read -r line; do echo many words; done", "failed and printed 'nothing'"),
    ],
)
def test_a_program_that_fails_is_named_and_not_left_behind(java, does, words):
    folder = java(does)
    with pytest.raises(InputError, match=words):
        meteor(*TWO)
    assert gone(folder)


def test_an_interrupted_program_is_not_left_behind(java, monkeypatch):
    folder = java("echo ready; sleep 60")

    def interrupted(program, *arguments):
        program.stdout.readline()
        raise KeyboardInterrupt

    monkeypatch.setattr(metrics, "_ask_meteor", interrupted)
    with pytest.raises(KeyboardInterrupt):
        meteor(*TWO)
    assert gone(folder)


@pytest.mark.parametrize("missing", ["java", "pycocoevalcap/meteor/meteor-1.5.jar"])
def test_meteor_is_named_as_missing_where_a_part_of_it_is(java, monkeypatch, missing):
    folder = java(ANSWERS)
    (folder / missing).unlink()
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(InputError, match=r"^METEOR needs `pip install -e \"\.\[meteor\]\"` and Java$"):
        meteor(*TWO)
