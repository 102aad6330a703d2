"""VGG-19 up to conv5_4, the encoder of the paper: a photo becomes 14 x 14 annotations of 512 features.

Simonyan & Zisserman 2015, configuration E: sixteen 3x3 convolutions with ReLU, and a 2x2 max-pool after each group but the
last. torchvision's weights need its normalisation; the weights of the Caffe release need BGR, 0-255, minus their mean.
"""

from dataclasses import dataclass
from typing import NamedTuple

from satnp.encoders.photos import TORCHVISION, Preprocessing
from satnp.encoders.weights import he_normal, layers_between, load_convolutions
from satnp.errors import InputError
from satnp.layers import (
    conv2d_backward,
    conv2d_backward_weights,
    conv2d_relu_forward,
    max_pool_backward,
    max_pool_forward,
    relu_backward,
)

LAYERS = tuple(f"conv{group}_{k}" for group, count in enumerate((2, 2, 4, 4, 4), 1) for k in range(1, count + 1))
POOL_AFTER = ("conv1_2", "conv2_2", "conv3_4", "conv4_4")
PREPROCESSING = {"torchvision": TORCHVISION, "caffe": Preprocessing(224, "BGR", (103.939, 116.779, 123.68), 1.0)}


@dataclass(frozen=True)
class Config:
    """`channels`: the number of filters in each group. 224 px gives a grid of 14 x 14; another size gives another grid."""

    preprocessing: Preprocessing = PREPROCESSING["torchvision"]
    channels: tuple = (64, 128, 256, 512, 512)

    def __post_init__(self):
        if len(self.channels) != len(POOL_AFTER) + 1:
            raise InputError(f"VGG-19 has channels {self.channels}; give one number for each of its five groups")

    @property
    def D(self):
        return self.channels[-1]

    @property
    def grid(self):
        """(rows, columns) of the annotations."""
        side = self.preprocessing.size // 2 ** len(POOL_AFTER)
        return side, side


class Cache(NamedTuple):
    """layers {name: its cache} and pools {name of the layer before: its cache}, in the order of the forward pass."""

    layers: dict
    pools: dict
    shape: tuple = ()


def layers(config):
    """The names of the layers."""
    return LAYERS


def shapes(config):
    """{name: shape}: W (3, 3, C, F), b (F,)."""
    out, C = {}, 3
    for name in LAYERS:
        F = config.channels[int(name[4]) - 1]
        out |= {f"{name}.W": (3, 3, C, F), f"{name}.b": (F,)}
        C = F
    return out


def init(config, rng):
    """He-normal weights on the host, for tests; `load` reads trained weights."""
    return he_normal(shapes(config), rng)


def tensor_names(config):
    """{our name: torchvision's name}; it also counts ReLUs and pools: features.0, .2, (pool 4) .5, .7, (pool 9) .10 ..."""
    names, index = {}, 0
    for name in LAYERS:
        names |= {f"{name}.W": f"features.{index}.weight", f"{name}.b": f"features.{index}.bias"}
        index += 3 if name in POOL_AFTER else 2
    return names


def load(path, config):
    """Load Parameters from a weights file with torchvision's names; weights of the classifier are not read."""
    return load_convolutions(path, tensor_names(config), shapes(config))


def forward(params, config, x, start="conv1_1"):
    """annotations = relu(conv5_4)

    x (N, S, S, 3) RGB 0-255, or the input of layer `start` -> annotations (N, L, D), cache
    """
    x, cache = feature_map(params, config, x, start)
    return x.reshape(x.shape[0], -1, x.shape[3]), cache._replace(shape=x.shape)


def feature_map(params, config, x, start="conv1_1", stop=None):
    """Run the layers from `start` up to, but not including, `stop` (None: to the last, conv5_4), each with ReLU and pool.

    x (N, S, S, 3) RGB 0-255 if `start` is the first layer, else the input of `start` -> x (N, rows, columns, C), cache
    """
    layers, pools = {}, {}
    if start == LAYERS[0]:
        x = config.preprocessing(x, params.flat.dtype)
    for name in layers_between(LAYERS, start, stop):
        x, layers[name] = conv2d_relu_forward(x, params[f"{name}.W"], params[f"{name}.b"], padding=1)
        if name in POOL_AFTER:
            x, pools[name] = max_pool_forward(x, 2, 2)
    return x, Cache(layers, pools)


def backward(dannotations, cache, grads):
    """dannotations (N, L, D): adds the gradients with respect to the weights to `grads`, back to the forward's `start`."""
    dx = dannotations.reshape(cache.shape)
    first = next(iter(cache.layers))
    for name, (conv, relu) in reversed(cache.layers.items()):
        if name in cache.pools:
            dx = max_pool_backward(dx, cache.pools[name])
        dx = relu_backward(dx, relu)
        if name == first:
            dW, db = conv2d_backward_weights(dx, conv)
        else:
            dx, dW, db = conv2d_backward(dx, conv)
        grads.add(**{f"{name}.W": dW, f"{name}.b": db})
