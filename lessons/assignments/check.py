"""Checks your functions: python check.py [part of a name], or pytest check.py; python check.py --hint NAME gives a hint

Each array is compared with gold.npz, and each gradient also with the complex step of your own forward:
f(x + ih) = f(x) + ih f'(x), so f'(x) = Im f(x + ih) / h without rounding, if your forward keeps the dtype of its inputs.
A remark names the kind of a mistake if the numbers tell it. Grading uses other numbers, and more of them.
"""

import json
import math
import sys
import textwrap
import time
import traceback
import warnings
from pathlib import Path
from typing import NamedTuple

import calls
import kinds
import numpy as np

HERE = Path(__file__).parent
GOLD = json.loads((HERE / "gold.json").read_text())
TASKS, HINTS = GOLD["tasks"], GOLD["hints"]
H = 1e-30
COLUMNS = 79
MISSING = "not written yet"


class Call(NamedTuple):
    """A call that was made: what it was given, what is right, and what was found."""

    about: dict
    arrays: dict
    right: dict
    found: dict
    error: str


class Report(NamedTuple):
    points: float
    lines: list  # a line for each call
    remarks: list  # on what is not right


def make(about):
    """Make a call with the arrays of gold.npz."""
    with np.load(HERE / "gold.npz") as file:
        arrays = {n.partition("/")[2]: file[n] for n in file.files if n.startswith(f"{about['number']}/")}
    right = {n.removeprefix("right "): arrays.pop(n) for n in list(arrays) if n.startswith("right ")}
    results, error = run(about, arrays)
    return Call(about, arrays, right, results, error)


def run(about, arrays):
    """The arrays that a call returns, and the error that ended it, or ""."""
    results = {}
    try:
        with np.errstate(all="ignore"):
            calls.run(about, arrays, results)
    except Exception as error:
        return results, where(error)
    return results, ""


def where(error):
    """The error in one line, with the last line of the package in its traceback."""
    frames = [x for x in traceback.extract_tb(error.__traceback__) if x.filename.startswith(str(HERE / "captioner"))]
    told = f"{type(error).__name__}: {error}"
    return f"{told} ({Path(frames[-1].filename).relative_to(HERE)}, line {frames[-1].lineno})" if frames else told


def along(call, name):
    """Is d<name> the derivative of your own forward along a random direction? -> yes or no, and its outputs or an error"""
    rng, about = np.random.default_rng(0), call.about
    vector = rng.standard_normal(call.arrays[name].shape)
    point = call.arrays | {n: call.arrays[n].astype(complex) for n in about["gradients"]}
    point[name] = point[name] + 1j * H * vector
    outs, error = run(about | {"backward": None}, point)
    if error:
        return False, error
    g = call.found[f"d{name}"]
    if g.shape != vector.shape or any(outs[m].shape != call.right[m].shape for m in about["outputs"]):
        return False, outs
    number = sum((outs[m] * call.arrays[f"d{m}"]).sum() for m in about["outputs"]).imag / H
    size = np.linalg.norm(g) * np.linalg.norm(vector)
    return bool(abs((g * vector).sum() - number) <= kinds.TOLERANCE * size), outs


def views(task, made):
    """{array: its kinds.View in each call}"""
    return {n: [kinds.view(n, x.found.get(n), x.arrays, x.right, x.about["outputs"], x.about, task["blocks"].get(n, ()))
                for x in made] for n in made[0].right}  # fmt: skip


def check(task, wrong_before=()):
    """The Report on one task; `wrong_before` names the tasks that are wrong."""
    made, points, remarks = [make(about) for about in task["calls"]], 0, []
    bad, errors = [[] for _ in made], list({x.error.rpartition(" (")[2]: x.error for x in made[::-1] if x.error}.values())
    remarks += [f"ended with {error}" for error in errors if not error.startswith("NotImplementedError")]
    missing = any(x.error.startswith("NotImplementedError") for x in made)
    if task["judged"]:
        for n, most in task["points"].items():
            shares = [judge(task, x, n) for x in made]
            share, sentence = min(shares)
            points += most * share
            remarks += [sentence] if share < 1 and sentence and not errors else []
            for k, (one, _) in enumerate(shares):
                bad[k] += [n] if one < 1 else []
        return Report(points, lines(made, bad), remarks or [MISSING] * missing)
    seen = views(task, made)
    known = kinds.planted(task["known"], seen) if any(not kinds.right(x) for some in seen.values() for x in some) else {}
    causes = " and ".join(f"`{x}`" for x in task["uses"] if x in wrong_before)
    pairs = []
    for n, most in task["points"].items():
        if n not in seen:
            continue
        told, notes = {}, {}
        for group in kinds.SHARES:
            told[group] = verdict(n, [k for k, x in enumerate(made) if x.about["group"] == group], made, seen, known)
            if told[group].share < 1 and told[group].sentence:
                notes[f"{n}: it is wrong, and it uses {causes}: correct {causes} first"
                      if causes and told[group].kind != "dtype" else told[group].sentence] = True  # fmt: skip
        share = sum(kinds.SHARES[group] * x.share for group, x in told.items())
        for x, about in ((kinds.DTYPE, dtypes(n, made)), (kinds.CHANGED, changed(n, made))):
            share *= x if about and share else 1
            notes |= {about: True} if about else {}
        points += most * share
        pairs += [(n, sentence) for sentence in notes]
        for k, x in enumerate(seen[n]):
            bad[k] += [] if kinds.right(x) else [n]
    remarks += kinds.merged(pairs)
    fast = []
    if task["speed"]:
        share, sentence = timed(task["speed"], any(bad))
        points += task["points"]["seconds"] * share
        (remarks if share < 1 else fast).append(sentence)
    return Report(points, [*lines(made, bad), *(f"  {x}" for x in fast)], remarks or [MISSING] * missing)


def verdict(n, members, made, seen, planted):
    """The kinds.Told of array `n` in one group of calls."""
    mine, outputs = [seen[n][k] for k in members], made[0].about["outputs"]
    wrong = [k for k in members if not kinds.right(seen[n][k])]
    if any(made[k].error and made[k].found.get(n) is None for k in wrong):
        return kinds.Told(0, "error", "")
    own, outs = None, [m for m in outputs if m != n and any(not kinds.right(seen[m][k]) for k in wrong)]
    if n not in outputs:
        found = [along(made[k], n[1:]) if made[k].found.get(n) is not None else (False, {}) for k in wrong]
        if found and all(yes for yes, _ in found):
            own = min(kinds.measure([x[m] for m in outputs], [made[k].right[m] for m in outputs],
                                    [seen[m][k].scale for m in outputs]) for k,
                                    (_, x) in zip(wrong, found, strict=True))  # fmt: skip
    return kinds.verdict(n, mine, seen[n], planted, own, outs if n not in outputs else [])


def judge(task, call, n):
    """(share of the points, remark) of an output that has more than one right value."""
    found = call.found.get(n)
    if found is None:
        return 0, f"{n} was not returned"
    if not task["score"]:
        return 1, ""
    if found.shape != call.right[n].shape:
        return 0, f"{n} has shape {found.shape}, wanted {call.right[n].shape}"
    return kinds.score(found, call.right[n], task["score"])


def dtypes(n, made):
    """A remark if the array is not float32 for float32 inputs, or your forward loses the imaginary part, else ""."""
    call = next((x for x in made if x.found.get(n) is not None), None)
    if call is None or call.right[n].dtype.kind != "f":
        return ""
    single, error = run(call.about, {m: x.astype(np.float32) if x.dtype.kind == "f" else x for m, x in call.arrays.items()})
    if error and not call.error:
        return f"with float32 inputs it ended with {error}"
    if n in single and single[n].dtype != np.float32:
        return f"{n}: it is {single[n].dtype} where the inputs are float32"
    for x in made:
        if x.about["smooth"] and n not in x.about["outputs"] and x.found.get(n) is not None and x.about["backward"]:
            same, outs = along(x, n[1:])
            if isinstance(outs, str):
                return f"{n}: with complex inputs your forward raised {outs}"
            right = all(m in x.found and x.found[m].shape == x.right[m].shape
                        and kinds.same(x.found[m], x.right[m]) for m in x.about["outputs"])  # fmt: skip
            if not same and right and kinds.same(x.found[n], x.right[n]):
                return f"{n}: it is right, but your forward loses the imaginary part of complex inputs"
    return ""


def changed(n, made):
    """A remark if a function writes to its inputs or to the cache, else ""."""
    for x in made:
        written = [m for m, given in x.arrays.items() if not np.array_equal(x.found.get(f"after {m}", given), given)]
        if written:
            return f"a function of this task writes to its input {', '.join(written)}"
        if f"again {n}" in x.found and not np.array_equal(x.found[n], x.found[f"again {n}"], equal_nan=True):
            return "a second backward from the same cache gives other numbers: a function writes to the cache"
    return ""


def lines(made, bad):
    """A line for each call: its sizes, and which arrays are wrong."""
    told_each = []
    for x, wrong in zip(made, bad, strict=True):
        told = "right" if not wrong else f"wrong: {', '.join(wrong)}"
        if x.error.startswith("NotImplementedError"):
            told = MISSING
        elif len(wrong) > 4:
            told = f"wrong: {len(wrong)} of {len(x.right)} arrays"
        edge = "edge " if x.about["group"] == "edges" else ""
        told_each += textwrap.wrap(f"  {edge + x.about['said']:<45} {told}", COLUMNS, subsequent_indent=48 * " ")
    return told_each


def timed(pair, wrong):
    """(share of the points for seconds, sentence)"""
    if wrong:
        return 0, "not timed: the time counts where all arrays are right"
    try:
        ratio = speed(pair)
    except Exception as error:
        return 0, f"not timed, ended with {where(error)}"
    share = min(1.0, max(0.0, math.log(ratio) / math.log(pair["ratio"])))
    return share, f"{ratio:.3g} times as fast as the naive form, {pair['ratio']:g} times is wanted"


def speed(pair, turns=3):
    """How many times as fast as the naive form your functions are, on random arrays of the shapes in gold.json."""
    rng, least = np.random.default_rng(), {"naive": 0.0, "yours": 0.0}
    for shapes in pair["shapes"]:
        taken = {way: [] for way in least}
        for _ in range(turns):
            arrays = {
                n: rng.integers(below, size=shape) if below else rng.standard_normal(shape)
                for n, (shape, below) in shapes["arrays"].items()
            }
            for way in least:
                start = time.perf_counter()
                calls.run(pair[way] | {"options": shapes["options"]}, arrays, {})
                taken[way].append(time.perf_counter() - start)
        least = {way: least[way] + min(taken[way]) for way in least}
    return least["naive"] / least["yours"]


def number(points):
    return f"{points:.1f}".removesuffix(".0")


def pytest_generate_tests(metafunc):
    metafunc.parametrize("task", TASKS, ids=[task["name"] for task in TASKS])


def test_task(task):
    used = needed([task])
    wrong = [x["name"] for x in TASKS if x["name"] in used and check(x).remarks]
    assert not check(task, wrong).remarks


def needed(tasks):
    """The names of the tasks whose functions the given ones use, and of those that these use."""
    found = {name for task in tasks for name in task["uses"]}
    return found | needed([x for x in TASKS if x["name"] in found]) if found else found


def hint(name):
    """Print the second hint for a function."""
    if name not in HINTS:
        print(f"no function is called {name!r}; there are {', '.join(HINTS)}", file=sys.stderr)
        return 2
    print("\n".join(textwrap.wrap(HINTS[name], COLUMNS)))
    return 0


def main(part="", *rest):
    if part in ("-h", "--help") or part == "--hint" and not rest:
        print(__doc__)
        return 0
    if part == "--hint":
        return hint(rest[0])
    warnings.simplefilter("ignore", np.exceptions.ComplexWarning)
    tasks = [task for task in TASKS if part in task["name"]]
    if not tasks:
        print(f"no task has {part!r} in its name; there are {', '.join(task['name'] for task in TASKS)}", file=sys.stderr)
        return 2
    points, wrong, before = 0, [], []
    used = needed(tasks)
    for task in TASKS:
        if task not in tasks and task["name"] not in used:
            continue
        report, call, most = check(task, before), task["calls"][0], sum(task["points"].values())
        before += [task["name"]] if report.remarks else []
        if task not in tasks:
            continue
        functions = ", ".join(call[x] for x in ("forward", "backward") if call[x])
        print(f"\n{task['name']}: {number(report.points)} of {most} points")
        print(f"  {functions} in {call['module'].replace('.', '/')}.py")
        print("\n".join(report.lines))
        for remark in [x for x in report.remarks if x != MISSING]:
            print("\n".join(textwrap.wrap(f"  * {remark}", COLUMNS, subsequent_indent="    ", break_on_hyphens=False)))
        points += report.points
        wrong += [task["name"]] if report.remarks else []
    most = sum(x for task in tasks for x in task["points"].values())
    print(
        f"\n{len(tasks) - len(wrong)} of {len(tasks)} tasks, {number(points)} of {most} points"
        + ("" if wrong else ": all right")
    )
    if any(set(task["uses"]) & set(before) for task in tasks if task["name"] in wrong):
        print("(or more: what is wrong only because of another task costs at most 15 of 100)")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
