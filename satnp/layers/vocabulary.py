"""The last affine layer and the cross-entropy in one function, so that the host stores only one (N, V) array."""

from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import xp_of
from satnp.arrays.kernels import word_errors
from satnp.arrays.threads import parallel, shares

BLOCK = 1 << 17  # logits at a time: 512 KiB of float32


class VocabularyCache(NamedTuple):
    hidden: object
    W: object
    error: object    # (N, V), p - onehot(targets)
    weights: object
    log_p: object    # (N,), log p of the targets


def vocabulary_forward(hidden, W, b, targets, weights):
    """loss = sum_n weights_n * -log p_n[targets_n],  p = softmax(hidden W + b)

    hidden (N, M), W (M, V), b (V,), targets (N,), weights (N,) -> loss ()

    Units: nats. Source: Xu et al. 2015, eqs. 7 and 14. Equal to affine followed by cross_entropy.
    """
    logits = hidden @ W
    if xp_of(logits) is np and logits.dtype.kind == "f":  # a few rows at a time, in place
        error, log_p = logits, np.empty(len(targets), logits.dtype)
        step = max(1, BLOCK // W.shape[1])

        def share(part):
            for start in range(part.start, part.stop, step):
                rows = slice(start, min(start + step, part.stop))
                error[rows], log_p[rows] = word_errors(logits[rows], b, targets[rows])

        parallel(share, shares(len(targets), 4 * step))
    else:
        error, log_p = word_errors(logits, b, targets)
    return -xp_of(logits).dot(weights, log_p), VocabularyCache(hidden, W, error, weights, log_p)


def vocabulary_backward(dloss, cache):
    """dloss () -> dhidden (N, M), dW (M, V), db (V,)"""
    hidden, W, error, weights, _ = cache
    scale = (dloss * weights)[:, None]
    dhidden = scale * (error @ W.T)
    dW = (scale * hidden).T @ error
    return dhidden, dW, scale[:, 0] @ error
