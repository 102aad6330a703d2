"""The affine map, the workhorse of every equation."""

from typing import NamedTuple

import numpy as np

from satnp.backend import xp_of
from satnp.threads import parallel, shares

SMALL = 10**6  # multiplications of a product that OpenBLAS does without copying its matrices first
LARGE = 2**22  # numbers in a matrix that does not stay in the cache from step to step
FEW = 96       # rows


class AffineCache(NamedTuple):
    x: object
    W: object


def affine_forward(x, W, b):
    """out = x W + b

    x (N, D), W (D, H), b (H,) -> out (N, H)
    """
    out = x @ W + b
    return out, AffineCache(x, W)


def affine_backward(dout, cache):
    """dout (N, H) -> dx (N, D), dW (D, H), db (H,)"""
    x, W = cache
    db = dout.sum(axis=0)
    dW = x.T @ dout
    dx = dout @ W.T
    return dx, dW, db


def few_rows_product(x, W):
    """x W^T of few rows x (N, K) and many W (R, K) -> (N, R), the product of each step of a recurrence

    BLAS lays W out anew for its kernel in each product, which takes half as long as to multiply 64 rows by it. On the host
    a large W, contiguous, is therefore taken in pieces that are too small for BLAS to do so: a third faster.
    """
    if not _pays(len(x), W) or not W.flags.c_contiguous:
        return x @ W.T if W.flags.f_contiguous else (W @ x.T).T
    (N, K), R = x.shape, len(W)
    parts = next(count for count in range(-(-K * N * 8 // SMALL), K + 1) if K % count == 0)  # pieces of 8 rows of W or more
    rows = SMALL // (N * K // parts)
    whole = R // rows * rows
    xT, out = np.ascontiguousarray(x.T).reshape(parts, K // parts, N), np.empty((R, N), x.dtype)
    pieces = W[:whole].reshape(-1, rows, parts, K // parts).swapaxes(1, 2)
    outs = out[:whole].reshape(-1, rows, N)

    def work(share):
        if parts == 1:
            np.matmul(pieces[share, 0], xT[0], out=outs[share])
        else:
            np.sum(np.matmul(pieces[share], xT), axis=1, out=outs[share])

    parallel(work, shares(len(pieces)))
    np.matmul(W[whole:], x.T, out=out[whole:])
    return out.T


def for_few_rows(W, N):
    """W (R, K) as few_rows_product wants it for N rows, to be made once for many products."""
    return np.ascontiguousarray(W) if _pays(N, W) else W


def _pays(N, W):
    return xp_of(W) is np and W.dtype.kind == "f" and N <= FEW and W.size >= LARGE
