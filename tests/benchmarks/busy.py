"""Keep one core busy, as another program would. `python -m tests.benchmarks --beside K` starts K of these processes.

    python -m tests.benchmarks.busy

It adds up numbers in a loop of Python, which uses the core and its caches but no memory beyond them. Its priority is that of
the process that started it. It ends when its standard input is closed, which also happens when that process is killed, and
after LIMIT seconds at the latest.
"""

import os
import threading
from contextlib import suppress
from time import monotonic

LIMIT = 2 * 3600


def main(seconds=LIMIT):
    end = monotonic() + seconds
    threading.Thread(target=_end_with_the_input, daemon=True).start()
    while monotonic() < end:
        sum(range(10_000))


def _end_with_the_input():
    os.read(0, 1)
    os._exit(0)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
