"""Checks that a hand-written gradient is right, and names the kind of error if it is wrong.

Complex step (Squire & Trapp 1998): f(x + ih) = f(x) + ih f'(x) + O(h^2), so f'(x) = Im f(x + ih) / h. Nothing is
subtracted, so no digits cancel: h = 1e-30 gives the derivative to machine precision. The forward must consist of analytic
operations (no abs, norm or var: write x*x) and keep the dtype of its inputs.

The error of a gradient g is |g - n| / max(|n|, G/1000), with n the numerical gradient and G the largest |n| of the case,
so that it is defined for a gradient of zero too. Every output gets a random upstream gradient: a constant one hides errors
in a softmax, whose outputs sum to 1.
"""

import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from satnp.arrays.backend import to_device, to_host

COMPLEX_STEP = "complex step"
CENTRAL_DIFFERENCE = "central difference"
DRAWS = "draws"
TOLERANCE = {COMPLEX_STEP: 1e-10, CENTRAL_DIFFERENCE: 1e-6, DRAWS: 5}  # of draws: in standard errors of a count
STEP = {COMPLEX_STEP: 1e-30, CENTRAL_DIFFERENCE: 1e-5}


@dataclass(frozen=True)
class Case:
    """A pair to check: forward(*inputs) -> out, cache and backward(dout, cache) -> gradients of the inputs, in order.

    `make(rng)` returns the inputs {name: array}. The backward returns a gradient for each floating-point input that is not
    in `constants`. `direction` checks only the derivative along one random direction of all inputs, for whole models.
    """

    name: str
    make: Any
    forward: Any
    backward: Any
    constants: tuple = ()
    direction: bool = False


@dataclass(frozen=True)
class Draws:
    """Random draws to check: draw(rng, count) -> `count` outcomes, whose counts are compared with {outcome: probability}."""

    name: str
    draw: Any
    probabilities: dict
    count: int = 10_000


class Finding(NamedTuple):
    kind: str
    sentence: str


class Result(NamedTuple):
    name: str
    method: str
    error: float
    passed: bool
    findings: list


def check_gradients(case, xp=np, seed=0, method=COMPLEX_STEP):
    """Compare the backward of `case` with numerical gradients by `method` -> Result with the largest error

    Forward and backward run on `xp`; the numerical gradients are computed on the host.
    """
    rng = np.random.default_rng(seed)
    host = case.make(rng)
    names = [n for n, x in host.items() if x.dtype.kind == "f" and n not in case.constants]
    device = {n: _readonly(to_device(x, xp)) for n, x in host.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        out, cache = case.forward(*device.values())
        outs = out if isinstance(out, tuple) else (out,)
        upstream = [rng.standard_normal(x.shape) for x in outs]
        dout = tuple(_readonly(to_device(d, xp)) for d in upstream)
        _readonly_tree((out, cache))
        try:
            grads = case.backward(dout if isinstance(out, tuple) else dout[0], cache)
        except ValueError as error:
            if "read-only" not in str(error):
                raise
            finding = Finding("mutation", f"{case.name}: the backward writes to its inputs, its cache or the parameters")
            return Result(case.name, method, float("inf"), False, [finding])
        grads = grads if isinstance(grads, tuple) else (grads,)
        if len(grads) != len(names):
            wanted = ", ".join(f"d{n}" for n in names)
            finding = Finding("missing", f"{case.name}: the backward returned {len(grads)} gradients, wanted {wanted}")
            return Result(case.name, method, float("inf"), False, [finding])
        grads = {n: None if g is None else to_host(g) for n, g in zip(names, grads, strict=True)}
        still = dict(host)
        if method == COMPLEX_STEP:  # all inputs, so that a forward can write into arrays of its own
            still |= {n: host[n].astype(complex) for n in names}

        def objective(point):
            out, _ = case.forward(*(still | point).values())
            outs = out if isinstance(out, tuple) else (out,)
            return sum((x * d).sum() for x, d in zip(outs, upstream, strict=True))

        if case.direction:
            return _check_direction(case, objective, host, names, grads, rng, method)
        numbers = {n: numeric_gradient(lambda x, n=n: objective({n: x}), host[n], method) for n in names}
    sizes = {f"the {axis} of {n}": s for n, x in host.items() for axis, s in zip(_ORDINALS, x.shape, strict=False)}
    scale = max(np.linalg.norm(n) for n in numbers.values())
    errors, findings = [0.0], []
    for n in names:
        finding = diagnose(f"d{n}", grads[n], numbers[n], scale, sizes, TOLERANCE[method])
        if finding:
            findings.append(finding)
        errors.append(relative_error(grads[n], numbers[n], scale))
    return Result(case.name, method, max(errors), not findings, findings)


def check_draws(case, seed=0):
    """Count the outcomes of `case` -> Result; the error is the largest deviation of a count, in standard errors"""
    counts = Counter(case.draw(np.random.default_rng(seed), case.count))
    errors = {}
    for outcome in counts | case.probabilities:
        p = case.probabilities.get(outcome, 0.0)
        errors[outcome] = abs(counts[outcome] - case.count * p) / max((case.count * p * (1 - p)) ** 0.5, 1e-9)
    worst = max(errors, key=errors.get)
    findings = []
    if not errors[worst] <= TOLERANCE[DRAWS]:
        seen = f"{worst} came {counts[worst]} times in {case.count}"
        wanted = f"wanted about {case.count * case.probabilities.get(worst, 0.0):.0f}"
        findings = [Finding("distribution", f"{case.name}: {seen}, {wanted}")]
    return Result(case.name, DRAWS, float(errors[worst]), not findings, findings)


def numeric_gradient(f, x, method=COMPLEX_STEP):
    """Gradient of the scalar function f at the host array x, one element at a time."""
    h, gradient = STEP[method], np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        if method == COMPLEX_STEP:
            point = x.astype(complex)
            point[index] += 1j * h
            gradient[index] = f(point).imag / h
        else:
            above, below = x.copy(), x.copy()
            above[index] += h
            below[index] -= h
            gradient[index] = (f(above) - f(below)) / (2 * h)
    return gradient


def relative_error(g, n, scale=0.0):
    """|g - n| / max(|n|, scale / 1000); infinite if g is None, has another shape or is not finite."""
    if g is None or g.shape != n.shape or not np.isfinite(g).all():
        return float("inf")
    return float(np.linalg.norm(g - n) / max(np.linalg.norm(n), 1e-3 * scale, 1e-300))


def diagnose(name, g, n, scale=0.0, sizes=None, tolerance=1e-10):
    """None if gradient `g` equals the numerical gradient `n`, else a Finding: the kind of error and one sentence.

    `scale` is the largest norm of the case. If a wrong factor equals one of `sizes` {what: size}, the sentence says so.
    Kinds: missing, shape, non-finite, zero, sign, factor, transposed, mask, block, scattered, term. Two more kinds are
    found by check_gradients (mutation) and check_draws (distribution).
    """
    if malformed := _malformed(name, g, n.shape):
        return malformed
    floor = max(np.abs(n).max(initial=0), 1e-3 * scale)
    if relative_error(g, n, scale) <= tolerance and np.abs(g - n).max(initial=0) <= 100 * tolerance * floor:
        return None
    if not g.any():
        return Finding("zero", f"{name} is all zeros: nothing flows back to it")
    factor = float((g * n).sum() / max((n * n).sum(), 1e-300))
    if n.size > 1 and np.linalg.norm(g - factor * n) < 1e-6 * np.linalg.norm(g):
        if abs(factor + 1) < 1e-6:
            return Finding("sign", f"{name} has the wrong sign everywhere")
        return Finding("factor", f"{name} is {factor:.6g} times the right gradient{_reason(factor, sizes or {})}")
    if n.ndim == 2 and n.shape[0] == n.shape[1] and relative_error(g, n.T, scale) < 1e-6:
        return Finding("transposed", f"{name} is the transpose of the right gradient")
    live = np.abs(n) > 1e-12 * floor
    leak = ~live & (np.abs(g) > 1e-6 * floor)
    if leak.any() and live.any():
        where = f"{leak.sum()} places where the right gradient is 0: is a mask missing?"
        return Finding("mask", f"{name} is not 0 at {where}{_worst(g, n)}")
    wrong = np.abs(g - n) > 1e-6 * (np.abs(g) + np.abs(n)) + 1e-9 * floor
    for axis in range(n.ndim):
        others = tuple(a for a in range(n.ndim) if a != axis)
        share = wrong.sum(axis=others) / np.maximum(live.sum(axis=others), 1)
        rows = np.flatnonzero(share)
        if 0 < len(rows) < live.any(axis=others).sum() and share[rows].mean() > 0.75:
            where = f"{'index' if len(rows) == 1 else 'indices'} {_ranges(rows)} of its {_ORDINALS[axis]}"
            return Finding("block", f"{name} is wrong only at {where}{_worst(g, n)}")
    if wrong.sum() < 0.75 * live.sum():
        where = f"{wrong.sum()} of {wrong.size} places, which form no block"
        return Finding("scattered", f"{name} is wrong only at {where}{_worst(g, n)}")
    return Finding("term", f"{name} is wrong everywhere: a term is missing, added or in the wrong place{_worst(g, n)}")


def _malformed(name, g, shape):
    """A Finding if `g` is None, does not have `shape` or is not finite, else None."""
    if g is None:
        return Finding("missing", f"{name} is None: the backward returned nothing for it")
    if g.shape != shape:
        why = ""
        if g.shape == shape[::-1]:
            why = "; it looks transposed"
        elif g.ndim == len(shape) + 1:
            why = "; perhaps it was not summed over an axis"
        return Finding("shape", f"{name} has shape {g.shape}, wanted {shape}{why}")
    if not np.isfinite(g).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(g))[0])
        return Finding("non-finite", f"{name} has {np.sum(~np.isfinite(g))} values that are not finite, first at {first}")
    return None


_ORDINALS = ("first axis", "second axis", "third axis", "fourth axis")


def _check_direction(case, objective, host, names, grads, rng, method):
    """Compare the derivative along one random direction of all inputs: from the gradients, and by one numerical step."""
    malformed = [finding for n in names if (finding := _malformed(f"d{n}", grads[n], host[n].shape))]
    if malformed:
        return Result(case.name, method, float("inf"), False, malformed)
    direction = {n: rng.standard_normal(host[n].shape) for n in names}
    ours = sum((grads[n] * direction[n]).sum() for n in names)
    h = STEP[method]
    if method == COMPLEX_STEP:
        number = objective({n: host[n] + 1j * h * direction[n] for n in names}).imag / h
    else:
        above, below = ({n: host[n] + s * h * direction[n] for n in names} for s in (1, -1))
        number = (objective(above) - objective(below)) / (2 * h)
    size = np.sqrt(sum((g * g).sum() for g in grads.values()))
    error = float(abs(ours - number) / max(abs(number), 1e-3 * size))
    findings = []
    if not error <= TOLERANCE[method]:
        findings = [Finding("term", f"{case.name}: {ours:.9g} along a random direction, wanted {number:.9g}")]
    return Result(case.name, method, error, not findings, findings)


def _reason(factor, sizes):
    for what, size in sizes.items():
        if size > 1 and np.isclose(factor, 1 / size):
            return f": divided by {size} ({what}), a mean in place of a sum?"
        if size > 1 and np.isclose(factor, size):
            return f": multiplied by {size} ({what}), a sum in place of a mean?"
    return ""


def _ranges(rows):
    """[0, 1, 2, 7] -> '0-2, 7'"""
    groups = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    return ", ".join(f"{a[0]}-{a[-1]}" if len(a) > 1 else f"{a[0]}" for a in groups)


def _worst(g, n):
    index = np.unravel_index(np.argmax(np.abs(g - n)), n.shape)
    return f"; worst at {tuple(int(i) for i in index)}: yours {g[index]:.6g}, wanted {n[index]:.6g}"


def _readonly(x):
    """Make `x` read-only, if its library has such a flag -> x"""
    if hasattr(getattr(x, "flags", None), "writeable") and not isinstance(x, np.generic):
        x.flags.writeable = False
    return x


def _readonly_tree(tree):
    if isinstance(tree, (tuple, list)):
        for branch in tree:
            _readonly_tree(branch)
    elif hasattr(tree, "items"):  # a dict, or Parameters
        for _, branch in tree.items():
            _readonly_tree(branch)
    else:
        _readonly(tree)
