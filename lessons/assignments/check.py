"""Is it right? python check.py [part of a name]; or pytest check.py

Each array is held against gold.npz, and each gradient against the complex step of your own forward as well:
f(x + ih) = f(x) + ih f'(x), so f'(x) = Im f(x + ih) / h without rounding, if your forward keeps the dtype it is given.
The marks are made with other numbers and other sizes.
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
    """Inputs and right arrays of call k."""
    with np.load(HERE / "gold.npz") as file:
        mine = {n.partition("/")[2]: file[n] for n in file.files if n.startswith(f"{k}/")}
    right = {n.removeprefix("right "): mine.pop(n) for n in list(mine) if n.startswith("right ")}
    return mine, right


def complex_step(call, arrays, name):
    """Gradient of sum(d<output> * output) at the input `name`, by your own forward, a number at a time."""
    gradient, forward = np.zeros(arrays[name].shape), call | {"backward": None}
    for index in np.ndindex(gradient.shape):
        point = arrays | {n: arrays[n].astype(complex) for n in call["gradients"]}
        point[name][index] += 1j * H
        results = {}
        calls.run(forward, point, results)
        gradient[index] = sum((results[n] * arrays[f"d{n}"]).sum() for n in call["outputs"]).imag / H
    return gradient


def compare(found, right, scale):
    """What is wrong with an array, or "right"; `scale` is the largest norm of the call, for what should be zero."""
    if found is None:
        return "not there"
    if found.shape != right.shape:
        return f"has shape {found.shape}, wanted {right.shape}"
    error = np.linalg.norm(found - right) / max(np.linalg.norm(right), 1e-3 * scale)
    return "right" if error <= TOLERANCE else f"off by {error:.1e}"


def score(found, right, wanted):
    """How much is right of what counts, which is where `right` is not below 0; enough is "right"."""
    if found is None or found.shape != right.shape:
        return "not there" if found is None else f"has shape {found.shape}, wanted {right.shape}"
    share = (found == right)[right >= 0].mean()
    return "right" if share >= wanted else f"{share:.1%} is right, {wanted:.0%} is wanted"


def check(k):
    """{array: what is wrong with it, or "right"} of call k, and the error that ended it, or ""."""
    call, (arrays, right), results, error = CALLS[k], load(k), {}, ""
    try:
        calls.run(call, arrays, results)
    except Exception:
        error = traceback.format_exc(limit=-1).strip().splitlines()[-1] or "NotImplementedError"
    scale = max([np.linalg.norm(x) for x in [*arrays.values(), *right.values()]], default=0)
    if call["score"]:
        found = {n: score(results.get(n), x, call["score"]) for n, x in right.items()}
    elif call["judged"]:  # many answers are right: only that there is one is seen here
        found = {n: "right" if n in results else "not there" for n in call["outputs"]}
    else:
        found = {n: compare(results.get(n), x, scale) for n, x in right.items()}
    if not error and call["backward"]:
        for n in call["gradients"]:
            own = compare(results.get(f"d{n}"), complex_step(call, arrays, n), scale)
            if own != "right" or found[f"d{n}"] != "right":
                found[f"d{n}"] += f"; against your own forward: {own}"
    for n, x in arrays.items():
        if not np.array_equal(results.get(f"after {n}", x), x):
            found[f"{n} unchanged"] = "no: your function writes to it"
    return found, error


def speed(pair, turns=3):
    """How many times as fast as the naive form you are, with random numbers of the shapes in gold.json."""
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
    wrong = 0
    for k, call in enumerate(CALLS):
        if part not in call["name"]:
            continue
        found, error = check(k)
        functions = ", ".join(call[x] for x in ("forward", "backward") if call[x])
        print(f"\n{call['name']}: {functions} in {call['module'].replace('.', '/')}.py")
        for n, told in found.items():
            print(f"  {n:<14}{told}")
        if error:
            print(f"  ended by {error}")
        wrong += bool(error) or set(found.values()) != {"right"}
    for pair in GOLD["speed"]:
        if part in pair["name"]:
            try:
                ratio = speed(pair)
                print(f"\n{pair['name']}: {ratio:.3g} times as fast as the naive form, {pair['ratio']:g} times is wanted")
                wrong += ratio < pair["ratio"]
            except NotImplementedError as error:
                print(f"\n{pair['name']}: {error} is not written yet")
    print("\nall right" if not wrong else f"\n{wrong} calls are not right yet")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
