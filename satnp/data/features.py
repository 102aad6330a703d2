"""What training leaves alone of an encoder's work, computed once and kept on disk: float16, memory-mapped, a row a photo."""

import hashlib
import io
import json
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from math import prod
from pathlib import Path

import numpy as np
from tqdm import tqdm

from satnp.backend import to_device, to_host, xp_of
from satnp.encoders.photos import read_photo
from satnp.files import lock, naming, read_json, write_json

CHUNK = 100  # photos between two notes of how far the store has come, whole batches
BATCH = 1  # photos computed at once; one stays in the processor's cache
AHEAD = 4  # batches that are read while one is computed


def fingerprint(model):
    """A name for exactly these features: encoder, its config, and the weights and layers that training leaves alone."""
    digest = hashlib.sha256(json.dumps([model.encoder, asdict(model.encoder_config), model.finetune_from]).encode())
    weights = model.params.part("encoder")
    digest.update(to_host((weights.before(model.finetune_from) if model.finetune_from else weights).flat).tobytes())
    return digest.hexdigest()[:16]


def feature_store(folder, model, split, mirrored=False):
    """The memory-mapped features (photos, ...) float16 of a split, in its order, computed as far as they are missing.

    They are `model.keepable`: annotations (L, D) of a frozen encoder, or the map before its first layer in training.

    `folder` gets features-FINGERPRINT.npy and a .json that says which photos and how many rows are done, so an
    interrupted run goes on where it stopped. mirrored: of the photos seen in a mirror.
    """
    stem = Path(folder) / f"features-{fingerprint(model)}-{split.contents}{'-mirrored' if mirrored else ''}"
    path, note = stem.with_suffix(".npy"), stem.with_suffix(".json")
    shape = (len(split.names), *kept_shape(model))
    said = {"photos": len(split.names), "encoder": fingerprint(model)}
    if _rows_done(path, shape, read_json(note), said) < len(split.names):
        with lock(stem.with_suffix(".lock"), wait=True):  # two trainings may share the folder
            _fill(path, note, shape, said, model, split, mirrored)
    return np.load(path, mmap_mode="r")


def _fill(path, note, shape, said, model, split, mirrored):
    """Compute the rows of the store that are missing."""
    done = _rows_done(path, shape, read_json(note), said)
    # ordinary writes: the changed pages of a memory map would count as this process's memory
    with naming(path), open(path, "r+b" if path.exists() else "w+b") as file, tqdm(
        total=len(split.names), initial=done, desc="features" + " mirrored" * mirrored, unit="photo"
    ) as bar:  # fmt: skip
        file.write(_npy_header(shape))
        file.seek(_size(shape, done))
        rows = keep(model, split.photos[done:], mirrored)
        for start in range(done, len(split.names), CHUNK):
            stop = min(start + CHUNK, len(split.names))
            for kept in islice(rows, stop - start):
                file.write(kept.astype("<f2").tobytes())
                bar.update()
            if stop == len(split.names):
                file.truncate()  # it may have been another file, and longer
            file.flush()
            os.fsync(file.fileno())
            write_json(note, said | {"done": stop})


def _rows_done(path, shape, note, said):
    """How many rows of the store can be trusted: none, unless its note is one of this store's and the file fits both."""
    done = note.pop("done", None) if isinstance(note, dict) else None
    if note != said or type(done) is not int or not 0 <= done <= shape[0] or not path.is_file():
        return 0
    with open(path, "rb") as file:
        size, header = path.stat().st_size, _npy_header(shape)
        fits = size == _size(shape, done) if done == shape[0] else size >= _size(shape, done)
        return done if fits and file.read(len(header)) == header else 0


def _npy_header(shape):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f2", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _size(shape, rows):
    """Bytes of a store of this shape up to its first `rows` rows."""
    return len(_npy_header(shape)) + 2 * rows * prod(shape[1:])


def read_images(model, photos, mirrored=False):
    """The pixels that the model's encoder wants: (N, S, S, 3) uint8"""
    images = np.stack([read_photo(photo, model.encoder_config.preprocessing.size) for photo in photos])
    return np.ascontiguousarray(images[:, :, ::-1]) if mirrored else images


def kept_shape(model):
    """The shape of what is kept of one photo."""
    size = model.encoder_config.preprocessing.size
    black = to_device(np.zeros((1, size, size, 3), np.uint8), xp_of(model.params.flat))
    return model.keepable(black).shape[1:]


def keep(model, photos, mirrored=False):
    """Yield what `model.keepable` gives of each photo, on the host."""
    return _each(model, model.keepable, photos, mirrored)


def annotate(model, photos):
    """The annotations (N, L, D) of photos, on the host."""
    return np.stack(list(_each(model, model.annotate, photos)))


def _each(model, function, photos, mirrored=False):
    """Yield function(images) of each photo, on the host; meanwhile the next photos are read by another thread."""
    xp, starts = xp_of(model.params.flat), iter(range(0, len(photos), BATCH))
    with ThreadPoolExecutor(1, "photos") as reader:

        def read_next(count):
            return [
                reader.submit(read_images, model, photos[start : start + BATCH], mirrored)
                for start in islice(starts, count)
            ]  # fmt: skip

        coming = deque(read_next(AHEAD))
        while coming:
            images = coming.popleft().result()
            coming.extend(read_next(1))
            yield from to_host(function(to_device(images, xp)))
