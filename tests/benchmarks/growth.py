"""Measure how the cost of a training step grows with the photos N, locations L, words T, vocabulary V and state H.

    python -m tests.benchmarks.growth

One size at a time varies from a quarter of the paper's to twice it. An exponent is the least-squares slope of log time
against log size (doubling the size multiplies the time by 2^exponent); "arithmetic" is the number of operations. Writes
results/growth.md and growth.png beside this file.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullLocator

from tests.benchmarks.__main__ import compare, machine, peers
from tests.benchmarks.workloads import WORKLOADS

PAPER = {"N": 64, "L": 196, "T": 20, "V": 10_000, "H": 1000}
NAMES = {"N": "photos", "L": "locations", "T": "words", "V": "vocabulary", "H": "LSTM's state"}
FACTORS = (0.25, 0.5, 1, 2)
WHO = ("satnp", "eager PyTorch", "arithmetic")
RESULTS = Path(__file__).parent / "results"


def main(base=PAPER, folder=RESULTS):
    found = measure(base)
    folder.mkdir(exist_ok=True)
    (folder / "growth.md").write_text(table(found), encoding="utf-8")
    plot(found, folder / "growth.png")
    print((folder / "growth.md").read_text(encoding="utf-8"))


def measure(base):
    """{symbol: (sizes, {who: seconds, or operations of the arithmetic})}"""
    found = {}
    for symbol, size in base.items():
        sizes = [round(size * factor) for factor in FACTORS]
        points = [once(base | {symbol: x}) for x in sizes]  # measures the base each time: the machine's speed varies
        found[symbol] = sizes, {who: [point[who] for point in points] for who in points[0]}
    return found


def once(sizes):
    flops = WORKLOADS["step_paper"](**sizes).flops
    row = compare("step_paper", "none" if "none" in peers("step_paper") else "eager", least=3, most=3, **sizes)
    print(sizes, row["ours_s"], row.get("theirs_s"), flush=True)
    values = zip(WHO, (row["ours_s"], row.get("theirs_s"), flops), strict=True)
    return {who: x for who, x in values if x is not None}


def exponent(sizes, costs):
    """Slope of log cost against log size."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def table(found):
    """The text of growth.md."""
    who = list(next(iter(found.values()))[1])
    lines = [
        "# How the cost of a training step grows", "", "    python -m tests.benchmarks.growth", "",
        f"{machine()}. One size at a time, the others as in the paper; exponents of cost by size, and medians in seconds.",
        "", f"| size | from, to | {' | '.join(who)} |", "|---|---|" + "---|" * len(who),
    ]  # fmt: skip
    for symbol, (sizes, costs) in found.items():
        slopes = " | ".join(f"{exponent(sizes, costs[name]):.2f}" for name in who)
        lines.append(f"| {NAMES[symbol]} {symbol} | {sizes[0]:,}, {sizes[-1]:,} | {slopes} |")
    lines += ["", "| size | " + " | ".join(who[:-1]) + " | GFLOP |", "|---|" + "---|" * len(who)]
    for symbol, (sizes, costs) in found.items():
        for k, size in enumerate(sizes):
            seconds = " | ".join(f"{costs[name][k]:.3g}" for name in who[:-1])
            lines.append(f"| {symbol} = {size:,} | {seconds} | {costs['arithmetic'][k] / 1e9:.3g} |")
    return "\n".join([*lines, "", "![time by size](growth.png)", ""])


def plot(found, path):
    """Plot one panel per size, with log axes; the line of the arithmetic goes through our time at the paper's size."""
    figure, panels = plt.subplots(1, len(found), figsize=(14, 3.6), sharey=True, layout="constrained")
    for panel, (symbol, (sizes, costs)) in zip(panels, found.items(), strict=True):
        middle = FACTORS.index(1)
        scale = costs["satnp"][middle] / costs["arithmetic"][middle]
        for who, values in costs.items():
            style = {"color": "grey", "linestyle": "--"} if who == "arithmetic" else {"marker": "o"}
            values = np.multiply(values, scale if who == "arithmetic" else 1)
            panel.plot(sizes, values, label=f"{who}, {exponent(sizes, values):.2f}", **style)
        panel.set(xscale="log", yscale="log", xlabel=f"{NAMES[symbol]} {symbol}")
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
        panel.xaxis.minorticks_off()
        panel.legend(fontsize="small", title="exponent", title_fontsize="small")
    panels[0].set_ylabel("seconds a training step")
    panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panels[0].yaxis.set_major_formatter("{x:g}")
    panels[0].yaxis.set_minor_locator(NullLocator())
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
