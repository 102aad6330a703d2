"""The affine layer, which most equations of the model contain."""

from typing import NamedTuple


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


def rows(x):
    """The same numbers with the steps below each other: x (T, N, H) -> (T*N, H), so that one product covers all steps."""
    return None if x is None else x.reshape(-1, x.shape[-1])
