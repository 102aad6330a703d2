"""Matrix products on the host, cut into pieces that BLAS multiplies without packing.

BLAS first packs its matrices: it copies them to the memory layout of its kernel. For a small or narrow matrix the copy is
not reused often enough. On AVX-512 processors OpenBLAS has kernels for SMALL products that read the matrices in place: 105
to 115 GF/s per core, where other products reach 35 to 100. One NumPy call multiplies a stack of such pieces. Without these
kernels the functions are plain products. So are the first three where BLAS uses all cores for one product.
"""

import numpy as np

from satnp.arrays.backend import xp_of
from satnp.arrays.threads import on_one_core, parallel, shares, small_kernels

SMALL = 10**6  # largest number of multiplications of a product that OpenBLAS computes without packing
ROWS, COLUMNS = 4, 64  # the kernel works on multiples of these
SUMMED = 64  # rows of a piece; with fewer rows, adding up the pieces costs more than they save
LARGE = 2**21  # elements of a matrix that does not stay in the cache from step to step
FEW = range(17, 97)  # rows of x in few_rows_product
WORTH = 2**19  # elements of a matrix that is worth packing for the steps of a recurrence


def tall_product(x, W, out=None):
    """out = x W, for x with many rows and a small W

    x (..., M, K), W (..., K, N) -> out (..., M, N)
    """
    (M, K), N = x.shape[-2:], W.shape[-1]
    rows = _fit(x, W, M, K * N, ROWS)
    if not rows or M < rows:
        return xp_of(x, W).matmul(x, W, out=out)
    if out is None:
        out = np.empty((*x.shape[:-1], N), x.dtype)
    whole = M // rows * rows
    np.matmul(_rows(x[..., :whole, :], rows), W[..., None, :, :], out=_rows(out[..., :whole, :], rows))
    if whole < M:
        np.matmul(x[..., whole:, :], W, out=out[..., whole:, :])
    return out


def wide_product(W, x, out):
    """out = W x, for a small W and x with many columns

    W (M, K), x (K, N) -> out (M, N)
    """
    M, K = W.shape
    N = x.shape[1]
    columns = _fit(W, x, N, M * K, COLUMNS)
    if not columns or N < columns:
        return np.matmul(W, x, out=out)
    whole = N // columns * columns
    np.matmul(W, _columns(x[:, :whole], columns), out=_columns(out[:, :whole], columns))
    if whole < N:
        np.matmul(W, x[:, whole:], out=out[:, whole:])
    return out


def summed_product(x, y):
    """out = the sum of x^T y over a stack of matrices, each a sum over many rows

    x (..., M, K), y (..., M, N) -> out (K, N)
    """
    (M, K), N = x.shape[-2:], y.shape[-1]
    rows = _fit(x, y, M, K * N, ROWS)
    if not SUMMED <= rows < M:
        return _total(np.matmul(x.swapaxes(-1, -2), y))
    whole = M // rows * rows
    out = _total(np.matmul(_rows(x[..., :whole, :], rows).swapaxes(-1, -2), _rows(y[..., :whole, :], rows)))
    if whole < M:
        out += _total(np.matmul(x[..., whole:, :].swapaxes(-1, -2), y[..., whole:, :]))
    return out


def few_rows_product(x, W):
    """out = x W^T, for x with few rows and W with many, as in each step of a recurrence

    x (N, K), W (R, K) -> out (N, R)

    Packing W takes half as long as the multiplication of 64 rows: without it a product takes 3.9 ms instead of 6.0.
    """
    (N, K), R, parts = x.shape, len(W), None
    if _pays(N, W) and W.flags.c_contiguous:
        least = -(-K * N * 8 // SMALL)  # so that a piece has 8 rows of W or more
        parts = next((count for count in range(least, 2 * least + 1) if K % count == 0), None)
    if parts is None:
        return (W @ x.T).T
    most = max(1, SMALL // (N * K // parts) // ROWS) * ROWS
    rows = next((count for count in range(most, most // 2, -ROWS) if R % count == 0), most)  # preferably a divisor of R
    whole = R // rows * rows
    xT, out = np.ascontiguousarray(x.T).reshape(parts, K // parts, N), np.empty((R, N), np.result_type(x, W))
    pieces = W[:whole].reshape(-1, rows, parts, K // parts).swapaxes(1, 2)
    outs = out[:whole].reshape(-1, rows, N)
    if parts == 1:
        np.matmul(pieces[:, 0], xT[0], out=outs)
    else:
        np.sum(np.matmul(pieces, xT), axis=1, out=outs)
    np.matmul(W[whole:], x.T, out=out[whole:])
    return out.T


def packed(W, M=None):
    """Return the function x -> x W, for a W (K, N) that is multiplied by many x (M, K) of few rows

    It copies W once to panels of COLUMNS columns, which BLAS then reads in place: 95 to 105 GF/s for 32 to 160 rows, where
    x @ W reaches 56 to 92.

    M: the number of rows of all x, in a recurrence. W is then copied only where this pays. If W is so large that each step
    reads it from memory, it is transposed for few_rows_product, which reads it once a step; panels are read several times.
    """
    K, N = W.shape
    pays = small_kernels() and xp_of(W) is np and W.dtype.kind == "f"
    if not pays or M is not None and (W.size < WORTH or not on_one_core()):
        return lambda x: x @ W
    if M is not None and _pays(M, W) and W.size >= 2 * LARGE:
        rows = np.ascontiguousarray(W.T)
        return lambda x: few_rows_product(x, rows)
    panels, rest = np.zeros((-(-N // COLUMNS), K, COLUMNS), W.dtype), N % COLUMNS
    whole = N - rest
    columns = _columns(W[:, :whole], COLUMNS)

    def copy(part):
        panels[part] = columns[part]

    parallel(copy, shares(len(columns)))
    panels[len(columns) :, :, :rest] = W[:, whole:]

    def product(x):
        out = np.empty((len(x), len(panels) * COLUMNS), np.result_type(x, W))
        tall_product(x, panels, out=_columns(out, COLUMNS))
        return out[:, :N]

    return product


def _pays(N, W):
    return on_one_core() and small_kernels() and xp_of(W) is np and W.dtype.kind == "f" and N in FEW and W.size >= LARGE


def _fit(x, y, size, each, unit):
    """Return how many of `size` rows or columns, of `each` multiplications, make a SMALL product.

    It is a multiple of `unit` that cuts `size` as evenly as possible, and 0 where SMALL products do not pay.
    """
    fits = xp_of(x, y) is np and x.dtype.kind == "f" and x.dtype == y.dtype
    most = SMALL // max(1, each) // unit * unit if fits and on_one_core() and small_kernels() else 0
    return most and min(most, -(-size // -(-size // most) // unit) * unit)


def _rows(x, rows):
    """(..., M, K) -> (..., M / rows, rows, K), a view"""
    return x.reshape(*x.shape[:-2], x.shape[-2] // rows, rows, x.shape[-1])


def _total(products):
    """The sum of a stack of matrices: (..., K, N) -> (K, N)"""
    return products.sum(axis=tuple(range(products.ndim - 2)))


def _columns(x, columns):
    """(K, N) -> (N / columns, K, columns), a view"""
    return x.reshape(len(x), -1, columns).swapaxes(0, 1)
