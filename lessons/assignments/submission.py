"""Copies a submission, a folder or a zip that contains the package, to a folder of the grader."""

import ast
import io
import os
import stat
import zipfile
from pathlib import Path, PurePosixPath
from threading import Lock

from satnp.terminal import few

FILES, BYTES = 200, 10 * 2**20  # limits of a submission
PARSING = Lock()  # CPython 3.11 counts the depth of the trees of all threads together, and then raises SystemError
REFUSED = ("satnp", "lessons", "torch", "jax", "autograd", "tensorflow", "cupy", "keras", "mxnet", "theano", "paddle")
SKIPPED = "__pycache__", ".git", ".venv", "venv", ".pytest_cache", "__MACOSX", "site-packages"


class Refused(Exception):
    """The submission cannot be marked; one sentence says why."""


def unpack(path, package, folder):
    """Copy the package out of `path` into `folder` -> its files, remarks. Raises Refused.

    The package is the folder `package` that is the least deep in the submission. Course systems hand out a folder for each
    student with one zip in it, so a zip is opened where there is no such folder.
    """
    path = Path(path)
    if path.is_dir():
        files = _of_folder(path)
    elif path.is_file() and zipfile.is_zipfile(path):
        files = _of_zip(path)
    else:
        raise Refused(f"{path.name} is neither a folder nor a zip")
    roots, zips = _roots(files, package), [name for name in files if name.suffix.lower() == ".zip"]
    if not roots and len(zips) == 1:
        files = _of_zip(files[zips[0]]())
        roots = _roots(files, package)
    elif not roots and zips:
        raise Refused(f"there is no folder {package}/, but {len(zips)} zips: {few([*map(str, zips)])}; hand in one")
    if not roots:
        raise Refused(f"there is no folder {package}/ with Python files in it")
    root, *others = roots
    if others and len(others[0].parts) == len(root.parts):
        raise Refused(f"there are several folders {package}/: {few([str(x / package) for x in roots])}; hand in one")
    mine = {name.relative_to(root): x for name, x in files.items() if name.is_relative_to(root / package)}
    mine = {name: x for name, x in mine.items() if name.suffix == ".py"}
    for name, content in mine.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content())
    said = [f"marked {root / package}/, not {few([f'{x / package}/' for x in others])}"] if others else []
    return [str(name) for name in mine], said


def _roots(files, package):
    """The folders that contain the package, the least deep one first."""
    found = {PurePosixPath(*name.parts[: name.parts.index(package)]) for name in files
             if name.suffix == ".py" and package in name.parts[:-1]}  # fmt: skip
    return sorted(found, key=lambda root: (len(root.parts), root))


def _of_folder(path):
    files, total = {}, 0
    for at, folders, names in os.walk(path):
        folders[:] = [x for x in folders if x not in SKIPPED]
        for name in sorted(names):
            file = Path(at) / name
            if not name.endswith(".py") and not name.lower().endswith(".zip"):
                continue
            if file.is_symlink() or not stat.S_ISREG(file.lstat().st_mode):
                raise Refused(f"{file.relative_to(path)} is a link or not a regular file")
            name = PurePosixPath(file.relative_to(path).as_posix())
            if name.suffix != ".py":
                files[name] = lambda file=file: file
                continue
            total += file.stat().st_size
            _count(len(files) + 1, total)
            files[name] = file.read_bytes
    return files


def _of_zip(path):
    try:
        with zipfile.ZipFile(path) as archive:
            members, total, files = archive.infolist(), 0, {}
            for member in members:
                name = PurePosixPath(member.filename.replace("\\", "/"))
                if name.is_absolute() or ".." in name.parts or ":" in member.filename or "\0" in member.filename:
                    raise Refused(f"the zip has an entry that leaves its folder: {member.filename!r}")
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise Refused(f"the zip has a link in it: {member.filename!r}")
                if member.is_dir() or name.suffix.lower() not in (".py", ".zip") or not {*SKIPPED}.isdisjoint(name.parts):
                    continue
                if name.suffix != ".py" and member.file_size > BYTES:  # a zip of data
                    continue
                if name in files:
                    raise Refused(f"the zip has two entries of the name {member.filename!r}")
                total += member.file_size
                _count(len(files) + 1, total)
                with archive.open(member) as opened:
                    content = opened.read(BYTES + 1)  # the size in the header is not trusted
                if len(content) > member.file_size:
                    raise Refused(f"the zip states a false size of {member.filename!r}")
                content = content if name.suffix == ".py" else io.BytesIO(content)
                files[name] = lambda content=content: content
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
        raise Refused(f"the zip cannot be read: {error}") from None
    return files


def _count(files, size):
    if files > FILES or size > BYTES:
        raise Refused(f"too large: at most {FILES} Python files of {BYTES // 2**20} MiB together are read")


def imports(folder, files):
    """Refused modules that the files import, as (file, line, module)."""
    found = []
    for name in files:
        try:
            with PARSING:
                tree = ast.parse((folder / name).read_bytes())
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # the import will report it
        for node in ast.walk(tree):
            modules = []
            if isinstance(node, ast.Import):
                modules = [x.name for x in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            found += [(name, node.lineno, x) for x in modules if x.partition(".")[0] in REFUSED]
    return found
