"""How fast is satnp on this machine's GPU, and beside PyTorch there? Measures; asserts nothing.

    python -m tests.benchmarks.gpu [--out tests/benchmarks/results/gpu.md]

Each row is a process of its own: 3 times to warm up, then the median of 20, each waited for. float32, then TF32
(CUPY_TF32=1; PyTorch's allow_tf32). The floor of a training step, an estimate: its products at the rate of this GPU's own
large product, and what attention and Adam read and write at the rate of its own copy (a large cache may do better). Without
a GPU: one sentence, exit 2.
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

from satnp.backend import find_device, to_device
from satnp.errors import InputError
from satnp.files import replacing
from satnp.parameters import Parameters
from tests.benchmarks.workloads import WORKLOADS
from tests.test_device_step import training_step

NAMES = ("step_paper", "step_flickr8k", "vgg19_b8", "squeezenet_b8", "beam5")
WARM, TIMES = 3, 20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
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
        for side in ("ours", *(WORKLOADS[name]().peers if find_spec("torch") else ())):
            if side == "port":
                continue
            for tf32 in ("0", "1"):
                lines.append(shown(name, side, tf32))
                print(lines[-1], flush=True)
    lines += ["", f"Launches of a step of 20 words by the stand-in's count: {training_step().launches}."]
    print(lines[-1])
    if args.out:
        with replacing(args.out) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def machine(xp):
    torch = f"PyTorch {version('torch')}" if find_spec("torch") else "no PyTorch"
    cuda = f"CUDA {_dotted(xp.cuda.runtime.runtimeGetVersion())}, driver {_dotted(xp.cuda.runtime.driverGetVersion())}"
    cupy = " ".join(f"{name} {version(name)}" for name in ("cupy-cuda12x", "cupy-cuda13x") if _installed(name))
    return f"Python {sys.version.split()[0]}, NumPy {np.__version__}, {cupy}, {cuda}, {torch}"


def _dotted(number):
    return f"{number // 1000}.{number % 1000 // 10}"


def _installed(package):
    try:
        return bool(version(package))
    except ModuleNotFoundError:
        return False


def shown(name, side, tf32):
    """A row of the table, from a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--row", name, side]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"CUPY_TF32": tf32})
    head = f"| {name} | {'satnp' if side == 'ours' else f'PyTorch, {side}'}, {'TF32' if tf32 == '1' else 'float32'} |"
    if done.returncode:
        return f"{head} {(done.stderr.strip() or 'it ended without a word').splitlines()[-1]} | | | |"
    row = json.loads(done.stdout.splitlines()[-1])
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
    seconds = []
    for _ in range(WARM + TIMES):
        started = perf_counter()
        run()
        wait()
        seconds.append(perf_counter() - started)
    return {"seconds": median(seconds[WARM:]), "images": images, "floor_s": floor, "bytes": _held(xp, side)}


def on_device(given, xp):
    """The inputs of a workload in the GPU's memory."""

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
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = os.environ["CUPY_TF32"] == "1"
    return PEERS[side][name](given), torch.cuda.synchronize


def _held(xp, side):
    if side == "ours":
        return xp.get_default_memory_pool().total_bytes()
    import torch

    return torch.cuda.max_memory_reserved()


def floor_of(xp, workload, given):
    """Seconds of a training step's products, and of what it reads and writes besides, each at the best rate seen here."""
    gemm, copy = _rates(xp)
    xp.get_default_memory_pool().free_all_blocks()  # what was measured with is not the step's memory
    T, (N, L, D), p = len(given["mask"][0]), given["annotations"].shape, given["params"]
    # each of T steps reads keys and annotations twice; Adam reads four buffers and writes three
    return workload.flops / gemm + 4 * (2 * T * N * L * (D + len(p["v"])) + 7 * p.flat.size) / copy


def _rates(xp, n=8192):
    """Operations a second of a large product, and bytes a second of a large copy."""
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
