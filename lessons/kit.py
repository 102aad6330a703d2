"""Helpers for every lesson: show the source of a function, save a figure, compare numbers."""

import inspect
import os
import sys
from pathlib import Path

import numpy as np

FIGURES = Path(os.environ.get("SATNP_LESSONS", "satnp-lessons"))  # where figures go
DATA = Path(__file__).parent / "data"  # a trained model


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
