"""Measures how many times as fast as the naive form a submission is. The grader's process reads the clock.

Two processes, one with the submission and one with the naive form, get the same new arrays in turn. The time of a call is
the CPU time that its process uses until it answers; the shortest of all turns counts. One thread.
"""

import math
import threading
import zlib

import numpy as np

from lessons.assignments import marks, process
from lessons.assignments.cut import PACKAGE, package, write

TURNS = 4  # the first is a warm-up
_alone = threading.Lock()  # two timings at once would disturb each other


def mark(assignment, task, seed, submission, folder):
    """The Row "seconds" of a task with a Speed"""
    most, (wanted, arrays, rights) = task.points["seconds"], calls(task, seed)
    write(folder / "model", package(assignment))
    naive = [call | marks.named(task.speed.forward, task.speed.backward, PACKAGE) for call in wanted]
    limits = task.seconds, assignment.memory
    with (_alone, process.Worker(folder / "naive", folder / "model", naive, *limits) as other,
          process.Worker(folder / "mine", submission, wanted, *limits) as mine):  # fmt: skip
        taken = [[worker.ask(k, x) for worker in (other, mine)] for k, x in enumerate(arrays)]
        ran = mine.ran()
    if told := _wrong(ran, rights):
        return marks.Row(task.name, "seconds", 0, most, {"speed": told}, [])
    taken = np.array(taken).reshape(TURNS, len(task.speed.sizes), 2)[1:]
    naive, mine = taken.min(axis=0).sum(axis=0)
    ratio = naive / mine
    share = min(1.0, max(0.0, math.log(ratio) / math.log(task.speed.ratio)))
    sentence = f"{ratio:.3g} times as fast as the naive form, {task.speed.ratio:g} times is wanted"
    told = marks.Told(share, "right" if share == 1 else "slow", sentence)
    return marks.Row(task.name, "seconds", most * share, most, {"speed": told}, [])


def calls(task, seed, turns=TURNS):
    """-> calls, arrays, right arrays, of all sizes in all turns; with a backward if the naive form has one"""
    cases = []
    for k, sizes in enumerate(task.speed.sizes * turns):
        rng = np.random.default_rng([seed, zlib.crc32(f"{task.name} speed {k}".encode())])
        cases.append(case(task, "speed", sizes, rng, task.speed.backward))
    wanted = [marks.call(task, x, PACKAGE, forward_only=not task.speed.backward) | {"once": True} for x in cases]
    return wanted, [x.arrays for x in cases], [x.right for x in cases]


def case(task, group, sizes, rng, backward=True):
    """A Case whose right gradients are those of the task's own backward: the complex step would take too long."""
    made = task.make(rng, **sizes)
    inputs = {n: x for n, x in made.items() if isinstance(x, np.ndarray)}
    options = {n: x for n, x in made.items() if n not in inputs}
    found = task.forward(*made.values())
    out, cache = found if task.cache else (found, None)
    right = dict(zip(task.outputs, out if isinstance(out, tuple) else (out,), strict=True))
    if backward:
        dout = [rng.standard_normal(np.shape(x)) for x in right.values()]
        names = [f"d{n}" for n in marks.gradients(task, inputs)]
        inputs |= {f"d{n}": d for n, d in zip(task.outputs, map(np.asarray, dout), strict=True)}
        grads = task.backward(tuple(dout) if len(dout) > 1 else dout[0], cache)
        right |= dict(zip(names, grads if isinstance(grads, tuple) else (grads,), strict=True))
    return marks.Case(task, group, inputs, options, right, {})


def _wrong(ran, rights):
    """A Told if a result is wrong, so that the time does not count, else None."""
    for k, right in enumerate(rights):
        for n, x in right.items():
            if failed := marks.failed(n, k, ran):
                return failed._replace(kind="slow") if failed.kind == "ended" else failed
            found = ran.results[k].get(n)
            if found is None or not marks.same(found, x):
                return marks.Told(0, "wrong", f"{n} is not right at the sizes that are timed, so the time does not count")
    return None
