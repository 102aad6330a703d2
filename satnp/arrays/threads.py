"""Run work on all cores, without competition between the threads of BLAS and the threads of satnp.

NumPy releases the GIL in its loops and products, so threads can compute the parts of a batch at the same time. BLAS starts
threads too, which would compete for the same cores: inside `parallel` and `ahead` BLAS uses one thread per call.
"""

import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import islice

from threadpoolctl import ThreadpoolController

_here = threading.local()
_lock = threading.RLock()  # for the number of BLAS threads; reentrant, as the garbage collector may close an `ahead`
_entered, _limit = 0, None  # how many have entered `one_blas_thread`, and the limit that the first of them has set


def parallel(work, parts):
    """[work(part) for part in parts], on `cores()` threads. A nested call runs its parts one after another."""
    parts = list(parts)
    if len(parts) < 2 or on_one_core():
        return [work(part) for part in parts]
    mine, *theirs = (parts[share] for share in shares(len(parts)))
    with one_blas_thread():
        others = [_pool().submit(lambda share: [work(part) for part in share], share) for share in theirs]
        _here.inside = True  # this thread works too, because waking a thread takes time
        try:
            done = [work(part) for part in mine]
        finally:
            _here.inside = False
            for other in others:
                other.exception()  # wait for all threads, even if this one raised
        return done + [result for other in others for result in other.result()]


def ahead(work, parts):
    """Yield work(part) for each part, in order, computed on all cores. Up to 2 * cores() parts are computed in advance."""
    parts = iter(parts)
    with one_blas_thread(), ThreadPoolExecutor(cores(), "satnp", initializer=_enter) as pool:

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
    """Return slices that cut range(size) into equal shares, at most one per core, of `least` or more items each."""
    count = max(1, min(cores(), size // max(1, least)))
    ends = [size * k // count for k in range(count + 1)]
    return [slice(a, b) for a, b in zip(ends, ends[1:], strict=False)]


@contextmanager
def one_blas_thread():
    """Context manager: BLAS uses one thread per call, until the last of the threads that entered has left."""
    global _entered, _limit
    with _lock:
        if not _entered:
            _cores()  # before the number of BLAS threads changes
            _limit = _blas().limit(limits=1)
        _entered += 1
    try:
        yield
    finally:
        with _lock:
            _entered -= 1
            if not _entered:
                _limit.restore_original_limits()


def on_one_core():
    """Return whether this thread must use one core only: inside `parallel` and `ahead`, or if there is no other."""
    return getattr(_here, "inside", False) or cores() == 1


def cores():
    """Return the number of threads. It equals the number of BLAS threads, so that OMP_NUM_THREADS sets both."""
    with _lock:
        return _cores()


@cache
def _cores():
    libraries = [found["num_threads"] for found in _blas().info()]
    return max(libraries) if libraries else os.cpu_count() or 1


@cache
def small_kernels():
    """Return whether BLAS has kernels that multiply small matrices without packing: OpenBLAS on AVX-512 processors."""
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
