"""Limits that a submission's process sets for itself before it imports the submission.

rlimit limits time, memory and processes. Landlock, or a mount namespace where there is no Landlock, limits which files can
be read. A seccomp filter allows the system calls that Python and NumPy need and refuses all others. This is meant for honest
mistakes and a few dishonest ones; it is not a jail.
"""

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from contextlib import suppress

READ_FILE, READ_DIR = 1 << 2, 1 << 3
FILES = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}  # the rights that each version of Landlock knows
FILES |= {4: FILES[3], 5: (1 << 16) - 1}
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
DEATH_SIGNAL, NO_NEW_PRIVS, SET_SECCOMP, FILTER = 1, 38, 22, 2
libc = ctypes.CDLL(None, use_errno=True)


def confine(job):
    """Set all limits -> the names of what confines the process; "not confined" if its file access is not limited"""
    limits = {"AS": job["memory"], "FSIZE": 0, "NOFILE": 64, "NPROC": 64, "CORE": 0}
    for what, most in limits.items():
        if hasattr(resource, f"RLIMIT_{what}"):
            with suppress(ValueError, OSError):  # macOS has a memory limit but refuses to set it
                resource.setrlimit(getattr(resource, f"RLIMIT_{what}"), (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (job["seconds"], job["seconds"] + 1))
    if not sys.platform.startswith("linux"):
        return "not confined"
    libc.prctl(DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)  # a killed grader leaves no stopped process
    libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0)
    by = landlock(job["readable"], job["listable"]) or namespace(job["hidden"], os.getcwd())
    drop_capabilities()
    return ", ".join(x for x in (by or "not confined", refuse_calls()) if x)


def drop_capabilities():
    """Drop all capabilities: from here on root is an ordinary user."""
    libc.capset(struct.pack("=II", 0x20080522, 0), bytes(24))


def landlock(readable, listable):
    """Allow only reading `readable` and listing `listable` -> name, or nothing"""
    version = libc.syscall(CREATE_RULESET, None, 0, 1)
    if version < 1:
        return ""
    handled = FILES[min(version, 5)]
    attributes = struct.pack("=QQQ", handled, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = libc.syscall(CREATE_RULESET, attributes, size, 0)
    if rules < 0:
        return ""
    for paths, rights in ((readable, READ_FILE | READ_DIR), (listable, READ_DIR)):
        for path in paths:
            try:
                opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            allowed = rights if os.path.isdir(path) else rights & READ_FILE
            libc.syscall(ADD_RULE, rules, 1, struct.pack("=Qi", allowed & handled, opened), 0)
            os.close(opened)
    done = libc.syscall(RESTRICT_SELF, rules, 0) == 0
    os.close(rules)
    return f"Landlock {version}" if done else ""


NEW_USER, NEW_MOUNTS, NEW_NET = 1 << 28, 1 << 17, 1 << 30
RECURSIVE, PRIVATE, BIND, READ_ONLY, MOUNT_SETATTR, AT_RECURSIVE = 1 << 14, 1 << 18, 1 << 12, 1, 442, 1 << 15


def namespace(hidden, own):
    """Without Landlock: a mount namespace, read-only, with `hidden` empty except for the folder `own`, and no network."""
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(NEW_USER | NEW_MOUNTS | NEW_NET):
        return ""
    try:
        for file, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{file}", "w") as opened:
                opened.write(line)
        kept = os.open(own, os.O_PATH)
        failed = libc.mount(b"none", b"/", None, RECURSIVE | PRIVATE, None)
        for path in hidden:
            failed |= libc.mount(b"none", os.fsencode(path), b"tmpfs", 0, None)
        os.makedirs(own, exist_ok=True)
    except OSError:
        return ""
    failed |= libc.mount(b"/proc/self/fd/%d" % kept, os.fsencode(own), None, BIND | RECURSIVE, None)
    failed |= libc.mount(b"none", b"/proc", b"tmpfs", 0, None)  # it shows the command line of the grader, with the seed
    attributes = struct.pack("=QQQQ", READ_ONLY, 0, 0, 0)
    failed |= libc.syscall(MOUNT_SETATTR, -100, b"/", AT_RECURSIVE, attributes, len(attributes))
    os.close(kept)
    os.chdir(own)  # enter the folder through its new mount
    return "" if failed else "a namespace"


MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # the architecture, the column in the lists of calls
# What CPython, NumPy, OpenBLAS and the C libraries glibc and musl use, with the numbers on x86_64 and on aarch64.
ALLOWED = """
    read 0 63, readv 19 65, pread64 17 67, write 1 64, writev 20 66, close 3 57, lseek 8 62,
    dup 32 23, dup2 33 -, dup3 292 24, fstat 5 80, stat 4 -, lstat 6 -, newfstatat 262 79, statx 332 291,
    access 21 -, faccessat 269 48, faccessat2 439 439, readlink 89 -, readlinkat 267 78, getdents64 217 61, getcwd 79 17,
    mmap 9 222, mprotect 10 226, munmap 11 215, mremap 25 216, madvise 28 233, brk 12 214,
    futex 202 98, set_robust_list 273 99, rseq 334 293, membarrier 324 283, sched_yield 24 124, sched_getaffinity 204 123,
    getcpu 309 168, exit 60 93, exit_group 231 94,
    rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, sigaltstack 131 132, restart_syscall 219 128,
    clock_gettime 228 113, clock_getres 229 114, gettimeofday 96 169, time 201 -, times 100 153, getrusage 98 165,
    clock_nanosleep 230 115, nanosleep 35 101, select 23 -, pselect6 270 72, poll 7 -, ppoll 271 73,
    getpid 39 172, getppid 110 173, gettid 186 178, getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177,
    uname 63 160, sysinfo 99 179, getrandom 318 278, getrlimit 97 163
"""
# Calls that are allowed where an argument, with a mask, has one of the values: its position, the mask, the values.
WRITING = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC
THREAD, DETACHED = 0x3D0F00, 0x400000  # the flags of clone with which glibc and musl start a thread
DUPFD, GETFD, SETFD, GETFL, DUPFD_CLOEXEC = 0, 1, 2, 3, 1030
TCGETS, TCGETS2, WINSIZE, CLOEXEC, NO_CLOEXEC = 0x5401, 0x802C542A, 0x5413, 0x5451, 0x5450
ALL = 2**32 - 1
FILTERED = {
    "open 2 -": (1, WRITING, [os.O_RDONLY]),
    "openat 257 56": (2, WRITING, [os.O_RDONLY]),
    "fcntl 72 25": (1, ALL, [DUPFD, GETFD, SETFD, GETFL, DUPFD_CLOEXEC]),  # F_SETOWN would send signals
    "ioctl 16 29": (1, ALL, [TCGETS, TCGETS2, WINSIZE, CLOEXEC, NO_CLOEXEC]),
    "clone 56 220": (0, ALL - DETACHED, [THREAD]),
    "prlimit64 302 261": (0, ALL, [0]),  # of itself
    "tkill 200 130": (0, ALL, None),  # None: the process itself, for abort
    "tgkill 234 131": (0, ALL, None),
}
NEWER = 424  # the first number that is the same on all machines, from Linux 5.1 on
LOAD, AND, EQUAL, LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026


def refuse_calls():
    """Allow the calls above alone. No files are written or changed, no processes, programs, sockets or signals to others."""
    if platform.machine() not in MACHINES or sys.maxsize < 2**32:
        return ""
    machine, column = MACHINES[platform.machine()]
    program = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, machine), (RETURN, 0, 0, EPERM), (LOAD, 0, 0, 0)]
    for number in _numbers(ALLOWED, column):
        program += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    for call, (argument, mask, values) in FILTERED.items():
        values = [os.getpid()] if values is None else values
        checks = [x for value in values for x in ((EQUAL, 0, 1, value), (RETURN, 0, 0, ALLOW))]
        checks = [(LOAD, 0, 0, 16 + 8 * argument), (AND, 0, 0, mask), *checks, (RETURN, 0, 0, EPERM)]
        for number in _numbers(call, column):
            program += [(EQUAL, 0, len(checks), number), *checks]
    # the C libraries have an older call for each newer one, such as clone for clone3, whose flags cannot be seen here
    program += [(LEAST, 0, 1, NEWER), (RETURN, 0, 0, ENOSYS), (RETURN, 0, 0, EPERM)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = struct.pack("@HP", len(program), ctypes.addressof(code))
    return "seccomp" if libc.prctl(SET_SECCOMP, FILTER, header, 0, 0) == 0 else ""


def _numbers(calls, column):
    found = [call.split()[1 + column] for call in calls.split(",")]
    return [int(x) for x in found if x != "-"]
