"""Download, check and unpack files. A file or folder gets its final name only when it is complete."""

import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import partial
from gzip import BadGzipFile
from http.client import HTTPException
from pathlib import PureWindowsPath
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from satnp.errors import InputError
from satnp.files import replacing, write_json

BLOCK = 1 << 18
BY_HAND = "or get it another way and give its folder with --from DIR"
# the exceptions that readers raise for damaged files
_BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, BadGzipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, LookupError,
    ArithmeticError, RuntimeError,
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A published file, and what to take from it."""

    name: str
    url: str | None = None
    form: str | None = None      # page with a request form, for a file without a url
    size: int | None = None      # bytes
    checksum: str | None = None  # "sha256:..." or "md5:...", if a public one is known
    members: tuple = ()          # patterns of the names to unpack from an archive; (): keep the file itself
    folder: str = ""             # folder of the members, which appears when all are unpacked
    also: tuple = ()             # other names of the file

    @property
    def places(self):
        """The files or folders in the data set's folder that exist when the source is prepared."""
        return (self.folder,) if self.folder else self.members or (self.name,)


def prepare(source, root, given=None):
    """Put the files of a source under `root`, from the folder `given` or by download."""
    if all((root / place).exists() for place in source.places):
        return
    root.mkdir(parents=True, exist_ok=True)
    path = root / source.name if given is None else _find(source, given)
    if given is None and not path.exists():
        download(source, path)
    else:
        verify(path, source, root)
    if source.members:
        extract(path, source, root)
        if given is None:
            path.unlink()
    elif given is not None:
        _need(root, path.stat().st_size, source.name)
        with replacing(root / source.name) as temporary:
            shutil.copyfile(path, temporary)


def _find(source, folder):
    names = (source.name, *source.also)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    where = f"get it from {source.url or source.form} and put it there"
    raise InputError(f"{folder} has no {' or '.join(names)}: {where}")


# fetching


def download(source, path):
    """Download a source to `path`. After an interruption, `path`.part has the first bytes and the next call continues it."""
    if source.url is None:
        raise InputError(
            f"{source.name} has no direct download: fill in the form at {source.form}, then give the folder of the file "
            "with --from DIR"
        )
    part = path.with_name(f"{path.name}.part")
    have = part.stat().st_size if part.exists() else 0
    if have != source.size:
        have, total = _fetch(source, part, have)
        if total is not None and have < total:
            raise InputError(f"{source.url} broke off after {have:,} of {total:,} bytes: run again to continue")
    try:
        verify(part, source, path.parent)
    except InputError:
        part.unlink()  # all bytes are there and wrong, so the next call must start again
        raise
    os.replace(part, path)


def _fetch(source, part, have):
    """Download the bytes after the first `have` -> (bytes in `part`, bytes of the whole file or None if unknown)"""
    response = _open(source.url, have)
    if response is None:
        return have, have
    with response:
        if response.status != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # the server sends the file from its first byte
        total = source.size if response.length is None else have + response.length
        if source.size not in (None, total):
            raise InputError(f"{source.url} has {total:,} bytes, not the {source.size:,} published: try later, {BY_HAND}")
        _need(part.parent, ((total or 0) - have) + (total or 0) * bool(source.members), source.name)
        with open(part, "ab" if have else "wb") as file, _bar(f"fetching {source.name}", total, have) as bar:
            for block in _blocks(response, source.url):
                file.write(block)
                have += len(block)
                bar.update(len(block))
    return have, total


def _open(url, have):
    """Request the bytes from `have` on -> response; None if there are no more bytes."""
    headers = {"User-Agent": "satnp", "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        return urlopen(Request(url, headers=headers), timeout=60)
    except HTTPError as error:
        if error.code == 416 and have:
            return None if error.headers.get("Content-Range") == f"bytes */{have}" else _open(url, 0)
        raise InputError(f"{url} answers {error.code} {error.reason}: try later, {BY_HAND}") from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(f"cannot reach {url} ({reason}): check the network and run again, {BY_HAND}") from None


def _blocks(response, url):
    while True:
        try:
            block = response.read(BLOCK)
        except (OSError, HTTPException) as error:
            raise InputError(f"the connection to {url} broke ({error}): run again to continue") from None
        if not block:
            return
        yield block


def verify(path, source, root):
    """Raise InputError unless the file has the published size and checksum; if none is public, record the computed one."""
    size = path.stat().st_size
    if source.size not in (None, size):
        raise InputError(f"{path} has {size:,} bytes, not the {source.size:,} published: get it again")
    kind, _, wanted = (source.checksum or "sha256:").partition(":")
    digest = hashlib.new(kind)
    with open(path, "rb") as file, _bar(f"checking {source.name}", size) as bar:
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    seen = digest.hexdigest()
    if wanted and seen != wanted:
        raise InputError(f"{path} has the {kind} {seen}, not the published {wanted}: get it again")
    if not wanted:
        print(f"{source.name}: sha256 {seen}; no public checksum is known to compare it with")
        write_json(root / f"{source.name}.checksum.json", {"file": source.name, "bytes": size, "sha256": seen})


# unpacking


@dataclass(frozen=True)
class _Member:
    """A file in an archive: its name, its size according to the archive, and a function that opens it."""

    name: str
    size: int
    open: object


def extract(path, source, root):
    """Unpack the members of a source from the archive at `path` into `root`, without the folders in their names.

    All members are checked before anything is written.
    Raises: InputError when the archive is damaged, lacks a member, or has a member that could be written outside `root`.
    """
    temporary = root / f".{source.places[0]}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with zipfile.ZipFile(path) if path.suffix == ".zip" else tarfile.open(path, tarinfo=_TarInfo) as archive:
            read = _zip_members if path.suffix == ".zip" else _tar_members
            chosen = _choose(list(read(archive, path)), source, path)
            _need(root, sum(member.size for member in chosen.values()), f"the content of {path.name}")
            temporary.mkdir()
            for name, member in tqdm(chosen.items(), f"unpacking {path.name}", unit=" files", disable=None):
                with member.open() as file, open(temporary / name, "wb") as out:
                    _copy(file, out, member, path)
        if source.folder:
            os.rename(temporary, root / source.folder)
        else:
            for name in chosen:
                os.replace(temporary / name, root / name)
    except InputError:
        raise
    except _BROKEN as error:
        seen = str(error).partition("\n")[0].rstrip(":")
        raise InputError(f"{path} is not a complete archive ({seen}): get it again") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _choose(members, source, path):
    """Choose the members that the source needs -> {name: member}"""
    chosen = {}
    for member in members:
        name = PureWindowsPath(member.name)  # splits at / and \ and knows drives
        if name.anchor or ".." in name.parts:
            raise InputError(f"{path} has the member {member.name!r}, which leads out of its folder: get the published file")
        if "__MACOSX" in name.parts or name.name.startswith("._") or not any(map(name.match, source.members)):
            continue
        if name.name in chosen:
            raise InputError(f"{path} has {name.name} twice: get the published file")
        chosen[name.name] = member
    for pattern in source.members:
        if not any(PureWindowsPath(name).match(pattern) for name in chosen):
            raise InputError(f"{path} has no {pattern}: get the published file")
    return chosen


def _zip_members(archive, path):
    for info in archive.infolist():
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            _refuse(info.filename, path)
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(
                f"{path} has the member {info.filename!r}, encrypted or in an unknown compression: get the published file"
            )
        if not info.is_dir():
            yield _Member(info.filename, info.file_size, partial(archive.open, info))


def _tar_members(archive, path):
    for info in archive:
        if not (info.isreg() or info.isdir()):
            _refuse(info.name, path)
        if info.isreg():
            yield _Member(info.name, info.size, partial(archive.extractfile, info))
    while archive.fileobj.read(BLOCK):  # read to the end, because gzip checks its checksum there
        pass


def _refuse(name, path):
    raise InputError(f"{path} has the member {name!r}, which is a link or a device: get the published file")


class _TarInfo(tarfile.TarInfo):
    """Raise ReadError for a damaged or missing header; tarfile takes it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def _copy(file, out, member, path):
    left = member.size
    while block := file.read(min(BLOCK, left + 1)):
        left -= len(block)
        if left < 0:
            break
        out.write(block)
    if left:
        raise InputError(f"{path} says that {member.name!r} has {member.size:,} bytes, but this is wrong: get it again")


def _need(folder, size, what):
    free = shutil.disk_usage(folder).free
    if free < size:
        raise InputError(f"{folder} has {free:,} bytes free, but {what} needs {size:,}: free space, or give another --out")


def _bar(what, total, done=0):
    return tqdm(desc=what, total=total, initial=done, unit="B", unit_scale=True, disable=None)
