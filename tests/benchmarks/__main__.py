"""Measure the speed of satnp and compare it with PyTorch. Nothing is asserted.

    python -m tests.benchmarks [NAME ...] [--beside K] [--json FILE]

satnp and a peer first compare their results, then run in turn, A B A B ..., each in its own process with the same number of
threads (OMP_NUM_THREADS, or all cores). The peer `frame` is the same captioner on satnp/captioners/recurrent.py, in place of
its own loop. The other peers are PyTorch (pip install "satnp[bench]"): eager, torch.compile (which needs g++), and the loop
of a popular port. They also keep freed memory (satnp/arrays/runtime.py), which makes them faster than PyTorch's defaults.
`python -m tests.benchmarks.family` has the other captioners. The columns:

    ratio      median of ours / theirs over neighbouring runs; below 1, satnp is faster
    spread     interquartile range of the ratios
    GF/s       multiplications and additions of the plain sums per second of our median time; Winograd does fewer
    of sgemm   the same as a share of this machine's rate for a float32 matrix product, measured between the runs
    MiB        peak memory of ours and theirs beyond the interpreter and its imports: inputs, parameters and all results, but
               no library (so "memory <= 0.3 of PyTorch's" compares only the work); for `demo`, of the whole process
    error      largest relative difference between an array of ours and theirs, by norm

A row that could not run, or whose results differ, has a `reason` and no numbers. Times in the JSON are in seconds.

With `--beside K`, K other processes (tests/benchmarks/busy.py) each keep a core busy while all rows are measured, and there
is the peer `one`: satnp with one thread. To measure both sides without AVX-512 on a processor that has it (with the names of
NumPy 2.4; the first line of the output then says Haswell):

    OPENBLAS_CORETYPE=Haswell NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR" MKL_ENABLE_INSTRUCTIONS=AVX2 \\
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 TORCHINDUCTOR_CPP_MARCH=x86-64-v3 python -m tests.benchmarks NAME
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import numpy as np
from threadpoolctl import threadpool_info

from satnp.arrays import threads
from satnp.files import read_json, write_json
from tests.benchmarks.workloads import FAMILY, WORKLOADS

COMMANDS = {"startup": 9, "demo": 1}  # {name: repetitions}
NAMES = (*(name for name in WORKLOADS if name not in FAMILY), *COMMANDS)
IN_NUMPY = "none", "frame", "loop", "one"  # peers that do not need PyTorch
FIELDS = (
    "name", "peer", "ratio", "spread", "ours_s", "theirs_s", "gflops", "sgemm_share", "peak_memory_bytes",
    "theirs_peak_memory_bytes", "max_relative_error", "beside", "reason",
)  # fmt: skip
CORES = os.cpu_count() or 1
LEAST, MOST, SECONDS = 5, 31, 15  # fewest and most repetitions of a row; after SECONDS, no more than LEAST
SAME = 1e-4  # largest relative error of results that count as equal


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; default: all")
    parser.add_argument("--beside", type=int, default=0, metavar="K", help="measure beside K busy processes; default: 0")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    for name in args.names:
        if name not in NAMES:
            parser.error(f"there is no benchmark {name!r}; choose from {', '.join(NAMES)}")
    if not 0 <= args.beside <= CORES:
        parser.error(f"--beside is {args.beside}; choose 0 to {CORES}, the number of cores")
    print(machine(args.beside))
    print(f"{'benchmark':20}{'peer':8}{'ratio':>6}{'spread':>7}{'ours, ms':>10}{'theirs':>10}{'GF/s':>6}{'of sgemm':>9}"
          f"{'MiB':>6}{'theirs':>7}{'error':>9}")  # fmt: skip
    rows, line = [], [sys.executable, "-m", "tests.benchmarks.busy"]
    with ExitStack() as stack:  # at its end the pipes are closed, and the busy processes end
        busy = [stack.enter_context(subprocess.Popen(line, stdin=subprocess.PIPE)) for _ in range(args.beside)]
        for name in args.names or NAMES:
            for peer in peers(name, args.beside):
                rows.append(row(name, peer, busy))
                print(shown(rows[-1]), flush=True)
    if args.json:
        write_json(args.json, rows)


def machine(beside=0):
    torch = f"PyTorch {version('torch')}" if find_spec("torch") else "no PyTorch"
    kernels = "".join(f" ({found['architecture']})" for found in threadpool_info() if "architecture" in found)
    busy = f", {beside} busy beside" if beside else ""
    return f"{threads.cores()} threads{busy}, NumPy {np.__version__}{kernels}, {torch}, load {os.getloadavg()[0]:.1f}"


def peers(name, beside=0):
    """The peers of a benchmark; "none" if it has no peers or PyTorch is not installed."""
    named = () if name in COMMANDS else WORKLOADS[name]().peers
    if named and beside:
        named += ("one",)
    return named if named and find_spec("torch") else (*named, "none")


def row(name, peer, busy=(), **limits):
    """Run one comparison, beside the processes `busy`, with `limits` of compare() -> {field: value}

    A row that failed has a `reason`.
    """
    empty = dict.fromkeys(FIELDS) | {"name": name, "peer": peer, "beside": len(busy)}
    try:
        if peer not in IN_NUMPY and not find_spec("torch"):
            raise Failed('PyTorch is not installed (pip install "satnp[bench]")')
        if peer == "compile" and not shutil.which(os.environ.get("CXX", "g++")):
            raise Failed("torch.compile needs a C++ compiler, but g++ is not installed")
        found = command(name) if name in COMMANDS else compare(name, peer, **limits)
        if any(process.poll() is not None for process in busy):
            raise Failed("a busy process ended before the measurement did")
        return empty | found
    except Failed as error:
        return empty | {"reason": str(error)}


class Failed(Exception):
    """The reason why a row has no numbers."""


def compare(name, peer, least=LEAST, most=MOST, **sizes):
    """Measure a workload, with its own or other sizes, and compare it with `peer` ("none": alone) -> {field: value}"""
    flops, seconds, rates = WORKLOADS[name](**sizes).flops, [], []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sides = [stack.enter_context(Worker(name, side, folder, sizes)) for side in ("ours", peer) if side != "none"]
        error = difference(*(side.numbers() for side in sides)) if len(sides) == 2 else None
        started = perf_counter()
        while len(seconds) < least or (perf_counter() - started < SECONDS and len(seconds) < most):
            said = [side.again() for side in sides]
            seconds.append([answer["seconds"] for answer in said])
            rates.append(sgemm() if flops else None)
    memory = [answer["memory"] for answer in said]
    ours, *theirs = map(median, zip(*seconds, strict=True))
    found = {"ours_s": ours, "peak_memory_bytes": memory[0]}
    if theirs:
        ratios = [a / b for a, b in seconds]
        low, high = np.percentile(ratios, (25, 75))
        found |= {"ratio": median(ratios), "spread": high - low, "theirs_s": theirs[0]}
        found |= {"theirs_peak_memory_bytes": memory[1], "max_relative_error": error}
    if flops:
        shares = [flops / side[0] / rate for side, rate in zip(seconds, rates, strict=True)]
        found |= {"gflops": flops / ours / 1e9, "sgemm_share": median(shares)}
    return found


class Worker:
    """Context manager: a process of worker.py that has finished its first repetition."""

    def __init__(self, name, side, folder, sizes):
        self.file, self.said = Path(folder) / f"{side}.npz", tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.worker", name, side, self.file, json.dumps(sizes)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True,
            env=os.environ | ({"OMP_NUM_THREADS": "1"} if side == "one" else {}),
        )  # fmt: skip

    def __enter__(self):
        try:
            self.answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        try:
            self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
        self.said.close()

    def answer(self):
        if line := self.process.stdout.readline():
            return json.loads(line)
        self.said.seek(0)
        raise Failed((self.said.read().strip() or "the process ended without a message").splitlines()[-1])

    def again(self):
        sleep(0.05)  # wait until the threads of the other process are idle
        with suppress(BrokenPipeError):
            print("again", file=self.process.stdin, flush=True)
        return self.answer()

    def numbers(self):
        with np.load(self.file) as archive:
            return dict(archive)


def difference(ours, theirs):
    """Largest relative difference, by norm, of arrays with the same name; raises Failed if it is above SAME."""
    if ours.keys() != theirs.keys():
        raise Failed(f"different results: {sorted(ours)} and {sorted(theirs)}")
    errors = {name: np.linalg.norm(ours[name] - x) / max(np.linalg.norm(x), 1e-30) for name, x in theirs.items()}
    worst = max(errors, key=errors.get)
    if not errors[worst] <= SAME:
        raise Failed(f"different results: {worst} differs by {errors[worst]:.1e}")
    return float(errors[worst])


def sgemm(n=2000):
    """Current rate of this machine for the float32 product of two n x n matrices, in operations per second."""
    a, b = np.ones((2, n, n), np.float32)
    seconds = []
    for _ in range(3):
        started = perf_counter()
        a @ b
        seconds.append(perf_counter() - started)
    return 2 * n**3 / min(seconds)


def command(name):
    """Measure a command of satnp -> {field: value}"""
    with tempfile.TemporaryDirectory() as folder:
        line, seconds = {"startup": ["--help"], "demo": ["demo", "--out", f"{folder}/demo"]}[name], []
        for _ in range(COMMANDS[name]):
            started = perf_counter()
            done = subprocess.run([sys.executable, "-m", "satnp", *line], capture_output=True, text=True)
            seconds.append(perf_counter() - started)
            if done.returncode:
                raise Failed((done.stderr.strip() or "the command ended without a message").splitlines()[-1])
        said = read_json(Path(folder) / "demo/metrics.json") or {}
    return {"ours_s": median(seconds), "peak_memory_bytes": said.get("peak_memory_bytes")}


def shown(row):
    """Format a row of the table."""
    head, number = f"{row['name']:20}{row['peer']:8}", partial(cell, row)
    if row["reason"]:
        return f"{head}  {row['reason']}"
    return (
        head + number("ratio", ".2f", 6) + number("spread", ".2f", 7)
        + number("ours_s", ",.1f", 10, 1e3) + number("theirs_s", ",.1f", 10, 1e3)
        + number("gflops", ".0f", 6) + number("sgemm_share", ".2f", 9) + number("peak_memory_bytes", ",.0f", 6, 2**-20)
        + number("theirs_peak_memory_bytes", ",.0f", 7, 2**-20) + number("max_relative_error", ".0e", 9)
    )  # fmt: skip


def cell(row, name, form, width, unit=1):
    return f"{'-' if row[name] is None else format(row[name] * unit, form):>{width}}"


if __name__ == "__main__":
    sys.exit(main())
