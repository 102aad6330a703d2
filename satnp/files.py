"""Atomic file writes, file locks between processes, and readers of files that may be damaged."""

import errno
import io
import json
import os
import struct
import sys
import warnings
import zipfile
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

MAX_ARRAYS, MAX_NAME = 10_000, 1000  # arrays in a file and characters of a name; public networks have hundreds of arrays
CHECKED = 2**30  # bytes; larger arrays are memory-mapped without their check sum, which would take longer than their use


class Pickled(ValueError):
    """The array `name` of an .npz file holds Python objects."""

    def __init__(self, name):
        super().__init__(f"{name}.npy has pickled objects")
        self.name = name


@contextmanager
def refusing(what, advice):
    """Context manager around the reader of a file: every exception that a damaged file causes becomes an InputError.

    The message is `what`, the reason in parentheses, and `advice`. This is the only place that decides what a reader may
    raise: a list would never be complete, because parsers raise SyntaxError, tokenize.TokenError, RecursionError and others.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{what} ({reason(error)}); {advice}") from None


def reason(error):
    """Say in one line why a file could not be read."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


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
    path = writable(path)
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
    """what(path) of Path.is_file, is_dir and exists; False, and no error, for a name that no file can have."""
    try:
        return what(Path(path))
    except ValueError:  # a zero byte
        return False
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def writable(path):
    """Path(path). Raises: InputError for a name that no file can have, and for a folder."""
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"the name {path} is too long for a file; give a shorter one") from None
    except ValueError as error:  # a zero byte
        raise InputError(f"{path} cannot be the name of a file ({error}); give another") from None
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder; give the name of a file")
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
    with suppress(Exception):  # see `refusing`
        return json.loads(Path(path).read_text(encoding="utf-8"))
    return None


def read_npz(path, names=None):
    """Read the .npz file at `path` -> {name: read-only array}; only the arrays in `names` if given.

    The check sum of an array is compared before anything of it is parsed. A damaged file raises any exception, which
    `refusing` translates. Raises: Pickled, which is a ValueError, when an array has Python objects.
    """
    with _open_npz(path) as (archive, entries):
        return {name: _read_npy(archive, name, x) for name, x in entries.items() if names is None or name in names}


def map_npz(path, names):
    """read_npz, except that arrays which are stored without compression, as np.savez does, are memory-mapped.

    The check sum of a memory-mapped array of more than CHECKED bytes is not compared.
    """
    with open(path, "rb") as file, _open_npz(path) as (archive, entries):
        return {
            name: (_map_npy if x.compress_type == zipfile.ZIP_STORED else _read_npy)(archive, name, x, file)
            for name, x in entries.items()
            if name in names
        }


def npz_names(path):
    """The names of the arrays in the .npz file at `path`."""
    with _open_npz(path) as (_, entries):
        return list(entries)


@contextmanager
def _open_npz(path):
    """Context manager: the zip file at `path`, and its entries {name of the array: entry}."""
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not a zip file, or is truncated")
    with zipfile.ZipFile(path) as archive:
        size = os.stat(path).st_size
        yield archive, {name.removesuffix(".npy"): x for name, x in zip_entries(archive, size, 100 * size).items()}


def zip_entries(archive, size, limit):
    """The entries {name: entry} of an open zip file of `size` bytes.

    Raises: ValueError when they declare more than `limit` bytes, when there are too many, when two have the same name, or
    when some are lost: a damaged length in the directory, which has no check sum, hides the entries behind it.
    """
    entries = archive.infolist()
    archive.fp.seek(max(0, size - 22 - 65535))  # the end of the directory has 22 bytes and a comment
    tail = archive.fp.read()
    count = tail[tail.rfind(b"PK\5\6") + 10 :][:2]
    if int.from_bytes(count, "little") not in (len(entries), 65535):  # 65535: the number is in another place
        raise ValueError("its directory is damaged")
    declared = sum(entry.file_size for entry in entries)
    if declared > limit:
        raise ValueError(f"its entries declare {declared} bytes, but the file has {size}")
    check_count(len(entries))
    named = {entry.filename: entry for entry in entries}
    if len({name.removesuffix(".npy") for name in named}) < len(entries):
        raise ValueError("it has two entries of the same name")
    return named


def check_count(count):
    """Raise ValueError for a file with more than MAX_ARRAYS arrays."""
    if count > MAX_ARRAYS:
        raise ValueError(f"it has {count} arrays, but at most {MAX_ARRAYS} are read")


def _read_npy(archive, name, entry, file=None):
    stream = io.BytesIO(archive.read(entry))  # zipfile compares the check sum when it has read all bytes
    shape, order, dtype = _npy_header(stream, name, entry.file_size)
    if 0 in shape or not dtype.itemsize:
        return np.zeros(shape, dtype)
    return np.frombuffer(stream.getvalue(), dtype, offset=stream.tell()).reshape(shape, order=order)


def _map_npy(archive, name, entry, file):
    """Memory-map the array in an uncompressed entry of the zip file, which is also open as `file`."""
    with archive.open(entry) as stream:
        while entry.file_size <= CHECKED and stream.read(2**20):
            pass
    file.seek(entry.header_offset + 26)  # the local header has 30 bytes, then a name and an extra field
    file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
    shape, order, dtype = _npy_header(file, name, entry.file_size)
    if 0 in shape or not dtype.itemsize:  # nothing to map
        return np.zeros(shape, dtype)
    return np.memmap(file.name, dtype, "r", file.tell(), shape, order)


def _npy_header(file, name, size):
    """Read the header of the array `name`, which has `size` bytes with its header -> (shape, "C" or "F", dtype)

    Raises: Pickled, and ValueError when the shape does not have exactly the bytes that are there.
    """
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    end = file.tell() + size
    version = np.lib.format.read_magic(file)
    if version not in header:
        raise ValueError(f"{name}.npy has version {version} of the format, not 1 or 2")
    with warnings.catch_warnings(action="ignore"):
        shape, by_columns, dtype = header[version](file)
    if dtype.hasobject:
        raise Pickled(name)
    left = end - file.tell()
    if not all(type(n) is int and n >= 0 for n in shape) or prod(shape) * dtype.itemsize != left:
        raise ValueError(f"{name}.npy has {left} bytes of numbers, which are not {shape} of {dtype}")
    return shape, "F" if by_columns else "C", dtype


_held = set()  # locks that this process holds; it may acquire them again


@contextmanager
def lock(path, wait=False):
    """Context manager: hold the lock file `path`. If another process holds it, wait, or raise InputError unless `wait`.

    The lock belongs to the open file, so it ends with its process. The file contains the process id of the holder.
    """
    path = writable(path)
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
