"""Rendered scenes: coloured shapes on grey noise, five true captions each, and a score for where the captioner looks.

Every caption names the two leftmost objects, leftmost first; a third object is a distractor. The order is fixed because
alpha_t is computed from h_{t-1}, which has read y_{t-2} but not y_{t-1}: before the model says "circle" of "a red circle
is above ...", the state that chooses the location has not read "red". If either noun could come first, the sampled word
"red" would decide which object is meant one step too late, and no soft attention, however well trained, could know where
to look. With the fixed order, the image alone decides. The order applies to the captions made here; `is_true` accepts any
two objects that are named correctly.

Training scenes have no held-out (kind, relation, kind) triple; validation and test scenes have only held-out triples.
This holds for every pair of objects in a scene, including the distractor.
"""

import json
import re
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations, permutations, product
from typing import NamedTuple
from warnings import catch_warnings

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from satnp.errors import InputError
from satnp.files import replacing

SIDE = 64  # pixels
COLOURS = {
    "red": (224, 42, 42),
    "yellow": (250, 212, 40),
    "green": (36, 160, 60),
    "cyan": (70, 214, 226),
    "blue": (38, 72, 214),
    "pink": (238, 92, 196),
}
SHAPES = ("circle", "square", "triangle", "cross")
SIZES = {"small": (10, 12), "big": (17, 20)}  # smallest and largest side in pixels
GREY = 70, 190  # of the background, 0-255
KINDS = tuple(product(COLOURS, SHAPES))
RELATIONS = ("left of", "above", "below")
SPLITS = ("train", "val", "test")
OBJECTS = "satnp objects"  # the text in a scene's PNG file that lists its objects

# The whole grammar: a noun is "a [size] colour shape".
TEMPLATES = ("{first} {phrase} {second}", "{first} is {phrase} {second}", "there is {first} {phrase} {second}")
PHRASES = {"left of": "left of", "to the left of": "left of", "above": "above", "over": "above",
           "below": "below", "under": "below"}

# One fifth of all triples [kind, relation, kind] is held out, spread evenly: any four of colour, shape, relation, colour
# and shape occur together in training, so only the whole combination is new. "a above b" is the same fact as "b below a".
_first, _second = np.ogrid[: len(KINDS), : len(KINDS)]
_left, _above = ((_first + 2 * _second + k) % 5 == 0 for k in (0, 1))
HELD_OUT = np.stack([_left, _above, _above.T], axis=1)


@dataclass(frozen=True)
class Thing:
    """One object: colour, shape and size as words, box (x0, y0, x1, y1) in pixels, half open."""

    colour: str
    shape: str
    size: str
    box: tuple[int, int, int, int]

    @property
    def kind(self):
        return self.colour, self.shape


@dataclass(frozen=True, eq=False)
class Scene:
    """One photo: image (64, 64, 3) uint8, objects leftmost first, five different true captions."""

    name: str
    image: np.ndarray
    objects: tuple[Thing, ...]
    captions: tuple[str, ...]


class ParsedCaption(NamedTuple):
    """What a caption says: for each of its two nouns the kind, the size or None, and the index of its shape word."""

    kinds: tuple[tuple[str, str], tuple[str, str]]
    sizes: tuple[str | None, str | None]
    relation: str
    nouns: tuple[int, int]


def make_scenes(count, split, seed):
    """Make `count` scenes of the split train, val or test.

    Scene k depends only on (k, split, seed), so a longer list begins with the shorter one.
    Raises InputError for an unknown split.
    """
    if split not in SPLITS:
        raise InputError(f"split is {split!r}: choose one of {', '.join(SPLITS)}")
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    allowed = (HELD_OUT != (split == "train")) & ~np.eye(len(KINDS), dtype=bool)[:, None]
    return [_make_scene(f"{split}-{k:05d}", allowed, rng) for k in range(count)]


def _make_scene(name, allowed, rng):
    sizes, boxes = _layout(rng)
    kinds = _choose_kinds(boxes, allowed, rng)
    things = tuple(Thing(*kind, size, box) for kind, size, box in zip(kinds, sizes, boxes, strict=True))
    truths = _true_captions(*things[:2])
    captions = tuple(truths[i] for i in rng.choice(len(truths), 5, replace=False))
    return Scene(name, render(things, rng.uniform(*GREY), rng), things, captions)


def _layout(rng):
    """Draw sizes and boxes of two or three objects, leftmost first, until none overlap and their relations are clear."""
    n = rng.integers(2, 4)
    sizes = [tuple(SIZES)[i] for i in rng.integers(len(SIZES), size=n)]
    sides = np.array([rng.integers(*SIZES[size], endpoint=True) for size in sizes])
    i, j = np.triu_indices(n, 1)
    while True:
        corners = rng.integers(0, SIDE - sides, (2, n), endpoint=True)
        centres = corners + sides / 2
        dx, dy = np.abs(centres[:, i] - centres[:, j])
        apart = np.maximum(dx, dy) > (sides[i] + sides[j]) / 2
        if np.all(apart & (dx >= 4) & (np.abs(dx - dy) >= 3)):
            break
    boxes = np.concatenate([corners, corners + sides]).T.tolist()
    order = np.argsort(centres[0])
    return [sizes[k] for k in order], [tuple(boxes[k]) for k in order]


def _choose_kinds(boxes, allowed, rng):
    """Draw one kind per box, uniformly over all choices in which every pair, leftmost first, is an allowed triple."""
    n = len(boxes)
    choices = np.ones((len(KINDS),) * n, dtype=bool)
    for i, j in combinations(range(n), 2):
        pairs = allowed[:, RELATIONS.index(_relation(boxes[i], boxes[j]))]
        choices &= np.expand_dims(pairs, [axis for axis in range(n) if axis not in (i, j)])
    found = np.flatnonzero(choices)
    return [KINDS[k] for k in np.unravel_index(found[rng.integers(len(found))], choices.shape)]


def _relation(first, second):
    """Relation of the centres of two boxes along the larger distance; None if the first is right of the second."""
    dx, dy = (second[k] + second[k + 2] - first[k] - first[k + 2] for k in (0, 1))
    if abs(dx) > abs(dy):
        return "left of" if dx > 0 else None
    return "above" if dy > 0 else "below"


def render(things, grey, rng):
    """Draw the things on a background of this grey, with noise -> (64, 64, 3) uint8"""
    canvas = np.full((SIDE, SIDE, 3), grey, dtype=np.float32)
    for thing in things:
        x0, y0, x1, y1 = thing.box
        patch = canvas[y0:y1, x0:x1]
        patch += _mask(thing.shape, x1 - x0) * (np.float32(COLOURS[thing.colour]) - patch)
    canvas += 10 * rng.standard_normal(canvas.shape, dtype=np.float32)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


@cache
def _mask(shape, side):
    """Fraction of each pixel that the shape covers, (side, side, 1): drawn eight times as large, then averaged."""
    s = 8 * side
    image = Image.new("L", (s, s))
    draw = ImageDraw.Draw(image)
    if shape == "circle":
        draw.ellipse((0, 0, s - 1, s - 1), fill=255)
    elif shape == "square":
        draw.rectangle((0, 0, s - 1, s - 1), fill=255)
    elif shape == "triangle":
        draw.polygon([(s / 2, 0), (s - 1, s - 1), (0, s - 1)], fill=255)
    else:  # cross
        arm = 0.34 * s
        draw.rectangle((arm, 0, s - 1 - arm, s - 1), fill=255)
        draw.rectangle((0, arm, s - 1, s - 1 - arm), fill=255)
    return np.asarray(image.reduce(8), dtype=np.float32)[:, :, None] / 255


def _true_captions(first, second):
    """All sentences of the grammar that are true of the two objects and name `first` first."""
    relation = _relation(first.box, second.box)
    phrases = [phrase for phrase, meaning in PHRASES.items() if meaning == relation]
    return [template.format(first=a, phrase=phrase, second=b)
            for template, phrase, a, b in product(TEMPLATES, phrases, names_of(first), names_of(second))]


def names_of(thing):
    """The two nouns of a thing: without its size, and with it."""
    return [f"a {thing.colour} {thing.shape}", f"a {thing.size} {thing.colour} {thing.shape}"]


def noun_pattern(name):
    """A regular expression of all nouns, with the groups NAME_size, NAME_colour and NAME_shape."""
    words = {"size": SIZES, "colour": COLOURS, "shape": SHAPES}
    size, colour, shape = (f"(?P<{name}_{part}>{'|'.join(choices)})" for part, choices in words.items())
    return f"a (?:{size} )?{colour} {shape}"


_PHRASE = f"(?P<phrase>{'|'.join(PHRASES)})"
_PATTERNS = [
    re.compile(template.format(first=noun_pattern("first"), phrase=_PHRASE, second=noun_pattern("second")))
    for template in TEMPLATES
]


def write_scene(path, scene):
    """Write the image of a scene as a PNG file that also lists its objects, as JSON in a text of the file."""
    text = PngInfo()
    text.add_text(OBJECTS, json.dumps([asdict(thing) for thing in scene.objects]))
    with replacing(path) as temporary:
        Image.fromarray(scene.image).save(temporary, pnginfo=text)


def read_objects(path):
    """The objects of the scene that `write_scene` wrote to `path` -> tuple of Thing; () for any other photo."""
    with suppress(Exception), catch_warnings(action="ignore"), Image.open(path, formats=["PNG"]) as image:
        things = [Thing(**found | {"box": tuple(found["box"])}) for found in json.loads(image.info[OBJECTS])]
        if all(_is_possible(thing, *image.size) for thing in things):
            return tuple(things)
    return ()


def _is_possible(thing, width, height):
    """True for an object of a scene of this size; the text of a PNG file may say anything."""
    if (thing.colour, thing.shape) not in KINDS or thing.size not in SIZES or {*map(type, thing.box)} != {int}:
        return False
    x0, y0, x1, y1 = thing.box
    return 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height


def parse(caption):
    """Parse a sentence of the grammar -> ParsedCaption; None for any other sentence."""
    match = next(filter(None, (pattern.fullmatch(caption) for pattern in _PATTERNS)), None)
    if match is None:
        return None
    names = "first", "second"
    return ParsedCaption(
        kinds=tuple((match[f"{name}_colour"], match[f"{name}_shape"]) for name in names),
        sizes=tuple(match[f"{name}_size"] for name in names),
        relation=PHRASES[match["phrase"]],
        nouns=tuple(caption.count(" ", 0, match.start(f"{name}_shape")) for name in names),
    )


def is_true(caption, scene):
    """True if the caption parses, names two different objects of the scene with the correct attributes, and states a
    relation that holds for their centres.
    """
    parsed = parse(caption)
    if parsed is None:
        return False
    things = {thing.kind: thing for thing in scene.objects}
    first, second = (things.get(kind) for kind in parsed.kinds)
    if first is None or second is None or first is second:
        return False
    sizes_hold = all(size in (None, thing.size) for size, thing in zip(parsed.sizes, (first, second), strict=True))
    return sizes_hold and _relation(first.box, second.box) == parsed.relation


def points(caption, alphas, grid, scene):
    """Count the hits and the nouns of a caption -> (hits, nouns).

    A noun is a hit if the cell with the largest alpha at its step overlaps the box of its object. alphas (T, L), where
    alphas[t] belongs to word t; grid (rows, cols) with rows * cols = L. Every shape word is a noun, whether or not the
    caption parses; its object has that shape and the colour that the word before it names. A noun without such an object
    is a miss. Raises InputError when alphas do not fit the words or the grid.
    """
    words, (rows, cols) = caption.split(), grid
    alphas = np.asarray(alphas)
    if alphas.ndim != 2 or len(alphas) < len(words) or alphas.shape[1] != rows * cols:
        raise InputError(f"alphas have shape {alphas.shape}, wanted ({len(words)} or more, {rows * cols}) for "
                         f"{caption!r} on a grid of {rows} x {cols}: pass one row of alpha per word")
    targets = _targets(words, scene)
    hits = sum(thing is not None and _cells(thing.box, grid).ravel()[alphas[t].argmax()] for t, thing in targets)
    return int(hits), len(targets)


def _targets(words, scene):
    """[(index of the shape word, its object or None)] of the nouns of a caption."""
    things = {thing.kind: thing for thing in scene.objects}
    before = [None, *words]
    return [(t, things.get((before[t], word))) for t, word in enumerate(words) if word in SHAPES]


def _cells(box, grid):
    """Mask of the grid cells that overlap the box, bool (rows, cols)."""
    x0, y0, x1, y1 = box
    rows, cols = (np.arange(n + 1) * SIDE / n for n in grid)
    return np.outer((rows[:-1] < y1) & (rows[1:] > y0), (cols[:-1] < x1) & (cols[1:] > x0))


def score(scenes, captions, alphas, grid):
    """Score one caption per scene, with the scores that captioners without attention would get.

    true_captions: share of the captions that are true. pointing_accuracy: hits per noun (see `points`).
    pointing_uniform: expected hits per noun if the cell were drawn uniformly. pointing_centre: the same for the central
    cell (for an even grid, the mean over the central cells). constant_caption_true: share of the scenes for which the
    best constant caption is true. If the captions have no noun, the pointing scores are 0.
    With alphas None, for a captioner without attention, the pointing scores are left out.
    Raises InputError when there is no scene, or when the numbers of scenes, captions and arrays of alphas differ.
    """
    if not len(scenes) == len(captions) > 0:
        found = f"{len(scenes)} scenes and {len(captions)} captions"
        raise InputError(f"{found}: pass at least one scene, and one caption for each")
    if alphas is not None and len(alphas) != len(captions):
        raise InputError(f"{len(captions)} captions and {len(alphas)} arrays of alphas: pass one array for each caption")
    scores = {
        "true_captions": sum(map(is_true, captions, scenes)) / len(scenes),
        "constant_caption_true": _constant_caption_true(scenes),
    }
    return scores if alphas is None else scores | _pointing(scenes, captions, alphas, grid)


def _pointing(scenes, captions, alphas, grid):
    """The pointing scores of `score`."""
    hits = nouns = uniform = centre = 0
    middle = tuple(slice((n - 1) // 2, n // 2 + 1) for n in grid)
    for scene, caption, alpha in zip(scenes, captions, alphas, strict=True):
        pointed, said = points(caption, alpha, grid, scene)
        hits, nouns = hits + pointed, nouns + said
        found = [_cells(thing.box, grid) for _, thing in _targets(caption.split(), scene) if thing is not None]
        uniform += sum(cells.mean() for cells in found)
        centre += sum(cells[middle].mean() for cells in found)
    return {
        "pointing_accuracy": hits / max(nouns, 1),
        "pointing_uniform": float(uniform / max(nouns, 1)),
        "pointing_centre": float(centre / max(nouns, 1)),
    }


def _constant_caption_true(scenes):
    # The best constant caption states no size, so it is the triple that holds in most scenes.
    holds = Counter((a.kind, _relation(a.box, b.box), b.kind)
                    for scene in scenes for a, b in permutations(scene.objects, 2) if _relation(a.box, b.box))
    return max(holds.values()) / len(scenes)
