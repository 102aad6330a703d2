"""The inverted residual block (Sandler et al. 2018): 1x1 to more channels, depthwise, 1x1 to few, and a shortcut.

The wide maps between these convolutions are not kept: they have six times as many numbers as the block's input. The backward
pass computes them again.
"""

from typing import NamedTuple

import numpy as np

from satnp.layers.blocks import RELU6, finishing, inside, on_host, parallel_blocks, scratch
from satnp.layers.conv import conv2d_backward, conv2d_forward, conv2d_relu6_backward, conv2d_relu6_forward
from satnp.layers.depthwise import Runs, depthwise_relu6_backward, depthwise_relu6_forward, pieces_of, sizes


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
    If all rows are one piece, the wide channels are cut in two instead, and the two parts of their sum are added.
    """
    (N, R, S, _), (K, _, E), F = x.shape, W2.shape, W3.shape[3]
    P, Q, _, _ = sizes(R, S, K, stride)
    pieces = pieces_of(N, P, N * R * S * E, stride * S * E)
    cuts = [slice(0, E)] if len(pieces) > 1 or E == 1 else [slice(0, E // 2), slice(E // 2, E)]
    parts = np.empty((len(cuts), N, P, Q, F), x.dtype)
    wide = [_Wide(x, W1, b1, W2, b2, W3, stride, channels) for channels in cuts]
    add_bias = finishing(b3, Q)

    def finish(y, piece):
        add_bias(y, y)
        if W1 is not None and parts[0].shape == x.shape:
            y += x[piece]

    def work(jobs):
        for part, channels, piece in jobs:
            channels.narrow(piece, part[piece])
            if len(cuts) == 1:
                finish(part[piece], piece)

    parallel_blocks(work, [(*cut, piece) for cut in zip(parts, wide, strict=True) for piece in pieces])
    if len(cuts) == 2:
        parts[0] += parts[1]
        finish(parts[0], ())
    return parts[0]


class _Wide:
    """The wide maps of some of the channels E, for a few rows of the photos at a time."""

    def __init__(self, x, W1, b1, W2, b2, W3, stride, channels):
        (_, R, S, _), K = x.shape, len(W2)
        _, Q, self.top, self.left = sizes(R, S, K, stride)
        self.x, self.stride, self.channels = x, stride, channels
        # with a column of ones beside x, the product has the bias
        self.W1 = None if W1 is None else np.vstack([W1[0, 0, :, channels], b1[channels]])
        self.W3 = W3[0, 0, channels]
        self.runs, self.clip = Runs(W2[:, :, channels], Q, stride), finishing(b2[channels], Q, RELU6)

    def narrow(self, piece, y):
        """y (n, k, Q, F) = relu6(depthwise(relu6(x W1 + b1)) + b2) W3 for these channels and the piece (photos, rows)"""
        photos, rows = piece
        deep = scratch("deep", (*y.shape[:3], len(self.W3)), y.dtype)
        for first in range(len(self.runs.filters)):
            seen = scratch("seen", self.runs.reads(deep), y.dtype)
            cells, read = inside(self.x, rows.start * self.stride - self.top, first - self.left, seen, self.stride)
            self.expand(self.x[photos, *read], seen[cells])
            self.runs.sum(seen, first, deep)
        self.clip(deep, deep)
        np.matmul(deep.reshape(-1, len(self.W3)), self.W3, out=y.reshape(-1, y.shape[3]))

    def expand(self, x, out):
        """out (n, r, s, channels) = relu6(x W1 + b1), or x for a block without W1"""
        if self.W1 is None:
            out[...] = x[..., self.channels]
            return
        fed = scratch("fed", (*x.shape[:3], x.shape[3] + 1), out.dtype)
        fed[..., :-1], fed[..., -1] = x, 1
        wide = scratch("wide", out.shape, out.dtype)
        np.matmul(fed.reshape(-1, fed.shape[3]), self.W1, out=wide.reshape(-1, out.shape[3]))
        np.clip(wide, *RELU6, out=out)
