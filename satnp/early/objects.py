"""A detector of the objects of rendered scenes, on the annotations of an encoder that is not trained.

    h = ReLU(conv3x3(a) + b_h)        a (rows, columns, D), the annotations
    o = h W_o + b_o                   for each cell: OUTPUTS
    p(object) = sigmoid(o_0)          is the centre of an object in this cell?
    p(colour), p(shape), p(size) = softmax of six, four and two numbers
    x, y = o_x, o_y                   the centre, in cells from the corner of its cell
    s = exp(o_s)                      the side of the box, in cells

The loss is the logistic loss of p(object) over all cells, and in the cells with an object the three cross-entropies and
smooth L1 of (x, y, log s). Of boxes that overlap, the one with the largest p(object) is kept (non-maximum suppression).

This is YOLO (Redmon et al. 2016) with one box for each cell. Differs: the paper has squared errors in place of the
cross-entropies, trains the whole network, and its boxes are not square.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import xp_of
from satnp.captioners.config import Validated
from satnp.data.scenes import COLOURS, SHAPES, SIDE, SIZES
from satnp.early.fitting import fit_parameters, minibatches
from satnp.encoders.weights import he_normal
from satnp.layers import (
    affine_backward,
    affine_forward,
    conv2d_backward_weights,
    conv2d_relu_forward,
    cross_entropy_backward,
    cross_entropy_forward,
    noisy_or_loss_backward,
    noisy_or_loss_forward,
    relu_backward,
    rows,
    sigmoid,
    smooth_l1_backward,
    smooth_l1_forward,
    softmax,
)
from satnp.scores.precision import average_precision as average_precision_of_list

CLASSES = {"colour": tuple(COLOURS), "shape": SHAPES, "size": tuple(SIZES)}
OUTPUTS = {"object": 1, "colour": len(COLOURS), "shape": len(SHAPES), "size": len(SIZES), "box": 3}
PARTS = {name: slice(end - n, end) for (name, n), end in zip(OUTPUTS.items(), accumulate(OUTPUTS.values()), strict=True)}
OVERLAP = 0.3    # IoU from which two boxes are of one object
FAINTEST = 0.05  # p(object) of the faintest box that is found


@dataclass(frozen=True)
class Config(Validated):
    D: int = 128
    F: int = 64        # filters of the convolution
    rows: int = 8      # of the grid of annotations
    side: int = SIDE   # of the photo, in pixels
    box: float = 5.0   # weight of smooth L1 in the loss
    epochs: int = 16
    batch: int = 50
    rate: float = 3e-3

    @property
    def cell(self):
        """Side of a cell in pixels."""
        return self.side / self.rows


class Targets(NamedTuple):
    """For each cell of N photos: is there an object (N, L), 1.0 or 0.0; its colour, shape and size (N, L) as numbers in
    CLASSES, and its box (N, L, 3): x, y, log s. Where there is no object, the others are 0."""

    object: object
    colour: object
    shape: object
    size: object
    box: object


class Found(NamedTuple):
    """One object that was found: box (x0, y0, x1, y1) in pixels, score p(object), and the probabilities of its colour (6,),
    shape (4,) and size (2,), in the order of CLASSES."""

    box: tuple
    score: float
    colour: object
    shape: object
    size: object

    @property
    def kind(self):
        """The most probable (colour, shape), as words."""
        return CLASSES["colour"][self.colour.argmax()], CLASSES["shape"][self.shape.argmax()]


def shapes(config):
    n = sum(OUTPUTS.values())
    return {"W_h": (3, 3, config.D, config.F), "b_h": (config.F,), "W_o": (config.F, n), "b_o": (n,)}


def targets(config, objects):
    """The Targets of photos with these objects: for each photo a sequence of data.scenes.Thing"""
    N, L = len(objects), config.rows**2
    found = Targets(*(np.zeros((N, L), kind) for kind in (np.float32, int, int, int)), np.zeros((N, L, 3), np.float32))
    for n, things in enumerate(objects):
        for thing in things:
            x0, y0, x1, y1 = np.array(thing.box) / config.cell
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            i = int(y) * config.rows + int(x)
            found.object[n, i], found.box[n, i] = 1, (x - int(x), y - int(y), np.log(x1 - x0))
            for name, words in CLASSES.items():
                getattr(found, name)[n, i] = words.index(getattr(thing, name))
    return found


def outputs_forward(p, config, annotations):
    """annotations (N, L, D) -> o (N*L, all of OUTPUTS), cache"""
    cells = annotations.reshape(len(annotations), config.rows, -1, config.D)
    h, conv = conv2d_relu_forward(cells, p.W_h, p.b_h, padding=1)
    o, affine = affine_forward(h.reshape(-1, config.F), p.W_o, p.b_o)
    return o, (h.shape, conv, affine)


def outputs_backward(do, cache, grads):
    """do (N*L, all of OUTPUTS): adds the gradients of all weights to grads"""
    shape, (conv, relu), affine = cache
    dh, dW_o, db_o = affine_backward(do, affine)
    dW_h, db_h = conv2d_backward_weights(relu_backward(dh.reshape(shape), relu), conv)
    grads.add(W_h=dW_h, b_h=db_h, W_o=dW_o, b_o=db_o)


def forward(p, config, annotations, wanted):
    """annotations (N, L, D), Targets -> loss (), the sum of all losses of a photo, averaged over the photos; cache"""
    o, outputs = outputs_forward(p, config, annotations)
    z, there = o[:, PARTS["object"]].reshape(wanted.object.shape), wanted.object.ravel() / len(annotations)
    # the noisy-OR over one location is the logistic loss
    loss, of_object = noisy_or_loss_forward(z[:, None], wanted.object)
    caches = {}
    for name in CLASSES:
        of_class, caches[name] = cross_entropy_forward(o[:, PARTS[name]], getattr(wanted, name).ravel(), there)
        loss = loss + of_class
    of_box, caches["box"] = smooth_l1_forward(o[:, PARTS["box"]], rows(wanted.box), there)
    return loss + config.box * of_box, (p, config, outputs, of_object, caches)


def backward(cache, grads):
    """Adds the gradients of all weights to grads."""
    _, config, outputs, of_object, caches = cache
    parts = [noisy_or_loss_backward(1.0, of_object).reshape(-1, 1)]
    parts += [cross_entropy_backward(1.0, caches[name]) for name in CLASSES]
    parts.append(smooth_l1_backward(config.box, caches["box"]))
    outputs_backward(xp_of(parts[0]).concatenate(parts, axis=1), outputs, grads)


def train(config, annotations, objects, seed=0):
    """Train on photos with these annotations (N, L, D), a host array, and objects, as for `targets` -> Parameters"""
    rng, wanted = np.random.default_rng([seed, 8]), targets(config, objects)
    batches = minibatches(len(objects), config.batch, rng)
    p = he_normal(shapes(config), rng)
    p.b_o[0] = np.log(wanted.object.mean())  # cells with an object are rare

    def draw(rng):
        chosen = next(batches)
        return annotations[chosen].astype(p.flat.dtype), Targets(*(x[chosen] for x in wanted))

    def work(batch, grads):
        loss, cache = forward(p, config, *batch)
        backward(cache, grads)
        return loss

    steps = config.epochs * -(-len(objects) // config.batch)
    fit_parameters(p, draw, work, steps, config.rate, rng, what="objects")
    return p


def detect(p, config, annotations, chunk=250):
    """annotations (N, L, D), a host array -> for each photo a list of Found, the most certain first"""
    found = []
    for start in range(0, len(annotations), chunk):
        seen = annotations[start : start + chunk].astype(p.flat.dtype)
        o = outputs_forward(p, config, seen)[0].reshape(*seen.shape[:2], -1)
        found += [_of_photo(config, x) for x in o]
    return found


def _of_photo(config, o):
    """o (L, all of OUTPUTS) -> list of Found, after non-maximum suppression"""
    score = sigmoid(o[:, 0])
    box = o[:, PARTS["box"]]
    centre = np.stack(np.divmod(np.arange(len(o)), config.rows)[::-1], axis=1) + box[:, :2]
    half = np.exp(box[:, 2:]) / 2
    boxes = np.clip(config.cell * np.concatenate([centre - half, centre + half], axis=1), 0, config.side)
    kept = [i for i in suppress(boxes, score) if score[i] >= FAINTEST]
    classes = [softmax(o[kept][:, PARTS[name]]) for name in CLASSES]
    return [Found(tuple(map(float, boxes[i])), float(score[i]), *of) for i, *of in zip(kept, *classes, strict=True)]


def intersection_over_union(a, b):
    """Intersection over union of boxes: a (..., 4), b (..., 4) -> (...)"""
    a, b = np.asarray(a, float), np.asarray(b, float)
    shared = (np.minimum(a, b)[..., 2:] - np.maximum(a, b)[..., :2]).clip(0).prod(axis=-1)
    areas = [(x[..., 2:] - x[..., :2]).clip(0).prod(axis=-1) for x in (a, b)]
    return shared / np.maximum(areas[0] + areas[1] - shared, 1e-12)


def overlaps(a, b):
    """IoU of each of the boxes a (N, 4) with each of the boxes b (M, 4) -> (N, M)"""
    return intersection_over_union(np.asarray(a)[:, None], np.asarray(b)[None])


def suppress(boxes, scores, overlap=OVERLAP):
    """Non-maximum suppression: boxes (N, 4), scores (N,) -> the numbers of those kept, largest score first

    A box is left out if its IoU with a better one that is kept is larger than `overlap`.
    """
    kept, shared = [], overlaps(boxes, boxes)
    for i in np.argsort(-scores, kind="stable"):
        if not (shared[i, kept] > overlap).any():
            kept.append(int(i))
    return kept


def average_precision(found, scenes, iou=0.5, classes=True):
    """Average precision of the boxes found on scenes: for each scene a list of Found -> 0 to 1

    The boxes of all scenes are taken in falling order of their scores. Each takes the object of its scene with which it has
    the largest IoU, of those that are still free; it is a hit if the IoU is at least `iou`, else it takes none. With
    `classes`, only objects of its colour and shape count. The score is the mean over all objects of the precision at which
    they are hit, 0 if never.
    Source: Everingham et al. 2010, section 4.2, without its interpolation.
    """
    listed = [(box.score, n, box) for n, boxes in enumerate(found) for box in boxes]
    free, hits = [list(scene.objects) for scene in scenes], []
    for _, n, box in sorted(listed, key=lambda x: -x[0]):
        shared = [(intersection_over_union(box.box, thing.box), k) for k, thing in enumerate(free[n])
                  if not classes or thing.kind == box.kind]  # fmt: skip
        best, k = max(shared, default=(0, None))
        hits.append(best >= iou)
        if hits[-1]:
            del free[n][k]
    order, total = -np.arange(len(hits)), sum(len(scene.objects) for scene in scenes)
    return average_precision_of_list(order, np.array(hits)) * sum(hits) / total if any(hits) else 0.0
