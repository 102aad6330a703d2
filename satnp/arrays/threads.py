"""All cores at once, without NumPy's BLAS and our own threads in each other's way.

NumPy lets other threads run inside its loops and products, so parts of a batch can be computed at the same time. BLAS has
threads of its own, which would then fight for the same cores: inside `parallel` it has one in each part.
"""

import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice

from threadpoolctl import ThreadpoolController

_here = threading.local()


def parallel(work, parts):
    """[work(part) for part in parts], on as many threads as `cores`; parts within parts go one after another."""
    parts = list(parts)
    if len(parts) < 2 or on_one_core():
        return [work(part) for part in parts]
    mine, *theirs = (parts[share] for share in shares(len(parts)))
    with _blas().limit(limits=1):
        others = [_pool().submit(lambda share: [work(part) for part in share], share) for share in theirs]
        _here.inside = True  # this thread works too: the fewer are woken, the better
        try:
            done = [work(part) for part in mine]
        finally:
            _here.inside = False
            for other in others:
                other.exception()  # nobody goes on before all have ended
        return done + [result for other in others for result in other.result()]


def ahead(work, parts):
    """Yield work(part) of each part, in order, computed on all cores; a few more than were asked for are under way."""
    parts = iter(parts)
    with _blas().limit(limits=1), ThreadPoolExecutor(cores(), "satnp", initializer=_enter) as pool:

        def begin(count):
            return [pool.submit(work, part) for part in islice(parts, count)]

        coming = deque(begin(2 * cores()))
        try:
            while coming:
                result = coming.popleft().result()
                coming.extend(begin(1))
                yield result
        finally:
            pool.shutdown(cancel_futures=True)


def shares(size, least=1):
    """Slices that cut range(size) into equal shares, one a core, of `least` or more each."""
    count = max(1, min(cores(), size // max(1, least)))
    ends = [size * k // count for k in range(count + 1)]
    return [slice(a, b) for a, b in zip(ends, ends[1:], strict=False)]


def on_one_core():
    """Is this thread to use no other core: inside `parallel` and `ahead`, or where there is none?"""
    return cores() == 1 or getattr(_here, "inside", False)


@cache
def cores():
    """How many threads there are: as many as BLAS has, so OMP_NUM_THREADS and its like decide for both."""
    libraries = [found["num_threads"] for found in _blas().info()]
    return max(libraries) if libraries else os.cpu_count() or 1


@cache
def small_kernels():
    """Has BLAS kernels that multiply small matrices as they lie? OpenBLAS has, for processors with AVX-512."""
    found = {library.get("architecture") for library in _blas().info() if library["internal_api"] == "openblas"}
    return bool(found & {"SkylakeX", "Cooperlake", "SapphireRapids"})


@cache
def _blas():
    return ThreadpoolController().select(user_api="blas")


@cache
def _pool():
    return ThreadPoolExecutor(cores() - 1, "satnp", initializer=_enter)


def _enter():
    _here.inside = True
