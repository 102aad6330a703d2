"""Word embeddings: E has one row per word."""

from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import xp_of
from satnp.arrays.kernels import segment_sum


class EmbeddingCache(NamedTuple):
    ids: object
    shape: tuple


def embedding_forward(ids, E):
    """out = E[ids]

    ids (N,), E (V, M) -> out (N, M)
    """
    return E[ids], EmbeddingCache(ids, E.shape)


def embedding_backward(dout, cache):
    """dout (N, M) -> dE (V, M)

    Pitfall: `dE[ids] += dout` adds only one of the occurrences of a repeated word.
    """
    ids, shape = cache
    xp = xp_of(dout)
    order = xp.argsort(ids, kind="stable")
    if xp is not np:
        return segment_sum(dout, ids[order], order, shape[0])
    dE = np.zeros(shape, dtype=dout.dtype)
    words, starts = np.unique(ids[order], return_index=True)
    dE[words] = np.add.reduceat(dout[order], starts)
    return dE
