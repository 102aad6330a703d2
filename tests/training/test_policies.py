"""Training on words that the captioner draws itself."""

from dataclasses import fields, replace

import numpy as np
import pytest

from satnp.captioners import CAPTIONERS, show_attend_tell
from satnp.data.captions import END, PAD, START, UNK
from satnp.data.datasets import load_split
from satnp.errors import InputError
from satnp.training.policies import scheduled_words
from satnp.training.presets import PRESETS, new_model
from satnp.training.trainer import Recipe, Trainer
from tests.small_world import write_flickr8k

V, D, L, T = 7, 4, 6, 4
HARD = show_attend_tell.Config(V=V, D=D, M=3, H=5, A=7, attention="hard", decoding="sampling", dropout=0.0)


def world(name, N, rng):
    """captioner, Config, parameters (N(0, 1/4)), annotations (N, L, D) of one photo, captions (N, T+1), noise"""
    captioner = CAPTIONERS[name.split()[0]]
    sizes = {"M": 3, "H": 5, "A": 7, "classes": ("a", "b"), "words": (((4, 5),), ((6, -1),))}
    sizes = {field.name: sizes[field.name] for field in fields(captioner.Config) if field.name in sizes}
    config = HARD if name.endswith("hard") else captioner.Config(V=V, D=D, dropout=0.0, **sizes)
    params = captioner.init(config, rng)
    params.flat[...] = 0.5 * rng.standard_normal(params.flat.size)
    annotations = np.repeat(rng.standard_normal((1, L, D)).astype(np.float32), N, axis=0)
    captions = np.full((N, T + 1), 5)
    captions[:, 0], captions[:, -1] = START, END
    return captioner, config, params, annotations, captions, captioner.decoding_noise(config, N, L, T, rng)


NAMES = [*CAPTIONERS, "show_attend_tell hard"]


@pytest.mark.parametrize("name", NAMES)
def test_words_are_replaced_as_often_as_asked_and_the_true_ones_stay(name, rng):
    captioner, config, params, annotations, captions, noise = world(name, 600, rng)
    coins, draws = rng.random((2, 600, T))
    given = scheduled_words(captioner, params, config, annotations, captions, 0.3, coins, draws, noise)
    assert given.shape == (600, T) and (given[:, 0] == START).all()
    own = coins < 0.3
    own[:, 0] = False
    assert (given[~own] == captions[:, :-1][~own]).all()
    assert len(set(given[own])) > 2 and not set(given[own]) & {PAD, START, UNK}
    assert (captions[:, 1:-1] == 5).all()  # the array that was given is not written to
    part = slice(100, 140)
    some = scheduled_words(
        captioner, params, config, annotations[part], captions[part], 0.3, coins[part], draws[part],
        noise if noise is None else noise[part],
    )  # fmt: skip
    np.testing.assert_array_equal(some, given[part])  # ranks draw for their share


def test_without_a_chance_nothing_is_decoded(rng, monkeypatch):
    _, config, params, annotations, captions, _ = world("show_and_tell", 5, rng)
    captioner = CAPTIONERS["show_and_tell"]
    monkeypatch.setattr(type(captioner), "step", None)
    given = scheduled_words(captioner, params, config, annotations, captions, 0.0, *rng.random((2, 5, T)))
    np.testing.assert_array_equal(given, captions[:, :-1])


@pytest.mark.parametrize("name", ["show_and_tell", "top_down", "show_attend_tell"])
def test_own_words_are_drawn_from_p_given_the_words_before(name, rng):
    N = 20_000
    captioner, config, params, annotations, captions, _ = world(name, N, rng)
    given = scheduled_words(captioner, params, config, annotations, captions, 1.0, *rng.random((2, N, T)))
    state = captioner.start(params, config, annotations[:1])
    for t, before in enumerate(([START], [int(given[0, 1])]), start=1):
        log_p, state, _ = captioner.step(params, config, state, np.array(before[-1:]), np.array([0]))
        p = np.exp(log_p[0].astype(float))
        p[[PAD, START, UNK, END][: 4 if t == 1 else 3]] = 0  # a caption has a word before <end>
        p /= p.sum()
        rows = given[(given[:, 1:t] == given[0, 1:t]).all(axis=1), t]
        share = np.bincount(rows, minlength=V) / len(rows)
        np.testing.assert_allclose(share, p, atol=4.5 * np.sqrt(0.25 / len(rows)))


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    root = write_flickr8k(tmp_path_factory.mktemp("world") / "data")
    return {split: load_split("flickr8k", split, root) for split in ("train", "val")}


@pytest.mark.parametrize("attention", ["soft", "hard"])
def test_a_training_with_own_words_resumes_to_the_same_bits(encoders, splits, tmp_path, attention):
    def trainer(folder, chance=1.0):
        recipe = Recipe(epochs=2, batch_size=8, min_count=1, scheduled_sampling=chance, save_every=3)
        config = {"M": 8, "H": 12, "A": 6, "attention": attention}
        model = new_model(replace(PRESETS["scenes"], config=config, recipe=recipe), splits["train"])
        return Trainer(model, recipe, splits["train"], splits["val"], tmp_path / folder)

    whole, cut, plain = trainer("whole"), trainer("cut"), trainer("plain", 0.0)
    for t in (whole, plain):
        t._begin()
        for _ in range(8):
            t._train_step()
            t.step += 1
    for _ in range(4):
        cut._train_step()
        cut.step += 1
    cut.save()
    again = trainer("cut")
    again.resume()
    for _ in range(4):
        again._train_step()
        again.step += 1
    np.testing.assert_array_equal(again.params.flat, whole.params.flat)
    assert np.abs(plain.params.flat - whole.params.flat).max() > 1e-5


def test_smoothed_labels_change_the_training_and_not_the_meaning_of_its_loss(encoders, splits, tmp_path):
    found = []
    for smoothing in (0.0, 0.4):
        recipe = Recipe(epochs=2, batch_size=8, min_count=1, label_smoothing=smoothing)
        preset = replace(PRESETS["scenes"], captioner="top_down", config={"M": 8, "H": 12, "A": 6}, recipe=recipe)
        t = Trainer(new_model(preset, splits["train"]), recipe, splits["train"], splits["val"], tmp_path / str(smoothing))
        first = float(t._train_step()[0].nll)
        found.append((first, t.params.flat.copy()))
    (plain, params), (smoothed, others) = found
    assert plain == pytest.approx(smoothed, rel=1e-6)  # -log p of the true words, of the same first minibatch
    assert np.abs(params - others).max() > 1e-6


def test_values_out_of_range_are_refused():
    with pytest.raises(InputError, match="scheduled_sampling is 1.5; choose a chance from 0 to 1"):
        Recipe(scheduled_sampling=1.5)
    with pytest.raises(InputError, match="label_smoothing is 1.0; choose a share from 0 to below 1"):
        Recipe(label_smoothing=1.0)
