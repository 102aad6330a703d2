"""Hard attention by enumeration: a caption of T = 3 words and L = 3 locations has only L^T = 27 paths of locations.

Training samples paths. Here all paths are computed: the bound L_s = sum_s p(s) log p(y | s), its exact gradient, and the
mean and the variance of a score-function estimator over all draws. The captioner's own backward pass computes the
estimates, path by path.
"""

from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import to_device, to_host, xp_of
from satnp.arrays.parameters import Parameters
from satnp.captioners import show_attend_tell as sat
from satnp.captioners.contract import Batch
from satnp.estimators import choices, entropy
from satnp.proof.gradcheck import numeric_gradient

L, T = 3, 3
PATHS = np.array(list(product(range(L), repeat=T)))  # (L^T, T)


class World(NamedTuple):
    """One caption of one photo, and a captioner that is small enough to enumerate its paths."""

    params: Parameters
    config: sat.Config
    batch: Batch


class Paths(NamedTuple):
    """P paths, for a captioner of F parameters."""

    p: object           # (P,), the probability of each path
    log_p: object       # (P, T), log p of the words
    likelihood: object  # (P, F), the gradient of -sum_t log p(y_t) for the locations of the path
    local: object       # (P, F), likelihood with local_expectation's term, each word's log p averaged over its own location
    scores: object      # (P, T, F), the gradient of -log alpha_t[s_t]


def small_world(seed=0, **choices):
    """A random World with L locations, T words and float64 parameters; `choices` go to its Config.

    The annotations are large, so that the locations have a large effect on the words.
    """
    rng = np.random.default_rng(seed)
    config = sat.Config(V=6, D=4, M=3, H=5, A=4, attention="hard", coin="none", baseline="none", dropout=0.0,
                        penalty=0.0, entropy_weight=0.0)  # fmt: skip
    config = replace(config, **choices)
    params = Parameters(sat.shapes(config), flat=0.9 * rng.standard_normal(sat.init(config, rng).flat.size))
    batch = Batch(4 * rng.standard_normal((1, L, config.D)), rng.integers(0, config.V, (1, T + 1)), np.ones((1, T)))
    return World(params, config, batch)


def single(world):
    """The same world with one path for each estimate and no baseline."""
    return world._replace(config=replace(world.config, samples=1, baseline="none"))


def walk(world, paths, expected=0, baseline=0.0, flat=None):
    """Forward pass along given locations: paths (P, T), one row of the minibatch for each path -> cache"""
    params = world.params if flat is None else world.params.on(flat)
    xp, rows = xp_of(params.flat), len(paths) // world.config.samples
    gumbel = np.where(np.arange(L) == paths.T[:, :, None], np.inf, 0.0)
    batch = Batch(*(to_device(np.repeat(x, rows, axis=0), xp) for x in world.batch[:3]))
    noise = {"gumbel": gumbel, "expected": np.full(rows, float(expected)), "baseline": np.array(baseline)}
    noise = sat.Noise(**{name: to_device(x, xp) for name, x in noise.items()})
    return sat.forward(params, world.config, batch, noise)[1]


def gradient(cache):
    """The gradients of the backward pass as one flat vector, (F,)."""
    grads = cache.params.zeros_like()
    sat.backward(cache, grads, frozen=True)
    return grads.flat


def path_probabilities(cache, paths=PATHS):
    """p(s) = product over t of alpha_t[s_t]: (P,)"""
    chosen = to_device((np.arange(L) == paths.T[:, :, None]).astype(float), xp_of(cache.alphas))
    return (cache.alphas * chosen).sum(axis=2).prod(axis=0)


def expected_cost(world, flat=None):
    """E[C] over all paths, with the config's penalty and entropy term; without these it is -L_s of eq. 10: ()"""
    cache = walk(single(world), PATHS, flat=flat)
    looked = cache.alphas.sum(axis=0) - 1
    cost = -cache.hard.log_p.sum(axis=0) + world.config.penalty * (looked * looked).sum(axis=1)
    cost = cost - world.config.entropy_weight * entropy(cache.hard.scores).sum(axis=0)
    return (path_probabilities(cache) * cost).sum()


def exact_gradient(world):
    """The gradient of expected_cost by complex step, (F,)."""
    return numeric_gradient(lambda flat: expected_cost(world, flat), world.params.flat)


def expected_gradient(world, baseline=0.0):
    """The mean of the captioner's own gradient over all draws of S = config.samples paths, (F,)."""
    p = to_host(path_probabilities(walk(single(world), PATHS)))
    mean = 0
    for chosen in product(range(len(PATHS)), repeat=world.config.samples):
        mean = mean + p[list(chosen)].prod() * gradient(walk(world, PATHS[list(chosen)], baseline=baseline))
    return mean


def soft_gradient(world):
    """The gradient of the cost if every step uses the expected value alpha_t in place of s_t, (F,)."""
    return gradient(walk(world, PATHS[:1], expected=1))


def enumerate_paths(world):
    """All paths and their gradients, by the captioner's own forward and backward passes -> Paths"""
    world = single(world)
    to_go_world = world._replace(config=replace(world.config, estimator="reward_to_go"))
    local_world = world._replace(config=replace(world.config, estimator="local_expectation"))
    likelihood, local, scores = [], [], []
    for path in PATHS[:, None]:
        cache = walk(to_go_world, path)
        # log p = 0, then log p = 1 for word t alone, which gives steps 0 to t a reward to go of 1
        paid = [gradient(_with_log_p(cache, np.arange(T) == t)) for t in (-1, *range(T))]
        likelihood.append(paid[0])
        scores.append(np.diff(paid, axis=0))
        local.append(gradient(_with_log_p(walk(local_world, path), np.zeros(T))))
    cache = walk(world, PATHS)
    return Paths(path_probabilities(cache), cache.hard.log_p.T, *map(np.array, (likelihood, local, scores)))


def _with_log_p(cache, log_p):
    return cache._replace(hard=cache.hard._replace(log_p=log_p[:, None].astype(float)))


def moments(paths, estimator, baseline, S):
    """Mean (F,) and variance, E |g - E g|^2, of the estimate from S independent paths, over all draws.

    With leave_one_out the S terms g_k = g - b_k K depend on each other through their baselines b_k; K is paths.scores, R
    the rewards. As E[K] = 0, most products vanish:

        E|g_k|^2 = E|g|^2 - 2 E[b] E[g K] + E[b b'] K K'
        E[g_k g_l] = |E g|^2 + E[R K] E[R K]' / (S - 1)^2
    """
    p, K = paths.p, paths.scores
    path_part = paths.local if estimator == "local_expectation" else paths.likelihood
    part = choices.REWARDS[estimator]
    R = part(paths.log_p.T, np.ones(paths.log_p.T.shape)).T  # (P, T)
    b = np.zeros(T)
    if baseline == "moving_average":  # its limit E[r]; a part of the caption gets its words' share
        words = part(np.ones((T, 1)), np.ones((T, 1)))[:, 0]
        b = (p @ paths.log_p.sum(axis=1)) * words / T
    g = path_part + np.einsum("pt,ptf->pf", R - b, K)
    mean = p @ g
    square = p @ (g * g).sum(axis=1)
    if baseline != "leave_one_out":
        return mean, (square - mean @ mean) / S
    mu = p @ R
    covariance = (R - mu).T @ (p[:, None] * (R - mu))
    gK = np.einsum("p,pf,ptf->t", p, g, K)
    KK = np.einsum("p,ptf,puf->tu", p, K, K)
    RK = np.einsum("p,pt,puf->tuf", p, R, K)
    square += -2 * mu @ gK + ((np.outer(mu, mu) + covariance / (S - 1)) * KK).sum()
    product = mean @ mean + np.einsum("tuf,utf->", RK, RK) / (S - 1) ** 2
    return mean, square / S + (S - 1) / S * product - mean @ mean


def with_coin(mean, variance, soft):
    """Mean and variance of an estimate that is `soft` with probability 1/2, else has the given mean and variance."""
    both = 0.5 * (mean + soft)
    return both, 0.5 * (variance + mean @ mean + soft @ soft) - both @ both
