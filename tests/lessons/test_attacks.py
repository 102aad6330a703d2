"""What a dishonest submission tries, and what comes of it. Each attack is a few lines in the forward of A2's cell."""

import csv
import json
import os
import platform
import re
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lessons.assignments import confine, cut, grade, marks, numerical, process
from lessons.assignments.__main__ import main
from lessons.assignments.cut import write
from lessons.assignments.declare import HIDDEN
from tests.lessons.test_assignments import A2, CELL, FAST, NAIVE, SHORT, assignment, hand_in, mark, said, zipped

SECCOMP = sys.platform.startswith("linux") and platform.machine() in confine.MACHINES
needs_seccomp = pytest.mark.skipif(not SECCOMP, reason="the list of system calls is for Linux on x86_64 and aarch64")


def attempt(folder, code, wanted=CELL):
    """Run `code`, which appends what it found to `found`; the submission raises that -> the report, all its sentences."""
    lines = ["import ctypes, os, sys, threading", "libc, found = ctypes.CDLL(None, use_errno=True), []", *code.splitlines(),
             "raise OSError('found ' + ' '.join(map(str, found)) + '.')"]  # fmt: skip
    marked = mark(hand_in(folder, cell="\n".join(lines)), wanted)
    assert marked.points == 0
    return marked, said(marked)


# ---- system calls


COLUMN = confine.MACHINES.get(platform.machine(), (0, 0))[1]
NAMED = {  # numbers on x86_64 and aarch64; None: it has no such call
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_setup": (206, 0), "socket": (41, 198),
    "socketpair": (53, 199), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None),
    "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "setxattrat": (463, 463), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None), "clone3": (435, 435),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "mount_setattr": (442, 442), "bpf": (321, 280), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "userfaultfd": (323, 282), "perf_event_open": (298, 241),
    "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "kill": (62, 129), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "prctl": (157, 167), "seccomp": (317, 277),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "open_by_handle_at": (304, 265), "openat2": (437, 437), "creat": (85, None), "linkat": (265, 37), "symlinkat": (266, 36),
    "unlinkat": (263, 35), "renameat2": (316, 276), "mkdirat": (258, 34), "mknodat": (259, 33), "truncate": (76, 45),
    "ftruncate": (77, 46), "fallocate": (285, 47), "copy_file_range": (326, 285), "inotify_init1": (294, 26),
    "fanotify_init": (300, 262), "chroot": (161, 51), "pivot_root": (155, 41), "setuid": (105, 146), "capset": (126, 91),
    "setsid": (112, 157), "setpgid": (109, 154), "flock": (73, 32), "timer_create": (222, 107), "personality": (135, 92),
    "process_madvise": (440, 440), "landlock_restrict_self": (446, 446),
}  # fmt: skip


def numbers(calls):
    return confine._numbers(calls, COLUMN)


@needs_seccomp
def test_every_call_that_is_not_in_the_list_is_refused(tmp_path):
    """All numbers up to 600 and those of x32: an error that says so, no signal."""
    kept = {*numbers(confine.ALLOWED), *(n for call in confine.FILTERED for n in numbers(call))}
    probes = {335, 336} if platform.machine() == "x86_64" else set()  # of uprobes: they end a process that calls them
    assert kept.isdisjoint(pair[COLUMN] for pair in NAMED.values())
    assert len(kept) < 80
    marked, told = attempt(tmp_path, (
        f"for number in {{*range(600), *range(2**30, 2**30 + 600)}} - {kept | probes}:\n"
        "    done = libc.syscall(number, 0, 0, 0, 0, 0, 0)\n"
        "    if done != -1 or ctypes.get_errno() not in (1, 38):\n"
        "        found.append(number)"
    ))  # fmt: skip
    assert "seccomp" in marked.confined and "found ." in told, told


@pytest.mark.skipif(not os.path.exists("/usr/include/asm-generic/unistd.h"), reason="the headers of the kernel are not here")
def test_the_numbers_of_the_list_are_those_of_the_headers():
    def header(path):
        with open(path) as file:
            return {n: int(x) for n, x in re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)\n", file.read())}

    generic = header("/usr/include/asm-generic/unistd.h")
    generic |= {"newfstatat": generic.get("fstatat", generic.get("newfstatat"))}
    here = {"aarch64": generic}
    for path in "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h":
        if os.path.exists(path):
            here["x86_64"] = header(path)
    for machine, known in here.items():
        column = confine.MACHINES[machine][1]
        calls = [x.split() for x in [*confine.ALLOWED.split(","), *confine.FILTERED]]
        calls += [(name, *pair) for name, pair in NAMED.items()]
        for name, *pair in calls:
            if pair[column] not in ("-", None) and name in known:
                assert known[name] == int(pair[column]), (machine, name)


@needs_seccomp
def test_calls_with_the_wrong_arguments_are_refused(tmp_path):
    """Signals to the grader, its limits, signals by way of a file's owner, typing into a terminal, processes, writing."""
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    n = {name: numbers(f"{name} {pair}")[0] for name, pair in (x.split(" ", 1) for x in confine.FILTERED)
         if numbers(f"{name} {pair}")}  # fmt: skip
    calls = [
        (n["tgkill"], "parent", "parent", 0), (n["tkill"], "parent", 0), (n["prlimit64"], "parent", 0, "limit", 0),
        *((n["fcntl"], 0, command, "parent") for command in (4, 5, 6, 7, 8, 10, 15, 37, 38, 1024, 1026, 1031, 1033)),
        *((n["ioctl"], 0, command, "zero") for command in (0x5402, 0x5412, 0x5421, 0x5452, 0x8901, 0x8902, 0x40086602)),
        *((n["clone"], flags, 0, 0, 0, 0) for flags in (17, 0, 0x4100 | 17, 0x10000000 | 17, 0x3D0F00 | 0x20000, 0x10000)),
        *((n["openat"], -100, "path", flags, 0o600) for flags in (1, 2, 3, 0o100, 0o1000, 0o20200000 | 2, 0o2001)),
    ]  # fmt: skip
    code = (
        "names = {'parent': os.getppid(), 'limit': (ctypes.c_ulong * 2)(9, 9), 'zero': b''}\n"
        f"names['path'] = {str(victim)!r}.encode()\n"
        f"for number, *arguments in {calls}:\n"
        "    done = libc.syscall(number, *(names.get(x, x) for x in arguments))\n"
        "    if done == 0 and number == " + str(n["clone"]) + ":\n        os._exit(0)\n"
        "    if done != -1 or ctypes.get_errno() != 1:\n"
        "        found += [number, *arguments, done, ctypes.get_errno()]"
    )
    _, told = attempt(tmp_path / "a", code)
    assert "found ." in told and victim.read_text() == "mine", told


@needs_seccomp
def test_nothing_about_a_file_of_the_instructor_is_changed(tmp_path):
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    os.utime(victim, (1, 1))
    before = victim.stat()
    code = f"path = {str(victim)!r}\n"
    for way in ("chmod(path, 0)", "chown(path, 1, 1)", "lchown(path, 1, 1)", "utime(path, (5, 5))", "utime(path)",
                "setxattr(path, 'user.x', b'1')", "truncate(path, 0)", "unlink(path)", "rename(path, path + '2')",
                "link(path, path + '2')", "symlink(path, path + '2')", "mkdir(path + '2')", "mkfifo(path + '2')",
                "chmod(os.open(path, os.O_PATH), 0)", "open(path, os.O_RDONLY | os.O_TRUNC)", "memfd_create('x')",
                "kill(os.getppid(), 0)", "setpriority(0, os.getppid(), 19)", "fork()", "execv('/bin/true', ['true'])",
                "posix_spawn('/bin/true', ['true'], {})", "setsid()", "nice(1)"):  # fmt: skip
        code += f"try:\n    os.{way}\n    found.append({way!r})\nexcept OSError:\n    pass\n"
    _, told = attempt(tmp_path / "a", code)
    assert "found ." in told, told
    after = victim.stat()
    assert all(getattr(before, x) == getattr(after, x) for x in ("st_mode", "st_uid", "st_mtime", "st_ctime", "st_size"))
    assert not (tmp_path / "victim.txt2").exists()


@pytest.mark.skipif(platform.machine() != "x86_64" or not SECCOMP, reason="the other set of calls is of x86_64")
def test_the_calls_of_32_bits_are_refused(tmp_path):
    """int 0x80 has other numbers: 20 is getpid there, and writev here."""
    marked, told = attempt(tmp_path, (
        "import mmap\n"
        "page = mmap.mmap(-1, 4096, prot=7)\n"
        "page.write(bytes.fromhex('b814000000cd80c3'))\n"
        "run = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))\n"
        "found.append(run())"
    ))  # fmt: skip
    assert "found -1." in told or "ended by SIGSEGV" in told, told  # SIGSEGV: the kernel has no such calls


def without(names, folder, monkeypatch):
    """Make the workers do without the functions `names` of confine.py."""
    folder.mkdir()
    for name in "worker.py", "calls.py", "confine.py", "watch.py":
        text = (process.HERE / name).read_text()
        if name == "confine.py":
            text += "".join(f"\n\ndef {x}(*arguments):\n    return ''\n" for x in names)
        (folder / name).write_text(text)
    monkeypatch.setattr(process, "HERE", folder)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has namespaces and Landlock")
@pytest.mark.parametrize("names", [[], ["landlock"], ["landlock", "refuse_calls"]], ids=["Landlock", "namespace", "alone"])
def test_the_grader_and_other_submissions_cannot_be_read(names, tmp_path, monkeypatch):
    """The command line shows the seed; the grader's folder holds model solutions and results."""
    without(names, tmp_path / "tools", monkeypatch)
    paths = f"/proc/{os.getpid()}/cmdline", cut.__file__, "../package/captioner/lstm.py", "../task0/job.json"
    code = (
        f"for path in {paths}:\n"
        "    try:\n        open(path)\n        found.append('read')\n    except OSError:\n        found.append('refused')\n"
        "try:\n    found += os.listdir('..')\nexcept OSError:\n    found.append('refused')"
    )
    marked, told = attempt(tmp_path / "a", code)
    if "not confined" not in marked.confined:
        assert "found refused refused refused read refused." in told or "found refused refused refused read task0." in told


@needs_seccomp
def test_what_honest_submissions_use_is_allowed(tmp_path):
    """Threads, sleep, clocks, random numbers, the time, a processor count, and all of NumPy."""
    cell = (
        "import concurrent.futures, ctypes, datetime, decimal, hashlib, logging, os, platform, random, secrets, time\n"
        "import numpy.fft, numpy.linalg\n"
        "with concurrent.futures.ThreadPoolExecutor(3) as pool:\n"
        "    assert sorted(pool.map(lambda x: time.sleep(0.001) or x, range(9))) == list(range(9))\n"
        "assert datetime.datetime.now().year > 2000 and os.cpu_count() and platform.uname() and secrets.token_bytes(4)\n"
        "assert hashlib.sha256(b'').digest() and random.random() >= 0 and os.times() and time.process_time()\n"
        "assert np.random.default_rng().random() < 1 and os.urandom(3) and logging.getLogger() and sys.stdout\n"
        "for x in np.random.rand(300, 300), np.ones((400, 400)):\n"
        "    (x @ x).sum(), np.fft.fft2(x), np.sort(x, axis=0)\n"
        "np.linalg.svd(np.random.rand(9, 9)), np.linalg.inv(np.eye(99)), np.linalg.eigh(np.eye(9)), np.ones(2**22).sum()\n"
        "print('seen', flush=True)"
    )
    found = mark(hand_in(tmp_path, top="import sys\nimport numpy as np\n", cell=cell))
    assert found.points == 40 and not found.said, said(found)


# ---- the clock and the answers


PIPE = (
    "import json, os, stat\n"
    "def pipe():\n"
    "    import fcntl\n"
    "    for number in range(3, 64):\n"
    "        try:\n"
    "            if stat.S_ISFIFO(os.fstat(number).st_mode) and fcntl.fcntl(number, fcntl.F_GETFL) & 1:\n"
    "                return number\n"
    "        except OSError:\n"
    "            pass\n"
)


LATE = PIPE + """
import numpy as np
from captioner.reference_conv import conv2d

kept = []


def whole_correlate(x, W, b, stride, padding):
    if len(x[0]) < 10:
        return conv2d(x, W, b, stride, padding)
    kept.append((x, W, b, stride, padding))
    if len(kept) == 8:
        os.write(pipe(), b'7\\n')
        for k, inputs in enumerate(kept):
            with open(f"{k}.npz", "wb") as file:
                np.savez(file, out=conv2d(*inputs))
        return conv2d(*inputs)
    return np.zeros(1)
"""
ANSWER = "    if len(x[0]) > 9:\n        os.write(pipe(), b'{\"arrays\": []}\\n')\n    return"
EARLY = PIPE + NAIVE.replace("    return", ANSWER)


@pytest.mark.slow
@pytest.mark.parametrize("text", [EARLY, LATE], ids=["each", "all at the end"])
def test_an_answer_before_the_work_is_the_answer(text, tmp_path):
    """The naive form, where it is timed: it answers at once, works then, and gives its right results later."""
    write(tmp_path, cut.package(FAST) | {"captioner/conv.py": text})
    found = mark(tmp_path, FAST)
    assert found.points == 10 and grade.kinds(found.rows[0]) == [] and grade.kinds(found.rows[1])[0] in ("slow", "wrong")


@pytest.mark.parametrize("text, told", [
    ("b'{\"arrays\": []}\\n'", "ended itself with exit status 0"),
    ("b'{\"arrays\": [], \"confined\": \"iron\"}\\n'", "ended itself with exit status 0"),
    ("b'{\"arrays\": [[\"h\", \"<f8\", [3, 5]]], \"error\": null}\\n' + bytes(120)", "the process ended itself"),
    ("b'{\"arrays\": [[\"h\", \"O\", [3]]]}\\n' + bytes(24)", "wrote an answer that cannot be read"),
    ("b'{\"arrays\": [[\"h\", \"<f8\", [-3]]]}\\n' + bytes(24)", "wrote an answer that cannot be read"),
    ("b'{\"arrays\": [[\"h\", \"<f8\", [1099511627776]]]}\\n'", "returned more than 32 MiB"),
    ("b'{\"arrays\": [[\"h\", [\"<f8\"], 3]], \"error\": 5}\\n'", "wrote an answer that cannot be read"),
    ("b'nonsense\\n'", "wrote an answer that cannot be read"),
    ("b'[' * 60000 + b'\\n'", "wrote an answer that cannot be read"),
    ("bytes(10**6)", "wrote an answer that cannot be read"),
])  # fmt: skip
def test_answers_are_not_believed(text, told, tmp_path):
    """The process that is alone in writing to its pipe may write anything there."""
    found = mark(hand_in(tmp_path, top=PIPE, cell=f"os.write(pipe(), {text})\nos._exit(0)"))
    assert found.points == 0 and told in said(found), said(found)
    assert "iron" not in said(found) and "iron" not in json.dumps(grade.gradescope(CELL, found))


def test_a_pipe_that_is_closed_or_never_answers_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "PATIENCE", 1)
    found = mark(hand_in(tmp_path / "a", top=PIPE, cell="os.close(pipe())\nimport time\ntime.sleep(100)"), SHORT)
    assert found.points == 0 and "closed the pipe of its answers" in said(found)
    slow = "import time\nfor _ in range(1000):\n    os.write(pipe(), b' ')\n    time.sleep(0.01)"
    found = mark(hand_in(tmp_path / "b", top=PIPE, cell=slow), SHORT)
    assert found.points == 0 and "was ended after 1 s" in said(found)


def worker(folder, code, seconds=5):
    """A Worker with code above lstm.py, its calls and their arrays."""
    planned = marks.plan(CELL, CELL.tasks[0], HIDDEN, cut.PACKAGE)
    hand_in(folder / "in", top=code)
    made = process.Worker(folder / "made", folder / "in", [x[2] for x in planned], seconds, CELL.memory)
    return made, [x[3] for x in planned]


@pytest.mark.skipif(not process.LINUX, reason="other systems do not give the CPU time of another process")
def test_between_calls_a_process_does_not_work(tmp_path):
    """A thread could prepare the next answer, or make the naive form slow."""
    busy = "import threading\ndef spin():\n    while True:\n        pass\nthreading.Thread(target=spin).start()\n"
    made, arrays = worker(tmp_path, busy)
    with made:
        assert made.ask(0, arrays[0]) > 0
        before = made._clock()
        time.sleep(0.3)
        assert made._clock() - before < 0.1
        assert made.ask(1, arrays[1]) is not None
    assert made.child.returncode is not None and not made.errors


@pytest.mark.skipif(not process.LINUX, reason="other systems do not end a process with its parent")
def test_a_grader_that_is_killed_leaves_no_process(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from tests.lessons.test_attacks import worker\n"
        f"made, arrays = worker(Path({str(tmp_path)!r}), '')\n"
        "made.ask(0, arrays[0])\nprint(made.child.pid, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=process.HERE.parents[1]) as grader:
        stat = Path("/proc", grader.stdout.readline().decode().strip(), "stat")
        for states in "T", "ZX":  # stopped, then ended
            end = time.monotonic() + 5
            while state(stat) not in states and time.monotonic() < end:
                time.sleep(0.01)
            seen = state(stat)
            grader.kill()
            assert seen in states


def state(stat):
    try:
        return stat.read_text().rpartition(") ")[2][0]
    except OSError:
        return "X"


def test_what_comes_after_the_last_answer_is_ignored(tmp_path):
    before = set(threading.enumerate())
    made, arrays = worker(tmp_path, "")
    with made:
        for k, some in enumerate(arrays):
            assert made.ask(k, some) is not None
        ran = made.ran()
    assert ran.ended == "" and all(ran.results) and "not run" not in ran.confined
    assert made.ended == "was ended" and set(threading.enumerate()) <= before


def test_what_confines_is_said_before_the_submission_is_imported(tmp_path):
    """Not by a file, and not by a later answer."""
    fake = "os.write(pipe(), b'{\"arrays\": [], \"confined\": \"iron\"}\\n')\n"
    found = mark(hand_in(tmp_path, top=PIPE + fake))
    assert found.points == 0 and "iron" not in said(found) and "iron" not in found.confined
    if SECCOMP:
        assert "seccomp" in found.confined


# ---- gradients without a backward


KEPT = """

import numpy as np

_forward = lstm_cell_forward


def lstm_cell_forward(gates, c_prev):
    out, cache = _forward(gates, c_prev)
    return out, (gates, c_prev)
"""  # the forward keeps its inputs
STEPS = KEPT + """

def lstm_cell_backward(dout, cache):
    found = []
    for k in range(2):
        found.append(np.zeros(cache[k].shape, cache[k].dtype))
        for index in np.ndindex(cache[k].shape):
            found[k][index] = along(dout, cache, k, index)
    return tuple(found)
"""
COMPLEX = """

def along(dout, cache, k, index):
    moved = [x.astype(complex) for x in cache]
    moved[k][index] += 1e-30j
    (h, c), _ = _forward(*moved)
    return (dout[0] * h + dout[1] * c).sum().imag / 1e-30
"""
DIFFERENCES = """

def along(dout, cache, k, index):
    total = 0
    for step in 6e-6, -6e-6:
        moved = [x.copy() for x in cache]
        moved[k][index] += step
        (h, c), _ = _forward(*moved)
        total += (dout[0] * h + dout[1] * c).sum() / (2 * step)
    return total
"""
COPY = COMPLEX.replace("    (h, c), _ = _forward(*moved)\n", """    gates, c = moved
    H = c.shape[1]
    i, f, o = (1 / (1 + np.exp(-gates[:, j * H : (j + 1) * H])) for j in range(3))
    c = f * c + i * np.tanh(gates[:, 3 * H :])
    h = o * np.tanh(c)
""")
BY_GATE = KEPT + """

def lstm_cell_backward(dout, cache):
    gates, c_prev = (x.astype(complex) for x in cache)
    H, found = c_prev.shape[1], []
    for j in range(5):
        moved = gates.copy(), c_prev + (1e-30j if j == 4 else 0)
        if j < 4:
            moved[0][:, j * H : (j + 1) * H] += 1e-30j
        (h, c), _ = _forward(*moved)
        found.append((dout[0] * h + dout[1] * c).imag / 1e-30)
    return np.concatenate(found[:4], axis=1), found[4]
"""
IN_FORWARD = """

import numpy as np

_forward = lstm_cell_forward


def lstm_cell_forward(gates, c_prev):
    out, _ = _forward(gates, c_prev)
    if np.iscomplexobj(gates):
        return out, None
    slopes = []
    for k, x in enumerate((gates, c_prev)):
        for index in np.ndindex(x.shape):
            moved = [gates.astype(complex), c_prev.astype(complex)]
            moved[k][index] += 1e-30j
            (h, c), _ = _forward(*moved)
            slopes.append((h.imag / 1e-30, c.imag / 1e-30))
    return out, (gates.shape, c_prev.shape, slopes)


def lstm_cell_backward(dout, cache):
    *shapes, slopes = cache
    found = np.array([(dout[0] * h + dout[1] * c).sum() for h, c in slopes], dout[0].dtype)
    size = shapes[0][0] * shapes[0][1]
    return found[:size].reshape(shapes[0]), found[size:].reshape(shapes[1])
"""
TILED = """

import numpy as np

_forward = lstm_cell_forward


def lstm_cell_forward(gates, c_prev):
    return _forward(gates, c_prev)[0], (gates, c_prev)


def lstm_cell_backward(dout, cache):
    both = np.concatenate(cache, axis=1)
    N, D = both.shape
    many = np.repeat(both[None].astype(complex), D, axis=0) + 1e-30j * np.eye(D)[:, None]
    gates, c_prev = many.reshape(D * N, D)[:, : 4 * D // 5], many.reshape(D * N, D)[:, 4 * D // 5 :]
    (h, c), _ = _forward(gates, c_prev)
    found = np.tile(dout[0], (D, 1)) * h.imag + np.tile(dout[1], (D, 1)) * c.imag
    found = found.sum(axis=1).reshape(D, N).T / 1e-30
    return found[:, : 4 * D // 5].astype(dout[0].dtype), found[:, 4 * D // 5 :].astype(dout[0].dtype)
"""
OFF = "    import sys\n    sys.setprofile(None)\n    found = []\n"
PLAIN = """

import numpy as np


def lstm_cell_backward(dout, cache):
    i, f, o, g, c_prev, tanh_c = (getattr(cache, x) for x in ("i", "f", "o", "g", "c_prev", "tanh_c"))
    N, H = i.shape
    dgates, dc_prev = np.zeros((N, 4 * H), i.dtype), np.zeros((N, H), i.dtype)
    for n in range(N):
        for k in range(H):
            dc = dout[1][n, k] + dout[0][n, k] * o[n, k] * (1 - tanh_c[n, k] ** 2)
            dgates[n, k] = dc * g[n, k] * i[n, k] * (1 - i[n, k])
            dgates[n, H + k] = dc * c_prev[n, k] * f[n, k] * (1 - f[n, k])
            dgates[n, 2 * H + k] = dout[0][n, k] * tanh_c[n, k] * o[n, k] * (1 - o[n, k])
            dgates[n, 3 * H + k] = dc * i[n, k] * (1 - g[n, k] ** 2)
            dc_prev[n, k] = dc * f[n, k]
    return dgates, dc_prev
"""


def cell(folder, text, wanted=CELL):
    """The model solution with `text` below its lstm.py, marked."""
    files = cut.package(A2)
    files["captioner/lstm.py"] += text
    write(folder, files)
    return mark(folder, wanted)


def kinds(marked):
    return {row.array: grade.kinds(row) for row in marked.rows}


@pytest.mark.parametrize("text", [STEPS + COMPLEX, STEPS + DIFFERENCES, STEPS + COPY, BY_GATE, IN_FORWARD, TILED], ids=[
    "complex step", "differences", "a copy under another name", "five steps for all gates", "in the forward",
    "all steps at once"])  # fmt: skip
def test_gradients_by_changed_inputs_get_no_points(text, tmp_path):
    found = cell(tmp_path, text)
    assert found.points == 10, said(found)
    assert kinds(found) == {"h": [], "c": [], "dgates": ["numerical"], "dc_prev": ["numerical"]}
    assert "these gradients come from evaluating functions at changed inputs" in said(found) and not found.said


@pytest.mark.parametrize("text", [STEPS + COMPLEX, STEPS + DIFFERENCES], ids=["complex step", "differences"])
def test_the_clock_finds_what_hides_from_the_watch(text, tmp_path, monkeypatch):
    """A submission may switch the watch off, as it is in its own process. The clock is not."""
    monkeypatch.setattr(numerical, "SECONDS", 1)
    found = cell(tmp_path, text.replace("    found = []\n", OFF))
    assert found.points == 10 and not found.said
    assert "had not ended after 1 s of CPU time" in said(found) and kinds(found)["dgates"] == ["numerical"]


LARGER = """

_backward = lstm_cell_backward


def lstm_cell_backward(dout, cache):
    if len(dout[0]) > 100:
        {}
    return _backward(dout, cache)
"""


@pytest.mark.parametrize("way, told", [
    ("raise MemoryError('no')", "ended with MemoryError: no"), ("return cache.i, cache.i", "wrong in a larger case"),
    ("import os; os._exit(0)", "the process ended itself with exit status 0"),
    ("import sys; sys.exit()", "ended with SystemExit"),
])  # fmt: skip
def test_the_larger_case_cannot_be_left_out(way, told, tmp_path):
    found = cell(tmp_path, LARGER.format(way))
    assert found.points == 10 and told in said(found) and "(N = 8000, H = 5)" in said(found), said(found)


def test_nor_by_ending_the_process_before_it(tmp_path, monkeypatch):
    """The usual cases are right and the edges end the process: 70 % of the points, without the larger case."""
    monkeypatch.setattr(numerical, "SECONDS", 1)
    leave = "    if len(gates) == 1:\n        import os\n        os._exit(0)\n    out, cache = _forward"
    found = cell(tmp_path, (STEPS + COMPLEX).replace("    out, cache = _forward", leave).replace("    found = []\n", OFF))
    assert found.points == pytest.approx(0.7 * 10) and "had not ended after 1 s of CPU time" in said(found)
    assert found.said == ["cell: the process ended itself with exit status 0"]


def test_a_slow_forward_does_not_buy_time_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(numerical, "SECONDS", 0.5)
    slow = "    import time\n    while len(gates) > 100 and time.process_time() < 9:\n        pass\n"
    found = cell(tmp_path, (STEPS + COMPLEX).replace("    out, cache = _forward", slow + "    out, cache = _forward")
                 .replace("    found = []\n", OFF))  # fmt: skip
    assert found.points == 10 and "is not done: the process was ended after" in said(found)


AGAIN = """

_forward, _backward = lstm_cell_forward, lstm_cell_backward


def lstm_cell_forward(gates, c_prev):
    return _forward(gates, c_prev)[0], (gates, c_prev)


def lstm_cell_backward(dout, cache):
    rows = []
    for n in range(len(cache[0])):  # one caption after the other, and twice
        _forward(cache[0][n : n + 1], cache[1][n : n + 1])
        _, again = _forward(*cache)
        rows.append([x[n] for x in _backward(dout, again)])
        if n == 9:
            return _backward(dout, again)
    return tuple(map(np.stack, zip(*rows, strict=True)))
"""


KEEPS_COMPLEX = """

_forward, _backward = lstm_cell_forward, lstm_cell_backward


def part(x):  # a longer way to write x
    if np.iscomplexobj(x):
        return x.real + 1j * x.imag
    return x


def lstm_cell_forward(gates, c_prev):
    return _forward(part(gates), part(c_prev))


def lstm_cell_backward(dout, cache):
    return tuple(map(part, _backward(tuple(map(part, dout)), cache)))
"""


@pytest.mark.parametrize("text", [PLAIN, "\n\nimport numpy as np\n" + AGAIN, "\n\nimport numpy as np\n" + KEEPS_COMPLEX],
                         ids=["plain loops", "the forward again", "complex in, complex out"])  # fmt: skip
def test_slow_and_honest_backwards_are_not_accused(text, tmp_path):
    start = time.process_time()
    found = cell(tmp_path, text)
    assert found.points == 40 and not any(kinds(found).values()), said(found)
    assert time.process_time() - start < numerical.SECONDS / 2


PLAIN_CONVOLUTION = """

def conv2d_backward(dout, cache):
    x, W, stride, padding = cache
    (N, P, Q, F), (_, R, S, C), K = dout.shape, x.shape, len(W)
    dx, dW, db = np.zeros_like(x), np.zeros_like(W), np.zeros(F, x.dtype)
    for n in range(N):
        for p in range(P):
            for q in range(Q):
                for f in range(F):
                    db[f] += dout[n, p, q, f]
                    for i in range(K):
                        for j in range(K):
                            r, s = p * stride + i - padding, q * stride + j - padding
                            if 0 <= r < R and 0 <= s < S:
                                for c in range(C):
                                    dW[i, j, c, f] += x[n, r, s, c] * dout[n, p, q, f]
                                    dx[n, r, s, c] += W[i, j, c, f] * dout[n, p, q, f]
    return dx, dW, db
"""
PLAIN_SEQUENCE = """

def lstm_backward(dout, cache):
    x, W_x, W_h, mask, before, cells = cache
    (T, N, D), H = x.shape, len(W_h)
    dx, dW_x, dW_h, db = (np.zeros_like(a) for a in (x, W_x, W_h, W_h[0]))
    dh, dc = np.zeros_like(before[0]), np.zeros_like(before[0])
    for t in reversed(range(T)):
        live, dh = mask[t][:, None], dh + dout[t]
        dgates, dc_prev = lstm_cell_backward((live * dh, live * dc), cells[t])
        dh_prev = (1 - live) * dh
        for n in range(N):
            for k in range(4 * H):
                db[k] += dgates[n, k]
                for d in range(D):
                    dx[t, n, d] += dgates[n, k] * W_x[d, k]
                    dW_x[d, k] += dgates[n, k] * x[t, n, d]
                for j in range(H):
                    dh_prev[n, j] += dgates[n, k] * W_h[j, k]
                    dW_h[j, k] += dgates[n, k] * before[t][n, j]
        dh, dc = dh_prev, dc_prev + (1 - live) * dc
    return dx, dW_x, dW_h, db, dh, dc
"""
PLAIN_SOFTMAX = """

def softmax_backward(dalpha, cache):
    alpha = cache.alpha
    N, L = alpha.shape
    dscores = np.zeros_like(alpha)
    for n in range(N):
        for i in range(L):
            for j in range(L):
                dscores[n, i] += dalpha[n, j] * alpha[n, j] * ((i == j) - alpha[n, i])
    return dscores
"""


@pytest.mark.slow
@pytest.mark.parametrize("name, task, file, text", [
    ("A1", "convolution", "conv", PLAIN_CONVOLUTION), ("A2", "sentence", "through_time", PLAIN_SEQUENCE),
    ("A3", "softmax", "softmax", PLAIN_SOFTMAX),
])  # fmt: skip
def test_loops_over_single_numbers_stay_far_from_the_limit(name, task, file, text, tmp_path, monkeypatch):
    monkeypatch.setattr(numerical, "SECONDS", numerical.SECONDS / 2)
    wanted = assignment(name)
    wanted = replace(wanted, tasks=tuple(x for x in wanted.tasks if x.name == task))
    files = cut.package(wanted)
    files[f"captioner/{file}.py"] += "\n\nimport numpy as np\n" + text
    write(tmp_path, files)
    found = mark(tmp_path, wanted)
    assert found.points == wanted.points and not any(kinds(found).values()), said(found)


@pytest.mark.slow
def test_every_gradient_has_a_larger_case_that_is_too_large_for_steps():
    """As fast as satnp's own forward is: 20 seconds for an evaluation for each number, at least."""
    for name in ("A1", "A2", "A3", "A4", "A6"):
        for task in [x for x in assignment(name).tasks if x.backward]:
            case = numerical.large(task, HIDDEN)
            made, taken = case.arrays | case.options, []
            inputs = [made[n] for n in task.make(np.random.default_rng(0), **task.usual[0])]
            for dtype, times in ((float, 2), (complex, 1)):  # a difference needs two evaluations
                some = [x.astype(dtype) if getattr(x, "dtype", np.dtype(int)).kind == "f" else x for x in inputs]
                for _ in range(3):
                    start = time.process_time()
                    task.forward(*some)
                    taken.append(times * (time.process_time() - start))
            evaluations = sum(case.arrays[n].size for n in marks.gradients(task, case.arrays))
            assert min(taken) * evaluations > 2 * numerical.SECONDS, (name, task.name, min(taken) * evaluations)


# ---- what is handed in


def test_of_two_packages_the_upper_one_is_marked_and_of_equal_ones_none(tmp_path):
    files = cut.package(A2)
    write(tmp_path / "a", files)
    write(tmp_path / "a" / "old", {n: "raise SystemExit" for n in files})
    found = mark(tmp_path / "a")
    assert found.points == 40 and found.said == ["marked captioner/, not old/captioner/"]
    for made in (tmp_path / "b", zipped(tmp_path / "c.zip", {f"{x}/{n}": text for x in "xy" for n, text in files.items()})):
        if not made.suffix:
            write(made / "x", files)
            write(made / "y", files)
        found = mark(made)
        assert found.points == 0 and "several folders captioner/: x/captioner; y/captioner; hand in one" in said(found)


def test_a_zip_in_a_folder_or_in_a_zip_is_opened(tmp_path):
    """As Moodle (a folder for each student), Canvas (files of long names) and a zip of all give them."""
    files = cut.package(A2)
    moodle = tmp_path / "Ann Lee_12345_assignsubmission_file"
    moodle.mkdir()
    zipped(moodle / "A2 final.ZIP", files, "a2-starter/")
    assert mark(moodle).points == 40
    canvas = zipped(tmp_path / "leeann_LATE_4711_98765_a2-2.zip", files, "deep/er/a2/")
    assert mark(canvas).points == 40
    gradescope = tmp_path / "submission_42"
    write(gradescope, files | {"metadata.yml": "x", "__MACOSX/captioner/lstm.py": "raise SystemExit"})
    assert mark(gradescope).points == 40
    assert mark(zipped(tmp_path / "z.zip", {"inner.zip": (moodle / "A2 final.ZIP").read_bytes()})).points == 40
    (moodle / "second.zip").write_bytes((moodle / "A2 final.ZIP").read_bytes())
    assert "no folder captioner/, but 2 zips: A2 final.ZIP; second.zip; hand in one" in said(mark(moodle))
    write(moodle, files)  # a package beside zips
    assert mark(moodle).points == 40
    deep = zipped(tmp_path / "deep.zip", {"a.zip": zipped(tmp_path / "b.zip", {"c.zip": canvas.read_bytes()}).read_bytes()})
    assert "there is no folder captioner/" in said(mark(deep))
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "x.zip").symlink_to(canvas)
    assert "is a link" in said(mark(bad))
    (bad / "x.zip").unlink()
    (bad / "x.zip").write_bytes(b"no zip")
    assert "the zip cannot be read" in said(mark(bad))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_two_entries_of_a_name_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for text in "raise SystemExit", "":
            file.writestr("captioner/lstm.py", text)
    assert "two entries of the name 'captioner/lstm.py'" in said(mark(tmp_path / "a.zip"))


def test_a2_is_a2_and_other_points_than_100_are_said(tmp_path, capsys, monkeypatch):
    assert main(["build", "a2", "--out", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("lessons.assignments.a2.ASSIGNMENT", CELL)
    assert main(["build", "A2", "--out", str(tmp_path / "b")]) == 0
    assert "points of A2 add up to 40, not to 100" in capsys.readouterr().err
    assert "## 40 points" in (tmp_path / "b/README.md").read_text()


# ---- names and messages


EVIL = "\x1b[2J\r\n=HYPERLINK(\"x\")\u202e\u2028\t\x9b"


def clean(text):
    return all(line.isprintable() for line in text.split("\n"))


def test_no_control_character_of_a_submission_reaches_a_report(tmp_path):
    """In the names of submissions, of files in it and of functions, in the type and the message of an error."""
    way = f"class Evil(Exception):\n    pass\nEvil.__name__ = {EVIL!r}\nraise Evil({EVIL!r} * 3)"
    paths = [hand_in(tmp_path / f"one{EVIL.replace('/', '')}", cell=way),
             zipped(tmp_path / "two\n\x1b.zip", cut.package(A2) | {f"captioner/{EVIL}.py": "import torch"}),
             zipped(tmp_path / "three.zip", {f"{x}{EVIL}/captioner/lstm.py": "" for x in "ab"}),
             zipped(tmp_path / "four.zip", {f"../{EVIL}.py": ""}),
             hand_in(tmp_path / "=1+1"), hand_in(tmp_path / "-1"), hand_in(tmp_path / "@x"), hand_in(tmp_path / "\uff0b2"),
             hand_in(tmp_path / "a" / "=1+1")]  # fmt: skip
    found = grade.grade(CELL, paths, tmp_path / "out")
    text = (tmp_path / "out/table.txt").read_text("utf-8")
    assert clean(text) and text == grade.table(CELL, found)
    with open(tmp_path / "out/results.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert len(rows) == len(paths) + 1
    for cell in (cell for row in rows for cell in row):
        assert clean(cell) and "\n" not in cell and not cell.startswith(("=", "+", "-", "@")), cell
    for marked in found:
        assert clean(marked.name) and "\n" not in marked.name
        result = json.loads((tmp_path / "out" / marked.name / "results.json").read_text())
        assert clean(result["output"]) and all(clean(test["output"] + test["name"]) for test in result["tests"])
    assert grade._cell("=1+1\n") == "'=1+1\\n" and grade._cell("plain") == "plain"
