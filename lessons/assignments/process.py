"""Run the calls of one task in a separate process, and read its results without trusting them."""

import json
import math
import os
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

import satnp
from lessons.assignments.submission import REFUSED
from satnp.terminal import sentence

HERE = Path(__file__).parent
INSTALLED = "site-packages", "dist-packages"
HIDDEN = [str(Path(satnp.__file__).parent), str(HERE.parent)]
PATIENCE = 3  # limit of wall-clock time, as a multiple of the CPU time: a submission may sleep, the machine may be busy
HEAD, BODY = 2**16, 2**25  # bytes, the limits of the two parts of an answer
LINUX = sys.platform.startswith("linux")  # it gives the CPU time of another process


class Ran(NamedTuple):
    results: list   # {name: array} for each call
    errors: dict    # {call: {type, message, where}}
    ended: str      # how the process ended, or "" if it answered all calls
    confined: str   # from confine.confine, or None if the process ended before it
    stepped: set    # calls in which watch.Watch found changed inputs


class Worker:
    """Context manager: a process that makes calls on request. `folder` is a new folder, `package` the submission's package.

    `seconds` of CPU time are for all calls together; `later` are for calls that have their own limit.
    """

    def __init__(self, folder, package, calls, seconds, memory, later=0):
        self.made_of = package, calls, seconds, memory, later
        folder.mkdir(parents=True)
        for name in "worker.py", "confine.py", "calls.py", "watch.py":
            shutil.copy(HERE / name, folder / name)
        shutil.copytree(package, folder / "submission")
        readable, listable, libraries = readables()
        job = {
            "calls": calls, "submission": str(folder / "submission"), "hidden": [*HIDDEN, str(_top(folder))],
            "readable": [*readable, str(folder)], "listable": listable, "libraries": libraries, "refused": REFUSED,
            "seconds": seconds + later, "memory": memory,
        }  # fmt: skip
        (folder / "job.json").write_text(json.dumps(job))
        threads = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL")}
        self.child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(folder / "worker.py"), str(folder / "job.json")],
            cwd=folder, env={"PATH": "/usr/bin:/bin"} | threads, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.folder, self.seconds, self.got = folder, seconds, bytearray()
        self.until, self.last = seconds, time.monotonic() + PATIENCE * seconds
        self.ended, self.late, self.confined = "", False, None  # late: a limit of time ended it
        self.results, self.errors, self.stepped = [{} for _ in calls], {}, set()

    def ask(self, k, arrays, seconds=None):
        """Make call k -> its CPU time in seconds, or None if the process ended. `seconds` is a limit for this call alone."""
        if self.confined is None and not self.ended:  # the first message, sent before the submission is imported
            if hello := self._answer():
                self.confined = _plain(hello[0]["confined"])
        if not self.ended and (self.got or select.select([self.child.stdout], [], [], 0)[0]):
            more = self.got or os.read(self.child.stdout.fileno(), 1)
            self._end("wrote more than the answer to a call" if more else None)
        if self.ended:
            return None
        _signal(self.child.pid, signal.SIGCONT)
        start = self._clock()
        if seconds is not None:
            self.seconds, self.until, self.last = seconds, start + seconds, time.monotonic() + PATIENCE * seconds
        np.savez(self.folder / f"{k}.npz", **arrays)
        with suppress(OSError):
            self.child.stdin.write(b"%d\n" % k)
            self.child.stdin.flush()
        answer = self._answer()
        if answer is None:
            return None
        _signal(self.child.pid, signal.SIGSTOP)  # between calls it cannot work, nor slow down another process
        taken, (head, self.results[k]) = self._clock() - start, answer
        if error := head.get("error"):
            self.errors[k] = error
        if head.get("stepped"):
            self.stepped.add(k)
        return taken

    def ran(self):
        """What the calls gave until now."""
        return Ran([*self.results], {**self.errors}, self.ended, self.confined, {*self.stepped})

    def again(self):
        """A new process for the same calls."""
        return Worker(self.folder.with_name(f"{self.folder.name}-again"), *self.made_of)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._end("was ended")

    def _answer(self):
        """One answer -> its head, {name: array}; None if the process ended before it, or wrote something else."""
        try:
            head = json.loads(self._take(None))
            body = self._take(sum(_bytes(*x) for _, *x in head["arrays"]))
            error = head.get("error")
            head["error"] = error and {n: _plain(error[n]) for n in ("type", "message", "where")}
            return head, _arrays(head["arrays"], body)
        except Exception:  # the answer is not trusted: it may raise any error
            self._end("wrote an answer that cannot be read")
            return None

    def _take(self, size):
        """The next `size` bytes, or a line. Raises ValueError if they are too many or do not come."""
        if size is not None and size > BODY:
            self._end(f"returned more than {BODY // 2**20} MiB")
            raise ValueError
        while len(self.got) < size if size is not None else b"\n" not in self.got:
            if size is None and len(self.got) > HEAD:
                raise ValueError
            if LINUX and self.until < self._clock():
                self._end(f"was ended after {self.seconds:g} s of CPU time", late=True)
            elif self.last < time.monotonic():
                self._end(f"was ended after {PATIENCE * self.seconds:g} s", late=True)
            elif select.select([self.child.stdout], [], [], 0.05)[0]:
                more = os.read(self.child.stdout.fileno(), 2**20)
                if not more:
                    self._end()
                self.got += more
            if self.ended:
                raise ValueError
        size = self.got.index(b"\n") + 1 if size is None else size
        taken = bytes(self.got[:size])
        del self.got[:size]
        return taken

    def _end(self, ended=None, late=False):
        """Kill the process and its group. `ended` says why; without it the process closed its pipe and says so itself."""
        if self.ended:
            return
        with suppress(OSError):
            self.child.stdin.close()
        last = time.monotonic() + (0 if ended else 1)
        while not (done := os.wait4(self.child.pid, os.WNOHANG))[0]:
            if last < time.monotonic():
                ended = ended or "closed the pipe of its answers"
                _signal(self.child.pid, signal.SIGKILL)
            time.sleep(0.002)
        _signal(self.child.pid, signal.SIGKILL)
        self.child.stdout.close()
        _, status, usage = done
        code = self.child.returncode = os.waitstatus_to_exitcode(status)
        used_up = code == -signal.SIGKILL and usage.ru_utime + usage.ru_stime >= self.seconds
        self.late = late or not ended and (code == -signal.SIGXCPU or used_up)
        if ended:
            self.ended = ended
        elif self.late:
            self.ended = f"was ended after {self.seconds:g} s of CPU time"
        elif code < 0:
            self.ended = f"was ended by {signal.Signals(-code).name}"
        else:
            self.ended = f"ended itself with exit status {code}"

    def _clock(self):
        """The CPU time of the process in seconds; wall-clock time if the system does not give that of another process."""
        return time.clock_gettime((~self.child.pid << 3) | 2) if LINUX else time.monotonic()


def _top(folder):
    """The folder of the grader that holds `folder`, and other submissions and model solutions."""
    return next((x for x in folder.parents if x.parent == Path(tempfile.gettempdir()).resolve()), folder)


def _signal(group, which):
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, which)


@cache
def readables():
    """Paths that Python and NumPy need to read, folders that they need to list, and the folder of NumPy."""
    library, standard = Path(np.__file__).parents[1], [sysconfig.get_path(x) for x in ("stdlib", "platstdlib")]
    roots = [*standard, f"{sys.base_prefix}/lib", "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo"]
    files = [library / "numpy", library / "numpy.libs", "/etc/ld.so.cache", "/dev/null", "/dev/urandom"]
    found = [x for root in {Path(x).resolve() for x in roots} for x in _without_packages(root)]
    return [str(x) for x in (*found, *files)], [*standard, str(library)], str(library)


def _without_packages(root):
    """[root], or, if it contains installed Python packages, the paths below it that are not such packages."""
    if not root.is_dir():
        return [root] if root.exists() else []
    if not any(x.name in INSTALLED for depth in ("*", "*/*") for x in root.glob(depth)):
        return [root]
    return [y for x in root.iterdir() if x.name not in INSTALLED for y in _without_packages(x)]


def _plain(text):
    return sentence(str(text))


def _bytes(dtype, shape):
    """The bytes of an array. Raises ValueError for a dtype that is not of numbers."""
    if np.dtype(dtype).kind not in "biufc" or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError
    return np.dtype(dtype).itemsize * math.prod(shape)


def _arrays(about, body):
    """{name: array} of the arrays with [name, dtype, shape], whose numbers are in `body` one after the other."""
    found, at = {}, 0
    for name, dtype, shape in about:
        found[name] = np.ndarray(shape, dtype, body, at)
        at += _bytes(dtype, shape)
    return found
