"""Checks your functions: python check.py [part of a name], or pytest check.py

Each array is compared with gold.npz, and each gradient also with the complex step of your own forward:
f(x + ih) = f(x) + ih f'(x), so f'(x) = Im f(x + ih) / h without rounding, if your forward keeps the dtype of its inputs.
Grading uses other numbers and other sizes.
"""

import json
import sys
import time
import traceback
import warnings
from pathlib import Path

import calls
import numpy as np

HERE = Path(__file__).parent
GOLD = json.loads((HERE / "gold.json").read_text())
CALLS = GOLD["calls"]
H, TOLERANCE = 1e-30, 1e-8


def load(k):
    """The inputs and the right arrays of call k."""
    with np.load(HERE / "gold.npz") as file:
        mine = {n.partition("/")[2]: file[n] for n in file.files if n.startswith(f"{k}/")}
    right = {n.removeprefix("right "): mine.pop(n) for n in list(mine) if n.startswith("right ")}
    return mine, right


def complex_step(call, arrays, name):
    """Gradient of sum(d<output> * output) with respect to input `name`, from your own forward, one element at a time."""
    gradient, forward = np.zeros(arrays[name].shape), call | {"backward": None}
    for index in np.ndindex(gradient.shape):
        point = arrays | {n: arrays[n].astype(complex) for n in call["gradients"]}
        point[name][index] += 1j * H
        results = {}
        calls.run(forward, point, results)
        gradient[index] = sum((results[n] * arrays[f"d{n}"]).sum() for n in call["outputs"]).imag / H
    return gradient


def compare(found, right, scale):
    """What is wrong with an array, or "right"; `scale`, the largest norm of the call, is for arrays that should be 0."""
    if found is None:
        return "not returned"
    if found.shape != right.shape:
        return f"has shape {found.shape}, wanted {right.shape}"
    error = np.linalg.norm(found - right) / max(np.linalg.norm(right), 1e-3 * scale)
    return "right" if error <= TOLERANCE else f"off by {error:.1e}"


def score(found, right, wanted):
    """The share of right entries, or "right" if it is at least `wanted`; entries with right < 0 do not count."""
    if found is None or found.shape != right.shape:
        return "not returned" if found is None else f"has shape {found.shape}, wanted {right.shape}"
    share = (found == right)[right >= 0].mean()
    return "right" if share >= wanted else f"{share:.1%} is right, {wanted:.0%} is wanted"


def check(k):
    """{array: what is wrong with it, or "right"} of call k, and the error that ended the call, or ""."""
    call, (arrays, right), results, error = CALLS[k], load(k), {}, ""
    try:
        calls.run(call, arrays, results)
    except Exception as ended:
        error = where(ended)
    scale = max([np.linalg.norm(x) for x in [*arrays.values(), *right.values()]], default=0)
    if call["score"]:
        found = {n: score(results.get(n), x, call["score"]) for n, x in right.items()}
    elif call["judged"]:  # many answers are right: check only that there is one
        found = {n: "right" if n in results else "not there" for n in call["outputs"]}
    else:
        found = {n: compare(results.get(n), x, scale) for n, x in right.items()}
    if not error and call["backward"]:
        for n in call["gradients"]:
            try:
                own = compare(results.get(f"d{n}"), complex_step(call, arrays, n), scale)
            except Exception as ended:
                own = f"with complex inputs it raised {where(ended)}"
            if own != "right" or found[f"d{n}"] != "right":
                found[f"d{n}"] += f"; compared with your own forward: {own}"
    for n, x in arrays.items():
        if not np.array_equal(results.get(f"after {n}", x), x):
            found[f"{n} unchanged"] = "no: your function writes to it"
    if any(not np.array_equal(results[n], results[f"again {n}"], equal_nan=True) for n in found if f"again {n}" in results):
        found["the cache unchanged"] = "no: a second backward from the same cache gives different numbers"
    if not error and not call["judged"]:
        for n in widened(call, arrays, right):
            found[n] += "; the inputs are float32, but this is not"
    return found, error


def widened(call, arrays, right):
    """Names of the arrays that are not float32 although all floating-point inputs are."""
    results = {}
    try:
        calls.run(call, {n: x.astype(np.float32) if x.dtype.kind == "f" else x for n, x in arrays.items()}, results)
    except Exception:
        pass  # the arrays made before the error are checked
    return [n for n, x in right.items() if x.dtype.kind == "f" and n in results and results[n].dtype != np.float32]


def where(error):
    """The error in one line, with the last line of the package in its traceback."""
    frames = [x for x in traceback.extract_tb(error.__traceback__) if x.filename.startswith(str(HERE / "captioner"))]
    told = f"{type(error).__name__}: {error}"
    return f"{told} ({Path(frames[-1].filename).relative_to(HERE)}, line {frames[-1].lineno})" if frames else told


def speed(pair, turns=3):
    """How many times as fast as the naive form your functions are, on random arrays of the shapes in gold.json."""
    rng, least = np.random.default_rng(), {"naive": 0.0, "yours": 0.0}
    for shapes in pair["shapes"]:
        taken = {way: [] for way in least}
        for _ in range(turns):
            arrays = {n: rng.integers(below, size=shape) if below else rng.standard_normal(shape)
                      for n, (shape, below) in shapes["arrays"].items()}
            for way in least:
                start = time.perf_counter()
                calls.run(pair[way] | {"options": shapes["options"]}, arrays, {})
                taken[way].append(time.perf_counter() - start)
        least = {way: least[way] + min(taken[way]) for way in least}
    return least["naive"] / least["yours"]


def pytest_generate_tests(metafunc):
    metafunc.parametrize("k", range(len(CALLS)), ids=[f"{call['name']} {k}" for k, call in enumerate(CALLS)])


def test_arrays(k):
    found, error = check(k)
    assert not error and set(found.values()) == {"right"}, (error, found)


def main(part=""):
    warnings.simplefilter("ignore", np.exceptions.ComplexWarning)
    wrong, names = 0, list(dict.fromkeys(call["name"] for call in CALLS))
    if not any(part in name for name in names):
        print(f"no task has {part!r} in its name; there are {', '.join(names)}", file=sys.stderr)
        return 2
    for k, call in enumerate(CALLS):
        if part not in call["name"]:
            continue
        found, error = check(k)
        functions = ", ".join(call[x] for x in ("forward", "backward") if call[x])
        print(f"\n{call['name']}: {functions} in {call['module'].replace('.', '/')}.py")
        for n, told in found.items():
            print(f"  {n:<13} {told}")
        if error:
            print(f"  ended with {error}")
        wrong += bool(error) or set(found.values()) != {"right"}
    for pair in GOLD["speed"]:
        if part in pair["name"]:
            try:
                ratio = speed(pair)
                print(f"\n{pair['name']}: {ratio:.3g} times as fast as the naive form, {pair['ratio']:g} times is wanted")
                wrong += ratio < pair["ratio"]
            except Exception as error:
                print(f"\n{pair['name']}: not timed, ended with {where(error)}")
                wrong += 1
    print("\nall right" if not wrong else f"\n{wrong} calls are not right yet")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
