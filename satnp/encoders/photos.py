"""From a photo file to the pixels that an encoder wants: the whole frame squashed to a square, nothing cropped."""

import warnings
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from satnp.arrays.backend import xp_of
from satnp.errors import InputError

MAX_PIXELS = 100_000_000
_UPRIGHT = {  # by EXIF's orientation; exif_transpose does the same, but fails on other tags that are mangled
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Preprocessing:
    """What is done to 8-bit RGB pixels before the first layer; it travels with the weights and the checkpoint."""

    size: int                           # side of the square, pixels
    channels: str = "RGB"               # the order the weights were trained with, RGB or BGR
    mean: tuple = (127.5, 127.5, 127.5) # subtracted, in the order of `channels`, 0-255
    scale: float | tuple = 1 / 64       # multiplied afterwards; one for all, or one a channel

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
        """One for each channel."""
        return self.scale if isinstance(self.scale, tuple) else (self.scale,) * 3

    def __call__(self, images, dtype):
        """(image - mean) * scale

        images (N, S, S, 3) RGB 0-255 -> x (N, S, S, 3)
        """
        xp, S = xp_of(images), images.shape[2]
        x = xp.empty(images.shape, dtype=dtype)
        mean, scale = (xp.empty((S, 3), dtype=dtype) for _ in range(2))  # for a whole row of pixels, or NumPy goes by threes
        for c in range(3):
            x[..., c] = images[..., c if self.channels == "RGB" else 2 - c]
            mean[:, c], scale[:, c] = self.mean[c], self.scales[c]
        x -= mean
        x *= scale
        return x


# What torchvision's own weights were trained with: RGB in [0, 1], minus ImageNet's mean, over its standard deviation.
TORCHVISION = Preprocessing(
    224, "RGB", tuple(255 * x for x in (0.485, 0.456, 0.406)), tuple(1 / (255 * x) for x in (0.229, 0.224, 0.225))
)


def read_photo(photo, size=None):
    """A photo as (size, size, 3) RGB uint8, the whole frame squashed; size None keeps its own shape.

    photo: a path, or an (R, S, 3) RGB uint8 array. A file is read as a person would see it: the first frame, upright as
    its EXIF says, over white where it is transparent.
    Raises: InputError for an array of another form, and for a file that is no whole image of at most 100 megapixels.
    """
    if isinstance(photo, np.ndarray):
        if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or not photo.size:
            raise InputError(f"the photo is an array {photo.shape} of {photo.dtype}; give (rows, columns, 3) of uint8, RGB")
        image = Image.fromarray(photo)
    else:
        image = _open(Path(photo))
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _open(path):
    """The file as an upright RGB image; the size in its header is looked at before any pixel is."""
    too_large = f"at most {MAX_PIXELS // 10**6} megapixels are read; give a smaller copy"
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; give the photos in it")
        if not path.is_file():
            raise InputError(f"there is no photo {path}; check the name")
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:  # of odd metadata and large sizes
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{path} has {image.width} x {image.height} pixels; {too_large}")
            image.load()  # what a file says of its orientation may come last
            upright = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
            image = _rgb(image)
            return image if upright is None else image.transpose(upright)
    except (InputError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large: {str(error).partition(' exceeds')[0]}; {too_large}") from None
    except UnidentifiedImageError:
        seen = "it is no image" if path.stat().st_size else "it is empty"
    except Exception as error:  # Pillow's readers fall over mangled files in every way there is
        seen = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    raise InputError(f"{path} cannot be read as a photo ({seen}); give a whole, readable JPEG or PNG file")


def _rgb(image):
    """8-bit RGB, over white where the image is transparent."""
    if image.mode.startswith("I"):  # 16 bits a pixel: Pillow would clip them to 8
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "F":  # 0 to 1, or 0 to 255
        x = np.nan_to_num(image)
        image = Image.fromarray((x * (255 if x.max() <= 1 else 1)).clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    page = Image.new("RGB", image.size, "white")
    page.paste(image, mask=image)
    return page
