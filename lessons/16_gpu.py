# %% [markdown]
# # 16 The GPU: one formula becomes a kernel, and what makes it wait
#
# - time: 45 minutes
# - cpu: 10 seconds
# - before: 05, 15
# - equations: none
# - about: satnp.arrays.formulas.kernel
#
# A GPU computes fast and starts slowly. Every operation on an array is a kernel that must be launched, and whenever Python
# needs a value, it waits until all kernels are done. So a program for a GPU should launch few kernels and read few values.
# Both can be counted without a GPU.

# %%
import sys
import textwrap
from pathlib import Path

import kit
import numpy as np
from kit import graph, near, save, show
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(kit.__file__).parents[1]))  # the clone: tests/ is no part of the package

from satnp.arrays import elementwise, formulas, kernels, optim
from satnp.arrays.backend import find_device, to_device, to_host
from satnp.arrays.elementwise import elementwise as one_kernel
from satnp.captioners import show_attend_tell as sat
from satnp.captioners.contract import Batch
from satnp.layers import lstm, sigmoid
from satnp.proof import bugs
from satnp.proof.gradcheck import numeric_gradient
from satnp.reference import show_attend_tell as reference
from tests import strict

rng = np.random.default_rng(0)
xp, sentence = find_device("auto")
print(textwrap.fill(sentence, 80))

# %% [markdown]
# This sentence says on which device the end of this lesson runs, and why. Everything before it needs no GPU. CuPy has
# NumPy's interface and runs on NVIDIA's GPUs: `xp` is one of the two libraries, and the same function runs with both. A
# program works like this:
#
# - A **kernel** is a small program that the GPU runs for all elements at once. `a * b` on device arrays is one.
# - A **launch** puts a kernel into a queue and returns at once. It has a cost that does not depend on the size of the
#   arrays.
# - A **wait**: `float(x)`, `print(x)` and `if x > 0:` need the value, so Python stops until the queue is empty. Then the
#   GPU is idle until Python has launched the next kernel.
# - A **transfer** copies between the memories of host and device. Copying a value back is also a wait.
#
# `tests/strict.py` is a stand-in for CuPy. It computes with NumPy, refuses what CuPy refuses, and counts all four.
#
# ## Predict
#
# The LSTM's step of lesson 05 is these lines. If CuPy runs them as they stand, how many kernels does a step launch? (A
# sigmoid counts as one. Count every `+`, `*` and tanh.) How many are necessary?

# %%
show(lstm._cell)

# %% [markdown]
# ## Run

# %%
N, H = 3, 5
parts = [strict.asarray(rng.standard_normal((N, H))) for _ in range(9)]
with strict.budget() as lines:
    lstm._cell.__wrapped__(*parts)  # without @elementwise: the plain lines
with strict.budget() as kernel:
    lstm._cell(*parts)
print(f"line by line {lines.launches} launches, with @elementwise {kernel.launches}")

# %% [markdown]
# One kernel can compute the whole formula, because no element depends on another one. Besides the launches, this saves
# memory: `c`, `tanh_c` and the others are numbers in a register, not arrays.
#
# The kernel is made from these very lines. Python can return the source of a function, and `ast` parses it into a tree of
# assignments, sums and products. `satnp/arrays/formulas.py` walks through this tree and writes C++:

# %%
print(lstm._cell.kernel)

# %% [markdown]
# `sigmoid` is such a formula, too, so its line was inserted where it is called. `T` is float or double. So the lines that
# you derived, checked and stepped through in a debugger are those that run on the GPU. Nothing is written twice.
#
# ### Your own
#
# Swish (Ramachandran et al. 2017) is $y = x s$ with $s = \sigma(x)$, where $\sigma$ is the sigmoid. $x$ is used twice, so
# its gradient is the sum of two. The gradient of the loss by $x$ is written $dx$:
#
# $$
# dx = dy \, s + dy \, x \, s (1 - s)
# $$


# %%
@one_kernel
def swish(x):
    return x * sigmoid(x)


@one_kernel
def swish_gradient(dy, x):
    s = sigmoid(x)
    return dy * (s + x * s * (1 - s))


print(swish.kernel)
print(swish_gradient.kernel)

# %% [markdown]
# The drawing has the two uses of $x$.

# %%
x, dy = rng.standard_normal((N, H)), rng.standard_normal((N, H))
steps = [("s", "sigmoid(x)", {"x": "ds * s * (1 - s)"}), ("y", "x * s", {"x": "dy * s", "s": "dy * x"})]
values = {"x": x, "sigmoid": sigmoid, "y": swish(x), "dx": swish_gradient(dy, x)}
graph("16_swish", steps, values, {"N": N, "H": H}, {"y": dy}, "two dashed arrows meet at x: dx is their sum")

# %% [markdown]
# ## Check by number
#
# First the formula against the complex step, with NumPy. Then the kernel: the stand-in executes the generated lines, not
# the Python ones.

# %%
near("swish_gradient", swish_gradient(dy, x), numeric_gradient(lambda x: (swish(x) * dy).sum(), x), within=1e-12)
with strict.budget() as used:
    there = swish_gradient(strict.asarray(dy), strict.asarray(x))
near("its kernel", there.get(), swish_gradient(dy, x), within=1e-15)
print(f"launches {used.launches}, uploads {used.h2d}")

# %% [markdown]
# ## Predict
#
# Which of these can become an elementwise kernel, and what prevents the others? `x * x`, `x / (1 + x)`, an `if`,
# `x.sum()`, a loop, `abs(x)`. When is the error raised: where the function is defined, or when somebody first runs it on a
# GPU?
#
# ## Run


# %%
def square(x):
    return x * x


def branch(x):
    if x > 0:
        return x
    return 0 * x


def share(x):
    return x / x.sum()


def powers(x):
    y = x
    for _ in range(3):
        y = y * x
    return y


def size(x):
    return abs(x)


refused = []
for formula in (square, branch, share, powers, size):
    try:
        one_kernel(formula)
        print(f"{formula.__name__}: a kernel")
    except formulas.NotElementwise as error:
        refused.append(formula.__name__)
        print(f"{formula.__name__}:", str(error).partition(", ")[2].partition(";")[0])
assert refused == ["branch", "share", "powers", "size"]

# %% [markdown]
# At its definition, with the line, on a computer without a GPU. The whole message also says what may be written:
# assignments of `+ - * /`, comparisons and `xp.exp`, `log`, `sqrt`, `tanh`, `maximum`, `minimum`, `where`. Write
# `xp.where(x > 0, x, 0)` for the `if`. `abs` is left out because the complex step does not work with it (lesson 02), and
# `x.sum()` because an element would depend on all others.

# %%
show(elementwise.elementwise)

# %% [markdown]
# ### A kernel by hand
#
# A softmax needs the largest element and the sum of a row, so it is not elementwise. With CuPy's own operations it takes
# several kernels. `satnp/arrays/kernels.py` has kernels written in CUDA by hand, each above the NumPy function that
# defines it. The definition runs on the host and in every gradient check, and tests compare the kernel with it.

# %%
show(kernels.softmax)
rows = strict.asarray(rng.standard_normal((N, 7)))
with strict.budget() as lines:
    kernels.softmax.__wrapped__(rows)
with strict.budget() as kernel:
    kernels.softmax(rows)
print(f"its definition {lines.launches} launches, by hand {kernel.launches}")

# %% [markdown]
# How to read it: 32 threads, called a warp, share a row. `LANE` is the number of a thread among them, and each thread
# processes every 32nd element. `warp_max` and `warp_sum` give all 32 threads the maximum or the sum of their values
# without using memory. No two threads write to the same place, so the sums are formed in the same order in every run, and
# the results are equal.
#
# ## Look
#
# A whole training step: forward, backward, clipping, Adam. It is computed by the captioner, which has everything possible
# outside the loop ("hoisted"), and by satnp/reference, step by step (lesson 15). `no_sync` raises an error at any wait,
# and `budget` if more is used than allowed.


# %%
def world(T, xp):
    """A small model and a batch of T words on `xp`."""
    rng, N, L = np.random.default_rng(0), 3, 6
    config = sat.Config(V=30, D=5, M=4, H=7, A=8, dropout=0)
    params = sat.init(config, rng)
    annotations = rng.standard_normal((N, L, config.D), dtype=np.float32)
    arrays = annotations, rng.integers(4, config.V, (N, T + 1)), np.ones((N, T), np.float32)
    return config, params.on(to_device(params.flat, xp)), Batch(*(to_device(x, xp) for x in arrays))


def training_step(model, config, params, batch):
    """One step of Adam, in place -> loss (), gradients (P,), on the device"""
    grads, memory = params.zeros_like(), optim.new_state("adam", params.flat)
    loss, cache = model.forward(params, config, batch, sat.Noise())
    model.backward(cache, grads)
    _, factor = optim.clip_factor(grads.flat, 5.0)
    optim.adam(params.flat, grads.flat, memory, 1e-3, factor)
    return loss, grads.flat


print("defined: world, training_step")

# %%
lengths, launches = (3, 6, 12, 20), {"hoisted": [], "step by step": []}
for T in lengths:
    for (name, counts), model in zip(launches.items(), (sat, reference), strict=True):
        here = world(T, strict)
        with strict.no_sync(), strict.budget(h2d=0 if model is sat else None, d2h=0, syncs=0) as used:
            training_step(model, *here)
        counts.append(used.launches)
        if T == 20:
            print(f"{name:12} of 20 words: waits {used.syncs}, uploads {used.h2d}")
for name, counts in launches.items():
    per_word = (counts[-1] - counts[0]) / (lengths[-1] - lengths[0])
    print(f"{name:12} {counts} launches: {per_word:.1f} a word + {counts[0] - 3 * per_word:.0f}")

# %%
figure = Figure(figsize=(7, 4))
axis = figure.subplots()
for (name, counts), style in zip(launches.items(), ("o-", "s--"), strict=True):
    axis.plot(lengths, counts, style, label=name)
axis.set_xticks(lengths)
axis.set_xlabel("words of a caption, T")
axis.set_ylabel("kernels launched by a training step")
axis.set_ylim(0)
axis.legend()
save(figure, "16_launches", "both are lines; hoisting and fused formulas make the slope of the lower one small")

# %% [markdown]
# There is no wait in either, so Python can launch kernels ahead of the GPU. Hoisted, there is no transfer either. (Step by
# step there is an upload: to join more than eight arrays in one kernel, CuPy sends it a table of their addresses.) And the
# numbers are those of the host, up to rounding in float32:

# %%
loss, gradients = training_step(sat, *world(6, strict))
wanted_loss, wanted_gradients = training_step(sat, *world(6, np))
near("loss on the stand-in", loss.get(), wanted_loss, within=1e-5)
near("all gradients", gradients.get(), wanted_gradients, within=1e-5)

# %% [markdown]
# ## Break it
#
# Six habits from NumPy, each on device arrays where nothing may wait. **Predict** for each: does it wait, or is it refused
# even where waiting is allowed?

# %%
x, table, words = strict.asarray(rng.standard_normal((4, 3))), strict.zeros((9, 3)), strict.asarray([4, 6, 4, 4])


def add_rows():
    table[words] += x


habits = {
    'print(f"{loss:.3f}")': lambda: f"{x.sum():.3f}",
    "if norm > 5:": lambda: 1 if x.sum() > 5 else 0,
    "x[x > 0]": lambda: x[x > 0],
    "np.exp(x)": lambda: np.exp(x),
    "x * host_mask": lambda: x * np.ones((4, 1)),
    "dE[ids] += dout": add_rows,
}
for habit, work in habits.items():
    try:
        with strict.no_sync():
            work()
        raise AssertionError(f"{habit} went through")
    except (RuntimeError, TypeError, ValueError) as error:
        print(f"{habit}\n{textwrap.indent(textwrap.fill(str(error), 74), '    ')}")

# %% [markdown]
# The first three give right results, but they wait. `np.exp` is a function of the wrong library; CuPy would accept it, the
# stand-in does not. A mask on the host would need a hidden transfer, and CuPy refuses it. The last one is the mistake of
# lesson 07. On a GPU it is worse: which of the repeated rows is kept is undefined (CuPy's manual, "Differences between
# CuPy and NumPy").
#
# How does satnp clip gradients without an `if`? The factor is $\min(\mathrm{limit} / \mathrm{norm}, 1)$, a number that
# stays on the device and always multiplies the gradient. Now plant the `if` in the source of satnp: the step above, which
# passed, raises an error.

# %%
show(optim.clip_factor)
with_if = bugs.Bug(
    "an if on the device",
    optim.clip_factor,
    "return _norm_and_factor(xp_of(grads).dot(grads, grads), limit)",
    "norm = xp_of(grads).dot(grads, grads) ** 0.5; return norm, (limit / norm if norm > limit else 1)",
    case=None,
    kinds=None,
)
try:
    with bugs.in_place(with_if), strict.no_sync():
        training_step(sat, *world(3, strict))
    raise AssertionError("the wait was not noticed")
except RuntimeError as error:
    print("caught:", error)

# %% [markdown]
# ### On the GPU, if there is one
#
# `xp` is what `find_device("auto")` found at the top, and the same two functions run with it. Without a GPU it is NumPy;
# then the next cell only shows that the two functions run with either library.

# %%
print(textwrap.fill(sentence, 80))
loss, gradients = training_step(sat, *world(6, xp))
near(f"loss on {xp.__name__}", to_host(loss), wanted_loss, within=1e-4)
near("all gradients", to_host(gradients), wanted_gradients, within=1e-4)

# %% [markdown]
# ## Exercises
#
# 1. Write leaky ReLU, $x$ where $x > 0$ and $0.1 x$ elsewhere, as a formula. Its first line is `xp = xp_of(x)`, from
#    `satnp.arrays.backend`. Print its kernel. Check: one launch by `strict.budget()`, and equal to the NumPy lines on
#    random numbers.
# 2. Which of these does `one_kernel` refuse: `x ** 2`, `xp.sqrt(x)` without a line `xp = xp_of(x)`, `a, b = x, 2 * x`,
#    `x @ x`, `-x`? Check: the first, second and fourth.
# 3. How many launches does softmax's backward take as its definition says, and by hand? Use
#    `kernels.softmax_gradient.__wrapped__`. Check: 4 and 1.
# 4. You want to see the loss every 50 steps. Run 100 steps on the stand-in and keep every loss on the device; call
#    `.get()` once at the end on `strict.stack(losses)`. Check: `budget` counts 1 sync; with a `float(loss)` in each step,
#    100.
# 5. From what the cell before the figure printed, how many launches has a step of 40 words, hoisted? Then count. Check:
#    your number, exactly.
#
# ## Next
#
# 17: real photos. The model is trained on them, and you see where it looks and where it fails.
