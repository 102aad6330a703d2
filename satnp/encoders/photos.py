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
    image = Image.fromarray(photo) if isinstance(photo, np.ndarray) else _open(Path(photo))
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _open(path):
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise InputError(f"there is no photo {path}; check the name") from None
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{path} cannot be read as a photo ({error}); give a whole JPEG or PNG file") from None
