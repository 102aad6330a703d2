"""A chain of elementwise operations as one straight-line formula: blocks of rows on the host, one kernel on a device.

    @elementwise
    def tanh_gradient(dout, out):
        return dout * (1 - out * out)

On large host arrays the formula is called on blocks of rows, on all cores, so that its temporaries stay in the cache.
Small and complex arrays take one call. In both cases each line is plain NumPy, and a debugger can step into it. On a device
the same lines become one kernel (satnp/arrays/formulas.py); print(tanh_gradient.kernel) shows it.
"""

from functools import cache, wraps
from math import prod

import numpy as np

from satnp.arrays import formulas
from satnp.arrays.backend import xp_of
from satnp.arrays.threads import parallel, shares

BLOCK = 1 << 18  # elements: 1 MiB of float32
LEAST = 1 << 20  # elements of the result; for fewer, one NumPy call was measured to be as fast


def elementwise(formula):
    """Decorate a `formula` of arrays of one dtype. It returns an array or a tuple of arrays, of the broadcast shape.

    The decorated function takes `out`, the arrays to write to: an input may be one of them, and None allocates a new array.
    Raises formulas.NotElementwise, when decorating, for a line that cannot be translated to a kernel.
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
    """Return `outs` with a new array for each None, because CuPy takes either all outputs or none."""
    if all(x is not None for x in outs):
        return outs
    shape = np.broadcast_shapes(*(x.shape for x in arrays))
    return [xp.empty(shape, dtype=arrays[0].dtype) if x is None else x for x in outs]


def write(found, outs, rows=...):
    """Copy each result to its array in `outs`, at `rows`, and return these arrays; for None, return the result itself."""
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
