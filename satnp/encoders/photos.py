"""From a photo file to the pixels that an encoder wants: the whole frame squashed to a square, nothing cropped."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from satnp.errors import InputError


@dataclass(frozen=True)
class Preprocessing:
    """What is done to 8-bit RGB pixels before the first layer; it travels with the weights and the checkpoint."""

    size: int                           # side of the square, pixels
    channels: str = "RGB"               # the order the weights were trained with, RGB or BGR
    mean: tuple = (127.5, 127.5, 127.5) # subtracted, in the order of `channels`, 0-255
    scale: float = 1 / 64               # multiplied afterwards

    def __call__(self, images, dtype):
        """(image - mean) * scale

        images (N, S, S, 3) RGB 0-255 -> x (N, S, S, 3)
        """
        x = images.astype(dtype)
        if self.channels == "BGR":
            x = x[..., ::-1]
        for c, mean in enumerate(self.mean):
            x[..., c] -= mean
        x *= self.scale
        return x


def read_photo(photo, size=None):
    """A photo as (size, size, 3) RGB uint8, the whole frame squashed; size None keeps its own shape.

    photo: a path (upright as its EXIF says), or an (R, S, 3) RGB uint8 array.
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
    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16 bits a pixel: Pillow would clip them to 8
                image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
            return image.convert("RGB")
    except FileNotFoundError:
        raise InputError(f"there is no photo {path}; check the name") from None
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as a photo ({error}); give a whole JPEG or PNG file") from None
