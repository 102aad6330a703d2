"""Figures: maps lie where the attention was, lines at their numbers, nothing is cut off, and files are whole PNGs."""

import os
import subprocess
import sys
import warnings
from itertools import product
from math import ceil

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from satnp import figures
from satnp.encoders.clips import picture
from satnp.errors import InputError
from satnp.figures import (
    attention_figure,
    channels_figure,
    comparison_figure,
    curves_figure,
    diagnostics_figure,
    learning_figure,
    nwgm_figure,
    objects_figure,
    overlay,
    regions_figure,
    side_by_side_figure,
    upsample,
    variance_figure,
    visual_figure,
)
from satnp.proof.laboratory import Row
from satnp.proof.nwgm import PAIRS, VARIANTS

GRID = 3, 4


def one_cell(row, col):
    alpha = np.zeros(GRID)
    alpha[row, col] = 1
    return alpha.reshape(1, -1)


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("L"), float)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were written, in order."""
    written, save = [], figures._save

    def keep(figure, path):
        save(figure, path)
        written.append(figure)

    monkeypatch.setattr(figures, "_save", keep)
    return written


def assert_nothing_is_cut_off(figure):
    """All lies inside the figure, and its legends and titles on nothing else."""
    own = [x for x in (*figure.legends, *figure.texts) if x.get_window_extent().width]
    boxes = [x.get_tightbbox() for x in (*own, *figure.axes)]
    for k, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 + 1, box
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 + 1, box
        for other in boxes[: min(k, len(own))]:
            assert not box.overlaps(other), (box, other)


def legend_of(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_upsample_keeps_an_even_map_even_and_a_peak_in_place():
    np.testing.assert_allclose(upsample(np.full(GRID, 0.25), (30, 20)), 0.25)
    for row in range(GRID[0]):
        for col in range(GRID[1]):
            fine = upsample(one_cell(row, col).reshape(GRID), (30, 40))
            y, x = np.unravel_index(fine.argmax(), fine.shape)
            assert (y * 3 // 30, x * 4 // 40) == (row, col)
            assert 0 <= fine.min() and fine.max() <= 1


def test_upsample_is_smooth(rng):
    fine = upsample(rng.random(GRID), (300, 400))
    assert max(np.abs(np.diff(fine, axis=axis)).max() for axis in (0, 1)) < 0.02


def test_the_frames_of_a_clip_have_their_own_weights_and_no_more():
    (_, panel), = figures._maps(np.zeros((6, 40, 3), np.uint8), ["x"], [[0.0, 1, 0.5, 0]], (1, 4))  # fmt: skip
    light = panel[:, :, 0].reshape(6, 4, 10)
    assert (light == light[:1, :, :1]).all() and light[0, :, 0].tolist() == [0, 184, 92, 0]


@pytest.mark.parametrize("shape", [(2, 12), (8, 64), (5, 100), (1000, 33)])
def test_the_weight_of_a_frame_fills_its_part_of_the_strip_up_to_the_lines(shape):
    K, size = shape
    strip = picture(np.zeros((K, 3, size, 3), np.uint8))
    weights = np.linspace(0.1, 1, K)
    light, line = figures._of_frames(weights[None], strip.shape[:2]), strip[..., 0] == 255
    for k, weight in enumerate(weights):
        start = k * (size + ceil(size / 32))
        assert (light[:, start : start + size] == weight).all() and not line[:, start : start + size].any()


def test_overlay_is_white_at_the_largest_attention_of_any_scale():
    photo = np.full((2, 3, 3), 100, np.uint8)
    attention = np.array([[0, 1, 2], [3, 4, 5]])
    shown = overlay(photo, attention)
    assert shown.dtype == np.uint8 and np.all(np.diff(shown[:, :, 0].ravel().astype(int)) > 0)
    np.testing.assert_array_equal(shown, overlay(photo, attention / 1000))
    np.testing.assert_array_equal(overlay(0 * photo, attention, 10)[..., 0], np.rint(0.72 * 25.5 * attention))


@pytest.mark.parametrize("shape", [(64, 64), (100, 260), (900, 400)])
@pytest.mark.parametrize("cell", [(0, 0), (1, 2), (2, 3)])
def test_the_map_is_stretched_over_the_whole_photo(tmp_path, shape, cell):
    attention_figure(np.zeros((*shape, 3), np.uint8), [""], one_cell(*cell), GRID, tmp_path / "a.png")
    image = pixels(tmp_path / "a.png")
    panel = image[:, image.shape[1] // 2 :]  # of the word, on white paper
    panel = panel[(panel < 250).mean(axis=1) > 0.5]
    panel = panel[:, (panel < 250).mean(axis=0) > 0.5]
    assert panel.shape[0] / panel.shape[1] == pytest.approx(shape[0] / shape[1], rel=0.03)
    y, x = (positions.mean() for positions in np.nonzero(panel > panel.max() - 5))
    centre = (np.array(cell) + 0.5) / GRID
    np.testing.assert_allclose(np.array([y, x]) / panel.shape, centre, atol=0.17)
    np.testing.assert_array_less(np.abs(np.array([y, x]) / panel.shape - centre), 0.5 / np.array(GRID))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "T"),
    [
        *product([(40, 400), (64, 64), (400, 40)], [0, 1, 5]),
        ((64, 64), 20),
        *(pytest.param(shape, 20, marks=pytest.mark.slow) for shape in ((40, 400), (400, 40))),
    ],
)
def test_any_number_of_words_on_any_photo(tmp_path, rng, shape, T):
    photo = rng.integers(0, 256, (*shape, 3), np.uint8)
    words = ["snowboarders", "$x_", "<unk>", "a", "é"] * 4
    attention_figure(photo, words[:T], rng.random((T, 12)), GRID, tmp_path / "a.png", title="costs $5 or $6 " * 9)
    height, width = pixels(tmp_path / "a.png").shape
    assert 50 < height < 3000 and 50 < width < 1700


def test_the_row_of_end_is_not_drawn_and_boxes_are(tmp_path, rng):
    photo, alphas = rng.integers(0, 200, (64, 64, 3), np.uint8), rng.random((3, 12))
    drawn = {}
    for name, rows, boxes in (("words", 2, None), ("end", 3, None), ("boxes", 2, [(10, 20, 30, 40)])):
        attention_figure(photo, ["a", "dog"], alphas[:rows], GRID, tmp_path / f"{name}.png", boxes=boxes)
        drawn[name] = (tmp_path / f"{name}.png").read_bytes()
    assert drawn["words"] == drawn["end"] != drawn["boxes"]


def test_a_region_is_as_light_as_its_weight_and_the_largest_has_a_frame(tmp_path, drawn):
    photo, boxes = np.zeros((60, 80, 3), np.uint8), np.array([[10, 20, 30, 40], [20, 0, 80, 30], [0, 0, 0, 0]])
    alphas = np.array([[0.75, 0.25, 0], [0.1, 0.9, 0], [0.5, 0.5, 0]])  # the last one is that of <end>
    regions_figure(photo, ["a", "b"], alphas, boxes, tmp_path / "r.png", "a b")
    first, *panels = drawn[0].axes
    assert len(panels) == 2 and not first.patches and pixels(tmp_path / "r.png").std() > 0
    for ax, alpha in zip(panels, alphas, strict=False):
        light, scale = ax.images[0].get_array()[..., 0] / (0.72 * 255), 256 // 80 + 1
        for x, y, wanted in ((15, 35, alpha[0]), (25, 25, alpha[0] + alpha[1]), (60, 10, alpha[1]), (70, 50, 0)):
            assert light[y * scale, x * scale] == pytest.approx(wanted / alpha.sum(), abs=0.01)
        (frame,) = ax.patches
        assert frame.get_bbox().extents.tolist() == boxes[alpha.argmax()].tolist()
    assert_nothing_is_cut_off(drawn[0])


def test_regions_are_dark_and_without_a_frame_where_the_sentinel_has_the_weight(tmp_path, drawn):
    photo, boxes = np.zeros((60, 80, 3), np.uint8), np.array([[10, 20, 30, 40], [40, 0, 80, 30]])
    alphas = np.array([[0.01, 0.002], [0.3, 0.1], [0.2, 0.6]])
    regions_figure(photo, ["of", "left", "dog"], alphas, boxes, tmp_path / "r.png", sentinel=True)
    _, *panels = drawn[0].axes
    for ax, alpha in zip(panels, alphas, strict=True):
        light, scale = ax.images[0].get_array()[..., 0] / (0.72 * 255), 256 // 80 + 1
        for x, y, wanted in ((15, 35, alpha[0]), (60, 10, alpha[1]), (70, 50, 0)):
            assert light[y * scale, x * scale] == pytest.approx(wanted, abs=0.01)
    assert [len(ax.patches) for ax in panels] == [0, 0, 1]


def test_a_frame_is_seen_on_white_and_on_black_and_at_the_border(tmp_path):
    for of_photo in (0, 255):
        photo = np.full((60, 80, 3), of_photo, np.uint8)
        for box in ((20, 15, 60, 45), (0, 0, 80, 60), (-5, -5, 200, 200)):
            regions_figure(photo, ["a"], np.ones((1, 1)), np.array([box]), tmp_path / "r.png")
            with Image.open(tmp_path / "r.png") as image:
                rgb = np.asarray(image.convert("RGB"), int)
            red = (rgb[..., 0] > 200) & (rgb[..., 1:] < 60).all(axis=2)
            y, x = np.nonzero(red)
            for side in (red[y.min()], red[y.max()], red[:, x.min()], red[:, x.max()]):
                assert side.sum() > 50
            assert (rgb[y.min() - 3 : y.min(), x.min() + 20] < 60).all(axis=1).any()  # the dark edge


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (70, 50, 500, 400), (300, 300, 400, 400), (-20, -10, 5, 5), (9, 9, 9.3, 9.3)])
def test_a_box_of_any_size_is_drawn(tmp_path, box, drawn):
    regions_figure(np.zeros((60, 80, 3), np.uint8), ["a"], np.ones((1, 1)), np.array([box]), tmp_path / "r.png")
    assert (drawn[0].axes[1].images[0].get_array() == 184).any()


def test_alphas_that_do_not_fit_the_regions_are_refused(tmp_path):
    for shape in ((1, 3), (4, 2), (2, 2, 1)):
        with pytest.raises(InputError, match="for 2 words and 2 regions; pass one row of alpha per word"):
            regions_figure(np.zeros((6, 8, 3), np.uint8), ["a", "b"], np.ones(shape), np.zeros((2, 4)), tmp_path / "r.png")


def test_each_object_has_a_panel_with_its_words_and_its_frame(tmp_path, drawn):
    found = [("a dog", np.array([10, 20, 30, 40])), ("snow", np.array([0, 30, 80, 60]))]
    objects_figure(np.zeros((60, 80, 3), np.uint8), found, tmp_path / "o.png", "a dog in snow")
    first, *panels = drawn[0].axes
    assert not first.patches and [ax.get_title() for ax in panels] == ["a dog", "snow"]
    for ax, (_, box) in zip(panels, found, strict=True):
        (frame,) = ax.patches
        assert frame.get_bbox().extents.tolist() == box.tolist()
    assert_nothing_is_cut_off(drawn[0])


@pytest.mark.parametrize("shape", [(64, 64), (60, 480), (120, 60)])
def test_the_title_of_a_single_photo_fits(tmp_path, drawn, shape):
    title = "a snowboarder jumps among some women with an umbrella who watch him from the mountain"
    attention_figure(np.zeros((*shape, 3), np.uint8), title.split(), None, GRID, tmp_path / "a.png", title)
    (ax,), (heading,) = drawn[0].axes, [text for text in drawn[0].texts if text.get_text()]
    assert heading.get_text().split() == title.split()
    above = heading.get_window_extent().y0 - ax.get_window_extent().y1
    assert 0 < above < figures.DPI * figures.LINE / 3 * len(heading.get_text().splitlines())
    assert_nothing_is_cut_off(drawn[0])


def test_captions_stand_below_each_other_on_the_same_photo(tmp_path, rng):
    photo = np.zeros((60, 60, 3), np.uint8)
    left, right = one_cell(1, 0), one_cell(1, 3)
    rows = [("soft", ["a"], left), ("hard", ["a"], right)]
    side_by_side_figure(photo, rows, GRID, tmp_path / "a.png")
    image = pixels(tmp_path / "a.png")
    across = np.flatnonzero((image < 250).mean(axis=0) > 0.5)
    word = across[np.flatnonzero(np.diff(across) > 1)[-1] + 1 :]  # the columns of the panels of the word
    down = np.flatnonzero((image[:, word] < 250).mean(axis=1) > 0.5)
    cut = np.flatnonzero(np.diff(down) > 1)
    assert len(cut) == 1
    for panel, place in zip(np.split(down, cut + 1), (0.125, 0.875), strict=True):
        light = image[panel][:, word].max(axis=0)
        assert np.nonzero(light > light.max() - 5)[0].mean() / len(word) == pytest.approx(place, abs=0.12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "label"),
    [
        ((40, 160), "soft"),
        ((160, 40), "hard (local_expectation), one sample"),
        pytest.param((160, 40), "soft", marks=pytest.mark.slow),
        pytest.param((40, 160), "hard (local_expectation), one sample", marks=pytest.mark.slow),
    ],
)
def test_labels_lie_left_of_their_own_panels(tmp_path, rng, drawn, shape, label):
    photo = rng.integers(0, 256, (*shape, 3), np.uint8)
    rows = [(label, ["a", "dog"] * n, rng.random((2 * n, 12))) for n in (1, 8, 3)]
    side_by_side_figure(photo, rows, GRID, tmp_path / "a.png", boxes=[(1, 2, 30, 20)])
    (figure,) = drawn
    labels = [text for text in figure.texts if text.get_text()]
    assert [" ".join(text.get_text().split()) for text in labels] == [label] * 3
    panels = [ax.get_window_extent() for ax in figure.axes]
    above = figure.bbox.y1
    for text, n in zip(labels, (3, 17, 7), strict=True):
        (own, panels), box = (panels[:n], panels[n:]), text.get_window_extent()
        assert above - max(panel.y1 for panel in own) > (50 if n > 3 else 20)  # room for the words, and between captions
        above = min(panel.y0 for panel in own)
        assert 0 <= box.x0 and box.x1 < min(panel.x0 for panel in own)
        middle = (min(panel.y0 for panel in own) + max(panel.y1 for panel in own)) / 2
        assert (box.y0 + box.y1) / 2 == pytest.approx(middle, abs=4)
    assert_nothing_is_cut_off(figure)


@pytest.mark.parametrize(("T", "D"), [(9, 5), (2, 2), (0, 5)])
def test_the_channels_of_a_word_are_drawn_strongest_first(tmp_path, rng, drawn, T, D):
    beta, maps = np.tile(np.arange(1, D + 1) / sum(range(1, D + 1)), (T, 1)), rng.standard_normal((T, 12, D))
    maps[:, :, -1] = -1  # a channel that is 0 after the ReLU
    words = ["snowboarders", "above"] * T
    channels_figure(rng.integers(0, 256, (60, 90, 3), np.uint8), words[:T], beta, maps, GRID, tmp_path / "a.png", "a title")
    values = np.maximum(maps, 0)
    strongest = np.argsort(-beta * values.max(axis=1), axis=1)
    ranks = min(3, D - 1) if T else 1
    axes = iter(drawn[0].axes)
    for rank in range(ranks):
        assert next(axes).get_title() == ""  # the photo
        for word, d, value in zip(words, strongest[:, rank], values, strict=False):
            ax = next(axes)
            assert ax.get_title() == f"{word}\n{d} (×{(d + 1) * 2 / (D + 1):.1f})"
            shown = ax.images[0].get_array()
            fine = upsample(value[:, d].reshape(GRID), shown.shape[:2])
            assert shown[fine == fine.max()].min() >= 183  # white where the channel is largest
    assert next(axes, None) is None
    heading = drawn[0].texts[-1].get_text()
    assert heading.startswith("a title")
    if T:
        d = strongest[0, 0]
        times = f"{(d + 1) * 2 / (D + 1):.1f}"
        assert " ".join(heading.split()).endswith(f"{d} (×{times}): channel {d}, with {times} times the mean weight")
    assert_nothing_is_cut_off(drawn[0])


def test_a_channel_that_is_0_everywhere_gets_no_panel(tmp_path, drawn):
    """With equal weights, the channel with the largest value is first; the second word has one channel, the third none."""
    maps = np.zeros((3, 12, 4))
    maps[0, 5], maps[1, 3] = (1, 3, -1, 2), (0, -2, 0, 1)
    channels_figure(np.zeros((60, 90, 3), np.uint8), ["a", "b", "c"], np.full((3, 4), 0.25), maps, GRID, tmp_path / "a.png")
    titles = [ax.get_title() for ax in drawn[0].axes]
    assert titles == ["", "a\n1 (×1.0)", "b\n3 (×1.0)", "", "a\n3 (×1.0)", "", "a\n0 (×1.0)"]


def test_a_single_caption_without_a_label_is_drawn_as_by_attention_figure_but_smaller(tmp_path, rng, drawn):
    photo, alphas = rng.integers(0, 256, (50, 80, 3), np.uint8), rng.random((3, 12))
    side_by_side_figure(photo, [("", ["a", "big", "dog"], alphas)], GRID, tmp_path / "a.png")
    attention_figure(photo, ["a", "big", "dog"], alphas, GRID, tmp_path / "b.png")
    small, large = drawn
    for ours, theirs in zip(small.axes, large.axes, strict=True):
        assert ours.get_title() == theirs.get_title()
        np.testing.assert_array_equal(ours.images[0].get_array(), theirs.images[0].get_array())
        area = [box.width * box.height for box in (ours.get_window_extent(), theirs.get_window_extent())]
        assert area[1] / area[0] == pytest.approx(2)


def test_captions_to_set_side_by_side_are_checked_like_one(tmp_path):
    photo = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(InputError, match="there are no captions to draw"):
        side_by_side_figure(photo, [], GRID, tmp_path / "a.png")
    with pytest.raises(InputError, match="alphas have shape"):
        side_by_side_figure(
            photo, [("soft", [], np.ones((0, 12))), ("hard", ["a"], np.ones((1, 11)))], GRID, tmp_path / "a.png"
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(1, 12), (4, 12), (2, 11), (24,)])
def test_alphas_that_fit_neither_words_nor_grid_are_refused(tmp_path, shape):
    with pytest.raises(InputError, match="alphas have shape"):
        attention_figure(np.zeros((8, 8, 3), np.uint8), ["a", "dog"], np.ones(shape), GRID, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


TRAIN = [{"kind": "train", "step": step, "epoch": 0.1, "loss": 9 / step, "lr": 1e-3} for step in range(10, 990, 10)]
VAL = [
    {"kind": "val", "step": step, "nll": 5 / step, "Bleu_4": step / 2000, "CIDEr": step / 300, "true_captions": None}
    for step in (300, 600, 900)
]


def test_curves_draw_what_is_there(tmp_path):
    shapes = []
    for k, records in enumerate((TRAIN[:1], TRAIN, TRAIN + VAL, VAL, [{"kind": "val", "step": 5, "CIDEr": 0.0}])):
        curves_figure(records, tmp_path / f"{k}.png")
        shapes.append(pixels(tmp_path / f"{k}.png").shape)
    assert shapes[0] == shapes[1] and shapes[2] == shapes[3]
    assert shapes[1][1] < shapes[2][1] and shapes[4][1] < shapes[2][1]  # one panel, two panels


def test_curves_of_self_critical_training_have_the_reward(tmp_path, drawn):
    curves_figure([{**row, "cider": row["step"] / 2000} for row in TRAIN] + VAL, tmp_path / "a.png")
    (right,) = (ax for ax in drawn[0].axes if ax.get_ylabel() == "CIDEr (0 to 10)")
    assert [line.get_label() for line in right.lines] == ["CIDEr (right)", "reward, training (right)"]
    steps, rewards = right.lines[1].get_data()
    np.testing.assert_allclose(rewards, steps / 2000)


@pytest.mark.parametrize("records", [[], [{"kind": "train", "step": 10, "lr": 1e-3}]])
def test_curves_of_nothing_are_refused(tmp_path, records):
    with pytest.raises(InputError, match="metrics.jsonl"):
        curves_figure(records, tmp_path / "a.png")


def learning(level):
    """A training whose loss and scores end near `level`."""
    val = [
        {"kind": "val", "step": s, "pointing_accuracy": level * s / 900, "true_captions": 0.5 * level} for s in (300, 900)
    ]
    return [{"kind": "train", "step": s, "loss": level + 30 / s} for s in range(10, 900, 10)] + val


def test_learning_draws_each_training_in_its_colour(tmp_path, drawn):
    curves = {"soft": learning(0.9), "reinforce_with_a_long_name": learning(0.5), "gumbel_st": learning(0.2)[:-2]}
    learning_figure(curves, tmp_path / "a.png")
    (figure,) = drawn
    loss, scores = figure.axes
    assert loss.get_ylabel() == "training loss (nats a word)" and loss.get_xlabel() == scores.get_xlabel() == "minibatches"
    assert [line.get_color() for line in loss.lines] == ["C0", "C1", "C2"]
    for line, level in zip(loss.lines, (0.9, 0.5, 0.2), strict=True):
        steps, values = line.get_data()
        np.testing.assert_allclose(steps[:2], [20, 30])  # the means of three
        assert values[0] == pytest.approx(level + (3 + 1.5 + 1) / 3) and values[-1] == pytest.approx(
            level + 30 / 880, abs=1e-4
        )
    lines = [(line.get_color(), line.get_linestyle(), tuple(line.get_ydata())) for line in scores.lines]
    assert lines == [
        ("C0", "-", (0.3, 0.9)), ("C0", "--", (0.45, 0.45)),
        ("C1", "-", (pytest.approx(1 / 6), 0.5)), ("C1", "--", (0.25, 0.25)),
    ]  # fmt: skip
    assert legend_of(figure) == [*curves, "pointing_accuracy", "true_captions"]
    assert_nothing_is_cut_off(figure)


def test_learning_draws_what_is_there(tmp_path, drawn):
    learning_figure({"soft": TRAIN, "hard": []}, tmp_path / "a.png")
    learning_figure({"soft": VAL, "hard": learning(0.5)[-2:]}, tmp_path / "b.png")
    assert [[ax.get_ylabel() for ax in figure.axes] for figure in drawn] == [
        ["training loss (nats a word)"],
        ["validation score (0 to 1)"],
    ]


@pytest.mark.parametrize("curves", [{}, {"soft": []}, {"soft": [{"kind": "val", "step": 5, "Bleu_4": 0.1}]}])
def test_learning_of_nothing_is_refused(tmp_path, curves):
    with pytest.raises(InputError, match="metrics.jsonl of each training"):
        learning_figure(curves, tmp_path / "a.png")


def diagnosed(step, hard=True):
    record = {"kind": "train", "step": step, "loss": 1.0, "alpha_entropy": 4 - step / 400, "beta": 0.4}
    if hard:
        expected = float(step % 40 == 0)
        record |= {"reward": 0.0 if expected else -9.5, "baseline": -10.0, "expected": expected}
    return record


def test_diagnostics_of_hard_attention_have_four_panels(tmp_path, drawn):
    diagnostics_figure([diagnosed(step) for step in range(10, 810, 10)], tmp_path / "a.png")
    (figure,) = drawn
    assert [ax.get_ylabel() for ax in figure.axes] == [
        "reward (nats)", "entropy of alpha (nats)", "share of images at expected value", "beta",
    ]  # fmt: skip
    assert {ax.get_xlabel() for ax in figure.axes} == {"minibatches"}
    reward, entropy, expected, beta = ([line.get_ydata() for line in ax.lines] for ax in figure.axes)
    assert [set(y) for y in reward] == [{-9.5}, {-9.5}, {-10.0}, {-10.0}]  # none where all were at their expected value
    assert (len(entropy[0]), len(entropy[1])) == (80, 79) and entropy[0][0] == 4 - 10 / 400
    assert set(expected[0]) == {0, 1} and set(expected[1]) == {0, 0.5}
    assert len(beta) == 2
    for ax in figure.axes[1:]:
        assert ax.get_ylim()[0] == 0 and ax.get_ylim()[1] > 1.08 * max(line.get_ydata().max() for line in ax.lines)
    assert_nothing_is_cut_off(figure)


def test_diagnostics_of_soft_attention_are_entropy_and_beta(tmp_path, drawn):
    diagnostics_figure([diagnosed(10, hard=False), *VAL], tmp_path / "a.png")
    diagnostics_figure([{"kind": "train", "step": 10, "beta": 0.1}], tmp_path / "b.png")
    labels = [[ax.get_ylabel() for ax in figure.axes] for figure in drawn]
    assert labels == [["entropy of alpha (nats)", "beta"], ["beta"]]


@pytest.mark.parametrize("records", [[], TRAIN + VAL])
def test_diagnostics_of_nothing_are_refused(tmp_path, records):
    with pytest.raises(InputError, match="no diagnostics of attention"):
        diagnostics_figure(records, tmp_path / "a.png")


SOFT = Row("soft", "none", 0.4, "exact", None, 0.0, 1)
WHOLE = Row("reinforce_whole", "none", 0.1, "exact", None, 70.0, 1)


def rows_of(estimator, baseline, variance, bias=1e-15):
    return [Row(estimator, baseline, bias, "exact", None, variance / S, S) for S in (4, 1, 2)]


def test_variance_is_drawn_against_samples_with_a_colour_a_baseline_and_a_marker_an_estimator(tmp_path, drawn):
    rows = rows_of("reinforce", "none", 20) + rows_of("reinforce", "moving_average", 2)
    rows += rows_of("gumbel_st", "none", 0.3, bias=0.2) + [SOFT, WHOLE]
    variance_figure(rows, tmp_path / "a.png")
    (figure,) = drawn
    (ax,) = figure.axes
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert "samples" in ax.get_xlabel() and "squared norm of the exact gradient" in ax.get_ylabel()
    plain, average, gumbel, guide = ax.lines
    for line, variance in ((plain, 20), (average, 2), (gumbel, 0.3)):
        np.testing.assert_allclose(line.get_xdata(), [1, 2, 4])
        np.testing.assert_allclose(line.get_ydata(), [variance, variance / 2, variance / 4])
    assert plain.get_color() == gumbel.get_color() != average.get_color()
    assert plain.get_marker() == average.get_marker() != gumbel.get_marker()
    assert np.diff(np.log(guide.get_ydata())) == pytest.approx(-np.diff(np.log(guide.get_xdata())))
    assert legend_of(figure) == ["reinforce", "gumbel_st (biased)", "baseline none", "baseline moving_average"]
    assert_nothing_is_cut_off(figure)


def test_all_estimators_with_all_baselines_can_be_told_apart(tmp_path, drawn):
    names = "reinforce", "reward_to_go", "local_expectation", "reinforce_coin", "gumbel_st"
    rows = [
        row for k, e in enumerate(names) for b in ("none", "moving_average", "leave_one_out") for row in rows_of(e, b, k + 1)
    ]
    variance_figure(rows, tmp_path / "a.png")
    *lines, _ = drawn[0].axes[0].lines
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 15
    assert_nothing_is_cut_off(drawn[0])


@pytest.mark.parametrize("rows", [[], [SOFT, WHOLE]])
def test_variance_of_nothing_is_refused(tmp_path, rows):
    with pytest.raises(InputError, match="no variance of an estimator"):
        variance_figure(rows, tmp_path / "a.png")


@pytest.mark.slow
def test_distances_of_predictions_are_drawn_as_shares_of_the_words(tmp_path, drawn):
    far = {pair: np.array([0.5, 0.01, 0.1, 0.2]) for pair in PAIRS}
    near = far | {"soft-nwgm": np.array([0, 1e-16, 1e-3, 1e-12])}
    nwgm_figure({variant: near if variant == (False, "held") else far for variant in VARIANTS}, tmp_path / "a.png")
    (figure,) = drawn
    titles = ["tanh on, h_t held", "tanh on, h_t recomputed", "tanh off, h_t held", "tanh off, h_t recomputed"]
    assert [ax.get_title() for ax in figure.axes] == titles
    for ax, title in zip(figure.axes, titles, strict=True):
        soft, *others = ax.lines
        for line in others:
            np.testing.assert_allclose(line.get_xdata()[1:], [0.01, 0.1, 0.2, 0.5])
            np.testing.assert_allclose(line.get_ydata(), [0, 0.25, 0.5, 0.75, 1])
        shares = dict(zip(soft.get_xdata(), soft.get_ydata(), strict=True))
        assert (shares == {1e-7: 0.75, 1e-3: 1}) == (title == "tanh off, h_t held")
        assert ax.get_xlim()[0] < 1e-7 and ax.get_xlim()[1] == 1
    assert {ax.get_xlabel() for ax in figure.axes[2:]} == {"total variation (0 to 1)"}
    assert legend_of(figure) == ["soft-nwgm", "soft-expectation", "nwgm-expectation"]
    assert_nothing_is_cut_off(figure)


def test_distances_of_no_words_are_refused(tmp_path):
    with pytest.raises(InputError, match="no words were compared"):
        nwgm_figure({variant: {pair: np.zeros(0) for pair in PAIRS} for variant in VARIANTS}, tmp_path / "a.png")


@pytest.mark.parametrize("words", [["dog"], ["a", "$dog$", "of", "a", "photographer"], 12 * ["outstretched", "arm"]])
def test_each_word_has_a_bar_as_high_as_its_attention_on_the_photo(tmp_path, drawn, words):
    visual = np.linspace(1, 0, len(words) + 1)[1:]
    visual_figure(words, visual, tmp_path / "a.png", title=" ".join(words))
    assert drawn[0].get_suptitle().split() == words
    (ax,) = drawn[0].axes
    bars = {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in ax.patches}
    assert list(bars.values()) == pytest.approx(list(visual))
    assert [text.get_text() for text in ax.get_xticklabels()] == words
    np.testing.assert_allclose(list(bars), ax.get_xticks(), atol=1e-12)
    assert ax.get_ylim() == (0, 1) and pixels(tmp_path / "a.png").min() < 50
    assert_nothing_is_cut_off(drawn[0])


def test_a_caption_without_words_has_a_figure_that_says_so(tmp_path, drawn):
    visual_figure([], np.zeros(0), tmp_path / "a.png", title="(no words)")
    assert not drawn[0].axes and [text.get_text() for text in drawn[0].texts] == ["(no words)"]
    assert_nothing_is_cut_off(drawn[0])


def test_numbers_that_are_not_one_for_each_word_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"visual has shape \(3,\); pass one number for each of the 2 words"):
        visual_figure(["a", "dog"], np.ones(3), tmp_path / "a.png")


def test_no_display_and_no_global_figures_are_needed():
    code = "import sys, satnp.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


HINDI = ["एक", "कुत्ता"]
FIGURES = {
    "attention": lambda words, path: attention_figure(PHOTO, words, np.eye(len(words), 12), GRID, path, " ".join(words)),
    "visual": lambda words, path: visual_figure(words, np.linspace(0, 1, len(words)), path, " ".join(words)),
    "channels": lambda words, path: channels_figure(
        PHOTO, words, np.ones((len(words), 3)), np.ones((len(words), 12, 3)), GRID, path, " ".join(words)
    ),
    "regions": lambda words, path: regions_figure(PHOTO, words, np.eye(len(words), 9), np.ones((9, 4)), path, words[0]),
    "objects": lambda words, path: objects_figure(PHOTO, [(word, (1, 1, 5, 4)) for word in words], path, words[0]),
    "side by side": lambda words, path: side_by_side_figure(PHOTO, [(words[0], words, np.eye(len(words), 12))], GRID, path),
    "learning": lambda words, path: learning_figure(
        {word: [{"kind": "train", "step": k, "loss": 1 / k} for k in (1, 2)] for word in words}, path
    ),
    "comparison": lambda words, path: comparison_figure(
        [{"captioner": word, "parameters": 9, "seconds_a_step": 1, "CIDEr": 1, "captions": {"x": word}} for word in words],
        [("x", PHOTO)], path,
    ),
}  # fmt: skip
SOME = [
    pytest.param(name, marks=[] if name in ("visual", "regions", "comparison") else pytest.mark.slow) for name in FIGURES
]
PHOTO = np.full((6, 8, 3), 128, np.uint8)
USERS = {
    "text.usetex": True, "font.family": ["serif"], "font.size": 30.0, "savefig.bbox": "tight", "savefig.dpi": 20.0,
    "axes.facecolor": "black", "figure.facecolor": "black", "savefig.transparent": True, "interactive": True,
    "axes.formatter.use_locale": True, "text.parse_math": False, "figure.autolayout": True, "savefig.format": "svg",
}  # fmt: skip


@pytest.fixture
def no_letters_yet(monkeypatch):
    """No character has been drawn, and the fonts that a test adds are gone after it."""
    monkeypatch.setattr(figures, "_families", {})
    monkeypatch.setattr(matplotlib.font_manager.fontManager, "ttflist", list(matplotlib.font_manager.fontManager.ttflist))
    yield
    matplotlib.font_manager.fontManager._findfont_cached.cache_clear()


@pytest.mark.parametrize("name", SOME)
def test_figures_have_their_own_style_and_leave_the_users_settings_as_they_are(tmp_path, name):
    FIGURES[name](["a", "dog"], tmp_path / "own.png")
    with matplotlib.rc_context(USERS):
        backend = dict.get(matplotlib.rcParams, "backend")
        before = dict(matplotlib.rcParams.copy())
        FIGURES[name](["a", "dog"], tmp_path / "users.png")
        assert dict(matplotlib.rcParams.copy()) == before and dict.get(matplotlib.rcParams, "backend") == backend
    np.testing.assert_array_equal(pixels(tmp_path / "users.png"), pixels(tmp_path / "own.png"))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["the working folder", "MATPLOTLIBRC", "MPLBACKEND", "MPLCONFIGDIR"])
def test_the_command_draws_whatever_the_matplotlibrc(tmp_path, place):
    (tmp_path / "settings").mkdir()
    path = tmp_path / "matplotlibrc" if place == "the working folder" else tmp_path / "settings/matplotlibrc"
    path.write_bytes(b"text.usetex: True\nbackend: nope\nnonsense: 3\n# caf\xe9\n")
    more = {"MATPLOTLIBRC": str(path), "MPLBACKEND": "nope", "MPLCONFIGDIR": str(path / "no folder")}
    more = {place: more[place]} if place in more else {}
    code = (
        "import sys; sys.argv = ['satnp', '--version']; from satnp.__main__ import main\ntry: main()\nexcept SystemExit: "
        "import numpy as np; from satnp.figures import visual_figure; visual_figure(['a'], np.ones(1), 'satnp.png')"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
                           env=os.environ | more)  # fmt: skip
    assert (child.returncode, child.stdout, child.stderr) == (0, "satnp 0.1.0\n", "") and pixels(tmp_path / "satnp.png").size


@pytest.mark.parametrize("name", SOME)
def test_words_and_names_are_shown_as_they_are(tmp_path, drawn, name):
    words = ["$x$", "_y_", r"\alpha", "100%", "a^2 & #1"]
    with warnings.catch_warnings(action="error"):
        FIGURES[name](words, tmp_path / "a.png")
    shown = [text for text in drawn[0].findobj(Text) if any(word in text.get_text() for word in words)]
    assert {word for word in words for text in shown if word in text.get_text()} == set(words)
    assert not any(text.get_parse_math() for text in shown)


def test_characters_that_no_font_has_get_one_sentence_for_all_figures(tmp_path, capsys, no_letters_yet, monkeypatch):
    monkeypatch.setattr(matplotlib.font_manager, "findSystemFonts", list)
    fonts = matplotlib.font_manager.fontManager
    monkeypatch.setattr(fonts, "ttflist", [font for font in fonts.ttflist if font.name in ("DejaVu Sans", "STIXGeneral")])
    with warnings.catch_warnings(action="error"):
        for word in ("dog", "क\u200dत्\ufe0f", "狗", "雪"):
            attention_figure(PHOTO, [word], np.eye(1, 12), GRID, tmp_path / "a.png", word)
    out, err = capsys.readouterr()
    assert out == "" and err == (
        "satnp: no installed font has the characters क त ्, so figures show boxes in their place; install a font that has "
        "them, for example one of the Noto fonts, and run again\n"
    )


def make_font(path, letters):
    """A font in which each letter is a black square."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    for point in ((0, 0), (0, 700), (700, 700), (700, 0)):
        (pen.lineTo if pen.points else pen.moveTo)(point)
    pen.closePath()
    names = [".notdef", *(f"u{ord(x):04x}" for x in letters)]
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(x): name for x, name in zip(letters, names[1:], strict=True)})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


@pytest.mark.parametrize("name", SOME)
def test_characters_of_another_font_are_drawn_with_it(tmp_path, drawn, capsys, no_letters_yet, monkeypatch, name):
    letters = sorted({x for x in "".join(HINDI)})
    make_font(tmp_path / "squares.ttf", letters)
    monkeypatch.setattr(matplotlib.font_manager, "findSystemFonts", lambda: [str(tmp_path / "squares.ttf")])
    with warnings.catch_warnings(action="error"):
        FIGURES[name](HINDI, tmp_path / "a.png")
    shown = [text for text in drawn[0].findobj(Text) if set(text.get_text()) & set(letters)]
    assert shown and all(text.get_fontfamily() == ["DejaVu Sans", "Squares"] for text in shown)
    assert capsys.readouterr().err == "" and {figures._families[x] for x in letters} == {"Squares"}


def test_wide_letters_count_twice_where_lines_are_broken():
    assert figures._wrap("狗" * 7, 6) == ["狗狗狗", "狗狗狗", "狗"]
    assert figures._wrap("a dog", 3) == ["a", "dog"] and figures._wrap("a\nb", 9) == [r"a\nb"]
