"""An encoder with a CBAM block behind it (Woo et al. 2018): channels are weighted first, then locations.

    F' = sigmoid(MLP(mean_i F_i) + MLP(max_i F_i)) * F                 eq. 2, one MLP; max(1, D // 16) hidden units
    F'' = sigmoid(conv7x7([mean_c F'_c ; max_c F'_c])) * F'            eq. 3

F (N, rows, columns, D) are the annotations of the encoder, as a map; the new annotations are F''.

Behind the small CNN, the block is drawn with the CNN's weights and trained with them. Behind an encoder with public weights,
it is the layer "cbam", from which fine-tuning starts by default: the encoder's annotations are computed once and stored.
There W_c2 and W_s start at 0, b_c2 at 1 (the MLP adds it twice) and b_s at 2, so that each gate starts at sigmoid(2) = 0.88
for every channel and location: the captioner begins with the encoder's own annotations times 0.78. Gates that start at
sigmoid(0) would quarter them, and random gates would weight them at random.
"""

from typing import NamedTuple

import numpy as np

from satnp.arrays.parameters import Parameters
from satnp.encoders.weights import he_normal
from satnp.layers import cbam_backward, cbam_forward

NAMES = "W_c1", "b_c1", "W_c2", "b_c2", "W_s", "b_s"
LAYER = "cbam"


class Cache(NamedTuple):
    base: object  # None if the forward pass starts at the block
    block: object


class WithCBAM:
    """The encoder `base`, a module, with the block behind it, whose parameters are those in NAMES."""

    prefix = ""

    def __init__(self, base):
        self.base = base

    @property
    def Config(self):
        return self.base.Config

    def block_shapes(self, config):
        D, K = config.D, max(1, config.D // 16)
        shapes = (D, K), (K,), (K, D), (D,), (7, 7, 2, 1), (1,)
        return {self.prefix + name: shape for name, shape in zip(NAMES, shapes, strict=True)}

    def shapes(self, config):
        """{name: shape}: those of `base`, then those of the block."""
        return self.base.shapes(config) | self.block_shapes(config)

    def init(self, config, rng):
        """He-normal weights, biases 0, on the host."""
        return he_normal(self.shapes(config), rng)

    def forward(self, params, config, images):
        """images (N, S, S, 3) RGB 0-255 -> annotations (N, L, D), cache"""
        annotations, cache = self.base.forward(params, config, images)
        return self.block_forward(params, config, annotations, cache)

    def block_forward(self, params, config, x, cache=None):
        """x (N, L, D) or (N, rows, columns, D), cache of `base` -> annotations (N, L, D), cache"""
        x = x.reshape(-1, *config.grid, config.D)
        x, block = cbam_forward(x, *(params[self.prefix + name] for name in NAMES))
        return x.reshape(len(x), -1, config.D), Cache(cache, block)

    def backward(self, dannotations, cache, grads):
        """dannotations (N, L, D): adds the gradients with respect to the weights to `grads`, back to the forward's start."""
        dx, *gradients = cbam_backward(dannotations.reshape(cache.block.locations.x.shape), cache.block)
        grads.add(**{self.prefix + name: gradient for name, gradient in zip(NAMES, gradients, strict=True)})
        if cache.base is not None:
            self.base.backward(dx.reshape(dannotations.shape), cache.base, grads)


class PretrainedWithCBAM(WithCBAM):
    """The same behind an encoder with public weights: its last layer is "cbam", with the parameters cbam.W_c1 and so on."""

    prefix = f"{LAYER}."
    NEW_LAYER = LAYER

    @property
    def PREPROCESSING(self):
        return self.base.PREPROCESSING

    def layers(self, config):
        return *self.base.layers(config), LAYER

    def init(self, config, rng):
        """He-normal weights of `base` on the host, for tests, and a new block; `load` reads trained weights."""
        return self._with_new_block(self.base.init(config, rng), config, rng)

    def load(self, path, config):
        """Load the Parameters of `base` from a weights file and add a new block, always the same."""
        return self._with_new_block(self.base.load(path, config), config, np.random.default_rng(0))

    def _with_new_block(self, params, config, rng):
        block = he_normal(self.block_shapes(config), rng)
        for name, value in (("W_c2", 0), ("b_c2", 1), ("W_s", 0), ("b_s", 2)):
            block[self.prefix + name][...] = value
        return Parameters.of(dict(params.items()) | dict(block.items()))

    def forward(self, params, config, x, start=None):
        """x (N, S, S, 3) RGB 0-255, or the input of layer `start` -> annotations (N, L, D), cache"""
        if start == LAYER:
            return self.block_forward(params, config, x)
        annotations, cache = self.base.forward(params, config, x, start or self.base.LAYERS[0])
        return self.block_forward(params, config, annotations, cache)

    def feature_map(self, params, config, x, start=None, stop=LAYER):
        """Run the layers from `start` up to, but not including, `stop`. The input of "cbam" is the map of the annotations.

        x (N, S, S, 3) RGB 0-255, or the input of layer `start` -> x (N, rows, columns, C), cache of `base`
        """
        start = start or self.base.LAYERS[0]
        if stop != LAYER:
            return self.base.feature_map(params, config, x, start, stop)
        annotations, cache = self.base.forward(params, config, x, start)
        return annotations.reshape(-1, *config.grid, config.D), cache
