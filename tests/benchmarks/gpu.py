"""Measure the speed of satnp on this machine's GPU and compare it with PyTorch. Nothing is asserted.

    python -m tests.benchmarks.gpu [--out tests/benchmarks/results/gpu.md]

Each row runs in its own process: 3 warm-up runs, then the median of 20 runs, each synchronised. First float32, then TF32
(CUPY_TF32=1; PyTorch's allow_tf32). If the first results of a side differ from satnp's float32 results, its row says so and
has no times. The floor of a training step is an estimate: its matrix products at the rate of a large product on this GPU,
and what attention and Adam read and write at the rate of a large copy (a large cache may be faster). Last, 20 steps are
timed together, with a minibatch drawn and sent for each step, as in a training. Without a GPU: one sentence, exit 2.
"""

import argparse
import json
import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from satnp.arrays import optim
from satnp.arrays.backend import Uploads, find_device, to_device, to_host
from satnp.arrays.parameters import Parameters
from satnp.captioners import show_attend_tell as sat
from satnp.captioners.contract import Batch
from satnp.errors import InputError
from satnp.files import replacing
from tests.benchmarks.workloads import WORKLOADS
from tests.captioners.test_device_step import training_step

NAMES = ("step_paper", "step_flickr8k", "vgg19_b8", "squeezenet_b8", "beam5")
WARM, TIMES = 3, 20
TOLERANCE = 1e-2  # largest relative difference of the norms of two sides; TF32 has three digits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.row:
        os.environ["CUPY_TF32"] = "0"  # for the measurements in this process
    try:
        xp, said = find_device("cuda")
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    if args.row:
        print(json.dumps(measure(xp, *args.row)))
        return 0
    lines = [f"# {said}", "", machine(xp), ""]
    lines += ["| workload | side | ms | images/s | of the floor | MiB |", "|---|---|---|---|---|---|"]
    print("\n".join(lines))
    for name in NAMES:
        ours = None
        for side in ("ours", *(WORKLOADS[name]().peers if find_spec("torch") else ())):
            if side == "port":
                continue
            for tf32 in ("0", "1"):
                row = run_row(name, side, tf32)
                ours = ours or row.get("norms")
                lines.append(shown(name, side, tf32, row, ours))
                print(lines[-1], flush=True)
    lines += ["", f"Launches of a step of 20 words, as counted by the stand-in for a GPU: {training_step().launches}."]
    lines += ["", sent_anew(xp)]
    print("\n".join(lines[-4:]))
    if args.out:
        with replacing(args.out) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def machine(xp):
    torch = f"PyTorch {version('torch')}" if find_spec("torch") else "no PyTorch"
    runtime = xp.cuda.runtime
    cuda = f"CUDA {_dotted(runtime.runtimeGetVersion())}, driver for CUDA {_dotted(runtime.driverGetVersion())}"
    cupy = " ".join(f"{name} {version(name)}" for name in ("cupy-cuda12x", "cupy-cuda13x") if _installed(name))
    return f"Python {sys.version.split()[0]}, NumPy {np.__version__}, {cupy}, {cuda}, {torch}"


def _dotted(number):
    return f"{number // 1000}.{number % 1000 // 10}"


def _installed(package):
    try:
        return bool(version(package))
    except ModuleNotFoundError:
        return False


def run_row(name, side, tf32):
    """Run `measure` in its own process -> its result, or {"failed": the last line of its error output}"""
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--row", name, side]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"CUPY_TF32": tf32})
    if done.returncode:
        return {"failed": (done.stderr.strip() or "the process ended without a message").splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def shown(name, side, tf32, row, ours):
    """Format a line of the table; `ours` has the norms that the results of all sides must have."""
    head = f"| {name} | {'satnp' if side == 'ours' else f'PyTorch, {side}'}, {'TF32' if tf32 == '1' else 'float32'} |"
    if "failed" in row:
        return f"{head} {row['failed']} | | | |"
    wrong = [key for key, norm in row["norms"].items() if not abs(norm - ours[key]) <= TOLERANCE * abs(ours[key])]
    if wrong:
        return f"{head} different results: {', '.join(wrong)} | | | |"
    seconds, floor = row["seconds"], f"{row['floor_s'] / row['seconds']:.2f}" if row["floor_s"] else ""
    return f"{head} {1e3 * seconds:,.2f} | {row['images'] / seconds:,.0f} | {floor} | {row['bytes'] / 2**20:,.0f} |"


def measure(xp, name, side):
    workload = WORKLOADS[name]()
    given = workload.inputs()
    images = len(given["images"] if "images" in given else given["annotations"])
    floor = floor_of(xp, workload, given) if side == "ours" and name.startswith("step") else None
    if side == "ours":
        run, wait = workload.ours(on_device(given, xp)), xp.cuda.runtime.deviceSynchronize
    else:
        run, wait = _peer(name, side, given)
    seconds, norms = [], _norms(run())
    for _ in range(WARM - 1 + TIMES):
        started = perf_counter()
        run()
        wait()
        seconds.append(perf_counter() - started)
    return {
        "seconds": median(seconds[-TIMES:]), "images": images, "floor_s": floor, "bytes": _held(xp, side), "norms": norms,
    }  # fmt: skip


def _norms(found):
    """{name: Euclidean norm} of arrays of any library, without the words: two words may be equally probable."""
    hosts = {key: x.cpu() if hasattr(x, "cpu") else to_host(x) for key, x in found.items() if key != "ids"}
    return {key: float(np.linalg.norm(np.asarray(x, np.float64))) for key, x in hosts.items()}


def on_device(given, xp):
    """Copy the inputs of a workload to the GPU."""

    def move(x):
        if isinstance(x, Parameters):
            return x.on(to_device(x.flat, xp))
        if isinstance(x, np.ndarray):
            return to_device(x, xp)
        return type(x)(*map(move, x)) if isinstance(x, tuple) and hasattr(x, "_fields") else x

    return {name: move(x) for name, x in given.items()}


def _peer(name, side, given):
    import torch

    from tests.benchmarks.peers import PEERS

    torch.set_default_device("cuda")
    torch.backends.cudnn.benchmark = True  # the sizes stay the same
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = os.environ["CUPY_TF32"] == "1"
    return PEERS[side][name](given), torch.cuda.synchronize


def _held(xp, side):
    if side == "ours":
        return xp.get_default_memory_pool().total_bytes()
    import torch

    return torch.cuda.max_memory_reserved()


def floor_of(xp, workload, given):
    """Seconds of a training step's products and of its other reads and writes, each at the best rate of this GPU."""
    gemm, copy = _rates(xp)
    xp.get_default_memory_pool().free_all_blocks()  # so that the arrays of _rates do not count as memory of the step
    T, (N, L, D), p = len(given["mask"][0]), given["annotations"].shape, given["params"]
    # each of T steps reads keys and annotations twice; Adam reads four buffers and writes three
    return workload.flops / gemm + 4 * (2 * T * N * L * (D + len(p["v"])) + 7 * p.flat.size) / copy


def sent_anew(xp):
    """A sentence with the milliseconds per step of the paper's sizes, with and without drawing and sending a minibatch."""
    given, wait, rng = WORKLOADS["step_paper"]().inputs(), xp.cuda.runtime.deviceSynchronize, np.random.default_rng(0)
    params, (N, L, D), T = on_device(given, xp)["params"], given["annotations"].shape, given["mask"].shape[1]
    V, M = params["E"].shape
    config = sat.Config(V, D, M, len(params["W_h"]), len(params["v"]))
    grads, memory, beside = params.zeros_like(), optim.new_state("adam", params.flat), Uploads(xp)
    kept = given["annotations"].astype(np.float16)  # as a training reads them from disk

    def drawn():
        return kept, given["captions"], given["mask"], *sat.draw_noise(config, T, N, L, rng)

    def step(batch):
        annotations, captions, mask, *noise = batch
        grads.flat[...] = 0
        _, *cache = sat.forward(params, config, Batch(annotations.astype(np.float32), captions, mask), sat.Noise(*noise))
        sat.backward(cache.pop(), grads, frozen=True)
        _, factor = optim.clip_factor(grads.flat, 5.0)
        optim.adam(params.flat, grads.flat, memory, 1e-4, factor)

    def in_line(*arrays):
        return [None if x is None else to_device(x, xp) for x in arrays]

    def milliseconds(work):
        for times in (WARM, TIMES):
            started = perf_counter()
            for _ in range(times):
                work()
            wait()
        return f"{1e3 * (perf_counter() - started) / TIMES:.2f}"

    there = in_line(*drawn())
    return (
        f"{TIMES} steps of the paper's sizes in a row, float32, ms each: {milliseconds(lambda: step(there))} with the same "
        f"minibatch; {milliseconds(lambda: step(beside(*drawn())))} with a new one sent during the step before, "
        f"{milliseconds(lambda: step(in_line(*drawn())))} with a new one sent first; drawing alone {milliseconds(drawn)}."
    )


def _rates(xp, n=8192):
    """Operations per second of a large matrix product, and bytes per second of a large copy."""
    a, big = xp.ones((n, n), dtype=xp.float32), xp.ones(2**28, dtype=xp.float32)
    return 2 * n**3 / _fastest(xp, lambda: a @ a), 2 * big.nbytes / _fastest(xp, lambda: big.copy())


def _fastest(xp, work):
    seconds = []
    for _ in range(6):
        started = perf_counter()
        work()
        xp.cuda.runtime.deviceSynchronize()
        seconds.append(perf_counter() - started)
    return min(seconds)


if __name__ == "__main__":
    sys.exit(main())
