"""A6, speed: the same results as plain loops, many times as fast."""

from lessons.assignments.a1 import convolution
from lessons.assignments.a4 import embedding
from lessons.assignments.declare import Assignment, Speed, Task
from lessons.assignments.fast import AllScoresCache, all_scores_backward, all_scores_forward
from lessons.assignments.naive import (
    naive_conv2d_backward,
    naive_conv2d_forward,
    naive_embedding_backward,
    naive_embedding_forward,
    naive_scores_backward,
    naive_scores_forward,
)
from satnp.layers.affine import affine_backward, affine_forward
from satnp.layers.conv import ConvCache, conv2d_backward, conv2d_forward, output_size, pad, window
from satnp.layers.embedding import EmbeddingCache, embedding_backward, embedding_forward


def scores(rng, T, N, L, D, H, A):
    arrays = {"annotations": (N, L, D), "h": (T, N, H), "W_a": (D, A), "W_s": (H, A), "b": (A,), "v": (A,)}
    return {n: rng.standard_normal(s) for n, s in arrays.items()}


ASSIGNMENT = Assignment(
    name="A6",
    title="speed",
    cut=(
        conv2d_forward, conv2d_backward, embedding_forward, embedding_backward, all_scores_forward, all_scores_backward,
    ),
    given=(
        naive_conv2d_forward, naive_conv2d_backward, naive_embedding_forward, naive_embedding_backward,
        naive_scores_forward, naive_scores_backward, affine_forward, affine_backward, output_size, window, pad,
        ConvCache, EmbeddingCache, AllScoresCache,
    ),
    tasks=(
        Task(
            "convolution", conv2d_forward, conv2d_backward, convolution, ("out",),
            usual=(
                {"N": 2, "R": 6, "S": 5, "C": 3, "K": 3, "F": 4, "padding": 1},
                {"N": 3, "R": 7, "S": 6, "C": 2, "K": 3, "F": 1, "stride": 2},
            ),
            edges=(
                {"N": 1, "R": 6, "S": 8, "C": 2, "K": 2, "F": 3, "stride": 3, "padding": 1},
                {"N": 2, "R": 4, "S": 3, "C": 3, "K": 1, "F": 2},
            ),
            points={"out": 5, "dx": 5, "dW": 4, "db": 1, "seconds": 25}, large={"N": 600, "K": 2, "F": 2},
            speed=Speed(
                naive_conv2d_forward, naive_conv2d_backward, 15,
                ({"N": 4, "R": 24, "S": 24, "C": 4, "K": 3, "F": 8, "padding": 1},),
            ),
        ),
        Task(
            "embedding", embedding_forward, embedding_backward, embedding, ("words",),
            usual=({"N": 9, "V": 5, "M": 3}, {"N": 7, "V": 3, "M": 4}),
            edges=({"N": 1, "V": 4, "M": 2}, {"N": 6, "V": 1, "M": 3}),
            points={"words": 1, "dE": 4, "seconds": 15}, large={"N": 16_000, "V": 4000, "M": 20},
            speed=Speed(naive_embedding_forward, naive_embedding_backward, 2, ({"N": 100_000, "V": 1000, "M": 2},)),
        ),
        Task(
            "attention", all_scores_forward, all_scores_backward, scores, ("scores",),
            usual=({"T": 3, "N": 2, "L": 4, "D": 3, "H": 2, "A": 5}, {"T": 2, "N": 3, "L": 5, "D": 2, "H": 4, "A": 3}),
            edges=({"T": 1, "N": 1, "L": 1, "D": 2, "H": 3, "A": 1},),
            points={"scores": 5, "dannotations": 3, "dh": 3, "dW_a": 1, "dW_s": 1, "db": 1, "dv": 1, "seconds": 25},
            large={"N": 1500},
            speed=Speed(
                naive_scores_forward, naive_scores_backward, 8,
                ({"T": 16, "N": 4, "L": 64, "D": 32, "H": 32, "A": 8},),
            ),
        ),
    ),
)  # fmt: skip
