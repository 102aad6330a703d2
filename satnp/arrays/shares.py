"""Data parallelism over the cores of this process: each core takes a share of a minibatch through all layers.

    g = sum over the shares of  (captions of the share / N) g_share

The cores meet once a step. Inside a share BLAS uses one thread, and layers do not divide their work: a core that another
program uses delays its own share, and not each operation of all cores. ranks.py does the same over processes.
"""

import sys

import numpy as np

from satnp.arrays import threads
from satnp.arrays.backend import xp_of
from satnp.arrays.elementwise import elementwise

GIL = getattr(sys, "_is_gil_enabled", lambda: True)()  # False in free-threaded Python
LEAST = 2**24 if GIL else 1  # multiplications of a word's step that are worth a share; with fewer, cores wait for the GIL


def shares_of(n, size, xp):
    """Slices of n captions: one for each core, or one for all of a small minibatch, or if the arrays are on a device

    size: the number of parameters that a word uses; xp: the module of the arrays.
    """
    return threads.shares(n, LEAST // size) if xp is np else [slice(0, n)]


def in_shares(work, shares):
    """[work(share) for share in shares], each on a core, with BLAS on one thread

    A single share runs on this thread, and convolutions in it use the other cores.
    """
    with threads.one_blas_thread():
        return threads.parallel(work, shares)


class Gradient:
    """The gradient of a minibatch, computed in shares and summed in `grads`, Parameters. size as in shares_of."""

    def __init__(self, grads, size):
        self.grads, self.size, self.others = grads, size, []

    def compute(self, passes, n, N):
        """Set grads to the gradient of n of the N captions of a minibatch -> [(dloss, result)] of the shares

        passes(rows, grads, dloss) -> result: both passes over the slice `rows` of the n captions. They add dloss times the
        gradient of their mean loss to grads. Without captions (n = 0) they get the first one, with dloss 0.
        """

        def work(share):
            rows, grads = share
            grads.begin_sums()
            dloss = (min(n, rows.stop) - min(n, rows.start)) / N
            found = passes(rows, grads, dloss)
            grads.end_sums()
            return dloss, found

        shares = shares_of(max(1, n), self.size, xp_of(self.grads.flat))
        self.others += [self.grads.zeros_like() for _ in range(len(shares) - 1 - len(self.others))]
        done = in_shares(work, list(zip(shares, [self.grads, *self.others], strict=False)))
        for other in self.others[: len(shares) - 1]:
            _plus(self.grads.flat, other.flat, out=(self.grads.flat,))
        return done


def of_captions(noise, rows, N):
    """The Noise of the captions in the slice `rows` of N; its arrays are (N,), or (T, S*N, ...) sample by sample, or ()."""

    def part(x):
        if x is None or x.ndim == 0:
            return x
        if x.ndim == 1:
            return x[rows]
        samples = x.reshape(len(x), -1, N, x.shape[2])
        return samples[:, :, rows].reshape(len(x), -1, x.shape[2])

    return type(noise)(*map(part, noise))


@elementwise
def _plus(a, b):
    return a + b
