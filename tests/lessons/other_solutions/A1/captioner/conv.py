"""Another right A1: every sum as it is printed, with einsum."""

import numpy as np


def shape(size, K, stride, padding=0, ceil=False):
    room = size + 2 * padding - K
    count = room // stride + 1
    return count + 1 if ceil and room % stride and count * stride < size + padding else count


def conv2d_forward(x, W, b, stride=1, padding=0):
    wide = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    P, Q = (shape(n, len(W), stride, padding) for n in x.shape[1:3])
    out = np.empty((len(x), P, Q, W.shape[3]), dtype=x.dtype)
    for p in range(P):
        for q in range(Q):
            seen = wide[:, p * stride : p * stride + len(W), q * stride : q * stride + len(W)]
            out[:, p, q] = np.einsum("nijc,ijcf->nf", seen, W) + b
    return out, {"wide": wide, "W": W, "stride": stride, "padding": padding, "shape": x.shape}


def conv2d_backward(dout, cache):
    wide, W, stride, padding = (cache[n] for n in ("wide", "W", "stride", "padding"))
    dwide, dW = np.zeros_like(wide), np.zeros_like(W)
    for p in range(dout.shape[1]):
        for q in range(dout.shape[2]):
            seen = np.s_[:, p * stride : p * stride + len(W), q * stride : q * stride + len(W)]
            dwide[seen] += np.einsum("nf,ijcf->nijc", dout[:, p, q], W)
            dW += np.einsum("nijc,nf->ijcf", wide[seen], dout[:, p, q])
    _, R, S, _ = cache["shape"]
    return dwide[:, padding : padding + R, padding : padding + S], dW, dout.sum((0, 1, 2))
