"""The inverted residual block (Sandler et al. 2018): 1x1 to more channels, depthwise, 1x1 to few, and a shortcut.

The wide maps between these convolutions are not kept: they have six times as many numbers as the block's input. The backward
pass computes them again.
"""

from typing import NamedTuple

import numpy as np

from satnp.arrays.products import tall_product
from satnp.layers.blocks import RELU6, finishing, inside, on_host, parallel_blocks, scratch
from satnp.layers.conv import conv2d_backward, conv2d_forward, conv2d_relu6_backward, conv2d_relu6_forward
from satnp.layers.depthwise import (
    depthwise_relu6_backward,
    depthwise_relu6_forward,
    pieces_of,
    read_sizes,
    run_filters,
    sizes,
    sum_windows,
)


class SeparableCache(NamedTuple):
    x: object
    W2: object
    b2: object
    W3: object
    b3: object
    stride: int


class InvertedResidualCache(NamedTuple):
    x: object
    W1: object
    b1: object
    separable: tuple  # W2, b2, W3, b3, stride


def separable_forward(x, W2, b2, W3, b3, stride=1):
    """out = conv(relu6(depthwise(x; W2)); W3)

    x (N, R, S, C), W2 (K, K, C), b2 (C,), W3 (1, 1, C, F), b3 (F,) -> out (N, P, Q, F)

    Source: Howard et al. 2017 (MobileNets); without a nonlinearity at the end, as in Sandler et al. 2018.
    """
    kept = SeparableCache(x, W2, b2, W3, b3, stride)
    if on_host(x, W2, b2, W3, b3):
        return in_pieces(x, None, None, *kept[1:]), kept
    return conv2d_forward(depthwise_relu6_forward(x, W2, b2, stride)[0], W3, b3)[0], kept


def separable_backward(dout, cache):
    """dout (N, P, Q, F) -> dx (N, R, S, C), dW2 (K, K, C), db2 (C,), dW3 (1, 1, C, F), db3 (F,)"""
    x, W2, b2, W3, b3, stride = cache
    x, depthwise = depthwise_relu6_forward(x, W2, b2, stride)
    dx, dW3, db3 = conv2d_backward(dout, conv2d_forward(x, W3, b3)[1])
    return *depthwise_relu6_backward(dx, depthwise), dW3, db3


def inverted_residual_forward(x, W1, b1, W2, b2, W3, b3, stride=1):
    """out = separable(relu6(conv(x; W1)); W2, W3) + x, without "+ x" where the shapes differ

    x (N, R, S, C), W1 (1, 1, C, E), b1 (E,), W2 (K, K, E), b2 (E,), W3 (1, 1, E, F), b3 (F,) -> out (N, P, Q, F)

    Source: Sandler et al. 2018 (MobileNetV2), table 1.
    """
    kept = InvertedResidualCache(x, W1, b1, (W2, b2, W3, b3, stride))
    if on_host(x, W1, b1, W2, b2, W3, b3):
        return in_pieces(x, W1, b1, *kept.separable), kept
    out, _ = separable_forward(conv2d_relu6_forward(x, W1, b1)[0], *kept.separable)
    return out + x if out.shape == x.shape else out, kept


def inverted_residual_backward(dout, cache):
    """The gradient also flows past the block, through "+ x".

    dout (N, P, Q, F) -> dx (N, R, S, C), dW1 (1, 1, C, E), db1 (E,), dW2 (K, K, E), db2 (E,), dW3 (1, 1, E, F), db3 (F,)
    """
    x, W1, b1, separable = cache
    wide, expand = conv2d_relu6_forward(x, W1, b1)
    dwide, dW2, db2, dW3, db3 = separable_backward(dout, SeparableCache(wide, *separable))
    dx, dW1, db1 = conv2d_relu6_backward(dwide, expand)
    if dx.shape == dout.shape:
        dx = dx + dout
    return dx, dW1, db1, dW2, db2, dW3, db3


def in_pieces(x, W1, b1, W2, b2, W3, b3, stride):
    """The block for a few rows of the photos at a time, so that its wide maps stay in the cache.

    The shapes are those of inverted_residual_forward; W1 and b1 are None for separable_forward.
    """
    (N, R, S, C), (K, _, E), F = x.shape, W2.shape, W3.shape[3]
    P, Q, top, left = sizes(R, S, K, stride)
    out, filters = np.empty((N, P, Q, F), x.dtype), run_filters(W2, Q, stride)
    clip, add_bias = finishing(b2, Q, RELU6), finishing(b3, Q)
    # with a column of ones beside x, the product adds the bias
    W1 = None if W1 is None else np.vstack([W1[0, 0], b1])

    def expand(x, out):
        """out (n, r, s, E) = relu6(x W1 + b1), or x for a block without W1"""
        if W1 is None:
            out[...] = x
            return
        fed, wide = scratch("fed", (*x.shape[:3], C + 1), x.dtype), scratch("wide", out.shape, x.dtype)
        fed[..., :C], fed[..., C] = x, 1
        tall_product(fed.reshape(-1, C + 1), W1, out=wide.reshape(-1, E))
        np.clip(wide, *RELU6, out=out)

    def work(pieces):
        for photos, rows in pieces:
            y = out[photos, rows]
            deep = scratch("deep", (*y.shape[:3], E), x.dtype)
            seen = scratch("seen", (*read_sizes(y, K, stride), E), x.dtype)
            cells, read = inside(x, rows.start * stride - top, -left, seen)
            expand(x[photos, *read], seen[cells])
            sum_windows(seen, filters, stride, deep)
            clip(deep, deep)
            tall_product(deep.reshape(-1, E), W3[0, 0], out=y.reshape(-1, F))
            add_bias(y, y)
            if W1 is not None and out.shape == x.shape:
                y += x[photos, rows]

    parallel_blocks(work, pieces_of(N, P, N * R * S * E, stride * S * E))
    return out
