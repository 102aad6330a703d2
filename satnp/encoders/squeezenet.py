"""SqueezeNet 1.1 up to its last fire module: a photo becomes 13 x 13 annotations of 512 features.

Iandola et al. 2016, release 1.1: conv1 3x3/2 without padding, max-pools 3x3/2 whose output size is rounded up, and eight
fire modules. Each is a 1x1 "squeeze" convolution, then a 1x1 and a 3x3 "expand" convolution in parallel, all with ReLU. The
ImageNet weights are those of the Caffe release (BGR, 0-255, minus (104, 117, 123)), or torchvision's with its normalisation.

`fire9` is about 94 % zeros with peaks of 300-500, which would dominate the attention layer. The annotations are therefore
its square root, scale * (sqrt(1 + x) - 1), which has a finite slope at 0 and gives vectors with a norm around 6.
"""

from dataclasses import dataclass
from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.encoders.photos import TORCHVISION, Preprocessing
from satnp.encoders.weights import check_scale, he_normal, layers_between, load_convolutions
from satnp.layers import (
    conv2d_backward_weights,
    conv2d_relu_backward,
    conv2d_relu_forward,
    expand_relu_backward,
    expand_relu_forward,
    max_pool_backward,
    max_pool_forward,
    relu_backward,
)

# name: (index in torchvision's `features`, squeeze filters, expand filters each way)
FIRES = {
    "fire2": (3, 16, 64), "fire3": (4, 16, 64), "fire4": (6, 32, 128), "fire5": (7, 32, 128),
    "fire6": (9, 48, 192), "fire7": (10, 48, 192), "fire8": (11, 64, 256), "fire9": (12, 64, 256),
}  # fmt: skip
LAYERS = ("conv1", *FIRES)
POOL_AFTER = ("conv1", "fire3", "fire5")


PREPROCESSING = {"caffe": Preprocessing(224, "BGR", (104.0, 117.0, 123.0), 1.0), "torchvision": TORCHVISION}


@dataclass(frozen=True)
class Config:
    """224 px gives a grid of 13 x 13; another size gives another grid."""

    preprocessing: Preprocessing = PREPROCESSING["caffe"]
    scale: float = 0.25  # factor of the annotations

    def __post_init__(self):
        check_scale(self.scale)

    @property
    def D(self):
        return 512

    @property
    def grid(self):
        """(rows, columns) of the annotations."""
        side = (self.preprocessing.size - 3) // 2 + 1
        for _ in POOL_AFTER:
            side = -(-(side - 3) // 2) + 1
        return side, side


class FireCache(NamedTuple):
    squeeze: object
    expand: object


class Cache(NamedTuple):
    """layers {name: its cache} and pools {name of the layer before: its cache}, in the order of the forward pass."""

    params: object
    layers: dict
    pools: dict
    root: object = None
    scale: float = 1.0


def layers(config):
    """The names of the layers."""
    return LAYERS


def shapes(config):
    """{name: shape}: W (K, K, C, F), b (F,)."""
    out, C = {"conv1.W": (3, 3, 3, 64), "conv1.b": (64,)}, 64
    for fire, (_, S, F) in FIRES.items():
        for part, K, c, f in (("squeeze", 1, C, S), ("expand1", 1, S, F), ("expand3", 3, S, F)):
            out |= {f"{fire}.{part}.W": (K, K, c, f), f"{fire}.{part}.b": (f,)}
        C = 2 * F
    return out


def init(config, rng):
    """He-normal weights on the host, for tests; `load` reads trained weights."""
    return he_normal(shapes(config), rng)


def tensor_names(config):
    """{our name: torchvision's name}"""
    part = {"squeeze": "squeeze", "expand1": "expand1x1", "expand3": "expand3x3"}
    kind = {"W": "weight", "b": "bias"}
    names = {}
    for name in shapes(config):
        layer, *rest = name.split(".")
        if layer == "conv1":
            names[name] = f"features.0.{kind[rest[0]]}"
        else:
            names[name] = f"features.{FIRES[layer][0]}.{part[rest[0]]}.{kind[rest[1]]}"
    return names


def load(path, config):
    """Load Parameters from a weights file with torchvision's names."""
    return load_convolutions(path, tensor_names(config), shapes(config))


def forward(params, config, x, start="conv1"):
    """annotations = scale * (sqrt(1 + fire9) - 1)

    x (N, S, S, 3) RGB 0-255, or the input of layer `start` -> annotations (N, L, D), cache
    """
    x, cache = feature_map(params, config, x, start)
    root = xp_of(x).sqrt(1 + x)
    annotations = (config.scale * (root - 1)).reshape(x.shape[0], -1, x.shape[3])
    return annotations, cache._replace(root=root, scale=config.scale)


def feature_map(params, config, x, start="conv1", stop=None):
    """Run the layers from `start` up to, but not including, `stop` (None: to the last, `fire9`), each with its pool.

    x (N, S, S, 3) RGB 0-255 if `start` is the first layer, else the input of `start` -> x (N, rows, columns, C), cache
    """
    layers, pools = {}, {}
    if start == LAYERS[0]:
        x = config.preprocessing(x, params.flat.dtype)
    for name in layers_between(LAYERS, start, stop):
        x, layers[name] = conv1_forward(params, x) if name == "conv1" else fire_forward(params, name, x)
        if name in POOL_AFTER:
            x, pools[name] = max_pool_forward(x, 3, 2, ceil=True)
    return x, Cache(params, layers, pools)


def backward(dannotations, cache, grads):
    """dannotations (N, L, D): adds the gradients with respect to the weights to `grads`, back to the forward's `start`."""
    dx = cache.scale * dannotations.reshape(cache.root.shape) / (2 * cache.root)
    for name, layer in reversed(cache.layers.items()):
        if name in cache.pools:
            dx = max_pool_backward(dx, cache.pools[name])
        dx = conv1_backward(dx, layer, grads) if name == "conv1" else fire_backward(dx, cache.params, name, layer, grads)


def conv1_forward(p, x):
    """relu(conv1): x (N, S, S, 3) -> out (N, R, R, 64), cache"""
    return conv2d_relu_forward(x, p["conv1.W"], p["conv1.b"], stride=2)


def conv1_backward(dout, cache, grads):
    """dout (N, R, R, 64): adds to `grads`. The gradient with respect to the pixels is not needed."""
    _add(grads, "conv1", *conv2d_backward_weights(relu_backward(dout, cache.relu), cache.conv))


def fire_forward(p, name, x):
    """[relu(e1(s)) ; relu(e3(s))] with s = relu(squeeze(x)): x (N, R, S, C) -> out (N, R, S, 2F), cache"""
    s, squeeze = conv2d_relu_forward(x, p[f"{name}.squeeze.W"], p[f"{name}.squeeze.b"])
    W1, b1, W3, b3 = (p[f"{name}.{part}"] for part in ("expand1.W", "expand1.b", "expand3.W", "expand3.b"))
    out, expand = expand_relu_forward(s, W1, b1, W3, b3)
    return out, FireCache(squeeze, expand)


def fire_backward(dout, p, name, cache, grads):
    """dout (N, R, S, 2F) -> dx (N, R, S, C); adds to `grads`"""
    ds, dW1, db1, dW3, db3 = expand_relu_backward(dout, cache.expand)
    _add(grads, f"{name}.expand1", dW1, db1)
    _add(grads, f"{name}.expand3", dW3, db3)
    dx, dW, db = conv2d_relu_backward(ds, cache.squeeze)
    _add(grads, f"{name}.squeeze", dW, db)
    return dx


def _add(grads, layer, dW, db):
    grads.add(**{f"{layer}.W": dW, f"{layer}.b": db})
