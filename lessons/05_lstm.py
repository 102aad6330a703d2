# %% [markdown]
# # 05 An LSTM step, forward
#
# - time: 35 minutes
# - cpu: 5 seconds
# - before: 01
# - equations: Xu et al. 2015, eqs. 1-3
# - about: satnp.layers.lstm_cell_forward
#
# A network that writes a sentence must remember the words that it has written so far. A long short-term memory (LSTM;
# Hochreiter & Schmidhuber 1997) keeps this memory in a cell $c$, which one multiplication and one addition carry from each
# word to the next. Three gates, numbers between 0 and 1, control how much of the cell is kept, how much is added to it and
# how much of it the rest of the network sees.

# %%
import numpy as np
from kit import graph, near, save, show
from matplotlib.figure import Figure

from satnp.layers import lstm, lstm_cell_forward, sigmoid
from satnp.proof.gradcheck import numeric_gradient

np.set_printoptions(precision=4, suppress=True, linewidth=80)
rng = np.random.default_rng(0)
print("ready")

# %% [markdown]
# ## Predict
#
# The network writes N captions at once, and its LSTM has H units. One step takes two arrays: `c_prev` (N, H), the cell of
# the step before, and `gates` (N, 4H), four numbers for each unit. These numbers stand in four blocks of H columns, in the
# order i, f, o, g. We call the blocks $a_i$, $a_f$, $a_o$ and $a_g$, the pre-activations of the gates; below we will see
# how they are computed. The step is
#
# $$
# \begin{aligned}
# i &= \sigma(a_i) \quad &\text{input gate: how much of the new value is written} \\
# f &= \sigma(a_f) \quad &\text{forget gate: how much of the old cell is kept} \\
# o &= \sigma(a_o) \quad &\text{output gate: how much of the cell is shown} \\
# g &= \tanh(a_g) \quad &\text{the new value, between -1 and 1} \\
# c &= f \odot c_{\mathrm{prev}} + i \odot g \quad &\text{the cell} \\
# h &= o \odot \tanh(c) \quad &\text{the hidden state, which the rest of the network sees}
# \end{aligned}
# $$
#
# Here $\sigma(x) = 1 / (1 + \exp(-x))$ is the sigmoid: it is close to 0 for large negative x, 1/2 at x = 0, and close to 1
# for large positive x. The sign $\odot$ is the elementwise product, `*` in NumPy. No unit and no caption depends on another
# one within this step. Note the name of the forget gate: f = 1 keeps everything, f = 0 forgets everything.
#
# One unit holds $c_{\mathrm{prev}} = 2$, and $a_g = 3$, so $g = \tanh 3 = 0.995$. The other three pre-activations differ in
# four cases. What are c and h in each of them?
#
# | case | $a_i$ | $a_f$ | $a_o$ |
# |---|---|---|---|
# | keep | -100 | 100 | 100 |
# | replace | 100 | -100 | 100 |
# | hide | -100 | 100 | -100 |
# | add | 100 | 100 | 100 |

# %% [markdown]
# ## Run
#
# First the equations as printed, in six lines:


# %%
def plain_cell(gates, c_prev):
    """gates (N, 4H), c_prev (N, H) -> h (N, H), c (N, H)"""
    a_i, a_f, a_o, a_g = np.split(gates, 4, axis=1)
    i, f, o = (1 / (1 + np.exp(-a)) for a in (a_i, a_f, a_o))
    g = np.tanh(a_g)
    c = f * c_prev + i * g
    h = o * np.tanh(c)
    return h, c


gates, c_prev = rng.standard_normal((3, 16)), rng.standard_normal((3, 4))
(h, c), cache = lstm_cell_forward(gates, c_prev)
near("h of satnp", h, plain_cell(gates, c_prev)[0], within=1e-14)
near("c of satnp", c, plain_cell(gates, c_prev)[1], within=1e-14)

# %% [markdown]
# `lstm_cell_forward` cuts `gates` into its four blocks and calls the function below, which has the same lines. The decorator
# `@elementwise` makes it fast (lessons 15 and 16), and `xp_of(c_prev)` is NumPy here. `more` is a second array that is added
# to `gates`; this lesson does not use it. `lstm_cell_forward` also returns `cache`, the arrays that the backward pass will
# need (lesson 06).

# %%
show(lstm._cell)

# %% [markdown]
# The drawing shows which arrays each array is computed from. `kit.graph` evaluates each formula that it draws, and stops if
# the result differs from satnp's array.

# %%
steps = [
    ("i", "sigmoid(gates[:, :H])", {"gates": None}),
    ("f", "sigmoid(gates[:, H:2*H])", {"gates": None}),
    ("o", "sigmoid(gates[:, 2*H:3*H])", {"gates": None}),
    ("g", "np.tanh(gates[:, 3*H:])", {"gates": None}),
    ("c", "f * c_prev + i * g", {"i": None, "f": None, "c_prev": None, "g": None}),
    ("h", "o * np.tanh(c)", {"o": None, "c": None}),
]
values = cache._asdict() | {"gates": gates, "h": h, "c": c, "H": 4, "sigmoid": sigmoid}
graph("05_cell", steps, values, {"N": 3, "H": 4}, {}, "the new cell c is made from c_prev by one product and one sum")

# %% [markdown]
# Now the four cases.

# %%
cases = {"keep": (-100, 100, 100), "replace": (100, -100, 100), "hide": (-100, 100, -100), "add": (100, 100, 100)}
print("           c       h")
for name, (i, f, o) in cases.items():
    (h, c), cache = lstm_cell_forward(np.array([[i, f, o, 3.0]]), np.array([[2.0]]))
    print(f"{name:8} {c[0, 0]:6.3f}  {h[0, 0]:6.3f}")

# %% [markdown]
# In the case `keep` the cell stays at 2; `replace` overwrites it with g; `hide` keeps it, but h is 0; `add` makes it
# 2 + 0.995. So c is not bounded: each step can add up to 1, and a unit can count. But h is bounded: $|h| < 1$, always.
#
# **Predict.** Pre-activations are usually not ±100; before training they are near 0. Let all four be 0, so that
# $i = f = o = 1/2$ and $g = 0$. How much of c = 1 is left after 10 steps? And how much if $a_f$ is 3?

# %%
print("a_f    f       left after 1, 10, 20 steps")
for bias in (0.0, 1.0, 3.0):
    c, kept = np.ones((1, 1)), []
    for _t in range(20):
        (h, c), cache = lstm_cell_forward(np.array([[0.0, bias, 0.0, 0.0]]), c)
        kept.append(c[0, 0])
    print(f"{bias:3}    {cache.f[0, 0]:.4f}  {kept[0]:.4f}  {kept[9]:.4f}  {kept[19]:.6f}")

# %% [markdown]
# With $a_f = 0$ half of the cell is lost at each step, and after ten words one thousandth of it is left. With $a_f = 3$,
# 62 % are left. This is why the bias of the forget gate is often initialised with 1 or more. Jozefowicz et al. 2015
# (abstract) found that a bias of 1 closes the gap between the LSTM and a newer network, the GRU of exercise 5.
#
# ### Where the pre-activations come from
#
# Equation 1 of the paper computes them from the word before, that is, its embedding x (M numbers), from the previous hidden
# state $h_{t-1}$ (H numbers), and from the photo (a vector of D numbers, which lesson 09 adds and which enters as x does):
#
# $$
# \text{gates}_t = x_t W_x + h_{t-1} W_h + b
# $$
#
# | array | shape |
# |---|---|
# | $x_t$ | (N, M) |
# | $W_x$ | (M, 4H) |
# | $W_h$ | (H, 4H) |
# | $b$ | (4H,) |
#
# One matrix product computes all four gates. A sequence of T words is a loop over this equation. Only the term with
# $h_{t-1}$ has to wait for the step before. The term $x_t W_x + b$ does not, so one product before the loop computes it for
# all T steps.


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
print("h", h.shape, " c", c.shape, "; c of the first caption, one row a step:")
print(c[:, 0])
print(f"largest |h| {abs(h).max():.3f}, largest |c| {abs(c).max():.3f}")

# %% [markdown]
# ## Look
#
# Let us set the weights of one unit by hand, so that we know the purpose of each gate. Its input has three numbers: a
# value, a command `store` and a command `show`, which are 0 or 1. The unit should hold the stored value until the next
# `store`:
#
# | pre-activation | effect |
# |---|---|
# | $a_i = 20 \cdot \text{store} - 10$ | the input gate opens on `store` |
# | $a_f = 10 - 20 \cdot \text{store}$ | the forget gate closes on `store`, because the old value must go |
# | $a_o = 20 \cdot \text{show} - 10$ | the output gate opens on `show` |
# | $a_g = \text{value}$ | the new value is $\tanh(\text{value})$ |
#
# **Predict** the curve of c, then look at the figure.

# %%
steps = 24
value = rng.uniform(-1, 1, steps)
store, reveal = np.zeros(steps), np.zeros(steps)
store[[2, 9, 17]] = 1
reveal[[5, 6, 14, 21]] = 1
inputs = np.stack([value, store, reveal], axis=1)[:, None, :]
by_hand = np.array([[0, 0, 0, 1.0], [20, -20, 0, 0], [0, 0, 20, 0]])
shown, cell, kept = sequence(inputs, *np.zeros((2, 1, 1)), by_hand, np.zeros((1, 4)), np.array([-10.0, 10, -10, 0]))
open_gates = {name: [getattr(cache, name)[0, 0] for cache in kept] for name in "ifo"}
print("stored:", np.tanh(value[[2, 9, 17]]), " c at the end:", cell[-1, 0])

# %%
figure = Figure(figsize=(8, 6))
axes = figure.subplots(3, 1, sharex=True)
axes[0].plot(value, "o-", color="grey", label="value")
axes[0].vlines(np.flatnonzero(store), -1, 1, color="C3", label="store")
axes[0].vlines(np.flatnonzero(reveal), -1, 1, color="C2", linestyle="dotted", label="show")
for name, style in zip("ifo", ("o-", "s-", "^:"), strict=True):
    axes[1].plot(open_gates[name], style, color={"i": "C3", "f": "C0", "o": "C2"}[name], label=name)
axes[2].plot(cell[:, 0, 0], "s-", color="C0", label="c, the cell")
axes[2].plot(shown[:, 0, 0], "^:", color="C2", label="h, the hidden state")
for axis, what in zip(axes, ("input", "gate (0 closed, 1 open)", "state"), strict=True):
    axis.set_ylabel(what)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
axes[2].set_xlabel("step (words)")
save(figure, "05_gates", "c changes only on store, however the value changes in between; h is different from 0 only on show")

# %% [markdown]
# ### Saturation
#
# A gate that is fully open or fully closed is good for memory and bad for learning. On the way back the gradient is
# multiplied by the slope of the sigmoid, $s (1 - s)$ with $s = \sigma(x)$, or by the slope of the tanh, $1 - \tanh^2 x$
# (lesson 06 derives both). How large can a pre-activation become before almost no gradient gets through?

# %%
print("   x       sigmoid    slope      tanh      slope")
for number in (0.0, 2.0, 5.0, 10.0, 20.0):
    s, t = sigmoid(np.array(number)), np.tanh(number)
    print(f"{number:6.0f}   {s:.6f}   {s * (1 - s):.1e}    {t:.6f}  {1 - t * t:.1e}")

# %% [markdown]
# At 10 a gradient of 1 becomes 0.000045. At 20 it becomes 2e-9: such a gate does not learn any more. This is one reason for
# initial weights of size $1 / \sqrt{\text{fan-in}}$, where fan-in is the number of terms in the sum for one pre-activation
# (LeCun et al. 1998, section 4.6). With inputs of size 1 the sum then has a size of about 1, too.
#
# ## Check by number
#
# `plain_cell` computes the sigmoid as $1 / (1 + \exp(-x))$. satnp does not: at $x = -800$, $\exp(800)$ is larger than any
# float64, and NumPy warns. $\sigma(x) = (\tanh(x/2) + 1) / 2$ is the same function and cannot overflow. The proof:
# $\tanh(x/2) = (1 - \exp(-x)) / (1 + \exp(-x))$; add 1 and divide by 2.

# %%
far = np.array([-800.0, -2.0, 0.0, 2.0, 800.0])
print("sigmoid", sigmoid(far))
near("sigmoid at -2, 0, 2", sigmoid(far[1:4]), 1 / (1 + np.exp(-far[1:4])), within=1e-14)
assert np.isfinite(sigmoid(far)).all()

# %% [markdown]
# ### The path of the cell
#
# Suppose that the gates depend on the words alone ($W_h = 0$). Then $c_T = f_T \odot c_{T-1} + \ldots$, and so on down to
# $c_0$. By the chain rule
#
# $$
# \frac{\partial c_T}{\partial c_0} = f_T \cdot f_{T-1} \cdot \ldots \cdot f_1,
# $$
#
# the product of the forget gates. No matrix and no tanh occurs in it. If all forget gates are near 1, the value reaches the
# last step almost unchanged, and on the way back so does the gradient (lesson 06). Hochreiter & Schmidhuber (1997) call
# this path the constant error carousel. `numeric_gradient`, which lesson 02 explains, computes the derivative from the
# forward pass alone:

# %%
no_W_h = np.zeros_like(W_h)
_, c, caches = sequence(x, h0, c0, W_x, no_W_h, b)
forget = np.prod([cache.f for cache in caches], axis=0)
wanted = numeric_gradient(lambda c0: sequence(x, h0, c0, W_x, no_W_h, b)[1][-1].sum(), c0)
print("product of the forget gates, first caption:", forget[0])
near("dc_T/dc_0 = product of f", forget, wanted, within=1e-12)

# %% [markdown]
# A plain recurrent network, $h_t = \tanh(x_t W_x + h_{t-1} W_h)$, has no such path. Its derivative is a product of T
# matrices $W_h$ and T slopes of tanh, which in general shrinks or grows exponentially with T. Lesson 06 plots both.
#
# ## Break it
#
# The order of the four blocks is a convention. PyTorch stores i, f, g, o (documentation of `torch.nn.LSTM`, `weight_ih_l`);
# satnp and the paper (eq. 1) use i, f, o, g. If you load weights of the one into the other, does anything warn you?

# %%
i, f, o, g = np.split(gates, 4, axis=1)
(h, _), _ = lstm_cell_forward(gates, c_prev)
(h_swapped, _), _ = lstm_cell_forward(np.concatenate([i, f, g, o], axis=1), c_prev)
print("shapes", h_swapped.shape, h.shape, " finite:", np.isfinite(h_swapped).all())
error = np.linalg.norm(h_swapped - h) / np.linalg.norm(h)
print(f"off by {error:.0%}")
assert error > 0.1

# %% [markdown]
# Nothing does. All shapes fit and all numbers are finite, but h is wrong. A second mistake: the tanh is forgotten,
# $h = o \odot c$. In Show and Tell this is the definition (Vinyals et al. 2015, eq. 8); here it is an error. Which statement
# of this lesson does it violate?

# %%
count = np.array([[100.0, 100.0, 100.0, 100.0]])  # all gates are open and g = 1: the cell counts the steps
c_now = np.zeros((1, 1))
for _t in range(5):
    (h_now, c_now), cache = lstm_cell_forward(count, c_now)
print("five steps:  c", c_now[0, 0], "  h", h_now[0, 0], "  without tanh", (cache.o * c_now)[0, 0])
assert abs(h_now[0, 0]) < 1 < (cache.o * c_now)[0, 0]

# %% [markdown]
# It violates $|h| < 1$.
#
# ## Exercises
#
# 1. Which bias of the forget gate (all other pre-activations are 0) halves the cell in 10 steps instead of one? Solve
#    $f^{10} = 1/2$ for f, then $\sigma(\text{bias}) = f$. Check with the loop of the second Predict: the bias is 2.634, and
#    0.500 is left.
# 2. The pre-activations of one step are $(a_i, a_f, a_o, a_g) = (1, 2, 0, -1)$, and $c_{\mathrm{prev}} = 0.5$. Compute c and
#    h with a pocket calculator, then with `lstm_cell_forward`. Check: c = -0.11637, h = -0.05792.
# 3. How many weights does eq. 1 have with the photo's term, for M = 512, D = 512, H = 1000? Count $W_x$, $W_h$, $W_z$
#    (D, 4H) and b. Check: 8,100,000.
# 4. Set weights by hand for two units A and B that compute whether the number of ones so far is odd. The input x is 0 or 1,
#    and $W_h$ is not 0 any more. Hint: let $p = (h_A - h_B) / \tanh 1$. Close the forget gate, open the output gate and set
#    $g = 1$, so that $c = i$ and $h = \tanh(i)$. Choose $a_i$ such that i of A is "x or p" and i of B is "x and p". Check
#    on x = 1, 0, 1, 1, 0, 1: p is 1, 1, 0, 1, 1, 0, to 0.001.
# 5. A gated recurrent unit (Cho et al. 2014; without its reset gate) has one gate u instead of i and f, and no cell:
#    $h_t = (1 - u) \odot h_{t-1} + u \odot \tanh(\ldots)$. Write it. Check: if the pre-activation of u is -100, $h_t$ equals
#    $h_{t-1}$ to the last bit, and the derivative of $h_T$ with respect to $h_0$ is 1.
#
# ## Next
#
# Lesson 06: the same step backward, and then backward through all steps. The gradient will follow the path of the cell
# that you have just seen.
