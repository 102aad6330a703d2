"""3x3 convolutions with 36 products where the plain sum has 144: Winograd's F(4x4, 3x3), for NumPy.

A tile of 4 x 4 outputs y needs 6 x 6 inputs d and the 3 x 3 weights g:

    y = A^T [ (G g G^T) * (B^T d B) ] A         * is elementwise; over channels it is a product of matrices

With tiles written as vectors, G g G^T is kron(G, G) g: each transform is one product too. The gradient of g is the same line
transposed: G^T [ (B^T d B) * (A dy A^T) ] G, summed over the tiles. Source: Lavin & Gray 2016.
"""

import numpy as np

from satnp import threads
from satnp.layers.blocks import blocks, parallel_blocks, region

A = np.array([[1, 0, 0, 0], [1, 1, 1, 1], [1, -1, 1, -1], [1, 2, 4, 8], [1, -2, 4, -8], [0, 0, 0, 1]])
B = np.array([[4, 0, 0, 0, 0, 0], [0, -4, 4, -2, 2, 4], [-5, -4, -4, -1, -1, 0], [0, 1, -1, 2, -2, -5],
              [1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1]])  # fmt: skip
G = np.array([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
              [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]])  # fmt: skip
OUTPUT, INPUT, WEIGHTS = (np.kron(m, m) for m in (A.T, B.T, G))


def pays(x_shape, W_shape, stride, padding):
    """Is it faster than a product over patches?"""
    (N, R, S, C), (K, _, _, F) = x_shape, W_shape
    tiles = N * -(-(R + 2 * padding - 2) // 4) * -(-(S + 2 * padding - 2) // 4)
    return K == 3 and stride == 1 and min(C, F) >= 32 and tiles >= 32


def correlate(x, W, b, padding):
    """out[n, p, q] = sum_ij x[n, p + i - padding, q + j - padding] W[i, j] + b, as conv2d_forward

    x (N, R, S, C), W (3, 3, C, F), b (F,) -> out (N, P, Q, F)
    """
    (N, P, Q), (C, F) = _outputs(x, padding), W.shape[2:]
    out = np.empty((N, P, Q, F), dtype=x.dtype)
    p, q = -(-P // 4), -(-Q // 4)
    U, to_tiles, to_outputs = _transform_weights(W), INPUT.astype(x.dtype), OUTPUT.astype(x.dtype)

    def work(pieces):
        space = _Space(x.dtype)
        for photos, rows in pieces:
            n, k = _size(photos), _size(rows)
            T = n * k * q
            V = np.matmul(to_tiles, _tiles(x, photos, rows, q, padding, space), out=space("V", 36, T * C))
            M = np.matmul(V.reshape(36, T, C), U, out=space("M", 36, T, F))
            Y = np.matmul(to_outputs, M.reshape(36, T * F), out=space("Y", 16, T * F))
            y = space("y", n, k, 4, q, 4, F)
            y[...] = Y.reshape(4, 4, n, k, q, F).transpose(2, 3, 0, 4, 1, 5)
            seen = out[photos, 4 * rows.start : 4 * rows.stop]
            np.add(y.reshape(n, 4 * k, 4 * q, F)[:, : seen.shape[1], :Q], b, out=seen)

    parallel_blocks(work, blocks(N, p, _tiles_at_a_time(C, F) // q))
    return out


def weight_gradient(x, dout, padding):
    """dW[i, j] = sum_npq x[n, p + i - padding, q + j - padding]^T dout[n, p, q]

    x (N, R, S, C), dout (N, P, Q, F) -> dW (3, 3, C, F)
    """
    (N, P, Q), C, F = _outputs(x, padding), x.shape[3], dout.shape[3]
    p, q = -(-P // 4), -(-Q // 4)
    to_tiles, from_outputs = INPUT.astype(x.dtype), OUTPUT.T.astype(x.dtype)
    pieces = blocks(N, p, 2 * _tiles_at_a_time(C, F) // q)

    def work(channels):
        c, space = _size(channels), _Space(x.dtype)
        dU = np.zeros((36, c, F), dtype=x.dtype)
        for photos, rows in pieces:
            n, k = _size(photos), _size(rows)
            T = n * k * q
            tiles = _tiles(x[..., channels], photos, rows, q, padding, space)
            V = np.matmul(to_tiles, tiles, out=space("V", 36, T * c)).reshape(36, T, c)
            dy = region(dout, photos, 4 * rows.start, 0, space("dy", n, 4 * k, 4 * q, F)).reshape(n, k, 4, q, 4, F)
            dY = space("dY", 16, T * F)
            dY.reshape(4, 4, n, k, q, F)[...] = dy.transpose(2, 4, 0, 1, 3, 5)
            dM = np.matmul(from_outputs, dY, out=space("dM", 36, T * F)).reshape(36, T, F)
            dU += np.matmul(V.swapaxes(1, 2), dM, out=space("dU", 36, c, F))
        return (WEIGHTS.T.astype(x.dtype) @ dU.reshape(36, c * F)).reshape(3, 3, c, F)

    return np.concatenate(threads.parallel(work, threads.shares(C)), axis=2)


class _Space:
    """Named arrays that one core uses again for each of its pieces."""

    def __init__(self, dtype):
        self.buffers, self.dtype = {}, dtype

    def __call__(self, name, *shape):
        size = int(np.prod(shape))
        if name not in self.buffers or self.buffers[name].size < size:
            self.buffers[name] = np.empty(size, self.dtype)
        return self.buffers[name][:size].reshape(shape)


def _tiles_at_a_time(C, F):
    return 256 if max(C, F) > 256 else 128


def _outputs(x, padding):
    N, R, S, _ = x.shape
    return N, R + 2 * padding - 2, S + 2 * padding - 2


def _size(part):
    return part.stop - part.start


def _tiles(x, photos, rows, q, padding, space):
    """The 6 x 6 inputs of each tile of these rows of tiles, q in a row; they overlap by two -> (36, T * C)"""
    n, k, C = _size(photos), _size(rows), x.shape[3]
    seen = region(x, photos, 4 * rows.start - padding, -padding, space("x", n, 4 * k + 2, 4 * q + 2, C))
    windows = np.lib.stride_tricks.sliding_window_view(seen, (6, 6), axis=(1, 2))[:, ::4, ::4]
    tiles = space("tiles", 6, 6, n, k, q, C)
    tiles[...] = windows.transpose(4, 5, 0, 1, 2, 3)
    return tiles.reshape(36, n * k * q * C)


def _transform_weights(W):
    """kron(G, G) W: (3, 3, C, F) -> (36, C, F)"""
    C, F = W.shape[2:]
    U, to_weights, W = np.empty((36, C, F), dtype=W.dtype), WEIGHTS.astype(W.dtype), W.reshape(9, C, F)

    def work(channels):
        for c in range(channels.start, channels.stop):
            np.matmul(to_weights, W[:, c], out=U[:, c])

    threads.parallel(work, threads.shares(C))
    return U
