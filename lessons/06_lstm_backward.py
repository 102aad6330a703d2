# %% [markdown]
# # 06 An LSTM backward, through time
#
# - time: 60 minutes
# - cpu: 5 seconds
# - before: 02, 05
# - equations: Xu et al. 2015, eqs. 1-3
# - about: satnp.layers.lstm_cell_backward
#
# The backward pass goes through the lines of the forward pass in reverse order. The lines that read an array are its
# users; each of them sends back a gradient, and the gradient of the array is their sum. The cell $c$ has two users: the
# hidden state h of the same step, and the cell of the next step. This sum, at every step, is all there is to
# "backpropagation through time".

# %%
import numpy as np
from kit import graph, near, save, show
from matplotlib.figure import Figure

from satnp.layers import lstm, lstm_cell_backward, lstm_cell_forward, sigmoid
from satnp.proof import bugs
from satnp.proof.gradcheck import diagnose, numeric_gradient, relative_error

np.set_printoptions(precision=4, suppress=True, linewidth=80)
rng = np.random.default_rng(0)
print("ready")

# %% [markdown]
# ## The rules
#
# At the end of the forward pass there is one number, the loss J. For an array X we write $dX$ for the derivative of J with
# respect to X: an array of the same shape as X, each element of which is the derivative of J with respect to the same
# element of X. Four rules are enough.
#
# | rule | forward | backward |
# |---|---|---|
# | 1. Chain rule | $y = u(x)$, elementwise | $dx = dy \odot u'(x)$ |
# | 2. Sum | $y = a + b$ | $da = dy$ and $db = dy$ |
# | 3. Product | $y = a \odot b$ | $da = dy \odot b$ and $db = dy \odot a$ |
# | 4. Users | X is read by several lines | $dX$ is the sum of what each of them sends back |
#
# Rule 4 is easily forgotten. It is a sum because a small change of X changes J through each of its uses, and to first order
# these changes add up.
#
# Two derivatives are needed. Both can be written in terms of the result itself, which the forward pass has kept.
#
# The sigmoid, $s = 1 / (1 + \exp(-x))$:
#
# $$
# \begin{aligned}
# \frac{\partial s}{\partial x} &= \frac{\exp(-x)}{(1 + \exp(-x))^2} \\
#   &= s \cdot \frac{\exp(-x)}{1 + \exp(-x)} \\
#   &= s (1 - s),
# \end{aligned}
# $$
#
# because the last fraction and s sum to 1. The tanh, $t = \tanh x = (\exp(x) - \exp(-x)) / (\exp(x) + \exp(-x))$: the
# derivative of the numerator is the denominator, and that of the denominator is the numerator. By the quotient rule
#
# $$
# \begin{aligned}
# \frac{\partial t}{\partial x} &= \frac{(\exp(x) + \exp(-x))^2 - (\exp(x) - \exp(-x))^2}{(\exp(x) + \exp(-x))^2} \\
#   &= 1 - t^2.
# \end{aligned}
# $$
#
# ## One step, derived
#
# Here is the forward pass of lesson 05 with a number for each line. $a_i, a_f, a_o, a_g$ are the four blocks of `gates`,
# the pre-activations:
#
# $$
# \begin{aligned}
# (1) \quad & i = \sigma(a_i), \quad f = \sigma(a_f), \quad o = \sigma(a_o), \quad g = \tanh(a_g) \\
# (2) \quad & c = f \odot c_{\mathrm{prev}} + i \odot g \\
# (3) \quad & t_c = \tanh(c) \\
# (4) \quad & h = o \odot t_c
# \end{aligned}
# $$
#
# ($t_c$ is `tanh_c` in the code.) The backward pass of a step receives $dh$, the sum of what all users of h send back, and
# $dc_{\mathrm{next}}$, what the next step sends back to c (zero at the last step). It must return the gradient of the gates
# and $dc_{\mathrm{prev}}$. We start with the last line.
#
# **Line (4)** is a product, so by rule 3
#
# $$
# do = dh \odot t_c, \quad dt_c = dh \odot o.
# $$
#
# **Line (3).** By the chain rule, line (3) sends $dt_c \odot (1 - t_c^2)$ to c. But c has two users: line (3) of this step,
# and line (2) of the NEXT step, where it is called $c_{\mathrm{prev}}$. By rule 4
#
# $$
# dc = dc_{\mathrm{next}} + dh \odot o \odot (1 - t_c^2).
# $$
#
# **Line (2)** is a sum of two products. Each product gets $dc$ (rule 2), and rule 3 gives
#
# $$
# \begin{aligned}
# df &= dc \odot c_{\mathrm{prev}}, \quad & dc_{\mathrm{prev}} &= dc \odot f, \\
# di &= dc \odot g, \quad & dg &= dc \odot i.
# \end{aligned}
# $$
#
# **Line (1).** By rule 1 each gradient is multiplied by the derivative of its function:
#
# $$
# \begin{aligned}
# da_i &= di \odot i \odot (1 - i) \\
# da_f &= df \odot f \odot (1 - f) \\
# da_o &= do \odot o \odot (1 - o) \\
# da_g &= dg \odot (1 - g^2)
# \end{aligned}
# $$
#
# `dgates` is these four arrays side by side. The step BEFORE receives $dc_{\mathrm{prev}}$ as its $dc_{\mathrm{next}}$.
#
# ## Predict
#
# Let $c_{\mathrm{prev}} = 0$, as at the first step of many sequences, and let all other inputs be random. Look at the
# equations under line (2) and line (1). Exactly one of the four blocks of `dgates` is zero then. Which one, and why?
#
# ## Run

# %%
N, H = 3, 5
gates, dh, dc = rng.standard_normal((N, 4 * H)), rng.standard_normal((N, H)), rng.standard_normal((N, H))
(h, c), cache = lstm_cell_forward(gates, np.zeros((N, H)))
dgates, dc_prev = lstm_cell_backward((dh, dc), cache)
for name, block in zip("ifog", np.split(dgates, 4, axis=1), strict=True):
    print(f"|da_{name}| = {np.linalg.norm(block):.4f}")

# %% [markdown]
# It is the block of the forget gate: $df = dc \odot c_{\mathrm{prev}} = 0$, because there is nothing to forget yet. So the
# first step of a caption gives the forget gate no gradient, if the initial cell is 0. (In Show, Attend and Tell it is not:
# it is computed from the photo.)
#
# Here is satnp's code. There are two functions. The first makes room for `dgates` and passes its four blocks to the second,
# which writes its results into them: `@elementwise` gives it the argument `out`. In the first function the blocks are
# called `di, df, do, dg`; what is written into them is $da_i, da_f, da_o, da_g$. (`xp_of(dc)` is NumPy here. `cache` holds
# `c_prev, i, f, o, g, tanh_c`, in this order.) The second function is the arithmetic: find each line of the derivation in
# it. Its argument `dc` is $dc_{\mathrm{next}}$; its second line makes it the whole $dc$.

# %%
show(lstm_cell_backward)
show(lstm._cell_gradient)

# %% [markdown]
# The drawing has the forward pass as solid arrows and the gradients as dashed arrows, each with its formula. `kit.graph`
# evaluates every formula and compares the results with satnp's arrays. Two gradients arrive at c: one from `tanh_c`, one
# from the next step ("from later").

# %%
c_prev = rng.standard_normal((N, H))
(h, c), cache = lstm_cell_forward(gates, c_prev)
dgates, dc_prev = lstm_cell_backward((dh, dc), cache)
values = cache._asdict() | {"h": h, "c": c, "dc_prev": dc_prev, "sigmoid": sigmoid}
for k, name in enumerate("ifog"):
    values |= {f"a_{name}": np.split(gates, 4, axis=1)[k], f"da_{name}": np.split(dgates, 4, axis=1)[k]}
steps = [
    ("i", "sigmoid(a_i)", {"a_i": "di * i * (1 - i)"}),
    ("f", "sigmoid(a_f)", {"a_f": "df * f * (1 - f)"}),
    ("o", "sigmoid(a_o)", {"a_o": "do * o * (1 - o)"}),
    ("g", "np.tanh(a_g)", {"a_g": "dg * (1 - g**2)"}),
    ("c", "f * c_prev + i * g", {"f": "dc * c_prev", "c_prev": "dc * f", "i": "dc * g", "g": "dc * i"}),
    ("tanh_c", "np.tanh(c)", {"c": "dtanh_c * (1 - tanh_c**2)"}),
    ("h", "o * tanh_c", {"tanh_c": "dh * o", "o": "dh * tanh_c"}),
]
see = "the gradient of c is a sum of two, and c_prev gets it times f, without a matrix"
graph("06_cell", steps, values, {"N": N, "H": H}, {"h": dh, "c": dc}, see)

# %% [markdown]
# ### With numbers that fit on a page
#
# One caption and one unit. Each line is computed by itself; then satnp's function must give the same.

# %%
a_i, a_f, a_o, a_g, c_prev = 0.5, 1.0, -0.3, 0.8, 2.0
dh, dc_next = 1.0, 0.25
i, f, o = (1 / (1 + np.exp(-a)) for a in (a_i, a_f, a_o))
g = np.tanh(a_g)
c = f * c_prev + i * g
tanh_c = np.tanh(c)
print(f"forward   i {i:.4f}  f {f:.4f}  o {o:.4f}  g {g:.4f}  c {c:.4f}  h {o * tanh_c:.4f}")

# %%
do = dh * tanh_c
dc = dc_next + dh * o * (1 - tanh_c**2)
df, dc_prev, di, dg = dc * c_prev, dc * f, dc * g, dc * i
by_hand = np.array([[di * i * (1 - i), df * f * (1 - f), do * o * (1 - o), dg * (1 - g**2)]])
print(f"dc        {dc_next} from the next step + {dc - dc_next:.4f} through h = {dc:.4f}")
print("dgates   ", by_hand[0], f" dc_prev {dc_prev:.4f}")

# %%
_, cache = lstm_cell_forward(np.array([[a_i, a_f, a_o, a_g]]), np.array([[c_prev]]))
dgates, dc_before = lstm_cell_backward((np.array([[dh]]), np.array([[dc_next]])), cache)
near("dgates of satnp", dgates, by_hand, within=1e-14)
near("dc_prev of satnp", dc_before, [[dc_prev]], within=1e-14)

# %% [markdown]
# ## Check by number
#
# The derivation and the code could contain the same mistake. The complex step of lesson 02 uses neither of them: it adds
# 1e-30 times the imaginary unit to one element of the input, runs the forward pass, and reads the derivative from the
# imaginary part of J. What is J here? A step has two outputs, h and c. Let $R_h$ and $R_c$ be random arrays of their
# shapes, and
#
# $$
# J = \sum_{n,k} h_{nk} R_{h,nk} + \sum_{n,k} c_{nk} R_{c,nk}.
# $$
#
# Then $dh = R_h$, and the gradient that comes to c from outside the step is $R_c$; these two go into the backward pass.
# They are random, not ones and not zeros: with $R_c = 0$ the check could not see that $dc_{\mathrm{next}}$ is missing.

# %%
N, H = 3, 4
gates, c_prev = rng.standard_normal((N, 4 * H)), rng.standard_normal((N, H))
R_h, R_c = rng.standard_normal((N, H)), rng.standard_normal((N, H))


def J_of_step(gates, c_prev):
    (h, c), _ = lstm_cell_forward(gates, c_prev)
    return (h * R_h).sum() + (c * R_c).sum()


_, cache = lstm_cell_forward(gates, c_prev)
dgates, dc_prev = lstm_cell_backward((R_h, R_c), cache)
near("dgates", dgates, numeric_gradient(lambda x: J_of_step(x, c_prev), gates), within=1e-12)
near("dc_prev", dc_prev, numeric_gradient(lambda x: J_of_step(gates, x), c_prev), within=1e-12)

# %% [markdown]
# ## Through time, derived
#
# Now T steps. Forward, for $t = 0 \ldots T-1$, with the words x (T, N, M) and the initial state $h_{-1}$, $c_{-1}$:
#
# $$
# \begin{aligned}
# (5) \quad & \text{gates}_t = x_t W_x + h_{t-1} W_h + b \\
# (6) \quad & h_t, c_t = \operatorname{step}(\text{gates}_t, c_{t-1})
# \end{aligned}
# $$
#
# The output layer, which predicts the next word, reads every $h_t$. We call what it sends back $dh_t^{\mathrm{out}}$,
# `dh_out[t]` in the code. In this lesson it is a random array, so that J is the sum of `h * dh_out`.
#
# **The users of $h_t$** are the output layer at t, and line (5) of step t+1. So $dh_t$ is a sum of two:
#
# $$
# dh_t = dh_t^{\mathrm{out}} + (\text{what line (5) of step } t+1 \text{ sends back})
# $$
#
# In the whole captioner there are four users: attention and the gate $\beta$ also read $h_t$ at the beginning of step t+1
# (lessons 08 to 10). Each is one more term of this sum.
#
# **The users of $c_t$** are the tanh in step t, and line (2) of step t+1. These are two as well; the step's backward pass
# adds them up.
#
# **Line (5) backward** is the affine map of lesson 01. Element by element, with h for $h_{t-1}$ and W for $W_h$:
#
# $$
# \text{gates}_{nk} = \sum_{j} h_{nj} W_{jk} + \ldots
# $$
#
# One $h_{nj}$ is used for all k, and one $W_{jk}$ is used for all captions n. By rule 4
#
# $$
# dh_{nj} = \sum_{k} d\text{gates}_{nk} W_{jk}, \quad dW_{jk} = \sum_{n} h_{nj} \, d\text{gates}_{nk}.
# $$
#
# As matrix products:
#
# | array | receives |
# |---|---|
# | $h_{t-1}$ | $d\text{gates}_t W_h^{\top}$ |
# | $x_t$ | $d\text{gates}_t W_x^{\top}$ |
# | $W_h$ | $h_{t-1}^{\top} d\text{gates}_t$ |
# | $W_x$ | $x_t^{\top} d\text{gates}_t$ |
# | $b$ | the sum of $d\text{gates}_t$ over n |
#
# The shapes allow no other order: (N, 4H) times (4H, H) is (N, H), and (H, N) times (N, 4H) is (H, 4H).
#
# **The users of $W_h$.** All T steps use the same $W_h$. By rule 4, $dW_h$ is the sum of the products of all steps. The
# product of each step is itself a sum over n, so the whole is one sum over all t and n. Stack the $h_{t-1}$ of all steps
# into one matrix `h_before` (T N, H), and the gradients of the gates into `dgates` (T N, 4H). Then one product after the
# loop replaces T products in it:
#
# $$
# dW_h = h_{\mathrm{before}}^{\top} \, d\text{gates}
# $$
#
# $dW_x$ is computed in the same way, and $dx$ needs nothing but `dgates`. Only what the step before waits for must be in the
# loop: the gradient of the gates, $dc_{t-1}$ and $dh_{t-1}$.
#
# ## Predict
#
# How many matrix products does the loop of a backward pass through T = 20 steps need if it is written so? And how many if
# $dh$, $dx$, $dW_x$ and $dW_h$ are all computed in the loop?
#
# ## Run


# %%
def forward(x, h, c, W_x, W_h, b):
    """x (T, N, M), h (N, H), c (N, H) -> h of all steps (T, N, H), what the backward pass needs"""
    T, N, M = x.shape
    word_gates = (x.reshape(T * N, M) @ W_x + b).reshape(T, N, -1)
    hs, h_before, cells = [], [], []
    for t in range(T):
        h_before.append(h)
        (h, c), cell = lstm_cell_forward(word_gates[t] + h @ W_h, c)
        hs.append(h)
        cells.append(cell)
    return np.stack(hs), (x, W_x, W_h, np.stack(h_before), cells)


print("forward is the loop of lesson 05; it also keeps h_(t-1) and the cache of each step")


# %%
def backward(dh_out, cache, cell_backward=lstm_cell_backward):
    """dh_out (T, N, H) -> gradients in the order of forward's arguments: dx, dh, dc, dW_x, dW_h, db"""
    x, W_x, W_h, h_before, cells = cache
    T, N, M = x.shape
    dgates = [None] * T
    dh = dc = np.zeros(dh_out.shape[1:])  # nothing comes after the last step
    for t in reversed(range(T)):
        dgates[t], dc = cell_backward((dh_out[t] + dh, dc), cells[t])  # dc is now that of c_(t-1)
        dh = dgates[t] @ W_h.T  # that of h_(t-1), from line (5)
    dgates = np.concatenate(dgates)  # (T N, 4H)
    dx = (dgates @ W_x.T).reshape(x.shape)
    dW_x = x.reshape(T * N, M).T @ dgates
    dW_h = h_before.reshape(T * N, -1).T @ dgates
    return dx, dh, dc, dW_x, dW_h, dgates.sum(axis=0)


print("in the loop: one product a step; after the loop: three")

# %% [markdown]
# So there are 20 products in the loop and 3 after it, instead of 80 in the loop. The $dh$ and $dc$ that remain after the
# loop belong to the initial state. They go on into the layers that computed it (in the captioner, from the mean over the
# locations of the photo).
#
# Two time steps as a drawing. The lines of a step are joined into three boxes: `gates`, c and h. Step 0 has `words[0]` for
# $x_0 W_x + b$, `f_0` for f, and `slope_0` for $1 - t_c^2$. `ifg_0` and `only_o_0` are the rest of the backward pass of a
# step: the first turns $dc$ into the gradient of the gates i, f and g, the second turns $dh$ into that of o. $W_h$, $h_0$
# and $c_0$ have two users each, so two dashed arrows arrive at each of them (at $h_0$ one is the output layer's, "from
# later"). The two arrows at `gates` fill different blocks.

# %%
N, M, H = 2, 3, 5
inputs = [rng.standard_normal(size) for size in ((2, N, M), (N, H), (N, H), (M, 4 * H), (H, 4 * H), (4 * H,))]
dh_out, zero = rng.standard_normal((2, N, H)), np.zeros((N, H))
hs, cache = forward(*inputs)
_, dh, dc, _, dW_h, _ = backward(dh_out, cache)
(x, h_init, c_init, W_x, W_h, b), cells = inputs, cache[-1]
values = {"words": x @ W_x + b, "W_h": W_h, "h_init": h_init, "c_init": c_init, "h_0": hs[0], "h_1": hs[1],
          "dW_h": dW_h, "dh_init": dh, "dc_init": dc}  # fmt: skip
steps = []
for t, h, c in ((0, "h_init", "c_init"), (1, "h_0", "c_0")):
    values |= {f"{name}_{t}": getattr(cells[t], name) for name in "ifog"} | {f"slope_{t}": 1 - cells[t].tanh_c ** 2}
    values[f"ifg_{t}"] = lambda dc, cell=cells[t]: lstm_cell_backward((zero, dc), cell)[0]
    values[f"only_o_{t}"] = lambda dh, y=cells[t]: np.pad(dh * y.tanh_c * y.o * (1 - y.o), ((0, 0), (2 * H, H)))
    steps += [
        (f"gates_{t}", f"words[{t}] + {h} @ W_h", {h: f"dgates_{t} @ W_h.T", "W_h": f"{h}.T @ dgates_{t}"}),
        (f"c_{t}", f"f_{t} * {c} + i_{t} * g_{t}", {c: f"dc_{t} * f_{t}", f"gates_{t}": f"ifg_{t}(dc_{t})"}),
        (f"h_{t}", f"o_{t} * np.tanh(c_{t})", {
            f"c_{t}": f"dh_{t} * o_{t} * slope_{t}", f"gates_{t}": f"only_o_{t}(dh_{t})"}),
    ]  # fmt: skip
see = "W_h gets one gradient from each step; the one of c goes back through f alone"
graph("06_two_steps", steps, values, {"N": N, "H": H}, {"h_0": dh_out[0], "h_1": dh_out[1]}, see)

# %% [markdown]
# Now all six gradients against the complex step. No two sizes are equal, so that a transposed or exchanged axis cannot pass
# unnoticed.

# %%
T, N, M, H = 6, 3, 5, 4
names = "x", "h0", "c0", "W_x", "W_h", "b"
shapes = (T, N, M), (N, H), (N, H), (M, 4 * H), (H, 4 * H), (4 * H,)
inputs = [rng.standard_normal(shape) for shape in shapes]
dh_out = rng.standard_normal((T, N, H))


def J(*inputs):
    return (forward(*inputs)[0] * dh_out).sum()


def by_complex_step(J, inputs):
    """The gradient of J with respect to each input, one element at a time."""
    return [numeric_gradient(lambda x, k=k: J(*inputs[:k], x, *inputs[k + 1 :]), inputs[k]) for k in range(len(inputs))]


wanted = by_complex_step(J, inputs)
print("complex steps:", sum(x.size for x in inputs))

# %%
_, cache = forward(*inputs)
found = backward(dh_out, cache)
for name, ours, number in zip(names, found, wanted, strict=True):
    near(f"d{name:3} {ours.shape!s:12}", ours, number, within=1e-12)

# %% [markdown]
# And the statement that one product after the loop equals the sum of the products of all steps:

# %%
x, W_x, W_h, h_before, cells = cache
dgates, dh, dc = [None] * T, np.zeros((N, H)), np.zeros((N, H))
slow = np.zeros_like(W_h)
for t in reversed(range(T)):
    dgates[t], dc = lstm_cell_backward((dh_out[t] + dh, dc), cells[t])
    dh = dgates[t] @ W_h.T
    slow += h_before[t].T @ dgates[t]
near("dW_h, step by step", slow, found[4], within=1e-14)

# %% [markdown]
# ## Look
#
# How far back does a gradient reach? We give the last step a random gradient, all other steps none, and plot its norm on
# its way back. It has two paths. The first is the path of the cell: $dc_{t-1} = dc_t \odot f$, once a step. With a bias of
# 0 a forget gate is near 1/2, and $2^{-40}$ is 1e-12. With a bias of 1, f = 0.731; with a bias of 3, f = 0.953, and
# $f^{40} = 0.14$. The second path goes through the gates and $W_h^{\top}$ to $h_{t-1}$, and from there to the cell again.
#
# We compare it with a plain recurrent network, $h_t = \tanh(x_t W_x + h_{t-1} W_h)$. Its gradient passes through a tanh and
# through $W_h^{\top}$ at each step: $dh_{t-1} = (dh_t \odot (1 - h_t^2)) W_h^{\top}$. In all four networks (three biases
# and the plain one) the weights are normal random numbers divided by the square root of the number of rows of their matrix.
#
# **Predict.** With which of the biases 0, 1 and 3 does the LSTM lose the gradient as fast as the plain network does? What is
# left of the gradient after 40 steps with bias 3: less than the 0.14 of the cell's path, as much, or more?

# %%
T, N, M, H = 41, 8, 7, 16
x = rng.standard_normal((T, N, M))
W_x, W_h = rng.standard_normal((M, 4 * H)) / np.sqrt(M), rng.standard_normal((H, 4 * H)) / np.sqrt(H)
last, W_plain = rng.standard_normal((N, H)), rng.standard_normal((H, H)) / np.sqrt(H)
print("norm of the gradient that comes in at the last step:", round(np.linalg.norm(last), 2))


# %%
def lstm_sizes(forget_bias):
    """Norm of the gradient of (h, c) k steps before the last, k = 0, 1, ...; the same along the path of the cell alone"""
    b = np.zeros(4 * H)
    b[H : 2 * H] = forget_bias
    _, (_, _, _, _, cells) = forward(x, np.zeros((N, H)), np.zeros((N, H)), W_x, W_h, b)
    dh, dc, alone, sizes = last, last, last, []
    for cell in reversed(cells):
        sizes.append([np.sqrt((dh * dh + dc * dc).sum()), np.linalg.norm(alone)])
        dgates, dc = lstm_cell_backward((dh, dc), cell)
        dh, alone = dgates @ W_h.T, alone * cell.f
    return np.transpose(sizes)


for bias in (0, 1, 3):
    f = 1 / (1 + np.exp(-bias))
    print(f"bias {bias}: f {f:.3f}, after 10 steps {f**10:.1e}, after 40 steps {f**40:.1e}")


# %%
def plain_sizes():
    h, states, sizes = np.zeros((N, H)), [], []
    for t in range(T):
        h = np.tanh(x[t] @ W_x[:, :H] + h @ W_plain)
        states.append(h)
    dh = last
    for h in reversed(states):
        sizes.append(np.sqrt((dh * dh).sum()))
        dh = (dh * (1 - h * h)) @ W_plain.T
    return np.array(sizes)


curves = {}
for bias in (3, 1, 0):
    curves[f"LSTM, forget bias {bias}"], curves[f"bias {bias}, cell's path alone"] = lstm_sizes(bias)
curves["plain network"] = plain_sizes()
print("left after                 10 steps   40 steps")
for name, sizes in curves.items():
    print(f"{name:25} {sizes[10] / sizes[0]:10.1e} {sizes[40] / sizes[0]:10.1e}")

# %%
figure = Figure(figsize=(7, 4.5))
axis = figure.subplots()
for (name, sizes), style in zip(curves.items(), ("C0", "C0:", "C1", "C1:", "C2", "C2:", "C3--"), strict=True):
    axis.semilogy(sizes / sizes[0], style, label=name)
axis.set_xlabel("distance from the last step (steps)")
axis.set_ylabel("norm of the gradient (1 at the last step)")
axis.legend()
see = "only with forget bias 3 does the gradient reach the first step; dotted, along the path of the cell alone"
save(figure, "06_reach", see)

# %% [markdown]
# With bias 0 the LSTM loses the gradient about as fast as the plain network: 2e-8 and 3e-8 are left after 40 steps. A cell
# by itself does not help; the forget gates must be open, by their bias or by training. With bias 3 the path of the cell
# alone keeps 0.06 of the gradient, not 0.14: the gates vary with the words, and a product loses more by a small f than it
# gains by a large one. But the gradient that comes through $W_h^{\top}$ is added to $dc$ at each step. With both paths
# 0.74 is left.

# %% [markdown]
# ## Break it
#
# Three mistakes, each planted by hand in the backward pass of the step:
#
# - `c lost`: what comes from the next step is dropped (the first term of $dc$).
# - `i, g swapped`: the gradients of i and g are written to each other's columns.
# - `no tanh'`: the factor $1 - t_c^2$ is forgotten.
#
# We measure the error of a gradient g against the complex step's n by $|g - n| / \max(|n|, G / 1000)$, where $|\cdot|$ is
# the norm of the whole array and G the largest $|n|$ of the check (lesson 07b says why).
#
# **Predict** which of them cannot be seen by a check that runs a sequence of ONE step. (At the last step
# $dc_{\mathrm{next}}$ is zero.)


# %%
def c_lost(dout, cache):
    dh, dc = dout
    return lstm_cell_backward((dh, 0 * dc), cache)


def swapped(dout, cache):
    dgates, dc_prev = lstm_cell_backward(dout, cache)
    i, f, o, g = np.split(dgates, 4, axis=1)
    return np.concatenate([g, f, o, i], axis=1), dc_prev


def no_tanh(dout, cache):
    (dh, dc), (c_prev, i, f, o, g, tanh_c) = dout, cache
    dc = dc + dh * o
    parts = dc * g * i * (1 - i), dc * c_prev * f * (1 - f), dh * tanh_c * o * (1 - o), dc * i * (1 - g * g)
    return np.concatenate(parts, axis=1), dc * f


mistakes = {"none": lstm_cell_backward, "c lost": c_lost, "i, g swapped": swapped, "no tanh'": no_tanh}
print("planted:", ", ".join(mistakes))


# %%
def errors(T):
    """The error of each gradient under each mistake, for the first T steps."""
    some = [inputs[0][:T], *inputs[1:]]
    wanted = by_complex_step(lambda *a: (forward(*a)[0] * dh_out[:T]).sum(), some)
    scale = max(np.linalg.norm(n) for n in wanted)
    print(f"T = {T}        " + "".join(f"{'d' + name:>10}" for name in names))
    for mistake, cell_backward in mistakes.items():
        found = backward(dh_out[:T], forward(*some)[1], cell_backward)
        found = [relative_error(g, n, scale) for g, n in zip(found, wanted, strict=True)]
        print(f"{mistake:13}" + "".join(f"{error:10.0e}" for error in found))
        yield mistake, max(found)


one, six = dict(errors(1)), dict(errors(6))
assert one["c lost"] < 1e-12 < 1e-2 < six["c lost"] and six["none"] < 1e-12
assert min(six["i, g swapped"], six["no tanh'"], one["i, g swapped"], one["no tanh'"]) > 1e-2

# %% [markdown]
# With one step `c lost` passes: there is no step t+1 whose gradient could be lost. A check through time needs at least two
# steps; with three there is also a step that has one before it and one after it. (And with one step dc0 does not show the
# exchange of i and g, because $dc_{\mathrm{prev}} = dc \odot f$ contains neither.)
#
# Would training have shown the mistakes? Let $g$ now be the right gradient, $\tilde{g}$ a wrong one and $\eta$ a small
# learning rate. A step of $-\eta \tilde{g}$ changes J by about $-\eta \sum \tilde{g} g$. J falls as long as this sum is
# positive, that is, as long as the angle between the two is below 90 degrees. We take the six gradients together as one
# long vector:

# %%
right = np.concatenate([g.ravel() for g in found])
for mistake, cell_backward in mistakes.items():
    wrong = np.concatenate([g.ravel() for g in backward(dh_out, forward(*inputs)[1], cell_backward)])
    cosine = wrong @ right / np.linalg.norm(wrong) / np.linalg.norm(right)
    print(f"{mistake:13} {np.degrees(np.arccos(min(cosine, 1))):5.1f} degrees from the right direction")

# %% [markdown]
# All angles are below 90 degrees, so a small step lowers the loss under each of these mistakes, but by less than a step of
# the same length along the right gradient. A falling loss is no proof of a right gradient; a gradient check is needed.
#
# `diagnose` (lesson 02) compares a wrong gradient with the right one and describes the difference. What will it
# say of the exchanged gates? H is 4, so the blocks of i, f, o and g are the columns 0-3, 4-7, 8-11 and 12-15.

# %%
some = rng.standard_normal((3, 16)), rng.standard_normal((3, 4))
_, cache = lstm_cell_forward(*some)
wanted = numeric_gradient(lambda x: J_of_step(x, some[1]), some[0])
for mistake in ("i, g swapped", "no tanh'"):
    finding = diagnose("dgates", mistakes[mistake]((R_h, R_c), cache)[0], wanted)
    print(mistake, *finding.sentence.split("; "), sep="\n    ")

# %% [markdown]
# Columns 0-3 and 12-15 are the two gates, i and g. Without the factor of tanh all blocks but that of o are wrong:
# $do = dh \odot t_c$ is the only one that does not depend on $dc$.
#
# satnp keeps a table of such mistakes, `satnp.proof.bugs`, and plants them in its own source. Three of them belong to the
# LSTM (here H = 5, so a block has 5 columns):

# %%
for bug in bugs.BUGS:
    if bug.case == "layers/lstm_cell":
        result = bugs.check(bug)
        print(f"{bug.name}: {'passed' if result.passed else 'caught'}\n  {bug.old}  ->  {bug.new}")
        for finding in result.findings:
            print("   ", finding.sentence.partition("; ")[0])
        assert not result.passed

# %% [markdown]
# ## Exercises
#
# 1. With pencil and paper: all pre-activations are 0, $c_{\mathrm{prev}} = 0.5$, $dh = 1$, $dc_{\mathrm{next}} = 0$. Then i,
#    f and o are one half and g = 0, so c = 0.25. Go through lines (4) to (1). Check with `lstm_cell_backward`: `dgates` is
#    (0, 0.0588, 0.0612, 0.2350), `dc_prev` is 0.2350.
# 2. Without looking at the listing above, write `my_cell_backward(dout, cache)` from the derivation, with
#    `c_prev, i, f, o, g, tanh_c = cache`. Check: `backward(dh_out, forward(*inputs)[1], my_cell_backward)` is within 1e-12
#    of `by_complex_step(J, inputs)`.
# 3. Let $h = o \odot c$, without the tanh (Vinyals et al. 2015, eq. 8). Which lines change? Write both passes for one step.
#    Check: below 1e-12 by the complex step, as under "Check by number" with your forward pass in `J_of_step`; and your $do$
#    is now $dh \odot c$.
# 4. A peephole: the forget gate also reads the cell, $f = \sigma(a_f + p \odot c_{\mathrm{prev}})$ with weights p (H,). So
#    $c_{\mathrm{prev}}$ has one more user. Derive $dc_{\mathrm{prev}}$ (two terms) and $dp$ (a sum over n). Check as in 3:
#    all three gradients below 1e-12.
# 5. Captions of different lengths: after the end of a caption its state stays as it is,
#    $h_t = m_t h_{\mathrm{new}} + (1 - m_t) h_{t-1}$, and c likewise. The mask m (T, N, 1) has ones and zeros, for
#    the lengths 6, 3 and 1. $h_{t-1}$ has one more user, and so has $c_{t-1}$. Derive $dh$ and $dc$. Check all six gradients
#    by `by_complex_step`, below 1e-12; and $dx$ of the steps after the end is exactly 0.
#
# ## Next
#
# Lesson 07: the words at both ends of the step. The input is a row of a table, the output is a probability for each word,
# and $dh^{\mathrm{out}}$, random in this lesson, comes from the loss of the words.
