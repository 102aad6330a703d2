"""A5, the REINFORCE estimator: draws, rewards, baselines, and the proof that its mean is the exact gradient."""

import numpy as np

from lessons.assignments.choices import BoundCache, bound_backward, bound_forward, choices_backward, every_path
from lessons.assignments.declare import Assignment, Task
from satnp.estimators.gumbel import draw
from satnp.estimators.rewards import after, leave_one_out, moving_average, to_go, total
from satnp.estimators.score_function import entropy, entropy_gradient, local_expectation, reinforce
from satnp.layers.softmax import log_softmax, softmax_forward


def choice(rng, N, L, never=False):
    scores = rng.standard_normal((N, L))
    if never:
        scores[:, 0] = -np.inf
    return {"scores": scores, "gumbel": rng.gumbel(size=(N, L))}


def words(rng, T, N, hole=False):
    lengths = rng.integers(1, T + 1, N)
    lengths[0] = T
    mask = (np.arange(T)[:, None] < lengths).astype(float)
    if hole:
        mask[1, 0] = 0
    return {"log_p": -rng.random((T, N)), "mask": mask}


def average(rng, N, drawn):
    sampled = (np.arange(N) < drawn).astype(float)
    return {"baseline": np.array(-rng.random()), "reward": -rng.random(N), "sampled": sampled}


def samples(rng, S, T, N):
    return {"rewards": rng.standard_normal((S, T, N))}


def _looks(rng, *shape, scale=1):
    """-> sample, alpha and the random scores of both"""
    scores = scale * rng.standard_normal(shape)
    (alpha, _), sample = softmax_forward(scores), draw(scores, rng.gumbel(size=shape))
    return sample, alpha, scores


def chosen(rng, T, N, L):
    sample, alpha, _ = _looks(rng, T, N, L)
    return {"sample": sample, "alpha": alpha, "advantage": rng.standard_normal((T, N))}


def expected(rng, T, N, L):
    return {"ahead": -rng.random((T, N, L)), **chosen(rng, T, N, L)}


def spread(rng, N, L, scale=1):
    return {"scores": scale * rng.standard_normal((N, L))}


def weighted(rng, N, L, scale=1):
    _, alpha, scores = _looks(rng, N, L, scale=scale)
    return {"scores": scores, "alpha": alpha, "weight": rng.random(N)}


def paths(rng, T, L):
    return {"scores": rng.standard_normal((T, L)), "rewards": rng.standard_normal(L**T)}


def captions(rng, S, T, N, L, entropy_weight, hole=False):
    sample, _, scores = _looks(rng, S, T, N, L)
    mask = words(rng, T, N, hole)["mask"]
    return {
        "scores": scores, "sample": sample, "log_p": -rng.random((S, T, N)), "mask": mask, "entropy_weight": entropy_weight,
    }  # fmt: skip


def _plain(name, function, make, output, points, usual, edges, uses=()):
    """The Task of a function without a backward that returns one array."""
    return Task(name, function, None, make, (output,), usual, edges, {output: points}, cache=False, uses=uses)


STEPS, EDGE = ({"T": 5, "N": 3}, {"T": 4, "N": 2}), ({"T": 1, "N": 2}, {"T": 3, "N": 1}, {"T": 4, "N": 3, "hole": True})
PLACES, ALONE = ({"T": 3, "N": 4, "L": 5}, {"T": 2, "N": 3, "L": 4}), ({"T": 1, "N": 1, "L": 2}, {"T": 2, "N": 3, "L": 1})
ROWS, SURE = ({"N": 3, "L": 5}, {"N": 4, "L": 2}), ({"N": 1, "L": 3}, {"N": 3, "L": 4, "scale": 900})

ASSIGNMENT = Assignment(
    name="A5",
    title="the REINFORCE estimator",
    cut=(
        draw, total, to_go, after, moving_average, leave_one_out, reinforce, local_expectation, entropy, entropy_gradient,
        bound_forward, bound_backward, choices_backward,
    ),
    given=(softmax_forward, log_softmax, every_path, BoundCache),
    tasks=(
        _plain("draw", draw, choice, "sample", 8, ROWS, ({"N": 1, "L": 1}, {"N": 4, "L": 3, "never": True})),
        _plain("total", total, words, "rewards", 4, STEPS, EDGE),
        _plain("to go", to_go, words, "rewards", 6, STEPS, EDGE),
        _plain("after", after, words, "rewards", 4, STEPS, EDGE, ("to go",)),
        _plain("moving average", moving_average, average, "baseline_next", 8,
               ({"N": 4, "drawn": 3}, {"N": 5, "drawn": 2}), ({"N": 1, "drawn": 1}, {"N": 3, "drawn": 0})),
        _plain("leave one out", leave_one_out, samples, "baselines", 10,
               ({"S": 4, "T": 2, "N": 3}, {"S": 3, "T": 4, "N": 5}), ({"S": 2, "T": 1, "N": 1},)),
        _plain("reinforce", reinforce, chosen, "dscores", 10, PLACES, ALONE),
        _plain("local expectation", local_expectation, expected, "dscores", 8, PLACES, ALONE, ("reinforce",)),
        _plain("entropy", entropy, spread, "H", 3, ROWS, SURE),
        _plain("entropy's gradient", entropy_gradient, weighted, "dscores", 9, ROWS, SURE, ("entropy",)),
        Task(
            "bound", bound_forward, bound_backward, paths, ("bound",),
            usual=({"T": 3, "L": 3}, {"T": 2, "L": 4}), edges=({"T": 1, "L": 2}, {"T": 3, "L": 1}),
            points={"bound": 3, "dscores": 9, "drewards": 3}, uses=("reinforce",), large={"T": 9},
        ),
        _plain("choices", choices_backward, captions, "dscores", 15,
               ({"S": 3, "T": 4, "N": 2, "L": 3, "entropy_weight": 0.1},
                {"S": 2, "T": 3, "N": 3, "L": 4, "entropy_weight": 0.5}),
               ({"S": 2, "T": 1, "N": 1, "L": 2, "entropy_weight": 0.0},
                {"S": 4, "T": 3, "N": 2, "L": 2, "entropy_weight": 0.2, "hole": True}),
               ("total", "leave one out", "reinforce", "entropy's gradient")),
    ),
)  # fmt: skip
