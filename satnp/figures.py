"""Figures: where a captioner looked, the curves of a training, and the variance of hard attention's gradients."""

import textwrap
import unicodedata
import warnings
from functools import wraps
from math import ceil, floor, log10, sqrt

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import EngFormatter, LogLocator
from PIL import Image

from satnp.errors import InputError
from satnp.files import replacing
from satnp.model import NO_WORDS
from satnp.terminal import complain, printable

DPI = 150
WIDTH = 10  # largest width of a row of panels, in inches
AREA = 2.6  # area of a panel in square inches, for photos of any shape
GAP, LINE, LETTER = 0.06, 0.25, 0.1  # inches: between panels, height of a line of text, width of a letter
PIXELS = 256, 512  # limits of the longer side of a drawn photo: smaller photos are enlarged, larger ones reduced

RANKS = "strongest channel", "second channel", "third channel"
SCORES = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "true_captions", "pointing_accuracy")
NEAREST = 1e-7  # left end of the axes of total variation
LEARNING = {"pointing_accuracy": "o-", "true_captions": "s--"}
DIAGNOSTICS = {
    ("reward", "baseline"): "reward (nats)",
    ("alpha_entropy",): "entropy of alpha (nats)",
    ("expected",): "share of images at expected value",
    ("beta",): "beta",
}
BASELINES = {"none": "C3", "moving_average": "C0", "leave_one_out": "C2"}
MARKERS = "os"
ESTIMATORS = {  # marker and line
    "reinforce": "o-",
    "reward_to_go": "s-",
    "local_expectation": "D-",
    "reinforce_coin": "^--",
    "gumbel_st": "v:",
}


def _own_style(figure):
    """Decorator: draw in Matplotlib's default style, and leave the settings of the user (matplotlibrc) as they are."""

    @wraps(figure)
    def draw(*arguments, **more):
        with warnings.catch_warnings(action="ignore"):  # settings that a later Matplotlib will not have
            default = {name: x for name, x in matplotlib.rcParamsDefault.items() if not name.startswith("backend")}
            changes = {name: x for name, x in default.items() if matplotlib.rcParams[name] != x}
            with matplotlib.rc_context(changes):
                return figure(*arguments, **more)

    return draw


@_own_style
def attention_figure(photo, words, alphas, grid, path, title=None, boxes=None):
    """Draw the photo, then one panel per word: white where the captioner looked when it said the word (Xu et al., fig. 3).

    photo (R, S, 3) uint8 RGB of any shape; words, T strings; alphas (T, L) or, with the one of <end>, (T+1, L), or None for
    a captioner without attention, whose figure is the photo alone;
    grid (rows, columns) with rows * columns = L; boxes (x0, y0, x1, y1), in pixels of the photo, are outlined.
    The encoder gets the whole frame resized to a square, so each map is stretched over the whole photo. Each panel has its
    own scale, black at zero and white at its largest attention: concentrated attention is a spot, and uniform attention is
    white everywhere. A grid of one row is the frames of a clip, which the photo shows beside each other. Writes a PNG.
    Raises InputError when alphas do not fit the words or the grid.
    """
    _draw_attention(photo, [("", words, alphas)], grid, path, title, boxes, AREA)


@_own_style
def regions_figure(photo, words, alphas, boxes, path, title=None, sentinel=False):
    """Draw the photo, then one panel per word: each region as light as its weight, and a red frame around the one with the
    largest weight.

    photo, words and title as in attention_figure; alphas (T, k) or (T+1, k); boxes (k, 4): x0, y0, x1, y1 in pixels of the
    photo, 0 for a region that does not exist. Where regions overlap, their weights add up. Each panel has its own scale,
    but with a `sentinel` white is the weight 1 in all of them: where the sentinel has nearly all of the weight, the panel
    is dark. Where the sentinel has half of the weight or more, no region has a frame. Writes a PNG.
    Raises InputError when alphas do not fit the words or the boxes.
    """
    drawn, alphas = _resized(photo), np.asarray(alphas)
    if alphas.ndim != 2 or len(alphas) - len(words) not in (0, 1) or alphas.shape[1] != len(boxes):
        raise InputError(
            f"alphas have shape {alphas.shape}, wanted ({len(words)}, {len(boxes)}) for {len(words)} words and {len(boxes)} "
            "regions; pass one row of alpha per word"
        )
    panels = [
        (
            word,
            overlay(drawn, _light(alpha, boxes, photo.shape, drawn.shape), 1 if sentinel else None),
            [boxes[alpha.argmax()]] if alpha.sum() > 0.5 else [],
        )
        for word, alpha in zip(words, alphas, strict=False)
    ]
    _draw(photo, [("", [("", drawn, []), *panels])], path, title, AREA)


@_own_style
def objects_figure(photo, found, path, title=None):
    """Draw the photo, then one panel per object that was found: its words above the photo, its box as a red frame.

    photo and title as in attention_figure; found [(text, box)], boxes (x0, y0, x1, y1) in pixels of the photo. Writes a PNG.
    """
    drawn = _resized(photo)
    _draw(photo, [("", [("", drawn, []), *((text, drawn, [box]) for text, box in found)])], path, title, AREA)


def _light(alpha, boxes, shape, drawn):
    """For each pixel of a photo of `shape` that is drawn in the shape `drawn`: the sum of the weights of its regions."""
    light = np.zeros(drawn[:2])
    for weight, (x0, y0, x1, y1) in zip(alpha, boxes, strict=True):
        light[_pixels(y0, y1, shape[0], drawn[0]), _pixels(x0, x1, shape[1], drawn[1])] += weight
    return light


def _pixels(start, end, size, drawn):
    """The pixels from `start` to `end` along a side of `size` that is drawn with `drawn` pixels: one at least."""
    first = min(max(0, int(start * drawn / size)), drawn - 1)
    return slice(first, max(first + 1, ceil(end * drawn / size)))


@_own_style
def side_by_side_figure(photo, rows, grid, path, boxes=None):
    """Draw several captions of one photo below each other (soft and hard, Xu et al., fig. 2), each as in attention_figure.

    rows [(label, words, alphas)], each label beside its panels, which are half as large; the rest as in attention_figure.
    Raises InputError when there are no rows, or when alphas do not fit their words or the grid.
    """
    if not rows:
        raise InputError("there are no captions to draw; give one row (label, words, alphas) per caption")
    _draw_attention(photo, rows, grid, path, None, boxes, AREA / 2)


@_own_style
def channels_figure(photo, words, beta, maps, grid, path, title=None):
    """Draw the maps of the strongest channels for each word, one row of panels for each rank.

    photo, words, grid, path and title as in attention_figure; beta (T, D), the weights of the channels; maps (T, L, D),
    whose channels they weight. Channels are ranked by their weight times their largest value in the photo; those that are
    nowhere above 0 are not drawn. Above each panel: the word, the number of the channel, and in brackets how many times its
    weight is the mean weight. Each panel is white where its channel is largest, and black where it is 0 or less. Writes a
    PNG.
    """
    drawn = _resized(photo)
    values = np.maximum(maps, 0)
    strength = beta * values.max(axis=1)
    order, times = np.argsort(-strength, axis=1), beta / beta.mean(axis=1, keepdims=True)
    rows = [(label, [("", drawn, ())]) for label in RANKS[: max(1, (strength > 0).sum(axis=1).max(initial=0))]]
    for rank, (_, panels) in enumerate(rows):
        for t, word in enumerate(words):
            d = order[t, rank]
            panel = overlay(drawn, upsample(values[t, :, d].reshape(grid), drawn.shape[:2])) if strength[t, d] > 0 else None
            panels.append((f"{word}\n{d} (×{times[t, d]:.1f})", panel, ()))
    heading = [] if title is None else [title]
    if strength.any():
        t = int((strength > 0).any(axis=1).argmax())
        d, x = order[t, 0], times[t, order[t, 0]]
        heading.append(f"{d} (×{x:.1f}): channel {d}, with {x:.1f} times the mean weight")
    _draw(photo, rows, path, "\n".join(heading) or None, AREA / 2)


def _draw_attention(photo, rows, grid, path, title, boxes, area):
    drawn, boxes = _resized(photo), () if boxes is None else boxes
    blocks = [
        (label, [(word, panel, boxes) for word, panel in (("", drawn), *_maps(drawn, words, alphas, grid))])
        for label, words, alphas in rows
    ]
    _draw(photo, blocks, path, title, area)


def _draw(photo, rows, path, title, area):
    """Draw rows [(label, [(word, its panel, or None for an empty place, boxes)])] of panels with the shape of the photo."""
    blocks = [panels for _, panels in rows]
    height, width = photo.shape[:2]
    w, h = sqrt(area * width / height), sqrt(area * height / width)
    longest = max(map(len, blocks))
    columns = ceil(longest / ceil(longest / max(1, int(WIDTH / (w + GAP)))))
    lines = [ceil(len(panels) / columns) for panels in blocks]
    text = LINE * max(word.count("\n") + bool(word) for panels in blocks for word, _, _ in panels)  # above a panel
    labels = [_wrap(label, 14, break_long_words=False) for label, _ in rows]
    left = GAP + LETTER * max((len(part) for label in labels for part in label), default=0)
    figure_width = left + columns * (w + GAP)
    size, per_inch = (12, 11) if longest > 1 else (9, 12)  # letters of the title; they are smaller above a single panel
    wide = int(per_inch * figure_width)
    heading = [] if title is None else [part for text in title.splitlines() for part in _wrap(text, wide)]
    figure_height = sum(lines) * (h + text) + LINE * (len(blocks) - 1) + GAP + LINE * size / 12 * len(heading)
    figure = Figure((figure_width, figure_height), dpi=DPI)
    for b, (label, panels) in enumerate(zip(labels, blocks, strict=True)):
        bottom = GAP + sum(lines[b + 1 :]) * (h + text) + LINE * (len(blocks) - 1 - b)
        middle = (bottom + 0.5 * (lines[b] * (h + text) - text)) / figure_height
        at = 0.5 * left / figure_width, middle
        figure.text(*at, "\n".join(label), fontsize=11, ha="center", va="center", parse_math=False)
        for k, (word, panel, boxes) in enumerate(panels):
            if panel is None:
                continue
            x, y = left + k % columns * (w + GAP), bottom + (lines[b] - 1 - k // columns) * (h + text)
            ax = figure.add_axes((x / figure_width, y / figure_height, w / figure_width, h / figure_height))
            ax.axis("off")
            ax.imshow(panel, extent=(0, width, height, 0), aspect="auto")
            ax.set_title("\n".join(map(printable, word.split("\n"))), fontsize=11, pad=3, parse_math=False)
            for x0, y0, x1, y1 in np.clip(np.reshape(boxes, (-1, 4)), 0, (width, height, width, height)):
                frame = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="red", linewidth=1.6, clip_on=False)
                frame.set_path_effects([withStroke(linewidth=3.2, foreground="black")])  # on light and on dark regions
                ax.add_patch(frame)
    top = 1 - 0.5 * GAP / figure_height
    figure.text(0.5, top, "\n".join(heading), fontsize=size, ha="center", va="top", parse_math=False)
    _save(figure, path)


def _maps(drawn, words, alphas, grid):
    """Check alphas as attention_figure says -> [(word, its panel)]"""
    if alphas is None:
        return []
    alphas = np.asarray(alphas)
    if alphas.ndim != 2 or len(alphas) - len(words) not in (0, 1) or alphas.shape[1] != grid[0] * grid[1]:
        raise InputError(
            f"alphas have shape {alphas.shape}, wanted ({len(words)}, {grid[0] * grid[1]}) for {len(words)} words on a "
            f"grid of {grid[0]} x {grid[1]}; pass one row of alpha per word"
        )
    shape = drawn.shape[:2]
    light = upsample if grid[0] > 1 else _of_frames
    return [(word, overlay(drawn, light(alpha.reshape(grid), shape))) for word, alpha in zip(words, alphas, strict=False)]


def _of_frames(alpha, shape):
    """The weights of the frames of a clip, which are beside each other: alpha (1, K) -> (height, width)"""
    height, width = shape
    return np.tile(alpha[:, np.arange(width) * alpha.shape[1] // width], (height, 1))


def upsample(alpha, shape):
    """Interpolate with Gaussian weights: alpha (rows, columns) -> (height, width), between the extremes of alpha.

    A uniform map stays uniform up to the border. The standard deviation is 0.6 cells, so that one cell is one round spot.
    """
    y, x = (_weights(n, size) for n, size in zip(alpha.shape, shape, strict=True))
    return y @ alpha @ x.T


def _weights(n, size):
    """The weights of the n cells for each pixel along one side, (size, n)."""
    pixels = (np.arange(size) + 0.5) * n / size - 0.5
    weights = np.exp(-0.5 * ((pixels[:, None] - np.arange(n)) / 0.6) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def overlay(photo, attention, largest=None):
    """Blend a faint photo (R, S, 3) with a map, black at 0 and white where attention (R, S) is largest -> uint8

    `largest`: the attention that is white, in place of the largest one that there is.
    """
    light = (attention / (largest or attention.max() or 1))[:, :, None]
    return np.rint(0.28 * photo + 0.72 * 255 * light).astype(np.uint8)


def _resized(photo):
    """Resize a photo so that its longer side is within PIXELS: pixels are repeated to enlarge it, averaged to reduce it."""
    side = max(photo.shape[:2])
    smallest, largest = PIXELS
    if side < smallest:
        times = ceil(smallest / side)
        return photo.repeat(times, axis=0).repeat(times, axis=1)
    image = Image.fromarray(photo)
    image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    return np.asarray(image)


@_own_style
def visual_figure(words, visual, path, title=None):
    """Draw 1 - beta_t, the weight that the photo had and not the sentinel, as a bar above each word.

    words, T strings; visual (T,), from 0 to 1. Without words the figure says so. Writes a PNG.
    Raises InputError when there is not one number for each word.
    """
    if np.shape(visual) != (len(words),):
        raise InputError(f"visual has shape {np.shape(visual)}; pass one number for each of the {len(words)} words")
    if not len(words):
        figure = Figure((3.5, 1), dpi=DPI)
        figure.text(0.5, 0.5, NO_WORDS, fontsize=12, ha="center", va="center")
        _save(figure, path)
        return
    width = max(3.5, 1 + 0.45 * len(words))
    heading = _wrap(title or "", int(11 * width))
    figure = Figure((width, 2.8 + LINE * len(heading)), dpi=DPI, layout="constrained")
    ax = figure.subplots()
    figure.suptitle("\n".join(heading), fontsize=12, parse_math=False)
    ax.bar(range(len(words)), visual, width=0.7)
    said = [printable(word) for word in words]
    ax.set_xticks(range(len(words)), said, rotation=45, ha="right", rotation_mode="anchor", fontsize=11, parse_math=False)
    ax.set_xlim(-0.6, len(words) - 0.4)
    ax.set_ylim(0, 1)
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.set_ylabel("1 - beta\n(weight of the photo)")
    ax.set_axisbelow(True)
    ax.grid(axis="y", alpha=0.3)
    _save(figure, path)


@_own_style
def curves_figure(records, path):
    """Plot the loss in nats per word and the scores of the validation captions against the number of minibatches.

    records: the lines of metrics.jsonl as dicts: kind "train" with step and loss, kind "val" with step, nll and scores.
    Missing values are not drawn. The training loss is a thin line, its running mean over a fortieth of its points a thick
    line. CIDEr has an axis of its own, because it reaches 10 and the others reach 1; self-critical training adds the reward
    of the captions that it draws (`cider` of the kind "train"). Writes a PNG.
    Raises InputError when there is nothing to draw.
    """
    names = ("train", "loss"), ("val", "nll"), ("val", "CIDEr"), ("train", "cider")
    train, nll, cider, rewards = (_series(records, *name) for name in names)
    scores = {name: found for name in SCORES if (found := _series(records, "val", name))}
    panels = [bool(train or nll), bool(scores or cider or rewards)]
    if not any(panels):
        raise InputError("the records have no loss and no score; pass the lines of the metrics.jsonl of a training")
    figure, axes = _over_minibatches(1, sum(panels), 1.2 * panels[1])
    if panels[0]:
        _draw_loss(axes[0], train, nll)
    if panels[1]:
        _draw_scores(axes[-1], scores, cider, rewards)
    for ax in figure.axes:
        _from_zero(ax)
    _save(figure, path)


@_own_style
def learning_figure(curves, path):
    """Compare trainings: plot their loss and their validation scores against the number of minibatches.

    curves {name: the lines of its metrics.jsonl as dicts}, one colour per name. Left: the training loss on a log axis, as a
    running mean over a fortieth of its points. Right: the share of nouns in the validation captions with attention on
    their object (pointing_accuracy, solid lines) and the share of true captions (true_captions, dashed lines). Missing
    values are not drawn. Writes a PNG.
    Raises InputError when there is nothing to draw.
    """
    losses = {name: _series(records, "train", "loss") for name, records in curves.items()}
    scores = {
        (name, score): found
        for name, records in curves.items()
        for score in LEARNING
        if (found := _series(records, "val", score))
    }
    panels = [any(losses.values()), bool(scores)]
    if not any(panels):
        raise InputError("the records have no loss and no score; pass the lines of the metrics.jsonl of each training")
    colours = {name: f"C{k}" for k, name in enumerate(curves)}
    figure, axes = _over_minibatches(1, sum(panels), 1.6)
    handles = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    if panels[0]:
        for name, found in losses.items():
            if found:
                axes[0].plot(*_running_mean(found), color=colours[name])
        axes[0].set_yscale("log")
        axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axes[0].yaxis.set_major_formatter("{x:g}")
        axes[0].minorticks_off()
        axes[0].set_xlim(left=0)
        axes[0].set_ylabel("training loss (nats a word)")
    if panels[1]:
        for (name, score), found in scores.items():
            axes[-1].plot(*np.array(found, float).T, LEARNING[score], color=colours[name], markersize=3.5)
        axes[-1].set_ylabel("validation score (0 to 1)")
        axes[-1].set_xlim(left=0)
        axes[-1].set_ylim(0, 1)
        drawn = {score for _, score in scores}
        handles += [_style(style, name) for name, style in LEARNING.items() if name in drawn]
    _legend(figure, handles, loc="outside right center", fontsize=8, handlelength=3)
    _save(figure, path)


@_own_style
def diagnostics_figure(records, path):
    """Plot the statistics of attention in one training against the number of minibatches, with a thick running mean.

    records: the lines of metrics.jsonl as dicts: kind "train" with step and the captioner's diagnostics, which are
    alpha_entropy and beta, and with hard attention reward, baseline and expected. The reward is log p of a caption, or of
    a word if the config says so; a minibatch whose images all used the expected value has no reward. Writes a PNG.
    Raises InputError when the records have none of these.
    """
    found = {name: _series(records, "train", name) for name in ("reward", "baseline", "alpha_entropy", "expected", "beta")}
    all_expected = {step for step, share in found["expected"] if share == 1}
    found["reward"] = [(step, reward) for step, reward in found["reward"] if step not in all_expected]
    panels = [(names, label) for names, label in DIAGNOSTICS.items() if any(found[name] for name in names)]
    if not panels:
        raise InputError("the records have no diagnostics of attention; pass the lines of the metrics.jsonl of a training")
    columns = min(2, len(panels))
    figure, axes = _over_minibatches(ceil(len(panels) / columns), columns)
    for ax in axes[len(panels) :]:
        ax.remove()
    for ax, (names, label) in zip(axes, panels, strict=False):
        for k, name in enumerate(names):
            if found[name]:
                _draw_with_mean(ax, found[name], f"C{k}", name)
        ax.set_ylabel(label)
        if names == ("reward", "baseline"):
            ax.set_xlim(left=0)
            ax.legend()
        else:
            _from_zero(ax)
    _save(figure, path)


def _over_minibatches(rows, columns, extra=0.0):
    """Make a figure of panels with minibatches as x axis, and `extra` inches at the right -> (figure, axes)"""
    figure = Figure((4.6 * columns + extra, 0.4 + 3 * rows), dpi=DPI, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for ax in axes:
        ax.set_xlabel("minibatches")
        ax.grid(alpha=0.3)
        ax.margins(y=0.1)
    return figure, axes


def _from_zero(ax):
    """Start both axes at 0, and leave some space above the data."""
    ax.update_datalim([(0, 0)])
    ax.autoscale_view()
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)


def _style(style, label):
    """A legend entry for a marker and a line style, in black because the colour has another meaning."""
    return Line2D([], [], color="black", marker=style[0], linestyle=style[1:], markersize=4, label=label)


def _series(records, kind, name):
    """[(step, value)] of the field `name` in the records of a kind, where it is a number."""
    return [(r["step"], r[name]) for r in records if r["kind"] == kind and isinstance(r.get(name), int | float)]


def _running_mean(series):
    """Steps and values, each averaged over a fortieth of the points."""
    n = ceil(len(series) / 40)
    return [np.convolve(x, np.ones(n) / n, "valid") for x in np.array(series, float).T]


def _draw_with_mean(ax, series, color, label):
    ax.plot(*np.array(series, float).T, ".-", color=color, alpha=0.3, linewidth=0.8, markersize=2)
    ax.plot(*_running_mean(series), color=color, label=label)


def _draw_loss(ax, train, nll):
    if train:
        _draw_with_mean(ax, train, "C0", "training")
    if nll:
        ax.plot(*np.array(nll, float).T, "o-", color="C1", markersize=3.5, label="validation")
    ax.set_ylabel("loss (nats a word)")
    ax.legend()


def _draw_scores(ax, scores, cider, rewards):
    for k, (name, found) in enumerate(scores.items()):
        ax.plot(*np.array(found, float).T, "o-", color=f"C{k}", markersize=3.5, label=name)
    ax.set_ylabel("validation score (0 to 1)")
    lines = list(ax.lines)
    if cider or rewards:
        right = ax.twinx()
        if cider:
            lines += right.plot(*np.array(cider, float).T, "s--", color="black", markersize=3.5, label="CIDEr (right)")
        if rewards:
            lines += right.plot(*_running_mean(rewards), color="0.6", label="reward, training (right)")
        right.set_ylabel("validation CIDEr (0 to 10)" if not rewards else "CIDEr (0 to 10)")
    ax.figure.legend(handles=lines, loc="outside right center", fontsize=8)


@_own_style
def comparison_figure(rows, photos, path):
    """Compare captioners: their score against their parameters and their time, and what they say of the same photos.

    rows: those of compare.json, dicts with captioner, parameters, seconds_a_step, captions {photo name: sentence}, and
    true_captions or CIDEr, which is drawn; photos [(name, (R, S, 3) uint8 RGB)]. Writes a PNG.
    Raises InputError when there are no rows.
    """
    if not rows:
        raise InputError("there are no captioners to compare; pass the rows of compare.json")
    score = "true_captions" if all("true_captions" in row for row in rows) else "CIDEr"
    line = 0.17  # inches: height of a line of a caption
    captions = [[row["captions"].get(name) for name, _ in photos] for row in rows]
    said = [[[] if caption is None else _wrap(caption, 27) or [NO_WORDS] for caption in of_row] for of_row in captions]
    heights = [0.12 + line * max((len(lines) for lines in of_row), default=1) for of_row in said]
    pictures = 1.9 if photos else 0.0
    top, bottom = 3.4, sum(heights) + pictures
    width, left, height = 11.0, 1.5, top + bottom + 0.2
    figure = Figure((width, height), dpi=DPI)
    for k, (name, label) in enumerate((("parameters", "trained parameters"), ("seconds_a_step", "seconds a step"))):
        ax = figure.add_axes(((0.85 + k * 4.3) / width, (height - top + 0.55) / height, 3.3 / width, (top - 0.75) / height))
        for r, row in enumerate(rows):
            x = np.nan if row[name] is None else row[name]  # a system without steps is in the legend only
            ax.plot(x, row[score], MARKERS[r // 10 % len(MARKERS)], color=f"C{r % 10}", label=row["captioner"])
        _log_axis(ax, EngFormatter(sep="") if name == "parameters" else "{x:g}")
        ax.set_xlabel(label)
        ax.set_ylabel("share of true captions" if score == "true_captions" else score)
        ax.grid(alpha=0.3)
    place = (0.9 + 8.0) / width, (height - top / 2) / height
    _legend(figure, ax.lines, loc="center left", bbox_to_anchor=place, fontsize=8)
    column = (width - left) / max(1, len(photos))
    for n, (_, photo) in enumerate(photos):
        h, w = photo.shape[:2]
        scale = min((column - 0.1) / w, (pictures - 0.15) / h)
        x, y = left + n * column, bottom - pictures + 0.1
        ax = figure.add_axes((x / width, y / height, w * scale / width, h * scale / height))
        ax.axis("off")
        ax.imshow(_resized(photo), extent=(0, w, h, 0), aspect="auto")
    y = bottom - pictures
    for r, (row, of_row) in enumerate(zip(rows, said, strict=True)):
        name = printable(row["captioner"]).replace(":", "\n")
        figure.text(0.1 / width, y / height, name, fontsize=8, va="top", color=f"C{r % 10}", parse_math=False)
        for n, lines in enumerate(of_row):
            figure.text((left + n * column) / width, y / height, "\n".join(lines), fontsize=8, va="top", parse_math=False)
        y -= heights[r]
    _save(figure, path)


def _log_axis(ax, labels):
    """A log x axis with the labels at 1, 2 and 5 of each decade, or at some powers of ten when there are many decades.

    The axis has two labels at least: it is extended to the nearest ones when its values are close together.
    """
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    step = ceil(log10(high / low) / 6)
    decades = 10.0 ** np.arange(floor(log10(low)) - 1, ceil(log10(high)) + 2)
    ticks = np.outer(decades, (1, 2, 5)).ravel() if high < 150 * low else decades[::step]
    if np.sum((low <= ticks) & (ticks <= high)) < 2:
        low, high = ticks[ticks <= low][-1] / 1.05, ticks[ticks >= high][0] * 1.05
    ax.set_xticks(ticks[(low <= ticks) & (ticks <= high)])
    ax.set_xlim(low, high)
    ax.xaxis.set_major_formatter(labels)
    ax.minorticks_off()


@_own_style
def variance_figure(rows, path):
    """Plot the variance of estimates of hard attention's gradient, E |g - E g|^2 / |dL|^2, against samples S, log-log.

    rows [laboratory.Row]; the colour is the baseline, marker and line style are the estimator. Only estimators in
    ESTIMATORS are drawn: not soft attention, which has no variance, nor estimators of another gradient. An estimator whose
    mean is not the gradient is labelled biased. The grey line falls as 1/S, like the variance of a mean of independent
    samples. Writes a PNG.
    Raises InputError when there is nothing to draw.
    """
    lines = {}
    for row in rows:
        if row.estimator in ESTIMATORS:
            lines.setdefault((row.estimator, row.baseline), []).append((row.samples, row.variance))
    if not lines:
        raise InputError("the rows have no variance of an estimator; pass the rows of the laboratory's table")
    figure = Figure((7.4, 5.2), dpi=DPI, layout="constrained")
    ax = figure.subplots()
    for (estimator, baseline), found in lines.items():
        ax.plot(*np.array(sorted(found)).T, ESTIMATORS[estimator], color=BASELINES[baseline], markersize=4.5, linewidth=1.2)
    S, variance = (np.array(x) for x in zip(*(point for found in lines.values() for point in found), strict=True))
    ends = np.array([S.min(), S.max()])
    ax.plot(ends, 2 * variance.max() * ends[0] / ends, color="grey", linewidth=0.8)
    ax.annotate("1/S", (ends[0], 2 * variance.max()), color="grey", fontsize=9, xytext=(4, 2), textcoords="offset points")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(sorted(set(S.tolist())), [str(s) for s in sorted(set(S.tolist()))])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
    ax.set_xlabel("S (samples per estimate)")
    ax.set_ylabel("variance / squared norm of the exact gradient")
    biased = {row.estimator for row in rows if row.bias > 1e-9}
    drawn = {estimator for estimator, _ in lines}
    handles = [_style(s, n + " (biased)" * (n in biased)) for n, s in ESTIMATORS.items() if n in drawn]
    handles += [
        Line2D([], [], color=colour, linewidth=4, label=f"baseline {name}")
        for name, colour in BASELINES.items()
        if name in {baseline for _, baseline in lines}
    ]
    figure.legend(handles=handles, loc="outside right center", fontsize=8, handlelength=3)
    _save(figure, path)


@_own_style
def nwgm_figure(comparison, path):
    """Plot the distances of nwgm.compare between soft attention's prediction, the NWGM and E[p], one panel per variant.

    Each line is the share of words whose two predictions have at most this total variation distance, on a log axis that
    starts at NEAREST; smaller distances are drawn there. Writes a PNG.
    Raises InputError when no words were compared.
    """
    if not all(len(x) for pairs in comparison.values() for x in pairs.values()):
        raise InputError("no words were compared; give nwgm.compare a batch with a word whose mask is 1")
    figure = Figure((8.4, 6.4), dpi=DPI, layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey=True).ravel()
    for ax, ((tanh, h), pairs) in zip(axes, comparison.items(), strict=True):
        for k, (pair, distances) in enumerate(pairs.items()):
            ax.ecdf(np.maximum(distances, NEAREST), color=f"C{k}", linestyle="--" if k == 2 else "-", label=pair)
        ax.set_title(f"tanh {'on' if tanh else 'off'}, h_t {h}", fontsize=11)
        ax.set_xscale("log")
        ax.set_xlim(NEAREST / 2, 1)
        ax.set_ylim(0, 1.03)
        ax.grid(alpha=0.3)
    for ax in axes[2:]:
        ax.set_xlabel("total variation (0 to 1)")
    figure.supylabel("share of the words with at most this distance", fontsize=11)
    figure.suptitle(
        "With the tanh off and h_t held, soft attention's prediction is the NWGM;\n"
        "otherwise the lines show how far apart they are", fontsize=12,
    )  # fmt: skip
    figure.legend(handles=axes[0].lines, loc="outside lower center", ncols=3, fontsize=10)
    _save(figure, path)


def _legend(figure, handles, **how):
    """Add a legend with the labels as they are: Matplotlib leaves out those that start with _, and $ means mathematics."""
    legend = figure.legend(handles, len(handles) * ["a label"], **how)
    for handle, text in zip(handles, legend.get_texts(), strict=True):
        text.set(text=printable(handle.get_label()), parse_math=False)


def _wrap(text, width, **how):
    """textwrap.wrap of the printable text, in which a character that is two wide, as in Chinese, counts as two."""
    wide = "".join(x + "\0" if unicodedata.east_asian_width(x) in "WF" else x for x in printable(text))
    return [line.replace("\0", "") for line in textwrap.wrap(wide, width, **how)]


def _save(figure, path):
    _choose_fonts(figure)
    with replacing(path) as temporary, warnings.catch_warnings(action="ignore"):  # characters that no font has
        figure.savefig(temporary, format="png")


FONT = "DejaVu Sans"  # comes with Matplotlib
LAST_RESORT = "Last Resort High-Efficiency"  # has a box for each character
_families = {}  # character: the family of an installed font that draws it, or None; of the characters drawn so far


def _choose_fonts(figure):
    """Draw what FONT lacks with other installed fonts; the first time that no font has a character, print a sentence."""
    texts = {text: _drawn(text.get_text()) for text in figure.findobj(Text)}
    new, complained = set().union(*texts.values()) - _families.keys(), None in _families.values()
    if new:
        _families.update(_find_families(new))
    for text, letters in texts.items():
        if more := sorted({_families[x] for x in letters} - {FONT, None}):
            text.set_fontfamily([FONT, *more])
    lacking = sorted(x for x in new if _families[x] is None)
    if lacking and not complained:
        seen = " ".join(lacking[:20]) + f" and {len(lacking) - 20} more" * (len(lacking) > 20)
        complain(f"no installed font has the characters {seen}, so figures show boxes in their place; install a font "
                 "that has them, for example one of the Noto fonts, and run again")  # fmt: skip


def _drawn(text):
    """The characters of a text that are more than ASCII and need a glyph; joiners and selectors of variants need none."""
    return {
        x for x in text
        if x > "~" and not x.isspace() and unicodedata.category(x) != "Cf" and "VARIATION SEL" not in unicodedata.name(x, "")
    }  # fmt: skip


def _find_families(letters):
    """Look for the characters in the installed fonts -> {character: family, or None}"""
    found, manager = dict.fromkeys(letters), font_manager.fontManager

    def look(paths):
        for path in paths:
            left = [x for x in letters if found[x] is None]
            if not left:
                return
            try:
                font = font_manager.get_font(path)
                font.set_size(12, DPI)  # fails for fonts of bitmaps
                there = [x for x in left if font.get_char_index(ord(x)) and font.load_char(ord(x)).width]
            except (OSError, RuntimeError):
                continue
            if there and path not in known:
                manager.addfont(path)
            if there and manager.findfont(font.family_name) == path:  # and not its bold or slanted face
                found.update(dict.fromkeys(there, font.family_name))

    known = [font.fname for font in sorted(manager.ttflist, key=lambda font: font.name != FONT) if font.name != LAST_RESORT]
    look(known)
    if None in found.values():  # Matplotlib's list may be older than a font
        look(path for path in font_manager.findSystemFonts() if path not in known)
    return found
