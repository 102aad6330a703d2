"""One side of a comparison in a process of its own: does the work, then for TURN seconds more for each line it reads.

    python -m tests.benchmarks.worker NAME ours|eager|compile|port NUMBERS [SIZES]

The first time warms up (torch.compile compiles) and writes what came out to NUMBERS, an .npz. Each JSON line it prints
is {"seconds", "memory"}; SIZES, in JSON, replace those of the workload.
"""

import json
import sys
from statistics import median
from time import perf_counter

import numpy as np

from satnp.arrays import threads
from tests.benchmarks.workloads import WORKLOADS

TURN = 1  # seconds at least: what is short is done again and again, and its median told; threads wake slowly after a pause


def main(name, peer, numbers, sizes="{}"):
    workload = WORKLOADS[name](**json.loads(sizes))
    make = workload.ours if peer == "ours" else _peer(name, peer)
    before = held()
    given = workload.inputs()
    run = make(given)
    del given  # a peer has its own tensors of it
    np.savez(numbers, **{name: np.asarray(x) for name, x in run().items()})  # a training step's next are others
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
    count = threads.cores()
    import torch

    from tests.benchmarks.peers import PEERS

    torch.set_num_threads(count)
    return PEERS[peer][name]


def memory(before):
    """The most bytes held at once beyond `before`: inputs, parameters, all that was computed.

    The pages of the libraries themselves are left out, or PyTorch would pay for code of its own that nothing here calls.
    None where the system does not say.
    """
    status = _status()
    return status and (status["VmHWM"] - status["RssFile"] - before)


def held():
    return _status().get("RssAnon", 0)


def _status():
    """What Linux says of this process, {name: bytes}; {} elsewhere."""
    try:
        with open("/proc/self/status") as file:
            fields = (line.split() for line in file)
            return {field[0].rstrip(":"): int(field[1]) * 1024 for field in fields if field[-1] == "kB"}
    except OSError:
        return {}


if __name__ == "__main__":
    main(*sys.argv[1:])
