"""The LSTM cell of Show and Tell as printed: its output is o * c. The columns of the gates are in the order i, f, o, g."""

from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.arrays.elementwise import elementwise
from satnp.layers.activations import sigmoid


class CellCache(NamedTuple):
    c_prev: object
    i: object
    f: object
    o: object
    g: object


def lstm_cell_without_tanh_forward(gates, c_prev, more=None):
    """c = f * c_prev + i * g,  h = o * c;  (i, f, o, g) = (sigmoid, sigmoid, sigmoid, tanh)(gates)

    gates (N, 4H), c_prev (N, H) -> h (N, H), c (N, H)

    more (N, 4H) is added to gates first; the addition is done here to save a kernel launch.

    Source: Vinyals et al. 2015, eqs. 4-8.
    """
    H = c_prev.shape[1]
    parts = [slice(k * H, (k + 1) * H) for k in range(4)]
    more = [0.0 if more is None else more[:, k] for k in parts]
    h, c, *made = _cell_without_tanh(*(gates[:, k] for k in parts), *more, c_prev)
    return (h, c), CellCache(c_prev, *made)


@elementwise
def _cell_without_tanh(pre_i, pre_f, pre_o, pre_g, more_i, more_f, more_o, more_g, c_prev):
    xp = xp_of(c_prev)
    i, f, o, g = sigmoid(pre_i + more_i), sigmoid(pre_f + more_f), sigmoid(pre_o + more_o), xp.tanh(pre_g + more_g)
    c = f * c_prev + i * g
    h = o * c
    return h, c, i, f, o, g


def lstm_cell_without_tanh_backward(dout, cache):
    """dh (N, H), dc (N, H) -> dgates (N, 4H), dc_prev (N, H)

    dc is the gradient from the next step; the part through h is added here.
    """
    (dh, dc), (N, H) = dout, cache.i.shape
    dgates = xp_of(dc).empty((N, 4 * H), dtype=cache.i.dtype)
    di, df, do, dg = (dgates[:, k * H : (k + 1) * H] for k in range(4))
    *_, dc_prev = _gradient_without_tanh(dh, dc, *cache, out=(di, df, do, dg, None))
    return dgates, dc_prev


@elementwise
def _gradient_without_tanh(dh, dc, c_prev, i, f, o, g):
    do = dh * (f * c_prev + i * g)
    dc = dc + dh * o
    df = dc * c_prev
    di = dc * g
    dg = dc * i
    dc_prev = dc * f
    return di * i * (1 - i), df * f * (1 - f), do * o * (1 - o), dg * (1 - g * g), dc_prev
