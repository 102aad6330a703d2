"""The initial parameters of every captioner."""

import numpy as np

from satnp.arrays.backend import xp_of
from satnp.arrays.parameters import Parameters


def initialise(shapes, rng, orthogonal=("W_h",)):
    """Parameters {name: shape} on the host, float32: N(0, 1 / fan-in); biases (names that begin with b or c) are 0.

    The matrices named in `orthogonal` (H, k H), by which a state is multiplied at each step, get k orthogonal blocks, one
    for each gate. Source: Saxe et al. 2014.
    """
    params = Parameters(shapes)
    for name, x in params.items():
        if name == "E":
            x[...] = rng.standard_normal(x.shape) / np.sqrt(x.shape[1])
        elif name in orthogonal:
            for block in np.split(x, x.shape[1] // len(x), axis=1):
                q, r = np.linalg.qr(rng.standard_normal(block.shape))
                block[...] = q * np.sign(np.diag(r))
        elif not name.startswith(("b", "c")):
            x[...] = rng.standard_normal(x.shape) / np.sqrt(x.shape[0])
    return params


def standardise(W, b, v):
    """Change W (D, K) and add to b (K,), in place, such that v W + b of before becomes standardised(v) W + b: each of the D
    features gets mean 0 and standard deviation 1 over the photos of v (N, D).

    The vectors of different photos are nearly the same: for mean annotations of rendered scenes, their mean is three times
    their standard deviation. A captioner that reads a photo as one vector then learns the language first, and ignores the
    photo for thousands of steps. Source: data-dependent initialisation (Salimans and Kingma 2016, section 3).
    """
    spread = v.std(axis=0)
    if spread.any():  # else all photos are alike
        W /= xp_of(v).maximum(spread, 1e-3 * spread.max())[:, None]
        b -= v.mean(axis=0) @ W
