"""Warnings while training: they come when there is something to warn of, once, and change nothing."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from satnp.arrays import optim
from satnp.data.datasets import load_split
from satnp.data.split import Split
from satnp.training import warning_signs
from satnp.training.presets import PRESETS, new_model
from satnp.training.trainer import Trainer, read_log
from satnp.training.warning_signs import (
    Watch,
    free_memory,
    same_caption,
    short_of_memory,
    standing_out,
    still_attention,
    unknown_words,
    worse_than_guessing,
)
from tests.small_world import write_flickr8k
from tests.training.test_training import CONFIG, RECIPE

RESULTS = sorted((Path(__file__).parents[1] / "benchmarks/results").glob("*.jsonl"))
LOGS = [path for path in RESULTS if sum(record["kind"] == "train" for record in read_log(path)) > 100]
NOTHING = {"learning_rate": 1e-12, "epochs": 1, "averaging": 0.0, "validate_every": 3, "log_every": 1}  # is learned


@pytest.fixture(scope="module")
def splits(encoders, tmp_path_factory):
    root = write_flickr8k(tmp_path_factory.mktemp("signs") / "data")
    return {split: load_split("flickr8k", split, root) for split in ("train", "val")}


def trainer(splits, out, **changes):
    recipe = replace(RECIPE, **changes)
    model = new_model(replace(PRESETS["scenes"], config=CONFIG, recipe=recipe), splits["train"])
    return Trainer(model, recipe, splits["train"], splits["val"], out)


def warnings(capsys):
    return [line for line in re.split("[\r\n]", capsys.readouterr().err) if line.startswith("warning: ")]


def test_a_training_that_looks_at_its_photos_warns_of_nothing(splits, tmp_path, capsys):
    t = trainer(splits, tmp_path, **NOTHING)
    t.params["decoder.L_z"][...] *= 20  # what it sees decides what it says ...
    t.params["decoder.L_o"][...] *= 0.01  # ... and no word is much more probable than another
    assert t.run()
    assert warnings(capsys) == []
    assert len(t.watch.norms) > 15 and t.watch.up == set()


@pytest.mark.slow
def test_warnings_change_no_bit_of_a_training(splits, tmp_path, capsys, monkeypatch):
    watched = trainer(splits, tmp_path / "watched", epochs=2, log_every=1)
    assert watched.run()
    assert all("the same caption" in line for line in warnings(capsys))  # it is young, else it is healthy
    for name in ("before", "logged", "validated"):
        monkeypatch.setattr(Watch, name, lambda *arguments: None)
    alone = trainer(splits, tmp_path / "alone", epochs=2, log_every=1)
    assert alone.run()
    np.testing.assert_array_equal(watched.params.flat, alone.params.flat)
    assert watched.rng.bit_generator.state == alone.rng.bit_generator.state
    assert (tmp_path / "watched/metrics.jsonl").read_text() == (tmp_path / "alone/metrics.jsonl").read_text()


def test_a_warning_comes_once_and_again_only_after_it_was_gone(capsys):
    watch = Watch()
    for sentence in (None, "a", "a b", None, "c"):
        watch._see("sign", sentence)
    watch._see("another", "d")
    assert warnings(capsys) == ["warning: a", "warning: c", "warning: d"]


def test_one_caption_for_most_photos_is_said_once_a_training(splits, tmp_path, capsys):
    t = trainer(splits, tmp_path, **NOTHING)
    t.params["decoder.L_o"][...] = 0  # words without a look at the photo
    assert t.run()
    assert len([r for r in read_log(tmp_path / "metrics.jsonl") if r["kind"] == "val"]) > 2
    (said,) = warnings(capsys)
    assert said.startswith("warning: 6 of the 6 validation photos get the same caption, ")


def test_a_loss_above_that_of_guessing_is_said_once(splits, tmp_path, capsys):
    t = trainer(splits, tmp_path, **NOTHING | {"validate_every": 8})
    t.params["decoder.L_o"][...] *= 20
    assert t.run()
    V, nll = len(t.model.vocabulary), [r["nll"] for r in read_log(tmp_path / "metrics.jsonl") if r["kind"] == "val"]
    assert len(nll) > 1 and min(nll) > np.log(V) + 1
    (said,) = [line for line in warnings(capsys) if "guessing" in line]
    assert said.startswith(f"warning: the validation loss, {nll[0]:.3f} nats a word, is above ln V = {np.log(V):.3f}, ")


def test_a_loss_may_be_that_of_guessing():
    assert worse_than_guessing(np.log(50), 50) is None and worse_than_guessing(1.0, 50) is None
    assert "above ln V = 3.912" in worse_than_guessing(3.95, 50)


def test_half_of_the_photos_may_have_one_caption_and_so_may_a_pair():
    assert same_caption(["a", "a", "a", "b", "c", "d"]) is None
    assert "3 of the 5" in same_caption(["a", "a", "b", "c", "a"])
    assert same_caption(["a", "a"]) is None


@pytest.mark.parametrize(("name", "seen"), [("W_s", "looks at the same places for every word"), ("v", "is almost uniform")])
def test_attention_that_does_not_move_is_said(splits, tmp_path, capsys, name, seen):
    t = trainer(splits, tmp_path, **NOTHING)
    t.params[f"decoder.{name}"][...] = 0
    t.params["decoder.b_o"][2] = -5  # no <end> yet
    if name == "W_s":
        t.params["decoder.v"][...] *= 5  # far from uniform
    assert t.run()
    (said,) = [line for line in warnings(capsys) if "attention" in line]
    assert seen in said


def test_attention_that_moves_in_some_captions_is_attention():
    still, moving = np.full((3, 2, 2), 0.25), np.eye(4)[:3].reshape(3, 2, 2)
    assert "uniform" in still_attention([still, still[:1]])
    assert "same places" in still_attention([moving[[1, 1, 1]]] * 2)
    assert still_attention([still, moving]) is None
    assert still_attention([moving[:1]] * 2) is None  # one word a caption has no second look


@pytest.mark.parametrize(("factor", "seen"), [(100, "explodes"), (0.01, "vanishes")])
def test_gradients_out_of_all_proportion_are_said(splits, tmp_path, capsys, monkeypatch, factor, seen):
    t = trainer(splits, tmp_path, **NOTHING | {"epochs": 2, "validate_every": 1000})
    clip = optim.clip_factor

    def planted(*args):
        norm, scale = clip(*args)
        return norm * (1 if t.step < 20 else factor), scale

    monkeypatch.setattr(optim, "clip_factor", planted)
    assert t.run()
    (said,) = [line for line in warnings(capsys) if "gradient" in line]
    assert seen in said


@pytest.mark.parametrize("path", LOGS, ids=[path.stem for path in LOGS])
def test_the_norms_of_whole_runs_raise_no_alarm_until_a_stretch_is_planted(path):
    norms = [r["grad_norm"] for r in read_log(path) if r["kind"] == "train"]
    usual = np.median(norms)
    assert max(norms) > 3 * usual  # single steps do stand out

    def alarms(norms):
        return {(standing_out(norms[:k]) or "nothing: ").split(":")[0] for k in range(1, len(norms) + 1)}

    assert alarms(norms) == {"nothing"}
    for factor, seen in ((30, "the gradient explodes"), (0.01, "the gradient vanishes")):
        planted = [*norms[:80], *[factor * usual] * 6, *norms[86:]]
        assert alarms(planted) == {"nothing", seen}


def test_there_are_logs_to_replay():
    assert {"flickr8k_soft", "flickr8k_hard", "scenes_hard"} <= {path.stem for path in LOGS}


def test_many_unknown_words_are_said_of_each_split(splits, tmp_path, capsys):
    assert trainer(splits, tmp_path, **NOTHING | {"min_count": 40, "validate_every": 1000}).run()
    found = [line for line in warnings(capsys) if "in the vocabulary" in line]
    assert [line.split("of the words of the ")[1].split()[0] for line in found] == ["training", "validation"]


def test_a_tenth_of_the_words_may_be_unknown():
    known = [1, *[7] * 9, 2]
    assert unknown_words([known, [1, 3, 2]], "training") is None
    assert unknown_words([known, [1, 3, 3, 2]], "training").startswith("18% of the words of the training captions")


@pytest.mark.parametrize(("objective", "train", "val", "notes"), [
    ("cross_entropy", 8, 1, 1), ("scst", 1, 6, 1), ("cross_entropy", 1, 6, 0), ("scst", 8, 6, 0),
])  # fmt: skip
def test_the_cider_of_one_photo_is_said_to_be_0(splits, tmp_path, capsys, objective, train, val, notes):
    counts = {"train": train, "val": val}
    few = {of: Split(*(x and x[: counts[of]] for x in split)) for of, split in splits.items()}
    t = trainer(few, tmp_path, objective=objective)
    t._begin()
    said = [line for line in warnings(capsys) if "CIDEr" in line]
    assert len(said) == notes and all("CIDEr of a single photo is 0 by definition" in line for line in said)


def test_too_little_memory_is_said_before_the_first_step(splits, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(warning_signs, "free_memory", lambda: 600_000)
    t = trainer(splits, tmp_path, **NOTHING | {"batch_size": 100})
    t._train_step = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        t.run()
    (said,) = warnings(capsys)
    assert "only 1 MiB of memory are free" in said and said.endswith("lower batch_size")


def test_memory_that_is_held_already_needs_not_be_free():
    need = {"parameters": 3, "photos": 50, "a minibatch": 7}
    assert short_of_memory(need, 50, 10) is None and short_of_memory(need, 50, None) is None
    assert short_of_memory(need, 50, 9).endswith("lower the number of photos")
    assert short_of_memory(need | {"photos": 0}, 0, 9).endswith("lower batch_size")


def test_free_memory_is_that_of_a_machine():
    assert 2**26 < free_memory() < 2**45


TRAIN = """
import re, sys
from dataclasses import replace
import numpy as np
from satnp.data import datasets
from satnp.training.presets import PRESETS, new_model
from satnp.training.trainer import Trainer
frozen, batch_size, out = sys.argv[1] == "frozen", int(sys.argv[2]), sys.argv[3]
datasets.SCENES.update(train=batch_size, val=4)
preset = PRESETS["scenes"]
recipe = replace(preset.recipe, batch_size=batch_size, epochs=1)
config = preset.config | ({"M": 512, "H": 512, "dropout": 0.5} if frozen else {})
splits = [datasets.load_split("scenes", split) for split in ("train", "val")]
model = replace(new_model(replace(preset, config=config, recipe=recipe), splits[0]), frozen=frozen)
features = [np.zeros((len(split.names), 64, 128), np.float16) if frozen else None for split in splits]
def held(name):  # ru_maxrss would start from the peak of the parent process
    return int(re.search(rf"{name}:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = held("VmRSS")
Trainer(model, recipe, *splits, out, features[0], val_features=features[1]).run()
print("measured", held("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the memory that is held now and at most is read from /proc")
@pytest.mark.parametrize(
    ("kind", "batch_size"),
    [("pixels", 16), *(pytest.param(kind, 64, marks=pytest.mark.slow) for kind in ("pixels", "frozen"))],
)
def test_the_memory_that_is_said_is_the_memory_that_is_taken(tmp_path, kind, batch_size):
    line = [sys.executable, "-c", TRAIN, kind, str(batch_size), str(tmp_path)]
    said = subprocess.run(line, check=True, capture_output=True, text=True).stdout
    needed = int(re.search(r"needs about (\d+) MiB", said)[1])
    measured = int(re.search(r"measured (\d+)", said)[1]) / 2**10
    assert needed / 1.5 < measured < needed * 1.5 + 75  # MiB; each thread keeps some memory for what it does next
    parts = {part: int(size) for size, part in re.findall(r"(\d+) for (?:a )?(\w+)", said)}
    assert parts.keys() == {"parameters", "photos", "minibatch"} and abs(sum(parts.values()) - needed) <= 2
