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


def separable_forward(x, W_2, b_2, W_3, b_3, stride=1):
    """out = conv(relu6(depthwise(x; W_2)); W_3)

    x (N, R, S, C), W_2 (K, K, C), b_2 (C,), W_3 (1, 1, C, F), b_3 (F,) -> out (N, P, Q, F)

    Source: Howard et al. 2017 (MobileNets); without a nonlinearity at the end, as in Sandler et al. 2018.
    """
    x, depthwise = depthwise_relu6_forward(x, W_2, b_2, stride)
    out, project = conv2d_forward(x, W_3, b_3)
    return out, SeparableCache(depthwise, project)


def separable_backward(dout, cache):
    """dout (N, P, Q, F) -> dx (N, R, S, C), dW_2 (K, K, C), db_2 (C,), dW_3 (1, 1, C, F), db_3 (F,)"""
    dx, dW_3, db_3 = conv2d_backward(dout, cache.project)
    return *depthwise_relu6_backward(dx, cache.depthwise), dW_3, db_3


def inverted_residual_forward(x, W_1, b_1, W_2, b_2, W_3, b_3, stride=1):
    """out = separable(relu6(conv(x; W_1)); W_2, W_3) + x, without "+ x" where the shapes differ

    x (N, R, S, C), W_1 (1, 1, C, E), b_1 (E,), W_2 (K, K, E), b_2 (E,), W_3 (1, 1, E, F), b_3 (F,) -> out (N, P, Q, F)

    Source: Sandler et al. 2018 (MobileNetV2), table 1.
    """
    wide, expand = conv2d_relu6_forward(x, W_1, b_1)
    out, separable = separable_forward(wide, W_2, b_2, W_3, b_3, stride)
    if out.shape == x.shape:
        out += x
    return out, InvertedResidualCache(expand, separable)


def inverted_residual_backward(dout, cache):
    """dout (N, P, Q, F) -> dx (N, R, S, C), dW_1 (1, 1, C, E), db_1 (E,), dW_2 (K, K, E), db_2 (E,), dW_3 (1, 1, E, F),
    db_3 (F,)"""
    dwide, dW_2, db_2, dW_3, db_3 = separable_backward(dout, cache.separable)
    dx, dW_1, db_1 = conv2d_relu6_backward(dwide, cache.expand)
    if dx.shape == dout.shape:
        dx = dx + dout
    return dx, dW_1, db_1, dW_2, db_2, dW_3, db_3
