# %% [markdown]
# # 03 Convolution: the plain sum, products, Winograd
#
# - time: 60 minutes
# - cpu: 20 seconds
# - before: 01, 02
# - equations: Xu et al. 2015, section 3.1.1 takes its annotations from convolutions; Lavin & Gray 2016 for Winograd's form
# - about: satnp.layers.conv2d_backward_input
#
# A convolution slides one small set of weights over a photo. It is a plain sum; everything else is how to get that sum from
# the machine quickly. We write it three ways, derive both gradients from the sum, and measure what each way costs in time
# and in digits.

# %% [markdown]
# ## Predict
#
# A photo is (R, S, C): rows, columns, channels; N of them are x (N, R, S, C). A filter of K x K weights looks at a window of
# K x K cells, all channels, and gives one number; F filters give F numbers. Their weights are W (K, K, C, F). The window
# moves `stride` cells at a time, over a photo with `padding` cells of zeros around it:
#
#     out[n, p, q, f] = b[f] + sum over i, j, c of x[n, p*stride + i - padding, q*stride + j - padding, c] * W[i, j, c, f]
#
# x is (2, 7, 6, 3), W is (3, 3, 3, 4).
#
# 1. What shape has the output with stride 1, padding 1? With stride 2, padding 0?
# 2. How many multiplications does the first take? (Count those with the zeros of the padding too.)

# %% [markdown]
# ## Run
#
# The plain sum, as it stands in satnp/reference/. Slow, and obviously right: everything else is held against it.

# %%
import textwrap
import time

import numpy as np
from kit import near, save, show
from matplotlib.figure import Figure

from satnp.layers import conv, conv2d_backward, conv2d_backward_input, conv2d_forward, winograd
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
# Along one axis the first window starts at -padding, the last must end before size + padding: so
# (size + 2 padding - K) // stride + 1 windows fit. Each of the N P Q F outputs costs K K C multiplications: 336 * 27 = 9072.
#
# (Mathematicians turn the kernel around and call this a cross-correlation. Nobody in deep learning does; the turned kernel
# comes back, though, in the gradient.)

# %% [markdown]
# ## Predict
#
# A machine is slow at sums one by one and fast at products of matrices. Which matrices? Write each window out as a row of
# K * K * C numbers. Then all windows are a matrix, of patches, and W is a matrix (K*K*C, F): out = patches @ W.
# (The operation has a name, im2col.) A photo of 4 x 5 cells, one channel, K = 2: how many rows and columns do its patches
# have? How often does a cell in the middle occur in them?

# %% [markdown]
# ## Run

# %%
photo = np.arange(20.0).reshape(1, 4, 5, 1)
patches = conv._windows(photo, 2, 1).reshape(-1, 4)
print(photo[0, :, :, 0].astype(int))
print("patches", patches.shape, "\n", patches.astype(int).T, "(transposed)")
print("cell 6 occurs", (patches == 6).sum(), "times")

# %% [markdown]
# Twelve rows of four, and each inner cell four times. With K = 3 the patches are nine times as large as the photo: the price
# in memory. Here is the same for any channels and stride, and its numbers against the sum. An array's strides say how many
# bytes further on the next row, column or channel lies. `as_strided` gives the two axes inside a window the strides of rows
# and columns again: a view, in which the same number stands in many windows and is stored once. Only `reshape` copies.
# (`finishing` adds b, and takes max(out, 0) where a ReLU follows.)

# %%
show(conv._windows)
show(conv.whole_correlate)
for stride, padding in ((1, 0), (1, 1), (2, 0), (2, 1)):
    got = conv.whole_correlate(x, W, b, stride, padding)
    near(f"stride {stride}, padding {padding}", got, conv2d(x, W, b, stride, padding), within=1e-14)

# %% [markdown]
# ## Predict
#
# Now the gradients. `dout` (N, P, Q, F) comes from the right. Leave n and stride away for a moment, and let r be the row and
# s the column of a cell. The sum says that x[r, s, c] meets W[i, j, c, f] in out[p, q, f] where r = p + i - padding and
# s = q + j - padding.
#
# - A weight W[i, j, c, f] is used at every p, q (and n), with slope x[p + i - padding, q + j - padding, c]. What is dW?
# - A cell x[r, s, c] feeds the outputs p = r - i + padding, q = s - j + padding, through W[i, j]. What is dx? Note the
#   minus: the window runs forward in i, the outputs of one cell run backward.

# %% [markdown]
# ## Run
#
# All roads add:
#
#     dW[i, j, c, f] = sum over n, p, q of x[n, p*stride + i - padding, q*stride + j - padding, c] * dout[n, p, q, f]
#     dx[n, r, s, c] = sum over f and all i, j, p, q with p*stride + i - padding = r, q*stride + j - padding = s
#                      of dout[n, p, q, f] * W[i, j, c, f]
#     db[f]          = sum over n, p, q of dout[n, p, q, f]
#
# As loops: walk through the same places as the forward; where it has out += x @ W, each factor gets dout times the other.


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
# As products. out = patches @ W is an affine map, and lesson 01 has its gradients: dW = patches.T @ dout. For dx there would
# be dpatches = dout @ W.T, and each cell collects from all the rows in which it occurs. satnp does that one weight place
# (i, j) at a time: `dout @ W[i, j].T` is added to the cells that are the (i, j)-th of their window. No dpatches is ever
# held in memory. (`tall_product` is that product, of many rows by a small matrix.)

# %%
show(conv.whole_weight_gradient)
show(conv2d_backward_input)

# %% [markdown]
# Read the two loops over i and j. `parallel_blocks` only shares out the photos among the cores. `back` and `winograd`, the
# short way for large arrays, come below.

# %% [markdown]
# ## Look
#
# What does one cell do? Push the cell in the middle of a black photo by 1 and look at which outputs move.

# %%
kernel = np.arange(1.0, 10).reshape(3, 3, 1, 1)
black = np.zeros((1, 7, 6, 1))
pushed = black.copy()
pushed[0, 3, 2] = 1
moved = (conv2d(pushed, kernel, np.zeros(1), 1, 1) - conv2d(black, kernel, np.zeros(1), 1, 1))[0, :, :, 0]
print("kernel\n", kernel[:, :, 0, 0], "\noutputs that move\n", moved[2:5, 1:4])
figure = Figure(figsize=(8, 3.2), layout="constrained")
panels = (
    ("the kernel W", kernel[:, :, 0, 0]),
    ("the photo: one cell pushed", pushed[0, :, :, 0]),
    ("what moves in out", moved),
)
for axes, (title, array) in zip(figure.subplots(1, 3), panels, strict=True):
    axes.imshow(array, cmap="viridis", vmin=0, vmax=9)
    for (row, column), value in np.ndenumerate(array):
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color="white" if value < 6 else "black")
    axes.set(title=title, xlabel="column (cells)", ylabel="row (cells)", xticks=range(array.shape[1]))
    axes.set_yticks(range(len(array)))
save(figure, "03_one_cell", "the outputs that one cell feeds carry the kernel turned by 180 degrees")

# %% [markdown]
# So for stride 1 the sum for dx is itself a convolution: of dout, with the kernel turned around and its in- and outputs
# swapped, W[::-1, ::-1].swapaxes(2, 3), and padding K - 1 - padding. Any fast form of the forward then serves the
# backward too.

# %%
out, cache = conv2d_forward(x, W, b, 1, 1)
dout = rng.standard_normal(out.shape)
turned = W[::-1, ::-1].swapaxes(2, 3)
near("dx as a convolution", conv2d(dout, turned, np.zeros(3), 1, 3 - 1 - 1), conv2d_backward(dout, cache)[0], within=1e-14)

# %% [markdown]
# ## Predict
#
# Fewer multiplications. Two outputs of a filter with three weights g, along one row of four cells d:
#
#     y0 = d0 g0 + d1 g1 + d2 g2
#     y1 = d1 g0 + d2 g1 + d3 g2
#
# Six multiplications. Do it with fewer? (Sums are free; whatever is made from g alone is free too, since the same
# weights serve the whole photo.)

# %% [markdown]
# ## Run
#
# Winograd's F(2, 3) takes four:
#
#     m0 = (d0 - d2) g0                    m1 = (d1 + d2) (g0 + g1 + g2) / 2
#     m3 = (d1 - d3) g2                    m2 = (d2 - d1) (g0 - g1 + g2) / 2
#     y0 = m0 + m1 + m2                    y1 = m1 - m2 - m3
#
# (Multiply out y0: the terms in d1 g0, d1 g2, d2 g0, d2 g1 cancel as they should.) Written with matrices:
# y = A^T [(G g) * (B^T d)], with * elementwise: the four products.

# %%
A2 = np.array([[1, 0], [1, 1], [1, -1], [0, -1]])
B2 = np.array([[1, 0, 0, 0], [0, 1, -1, 1], [-1, 1, 1, 0], [0, 0, 0, -1]])
G2 = np.array([[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]])
d, g = rng.standard_normal(4), rng.standard_normal(3)
y = A2.T @ ((G2 @ g) * (B2.T @ d))
print("y", y, "with", len(A2), "products")
near("F(2, 3) against the sum", y, np.correlate(d, g), within=1e-13)

# %% [markdown]
# Where do such numbers come from? The product of two polynomials is fixed by its values at enough points, and at each point
# the value of the product is ONE multiplication. A filter's transpose is a product of polynomials. Points 0, 1, -1 and
# infinity give F(2, 3). With 2 and -2 added: F(4, 3), four outputs with 6 products where the sum has 12. Look at A: its rows
# are the powers 1, p, p^2, p^3 of the points p = 0, 1, -1, 2, -2, and infinity. satnp uses this one.
#
# We need not believe it. Both sides are linear in d and linear in g, so it is enough to try the unit vectors: 6 x 3 pairs.
# That is a proof.

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
# In two dimensions do it along the rows and then along the columns: a tile of 4 x 4 outputs from 6 x 6 cells,
#
#     y = A^T [ (G g G^T) * (B^T d B) ] A
#
# 36 products where the sum has 16 * 9 = 144. Over C channels and F filters, each of the 36 places of all tiles is one
# product of matrices, (tiles, C) @ (C, F). The sums over channels come before A^T: so the transforms are paid once a
# channel and once a filter, not once for each pair.

# %%
d, g = rng.standard_normal((6, 6)), rng.standard_normal((3, 3))
y = winograd.A.T @ ((winograd.G @ g @ winograd.G.T) * (winograd.B.T @ d @ winograd.B)) @ winograd.A
near("one tile", y, conv2d(d[None, :, :, None], g[:, :, None, None], np.zeros(1))[0, :, :, 0], within=1e-13)
show(winograd._correlate)  # V = B^T d B of all tiles, M the products, Y = A^T M A

# %% [markdown]
# ## Predict
#
# Nothing is free. A has an 8 in it and G a 1/24: numbers grow and shrink again on the way. A layer of the paper's kind, 64
# channels to 65 filters on 4 maps of 28 x 27, in float32 (7 digits). Guess for the plain sum, for patches and for
# Winograd: the time, and how many digits are left against float64.

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

# %% [markdown]
# Of 113 million products Winograd's form leaves 29: not quite a quarter, because 27 columns need 7 tiles of 4. Its error is
# six times that of the patches, 2e-6. For training that is nothing; larger tiles would lose more (exercise 4 compares two).
# "Patches in the cache" are the same products as "all patches", some rows at a time, so that they never go out to memory.
# The milliseconds are your machine's. On two busy cores we saw about 200, 10, 5 and 3.

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
save(figure, "03_forms", "products beat the sum by far; Winograd loses most of one digit of seven")

# %% [markdown]
# ## Check by number
#
# `conv2d_forward` chooses among the forms by size (`winograd.pays`), and complex numbers always take all patches at once. So
# there are two checks. The backward against the complex step of the plain way, for every stride and padding:

# %%
for case in checks.cases():
    if case.name.startswith("layers/conv2d K"):
        result = check_gradients(case)
        print(f"{case.name:34} off by {result.error:.1e}")
        assert result.passed

# %% [markdown]
# and the fast forms of forward and backward against the plain ones, at a size that they are for:

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
# The kernel not turned around: the shapes fit, so nothing complains. Two kernels, a random one and a symmetric one (a blur).
# Which test sees the bug?


# %%
def unturned_backward(dout, cache):
    dx, dW, db = conv2d_backward(dout, cache)
    return conv.whole_correlate(dout, cache.W.swapaxes(2, 3), np.zeros(3), 1, 1), dW, db


def inputs(symmetric):
    def make(rng):
        W = rng.standard_normal((3, 3, 3, 4))
        W = W + W[::-1, ::-1] if symmetric else W
        return {"x": rng.standard_normal((2, 7, 6, 3)), "W": W, "b": rng.standard_normal(4)}

    return make


for name, symmetric in (("random kernel", False), ("symmetric kernel", True)):
    case = Case("conv", inputs(symmetric), lambda x, W, b: conv2d_forward(x, W, b, 1, 1), unturned_backward)
    result = check_gradients(case)
    print(f"{name}: passed {result.passed}, error {result.error:.1e}", *(f.kind for f in result.findings))

# %% [markdown]
# A blur passes. It is lesson 02 again: a check sees only what its inputs can tell apart. Three more from the zoo, all in
# `conv2d_backward_input`, so all in dx. Say first for each: wrong everywhere, or only in some places?

# %%
for bug in bugs.BUGS:
    if bug.name in ("stride ignored in dx", "padding not cut off dx", "last kernel column skipped"):
        print(f"{bug.name}: `{bug.old}`\n    became `{bug.new}`")
        for finding in bugs.check(bug).findings:
            print(textwrap.fill(f"{finding.kind}: {finding.sentence}", 78, initial_indent="    ", subsequent_indent="    "))

# %% [markdown]
# ## Exercises
#
# 1. Count: the first layer of the small encoder turns x (8, 64, 64, 3) with W (5, 5, 3, 16), stride 2 and padding 2, into
#    what shape, with how many multiplications? You are right with 9,830,400. How many does its backward take, and why does
#    `satnp.encoders.small.backward` leave half of them out?
# 2. A 1 x 1 convolution is an affine map of every cell. Show it: `conv2d_forward` with W (1, 1, 3, 4) against
#    `affine_forward` on x.reshape(-1, 3): off by less than 1e-15.
# 3. F(2, 3) is linear in g, so its gradient is the same line transposed: dg = G2.T @ ((B2.T @ d) * (A2 @ dy)). Derive it,
#    and check it against np.correlate(d, dy): off by less than 1e-13.
# 4. Digits: 1000 random tiles d (36, 1000) and one g (9,) through O @ ((G @ g)[:, None] * (I @ d)) in float32, against
#    float64, with O, G, I = winograd.OUTPUT, WEIGHTS, INPUT (each .astype(np.float32)). Then F(2, 3) in two dimensions, with
#    np.kron(A2.T, A2.T) and so on and tiles of 16 cells. You are right if the errors are about 8e-7 and 1e-7.
# 5. Depthwise: each channel has a filter of its own, out[..., c] = sum of x[..., c] * W[i, j, c], W (3, 3, C). Write the
#    pair with the loop over i and j only, and its Case. It passes with an error below 1e-14.

# %% [markdown]
# ## Next
#
# 04, pooling and ReLU: the two other parts of a convolutional network, then a small one that learns to tell shapes apart.
