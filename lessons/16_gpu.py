# %% [markdown]
# # 16 The GPU: one formula becomes a kernel, and what waits
#
# - time: 40 minutes
# - cpu: 5 seconds
# - before: 05, 15
# - equations: none
# - about: satnp.arrays.formulas.kernel
#
# A GPU computes fast and starts slowly. Every operation on an array is a kernel that has to be launched, and
# every look at a value stops the program until all of them are done. So: few launches, no looks. Both can be
# counted without a GPU.

# %%
import sys
import textwrap
from pathlib import Path

import kit
import numpy as np
from kit import near, save, show
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
# That sentence says what this lesson runs on at its end, and why. All that comes before needs no GPU. CuPy is
# NumPy's interface on NVIDIA's GPUs: `xp` is either library, and the same function runs on both. A program
# works like this:
#
# - A **kernel** is a small program that the GPU runs for every element at once. `a * b` on device arrays is
#   one.
# - A **launch** puts a kernel into a queue and returns at once. It costs some microseconds, whatever the size
#   of the arrays.
# - A **wait**: `float(x)`, `print(x)`, `if x > 0:` need the value, so Python stops until the queue is empty,
#   and then the GPU stands idle until Python has launched something again.
# - A **transfer** copies between the memories of host and device. Bringing a value back is also a wait.
#
# `tests/strict.py` is a stand-in for CuPy. It computes with NumPy, refuses what CuPy refuses, and counts the
# four.
#
# ## Predict
#
# The LSTM's step of lesson 05 is these lines. Written with CuPy as they stand, how many kernels does a step
# launch? (A sigmoid counts as one. Count every +, * and tanh.) How many need there be?

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
# One kernel can do the whole chain because no element asks about another one: each goes through all lines
# alone. Besides the launches it saves the memory between them: c, tanh_c and the rest are numbers in a
# register, not arrays.
#
# The kernel is made from those very lines. Python can give the source of a function, and a source can be read
# as a tree of assignments, sums and products (`ast`). `satnp/arrays/formulas.py` walks that tree and writes C++:

# %%
print(lstm._cell.kernel)

# %% [markdown]
# `sigmoid` is such a formula too, so its line was put in where it is called. `T` is float or double. So what
# you have derived, checked and stepped through in a debugger is what runs on the GPU. Nothing is written twice.
#
# ### Your own
#
# Swish (Ramachandran et al. 2017): y = x s with s = sigmoid(x). By the product rule dy/dx = s + x s (1 - s).


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
# ## Check by number
#
# The formula against the complex step, on NumPy. Then the kernel: the stand-in executes its lines, not the
# Python ones.

# %%
x, dy = rng.standard_normal((N, H)), rng.standard_normal((N, H))
near("swish_gradient", swish_gradient(dy, x), numeric_gradient(lambda x: (swish(x) * dy).sum(), x), within=1e-12)
with strict.budget() as used:
    there = swish_gradient(strict.asarray(dy), strict.asarray(x))
near("its kernel", there.get(), swish_gradient(dy, x), within=1e-15)
print(f"launches {used.launches}, uploads {used.h2d}")

# %% [markdown]
# ## Predict
#
# Which of these can become an elementwise kernel, and what is in the way of the others? x * x, x / (1 + x), an
# `if`, x.sum(), a loop, abs(x). When will you be told: where the function is defined, or on the day when
# somebody runs it on a GPU?
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
# At once, with the line, on a machine that has never seen a GPU. The whole sentence also says what may be
# written: assignments of + - * /, comparisons and `xp.exp`, `log`, `sqrt`, `tanh`, `maximum`, `minimum`,
# `where`. Write `xp.where(x > 0, x, 0)` for the `if`. abs is left out because the complex step cannot go
# through it, x.sum() because an element would have to know the others.

# %%
show(elementwise.elementwise)

# %% [markdown]
# ### A kernel by hand
#
# A softmax needs the largest and the sum of a row: not elementwise. With CuPy's own operations it is a chain of
# kernels. `satnp/arrays/kernels.py` has a dozen that are written in CUDA, each on top of the NumPy function that
# defines it. The definition runs on the host and in every gradient check, and tests hold the kernel to it.

# %%
show(kernels.softmax)
rows = strict.asarray(rng.standard_normal((N, 7)))
with strict.budget() as lines:
    kernels.softmax.__wrapped__(rows)
with strict.budget() as kernel:
    kernels.softmax(rows)
print(f"its definition {lines.launches} launches, by hand {kernel.launches}")

# %% [markdown]
# How to read it. 32 threads, a warp, share a row: `LANE` is the number of a thread among them, so each takes
# every 32nd element. `warp_max` and `warp_sum` give each of them the maximum or sum over all 32, without going
# through memory. Every thread writes what no other one writes: so the same numbers come out in the same order
# of sums, run after run.
#
# ## Look
#
# A whole training step: forward, backward, clipping, Adam. By the captioner, with all that can be out of the
# loop hoisted out of it, and by satnp/reference, step by step (lesson 15). `no_sync` raises on any wait,
# `budget` on more than so much.


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
    for (_name, counts), model in zip(launches.items(), (sat, reference), strict=True):
        here = world(T, strict)
        with strict.no_sync(), strict.budget(h2d=0 if model is sat else None, d2h=0, syncs=0) as used:
            training_step(model, *here)
        counts.append(used.launches)
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
save(figure, "16_launches", "both are lines; what left the loop and became one formula is the difference of their slopes")

# %% [markdown]
# No wait, and hoisted no transfer: Python runs ahead and the GPU never starves. (Step by step there are some
# uploads: to join more than eight arrays in one kernel, CuPy sends it a table of their addresses.) And the numbers
# are those of the host, to float32's rounding:

# %%
loss, gradients = training_step(sat, *world(6, strict))
wanted_loss, wanted_gradients = training_step(sat, *world(6, np))
near("loss on the stand-in", loss.get(), wanted_loss, within=1e-5)
near("all gradients", gradients.get(), wanted_gradients, within=1e-5)

# %% [markdown]
# ## Break it
#
# Six habits from NumPy, each on device arrays where nothing may wait. **Predict** for each: does it wait, or is
# it refused even where waiting is allowed?

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
# The first three are right and slow: they wait. `np.exp` names the wrong library; CuPy would forgive it, the
# stand-in does not. A host mask would need a hidden transfer, and CuPy refuses. The last one is lesson 07's
# mistake. On a GPU it is worse: which of the repeated rows wins can differ from run to run.
#
# How does satnp clip gradients without an `if`? The factor is min(limit / norm, 1), a number that stays on the
# device and is multiplied in always. Plant the `if` in the real source, and the step that was fine above is
# caught:

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
    raise AssertionError("nobody saw the wait")
except RuntimeError as error:
    print("caught:", error)

# %% [markdown]
# ### On the GPU, if there is one
#
# `xp` is what `find_device("auto")` found at the top. The same two functions run on it. Where it is NumPy, this
# shows that much: they do not know the difference.

# %%
print(textwrap.fill(sentence, 80))
loss, gradients = training_step(sat, *world(6, xp))
near(f"loss on {xp.__name__}", to_host(loss), wanted_loss, within=1e-4)
near("all gradients", to_host(gradients), wanted_gradients, within=1e-4)

# %% [markdown]
# ## Exercises
#
# 1. Write leaky ReLU, x where x > 0 and 0.1 x elsewhere, as a formula. Its first line is `xp = xp_of(x)`, from
#    satnp.arrays.backend. Print its kernel. Check: one launch by `strict.budget()`, and equal to the NumPy lines on random
#    numbers.
# 2. Which of these does `one_kernel` refuse: `x ** 2`, `xp.sqrt(x)` without a line `xp = xp_of(x)`, `a, b = x,
#    2 * x`, `x @ x`, `-x`? Check: the first, second and fourth.
# 3. How many launches does softmax's backward take as its definition says, and by hand? Use
#    `kernels.softmax_gradient.__wrapped__`. Check: 4 and 1.
# 4. You want the loss on the screen every 50 steps. Run 100 steps on the stand-in and keep every loss on the
#    device; call `.get()` once at the end on `strict.stack(losses)`. Check: `budget` counts 1 sync; with a
#    `float(loss)` a step, 100.
# 5. From what the cell before the figure printed, how many launches has a step of 40 words, hoisted? Then count.
#    Check: your number, exactly.
#
# ## Next
#
# 17: real photos. The model is trained on them, and you look at where it looks and where it fails.
