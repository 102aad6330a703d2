"""The last affine layer and the cross-entropy in one function, so that the host stores only one (N, V) array."""

from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import xp_of
from satnp.arrays.kernels import word_errors
from satnp.arrays.threads import parallel, shares

BLOCK = 1 << 17  # logits at a time: 512 KiB of float32


class WordLossCache(NamedTuple):
    error: object    # (N, V), p - onehot(targets), or p - the smoothed targets
    weights: object
    log_p: object    # (N,), log p of the targets
    temperature: float


class VocabularyCache(NamedTuple):
    hidden: object   # divided by the temperature
    W: object
    error: object    # (N, V), p - onehot(targets), or p - the smoothed targets
    weights: object
    log_p: object    # (N,), log p of the targets
    temperature: float


def vocabulary_forward(hidden, W, b, targets, weights, smoothing=0.0, never=(), temperature=1.0, late=(0, 0)):
    """loss = sum_n weights_n * -log p_n[targets_n],  p = softmax((hidden W + b) / temperature)

    hidden (N, M), W (M, V), b (V,), targets (N,), weights (N,) -> loss ()

    Units: nats. Source: Xu et al. 2015, eqs. 7 and 14. Equal to affine followed by cross_entropy.

    With label smoothing (Szegedy et al. 2016, section 7), -log p of the target becomes the cross-entropy with 1 - smoothing
    on the target, plus smoothing / V on every word.

    The words `never` have probability 0 and get no gradient; targets must be other words, and smoothing 0. The same holds
    for the word late[0] in the first late[1] rows.
    """
    if temperature != 1:
        hidden, b = hidden / temperature, b / temperature
    if never:
        b = b.copy()
        for word in never:
            b[word] = -np.inf
    logits = hidden @ W
    if late[1]:
        logits[: late[1], late[0]] = -np.inf
    error, log_p = _errors(logits, b, targets)
    loss = -xp_of(logits).dot(weights, log_p)
    if smoothing:
        loss = loss + smoothing * xp_of(logits).dot(weights, _margin(hidden, W, b, targets))
        _smooth(error, targets, smoothing)
    return loss, VocabularyCache(hidden, W, error, weights, log_p, temperature)


def word_loss_forward(logits, targets, weights, smoothing=0.0, never=(), temperature=1.0, late=(0, 0)):
    """loss = sum_n weights_n * -log p_n[targets_n],  p = softmax(logits / temperature)

    logits (N, V), targets (N,), weights (N,) -> loss ()

    This is vocabulary_forward for logits that another layer has computed; the options are the same.
    """
    logits, xp = logits / temperature, xp_of(logits)
    for word in never:
        logits[:, word] = -xp.inf
    if late[1]:
        logits[: late[1], late[0]] = -xp.inf
    margin = logits[xp.arange(len(targets)), targets] - logits.mean(axis=1) if smoothing else 0
    error, log_p = _errors(logits, xp.zeros(logits.shape[1], dtype=logits.dtype), targets)
    loss = -xp.dot(weights, log_p)
    if smoothing:
        loss = loss + smoothing * xp.dot(weights, margin)
        _smooth(error, targets, smoothing)
    return loss, WordLossCache(error, weights, log_p, temperature)


def word_loss_backward(dloss, cache):
    """dloss () -> dlogits (N, V)"""
    return (dloss * cache.weights / cache.temperature)[:, None] * cache.error


def _errors(logits, b, targets):
    """word_errors; on the host a few rows at a time, in place of the logits."""
    if xp_of(logits) is not np or logits.dtype.kind != "f":
        return word_errors(logits, b, targets)
    error, log_p = logits, np.empty(len(targets), logits.dtype)
    step = max(1, BLOCK // len(b))

    def share(part):
        for start in range(part.start, part.stop, step):
            rows = slice(start, min(start + step, part.stop))
            error[rows], log_p[rows] = word_errors(logits[rows], b, targets[rows])

    parallel(share, shares(len(targets), 4 * step))
    return error, log_p


def _margin(hidden, W, b, targets):
    """log p[target] - the mean of log p over the words, (N,). The normaliser cancels, so this is linear in the logits."""
    return (hidden * (W.T[targets] - W.mean(axis=1))).sum(axis=1) + b[targets] - b.mean()


def _smooth(error, targets, smoothing):
    """Change p - onehot(targets) (N, V) to p - the smoothed targets, in place."""
    error -= smoothing / error.shape[1]
    error[xp_of(error).arange(len(error)), targets] += smoothing


def vocabulary_backward(dloss, cache):
    """dloss () -> dhidden (N, M), dW (M, V), db (V,)"""
    hidden, W, error, weights, _, temperature = cache
    scale = (dloss * weights)[:, None]
    dW = (scale * hidden).T @ error
    if temperature != 1:
        scale = scale / temperature
    return scale * (error @ W.T), dW, scale[:, 0] @ error
