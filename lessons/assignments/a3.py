"""A3, soft attention: scores, weights, context, gate, and the doubly stochastic penalty."""

import numpy as np

from lessons.assignments.declare import Assignment, Task
from lessons.assignments.look import LookCache, look_backward, look_forward
from satnp.layers.activations import sigmoid
from satnp.layers.affine import affine_backward, affine_forward
from satnp.layers.attention import (
    AdditiveCache,
    ContextCache,
    additive_scores_backward,
    additive_scores_forward,
    context_backward,
    context_forward,
)
from satnp.layers.gate import GateCache, gate_backward, gate_forward
from satnp.layers.penalty import PenaltyCache, doubly_stochastic_backward, doubly_stochastic_forward
from satnp.layers.softmax import SoftmaxCache, softmax_backward, softmax_forward


def _normal(rng, **shapes):
    return {n: rng.standard_normal(shape) for n, shape in shapes.items()}


def scores(rng, N, L, A):
    return _normal(rng, keys=(N, L, A), query=(N, A), v=(A,), c=(1,))


def softmax(rng, N, L, scale=1, far=False):
    return {"scores": scale * rng.standard_normal((N, L)) + (distances(N, L) if far else 0)}


def distances(N, L):
    """Rows of 1000, of 0 and of -1000, and rows that go from 1000 to -1000."""
    rows = np.array([np.full(L, 1000), np.zeros(L), np.full(L, -1000), 1000 * (-1) ** np.arange(L)])
    return rows[np.arange(N) % 4]


def context(rng, N, L, D):
    return _normal(rng, alpha=(N, L), annotations=(N, L, D))


def gate(rng, N, H, D, G=1):
    return _normal(rng, h=(N, H), context=(N, D), W=(H, G), b=(G,))


def look(rng, N, L, D, H, A):
    return _normal(
        rng, annotations=(N, L, D), h=(N, H), W_a=(D, A), W_s=(H, A), b=(A,), v=(A,), c=(1,), W_beta=(H, 1), b_beta=(1,)
    )


def penalty(rng, T, N, L, hole=False):
    lengths = rng.integers(1, T + 1, N)
    mask = (np.arange(T)[:, None] < lengths).astype(float)
    if hole:
        mask[:, 0] = np.arange(T) != 1
    return {"alphas": rng.random((T, N, L)), "mask": mask}


ASSIGNMENT = Assignment(
    name="A3",
    title="soft attention",
    cut=(
        additive_scores_forward, additive_scores_backward, softmax_forward, softmax_backward,
        context_forward, context_backward, gate_forward, gate_backward, look_forward, look_backward,
        doubly_stochastic_forward, doubly_stochastic_backward,
    ),
    given=(
        affine_forward, affine_backward, sigmoid,
        AdditiveCache, SoftmaxCache, ContextCache, GateCache, LookCache, PenaltyCache,
    ),
    tasks=(
        Task(
            "scores", additive_scores_forward, additive_scores_backward, scores, ("scores",),
            usual=({"N": 2, "L": 5, "A": 4}, {"N": 3, "L": 4, "A": 2}),
            edges=({"N": 1, "L": 1, "A": 3}, {"N": 4, "L": 3, "A": 1}),
            points={"scores": 6, "dkeys": 6, "dquery": 5, "dv": 4, "dc": 1},
        ),
        Task(
            "softmax", softmax_forward, softmax_backward, softmax, ("alpha",),
            usual=({"N": 3, "L": 5}, {"N": 4, "L": 2}),
            edges=({"N": 1, "L": 4}, {"N": 2, "L": 3, "scale": 500}, {"N": 4, "L": 5, "far": True}),
            points={"alpha": 5, "dscores": 10},
        ),
        Task(
            "context", context_forward, context_backward, context, ("context",),
            usual=({"N": 2, "L": 5, "D": 4}, {"N": 3, "L": 4, "D": 2}),
            edges=({"N": 1, "L": 1, "D": 3}, {"N": 4, "L": 3, "D": 1}),
            points={"context": 4, "dalpha": 5, "dannotations": 4},
        ),
        Task(
            "gate", gate_forward, gate_backward, gate, ("z",),
            usual=({"N": 3, "H": 5, "D": 4}, {"N": 2, "H": 3, "D": 5}),
            edges=({"N": 1, "H": 2, "D": 1}, {"N": 2, "H": 3, "D": 4, "G": 4}),
            points={"z": 3, "dh": 4, "dcontext": 3, "dW": 3, "db": 2},
        ),
        Task(
            "look", look_forward, look_backward, look, ("z", "alpha"),
            usual=({"N": 2, "L": 5, "D": 3, "H": 4, "A": 6}, {"N": 3, "L": 4, "D": 2, "H": 5, "A": 3}),
            edges=({"N": 1, "L": 2, "D": 1, "H": 1, "A": 1}, {"N": 2, "L": 1, "D": 3, "H": 2, "A": 4}),
            points={"z": 3, "alpha": 2, "dannotations": 7, "dh": 8, "dW_a": 2, "dW_s": 2,
                    "db": 1, "dv": 1, "dW_beta": 2, "db_beta": 1},
            uses=("scores", "softmax", "context", "gate"), large={"N": 1300},
        ),
        Task(
            "penalty", doubly_stochastic_forward, doubly_stochastic_backward, penalty, ("penalty",),
            usual=({"T": 4, "N": 3, "L": 5}, {"T": 5, "N": 2, "L": 3}),
            edges=({"T": 1, "N": 1, "L": 2}, {"T": 2, "N": 4, "L": 1}, {"T": 3, "N": 2, "L": 4, "hole": True}),
            points={"penalty": 2, "dalphas": 4}, constants=("mask",),
        ),
    ),
)  # fmt: skip
