"""Another right A2: the sigmoid as it is printed, a cache in a dict."""

import numpy as np


def s(x):
    return 1 / (1 + np.exp(-x))


def lstm_cell_forward(gates, c_prev, more=None):
    i, f, o, g = np.split(gates, 4, axis=1)
    kept = {"i": s(i), "f": s(f), "o": s(o), "g": np.tanh(g), "before": c_prev}
    kept["c"] = kept["f"] * c_prev + kept["i"] * kept["g"]
    return (kept["o"] * np.tanh(kept["c"]), kept["c"]), kept


def lstm_cell_backward(dout, cache):
    dh, dc = dout
    i, f, o, g, before, c = (cache[n] for n in ("i", "f", "o", "g", "before", "c"))
    dc = dc + dh * o / np.cosh(c) ** 2
    pieces = dc * g * i * (1 - i), dc * before * f * (1 - f), dh * np.tanh(c) * o * (1 - o), dc * i * (1 - g**2)
    return np.hstack(pieces), dc * f
