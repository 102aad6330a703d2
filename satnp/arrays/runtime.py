"""Settings of the process that make satnp faster. `import satnp` makes none; the commands call tune() when they start."""

import ctypes
import logging
import os
from contextlib import chdir

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def tune():
    """Change how this process allocates memory and how BLAS uses threads, until the process ends.

    Call it before NumPy is imported: OpenBLAS reads its two environment variables when it is loaded, and only the
    setting of malloc has an effect later. A variable that is already set is left as it is. Results do not change.

    - malloc keeps freed memory (glibc only).
    - Idle threads of OpenBLAS sleep after 2^20 cycles (OPENBLAS_THREAD_TIMEOUT=20).
    - Each of several MPI ranks on a machine uses its share of the cores (OMP_NUM_THREADS).
    """
    keep_freed_memory()
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")  # the default, 2^26, takes a core from `threads.parallel`
    share_cores()


def keep_freed_memory():
    """Make malloc keep freed memory for the next allocation. Does nothing if the C library is not glibc.

    By default malloc returns large blocks to the system, and each page of the next large block is mapped and cleared
    again. That takes half of the time of an elementwise operation on an array of some MiB.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def share_cores():
    """Set OMP_NUM_THREADS to this rank's share of the cores, if several MPI ranks run here and it is not set yet."""
    names = "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE"
    ranks = max(int(os.environ.get(name, 1)) for name in names)
    if ranks > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))


def ignore_matplotlibrc():
    """Make Matplotlib ignore the user's settings, which figures do not take, and of which some stop its import.

    What it logs, such as a home that cannot be written to, does not reach stderr.
    """
    logging.getLogger("matplotlib").addHandler(logging.NullHandler())
    os.environ["MATPLOTLIBRC"] = os.devnull
    os.environ.pop("MPLBACKEND", None)
    if os.path.exists("matplotlibrc"):  # when it is imported, Matplotlib reads the one in the working folder first
        with chdir(os.path.dirname(__file__)):
            import matplotlib  # noqa: F401
