"""Helpers for every lesson: show the source of a function, save a figure, compare numbers."""

import inspect
import os
import sys
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

FIGURES = Path(os.environ.get("SATNP_LESSONS", "satnp-lessons"))  # where figures go
DATA = Path(__file__).parent / "data"  # trained models


def show(function):
    """Print the source of `function` as it stands in satnp, with its file and line, where a breakpoint can be set."""
    function = inspect.unwrap(function)
    lines, start = inspect.getsourcelines(function)
    file, clone = Path(inspect.getsourcefile(function)), Path(__file__).parents[1]
    print(f"{file.relative_to(clone) if file.is_relative_to(clone) else file}:{start}\n{''.join(lines)}")


def save(figure, name, see):
    """Save a matplotlib figure as NAME.png; print its path and `see`, one sentence about what it shows.

    In a notebook, and where an editor runs cells, the figure also stands under its cell.
    """
    FIGURES.mkdir(parents=True, exist_ok=True)
    file = FIGURES / f"{name}.png"
    figure.savefig(file, dpi=110, bbox_inches="tight")
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if hasattr(shell, "kernel"):  # not in IPython on a terminal, which shows no images
        from IPython.display import Image, display

        display(Image(file, alt=see))
    print(f"figure: {file.resolve()}\n  see: {see}")


def near(what, got, wanted, within=1e-10):
    """Print the relative error |got - wanted| / |wanted|; raises AssertionError if it is above `within`."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    error = float(np.linalg.norm(got - wanted) / max(np.linalg.norm(wanted), 1e-300))
    print(f"{what}: off by {error:.1e} (wanted below {within:.0e})")
    assert got.shape == wanted.shape and error <= within, f"{what}: not the same numbers"


FORWARD, BACKWARD = "0.35", "#7b3294"  # the colours of the two kinds of arrows
BOX, GAP, BEND, ROW = (1.95, 0.5), 0.25, 0.5, 1.35  # inches: a box, between two boxes, for a passing arrow, between rows


def graph(name, steps, values, sizes, upstream, see):
    """Draw the flow of a forward and its backward, and check it: every formula is evaluated.

    steps: (output, formula, {input: formula of its gradient, or None if it has none}) for each step of the forward pass, in
    its order; the formulas are NumPy expressions of the names in `values` and of the outputs and gradients of the steps.
    values: {name: array or function}, with the inputs, and with what the code's own forward, cache and backward hold.
    sizes: {symbol: size}, all different, for the shapes in the boxes. upstream: {output: gradient from later layers}; if it
    is empty, only the forward pass is drawn.

    An input that is used twice has two gradient arrows, and its gradient is their sum. Raises AssertionError if a
    formula gives other numbers than `values` has under that name (a gradient is called d<input>).
    """
    found = {"np": np, **values}
    for output, formula, _ in steps:
        found[output] = _same(output, eval(formula, {}, found), values)
    total = {output: np.asarray(gradient) for output, gradient in upstream.items()}
    for output, _, inputs in reversed(steps) if upstream else ():
        if output not in total and not any(inputs.values()):
            continue
        found[f"d{output}"] = _same(f"d{output}", total[output], values)
        for x, formula in inputs.items():
            if formula is not None:
                total[x] = total.get(x, 0) + eval(formula, {}, found)
    for x, gradient in total.items():
        assert gradient.shape == np.shape(found[x]), f"d{x} has shape {gradient.shape}, {x} has {np.shape(found[x])}"
        _same(f"d{x}", gradient, values)
    save(_drawn(steps, {x: shape(found[x], sizes) for x in _routes(steps)[0]}, upstream), name, see)


def shape(x, sizes):
    """The shape of `x` in symbols, such as (N, 4H); `sizes` is {symbol: size}."""
    symbols = {k * n: f"{'' if k == 1 else k}{symbol}" for k in (4, 3, 2, 1) for symbol, n in sizes.items() if n > 1}
    inside = ", ".join(symbols.get(n, str(n)) for n in np.shape(x))
    return f"({inside},)" if np.ndim(x) == 1 else f"({inside})"


def _same(name, x, values):
    """`x`, after it is compared with values[name] if that is there."""
    if name in values:
        wanted = np.asarray(values[name])
        error = np.linalg.norm(x - wanted) / max(np.linalg.norm(wanted), 1e-300)
        assert np.shape(x) == wanted.shape, f"the formula of {name} has shape {np.shape(x)}, the code {wanted.shape}"
        assert error < 1e-10 or np.abs(x - wanted).max() < 1e-12, f"the formula of {name} is off by {error:.1e}"
    return x


def _routes(steps):
    """{value: its row from above} and {(input, output): [input, a bend in each row between, output]}"""
    row = {}
    for output, _, inputs in steps:
        row[output] = 1 + max(row.get(x, 0) for x in inputs)
    made = set(row)
    for output, _, inputs in reversed(steps):  # what no step makes stands just above its first use
        row |= {x: min(row.get(x, row[output]), row[output] - 1) for x in inputs if x not in made}
    edges = [(x, output) for output, _, inputs in steps for x in inputs]
    return row, {(x, y): [x, *((x, y, k) for k in range(row[x] + 1, row[y])), y] for x, y in edges}


def _places(row, routes):
    """{value or bend: (x, y) in inches}, such that the arrows are short."""
    rows, neighbours = {}, {}
    for route in routes.values():
        for k, x in enumerate(route):
            names = rows.setdefault(row[route[0]] + k, [])
            names += [x] if x not in names else []
            neighbours.setdefault(x, []).extend(route[max(k - 1, 0) : k] + route[k + 1 : k + 2])
    width = {x: BEND if isinstance(x, tuple) else BOX[0] + GAP for x in neighbours}
    at = {x: sum(width[y] for y in names[:k]) + width[x] / 2 for names in rows.values() for k, x in enumerate(names)}
    for _ in range(40):
        for k in sorted(rows):
            wanted = {x: np.mean([at[y] for y in neighbours[x]]) for x in rows[k]}
            rows[k].sort(key=wanted.get)
            edge, shifts = -np.inf, []
            for x in rows[k]:
                at[x] = max(wanted[x], edge + width[x] / 2)
                edge = at[x] + width[x] / 2
                shifts.append(wanted[x] - at[x])
            at |= {x: at[x] + np.mean(shifts) for x in rows[k]}
    return {x: (at[x], -k * ROW) for k, names in rows.items() for x in names}


def _drawn(steps, shapes, upstream):
    row, routes = _routes(steps)
    places, formulas = _places(row, routes), {output: formula for output, formula, _ in steps}
    x, y = np.array(list(places.values())).T
    left, right, bottom, top = x.min() - 1.6, x.max() + 1.2, y.min() - 0.8, y.max() + 0.4
    figure = Figure((right - left, top - bottom))
    ax = figure.add_axes((0, 0, 1, 1), xlim=(left, right), ylim=(bottom, top), frame_on=False, xticks=[], yticks=[])
    head = {"arrowstyle": "-|>", "mutation_scale": 11, "shrinkA": 0, "shrinkB": 0, "linewidth": 1.1}
    dashed = head | {"color": BACKWARD, "linestyle": "--"}
    words = {"size": 7.5, "family": "monospace", "ha": "center", "va": "center", "linespacing": 1.05}
    plain = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    half = BOX[1] / 2
    for output, _, inputs in steps:
        for name, formula in inputs.items():
            route = routes[name, output]
            line = np.array([places[x] for x in route])
            uses = sorted((r[1] for r in routes.values() if r[0] == name), key=lambda x: places[x][0])  # from left to right
            takes = sorted((r[-2] for r in routes.values() if r[-1] == output), key=lambda x: places[x][0])
            line[0] += (uses.index(route[1]) - (len(uses) - 1) / 2) * 1.4 / len(uses), -half
            line[-1] += (takes.index(route[-2]) - (len(takes) - 1) / 2) * 1.4 / len(takes), half
            aside = np.array([0.05, 0]) if formula is not None else 0
            both = (line - aside, head | {"color": FORWARD}), (line[::-1] + aside, dashed)
            for points, style in both[: 1 if formula is None else 2]:
                ax.plot(*points[:-1].T, color=style["color"], linestyle=style.get("linestyle"), linewidth=1.1, zorder=1)
                ax.annotate("", points[-1], points[-2], arrowprops=style)
            if formula is not None:
                (x0, y0), (x1, y1), many = line[0], line[1], len(uses) > 2
                share = 0.7 if many else 0.32 + 0.28 * (uses.index(route[1]) % 2)  # where there is room
                at = x0 + (share * (x1 - x0) if many else np.clip(share * (x1 - x0), -0.35, 0.35)), y0 + share * (y1 - y0)
                ax.text(*at, _folded(formula), color=BACKWARD, bbox=plain, zorder=3, **words)
    for name, symbols in shapes.items():
        at = places[name]
        ax.add_patch(FancyBboxPatch(np.subtract(at, (BOX[0] / 2, half)), *BOX, boxstyle="round,pad=0,rounding_size=0.08",
                                    facecolor="#e8f1fa" if name in formulas else "#f6f0e0", edgecolor=FORWARD, zorder=2))
        ax.text(at[0], at[1] + 0.12 * (name in formulas), f"{name}  {symbols}", size=9, ha="center", va="center", zorder=4)
        if name in formulas:
            ax.text(at[0], at[1] - 0.09, _folded(formulas[name]), color=FORWARD, zorder=4, **words)
        if name in upstream and all(route[0] != name for route in routes.values()):
            end = np.subtract(at, (0, half))
            ax.annotate(f"d{name}", end, end - (0, 0.4), color=BACKWARD, arrowprops=dashed, **words | {"va": "top"})
        elif name in upstream:  # arrows leave below, so it comes from a side
            near = [x - at[0] for x, y in places.values() if y == at[1] and 0 < abs(x - at[0]) < 2]
            side = 1 if any(x < 0 for x in near) and not any(x > 0 for x in near) else -1
            end = np.add(at, (side * BOX[0] / 2, 0))
            ax.annotate(f"d{name}\nfrom later", end, end + (side * 0.4, 0), color=BACKWARD, arrowprops=dashed, bbox=plain,
                        zorder=3, **words | {"ha": "left" if side > 0 else "right"})
    return figure


def _folded(formula):
    return fill(formula, 29, break_long_words=False, break_on_hyphens=False)
