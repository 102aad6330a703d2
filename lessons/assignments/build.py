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
from lessons.assignments.hints import HINTS

HERE = Path(__file__).parent


def build(assignment, out):
    """Write the starter of `assignment` to `out`, a new or empty folder."""
    with whole(out) as made:
        write(made, package(assignment, cut=True))
        (made / "requirements.txt").write_text("numpy>=2.0\npytest>=8.0\n")
        for name in "check.py", "calls.py", "kinds.py":
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
    """Write gold.npz and gold.json: the public calls with inputs and right outputs, known mistakes, speed tests."""
    arrays, tasks, k = {}, [], 0
    for task in assignment.tasks:
        mine = [case for case in marks.cases(assignment, PUBLIC) if case.task is task]
        made = []
        for case, sizes in zip(mine, (*task.usual, *task.edges), strict=True):
            about = {
                "number": k,
                "group": case.group,
                "said": said(sizes),
                "axes": case.axes,
                "sizes": case.sizes,
                "special": case.special,
            }
            made.append(marks.call(task, case, PACKAGE) | about | {"smooth": not sizes.get("ties", False)})
            arrays |= {f"{k}/{n}": x for n, x in case.arrays.items()} | {f"{k}/right {n}": x for n, x in case.right.items()}
            k += 1
        known = [] if marks.judged(task) else marks.tables(assignment, PUBLIC, task)
        tasks.append({
            "name": task.name, "points": task.points, "uses": task.uses, "blocks": task.blocks, "calls": made,
            "judged": marks.judged(task), "score": task.score, "speed": timed(task) if task.speed else None, "known": known,
        })  # fmt: skip
    np.savez_compressed(folder / "gold.npz", **arrays)
    hints = {x.__name__: HINTS[x.__name__][1] for x in assignment.cut if x.__name__ in HINTS}
    (folder / "gold.json").write_text(json.dumps({"hints": hints, "tasks": rounded(tasks)}) + "\n")


def said(sizes):
    """The sizes of a call in words."""
    numbers = [f"{n}={x}" for n, x in sizes.items() if not isinstance(x, bool) and n not in marks.SPECIAL]
    words = [marks.SPECIAL[n].format(x) if n in marks.SPECIAL else n if x else f"not {n}"
             for n, x in sizes.items() if (isinstance(x, bool) or n in marks.SPECIAL) and (x or n not in marks.SPECIAL)]
    return " ".join(numbers) + "".join(f", {x}" for x in words)


def rounded(x):
    """The same JSON with numbers of 12 digits, which is enough to compare with."""
    if isinstance(x, float):
        return float(f"{x:.12g}")
    if isinstance(x, dict):
        return {n: rounded(y) for n, y in x.items()}
    return [rounded(y) for y in x] if isinstance(x, (list, tuple)) else x


def timed(task):
    """The speed test of a task, for check.py."""
    calls, inputs, _ = speed.calls(task, PUBLIC, turns=1)
    shapes = [{"arrays": {n: (x.shape, below(x)) for n, x in some.items()}, "options": call["options"]}
              for call, some in zip(calls, inputs, strict=True)]  # fmt: skip
    naive = calls[0] | marks.named(task.speed.forward, task.speed.backward, PACKAGE)
    return {"ratio": task.speed.ratio, "yours": calls[0], "naive": naive, "shapes": shapes}
