"""Finds gradients that are made by evaluating the forward again and again, as differences and the complex step do.

watch.py looks for changed inputs in the process of the submission. What it does not see, or is kept from seeing, the clock
does: one case has so many elements that an evaluation for each takes 20 seconds or more. A backward takes less than a
second, even one of plain loops over single numbers.
"""

import zlib
from contextlib import nullcontext
from functools import lru_cache

import numpy as np

from lessons.assignments import marks, speed

ELEMENTS = 200_000      # of the inputs of the large case, about, if its task does not give other sizes
SECONDS, TIMES = 10, 3  # the backward may take SECONDS of CPU time, or TIMES as long as the submission's own forward
MOST = SECONDS * (2 + TIMES)  # of CPU time for both calls of the case
STEPPED = marks.Told(0, "numerical", "these gradients come from evaluating functions at changed inputs (differences or a "
                     "complex step), not from a backward: no points")  # fmt: skip


@lru_cache(maxsize=64)
def large(task, seed):
    """The Case with many elements; None without gradients, or without sizes for it."""
    sizes, larger = task.usual[0], task.large
    if not task.backward or marks.judged(task) or not larger and "N" not in sizes:
        return None
    if not larger:
        elements = sum(np.size(x) for x in task.make(np.random.default_rng(0), **sizes).values())
        larger = {"N": sizes["N"] * ELEMENTS // elements}
    sizes = sizes | larger
    rng = np.random.default_rng([seed, zlib.crc32(f"{task.name} large".encode())])
    return speed.case(task, f"a larger case ({', '.join(f'{n} = {x}' for n, x in sizes.items())})", sizes, rng)


def calls(case, package):
    """The calls of the large case: the forward alone, then both."""
    return [marks.call(case.task, case, package, alone) | {"once": True} for alone in (True, False)] if case else []


def judge(task, rows, worker, k, case):
    """`rows` without the points of gradients from no backward, or that are wrong in the large case, calls k and k + 1."""
    gradients = [n for n in task.points if n != "seconds" and (n not in task.outputs or not task.backward)]
    earned = [row for row in rows if row.array in gradients and row.points]
    if earned and 0 in worker.stepped:
        told = dict.fromkeys(gradients, STEPPED)
    elif earned and case:
        right = [row.array for row in earned if all(told.share == 1 for told in row.groups.values())]
        with worker.again() if worker.ended else nullcontext(worker) as alive:
            told = _told(alive, k, case, right)
    else:
        return rows
    return [row._replace(points=0, groups=dict.fromkeys(row.groups, told[row.array]), notes=[])
            if row in earned and row.array in told else row for row in rows]  # fmt: skip


def _told(worker, k, case, right):
    """{array: Told} of the gradients that lose their points; `right` are right in the other cases."""
    gradients, slow = [f"d{n}" for n in marks.gradients(case.task, case.arrays)], ""
    if (forward := worker.ask(k, case.arrays, SECONDS)) is not None:
        limit = max(SECONDS, TIMES * forward)
        if worker.ask(k + 1, case.arrays, forward + limit) is None:
            slow = (f"the backward of {case.group} had not ended after {limit:.0f} s of CPU time (the forward took "
                    f"{forward:.2g} s): does it evaluate a function once for each number?")  # fmt: skip
    error = worker.errors.get(k) or worker.errors.get(k + 1)
    if worker.ended or error:
        how = f"ended with {error['type']}: {error['message']}" if error else f"is not done: the process {worker.ended}"
        sentence = slow if slow and worker.late else f"{case.group} {how}"
        return dict.fromkeys(gradients, marks.Told(0, "numerical", sentence))
    results, scale = worker.results[k + 1], max(map(np.linalg.norm, case.right.values()))
    return {n: marks.Told(0, "numerical", f"{n} is right in the other cases, but wrong in {case.group}")
            for n in right if n in gradients and not marks.same(results.get(n), case.right[n], scale)}  # fmt: skip
