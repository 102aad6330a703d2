"""Files that are written whole or not at all, by one process at a time, and read as far as they are whole."""

import json
import os
import sys
import zipfile
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from time import sleep

import numpy as np

from satnp.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None

# what a reader raises on bytes that follow no format
BROKEN = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError, RuntimeError, EOFError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@contextmanager
def naming(path):
    """An error of the system in here is about `path`: a write to a full disk does not say where."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


@contextmanager
def replacing(path):
    """Yield a temporary path beside `path`; on success it takes `path`'s place, on any error it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp{path.suffix}")
    with naming(path):
        try:
            yield temporary
            with open(temporary, "r+b") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _sync_folder(folder):
    """The new name reaches the disk too; Windows opens no folders."""
    if os.name == "posix":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def remove_leftovers(folder):
    """Remove what a killed process was still writing into `folder`, which only one process may write."""
    for temporary in Path(folder).glob(".*.tmp.*"):
        temporary.unlink()


def write_json(path, value):
    """Write `value` as indented JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path):
    """The value in the JSON file at `path`; None where there is none, or none that is whole."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def read_npz(path, names=None):
    """{name: array} of the .npz file at `path`, no more than `names` where they are given, without pickles.

    Raises: one of BROKEN where it is none.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no zip file, or cut short")
    with zipfile.ZipFile(path) as archive:
        declared, size = sum(entry.file_size for entry in archive.infolist()), Path(path).stat().st_size
    if declared > 100 * size:
        raise ValueError(f"its entries declare {declared} bytes, the file has {size}")
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files if names is None or name in names}


_held = set()  # locks of this process, which may ask for them again


@contextmanager
def lock(path, wait=False):
    """Keep other processes out of the lock file `path`; where one is inside, wait until it is gone, or raise InputError.

    The file is locked by being open, so the lock goes with a killed process; inside is the number of the one that holds it.
    """
    path = Path(path)
    key, made = path.resolve(), not path.parent.exists()
    if key in _held:
        yield
        return
    said = False
    while (file := _locked(path)) is None:
        busy = f"{_holder(path)} is writing into {path.parent}"
        if not wait:
            raise InputError(f"{busy}; wait until it has ended, or give another folder")
        if not said:
            print(f"{busy}: waiting until it has ended", file=sys.stderr, flush=True)
            said = True
        sleep(0.2)
    _held.add(key)
    try:
        yield
    finally:
        _held.remove(key)
        with suppress(OSError):  # Windows keeps what is open
            path.unlink()
        file.close()
        if made:
            with suppress(OSError):  # it is empty only where nothing came of it
                path.parent.rmdir()


def _locked(path):
    """The file `path`, open and locked; None where another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)  # the holder may have removed that too
    file = open(path, "a", encoding="utf-8")
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            file.seek(1 << 20)  # what is locked there nobody may read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):
        file.close()
        return None
    except OSError:  # a file system without locks
        pass
    try:
        removed = not os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        removed = True
    if removed:  # by the holder, just now
        file.close()
        return _locked(path)
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _holder(path):
    try:
        return f"process {int(path.read_text(encoding='utf-8'))}"
    except (OSError, ValueError):  # it has just come, or gone
        return "another process"
