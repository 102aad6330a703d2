"""How fast is satnp, and beside PyTorch? Measures; asserts nothing.

    python -m tests.benchmarks [NAME ...] [--json FILE]

Ours and each peer run in turn, A B A B ..., each in a process of its own with the same threads; a row is the median of the
ratios of neighbours. PyTorch comes with the extra `bench`; where it is missing the row says so.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from satnp.files import write_json
from tests.benchmarks.workloads import WORKLOADS

COMMANDS = ("startup", "demo")
HEAD = f"{'benchmark':20}{'peer':9}{'ratio':>7}{'spread':>8}{'ours':>10}{'theirs':>10}{'GF/s':>7}{'of sgemm':>9}{'MiB':>7}"


class Worker:
    """A process of worker.py."""

    def __init__(self, name, peer):
        command = [sys.executable, "-m", "tests.benchmarks.worker", name, peer]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )  # fmt: skip

    def ask(self, line):
        try:
            print(line, file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
            return json.loads(answer)
        except (OSError, ValueError):
            said = self.process.stderr.read().strip().rpartition("\n")[2]
            raise RuntimeError(said or "it ended without a word") from None

    def numbers(self):
        path = self.ask("check")["numbers"]
        try:
            with np.load(path) as archive:
                return dict(archive)
        finally:
            os.unlink(path)

    def end(self):
        with contextlib.suppress(RuntimeError):
            return self.ask("end")


def compare(name, peer):
    """A row for workload `name` beside `peer` ("none": alone)."""
    workload = WORKLOADS[name]()
    ours = Worker(name, "ours")
    theirs = None if peer == "none" else Worker(name, peer)
    try:
        error = None if theirs is None else difference(ours.numbers(), theirs.numbers())
        times = []
        for _ in range(workload.repeats):
            times.append([worker.ask("go")["seconds"] for worker in (ours, theirs) if worker])
        last = ours.end()
    finally:
        for worker in filter(None, (ours, theirs)):
            worker.process.kill()
            worker.process.communicate()
    seconds = median(t[0] for t in times)
    ratios = sorted(t[0] / t[1] for t in times) if theirs else None
    flops = workload.flops and workload.flops / seconds
    return {
        "name": name, "peer": peer, "ratio": ratios and median(ratios),
        "spread": ratios and (ratios[-2] - ratios[1] if len(ratios) > 3 else ratios[-1] - ratios[0]),
        "ours_s": seconds, "theirs_s": median(t[1] for t in times) if theirs else None,
        "gflops": flops and flops / 1e9, "sgemm_share": flops and flops / last["sgemm"],
        "peak_memory_bytes": last["peak"], "max_relative_error": error,
    }  # fmt: skip


def difference(ours, theirs):
    """The largest norm-relative difference of arrays of the same name."""
    if ours.keys() != theirs.keys():
        raise RuntimeError(f"other numbers: {sorted(ours)} and {sorted(theirs)}")
    return max(float(np.linalg.norm(ours[k] - theirs[k]) / max(np.linalg.norm(theirs[k]), 1e-30)) for k in ours)


def command(name):
    """A row for a whole command of satnp."""
    with tempfile.TemporaryDirectory() as folder:
        line = {"startup": ["--help"], "demo": ["demo", "--out", str(Path(folder) / "demo")]}[name]
        seconds = []
        for _ in range({"startup": 9, "demo": 1}[name]):
            started = perf_counter()
            subprocess.run([sys.executable, "-m", "satnp", *line], check=True, capture_output=True)
            seconds.append(perf_counter() - started)
        metrics = Path(folder) / "demo/metrics.json"
        peak = json.loads(metrics.read_text())["peak_memory_bytes"] if metrics.exists() else None
    empty = dict.fromkeys(("ratio", "spread", "theirs_s", "gflops", "sgemm_share", "max_relative_error"))
    return {"name": name, "peer": "none", **empty, "ours_s": median(seconds), "peak_memory_bytes": peak}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join((*WORKLOADS, *COMMANDS))}; default: all")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in (*WORKLOADS, *COMMANDS)]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; choose of {', '.join((*WORKLOADS, *COMMANDS))}")
    rows = []
    print(HEAD)
    for name in args.names or (*WORKLOADS, *COMMANDS):
        if name in COMMANDS:
            tries = [("none", lambda name, _: command(name))]
        else:
            tries = [(peer, compare) for peer in WORKLOADS[name]().peers or ("none",)]
        for peer, measure in tries:
            if peer != "none" and not find_spec("torch"):
                print(f"{name:20}{peer:9}PyTorch is not installed (pip install \"satnp[bench]\")", flush=True)
                continue
            try:
                rows.append(measure(name, peer))
            except RuntimeError as error:
                print(f"{name:20}{peer:9}{str(error)[:80]}", flush=True)
                continue
            print(shown(rows[-1]), flush=True)
    if args.json:
        write_json(args.json, rows)


def shown(row):
    def number(value, form, width):
        return f"{'-' if value is None else format(value, form):>{width}}"

    ours, theirs, memory = row["ours_s"], row["theirs_s"], row["peak_memory_bytes"]
    return (
        f"{row['name']:20}{row['peer']:9}" + number(row["ratio"], ".2f", 7) + number(row["spread"], ".2f", 8)
        + number(ours * 1e3, ".4g", 8) + "ms" + number(theirs and theirs * 1e3, ".4g", 8) + "ms"
        + number(row["gflops"], ".0f", 7) + number(row["sgemm_share"], ".2f", 9)
        + number(memory and memory / 2**20, ".0f", 7)
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
