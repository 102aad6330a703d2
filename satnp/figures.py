"""Figures for people: where a captioner looked, word by word, and how its training went."""

from math import ceil, sqrt
from textwrap import wrap

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from satnp.errors import InputError
from satnp.files import replacing

DPI = 150
WIDTH = 10  # inches, of a row of panels at most
AREA = 2.6  # square inches of a panel, whatever the photo's shape
GAP, LINE = 0.06, 0.25  # inches between panels, and of a line of text
PIXELS = 256, 512  # the longer side of a drawn photo: smaller ones are enlarged, larger ones reduced

SCORES = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "true_captions", "pointing_accuracy")


def attention_figure(photo, words, alphas, grid, path, title=None, boxes=None):
    """The photo, then one panel a word: white where the captioner looked when it said the word (Xu et al., fig. 3).

    photo (R, S, 3) uint8 RGB of any shape; words, T strings; alphas (T, L) or, with the one of <end>, (T+1, L);
    grid (rows, columns) with rows * columns = L; boxes (x0, y0, x1, y1), in pixels of the photo, are outlined.
    The encoder saw the whole frame squashed to a square, so each map is stretched over the whole photo. Each panel has
    its own scale, black at zero and white at its largest attention: a sharp look is a spot, and one that is spread
    evenly is white all over, not blown up to a pattern. Writes a PNG.
    Raises InputError where alphas do not fit the words or the grid.
    """
    alphas = np.asarray(alphas)
    if alphas.ndim != 2 or len(alphas) - len(words) not in (0, 1) or alphas.shape[1] != grid[0] * grid[1]:
        raise InputError(
            f"alphas have shape {alphas.shape}, wanted ({len(words)}, {grid[0] * grid[1]}) for {len(words)} words on a "
            f"grid of {grid[0]} x {grid[1]}; pass one row of alpha a word"
        )
    height, width = photo.shape[:2]
    drawn = _resized(photo)
    panels = [(None, drawn)]
    for word, alpha in zip(words, alphas, strict=False):
        panels.append((word, overlay(drawn, upsample(alpha.reshape(grid), drawn.shape[:2]))))

    w, h = sqrt(AREA * width / height), sqrt(AREA * height / width)
    rows = ceil(len(panels) / max(1, int(WIDTH / (w + GAP))))
    columns = ceil(len(panels) / rows)
    figure_width = columns * (w + GAP) + GAP
    heading = [] if title is None else wrap(title, int(11 * figure_width))
    figure_height = rows * (h + LINE) + GAP + LINE * len(heading)
    figure = Figure((figure_width, figure_height), dpi=DPI)
    for k, (word, panel) in enumerate(panels):
        x, y = GAP + k % columns * (w + GAP), GAP + (rows - 1 - k // columns) * (h + LINE)
        ax = figure.add_axes((x / figure_width, y / figure_height, w / figure_width, h / figure_height))
        ax.axis("off")
        ax.imshow(panel, extent=(0, width, height, 0), aspect="auto")
        ax.set_title(word, fontsize=11, pad=3, parse_math=False)
        for x0, y0, x1, y1 in () if boxes is None else boxes:
            ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="white", linewidth=0.8))
    top = 1 - 0.5 * GAP / figure_height
    figure.text(0.5, top, "\n".join(heading), fontsize=12, ha="center", va="top", parse_math=False)
    _save(figure, path)


def upsample(alpha, shape):
    """Smooth interpolation with Gaussian weights: alpha (rows, columns) -> (height, width), between its extremes.

    An even map stays even up to the border; the spread is 0.6 cells, so that one cell is one round spot.
    """
    y, x = (_weights(n, size) for n, size in zip(alpha.shape, shape, strict=True))
    return y @ alpha @ x.T


def _weights(n, size):
    """(size, n): each pixel's shares of the n cells along one side."""
    pixels = (np.arange(size) + 0.5) * n / size - 0.5
    weights = np.exp(-0.5 * ((pixels[:, None] - np.arange(n)) / 0.6) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def overlay(photo, attention):
    """A faint photo (R, S, 3) under a map that is black at 0 and white where attention (R, S) is largest -> uint8"""
    light = (attention / attention.max())[:, :, None]
    return np.rint(0.28 * photo + 0.72 * 255 * light).astype(np.uint8)


def _resized(photo):
    """The photo with a longer side within PIXELS: blocks of equal pixels when enlarged, averaged when reduced."""
    side = max(photo.shape[:2])
    smallest, largest = PIXELS
    if side < smallest:
        times = ceil(smallest / side)
        return photo.repeat(times, axis=0).repeat(times, axis=1)
    image = Image.fromarray(photo)
    image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    return np.asarray(image)


def curves_figure(records, path):
    """Loss in nats a word and scores of the validation captions, over the minibatches seen.

    records: the lines of metrics.jsonl as dicts; of kind "train" with step and loss, of kind "val" with step, nll and
    scores. What they lack is not drawn. The training loss is drawn thin, and thick as a running mean over a fortieth
    of its points. CIDEr has an axis of its own, for it reaches 10 where the others reach 1. Writes a PNG.
    Raises InputError where there is nothing to draw.
    """
    train, nll, cider = (_series(records, *of) for of in (("train", "loss"), ("val", "nll"), ("val", "CIDEr")))
    scores = {name: found for name in SCORES if (found := _series(records, "val", name))}
    panels = [bool(train or nll), bool(scores or cider)]
    if not any(panels):
        raise InputError("the records hold no loss and no score; pass the lines of the metrics.jsonl of a training")
    figure = Figure((4.6 * sum(panels) + 1.2 * panels[1], 3.4), dpi=DPI, layout="constrained")
    axes = list(figure.subplots(1, sum(panels), squeeze=False)[0])
    for ax in axes:
        ax.set_xlabel("minibatches")
        ax.grid(alpha=0.3)
        ax.margins(y=0.1)
    if panels[0]:
        _draw_loss(axes[0], train, nll)
    if panels[1]:
        _draw_scores(axes[-1], scores, cider)
    for ax in figure.axes:
        ax.set_xlim(left=0)
        ax.set_ylim(bottom=0)
    _save(figure, path)


def _series(records, kind, name):
    """[(step, value)] of what the records of a kind say about a name."""
    return [(r["step"], r[name]) for r in records if r["kind"] == kind and r.get(name) is not None]


def _draw_loss(ax, train, nll):
    if train:
        steps, loss = np.array(train, float).T
        n = ceil(len(loss) / 40)
        window = np.ones(n) / n
        ax.plot(steps, loss, ".-", color="C0", alpha=0.3, linewidth=0.8, markersize=2)
        ax.plot(*(np.convolve(x, window, "valid") for x in (steps, loss)), color="C0", label="training")
    if nll:
        ax.plot(*np.array(nll, float).T, "o-", color="C1", markersize=3.5, label="validation")
    ax.set_ylabel("loss (nats a word)")
    ax.legend()


def _draw_scores(ax, scores, cider):
    for k, (name, found) in enumerate(scores.items()):
        ax.plot(*np.array(found, float).T, "o-", color=f"C{k}", markersize=3.5, label=name)
    ax.set_ylabel("validation score (0 to 1)")
    lines = list(ax.lines)
    if cider:
        right = ax.twinx()
        lines += right.plot(*np.array(cider, float).T, "s--", color="black", markersize=3.5, label="CIDEr (right)")
        right.set_ylabel("validation CIDEr (0 to 10)")
    ax.figure.legend(handles=lines, loc="outside right center", fontsize=8)


def _save(figure, path):
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
