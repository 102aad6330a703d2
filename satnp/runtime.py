"""Settings of this process that NumPy runs faster with, made before it is loaded."""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory():
    """Let malloc keep what is freed; nothing happens where the C library is another one than glibc.

    It would give large blocks back to the system, so that each page of the next one is faulted in and zeroed anew: half
    the time of an elementwise operation on an array of some MiB.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def let_blas_rest():
    """Idle threads of OpenBLAS wait actively for 2^20 cycles, not 2^26: they would take a core from `threads.parallel`."""
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")


def share_cores():
    """Of several MPI ranks on a machine each has its share of the cores, unless OMP_NUM_THREADS says how many."""
    names = "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE"
    ranks = max(int(os.environ.get(name, 1)) for name in names)
    if ranks > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
