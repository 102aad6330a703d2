"""Limits that a submission's process sets for itself before it imports the submission.

rlimit limits time, memory and file sizes. Landlock, or a mount namespace where there is no Landlock, limits which files can
be read and written. A seccomp filter refuses new processes, other programs, sockets and signals. This is meant for honest
mistakes and a few dishonest ones; it is not a jail.
"""

import ctypes
import os
import platform
import resource
import struct
import sys
from contextlib import suppress

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE, IOCTL = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
FILES = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}  # the rights that each version of Landlock knows
FILES |= {4: FILES[3], 5: (1 << 16) - 1}
ON_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2
libc = ctypes.CDLL(None, use_errno=True)


def confine(job):
    """Set all limits -> the names of what confines the process; "not confined" if its file access is not limited"""
    limits = {"AS": job["memory"], "FSIZE": job["file_size"], "NOFILE": 64, "NPROC": 64, "CORE": 0}
    for what, most in limits.items():
        if hasattr(resource, f"RLIMIT_{what}"):
            with suppress(ValueError, OSError):  # macOS has a memory limit but refuses to set it
                resource.setrlimit(getattr(resource, f"RLIMIT_{what}"), (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (job["seconds"], job["seconds"] + 1))
    if not sys.platform.startswith("linux"):
        return "not confined"
    libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0)
    by = landlock(job["readable"], job["listable"], job["out"]) or namespace(job["hidden"], job["out"])
    drop_capabilities()
    return ", ".join(x for x in (by or "not confined", refuse_calls()) if x)


def drop_capabilities():
    """Drop all capabilities: from here on root is an ordinary user."""
    libc.capset(struct.pack("=II", 0x20080522, 0), bytes(24))


def landlock(readable, listable, writable):
    """Allow only reading `readable`, listing `listable`, and writing to existing files in `writable` -> name, or nothing"""
    version = libc.syscall(CREATE_RULESET, None, 0, 1)
    if version < 1:
        return ""
    handled = FILES[min(version, 5)]
    attributes = struct.pack("=QQQ", handled, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = libc.syscall(CREATE_RULESET, attributes, size, 0)
    if rules < 0:
        return ""
    read = READ_FILE | READ_DIR
    for paths, rights in ((readable, read), (listable, READ_DIR), ([writable], read | WRITE_FILE | TRUNCATE)):
        for path in paths:
            try:
                opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            allowed = rights if os.path.isdir(path) else rights & ON_A_FILE
            libc.syscall(ADD_RULE, rules, 1, struct.pack("=Qi", allowed & handled, opened), 0)
            os.close(opened)
    done = libc.syscall(RESTRICT_SELF, rules, 0) == 0
    os.close(rules)
    return f"Landlock {version}" if done else ""


NEW_USER, NEW_MOUNTS, NEW_NET = 1 << 28, 1 << 17, 1 << 30
RECURSIVE, PRIVATE, BIND, READ_ONLY, MOUNT_SETATTR, AT_RECURSIVE = 1 << 14, 1 << 18, 1 << 12, 1, 442, 1 << 15


def namespace(hidden, writable):
    """Without Landlock: a mount namespace, read-only except `writable`, with `hidden` empty, and no network."""
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(NEW_USER | NEW_MOUNTS | NEW_NET):
        return ""
    try:
        for file, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{file}", "w") as opened:
                opened.write(line)
    except OSError:
        return ""
    out = os.fsencode(writable)
    done = libc.mount(b"none", b"/", None, RECURSIVE | PRIVATE, None) | libc.mount(out, out, None, BIND, None)
    for path, flags, clear in ((b"/", AT_RECURSIVE, False), (out, 0, True)):
        attributes = struct.pack("=QQQQ", 0 if clear else READ_ONLY, READ_ONLY if clear else 0, 0, 0)
        done |= libc.syscall(MOUNT_SETATTR, -100, path, flags, attributes, len(attributes))
    for path in hidden:
        done |= libc.mount(b"none", os.fsencode(path), b"tmpfs", READ_ONLY, None)
    os.chdir(writable)  # enter the folder through its new mount
    return "" if done else "a namespace"


# the architecture, then the numbers of: clone, clone3, fork, vfork, execve, execveat, socket, kill, tkill,
# pidfd_send_signal, ptrace, setsid, unshare
CALLS = {
    "x86_64": (0xC000003E, 56, 435, (57, 58, 59, 322, 41, 62, 200, 424, 101, 112, 272)),
    "aarch64": (0xC00000B7, 220, 435, (221, 281, 198, 129, 130, 424, 117, 157, 97)),
}
LOAD, EQUAL, LEAST, SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
THREAD = 0x10000  # CLONE_THREAD


def refuse_calls():
    """Allow new threads; refuse new processes, other programs, sockets, and signals to other processes."""
    if platform.machine() not in CALLS or sys.maxsize < 2**32:
        return ""
    machine, clone, clone3, refused = CALLS[platform.machine()]
    program = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, machine), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    program += [(LEAST, 0, 1, 1 << 30), (RETURN, 0, 0, EPERM)]  # the x32 numbers of the same calls
    for number in refused:
        program += [(EQUAL, 0, 1, number), (RETURN, 0, 0, EPERM)]
    program += [(EQUAL, 0, 1, clone3), (RETURN, 0, 0, ENOSYS)]  # the C library then takes clone, whose flags can be seen
    program += [(EQUAL, 0, 3, clone), (LOAD, 0, 0, 16), (SET, 1, 0, THREAD), (RETURN, 0, 0, EPERM), (RETURN, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = struct.pack("@HP", len(program), ctypes.addressof(code))
    return "seccomp" if libc.prctl(SET_SECCOMP, FILTER, header, 0, 0) == 0 else ""
