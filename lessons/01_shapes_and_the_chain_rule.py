# %% [markdown]
# # 01 Arrays, shapes and the chain rule
#
# - time: 45 minutes
# - cpu: 10 seconds
# - before: nothing
# - equations: Xu et al. 2015, eqs. 1 and 7 are made of this affine map
# - about: satnp.layers.affine_backward
#
# A gradient says how the loss changes when one number changes. The chain rule computes it from the loss back to every
# number that went into the loss, one operation at a time. This lesson derives it first for single numbers and then for a
# matrix, where the shapes already determine most of the answer.

# %% [markdown]
# ## Predict
#
# One number goes through three operations and becomes a loss:
#
# $$
# \begin{aligned}
# s &= w x + b \\
# h &= \tanh(s) \\
# \mathrm{loss} &= \frac{1}{2} (h - y)^2
# \end{aligned}
# $$
#
# The first is an affine map; the last measures how far $h$ is from the wanted $y$. Take $x = 0.5$, $w = 1.2$, $b = -0.3$,
# $y = 0.9$. Before you go on, write down:
#
# 1. Does the loss rise or fall when $w$ rises a little?
# 2. Which changes the loss more: a small increase of $w$, or the same increase of $b$? By which factor?

# %% [markdown]
# ## Run
#
# In all lessons $dx$ means the derivative of the LOSS by $x$, so the name of the loss is left out:
# $dh = \partial \, \mathrm{loss} / \partial h$, and so on. Start at the loss and go back one operation at a time. Each
# time, multiply the gradient of the output by the slope of this one operation:
#
# | forward | backward | because |
# |---|---|---|
# | $\mathrm{loss} = \frac{1}{2} (h - y)^2$ | $dh = h - y$ | |
# | $h = \tanh(s)$ | $ds = dh \, (1 - h^2)$ | $\tanh' = 1 - \tanh^2$ |
# | $s = w x + b$ | $dw = ds \cdot x$, $dx = ds \cdot w$, $db = ds$ | |
#
# The gradient of an operation's output is called its upstream gradient: $dh$ is the upstream gradient of tanh, and $ds$
# that of the affine map. To compute $ds$, tanh needs only its upstream gradient and its own slope; how the loss was made
# from $h$ plays no role. So each operation can be written once and used anywhere.

# %%
import textwrap

import numpy as np
from kit import graph, near, save, show
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
# Answers: $dw$ is negative, so the loss FALLS when $w$ rises. And $db$ is twice $dw$, because $dw = ds \cdot x$ with
# $x = 0.5$.
#
# The drawing shows the flow. Solid arrows are the forward pass; dashed arrows are the backward pass, each with the formula
# of its gradient. (Python computes each formula while it draws, and compares the results with the numbers above.)

# %%
chain = [
    ("s", "w * x + b", {"w": "ds * x", "x": "ds * w", "b": "ds"}),
    ("h", "np.tanh(s)", {"s": "dh * (1 - h**2)"}),
    ("loss", "(h - y)**2 / 2", {"h": "dloss * (h - y)"}),
]
values = {"x": x, "w": w, "b": b, "y": y, "h": h, "dh": dh, "ds": ds, "dw": dw, "dx": dx, "db": db}
graph("01_chain", chain, values, {}, {"loss": 1.0}, "the dashed arrows multiply slopes, from the loss back to w, x and b")

# %% [markdown]
# Is it right? Increase and decrease $w$ by a millionth, and see how the loss changes:


# %%
def slope(f, at, push=1e-6):
    return (f(at + push) - f(at - push)) / (2 * push)


pushed = slope(lambda w: loss_of(w, b), w)
print(f"pushing w:  {pushed:.9f}\nchain rule: {dw:.9f}")
near("dw against pushing w", dw, pushed, within=1e-8)

# %% [markdown]
# ## Look
#
# The derivative is the slope of the loss as a function of $w$ alone.

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
# Two paths. Let $u = \tanh(w)$, and use $u$ twice: $\mathrm{loss} = u^2 + 3u$. The first term alone gives $du = 2u$, the
# second $du = 3$. What is $du$ in total: the larger one, the mean, the product, the sum?

# %% [markdown]
# ## Run
#
# A change of $u$ changes both terms, and the loss is their sum. So the gradients ADD: $du = 2u + 3$. This is the second
# and last rule. A value that is used twice receives two gradients, and its gradient is their sum. It is easy to forget one
# of them; in the LSTM and in attention, a value may be used four times.

# %%
u = np.tanh(w)
du = 2 * u + 3
dw = du * (1 - u * u)
pushed = slope(lambda w: np.tanh(w) ** 2 + 3 * np.tanh(w), w)
print(f"du {du:.6f}   dw {dw:.9f}   pushing {pushed:.9f}")
near("two paths", dw, pushed, within=1e-8)
paths = [
    ("u", "np.tanh(w)", {"w": "du * (1 - u**2)"}),
    ("square", "u**2", {"u": "dsquare * 2 * u"}),
    ("triple", "3 * u", {"u": "dtriple * 3"}),
    ("loss", "square + triple", {"square": "dloss", "triple": "dloss"}),
]
graph("01_paths", paths, {"w": w, "du": du, "dw": dw}, {}, {"loss": 1.0}, "two dashed arrows meet at u, and their sum is du")

# %% [markdown]
# In satnp an operation is a pair of plain functions. `forward` returns its output and a cache: the arrays that the
# backward will need. `backward` takes the upstream gradient `dout` and the cache, and returns one gradient for each
# differentiable input, in their order. Below is the pair of tanh. It keeps `out` and not `x`, because its slope can be
# computed from the output alone. (`@elementwise` only makes it faster on large arrays, and `xp_of(x)` is NumPy here; you
# can ignore both.)

# %%
show(tanh_forward)
show(tanh_backward)
show(tanh_gradient)

# %% [markdown]
# ## Predict
#
# Now arrays. A batch of $N = 3$ examples, each with $D = 4$ features, becomes $H = 5$ outputs each: `out = x @ W + b`,
# where `x` is (3, 4), `W` is (4, 5), `b` is (5,) and `out` is (3, 5).
#
# One example is one ROW of `x`, and we multiply `x @ W`. (The paper writes columns, $W x$. It is the same map, transposed.
# Rows are the order in which NumPy stores a batch.) So a row of `W` belongs to an input and a column to an output.
#
# A gradient has the shape of the array that it belongs to: one number for each number. `dout` is (3, 5). So:
#
# 1. What are the shapes of `dx`, `dW` and `db`?
# 2. Only one product of two of the arrays `x`, `W`, `dout` (each perhaps transposed) has the shape of `dW`. Which? And for
#    `dx`?
# 3. `db` is (5,) but `dout` is (3, 5). What has to happen to the axis of size 3?

# %% [markdown]
# ## Run
#
# Before any formula, look at the effect of one weight. Increase `W[1, 3]` by 1 and see which outputs change, and by how
# much.

# %%
rng = np.random.default_rng(0)
x, W, b = rng.standard_normal((3, 4)), rng.standard_normal((4, 5)), rng.standard_normal(5)
out, cache = affine_forward(x, W, b)
pushed = W.copy()
pushed[1, 3] += 1
moved = affine_forward(x, pushed, b)[0] - out
print("out changes by\n", moved.round(3))
print("column 1 of x:", x[:, 1].round(3))

# %% [markdown]
# Column 3 of the output changes, in every row $n$ by $x_{n1}$, and nothing else. Now for any weight. One output is
#
# $$
# \mathrm{out}_{nk} = \sum_{j} x_{nj} W_{jk} + b_k
# $$
#
# **The gradient of W.** $W_{jk}$ is used in $\mathrm{out}_{nk}$ for every $n$, with slope $x_{nj}$. These are $N$ paths,
# so their gradients add:
#
# $$
# dW_{jk} = \sum_{n} x_{nj} \, d\mathrm{out}_{nk}
# $$
#
# In NumPy: `dW = x.T @ dout`.
#
# **The gradient of x.** $x_{nj}$ is used in $\mathrm{out}_{nk}$ for every $k$, with slope $W_{jk}$. These are $H$ paths:
#
# $$
# dx_{nj} = \sum_{k} d\mathrm{out}_{nk} W_{jk}
# $$
#
# In NumPy: `dx = dout @ W.T`.
#
# **The gradient of b.** $b_k$ is used in $\mathrm{out}_{nk}$ for every $n$, with slope 1. Forward it was broadcast over
# the rows, so backward the rows are summed:
#
# $$
# db_k = \sum_{n} d\mathrm{out}_{nk}
# $$
#
# In NumPy: `db = dout.sum(axis=0)`.
#
# The sum over $n$ in $dW$ and $db$ runs over the batch: all examples use the same weights, so each example contributes to
# their gradient. If the loss is a MEAN over the batch, its factor $1/N$ is already in `dout`, and must not be applied a
# second time.

# %%
dout = rng.standard_normal(out.shape)  # an upstream gradient
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
# First the effect of the weight `W[1, 3]` as a picture, then the flow of the affine map.

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

# %%
affine = [("out", "x @ W + b", {"x": "dout @ W.T", "W": "x.T @ dout", "b": "dout.sum(axis=0)"})]
values = {"x": x, "W": W, "b": b, "out": out, "dx": dx, "dW": dW, "db": db}
graph("01_affine", affine, values, {"N": 3, "D": 4, "H": 5}, {"out": dout}, "each gradient has the shape of its array")

# %% [markdown]
# ## Check by number
#
# First: the loops and the products give the same numbers.

# %%
found = affine_backward(dout, cache)
for name, got, wanted in zip(("dx", "dW", "db"), found, (dx, dW, db), strict=True):
    near(f"{name} of affine_backward against the loops", got, wanted, within=1e-14)

# %% [markdown]
# Second, against the forward itself. Any number that depends on `out` can serve as a loss. The simplest one whose upstream
# gradient is `dout` is the sum of all elements of `out * dout`. As a function of `W` alone this loss $J$ is linear, so a
# step of ANY size, not only a tiny one, changes $J$ by exactly the sum of `dW * step`:

# %%
step = 10 * rng.standard_normal(W.shape)
J_before, J_after = ((affine_forward(x, V, b)[0] * dout).sum() for V in (W, W + step))
print(f"J changed by      {J_after - J_before:.12f}\nsum of dW * step  {(found[1] * step).sum():.12f}")
near("a large step of W", (found[1] * step).sum(), J_after - J_before, within=1e-12)

# %% [markdown]
# Third, a chain: affine, tanh, affine. The backward calls the same operations in reverse order, and the upstream gradient
# of each call is a result of the call before it. Compare the two functions line by line; the whole captioner is written in
# this way. `numeric_gradient` computes the gradient from the forward alone; lesson 02 explains how.

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
    return dx, dW, db, dV, dc


out, cache = forward(W)
dx, dW, db, dV, dc = backward(dout, cache)
print("dW of the chain\n", dW.round(3))
near("dW through three operations", dW, numeric_gradient(lambda W: (forward(W)[0] * dout).sum(), W))

# %%
chain = [
    ("s", "x @ W + b", {"x": "ds @ W.T", "W": "x.T @ ds", "b": "ds.sum(axis=0)"}),
    ("h", "np.tanh(s)", {"s": "dh * (1 - h**2)"}),
    ("out", "h @ V + c", {"h": "dout @ V.T", "V": "h.T @ dout", "c": "dout.sum(axis=0)"}),
]
values = {"x": x, "W": W, "b": b, "V": V, "c": c, "out": out, "dx": dx, "dW": dW, "db": db, "dV": dV, "dc": dc}
sizes = {"N": 3, "D": 4, "H": 5, "M": 2}
graph("01_three_operations", chain, values, sizes, {"out": dout}, "the dashed arrows are the lines of backward, from below")

# %% [markdown]
# ## Break it
#
# If no two sizes are equal, most wrong products do not fit, and NumPy raises an error. Try `dout @ W` in place of
# `dout @ W.T`:

# %%
dout = rng.standard_normal((3, 5))
try:
    dout @ W
except ValueError as error:
    print("refused:", str(error).partition(",")[0])
square = rng.standard_normal((4, 4))
print("but a square W lets it pass:", (rng.standard_normal((3, 4)) @ square).shape)

# %% [markdown]
# So a test with equal sizes is a weak test; and even a test with different sizes does not find everything.
# `satnp.proof.bugs` is a table of real mistakes. Each can be planted in satnp's own source, and then the gradient check
# says in words what is wrong. What do you expect for each of these four?

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
# 1. By hand: $\mathrm{loss} = \log(1 + \exp(w x))$ at $w = 2$, $x = 0.5$. Find $dw$. Check: 0.365529.
# 2. A gate scales each row: `out = beta * x` with `beta` (N, 1) and `x` (N, D). Derive `dbeta` and `dx`. What was
#    broadcast forward is summed backward, so `dbeta` has shape (N, 1). Check: with `x` of this lesson,
#    `beta = [[1], [2], [3]]` and `dout = np.ones((3, 4))`, `dbeta` is `[[0.738948], [2.077007], [-2.551105]]`.
# 3. Tied weights: `out = tanh(x @ W) @ W.T` uses `W` on two paths. Derive `dW` for a random `dout` (3, 4) and compare it
#    by `near` with `numeric_gradient`, as in the chain above: off by less than 1e-14. Leave out one path and see it fail.
# 4. Three axes: `a @ W` with `a` (N, L, D) and `W` (D, A), the same `W` at each of $L$ locations. Show that
#    `dW = a.reshape(-1, D).T @ dout.reshape(-1, A)`. Check against `np.einsum("nld,nla->da", a, dout)`: off by less than
#    1e-14.
# 5. Count: the forward takes $N D H$ multiplications (adding `b` takes none). How many does the backward take? Why do
#    people say that a training step costs three forwards? Check: backward divided by forward is 2.

# %% [markdown]
# ## Next
#
# 02, checking a gradient. The later lessons write gradients by hand. So first build the tool that finds a wrong one, even
# if it is wrong by a hundredth of a percent.
