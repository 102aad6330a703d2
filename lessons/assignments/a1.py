"""A1, convolution and pooling: the layers of an encoder."""

import numpy as np

from lessons.assignments.declare import Assignment, Task
from satnp.layers.conv import ConvCache, conv2d_backward, conv2d_forward, output_size, pad, window
from satnp.layers.pool import (
    AveragePoolCache,
    MaxPoolCache,
    average_pool_backward,
    average_pool_forward,
    max_pool_backward,
    max_pool_forward,
)


def convolution(rng, N, R, S, C, K, F, stride=1, padding=0):
    arrays = {"x": (N, R, S, C), "W": (K, K, C, F), "b": (F,)}
    return {n: rng.standard_normal(s) for n, s in arrays.items()} | {"stride": stride, "padding": padding}


def maximum(rng, N, R, S, C, K, stride, ceil=False, ties=False):
    x = rng.integers(-3, 0, (N, R, S, C)).astype(float) if ties else rng.standard_normal((N, R, S, C)) - 1
    return {"x": x, "K": K, "stride": stride, "ceil": ceil}


def without_ties(arrays):
    """Of equal numbers the first in reading order is made the largest."""
    x = arrays["x"]
    return {"x": x - 1e-9 * np.arange(x.size).reshape(x.shape)}


def average(rng, N, R, S, C, K, stride):
    return {"x": rng.standard_normal((N, R, S, C)), "K": K, "stride": stride}


ASSIGNMENT = Assignment(
    name="A1",
    title="convolution and pooling",
    cut=(
        conv2d_forward, conv2d_backward, max_pool_forward, max_pool_backward, average_pool_forward, average_pool_backward,
    ),
    given=(output_size, window, pad, ConvCache, MaxPoolCache, AveragePoolCache),
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
                {"N": 2, "R": 3, "S": 3, "C": 1, "K": 3, "F": 2},
            ),
            points={"out": 15, "dx": 20, "dW": 15, "db": 5}, large={"N": 600, "K": 2, "F": 2},
        ),
        Task(
            "max pooling", max_pool_forward, max_pool_backward, maximum, ("out",),
            usual=(
                {"N": 2, "R": 6, "S": 4, "C": 3, "K": 2, "stride": 2}, {"N": 3, "R": 7, "S": 5, "C": 2, "K": 3, "stride": 2},
            ),
            edges=(
                {"N": 2, "R": 6, "S": 8, "C": 2, "K": 3, "stride": 2, "ceil": True},
                {"N": 1, "R": 7, "S": 5, "C": 1, "K": 2, "stride": 3},
                {"N": 2, "R": 7, "S": 5, "C": 2, "K": 3, "stride": 2, "ties": True},
            ),
            points={"out": 10, "dx": 20}, near=without_ties,
        ),
        Task(
            "average pooling", average_pool_forward, average_pool_backward, average, ("out",),
            usual=(
                {"N": 2, "R": 6, "S": 4, "C": 3, "K": 2, "stride": 2}, {"N": 3, "R": 7, "S": 5, "C": 2, "K": 3, "stride": 2},
            ),
            edges=(
                {"N": 1, "R": 7, "S": 5, "C": 1, "K": 2, "stride": 3}, {"N": 2, "R": 3, "S": 3, "C": 2, "K": 3, "stride": 1},
            ),
            points={"out": 5, "dx": 10},
        ),
    ),
)  # fmt: skip
