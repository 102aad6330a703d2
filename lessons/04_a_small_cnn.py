# %% [markdown]
# # 04 Pooling, ReLU and a small CNN that learns
#
# - time: 50 minutes
# - cpu: 40 seconds
# - before: 01, 02, 03
# - equations: Xu et al. 2015, section 3.1.1: the annotations of a photo
# - about: satnp.layers.max_pool_backward
#
# A max-pool and a ReLU have no weights: they only decide which numbers of the gradient are passed on, and to which cells.
# Together with convolutions they make the encoder of the captioner. This lesson follows a gradient through these
# decisions, and then trains a small encoder for a few seconds to tell circles from squares, triangles and crosses.
#
# As before, $dx$ is the gradient of the loss by $x$.

# %% [markdown]
# ## Predict
#
# A max-pool takes the largest number of each window of K x K cells, channel by channel, with windows that are $s$ cells
# apart:
#
# $$
# \mathrm{out}_{npqc} = \max_{i, j < K} x_{n, \, ps + i, \, qs + j, \, c}
# $$
#
# Change one cell of $x$ a little. If it is the largest of its window, $\mathrm{out}$ changes by the same amount: slope 1.
# If it is not, $\mathrm{out}$ does not change: slope 0. So all of $d\mathrm{out}_{pq}$ goes to the cell with the maximum.
# One channel of 4 x 6 cells, with $K = 2$ and stride 2:
#
# ```text
# 3 1 4 1 5 9
# 2 6 5 3 5 8
# 9 7 9 3 2 3
# 8 4 6 2 6 4
# ```
#
# With `dout = [[10, 20, 30], [40, 50, 60]]`: which cells of `dx` have the 10 and the 50? What is the sum of `dx`?

# %% [markdown]
# ## Run

# %%
import textwrap
import time

import numpy as np
from kit import graph, near, save, show
from matplotlib.figure import Figure

from satnp.arrays.optim import adam, new_state
from satnp.arrays.parameters import Parameters
from satnp.data.scenes import SHAPES, SIDE, make_scenes
from satnp.encoders import small
from satnp.encoders.photos import Preprocessing
from satnp.layers import (
    affine_backward,
    affine_forward,
    conv2d_backward,
    cross_entropy_backward,
    cross_entropy_forward,
    max_pool_backward,
    max_pool_forward,
    relu_backward,
    relu_forward,
    softmax_forward,
)
from satnp.proof import bugs
from satnp.proof.gradcheck import Case, check_gradients, numeric_gradient
from satnp.reference.conv import conv2d

cells = np.array([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8], [9, 7, 9, 3, 2, 3], [8, 4, 6, 2, 6, 4.0]])
x = cells[None, :, :, None]
out, cache = max_pool_forward(x, 2, 2)
dout = np.array([[10, 20, 30], [40, 50, 60.0]])[None, :, :, None]
dx = max_pool_backward(dout, cache)
print(f"out\n{out[0, :, :, 0]}\ndx\n{dx[0, :, :, 0]}\nsums: dout {dout.sum()}, dx {dx.sum()}")

# %% [markdown]
# The 10 is at the place of the 6, the 50 at the place of the 9. The sum of the gradient does not change. When windows
# overlap ($K = 3$, stride 2), a cell may be the maximum of several windows, and its gradients add. As plain loops, one
# window at a time:


# %%
def plain_max_pool_backward(dout, x, K, stride):
    dx = np.zeros_like(x)
    for n, p, q, c in np.ndindex(dout.shape):
        window = x[n, p * stride : p * stride + K, q * stride : q * stride + K, c]
        i, j = np.unravel_index(window.argmax(), window.shape)
        dx[n, p * stride + i, q * stride + j, c] += dout[n, p, q, c]
    return dx


rng = np.random.default_rng(0)
some = rng.standard_normal((2, 7, 9, 3))
for K, stride in ((2, 2), (3, 2), (3, 1)):
    out, cache = max_pool_forward(some, K, stride)
    dout = rng.standard_normal(out.shape)
    plain = plain_max_pool_backward(dout, some, K, stride)
    near(f"K {K}, stride {stride}", max_pool_backward(dout, cache), plain, within=1e-15)

# %% [markdown]
# satnp's `max_pool_backward` (`satnp/layers/pool.py`) does the same for all windows at once: for each place $(i, j)$ of
# the window, it compares that cell of every window with the maximum.
#
# ## Predict
#
# Ties. If a window has four equal cells, which of them gets the gradient? For a window of four zeros and `dout = 1`,
# predict what these three say for each cell: the central difference, the complex step, and `max_pool_backward`.

# %% [markdown]
# ## Run

# %%
tie = np.zeros((1, 2, 2, 1))
one = np.ones((1, 1, 1, 1))
for method in ("central difference", "complex step"):
    print(f"{method:20}", numeric_gradient(lambda x: max_pool_forward(x, 2, 2)[0].sum(), tie, method).ravel())
print(f"{'max_pool_backward':20}", max_pool_backward(one, max_pool_forward(tie, 2, 2)[1]).ravel())

# %% [markdown]
# Three answers, and none is wrong: at a tie the maximum has a kink. Increase any of the four cells and the maximum grows;
# decrease one and it stays; the central difference is the mean of both. What matters is that the gradient goes to ONE
# cell, so that its sum does not change: a backward that gave 1 to each of the four would make it four times as large.
# satnp's rule is the first in reading order, which `argmax` follows as well.
#
# Ties are not rare: after a ReLU, a window of four negative cells is a window of four zeros.
#
# ReLU is $\mathrm{out} = \max(x, 0)$, with slope 1 where $x > 0$ and 0 elsewhere, so
# $dx = d\mathrm{out} \odot 1[\mathrm{out} > 0]$, where $1[\ldots]$ is 1 if the condition holds and 0 otherwise. So `out`
# alone is a sufficient cache.

# %%
show(relu_backward)
x = np.random.default_rng(0).standard_normal((20, 8, 6, 3))
after_relu, relu_cache = relu_forward(x)
pooled, pool_cache = max_pool_forward(after_relu, 2, 2)
print(f"windows that are all zeros: {(pooled == 0).mean():.3f} (1/16 is {1 / 16:.4f})")
dout = np.random.default_rng(1).standard_normal(pooled.shape)
dy = max_pool_backward(dout, pool_cache)
dx = relu_backward(dy, relu_cache)
steps = [("y", "np.maximum(x, 0)", {"x": "dy * (y > 0)"}), ("out", "pool(y)", {"y": "to_the_maximum(dout, y)"})]
values = {
    "x": x, "y": after_relu, "out": pooled, "dy": dy, "dx": dx, "pool": lambda y: max_pool_forward(y, 2, 2)[0],
    "to_the_maximum": lambda dout, y: plain_max_pool_backward(dout, y, 2, 2),
}  # fmt: skip
graph("04_relu_and_pool", steps, values, {}, {"out": dout}, "neither has weights: the gradient is passed on or stopped")

# %% [markdown]
# What happens to the gradient of a window of zeros? The pool passes it to the first zero, and there ReLU stops it, because
# `out > 0` is False. So these ties do no harm. Also, since ReLU keeps the order of numbers, the pool may come first: the
# maximum of the ReLUs is the ReLU of the maximum. The outputs are the same, the gradients are the same, and ReLU has a
# quarter of the work. The small encoder uses this, with `max_pool_forward(x, 2, 2, relu=True)`. Here it is in two calls:

# %%
pooled_first, pool_cache2 = max_pool_forward(x, 2, 2)
relu_last, relu_cache2 = relu_forward(pooled_first)
near("outputs", relu_last, pooled, within=0)
dx2 = max_pool_backward(relu_backward(dout, relu_cache2), pool_cache2)
near("gradients", dx2, dx, within=0)
print(f"cells of x that get a gradient: {(dx != 0).mean():.3f} of all (at most 1/4)")

# %% [markdown]
# ## Look

# %%
figure = Figure(figsize=(9, 3), layout="constrained")
panels = (("x", x[0, :, :, 0]), ("out = relu(max-pool(x))", relu_last[0, :, :, 0]),
          ("dout", dout[0, :, :, 0]), ("dx", dx2[0, :, :, 0]))  # fmt: skip
for axes, (title, array) in zip(figure.subplots(1, 4), panels, strict=True):
    image = axes.imshow(array, cmap="coolwarm", vmin=-2.5, vmax=2.5)
    axes.set(title=title, xlabel="column (cells)", ylabel="row (cells)")
    if array.shape == (8, 6):
        axes.set(xticks=np.arange(1.5, 5, 2), yticks=np.arange(1.5, 7, 2), xticklabels=[], yticklabels=[])
        axes.grid(color="black", lw=1)
figure.colorbar(image, ax=figure.axes, label="value (no unit)", shrink=0.8)
save(figure, "04_where_it_goes", "in each window of dx at most one cell is not 0: where x has its positive maximum")

# %% [markdown]
# ## Predict
#
# Now a whole network. The photos are scenes of satnp, cut to 24 x 24 pixels around one object. The task: which of four
# shapes is it?
#
# | step | result |
# |---|---|
# | photos | (N, 24, 24, 3) |
# | small encoder: annotations $a$ | (N, L, D), with $L$ = 36 locations and $D$ = 32 features |
# | mean over the locations: $m_n = \frac{1}{L} \sum_{l} a_{nl}$ | (N, D) |
# | logits $z = m W + b$ | (N, 4) |
# | $\mathrm{loss} = -\frac{1}{N} \sum_{n} \log p_n$ with $p_n$ the probability of photo $n$'s shape | () |
#
# The probabilities are a softmax of the logits: $\exp(z_k) / \sum_{j} \exp(z_j)$, four positive numbers that sum to 1. The
# loss is measured in nats, the unit of the natural logarithm. What is it before training, when all four shapes seem
# equally likely? And what share of the answers would be right by guessing?

# %% [markdown]
# ## Run


# %%
def crops(scenes, side=24):
    """A square around each object -> images (N, side, side, 3), labels (N,)"""
    images, labels = [], []
    for scene in scenes:
        for thing in scene.objects:
            x0, y0, x1, y1 = thing.box
            left, top = (min(max((a + b - side) // 2, 0), SIDE - side) for a, b in ((x0, x1), (y0, y1)))
            images.append(scene.image[top : top + side, left : left + side])
            labels.append(SHAPES.index(thing.shape))
    return np.array(images), np.array(labels)


train, test = crops(make_scenes(800, "train", 0)), crops(make_scenes(200, "test", 0))
print("train", train[0].shape, "test", test[0].shape, np.bincount(test[1]), "of", *SHAPES)

# %% [markdown]
# The encoder is a 5 x 5 convolution with stride 2, then 3 x 3 convolutions, each with a ReLU, and a max-pool in the
# middle. Compare its two loops: the backward visits the stages of the forward in reverse. (The input of the last stage has
# two more channels that say where a cell is; captions need this for "left of". Their gradient is cut off.)

# %%
show(small.forward)
show(small.backward)

# %% [markdown]
# The classifier on top has two gradients that are new:
#
# - Mean over the locations: each of the $L$ locations has slope $1/L$, so $da_{nl} = \frac{1}{L} dm_n$.
# - Softmax and the negative logarithm together (the cross-entropy, derived in lesson 07):
#   $dz_{nk} = \frac{1}{N} (p_{nk} - y_{nk})$, where $p_{nk}$ is the probability of shape $k$, and $y_{nk}$ is 1 for the
#   right shape and 0 for the others.
#
# The factor $1/N$ of the mean over the batch is in the `weights` of the cross-entropy, and must not be applied a second
# time.

# %%
config = small.Config(channels=(8, 16, 32), preprocessing=Preprocessing(24))


def init(rng):
    top = Parameters.of({"W": 0.1 * rng.standard_normal((config.D, 4), dtype=np.float32), "b": np.zeros(4, np.float32)})
    return Parameters.join(encoder=small.init(config, rng), top=top)


def forward(params, images, labels):
    a, encoder = small.forward(params.part("encoder"), config, images)
    logits, last = affine_forward(a.mean(axis=1), params["top.W"], params["top.b"])
    weights = np.full(len(labels), 1 / len(labels), logits.real.dtype)
    loss, entropy = cross_entropy_forward(logits, labels, weights)
    return loss, (logits, encoder, last, entropy, a.shape)


def backward(dloss, cache, grads):
    _, encoder, last, entropy, (N, L, D) = cache
    dm, dW, db = affine_backward(cross_entropy_backward(dloss, entropy), last)
    grads.add(**{"top.W": dW, "top.b": db})
    small.backward(np.broadcast_to(dm[:, None, :] / L, (N, L, D)), encoder, grads.part("encoder"))


params = init(np.random.default_rng(0))
for name, array in params.items():
    print(f"{name:11} {array.shape}")
loss, cache = forward(params, *test)
print(f"before training: loss {loss:.3f}, log 4 = {np.log(4):.3f}, right {(cache[0].argmax(1) == test[1]).mean():.3f}")

# %% [markdown]
# ## Check by number
#
# Check the gradient before you train: here for all parameters, along one random direction, in float64, by the complex
# step. The biases are random here: with zero biases, a plain grey photo would put units on a kink.


# %%
def make(rng):
    return {"flat": params.flat + 0.1 * rng.standard_normal(params.flat.size), "images": test[0][:3], "labels": test[1][:3]}


def case_forward(flat, images, labels):
    p = params.on(flat)
    loss, cache = forward(p, images, labels)
    return loss, (p, cache)


def case_backward(dloss, cache):
    p, cache = cache
    grads = p.zeros_like()
    backward(dloss, cache, grads)
    return grads.flat


whole = Case("shape classifier", make, case_forward, case_backward, direction=True)
result = check_gradients(whole)
print(f"{params.flat.size} parameters: passed {result.passed}, off by {result.error:.1e}")
assert result.passed

# %% [markdown]
# The whole network in one drawing. `relu`, `conv` and `pool` are the layers above; a convolution also has the number of
# its stage, and adds its bias. Backward, `cells` and `weights` are the two results of `conv2d_backward`, `dx` and `dW`;
# `unpool` is `max_pool_backward`, with its ReLU. No gradient is needed for the photo.

# %%
exact = params.on(params.flat.astype(float))
images, labels = test[0][:3], test[1][:3]
loss, (logits, (stages, shape), last, entropy, _) = forward(exact, images, labels)
grads = exact.zeros_like()
backward(1.0, (logits, (stages, shape), last, entropy, (3, 36, 32)), grads)


def of_stage(k):
    return exact[f"encoder.W{k}"], stages[k].conv.stride, stages[k].conv.padding, exact[f"encoder.b{k}"]


def conv(x, k):
    W, stride, padding, b = of_stage(k)
    return conv2d(x, W, b, stride, padding)


steps = [
    ("a0", "relu(conv(x, 0))", {"x": None, "W0": "weights(da0 * (a0 > 0), 0)"}),
    ("a1", "relu(pool(conv(a0, 1)))", {"a0": "cells(unpool(da1), 1)", "W1": "weights(unpool(da1), 1)"}),
    ("a1xy", "with_xy(a1)", {"a1": "da1xy[..., :-2]"}),
    ("a", "relu(conv(a1xy, 2))", {"a1xy": "cells(da * (a > 0), 2)", "W2": "weights(da * (a > 0), 2)"}),
    ("m", "a.mean((1, 2))", {"a": "np.ones((1, 6, 6, 1)) * dm[:, None, None] / 36"}),
    ("z", "m @ W + b", {"m": "dz @ W.T", "W": "m.T @ dz", "b": "dz.sum(0)"}),
    ("loss", "-log(p(z)[y == 1]).mean()", {"z": "dloss * (p(z) - y) / len(z)"}),
]
values = {
    "x": stages[0].conv.x, "W": exact["top.W"], "b": exact["top.b"], "y": np.eye(4)[labels], "loss": loss, "z": logits,
    "dW": grads["top.W"], "db": grads["top.b"], "log": np.log, "relu": lambda x: np.maximum(x, 0), "conv": conv,
    "pool": lambda x: max_pool_forward(x, 2, 2)[0], "unpool": lambda dout: max_pool_backward(dout, stages[1].pool),
    "with_xy": lambda a: np.concatenate([a, small.coordinates(3, 6, 6, np, float)], axis=3),
    "cells": lambda dout, k: conv2d_backward(dout, stages[k].conv)[0],
    "weights": lambda dout, k: conv2d_backward(dout, stages[k].conv)[1], "p": lambda z: softmax_forward(z)[0],
} | {f"W{k}": exact[f"encoder.W{k}"] for k in range(3)} | {f"dW{k}": grads[f"encoder.W{k}"] for k in range(3)}  # fmt: skip
graph("04_network", steps, values, {}, {"loss": 1.0}, "from the loss back to the weights of each layer; 3 photos")

# %% [markdown]
# ## Predict
#
# Train for 10 epochs (each uses every photo once) with 50 photos a step, by Adam with a learning rate of 0.003. (Adam
# steps against the gradient, with a step size for each weight.) How many epochs until nine of ten answers are right?

# %% [markdown]
# ## Run


# %%
def run(epochs, seed=0):
    """Train from nothing -> params, losses of the steps, share right on the test photos after each epoch."""
    rng = np.random.default_rng(seed)
    params = init(rng)
    grads, state = params.zeros_like(), new_state("adam", params.flat)
    losses, right = [], []
    for _ in range(epochs):
        for batch in np.split(rng.permutation(len(train[1]) // 50 * 50), len(train[1]) // 50):
            grads.flat[...] = 0
            loss, cache = forward(params, train[0][batch], train[1][batch])
            backward(np.float32(1), cache, grads)
            adam(params.flat, grads.flat, state, 0.003)
            losses.append(float(loss))
        right.append(float((forward(params, *test)[1][0].argmax(axis=1) == test[1]).mean()))
    return params, np.array(losses), right


start = time.perf_counter()
params, losses, right = run(10)
print(f"{len(losses)} steps in {time.perf_counter() - start:.1f} s; loss {losses[0]:.3f} -> {losses[-20:].mean():.3f}")
print("right on test photos after each epoch:", *(f"{share:.3f}" for share in right))
assert right[-1] > 0.9

# %% [markdown]
# ## Look

# %%
figure = Figure(figsize=(8, 3), layout="constrained")
left, middle = figure.subplots(1, 2)
left.plot(losses, lw=0.6, color="C0", label="each step")
left.plot(np.arange(10, len(losses) - 9), np.convolve(losses, np.ones(20) / 20, "valid"), color="C3", label="mean of 20")
left.axhline(np.log(4), color="grey", ls=":", label="log 4: guessing")
left.set(xlabel="step (50 photos each)", ylabel="loss (nats a photo)")
left.legend()
middle.plot(range(1, 11), right, "o-")
middle.axhline(0.25, color="grey", ls=":")
middle.set(xlabel="epoch", ylabel="share right, unseen photos", ylim=(0, 1.02))
save(figure, "04_learning", "the loss starts near log 4 = 1.386 nats; the share of right answers ends above .9")

# %% [markdown]
# What did the first layer learn? Its 8 filters have 5 x 5 pixels of RGB each. Grey is 0. A filter whose two sides have
# different colours responds to an edge between such colours. The norm of the change in training, printed below, is less
# than that of the initial values, so much in the filters is still the random noise from which training started.

# %%
filters = params["encoder.W0"]  # (5, 5, 3, 8)
print("filters", filters.shape, "largest weight", np.abs(filters).max().round(2))
start = init(np.random.default_rng(0))["encoder.W0"]
change = np.linalg.norm(filters - start) / np.linalg.norm(start)
print(f"norm of their change in training, divided by their initial norm: {change:.2f}")
figure = Figure(figsize=(9, 1.7), layout="constrained")
for k, axes in enumerate(figure.subplots(1, 8)):
    axes.imshow(0.5 + 0.5 * filters[..., k] / np.abs(filters[..., k]).max())
    axes.set(xticks=[0, 4], yticks=[0, 4], title=f"filter {k}", xlabel="pixel")
save(figure, "04_filters", "8 filters of the first layer, each over its largest weight; grey is 0")

# %% [markdown]
# And which photos does it get wrong?

# %%
logits = forward(params, *test)[1][0]
wrong = np.flatnonzero(logits.argmax(axis=1) != test[1])
print(f"{len(wrong)} of {len(test[1])} wrong")
for k, shape in enumerate(SHAPES):
    said = np.bincount(logits[test[1] == k].argmax(axis=1), minlength=4)
    print(f"{shape:9} called", ", ".join(f"{other} {n}" for other, n in zip(SHAPES, said, strict=True) if n))

# %% [markdown]
# ## Break it
#
# Can you see a wrong gradient in training? Below are three planted mistakes, each present while the network trains for
# four epochs. Predict for each: will the network learn nothing, less, or as well?

# %%
print(f"right {right[3]:.3f}: no mistake")
shares = []
for name in ("max-pool gradient to every cell", "ReLU without its mask", "encoder's coordinate planes not cut off"):
    bug = next(bug for bug in bugs.BUGS if bug.name == name)
    with bugs.in_place(bug):
        shares.append(run(4)[2][-1])
        error = check_gradients(whole).error
    print(f"right {shares[-1]:.3f}: {name} (gradient off by {error:.1e})")
    print(textwrap.fill(bugs.check(bug).findings[0].sentence, 78, initial_indent="    ", subsequent_indent="    "))
    assert error > 1e-3
assert change < 1 and 0.3 < min(shares) and max(shares) < right[3]

# %% [markdown]
# With each of the three the network learns something (guessing would be right for 0.25), only less than with the right
# gradient, and no error is raised. Without the first line to compare with, you might try other learning rates and larger
# layers for a long time. The check takes one backward and two forwards, one of them in complex numbers.

# %% [markdown]
# ## Exercises
#
# 1. Average pooling: `out` is the mean of the window. Derive `dx` by the rule of lesson 01 (what is the slope of each
#    cell?). Check with `average_pool_backward` from `satnp.layers`: for the 4 x 6 cells above and
#    `dout = [[10, 20, 30], [40, 50, 60]]`, `dx[0, 0]` is 2.5, and the sum of `dx` is 210 again.
# 2. Overlap: max-pool the 4 x 6 cells with $K = 3$, stride 1. Which cell is the maximum of most windows? Check: the 9 at
#    (2, 2), of 4 of the 8 windows. Why not also of the window of rows 0-2 and columns 0-2?
# 3. Divide the gradient of a tie equally among all maxima (by their number) in a pair of your own. Check: on random inputs
#    its `Case` passes like satnp's, and for the window of four zeros the sum of `dx` is the sum of `dout`, too.
# 4. Colours: make the label the colour (one of 6) in place of the shape. Which is learned sooner? Check: after the first
#    epoch, colours have more than 0.98.
# 5. Leave out the mean over the locations: use `a.reshape(N, L * D)` with `W` (1152, 4). Derive `da` first (a reshape
#    back). Check: 11,604 parameters. After one epoch this network is ahead of the one with the mean, after ten it is
#    behind: why?

# %% [markdown]
# ## Next
#
# 05, an LSTM step: the annotations are ready. The network that turns them into words comes next, first its forward.
