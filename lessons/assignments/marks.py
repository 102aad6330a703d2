"""Marks: compares the arrays of a submission with the right arrays, in a process that never imports a submission.

Gradients are compared with the complex step of satnp's forward. A gradient that differs from it, but is the gradient of the
student's own forward (called with complex inputs), gets a part of its points, because only the forward is wrong.
"""

import importlib
import sys
import tempfile
import zlib
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lessons.assignments import calls
from lessons.assignments.cut import package, short
from lessons.assignments.declare import place
from lessons.assignments.mistakes import MISTAKES
from satnp.proof.gradcheck import COMPLEX_STEP, STEP, Finding, diagnose, numeric_gradient, relative_error

TOLERANCE = 1e-8
SHARES = {"usual": 0.7, "edges": 0.3}
OWN = 0.5       # share of an array's points for a right backward of a wrong forward
DTYPE = 0.75    # ... if float32 inputs give float64, or the imaginary part is lost
CHANGED = 0.75  # ... if the function wrote to its inputs or its cache
AXES = "first", "second", "third", "fourth"
SINGLE = 1e-5   # relative error, the precision of float32


class Case(NamedTuple):
    """A call with its arrays; `right` are the right outputs and gradients."""

    task: object
    group: str
    arrays: dict
    options: dict
    right: dict
    vectors: dict  # {input: direction} of the derivatives of the student's own forward


class Told(NamedTuple):
    """The verdict on one array in one group of cases."""

    share: float
    kind: str
    sentence: str
    guess: bool = False  # is `kind` guessed from the numbers alone?


class Row(NamedTuple):
    """The marks of one array of one task."""

    task: str
    array: str
    points: float
    most: float
    groups: dict  # {"usual": Told, "edges": Told}
    notes: list   # Tolds that hold for all groups


def gradients(task, arrays):
    """Names of the inputs whose gradients the backward returns."""
    if task.backward is None:
        return []
    return [n for n in _inputs(task, arrays) if arrays[n].dtype.kind == "f" and n not in task.constants]


def _inputs(task, arrays):
    return [n for n in arrays if n not in {f"d{x}" for x in task.outputs}]


@lru_cache(maxsize=64)
def cases(assignment, seed, groups=("usual", "edges")):
    """Every Case of an assignment with its right arrays."""
    return [
        _case(task, group, sizes, np.random.default_rng([seed, zlib.crc32(f"{task.name} {group} {k}".encode())]))
        for task in assignment.tasks for group in groups for k, sizes in enumerate(getattr(task, group))
    ]  # fmt: skip


def _case(task, group, sizes, rng):
    made = task.make(rng, **sizes)
    right = {n: made.pop(n) for n in task.outputs if task.score}
    arrays = {n: x for n, x in made.items() if isinstance(x, np.ndarray)}
    options = {n: x for n, x in made.items() if n not in arrays}
    if judged(task):
        return Case(task, group, arrays, options, right, {})

    def outputs(point):
        found = task.forward(*(made | point).values())
        out = found[0] if task.cache else found
        return out if isinstance(out, tuple) else (out,)

    outs = outputs({})
    right = dict(zip(task.outputs, map(np.asarray, outs), strict=True))
    upstream = {f"d{n}": rng.standard_normal(np.shape(x)) for n, x in right.items()} if task.backward else {}
    names = gradients(task, arrays)
    still = {n: arrays[n].astype(complex) for n in names}

    def objective(point):
        return sum((y * d).sum() for y, d in zip(outputs(still | point), upstream.values(), strict=True))

    for n in names:
        right[f"d{n}"] = numeric_gradient(lambda x, n=n: objective({n: x}), arrays[n])
    vectors = {n: rng.standard_normal(arrays[n].shape) for n in names}
    return Case(task, group, arrays | upstream, options, right, vectors)


def judged(task):
    """Is there more than one right answer?"""
    return bool(task.judge or task.score)


def call(task, case, package_name, forward_only=False):
    """The call for calls.run, as JSON."""
    inputs = [n for n in task.make(np.random.default_rng(0), **task.usual[0]) if not task.score or n not in task.outputs]
    return named(task.forward, None if forward_only else task.backward, package_name) | {
        "cache": task.cache, "inputs": inputs, "options": case.options, "outputs": list(task.outputs),
        "gradients": gradients(task, case.arrays), "once": False,
    }  # fmt: skip


def named(forward, backward, package_name):
    """The module and the names of a pair in the package."""
    module, name = place(forward)
    return {
        "module": f"{package_name}.{short(module)}", "forward": name,
        "backward": None if backward is None else place(backward)[1],
    }  # fmt: skip


def plan(assignment, task, seed, package_name):
    """The calls of a task, [(case, what, call, arrays)]; `what` is "", the name of an input, or "float32".

    Each case is called as it is, and its forward with a complex step in each input; the first case also in float32.
    """
    found = []
    for k, case in enumerate(x for x in cases(assignment, seed) if x.task is task):
        found.append((case, "", call(task, case, package_name), case.arrays))
        for n, vector in case.vectors.items():
            point = {m: case.arrays[m].astype(complex) for m in case.vectors}
            point[n] = point[n] + 1j * STEP[COMPLEX_STEP] * vector
            found.append((case, n, call(task, case, package_name, True), case.arrays | point))
        if k == 0 and not judged(task):
            single = {n: x.astype(np.float32) if x.dtype.kind == "f" else x for n, x in case.arrays.items()}
            found.append((case, "float32", call(task, case, package_name), single))
    return found


@contextmanager
def imported(files):
    """Context manager: inside the block the package of `files` can be imported; yields its name."""
    name = next(iter(files)).partition("/")[0]
    with tempfile.TemporaryDirectory() as folder:
        for file, text in files.items():
            path = Path(folder, file)
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        try:
            yield name
        finally:
            sys.path.remove(folder)
            for module in [x for x in sys.modules if x.partition(".")[0] == name]:
                del sys.modules[module]


@lru_cache(maxsize=16)
def predictions(assignment, seed):
    """[(mistake, {(task, array): [the array in each case, or None]})], only arrays that the mistake makes wrong."""
    found = []
    for k, mistake in enumerate(MISTAKES.get(assignment.name, ())):
        with imported(package(assignment, edits=mistake.edits, name=f"mistake_{k}")) as name:
            arrays = {}
            for case in cases(assignment, seed):
                if judged(case.task):
                    continue
                results = {}
                try:
                    with np.errstate(all="ignore"):
                        calls.run(call(case.task, case, name), case.arrays, results)
                except Exception:
                    pass  # a mistake may raise an error; the arrays made before it count
                for n in case.right:
                    arrays.setdefault((case.task.name, n), []).append(results.get(n))
        wrong = {}
        for (task, n), given in arrays.items():
            mine = [case for case in cases(assignment, seed) if case.task.name == task]
            if any(g is not None and not same(g, x.right[n], _scale(x, n)) for g, x in zip(given, mine, strict=True)):
                wrong[task, n] = given
        found.append((mistake, wrong))
    return found


def same(g, n, scale=0.0):
    """Equal within rounding?"""
    return relative_error(g, n, scale) <= TOLERANCE and np.abs(g - n).max(initial=0) <= 100 * TOLERANCE * max(
        np.abs(n).max(initial=0), 1e-3 * scale
    )


def mark(assignment, task, seed, planned, ran):
    """The Rows of one task."""
    whole = [(k, case) for k, (case, what, *_) in enumerate(planned) if not what]
    if judged(task):
        return _judged(task, whole, ran)
    found, known = [], _mistakes(assignment, task, seed, [ran.results[k] for k, _ in whole])
    for n, most in task.points.items():
        if n == "seconds":
            continue
        named = known.get(n)
        ratio = _ratio(n, whole, ran)
        groups = {}
        for group in SHARES:
            tolds = [(_told(task, n, k, case, planned, ran, named, ratio), case) for k, case in whole if case.group == group]
            groups[group], _ = min(tolds, key=lambda pair: (pair[0].share, -pair[1].right[n].size))
        if all(told.guess for told in groups.values()):  # guesses from small sizes are less reliable
            groups["edges"] = groups["usual"]
        points = most * sum(SHARES[group] * told.share for group, told in groups.items())
        notes = []
        if points:
            if _wrong_dtype(n, planned, ran):
                points *= DTYPE
                notes.append(Told(DTYPE, "dtype", f"{n}: it does not keep the dtype of the inputs (float32 or complex)"))
            if changed := _changed(n, whole, ran):
                points *= CHANGED
                notes.append(Told(CHANGED, "mutation", f"a function of this task writes to its inputs or cache ({changed})"))
        found.append(Row(task.name, n, points, most, groups, notes))
    return found


def follow(assignment, rows):
    """If a task and a task that it uses are both wrong, report this in place of a guessed kind."""
    wrong = {row.task for row in rows if any(told.share < 1 for told in row.groups.values())}
    for task in assignment.tasks:
        causes = " and ".join(x for x in task.uses if x in wrong)
        for row in rows if causes else []:
            for group, told in row.groups.items():
                if row.task == task.name and told.guess:
                    sentence = f"{row.array}: wrong, and so is {causes}, which it uses: fix that first"
                    row.groups[group] = Told(told.share, "follows", sentence)


def _judged(task, whole, ran):
    """The Rows of a task with a judge or a score."""
    tolds = {n: {group: [] for group in SHARES} for n in task.points}
    for k, case in whole:
        try:
            outputs = {n: ran.results[k].get(n) for n in task.outputs}
            said = task.judge(case.arrays, outputs) if task.judge else _scores(task, case, outputs)
        except Exception as error:  # unexpected shapes or dtypes
            said = {n: (0, f"the result cannot be judged: {type(error).__name__}: {error}") for n in task.points}
        for n, (share, sentence) in said.items():
            told = Told(share, "right" if share == 1 else "score", sentence)
            tolds[n][case.group].append(failed(n, k, ran) or told)
    found = []
    for n, most in ((n, most) for n, most in task.points.items() if n != "seconds"):
        groups = {group: min(some, key=lambda told: told.share) for group, some in tolds[n].items() if some}
        points = most * sum(SHARES[x] * told.share for x, told in groups.items()) / sum(SHARES[x] for x in groups)
        found.append(Row(task.name, n, points, most, groups, []))
    return found


def _scores(task, case, outputs):
    """{output: (share of its points, sentence)} from the share of right entries."""
    found = {}
    for n, right in case.right.items():
        counts, chance = right >= 0, chance_of(right)
        equal = float((outputs[n] == right)[counts].mean())
        share = min(1.0, max(0.0, (equal - chance) / (task.score - chance)))
        found[n] = share, f"{equal:.1%} of {n} is right, {task.score:.0%} is wanted, guessing gives {chance:.1%}"
    return found


def chance_of(right):
    """The share of right entries if every column of `right` (N, T) is guessed as its commonest number."""
    most = sum(np.bincount(column[column >= 0]).max(initial=0) for column in right.T)
    return most / (right >= 0).sum()


def failed(n, k, ran):
    """A Told if call `k` ended before it made array `n`, else None."""
    if k in ran.errors:
        error = ran.errors[k]
        if error["type"] == "NotImplementedError":
            return Told(0, "missing", "not written yet")
        where = f" ({error['where']})" if error["where"] else ""
        return Told(0, "error", f"{error['type']}: {error['message']}{where}")
    if ran.ended and not ran.results[k]:
        return Told(0, "ended", f"the process {ran.ended}")
    return None


def _told(task, n, k, case, planned, ran, named, ratio):
    """The verdict on array `n` of one case."""
    g, right = ran.results[k].get(n), case.right[n]
    if g is None:
        return failed(n, k, ran) or Told(0, "missing", f"{n} was not returned")
    if g.dtype.kind == "c":
        return Told(0, "dtype", f"{n} is complex, although no input is")
    scale = _scale(case, n)
    finding = diagnose(n, g, right, scale, None, TOLERANCE)
    if finding is None:
        return Told(1, "right", "right")
    guess = (named is None or not named.edits) and finding.kind not in ("shape", "non-finite")
    if finding.kind == "shape" and sorted(g.shape) == sorted(right.shape):
        finding = Finding("transposed", f"{finding.sentence.partition(';')[0]}; it looks transposed")
    elif finding.kind == "shape" and g.ndim > right.ndim:
        finding = finding._replace(kind="batch")
    if guess and (other := _other(n, g, case)):
        finding = Finding("order", f"{n} has the numbers of {other}: are the results in the order of the docstring?")
    finding = ratio or finding
    sentence = finding.sentence.partition("; worst at")[0]
    if n in task.blocks and (names := _blocks(g, right, task.blocks[n])):
        finding, sentence = finding._replace(kind="gate"), f"{n} is wrong in the part of {names}, and right elsewhere"
    if g.shape == right.shape and relative_error(g, right, scale) < SINGLE:
        return Told(DTYPE, "dtype", f"{n} has only the precision of float32: is a part of it computed in float32?")
    if n in task.outputs:
        sentence = sentence.replace("the right gradient", "what is right").replace(": nothing flows back to it", "")
    if named is not None:
        finding, sentence = named, f"{n}: {named.sentence}"
    if n not in task.outputs and _own(n, k, case, g, planned, ran):
        known = named is not None and named.edits  # a factor that the forward has too does not mean a lost path
        sentence = f"{n} is the gradient of your own forward, which differs from the equation"
        return Told(OWN, named.kind, f"{sentence}: {named.sentence}") if known else Told(OWN, "forward", sentence)
    return Told(0, finding.kind, sentence, guess)


def _other(n, g, case):
    """The name of another right array that `g` equals, or ""."""
    return next((m for m, x in case.right.items() if m != n and x.shape == g.shape and x.any() and same(g, x)), "")


def _scale(case, n):
    """The largest norm of the outputs, or of all gradients with the upstream ones: a scale for arrays that should be 0."""
    outputs = case.task.outputs
    if n in outputs:
        return max(np.linalg.norm(case.right[m]) for m in outputs)
    upstream = {f"d{m}" for m in outputs}  # with these, as all others are 0 behind a saturated softmax
    return max(np.linalg.norm(x) for m, x in (case.arrays | case.right).items()
               if m in upstream or m in case.right and m not in outputs)  # fmt: skip


def _sizes(case):
    """{what: size} of the axes of the inputs, and of the integer options."""
    sizes = {}
    for n, x in case.arrays.items():
        sizes |= {f"the {axis} axis of {n}": size for axis, size in zip(AXES, x.shape, strict=False)}
        sizes |= {f"the first {count} axes of {n} together": int(np.prod(x.shape[:size]))
                  for size, count in enumerate(("two", "three"), 2) if x.ndim >= size}  # fmt: skip
    for n, x in case.options.items():
        if type(x) is int:
            sizes |= {n: x, f"the square of {n}": x * x}
    return sizes


def _ratio(n, whole, ran):
    """A Finding if an array is right in every case except for a factor: a sign, a constant, or a size; else None."""
    ratios, told = [], []
    for k, case in whole:
        g, right = ran.results[k].get(n), case.right[n]
        if g is None or g.shape != right.shape or not np.isfinite(g).all():
            return None
        if np.linalg.norm(right) > 1e-3 * _scale(case, n):  # a gradient of zero has no factor
            told.append(case)
            ratios.append(_factor(g, right))
    if len(ratios) < len(whole) / 2 or not all(ratios) or np.allclose(ratios, 1, rtol=SINGLE):
        return None
    if np.allclose(ratios, ratios[0], rtol=1e-6):
        if np.isclose(ratios[0], -1):
            return Finding("sign", f"{n} has the wrong sign everywhere")
        return Finding("factor", f"{n} is {ratios[0]:.6g} times what is right")
    for what in _sizes(told[0]):
        sizes = np.array([_sizes(case)[what] for case in told], float)
        if np.allclose(ratios, sizes) or np.allclose(ratios, 1 / sizes):
            way = "multiplied" if np.allclose(ratios, sizes) else "divided"
            return Finding("size", f"{n} is {way} by {what}: a mean in place of a sum, or a sum in place of a mean?")
    if sum(case.right[n].size > 1 for case in told) > 1:
        return Finding("size", f"{n} is right except for a factor that changes with the sizes")
    return None


def _blocks(g, right, names):
    """Names of the blocks of the last axis in which `g` is wrong, joined by "and"; "" if it is wrong in all or in none."""
    if g.shape != right.shape or right.size <= len(names):
        return ""
    wrong = [not same(x, y, np.linalg.norm(right))
             for x, y in zip(*(np.split(a, len(names), axis=-1) for a in (g, right)), strict=True)]  # fmt: skip
    return "" if all(wrong) else " and ".join(name for name, x in zip(names, wrong, strict=True) if x)


def _own(n, k, case, g, planned, ran):
    """Does `g` equal the derivative of the student's own forward along a random direction?"""
    along = next(j for j in range(k, len(planned)) if planned[j][0] is case and planned[j][1] == n[1:])
    outs = {m: ran.results[along].get(m) for m in case.task.outputs}
    if any(x is None or x.dtype.kind != "c" or x.shape != case.right[m].shape for m, x in outs.items()):
        return False
    if g.shape != case.right[n].shape or not np.isfinite(g).all():
        return False
    vector = case.vectors[n[1:]]
    number = sum((x.imag * case.arrays[f"d{m}"]).sum() for m, x in outs.items()) / STEP[COMPLEX_STEP]
    size = np.linalg.norm(g) * np.linalg.norm(vector)
    return bool(size > 0 and abs((g * vector).sum() - number) <= TOLERANCE * size)


def _mistakes(assignment, task, seed, results):
    """{array: the Mistake that gives the same array in every case}; of several, the one that explains most of the arrays.

    If there is none: a Mistake of which the array is the same multiple in every case, such as a path that counts twice or
    has the wrong sign, or a mistake times a factor. Its `edits` are empty.
    """
    mine, ranked = [case for case in cases(assignment, seed) if case.task is task], []
    for mistake, wrong in predictions(assignment, seed):
        exact, nearly = {}, {}
        for n in [n for n in task.points if (task.name, n) in wrong]:
            pairs = list(zip([given.get(n) for given in results], wrong[task.name, n], mine, strict=True))
            if any((g is None) != (p is None) or p is not None and not p.shape == g.shape for g, p, _ in pairs):
                continue
            if all(p is None or _alike(g, p, _scale(case, n)) for g, p, case in pairs):
                exact[n] = mistake
            elif n not in task.outputs or task.backward is None:
                if how := _multiple(n, pairs):
                    nearly[n] = mistake._replace(sentence=f"{mistake.sentence}, {how}", edits=())
        if any(p is not None and p.any() for n in exact for p in wrong[task.name, n]):  # zeros fit many mistakes
            ranked.append(((1, len(exact)), exact))
        ranked.append(((0, len(nearly)), nearly))
    found = {}
    for _, named in sorted(reversed(ranked), key=lambda x: x[0]):  # the last one wins; of equals the first in the table
        found |= named
    return found


def _multiple(n, pairs):
    """A phrase if array `n` is the same multiple of a mistake in every case, with two cases or more, else ""."""
    there, on_top = [], []
    for g, p, case in pairs:
        right, scale = case.right[n], _scale(case, n)
        if p is None or not np.isfinite(g).all() or g.shape != right.shape:
            return ""
        lost, off = right - p, right - g
        if np.linalg.norm(lost) > 1e-6 * scale:
            there.append(_factor(off, lost))
            on_top.append(_factor(g, p))
        elif not same(g, right, scale):
            return ""
    if _constant(there) and any(p.any() for _, p, _ in pairs):  # if the mistake leaves only zeros, any factor fits
        return f"or counts {1 - there[0]:.3g} times in place of once"
    return f"and the result is multiplied by {on_top[0]:.3g}" if _constant(on_top) else ""


def _factor(x, y):
    """k if x = k y, else None."""
    k = float((x * y).real.sum() / max((y * y).real.sum(), 1e-300))
    return k if np.linalg.norm(x - k * y) <= 1e-6 * np.linalg.norm(y) else None


def _constant(factors):
    """Are there two or more factors, all equal and not 0?"""
    return len(factors) > 1 and None not in factors and factors[0] != 0 and np.allclose(factors, factors[0], rtol=1e-6)


def _alike(g, p, scale):
    return same(g, p, scale) or g.dtype == np.float32 and relative_error(g, p, scale) < SINGLE


def _wrong_dtype(n, planned, ran):
    for k, (case, what, *_) in enumerate(planned):
        found = ran.results[k].get(n)
        if found is None:
            continue
        if what == "float32" and case.right[n].dtype.kind == "f" and found.dtype != np.float32:
            return True
        if what and what != "float32" and case.right[n].dtype.kind == "f" and found.dtype.kind != "c":
            return True
    return False


def _changed(n, whole, ran):
    """Names of the inputs that were written to, and "the cache" if a second backward gives different gradients."""
    names = []
    for k, case in whole:
        found = ran.results[k]
        for m, x in case.arrays.items():
            after = found.get(f"after {m}")
            if after is not None and (after.shape != x.shape or not np.array_equal(after, x, equal_nan=True)):
                names.append(m)
        again = found.get(f"again {n}")
        if again is not None and not np.array_equal(again, found.get(n), equal_nan=True):
            names.append("the cache")
    return ", ".join(dict.fromkeys(names))
