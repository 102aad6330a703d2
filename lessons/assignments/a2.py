"""A2, an LSTM through time: the cell, and the loop over a sentence."""

import numpy as np

from lessons.assignments.declare import Assignment, Task
from lessons.assignments.through_time import SequenceCache, lstm_backward, lstm_forward
from satnp.layers.activations import sigmoid
from satnp.layers.lstm import LSTMCache, lstm_cell_backward, lstm_cell_forward

GATES = "the gate i", "the gate f", "the gate o", "the gate g"


def cell(rng, N, H):
    return {"gates": 2 * rng.standard_normal((N, 4 * H)), "c_prev": rng.standard_normal((N, H))}


def sentence(rng, T, N, D, H, padded=True, hole=False):
    mask = np.ones((T, N))
    if padded:
        lengths = rng.integers(1, T + 1, N)
        lengths[0] = T
        mask = (np.arange(T)[:, None] < lengths).astype(float)
    if hole:
        mask[1, 0] = mask[0, 1] = 0
    weights = {"W_x": (D, 4 * H), "W_h": (H, 4 * H), "b": (4 * H,), "h_0": (N, H), "c_0": (N, H)}
    return {"x": rng.standard_normal((T, N, D)), **{n: rng.standard_normal(s) for n, s in weights.items()}, "mask": mask}


ASSIGNMENT = Assignment(
    name="A2",
    title="an LSTM through time",
    cut=(lstm_cell_forward, lstm_cell_backward, lstm_forward, lstm_backward),
    given=(sigmoid, LSTMCache, SequenceCache),
    tasks=(
        Task(
            "cell", lstm_cell_forward, lstm_cell_backward, cell, ("h", "c"),
            usual=({"N": 3, "H": 5}, {"N": 4, "H": 2}), edges=({"N": 1, "H": 1}, {"N": 1, "H": 6}),
            points={"h": 5, "c": 5, "dgates": 20, "dc_prev": 10}, blocks={"dgates": GATES},
        ),
        Task(
            "sentence", lstm_forward, lstm_backward, sentence, ("h",),
            usual=({"T": 5, "N": 3, "D": 2, "H": 4}, {"T": 4, "N": 2, "D": 3, "H": 3}),
            edges=({"T": 1, "N": 2, "D": 3, "H": 2, "padded": False}, {"T": 4, "N": 1, "D": 1, "H": 2, "padded": False},
                   {"T": 4, "N": 2, "D": 3, "H": 2, "hole": True}),
            points={"h": 15, "dx": 8, "dW_x": 8, "dW_h": 8, "db": 7, "dh_0": 7, "dc_0": 7},
            constants=("mask",), uses=("cell",), large={"N": 1000},
            blocks=dict.fromkeys(("dW_x", "dW_h", "db"), GATES),
        ),
    ),
)  # fmt: skip
