"""3x3 convolutions with 36 products where the plain sum has 144: Winograd's F(4x4, 3x3).

A tile of 4 x 4 outputs y needs 6 x 6 inputs d and the 3 x 3 weights g:

    y = A^T [ (G g G^T) * (B^T d B) ] A         * is elementwise; over channels it is a product of matrices

B, G and A below. The gradient of g is the same line transposed: G^T [ (B^T d B)^T (A dy A^T) ] G, summed over the tiles.
Source: Lavin & Gray 2016. The plain sum is in satnp/reference/conv.py.
"""

import numpy as np

from satnp.backend import xp_of

G = np.array([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
              [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]])  # fmt: skip
TILES = 128  # at a time, so that they stay in the cache


def correlate(x, W):
    """out[n, p, q] = sum_ij x[n, p + i, q + j] W[i, j]

    x (N, P+2, Q+2, C), W (3, 3, C, F) -> out (N, P, Q, F)
    """
    xp, (N, P, Q), (C, F) = xp_of(x), _outputs(x), W.shape[2:]
    U = _transform_weights(W)
    out = xp.empty((N, 4 * -(-P // 4), 4 * -(-Q // 4), F), dtype=x.dtype)
    for n, rows, tiles in _blocks(x):
        V = _transform_inputs(tiles)
        k, q = V.shape[2:4]
        M = (V.reshape(6, 6, k * q, C) @ U).reshape(6, 6, k, q, F)
        block = out[n, 4 * rows.start : 4 * rows.stop].reshape(k, 4, q, 4, F)
        across = [_output(M[:, j]) for j in range(6)]
        for a in range(4):
            for b, y in enumerate(_output([columns[a] for columns in across])):
                block[:, a, :, b] = y
    return out[:, :P, :Q]


def weight_gradient(x, dout):
    """dW[i, j] = sum_npq x[n, p + i, q + j]^T dout[n, p, q]

    x (N, P+2, Q+2, C), dout (N, P, Q, F) -> dW (3, 3, C, F)
    """
    xp, (_, P, Q), C, F = xp_of(x), _outputs(x), x.shape[3], dout.shape[3]
    dU = xp.zeros((6, 6, C, F), dtype=x.dtype)
    for n, rows, tiles in _blocks(x):
        V = _transform_inputs(tiles)
        k, q = V.shape[2:4]
        dy = xp.zeros((4 * k, 4 * q, F), dtype=x.dtype)
        seen = dout[n, 4 * rows.start : min(4 * rows.stop, P)]
        dy[: len(seen), :Q] = seen
        dy = dy.reshape(k, 4, q, 4, F)
        dM = xp.empty((6, 6, k, q, F), dtype=x.dtype)
        down = _output_transposed([dy[:, a] for a in range(4)])
        for i, plane in enumerate(down):
            for j, m in enumerate(_output_transposed([plane[:, :, b] for b in range(4)])):
                dM[i, j] = m
        dU += V.reshape(6, 6, k * q, C).swapaxes(2, 3) @ dM.reshape(6, 6, k * q, F)
    g = xp.asarray(G.astype(x.dtype))
    return xp.einsum("ai,abcf,bj->ijcf", g, dU, g, optimize=True)


def _outputs(x):
    return x.shape[0], x.shape[1] - 2, x.shape[2] - 2


def _blocks(x):
    """Yield (n, slice of rows of tiles, the inputs of these tiles (4k+2, 4q+2, C)), zeros beyond the photo."""
    xp, (N, P, Q), C = xp_of(x), _outputs(x), x.shape[3]
    p, q = -(-P // 4), -(-Q // 4)
    if (P, Q) != (4 * p, 4 * q):
        padded = xp.zeros((N, 4 * p + 2, 4 * q + 2, C), dtype=x.dtype)
        padded[:, : P + 2, : Q + 2] = x
        x = padded
    step = max(1, TILES // q)
    for n in range(N):
        for top in range(0, p, step):
            rows = slice(top, min(top + step, p))
            yield n, rows, x[n, 4 * rows.start : 4 * rows.stop + 2]


def _transform_weights(W):
    """G g G^T: (3, 3, C, F) -> (6, 6, C, F)"""
    xp, (C, F) = xp_of(W), W.shape[2:]
    g = xp.asarray(G.astype(W.dtype))
    half = (g @ W.reshape(3, 3 * C * F)).reshape(6, 3, C * F)
    return (g @ half).reshape(6, 6, C, F)


def _transform_inputs(tiles):
    """B^T d B of tiles that overlap by two: (4k+2, 4q+2, C) -> (6, 6, k, q, C)"""
    xp, (R, S, C) = xp_of(tiles), tiles.shape
    k, q = (R - 2) // 4, (S - 2) // 4
    V = xp.empty((6, 6, k, q, C), dtype=tiles.dtype)
    for i, plane in enumerate(_input([tiles[i : i + 4 * k - 3 : 4] for i in range(6)])):
        for j, v in enumerate(_input([plane[:, j : j + 4 * q - 3 : 4] for j in range(6)])):
            V[i, j] = v
    return V


def _input(d):
    """B^T d along one axis: six arrays -> six arrays"""
    four, two = d[4] - 4 * d[2], d[4] - d[2]
    three, one = d[3] - 4 * d[1], 2 * (d[3] - d[1])
    return 4 * d[0] - 5 * d[2] + d[4], four + three, four - three, two + one, two - one, 4 * d[1] - 5 * d[3] + d[5]


def _output(m):
    """A^T m along one axis: six arrays -> four arrays"""
    plus, minus, plus2, minus2 = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    return m[0] + plus + plus2, minus + 2 * minus2, plus + 4 * plus2, minus + 8 * minus2 + m[5]


def _output_transposed(y):
    """A y along one axis: four arrays -> six arrays"""
    even, odd, even2, odd2 = y[0] + y[2], y[1] + y[3], y[0] + 4 * y[2], 2 * y[1] + 8 * y[3]
    return y[0], even + odd, even - odd, even2 + odd2, even2 - odd2, y[3]
