"""The page of captions: its maps and numbers, what it allows, and how large it is."""

import io
import os
import re
from base64 import b64decode, b64encode
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from satnp.model import Caption
from satnp.page.captions import LIMIT, SIDE, captioner_entry, labels, photo_entry, view_entry, write_captions
from tests.page.pages import a_model, looking, page_data, write_hostile


@pytest.fixture
def alpha(rng):
    alpha = rng.random((4, 3, 5))
    return 0.7 * alpha / alpha.sum(axis=(1, 2), keepdims=True)


def test_the_maps_and_numbers_are_those_of_the_attention(alpha):
    caption = Caption(["a", "dog", "runs"], -7.25, alpha)  # and the map of <end>
    view = view_entry(a_model(sentinel=True), None, [caption, Caption(["a"], -9.0, alpha[:2])])
    entry, other = view["captions"]
    maps = np.frombuffer(b64decode(entry["maps"]), np.uint8).reshape(3, 3, 5)
    np.testing.assert_allclose(maps / 255, alpha[:3] / alpha[:3].max(axis=(1, 2), keepdims=True), atol=0.5 / 255 + 1e-9)
    assert (maps.max(axis=(1, 2)) == 255).all()
    p = alpha[:3].reshape(3, 15) / 0.7
    np.testing.assert_allclose(entry["spread"], -(p * np.log(p)).sum(axis=1) / np.log(15), atol=5e-4)
    assert entry["strength"] == [0.7, 0.7, 0.7]
    assert (entry["words"], entry["log_prob"]) == (["a", "dog", "runs"], -7.25)
    assert other["words"] == ["a"] and len(b64decode(other["maps"])) == 15 and view["boxes"] is None


def test_one_place_has_spread_0_and_the_whole_photo_1():
    caption = Caption(["here", "everywhere"], -1.0, np.stack([np.eye(1, 6).reshape(2, 3), np.full((2, 3), 1 / 6)]))
    (entry,) = view_entry(a_model((2, 3)), None, [caption])["captions"]
    assert entry["spread"] == [0, 1] and entry["strength"] is None


def test_the_strength_of_a_captioner_with_a_gate_is_its_beta():
    (entry,) = view_entry(a_model(gates=0.25), None, [looking(["a", "b"], [(0, 0), (0, 1)])])["captions"]
    assert entry["strength"] == [0.25, 0.25]


def test_regions_keep_their_boxes_and_only_those_with_features_count_in_the_spread():
    boxes = np.array([[0, 0, 10, 10], [5, 5, 30, 20], [0, 0, 9, 9]], np.float32)
    features = np.array([[[0.0, 1.0], [2.0, 0.0], [0.0, 0.0]]])
    caption = Caption(["dog"], -1.0, np.array([[[0.5, 0.5, 0.0]]]))
    view = view_entry(a_model((1, 3), "top_down", encoder="regions"), features, [caption], boxes)
    assert view["boxes"] == boxes.tolist() and view["captions"][0]["spread"] == [1]


def test_the_maps_of_regions_with_a_sentinel_have_one_scale():
    alpha = np.array([[[0.2, 0.002]], [[1 / 3, 2 / 3 + 1e-7]]])
    model = a_model((1, 2), "neural_baby_talk", sentinel=True, encoder="regions")
    (entry,) = view_entry(model, np.ones((1, 2, 2)), [Caption(["of", "dog"], -1.0, alpha)], np.ones((2, 4)))["captions"]
    assert list(b64decode(entry["maps"])) == [51, 1, 85, 170] and entry["strength"] == [0.202, 1]


def test_the_objects_that_a_captioner_found_have_words_and_boxes():
    view = view_entry(a_model(captioner="babytalk"), None, [], objects=[("a\u202edog", np.array([1.26, 2, 3, 4]))])
    assert view["objects"] == [{"name": "a\\u202edog", "box": [1.3, 2, 3, 4]}]


def test_a_caption_without_words_has_no_maps_and_is_still_one_of_a_captioner_with_attention(alpha):
    view = view_entry(a_model(sentinel=True), None, [Caption([], -0.5, alpha[:1])])
    assert view["captions"] == [{"words": [], "log_prob": -0.5, "maps": "", "spread": [], "strength": []}]


def test_checkpoints_are_named_by_their_folder_or_by_the_whole_path_where_that_does_not_tell_them_apart():
    one, other, third = (Path(name) for name in ("/a/runs/soft/best.npz", "/a/runs/hard/best.npz", "/b/runs/soft/best.npz"))
    assert labels([one, other]) == [os.path.join("soft", "best.npz"), os.path.join("hard", "best.npz")]
    assert labels([one, third]) == [str(one), str(third)]


def test_a_captioner_without_attention_has_words_without_maps():
    (entry,) = view_entry(a_model(captioner="lrcn"), None, [Caption(["a", "dog"], -1.0, None)])["captions"]
    assert entry == {"words": ["a", "dog"], "log_prob": -1.0}


def test_words_names_and_labels_stay_text(tmp_path):
    words = write_hostile(tmp_path / "p.html")
    text, data = (tmp_path / "p.html").read_text(encoding="utf-8"), page_data(tmp_path / "p.html")
    assert data["photos"][0]["views"][0]["captions"][0]["words"] == words
    assert data["captioners"][0]["label"] == "soft/<i>best.npz" and data["photos"][0]["name"].startswith('"><img src=x')
    assert text.count("<script") == text.count("</script") == 2 and "<img" not in text and "<i>" not in text
    write_hostile(tmp_path / "p.html", ["dog\u202egod", "\ud800"])  # what turns the text around, and half of a pair
    (entry, _) = page_data(tmp_path / "p.html")["photos"][0]["views"][0]["captions"]
    assert entry["words"] == ["dog\\u202egod", "\\ud800"]


def test_the_policy_allows_this_style_and_this_script_and_nothing_from_outside(tmp_path):
    write_hostile(tmp_path / "p.html")
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="(.*?)">', text)
    hashes = [
        b64encode(sha256(re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[0].encode()).digest()).decode()
        for tag in ("style", "script")
    ]
    assert policy.split("; ") == [
        "default-src 'none'", "img-src data:", "base-uri 'none'", "form-action 'none'",
        f"style-src 'sha256-{hashes[0]}'", f"script-src 'sha256-{hashes[1]}'",
    ]  # fmt: skip
    assert set(re.findall(r"\w+://[^\"' ]*", text)) == {"http://www.w3.org/2000/svg"}  # a name, which is not fetched
    assert not re.search(r"url\(|@import|\bfetch|XMLHttpRequest|innerHTML|style=", text)


@pytest.mark.parametrize("shape", [(60, 40), (64, 64), (256, 100), (500, 257), (900, 1300)])
def test_photos_keep_their_shape_and_small_ones_every_pixel(rng, shape):
    photo = np.repeat(rng.integers(0, 256, (*shape, 1), np.uint8), 3, axis=2)
    entry = photo_entry("x.jpg", photo, [])
    kind, _, coded = entry["source"].partition(";base64,")
    image = Image.open(io.BytesIO(b64decode(coded)))
    assert (entry["height"], entry["width"]) == shape and f"data:image/{image.format.lower()}" == kind
    assert max(image.size) == min(max(shape), SIDE)
    assert image.size[0] / image.size[1] == pytest.approx(shape[1] / shape[0], rel=0.01)
    assert entry["pixels"] == (max(shape) <= 256)
    if entry["pixels"]:
        np.testing.assert_array_equal(image, photo)
    else:
        assert image.format == "JPEG" and len(b64decode(coded)) <= LIMIT


@pytest.mark.parametrize("side", [256, 640, 800])
def test_forty_photos_of_noise_with_large_maps_stay_below_10_mb(rng, tmp_path, side):
    """Noise is the hardest to compress: no photo is larger."""
    model, T = a_model((14, 14), sentinel=True), 14
    captions = [Caption(T * ["elephants"], -20.0, rng.random((T + 1, 14, 14)) / 300) for _ in range(5)]
    noise = rng.integers(0, 256, (side, side, 3), np.uint8)
    entry = photo_entry("noise.jpg", noise, [view_entry(model, None, captions)])
    write_captions(tmp_path / "p.html", [captioner_entry("best.npz", model)], 40 * [entry], 5)
    assert 2e6 < (tmp_path / "p.html").stat().st_size < 10e6


def test_the_parts_of_the_pages_are_data_of_the_package():
    import tomllib

    import satnp

    project = tomllib.loads((Path(satnp.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["satnp.page"]
    parts = [part.name for part in files("satnp.page").iterdir() if part.is_file() and not part.name.endswith(".py")]
    assert len(parts) == 5 and all(any(Path(part).match(pattern) for pattern in patterns) for part in parts)
