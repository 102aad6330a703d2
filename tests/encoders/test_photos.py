"""Photo files of every kind are read upright, on white, or refused with one sentence."""

import gzip
import io
import os
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import ExifTags, Image, UnidentifiedImageError

from satnp.checkpoint import load, save
from satnp.cli import main
from satnp.data.datasets import load_split
from satnp.data.split import Split
from satnp.encoders.photos import read_photo
from satnp.errors import InputError
from satnp.training.presets import PRESETS, new_model
from tests.small_world import write_flickr8k

RED, GREEN, BLUE, WHITE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (128, 128, 128)
LOSSY = ("jpg", "webp")


def blocks(*rows, side=16):
    """A picture of one-coloured squares: rows of pixels -> uint8 (rows * side, columns * side, channels)."""
    return np.kron(np.array(rows, np.uint8), np.ones((side, side, 1), np.uint8))


PICTURE = blocks([RED, GREEN, BLUE], [WHITE, GREY, RED])


def assert_shows(path, wanted):
    seen = read_photo(path)
    assert seen.dtype == np.uint8 and seen.shape == wanted.shape
    inner = np.s_[4:-4, 4:-4] if path.suffix[1:] in LOSSY else np.s_[:]
    difference = np.abs(seen.astype(int) - wanted)[inner]
    assert np.median(difference) <= 2 and (path.suffix[1:] in LOSSY or difference.max() <= 1)


def write_png(path, x):
    """16 bits a channel, which Pillow reads and does not write: x (R, S, channels) uint16"""
    rows, columns, channels = x.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", columns, rows, 16, kind, 0, 0, 0)
    data = b"".join(b"\0" + row.astype(">u2").tobytes() for row in x)
    write_chunks(path, (b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b""))


def write_chunks(path, *chunks):
    framed = (struct.pack(">I", len(x)) + name + x + struct.pack(">I", zlib.crc32(name + x)) for name, x in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))


@pytest.mark.parametrize("kind", ["jpg", "tif"])
def test_inks_are_read_as_light(tmp_path, kind):
    path = tmp_path / f"inks.{kind}"
    inks = blocks([(0, 255, 255, 0), (255, 0, 255, 0), (255, 255, 0, 0)], [(0, 0, 0, 0), (0, 0, 0, 127), (0, 255, 255, 0)])
    Image.fromarray(inks, "CMYK").save(path, **({"quality": 95} if kind == "jpg" else {}))
    if kind == "jpg":
        assert b"Adobe" in path.read_bytes()[:200]  # its inks are stored inverted
    assert_shows(path, PICTURE)


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "bmp", "gif", "webp"])
def test_grey_is_grey(tmp_path, kind):
    grey = blocks([[0], [90], [255]])
    Image.fromarray(grey[..., 0]).save(tmp_path / f"grey.{kind}")
    assert_shows(tmp_path / f"grey.{kind}", grey.repeat(3, 2))


def test_one_bit_is_black_and_white(tmp_path):
    bits = blocks([[0], [255], [0]])
    for kind in ("png", "tif", "bmp"):
        Image.fromarray(bits[..., 0]).convert("1").save(tmp_path / f"bits.{kind}")
        assert_shows(tmp_path / f"bits.{kind}", bits.repeat(3, 2))


def test_16_bits_a_channel_keep_their_brightness(tmp_path, rng):
    wanted = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    grey = wanted[..., :1].repeat(3, 2)
    deep = wanted.astype(np.uint16) * 257
    opaque = np.full((30, 40, 1), 65535, np.uint16)
    write_png(tmp_path / "grey.png", deep[..., :1])
    write_png(tmp_path / "rgb.png", deep)
    write_png(tmp_path / "grey-alpha.png", np.dstack([deep[..., :1], opaque]))
    write_png(tmp_path / "rgb-alpha.png", np.dstack([deep, opaque]))
    Image.fromarray(deep[..., 0]).save(tmp_path / "grey.tif")
    for name, shown in (("grey.png", grey), ("rgb.png", wanted), ("grey-alpha.png", grey), ("rgb-alpha.png", wanted)):
        assert_shows(tmp_path / name, shown)
    assert_shows(tmp_path / "grey.tif", grey)


def test_what_is_transparent_shows_white_paper(tmp_path):
    shown = blocks([RED, WHITE, (255, 127, 127)])
    clear = blocks([(*RED, 255), (*BLUE, 0), (*RED, 128)])
    Image.fromarray(clear).save(tmp_path / "rgba.png")
    Image.fromarray(clear).save(tmp_path / "rgba.webp", lossless=True)
    write_png(tmp_path / "deep.png", clear.astype(np.uint16) * 257)
    for name in ("rgba.png", "rgba.webp", "deep.png"):
        assert_shows(tmp_path / name, shown)
    Image.fromarray(blocks([(10, 255), (10, 0), (10, 128)]), "LA").save(tmp_path / "la.png")
    assert_shows(tmp_path / "la.png", blocks([[10] * 3, WHITE, [132] * 3]))


def test_a_palette_with_transparency_shows_white_paper(tmp_path):
    photo = Image.fromarray(blocks([[0], [1], [2]])[..., 0], "P")
    photo.putpalette([*RED, *BLUE, *GREEN])
    photo.save(tmp_path / "plain.png")
    assert_shows(tmp_path / "plain.png", blocks([RED, BLUE, GREEN]))
    for kind in ("png", "gif"):
        photo.save(tmp_path / f"one.{kind}", transparency=1)
        assert_shows(tmp_path / f"one.{kind}", blocks([RED, WHITE, GREEN]))
    photo.save(tmp_path / "many.png", transparency=bytes([255, 0, 128]))
    assert_shows(tmp_path / "many.png", blocks([RED, WHITE, (127, 255, 127)]))
    Image.fromarray(blocks([RED, BLUE, GREEN])).save(tmp_path / "colour.png", transparency=BLUE)
    assert_shows(tmp_path / "colour.png", blocks([RED, WHITE, GREEN]))


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "tif"])
def test_of_what_moves_the_first_frame_is_taken(tmp_path, kind):
    frames = [Image.fromarray(blocks(row)) for row in ([RED, GREEN], [BLUE, WHITE], [GREY, BLUE])]
    frames[0].save(tmp_path / f"film.{kind}", save_all=True, append_images=frames[1:], duration=100)
    with Image.open(tmp_path / f"film.{kind}") as film:
        assert film.n_frames == 3
    assert_shows(tmp_path / f"film.{kind}", blocks([RED, GREEN]))


STORED = {  # EXIF 2.3, table 6: which side of the photo the first row and the first column are
    1: PICTURE,
    2: PICTURE[:, ::-1],
    3: PICTURE[::-1, ::-1],
    4: PICTURE[::-1],
    5: PICTURE.transpose(1, 0, 2),
    6: PICTURE.transpose(1, 0, 2)[::-1],
    7: PICTURE.transpose(1, 0, 2)[::-1, ::-1],
    8: PICTURE.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
def test_a_photo_is_turned_upright(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    photo.save(tmp_path / f"turned.{kind}", exif=exif, **({"quality": 95} if kind == "jpg" else {}))
    assert_shows(tmp_path / f"turned.{kind}", PICTURE)


@pytest.mark.parametrize("tags", [b"", b"\x10\x01\x02\0\x05\0\0\0\x63\0\0\0", b"\x1a\x01\x02\0\x02\0\0\0ab\0\0"])
def test_a_photo_with_mangled_tags_is_still_turned(tmp_path, tags):
    tags = b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + tags
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(tags) // 12) + tags + b"\0\0"
    Image.fromarray(np.ascontiguousarray(STORED[6])).save(tmp_path / "tags.jpg", exif=exif, quality=95)
    assert_shows(tmp_path / "tags.jpg", PICTURE)
    Image.fromarray(PICTURE).save(tmp_path / "none.jpg", exif=b"Exif\0\0nonsense", quality=95)
    assert_shows(tmp_path / "none.jpg", PICTURE)


@pytest.mark.parametrize("white", [1.0, 255.0])
def test_a_photo_of_fractions_is_as_bright_as_one_of_bytes(tmp_path, white):
    Image.fromarray(np.array([[0.0, white / 2, white]], np.float32)).save(tmp_path / "float.tif")
    assert read_photo(tmp_path / "float.tif")[0, :, 0].tolist() == [0, 127, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_one_pixel_is_a_photo(tmp_path, mode):
    path = tmp_path / ("one.tif" if mode == "CMYK" else "one.png")
    Image.new(mode, (1, 1)).save(path)
    shown = 255 if mode in ("LA", "RGBA", "CMYK") else 0
    assert (read_photo(path, 7) == np.full((7, 7, 3), shown)).all()


def photo_bytes(folder, kind, rng):
    path = folder / f"whole.{kind}"
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["jpg", "png", "gif", "tif", "webp", "bmp"])
@pytest.mark.parametrize("part", [0.001, 0.01, 0.1, 0.5, 0.9])
def test_a_truncated_photo_is_refused(tmp_path, rng, kind, part):
    whole = photo_bytes(tmp_path, kind, rng)
    (tmp_path / f"cut.{kind}").write_bytes(whole[: int(part * len(whole)) + 1])
    with pytest.raises(InputError, match=rf"cut\.{kind} cannot be read as a photo \(.+\); give a whole, readable JPEG"):
        read_photo(tmp_path / f"cut.{kind}")


@pytest.mark.parametrize("kind", ["jpg", "png", "gif", "tif", "webp", "bmp"])
def test_a_mangled_photo_is_read_or_refused(tmp_path, rng, kind):
    whole, refused = np.frombuffer(photo_bytes(tmp_path, kind, rng), np.uint8), 0
    for _ in range(100):
        mangled = whole.copy()
        mangled[rng.integers(0, min(400, len(whole)), 4)] = rng.integers(0, 256, 4)
        (tmp_path / f"mangled.{kind}").write_bytes(mangled.tobytes())
        try:
            assert read_photo(tmp_path / f"mangled.{kind}").shape[2] == 3
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused


@pytest.mark.parametrize(("columns", "rows"), [(10001, 10000), (50000, 50000), (2**31 - 1, 2**31 - 1)])
def test_more_than_100_megapixels_are_refused_before_decoding(tmp_path, columns, rows):
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    write_chunks(tmp_path / "huge.png", (b"IHDR", header), (b"IDAT", b"no pixels"))
    with pytest.raises(InputError, match=r"huge\.png .*pixels.*; at most 100 megapixels are read; give a smaller copy$"):
        read_photo(tmp_path / "huge.png")


def write_bmp(path, columns, rows):
    header = struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, columns, rows, 1, 24, 0, 0, 0, 0, 0, 0)
    path.write_bytes(b"BM" + header + bytes(45))


def write_header_of_png(path, columns, rows):
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    write_chunks(path, (b"IHDR", header), (b"IDAT", b"no pixels"))


def write_ppm(path, columns, rows):
    path.write_bytes(b"P6 %d %d 255\n\0\0\0" % (columns, rows))


def write_tiff(path, columns, rows):
    tags = [(256, columns), (257, rows), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, rows), (279, 8)]
    ifd = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path.write_bytes(b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + ifd + bytes(4))


@pytest.mark.parametrize("write", [write_header_of_png, write_bmp, write_ppm, write_tiff])
@pytest.mark.parametrize(("columns", "rows"), [(1, 10**8), (1, 6 * 10**7), (6 * 10**7, 1), (1, 65501)])
def test_more_than_65500_pixels_a_side_are_refused_before_memory_is_taken(tmp_path, write, columns, rows, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)  # where Pillow allocates
    write(tmp_path / "flat", columns, rows)
    wanted = f"{tmp_path}/flat has {columns} x {rows} pixels; at most 65500 a side are read; give a smaller copy"
    with pytest.raises(InputError, match=f"^{wanted}$"):
        read_photo(tmp_path / "flat", 8)


def test_an_array_has_the_same_bounds():
    assert read_photo(np.full((65500, 1, 3), 7, np.uint8), 2).tolist() == np.full((2, 2, 3), 7).tolist()
    for shape, words in (
        ((65501, 1), "1 x 65501 pixels; at most 65500 a side are read"),
        ((1, 70000), "70000 x 1 pixels; at most 65500 a side are read"),
        ((20000, 20000), "20000 x 20000 pixels; at most 100 megapixels are read"),
    ):
        photo = np.broadcast_to(np.zeros(3, np.uint8), (*shape, 3))
        with pytest.raises(InputError, match=f"^the photo has {words}; give a smaller copy$"):
            read_photo(photo)


@pytest.mark.parametrize("where", ["PIL.ImageFile.ImageFile.load", "PIL.Image.Image.resize", "PIL.Image.Image.convert"])
def test_a_lack_of_memory_is_the_sentence_of_the_photo(tmp_path, monkeypatch, where):
    def too_much(*args, **kwargs):
        raise MemoryError

    Image.new("P", (8, 4)).save(tmp_path / "x.png")
    monkeypatch.setattr(where, too_much)
    with pytest.raises(InputError, match=r"x\.png needs more memory than there is; give a smaller copy$"):
        read_photo(tmp_path / "x.png", 2)


@pytest.mark.parametrize(
    "kind",
    ["JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "PCX", "SGI", "QOI", "TGA"],
)
def test_every_format_of_photos_is_read(tmp_path, kind):
    Image.init()
    if kind in ("AVIF", "QOI") and kind not in Image.SAVE:  # older versions lack these two
        pytest.skip(f"this Pillow does not write {kind}")
    Image.new("RGB", (8, 4), (250, 10, 10)).save(tmp_path / "x.jpg", kind)
    seen = read_photo(tmp_path / "x.jpg")
    assert seen.shape == (4, 8, 3) and abs(seen.astype(int) - (250, 10, 10)).max() < 12


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "EPS"),
        (b"\xc5\xd0\xd3\xc6\x1e\0\0\0", "EPS"),
        (b"\xd7\xcd\xc6\x9a\0\0", "WMF"),
        (b"\1\0\0\0" + bytes(36) + b" EMF", "WMF"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"BUFR", "BUFR"),
        (b"\0\0\1\0\1\0", "ICO"),
    ],
)
@pytest.mark.parametrize("ending", ["jpg", "eps"])
def test_what_is_not_a_format_of_photos_is_not_opened(tmp_path, monkeypatch, start, kind, ending):
    monkeypatch.setattr("subprocess.Popen", None)  # no program is run
    monkeypatch.setattr("PIL.EpsImagePlugin.EpsImageFile._open", None)
    (tmp_path / f"x.{ending}").write_bytes(start + bytes(100))
    words = rf"x\.{ending} cannot be read as a photo \(it is {kind}, which is not a format of photos\); give a whole"
    with pytest.raises(InputError, match=words):
        read_photo(tmp_path / f"x.{ending}")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "jpeg"])
def test_a_broken_tiff_gets_our_sentence_only(tmp_path, rng, capfd, compression):
    path = tmp_path / "x.tif"
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path, compression=compression)
    whole = path.read_bytes()
    path.write_bytes(whole[:8] + b"\xff" * 400 + whole[408:])
    here = os.fstat(2)

    def read(_):
        with pytest.raises(InputError, match=r"x\.tif cannot be read as a photo \(.+\); give a whole"):
            read_photo(path)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(20)))
    assert os.path.samestat(os.fstat(2), here)
    os.write(2, b"still there")
    assert capfd.readouterr() == ("", "still there")


def test_a_tiff_of_which_pillow_complains_gets_our_sentence_only(tmp_path):
    """Pillow logs an error, which Python writes to stderr where nobody has asked for logs."""
    tags = [(256, 4), (257, 4), (258, 8), (259, 1), (262, 2), (273, 8), (277, 64), (278, 4), (279, 48)]
    ifd = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    (tmp_path / "x.tif").write_bytes(b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + ifd + bytes(4))
    code = "import sys; from satnp.encoders.photos import read_photo; read_photo(sys.argv[1])"
    child = subprocess.run([sys.executable, "-c", code, tmp_path / "x.tif"], capture_output=True, text=True)
    assert child.stderr.startswith("Traceback") and "cannot be read as a photo (it is not an image)" in child.stderr


def test_a_photo_is_read_without_a_stderr(tmp_path):
    Image.new("RGB", (8, 4)).save(tmp_path / "x.tif", compression="tiff_lzw")
    code = "import sys; from satnp.encoders.photos import read_photo; print(read_photo(sys.argv[1]).shape)"
    command = ["sh", "-c", '"$@" 2>&-', "sh", sys.executable, "-c", code, tmp_path / "x.tif"]
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout == "(4, 8, 3)\n"


def test_100_megapixels_are_not_too_many(tmp_path, recwarn):
    header = struct.pack(">IIBBBBB", 10000, 10000, 8, 2, 0, 0, 0)
    write_chunks(tmp_path / "large.png", (b"IHDR", header), (b"IDAT", b"no pixels"))
    with pytest.raises(InputError, match="cannot be read as a photo"):  # there are none to decode
        read_photo(tmp_path / "large.png")
    assert not recwarn


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    split = load_split("flickr8k", "test", write_flickr8k(folder / "data", 1, 1, 1))
    save(folder / "untrained.npz", new_model(PRESETS["scenes"], split))
    return folder / "untrained.npz"


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("none", "there is no photo {path}; check the name"),
        ("folder", "{path} is a folder; give the photos in it"),
        ("empty", "{path} cannot be read as a photo (it is empty); give a whole, readable JPEG or PNG file"),
        ("text", "{path} cannot be read as a photo (it is not an image); give a whole, readable JPEG or PNG file"),
        ("pipe", "there is no photo {path}; check the name"),
    ],
)
def test_what_is_no_photo_gets_one_sentence(tmp_path, checkpoint, capsys, what, words):
    path = tmp_path / f"{what}.jpg"
    {
        "none": lambda: None,
        "folder": path.mkdir,
        "empty": path.touch,
        "text": lambda: path.write_text("hello"),
        "pipe": lambda: os.mkfifo(path),
    }[what]()
    assert main(["caption", str(checkpoint), str(path)]) == 2
    out, err = capsys.readouterr()
    assert not out and err == f"satnp: {words.format(path=path)}\n"


def test_a_photo_that_may_not_be_read_is_refused(tmp_path):
    path, user = tmp_path / "secret.png", os.geteuid()
    Image.new("RGB", (4, 4)).save(path)
    path.chmod(0)
    if user == 0:  # root may read everything
        os.seteuid(65534)
    try:
        with pytest.raises(InputError, match=r"secret\.png cannot be read as a photo \(Permission denied\); give a whole"):
            read_photo(path)
    finally:
        os.seteuid(user)


class Stream:
    """What comes over a network: it can be read, once."""

    def __init__(self, data):
        self.data = data

    def read(self, size=-1):
        data, self.data = self.data, b""
        return data


HELD = {
    "a path": lambda path: path,
    "a text": str,
    "bytes": lambda path: path.read_bytes(),
    "a bytearray": lambda path: bytearray(path.read_bytes()),
    "a memoryview": lambda path: memoryview(path.read_bytes()),
    "an open file": lambda path: open(path, "rb"),
    "a file that was read": lambda path: (file := io.BytesIO(path.read_bytes()), file.read())[0],
    "a stream": lambda path: Stream(path.read_bytes()),
    "a PIL image": Image.open,
    "a loaded PIL image": lambda path: (image := Image.open(path), image.load())[0],
    "an array": lambda path: read_photo(path),
}


@pytest.mark.parametrize("what", HELD)
def test_a_photo_is_taken_as_people_hold_it(tmp_path, what):
    path = tmp_path / "x.png"
    image, exif = Image.fromarray(PICTURE), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.putalpha(Image.fromarray(np.where(PICTURE[..., 0] == 128, 0, 255).astype(np.uint8)))
    image.save(path, exif=exif)
    wanted = np.rot90(np.where(PICTURE == 128, 255, PICTURE), -1)  # upright, on white
    held = HELD[what](path)
    np.testing.assert_array_equal(read_photo(held), wanted)
    if what == "an open file":
        assert not held.closed
        held.close()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16"])
def test_a_pil_image_of_any_mode_is_a_photo(mode):
    image = Image.fromarray(PICTURE)
    if mode == "LAB":
        image = Image.new("LAB", image.size, (200, 128, 128))
    else:
        image = image.convert("L").convert(mode) if mode in ("I", "F", "I;16", "LA") else image.convert(mode)
    before = image.tobytes()
    assert read_photo(image, 7).shape == (7, 7, 3) and image.tobytes() == before
    if mode in ("L", "I", "F", "I;16"):  # all have values from 0 to 255
        np.testing.assert_array_equal(read_photo(image), np.asarray(Image.fromarray(PICTURE).convert("L").convert("RGB")))


def text_file():
    return io.StringIO("hello")


def closed_file():
    file = io.BytesIO(b"x")
    file.close()
    return file


def text_of_a_photo():
    return io.TextIOWrapper(io.BytesIO(b"\xff\xd8\xff"), encoding="utf-8")


def archive_cut_short():
    return gzip.open(io.BytesIO(gzip.compress(b"hello" * 99)[:-9]))


@pytest.mark.parametrize(
    ("photo", "words"),
    [
        ("https://example.org/a.jpg?x=3", "https://example.org/a.jpg?x=3 is an address on the web, and satnp"),
        ("S3://bucket/a.jpg", "download the photo first"),
        ("data:image/png;base64," + 999 * "A", "download the photo first"),
        (None, "the photo is None; give a path, the bytes of a file, a file object, a PIL image or an RGB array"),
        (3, "the photo is of type int; give a path"),
        ({"photo": 1}, "the photo is of type dict; give a path"),
        ([PICTURE], "the photo is of type list; give a path"),
        (b"", "the photo cannot be read as a photo (it is empty)"),
        (b"hello", "the photo cannot be read as a photo (it is not an image)"),
        (text_file, 'the file object of the photo was opened as text; open it with the mode "rb"'),
        (text_of_a_photo, 'the file object of the photo was opened as text; open it with the mode "rb"'),
        (archive_cut_short, "the file object of the photo cannot be read (Compressed file ended before the end-of-stream"),
        (Image.new("RGB", (0, 0)), "the photo has 0 x 0 pixels; give a photo that has some"),
        (closed_file, "the file object of the photo cannot be read (I/O operation on closed file.); open the file again"),
        (np.zeros((3, 4), np.uint8), "the photo is an array (3, 4) of uint8; give an RGB array"),
    ],
)  # fmt: skip
def test_what_holds_no_photo_gets_one_sentence(photo, words):
    with pytest.raises(InputError) as caught:
        read_photo(photo() if callable(photo) else photo)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("brands", "kind", "todo"),
    [
        (b"heic\0\0\0\0mif1heic", "HEIC", "register pillow-heif"),
        (b"mif1\0\0\0\0mif1heic", "HEIC", "register pillow-heif"),
        (b"hevc\0\0\0\0hevc", "HEIC", "register pillow-heif"),
        (b"avif\0\0\0\0avifmif1", "AVIF", "install a Pillow that reads AVIF"),
        (b"mif1\0\0\0\0miafavif", "AVIF", "install a Pillow that reads AVIF"),
    ],
)
def test_a_photo_of_a_telephone_is_named(tmp_path, monkeypatch, capsys, checkpoint, brands, kind, todo):
    def no_avif(*arguments, **more):
        raise UnidentifiedImageError("cannot identify")

    monkeypatch.setattr(Image, "open", no_avif)
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    blob = struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + bytes(40)
    (tmp_path / "x.heic").write_bytes(blob)
    for photo, name in ((tmp_path / "x.heic", tmp_path / "x.heic"), (blob, "the photo")):
        with pytest.raises(InputError) as caught:
            read_photo(photo)
        assert str(caught.value) == f"{name} is {kind}; convert it, or {todo}"
    assert main(["caption", str(checkpoint), str(tmp_path / "x.heic")]) == 2
    assert capsys.readouterr().err == f"satnp: {tmp_path}/x.heic is {kind}; convert it, or {todo}\n"


@pytest.mark.skipif("AVIF" not in Image.registered_extensions().values(), reason="this Pillow does not read AVIF")
def test_half_of_a_photo_that_pillow_reads_is_damaged_and_not_of_an_unknown_kind():
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, "AVIF")
    half = file.getvalue()[: len(file.getvalue()) // 2]
    with pytest.raises(InputError, match="the photo cannot be read as a photo .*; give a whole, readable JPEG or PNG file"):
        read_photo(half)


def test_a_list_of_photos_gets_the_captions_that_each_gets_alone(tmp_path, checkpoint):
    model, path = load(checkpoint), tmp_path / "x.png"
    Image.fromarray(PICTURE).save(path)
    photos = [path, str(path), path.read_bytes(), Image.open(path), PICTURE, PICTURE[::-1]]
    alone = [model.caption(photo, beam=1) for photo in photos]
    for several in (photos, tuple(photos)):
        together = model.caption(several, beam=1)
        assert isinstance(together, list)
        for one, other in zip(alone, together, strict=True):
            assert (one.words, one.log_prob) == (other.words, other.log_prob)
            np.testing.assert_array_equal(one.alpha, other.alpha)
    assert str(alone[0]) == str(alone[4]) and alone[4].log_prob != alone[5].log_prob
    assert model.caption([]) == []
    with pytest.raises(InputError, match="the photo is None; give a path"):
        model.caption([path, None])


def test_a_split_may_have_photos_of_any_kind(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(PICTURE).save(path)
    contents = {Split(("x",), ([["a"]],), (photo,)).contents for photo in (PICTURE, path.read_bytes(), Image.open(path))}
    assert len(contents) == 1 and Split(("x",), ([["a"]],), (PICTURE[::-1],)).contents not in contents


def test_an_address_on_the_command_line_is_refused_as_such(checkpoint, capsys):
    assert main(["caption", str(checkpoint), "https://example.org/a.jpg"]) == 2
    assert capsys.readouterr().err == (
        "satnp: https:/example.org/a.jpg is an address on the web, and satnp reads files; download the photo first\n"
    )
