"""The mean annotation: one vector for a whole photo."""

from typing import NamedTuple

from satnp.arrays.backend import xp_of


class MeanCache(NamedTuple):
    shape: tuple


def mean_annotation_forward(annotations):
    """v = mean_i a_i

    annotations (N, L, D) -> v (N, D)
    """
    return annotations.mean(axis=1), MeanCache(annotations.shape)


def mean_annotation_backward(dv, cache):
    """dv (N, D) -> dannotations (N, L, D), a read-only view"""
    (shape,) = cache
    return xp_of(dv).broadcast_to((dv / shape[1])[:, None], shape)
