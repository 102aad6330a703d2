"""The last affine map and the cross-entropy in one, so that the (N, V) numbers are held once."""

from typing import NamedTuple

import numpy as np

from satnp.backend import xp_of
from satnp.threads import parallel, shares

BLOCK = 1 << 17  # logits at a time: 512 KiB of float32


class VocabularyCache(NamedTuple):
    hidden: object
    W: object
    error: object    # (N, V), p - onehot(targets)
    weights: object
    log_p: object    # (N,), of the targets


def vocabulary_forward(hidden, W, b, targets, weights):
    """loss = sum_n weights_n * -log p_n[targets_n],  p = softmax(hidden W + b)

    hidden (N, M), W (M, V), b (V,), targets (N,), weights (N,) -> loss ()

    Units: nats. Source: Xu et al. 2015, eqs. 7 and 14. The same as affine and cross_entropy, one after the other.
    """
    xp = xp_of(hidden)
    logits = hidden @ W
    log_p = xp.empty(len(targets), dtype=logits.dtype)
    step = max(1, BLOCK // W.shape[1]) if xp is np else len(targets)

    def share(part):
        for start in range(part.start, part.stop, step):
            rows = slice(start, min(start + step, part.stop))
            _log_softmax_and_error(logits[rows], b, targets[rows], log_p[rows])

    parallel(share, shares(len(targets), 4 * step))
    return -(weights * log_p).sum(), VocabularyCache(hidden, W, logits, weights, log_p)


def _log_softmax_and_error(x, b, targets, log_p):
    """x (N, V): logits without b become p - onehot(targets) in place; log_p (N,) is written to."""
    xp = xp_of(x)
    places = xp.arange(len(targets)), targets
    x += b
    x -= x.max(axis=1, keepdims=True)
    log_p[...] = x[places]
    xp.exp(x, out=x)
    total = x.sum(axis=1)
    log_p -= xp.log(total)
    x /= total[:, None]
    x[places] -= 1


def vocabulary_backward(dloss, cache):
    """dloss () -> dhidden (N, M), dW (M, V), db (V,)"""
    hidden, W, error, weights, _ = cache
    scale = (dloss * weights)[:, None]
    dhidden = scale * (error @ W.T)
    dW = (scale * hidden).T @ error
    return dhidden, dW, scale[:, 0] @ error
