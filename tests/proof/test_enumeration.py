"""Hard attention proved by enumeration: Xu et al. 2015, section 4.1, on captions with 27 ways to look."""

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest

from satnp.estimators import choices
from satnp.proof.enumeration import (
    PATHS,
    L,
    T,
    enumerate_paths,
    exact_gradient,
    expected_cost,
    expected_gradient,
    gradient,
    moments,
    path_probabilities,
    small_world,
    soft_gradient,
    walk,
    with_coin,
)
from satnp.proof.gradcheck import numeric_gradient

ESTIMATORS = "reinforce", "reward_to_go", "local_expectation"
slow = pytest.mark.slow


def distance(g, n):
    return np.linalg.norm(g - n) / np.linalg.norm(n)


@cache
def exact_of(f_att, gate):
    """The exact gradient of a world of seed 1: the estimator is no part of it."""
    return exact_gradient(small_world(1, f_att=f_att, gate=gate))


@pytest.fixture(scope="module")
def world():
    return small_world()


@pytest.fixture(scope="module")
def exact(world):
    return exact_gradient(world)


@pytest.fixture(scope="module")
def paths(world):
    return enumerate_paths(world)


@pytest.fixture(scope="module")
def parts(paths):
    """The exact gradient as path part and score part: E[d log p(y | s)] and E[r d log p(s)], of the cost."""
    reward = paths.log_p.sum(axis=1)
    return paths.p @ paths.likelihood, np.einsum("p,ptf->f", paths.p * reward, paths.scores)


def with_config(world, **choices):
    return world._replace(config=replace(world.config, **choices))


@pytest.fixture(scope="module")
def of_pairs(world, paths):
    """function(estimator, baseline) -> probability (pairs,) and gradient (pairs, F) of each pair of paths"""

    @cache
    def of(estimator, baseline):
        config = with_config(world, estimator=estimator, baseline=baseline, samples=2)
        chosen = [list(pair) for pair in product(range(len(PATHS)), repeat=2)]
        p = np.array([paths.p[pair].prod() for pair in chosen])
        return p, np.array([gradient(walk(config, PATHS[pair])) for pair in chosen])

    return of


def test_the_paths_are_all_there_is(paths):
    assert len(set(map(tuple, PATHS))) == L**T == len(paths.p)
    assert paths.p.sum() == pytest.approx(1, abs=1e-14) and paths.p.min() > 0
    np.testing.assert_allclose(np.einsum("p,ptf->tf", paths.p, paths.scores), 0, atol=1e-13)  # E[d log p(s)] = 0


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=slow) for seed in (1, 2))])
def test_1_the_sum_over_paths_is_the_gradient_of_the_bound(seed):
    world = small_world(seed)
    paths = enumerate_paths(world)
    each = paths.likelihood + paths.log_p.sum(axis=1)[:, None] * paths.scores.sum(axis=1)
    assert distance(paths.p @ each, exact_gradient(world)) <= 1e-12


@pytest.mark.parametrize("f_att", ["additive", pytest.param("general", marks=slow)])
@pytest.mark.parametrize("gate", ["scalar", pytest.param("vector", marks=slow)])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_2_the_mean_of_the_estimator_is_the_exact_gradient(estimator, f_att, gate):
    world = small_world(1, estimator=estimator, f_att=f_att, gate=gate)
    assert distance(expected_gradient(world), exact_of(f_att, gate)) <= 1e-12


@pytest.mark.parametrize("b", [-3.3, *(pytest.param(b, marks=slow) for b in (0.0, 250.0, -1e4))])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_2_an_old_moving_average_moves_no_mean(world, exact, estimator, b):
    found = expected_gradient(with_config(world, estimator=estimator, baseline="moving_average"), b)
    assert distance(found, exact) <= 1e-12 * (1 + abs(b) / 100)


@slow
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_2_leaving_one_out_moves_no_mean(of_pairs, exact, estimator):
    p, g = of_pairs(estimator, "leave_one_out")
    assert distance(p @ g, exact) <= 1e-12


@slow
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_2_the_expected_gradient_of_pairs_is_their_mean(world, of_pairs, estimator):
    p, g = of_pairs(estimator, "leave_one_out")
    found = expected_gradient(with_config(world, estimator=estimator, baseline="leave_one_out", samples=2))
    assert distance(found, p @ g) <= 1e-12


def test_2_a_baseline_may_know_the_steps_before_and_nothing_else(paths, exact, rng):
    def mean(depends):
        """With a b_t that is another random number for each value of the choices that `depends` picks from a path."""
        known = {}
        b = [[known.setdefault((t, depends(path, t)), rng.normal()) for t in range(T)] for path in map(tuple, PATHS)]
        advantage = paths.log_p.sum(axis=1)[:, None] - b
        return paths.p @ (paths.likelihood + np.einsum("pt,ptf->pf", advantage, paths.scores))

    assert distance(mean(lambda path, t: path[:t]), exact) <= 1e-12
    assert distance(mean(lambda path, t: path[t]), exact) > 1e-2
    assert distance(mean(lambda path, t: path[t + 1 :]), exact) > 1e-3


def test_3_a_weight_of_the_reward_weighs_the_score_part(world, exact, parts):
    assert distance(sum(parts), exact) <= 1e-12
    found = expected_gradient(with_config(world, reward_weight=0.3))
    assert distance(found, parts[0] + 0.3 * parts[1]) <= 1e-12 and distance(found, exact) > 0.1


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_3_a_mean_reward_weighs_it_by_one_over_T(world, parts, estimator):
    found = expected_gradient(with_config(world, reward="mean", reward_weight=2.0, estimator=estimator))
    assert distance(found, parts[0] + 2 / T * parts[1]) <= 1e-12


def test_3_the_path_part_is_not_f_atts_and_the_score_part_not_the_output_layers(world, parts):
    path, score = (world.params.on(part) for part in parts)
    for name in ("W_a", "W_s", "b_a", "v"):
        assert not path[name].any() and score[name].any()
    for name in ("L_h", "L_z", "L_o", "b_o"):
        assert path[name].any() and not score[name].any()


def test_3_the_coin_is_half_the_bound_and_half_soft_attention(world, exact):
    def soft_cost(flat):
        return -walk(world, PATHS[:1], expected=1, flat=flat).hard.log_p.sum()

    soft = numeric_gradient(soft_cost, world.params.flat)
    assert distance(soft_gradient(world), soft) <= 1e-12
    mean = 0.5 * expected_gradient(world) + 0.5 * gradient(walk(world, PATHS[:1], expected=1))
    assert distance(mean, 0.5 * (exact + soft)) <= 1e-12 and distance(mean, exact) > 0.1


@pytest.mark.parametrize("N", [1, pytest.param(2, marks=slow)])
def test_3_a_baseline_updated_before_use_loses_a_tenth_over_N(world, parts, paths, N):
    config, b, mean = with_config(world, baseline="moving_average"), -3.3, 0
    for chosen in map(list, product(range(len(PATHS)), repeat=N)):
        updated = 0.9 * b + 0.1 * paths.log_p[chosen].sum() / N
        mean = mean + paths.p[chosen].prod() * gradient(walk(config, PATHS[chosen], baseline=updated))
    assert distance(mean, parts[0] + (1 - 0.1 / N) * parts[1]) <= 1e-12


@slow
def test_3_the_own_sample_in_the_mean_loses_one_over_S(world, parts, monkeypatch):
    monkeypatch.setattr(choices, "leave_one_out", lambda rewards: rewards.mean(axis=0) + 0 * rewards)
    found = expected_gradient(with_config(world, baseline="leave_one_out", samples=2))
    assert distance(found, parts[0] + (1 - 1 / 2) * parts[1]) <= 1e-12


@pytest.mark.parametrize(
    ("penalty", "entropy_weight"), [pytest.param(1.0, 0.0, marks=slow), pytest.param(0.0, 0.1, marks=slow), (0.7, 0.3)]
)
def test_3_penalty_and_entropy_are_gradients_along_the_path_only(penalty, entropy_weight):
    world = small_world(penalty=penalty, entropy_weight=entropy_weight)
    whole, paths, cache = exact_gradient(world), enumerate_paths(world), walk(world, PATHS)
    looked = cache.alphas.sum(axis=0)
    terms = penalty * ((1 - looked) ** 2).sum(axis=1)
    terms += entropy_weight * (cache.alphas * np.log(cache.alphas)).sum(axis=(0, 2))
    left_out = -np.einsum("p,ptf->f", paths.p * terms, paths.scores)
    found = expected_gradient(world)
    assert distance(found + left_out, whole) <= 1e-12
    assert np.linalg.norm(left_out) > 1e-4 * np.linalg.norm(whole)


def test_4_each_part_of_the_variance_goes_down(world, paths):
    def variance(estimator, baseline):
        return moments(paths, estimator, baseline, 2)[1]

    plain = variance("reinforce", "none")
    assert variance("local_expectation", "none") < variance("reward_to_go", "none") < plain
    for estimator in ESTIMATORS:
        for baseline in ("moving_average", "leave_one_out"):
            assert variance(estimator, baseline) < 0.1 * plain
    left = [variance(estimator, "leave_one_out") for estimator in ESTIMATORS]
    assert left == sorted(left, reverse=True)


def test_4_a_bad_baseline_raises_the_variance(world, paths):
    def variance(b):
        world_b = with_config(world, baseline="moving_average")
        g = np.array([gradient(walk(world_b, path, baseline=b)) for path in PATHS[:, None]])
        return paths.p @ (g * g).sum(axis=1) - ((paths.p @ g) ** 2).sum()

    near = paths.p @ paths.log_p.sum(axis=1)
    assert variance(near) == pytest.approx(moments(paths, "reinforce", "moving_average", 1)[1], rel=1e-10)
    assert variance(near) < variance(0.0) < variance(-near)


@slow
@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_4_the_moments_of_pairs_are_those_of_all_pairs(of_pairs, paths, estimator, baseline):
    p, g = of_pairs(estimator, baseline)
    mean, variance = moments(paths, estimator, baseline, 2)
    assert distance(mean, p @ g) <= 1e-12
    assert variance == pytest.approx(p @ ((g - p @ g) ** 2).sum(axis=1), rel=1e-10)


def test_4_the_moments_of_triples_with_a_coin_are_those_of_draws(world, paths, rng):
    triples, S, draws = with_config(world, baseline="leave_one_out", samples=3), 3, 4000
    soft, reward = soft_gradient(world), paths.log_p.sum(axis=1)
    mean, variance = with_coin(*moments(paths, "reinforce", "leave_one_out", S), soft)
    chosen = rng.choice(len(PATHS), size=(draws, S), p=paths.p)
    b = (reward[chosen].sum(axis=1, keepdims=True) - reward[chosen]) / (S - 1)
    g = (paths.likelihood[chosen] + ((reward[chosen] - b)[:, :, None] * paths.scores.sum(axis=1)[chosen])).mean(axis=1)
    np.testing.assert_allclose(g[0], gradient(walk(triples, PATHS[chosen[0]])), rtol=1e-9, atol=1e-12)
    g[rng.random(draws) < 0.5] = soft
    squares = ((g - mean) ** 2).sum(axis=1)
    assert squares.mean() == pytest.approx(variance, abs=4 * squares.std() / draws**0.5)


@pytest.mark.parametrize("seed", range(5))
def test_5_the_bound_is_below_the_likelihood(seed):
    world = small_world(seed)
    cache = walk(world, PATHS)
    likelihood = np.log((path_probabilities(cache) * np.exp(cache.hard.log_p.sum(axis=0))).sum())
    bound = -expected_cost(world)
    assert bound < likelihood - 1e-4
    same = world.batch.annotations[:, :1].repeat(L, axis=1)  # wherever one looks one sees the same
    world = world._replace(batch=world.batch._replace(annotations=same))
    cache = walk(world, PATHS)
    likelihood = np.log((path_probabilities(cache) * np.exp(cache.hard.log_p.sum(axis=0))).sum())
    assert -expected_cost(world) == pytest.approx(likelihood, abs=1e-13)
