"""3x3 convolution with 36 multiplications instead of 144 per tile: Winograd's F(4x4, 3x3), for NumPy.

A tile of 4 x 4 outputs y needs 6 x 6 inputs d and the 3 x 3 weights g:

    y = A^T [ (G g G^T) * (B^T d B) ] A         * is elementwise; over channels it is a matrix product

With tiles as vectors, G g G^T is kron(G, G) g, so each transform is also one matrix product. The gradient with respect to g
is G^T [ (B^T d B) * (A dy A^T) ] G, summed over the tiles. Source: Lavin & Gray 2016.
"""

import numpy as np

from satnp.arrays import threads
from satnp.arrays.products import tall_product, wide_product
from satnp.layers.blocks import blocks, finishing, parallel_blocks, region, scratch

A = np.array([[1, 0, 0, 0], [1, 1, 1, 1], [1, -1, 1, -1], [1, 2, 4, 8], [1, -2, 4, -8], [0, 0, 0, 1]])
B = np.array([[4, 0, 0, 0, 0, 0], [0, -4, 4, -2, 2, 4], [-5, -4, -4, -1, -1, 0], [0, 1, -1, 2, -2, -5],
              [1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1]])  # fmt: skip
G = np.array([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
              [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]])  # fmt: skip
TILES = 224  # per piece
OUTPUT, INPUT, WEIGHTS = (np.kron(m, m) for m in (A.T, B.T, G))


def pays(x_shape, W_shape, stride, padding):
    """Return whether Winograd is faster than a product over patches for these sizes."""
    (N, R, S, C), (K, _, _, F) = x_shape, W_shape
    P, Q = R + 2 * padding - 2, S + 2 * padding - 2
    tiles = N * -(-P // 4) * -(-Q // 4)
    fits = K == 3 and stride == 1 and 0 <= padding <= 2
    return fits and min(C, F) >= 64 and tiles >= 32 and N * P * Q >= 12 * tiles


def correlate(x, W, b, padding, bounds=None):
    """out[n, p, q] = sum_ij x[n, p + i - padding, q + j - padding] W[i, j] + b, as conv2d_forward

    x (N, R, S, C), W (3, 3, C, F), b (F,) -> out (N, P, Q, F)
    """
    N, P, Q = _outputs(x, padding)
    p, q = -(-P // 4), -(-Q // 4)
    out = np.empty((N, P, Q, W.shape[3]), dtype=x.dtype)
    if N * p * q <= TILES // 2:  # transforming W is most of the work: each core takes some filters
        everything = [(slice(0, N), slice(0, p))]

        def work(part):
            finish = finishing(b[part], Q, bounds)
            _correlate(x, _transform_weights(W[..., part]), finish, padding, everything, out[..., part])

        threads.parallel(work, threads.shares(W.shape[3]))
    else:
        U, finish = _transform_weights(W), finishing(b, Q, bounds)
        parallel_blocks(lambda pieces: _correlate(x, U, finish, padding, pieces, out), blocks(N, p, TILES // q))
    return out


def _correlate(x, U, finish, padding, pieces, out):
    """Compute the convolution for `pieces` (photos, rows of tiles), and write it to `out`."""
    _, C, F = U.shape
    Q, q = out.shape[2], -(-out.shape[2] // 4)
    to_tiles, to_outputs = INPUT.astype(x.dtype), OUTPUT.astype(x.dtype)
    for photos, rows in pieces:
        n, k = _size(photos), _size(rows)
        T = n * k * q
        V = wide_product(to_tiles, _tiles(x, photos, rows, q, padding), out=scratch("V", (36, T * C), x.dtype))
        M = tall_product(V.reshape(36, T, C), U, out=scratch("M", (36, T, F), x.dtype))
        Y = wide_product(to_outputs, M.reshape(36, T * F), out=scratch("Y", (16, T * F), x.dtype))
        y = scratch("y", (n, k, 4, q, 4, F), x.dtype)
        y[...] = Y.reshape(4, 4, n, k, q, F).transpose(2, 3, 0, 4, 1, 5)
        seen = out[photos, 4 * rows.start : 4 * rows.stop]
        finish(y.reshape(n, 4 * k, 4 * q, F)[:, : seen.shape[1], :Q], seen)


def weight_gradient(x, dout, padding):
    """dW[i, j] = sum_npq x[n, p + i - padding, q + j - padding]^T dout[n, p, q]

    x (N, R, S, C), dout (N, P, Q, F) -> dW (3, 3, C, F)
    """
    (N, P, Q), C, F = _outputs(x, padding), x.shape[3], dout.shape[3]
    p, q = -(-P // 4), -(-Q // 4)
    to_tiles, from_outputs = INPUT.astype(x.dtype), OUTPUT.T.astype(x.dtype)
    pieces = blocks(N, p, TILES // q)

    def work(channels):
        c = _size(channels)
        dU = np.zeros((36, c, F), dtype=x.dtype)
        for photos, rows in pieces:
            n, k = _size(photos), _size(rows)
            T = n * k * q
            tiles = _tiles(x[..., channels], photos, rows, q, padding)
            V = wide_product(to_tiles, tiles, out=scratch("V", (36, T * c), x.dtype)).reshape(36, T, c)
            dy = region(dout, photos, 4 * rows.start, 0, scratch("y", (n, 4 * k, 4 * q, F), x.dtype))
            dY = scratch("Y", (4, 4, n, k, q, F), x.dtype)
            dY[...] = dy.reshape(n, k, 4, q, 4, F).transpose(2, 4, 0, 1, 3, 5)
            dM = wide_product(from_outputs, dY.reshape(16, T * F), out=scratch("M", (36, T * F), x.dtype)).reshape(36, T, F)
            dU += np.matmul(V.swapaxes(1, 2), dM, out=scratch("U", (36, c, F), x.dtype))
        return (WEIGHTS.T.astype(x.dtype) @ dU.reshape(36, c * F)).reshape(3, 3, c, F)

    return np.concatenate(threads.parallel(work, threads.shares(C)), axis=2)


def _outputs(x, padding):
    N, R, S, _ = x.shape
    return N, R + 2 * padding - 2, S + 2 * padding - 2


def _size(part):
    return part.stop - part.start


def _tiles(x, photos, rows, q, padding):
    """Return the 6 x 6 inputs of the tiles, q in each of `rows`, as (36, T * C). Neighbours overlap by two cells."""
    n, k, C = _size(photos), _size(rows), x.shape[3]
    seen = region(x, photos, 4 * rows.start - padding, -padding, scratch("x", (n, 4 * k + 2, 4 * q + 2, C), x.dtype))
    windows = np.lib.stride_tricks.sliding_window_view(seen, (6, 6), axis=(1, 2))[:, ::4, ::4]
    tiles = scratch("tiles", (6, 6, n, k, q, C), x.dtype)
    tiles[...] = windows.transpose(4, 5, 0, 1, 2, 3)
    return tiles.reshape(36, n * k * q * C)


def _transform_weights(W):
    """kron(G, G) W: (3, 3, C, F) -> (36, C, F)"""
    C, F = W.shape[2:]
    U = scratch("U", (36, C * F), W.dtype)
    return wide_product(WEIGHTS.astype(W.dtype), W.reshape(9, C * F), out=U).reshape(36, C, F)
