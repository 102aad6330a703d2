"""Data parallelism over several processes with MPI. No other module imports mpi4py.

All ranks run the same program with the same random numbers. Each rank draws the whole minibatch and computes the gradient of
its slice; one Allreduce sums the flat gradient, so that all ranks make the same update. The result does not depend on the
number of ranks, except for rounding, and a checkpoint does not store this number. Only rank 0 writes files, to folders that
all ranks can read.
"""

import os
import signal
import subprocess
import sys
import sysconfig
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from itertools import chain
from shutil import which
from time import sleep

import numpy as np

from satnp.arrays.backend import to_device, to_host, xp_of
from satnp.errors import InputError
from satnp.files import lock
from satnp.terminal import complain

PATIENCE = 2  # seconds that the other ranks wait, so that rank 0 reports an error of all ranks and ends the job
SAID = (0, 1, 2, 130, 141)  # exit statuses of a rank that has printed why it ended


class Ranks:
    """A job of one rank, without MPI."""

    rank, size = 0, 1
    place = 0  # number of this rank among the ranks on this machine

    def share(self, count):
        """Return this rank's slice of `count` rows and its number of rows; for no rows, the slice of the first row and 0."""
        start, stop = (count * k // self.size for k in (self.rank, self.rank + 1))
        return slice(start, stop) if start < stop else slice(0, 1), stop - start

    def sum(self, x):
        """Sum x (P,) over the ranks, in place."""

    def any(self, flag):
        """Return whether `flag` is true on at least one rank."""
        found = np.array([bool(flag)], np.float32)
        self.sum(found)
        return bool(found[0])

    def once(self, work):
        """Call work() on rank 0 only, and return its result on all ranks."""
        return work()

    def gather(self, value):
        """Return the values of all ranks, in order of rank, on rank 0; an empty sequence on the others."""
        return [value]

    def lock(self, path, wait=False):
        """files.lock on rank 0, which writes; no lock on the others."""
        return nullcontext() if self.rank else lock(path, wait)

    def sum_on(self, xp):
        """Prepare `sum` for arrays of `xp`."""

    @contextmanager
    def ending(self):
        """All ranks leave the job together when this block ends. Rank 0 reports an error that all ranks raise."""
        yield

    def expect(self, size):
        """Raise InputError if the number of ranks is not `size`."""
        if size != self.size:
            raise InputError(
                f"--ranks {size} was asked for, but mpiexec and mpi4py started {self.size}; under mpiexec leave out "
                "--ranks, otherwise use the mpiexec of the MPI that mpi4py was built for"
            )


ALONE = Ranks()


class Mpi(Ranks):
    """One of the ranks that mpiexec started."""

    def __init__(self):
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise InputError(f'mpiexec started this process, but {error}; pip install "satnp[mpi]"') from None
        self.MPI, self.comm, self.nccl = MPI, MPI.COMM_WORLD, None
        self.rank, self.size = self.comm.rank, self.comm.size
        self.here = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.place = self.here.rank

    def sum(self, x):
        xp = xp_of(x)
        if xp is not np and self.nccl:
            self.nccl.all_reduce(x, x)
            return
        host = to_host(x)
        self.comm.Allreduce(self.MPI.IN_PLACE, host)
        if xp is not np:
            x[...] = to_device(host, xp)

    def once(self, work):
        return self.comm.bcast(None if self.rank else work())

    def gather(self, value):
        if self.rank:
            self.comm.send(value, 0)
            return ()
        return chain([value], (self.comm.recv(source=rank) for rank in range(1, self.size)))

    def sum_on(self, xp):
        """Use NCCL if each rank has a GPU to itself. NCCL refuses two ranks on one GPU; such ranks sum on the host."""
        own = False
        if xp is not np:
            from cupy.cuda import nccl

            own = nccl.available and self.here.size <= xp.cuda.runtime.getDeviceCount()
        if self.comm.allreduce(own, self.MPI.LAND):  # all ranks must agree: init_process_group waits for all of them
            from cupyx.distributed import init_process_group

            self.nccl = init_process_group(self.size, self.rank, use_mpi=True)

    @contextmanager
    def ending(self):
        try:
            yield
        except BaseException:  # mpi4py ends the job when the first rank exits with an exception
            if self.rank:
                sleep(PATIENCE)
            raise
        self.MPI.Finalize()


def inside():
    """Return whether this process was started by mpiexec or as python -m mpi4py."""
    sizes = (os.environ.get(name, "1") for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE"))
    return "mpi4py" in sys.modules or any(size != "1" for size in sizes)


def world():
    """Return the Ranks of this process. All ranks but rank 0 print nothing from now on."""
    if not inside():
        return ALONE
    ranks = Mpi()
    if ranks.rank:
        os.environ["TQDM_DISABLE"] = "1"
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    return ranks


def command(count, arguments):
    """Return the command line that runs Python with `arguments` on `count` ranks of this machine."""
    places = [sysconfig.get_path("scripts"), *os.get_exec_path()]
    mpiexec = which("mpiexec", path=os.pathsep.join(places))
    for name, found in (("mpi4py", find_spec("mpi4py")), ("mpiexec", mpiexec)):
        if found is None:
            raise InputError(f'--ranks {count} needs {name}, which is not installed; pip install "satnp[mpi]"')
    return [mpiexec, "-n", str(count), sys.executable, "-m", "mpi4py", *map(str, arguments)]


def start(count, arguments):
    """Run satnp with `arguments` on `count` ranks -> its exit status"""
    line = command(count, ["-m", "satnp", *arguments])
    # in a new session, because otherwise Ctrl-C reaches mpiexec twice: from the terminal and from this process
    job = subprocess.Popen(
        line, stdin=subprocess.DEVNULL, env=os.environ | {"PYTHONUNBUFFERED": "1"}, start_new_session=True
    )  # fmt: skip
    before = {n: signal.signal(n, lambda n, _: job.send_signal(n)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = job.wait()
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
    if status not in SAID:
        complain(
            f"a rank was lost, and the job ended with it (status {status}); the files written so far are "
            "complete: run the same command again, with --resume if it is a training"
        )
    return status
