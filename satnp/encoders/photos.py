"""Read photo files as the pixels that an encoder needs: the whole frame is resized to a square, nothing is cropped."""

import io
import logging
import os
import re
import sys
import threading
import warnings
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from math import isfinite

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from satnp.arrays.backend import xp_of
from satnp.errors import InputError
from satnp.files import reason, there

MAX_PIXELS, MAX_SIDE = 100_000_000, 65_500  # a JPEG has at most 65,500 pixels a side
# Of Pillow's formats those in which photos are kept. Others run a program (EPS) or have no pixels (WMF). HEIF and JXL are
# there when their package has registered them.
FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF", "JXL", "PSD", "PCX", "SGI", "QOI", "TGA",
)  # fmt: skip
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it writes about damaged files to stderr
TOO_LARGE = f"at most {MAX_PIXELS // 10**6} megapixels are read; give a smaller copy"
TEXT_MODE = 'the file object of the photo was opened as text; open it with the mode "rb"'
_UPRIGHT = {  # by EXIF orientation; Pillow's exif_transpose does the same, but fails if other tags are damaged
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Forms in which telephones store photos, and that Pillow may not read: bytes 8 to 63 have one of these brands; the name of
# Pillow's reader; what to do without it.
BRANDS = {
    "AVIF": ({b"avif", b"avis"}, "AVIF", "install a Pillow that reads AVIF"),
    "HEIC": (
        {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}, "HEIF",
        "register pillow-heif",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Preprocessing:
    """The transformation of 8-bit RGB pixels before the first layer. It belongs to the weights; checkpoints contain it."""

    size: int                           # side of the square, pixels
    channels: str = "RGB"               # RGB or BGR, the order that the weights were trained with
    mean: tuple = (127.5, 127.5, 127.5) # subtracted, in the order of `channels`, 0-255
    scale: float | tuple = 1 / 64       # factor after the subtraction: one for all channels, or one per channel

    def __post_init__(self):
        numbers = [*self.mean, *self.scales]
        fits = len(numbers) == 6 and all(isinstance(x, int | float) and isfinite(x) for x in numbers)
        if not fits or not 1 <= self.size <= 10_000 or self.channels not in ("RGB", "BGR"):
            raise InputError(
                f"preprocessing has size {self.size}, channels {self.channels!r}, means {self.mean} and scale {self.scale}; "
                "choose 1 to 10000 pixels, RGB or BGR, three means, and one scale or three"
            )

    @property
    def scales(self):
        """The scale of each channel."""
        return self.scale if isinstance(self.scale, tuple) else (self.scale,) * 3

    def __call__(self, images, dtype):
        """(image - mean) * scale

        images (N, S, S, 3) RGB 0-255 -> x (N, S, S, 3)
        """
        xp, S = xp_of(images), images.shape[2]
        x = xp.empty(images.shape, dtype=dtype)
        mean, scale = (xp.empty((S, 3), dtype=dtype) for _ in range(2))  # whole rows: NumPy is slow over an axis of 3
        for c in range(3):
            x[..., c] = images[..., c if self.channels == "RGB" else 2 - c]
            mean[:, c], scale[:, c] = self.mean[c], self.scales[c]
        x -= mean
        x *= scale
        return x


# The preprocessing of torchvision's weights: RGB in [0, 1], minus ImageNet's mean, divided by its standard deviation.
TORCHVISION = Preprocessing(
    224, "RGB", tuple(255 * x for x in (0.485, 0.456, 0.406)), tuple(1 / (255 * x) for x in (0.229, 0.224, 0.225))
)


def read_photo(photo, size=None):
    """Read a photo -> (size, size, 3) RGB uint8, the whole frame resized to a square; size None keeps its shape.

    photo: a path, the bytes of a file, a file object (read from its beginning), a PIL image of any mode, or an (R, S, 3)
    RGB uint8 array. From all but an array, the first frame is read, turned upright by its EXIF orientation, and put on white
    where it is transparent.
    Raises: InputError for another array or type, for a file that is not a readable image, for more than 100 megapixels or
    65,500 pixels a side, and where memory is lacking.
    """
    try:
        return np.asarray(_read(photo, size))
    except MemoryError:
        what = photo if isinstance(photo, str | os.PathLike) else "the photo"
        raise InputError(f"{what} needs more memory than there is; give a smaller copy") from None


def _read(photo, size):
    if isinstance(photo, np.ndarray):
        if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or not photo.size:
            raise InputError(
                f"the photo is an array {photo.shape} of {photo.dtype}; give an RGB array (rows, columns, 3) of uint8"
            )
        _check_size("the photo", *photo.shape[1::-1])
        image = Image.fromarray(photo)
    else:
        image = _open(photo)
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return image


def _check_size(what, columns, rows):
    """Raise InputError for too many pixels or none. The size in a file's header is checked before memory is allocated."""
    if not columns * rows:
        raise InputError(f"{what} has {columns} x {rows} pixels; give a photo that has some")
    if columns * rows > MAX_PIXELS:
        raise InputError(f"{what} has {columns} x {rows} pixels; {TOO_LARGE}")
    if max(columns, rows) > MAX_SIDE:
        raise InputError(f"{what} has {columns} x {rows} pixels; at most {MAX_SIDE} a side are read; give a smaller copy")


def _source(photo):
    """What a photo is called in an error, and what PIL opens: a path or a file object, or the PIL image that it is.

    Raises: InputError for an address on the web, a path without a file, and other types.
    """
    if isinstance(photo, str | os.PathLike):
        name = os.fsdecode(photo)
        if os.path.isdir(name):
            raise InputError(f"{name} is a folder; give the photos in it")
        with suppress(PermissionError):  # opening it says so
            if not there(name):
                raise InputError(_missing(name))
        return name, name
    if isinstance(photo, Image.Image):
        return "the photo", photo
    if hasattr(photo, "read"):
        try:
            with suppress(AttributeError, OSError):  # what comes over a network has no beginning to go to
                photo.seek(0)
            photo = photo.read()
        except UnicodeDecodeError:
            raise InputError(TEXT_MODE) from None
        except Exception as error:  # of a network, or of a damaged archive that has the photo
            raise InputError(f"the file object of the photo cannot be read ({reason(error)}); open the file again") from None
    if isinstance(photo, bytes | bytearray | memoryview):
        return "the photo", io.BytesIO(photo)
    if isinstance(photo, str):
        raise InputError(TEXT_MODE)
    seen = "None" if photo is None else f"of type {type(photo).__name__}"
    raise InputError(f"the photo is {seen}; give a path, the bytes of a file, a file object, a PIL image or an RGB array")


def _missing(name):
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/|data:", name):  # not a drive of Windows, which has one letter
        return f"{name} is an address on the web, and satnp reads files; download the photo first"
    return f"there is no photo {name}; check the name"


def _open(photo):
    """Open a photo as an upright RGB image."""
    return with_image(photo, upright)


def with_image(photo, read):
    """Return read(path, image) of the opened file or PIL image `photo`. What Pillow raises becomes an InputError."""
    path, source = _source(photo)
    try:
        # ignored are warnings about odd metadata and large sizes
        with warnings.catch_warnings(action="ignore"), _opened(source) as image:
            return read(path, image)
    except (InputError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large: {str(error).partition(' exceeds')[0]}; {TOO_LARGE}") from None
    except UnidentifiedImageError:
        start = _start(source)
        found = {start[k : k + 4] for k in range(8, len(start), 4)} if start[4:8] == b"ftyp" else set()
        kind = next((kind for kind, (brands, *_) in BRANDS.items() if brands & found), None)
        if kind and BRANDS[kind][1] not in Image.OPEN:
            raise InputError(f"{path} is {kind}; convert it, or {BRANDS[kind][2]}") from None
        seen = f"it is {_kind(start)}" if start else "it is empty"
    except Exception as error:  # for a damaged file, Pillow's readers may raise any exception
        seen = reason(error)
    raise InputError(f"{path} cannot be read as a photo ({seen}); give a whole, readable JPEG or PNG file")


def upright(path, image):
    """The current frame of an opened image as an upright RGB image."""
    _check_size(path, *image.size)
    with _silent() if image.format == "TIFF" else nullcontext():
        image.load()  # the orientation may be at the end of the file
    turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
    image = _rgb(image)
    return image if turn is None else image.transpose(turn)


def _opened(source):
    if isinstance(source, Image.Image):
        return nullcontext(source)
    Image.init()  # imports the readers of all formats
    return Image.open(source, formats=[name for name in FORMATS if name in Image.OPEN])


def _start(source):
    """The first 64 bytes of a path or of a BytesIO."""
    with open(source, "rb") if isinstance(source, str) else nullcontext(source) as file:
        file.seek(0)
        return file.read(64)


def _kind(start):
    """What a file that is not in FORMATS is, by its first bytes."""
    start = start[:16].ljust(16, b"\0")
    known = (name for name, (_, accept) in Image.OPEN.items() if name not in FORMATS and accept and accept(start))
    return next((f"{name}, which is not a format of photos" for name in known), "not an image")


_one_thread = threading.Lock()


@contextmanager
def _silent():
    """Context manager: drop what C code writes to stderr, as libtiff does for a damaged file. One thread at a time."""
    with _one_thread:
        if sys.__stderr__ is None:  # the process has none, and 2 may be the photo's file
            yield
            return
        kept = os.dup(2)
        try:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _rgb(image):
    """Convert an image to 8-bit RGB, on white where it is transparent."""
    if image.mode.startswith("I"):  # values from 0 to 255, or of 16 bits, which Pillow would clip to 255
        x = np.asarray(image)
        image = Image.fromarray((x >> (8 if x.max() > 255 else 0)).clip(0, 255).astype(np.uint8))
    if image.mode == "F":  # values from 0 to 1, or from 0 to 255
        x = np.nan_to_num(image)
        image = Image.fromarray((x * (255 if x.max() <= 1 else 1)).clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    page = Image.new("RGB", image.size, "white")
    page.paste(image, mask=image)
    return page
