"""Marks: compares the arrays of a submission with the right arrays, in a process that never imports a submission.

Gradients are compared with the complex step of satnp's forward. A gradient that differs from it, but is the gradient of the
student's own forward (called with complex inputs), gets a part of its points, because only the forward is wrong.
"""

import inspect
import re
import sys
import warnings
import zlib
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from importlib.util import spec_from_loader
from threading import Lock
from typing import NamedTuple

import numpy as np

from lessons.assignments import calls, kinds
from lessons.assignments.cut import closure, package, short
from lessons.assignments.declare import place
from lessons.assignments.kinds import CHANGED, DTYPE, SHARES, TOLERANCE, Told, fingerprint, same
from lessons.assignments.mistakes import MISTAKES
from satnp.proof.gradcheck import COMPLEX_STEP, STEP, numeric_gradient

SPECIAL = {  # {a size or flag of a case: what is special about it}
    "hole": "with a hole in the mask (1, 0, 1)", "ties": "with equal largest numbers in a window", "ceil": "with ceil=True",
    "far": "with numbers of 1000, 0 and -1000", "scale": "with numbers of about {}",
    "never": "with a score of minus infinity",
}  # fmt: skip
CASCADE = 0.15  # the most that arrays which follow from another task's cost, of all points
RIGHT = "right_parts"  # the package of right functions that a task is run with, in place of the submission's wrong ones


class Case(NamedTuple):
    """A call with its arrays; `right` are the right outputs and gradients."""

    task: object
    group: str
    arrays: dict
    options: dict
    right: dict
    vectors: dict  # {input: direction} of the derivatives of the student's own forward
    sizes: dict = None  # {letter: size}
    axes: dict = None  # {array: a letter for each axis, or ""}
    special: tuple = ()


class Row(NamedTuple):
    """The marks of one array of one task."""

    task: str
    array: str
    points: float
    most: float
    groups: dict  # {"usual": Told, "edges": Told}
    notes: list  # Tolds that hold for all groups
    follows: float = 0  # points lost because of another task


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
    found = []
    for task in assignment.tasks:
        mine = [
            _case(task, group, sizes, np.random.default_rng([seed, zlib.crc32(f"{task.name} {group} {k}".encode())]))
            for group in groups for k, sizes in enumerate(getattr(task, group))
        ]  # fmt: skip
        found += [] if judged(task) else _with_axes(task, mine)
        found += mine if judged(task) else []
    return found


def _case(task, group, sizes, rng):
    made = task.make(rng, **sizes)
    right = {n: made.pop(n) for n in task.outputs if task.score}
    arrays = {n: x for n, x in made.items() if isinstance(x, np.ndarray)}
    options = {n: x for n, x in made.items() if n not in arrays}
    letters = {n: x for n, x in sizes.items() if len(n) == 1}
    special = tuple(words.format(x) for n, x in sizes.items() if (words := SPECIAL.get(n)) and x) + tuple(
        f"with {n} = 1" for n, x in letters.items() if x == 1) + tuple(
        f"with {n} = {x}" for n, x in options.items() if n in ("stride", "padding"))  # fmt: skip
    if judged(task):
        return Case(task, group, arrays, options, right, {}, letters, {}, special)

    def outputs(point):
        found = task.forward(*(made | point).values())
        out = found[0] if task.cache else found
        return out if isinstance(out, tuple) else (out,)

    outs = outputs({})
    right = dict(zip(task.outputs, map(np.asarray, outs), strict=True))
    upstream = {f"d{n}": rng.standard_normal(np.shape(x)) for n, x in right.items()} if task.backward else {}
    names = gradients(task, arrays)
    near = arrays | (task.near(arrays) if task.near else {})
    still = {n: near[n].astype(complex) for n in names}

    def objective(point):
        return sum((y * d).sum() for y, d in zip(outputs(still | point), upstream.values(), strict=True))

    for n in names:
        right[f"d{n}"] = numeric_gradient(lambda x, n=n: objective({n: x}), near[n])
    vectors = {n: rng.standard_normal(arrays[n].shape) for n in names}
    return Case(task, group, arrays | upstream, options, right, vectors, letters, {}, special)


def _with_axes(task, mine):
    """The cases of a task with their axes: from the docstring's shapes, else the letter whose size they have everywhere."""
    text, axes = inspect.unwrap(task.forward).__doc__ or "", {}
    shapes = [{n: x.shape for n, x in (case.arrays | {n: case.right[n] for n in task.outputs}).items()} for case in mine]
    for n in shapes[0]:
        told = re.search(rf"\b{n} \(([^()]*)\)", text)
        letters = [x.strip() for x in told[1].split(",") if x.strip()] if told else []
        if "..." in letters or len(letters) != len(shapes[0][n]):
            both = list(zip((shape[n] for shape in shapes), (case.sizes for case in mine), strict=True))
            letters = [next((f"{'' if k == 1 else k}{letter}" for k in (1, 4) for letter in mine[0].sizes
                             if all(shape[a] == k * sizes.get(letter, 0) for shape, sizes in both)), "")
                       for a in range(len(shapes[0][n]))]  # fmt: skip
        axes[n] = axes[f"d{n}"] = tuple(letters)
    found = []
    for case, shape in zip(mine, shapes, strict=True):
        sizes = {a: size for n in shape for a, size in zip(axes[n], shape[n], strict=True) if len(a) == 1 and a.isalpha()}
        found.append(case._replace(axes=axes, sizes=case.sizes | sizes))
    return found


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


class _Files:
    """Finds and loads the modules of a package {file: text}."""

    def __init__(self, files):
        self.texts = {file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): x for file, x in files.items()}

    def find_spec(self, name, path=None, target=None):
        return spec_from_loader(name, self, is_package="." not in name) if name in self.texts else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(_compiled(self.texts[module.__name__]), module.__dict__)


@lru_cache(maxsize=256)
def _compiled(text):
    return compile(text, "<package>", "exec")


@contextmanager
def imported(files):
    """Context manager: inside the block the package of `files` can be imported; yields its name."""
    finder, name = _Files(files), next(iter(files)).partition("/")[0]
    sys.meta_path.insert(0, finder)
    try:
        yield name
    finally:
        sys.meta_path.remove(finder)
        for module in [x for x in sys.modules if x.partition(".")[0] == name]:
            del sys.modules[module]


PLANTING, PLANTED = Lock(), {}  # imports change sys.meta_path and sys.modules


def predictions(assignment, seed, task, groups=("usual", "edges")):
    """[(mistake, {array: [its fingerprint in each case]})] of one task, only arrays that the mistake makes wrong."""
    with PLANTING:
        if (seed, task, groups) not in PLANTED:
            PLANTED[seed, task, groups] = _predictions(assignment, seed, task, groups)
        return PLANTED[seed, task, groups]


def _predictions(assignment, seed, task, groups):
    """Mistakes in functions of other tasks are left out: with those a task is marked on right functions."""
    mine = [case for case in cases(assignment, seed, groups) if case.task is task]
    theirs = {x for other in assignment.tasks if other.name in task.uses for x in closure(_pair(other))}
    own, found = set(closure(_pair(task))) - theirs, []
    only = replace(assignment, cut=tuple(x for x in (task.forward, task.backward) if x), given=())
    for mistake in MISTAKES.get(assignment.name, ()):
        if not own & {place(edit.function) for edit in mistake.edits}:
            continue
        arrays = {n: [] for n in mine[0].right}
        with imported(package(only, edits=mistake.edits, name="mistake")) as name:
            for case in mine:
                results = {}
                try:
                    with np.errstate(all="ignore"), warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        calls.run(call(task, case, name) | {"once": True}, case.arrays, results)
                except Exception:
                    pass  # a mistake may raise an error; the arrays made before it count
                for n, given in arrays.items():
                    given.append(results.get(n))
        found.append(
            (
                mistake,
                {
                    n: [fingerprint(g) for g in given]
                    for n, given in arrays.items()
                    if any(
                        g is not None and not same(g, x.right[n], view(n, x, {}).scale)
                        for g, x in zip(given, mine, strict=True)
                    )
                },
            )
        )
    return found  # fmt: skip


def _pair(task):
    return [place(x) for x in (task.forward, task.backward) if x]


def tables(assignment, seed, task, groups=("usual", "edges")):
    """The mistakes for kinds.planted, of one task."""
    return [(x.kind, x.sentence, wrong) for x, wrong in predictions(assignment, seed, task, groups)]


def mark(assignment, task, seed, planned, ran):
    """The Rows of one task."""
    whole = [(k, case) for k, (case, what, *_) in enumerate(planned) if not what]
    if judged(task):
        return _judged(task, whole, ran)
    views, found = {n: [view(n, case, ran.results[k]) for k, case in whole] for n in task.points if n != "seconds"}, []
    wrong = any(x.found is not None and not kinds.right(x) for some in views.values() for x in some)
    planted = kinds.planted(tables(assignment, seed, task), views) if wrong else {}
    for n, most in task.points.items():
        if n == "seconds":
            continue
        groups = {group: _told(n, group, whole, views, planned, ran, planted) for group in SHARES}
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


def view(n, case, results):
    """Array `n` of a call for kinds.name."""
    about = {"axes": case.axes, "sizes": case.sizes, "special": case.special}
    return kinds.view(n, results.get(n), case.arrays, case.right, case.task.outputs, about, case.task.blocks.get(n, ()))


def _told(n, group, whole, views, planned, ran, planted):
    """The verdict on array `n` in one group of cases."""
    mine = [(k, case, x) for (k, case), x in zip(whole, views[n], strict=True) if case.group == group]
    wrong = [(k, case) for k, case, x in mine if not kinds.right(x)]
    if told := [told for k, _ in wrong if ran.results[k].get(n) is None and (told := failed(n, k, ran))]:
        return told[0]
    task, own, outs = mine[0][1].task, [None], []
    if n not in task.outputs and task.backward:
        own = [_own(n, k, case, planned, ran) for k, case in wrong]
        outs = [m for m in task.outputs if not all(kinds.right(view(m, case, ran.results[k])) for k, case in wrong)]
    own = None if None in own or not own else min(own)
    return kinds.verdict(n, [x for *_, x in mine], views[n], planted, own, outs)


def right_parts(assignment, task, folder):
    """Let the package in `folder` use right functions where it calls those of the tasks that `task` uses."""
    others = {x.name: x for x in assignment.tasks}
    cut = {place(x): x for x in assignment.cut}
    roots = [x for name in task.uses if name in others for x in _pair(others[name])]
    parts = [cut[x] for x in closure(roots) if x in cut and x not in _pair(task)]
    files = package(replace(assignment, cut=tuple(parts), given=()), name=RIGHT)
    for module, name in map(place, parts):
        path = folder / "captioner" / f"{short(module)}.py"
        if path.exists():
            path.write_bytes(path.read_bytes() + f"\n\nfrom {RIGHT}.{short(module)} import {name}\n".encode())
    return files


def cascade(assignment, rows, again):
    """The Rows, with those that follow from another task said to and costing CASCADE of all points together at most.

    A task is marked on its own by `again(task)`: its Rows if the functions of the tasks that it uses were right, or None.
    """
    wrong = {row.task for row in rows if any(told.share < 1 for told in row.groups.values())}
    found, tasks = [], {task.name: task for task in assignment.tasks}
    own = {}
    for row in rows:
        causes = [x for x in tasks[row.task].uses if x in wrong]
        if row.task not in wrong or not causes:
            found.append(row)
            continue
        if row.task not in own:
            own[row.task] = again(tasks[row.task])
        found.append(_apart(row, own[row.task], " and ".join(f"`{x}`" for x in causes)))
    lost = sum(row.follows for row in found)
    back = max(0, lost - CASCADE * assignment.points) / (lost or 1)
    return [row._replace(points=row.points + back * row.follows) for row in found]


def _apart(row, own, causes):
    """A Row of a task that uses the wrong `causes`, from its Rows with right ones, `own`."""
    alone = next((x for x in own or [] if x.array == row.array), None)
    failing = "error", "missing", "ended"
    if alone is None or any(told.kind in failing for told in alone.groups.values()):
        sentence = f"{row.array}: it is wrong, and it uses {causes}: correct {causes} first"
        told = {group: x if x.share == 1 or x.kind in failing else Told(x.share, "follows", sentence)
                for group, x in row.groups.items()}  # fmt: skip
        return row._replace(groups=told)
    sentence = f"{row.array}: it is wrong only because of {causes}"
    groups = {}
    for group, x in alone.groups.items():
        now = row.groups[group]
        if now.share < x.share < 1:  # a score
            x = x._replace(sentence=f"{x.sentence}; with your {causes} it is less")
        groups[group] = Told(now.share, "follows", sentence) if now.share < x.share == 1 else x
    return row._replace(groups=groups, follows=max(0, alone.points - row.points))


def _judged(task, whole, ran):
    """The Rows of a task with a judge or a score."""
    tolds = {n: {group: [] for group in SHARES} for n in task.points}
    for k, case in whole:
        try:
            outputs = {n: ran.results[k].get(n) for n in task.outputs}
            said = (
                task.judge(case.arrays, outputs)
                if task.judge
                else {n: kinds.score(outputs[n], right, task.score) for n, right in case.right.items()}
            )
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


def _own(n, k, case, planned, ran):
    """The measure in which the student's forward is right, if array `n` is its derivative along a direction, else None."""
    along = next(j for j in range(k, len(planned)) if planned[j][0] is case and planned[j][1] == n[1:])
    found, outs = ran.results[k].get(n), {m: ran.results[along].get(m) for m in case.task.outputs}
    if any(x is None or x.dtype.kind != "c" or x.shape != case.right[m].shape for m, x in outs.items()):
        return None
    if found is None or found.shape != case.right[n].shape or not np.isfinite(found).all():
        return None
    vector = case.vectors[n[1:]]
    number = sum((x.imag * case.arrays[f"d{m}"]).sum() for m, x in outs.items()) / STEP[COMPLEX_STEP]
    size = np.linalg.norm(found) * np.linalg.norm(vector)
    if not size > 0 or not abs((found * vector).sum() - number) <= TOLERANCE * size:
        return None
    return kinds.measure(outs.values(), [case.right[m] for m in outs], [view(m, case, {}).scale for m in outs])


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
