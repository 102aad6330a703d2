"""Word detectors (Fang et al. 2015): which words fit a photo, and where.

    z_j = a_j W_d + b_d,    p_w = 1 - prod_j (1 - sigmoid(z_jw))        noisy-OR over the locations j: section 3

The words of a photo are those of its captions. No caption says where a word is; a location learns it because one location
with the word is enough (multiple-instance learning). The baseline has one score for the whole photo,

    p_w = sigmoid(v W_d + b_d),    v = mean_j a_j

which is the noisy-OR over one location, the mean annotation. With `hidden`, W_d reads ReLU(a_j W_1 + b_1) in place of a_j: a
word such as "above" is not a sum over the features of one location.

Differs: the paper trains a whole network on the words, whose last layers are convolutions; here the encoder is not trained.
"""

from dataclasses import dataclass

import numpy as np

from satnp.captioners.attributes import FUNCTION_WORDS
from satnp.captioners.config import Validated
from satnp.captioners.detector import attributes_forward
from satnp.captioners.initialise import initialise
from satnp.data.captions import SPECIALS
from satnp.early.fitting import fit_parameters, minibatches
from satnp.early.photos import means
from satnp.early.triples import PLACES
from satnp.errors import InputError
from satnp.layers import (
    affine_forward,
    noisy_or_loss_backward,
    noisy_or_loss_forward,
    relu_backward,
    relu_forward,
    rows,
    sigmoid,
)

UNSEEN = FUNCTION_WORDS - PLACES
FLOOR = 1e-6  # smallest p_w, and smallest 1 - p_w, of a logarithm


@dataclass(frozen=True)
class Config(Validated):
    K: int              # words
    D: int = 512
    whole: bool = False  # the baseline: the mean annotation is the only location
    hidden: bool = False  # a layer between the annotations and the words
    H: int = 256         # its units
    decay: float = 1e-4  # weight of |W_d|^2 / 2 in the loss
    batch: int = 64
    rate: float = 2e-3
    epochs: int = 12


def seen_words(words, count):
    """The ids of the words that get a detector: the `count` commonest of a vocabulary, without function words other than
    prepositions of place. Raises InputError if there are none"""
    found = [i for i, word in enumerate(words) if i >= len(SPECIALS) and word not in UNSEEN][:count]
    if not found:
        raise InputError(
            f"the vocabulary of {len(words)} words has none that a photo could show; give more captions, or a smaller "
            "min_count"
        )
    return np.array(found)


def said(captions, ids):
    """Which of the words `ids` (K,) the captions of each photo, lists of ids, have: (N, K) bool"""
    return np.array([np.isin(ids, np.concatenate(of_photo)) for of_photo in captions])


def detectors(config):
    """The Config of the detectors of a system whose Config has K, D, whole, hidden, H and `detecting`, their epochs."""
    return Config(config.K, config.D, config.whole, config.hidden, config.H, epochs=config.detecting)


def shapes(config):
    if config.hidden:
        hidden = {"W_1": (config.D, config.H), "b_1": (config.H,)}
        return hidden | {"W_d": (config.H, config.K), "b_d": (config.K,)}
    return {"W_d": (config.D, config.K), "b_d": (config.K,)}


def locations(config, annotations):
    """annotations (N, L, D) -> (N, L, D), or the mean (N, 1, D)"""
    return annotations.mean(axis=1, keepdims=True) if config.whole else annotations


def read_forward(p, config, seen):
    """What W_d reads: seen (N, L, D) -> (N, L, D), or ReLU(seen W_1 + b_1) (N, L, H); cache"""
    if not config.hidden:
        return seen, None
    pre, affine = affine_forward(rows(seen), p.W_1, p.b_1)
    read, relu = relu_forward(pre)
    return read.reshape(*seen.shape[:2], -1), (affine, relu)


def forward(p, config, annotations, y):
    """noisy_or_loss + decay/2 |W_d|^2 (and |W_1|^2): annotations (N, L, D), y (N, K) -> loss (), cache"""
    read, hidden = read_forward(p, config, locations(config, annotations))
    z, affine = affine_forward(rows(read), p.W_d, p.b_d)
    loss, cache = noisy_or_loss_forward(z.reshape(*read.shape[:2], -1), y)
    for W in (p.W_d, p.W_1) if config.hidden else (p.W_d,):
        loss = loss + 0.5 * config.decay * (W * W).sum()
    return loss, (p, config, hidden, affine, cache)


def backward(cache, grads):
    """Adds the gradients of the parameters to grads."""
    p, config, hidden, affine, of_loss = cache
    dz = rows(noisy_or_loss_backward(1.0, of_loss))
    grads.add(W_d=affine.x.T @ dz + config.decay * p.W_d, b_d=dz.sum(axis=0))
    if config.hidden:
        of_hidden, relu = hidden
        dpre = relu_backward(dz @ p.W_d.T, relu)
        grads.add(W_1=of_hidden.x.T @ dpre + config.decay * p.W_1, b_1=dpre.sum(axis=0))


def detect(p, config, annotations):
    """annotations (N, L, D) -> p_w (N, K)"""
    return attributes_forward(p, read_forward(p, config, locations(config, annotations))[0])[0]


def detect_all(p, config, annotations, photos=None):
    """detect, for a host array (N, L, D) of any float type, a batch at a time; photos: the rows of it, default all"""
    photos = np.arange(len(annotations)) if photos is None else photos
    parts = (photos[n : n + config.batch] for n in range(0, len(photos), config.batch))
    return np.concatenate([detect(p, config, annotations[part].astype(p.flat.dtype)) for part in parts])


def where(p, config, annotations):
    """The probability of each word at each location: annotations (N, L, D) -> (N, L, K)"""
    read, _ = read_forward(p, config, annotations)
    return sigmoid(affine_forward(rows(read), p.W_d, p.b_d)[0]).reshape(*read.shape[:2], -1)


def train(config, annotations, y, val_annotations, val_y, seed=0, photos=None):
    """Train on annotations (N, L, D), a host array, and y (N, K) bool -> Parameters of the epoch with the largest likelihood
    of the validation photos, and (step, log-likelihood in nats a photo) of each epoch. photos: rows to train on, default all
    """
    photos = np.arange(len(y)) if photos is None else photos
    rng = np.random.default_rng([seed, 5])
    p = initialise(shapes(config), rng)
    p.W_d *= 0.1
    if config.whole:
        annotations, val_annotations = means(annotations)[:, None], means(val_annotations)[:, None]
    L, share = 1 if config.whole else annotations.shape[1], (y[photos].sum(axis=0) + 0.5) / (len(photos) + 1)
    p.b_d[...] = np.log(np.expm1(-np.log1p(-share) / L))  # each word is as probable as it is frequent
    batches = minibatches(photos, config.batch, rng)

    def draw(rng):
        chosen = next(batches)
        return annotations[chosen].astype(p.flat.dtype), y[chosen].astype(p.flat.dtype)

    def work(batch, grads):
        loss, cache = forward(p, config, *batch)
        backward(cache, grads)
        return loss

    def validate():
        p_w = np.clip(detect_all(p, config, val_annotations), FLOOR, 1 - FLOOR)
        return float(np.where(val_y, np.log(p_w), np.log1p(-p_w)).sum(axis=1).mean())

    steps = -(-len(photos) // config.batch)
    return p, fit_parameters(p, draw, work, config.epochs * steps, config.rate, rng, validate, steps, "word detectors",
                             "log p of a validation photo")  # fmt: skip
