"""kit.graph draws only what holds."""

import sys
from pathlib import Path

import numpy as np
import pytest

import lessons
from satnp.layers import context_backward, context_forward, lstm_cell_backward, lstm_cell_forward
from satnp.layers.activations import sigmoid

sys.path.insert(0, str(Path(lessons.__file__).parent))  # as a lesson that is run as a script
import kit

sys.path.pop(0)

N, L, D, H = 2, 3, 4, 5
CELL = [
    ("i", "sigmoid(gates[:, :H])", {"gates": "part(0, di * i * (1 - i))"}),
    ("f", "sigmoid(gates[:, H:2*H])", {"gates": "part(1, df * f * (1 - f))"}),
    ("o", "sigmoid(gates[:, 2*H:3*H])", {"gates": "part(2, do * o * (1 - o))"}),
    ("g", "np.tanh(gates[:, 3*H:])", {"gates": "part(3, dg * (1 - g**2))"}),
    ("c", "f * c_prev + i * g", {"f": "dc * c_prev", "c_prev": "dc * f", "i": "dc * g", "g": "dc * i"}),
    ("h", "o * np.tanh(c)", {"o": "dh * np.tanh(c)", "c": "dh * o * (1 - np.tanh(c)**2)"}),
]


@pytest.fixture
def cell(tmp_path, monkeypatch):
    """The values and the upstream gradients of an LSTM cell."""
    monkeypatch.setattr(kit, "FIGURES", tmp_path)
    rng = np.random.default_rng(0)
    gates, c_prev, dh, dc = (rng.standard_normal((N, size)) for size in (4 * H, H, H, H))
    (h, c), cache = lstm_cell_forward(gates, c_prev)
    dgates, dc_prev = lstm_cell_backward((dh, dc), cache)
    values = {"gates": gates, "c_prev": c_prev, "h": h, "c": c, "dgates": dgates, "dc_prev": dc_prev, "H": H,
              "sigmoid": sigmoid, "part": lambda k, x: np.pad(x, ((0, 0), (k * H, (3 - k) * H)))}  # fmt: skip
    return values, {"h": dh, "c": dc}


def test_a_flow_that_holds_is_drawn(cell, tmp_path, capsys):
    kit.graph("cell", CELL, cell[0], {"N": N, "H": H}, cell[1], "four gates")
    assert (tmp_path / "cell.png").stat().st_size > 10_000
    assert "four gates" in capsys.readouterr().out


@pytest.mark.parametrize(("step", "formula", "told"), [
    (4, "f * c_prev - i * g", "formula of c"), (0, "gates[:, H:]", "broadcast"),
])  # fmt: skip
def test_a_wrong_formula_of_the_forward_is_refused(cell, step, formula, told):
    wrong = [*CELL[:step], (CELL[step][0], formula, CELL[step][2]), *CELL[step + 1 :]]
    with pytest.raises((AssertionError, ValueError), match=told):
        kit.graph("cell", wrong, cell[0], {"N": N, "H": H}, cell[1], "")


@pytest.mark.parametrize(("step", "x", "formula", "told"), [
    (5, "c", "dh * o", "formula of dc_prev"), (4, "i", "dc", "formula of dgates"), (4, "c_prev", "dc", "formula of dc_prev"),
    (4, "c_prev", "dc[0]", "dc_prev has shape"),
])  # fmt: skip
def test_a_wrong_formula_of_a_gradient_is_refused(cell, step, x, formula, told):
    wrong = [(output, made, inputs | ({x: formula} if k == step else {})) for k, (output, made, inputs) in enumerate(CELL)]
    with pytest.raises(AssertionError, match=told):
        kit.graph("cell", wrong, cell[0], {"N": N, "H": H}, cell[1], "")


def test_an_input_that_is_used_twice_needs_both_gradients(tmp_path, monkeypatch):
    monkeypatch.setattr(kit, "FIGURES", tmp_path)
    rng = np.random.default_rng(1)
    alpha, a, dz = rng.random((N, L)), rng.standard_normal((N, L, D)), rng.standard_normal((N, D))
    context, cache = context_forward(alpha, a)
    dalpha, da = context_backward(dz, cache)
    mix = "np.einsum('nl,nld->nd', alpha, a)"
    steps = [
        ("context", mix, {"alpha": "np.einsum('nd,nld->nl', dcontext, a)", "a": "alpha[:, :, None] * dcontext[:, None]"}),
        ("mean", "a.mean(1)", {"a": "np.repeat(dmean[:, None], 3, 1) / 3"}),
        ("z", "context + mean", {"context": "dz", "mean": "dz"}),
    ]
    values = {"alpha": alpha, "a": a, "dalpha": dalpha, "da": da + dz[:, None] / L, "context": context}
    kit.graph("twice", steps, values, {"N": N, "L": L, "D": D}, {"z": dz}, "two arrows to a")
    with pytest.raises(AssertionError, match="formula of da"):
        kit.graph("once", steps, values | {"da": da}, {"N": N, "L": L, "D": D}, {"z": dz}, "")


def test_shapes_are_told_in_symbols():
    sizes = {"N": 2, "T": 4, "H": 5}
    assert kit.shape(np.zeros((4, 2, 20)), sizes) == "(T, N, 4H)" and kit.shape(np.zeros(7), sizes) == "(7,)"
    assert kit.shape(0.0, sizes) == "()"
