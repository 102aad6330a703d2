"""The feature store: whole, resumable, and bound to its encoder."""

import numpy as np
import pytest

from satnp.data import features
from satnp.data.datasets import load_split
from satnp.data.features import annotate, feature_store, fingerprint
from satnp.encoders import squeezenet
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


def test_public_squeezenet_weights_agree_in_both_formats(shared_data):
    folder, config = shared_data / "cnn", squeezenet.Config()
    whole = squeezenet.load(folder / "squeezenet1_1.safetensors", config).flat
    half = squeezenet.load(folder / "squeezenet1_1.npz", config).flat
    assert np.linalg.norm(half - whole) < 1e-3 * np.linalg.norm(whole)
