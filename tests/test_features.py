"""The feature store, photos and weights: what comes from files."""

import json

import numpy as np
import pytest
from PIL import Image

from satnp.data import features
from satnp.data.datasets import load_split
from satnp.data.features import annotate, feature_store, fingerprint
from satnp.encoders import squeezenet
from satnp.encoders.photos import Preprocessing, read_photo
from satnp.encoders.weights import read_weights
from satnp.errors import InputError
from satnp.presets import PRESETS, new_model
from tests.small_world import write_flickr8k


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return load_split("flickr8k", "train", write_flickr8k(tmp_path_factory.mktemp("features") / "data"))


@pytest.fixture
def model(split):
    return new_model(PRESETS["scenes"], split)


def test_a_row_is_the_photos_annotations(split, model, tmp_path):
    store = feature_store(tmp_path, model, split)
    assert store.dtype == np.float16 and store.shape == (24, 64, 128)
    np.testing.assert_array_equal(store[3], annotate(model, split.photos[3:4])[0].astype(np.float16))
    mirrored = feature_store(tmp_path, model, split, mirrored=True)
    assert isinstance(store, np.memmap) and not np.array_equal(mirrored, store)


def test_an_interrupted_store_goes_on_to_the_same_bytes(split, model, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CHUNK", 5)
    whole = feature_store(tmp_path / "whole", model, split)
    seen = []

    def dying(model, photos, mirrored):
        seen.append(photos[0])
        if len(seen) == 13:
            raise KeyboardInterrupt
        return annotate(model, photos, mirrored)

    monkeypatch.setattr(features, "annotate", dying)
    with pytest.raises(KeyboardInterrupt):
        feature_store(tmp_path / "parts", model, split)
    np.testing.assert_array_equal(feature_store(tmp_path / "parts", model, split), whole)
    assert len(seen) == 13 + 24 - 10  # the ten rows of the two whole chunks are not computed again
    files = [sorted(p.read_bytes() for p in (tmp_path / name).iterdir()) for name in ("whole", "parts")]
    assert files[0] == files[1]


def test_other_weights_are_other_features(split, model, tmp_path):
    feature_store(tmp_path, model, split)
    before = fingerprint(model)
    model.params.part("encoder").flat[0] += 1e-3
    assert fingerprint(model) != before
    feature_store(tmp_path, model, split)
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_photos_are_read_upright_and_squashed_whole(tmp_path):
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 20:] = (200, 0, 0)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    assert read_photo(tmp_path / "turned.png").shape == (40, 20, 3)
    assert read_photo(tmp_path / "turned.png")[-5:, :, 0].min() > 190
    squashed = read_photo(pixels, 16)
    assert squashed.shape == (16, 16, 3) and squashed[:, :6].max() < 10 and squashed[:, 10:, 0].min() > 190
    image.convert("L").save(tmp_path / "grey.png")
    assert read_photo(tmp_path / "grey.png", 8).shape == (8, 8, 3)


def test_preprocessing_orders_channels_and_takes_the_mean(xp):
    images = xp.asarray(np.array([[[[10, 20, 30]]]], np.uint8))
    x = Preprocessing(1, "BGR", (1.0, 2.0, 3.0), 0.5)(images, np.float32)
    assert x.dtype == np.float32 and x.tolist() == [[[[14.5, 9.0, 3.5]]]]


def torch_named(params):
    """Our SqueezeNet parameters under torchvision's names and layouts."""
    config, out = squeezenet.Config(), {}
    for ours, theirs in squeezenet.tensor_names(config).items():
        x = params[ours]
        out[theirs] = x.transpose(3, 2, 0, 1) if x.ndim == 4 else x
    return out


def write_safetensors(path, tensors):
    header, blobs, start = {}, [], 0
    for name, x in tensors.items():
        blobs.append(np.ascontiguousarray(x).tobytes())
        header[name] = {"dtype": "F32", "shape": x.shape, "data_offsets": [start, start + len(blobs[-1])]}
        start += len(blobs[-1])
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(blobs))


def test_weights_come_back_as_they_were_written(tmp_path, rng):
    params = squeezenet.init(squeezenet.Config(), rng)
    tensors = torch_named(params)
    write_safetensors(tmp_path / "w.safetensors", tensors)
    np.savez(tmp_path / "w.npz", **tensors)
    for name in ("w.safetensors", "w.npz"):
        np.testing.assert_array_equal(squeezenet.load(tmp_path / name, squeezenet.Config()).flat, params.flat)


def test_every_mismatch_is_listed_at_once(tmp_path, rng):
    tensors = torch_named(squeezenet.init(squeezenet.Config(), rng))
    del tensors["features.0.bias"]
    tensors["features.3.squeeze.weight"] = tensors["features.3.squeeze.weight"][:5]
    np.savez(tmp_path / "w.npz", **tensors)
    with pytest.raises(InputError, match=r"features\.0\.bias is missing; features\.3\.squeeze\.weight has shape"):
        squeezenet.load(tmp_path / "w.npz", squeezenet.Config())


@pytest.mark.parametrize("name", ["w.safetensors", "w.npz", "w.bin"])
def test_a_cut_or_unknown_weights_file_is_refused(tmp_path, rng, name):
    tensors = torch_named(squeezenet.init(squeezenet.Config(), rng))
    if name == "w.npz":
        np.savez(tmp_path / name, **tensors)
    else:
        write_safetensors(tmp_path / name, tensors)
    blob = (tmp_path / name).read_bytes()
    for size in (len(blob) // 2, 5, 0):
        (tmp_path / name).write_bytes(blob[:size])
        with pytest.raises(InputError):
            read_weights(tmp_path / name)


def test_public_squeezenet_weights_agree_in_both_formats(shared_data):
    folder, config = shared_data / "cnn", squeezenet.Config()
    whole = squeezenet.load(folder / "squeezenet1_1.safetensors", config).flat
    half = squeezenet.load(folder / "squeezenet1_1.npz", config).flat
    assert np.linalg.norm(half - whole) < 1e-3 * np.linalg.norm(whole)
