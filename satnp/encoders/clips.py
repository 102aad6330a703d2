"""Clips: how their frames are read, and the encoder small_frames, which computes one vector for each frame.

    a_k = [mean_i F_ki ; mean_i x_i F_ki ; mean_i y_i F_ki ; mean_i |F_ki - F_{k-1,i}| ; t_k],    k = 1 ... K

F_k (L, C) is the map that the encoder `small` computes of frame k, and F_0 = F_1. x_i and y_i, the place of location i, and
t_k, the time, go from -1 to 1. The mean says what is in the frame, the next two parts say where, and the change since the
frame before says what moves. Attention does not depend on the order of the frames: t_k tells it the time, as the coordinate
planes of small.py tell it the place; the change tells some of it too, because the first frame has none. The mean over the
frames does not know the order at all: it is the same for the clip played backwards.

The weights are those of `small`: with --init, the encoder of a captioner of photos reads the frames, and is not trained.

Source: mean-pooled frames, Venugopalan et al. 2015, who have a second network for optical flow, in place of the change.
"""

from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import numpy as np
from PIL import Image

from satnp.arrays.backend import xp_of
from satnp.encoders import small
from satnp.encoders.photos import read_photo, upright, with_image
from satnp.errors import InputError

BASE = "small"  # the encoder of photos with the same weights


@dataclass(frozen=True)
class Config(small.Config):
    frames: int = 8

    def __post_init__(self):
        super().__post_init__()
        if not 2 <= self.frames <= 1000:
            raise InputError(f"frames is {self.frames}; choose 2 to 1000")

    @property
    def photo(self):
        """The Config of the encoder of one frame."""
        return small.Config(self.channels, self.preprocessing)

    @property
    def D(self):
        return 4 * self.channels[-1] + 1

    @property
    def grid(self):
        """(1, K): a clip is drawn as its frames beside each other."""
        return 1, self.frames


class Cache(NamedTuple):
    photo: object   # of small.forward
    places: object  # (3, L), 1 / L, x_i / L and y_i / L
    step: object    # (N, K-1, L, C), F_k - F_{k-1}


def of_photos(config):
    """The Config of the encoder whose frames an encoder of photos with this Config reads."""
    return Config(config.channels, config.preprocessing)


def shapes(config):
    return small.shapes(config.photo)


def init(config, rng):
    return small.init(config.photo, rng)


def forward(params, config, clips):
    """clips (N, K, S, S, 3) RGB 0-255 -> annotations (N, K, D), cache"""
    N, K, xp = *clips.shape[:2], xp_of(clips)
    F, photo = small.forward(params, config.photo, clips.reshape(-1, *clips.shape[2:]))
    F = F.reshape(N, K, *F.shape[1:])
    L, C = F.shape[2:]
    grid = small.coordinates(1, *config.photo.grid, xp, F.dtype).reshape(L, 2).T
    places = xp.concatenate([xp.ones((1, L), dtype=F.dtype), grid]) / L
    step = F[:, 1:] - F[:, :-1]
    change = xp.zeros((N, K, C), dtype=F.dtype)
    change[:, 1:] = xp.maximum(step, -step).mean(axis=2)
    time = xp.broadcast_to(xp.linspace(-1, 1, K)[None, :, None], (N, K, 1)).astype(F.dtype)
    parts = [(F * place[:, None]).sum(axis=2) for place in places]
    return xp.concatenate([*parts, change, time], axis=2), Cache(photo, places, step)


def backward(dannotations, cache, grads):
    """dannotations (N, K, D): adds the gradients with respect to all weights to `grads`."""
    L, C = cache.step.shape[2:]
    *dparts, dchange = (dannotations[..., None, k * C : (k + 1) * C] for k in range(4))
    dF = sum(dpart * place[:, None] for dpart, place in zip(dparts, cache.places, strict=True))
    sign = (cache.step > 0).astype(dF.dtype) - (cache.step < 0)
    dstep = sign * dchange[:, 1:] / L
    dF[:, 1:] += dstep
    dF[:, :-1] -= dstep
    small.backward(dF.reshape(-1, L, C), cache.photo, grads)


def read_clip(clip, frames, size=None):
    """Read a clip -> (frames, size, size, 3) RGB uint8, frames at equal distances in time, as `read_photo` reads a photo.

    clip: an animated GIF, PNG or WebP, or a TIFF with several pages, in all forms that read_photo takes; or an
    (F, R, S, 3) RGB uint8 array.
    Raises: InputError as read_photo, and for a single image.
    """
    if isinstance(clip, np.ndarray):
        if clip.ndim != 4 or len(clip) < 2:
            raise InputError(f"the clip is an array {clip.shape}; give two frames or more, (frames, rows, columns, 3)")
        return np.stack([read_photo(clip[k], size) for k in _spread(len(clip), frames)])
    return np.stack(with_image(clip, lambda path, image: _frames(path, image, frames, size)))


def _frames(path, image, frames, size):
    """The frames of an opened image as read_clip describes, in a list."""
    count = getattr(image, "n_frames", 1)
    if count < 2:
        raise InputError(f"{path} has one frame, and the model captions clips; give an animated GIF, PNG or WebP file")
    found, shape = [], size and (size, size)
    for k in _spread(count, frames):
        image.seek(k)
        frame = upright(path, image)
        shape = shape or frame.size  # that of the first frame: the pages of a TIFF may have several
        found.append(np.asarray(frame if frame.size == shape else frame.resize(shape, Image.Resampling.BICUBIC)))
    image.seek(0)
    return found


def _spread(count, frames):
    """The indices of `frames` of `count` frames, at equal distances."""
    return np.linspace(0, count - 1, frames).round().astype(int).tolist()


def read_input(config, photo, resize=True):
    """Read what an encoder with this Config needs: a photo as read_photo does, or a clip as read_clip does.

    Without `resize`, the pixels keep their shape.
    """
    size = config.preprocessing.size if resize else None
    frames = getattr(config, "frames", None)
    return read_photo(photo, size) if frames is None else read_clip(photo, frames, size)


def input_shape(config):
    """The shape of what read_input reads."""
    size, frames = config.preprocessing.size, getattr(config, "frames", None)
    return (size, size, 3) if frames is None else (frames, size, size, 3)


def picture(pixels):
    """A photo (R, S, 3) as it is; a clip (K, R, S, 3) as a strip of its frames, with white lines between them."""
    if pixels.ndim == 3:
        return pixels
    line = ceil(pixels.shape[2] / 32)  # in each line lies the border between two of K equal parts of the strip
    return np.concatenate(np.pad(pixels, [(0, 0), (0, 0), (0, line), (0, 0)], constant_values=255), axis=1)[:, :-line]
