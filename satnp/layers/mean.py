"""The mean annotation: one vector for a whole photo."""

from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.layers.attention import context_forward


class MeanCache(NamedTuple):
    shape: tuple


class MaskedMeanCache(NamedTuple):
    share: object  # (N, L), 1 / (number of locations that are present), or 0


def mean_annotation_forward(annotations):
    """v = mean_i a_i

    annotations (N, L, D) -> v (N, D)
    """
    return annotations.mean(axis=1), MeanCache(annotations.shape)


def mean_annotation_backward(dv, cache):
    """dv (N, D) -> dannotations (N, L, D), a read-only view"""
    (shape,) = cache
    return xp_of(dv).broadcast_to((dv / shape[1])[:, None], shape)


def masked_mean_forward(annotations, present):
    """v = sum_i present_i a_i / sum_i present_i

    annotations (N, L, D), present (N, L) -> v (N, D)
    """
    share = present.astype(annotations.dtype)
    share /= share.sum(axis=1, keepdims=True)
    return context_forward(share, annotations)[0], MaskedMeanCache(share)


def masked_mean_backward(dv, cache):
    """dv (N, D) -> dannotations (N, L, D)"""
    (share,) = cache
    return share[:, :, None] * dv[:, None]
