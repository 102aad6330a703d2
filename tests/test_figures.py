"""Figures: the map lies where the attention was, on photos of any shape, and files are whole PNGs."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from satnp.errors import InputError
from satnp.figures import attention_figure, curves_figure, overlay, upsample

GRID = 3, 4


def one_cell(row, col):
    alpha = np.zeros(GRID)
    alpha[row, col] = 1
    return alpha.reshape(1, -1)


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("L"), float)


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


def test_overlay_is_white_at_the_largest_attention_of_any_scale():
    photo = np.full((2, 3, 3), 100, np.uint8)
    attention = np.array([[0, 1, 2], [3, 4, 5]])
    shown = overlay(photo, attention)
    assert shown.dtype == np.uint8 and np.all(np.diff(shown[:, :, 0].ravel().astype(int)) > 0)
    np.testing.assert_array_equal(shown, overlay(photo, attention / 1000))


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


@pytest.mark.parametrize("shape", [(40, 400), (64, 64), (400, 40)])
@pytest.mark.parametrize("T", [0, 1, 5, 20])
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


@pytest.mark.parametrize("records", [[], [{"kind": "train", "step": 10, "lr": 1e-3}]])
def test_curves_of_nothing_are_refused(tmp_path, records):
    with pytest.raises(InputError, match="metrics.jsonl"):
        curves_figure(records, tmp_path / "a.png")


def test_no_display_and_no_global_figures_are_needed():
    code = "import sys, satnp.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
