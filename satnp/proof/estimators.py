"""Gradient checks of hard attention's estimators and of their expectations, and the mistakes that they must catch."""

import numpy as np

from satnp import estimators, layers
from satnp.captioners import hard_attention
from satnp.estimators import choices, score_function
from satnp.proof import enumeration
from satnp.proof.cases import inputs, pack, sampled_log_p, unpack
from satnp.proof.gradcheck import Case, Draws
from satnp.proof.planting import Bug


def _estimator(name, value, gradient, constants, **entries):
    """The Case of an estimator: `gradient` must be that of value(scores, *rest) -> (N,) with respect to the scores."""

    def forward(scores, *rest):
        return value(scores, *rest), (scores, *rest)

    def backward(dout, cache):
        return gradient(dout, *cache)

    return Case(f"estimators/{name}", inputs(**entries), forward, backward, constants)


def _one_hot(rng, N=3, L=5):
    return np.eye(L)[rng.integers(0, L, N)]


def _extreme(rng):
    """Scores (3, 5), some so low that their softmax weight is exactly 0."""
    scores = rng.standard_normal((3, 5))
    scores[0, 1], scores[1, 2:] = 1e4, -1e4
    return scores


ESTIMATORS = [
    _estimator(
        "reinforce", lambda e, s, r: -r * sampled_log_p(e, s),
        lambda d, e, s, r: estimators.reinforce(s, layers.softmax(e), d * r), ("sample", "advantage"),
        scores=(3, 5), sample=_one_hot, advantage=(3,),
    ),
    _estimator(
        "local_expectation", lambda e, s, r, a: -(layers.softmax(e) * a).sum(axis=-1) - r * sampled_log_p(e, s),
        lambda d, e, s, r, a: estimators.local_expectation(d[:, None] * a, s, layers.softmax(e), d * r),
        ("sample", "advantage", "ahead"), scores=(3, 5), sample=_one_hot, advantage=(3,), ahead=(3, 5),
    ),
    _estimator(
        "entropy", lambda e: -estimators.entropy(e),
        lambda d, e: estimators.entropy_gradient(e, layers.softmax(e), d), (), scores=(3, 5),
    ),
    _estimator(
        "entropy with weights of 0", lambda e: -estimators.entropy(e),
        lambda d, e: estimators.entropy_gradient(e, layers.softmax(e), d), (), scores=_extreme,
    ),
    _estimator(
        "straight_through", lambda e, g: layers.softmax((e + g) / 0.7),
        lambda d, e, g: estimators.straight_through(d, e, g, 0.7), ("gumbel",),
        scores=(3, 5), gumbel=lambda rng: rng.gumbel(size=(3, 5)),
    ),
]  # fmt: skip


def _expectation(estimator, baseline, b=0.0, samples=1):
    """The Case of hard attention's mean gradient over all paths: it must be the gradient of the enumerated bound, eq. 10."""
    tiny = enumeration.small_world(estimator=estimator, baseline=baseline, samples=samples)
    shapes = tiny.params.shapes

    def world(weights):
        return tiny._replace(params=pack(shapes, weights))

    def forward(*weights):
        return enumeration.expected_cost(world(weights)), weights

    def backward(dcost, weights):
        params = world(weights).params
        return unpack(params.on(enumeration.expected_gradient(world(weights), b)), dcost)

    return Case(f"expectations/{estimator} {baseline}", lambda rng: dict(tiny.params.items()), forward, backward)


WEIGHTS = np.array([0.05, 0.15, 0.3, 0.5])


def _locations(rng, count):
    """`count` locations that hard attention draws with the probabilities WEIGHTS."""
    scores = np.log(WEIGHTS) + np.zeros((count, 1))
    return estimators.draw(scores, rng.gumbel(size=scores.shape)).argmax(axis=1).tolist()


CASES = [
    *ESTIMATORS,
    *(
        _expectation(estimator, baseline, b, samples)
        for estimator in ("reinforce", "reward_to_go", "local_expectation")
        for baseline, b, samples in (("none", 0.0, 1), ("moving_average", -3.3, 1), ("leave_one_out", 0.0, 2))
    ),
    Draws("draws/locations", _locations, dict(enumerate(WEIGHTS))),
]

BUGS = [
    Bug("sign of REINFORCE", estimators.reinforce,
        "return -advantage", "return advantage", "estimators/reinforce", {"sign"}),
    Bug("sign of the entropy term", estimators.entropy_gradient,
        "return weight", "return -weight", "estimators/entropy", {"sign"}),
    Bug("log(alpha) where alpha is 0", score_function._alpha_log_alpha,
        "alpha * xp.where(alpha == 0, 0, log_alpha)", "alpha * xp.log(alpha)",
        "estimators/entropy with weights of 0", {"non-finite"}),
    Bug("Gumbel-softmax not divided by its temperature", estimators.straight_through,
        "keepdims=True)) / temperature", "keepdims=True))", "estimators/straight_through", {"factor"}),
    Bug("this word counted twice", choices.advantage,
        "REWARDS[config.estimator]", "REWARDS['reward_to_go']",
        "expectations/local_expectation none", {"term", "block"}),
    Bug("the words after this one forgotten", choices.advantage,
        "return rewards\n", "return rewards * 0\n", "expectations/local_expectation none", {"term", "block"}),
    Bug("baseline updated before use", hard_attention.choices_forward,
        "    hard = Hard(", "    from satnp.estimators import moving_average\n"
        "    baseline = moving_average(baseline, (mask * log_p).sum(axis=0), 1 - noise.expected)\n"
        "    hard = Hard(", "expectations/reinforce moving_average", {"factor", "term", "block"}),
    Bug("own sample in the mean", estimators.leave_one_out,
        "(rewards.sum(axis=0) - rewards) / (len(rewards) - 1)", "rewards.mean(axis=0) + 0 * rewards",
        "expectations/reinforce leave_one_out", {"factor", "term", "block"}),
    Bug("locations drawn without Gumbel's second logarithm", estimators.draw,
        "scores + gumbel", "scores + xp.exp(-gumbel)", "draws/locations", {"distribution"}),
]  # fmt: skip
