"""Self-critical training: its gradient by enumeration of all captions, and its training runs."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from satnp.arrays.backend import to_device, to_host
from satnp.arrays.parameters import Parameters
from satnp.captioners import CAPTIONERS, show_attend_tell
from satnp.data.captions import END, START, Vocabulary
from satnp.data.datasets import load_split
from satnp.decoding import MIN_LENGTH, NEVER, beam_search, may_say, sample_words
from satnp.errors import InputError
from satnp.estimators import leave_one_out
from satnp.proof.gradcheck import numeric_gradient
from satnp.scores.metrics import cider_d, document_frequency
from satnp.training import self_critical
from satnp.training.presets import PRESETS, find_preset, new_model
from satnp.training.self_critical import Reward, draw_captions, policy, weighted
from satnp.training.trainer import Recipe, Trainer
from tests.captioners import toy
from tests.small_world import write_flickr8k

V, D, L, STEPS = 7, 4, 2, 3
WORDS = [word for word in range(V) if word not in (*NEVER, END)]

def all_captions(min_length):
    """All captions of min_length to STEPS words, as sample_words gives them: <end> after <end>"""
    of_length = [product(WORDS, repeat=T) for T in range(min_length, STEPS + 1)]
    return np.array([[*words, *[END] * (STEPS - len(words))] for captions in of_length for words in captions])


PATHS = np.array(list(product(range(L), repeat=STEPS)))  # of hard attention

GIVEN = {"rows": L, "G": D, "classes": ("a", "b", "c"), "words": (((4, 5),), ((6, -1),), ())}
MODULES = {**CAPTIONERS, "toy": toy.captioner}
CONFIGS = {
    **{
        f"{name} {option}".strip(): (
            captioner, replace(config, V=V, D=D, **{n: x for n, x in GIVEN.items() if hasattr(config, n)})
        )
        for name, captioner in MODULES.items() for option, config in getattr(captioner, "CHECKS", {}).items()
    },
    **{
        f"show_attend_tell {label}": (show_attend_tell, show_attend_tell.Config(V=V, D=D, M=3, H=5, A=7, **choices))
        for label, choices in {
            "soft": {}, "hard expectation": {"attention": "hard"}, "hard": {"attention": "hard", "decoding": "argmax"},
        }.items()
    },
}  # fmt: skip


class World:
    """A captioner whose captions, and paths of locations if it draws them, are enumerated, for one photo."""

    def __init__(self, name, temperature=1.0, min_length=MIN_LENGTH):
        rng, self.temperature, self.min_length = np.random.default_rng(0), temperature, min_length
        self.captioner, config = CONFIGS[name]
        self.config = policy(config)
        shapes = self.captioner.shapes(self.config)
        self.params = Parameters(shapes, flat=0.7 * rng.standard_normal(Parameters(shapes).flat.size))
        self.annotations = 2 * rng.standard_normal((1, L, D))
        self.draws_locations = name == "show_attend_tell hard"
        paths = PATHS if self.draws_locations else PATHS[:1]
        captions = all_captions(min_length)
        self.ids = np.repeat(captions, len(paths), axis=0)
        self.paths = np.tile(paths, (len(captions), 1))
        self.rewards = np.repeat(rng.standard_normal(len(captions)), len(paths))

    def run(self, rows, advantages, params=None):
        """The captioner's forward pass over some of the captions -> cache"""
        gumbel = np.where(np.arange(L) == self.paths[rows][:, :, None], np.inf, 0.0) if self.draws_locations else None
        annotations = np.repeat(self.annotations, len(rows), axis=0)
        batch, noise = weighted(
            self.captioner, self.config, annotations, self.ids[rows], gumbel, advantages, self.temperature, self.min_length
        )  # fmt: skip
        return self.captioner.forward(self.params if params is None else params, self.config, batch, noise)[1]

    def probabilities(self, params=None):
        """p(y), or p(y, s), of each row"""
        rows = np.arange(len(self.ids))
        cache = self.run(rows, np.ones(len(rows)), params)
        T, mask = STEPS, self.mask
        log_p = (mask * cache.vocabulary.log_p.reshape(T, -1)).sum(axis=0)
        if self.draws_locations:
            looked = (cache.looks * cache.alphas).sum(axis=2)
            log_p = log_p + (mask * np.log(looked)).sum(axis=0)
            share = (mask == 0).sum(axis=0)  # paths that differ only after <end> are one
            return np.exp(log_p) / L**share
        return np.exp(log_p)

    def probabilities_by_step(self):
        """p(y) of each row from the captioner's step, word by word at the temperature."""
        R = len(self.ids)
        state = self.captioner.start(self.params, self.config, self.annotations)
        words, parents, total = np.full(R, START), np.zeros(R, int), np.zeros(R)
        for t in range(STEPS):
            log_p, state, _ = self.captioner.step(self.params, self.config, state, words, parents)
            log_p = may_say(log_p, t, self.min_length) / self.temperature
            words, parents = self.ids[:, t], np.arange(R)
            total += self.mask[t] * (log_p[parents, words] - np.log(np.exp(log_p).sum(axis=1)))
        return np.exp(total)

    @property
    def mask(self):
        ended = np.cumsum(self.ids == END, axis=1) - (self.ids == END)
        return (ended == 0).T.astype(float)

    def gradient(self, rows, advantages):
        cache = self.run(rows, advantages)
        grads = self.params.zeros_like()
        self.captioner.backward(cache, grads, frozen=True)
        return grads.flat


KINDS_OF_LOSS = [(name, *how) for name in CONFIGS for how in (
    ("leave_one_out", 1.0, 1), ("greedy", 1.0, 1), ("leave_one_out", 0.5, 1 + (name in ("toy", "show_attend_tell hard")))
)]  # fmt: skip


@pytest.mark.parametrize(("name", "baseline", "temperature", "min_length"), [
    *KINDS_OF_LOSS, ("top_down", "greedy", 1.0, 0), ("show_attend_tell soft", "leave_one_out", 0.5, 0),
])  # fmt: skip
def test_the_expected_gradient_is_that_of_the_expected_reward(name, baseline, temperature, min_length):
    world = World(name, temperature, min_length)
    p, rewards, rows = world.probabilities(), world.rewards, np.arange(len(world.ids))
    assert p.sum() == pytest.approx(1, abs=1e-12)
    if not world.draws_locations:
        np.testing.assert_allclose(p, world.probabilities_by_step(), rtol=1e-11)
    rng = np.random.default_rng(1)
    direction = rng.standard_normal(world.params.flat.size)
    exact = numeric_gradient(
        lambda t: -(world.probabilities(world.params.on(world.params.flat + t * direction)) @ rewards), np.zeros(1)
    )[0]
    if baseline == "greedy":
        looking = replace(world.config, decoding="argmax") if world.draws_locations else world.config
        (greedy,) = beam_search(
            world.captioner, world.params, looking, world.annotations, beam=1, max_length=STEPS, min_length=min_length
        )  # fmt: skip
        said = [*greedy.ids, *[END] * (STEPS - len(greedy.ids))]
        weights = p * (rewards - rewards[(world.ids == said).all(axis=1).argmax()])
    else:  # all pairs of captions k, l of the photo, S = 2
        pairs = np.stack(np.broadcast_arrays(rewards[:, None], rewards))
        k, l = p[:, None] * p * (pairs - leave_one_out(pairs)) / 2
        weights = k.sum(axis=1) + l.sum(axis=0)
    found = world.gradient(rows, len(rows) * weights) @ direction
    assert found == pytest.approx(exact, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("min_length", [0, 1, 2])
@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "show_attend_tell hard"])
def test_the_beam_sampling_and_the_loss_have_the_same_probabilities(name, min_length, rng):
    world = World(name, min_length=min_length)
    p, decoder = world.probabilities(), (world.captioner, world.params, world.config)
    known = {str(row): x for row, x in zip(world.ids.tolist(), p, strict=True)}
    (best,) = beam_search(*decoder, world.annotations, len(p), STEPS, min_length=min_length)
    assert [*best.ids, *[END] * (STEPS - len(best.ids))] == world.ids[p.argmax()].tolist()
    assert np.exp(best.log_prob) == pytest.approx(p.max(), rel=1e-9)
    # a high temperature draws many captions; log_p is that of temperature 1
    drawn, log_p, _ = sample_words(*decoder, world.annotations, rng.random((30, STEPS)), None, 9.0, min_length)
    whole = np.full((30, STEPS), END)
    whole[:, : drawn.shape[1]] = drawn
    np.testing.assert_allclose(np.exp(log_p), [known[str(row)] for row in whole.tolist()], rtol=1e-9)
    assert len(np.unique(drawn, axis=0)) > 5


@pytest.mark.parametrize("name", ["show_attend_tell soft", "show_attend_tell hard", "top_down"])
def test_drawn_captions_are_weighted_by_their_reward_less_the_baseline(name, xp, rng):
    world, N, S = World(name), 3, 4
    annotations = 2 * rng.standard_normal((N, L, D))
    noise = world.captioner.decoding_noise(world.config, N * S, L, STEPS, rng)
    params = world.params.on(to_device(world.params.flat, xp))
    uniform = rng.random((N * S, STEPS))
    for baseline, temperature in (("greedy", 1.0), ("leave_one_out", 0.5)):
        asked = []

        def reward(n, ids, asked=asked):
            asked.append((n, np.array(ids, object)))
            return np.array([float(ids[k][0]) + 10 * n[k] for k in range(len(n))])

        batch, noises, rewards, words = draw_captions(
            world.captioner, params, world.config, to_device(annotations, xp), uniform, noise, reward, baseline, temperature
        )  # fmt: skip
        n, ids = asked[0]
        assert n.tolist() == [0] * S + [1] * S + [2] * S
        np.testing.assert_array_equal(to_host(batch.captions)[:, 1:], ids)
        np.testing.assert_array_equal(to_host(batch.annotations), annotations[n])
        if baseline == "greedy":
            looking = replace(world.config, decoding="argmax") if world.draws_locations else world.config
            on_device = to_device(annotations, xp)
            greedy = beam_search(world.captioner, params, looking, on_device, beam=1, max_length=STEPS)
            assert [list(said) for said in asked[1][1]] == [one.ids for one in greedy]
            b = np.repeat([float(said[0]) + 10 * k for k, said in enumerate(asked[1][1])], S)
        else:
            b = (rewards.sum(axis=1, keepdims=True) - rewards).ravel() / (S - 1)
        mask = to_host(batch.mask)
        counted = [[1.0] + [float(END not in row[:t]) for t in range(1, len(row))] for row in ids]
        np.testing.assert_array_equal(mask, counted)
        assert words == mask.sum()
        advantages = ((rewards.ravel() - b) / (N * S))[:, None]
        np.testing.assert_allclose(to_host(batch.weights), mask * advantages, rtol=1e-12, atol=1e-15)
        _, cache = world.captioner.forward(params, world.config, batch, noises)
        if noise is not None:
            assert set(to_host(cache.looks).ravel()) == {0.0, 1.0}
    drawn, log_p, alphas = sample_words(
        world.captioner, params, world.config, to_device(annotations if noise is None else annotations[n], xp), uniform,
        noise if noise is None else to_device(noise, xp), temperature,
    )  # fmt: skip
    np.testing.assert_array_equal(drawn, to_host(batch.captions)[:, 1:])
    _, cache = world.captioner.forward(params, world.config, batch._replace(temperature=1.0), noises)
    found = to_host(cache.vocabulary.log_p).reshape(drawn.shape[::-1])
    np.testing.assert_allclose((mask.T * found).sum(axis=0), log_p, rtol=1e-10)
    looks = to_host(getattr(cache, "looks", cache.alphas))
    np.testing.assert_allclose(mask[:, :, None] * alphas, mask[:, :, None] * looks.transpose(1, 0, 2), rtol=1e-9)


def test_the_reward_counts_the_end_and_weighs_words_by_the_training_captions():
    captions = [[["a", "red", "ball"], ["a", "ball"]], [["a", "dog"]], [["two", "dogs", "run"]]]
    vocabulary = Vocabulary.build([c for of_photo in captions for c in of_photo], min_count=1)
    reward = Reward(vocabulary, captions)
    ended, cut = vocabulary.encode(["a", "ball"])[1:], vocabulary.encode(["a", "ball"])[1:-1]
    found = reward(np.array([0, 0, 1]), [ended, cut, ended])
    references = [["a red ball <end>", "a ball <end>"], ["a dog <end>"], ["two dogs run <end>"]]
    frequency = document_frequency(references)
    said = ["a ball <end>", "a ball", "a ball <end>"]
    _, wanted = cider_d(said, [references[0], references[0], references[1]], frequency)
    np.testing.assert_array_equal(found, wanted)
    assert found[0] > found[1] > 0 and frequency.photos == 3


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    root = write_flickr8k(tmp_path_factory.mktemp("world") / "data")
    return {split: load_split("flickr8k", split, root) for split in ("train", "val")}


KINDS = {
    "soft": ("show_attend_tell", {}), "hard": ("show_attend_tell", {"attention": "hard", "decoding": "sampling"}),
    "top_down": ("top_down", {}), "greedy": ("top_down", {}),
}  # fmt: skip


def trainer(splits, out, kind, trained=True, **values):
    name, more = KINDS[kind]
    baseline = "greedy" if kind == "greedy" else "leave_one_out"
    values = {"objective": "scst", "epochs": 2, "batch_size": 8, "samples": 3, "min_count": 1, "baseline": baseline} | values
    recipe = Recipe(**values)
    config = {"M": 8, "H": 12, "A": 6, **more}
    model = new_model(replace(PRESETS["scenes"], captioner=name, config=config, recipe=recipe), splits["train"])
    return Trainer(model, recipe, splits["train"], splits["val"], out, trained=trained)


def steps(trainer, count):
    for _ in range(count):
        trainer._train_step()
        trainer.step += 1


@pytest.mark.parametrize("kind", KINDS)
def test_it_resumes_to_the_same_bits(encoders, splits, tmp_path, kind):
    whole, cut = (trainer(splits, tmp_path / name, kind) for name in ("whole", "cut"))
    steps(whole, 5)
    steps(cut, 2)
    cut._begin()
    cut.save()
    again = trainer(splits, tmp_path / "cut", kind)
    again.resume()
    steps(again, 3)
    np.testing.assert_array_equal(again.params.flat, whole.params.flat)
    assert (again.nats, again.words, again.rewards, again.rewarded) == (
        whole.nats, whole.words, whole.rewards, whole.rewarded
    )  # fmt: skip
    assert whole.rewarded == 40


def test_the_recipe_gives_samples_baseline_and_temperature(encoders, splits, tmp_path, monkeypatch):
    asked, draw = [], self_critical.draw_captions
    monkeypatch.setattr("satnp.training.trainer.draw_captions", lambda *a: asked.append(a) or draw(*a))
    steps(trainer(splits, tmp_path, "greedy", temperature=0.5), 1)
    assert asked
    for given in asked:
        assert given[-2:] == ("greedy", 0.5) and len(given[4]) == 3 * len(given[3])


def test_rewards_rise(encoders, splits, tmp_path):
    """From random words, with the same eight photos at each step."""
    t = trainer(splits, tmp_path, "soft", batch_size=8, samples=16, learning_rate=0.02, warmup=0, schedule="constant")
    found, chosen = [], np.arange(8)
    for _ in range(16):
        t.order = [chosen]
        t.rewards = 0.0
        steps(t, 1)
        found.append(t.rewards / 8)
    assert np.mean(found[-4:]) > 1.15 * np.mean(found[:4])


def test_it_wants_a_captioner_that_can_caption_and_enough_samples(splits, encoders, tmp_path):
    with pytest.raises(InputError, match="scst needs a captioner that can caption already; add --init CHECKPOINT"):
        trainer(splits, tmp_path, "soft", trained=False).run()
    with pytest.raises(InputError, match="choose samples of 2 or more"):
        Recipe(objective="scst", samples=1)
    with pytest.raises(InputError, match="temperature is 0.0; choose a number above 0"):
        Recipe(objective="scst", temperature=0.0)
    with pytest.raises(InputError, match="objective is 'bleu'; choose cross_entropy or scst"):
        Recipe(objective="bleu")


def test_its_preset_takes_small_steps(tmp_path):
    (tmp_path / "s.toml").write_text('[recipe]\nobjective = "scst"\nepochs = 3\n')
    recipe = find_preset("flickr8k", path=tmp_path / "s.toml").recipe
    assert recipe.epochs == 3 and recipe.learning_rate < 1e-3 and recipe.temperature < 1
    assert recipe.select == "CIDEr" and recipe.length_power == 0.7
