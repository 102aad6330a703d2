"""Rendered clips: one of two or three coloured shapes moves, the others stand still; five true captions each, three of the
direction and two of the relation.

The mover goes in a direction, and has a relation to the one object that is straight ahead of it or straight behind it:

    relation     what happens                                                   the clip played backwards
    towards      the object is ahead, and stays CLEAR pixels or more away       away from
    meets        the object is ahead, and the mover stops beside it             leaves

Each of the four excludes the others, and a clip played backwards has the opposite direction and the opposite relation: no
caption is true of a clip and of the same clip played backwards. A captioner that does not know the order of the frames
describes both with the same caption, which is true of at most one of them. Half of all clips are played backwards; if a
combination is held out, the one of the clip played backwards is held out, too.

Training clips have no held-out (kind of the mover, direction) or (kind of the mover, relation); in validation and test clips
both are held out, so none of their sentences is in the training captions.
"""

import re
from collections import Counter
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np
from PIL import Image

from satnp.data.scenes import COLOURS, GREY, KINDS, SHAPES, SIDE, SIZES, SPLITS, Thing, names_of, noun_pattern, render
from satnp.errors import InputError
from satnp.files import replacing

FRAMES = 8
STEPS = 3, 5  # pixels between two frames, smallest and largest
BESIDE = 1  # largest gap in pixels between two objects that are beside each other
CLEAR = 6  # smallest gap otherwise
ASIDE = 3  # straight ahead: the centres are at most this many pixels aside; all other objects leave such a gap to the path
THREE = 0.25  # share of the clips with a third object
MILLISECONDS = 150  # a frame in a file

BACKWARDS = {
    "left": "right", "right": "left", "up": "down", "down": "up",
    "towards": "away from", "away from": "towards", "meets": "leaves", "leaves": "meets",
}  # fmt: skip
DIRECTIONS, RELATIONS = ("left", "right", "up", "down"), ("towards", "away from", "meets", "leaves")

# The whole grammar: a noun, a phrase and, if the phrase is of a relation, a second noun.
PHRASES = {f"{verb} {meaning}": meaning for verb in ("moves", "goes") for meaning in (*DIRECTIONS, "towards", "away from")}
PHRASES |= {"meets": "meets", "stops beside": "meets", "leaves": "leaves", "starts beside": "leaves"}

# Half of the kinds have a direction and a relation held out, in both orders; each colour and each shape occurs in training
# with each direction and relation.
_HELD_OUT = ({"left", "right", "towards", "away from"}, {"up", "down", "meets", "leaves"}, set(), set())
HELD_OUT = {
    (colour, shape): _HELD_OUT[(c + s) % 4] for c, colour in enumerate(COLOURS) for s, shape in enumerate(SHAPES)
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Clip:
    """frames (8, 64, 64, 3) uint8, the mover as it is in the first frame, its boxes in all frames, the others, captions."""

    name: str
    frames: np.ndarray
    mover: Thing
    boxes: tuple[tuple[int, int, int, int], ...]
    others: tuple[Thing, ...]
    captions: tuple[str, ...]

    @property
    def backwards(self):
        """The same clip played backwards, with the same captions, which are not true of it."""
        boxes = self.boxes[::-1]
        return replace(self, frames=self.frames[::-1], mover=replace(self.mover, box=boxes[0]), boxes=boxes)


class ParsedCaption(NamedTuple):
    """What a caption says: kind and size (or None) of each noun, and the direction or relation."""

    kinds: tuple[tuple[str, str], ...]
    sizes: tuple[str | None, ...]
    motion: str


def make_clips(count, split, seed):
    """Make `count` clips of the split train, val or test.

    Clip k depends only on (k, split, seed), so a longer list begins with the shorter one.
    Raises InputError for an unknown split.
    """
    if split not in SPLITS:
        raise InputError(f"split is {split!r}: choose one of {', '.join(SPLITS)}")
    rng = np.random.default_rng([seed, SPLITS.index(split), FRAMES])
    return [_make_clip(f"{split}-{k:05d}", split, rng) for k in range(count)]


def _make_clip(name, split, rng):
    kinds, direction, relation = _choose(split, rng)
    sizes, boxes, *still = _layout(len(kinds), direction, relation, rng)
    mover, *others = (
        Thing(*kind, size, box) for kind, size, box in zip(kinds, sizes, (boxes[0], *still), strict=True)
    )  # fmt: skip
    grey = rng.uniform(*GREY)
    frames = np.stack([render([replace(mover, box=box), *others], grey, rng) for box in boxes])
    captions = []
    for motion, count in ((direction, 3), (relation, 2)):
        truths = _true_captions(motion, mover, others[0])
        captions += [truths[i] for i in rng.choice(len(truths), count, replace=False)]
    return Clip(name, frames, mover, boxes, tuple(others), tuple(captions))


def _choose(split, rng):
    """Draw two or three kinds, the mover's first, a direction and a relation that the split may have."""
    held_out = split != "train"
    kinds = list(rng.permutation(len(KINDS)))
    if held_out:
        first = next(k for k in kinds if HELD_OUT[KINDS[k]])
        kinds = [first, *(k for k in kinds if k != first)]
    kinds = [KINDS[k] for k in kinds[: 3 if rng.random() < THREE else 2]]
    chosen = (
        [motion for motion in motions if (motion in HELD_OUT[kinds[0]]) == held_out] for motions in (DIRECTIONS, RELATIONS)
    )
    return kinds, *(motions[rng.integers(len(motions))] for motions in chosen)


def _layout(count, direction, relation, rng):
    """Draw the sizes of `count` objects -> sizes, boxes of the mover in all frames, boxes of the others.

    The mover goes towards the second object; if the relation is the reverse, the clip is then played backwards.
    """
    forwards = relation in ("towards", "meets")
    lowest, highest = (0, BESIDE) if relation in ("meets", "leaves") else (CLEAR, SIDE)
    while True:
        sizes = [tuple(SIZES)[i] for i in rng.integers(len(SIZES), size=count)]
        sides = np.array([rng.integers(*SIZES[size], endpoint=True) for size in sizes])
        steps = rng.integers(*STEPS, endpoint=True) * np.arange(FRAMES)
        room = SIDE - sides[0] - sides[1] - steps[-1]
        if room < lowest:
            continue
        gap = rng.integers(lowest, min(highest, room), endpoint=True)
        # along the path, and across it
        start = rng.integers(0, room - gap, endpoint=True)
        along = [start + steps, start + steps[-1] + sides[0] + gap]
        across = [rng.integers(0, SIDE - sides[0], endpoint=True)]
        across.append(across[0] + (sides[0] - sides[1]) // 2 + rng.integers(-ASIDE, ASIDE, endpoint=True))
        for side in sides[2:]:
            along.append(rng.integers(0, SIDE - side, endpoint=True))
            across.append(rng.integers(0, SIDE - side, endpoint=True))
        apart = count < 3 or all(
            max(across[2] - across[k] - sides[k], across[k] - across[2] - sides[2]) > ASIDE for k in (0, 1)
        )  # fmt: skip
        if apart and 0 <= across[1] <= SIDE - sides[1]:
            break
    faces = direction if forwards else BACKWARDS[direction]
    path, *still = (_boxes(u, v, side, faces) for u, v, side in zip(along, across, sides, strict=True))
    return sizes, path if forwards else path[::-1], *(box for (box,) in still)


def _boxes(along, across, side, direction):
    """The boxes of a square at one place or more along a path in this direction, and at a place across it, in a tuple."""
    if direction in ("left", "up"):
        along = SIDE - side - along
    x, y = np.broadcast_arrays(*((along, across) if direction in ("left", "right") else (across, along)))
    return tuple(map(tuple, np.stack([x, y, x + side, y + side], axis=-1).reshape(-1, 4).tolist()))


def direction_of(clip):
    """The direction of the mover: left, right, up or down."""
    dx, dy = (clip.boxes[-1][k] - clip.boxes[0][k] for k in (0, 1))
    if abs(dx) > abs(dy):
        return "right" if dx > 0 else "left"
    return "down" if dy > 0 else "up"


def relation_of(clip, thing):
    """One of RELATIONS between the mover and a thing that stands still, or None if it is aside of the path."""
    direction, first, last, box = direction_of(clip), clip.boxes[0], clip.boxes[-1], thing.box
    k = 0 if direction in ("left", "right") else 1  # the coordinate along the path
    aside = abs(box[1 - k] + box[3 - k] - first[1 - k] - first[3 - k]) / 2
    if aside > ASIDE + 0.5:
        return None
    before, after = (max(box[k] - mover[k + 2], mover[k] - box[k + 2]) for mover in (first, last))  # gaps
    if after < before:
        return "meets" if after <= BESIDE else "towards"
    return "leaves" if before <= BESIDE else "away from"


def _true_captions(motion, mover, second):
    """All sentences of the grammar that say this motion of the mover, and of the second object if it is a relation."""
    phrases = [phrase for phrase, meaning in PHRASES.items() if meaning == motion]
    nouns = [names_of(mover)] if motion in DIRECTIONS else [names_of(mover), names_of(second)]
    return [" ".join([first, phrase, *rest]) for phrase, first, *rest in product(phrases, *nouns)]


_PATTERN = re.compile(f"{noun_pattern('first')} (?P<phrase>{'|'.join(PHRASES)})(?: {noun_pattern('second')})?")


def parse(caption):
    """Parse a sentence of the grammar -> ParsedCaption; None for any other sentence."""
    match = _PATTERN.fullmatch(caption)
    motion = match and PHRASES[match["phrase"]]
    if match is None or (match["second_shape"] is None) != (motion in DIRECTIONS):
        return None
    names = ("first",) if motion in DIRECTIONS else ("first", "second")
    return ParsedCaption(
        kinds=tuple((match[f"{name}_colour"], match[f"{name}_shape"]) for name in names),
        sizes=tuple(match[f"{name}_size"] for name in names),
        motion=motion,
    )


def is_true(caption, clip):
    """True if the caption parses, names the mover and, if it names a second object, one that stands still, both with the
    correct attributes, and states their direction or relation.
    """
    parsed = parse(caption)
    if parsed is None:
        return False
    others = {thing.kind: thing for thing in clip.others}
    things = [clip.mover if parsed.kinds[0] == clip.mover.kind else None, *map(others.get, parsed.kinds[1:])]
    if any(thing is None or size not in (None, thing.size) for thing, size in zip(things, parsed.sizes, strict=True)):
        return False
    return parsed.motion == (direction_of(clip) if len(things) == 1 else relation_of(clip, things[1]))


def score(clips, captions):
    """Score one caption per clip.

    true_captions: share of the captions that are true. true_backwards: share of those that are true of the clip played
    backwards. constant_caption_true: share of the clips for which the best constant caption is true.
    Raises InputError when there is no clip, or when the numbers of clips and captions differ.
    """
    if not len(clips) == len(captions) > 0:
        found = f"{len(clips)} clips and {len(captions)} captions"
        raise InputError(f"{found}: pass at least one clip, and one caption for each")
    holds = Counter((clip.mover.kind, direction_of(clip)) for clip in clips)  # the best constant caption states no size
    return {
        "true_captions": sum(map(is_true, captions, clips)) / len(clips),
        "true_backwards": sum(map(is_true, captions, [clip.backwards for clip in clips])) / len(clips),
        "constant_caption_true": max(holds.values()) / len(clips),
    }


def write_clip(path, clip):
    """Write the frames of a clip as an animated PNG file, which keeps every pixel."""
    first, *more = map(Image.fromarray, clip.frames)
    with replacing(path) as temporary:
        first.save(temporary, format="PNG", save_all=True, append_images=more, duration=MILLISECONDS, loop=0)
