"""Files that are written whole or not at all, and read as far as they are whole."""

import json
import os
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np

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
        finally:
            temporary.unlink(missing_ok=True)


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
