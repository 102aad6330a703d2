"""Neural Baby Talk: the words of classes, the pointer, and a training on regions from the command line."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from satnp import load
from satnp.captioners.neural_baby_talk import Config, captioner, visual_words
from satnp.captioners.recurrent import Noise
from satnp.checkpoint import save
from satnp.cli import main
from satnp.data import datasets
from satnp.data.by_name import read_regions
from satnp.data.scenes import SHAPES, make_scenes, write_scene
from satnp.errors import InputError
from satnp.training.presets import PRESETS, new_model
from tests.captioners.test_recurrent import N, T, world

CONFIG = captioner.CHECKS[""]
WORDS = "<pad> <start> <end> <unk> a dog dogs men man puppies run runs buses cat hotdog puppy".split()


@pytest.mark.parametrize(("classes", "wanted"), [
    (("dog",), [["dog dogs"]]),
    (("dog, puppy", "cat"), [["dog dogs", "puppy puppies"], ["cat -"]]),
    (("Man", "bus"), [["man men"], ["- buses"]]),  # irregular; only the plural is in the vocabulary
    (("fire hydrant", "sheep"), [[], []]),
    (("cat", "dog, cat"), [["cat -"], ["dog dogs"]]),  # a word of two classes belongs to the first
])  # fmt: skip
def test_the_words_of_a_class_are_its_forms_in_the_vocabulary(classes, wanted):
    found = visual_words(classes, WORDS)
    said = [[" ".join("-" if y < 0 else WORDS[y] for y in pair) for pair in pairs] for pairs in found]
    assert said == wanted


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"classes": ("dog",)}, "regions with 6 features have 3 classes; give 1 to 5"),
    ({"classes": (), "words": ()}, "regions with 6 features have 0 classes; give 1 to 5"),
    ({"D": 3}, "regions with 3 features have 3 classes; give 1 to 2"),
    ({"words": (((4, 4),), ((5, -1),), ())}, r"have the words \[4, 4, 5\]; give different ids, from 4 to 11"),
    ({"words": (((3, -1),), (), ())}, r"have the words \[3\]; give different ids"),
    ({"words": (((12, -1),), (), ())}, "have the words"),
    ({"regions": False}, "regions is False, but this captioner always reads regions"),
])  # fmt: skip
def test_a_config_refuses_words_that_make_no_sense(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(CONFIG, **changes)


def test_a_config_is_the_same_after_json():
    assert Config(**json.loads(json.dumps(asdict(CONFIG)))) == CONFIG


def test_the_pointer_shares_one_softmax_with_the_sentinel_and_leaves_absent_regions_out():
    params, batch, noise = world(captioner, CONFIG)
    _, cache = captioner.forward(params, CONFIG, batch, noise)
    absent = ~batch.annotations.any(axis=2)
    assert not cache.alphas[:, absent].any() and (cache.alphas[:, ~absent] > 0).all()
    v = np.maximum(batch.annotations @ params.W_a + params.b_a, 0)
    for step, alpha in zip(cache.steps, cache.alphas, strict=True):  # by hand, from h2_t and s_t
        keys = np.concatenate([v @ params.W_v, (step.s @ params.W_t)[:, None]], axis=1)
        weights = np.exp(np.tanh(keys + (step.h2 @ params.W_q)[:, None]) @ params.u)
        weights[:, :-1][absent] = 0
        np.testing.assert_allclose(alpha, (weights / weights.sum(axis=1, keepdims=True))[:, :-1], rtol=1e-11)
    told = captioner.diagnostics(cache.told)
    assert told["beta"] == pytest.approx((batch.mask.T * (1 - cache.alphas.sum(axis=2))).sum() / batch.mask.sum())


def test_a_visual_word_is_the_sum_over_the_regions_of_the_equations():
    params, batch, _ = world(captioner, CONFIG)
    (dog, dogs), (puppy, _) = CONFIG.words[0]
    captions, batch.annotations[:, 0, -3:] = np.full((N, T + 1), dog), (0.8, 0.1, 0.1)  # a dog is in each photo
    _, cache = captioner.forward(params, CONFIG, batch._replace(captions=captions), Noise())
    log_p = cache.vocabulary.log_p.reshape(T, N)
    v, P = np.maximum(batch.annotations @ params.W_a + params.b_a, 0), batch.annotations[:, :, -3:]
    for t, step in enumerate(cache.steps):
        x = np.maximum(v @ params.F_v + params.b_f + (step.h2 @ params.F_h)[:, None], 0)
        fine, plural = x @ params.W_g + params.b_g, x @ params.W_n + params.b_n
        scores = {dog: fine[..., 0], dogs: fine[..., 0] + plural[..., 0], puppy: fine[..., 1]}
        form = np.exp(scores[dog]) / sum(map(np.exp, scores.values()))
        np.testing.assert_allclose(np.exp(log_p[t]), (cache.alphas[t] * P[..., 0] * form).sum(axis=1), rtol=1e-10)


def test_regions_are_written_and_a_captioner_of_them_is_used_by_its_name(
    monkeypatch, tmp_path, capsys, encoders, no_figures
):  # fmt: skip
    monkeypatch.setattr("satnp.scores.evaluation.meteor_or_reason", lambda split, captions: (None, "left out"))
    monkeypatch.setattr(datasets, "SCENES", {"train": 20, "val": 4, "test": 4})
    (tmp_path / "tiny.toml").write_text("[config]\nM = 8\nH = 12\nA = 6\n[recipe]\nepochs = 1\nbatch_size = 20\n")
    tiny = f"--data scenes --config {tmp_path / 'tiny.toml'}"
    encoder, file = tmp_path / "encoder.npz", tmp_path / "scenes.npz"
    save(encoder, new_model(PRESETS["scenes"], datasets.load_split("scenes", "train")))
    assert main(f"regions --data scenes --init {encoder} --truth --out {file}".split()) == 0
    scenes = {split: make_scenes(count, split, 0) for split, count in datasets.SCENES.items()}
    objects = [thing for of_split in scenes.values() for scene in of_split for thing in scene.objects]
    assert f"{len(objects)} regions of 28 scenes" in capsys.readouterr().out
    regions = read_regions(file)
    row = regions.table.rows["test-00003"]
    for box, features, thing in zip(
        regions.boxes(row), regions.table.arrays["features"][row], scenes["test"][3].objects, strict=False
    ):
        assert tuple(box) == thing.box and tuple(features[-8:-4]) == pytest.approx(np.array(thing.box) / 64)
        assert SHAPES[features[-4:].argmax()] == thing.shape and features[-4:].sum() == 1
    assert regions.classes == SHAPES

    train = f"train {tiny} --captioner neural_baby_talk --regions {file} --out {tmp_path / 'run'}"
    assert main(train.split()) == 0
    assert main(f"{train} --resume".split()) == 0
    best, photo = tmp_path / "run/best.npz", tmp_path / "test-00000.png"
    model = load(best)
    assert model.has_sentinel and model.config.classes == SHAPES
    assert [model.vocabulary.words[pairs[0][0]] for pairs in model.config.words] == list(SHAPES)
    assert main(f"evaluate {best} --data scenes --split test --regions {file} --json {tmp_path / 's.json'}".split()) == 0
    scores = json.loads((tmp_path / "s.json").read_text())
    assert "true_captions" in scores and "visual_words" in scores and "pointing_accuracy" not in scores

    write_scene(photo, scenes["test"][0])
    line = f"caption {best} {photo} --regions {file} --figures {tmp_path / 'f'} --page {tmp_path / 'page.html'}"
    assert main(line.split()) == 0
    assert {path.name for path in (tmp_path / "f").iterdir()} == {"test-00000.png", "test-00000.visual.png"}
    assert main(f"release {best} --out {tmp_path / 'small.npz'}".split()) == 0
    assert load(tmp_path / "small.npz").config == model.config

    capsys.readouterr()
    arrays = dict(np.load(file))
    for name, changes, sentence in (
        ("other", {"classes": np.array(["cat", *SHAPES[1:]])}, "has the classes cat, then square"),
        ("none", {"classes": None}, "has no array 'classes'; give classes"),
        ("odd", {"features": 2 * arrays["features"]}, "has last features of test-00000 that are not class probabilities"),
    ):
        wrong = tmp_path / f"{name}.npz"
        np.savez(wrong, **{key: x for key, x in (arrays | changes).items() if x is not None})
        assert main(f"evaluate {best} --data scenes --split test --regions {wrong}".split()) == 2
        assert f"{wrong} {sentence}" in capsys.readouterr().err
    for line, sentence in (
        (f"train {tiny} --captioner neural_baby_talk --out {tmp_path / 'x'}", "give it with --regions FILE.npz"),
        (f"compare {tiny} --init {encoder} --captioners neural_baby_talk --out {tmp_path / 'x'}", "which compare does not"),
        (f"regions --data scenes --init {best} --out {tmp_path / 'x.npz'}", "has no encoder of photos"),
    ):
        assert main(line.split()) == 2
        assert sentence in capsys.readouterr().err


def test_a_comparison_of_all_captioners_leaves_it_out(tmp_path, capsys):
    assert main(f"compare --data scenes --out {tmp_path / 'x'}".split()) == 2  # no encoder is named
    out, err = capsys.readouterr()
    assert out == "without neural_baby_talk: compare reads no regions from a file\n" and "the encoder small" in err
