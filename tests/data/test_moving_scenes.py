"""Rendered clips: their grammar and its truth, held-out combinations, and what playing backwards changes."""

from itertools import product

import numpy as np
import pytest
from PIL import Image

from satnp.data import datasets
from satnp.data.moving_scenes import (
    BACKWARDS,
    BESIDE,
    CLEAR,
    DIRECTIONS,
    FRAMES,
    HELD_OUT,
    PHRASES,
    RELATIONS,
    direction_of,
    is_true,
    make_clips,
    parse,
    relation_of,
    score,
    write_clip,
)
from satnp.data.scenes import COLOURS, KINDS, SHAPES, SIDE, SIZES, names_of
from satnp.errors import InputError


@pytest.fixture(scope="module", params=["train", "val", "test"])
def clips(request):
    return make_clips(150, request.param, seed=0)


def sentences():
    """All sentences of the grammar about small and big objects of two kinds."""
    nouns = [f"a {size}{colour} {shape}" for size in ("", *(f"{x} " for x in SIZES)) for colour, shape in KINDS[:2]]
    for phrase, motion in PHRASES.items():
        for words in product(nouns, [phrase], *([nouns] if motion in RELATIONS else [])):
            yield motion, " ".join(words)


def test_every_sentence_is_parsed_and_no_other():
    for motion, sentence in sentences():
        parsed = parse(sentence)
        assert parsed.motion == motion and len(parsed.kinds) == len(parsed.sizes) == 1 + (motion in RELATIONS)
    for wrong in (
        "", "a red circle moves", "red circle moves left", "a red circle moves left a blue square", "a red circle meets",
        "a red big circle moves left", "a red circle moves left ", "a red ball moves left",
    ):  # fmt: skip
        assert parse(wrong) is None, wrong


def test_the_true_sentences_are_those_of_the_mover(clips):
    """By enumeration of all sentences about the objects of a clip."""
    for clip in clips[:40]:
        things = [clip.mover, *clip.others]
        nouns = {noun: thing for thing in things for noun in names_of(thing)}
        for noun, phrase in product(nouns, PHRASES):
            motion, moves = PHRASES[phrase], nouns[noun] is clip.mover
            if motion in DIRECTIONS:
                assert is_true(f"{noun} {phrase}", clip) == (moves and direction_of(clip) == motion)
                continue
            for other, thing in nouns.items():
                true = moves and thing is clip.others[0] and relation_of(clip, thing) == motion
                assert is_true(f"{noun} {phrase} {other}", clip) == true
        size = {"small": "big", "big": "small"}[clip.mover.size]
        assert not is_true(f"a {size} {clip.mover.colour} {clip.mover.shape} moves {direction_of(clip)}", clip)


def test_captions_are_true_and_different_and_none_is_true_backwards(clips):
    for clip in clips:
        assert len(set(clip.captions)) == 5
        assert all(is_true(caption, clip) and not is_true(caption, clip.backwards) for caption in clip.captions)
        assert direction_of(clip.backwards) == BACKWARDS[direction_of(clip)]
        assert relation_of(clip.backwards, clip.others[0]) == BACKWARDS[relation_of(clip, clip.others[0])]
    said = {parse(caption).motion for clip in clips for caption in clip.captions}
    assert said == {*DIRECTIONS, *RELATIONS}


def test_margins(clips):
    """The mover moves in a straight line at a constant speed, inside the frame, and touches nothing."""
    for clip in clips:
        boxes = np.array(clip.boxes)
        steps = np.diff(boxes, axis=0)
        assert (steps == steps[0]).all() and sorted(abs(steps[0, :2]))[0] == 0 and 3 <= abs(steps[0]).max() <= 5
        assert boxes.min() >= 0 and boxes.max() <= SIDE
        for k, thing in enumerate(clip.others):
            box = np.array(thing.box)
            gaps = np.maximum(box[:2] - boxes[:, 2:], boxes[:, :2] - box[2:]).max(axis=1)
            assert gaps.min() >= 0 and 0 <= min(box) and max(box) <= SIDE
            near = relation_of(clip, thing) in ("meets", "leaves")
            assert (relation_of(clip, thing) is None) == (k > 0)
            assert k > 0 or (gaps.min() <= BESIDE if near else gaps.min() >= CLEAR)


def test_only_validation_and_test_clips_have_the_held_out_combinations():
    for split in ("train", "val", "test"):
        for clip in make_clips(300, split, seed=1):
            motions = {direction_of(clip), relation_of(clip, clip.others[0])}
            held = HELD_OUT[clip.mover.kind]
            assert motions <= held if split != "train" else not motions & held
            assert all(BACKWARDS[motion] in held for motion in held)


@pytest.mark.parametrize("words", [COLOURS, SHAPES])
def test_each_colour_and_each_shape_occurs_in_training_with_each_motion(words):
    for word, motion in product(words, (*DIRECTIONS, *RELATIONS)):
        assert any(word in kind and motion not in held for kind, held in HELD_OUT.items())


def test_clips_depend_on_number_split_and_seed_only():
    ours, again, others = make_clips(4, "val", 3), make_clips(6, "val", 3), make_clips(4, "val", 4)
    for a, b, c in zip(ours, again, others, strict=False):
        assert (a.frames == b.frames).all() and a.captions == b.captions and a.boxes == b.boxes
        assert (a.frames != c.frames).any()
    assert (ours[0].frames != make_clips(1, "test", 3)[0].frames).any()


def test_frames_show_the_boxes():
    for clip in make_clips(20, "train", 0):
        colour = np.array(COLOURS[clip.mover.colour])
        for frame, (x0, y0, x1, y1) in zip(clip.frames, clip.boxes, strict=True):
            middle = frame[(y0 + y1) // 2, (x0 + x1) // 2].astype(int)
            assert abs(middle - colour).max() < 60


def test_scores():
    clips = make_clips(50, "test", 0)
    true = [clip.captions[0] for clip in clips]  # of the direction
    reverse = [
        said.replace(direction, BACKWARDS[direction]) for said, direction in zip(true, map(direction_of, clips), strict=True)
    ]
    assert score(clips, true)["true_captions"] == 1 and score(clips, true)["true_backwards"] == 0
    assert score(clips, reverse)["true_captions"] == 0 and score(clips, reverse)["true_backwards"] == 1
    best = score(clips, true)["constant_caption_true"]
    every = {f"a {' '.join(kind)} moves {direction}" for kind in KINDS for direction in DIRECTIONS}
    assert best == max(sum(is_true(said, clip) for clip in clips) for said in every) / 50
    for wrong in ((clips, true[:-1]), ([], [])):
        with pytest.raises(InputError, match="pass at least one clip"):
            score(*wrong)


def test_an_order_blind_captioner_is_right_at_most_half_of_the_time():
    """The split has each clip and its reversal equally often, so what is said of both is true of one at most."""
    clips = make_clips(40, "test", 0)
    clips += [clip.backwards for clip in clips]
    said = [clip.captions[0] for clip in clips]
    assert score(clips, said)["true_captions"] == 0.5


def test_a_file_keeps_every_pixel(tmp_path):
    (clip,) = make_clips(1, "test", 0)
    write_clip(tmp_path / "clips" / "a.png", clip)
    with Image.open(tmp_path / "clips" / "a.png") as image:
        assert image.n_frames == FRAMES
        for k in range(FRAMES):
            image.seek(k)
            assert (np.asarray(image.convert("RGB")) == clip.frames[k]).all()


def test_an_unknown_split_is_refused():
    with pytest.raises(InputError, match="split is 'dev'"):
        make_clips(1, "dev", 0)


def test_the_data_are_split_and_read_no_files(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "CLIPS", {"train": 3, "val": 2, "test": 2})
    split = datasets.load_split("moving_scenes", "train")
    assert len(split.names) == 3 and split.photos[0].shape == (FRAMES, SIDE, SIDE, 3)
    assert len(split.contents) == 8 and split.contents != datasets.load_split("moving_scenes", "train", seed=1).contents
    with pytest.raises(InputError, match="--data moving_scenes draws its photos and reads no files"):
        datasets.load_split("moving_scenes", "train", tmp_path)
