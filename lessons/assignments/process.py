"""Run the calls of one task in a separate process, and read its results without trusting them."""

import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import time
import zipfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

import satnp
from lessons.assignments.submission import REFUSED

HERE = Path(__file__).parent
INSTALLED = "site-packages", "dist-packages"
HIDDEN = [str(Path(satnp.__file__).parent), str(HERE.parent)]
PATIENCE = 3  # limit of wall-clock time, as a multiple of the CPU time: a submission may sleep, the machine may be busy
FILE_SIZE = 32 * 2**20  # bytes, the limit of one file of results


class Ran(NamedTuple):
    results: list   # {name: array} for each call
    errors: dict    # {call: {type, message, where}}
    ended: str      # how the process ended, or "" if it made all calls
    confined: str   # from confine.confine, or None if the process ended before it


def run(folder, package, calls, arrays, seconds, memory):
    """Make `calls`, each with its dict of `arrays`, in a separate process -> Ran"""
    worker = Worker(folder, package, calls, seconds, memory)
    for k, some in enumerate(arrays):
        worker.ask(k, some)
    return worker.end()


class Worker:
    """A process that makes calls on request. `folder` is a new folder of the grader, `package` the submission's package."""

    def __init__(self, folder, package, calls, seconds, memory):
        self.folder, self.calls, self.seconds, self.over = folder, calls, seconds, False
        (folder / "out").mkdir(parents=True)
        for name in "log.json", *(f"{k}.npz" for k in range(len(calls))):
            (folder / "out" / name).touch()
        for name in "worker.py", "confine.py", "calls.py":
            shutil.copy(HERE / name, folder / name)
        shutil.copytree(package, folder / "submission")
        readable, listable, libraries = readables()
        job = {
            "calls": calls, "submission": str(folder / "submission"), "out": str(folder / "out"), "hidden": HIDDEN,
            "readable": [*readable, str(folder)], "listable": listable, "libraries": libraries, "refused": REFUSED,
            "seconds": seconds, "memory": memory, "file_size": FILE_SIZE,
        }  # fmt: skip
        (folder / "job.json").write_text(json.dumps(job))
        threads = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL")}
        self.child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(folder / "worker.py"), str(folder / "job.json")],
            cwd=folder / "out", env={"PATH": "/usr/bin:/bin"} | threads, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.last = time.monotonic() + PATIENCE * seconds

    def ask(self, k, arrays):
        """Make call k -> its CPU time in seconds, or None if the process ended"""
        if self.over:
            return None
        np.savez(self.folder / f"{k}.npz", **arrays)
        start, self.over = self._clock(), True
        with suppress(OSError):
            self.child.stdin.write(b"%d\n" % k)
            self.child.stdin.flush()
        said = b""
        while b"%d\n" % k not in said:
            left = max(0, self.last - time.monotonic())
            if not select.select([self.child.stdout], [], [], left)[0]:
                return None
            more = os.read(self.child.stdout.fileno(), 4096)
            if not more:
                return None
            said = (said + more)[-100:]
        self.over = False
        return self._clock() - start

    def end(self):
        """Wait for the process to end, or kill it; kill its process group -> Ran"""
        with suppress(OSError):
            self.child.stdin.close()
        late = False
        while not (done := os.wait4(self.child.pid, os.WNOHANG))[0]:
            if time.monotonic() > self.last:
                late = True
                _kill(self.child.pid)
            time.sleep(0.002)
        _kill(self.child.pid)
        self.child.stdout.close()
        _, status, usage = done
        code = self.child.returncode = os.waitstatus_to_exitcode(status)
        log = _log(self.folder / "out" / "log.json")
        used_up = code == -signal.SIGKILL and usage.ru_utime + usage.ru_stime >= self.seconds
        if late:
            ended = f"was ended after {PATIENCE * self.seconds} s"
        elif code == -signal.SIGXCPU or used_up:
            ended = f"was ended after {self.seconds} s of CPU time"
        elif code < 0:
            ended = f"was ended by {signal.Signals(-code).name}"
        else:
            ended = "" if log.get("done") else f"ended itself with exit status {code}"
        errors = {int(k): x for k, x in log.get("errors", {}).items()}
        results = [read_arrays(self.folder / "out" / f"{k}.npz") for k in range(len(self.calls))]
        return Ran(results, errors, ended, log.get("confined"))

    def _clock(self):
        """The CPU time of the process in seconds; wall-clock time if the system does not give that of another process."""
        try:
            return time.clock_gettime((~self.child.pid << 3) | 2)
        except (OSError, AttributeError):
            return time.monotonic()


def _kill(group):
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


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


def _open(path):
    """Open a regular file of at most FILE_SIZE bytes; None for any other."""
    try:
        about = path.lstat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > FILE_SIZE:
            return None
        return open(path, "rb")
    except OSError:
        return None


def _log(path):
    file = _open(path)
    if file is None:
        return {}
    with file:
        try:
            log = json.loads(file.read(2**20))
            errors = {str(int(k)): {n: _plain(x[n]) for n in ("type", "message", "where")} for k, x in log["errors"].items()}
            return {"confined": _plain(log["confined"]), "errors": errors, "done": log.get("done") is True}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return {}


def _plain(text):
    """At most 300 printable characters."""
    return "".join(c if c.isprintable() else " " for c in str(text))[:300]


def read_arrays(path):
    """{name: array} of an .npz file; arrays whose headers are false are left out."""
    file = _open(path)
    found = {}
    if file is None:
        return found
    with file:
        try:
            with zipfile.ZipFile(file) as archive:
                if sum(x.file_size for x in archive.infolist()) > FILE_SIZE:
                    return found
                for member in archive.infolist():
                    with archive.open(member) as opened:
                        array = _array(opened, member.file_size)
                    if array is not None:
                        found[member.filename.removesuffix(".npy")] = array
        except Exception:  # the file is not trusted: any error only means fewer results
            return found
    return found


def _array(file, size):
    if np.lib.format.read_magic(file) != (1, 0):
        return None
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    nbytes = dtype.itemsize * int(np.prod(shape, dtype=object)) if shape else dtype.itemsize
    if dtype.kind not in "biufc" or not 0 <= nbytes <= size:
        return None
    data = file.read(nbytes)
    if len(data) != nbytes:
        return None
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
