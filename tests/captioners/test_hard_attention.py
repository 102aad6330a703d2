"""Hard attention at its edges: draws, rewards, masked and extreme scores, the smallest batches, and what a log is told."""

from dataclasses import replace

import numpy as np
import pytest

from satnp import estimators
from satnp.arrays.backend import to_device, to_host
from satnp.arrays.parameters import Parameters
from satnp.captioners import show_attend_tell as sat
from satnp.captioners.contract import Batch
from satnp.layers import softmax
from satnp.proof.captioners import sizes
from tests.captioners.test_captioner import HARD, assert_equal, each, gradients, world

MASKED = -np.inf
EXTREME = np.array([
    [0, 0, 0, 0, 0], [1, 2, MASKED, 4, 5], [1e4, 0, -1e4, 1, 2], [-1e4, MASKED, MASKED, -1e4, 1e4],
    [MASKED, MASKED, 3, MASKED, MASKED], [-1e4, -1e4, -1e4, -1e4, -1e4], [1e4, 1e4, MASKED, 0, 1e4],
])  # fmt: skip


@pytest.fixture(autouse=True)
def numbers_only():
    """Neither a NaN nor an overflow passes unseen, wherever NumPy computes."""
    # not invalid="raise": OpenBLAS flags that for numbers which it computes beside a matrix and drops
    with np.errstate(divide="raise", over="raise"):
        yield


def many_draws(xp, rng, count=100):
    """Scores (7 * count, 5) with their draws, on the host."""
    scores = np.repeat(EXTREME, count, axis=0).astype(np.float32)
    gumbel = rng.gumbel(size=scores.shape).astype(np.float32)
    return scores, to_host(estimators.draw(*(to_device(x, xp) for x in (scores, gumbel))))


def test_a_draw_is_one_location_and_never_a_masked_one(xp, rng):
    scores, sample = many_draws(xp, rng)
    assert set(sample.ravel()) == {0, 1} and (sample.sum(axis=1) == 1).all() and sample.dtype == np.float32
    assert not sample[np.isneginf(scores)].any()
    assert all(sample[scores == score].any() for score in (0, 1, 2, 3, 1e4))


def test_draws_are_as_frequent_as_alpha_says(xp, rng):
    count = 4000
    scores, sample = many_draws(xp, rng, count)
    found, alpha = sample.reshape(-1, count, 5).mean(axis=1), softmax(EXTREME)
    np.testing.assert_allclose(found, alpha, atol=4 * np.sqrt(0.25 / count))
    assert (found[alpha == 0] == 0).all() and (found[alpha == 1] == 1).all()


def test_infinite_numbers_force_a_place_and_zeros_take_the_best(xp, rng):
    scores, places = 10 * rng.standard_normal((3, 4, 5)), rng.integers(0, 5, (3, 4))
    forced = np.where(np.arange(5) == places[..., None], np.inf, 0.0)
    for gumbel, wanted in ((forced, places), (0 * scores, scores.argmax(axis=2))):
        sample = to_host(estimators.draw(to_device(scores, xp), to_device(gumbel, xp)))
        np.testing.assert_array_equal(sample, np.eye(5)[wanted])


def test_the_gradients_of_extreme_and_masked_scores_are_numbers(xp, rng):
    host, sample = many_draws(xp, rng, 3)
    scores, sample = to_device(host, xp), to_device(sample, xp)
    alpha, H = softmax(scores), to_host(estimators.entropy(scores))
    r = to_device(rng.normal(-30, 20, len(host)).astype(np.float32), xp)
    dsample, ahead = (to_device(rng.normal(-9, 5, host.shape).astype(np.float32), xp) for _ in range(2))
    gumbel = to_device(rng.gumbel(size=host.shape).astype(np.float32), xp)
    assert (H >= 0).all() and H.max() == pytest.approx(np.log(5), rel=1e-6)
    for dscores in (
        estimators.reinforce(sample, alpha, r),
        estimators.local_expectation(ahead, sample, alpha, r),
        estimators.entropy_gradient(scores, alpha, r),
        *(estimators.straight_through(dsample, scores, gumbel, temperature) for temperature in (0.01, 1, 100)),
    ):
        dscores = to_host(dscores)
        assert dscores.dtype == np.float32 and np.isfinite(dscores).all() and dscores.any()
        assert not dscores[np.isneginf(host)].any()
        np.testing.assert_allclose(dscores.sum(axis=1), 0, atol=1e-4)


def test_rewards_are_sums_over_words_that_a_choice_can_change(xp, rng):
    log_p, mask = rng.normal(-3, 1, (4, 3)), np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 0, 0.0]])
    for part, first in (("total", lambda t: 0), ("to_go", lambda t: t), ("after", lambda t: t + 1)):
        found = to_host(getattr(estimators, part)(to_device(log_p, xp), to_device(mask, xp)))
        for t in range(4):
            for n in range(3):
                wanted = sum(log_p[u, n] for u in range(first(t), 4) if mask[u, n])
                assert found[t, n] == pytest.approx(wanted, rel=1e-12, abs=1e-12), part


def test_the_moving_average_sees_sampled_images_only(xp):
    b = to_device(np.array(-4.0), xp)
    reward = to_device(np.array([-10.0, -3.0, -20.0]), xp)
    for sampled, wanted in (([1, 0, 1], 0.9 * -4 + 0.1 * -15), ([1, 1, 1], 0.9 * -4 + 0.1 * -11), ([0, 0, 0], -4)):
        found = estimators.moving_average(b, reward, to_device(np.array(sampled, float), xp))
        assert found.shape == () and float(to_host(found)) == pytest.approx(wanted, rel=1e-14)


def test_a_sample_is_compared_with_the_others(xp, rng):
    rewards = rng.standard_normal((3, 4, 2))
    found = to_host(estimators.leave_one_out(to_device(rewards, xp)))
    for s in range(3):
        np.testing.assert_allclose(found[s], np.mean([rewards[k] for k in range(3) if k != s], axis=0), rtol=1e-12)


EDGES = {
    "scores of 1e4": {"scale": 2e4},
    "unlikely choices": {"scale": 2e4, "spread": 1e6},
    "one location": {"L": 1},
    "one step": {"T": 1},
    "one image": {"N": 1},
    "one of each": {"N": 1, "T": 1, "L": 1},
    "only <end>": {"longest": 1},
}


def at_the_edge(config, xp, coins, N=3, T=4, L=5, longest=4, scale=1, spread=1):
    """float32 parameters, batch and noise; `coins` repeat over the images, scores and Gumbel numbers are blown up."""
    rng = np.random.default_rng(0)
    params = Parameters(sat.shapes(config), flat=0.5 * rng.standard_normal(sat.init(config, rng).flat.size))
    annotations = rng.standard_normal((N, L, config.D))
    scaled = annotations if config.f_att == "dot" else params["v" if config.f_att == "additive" else "W_a"]
    scaled *= scale
    mask = np.array([np.arange(T) < max(1, min(longest, T - n)) for n in range(N)])
    noise = sat.draw_noise(config, T, N, L, rng)
    noise = noise._replace(gumbel=spread * noise.gumbel, expected=np.resize(coins, N) > 0, baseline=np.array(-3.0))

    def device(x):
        return None if x is None else to_device(x if x.dtype == int else x.astype(np.float32), xp)

    batch = Batch(*map(device, (annotations, rng.integers(0, config.V, (N, T + 1)), mask)))
    return params.on(device(params.flat)), batch, sat.Noise(*map(device, noise))


@pytest.mark.slow
@pytest.mark.parametrize("edge", EDGES)
@each(HARD)
def test_everything_stays_a_number_at_the_edges(xp, choices, edge):
    for samples in range(choices["samples"], 4):
        for coins in ([0], [0, 1], [1]):
            config = sizes(**choices | {"samples": samples, "dropout": 0.4, "penalty": 0.7})
            params, batch, noise = at_the_edge(config, xp, coins, **EDGES[edge])
            loss, cache = sat.forward(params, config, batch, noise)
            grads = params.zeros_like()
            dannotations = sat.backward(cache, grads)
            made = {"loss": loss, "gradients": grads.flat, "annotations": dannotations, "baseline": cache.baseline}
            for name, x in (made | sat.diagnostics(cache.told)).items():
                assert np.isfinite(to_host(x)).all() and x.dtype == np.float32, name
            assert to_host(grads.flat).any() and dannotations.shape == batch.annotations.shape
            assert (float(to_host(cache.baseline)) == -3) == (coins == [1])
            if "scale" in EDGES[edge]:
                assert np.abs(to_host(cache.hard.scores)).max() > 1e4


@each([choices for choices in HARD if choices["f_att"] != "dot"])
def test_the_likelihood_stops_at_a_drawn_location(xp, choices):
    config = sizes(**choices | {"penalty": 0.0, "reward_weight": 0.0, "entropy_weight": 0.0, "dropout": 0.0})
    params, batch, noise = world(config, xp)
    names = [name for name in params if name in ("W_a", "W_s", "b_a", "v")]  # on which only the looking depends
    for coin in (0, 1):
        _, grads = gradients(sat, params, config, batch, noise._replace(expected=0 * noise.expected + coin))
        assert all(grads[name].any() == (coin == 1 or config.estimator == "gumbel_st") for name in names)
        assert all(grads[name].any() for name in ("W_z", "L_z", "W_beta", "E"))


@each(HARD)
def test_an_image_at_its_expected_value_is_soft_attention(xp, choices):
    config = sizes(**choices | {"entropy_weight": 0.0})
    params, batch, noise = world(config, xp)
    noise = noise._replace(expected=0 * noise.expected + 1, baseline=0 * noise.baseline)
    soft = replace(config, attention="soft")
    assert_equal(*(gradients(sat, params, c, batch, noise) for c in (config, soft)), 1e-12)


@each(HARD)
def test_with_one_location_there_is_nothing_to_choose(xp, choices):
    config = sizes(**choices)
    params, batch, noise = world(config, xp)
    batch, noise = batch._replace(annotations=batch.annotations[:, :1]), noise._replace(gumbel=noise.gumbel[:, :, :1])
    hard, soft = (gradients(sat, params, c, batch, noise) for c in (config, replace(config, attention="soft")))
    hard[1]["baseline"] = soft[1]["baseline"]
    assert_equal(hard, soft, 1e-12)
    assert not any(hard[1][name].any() for name in hard[1] if name in ("W_s", "v"))


@each([choices for choices in HARD if choices["baseline"] != "leave_one_out"])
def test_samples_that_look_alike_are_one_sample(xp, choices):
    config = sizes(**choices)
    params, batch, noise = world(config, xp)
    one = gradients(sat, params, config, batch, noise)
    alike = noise._replace(gumbel=xp.concatenate([noise.gumbel] * 3, axis=1))
    assert_equal(gradients(sat, params, replace(config, samples=3), batch, alike), one, 1e-12)


@each(HARD)
def test_the_first_pass_meets_a_baseline_of_0(xp, choices):
    config = sizes(**choices)
    params, batch, noise = world(config, xp, np.float32)
    first, second = (noise._replace(baseline=b) for b in (None, 0 * noise.baseline))
    assert_equal(*(gradients(sat, params, config, batch, n) for n in (first, second)), 0)
    _, cache = sat.forward(params, config, batch, first)
    assert cache.baseline.dtype == cache.hard.baseline.dtype == np.float32


@pytest.mark.parametrize("reward", sat.CHOICES["reward"])
@each(HARD)
def test_the_cost_and_the_diagnostics_are_what_they_are_called(xp, choices, reward):
    config = sizes(**choices | {"reward": reward, "penalty": 0.7})
    params, batch, noise = world(config, xp)
    loss, cache = sat.forward(params, config, batch, noise)
    alphas, looks, log_p = (to_host(x) for x in (cache.alphas, cache.looks, cache.hard.log_p))
    captions, mask, coins = to_host(batch.captions), to_host(batch.mask), to_host(noise.expected)
    h, W_beta, b_beta = to_host(cache.h_prev), to_host(params.W_beta), to_host(params.b_beta)
    N, S, words = len(captions), config.samples, int(mask.sum())
    nll = penalty = entropy = beta = 0
    rewards = []
    for row in range(S * N):
        n, looked, r = row % N, 0, 0
        for t in range(int(mask[n].sum())):
            alpha = alphas[t, row]
            nll -= log_p[t, row] / (S * N)
            r += log_p[t, row]
            looked = looked + alpha
            entropy -= sum(a * np.log(a) for a in alpha)
            beta += np.mean(1 / (1 + np.exp(-(h[t, row] @ W_beta + b_beta))))
            assert np.array_equal(looks[t, row], alpha) if coins[n] else sorted(looks[t, row])[-2:] == [0, 1]
        penalty += ((1 - looked) ** 2).sum() / (S * N)
        if not coins[n]:
            rewards.append(r / mask[n].sum() if reward == "mean" else r)
    cost = nll + 0.7 * penalty - config.entropy_weight * entropy / (S * N)
    wanted = {
        "alpha_entropy": entropy / (S * words), "beta": beta / (S * words), "reward": np.mean(rewards),
        "baseline": -3, "expected": np.mean(coins),
    }  # fmt: skip
    found = {name: float(to_host(x)) for name, x in sat.diagnostics(cache.told).items()}
    assert found == pytest.approx(wanted, rel=1e-12)
    assert float(to_host(loss)) == pytest.approx(cost, rel=1e-12)
    assert float(to_host(cache.nll)) == pytest.approx(nll, rel=1e-12)
    assert float(to_host(cache.baseline)) == pytest.approx(0.9 * -3 + 0.1 * np.mean(rewards), rel=1e-12)


def test_with_soft_attention_there_is_no_reward_to_log(xp):
    config = sizes("additive", "scalar")
    params, batch, noise = world(config, xp)
    _, cache = sat.forward(params, config, batch, noise)
    assert sat.diagnostics(cache.told).keys() == {"alpha_entropy", "beta"} and cache.baseline is None
