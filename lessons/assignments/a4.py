"""A4, the whole captioner: words in and out, its whole backward pass, and training to a required score."""

import numpy as np

from lessons.assignments.a3 import distances
from lessons.assignments.declare import Assignment, Task
from lessons.assignments.look import look_backward, look_forward
from lessons.assignments.whole import (
    CaptionerCache,
    Weights,
    WordCache,
    _views,
    captioner_backward,
    captioner_forward,
    shapes,
    train,
    word_backward,
    word_forward,
)
from satnp.arrays.optim import adam
from satnp.layers.affine import affine_backward, affine_forward
from satnp.layers.deep_output import DeepOutputCache, deep_output_backward, deep_output_forward
from satnp.layers.embedding import EmbeddingCache, embedding_backward, embedding_forward
from satnp.layers.initial_state import InitialStateCache, initial_state_backward, initial_state_forward
from satnp.layers.lstm import lstm_cell_backward, lstm_cell_forward
from satnp.layers.penalty import doubly_stochastic_backward, doubly_stochastic_forward
from satnp.layers.softmax import CrossEntropyCache, cross_entropy_backward, cross_entropy_forward


def _normal(rng, **shapes):
    return {n: rng.standard_normal(shape) for n, shape in shapes.items()}


def embedding(rng, N, V, M):
    return {"ids": rng.integers(0, V, N), **_normal(rng, E=(V, M))}


def entropy(rng, N, V, over=1, far=False):
    """The last `over` words are padding: their weights are 0. With `far` there are logits of 1000 and of -1000."""
    weights = np.where(np.arange(N) < N - over, rng.random(N), 0.0)
    return {"logits": rng.standard_normal((N, V)) + (distances(N, V) if far else 0),
            "targets": np.full(N, 1) if far else rng.integers(0, V, N), "weights": weights}


def first(rng, N, L, D, H):
    return _normal(rng, annotations=(N, L, D), W_h=(D, H), b_h=(H,), W_c=(D, H), b_c=(H,))


def deep(rng, N, M, H, D):
    return _normal(rng, words=(N, M), h=(N, H), z=(N, D), L_h=(H, M), L_z=(D, M), b=(M,))


def step(rng, N, T, L, V, D, M, H, A, padded=True, hole=False):
    lengths = np.maximum(rng.integers(1, T + 1, N), T * (np.arange(N) == 0)) if padded else np.full(N, T)
    counts = np.arange(T) < lengths[:, None]
    if hole:
        counts[0] = np.arange(T) != 1
    return {
        **_normal(rng, annotations=(N, L, D)), "captions": rng.integers(0, V, (N, T + 1)),
        "mask": counts.astype(float),
        **_normal(rng, **shapes(V, D, M, H, A)._asdict()),
    }  # fmt: skip


PLACES, COLOURS, SHAPES, OBJECTS, DEPTH = 4, 4, 4, 2, 16
START, END = 0, 1


def scenes(rng, N, P):
    """N photos with captions and P photos to caption. A photo has one or two objects at 4 places.

    A caption names the colour and shape of each object in reading order. An annotation is the sum of the random vectors of
    the place and of its object's colour and shape, if there is one, and a little noise.
    """
    names = 2 + rng.permutation(COLOURS + SHAPES)
    mixing = rng.standard_normal((PLACES + COLOURS + SHAPES, DEPTH))
    places, colours, shapes = np.split(mixing, [PLACES, PLACES + COLOURS])
    annotations = np.tile(places, (N + P, 1, 1)) + 0.1 * rng.standard_normal((N + P, PLACES, DEPTH))
    T = 2 * OBJECTS + 1
    captions, mask = np.full((N + P, T + 1), END), np.zeros((N + P, T), np.float32)
    for photo, caption, counts in zip(annotations, captions, mask, strict=True):
        words = [START]
        for place in np.sort(rng.permutation(PLACES)[: rng.integers(1, OBJECTS + 1)]):
            colour, shape = rng.integers(COLOURS), rng.integers(SHAPES)
            photo[place] += colours[colour] + shapes[shape]
            words += [names[colour], names[COLOURS + shape]]
        caption[: len(words)] = words
        counts[: len(words)] = 1
    annotations = annotations.astype(np.float32)
    return {
        "annotations": annotations[:N], "captions": captions[:N], "mask": mask[:N], "photos": annotations[N:],
        "said": np.where(mask[N:] > 0, captions[N:, 1:], -1),
    }  # fmt: skip


ASSIGNMENT = Assignment(
    name="A4",
    title="the whole captioner",
    cut=(
        embedding_forward, embedding_backward, cross_entropy_forward, cross_entropy_backward,
        initial_state_forward, initial_state_backward, deep_output_forward, deep_output_backward,
        word_forward, word_backward, captioner_forward, captioner_backward, train,
    ),
    given=(
        affine_forward, affine_backward, lstm_cell_forward, lstm_cell_backward, look_forward, look_backward,
        doubly_stochastic_forward, doubly_stochastic_backward, adam, shapes, _views,
        EmbeddingCache, CrossEntropyCache, InitialStateCache, DeepOutputCache, Weights, WordCache, CaptionerCache,
    ),
    tasks=(
        Task(
            "embedding", embedding_forward, embedding_backward, embedding, ("words",),
            usual=({"N": 9, "V": 5, "M": 3}, {"N": 7, "V": 3, "M": 4}),
            edges=({"N": 1, "V": 4, "M": 2}, {"N": 6, "V": 1, "M": 3}),
            points={"words": 2, "dE": 10}, large={"N": 16_000, "V": 4000, "M": 20},
        ),
        Task(
            "cross-entropy", cross_entropy_forward, cross_entropy_backward, entropy, ("loss",),
            usual=({"N": 5, "V": 4}, {"N": 4, "V": 6}), edges=({"N": 1, "V": 3, "over": 0}, {"N": 3, "V": 1, "over": 2},
                                                                    {"N": 4, "V": 5, "over": 0, "far": True}),
            points={"loss": 4, "dlogits": 8}, constants=("weights",), large={"N": 4000, "V": 40},
        ),
        Task(
            "first state", initial_state_forward, initial_state_backward, first, ("h", "c"),
            usual=({"N": 3, "L": 4, "D": 5, "H": 2}, {"N": 2, "L": 5, "D": 3, "H": 4}),
            edges=({"N": 1, "L": 1, "D": 2, "H": 3},),
            points={"h": 2, "c": 2, "dannotations": 3, "dW_h": 1, "db_h": 1, "dW_c": 1, "db_c": 1},
        ),
        Task(
            "deep output", deep_output_forward, deep_output_backward, deep, ("out",),
            usual=({"N": 3, "M": 4, "H": 2, "D": 5}, {"N": 5, "M": 3, "H": 4, "D": 2}),
            edges=({"N": 1, "M": 1, "H": 3, "D": 2},),
            points={"out": 2, "dwords": 1, "dh": 2, "dz": 2, "dL_h": 1, "dL_z": 1, "db": 1},
        ),
        Task(
            "captioner", captioner_forward, captioner_backward, step, ("loss",),
            usual=(
                {"N": 3, "T": 4, "L": 4, "V": 5, "D": 3, "M": 2, "H": 3, "A": 2},
                {"N": 2, "T": 3, "L": 3, "V": 4, "D": 2, "M": 3, "H": 2, "A": 3},
            ),
            edges=(
                {"N": 1, "T": 1, "L": 2, "V": 3, "D": 2, "M": 1, "H": 2, "A": 1},
                {"N": 2, "T": 2, "L": 1, "V": 3, "D": 1, "M": 2, "H": 1, "A": 2, "padded": False},
                {"N": 2, "T": 3, "L": 2, "V": 4, "D": 2, "M": 1, "H": 1, "A": 2, "hole": True},
            ),
            points={"loss": 8, "dannotations": 6, "dE": 3, **{f"d{n}": 1 for n in Weights._fields[1:]}},
            constants=("mask",), uses=("embedding", "cross-entropy", "first state", "deep output"), large={"N": 700},
        ),
        Task(
            "train", train, None, scenes, ("said",), usual=({"N": 800, "P": 100},), edges=(),
            points={"said": 18}, cache=False, score=0.85, seconds=60,
            uses=("embedding", "cross-entropy", "first state", "deep output", "captioner"),
        ),
    ),
)  # fmt: skip
