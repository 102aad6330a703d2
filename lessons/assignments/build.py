"""Builds a starter: the package without the bodies that students write, arrays to check against, and the handout."""

import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lessons.assignments import marks, speed
from lessons.assignments.cut import PACKAGE, package, write
from lessons.assignments.declare import PUBLIC

HERE = Path(__file__).parent


def build(assignment, out):
    """Write the starter of `assignment` to `out`, a new or empty folder."""
    with whole(out) as made:
        write(made, package(assignment, cut=True))
        (made / "requirements.txt").write_text("numpy>=2.0\npytest>=8.0\n")
        for name in "check.py", "calls.py":
            (made / name).write_bytes((HERE / name).read_bytes())
        (made / "README.md").write_text(handout(assignment), encoding="utf-8")
        gold(assignment, made)


@contextmanager
def whole(out):
    """Context manager: yield a temporary folder, which becomes `out` (new or empty) if the block succeeds."""
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        made = Path(folder, "made")
        made.mkdir()
        yield made
        if out.exists():
            out.rmdir()
        os.replace(made, out)


def handout(assignment):
    """The README.md of a starter: the assignment's own text, its points, and the text common to all assignments."""
    own, common = ((HERE / "handouts" / f"{name}.md").read_text("utf-8") for name in (assignment.name, "COMMON"))
    lines = [f"| {task.name} | " + ", ".join(f"`{n}` {points}" for n, points in task.points.items())
             + f" | {sum(task.points.values())} |" for task in assignment.tasks]  # fmt: skip
    head = [f"## {assignment.points} points", "", "| task | array and points | together |", "|---|---|---|"]
    return "\n".join([own, *head, *lines, "", common])


def below(x):
    """max(x) + 1 for integers, the upper limit for random ones; 0 for other dtypes."""
    return int(x.max()) + 1 if x.dtype.kind in "iu" else 0


def gold(assignment, folder):
    """Write gold.npz and gold.json: the calls of the public checks, their inputs and right outputs, the speed tests."""
    arrays, calls, pairs = {}, [], []
    for k, case in enumerate(marks.cases(assignment, PUBLIC, ("usual",))):
        about = {"name": case.task.name, "judged": marks.judged(case.task), "score": case.task.score}
        calls.append(marks.call(case.task, case, PACKAGE) | about)
        arrays |= {f"{k}/{n}": x for n, x in case.arrays.items()} | {f"{k}/right {n}": x for n, x in case.right.items()}
    for task in assignment.tasks:
        if task.speed:
            timed, inputs, _ = speed.calls(task, PUBLIC, turns=1)
            shapes = [{"arrays": {n: (x.shape, below(x)) for n, x in some.items()}, "options": call["options"]}
                      for call, some in zip(timed, inputs, strict=True)]  # fmt: skip
            naive = timed[0] | marks.named(task.speed.forward, task.speed.backward, PACKAGE)
            pairs.append({"name": task.name, "ratio": task.speed.ratio, "yours": timed[0], "naive": naive, "shapes": shapes})
    np.savez_compressed(folder / "gold.npz", **arrays)
    (folder / "gold.json").write_text(json.dumps({"calls": calls, "speed": pairs}, indent=1) + "\n")
