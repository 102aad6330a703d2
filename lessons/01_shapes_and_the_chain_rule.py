# %% [markdown]
# # 01 Arrays, shapes and the chain rule
#
# - time: 40 minutes
# - cpu: 5 seconds
# - before: nothing
# - equations: Xu et al. 2015, eqs. 1 and 7 are made of this affine map
# - about: satnp.layers.affine_backward
#
# A gradient says how the loss moves when one number moves. The chain rule carries it from the loss back to every number
# that went into the loss, one operation at a time. First on single numbers, then on a matrix, where the shapes tell you
# most of the answer.

# %% [markdown]
# ## Predict
#
# One number goes through three operations and becomes a loss:
#
#     s = w * x + b          an affine map, "a line"
#     h = tanh(s)
#     loss = (h - y)^2 / 2   how far h is from the wanted y
#
# Take x = 0.5, w = 1.2, b = -0.3, y = 0.9. Before you go on, write down:
#
# 1. Does the loss rise or fall when w rises a little?
# 2. Which moves the loss more: a little more w, or the same little more b? How many times more?

# %% [markdown]
# ## Run
#
# We write `dh` for the derivative of the loss by h, `dw` for that by w, and so on: always of the LOSS, so the name of the
# loss is left out. Start at the loss and go back one operation at a time. Each time: what came from the right, times the
# slope of this one operation.
#
#     loss = (h - y)^2 / 2     dh = h - y
#     h = tanh(s)              ds = dh * (1 - h*h)     since tanh' = 1 - tanh^2
#     s = w * x + b            dw = ds * x,   dx = ds * w,   db = ds
#
# What comes from the right is called the upstream gradient: `dh` is upstream of tanh, `ds` is upstream of the line.
# Note that tanh does not ask what made the loss. It needs `dh` and its own slope, nothing else. So each operation can be
# written once and used anywhere.

# %%
import textwrap

import numpy as np
from kit import near, save, show
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from satnp.layers import affine_backward, affine_forward, tanh_backward, tanh_forward
from satnp.layers.activations import tanh_gradient
from satnp.proof import bugs
from satnp.proof.gradcheck import numeric_gradient

x, w, b, y = 0.5, 1.2, -0.3, 0.9


def loss_of(w, b):
    return (np.tanh(w * x + b) - y) ** 2 / 2


h = np.tanh(w * x + b)
dh = h - y
ds = dh * (1 - h * h)
dw, dx, db = ds * x, ds * w, ds
print(f"loss {loss_of(w, b):.6f}   dh {dh:.6f}   ds {ds:.6f}   dw {dw:.6f}   db {db:.6f}")

# %% [markdown]
# Answers: dw is negative, so the loss FALLS when w rises. And db is twice dw, because dw = ds * x with x = 0.5.
#
# Is it true? Push w up and down by a millionth and see what the loss does:


# %%
def slope(f, at, push=1e-6):
    return (f(at + push) - f(at - push)) / (2 * push)


pushed = slope(lambda w: loss_of(w, b), w)
print(f"pushing w:  {pushed:.9f}\nchain rule: {dw:.9f}")
near("dw against pushing w", dw, pushed, within=1e-8)

# %% [markdown]
# ## Look
#
# The derivative is the slope of the loss as a function of w alone.

# %%
figure = Figure(figsize=(5, 3.2))
axes = figure.subplots()
ws = np.linspace(-1, 3, 200)
axes.plot(ws, loss_of(ws, b), label="loss")
near_w = np.array([w - 0.9, w + 0.9])
axes.plot(near_w, loss_of(w, b) + dw * (near_w - w), "--", label=f"slope dw = {dw:.3f}")
axes.plot([w], [loss_of(w, b)], "ko")
axes.set(xlabel="w (no unit)", ylabel="loss (no unit)")
axes.legend()
save(figure, "01_slope", "the dashed line touches the curve at w = 1.2; its slope is from the chain rule")

# %% [markdown]
# ## Predict
#
# Two roads. Let u = tanh(w), and use u twice: loss = u * u + 3 * u. The first term gives du = 2u, the second du = 3.
# What is du altogether: the larger, the mean, the product, the sum?

# %% [markdown]
# ## Run
#
# A push of u moves the loss through both terms, and both moves happen. So the gradients ADD: du = 2u + 3. This is the second
# and last rule. Whoever is used twice receives two gradients, and they are added. Forgetting one of them is the commonest
# bug of all; in the LSTM and in attention a value may have four roads.

# %%
u = np.tanh(w)
du = 2 * u + 3
dw = du * (1 - u * u)
pushed = slope(lambda w: np.tanh(w) ** 2 + 3 * np.tanh(w), w)
print(f"du {du:.6f}   dw {dw:.9f}   pushing {pushed:.9f}")
near("two roads", dw, pushed, within=1e-8)

# %% [markdown]
# In satnp an operation is a pair of plain functions. `forward` returns its output and a cache: what the backward will need.
# `backward` takes the upstream gradient `dout` and the cache, and returns one gradient for each differentiable input, in
# their order. Here is the pair of tanh. It keeps `out` and not `x`, because its slope can be written with the output alone.
# (`@elementwise` only makes it fast on large arrays, and `xp_of(x)` is NumPy here; read past them.)

# %%
show(tanh_forward)
show(tanh_backward)
show(tanh_gradient)

# %% [markdown]
# ## Predict
#
# Now arrays. A batch of N = 3 examples, each with D = 4 features, becomes H = 5 outputs each:
#
#     out = x @ W + b        x (3, 4), W (4, 5), b (5,) -> out (3, 5)
#
# One example is one ROW of x, and we multiply `x @ W`. (The paper writes columns, W x. It is the same map, transposed. Rows
# are the order in which NumPy stores a batch.) So W has its inputs down and its outputs across.
#
# A gradient has the shape of what it is a gradient of: a number for each number. `dout` is (3, 5). So:
#
# 1. What are the shapes of dx, dW and db?
# 2. Only one product of two of the arrays x, W, dout (each perhaps transposed) has the shape of dW. Which? And for dx?
# 3. db is (5,) but dout is (3, 5). What has to happen to the 3?

# %% [markdown]
# ## Run
#
# Look at what one weight does, before any formula. Push W[1, 3] by 1 and see which outputs move, and by how much.

# %%
rng = np.random.default_rng(0)
x, W, b = rng.standard_normal((3, 4)), rng.standard_normal((4, 5)), rng.standard_normal(5)
out, cache = affine_forward(x, W, b)
pushed = W.copy()
pushed[1, 3] += 1
moved = affine_forward(x, pushed, b)[0] - out
print("out moves by\n", moved.round(3))
print("column 1 of x:", x[:, 1].round(3))

# %% [markdown]
# It moves column 3 of the output, in every row n, by x[n, 1]; nothing else. Now in letters. One output is
#
#     out[n, k] = sum over j of x[n, j] * W[j, k]  +  b[k]
#
# dW: W[j, k] goes into out[n, k] for every n, with slope x[n, j]. These are N roads, so they add:
#
#     dW[j, k] = sum over n of x[n, j] * dout[n, k]      = (x.T @ dout)[j, k]
#
# dx: x[n, j] goes into out[n, k] for every k, with slope W[j, k]. H roads:
#
#     dx[n, j] = sum over k of dout[n, k] * W[j, k]      = (dout @ W.T)[n, j]
#
# db: b[k] goes into out[n, k] for every n, with slope 1. It was broadcast over the rows forward, so it is summed over the
# rows backward:
#
#     db[k] = sum over n of dout[n, k]                   = dout.sum(axis=0)[k]
#
# The sum over n in dW and db is the batch: the same weights serve every example, so each example has a say.
# If the loss is a MEAN over the batch, its 1/N is already inside dout. It must not be divided by again.

# %%
dout = rng.standard_normal(out.shape)  # whatever comes from the right
dW, dx, db = np.zeros_like(W), np.zeros_like(x), np.zeros_like(b)
for n, j, k in np.ndindex(3, 4, 5):
    dW[j, k] += x[n, j] * dout[n, k]
    dx[n, j] += dout[n, k] * W[j, k]
for n, k in np.ndindex(3, 5):
    db[k] += dout[n, k]
print("dx", dx.shape, "  dW", dW.shape, "  db", db.shape)
show(affine_forward)
show(affine_backward)

# %% [markdown]
# ## Look
#
# The same push as a picture.

# %%
figure = Figure(figsize=(8, 3), layout="constrained")
parts = [("x: its column j = 1", x, 1), ("W: entry (1, 3) is pushed", W, None), ("what moves in out", moved, 3)]
for axes, (title, array, column) in zip(figure.subplots(1, 3), parts, strict=True):
    image = axes.imshow(array, cmap="coolwarm", vmin=-2.5, vmax=2.5)
    axes.set(title=title, xlabel="column", ylabel="row", xticks=range(array.shape[1]), yticks=range(array.shape[0]))
    left, top, width, height = (2.5, 0.5, 1, 1) if column is None else (column - 0.5, -0.5, 1, len(array))
    axes.add_patch(Rectangle((left, top), width, height, fill=False, lw=2.5))
figure.colorbar(image, ax=figure.axes, label="value (no unit)", shrink=0.7)
save(figure, "01_one_weight", "one weight moves one column of out; a column of x says by how much")

# %% [markdown]
# ## Check by number
#
# First: the loops and the products are the same numbers.

# %%
found = affine_backward(dout, cache)
for name, got, wanted in zip(("dx", "dW", "db"), found, (dx, dW, db), strict=True):
    near(f"{name} of affine_backward against the loops", got, wanted, within=1e-14)

# %% [markdown]
# Second, against the forward itself. Any number that depends on `out` will do as a loss. The simplest one that has `dout`
# as its upstream gradient is L = sum of out * dout. For W alone, L is a straight line, so a step of ANY size, not only a
# tiny one, moves L by exactly the sum of dW * step:

# %%
step = 10 * rng.standard_normal(W.shape)
L_before, L_after = ((affine_forward(x, V, b)[0] * dout).sum() for V in (W, W + step))
print(f"L moved by {L_after - L_before:.12f}\ndW said    {(found[1] * step).sum():.12f}")
near("a large step of W", (found[1] * step).sum(), L_after - L_before, within=1e-12)

# %% [markdown]
# Third, a chain: affine, tanh, affine. The backward calls are the forward calls, reversed, and each one's `dout` is
# what the one after it returned. Lay the two blocks side by side: this is how the whole captioner is written.
# `numeric_gradient` is the check of the next lesson; take it on trust for now.

# %%
V, c = rng.standard_normal((5, 2)), rng.standard_normal(2)
dout = rng.standard_normal((3, 2))


def forward(W):
    s, first = affine_forward(x, W, b)
    h, middle = tanh_forward(s)
    out, last = affine_forward(h, V, c)
    return out, (first, middle, last)


def backward(dout, cache):
    first, middle, last = cache
    dh, dV, dc = affine_backward(dout, last)
    ds = tanh_backward(dh, middle)
    dx, dW, db = affine_backward(ds, first)
    return dW


dW = backward(dout, forward(W)[1])
print("dW of the chain\n", dW.round(3))
near("dW through three operations", dW, numeric_gradient(lambda W: (forward(W)[0] * dout).sum(), W))

# %% [markdown]
# ## Break it
#
# With no two sizes equal, most mistakes do not fit, and NumPy tells you so. Watch `dout @ W` in place of `dout @ W.T`:

# %%
dout = rng.standard_normal((3, 5))
try:
    dout @ W
except ValueError as error:
    print("refused:", str(error).partition(",")[0])
square = rng.standard_normal((4, 4))
print("but a square W lets it pass:", (rng.standard_normal((3, 4)) @ square).shape)

# %% [markdown]
# So a test with equal sizes is a weak test, and a test with different sizes cannot see everything either. `satnp.proof.bugs`
# is a zoo of real mistakes. Each is planted in the real source, and the gradient check says what is wrong, in words. What do
# you expect for each of these?

# %%
zoo = {bug.name: bug for bug in bugs.BUGS}
for name in ("weight not transposed", "weight gradient transposed", "mean for sum", "bias gradient not summed"):
    bug = zoo[name]
    result = bugs.check(bug)
    print(f"{name}: `{bug.old}` became `{bug.new}`")
    for finding in result.findings:
        print(textwrap.fill(f"{finding.kind}: {finding.sentence}", 78, initial_indent="    ", subsequent_indent="    "))
    assert {finding.kind for finding in result.findings} == bug.kinds

# %% [markdown]
# ## Exercises
#
# 1. By hand: loss = log(1 + exp(w * x)) at w = 2, x = 0.5. Find dw. You are right if you get 0.365529.
# 2. A gate scales each row: out = beta * x with beta (N, 1) and x (N, D). Derive dbeta and dx. What was broadcast forward is
#    summed backward: dbeta has shape (N, 1). Check: with `x` of this lesson, beta = [[1], [2], [3]] and
#    dout = np.ones((3, 4)), dbeta is [[0.738948], [2.077007], [-2.551105]].
# 3. Tied weights: out = tanh(x @ W) @ W.T uses W on two roads. Derive dW for a random dout (3, 4) and hold it with `near`
#    against `numeric_gradient`, as in the chain above: off by less than 1e-14. Leave one road out and see it fail.
# 4. Three axes: a (N, L, D) @ W (D, A), the same W at each of L places. Show that
#    dW = a.reshape(-1, D).T @ dout.reshape(-1, A). Check against np.einsum("nld,nla->da", a, dout): off by less than 1e-14.
# 5. Count: forward takes N * D * H multiplications (and b is free). How many does the backward take? Why do people say
#    that a training step costs three forwards? You are right if backward / forward comes out as 2.

# %% [markdown]
# ## Next
#
# 02, checking a gradient: everything after this is a gradient written by hand, so first make the instrument that
# tells a right one from one that is wrong by a hundredth of a percent.
