"""Input arrays in, output arrays out: how the functions of a package are called, by check.py and when marks are made."""

import importlib

import numpy as np


def run(call, arrays, results):
    """Make one call, {name: array} of inputs and d<output> -> fills `results` as it goes, also where an error ends it.

    It has the outputs, the gradients d<input>, "again d<input>" of a second backward from the same cache (not where the
    call is to be made once), and "after <name>" of each array that was handed over.
    """
    functions = importlib.import_module(call["module"])
    inputs = [arrays[x].copy() if x in arrays else call["options"][x] for x in call["inputs"]]
    found = getattr(functions, call["forward"])(*inputs)
    if call["cache"] and not (isinstance(found, tuple) and len(found) == 2):
        several = f"({', '.join(call['outputs'])})" if len(call["outputs"]) > 1 else call["outputs"][0]
        raise TypeError(f"{call['forward']} is to return two things: {several}, and the cache")
    out, cache = found if call["cache"] else (found, None)
    results.update(_named(call["outputs"], out))
    results.update({f"after {n}": np.array(x) for n, x in zip(call["inputs"], inputs, strict=True) if n in arrays})
    if not call["backward"]:
        return
    for again in ("",) if call["once"] else ("", "again "):
        dout = [arrays[f"d{x}"].copy() for x in call["outputs"]]
        grads = getattr(functions, call["backward"])(tuple(dout) if len(dout) > 1 else dout[0], cache)
        results.update({again + n: x for n, x in _named([f"d{x}" for x in call["gradients"]], grads).items()})
        results.update({f"after d{n}": x for n, x in zip(call["outputs"], dout, strict=True)})
    results.update({f"after {n}": np.array(x) for n, x in zip(call["inputs"], inputs, strict=True) if n in arrays})


def _named(names, found):
    """{name: copy of the array}; None is left out. Raises TypeError where their number is another."""
    found = found if isinstance(found, (tuple, list)) else (found,)
    if len(found) != len(names):
        raise TypeError(f"{', '.join(names)} are to be returned, {len(names)} in all; there came {len(found)}")
    return {n: np.array(x) for n, x in zip(names, found, strict=True) if x is not None}
