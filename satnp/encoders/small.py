"""A small CNN, trained from scratch together with the decoder.

A 5x5 convolution with stride 2, then 3x3 convolutions, each but the last with a 2x2 max-pool; ReLU after each of them.
ReLU commutes with the maximum, so it runs after the pool, with a quarter of the work. Two planes with the column and the
row of each cell (-1 to 1) are concatenated to the input of the last convolution: attention does not depend on the order
of the locations, so the features must contain "left of" (Liu et al. 2018, CoordConv).
"""

from dataclasses import dataclass
from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.encoders.photos import Preprocessing
from satnp.encoders.weights import he_normal
from satnp.errors import InputError
from satnp.layers import (
    conv2d_backward,
    conv2d_backward_weights,
    conv2d_forward,
    conv2d_relu_forward,
    max_pool_backward,
    max_pool_forward,
    relu_backward,
)


@dataclass(frozen=True)
class Config:
    """`channels` has the number of filters of each stage; four stages turn 64 x 64 pixels into 8 x 8 annotations."""

    channels: tuple = (16, 32, 64, 128)
    preprocessing: Preprocessing = Preprocessing(64)

    def __post_init__(self):
        if len(self.channels) < 2 or self.preprocessing.size % self.shrinkage:
            raise InputError(
                f"photos of {self.preprocessing.size} pixels cannot be halved {len(self.channels) - 1} times; "
                f"choose a multiple of {self.shrinkage} pixels, and at least 2 stages"
            )

    @property
    def shrinkage(self):
        """Side of the cell of one annotation, in pixels."""
        return 2 ** (len(self.channels) - 1)

    @property
    def D(self):
        return self.channels[-1]

    @property
    def grid(self):
        """(rows, columns) of the annotations."""
        side = self.preprocessing.size // self.shrinkage
        return side, side


class Stage(NamedTuple):
    conv: object
    relu: object
    pool: object


def shapes(config):
    """{name: shape}: W (K, K, C, F), b (F,)."""
    out, C = {}, 3
    for stage, F in enumerate(config.channels):
        K = 5 if stage == 0 else 3
        planes = 2 if stage == len(config.channels) - 1 else 0
        out |= {f"W{stage}": (K, K, C + planes, F), f"b{stage}": (F,)}
        C = F
    return out


def init(config, rng):
    """He-normal weights, biases 0, on the host."""
    return he_normal(shapes(config), rng)


def coordinates(N, rows, columns, xp, dtype):
    """(N, rows, columns, 2): the column and the row of each cell, from -1 to 1."""
    planes = xp.stack(xp.meshgrid(xp.linspace(-1, 1, columns), xp.linspace(-1, 1, rows)), axis=-1)
    return xp.broadcast_to(planes.astype(dtype), (N, rows, columns, 2))


def forward(params, config, images):
    """images (N, S, S, 3) RGB 0-255 -> annotations (N, L, D), cache"""
    x = config.preprocessing(images, params.flat.dtype)
    xp, stages, last = xp_of(x), [], len(config.channels) - 1
    for stage in range(last + 1):
        if stage == last:
            x = xp.concatenate([x, coordinates(*x.shape[:3], xp, x.dtype)], axis=3)
        stride, padding = (2, 2) if stage == 0 else (1, 1)
        W, b, relu, pool = params[f"W{stage}"], params[f"b{stage}"], None, None
        if 0 < stage < last:
            x, conv = conv2d_forward(x, W, b, padding=1)
            x, pool = max_pool_forward(x, 2, 2, relu=True)
        else:
            x, (conv, relu) = conv2d_relu_forward(x, W, b, stride, padding)
        stages.append(Stage(conv, relu, pool))
    return x.reshape(x.shape[0], -1, config.D), (stages, x.shape)


def backward(dannotations, cache, grads):
    """dannotations (N, L, D): adds the gradients with respect to all weights to `grads`."""
    stages, shape = cache
    dx, last = dannotations.reshape(shape), len(stages) - 1
    for stage in range(last, -1, -1):
        conv, relu, pool = stages[stage]
        dx = relu_backward(dx, relu) if pool is None else max_pool_backward(dx, pool)
        if stage == 0:
            dW, db = conv2d_backward_weights(dx, conv)
        else:
            dx, dW, db = conv2d_backward(dx, conv)
        grads.add(**{f"W{stage}": dW, f"b{stage}": db})
        if stage == last:
            dx = dx[..., :-2]
