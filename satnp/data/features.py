"""Features that training does not change, computed once and kept on disk: memory-mapped, float16, one row per photo."""

import hashlib
import io
import json
import os
from dataclasses import asdict
from itertools import chain, islice
from math import prod
from pathlib import Path

import numpy as np
from tqdm import tqdm

from satnp.arrays.backend import to_device, to_host, xp_of
from satnp.arrays.ranks import ALONE
from satnp.arrays.threads import ahead
from satnp.encoders.clips import input_shape, read_input
from satnp.files import naming, read_json, write_json

CHUNK = 100  # photos between two updates of the note that counts the finished rows


def fingerprint(model):
    """Hash of all that determines the features: the encoder, its config, and the layers that are not trained."""
    digest = hashlib.sha256(json.dumps([model.encoder, asdict(model.encoder_config), model.finetune_from]).encode())
    weights = model.params.part("encoder")
    digest.update(to_host((weights.before(model.finetune_from) if model.finetune_from else weights).flat).tobytes())
    return digest.hexdigest()[:16]


def feature_store(folder, model, split, mirrored=False, ranks=ALONE):
    """Compute the missing features of a split -> memory-mapped array (photos, ...) float16, in the order of the split.

    The features are `model.keepable`: the annotations (L, D) of a frozen encoder, or the input of its first trained layer.

    `folder` gets features-FINGERPRINT.npy and a note (.json) with the numbers of photos and of finished rows, so an
    interrupted run continues where it stopped. mirrored: mirror the photos first. Several `ranks` share the work.
    """
    stem = Path(folder) / f"features-{fingerprint(model)}-{split.contents}{'-mirrored' if mirrored else ''}"
    path, note = stem.with_suffix(".npy"), stem.with_suffix(".json")
    shape = (len(split.names), *kept_shape(model))
    said = {"photos": len(split.names), "encoder": fingerprint(model)}

    def rows_done():
        return _rows_done(path, shape, read_json(note), said)

    if ranks.once(rows_done) < len(split.names):
        with ranks.lock(stem.with_suffix(".lock"), wait=True):  # two trainings may share the folder
            done = ranks.once(rows_done)
            rows = _shared(model, split.photos[done:], mirrored, ranks)
            if ranks.rank == 0:
                _fill(path, note, shape, said, rows, done, mirrored)
            list(rows)  # run the generator to its end: gather needs every rank
    return np.load(ranks.once(lambda: path), mmap_mode="r")  # the other ranks wait until the file is complete


def _shared(model, photos, mirrored, ranks):
    """Share `keep` among the ranks, CHUNK photos at a time; rank 0 yields all rows in order, the other ranks nothing."""
    if ranks.size == 1:
        yield from keep(model, photos, mirrored)
        return
    chunks = [photos[start : start + CHUNK] for start in range(0, len(photos), CHUNK)]
    chunks += [()] * (-len(chunks) % ranks.size)
    mine = chunks[ranks.rank :: ranks.size]
    rows = keep(model, list(chain(*mine)), mirrored)
    for chunk in mine:
        for part in ranks.gather([kept.astype("<f2") for kept in islice(rows, len(chunk))]):
            yield from part


def _fill(path, note, shape, said, rows, done, mirrored):
    """Write the missing rows (photos, ...) of the store: all after the first `done`."""
    # written as a file, because changed pages of a memory map count as memory of this process
    with naming(path), open(path, "r+b" if path.exists() else "w+b") as file, tqdm(
        total=shape[0], initial=done, desc="features" + " mirrored" * mirrored, unit="photo"
    ) as bar:  # fmt: skip
        file.write(_npy_header(shape))
        file.seek(_size(shape, done))
        for start in range(done, shape[0], CHUNK):
            stop = min(start + CHUNK, shape[0])
            for kept in islice(rows, stop - start):
                file.write(kept.astype("<f2").tobytes())
                bar.update()
            if stop == shape[0]:
                file.truncate()  # an older file of this name may be longer
            file.flush()
            os.fsync(file.fileno())
            write_json(note, said | {"done": stop})


def _rows_done(path, shape, note, said):
    """Number of finished rows; 0 unless the note belongs to this store and the file has the right header and size."""
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
    """Bytes of the header and the first `rows` rows of a store of this shape."""
    return len(_npy_header(shape)) + 2 * rows * prod(shape[1:])


def read_image(model, photo, mirrored=False):
    """Read a photo at the size that the model's encoder needs -> (1, S, S, 3) uint8, or a clip -> (1, K, S, S, 3)"""
    image = read_input(model.encoder_config, photo)[None]
    return np.ascontiguousarray(image[..., ::-1, :]) if mirrored else image


def read_images(model, photos):
    """Read all photos -> (N, S, S, 3) uint8, or clips -> (N, K, S, S, 3)"""
    return np.concatenate(list(ahead(lambda photo: read_image(model, photo), photos)))


def kept_shape(model):
    """Shape of the features of one photo."""
    if model.encoder == "regions":
        return model.encoder_config.k, model.encoder_config.D
    black = to_device(np.zeros((1, *input_shape(model.encoder_config)), np.uint8), xp_of(model.params.flat))
    return model.keepable(black).shape[1:]


def keep(model, photos, mirrored=False):
    """Yield `model.keepable` of each photo, as a host array."""
    return _each(model, model.keepable, photos, mirrored)


def annotate(model, photos):
    """Compute the annotations (N, L, D) of photos, as a host array."""
    return np.stack(list(_each(model, model.annotate, photos)))


def _each(model, function, photos, mirrored=False):
    """Yield function(image) of each photo as a host array. Threads read the photos and, with NumPy, also call `function`."""
    xp = xp_of(model.params.flat)
    if xp is np:
        yield from ahead(lambda photo: function(read_image(model, photo, mirrored))[0], photos)
    else:
        for image in ahead(lambda photo: read_image(model, photo, mirrored), photos):
            yield to_host(function(to_device(image, xp)))[0]
