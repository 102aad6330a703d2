"""The regions of rendered scenes, for captioners that read regions from a file (satnp/data/by_name.py).

The features of a region are the mean of the annotations under its box, each cell weighted by the area that the box covers of
it; then the box (x0, y0, x1, y1), divided by the side of the photo; then the probabilities of its shape, its class.
"""

import numpy as np

from satnp.data.scenes import SHAPES, SIDE
from satnp.early.objects import Config, detect, train
from satnp.files import replacing


def true_regions(scenes):
    """The objects of scenes -> for each scene boxes (n, 4) and probabilities of the shapes (n, 4), 1 for the true one"""
    return [_regions(scene.objects, [np.array(SHAPES) == thing.shape for thing in scene.objects]) for scene in scenes]


def found_regions(learnt_on, annotations, scenes, seed=0):
    """Train a detector of objects, and let it find those of all scenes -> like true_regions

    learnt_on: the number of scenes from the first on that it learns from; annotations (N, L, D). A scene in which it finds
    nothing has one region, the whole photo, with equal probabilities.
    """
    config = Config(D=annotations.shape[2], rows=round(annotations.shape[1] ** 0.5))
    p = train(config, annotations[:learnt_on], [scene.objects for scene in scenes[:learnt_on]], seed)
    whole = np.array([[0.0, 0, SIDE, SIDE]]), np.full((1, len(SHAPES)), 1 / len(SHAPES))
    regions = []
    for found in detect(p, config, annotations):
        found = [x for x in found if x.box[0] < x.box[2] and x.box[1] < x.box[3]]
        regions.append(_regions(found, [x.shape for x in found]) if found else whole)
    return regions


def _regions(objects, probabilities):
    return np.array([x.box for x in objects], float), np.array(probabilities, float)


def pooled(annotations, grid, boxes):
    """Mean annotation under each box, weighted by overlap: annotations (L, D), boxes (n, 4) in pixels -> (n, D)"""
    x0, y0, x1, y1 = boxes.T[:, :, None]
    rows, columns = (np.arange(n + 1) * SIDE / n for n in grid)
    across = np.clip(np.minimum(columns[1:], x1) - np.maximum(columns[:-1], x0), 0, None)  # (n, columns)
    down = np.clip(np.minimum(rows[1:], y1) - np.maximum(rows[:-1], y0), 0, None)
    weights = (down[:, :, None] * across[:, None]).reshape(len(boxes), -1)
    return weights / weights.sum(axis=1, keepdims=True) @ annotations


def write_regions(path, names, annotations, grid, regions):
    """Write the .npz file: names of N photos, annotations (N, L, D), regions as from true_regions -> number of regions"""
    k, C = max(len(boxes) for boxes, _ in regions), len(SHAPES)
    features = np.zeros((len(names), k, annotations.shape[2] + 4 + C), np.float32)
    boxes, mask = np.zeros((len(names), k, 4), np.float32), np.zeros((len(names), k), np.uint8)
    for n, (of_photo, probabilities) in enumerate(regions):
        here = n, slice(len(of_photo))
        seen = pooled(annotations[n].astype(np.float32), grid, of_photo)
        features[here] = np.concatenate([seen, of_photo / SIDE, probabilities], axis=1)
        boxes[here], mask[here] = of_photo, 1
    arrays = {"names": np.array(names, dtype=str), "features": features, "boxes": boxes, "mask": mask}
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays, classes=np.array(SHAPES))
    return int(mask.sum())
