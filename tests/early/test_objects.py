"""The detector of objects: targets, suppression, average precision held against a plain twin, and what it learns."""

from types import SimpleNamespace

import numpy as np
import pytest

from satnp.data.scenes import Thing, make_scenes
from satnp.early import objects
from satnp.early.objects import (
    CLASSES,
    PARTS,
    Config,
    Found,
    average_precision,
    intersection_over_union,
    overlaps,
    suppress,
    targets,
)
from satnp.layers import smooth_l1_forward
from tests.early.plain_scenes import annotations_of

CONFIG = Config(D=16)


def found_as(thing, box=None, score=1.0):
    """The Found that is sure of what this Thing is."""
    sure = (np.eye(len(words))[words.index(getattr(thing, name))] for name, words in CLASSES.items())
    return Found(box or thing.box, score, *sure)


def test_the_targets_hold_each_object_in_the_cell_of_its_centre():
    scenes = make_scenes(50, "train", seed=3)
    wanted = targets(CONFIG, [scene.objects for scene in scenes])
    assert wanted.object.sum() == sum(len(scene.objects) for scene in scenes)
    for n, scene in enumerate(scenes):
        for thing in scene.objects:
            x, y = ((thing.box[k] + thing.box[k + 2]) / 2 for k in (0, 1))
            row, column = int(y // 8), int(x // 8)
            cell = 8 * row + column
            assert wanted.object[n, cell] == 1 and CLASSES["colour"][wanted.colour[n, cell]] == thing.colour
            side = thing.box[2] - thing.box[0]
            assert wanted.box[n, cell] == pytest.approx([x / 8 - column, y / 8 - row, np.log(side / 8)])


def test_outputs_equal_to_the_targets_give_the_objects_back():
    for scene in make_scenes(50, "test", seed=3):
        wanted, o = targets(CONFIG, [scene.objects]), np.zeros((64, 16))
        o[:, 0] = 20 * wanted.object[0] - 10
        o[:, PARTS["box"]] = wanted.box[0]
        for name in CLASSES:
            o[np.arange(64), PARTS[name].start + getattr(wanted, name)[0]] = 9
        found = sorted(objects._of_photo(CONFIG, o), key=lambda found: found.box[0] + found.box[2])
        assert [x.kind for x in found] == [thing.kind for thing in scene.objects]
        assert [CLASSES["size"][x.size.argmax()] for x in found] == [thing.size for thing in scene.objects]
        np.testing.assert_allclose([x.box for x in found], [thing.box for thing in scene.objects], atol=1e-5)


def test_overlap_by_counting_pixels(rng):
    corners = rng.integers(0, 12, (20, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1) + 1], axis=1)
    masks = np.zeros((20, 13, 13), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    both, either = (getattr(np, f"logical_{way}")(masks[:, None], masks).sum(axis=(2, 3)) for way in ("and", "or"))
    np.testing.assert_allclose(overlaps(boxes, boxes), both / either)


def test_suppression_keeps_the_best_of_boxes_that_overlap():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [8, 0, 18, 10], [30, 30, 40, 40]], float)
    assert suppress(boxes, np.array([0.5, 0.9, 0.8, 0.1])) == [1, 2, 3]
    assert suppress(boxes, np.array([0.9, 0.5, 0.8, 0.1])) == [0, 2, 3]


def plain_average_precision(found, scenes, iou, classes):
    """Precision at each object that is hit, with no list shared between scenes: for each threshold, count anew."""
    def hits_above(threshold):
        hits = count = 0
        for boxes, scene in zip(found, scenes, strict=True):
            taken = set()
            for box in sorted((b for b in boxes if b.score >= threshold), key=lambda b: -b.score):
                count += 1
                fits = {}
                for k, thing in enumerate(scene.objects):
                    shared = intersection_over_union(box.box, thing.box)
                    if k not in taken and (not classes or box.kind == thing.kind):
                        fits[k] = shared
                if fits and max(fits.values()) >= iou:
                    taken.add(max(fits, key=fits.get))
                    hits += 1
        return hits, count

    total, before, area = sum(len(scene.objects) for scene in scenes), 0, 0.0
    for threshold in sorted({b.score for boxes in found for b in boxes}, reverse=True):
        hits, count = hits_above(threshold)
        area += (hits - before) / total * hits / count
        before = hits
    return area


@pytest.mark.parametrize("classes", [False, True])
def test_average_precision_is_that_of_a_plain_twin(classes, rng):
    scenes = make_scenes(12, "test", seed=1)
    found = []
    for scene in scenes:
        boxes = []
        for thing in (*scene.objects, *scene.objects):  # each object is found twice, more or less
            moved = tuple(np.array(thing.box) + rng.normal(0, 2, 4))
            said = thing if rng.random() < 0.7 else scene.objects[0]
            boxes.append(found_as(said, moved, rng.random()))
        found.append(boxes)
    score = average_precision(found, scenes, classes=classes)
    assert score == pytest.approx(plain_average_precision(found, scenes, 0.5, classes)) and 0.1 < score < 0.95


def test_average_precision_counts_an_object_once_and_needs_its_class():
    thing, other = Thing("red", "circle", "big", (0, 0, 20, 20)), Thing("blue", "circle", "big", (0, 0, 20, 20))
    scene = SimpleNamespace(objects=(thing,))
    assert average_precision([[found_as(thing)]], [scene]) == 1
    assert average_precision([[found_as(thing, score=0.9), found_as(thing, score=0.8)]], [scene]) == 1
    assert average_precision([[found_as(other, score=0.9), found_as(thing, score=0.8)]], [scene]) == 0.5
    assert average_precision([[found_as(other)]], [scene]) == 0 == average_precision([[]], [scene])
    assert average_precision([[found_as(other)]], [scene], classes=False) == 1
    assert average_precision([[found_as(thing, (0, 0, 20, 9))]], [scene]) == 0
    assert average_precision([[found_as(thing)], []], [scene, scene]) == 0.5


def test_smooth_l1_by_hand():
    x, y = np.array([[0.5, 3.0], [-2.0, 1.0], [9.0, 9.0]]), np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    loss, _ = smooth_l1_forward(x, y, np.array([1.0, 0.5, 0.0]))
    assert loss == pytest.approx(0.125 + 1.5 + 0.5 * 1.5)


def test_it_learns_objects_from_annotations_that_show_them(rng, capsys):
    scenes = [make_scenes(300, split, seed=2) for split in ("train", "test")]
    train, test = (annotations_of(x) + 0.05 * rng.standard_normal((len(x), 64, 16)) for x in scenes)
    config = Config(D=16, F=48, epochs=25, batch=20, rate=0.01)
    p = objects.train(config, train, [scene.objects for scene in scenes[0]])
    assert average_precision(objects.detect(p, config, test), scenes[1]) > 0.9
