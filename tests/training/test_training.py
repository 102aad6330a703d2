"""Training: it learns, it stops, it is killed and goes on to the same bits."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from satnp.arrays.backend import to_device, to_host
from satnp.checkpoint import load, load_training, save
from satnp.data.datasets import load_split
from satnp.data.split import Split
from satnp.errors import InputError
from satnp.figures import curves_figure
from satnp.model import Caption
from satnp.scores.evaluation import _sentences
from satnp.scores.metrics import score
from satnp.training.presets import PRESETS, new_model
from satnp.training.resuming import differences
from satnp.training.trainer import Recipe, Trainer, read_log
from tests.page.pages import page_data
from tests.small_world import write_flickr8k

CONFIG = {"M": 12, "H": 16, "A": 8, "penalty": 0.1, "dropout": 0.3}
HARD = {"attention": "hard", "estimator": "reward_to_go", "reward": "mean"}
RECIPE = Recipe(
    epochs=2, batch_size=8, learning_rate=1e-2, warmup=5, min_count=1, averaging=0.9, mirror=True, save_every=4,
    log_every=3, validate_every=11,
)  # fmt: skip


@pytest.fixture(scope="module")
def splits(encoders, tmp_path_factory):
    root = write_flickr8k(tmp_path_factory.mktemp("world") / "data")
    return {split: load_split("flickr8k", split, root) for split in ("train", "val")}


def trainer(splits, out, xp=np, config=None, **changes):
    recipe = replace(RECIPE, **changes)
    preset = replace(PRESETS["scenes"], config=CONFIG | (config or {}), recipe=recipe)
    model = new_model(preset, splits["train"]).on(xp)
    return Trainer(model, recipe, splits["train"], splits["val"], out)


def test_training_lowers_the_loss_and_writes_what_it_promises(splits, tmp_path):
    t = trainer(splits, tmp_path, epochs=8, averaging=0.0, mirror=False)
    assert t.run()
    records = read_log(tmp_path / "metrics.jsonl")
    losses = [r["loss"] for r in records if r["kind"] == "train"]
    assert losses[-1] < 0.6 * losses[0]
    last_val = [r for r in records if r["kind"] == "val"][-1]
    assert {"nll", "Bleu_4", "CIDEr", "ROUGE_L"} <= last_val.keys() and last_val["step"] == t.steps
    best = load(tmp_path / "best.npz")
    assert best.vocabulary.words == t.model.vocabulary.words
    said = best.caption(splits["val"].photos[0], beam=2)
    assert said.alpha.shape[1:] == (8, 8) and said.log_prob < 0
    np.testing.assert_allclose(said.alpha.sum(axis=(1, 2)), 1, rtol=1e-5)


@pytest.mark.slow
def test_hard_attention_learns_with_a_baseline_that_follows_its_reward(splits, tmp_path):
    t = trainer(splits, tmp_path, config=HARD, epochs=8, averaging=0.0, mirror=False)
    assert t.run()
    records = [r for r in read_log(tmp_path / "metrics.jsonl") if r["kind"] == "train"]
    assert records[-1]["loss"] < 0.6 * records[0]["loss"]
    assert records[0]["baseline"] > records[0]["reward"]  # it starts from 0
    late = np.array([[r["reward"], r["baseline"]] for r in records[len(records) // 2 :]])
    assert late.mean(axis=0)[0] == pytest.approx(late.mean(axis=0)[1], rel=0.2)
    assert all(0 <= r["expected"] <= 1 and 0 < r["beta"] < 1 and r["alpha_entropy"] <= np.log(64) for r in records)


def test_every_caption_is_seen_once_an_epoch(splits, tmp_path):
    t = trainer(splits, tmp_path)
    seen = np.concatenate(t._draw_order(np.random.default_rng(3)))
    assert sorted(seen) == list(range(len(t.captions)))


@pytest.fixture(scope="module")
def uncut(splits, tmp_path_factory):
    found = []
    for config in (None, HARD):
        t = trainer(splits, tmp_path_factory.mktemp("uncut"), config=config)
        assert t.run()
        found.append((t, read_log(t.out / "metrics.jsonl")))
    return found


@pytest.mark.parametrize(
    ("cut", "config"),
    [(17, HARD), *(pytest.param(*cut, marks=pytest.mark.slow) for cut in ((3, None), (11, None), (17, None), (3, HARD)))],
)
def test_a_resumed_training_has_the_same_bits(splits, uncut, tmp_path, cut, config):
    whole, log = uncut[config is HARD]
    first = trainer(splits, tmp_path / "parts", config=config)
    run_until(first, cut)
    second = trainer(splits, tmp_path / "parts", config=config)
    second.resume()
    assert second.step == cut
    assert second.run()
    np.testing.assert_array_equal(second.params.flat, whole.params.flat)
    np.testing.assert_array_equal(second.average, whole.average)
    assert second.best == whole.best and second.baseline == whole.baseline != (0 if config else None)
    assert read_log(tmp_path / "parts/metrics.jsonl") == log


def test_a_checkpoint_whose_arrays_were_written_in_another_order_is_the_same(splits, tmp_path):
    first = trainer(splits, tmp_path)
    first._train_step()
    first.save()
    with np.load(tmp_path / "last.npz") as found:
        arrays = {key: found[key] for key in sorted(found.files, reverse=True)}
    np.savez(tmp_path / "last.npz", **arrays)
    written = [key.removeprefix("params/") for key in arrays if key.startswith("params/")]
    assert list(load(tmp_path / "last.npz").params) == list(first.model.params) != written
    second = trainer(splits, tmp_path)
    second.resume()
    for t in (first, second):
        t._train_step()
    np.testing.assert_array_equal(second.params.flat, first.params.flat)


def run_until(t, step):
    """Run as if Ctrl-C came in step `step`."""
    train_step = t._train_step

    def stepping():
        if t.step + 1 == step:
            signal.raise_signal(signal.SIGINT)
        return train_step()

    t._train_step = stepping
    assert not t.run()


def test_the_second_ctrl_c_stops_at_once(splits, tmp_path):
    t, handler = trainer(splits, tmp_path), signal.getsignal(signal.SIGINT)

    def impatient():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    t._train_step = impatient
    with pytest.raises(KeyboardInterrupt):
        t.run()
    assert signal.getsignal(signal.SIGINT) is handler
    assert not (tmp_path / "last.npz").exists()


def test_a_start_after_a_kill_has_a_clean_log(splits, tmp_path):
    assert trainer(splits, tmp_path / "whole", epochs=1).run()
    whole = (tmp_path / "whole/metrics.jsonl").read_text()
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed/metrics.jsonl").write_text(whole[: len(whole) // 2 + 7])  # before the first last.npz
    assert trainer(splits, tmp_path / "killed", epochs=1).run()
    assert (tmp_path / "killed/metrics.jsonl").read_text() == whole


@pytest.mark.slow
def test_what_was_logged_after_the_last_checkpoint_is_logged_once(splits, tmp_path):
    class Killed(BaseException):
        pass

    def killed_at_12():
        if t.step == 12:  # which is logged by now
            raise Killed
        save_it()

    assert trainer(splits, tmp_path / "whole", epochs=2).run()
    t = trainer(splits, tmp_path / "killed", epochs=2)
    save_it, t.save = t.save, killed_at_12
    with pytest.raises(Killed):
        t.run()
    assert read_log(tmp_path / "killed/metrics.jsonl")[-1]["step"] == 12
    (tmp_path / "killed/.older.npz.tmp.npz").write_bytes(b"half")
    again = trainer(splits, tmp_path / "killed", epochs=2)
    again.resume()
    assert again.step == 8
    assert again.run()
    assert (tmp_path / "killed/metrics.jsonl").read_text() == (tmp_path / "whole/metrics.jsonl").read_text()
    assert {p.name for p in (tmp_path / "killed").iterdir()} == {"last.npz", "best.npz", "metrics.jsonl", "progress.html"}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_diverging_training_says_so_and_leaves_the_last_checkpoint(splits, tmp_path):
    t = trainer(splits, tmp_path, learning_rate=1e30, save_every=1)
    with pytest.raises(InputError, match=r"^the loss or its gradient is not finite at step (\d+); [^\n]+$") as stop:
        t.run()
    model, training, _ = load_training(tmp_path / "last.npz")
    assert 0 < training["header"]["step"] < t.step and f"step {t.step};" in str(stop.value)
    assert np.isfinite(model.params.flat).all()
    assert not any(np.isnan(record["loss"]) for record in read_log(tmp_path / "metrics.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("config", [None, HARD], ids=["soft", "hard"])
def test_the_strict_device_trains_to_the_same_numbers(splits, tmp_path, config):
    from tests import strict

    changes = {"epochs": 1, "optimiser": "sgd", "learning_rate": 1e-2}  # Adam makes whole steps of rounding errors
    host, device = (trainer(splits, tmp_path / name, xp, config, **changes) for name, xp in (("a", np), ("b", strict)))
    start = host.params.flat.copy()
    assert host.run() and device.run()
    moved, apart = host.params.flat - start, host.params.flat - device.params.flat.get()
    assert np.linalg.norm(apart) < 1e-3 * np.linalg.norm(moved)
    device.resume()
    assert isinstance(device.params.flat, strict.ndarray)


@pytest.mark.parametrize("config", [None, HARD])
def test_a_device_step_waits_for_nothing(splits, tmp_path, config):
    from tests import strict

    t = trainer(splits, tmp_path, strict, config)
    t._train_step()
    before = t.params.flat.get()
    with strict.no_sync():
        t._train_step()
    assert (t.params.flat.get() != before).mean() > 0.5


@pytest.mark.gpu
@pytest.mark.parametrize("config", [None, HARD])
def test_uploads_beside_the_step_change_no_bit(splits, tmp_path, cuda, config):
    def trained(out, uploads):
        t = trainer(splits, out, cuda, config)
        t.upload = uploads or t.upload
        assert t.run()
        return to_host(t.params.flat)

    in_line = trained(tmp_path / "a", lambda *arrays: [None if x is None else to_device(x, cuda) for x in arrays])
    np.testing.assert_array_equal(trained(tmp_path / "b", None), in_line)


@pytest.mark.parametrize("seconds", [-1, 1e9])
def test_the_page_of_a_training_is_written_at_each_validation_and_now_and_then(splits, tmp_path, monkeypatch, seconds):
    written = []
    monkeypatch.setattr("satnp.training.trainer.RELOAD", seconds)
    monkeypatch.setattr("satnp.training.trainer.write_progress", lambda path, records, *state: written.append(
        (path, len(records), *state)))  # fmt: skip
    t = trainer(splits, tmp_path)
    assert t.run()
    records = read_log(tmp_path / "metrics.jsonl")
    shown = [n for n, x in enumerate(records, 1) if x["kind"] == "val" or seconds < 0]
    assert [n for _, n, *_ in written] == [0, *shown, len(records)]
    assert {state for *_, state, _ in written[:-1]} == {"running"}
    best = load_training(tmp_path / "best.npz")[2]["step"]
    assert written[-1] == (tmp_path / "progress.html", len(records), str(tmp_path), t.steps, t.steps, "finished", best)


@pytest.mark.parametrize("fault", [InputError("lost"), KeyboardInterrupt()])
def test_the_page_of_a_training_that_fails_does_not_wait_for_more(splits, tmp_path, fault):
    t = trainer(splits, tmp_path)
    step = t._train_step

    def failing():
        if t.step == 4:
            raise fault
        return step()

    t._train_step = failing
    with pytest.raises(type(fault)):
        t.run()
    data = page_data(tmp_path / "progress.html")
    assert (data["state"], data["step"], data["steps"]) == ("interrupted", 4, t.steps)
    assert data["reload"] is None
    again = trainer(splits, tmp_path)
    again.resume()
    assert again.run() and page_data(tmp_path / "progress.html")["state"] == "finished"


def test_a_training_goes_on_without_its_page(splits, tmp_path, capsys):
    (tmp_path / "progress.html").mkdir()  # as good as an open file on Windows, or a full disk
    assert trainer(splits, tmp_path).run()
    said = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "progress.html" in line]
    assert len(said) == 1 and said[0].startswith("warning: ") and "the training goes on without it" in said[0]
    assert (tmp_path / "last.npz").exists() and (tmp_path / "best.npz").exists()


def test_early_stopping_keeps_the_best(splits, tmp_path):
    t = trainer(splits, tmp_path, epochs=50, learning_rate=1e-12, validate_every=3, patience=2, averaging=0.0)
    assert t.run()
    assert t.step == 9 and t.bad == 2
    assert load_training(tmp_path / "best.npz")[2]["step"] == 3


# What the validations of a training see: (right captions of 20, nll), what decides, whether the epoch is better. A right
# caption has a 4-gram; no caption at all matches otherwise.
EPOCHS = {
    "Bleu_4": [
        ((0, 3.0), "best so far by nll (no 4-gram matched)"),
        ((0, 2.5), "best so far by nll (no 4-gram matched)"),
        ((0, 2.6), "not better by nll (no 4-gram matched)"),
        ((1, 4.0), "best so far by Bleu_4"),  # a match is better than none, whatever nll says
        ((0, 2.0), "not better by Bleu_4"),
        ((3, 5.0), "best so far by Bleu_4"),
        ((3, 5.5), "not better by nll (the same Bleu_4)"),
        ((3, 4.9), "best so far by nll (the same Bleu_4)"),
        ((2, 1.0), "not better by Bleu_4"),
    ],
    "CIDEr": [
        ((0, 3.0), "best so far by nll (CIDEr is 0)"),
        ((0, 3.1), "not better by nll (CIDEr is 0)"),
        ((2, 9.0), "best so far by CIDEr"),
        ((0, 1.0), "not better by CIDEr"),
    ],
    "nll": [
        ((5, 3.0), "best so far by nll"), ((9, 3.1), "not better by nll"), ((0, 2.9), "best so far by nll"),
        ((0, 2.9 - 1e-8), "not better by nll"),  # which is rounding
    ],
}
FEW = [((9, 3.0), "best so far by nll (fewer than 20 photos)"), ((19, 3.1), "not better by nll (fewer than 20 photos)"),
       ((0, 2.9), "best so far by nll (fewer than 20 photos)")]  # fmt: skip


def planned(splits, out, monkeypatch, photos, seen, **changes):
    """A Trainer whose validations see `seen` on `photos` photos; its lines, and the steps of its checkpoints."""
    words = [[f"{letter}{n}" for letter in "abcd"] for n in range(photos)]
    val = Split([f"{n}.jpg" for n in range(photos)], [[said] for said in words], [None] * photos)
    t = trainer(splits, out, select=changes.pop("select"), **changes)
    t.val = val

    def evaluate(model, split, beam, features):
        right, _ = seen[t.step]
        captions = [Caption(said if n < right else ["x"], -1.0, None) for n, said in enumerate(words)]
        return dict(score(*({str(n): x for n, x in enumerate(xs)} for xs in _sentences(split, captions))).corpus), captions

    monkeypatch.setattr("satnp.training.trainer.evaluate", evaluate)
    monkeypatch.setattr("satnp.training.trainer.nats_per_word", lambda *arguments: seen[t.step][1])
    return t


@pytest.mark.parametrize(("select", "photos", "epochs"), [
    *((select, 20, epochs) for select, epochs in EPOCHS.items()), ("Bleu_4", 19, FEW), ("CIDEr", 19, FEW),
])  # fmt: skip
def test_the_best_epoch_is_chosen_by_a_score_that_can_tell(splits, tmp_path, monkeypatch, select, photos, epochs):
    seen, bad, kept = [numbers for numbers, _ in epochs], 0, None
    t = planned(splits, tmp_path, monkeypatch, photos, seen, select=select)
    for step, (_, says) in enumerate(epochs):
        if step == 3:  # the decision does not depend on whether the training was resumed
            t.save()
            t = planned(splits, tmp_path, monkeypatch, photos, seen, select=select)
            t.resume()
        t.step = step
        line, t.best, t.bad = t._validate()
        better = says.startswith("best")
        bad, kept = (0, step) if better else (bad + 1, kept)
        assert line.endswith("; " + says) and t.bad == bad
        assert load_training(tmp_path / "best.npz")[2]["step"] == kept
    notes = load_training(tmp_path / "best.npz")[2]["val"]
    name = "nll" if select == "nll" or photos < 20 else select
    assert t.chosen_by == (name, notes[name]) and t.best[1] == notes["nll"]


def test_a_score_that_could_never_tell_leaves_the_choice_to_nll(splits, tmp_path, monkeypatch):
    t = planned(splits, tmp_path, monkeypatch, 20, [(0, 3.0), (0, 2.0)], select="Bleu_4")
    for t.step in range(2):
        _, t.best, t.bad = t._validate()
    assert t.chosen_by == ("nll", 2.0) and t.bad == 0


@pytest.mark.parametrize(("select", "best", "chosen"), [
    ("Bleu_4", 0.2, ("Bleu_4", 0.2)), ("CIDEr", 0.5, ("CIDEr", 0.5)), ("nll", 2.5, ("nll", 2.5)),
])  # fmt: skip
def test_the_best_score_of_an_older_version_is_understood(splits, tmp_path, select, best, chosen):
    t = trainer(splits, tmp_path, select=select)
    t.best = best
    t.save()
    again = trainer(splits, tmp_path, select=select)
    again.resume()
    assert again.chosen_by == chosen


def test_a_stopped_training_is_not_gone_on_with(splits, tmp_path):
    changes = {"epochs": 50, "learning_rate": 1e-12, "validate_every": 3, "patience": 2, "averaging": 0.0}
    assert trainer(splits, tmp_path, **changes).run()
    def files():  # progress.html has the time
        return {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.name != "progress.html"}

    before = files()
    again = trainer(splits, tmp_path, **changes)
    again.resume()
    assert again.run() is True
    assert again.step == 9
    assert files() == before


@pytest.mark.slow
def test_sgd_and_rmsprop_learn_too(splits, tmp_path):
    for optimiser, rate in (("sgd", 0.05), ("rmsprop", 3e-3)):
        t = trainer(splits, tmp_path / optimiser, optimiser=optimiser, learning_rate=rate, epochs=4, clip=1.0)
        assert t.run()
        losses = [r["loss"] for r in read_log(tmp_path / optimiser / "metrics.jsonl") if r["kind"] == "train"]
        assert losses[-1] < 0.85 * losses[0], optimiser


OTHER = {
    "optimiser": "sgd", "schedule": "constant", "objective": "scst", "baseline": "greedy", "select": "CIDEr",
    "length_score": "gaussian", "mirror": False, "averaging": 0.5, "scheduled_sampling": 0.5, "label_smoothing": 0.5,
}  # fmt: skip


def test_the_option_from_which_others_follow_is_named_first():
    began = {"recipe": {"learning_rate": 0.001, "warmup": 200, "clip": 5.0, "objective": "cross_entropy"}}
    now = {"recipe": {"learning_rate": 0.1, "warmup": 20, "clip": 1.0, "objective": "scst"}}
    assert differences(began, now) == "; ".join((
        "recipe.objective cross_entropy, now scst", "recipe.learning_rate 0.001, now 0.1", "recipe.warmup 200, now 20",
        "and 1 more",
    ))  # fmt: skip


def test_resume_names_each_setting_that_differs_with_both_values(splits, tmp_path):
    t = trainer(splits, tmp_path, config=HARD)  # whose Config has settings of the same names
    t.save()
    began = t.recipe
    for name, was in vars(began).items():
        now = OTHER.get(name, was + 1 if isinstance(was, (int, float)) else None)
        t.recipe = replace(began, **{name: now})
        values = [x if isinstance(x, str) else json.dumps(x) for x in (was, now)]
        with pytest.raises(InputError) as refusal:
            t.resume()
        assert str(refusal.value) == (
            f"{tmp_path / 'last.npz'} began with other options: recipe.{name} {values[0]}, now {values[1]}; leave these as "
            "they were, or start from its best.npz with --init in a new --out"
        )
    t.recipe = began
    for name, now in {"baseline": "none", "reward": "sum", "temperature": 2.0, "samples": 3, "penalty": 0.5}.items():
        config = replace(t.model.config, **{name: now})
        was, t.model.config = getattr(t.model.config, name), config
        with pytest.raises(InputError, match=f"options: config.{name} {was}, now {now}; leave"):
            t.resume()
        t.model.config = replace(config, **{name: was})
    t.resume()  # with the same


def test_many_settings_that_differ_are_counted(splits, tmp_path):
    t = trainer(splits, tmp_path)
    t.save()
    t.recipe = replace(t.recipe, epochs=3, batch_size=9, optimiser="sgd", learning_rate=0.5, warmup=6, clip=9.0, seed=5)
    with pytest.raises(InputError, match=r"options: recipe\.seed 0, now 5; recipe\.epochs 2, now 3.* and \d more; leave"):
        t.resume()


def test_a_training_of_an_older_version_is_resumed(splits, tmp_path):
    t = trainer(splits, tmp_path)
    t.save()
    with np.load(tmp_path / "last.npz") as found:
        arrays = dict(found)
    header = json.loads(str(arrays["header"]))
    training = header["training"]
    training["captions"] = training.pop("data")["captions"]
    del training["init"], training["encoder weights"]
    np.savez(tmp_path / "last.npz", **arrays | {"header": json.dumps(header)})
    trainer(splits, tmp_path).resume()
    few = splits | {"train": Split(*(x and x[:9] for x in splits["train"]))}
    with pytest.raises(InputError, match=r"began with other options: captions \w{16}, now \w{16}; leave"):
        trainer(few, tmp_path).resume()


def test_resume_refuses_a_broken_file(splits, tmp_path):
    t = trainer(splits, tmp_path)
    t.save()
    blob = (tmp_path / "last.npz").read_bytes()
    (tmp_path / "last.npz").write_bytes(blob[: len(blob) // 2])
    with pytest.raises(InputError, match="not a complete checkpoint"):
        trainer(splits, tmp_path).resume()


def test_a_failed_write_leaves_the_old_checkpoint(splits, tmp_path, monkeypatch):
    t = trainer(splits, tmp_path)
    t.save()
    before = (tmp_path / "last.npz").read_bytes()

    def full_disk(file, **arrays):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError):
        save(tmp_path / "last.npz", t.model)
    assert (tmp_path / "last.npz").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.npz"]


@pytest.mark.parametrize("bad", [{"optimiser": "adem"}, {"schedule": "x"}, {"epochs": 0}, {"learning_rate": -1.0}])
def test_a_bad_recipe_is_refused(bad):
    with pytest.raises(InputError):
        Recipe(**bad)


@pytest.mark.parametrize(
    "line",
    ['{"kind": "train", "step": 1, "loss": [1]}', '{"kind": "val", "step": 1, "nll": {}}', '{"kind": "train", "step": 1.5}',
     '{"kind": "train", "step": 1, "loss": true}', '{"kind": "train", "step": 1, "loss": ' + 400 * "9" + "}",
     '{"kind": "train", "step": ' + 400 * "9" + "}", 10**5 * "[", '{"kind": "train", "step": 1, "loss": ' + 5000 * "9" + "}",
     '{"kind": 3, "step": 1}', '{"kind": "train", "s4ep": 1}', "\xff"],
)  # fmt: skip
def test_a_line_of_the_log_that_is_damaged_is_named(tmp_path, line):
    good = '{"kind": "train", "step": 2, "loss": 2.5, "note": "text", "cider": null}'
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n{line}\n{good}\n", encoding="latin1")
    with pytest.raises(InputError, match=r"line 2 of .+metrics.jsonl is not a record of a training; fix or"):
        read_log(tmp_path / "metrics.jsonl")
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n{line}", encoding="latin1")
    assert read_log(tmp_path / "metrics.jsonl") == [json.loads(good)]


def test_a_text_in_place_of_a_loss_is_not_drawn(tmp_path):
    records = [{"kind": "train", "step": 1, "loss": "x"}, {"kind": "train", "step": 2, "loss": 2.5}]
    curves_figure(records, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
