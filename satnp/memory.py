"""Keep freed memory for the next array.

glibc gives a large block back to the system as soon as it is freed, so each page of the next one is faulted in and zeroed
anew: half the time of an elementwise operation on an array of some MiB.
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory():
    """Let malloc keep what is freed; nothing happens where the C library is another one."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
