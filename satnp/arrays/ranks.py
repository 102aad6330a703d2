"""Several processes at one job, under MPI; nothing else in satnp knows mpi4py.

All ranks run the same program on the same random numbers: each draws a whole minibatch and takes its slice of it, and one
Allreduce of the flat gradient makes them alike again. So one rank and many give the same run within rounding, and a
checkpoint does not say how many there were. Rank 0 alone writes, into folders that all of them can read.
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

PATIENCE = 2  # seconds in which rank 0 ends the job for an error that all ranks have
SAID = (0, 1, 2, 130, 141)  # statuses of a rank that has said why it ended


class Ranks:
    """One rank, which is alone."""

    rank, size = 0, 1
    place = 0  # among the ranks on this machine

    def share(self, count):
        """This rank's part of `count` rows -> slice, how many; where there is none for it, a row that counts for none."""
        start, stop = (count * k // self.size for k in (self.rank, self.rank + 1))
        return slice(start, stop) if start < stop else slice(0, 1), stop - start

    def sum(self, x):
        """Each number of x (P,) becomes its sum over the ranks."""

    def any(self, flag):
        """Is it so on one of the ranks?"""
        found = np.array([bool(flag)], np.float32)
        self.sum(found)
        return bool(found[0])

    def once(self, work):
        """What work() gives, done by rank 0; the others wait for it."""
        return work()

    def gather(self, value):
        """The value of each rank, in their order, on rank 0; none on the others."""
        return [value]

    def lock(self, path, wait=False):
        """files.lock, for who writes."""
        return nullcontext() if self.rank else lock(path, wait)

    def sum_on(self, xp):
        """From now on the sums are of arrays of `xp`."""

    @contextmanager
    def ending(self):
        """Leave the job together at the end in here; an error that all ranks have is rank 0's to say."""
        yield

    def expect(self, size):
        """Raises InputError where there are not so many ranks."""
        if size != self.size:
            raise InputError(
                f"--ranks {size} was asked for, but mpiexec and mpi4py make it {self.size}; under mpiexec leave out "
                "--ranks, else let mpiexec be that of mpi4py's MPI"
            )


ALONE = Ranks()


class Mpi(Ranks):
    """A rank among those that mpiexec started."""

    def __init__(self):
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise InputError(f'mpiexec started this, but {error}; pip install "satnp[mpi]"') from None
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
        """NCCL sums where each rank has a GPU of its own; it refuses two on one, so these sum on the host."""
        own = False
        if xp is not np:
            from cupy.cuda import nccl

            own = nccl.available and self.here.size <= xp.cuda.runtime.getDeviceCount()
        if self.comm.allreduce(own, self.MPI.LAND):  # asked of all, or those without a GPU would be waited for
            from cupyx.distributed import init_process_group

            self.nccl = init_process_group(self.size, self.rank, use_mpi=True)

    @contextmanager
    def ending(self):
        try:
            yield
        except BaseException:  # mpi4py ends the job with the first rank that leaves by one
            if self.rank:
                sleep(PATIENCE)
            raise
        self.MPI.Finalize()


def inside():
    """Is this process one of a job's, started by mpiexec or as python -m mpi4py?"""
    sizes = (os.environ.get(name, "1") for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE"))
    return "mpi4py" in sys.modules or any(size != "1" for size in sizes)


def world():
    """The Ranks of this process, of which all but rank 0 are mute."""
    if not inside():
        return ALONE
    ranks = Mpi()
    if ranks.rank:
        os.environ["TQDM_DISABLE"] = "1"
        sys.stdout = open(os.devnull, "w")
    return ranks


def command(count, arguments):
    """The command line that runs Python with `arguments` on `count` ranks of this machine."""
    places = [sysconfig.get_path("scripts"), *os.get_exec_path()]
    mpiexec = which("mpiexec", path=os.pathsep.join(places))
    for name, found in (("mpi4py", find_spec("mpi4py")), ("mpiexec", mpiexec)):
        if found is None:
            raise InputError(f'--ranks {count} needs {name}, which is not installed; pip install "satnp[mpi]"')
    return [mpiexec, "-n", str(count), sys.executable, "-m", "mpi4py", *map(str, arguments)]


def start(count, arguments):
    """Run satnp with `arguments` on `count` ranks -> its exit status"""
    line = command(count, ["-m", "satnp", *arguments])
    # a session of its own, or Ctrl-C would reach mpiexec twice: from the terminal and from here
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
        print(
            f"satnp: a rank was lost, and the job ended with it (status {status}); what is written is whole: "
            "run the same again, with --resume if it is a training", file=sys.stderr,
        )  # fmt: skip
    return status
