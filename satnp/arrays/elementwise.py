"""A chain of elementwise operations as one straight-line formula, run where it is fast.

    @elementwise
    def tanh_gradient(dout, out):
        return dout * (1 - out * out)

On large host arrays the formula is called on blocks of rows, on all cores: what it makes on the way stays in the cache.
Small and complex arrays go through it in one call. Either way each line is plain NumPy: step into it. On a device it is one
kernel, made from the same lines (satnp/arrays/formulas.py): print(tanh_gradient.kernel).
"""

from functools import cache, wraps
from math import prod

import numpy as np

from satnp.arrays import formulas
from satnp.arrays.backend import xp_of
from satnp.arrays.threads import parallel, shares

BLOCK = 1 << 18  # numbers: 1 MiB of float32
LEAST = 1 << 20  # numbers of a result, below which one call of NumPy was measured to be as fast


def elementwise(formula):
    """`formula` of broadcast arrays of one dtype -> an array or a tuple of arrays, each of the broadcast shape.

    out: arrays to write to, also those that are read; None in place of one makes it anew. Raises formulas.NotElementwise,
    at once, for a line that no kernel can be made from.
    """

    @wraps(formula)
    def call(*args, out=None):
        xp, arrays = xp_of(*args), [x for x in args if hasattr(x, "dtype")]
        is_complex = any(x.dtype.kind == "c" for x in arrays)
        outs = out or (None,) * len(call.kernel.outputs)
        if xp is not np and not is_complex:
            return _on_device(xp, call.kernel)(*args, *_complete(xp, arrays, out or ()))
        shape = () if is_complex else np.broadcast_shapes(*(x.shape for x in arrays))
        if prod(shape) >= LEAST:
            return _in_blocks(formula, args, shape, outs)
        return write(formula(*args), outs)

    call.kernel = formulas.kernel(formula)
    return call


def _complete(xp, arrays, outs):
    """`outs` with an array in place of each None: a kernel is given all that it writes, or nothing."""
    if all(x is not None for x in outs):
        return outs
    shape = np.broadcast_shapes(*(x.shape for x in arrays))
    return [xp.empty(shape, dtype=arrays[0].dtype) if x is None else x for x in outs]


def write(found, outs, rows=...):
    """What was found, in the arrays that are given for it."""
    single, kept = not isinstance(found, tuple), []
    for x, out in zip((found,) if single else found, outs, strict=True):
        if out is not None:
            out[rows] = x
        kept.append(x if out is None else out)
    return kept[0] if single else tuple(kept)


@cache
def _on_device(xp, kernel):
    inputs, outputs = (", ".join(f"T {x}" for x in names) for names in (kernel.inputs, kernel.outputs))
    return xp.ElementwiseKernel(inputs, outputs, kernel.body, f"satnp_{kernel.name}", preamble=formulas.PREAMBLE)


def _in_blocks(formula, args, shape, outs):
    def of(rows):
        return [x[rows] if np.ndim(x) == len(shape) and len(x) > 1 else x for x in args]

    step = max(1, BLOCK // prod(shape[1:]))
    if any(out is None for out in outs):
        one = formula(*of(slice(0, 1)))
        one = one if isinstance(one, tuple) else (one,)
        outs = [np.empty(shape, x.dtype) if out is None else out for x, out in zip(one, outs, strict=True)]

    def fill(share):
        for start in range(share.start, share.stop, step):
            rows = slice(start, min(start + step, share.stop))
            found = write(formula(*of(rows)), outs, rows)
        return found

    return parallel(fill, shares(shape[0], step))[0]
