"""Atomic file writes, file locks between processes, and readers of files that may be damaged."""

import errno
import json
import lzma
import os
import struct
import sys
import tokenize
import warnings
import zipfile
import zlib
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from time import sleep

import numpy as np

from satnp.errors import InputError
from satnp.terminal import printable

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None

# the exceptions that readers raise for damaged files
BROKEN = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError, RuntimeError, EOFError,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError, SyntaxError,
)  # fmt: skip


class Pickled(ValueError):
    """The array `name` of an .npz file holds Python objects."""

    def __init__(self, name):
        super().__init__(f"{name}.npy has pickled objects")
        self.name = name


@contextmanager
def naming(path):
    """Context manager: an OSError raised inside gets `path` as its filename; a write to a full disk sets none."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


@contextmanager
def replacing(path):
    """Context manager: yield a temporary path beside `path`, which replaces `path` on success and is removed on an error."""
    path = _writable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    stem = path.name if len(os.fsencode(path.name)) < 240 else path.name[:50]  # a name may have 255 bytes
    temporary = path.with_name(f".{stem}.tmp{path.suffix}")
    with naming(path):
        try:
            yield temporary
            with open(temporary, "r+b") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def there(path, what=Path.is_file):
    """what(path) of Path.is_file, is_dir and exists; False, and no error, for a name that is too long for a file."""
    try:
        return what(Path(path))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def _writable(path):
    """Path(path). Raises: InputError for a name that no file can have."""
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"the name {path} is too long for a file; give a shorter one") from None
    except ValueError as error:  # a zero byte
        raise InputError(f"{path} cannot be the name of a file ({error}); give another") from None
    return Path(path)


def _sync_folder(folder):
    """Flush the folder to disk, so that a new name in it is not lost. Windows cannot open folders."""
    if os.name == "posix":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def remove_leftovers(folder):
    """Remove the temporary files of a killed process from `folder`. No other process may be writing into it."""
    for temporary in Path(folder).glob(".*.tmp.*"):
        temporary.unlink()


def write_json(path, value):
    """Write `value` as indented JSON in UTF-8; what UTF-8 lacks (half of a surrogate pair) as an escape of JSON."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json(path):
    """Return the value in the JSON file at `path`; None if the file is missing or is not valid JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def read_npz(path, names=None):
    """Read the .npz file at `path` -> {name: array}; only the arrays in `names` if given. Pickles are not read.

    Raises: one of BROKEN when the file is not a valid .npz file.
    """
    _entries(path)
    with np.load(path, allow_pickle=False) as archive, warnings.catch_warnings(action="ignore"):  # odd headers
        return {name: archive[name] for name in archive.files if names is None or name in names}


def map_npz(path, names):
    """read_npz, except that arrays which are stored without compression, as np.savez does, are memory-mapped.

    Raises: Pickled, which is a ValueError, when an array has Python objects.
    """
    mapped, entries = {}, _entries(path)
    with open(path, "rb") as file, zipfile.ZipFile(path) as archive:
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            if name in names and entry.compress_type == zipfile.ZIP_STORED:
                mapped[name] = _map_npy(file, entry)
            elif name in names:
                with archive.open(entry) as stream:
                    _npy_header(stream, name)
    return mapped | read_npz(path, set(names) - mapped.keys())


def _npy_header(file, name):
    """Read the header of the array `name` -> (shape, by columns, dtype). Raises: Pickled."""
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with warnings.catch_warnings(action="ignore"):
        shape, by_columns, dtype = header[np.lib.format.read_magic(file)](file)
    if dtype.hasobject:
        raise Pickled(name)
    return shape, by_columns, dtype


def _map_npy(file, entry):
    """Memory-map the array in an uncompressed entry of a zip file."""
    file.seek(entry.header_offset + 26)  # the local header has 30 bytes, then a name and an extra field
    file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
    end = file.tell() + entry.file_size
    shape, by_columns, dtype = _npy_header(file, entry.filename.removesuffix(".npy"))
    if file.tell() + prod(shape) * dtype.itemsize != end:
        raise ValueError(f"{entry.filename} has {entry.file_size} bytes, which is not its header and {shape} of {dtype}")
    if 0 in shape or not dtype.itemsize:  # nothing to map
        return np.zeros(shape, dtype)
    return np.memmap(file.name, dtype, "r", file.tell(), shape, "F" if by_columns else "C")


def _entries(path):
    """The entries of the zip file at `path`; ValueError if it is none, or declares far more bytes than it has."""
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not a zip file, or is truncated")
    with zipfile.ZipFile(path) as archive:
        entries, size = archive.infolist(), Path(path).stat().st_size
    declared = sum(entry.file_size for entry in entries)
    if declared > 100 * size:
        raise ValueError(f"its entries declare {declared} bytes, but the file has {size}")
    return entries


_held = set()  # locks that this process holds; it may acquire them again


@contextmanager
def lock(path, wait=False):
    """Context manager: hold the lock file `path`. If another process holds it, wait, or raise InputError unless `wait`.

    The lock belongs to the open file, so it ends with its process. The file contains the process id of the holder.
    """
    path = _writable(path)
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
            print(printable(f"{busy}: waiting until it has ended"), file=sys.stderr, flush=True)
            said = True
        sleep(0.2)
    _held.add(key)
    try:
        yield
    finally:
        _held.remove(key)
        with suppress(OSError):  # Windows cannot remove an open file
            path.unlink()
        file.close()
        if made:
            with suppress(OSError):  # fails if the folder is not empty
                path.parent.rmdir()


def _locked(path):
    """Open and lock the file `path`; return None if another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)  # the last holder may have removed the folder too
    file = open(path, "a", encoding="utf-8")
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            file.seek(1 << 20)  # Windows makes the locked bytes unreadable, so lock one behind the process id
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):
        file.close()
        return None
    except OSError:  # the file system has no locks
        pass
    try:
        removed = not os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        removed = True
    if removed:  # the last holder removed the file after it was opened here
        file.close()
        return _locked(path)
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _holder(path):
    try:
        return f"process {int(path.read_text(encoding='utf-8'))}"
    except (OSError, ValueError):  # the holder has just started or ended
        return "another process"
