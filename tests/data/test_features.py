"""The feature store: whole, resumable, bound to its encoder, and small in memory."""

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from satnp.arrays import threads
from satnp.data import features
from satnp.data.datasets import load_split
from satnp.data.features import annotate, feature_store, fingerprint, keep
from satnp.data.scenes import make_scenes
from satnp.encoders import squeezenet
from satnp.errors import InputError
from satnp.training.presets import PRESETS, new_model
from tests.small_world import write_flickr8k


@pytest.fixture(scope="module")
def split(encoders, tmp_path_factory):
    return load_split("flickr8k", "train", write_flickr8k(tmp_path_factory.mktemp("features") / "data"))


@pytest.fixture
def model(split):
    return new_model(replace(PRESETS["scenes"], config={"M": 8, "H": 12, "A": 6}), split)


def test_a_row_is_the_photos_annotations(split, model, tmp_path):
    store = feature_store(tmp_path, model, split)
    assert store.dtype == np.float16 and store.shape == (24, 64, model.config.D)
    np.testing.assert_array_equal(store[3], annotate(model, split.photos[3:4])[0].astype(np.float16))
    mirrored = feature_store(tmp_path, model, split, mirrored=True)
    assert isinstance(store, np.memmap) and not np.array_equal(mirrored, store)


def test_an_interrupted_store_goes_on_to_the_same_bytes(split, model, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CHUNK", 5)
    whole = feature_store(tmp_path / "whole", model, split)
    seen = []

    def dying(model, photos, mirrored):
        for kept in keep(model, photos, mirrored):
            seen.append(kept)
            if len(seen) == 13:
                raise KeyboardInterrupt
            yield kept

    monkeypatch.setattr(features, "keep", dying)
    with pytest.raises(KeyboardInterrupt):
        feature_store(tmp_path / "parts", model, split)
    np.testing.assert_array_equal(feature_store(tmp_path / "parts", model, split), whole)
    assert len(seen) == 13 + 24 - 10  # the ten rows of the two whole chunks are not computed again
    files = [sorted(p.read_bytes() for p in (tmp_path / name).iterdir()) for name in ("whole", "parts")]
    assert files[0] == files[1]


def test_a_few_photos_are_under_way_in_other_threads(split, model, monkeypatch):
    read_image, here, begun, most = features.read_image, threading.get_ident(), [], []

    def noted(model, photo, mirrored):
        assert threading.get_ident() != here
        begun.append(photo)
        return read_image(model, photo, mirrored)

    monkeypatch.setattr(features, "read_image", noted)
    for row, _ in enumerate(keep(model, split.photos)):
        most.append(len(begun) - row)
    assert sorted(begun) == sorted(split.photos)
    assert max(most) <= 2 * threads.cores() + 1
    rows = keep(model, split.photos)
    next(rows)
    rows.close()
    assert len(begun) <= 24 + 1 + 2 * threads.cores()


def test_a_photo_that_cannot_be_read_is_named_when_its_turn_comes(split, model, tmp_path):
    photos = [*split.photos[:3], tmp_path / "none.jpg", *split.photos[3:]]
    rows = keep(model, photos)
    for photo in photos[:3]:
        np.testing.assert_array_equal(next(rows), annotate(model, [photo])[0])
    with pytest.raises(InputError, match="none.jpg"):
        next(rows)


def test_rows_are_the_same_bits_whatever_the_cores(split, model, monkeypatch):
    found = []
    for cores in (1, 2, 3):
        monkeypatch.setattr(threads, "cores", lambda cores=cores: cores)
        found.append(annotate(model, split.photos))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def same(x):
    return x


SPOILED = {  # what becomes of the note and of the rows of a finished store of 24 photos
    "a note cut short": (lambda note: json.dumps(note).encode()[:20], same),
    "a note that is a list": (lambda note: [note], same),
    "a note of fewer photos": (lambda note: note | {"photos": 23, "done": 23}, same),
    "a note of another encoder": (lambda note: note | {"encoder": "0" * 16}, same),
    "a note of too many rows": (lambda note: note | {"done": 25}, same),
    "a note of fewer than no rows": (lambda note: note | {"done": -1}, same),
    "a note of true rows": (lambda note: note | {"done": True}, same),
    "a note without rows": (lambda note: {"photos": 24, "encoder": note["encoder"]}, same),
    "a note without a store": (same, None),
    "a store without a note": (None, same),
    "an empty store": (same, lambda store: b""),
    "a store cut short": (same, lambda store: store[:-1]),
    "a store that is too long": (same, lambda store: store + b"x"),
    "a store of another shape": (same, lambda store: store.replace(b"(24, 64, ", b"(12, 128,")),
    "more rows than the note says": (lambda note: note | {"done": 3}, same),
    "fewer rows than the note says": (lambda note: note | {"done": 9}, lambda store: store[: 9 * len(store) // 24]),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_store_that_cannot_be_trusted_is_done_again(split, model, tmp_path, what):
    store = feature_store(tmp_path, model, split)
    path, row = Path(store.filename), store[0].nbytes
    note = path.with_suffix(".json")
    whole = path.read_bytes(), note.read_bytes()
    new_note, new_store = SPOILED[what]
    wrong = whole[0][: -4 * row] + bytes(row) + whole[0][-3 * row :]  # if it is trusted, this row stays
    for file, change, content in ((note, new_note, json.loads(whole[1])), (path, new_store, wrong)):
        content = change and change(content)
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    feature_store(tmp_path, model, split)
    assert (path.read_bytes(), note.read_bytes()) == whole


MANY = """
import sys
import numpy as np
from satnp.arrays import threads
from satnp.data import features
from satnp.data.split import Split
from satnp.demo import peak_memory
from satnp.training.presets import PRESETS, new_model

names = tuple(f"{k}.jpg" for k in range(2000))
split = Split(names, tuple([["a"]] for _ in names), (np.zeros((1, 1, 3), np.uint8),) * 2000)
model = new_model(PRESETS["scenes"], split)
features.keep = lambda model, photos, mirrored: (np.ones((64, 128), np.float32) for _ in photos)
before = peak_memory()
store = features.feature_store(sys.argv[1], model, split)
print(store.nbytes, peak_memory() - before)
"""


@pytest.mark.slow
def test_the_memory_of_many_photos_is_that_of_few(tmp_path):
    child = subprocess.run([sys.executable, "-c", MANY, tmp_path], capture_output=True, text=True, check=True)
    written, grown = map(int, child.stdout.split())
    assert written > 32e6 and grown < written / 4


def test_other_photos_of_the_same_names_are_other_features(split, model, tmp_path):
    photos = [tmp_path / f"{row}.jpg" for row in range(24)]
    for old, new in zip(split.photos, photos, strict=True):
        new.write_bytes(old.read_bytes())
    copied = feature_store(tmp_path / "store", model, split._replace(photos=tuple(photos)))
    photos[3].write_bytes(split.photos[4].read_bytes())
    other = feature_store(tmp_path / "store", model, split._replace(photos=tuple(photos)))
    drawn = [split._replace(photos=tuple(x.image for x in make_scenes(24, "train", seed))) for seed in (0, 1)]
    drawn = [feature_store(tmp_path / "store", model, one) for one in drawn]
    np.testing.assert_array_equal(other[4], copied[4])
    assert not np.array_equal(other[3], copied[3]) and not np.array_equal(*drawn)


def test_other_weights_are_other_features(split, model, tmp_path):
    feature_store(tmp_path, model, split)
    before = fingerprint(model)
    model.params.part("encoder").flat[0] += 1e-3
    assert fingerprint(model) != before
    feature_store(tmp_path, model, split)
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_public_squeezenet_weights_agree_in_both_formats(shared_data):
    folder, config = shared_data / "cnn", squeezenet.Config()
    whole = squeezenet.load(folder / "squeezenet1_1.safetensors", config).flat
    half = squeezenet.load(folder / "squeezenet1_1.npz", config).flat
    assert np.linalg.norm(half - whole) < 1e-3 * np.linalg.norm(whole)
