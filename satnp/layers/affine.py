"""The affine map, the workhorse of every equation."""

from typing import NamedTuple

import numpy as np

from satnp.backend import xp_of
from satnp.threads import parallel, shares

SMALL = 10**6  # multiplications of a product that OpenBLAS does without copying its matrices first
LARGE = 2**22  # numbers in a matrix that does not stay in the cache from step to step
FEW = range(17, 97)  # rows


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
    """out = x W^T, as in each step of a recurrence

    x (N, K) of few rows, W (R, K) of many -> out (N, R)

    BLAS lays W out anew for its kernel in each product, which takes half as long as to multiply 64 rows by it. On the host
    a large W, contiguous, is therefore taken in pieces that are too small for BLAS to do so: 4.4 ms in place of 6.0.
    """
    (N, K), R, parts = x.shape, len(W), None
    if _pays(N, W) and W.flags.c_contiguous:
        least = -(-K * N * 8 // SMALL)  # for pieces of 8 rows of W or more
        parts = next((count for count in range(least, 2 * least + 1) if K % count == 0), None)
    if parts is None:
        return x @ W.T if W.flags.f_contiguous else (W @ x.T).T
    most = SMALL // (N * K // parts)
    rows = next((count for count in range(most, most // 2, -1) if R % count == 0), most)  # none left over, where that can be
    whole = R // rows * rows
    xT, out = np.ascontiguousarray(x.T).reshape(parts, K // parts, N), np.empty((R, N), np.result_type(x, W))
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
    if W.flags.c_contiguous or not _pays(N, W):
        return W
    out = np.empty(W.shape, W.dtype)
    parallel(lambda rows: np.copyto(out[rows], W[rows]), shares(len(W)))
    return out


def _pays(N, W):
    return xp_of(W) is np and W.dtype.kind == "f" and N in FEW and W.size >= LARGE
