"""Softmax over locations, and the cross-entropy of words."""

from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.arrays.kernels import softmax, softmax_gradient


class SoftmaxCache(NamedTuple):
    alpha: object


class CrossEntropyCache(NamedTuple):
    p: object
    targets: object
    weights: object
    log_p: object  # (N,), log p of the targets


def log_softmax(scores):
    """log softmax over the last axis, without the logarithm of a rounded probability."""
    xp = xp_of(scores)
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis=-1, keepdims=True))


def softmax_forward(scores):
    """alpha_i = exp(e_i) / sum_k exp(e_k)

    scores (N, L) -> alpha (N, L)

    Source: Xu et al. 2015, eq. 5.
    """
    alpha = softmax(scores)
    return alpha, SoftmaxCache(alpha)


def softmax_backward(dalpha, cache):
    """dalpha (N, L) -> dscores (N, L)"""
    (alpha,) = cache
    return softmax_gradient(dalpha, alpha)


def cross_entropy_forward(logits, targets, weights):
    """loss = sum_n weights_n * -log softmax(logits_n)[targets_n]; a padded word has weight 0.

    logits (N, V), targets (N,), weights (N,) -> loss ()

    Units: nats. Source: Xu et al. 2015, eq. 14, first term.
    """
    xp = xp_of(logits)
    log_softmaxed = log_softmax(logits)
    log_p = log_softmaxed[xp.arange(len(targets)), targets]
    loss = -(weights * log_p).sum()
    return loss, CrossEntropyCache(xp.exp(log_softmaxed), targets, weights, log_p)


def cross_entropy_backward(dloss, cache):
    """dloss () -> dlogits (N, V)"""
    p, targets, weights, _ = cache
    xp = xp_of(p)
    scale = (dloss * weights)[:, None]
    dlogits = scale * p
    dlogits[xp.arange(len(targets)), targets] -= scale[:, 0]
    return dlogits
