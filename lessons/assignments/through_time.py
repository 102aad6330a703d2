"""An LSTM over a whole sentence: the cell at every step, its state passed on to the next step."""

from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.layers.lstm import lstm_cell_backward, lstm_cell_forward


class SequenceCache(NamedTuple):
    x: object
    W_x: object
    W_h: object
    mask: object
    before: list  # h_{t-1} of each step
    cells: list   # the cache of each step's cell


def lstm_forward(x, W_x, W_h, b, h_0, c_0, mask):
    """h_t, c_t = lstm_cell(x_t W_x + h_{t-1} W_h + b, c_{t-1}); where mask_t is 0 the state does not change

    x (T, N, D), W_x (D, 4H), W_h (H, 4H), b (4H,), h_0 (N, H), c_0 (N, H), mask (T, N) -> h (T, N, H)
    """
    h, c, out, before, cells = h_0, c_0, [], [], []
    for x_t, live in zip(x, mask[:, :, None], strict=True):
        before.append(h)
        (h_new, c_new), cell = lstm_cell_forward(x_t @ W_x + h @ W_h + b, c)
        h, c = live * h_new + (1 - live) * h, live * c_new + (1 - live) * c
        out.append(h)
        cells.append(cell)
    return xp_of(x).stack(out), SequenceCache(x, W_x, W_h, mask, before, cells)


def lstm_backward(dout, cache):
    """dh (T, N, H) -> dx (T, N, D), dW_x (D, 4H), dW_h (H, 4H), db (4H,), dh_0 (N, H), dc_0 (N, H)

    dh is the upstream gradient of each step's h; the gradients from step t + 1, through h and through c, are added here.
    """
    x, W_x, W_h, mask, before, cells = cache
    xp = xp_of(x)
    dx, dW_x, dW_h, db = (xp.zeros_like(a) for a in (x, W_x, W_h, W_h[0]))
    dh = dc = xp.zeros_like(before[0])
    for t in reversed(range(len(x))):
        live, dh = mask[t][:, None], dh + dout[t]
        dgates, dc_prev = lstm_cell_backward((live * dh, live * dc), cells[t])
        dx[t] = dgates @ W_x.T
        dW_x += x[t].T @ dgates
        dW_h += before[t].T @ dgates
        db += dgates.sum(axis=0)
        dh = dgates @ W_h.T + (1 - live) * dh
        dc = dc_prev + (1 - live) * dc
    return dx, dW_x, dW_h, db, dh, dc
