"""What training leaves alone of an encoder's work, computed once and kept on disk: float16, memory-mapped, a row a photo."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from satnp.backend import to_device, to_host, xp_of
from satnp.encoders.photos import read_photo
from satnp.files import write_json

CHUNK = 100  # photos between two notes of how far the store has come


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
    names = hashlib.sha256("\n".join(split.names).encode()).hexdigest()[:8]
    stem = Path(folder) / f"features-{fingerprint(model)}-{names}{'-mirrored' if mirrored else ''}"
    path, note = stem.with_suffix(".npy"), stem.with_suffix(".json")
    done = json.loads(note.read_text())["done"] if note.is_file() and path.is_file() else 0
    if done == len(split.names):
        return np.load(path, mmap_mode="r")
    path.parent.mkdir(parents=True, exist_ok=True)
    if done:
        store = np.load(path, mmap_mode="r+")
    else:
        shape = _compute(model, model.keepable, split.photos[:1]).shape[1:]
        store = np.lib.format.open_memmap(path, "w+", np.float16, (len(split.names), *shape))
    with tqdm(total=len(split.names), initial=done, desc="features" + " mirrored" * mirrored, unit="photo") as bar:
        for start in range(done, len(split.names), CHUNK):
            stop = min(start + CHUNK, len(split.names))
            for row in range(start, stop):
                store[row] = _compute(model, model.keepable, split.photos[row : row + 1], mirrored)[0]
                bar.update()
            store.flush()
            write_json(note, {"photos": len(split.names), "done": stop, "encoder": fingerprint(model)})
    return np.load(path, mmap_mode="r")


def read_images(model, photos, mirrored=False):
    """The pixels that the model's encoder wants: (N, S, S, 3) uint8"""
    images = np.stack([read_photo(photo, model.encoder_config.preprocessing.size) for photo in photos])
    return np.ascontiguousarray(images[:, :, ::-1]) if mirrored else images


def annotate(model, photos):
    """The annotations (N, L, D) of photos, on the host."""
    return _compute(model, model.annotate, photos)


def _compute(model, function, photos, mirrored=False):
    """function(images) of photos, on the host; one photo at a time stays in the processor's cache."""
    xp = xp_of(model.params.flat)
    images = read_images(model, photos, mirrored)
    return np.concatenate([to_host(function(to_device(image[None], xp))) for image in images])
