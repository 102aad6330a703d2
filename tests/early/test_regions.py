"""The regions of rendered scenes: what is pooled, what is written, and what the detector's regions are."""

import numpy as np
import pytest

from satnp.data.by_name import read_regions
from satnp.data.scenes import SHAPES, make_scenes
from satnp.early import regions
from satnp.early.regions import found_regions, pooled, true_regions, write_regions
from tests.early.plain_scenes import annotations_of


def test_a_region_is_the_mean_of_the_annotations_weighted_by_area(rng):
    annotations, boxes = rng.standard_normal((64, 3)), np.array([[3.0, 10, 30, 21], [0, 0, 64, 64], [8, 16, 16, 24]])
    pixels = np.repeat(np.repeat(annotations.reshape(8, 8, 3), 8, axis=0), 8, axis=1)  # each cell as 8 x 8 pixels
    wanted = [pixels[int(y0) : int(y1), int(x0) : int(x1)].mean(axis=(0, 1)) for x0, y0, x1, y1 in boxes]
    np.testing.assert_allclose(pooled(annotations, (8, 8), boxes), wanted, rtol=1e-12)


def test_the_file_has_the_features_the_box_and_the_class_of_each_object(tmp_path):
    scenes = make_scenes(12, "val", seed=0)
    annotations, names = annotations_of(scenes), [scene.name for scene in scenes]
    count = write_regions(tmp_path / "r.npz", names, annotations, (8, 8), true_regions(scenes))
    found = read_regions(tmp_path / "r.npz")
    x = found.of(names[::-1], classes=SHAPES)[:][::-1]
    assert count == sum(len(scene.objects) for scene in scenes) and found.sizes == (3, 16 + 4 + 4)
    for of_scene, boxes, scene, seen in zip(x, found.boxes(range(12)), scenes, annotations, strict=True):
        here = len(scene.objects)
        assert not of_scene[here:].any() and boxes[:here].tolist() == [list(thing.box) for thing in scene.objects]
        np.testing.assert_allclose(of_scene[:here, :16], pooled(seen, (8, 8), boxes[:here]), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(of_scene[:here, 16:20], boxes[:here] / 64, rtol=1e-6)
        assert [SHAPES[row.argmax()] for row in of_scene[:here, 20:]] == [thing.shape for thing in scene.objects]


def test_the_detector_finds_the_objects_of_scenes_that_it_has_not_seen():
    scenes = make_scenes(400, "train", seed=0) + make_scenes(40, "test", seed=0)
    found = found_regions(400, annotations_of(scenes).astype(np.float32), scenes)[400:]
    same = hits = 0
    for (boxes, probabilities), scene in zip(found, scenes[400:], strict=True):
        assert probabilities.shape == (len(boxes), 4)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
        same += len(boxes) == len(scene.objects)
        for thing in scene.objects:
            near = np.abs(boxes - thing.box).max(axis=1)
            hits += near.min() < 4 and SHAPES[probabilities[near.argmin()].argmax()] == thing.shape
    assert same >= 36 and hits >= 0.9 * sum(len(scene.objects) for scene in scenes[400:])


def test_a_scene_in_which_nothing_is_found_is_one_region(monkeypatch):
    scenes = make_scenes(2, "train", seed=0)
    monkeypatch.setattr(regions, "detect", lambda p, config, annotations: [[], []])
    for boxes, probabilities in found_regions(2, annotations_of(scenes).astype(np.float32), scenes):
        assert boxes.tolist() == [[0, 0, 64, 64]] and probabilities.tolist() == [[0.25] * 4]


@pytest.mark.parametrize("k", [2, 3])
def test_the_file_has_as_many_places_as_the_scene_with_the_most_regions(tmp_path, k):
    scenes = [scene for scene in make_scenes(20, "val", seed=0) if len(scene.objects) <= k]
    write_regions(tmp_path / "r.npz", [scene.name for scene in scenes], annotations_of(scenes), (8, 8), true_regions(scenes))
    assert read_regions(tmp_path / "r.npz").sizes[0] == k
