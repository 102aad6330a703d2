"""The convolutional block attention module (Woo et al. 2018): a map is weighted by channel, then by location."""

from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.layers.activations import relu_backward, relu_forward, sigmoid_backward, sigmoid_forward
from satnp.layers.affine import affine_backward, affine_forward
from satnp.layers.conv import conv2d_backward, conv2d_forward


class ChannelCache(NamedTuple):
    x: object
    first: object   # (N, C), the location of each channel's maximum
    hidden: object
    relu: object
    output: object
    weights: object  # (N, C)
    gate: object


class LocationCache(NamedTuple):
    x: object
    first: object    # (N, R, S), the channel of each location's maximum
    conv: object
    weights: object  # (N, R, S, 1)
    gate: object


def channel_gate_forward(x, W_1, b_1, W_2, b_2):
    """out = m * x,  m = sigmoid(MLP(mean over locations of x) + MLP(maximum over locations of x))

    x (N, R, S, C), W_1 (C, K), b_1 (K,), W_2 (K, C), b_2 (C,) -> out (N, R, S, C)

    MLP(y) = ReLU(y W_1 + b_1) W_2 + b_2 is one network with one set of weights.

    Source: Woo et al. 2018, eq. 2.
    """
    xp, (N, R, S, C) = xp_of(x), x.shape
    rows = x.reshape(N, R * S, C)
    pooled = xp.concatenate([rows.mean(axis=1), rows.max(axis=1)])
    hidden, affine = affine_forward(pooled, W_1, b_1)
    hidden, relu = relu_forward(hidden)
    scores, output = affine_forward(hidden, W_2, b_2)
    weights, gate = sigmoid_forward(scores[:N] + scores[N:])
    return weights[:, None, None] * x, ChannelCache(x, rows.argmax(axis=1), affine, relu, output, weights, gate)


def channel_gate_backward(dout, cache):
    """dout (N, R, S, C) -> dx (N, R, S, C), dW_1 (C, K), db_1 (K,), dW_2 (K, C), db_2 (C,)

    Of equal maxima, the first location gets the gradient.
    """
    xp, (N, R, S, C) = xp_of(dout), dout.shape
    dscores = sigmoid_backward((dout * cache.x).sum(axis=(1, 2)), cache.gate)
    dhidden, dW_2, db_2 = affine_backward(xp.concatenate([dscores, dscores]), cache.output)
    dpooled, dW_1, db_1 = affine_backward(relu_backward(dhidden, cache.relu), cache.hidden)
    dmean, dmax = dpooled[:N, None] / (R * S), dpooled[N:, None]
    is_first = xp.arange(R * S)[:, None] == cache.first[:, None]
    dx = cache.weights[:, None, None] * dout + (dmean + dmax * is_first).reshape(N, R, S, C)
    return dx, dW_1, db_1, dW_2, db_2


def location_gate_forward(x, W, b):
    """out = m * x,  m = sigmoid(conv([mean over channels of x ; maximum over channels of x]))

    x (N, R, S, C), W (K, K, 2, 1), b (1,) -> out (N, R, S, C)

    K is odd; the paper has 7.

    Source: Woo et al. 2018, eq. 3.
    """
    pooled = xp_of(x).stack([x.mean(axis=3), x.max(axis=3)], axis=3)
    scores, conv = conv2d_forward(pooled, W, b, padding=len(W) // 2)
    weights, gate = sigmoid_forward(scores)
    return weights * x, LocationCache(x, x.argmax(axis=3), conv, weights, gate)


def location_gate_backward(dout, cache):
    """dout (N, R, S, C) -> dx (N, R, S, C), dW (K, K, 2, 1), db (1,)

    Of equal maxima, the first channel gets the gradient.
    """
    xp, C = xp_of(dout), dout.shape[3]
    dscores = sigmoid_backward((dout * cache.x).sum(axis=3, keepdims=True), cache.gate)
    dpooled, dW, db = conv2d_backward(dscores, cache.conv)
    is_first = xp.arange(C) == cache.first[..., None]
    return cache.weights * dout + dpooled[..., :1] / C + dpooled[..., 1:] * is_first, dW, db


class Cache(NamedTuple):
    channels: ChannelCache
    locations: LocationCache


def cbam_forward(x, W_1, b_1, W_2, b_2, W, b):
    """out = location_gate(channel_gate(x)), channels first

    x (N, R, S, C), W_1 (C, H), b_1 (H,), W_2 (H, C), b_2 (C,), W (K, K, 2, 1), b (1,) -> out (N, R, S, C)

    Source: Woo et al. 2018, eq. 1.
    """
    x, channels = channel_gate_forward(x, W_1, b_1, W_2, b_2)
    out, locations = location_gate_forward(x, W, b)
    return out, Cache(channels, locations)


def cbam_backward(dout, cache):
    """dout (N, R, S, C) -> dx (N, R, S, C), dW_1 (C, H), db_1 (H,), dW_2 (H, C), db_2 (C,), dW (K, K, 2, 1), db (1,)"""
    dx, dW, db = location_gate_backward(dout, cache.locations)
    return *channel_gate_backward(dx, cache.channels), dW, db
