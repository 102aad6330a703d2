"""The small CNN with a CBAM block behind it (Woo et al. 2018): channels are weighted first, then locations.

    F' = sigmoid(MLP(mean_i F_i) + MLP(max_i F_i)) * F                 eq. 2, one MLP; max(1, D // 16) hidden units
    F'' = sigmoid(conv7x7([mean_c F'_c ; max_c F'_c])) * F'            eq. 3

F (N, rows, columns, D) is the output of the small CNN; the annotations are F''.
"""

from typing import NamedTuple

from satnp.encoders import small
from satnp.encoders.small import Config
from satnp.encoders.weights import he_normal
from satnp.layers import channel_gate_backward, channel_gate_forward, location_gate_backward, location_gate_forward

__all__ = ["Config", "backward", "forward", "init", "shapes"]

CHANNELS = "W_c1", "b_c1", "W_c2", "b_c2"
LOCATIONS = "W_s", "b_s"


class Cache(NamedTuple):
    small: object
    channels: object
    locations: object


def shapes(config):
    """{name: shape}: those of the small CNN, then W_c1 (D, K), b_c1, W_c2 (K, D), b_c2, W_s (7, 7, 2, 1), b_s."""
    D, K = config.D, max(1, config.D // 16)
    gates = {"W_c1": (D, K), "b_c1": (K,), "W_c2": (K, D), "b_c2": (D,), "W_s": (7, 7, 2, 1), "b_s": (1,)}
    return small.shapes(config) | gates


def init(config, rng):
    """He-normal weights, biases 0, on the host."""
    return he_normal(shapes(config), rng)


def forward(params, config, images):
    """images (N, S, S, 3) RGB 0-255 -> annotations (N, L, D), cache"""
    x, cache = small.forward(params, config, images)
    x, channels = channel_gate_forward(x.reshape(-1, *config.grid, config.D), *(params[name] for name in CHANNELS))
    x, locations = location_gate_forward(x, *(params[name] for name in LOCATIONS))
    return x.reshape(len(x), -1, config.D), Cache(cache, channels, locations)


def backward(dannotations, cache, grads):
    """dannotations (N, L, D): adds the gradients with respect to all weights to `grads`."""
    dx, *gradients = location_gate_backward(dannotations.reshape(cache.locations.x.shape), cache.locations)
    grads.add(**dict(zip(LOCATIONS, gradients, strict=True)))
    dx, *gradients = channel_gate_backward(dx, cache.channels)
    grads.add(**dict(zip(CHANNELS, gradients, strict=True)))
    small.backward(dx.reshape(dannotations.shape), cache.small, grads)
