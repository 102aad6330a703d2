# %% [markdown]
# # 03 Convolution: the plain sum, products, Winograd
#
# - time: 60 minutes
# - cpu: 20 seconds
# - before: 01, 02
# - equations: Xu et al. 2015, section 3.1.1 takes its annotations from convolutions; Lavin & Gray 2016 for Winograd's form
# - about: satnp.layers.conv2d_backward_input
#
# A convolution slides one small set of weights over a photo. It is a plain sum; the rest is about computing this sum
# quickly. This lesson computes it in three ways, derives both gradients from the sum, and measures the time and the
# rounding error of each way.
#
# As before, $dx$ is the gradient of the loss by $x$.

# %% [markdown]
# ## Predict
#
# A photo is an array (R, S, C): rows, columns, channels; N photos are `x` (N, R, S, C). A filter of K x K weights covers a
# window of K x K cells with all their channels, and computes one number from it; F filters compute F numbers. Their
# weights are `W` (K, K, C, F). The window moves by $s$ cells at a time (the stride), over a photo with $m$ rows and
# columns of zeros on each side (the padding):
#
# $$
# \mathrm{out}_{npqf} = b_f + \sum_{i,j,c} x_{n, \, ps + i - m, \, qs + j - m, \, c} \, W_{ijcf}
# $$
#
# `x` is (2, 7, 6, 3), `W` is (3, 3, 3, 4).
#
# 1. What is the shape of the output with stride 1 and padding 1? With stride 2 and padding 0?
# 2. How many multiplications does the first take? (Count those with the zeros of the padding too.)

# %% [markdown]
# ## Run
#
# The plain sum, from `satnp/reference/conv.py`. It is slow and easy to verify, so all other forms are compared with it.

# %%
import textwrap
import time

import numpy as np
from kit import graph, near, save, show
from matplotlib.figure import Figure

from satnp.layers import conv, conv2d_backward, conv2d_forward, winograd
from satnp.proof import bugs, checks
from satnp.proof.gradcheck import Case, check_gradients
from satnp.reference.conv import conv2d

show(conv2d)
rng = np.random.default_rng(0)
x, W, b = rng.standard_normal((2, 7, 6, 3)), rng.standard_normal((3, 3, 3, 4)), rng.standard_normal(4)
for stride, padding in ((1, 1), (2, 0)):
    out = conv2d(x, W, b, stride, padding)
    print(f"stride {stride}, padding {padding}: {out.shape}, {out.size * W[..., 0].size} multiplications")

# %% [markdown]
# Along one axis the first window starts at $-m$, and the last must end before the size plus $m$. So
# $(\mathrm{size} + 2m - K) / s + 1$ windows fit, rounded down. Each of the $N P Q F$ outputs costs $K^2 C$
# multiplications: $336 \cdot 27 = 9072$.
#
# (In mathematics a convolution rotates the kernel by 180 degrees, and the sum above is a cross-correlation. In deep
# learning it is called a convolution. The rotated kernel appears in the gradient.)

# %% [markdown]
# ## Predict
#
# A processor is slow at single additions in a Python loop and fast at matrix products. Which matrices? Write each window
# as a row of $K^2 C$ numbers. All windows together are a matrix, the patches, and `W` is a matrix ($K^2 C$, F):
# `out = patches @ W + b`. (Making the patches is called im2col.) A photo has 4 x 5 cells and one channel, and K is 2: how
# many rows and columns do its patches have? How often does a cell in the middle occur in them?

# %% [markdown]
# ## Run

# %%
photo = np.arange(20.0).reshape(1, 4, 5, 1)
patches = conv._windows(photo, 2, 1).reshape(-1, 4)
print(photo[0, :, :, 0].astype(int))
print("patches", patches.shape, "\n", patches.astype(int).T, "(transposed)")
print("cell 6 occurs", (patches == 6).sum(), "times")

# %% [markdown]
# Twelve rows of four, and each inner cell four times. With $K = 3$ the patches are nine times as large as the photo: that
# is the price in memory. Below is the same for any channels and stride, compared with the plain sum. The strides of an
# array say how many bytes further on the next row, column or channel is. `as_strided` uses the strides of rows and columns
# twice, once for the windows and once inside a window: a view, in which the same number is in many windows but stored
# once. Only `reshape` copies. (`finishing` adds `b`, and clips at 0 if a ReLU follows.)

# %%
show(conv._windows)
show(conv.whole_correlate)
for stride, padding in ((1, 0), (1, 1), (2, 0), (2, 1)):
    got = conv.whole_correlate(x, W, b, stride, padding)
    near(f"stride {stride}, padding {padding}", got, conv2d(x, W, b, stride, padding), within=1e-14)

# %% [markdown]
# ## Predict
#
# Now the gradients. The upstream gradient is `dout` (N, P, Q, F). Take stride 1 and one photo, and let $r$ be the row and
# $t$ the column of a cell. In the sum, $x_{rtc}$ is multiplied by $W_{ijcf}$ for $\mathrm{out}_{pqf}$ where
# $r = p + i - m$ and $t = q + j - m$.
#
# - A weight $W_{ijcf}$ is used for every $p$ and $q$ (and every photo), with slope $x_{p+i-m, \, q+j-m, \, c}$. What is
#   $dW$?
# - A cell $x_{rtc}$ is used for the outputs at $p = r - i + m$ and $q = t - j + m$, with slope $W_{ijcf}$. What is $dx$?
#   Note the minus: as $i$ grows, $p$ becomes smaller.

# %% [markdown]
# ## Run
#
# All paths add:
#
# $$
# \begin{aligned}
# dW_{ijcf} &= \sum_{n,p,q} x_{n, \, ps + i - m, \, qs + j - m, \, c} \, d\mathrm{out}_{npqf} \\
# dx_{nrtc} &= \sum_{f} \sum_{i,j,p,q} d\mathrm{out}_{npqf} \, W_{ijcf} \\
# db_f &= \sum_{n,p,q} d\mathrm{out}_{npqf}
# \end{aligned}
# $$
#
# In $dx$, the sum runs over all $i, j, p, q$ with $ps + i - m = r$ and $qs + j - m = t$. As loops: visit the same places
# as the forward. Where the forward has `out += x @ W`, the gradient of each factor is `dout` times the other factor.


# %%
def plain_backward(dout, x, W, stride, padding):
    dx, dW = np.zeros_like(x), np.zeros_like(W)
    (N, P, Q, _), (_, R, S, _), K = dout.shape, x.shape, len(W)
    for n, p, q, i, j in np.ndindex(N, P, Q, K, K):
        r, s = p * stride + i - padding, q * stride + j - padding
        if 0 <= r < R and 0 <= s < S:
            dW[i, j] += np.outer(x[n, r, s], dout[n, p, q])
            dx[n, r, s] += W[i, j] @ dout[n, p, q]
    return dx, dW, dout.sum(axis=(0, 1, 2))


for stride, padding in ((1, 1), (2, 0), (2, 1)):
    out, cache = conv2d_forward(x, W, b, stride, padding)
    dout = rng.standard_normal(out.shape)
    for name, got, wanted in zip(
        ("dx", "dW", "db"), conv2d_backward(dout, cache), plain_backward(dout, x, W, stride, padding), strict=True
    ):
        near(f"stride {stride}, padding {padding}: {name}", got, wanted, within=1e-14)

# %% [markdown]
# Now as products. `out = patches @ W + b` is an affine map, and lesson 01 derived its gradients: `dW = patches.T @ dout`
# and `dpatches = dout @ W.T`. A cell occurs in several rows of the patches, so its gradient is the sum of what these rows
# have. The function `collect` below adds them up for one place $(i, j)$ of the window at a time: the cells that are at
# this place of their windows are a slice of the photo, and no two windows share such a cell. The drawing has the three
# steps; `windows` makes the patches.

# %%
show(conv.whole_weight_gradient)


def collect(dpatches, shape, K, stride, padding):
    """dpatches (N, P, Q, K*K*C) -> dx of `shape` (N, R, S, C)"""
    (N, P, Q, _), (_, R, S, C) = dpatches.shape, shape
    dpatches = dpatches.reshape(N, P, Q, K, K, C)
    dx = np.zeros((N, R + 2 * padding, S + 2 * padding, C))
    for i, j in np.ndindex(K, K):
        dx[:, conv.window(i, stride, P), conv.window(j, stride, Q)] += dpatches[:, :, :, i, j]
    return dx[:, padding : padding + R, padding : padding + S]


print("window(1, 2, 3), cell 1 of 3 windows that are 2 apart:", conv.window(1, 2, 3))

# %%
sizes = {"N": 2, "R": 9, "S": 7, "C": 3, "P": 5, "Q": 4, "F": 6, "KKC": 27}
x, W, b = rng.standard_normal((2, 9, 7, 3)), rng.standard_normal((3, 3, 3, 6)), rng.standard_normal(6)
out, cache = conv2d_forward(x, W, b, stride=2, padding=1)
dout = rng.standard_normal(out.shape)
dx, dW, db = conv2d_backward(dout, cache)
steps = [
    ("patches", "windows(x)", {"x": "collect(dpatches)"}),
    ("out", "patches @ W + b", {"patches": "dout @ W.T", "W": "rows(patches).T @ rows(dout)", "b": "rows(dout).sum(0)"}),
]
values = {
    "x": x, "W": W.reshape(27, 6), "b": b, "out": out, "dx": dx, "dW": dW.reshape(27, 6), "db": db,
    "windows": lambda x: conv._windows(conv.pad(x, 1, 1), 3, 2).reshape(2, 5, 4, 27),
    "collect": lambda dpatches: collect(dpatches, x.shape, 3, 2, 1), "rows": lambda x: x.reshape(-1, x.shape[-1]),
}  # fmt: skip
graph("03_convolution", steps, values, sizes, {"out": dout}, "a convolution is an affine map of its patches")

# %% [markdown]
# `conv2d_backward_input` in `satnp/layers/conv.py` is `collect` without an array of all patches: for each $(i, j)$ it adds
# `dout @ W[i, j].T` to the same slice, some photos at a time on each core.

# %% [markdown]
# ## Look
#
# What is the effect of one cell? Set the cell in the middle of a black photo to 1 and see which outputs change.

# %%
kernel = np.arange(1.0, 10).reshape(3, 3, 1, 1)
black = np.zeros((1, 7, 6, 1))
pushed = black.copy()
pushed[0, 3, 2] = 1
moved = (conv2d(pushed, kernel, np.zeros(1), 1, 1) - conv2d(black, kernel, np.zeros(1), 1, 1))[0, :, :, 0]
print("kernel\n", kernel[:, :, 0, 0], "\noutputs that change\n", moved[2:5, 1:4])
figure = Figure(figsize=(8, 3.2), layout="constrained")
panels = (
    ("the kernel W", kernel[:, :, 0, 0]),
    ("the photo: one cell is 1", pushed[0, :, :, 0]),
    ("the outputs that change", moved),
)
for axes, (title, array) in zip(figure.subplots(1, 3), panels, strict=True):
    axes.imshow(array, cmap="viridis", vmin=0, vmax=9)
    for (row, column), value in np.ndenumerate(array):
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color="white" if value < 6 else "black")
    axes.set(title=title, xlabel="column (cells)", ylabel="row (cells)", xticks=range(array.shape[1]))
    axes.set_yticks(range(len(array)))
save(figure, "03_one_cell", "the outputs that use one cell have the kernel's weights, rotated by 180 degrees")

# %% [markdown]
# So for stride 1 the sum for $dx$ is itself a convolution: of `dout`, with the kernel rotated by 180 degrees and its
# channels and filters exchanged, `W[::-1, ::-1].swapaxes(2, 3)`, and with padding $K - 1 - m$. So any fast form of the
# forward also computes the backward.

# %%
out, cache = conv2d_forward(x, W, b, 1, 1)
dout = rng.standard_normal(out.shape)
rotated = W[::-1, ::-1].swapaxes(2, 3)
near("dx as a convolution", conv2d(dout, rotated, np.zeros(3), 1, 3 - 1 - 1), conv2d_backward(dout, cache)[0], within=1e-14)

# %% [markdown]
# ## Predict
#
# Fewer multiplications. Take two outputs of a filter with three weights $g$, along one row of four cells $d$:
#
# $$
# \begin{aligned}
# y_0 &= d_0 g_0 + d_1 g_1 + d_2 g_2 \\
# y_1 &= d_1 g_0 + d_2 g_1 + d_3 g_2
# \end{aligned}
# $$
#
# These are six multiplications. Can you do it with fewer? (Do not count additions, nor anything computed from $g$ alone:
# the same weights serve the whole photo.)

# %% [markdown]
# ## Run
#
# Winograd's F(2, 3) takes four:
#
# $$
# \begin{aligned}
# m_0 &= (d_0 - d_2) \, g_0 \\
# m_1 &= (d_1 + d_2) \, (g_0 + g_1 + g_2) / 2 \\
# m_2 &= (d_2 - d_1) \, (g_0 - g_1 + g_2) / 2 \\
# m_3 &= (d_1 - d_3) \, g_2 \\
# y_0 &= m_0 + m_1 + m_2 \\
# y_1 &= m_1 - m_2 - m_3
# \end{aligned}
# $$
#
# (Multiply out $y_0$: the terms $d_1 g_0$, $d_1 g_2$, $d_2 g_0$ and $d_2 g_1$ cancel as they should.) With matrices it is
#
# $$
# y = A^\top \left[ (G g) \odot (B^\top d) \right]
# $$
#
# where $\odot$ multiplies element by element: the four products.

# %%
A2 = np.array([[1, 0], [1, 1], [1, -1], [0, -1]])
B2 = np.array([[1, 0, 0, 0], [0, 1, -1, 1], [-1, 1, 1, 0], [0, 0, 0, -1]])
G2 = np.array([[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]])
d, g = rng.standard_normal(4), rng.standard_normal(3)
y = A2.T @ ((G2 @ g) * (B2.T @ d))
print("y", y, "with", len(A2), "products")
near("F(2, 3) against the sum", y, np.correlate(d, g), within=1e-13)

# %% [markdown]
# Where do such numbers come from? A polynomial is determined by its values at enough points, and at each point the value
# of a product of two polynomials is ONE multiplication. A filter is the transpose of such a product. The points 0, 1, $-1$
# and infinity give F(2, 3). With 2 and $-2$ added, they give F(4, 3): four outputs with 6 products, where the sum has 12.
# The rows of $A$ are the powers $1, p, p^2, p^3$ of the points $p = 0, 1, -1, 2, -2$, and the last row belongs to
# infinity. satnp uses F(4, 3).
#
# We can prove that it is right. Both sides are linear in $d$ and linear in $g$, so it is enough to try all pairs of unit
# vectors, 6 times 3 of them.

# %%
print("A =\n", winograd.A)
worst = 0.0
for d in np.eye(6):
    for g in np.eye(3):
        y = winograd.A.T @ ((winograd.G @ g) * (winograd.B.T @ d))
        worst = max(worst, np.abs(y - np.correlate(d, g)).max())
print(f"18 pairs of unit vectors: largest difference {worst:.1e}")
assert worst < 1e-15

# %% [markdown]
# In two dimensions, apply it to the rows and then to the columns. A tile of 4 x 4 outputs is computed from 6 x 6 cells:
#
# $$
# y = A^\top \left[ (G g G^\top) \odot (B^\top d B) \right] A
# $$
#
# These are 36 products, where the sum has $16 \cdot 9 = 144$. With C channels and F filters, each of the 36 places of all
# tiles is one matrix product, (tiles, C) times (C, F). The sum over the channels comes before $A^\top$, so $d$ is
# transformed once for each channel and $g$ once for each pair, not once for each product. Here it is for all tiles of a
# photo whose sides are multiples of 4; satnp's form (`winograd.correlate`) does the same with matrix products, some tiles
# at a time.

# %%
d, g = rng.standard_normal((6, 6)), rng.standard_normal((3, 3))
y = winograd.A.T @ ((winograd.G @ g @ winograd.G.T) * (winograd.B.T @ d @ winograd.B)) @ winograd.A
near("one tile", y, conv2d(d[None, :, :, None], g[:, :, None, None], np.zeros(1))[0, :, :, 0], within=1e-13)


def tiled(x, W):
    """Stride 1, padding 1: x (N, R, S, C), W (3, 3, C, F) -> out (N, R, S, F); R and S are multiples of 4."""
    A, B, G = winograd.A, winograd.B, winograd.G
    d = np.lib.stride_tricks.sliding_window_view(conv.pad(x, 1, 1), (6, 6), axis=(1, 2))[:, ::4, ::4]
    V = np.einsum("ua,npqcuv,vb->npqcab", B, d, B)  # B^T d B
    U = np.einsum("ai,ijcf,bj->abcf", G, W, G)  # G g G^T
    M = np.einsum("npqcab,abcf->npqfab", V, U)  # the products, summed over the channels
    Y = np.einsum("ai,npqfab,bj->npiqjf", A, M, A)  # A^T M A
    return Y.reshape(*x.shape[:3], W.shape[3])


x, W, b = rng.standard_normal((2, 8, 12, 3)), rng.standard_normal((3, 3, 3, 4)), np.zeros(4)
near("all tiles", tiled(x, W), conv2d(x, W, b, 1, 1), within=1e-13)
near("winograd.correlate", winograd.correlate(x, W, b, 1), conv2d(x, W, b, 1, 1), within=1e-13)

# %% [markdown]
# ## Predict
#
# There is a price. $A$ has an 8 in it and $G$ a $1/24$, so numbers grow and shrink on the way, and rounding errors grow
# with them. Take a layer of the paper's kind, 64 channels to 65 filters on 4 maps of 28 x 27, in float32 (7 digits). Guess
# for the plain sum, for patches and for Winograd's form: the time, and the number of right digits.

# %% [markdown]
# ## Run

# %%
x64, W64, b64 = rng.standard_normal((4, 28, 27, 64)), rng.standard_normal((3, 3, 64, 65)), rng.standard_normal(65)
wanted = conv2d(x64, W64, b64, 1, 1)
x32, W32, b32 = (array.astype(np.float32) for array in (x64, W64, b64))
tiles = 4 * 7 * 7  # of 4 x 4 outputs, enough to cover 28 x 27
forms = {
    "plain sum": (conv2d, 1, wanted.size * 9 * 64),
    "all patches at once": (conv.whole_correlate, 5, wanted.size * 9 * 64),
    "patches in the cache": (conv.patches_correlate, 5, wanted.size * 9 * 64),
    "Winograd": (lambda x, W, b, stride, padding: winograd.correlate(x, W, b, padding), 5, tiles * 36 * 64 * 65),
}
rows = []
for name, (form, times, count) in forms.items():
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        out = form(x32, W32, b32, 1, 1)
        seconds.append(time.perf_counter() - start)
    error = np.linalg.norm(out - wanted) / np.linalg.norm(wanted)
    rows.append((name, 1e3 * min(seconds), error))
    print(f"{name:21} {count / 1e6:6.1f} million products  {1e3 * min(seconds):7.1f} ms  error {error:.1e}")
    assert out.dtype == np.float32 and error < 3e-6
print(f"Winograd's error is {rows[3][2] / rows[2][2]:.1f} times that of the patches in the cache")

# %% [markdown]
# Of 113 million products Winograd's form needs 29: not quite a quarter, because 27 columns need 7 tiles of 4. Its error is
# a few times that of the patches. Larger tiles would lose more digits (exercise 4 compares two). "Patches in the cache"
# are the same products as "all patches", some rows at a time, so that they need not be written to memory. The milliseconds
# are those of your machine.

# %% [markdown]
# ## Look

# %%
figure = Figure(figsize=(8, 2.8), layout="constrained")
left, right = figure.subplots(1, 2, sharey=True)
names, ms, errors = zip(*rows, strict=True)
left.barh(names, ms, color="C0")
left.set(xlabel="time of one forward (ms, logarithmic)", xscale="log", xlim=(1, None))
left.invert_yaxis()
right.barh(names, 1e7 * np.array(errors), color="C1")
right.set(xlabel="relative error in float32 (in 1e-7)")
save(figure, "03_forms", "the products are many times faster than the sum; Winograd has the largest error")

# %% [markdown]
# ## Check by number
#
# `conv2d_forward` chooses one of the forms by size (`winograd.pays`); for complex numbers it always takes all patches at
# once. So two checks are needed. First the backward against the complex step of the plain way, for several strides and
# paddings:

# %%
for case in checks.cases():
    if case.name.startswith("layers/conv2d K"):
        result = check_gradients(case)
        print(f"{case.name:34} off by {result.error:.1e}")
        assert result.passed

# %% [markdown]
# Then the fast forms of forward and backward against the plain ones, at a size for which they are used:

# %%
dout = rng.standard_normal(wanted.shape)
out, cache = conv2d_forward(x64, W64, b64, 1, 1)
dx, dW, db = conv2d_backward(dout, cache)
print("Winograd pays here:", winograd.pays(x64.shape, W64.shape, 1, 1))
near("out", out, wanted, within=1e-13)
near("dW", dW, conv.whole_weight_gradient(x64, dout, W64, 1, 1), within=1e-13)
near("dx", dx, conv.whole_correlate(dout, W64[::-1, ::-1].swapaxes(2, 3), np.zeros(64), 1, 1), within=1e-13)
dx32, dW32, _ = conv2d_backward(dout.astype(np.float32), conv2d_forward(x32, W32, b32, 1, 1)[1])
near("dx in float32", dx32, dx, within=3e-6)
near("dW in float32", dW32, dW, within=3e-6)

# %% [markdown]
# ## Break it
#
# A common mistake: the kernel is not rotated. The shapes fit, so no error is raised. Below are two kernels, a random one
# and a symmetric one (a blur). With which of them does the check find the mistake?


# %%
def unrotated_backward(dout, cache):
    dx, dW, db = conv2d_backward(dout, cache)
    return conv.whole_correlate(dout, cache.W.swapaxes(2, 3), np.zeros(3), 1, 1), dW, db


def inputs(symmetric):
    def make(rng):
        W = rng.standard_normal((3, 3, 3, 4))
        W = W + W[::-1, ::-1] if symmetric else W
        return {"x": rng.standard_normal((2, 7, 6, 3)), "W": W, "b": rng.standard_normal(4)}

    return make


for name, symmetric in (("random kernel", False), ("symmetric kernel", True)):
    case = Case("conv", inputs(symmetric), lambda x, W, b: conv2d_forward(x, W, b, 1, 1), unrotated_backward)
    result = check_gradients(case)
    print(f"{name}: passed {result.passed}, error {result.error:.1e}", *(f.kind for f in result.findings))
    assert result.passed == symmetric

# %% [markdown]
# With a blur the wrong backward passes, because its kernel equals the rotated one. The inputs of a check must be able to
# show the mistake; lesson 07b has more of this kind. Here are three planted mistakes, all in `conv2d_backward_input`, so
# all in `dx`. Say first for each: is `dx` wrong everywhere, or only in some places?

# %%
for bug in bugs.BUGS:
    if bug.name in ("stride ignored in dx", "padding not cut off dx", "last kernel column skipped"):
        print(f"{bug.name}: `{bug.old}`\n    became `{bug.new}`")
        for finding in bugs.check(bug).findings:
            print(textwrap.fill(f"{finding.kind}: {finding.sentence}", 78, initial_indent="    ", subsequent_indent="    "))

# %% [markdown]
# ## Exercises
#
# 1. Count: the first layer of the small encoder has the input `x` (8, 64, 64, 3) and the weights `W` (5, 5, 3, 16), with
#    stride 2 and padding 2. What is the shape of its output, and how many multiplications does it take? Check: 9,830,400.
#    How many does its backward take, and why does `satnp.encoders.small.backward` leave out half of them?
# 2. A 1 x 1 convolution is an affine map of every cell. Show it: compare `conv2d_forward` with `W` (1, 1, 3, 4) and
#    `affine_forward` on `x.reshape(-1, 3)`. Check: off by less than 1e-15.
# 3. F(2, 3) is linear in $g$, so its gradient is the same product transposed: $dg = G^\top [(B^\top d) \odot (A \, dy)]$.
#    Derive it, and compare it with `np.correlate(d, dy)`. Check: off by less than 1e-13.
# 4. Digits: put 1000 random tiles `d` (36, 1000) and one `g` (9,) through `O @ ((G @ g)[:, None] * (I @ d))` in float32
#    and compare with float64, where `O, G, I = winograd.OUTPUT, winograd.WEIGHTS, winograd.INPUT` (each
#    `.astype(np.float32)`). Then do the same with F(2, 3) in two dimensions, with `np.kron(A2.T, A2.T)` and so on, and
#    tiles of 16 cells. Check: the errors are about 1e-6 and 1e-7.
# 5. Depthwise: each channel has a filter of its own, $\mathrm{out}_{npqc} = \sum_{i,j} x_{n,p+i,q+j,c} W_{ijc}$ with `W`
#    (3, 3, C). Write the pair with a loop over $i$ and $j$ only, and its `Case`. Check: it passes with an error below
#    1e-14.

# %% [markdown]
# ## Next
#
# 04, pooling and ReLU: the two other parts of a convolutional network, and then a small network that learns to tell shapes
# apart.
