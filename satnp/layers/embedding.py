"""Word embeddings: one row of E a word."""

from typing import NamedTuple

import numpy as np

from satnp.backend import xp_of


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

    Pitfall: `dE[ids] += dout` keeps only one of the occurrences of a repeated word.
    """
    ids, shape = cache
    xp = xp_of(dout)
    dE = xp.zeros(shape, dtype=dout.dtype)
    if xp is np:  # where add.at is slow: sums over the stretches of one word
        order = np.argsort(ids, kind="stable")
        words, starts = np.unique(ids[order], return_index=True)
        dE[words] = np.add.reduceat(dout[order], starts)
    else:
        xp.add.at(dE, ids, dout)
    return dE
