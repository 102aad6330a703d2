# %% [markdown]
# # 04 Pooling, ReLU and a small CNN that learns
#
# - time: 50 minutes
# - cpu: 40 seconds
# - before: 01, 02, 03
# - equations: Xu et al. 2015, section 3.1.1: a = {a_1 ... a_L}, the annotations that an encoder makes of a photo
# - about: satnp.layers.max_pool_backward
#
# A max-pool and a ReLU have no weights: they only decide where a gradient goes and where it stops. With convolutions they
# make the encoder that everything after this lesson looks through. We follow a gradient through the decisions, then train
# the encoder for a few seconds to tell circles from squares, triangles and crosses.

# %% [markdown]
# ## Predict
#
# A max-pool takes the largest of each window of K x K cells, channel by channel:
#
#     out[n, p, q, c] = max over i, j < K of x[n, p*stride + i, q*stride + j, c]
#
# Push one cell of x a little. If it is the largest of its window, out moves along: slope 1. If it is not, out
# does not notice: slope 0. So dout[p, q] goes, whole, to the cell that won. One channel of 4 x 6 cells, K = 2, stride 2:
#
#     3 1 4 1 5 9
#     2 6 5 3 5 8
#     9 7 9 3 2 3
#     8 4 6 2 6 4
#
# With dout = [[10, 20, 30], [40, 50, 60]]: where in dx do the 10 and the 50 lie? What is the sum of dx?

# %% [markdown]
# ## Run

# %%
import textwrap
import time

import numpy as np
from kit import near, save, show
from matplotlib.figure import Figure

from satnp.arrays.optim import adam, new_state
from satnp.arrays.parameters import Parameters
from satnp.data.scenes import SHAPES, SIDE, make_scenes
from satnp.encoders import small
from satnp.encoders.photos import Preprocessing
from satnp.layers import (
    affine_backward,
    affine_forward,
    cross_entropy_backward,
    cross_entropy_forward,
    max_pool_backward,
    max_pool_forward,
    relu_backward,
    relu_forward,
)
from satnp.proof import bugs
from satnp.proof.gradcheck import Case, check_gradients, numeric_gradient

cells = np.array([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8], [9, 7, 9, 3, 2, 3], [8, 4, 6, 2, 6, 4.0]])
x = cells[None, :, :, None]
out, cache = max_pool_forward(x, 2, 2)
dout = np.array([[10, 20, 30], [40, 50, 60.0]])[None, :, :, None]
dx = max_pool_backward(dout, cache)
print(f"out\n{out[0, :, :, 0]}\ndx\n{dx[0, :, :, 0]}\nsums: dout {dout.sum()}, dx {dx.sum()}")

# %% [markdown]
# The 10 lies on the 6, the 50 on the 9. Nothing is lost and nothing is added. When windows overlap (K = 3, stride 2) a cell
# may win twice, and its gradients add. `max_pool_forward` takes the maximum of the rows first and then of the columns, in
# blocks; the backward is the part to read. For each place (i, j) of a window it asks whether that cell equals the maximum.

# %%
show(max_pool_backward)

# %% [markdown]
# ## Predict
#
# `left` is there for ties. Of four equal cells, who gets the gradient? Three instruments, for a window of four zeros and a
# dout of 1: what will the central difference say for each cell, the complex step, and `max_pool_backward`?

# %% [markdown]
# ## Run

# %%
tie = np.zeros((1, 2, 2, 1))
one = np.ones((1, 1, 1, 1))
for method in ("central difference", "complex step"):
    print(f"{method:20}", numeric_gradient(lambda x: max_pool_forward(x, 2, 2)[0].sum(), tie, method).ravel())
print(f"{'max_pool_backward':20}", max_pool_backward(one, max_pool_forward(tie, 2, 2)[1]).ravel())

# %% [markdown]
# Three answers, and none is wrong: at a tie the maximum has a kink. Pushed up, any of the four moves it; pushed down, none
# does; the central difference takes the mean. What matters is that ONE cell gets it, and the gradient's sum stays what
# it was: a backward that gave 1 to each winner would make it four times as large. satnp's rule, first in reading order, is
# PyTorch's too.
#
# Ties are not rare: after a ReLU, a window of four negative cells is a window of four zeros.
#
# ReLU: out = max(x, 0), slope 1 where x > 0 and 0 elsewhere: dx = dout * (out > 0). So `out` is enough of a cache.

# %%
show(relu_backward)
x = np.random.default_rng(0).standard_normal((20, 8, 6, 3))
after_relu, relu_cache = relu_forward(x)
pooled, pool_cache = max_pool_forward(after_relu, 2, 2)
print(f"windows that are all zeros: {(pooled == 0).mean():.3f} (1/16 is {1 / 16:.4f})")

# %% [markdown]
# What happens to the gradient of such a window? The pool gives it to the first zero, and there ReLU stops it: out > 0 is
# False. So these ties do no harm. And since ReLU keeps the order of numbers, one may pool first: max(relu(x)) is
# relu(max(x)). The same outputs, the same gradients, a quarter of the work for ReLU. The small encoder does it so, by
# `max_pool_forward(x, 2, 2, relu=True)`, and here it is in two:

# %%
pooled_first, pool_cache2 = max_pool_forward(x, 2, 2)
relu_last, relu_cache2 = relu_forward(pooled_first)
dout = np.random.default_rng(1).standard_normal(pooled.shape)
near("outputs", relu_last, pooled, within=0)
dx = relu_backward(max_pool_backward(dout, pool_cache), relu_cache)
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
# Now all of it. Photos: scenes of satnp, cut to 24 x 24 pixels around one object. The question: which of four shapes?
#
#     images (N, 24, 24, 3) -> small encoder -> annotations a (N, L, D)       L = 36 places, D = 32 features
#     mean over the L places                 -> m (N, D)
#     logits = m @ W + b                     -> (N, 4)
#     loss = mean over n of -log softmax(logits_n)[label_n]
#
# (softmax is that of lesson 02: four positive numbers that sum to 1.) The loss is measured in nats, the unit of the natural
# logarithm. What is it before training, when all four shapes seem equally likely? And which share would a guess get right?

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
# The encoder: a 5 x 5 convolution with stride 2, then 3 x 3 ones; ReLU after each, a max-pool in the middle. Read its two
# loops side by side: the backward is the forward's list from the end. (The last stage also gets two planes that say where a
# cell is; captions need "left of". Their gradient is cut off.)

# %%
show(small.forward)
show(small.backward)

# %% [markdown]
# Ours on top. The gradients that are new:
#
#     mean over L:     m = sum of a over L / L, so each place gets da = dm / L
#     cross-entropy:   dlogits = (softmax(logits) - onehot(label)) / N      (derived in lesson 07)
#
# onehot is 1 at the label and 0 elsewhere. The 1/N of the mean over the batch comes in as the `weights` of the
# cross-entropy, once.

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
# Before training, never after: is the gradient right? All parameters and one random direction, in float64, by the
# complex step. Biases are random here: zero biases under flat grey would put units on a kink.


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
# ## Predict
#
# Train: 10 epochs (each shows every photo once) of 50 photos a step, Adam with a rate of 0.003. (Adam goes down along the
# gradient, with a step size of its own for each weight.) How long until it is right nine times in ten?

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
left.axhline(np.log(4), color="grey", ls=":", label="log 4: no idea")
left.set(xlabel="step (50 photos each)", ylabel="loss (nats a photo)")
left.legend()
middle.plot(range(1, 11), right, "o-")
middle.axhline(0.25, color="grey", ls=":")
middle.set(xlabel="epoch", ylabel="share right, unseen photos", ylim=(0, 1.02))
save(figure, "04_learning", "it starts near log 4 = 1.386 nats and falls below 0.1; 9 of 10 after 6 epochs")

# %% [markdown]
# What did the first layer learn? Its 8 filters are 5 x 5 pixels of RGB each. Grey is 0. A filter with two sides of different
# colour answers at an edge between such colours. Much in them is still the noise that they began with: a few hundred
# steps on small photos move them only as far as the task needs.

# %%
filters = params["encoder.W0"]  # (5, 5, 3, 8)
print("filters", filters.shape, "largest weight", np.abs(filters).max().round(2))
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
# Does a wrong gradient show in training? Three mistakes from the zoo, planted in satnp while the network trains for four
# epochs. Predict for each: will it learn nothing, less, or as well?

# %%
print(f"right {right[3]:.3f}: no mistake")
for name in ("max-pool gradient to every cell", "ReLU without its mask", "encoder's coordinate planes not cut off"):
    bug = next(bug for bug in bugs.BUGS if bug.name == name)
    with bugs.in_place(bug):
        share = run(4)[2][-1]
        error = check_gradients(whole).error
    print(f"right {share:.3f}: {name} (gradient off by {error:.1e})")
    print(textwrap.fill(bugs.check(bug).findings[0].sentence, 78, initial_indent="    ", subsequent_indent="    "))
    assert error > 1e-3

# %% [markdown]
# All three learn something: 0.61, 0.36 and 0.44 where the right gradient has 0.77. None of them says so. Whoever has never
# seen the 0.77 would now try other rates and larger layers for a week. The check takes two forwards and one backward.

# %% [markdown]
# ## Exercises
#
# 1. Average pooling: out = mean of the window. Derive dx by the rule of lesson 01 (what is each cell's slope?). For the
#    4 x 6 cells above and dout = [[10, 20, 30], [40, 50, 60]], dx[0, 0] is 2.5, and the sum of dx is 210 again. Check with
#    `average_pool_backward`.
# 2. Overlap: max-pool the 4 x 6 cells with K = 3, stride 1. Which cell wins most often? You are right with the 9 at
#    (2, 2): 4 of the 8 windows. Why not also in the window of rows 0-2 and columns 0-2?
# 3. Give a tie's gradient in equal parts to all winners (divide by their number) in a pair of your own. On random inputs its
#    Case passes like satnp's, and the sum of dx is the sum of dout for the window of four zeros as well.
# 4. Colours: make the label the colour (6 of them) in place of the shape. Which is learned sooner? You are right if
#    colours are at 0.998 after the first epoch.
# 5. Take the photos' mean over places away: use a.reshape(N, L * D) with W (1152, 4). Derive da first (a reshape
#    back). You are right with 11,604 parameters. It is ahead after one epoch (0.66) and behind after ten (0.944): why?

# %% [markdown]
# ## Next
#
# 05, an LSTM step: the annotations are ready; the network that turns them into words comes next, first forward.
