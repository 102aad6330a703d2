"""One side of a comparison, in its own process: runs the workload, then again for TURN seconds after each line it reads.

    python -m tests.benchmarks.worker NAME ours|PEER NUMBERS [SIZES]

The first run is a warm-up (torch.compile compiles) and writes its results to NUMBERS, an .npz file. Each JSON line that the
process prints is {"seconds", "memory"}. SIZES, in JSON, replace the sizes of the workload.
"""

import json
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from satnp.arrays import threads
from tests.benchmarks.loops import LOOPS
from tests.benchmarks.workloads import WORKLOADS, on_the_frame

TURN = 1  # smallest number of seconds: short work is repeated and its median printed, as threads wake slowly after a pause


def main(name, peer, numbers, sizes="{}"):
    if Path(numbers).suffix != ".npz":  # NumPy would add the ending, and write a file called ".npz" for no name
        sys.exit(f"NUMBERS is {str(numbers)!r}; give the name of an .npz file to write")
    workload = WORKLOADS[name](**json.loads(sizes))
    make = workload.ours if peer in ("ours", "one") else _peer(name, peer)  # `one` is ours, started with one thread
    before = held()
    given = workload.inputs()
    run = make(given)
    del given  # a peer has copied the inputs to its own tensors
    np.savez(numbers, **{name: np.asarray(x) for name, x in run().items()})  # of the first run: each training step differs
    while True:
        seconds = []
        while sum(seconds) < TURN:
            started = perf_counter()
            run()
            seconds.append(perf_counter() - started)
        print(json.dumps({"seconds": median(seconds), "memory": memory(before)}), flush=True)
        if not sys.stdin.readline():
            return


def _peer(name, peer):
    if peer == "frame":
        return on_the_frame
    if peer == "loop":
        return LOOPS[name]
    count = threads.cores()
    import torch

    from tests.benchmarks.peers import PEERS

    torch.set_num_threads(count)
    return PEERS[peer][name]


def memory(before):
    """Peak memory in bytes beyond `before`: inputs, parameters and all results.

    The pages of the libraries are left out, because PyTorch has much code that nothing here calls.
    None if the system does not report it.
    """
    status = _status()
    return status and (status["VmHWM"] - status["RssFile"] - before)


def held():
    return _status().get("RssAnon", 0)


def _status():
    """{name: bytes} that Linux reports for this process; {} on other systems."""
    try:
        with open("/proc/self/status") as file:
            fields = (line.split() for line in file)
            return {field[0].rstrip(":"): int(field[1]) * 1024 for field in fields if field[-1] == "kB"}
    except OSError:
        return {}


if __name__ == "__main__":
    main(*sys.argv[1:])
