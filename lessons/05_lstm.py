# %% [markdown]
# # 05 An LSTM step, forward
#
# - time: 30 minutes
# - cpu: 5 seconds
# - before: 01
# - equations: Xu et al. 2015, eqs. 1-3
# - about: satnp.layers.lstm_cell_forward
#
# A network that writes a sentence must remember what it has said. The LSTM keeps that memory in a cell `c`
# which is carried from word to word by one multiplication and one addition. Three gates, numbers between
# 0 and 1, say what is kept, what is added and what is shown.

# %%
import numpy as np
from kit import near, save, show
from matplotlib.figure import Figure

from satnp.layers import lstm, lstm_cell_forward, sigmoid
from satnp.proof.gradcheck import numeric_gradient

np.set_printoptions(precision=4, suppress=True, linewidth=80)
rng = np.random.default_rng(0)
print("ready")

# %% [markdown]
# ## Predict
#
# N captions are written at once, each by H units. One step is told two things: the cell `c_prev` (N, H) of
# the step before, and `gates` (N, 4H), four numbers for each unit. They stand side by side in four blocks of
# H columns, in the order i, f, o, g. Where they come from we see below. The step computes
#
#     i = sigmoid(gates of i)      input gate: how much of the new is written
#     f = sigmoid(gates of f)      forget gate: how much of the old is kept (1 keeps all; it should be called "keep")
#     o = sigmoid(gates of o)      output gate: how much is shown
#     g = tanh(gates of g)         the new itself, a number between -1 and 1
#
#     c = f * c_prev + i * g       the cell
#     h = o * tanh(c)              what the rest of the network sees
#
# with sigmoid(x) = 1 / (1 + exp(-x)): 0 far to the left, 1/2 at x = 0, 1 far to the right.
# Everything is elementwise (`*` is no matrix product): each unit of each caption goes its own way.
#
# One unit holds c_prev = 2. Its gate g is at 3, so g = tanh 3 = 0.995. Four cases differ in the numbers that
# go into i, f and o. What are c and h in each?
#
#     keep      i -100   f +100   o +100
#     replace   i +100   f -100   o +100
#     hide      i -100   f +100   o -100
#     add       i +100   f +100   o +100

# %% [markdown]
# ## Run

# %%
show(lstm_cell_forward)
show(lstm._cell)

# %% [markdown]
# `_cell` is the equations, line for line. `@elementwise` above it makes it fast (lessons 15 and 16), and
# `xp_of(c_prev)` is NumPy here.
# `lstm_cell_forward` cuts the four blocks out of `gates`. The `cache` that it returns is what the way back will
# need (lesson 06). `more` is added to the gates first. We will not use it here.

# %%
cases = {"keep": (-100, 100, 100), "replace": (100, -100, 100), "hide": (-100, 100, -100), "add": (100, 100, 100)}
print("           c       h")
for name, (i, f, o) in cases.items():
    (h, c), cache = lstm_cell_forward(np.array([[i, f, o, 3.0]]), np.array([[2.0]]))
    print(f"{name:8} {c[0, 0]:6.3f}  {h[0, 0]:6.3f}")

# %% [markdown]
# `keep` leaves the 2 alone, `replace` forgets it, `hide` keeps it and shows nothing, `add` makes 2.995 of it.
# So c is not bounded: it can count. Each step adds at most 1. And h is bounded: |h| < 1, always.
#
# **Predict.** A gate's number is usually not ±100 but near 0, at least before training. Let all four be 0: i =
# f = o = 1/2 and g = 0. How much of c = 1 is left after 10 steps? And if the number of f is 3 in place of 0?

# %%
print("number of f   f       left after 1, 10, 20 steps")
left = {}
for bias in (0.0, 1.0, 3.0):
    c, kept = np.ones((1, 1)), []
    for _t in range(20):
        (h, c), cache = lstm_cell_forward(np.array([[0.0, bias, 0.0, 0.0]]), c)
        kept.append(c[0, 0])
    left[bias] = kept
    print(f"{bias:8}      {cache.f[0, 0]:.4f}  {kept[0]:.4f}  {kept[9]:.4f}  {kept[19]:.6f}")

# %% [markdown]
# At 0 half of the cell is lost at each step: after ten words a thousandth is left. At 3 it is 62 %.
# This is why many start f with a bias of 1 or more.
#
# ### Where the four numbers come from
#
# Equation 1 of the paper: from the word before (its embedding x, M numbers), from what was shown before
# (h_prev, H numbers), and from the photo (z, D numbers; it joins in lesson 09 and behaves as x does):
#
#     gates = x W_x + h_prev W_h + b          x (N, M), W_x (M, 4H), W_h (H, 4H), b (4H,)
#
# One matrix product makes all four gates. A sequence of T words is a loop over this. Only h_prev has to wait
# for the step before. The part x W_x + b of all T steps is one product before the loop.


# %%
def sequence(x, h, c, W_x, W_h, b):
    """x (T, N, M), h (N, H), c (N, H) -> h of all steps (T, N, H), c of all steps (T, N, H), caches"""
    T, N, M = x.shape
    word_gates = (x.reshape(T * N, M) @ W_x + b).reshape(T, N, -1)
    hs, cs, caches = [], [], []
    for t in range(T):
        (h, c), cache = lstm_cell_forward(word_gates[t] + h @ W_h, c)
        hs.append(h)
        cs.append(c)
        caches.append(cache)
    return np.stack(hs), np.stack(cs), caches


T, N, M, H = 6, 3, 5, 4
x, h0, c0 = rng.standard_normal((T, N, M)), rng.standard_normal((N, H)), rng.standard_normal((N, H))
W_x, W_h = rng.standard_normal((M, 4 * H)) / np.sqrt(M), rng.standard_normal((H, 4 * H)) / np.sqrt(H)
b = rng.standard_normal(4 * H)
h, c, caches = sequence(x, h0, c0, W_x, W_h, b)
print("h", h.shape, " c", c.shape, " of the first caption, by steps:")
print(c[:, 0])
print(f"largest |h| {abs(h).max():.3f}, largest |c| {abs(c).max():.3f}")

# %% [markdown]
# ## Look
#
# A unit with weights set by hand, so that we know what each gate is for. Its input has three numbers: a
# value, a command `store` and a command `show`. We want it to hold the stored value until the next `store`:
#
#     number of i = 20 store - 10       opens on store
#     number of f = 10 - 20 store       closes on store: the old one must go
#     number of o = 20 show - 10        opens on show
#     number of g = value
#
# **Predict** the curve of c, then look. (A trained network finds such weights by itself, less cleanly.)

# %%
steps = 24
value = rng.uniform(-1, 1, steps)
store, reveal = np.zeros(steps), np.zeros(steps)
store[[2, 9, 17]] = 1
reveal[[5, 6, 14, 21]] = 1
inputs = np.stack([value, store, reveal], axis=1)[:, None, :]
by_hand = np.array([[0, 0, 0, 1.0], [20, -20, 0, 0], [0, 0, 20, 0]])
shown, cell, kept = sequence(inputs, *np.zeros((2, 1, 1)), by_hand, np.zeros((1, 4)), np.array([-10.0, 10, -10, 0]))
gates = {name: [getattr(cache, name)[0, 0] for cache in kept] for name in "ifo"}
print("stored:", np.tanh(value[[2, 9, 17]]), " c at the end:", cell[-1, 0])

# %%
figure = Figure(figsize=(8, 6))
axes = figure.subplots(3, 1, sharex=True)
axes[0].plot(value, "o-", color="grey", label="value")
axes[0].vlines(np.flatnonzero(store), -1, 1, color="C3", label="store")
axes[0].vlines(np.flatnonzero(reveal), -1, 1, color="C2", linestyle="dotted", label="show")
for name, style in zip("ifo", ("o-", "s-", "^:"), strict=True):
    axes[1].plot(gates[name], style, color={"i": "C3", "f": "C0", "o": "C2"}[name], label=name)
axes[2].plot(cell[:, 0, 0], "s-", color="C0", label="c, the cell")
axes[2].plot(shown[:, 0, 0], "^:", color="C2", label="h, what is seen")
for axis, what in zip(axes, ("input", "gate (0 shut, 1 open)", "state"), strict=True):
    axis.set_ylabel(what)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
axes[2].set_xlabel("step (words)")
save(figure, "05_gates", "c takes a new value on each store and keeps it however the input wanders; h is seen on show only")

# %% [markdown]
# ### Saturation
#
# An open or shut gate is good for memory and bad for learning. The gradient that comes back through a sigmoid
# is multiplied by its slope s (1 - s), and through a tanh by 1 - tanh². (Both are derived in lesson 06.)
# How far out can a gate's number be before a mistake no longer moves it?

# %%
print("number   sigmoid    slope      tanh      slope")
for number in (0.0, 2.0, 5.0, 10.0, 20.0):
    s, t = sigmoid(np.array(number)), np.tanh(number)
    print(f"{number:6.0f}   {s:.6f}   {s * (1 - s):.1e}    {t:.6f}  {1 - t * t:.1e}")

# %% [markdown]
# At 10 a gradient of 1 arrives as 0.000045. At 20 as 2e-9: such a gate is stuck. It is the reason for weights
# of size 1/sqrt(fan-in), fan-in being how many numbers are summed up in one gate. They keep the numbers of a new
# network within a few units of 0.
#
# ## Check by number
#
# First, the real function against six lines that copy the equations.


# %%
def plain_cell(gates, c_prev):
    a_i, a_f, a_o, a_g = np.split(gates, 4, axis=1)
    i, f, o = (1 / (1 + np.exp(-a)) for a in (a_i, a_f, a_o))
    c = f * c_prev + i * np.tanh(a_g)
    return o * np.tanh(c), c


some = rng.standard_normal((N, 4 * H))
(h1, c1), cache = lstm_cell_forward(some, c0)
near("h of one step", h1, plain_cell(some, c0)[0], within=1e-14)
near("c of one step", c1, plain_cell(some, c0)[1], within=1e-14)

# %% [markdown]
# Why does satnp not write 1 / (1 + exp(-x))? At x = -800, exp(800) is larger than any float64 and NumPy warns.
# sigmoid(x) = (tanh(x/2) + 1) / 2 is the same function and never overflows:
# tanh(x/2) = (1 - exp(-x)) / (1 + exp(-x)); add 1 and halve it.

# %%
far = np.array([-800.0, -2.0, 0.0, 2.0, 800.0])
print("sigmoid", sigmoid(far))
near("where both can be had", sigmoid(far[1:4]), 1 / (1 + np.exp(-far[1:4])), within=1e-14)
assert np.isfinite(sigmoid(far)).all()

# %% [markdown]
# ### The cell is a conveyor belt
#
# Let the gates depend on the words alone (W_h = 0). Then c_T = f_T c_(T-1) + ..., and so on down to c_0: by
# the chain rule the derivative of c_T with respect to c_0 is the product of the forget gates, f_T ... f_1,
# and nothing else. No matrix, no tanh. Where all f are near 1, what was put on the belt arrives, and on
# the way back (lesson 06) so does the gradient. `numeric_gradient`, the check of lesson 02, says whether it is so.

# %%
no_W_h = np.zeros_like(W_h)
_, c, caches = sequence(x, h0, c0, W_x, no_W_h, b)
forget = np.prod([cache.f for cache in caches], axis=0)
wanted = numeric_gradient(lambda c0: sequence(x, h0, c0, W_x, no_W_h, b)[1][-1].sum(), c0)
print("product of the forget gates, first caption:", forget[0])
near("dc_T/dc_0 = product of f", forget, wanted, within=1e-12)

# %% [markdown]
# A plain recurrent network, h_t = tanh(x W_x + h_(t-1) W_h), has no such belt. Its derivative is a product of
# T matrices W_h and T slopes of tanh: it shrinks or explodes. Lesson 06 draws both.
#
# ## Break it
#
# The order of the four blocks is a convention. PyTorch stores i, f, g, o; satnp and the paper i, f, o, g.
# Load weights of the one into the other: what will stop you?

# %%
i, f, o, g = np.split(some, 4, axis=1)
(h_swapped, _), _ = lstm_cell_forward(np.concatenate([i, f, g, o], axis=1), c0)
print("shapes", h_swapped.shape, h1.shape, " finite:", np.isfinite(h_swapped).all())
error = np.linalg.norm(h_swapped - h1) / np.linalg.norm(h1)
print(f"off by {error:.0%}")
assert error > 0.1

# %% [markdown]
# Nothing stops you. All shapes fit, all numbers are finite, and the network says nonsense. A second one: forget
# the tanh, h = o * c. Show and Tell (Vinyals et al. 2015) does so on purpose; here it is a mistake. Which
# statement above tells it at once?

# %%
count = np.array([[100.0, 100.0, 100.0, 100.0]])  # all gates open, g = 1: the cell counts
c_now = np.zeros((1, 1))
for _t in range(5):
    (h_now, c_now), cache = lstm_cell_forward(count, c_now)
print("five steps:  c", c_now[0, 0], "  h", h_now[0, 0], "  without tanh", (cache.o * c_now)[0, 0])
assert abs(h_now[0, 0]) < 1 < (cache.o * c_now)[0, 0]

# %% [markdown]
# "|h| < 1, always."
#
# ## Exercises
#
# 1. Which bias of f (all else 0) loses one half of the cell in 10 steps, not in one? Solve f^10 = 1/2 for f,
#    then sigmoid(bias) = f. Check with the loop of the second Run: the bias is 2.634, and 0.500 is left.
# 2. The numbers of one step are (i, f, o, g) = (1, 2, 0, -1) and c_prev = 0.5. Work out c and h with a pocket
#    calculator, then ask `lstm_cell_forward`. c = -0.11637, h = -0.05792.
# 3. How many weights has eq. 1 with the photo's part, at the paper's sizes M = 512, D = 512, H = 1000?
#    Count W_x, W_h, W_z (D, 4H) and b. Check: 8,100,000.
# 4. Set weights by hand for two units A, B that tell whether the number of ones so far is odd. The input x is 0
#    or 1; W_h is not 0 any more. Hint: let p = (h_A - h_B) / tanh 1. Shut f, open o, let g = 1, so that c = i
#    and h = tanh(i). Let A be "x or p" and B "x and p" by the number of i. Check on x = 1, 0, 1, 1, 0, 1: p is
#    1, 1, 0, 1, 1, 0, to 0.001.
# 5. A gated recurrent unit has one gate u in place of i and f: h = (1 - u) h_prev + u tanh(...), and no cell.
#    Write it. Check: with the number of u at -100, h is h_prev to the last bit; the derivative of h_T with
#    respect to h_0 is then 1.
#
# ## Next
#
# 06: the same step backward, and backward through all steps. You have just seen the belt that the
# gradient will ride on.
