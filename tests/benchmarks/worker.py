"""One side of a comparison in a process of its own: makes the work, then does it once for each line it reads.

    python -m tests.benchmarks.worker NAME ours|eager|compile|port

Writes one JSON line a repetition: {"seconds"}; after "check" {"numbers": file}; after "end" {"peak", "sgemm"}.
"""

import json
import sys
import tempfile
from time import perf_counter

import numpy as np

from tests.benchmarks.workloads import WORKLOADS


def main(name, peer):
    workload = WORKLOADS[name]()
    given = workload.inputs()
    before = peak()
    if peer == "ours":
        run = workload.ours(given)
    else:
        from tests.benchmarks.peers import PEERS

        run = PEERS[peer][name](given)
    found = {key: np.asarray(x) for key, x in run().items()}  # also the warm-up
    for line in sys.stdin:
        if line.strip() == "check":
            with tempfile.NamedTemporaryFile(suffix=".npz", delete=False) as file:
                np.savez(file, **found)
            answer = {"numbers": file.name}
        elif line.strip() == "end":
            answer = {"peak": peak(), "before": before, "sgemm": sgemm()}
        else:
            started = perf_counter()
            run()
            answer = {"seconds": perf_counter() - started}
        print(json.dumps(answer), flush=True)


def peak():
    """The most memory this process ever held, bytes."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def sgemm(n=2048):
    """This machine's float32 rate in a product of two n x n matrices, FLOP/s."""
    a, b = np.ones((n, n), np.float32), np.ones((n, n), np.float32)
    a @ b
    seconds = []
    for _ in range(5):
        started = perf_counter()
        a @ b
        seconds.append(perf_counter() - started)
    return 2 * n**3 / min(seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
