"""The fetching scripts on archives made here and a server of this machine: laid out as satnp reads, whole or not at all."""

import dataclasses
import errno
import hashlib
import io
import json
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fetch
import mechanics
import pytest
from mechanics import Source

from satnp.data.datasets import load_split
from tests.data.test_datasets import write_coco, write_karpathy, write_token
from tests.small_world import write_flickr8k

CONTENT = bytes(range(256)) * 4000  # more than a block


@pytest.fixture
def things(monkeypatch):
    """The table, without the sizes and checksums of the published files."""

    def free(thing):
        sources = tuple(dataclasses.replace(source, size=None, checksum=None) for source in thing.sources)
        return dataclasses.replace(thing, sources=sources)

    monkeypatch.setattr(fetch, "THINGS", {name: free(thing) for name, thing in fetch.THINGS.items()})


def one_source(monkeypatch, **fields):
    """Make "flickr8k" a thing of one file."""
    monkeypatch.setitem(fetch.THINGS, "flickr8k", fetch.Thing("terms", (Source(**fields),), "use it in {root}"))


def run(tmp_path, capsys, *more):
    """-> exit status, what was said; a failure is one line."""
    status = fetch.main(["flickr8k", "--out", str(tmp_path / "out"), *map(str, more)])
    out, err = capsys.readouterr()
    assert (status == 2) == err.startswith("fetch: ") and err.count("\n") == (status == 2)
    return status, out + err


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def write_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def write_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def content_of(folder, prefix=""):
    return {f"{prefix}{path.name}": path.read_bytes() for path in sorted(folder.iterdir())}


# layouts


def pack_flickr8k(root, archives):
    write_flickr8k(root)
    photos = content_of(root / "Flicker8k_Dataset", "Flicker8k_Dataset/")
    resource_forks = {f"__MACOSX/Flicker8k_Dataset/._{Path(name).name}": b"mac" for name in photos}
    write_zip(archives / "Flickr8k_Dataset.zip", {"Flicker8k_Dataset/": b""} | photos | resource_forks)
    text = content_of(root / "Flickr8k_text") | {"readme.txt": b"", "__MACOSX/._Flickr8k.token.txt": b"mac"}
    write_zip(archives / "Flickr8k_text.zip", text)


def pack_flickr30k(root, archives, suffix):
    write_token(root)
    token = (root / "results_20130124.token").read_bytes()
    write_tar(archives / "flickr30k.tar.gz", {"readme.txt": b"", "results_20130124.token": token}, "w:gz")
    photos = content_of(root / "flickr30k-images", "flickr30k-images/")
    if suffix == ".zip":
        write_zip(archives / "flickr30k-images.zip", photos)
    else:
        write_tar(archives / f"flickr30k-images{suffix}", photos, "w:gz" if suffix.endswith("gz") else "w")
    images = {}
    for name, said in (line.split("\t") for line in token.decode().splitlines()):
        split = "val" if name < "05" else "test" if name < "10" else "train"
        entry = images.setdefault(name[:6], {"filename": name[:6], "split": split, "sentences": []})
        entry["sentences"].append({"raw": said})
    karpathy = json.dumps({"images": [*images.values()]}).encode()
    write_zip(archives / "caption_datasets.zip", {"dataset_flickr30k.json": karpathy, "dataset_coco.json": b"{}"})


def pack_coco(root, archives):
    write_coco(root)
    write_karpathy(root)
    for part in ("train2014", "val2014"):
        write_zip(archives / f"{part}.zip", content_of(root / part, f"{part}/"))
    annotations = content_of(root / "annotations", "annotations/") | {"annotations/instances_val2014.json": b"{}"}
    write_zip(archives / "annotations_trainval2014.zip", annotations)
    karpathy = (root / "dataset_coco.json").read_bytes()
    write_zip(archives / "caption_datasets.zip", {"dataset_coco.json": karpathy, "dataset_flickr8k.json": b"{}"})


LAYOUTS = {
    "flickr8k": ("flickr8k", pack_flickr8k),
    "flickr30k, tar": ("flickr30k", lambda *where: pack_flickr30k(*where, ".tar")),
    "flickr30k, tar.gz": ("flickr30k", lambda *where: pack_flickr30k(*where, ".tar.gz")),
    "flickr30k, zip": ("flickr30k", lambda *where: pack_flickr30k(*where, ".zip")),
    "coco": ("coco", pack_coco),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_archives_that_are_there_become_what_satnp_reads(tmp_path, capsys, things, layout):
    name, pack = LAYOUTS[layout]
    archives = tmp_path / "archives"
    archives.mkdir()
    pack(tmp_path / "made", archives)
    before = {path.name: path.read_bytes() for path in archives.iterdir()}
    line = [name, "--out", str(tmp_path / "out")]
    assert fetch.main([*line, "--check"]) == 1 and not (tmp_path / "out").exists()
    assert capsys.readouterr().out.count("missing: there is no ") == len(fetch.THINGS[name].sources)
    assert fetch.main([*line, "--from", str(archives)]) == 0
    root = tmp_path / "out" / name
    out, err = capsys.readouterr()
    assert f"complete: satnp train --data {fetch.THINGS[name].kinds[-1][0]} --root {root}" in out and not err
    for kind, captions in fetch.THINGS[name].kinds:
        for split in ("train", "val", "test"):
            both = root, tmp_path / "made"
            found, made = (load_split(kind, split, where, captions=captions and root / captions) for where in both)
            assert (found.names, found.captions) == (made.names, made.captions)
            assert [path.read_bytes() for path in found.photos] == [path.read_bytes() for path in made.photos]
    assert {path.name: path.read_bytes() for path in archives.iterdir()} == before
    assert not [path for path in files(root) if "tmp" in path or "._" in path or "readme" in path]

    assert fetch.main([*line, "--from", str(tmp_path / "nowhere")]) == 0  # there is nothing left to do
    photo = next(root.rglob("*.jpg"))
    photo.unlink()
    assert fetch.main([*line, "--check"]) == 1
    assert f"(the first is {photo.name})" in capsys.readouterr().out.replace(f"{photo.parent.name}/", "")


def test_photos_behind_a_form_are_said_to_be(tmp_path, capsys, things):
    archives = tmp_path / "archives"
    archives.mkdir()
    pack_flickr30k(tmp_path / "made", archives, ".tar")
    (archives / "flickr30k-images.tar").rename(tmp_path / "later.tar")
    assert fetch.main(["flickr30k", "--out", str(tmp_path), "--from", str(archives)]) == 2
    wanted = "flickr30k-images.tar or flickr30k-images.tar.gz or flickr30k-images.zip: get it from https://"
    assert f"{archives} has no {wanted}" in capsys.readouterr().err
    assert fetch.main(["flickr30k", "--out", str(tmp_path)]) == 2
    assert "flickr30k-images.tar has no direct download: fill in the form at https://" in capsys.readouterr().err


# fetching


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT in the way that the path says."""

    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("Range")))
        way, start = self.path[1:], int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if way == "gone":
            return self.send_error(404)
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        partial = start and way != "ignores"
        body = CONTENT[start:] if partial else CONTENT
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        if way != "unsaid":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if way == "short" else body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server of this machine: -> (its address, what it was asked for)."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *arguments: None  # of a client that has seen enough
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", server.seen
    server.shutdown()
    thread.join()
    server.server_close()


SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


@pytest.mark.parametrize("checksum", [SHA256, MD5])
@pytest.mark.parametrize("way", ["whole", "unsaid"])
def test_a_file_is_fetched_and_checked(tmp_path, capsys, monkeypatch, server, way, checksum):
    address, seen = server
    one_source(monkeypatch, name="w.pth", url=f"{address}/{way}", size=len(CONTENT), checksum=checksum)
    status, said = run(tmp_path, capsys)
    assert status == 0 and "complete: use it in " in said
    assert files(tmp_path) == ["out/flickr8k/w.pth"] and (tmp_path / "out/flickr8k/w.pth").read_bytes() == CONTENT
    assert run(tmp_path, capsys)[0] == 0 and seen == [(f"/{way}", None)]


def test_a_file_without_a_public_checksum_has_its_own_recorded(tmp_path, capsys, monkeypatch, server):
    one_source(monkeypatch, name="w.pth", url=f"{server[0]}/whole")
    status, said = run(tmp_path, capsys)
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert status == 0 and f"w.pth: sha256 {digest}; no public checksum is known to compare it with" in said
    record = json.loads((tmp_path / "out/flickr8k/w.pth.checksum.json").read_text())
    assert record == {"file": "w.pth", "bytes": len(CONTENT), "sha256": digest}


def test_a_connection_that_breaks_off_is_gone_on_with(tmp_path, capsys, monkeypatch, server):
    address, seen = server
    one_source(monkeypatch, name="w.pth", url=f"{address}/short", checksum=SHA256)
    status, said = run(tmp_path, capsys)
    half = len(CONTENT) // 2
    assert status == 2 and f"broke off after {half:,} of {len(CONTENT):,} bytes: run again" in said
    assert files(tmp_path) == ["out/flickr8k/w.pth.part"]
    one_source(monkeypatch, name="w.pth", url=f"{address}/whole", checksum=SHA256)
    assert run(tmp_path, capsys)[0] == 0
    assert seen[1:] == [("/whole", f"bytes={half}-")] and files(tmp_path) == ["out/flickr8k/w.pth"]


@pytest.mark.parametrize(
    ("way", "part", "asked"),
    [
        ("ignores", b"other bytes", 1),            # of a server that does not know Range
        ("whole", CONTENT + b"more", 2),           # of another, longer file
        ("whole", CONTENT, 1),                     # whole, but not yet checked
        ("whole", CONTENT[:-1], 1),
    ],
)  # fmt: skip
def test_whatever_part_is_there_the_file_comes_out_whole(tmp_path, capsys, monkeypatch, server, way, part, asked):
    address, seen = server
    one_source(monkeypatch, name="w.pth", url=f"{address}/{way}", checksum=SHA256)
    (tmp_path / "out/flickr8k").mkdir(parents=True)
    (tmp_path / "out/flickr8k/w.pth.part").write_bytes(part)
    assert run(tmp_path, capsys)[0] == 0
    assert files(tmp_path) == ["out/flickr8k/w.pth"] and len(seen) == asked
    assert (tmp_path / "out/flickr8k/w.pth").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"url": "{address}/gone"}, "/gone answers 404 Not Found: try later, or get it another way"),
        ({"url": "http://127.0.0.1:9/w"}, "cannot reach http://127.0.0.1:9/w ([Errno 111] Connection refused): check"),
        ({"url": "{address}/whole", "size": 7}, "has 1,024,000 bytes, not the 7 published"),
        ({"url": "{address}/unsaid", "size": 7}, "has 1,024,000 bytes, not the 7 published: get it again"),
        ({"url": "{address}/whole", "checksum": "md5:0123"}, f"has the {MD5.replace(':', ' ')}, not the published 0123"),
    ],
)
def test_what_cannot_be_fetched_gets_one_sentence_and_leaves_nothing(tmp_path, capsys, monkeypatch, server, fields, words):
    fields["url"] = fields["url"].format(address=server[0])
    one_source(monkeypatch, name="w.pth", **fields)
    status, said = run(tmp_path, capsys)
    assert status == 2 and words in said and not files(tmp_path)


def test_a_wrong_checksum_of_a_file_that_is_there_leaves_it_alone(tmp_path, capsys, monkeypatch):
    one_source(monkeypatch, name="w.pth", checksum=SHA256)
    (tmp_path / "w.pth").write_bytes(CONTENT[:-1])
    status, said = run(tmp_path, capsys, "--from", tmp_path)
    assert status == 2 and f"{tmp_path}/w.pth has the sha256 " in said and files(tmp_path) == ["w.pth"]
    (tmp_path / "w.pth").write_bytes(CONTENT)
    assert run(tmp_path, capsys, "--from", tmp_path)[0] == 0
    assert files(tmp_path) == ["out/flickr8k/w.pth", "w.pth"]
    (tmp_path / "out/flickr8k/w.pth").write_bytes(CONTENT[1:])
    status, said = run(tmp_path, capsys, "--check")
    assert status == 1 and "missing: " in said and "has the sha256 " in said


# unpacking


PHOTOS = {f"photos/{k}.jpg": bytes([k]) * 3000 for k in range(5)}


def zip_with(**attributes):
    """A zip whose last member has these attributes."""

    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in PHOTOS.items():
                archive.writestr(name, content)
            info = zipfile.ZipInfo("photos/last.jpg")
            for name, value in attributes.items():
                setattr(info, name, value)
            archive.writestr(info, b"/etc/passwd")

    return write


def tar_with(**attributes):
    def write(path):
        write_tar(path, PHOTOS)
        with tarfile.open(path, "a") as archive:
            info = tarfile.TarInfo("photos/last.jpg")
            for name, value in attributes.items():
                setattr(info, name, value)
            archive.addfile(info)

    return write


def cut(write, keep):
    """The archive without its end; `keep` of 1 or less is a part of it."""

    def write_cut(path):
        write(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep) if keep <= 1 else keep])

    return write_cut


def damaged(write, old, new):
    def write_damaged(path):
        write(path)
        path.write_bytes(path.read_bytes().replace(old, new, 1))

    return write_damaged


def plain_zip(path):
    write_zip(path, PHOTOS)


def plain_tar(path):
    write_tar(path, PHOTOS, "w:gz" if path.suffix == ".gz" else "w")


def longer_than_it_says(path):
    """A zip whose directory says 10 bytes of a member of 3,000."""
    plain_zip(path)
    content = path.read_bytes()
    at = content.index(b"PK\1\2") + 24
    assert int.from_bytes(content[at : at + 4], "little") == 3000
    path.write_bytes(content[:at] + (10).to_bytes(4, "little") + content[at + 4 :])


SYMLINK, OUT = (stat.S_IFLNK | 0o777) << 16, "which leads out of its folder"
HOSTILE = {
    "zip: up": ("a.zip", zip_with(filename="photos/../../evil.jpg"), OUT),
    "zip: up, where nothing is wanted of it": ("a.zip", zip_with(filename="../evil.txt"), OUT),
    "zip: absolute": ("a.zip", zip_with(filename="/tmp/evil.jpg"), OUT),
    "zip: up in Windows": ("a.zip", zip_with(filename="photos\\..\\..\\evil.jpg"), OUT),
    "zip: a drive": ("a.zip", zip_with(filename="C:evil.jpg"), OUT),
    "zip: a link": ("a.zip", zip_with(external_attr=SYMLINK), "'photos/last.jpg', which is a link or a device"),
    "zip: a pipe": ("a.zip", zip_with(external_attr=stat.S_IFIFO << 16), "is a link or a device"),
    "zip: bzip2": ("a.zip", zip_with(compress_type=zipfile.ZIP_BZIP2), "encrypted or in an unknown compression"),
    "zip: twice": ("a.zip", zip_with(filename="other/1.jpg"), "has 1.jpg twice"),
    "zip: cut": ("a.zip", cut(plain_zip, 0.9), "is not a complete archive (File is not a zip file): get it again"),
    "zip: empty": ("a.zip", cut(plain_zip, 0), "is not a complete archive"),
    "zip: damaged": ("a.zip", damaged(zip_with(), b"\2" * 3000, b"\2" * 2999 + b"\3"), "(Bad CRC-32 for file"),
    "zip: longer than it says": ("a.zip", longer_than_it_says, "is not a complete archive (Bad CRC-32"),
    "zip: other photos": ("a.zip", lambda path: write_zip(path, {"a.png": b""}), "has no *.jpg: get the published file"),
    "tar: up": ("a.tar", tar_with(name="photos/../../evil.jpg"), OUT),
    "tar: absolute": ("a.tar", tar_with(name="/tmp/evil.jpg"), OUT),
    "tar: a symbolic link": ("a.tar", tar_with(type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link or a device"),
    "tar: a hard link": ("a.tar", tar_with(type=tarfile.LNKTYPE, linkname="photos/1.jpg"), "is a link or a device"),
    "tar: a device": ("a.tar", tar_with(type=tarfile.CHRTYPE), "is a link or a device"),
    "tar: a pipe": ("a.tar", tar_with(type=tarfile.FIFOTYPE), "is a link or a device"),
    "tar: cut in a member": ("a.tar", cut(plain_tar, 5000), "is not a complete archive (unexpected end of data)"),
    "tar: cut between members": ("a.tar", cut(plain_tar, 512 * 14), "is not a complete archive (empty header)"),
    "tar: cut in a header": ("a.tar", cut(plain_tar, 512 * 14 + 99), "is not a complete archive (truncated header)"),
    "tar: damaged": ("a.tar", damaged(plain_tar, b"photos/3", b"photos/4"), "is not a complete archive (bad checksum)"),
    "tar: empty": ("a.tar", cut(plain_tar, 0), "is not a complete archive"),
    "tar.gz: cut": ("a.tar.gz", cut(plain_tar, 0.7), "is not a complete archive (Compressed file ended before"),
    "tar.gz: cut after its members": ("a.tar.gz", cut(plain_tar, 0.97), "is not a complete archive (Compressed file ended"),
    "tar.gz: no gz": ("a.tar.gz", damaged(plain_tar, b"\x1f\x8b", b"\x1f\x8c"), "(file could not be opened successfully)"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_bad_archive_gets_one_sentence_and_nothing_of_it_is_kept(tmp_path, capsys, monkeypatch, what):
    name, write, words = HOSTILE[what]
    (tmp_path / "from").mkdir()
    write(tmp_path / "from" / name)
    one_source(monkeypatch, name=name, members=("*.jpg",), folder="photos")
    status, said = run(tmp_path, capsys, "--from", tmp_path / "from")
    assert status == 2 and words in said
    assert files(tmp_path) == [f"from/{name}", f"out/flickr8k/{name}.checksum.json"]
    assert [path.name for path in (tmp_path / "out/flickr8k").iterdir()] == [f"{name}.checksum.json"]


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
@pytest.mark.parametrize("keep", range(5, 100, 5))
def test_an_archive_cut_anywhere_is_refused(tmp_path, name, keep):
    source = Source(name, members=("*.jpg",), folder="photos")
    write = plain_zip if name == "a.zip" else plain_tar
    write(tmp_path / name)
    mechanics.extract(tmp_path / name, source, tmp_path)
    assert {f"photos/{path.name}": path.read_bytes() for path in (tmp_path / "photos").iterdir()} == PHOTOS
    shutil.rmtree(tmp_path / "photos")
    content = (tmp_path / name).read_bytes()
    end = len(content) if name != "a.tar" else content.index(b"\4" * 3000) + 3072  # what follows is padding
    cut(write, end * keep // 100)(tmp_path / name)
    with pytest.raises(ValueError, match="is not a complete archive"):
        mechanics.extract(tmp_path / name, source, tmp_path)
    assert files(tmp_path) == [name]


def test_a_member_with_more_or_fewer_bytes_than_said_is_refused():
    for size in (4, 6):
        with pytest.raises(ValueError, match="but this is wrong"):
            mechanics._copy(io.BytesIO(b"12345"), io.BytesIO(), mechanics._Member("a", size, None), "a.zip")


# disks


def test_room_is_looked_for_before_anything_is_fetched_or_unpacked(tmp_path, capsys, monkeypatch, server):
    free = 2000
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, free))
    one_source(monkeypatch, name="w.pth", url=f"{server[0]}/whole")
    status, said = run(tmp_path, capsys)
    assert status == 2 and "has 2,000 bytes free, but w.pth needs 1,024,000: free space" in said and not files(tmp_path)
    one_source(monkeypatch, name="a.zip", url=f"{server[0]}/whole", members=("*.jpg",), folder="photos")
    assert "a.zip needs 2,048,000" in run(tmp_path, capsys)[1] and not files(tmp_path)  # it and what is in it
    plain_zip(tmp_path / "a.zip")
    status, said = run(tmp_path, capsys, "--from", tmp_path)
    assert status == 2 and "the content of a.zip needs 15,000" in said
    assert files(tmp_path) == ["a.zip", "out/flickr8k/a.zip.checksum.json"]


class Full(io.BytesIO):
    def write(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("last", ["w.pth.part", "3.jpg"])
def test_a_disk_that_fills_up_gets_one_sentence(tmp_path, capsys, monkeypatch, server, last):
    def limited(path, mode):
        return Full() if Path(path).name == last and mode != "rb" else open(path, mode)

    monkeypatch.setattr(mechanics, "open", limited, raising=False)
    plain_zip(tmp_path / "a.zip")
    if last == "3.jpg":
        one_source(monkeypatch, name="a.zip", members=("*.jpg",), folder="photos")
        status, said = run(tmp_path, capsys, "--from", tmp_path)
    else:
        one_source(monkeypatch, name="w.pth", url=f"{server[0]}/whole")
        status, said = run(tmp_path, capsys)
    assert status == 2 and f"cannot write or read under {tmp_path}/out/flickr8k (No space left on device)" in said
    assert [name for name in files(tmp_path / "out") if not name.endswith(".checksum.json")] == []


def test_an_interrupted_unpacking_leaves_nothing_and_starts_again(tmp_path, capsys, monkeypatch):
    plain_zip(tmp_path / "a.zip")
    one_source(monkeypatch, name="a.zip", members=("*.jpg",), folder="photos")
    copy, copied = mechanics._copy, []

    def interrupted(*arguments):
        copied.append(arguments)
        if len(copied) == 3:
            raise KeyboardInterrupt
        copy(*arguments)

    monkeypatch.setattr(mechanics, "_copy", interrupted)
    assert fetch.main(["flickr8k", "--out", str(tmp_path / "out"), "--from", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "fetch: interrupted; run again to continue\n"
    assert files(tmp_path / "out") == ["flickr8k/a.zip.checksum.json"]
    (tmp_path / "out/flickr8k/.photos.tmp").mkdir()  # as a power cut leaves it
    (tmp_path / "out/flickr8k/.photos.tmp/old.jpg").touch()
    assert run(tmp_path, capsys, "--from", tmp_path)[0] == 0
    assert content_of(tmp_path / "out/flickr8k/photos", "photos/") == PHOTOS


def test_a_downloaded_archive_is_unpacked_and_removed(tmp_path, capsys, monkeypatch, server):
    plain_zip(tmp_path / "a.zip")
    monkeypatch.setitem(globals(), "CONTENT", (tmp_path / "a.zip").read_bytes())
    one_source(monkeypatch, name="b.zip", url=f"{server[0]}/whole", members=("*.jpg",), folder="photos")
    assert run(tmp_path, capsys)[0] == 0
    assert files(tmp_path / "out/flickr8k") == ["b.zip.checksum.json", *PHOTOS]


# the table


def test_the_script_runs_from_anywhere(tmp_path):
    script = Path(fetch.__file__)
    done = subprocess.run([sys.executable, script, "coco", "--check"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "missing: there is no data/coco/train2014\n" in done.stdout and not done.stderr


@pytest.mark.parametrize("name", fetch.THINGS)
def test_the_table_is_whole(name):
    for source in fetch.THINGS[name].sources:
        assert (source.url is None) == (source.form is not None)
        if source.checksum:
            kind, _, digest = source.checksum.partition(":")
            assert len(bytes.fromhex(digest)) == hashlib.new(kind).digest_size
        if source.name.endswith(".pth"):  # torchvision's names end in the first digits
            assert source.checksum.startswith(f"sha256:{source.name[:-4].rpartition('-')[2]}")
            assert source.url.endswith(f"/{source.name}")
