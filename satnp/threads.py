"""All cores at once, without NumPy's BLAS and our own threads in each other's way.

NumPy lets other threads run inside its loops and products, so parts of a batch can be computed at the same time. BLAS has
threads of its own, which would then fight for the same cores: inside `parallel` it has one in each part.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from threadpoolctl import ThreadpoolController

_here = threading.local()


def parallel(work, parts):
    """[work(part) for part in parts], on as many threads as `cores`; parts within parts go one after another."""
    parts = list(parts)
    if len(parts) < 2 or cores() == 1 or getattr(_here, "inside", False):
        return [work(part) for part in parts]
    with _blas().limit(limits=1):
        return list(_pool().map(work, parts))


def shares(size, least=1):
    """Slices that cut range(size) into equal shares, one a core, of `least` or more each."""
    count = max(1, min(cores(), size // max(1, least)))
    ends = [size * k // count for k in range(count + 1)]
    return [slice(a, b) for a, b in zip(ends, ends[1:], strict=False)]


@cache
def cores():
    """How many threads there are: as many as BLAS has, so OMP_NUM_THREADS and its like decide for both."""
    libraries = [found["num_threads"] for found in _blas().info()]
    return max(libraries) if libraries else os.cpu_count() or 1


@cache
def _blas():
    return ThreadpoolController().select(user_api="blas")


@cache
def _pool():
    return ThreadPoolExecutor(cores(), "satnp", initializer=lambda: setattr(_here, "inside", True))
