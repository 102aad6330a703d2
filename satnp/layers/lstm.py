"""The LSTM cell. Gate columns in the order i, f, o, g."""

from typing import NamedTuple

from satnp.backend import xp_of
from satnp.layers.activations import sigmoid


class LSTMCache(NamedTuple):
    c_prev: object
    i: object
    f: object
    o: object
    g: object
    tanh_c: object


def lstm_cell_forward(gates, c_prev):
    """c = f * c_prev + i * g,  h = o * tanh(c);  (i, f, o, g) = (sigmoid, sigmoid, sigmoid, tanh)(gates)

    gates (N, 4H), c_prev (N, H) -> h (N, H), c (N, H)

    Source: Xu et al. 2015, eqs. 1-3; the affine part of eq. 1 is formed by the caller.
    """
    xp, H = xp_of(gates), c_prev.shape[1]
    ifo = sigmoid(gates[:, : 3 * H])
    i, f, o = ifo[:, :H], ifo[:, H : 2 * H], ifo[:, 2 * H :]
    g = xp.tanh(gates[:, 3 * H :])
    c = f * c_prev + i * g
    tanh_c = xp.tanh(c)
    h = o * tanh_c
    return (h, c), LSTMCache(c_prev, i, f, o, g, tanh_c)


def lstm_cell_backward(dout, cache):
    """dh (N, H), dc (N, H) -> dgates (N, 4H), dc_prev (N, H)

    dc is what comes from the next step; the part through h is added here.
    """
    dh, dc = dout
    c_prev, i, f, o, g, tanh_c = cache
    do = dh * tanh_c
    dc = dc + dh * o * (1 - tanh_c * tanh_c)
    df = dc * c_prev
    di = dc * g
    dg = dc * i
    dc_prev = dc * f
    pre_i = di * i * (1 - i)
    pre_f = df * f * (1 - f)
    pre_o = do * o * (1 - o)
    pre_g = dg * (1 - g * g)
    return xp_of(dc).concatenate([pre_i, pre_f, pre_o, pre_g], axis=1), dc_prev
