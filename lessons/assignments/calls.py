"""Calls functions of the package with input arrays and collects their output arrays, for check.py and for grading."""

import importlib

import numpy as np


def run(call, arrays, results):
    """Make one call with `arrays`, {name: array} of the inputs and of each d<output>. Writes to `results`, up to an error.

    `results` gets the outputs, the gradients d<input>, "again d<input>" from a second backward with the same cache after
    another forward (unless call["once"]), and "after <name>", the value after the call of each array that was passed.
    """
    functions = importlib.import_module(call["module"])
    inputs = [arrays[x].copy() if x in arrays else call["options"][x] for x in call["inputs"]]
    found = getattr(functions, call["forward"])(*inputs)
    if call["cache"] and not (isinstance(found, tuple) and len(found) == 2):
        several = f"({', '.join(call['outputs'])})" if len(call["outputs"]) > 1 else call["outputs"][0]
        raise TypeError(f"{call['forward']} must return two things: {several} and the cache")
    out, cache = found if call["cache"] else (found, None)
    results.update(_named(call["outputs"], out))
    results.update({f"after {n}": np.array(x) for n, x in zip(call["inputs"], inputs, strict=True) if n in arrays})
    if not call["backward"]:
        return
    for again in ("",) if call["once"] else ("", "again "):
        if again:  # another forward must not change the cache of the first
            getattr(functions, call["forward"])(*(x * 0.5 if getattr(x, "dtype", None) == np.float64 else x for x in inputs))
        dout = [arrays[f"d{x}"].copy() for x in call["outputs"]]
        grads = getattr(functions, call["backward"])(tuple(dout) if len(dout) > 1 else dout[0], cache)
        results.update({again + n: x for n, x in _named([f"d{x}" for x in call["gradients"]], grads).items()})
        results.update({f"after d{n}": x for n, x in zip(call["outputs"], dout, strict=True)})
    results.update({f"after {n}": np.array(x) for n, x in zip(call["inputs"], inputs, strict=True) if n in arrays})


def _named(names, found):
    """{name: copy of the array}; None is left out. Raises TypeError if the number of arrays is wrong."""
    found = found if isinstance(found, (tuple, list)) else (found,)
    if len(found) != len(names):
        raise TypeError(f"return {', '.join(names)}: {len(names)} arrays, not {len(found)}")
    return {n: np.array(x) for n, x in zip(names, found, strict=True) if x is not None}
