"""A chain of elementwise operations as one straight-line formula, run where it is fast.

    @elementwise
    def tanh_gradient(dout, out):
        return dout * (1 - out * out)

On large host arrays the formula is called on blocks of rows, on all cores: what it makes on the way stays in the cache.
Small and complex arrays go through it in one call. Either way each line is plain NumPy: step into it. On a device it is one
kernel, made from the same lines (satnp/formulas.py): print(tanh_gradient.kernel).
"""

from functools import cache, wraps
from math import prod

import numpy as np

from satnp import formulas
from satnp.backend import xp_of
from satnp.threads import parallel, shares

BLOCK = 1 << 17  # numbers: 512 KiB of float32
LEAST = 1 << 20  # numbers of a result, below which one call of NumPy was measured to be as fast


def elementwise(formula):
    """`formula` of broadcast arrays of one dtype -> an array or a tuple of arrays, each of the broadcast shape.

    out: arrays to write to, also those that are read. Raises formulas.NotElementwise, at once, for a line that no kernel
    can be made from.
    """

    @wraps(formula)
    def call(*args, out=None):
        xp = xp_of(*args)
        is_complex = any(x.dtype.kind == "c" for x in args if hasattr(x, "dtype"))
        if xp is not np and not is_complex:
            return _on_device(xp, call.kernel)(*args, *(out or ()))
        shape = () if is_complex else np.broadcast_shapes(*(np.shape(x) for x in args))
        if prod(shape) >= LEAST:
            return _in_blocks(formula, args, shape, out)
        found = formula(*args)
        return found if out is None else _write(found, out)

    call.kernel = formulas.kernel(formula)
    return call


def _write(found, outs, rows=...):
    for out, x in zip(outs, found if isinstance(found, tuple) else (found,), strict=True):
        out[rows] = x
    return tuple(outs) if isinstance(found, tuple) else outs[0]


@cache
def _on_device(xp, kernel):
    inputs, outputs = (", ".join(f"T {x}" for x in names) for names in (kernel.inputs, kernel.outputs))
    return xp.ElementwiseKernel(inputs, outputs, kernel.body, f"satnp_{kernel.name}", preamble=formulas.PREAMBLE)


def _in_blocks(formula, args, shape, outs=None):
    def of(rows):
        return [x[rows] if np.ndim(x) == len(shape) and len(x) > 1 else x for x in args]

    step = max(1, BLOCK // prod(shape[1:]))
    if outs is None:
        one = formula(*of(slice(0, 1)))
        outs = [np.empty(shape, x.dtype) for x in (one if isinstance(one, tuple) else (one,))]

    def fill(share):
        for start in range(share.start, share.stop, step):
            rows = slice(start, min(start + step, share.stop))
            found = _write(formula(*of(rows)), outs, rows)
        return found

    return parallel(fill, shares(shape[0], step))[0]
