"""The initial parameters of every captioner."""

import numpy as np

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
