"""Word detectors (Fang et al. 2015): which words fit a photo, and where.

    z_j = a_j W_d + b_d,    p_w = 1 - prod_j (1 - sigmoid(z_jw))        noisy-OR over the locations j: section 3

The words of a photo are those of its captions. No caption says where a word is; a location learns it because one location
with the word is enough (multiple-instance learning). The baseline has one score for the whole photo,

    p_w = sigmoid(v W_d + b_d),    v = mean_j a_j

which is the noisy-OR over one location, the mean annotation.

Differs: the paper trains a whole network on the words, whose last layers are convolutions; here the encoder is not trained.
"""

from dataclasses import dataclass

import numpy as np

from satnp.captioners.config import Validated
from satnp.captioners.detector import attributes_forward
from satnp.captioners.initialise import initialise
from satnp.early.fitting import fit_parameters
from satnp.layers import affine_forward, noisy_or_loss_backward, noisy_or_loss_forward, rows, sigmoid
from satnp.scores.precision import mean_average_precision


@dataclass(frozen=True)
class Config(Validated):
    K: int              # words
    D: int = 512
    whole: bool = False  # the baseline: the mean annotation is the only location
    decay: float = 1e-4  # weight of |W_d|^2 / 2 in the loss
    batch: int = 64
    rate: float = 2e-3
    epochs: int = 12


def shapes(config):
    return {"W_d": (config.D, config.K), "b_d": (config.K,)}


def locations(config, annotations):
    """annotations (N, L, D) -> (N, L, D), or the mean (N, 1, D)"""
    return annotations.mean(axis=1, keepdims=True) if config.whole else annotations


def forward(p, config, annotations, y):
    """noisy_or_loss + decay/2 |W_d|^2: annotations (N, L, D), y (N, K) -> loss (), cache"""
    seen = locations(config, annotations)
    z, affine = affine_forward(rows(seen), p.W_d, p.b_d)
    loss, cache = noisy_or_loss_forward(z.reshape(*seen.shape[:2], -1), y)
    return loss + 0.5 * config.decay * (p.W_d * p.W_d).sum(), (p, config, affine, cache)


def backward(cache, grads):
    """Adds the gradients of W_d and b_d to grads."""
    p, config, affine, of_loss = cache
    dz = rows(noisy_or_loss_backward(1.0, of_loss))
    grads.add(W_d=affine.x.T @ dz + config.decay * p.W_d, b_d=dz.sum(axis=0))


def detect(p, config, annotations):
    """annotations (N, L, D) -> p_w (N, K)"""
    return attributes_forward(p, locations(config, annotations))[0]


def where(p, annotations):
    """The probability of each word at each location: annotations (N, L, D) -> (N, L, K)"""
    return sigmoid(affine_forward(rows(annotations), p.W_d, p.b_d)[0]).reshape(*annotations.shape[:2], -1)


def train(config, annotations, y, val_annotations, val_y, seed=0):
    """Train on annotations (N, L, D), a host array, and y (N, K) bool -> Parameters of the epoch with the best mean average
    precision on the validation photos, and (step, precision) of each epoch."""
    rng = np.random.default_rng([seed, 5])
    p = initialise(shapes(config), rng)
    p.W_d *= 0.1
    L, share = 1 if config.whole else annotations.shape[1], (y.sum(axis=0) + 0.5) / (len(y) + 1)
    p.b_d[...] = np.log(np.expm1(-np.log1p(-share) / L))  # each word is as probable as it is frequent
    order = []

    def draw(rng):
        nonlocal order
        order = order or np.split(rng.permutation(len(y)), range(config.batch, len(y), config.batch))
        chosen = order.pop()
        return annotations[chosen].astype(p.flat.dtype), y[chosen].astype(p.flat.dtype)

    def work(batch, grads):
        loss, cache = forward(p, config, *batch)
        backward(cache, grads)
        return loss

    def validate():
        parts = range(0, len(val_y), config.batch)
        found = [detect(p, config, val_annotations[n : n + config.batch].astype(p.flat.dtype)) for n in parts]
        return mean_average_precision(np.concatenate(found), val_y)[0]

    steps = -(-len(y) // config.batch)
    return p, fit_parameters(p, draw, work, config.epochs * steps, config.rate, rng, validate, steps, "word detectors")
