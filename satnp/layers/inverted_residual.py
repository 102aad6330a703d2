"""The inverted residual block (Sandler et al. 2018): 1x1 to more channels, depthwise, 1x1 to few, and a shortcut."""

from typing import NamedTuple

from satnp.layers.conv import conv2d_backward, conv2d_forward, conv2d_relu6_backward, conv2d_relu6_forward
from satnp.layers.depthwise import depthwise_relu6_backward, depthwise_relu6_forward


class SeparableCache(NamedTuple):
    depthwise: object
    project: object


class InvertedResidualCache(NamedTuple):
    expand: object
    separable: SeparableCache


def separable_forward(x, W2, b2, W3, b3, stride=1):
    """out = conv(relu6(depthwise(x; W2)); W3)

    x (N, R, S, C), W2 (K, K, C), b2 (C,), W3 (1, 1, C, F), b3 (F,) -> out (N, P, Q, F)

    Source: Howard et al. 2017 (MobileNets); without a nonlinearity at the end, as in Sandler et al. 2018.
    """
    x, depthwise = depthwise_relu6_forward(x, W2, b2, stride)
    out, project = conv2d_forward(x, W3, b3)
    return out, SeparableCache(depthwise, project)


def separable_backward(dout, cache):
    """dout (N, P, Q, F) -> dx (N, R, S, C), dW2 (K, K, C), db2 (C,), dW3 (1, 1, C, F), db3 (F,)"""
    dx, dW3, db3 = conv2d_backward(dout, cache.project)
    return *depthwise_relu6_backward(dx, cache.depthwise), dW3, db3


def inverted_residual_forward(x, W1, b1, W2, b2, W3, b3, stride=1):
    """out = separable(relu6(conv(x; W1)); W2, W3) + x, without "+ x" where the shapes differ

    x (N, R, S, C), W1 (1, 1, C, E), b1 (E,), W2 (K, K, E), b2 (E,), W3 (1, 1, E, F), b3 (F,) -> out (N, P, Q, F)

    Source: Sandler et al. 2018 (MobileNetV2), table 1.
    """
    wide, expand = conv2d_relu6_forward(x, W1, b1)
    out, separable = separable_forward(wide, W2, b2, W3, b3, stride)
    if out.shape == x.shape:
        out += x
    return out, InvertedResidualCache(expand, separable)


def inverted_residual_backward(dout, cache):
    """The gradient also flows past the block, through "+ x".

    dout (N, P, Q, F) -> dx (N, R, S, C), dW1 (1, 1, C, E), db1 (E,), dW2 (K, K, E), db2 (E,), dW3 (1, 1, E, F), db3 (F,)
    """
    dwide, dW2, db2, dW3, db3 = separable_backward(dout, cache.separable)
    dx, dW1, db1 = conv2d_relu6_backward(dwide, cache.expand)
    if dx.shape == dout.shape:
        dx = dx + dout
    return dx, dW1, db1, dW2, db2, dW3, db3
