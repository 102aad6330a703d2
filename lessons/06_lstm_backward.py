# %% [markdown]
# # 06 An LSTM backward, through time
#
# - time: 60 minutes
# - cpu: 5 seconds
# - before: 02, 05
# - equations: Xu et al. 2015, eqs. 1-3
# - about: satnp.layers.lstm_cell_backward
#
# To go back, take the lines of the forward pass in reverse. Each array gets the sum of what its users, the lines
# that read it, send back. The cell c has two users: h of its own step, and the cell one step later. That is all
# of "backpropagation through time".

# %%
import numpy as np
from kit import near, save, show
from matplotlib.figure import Figure

from satnp.layers import lstm, lstm_cell_backward, lstm_cell_forward
from satnp.proof import bugs
from satnp.proof.gradcheck import diagnose, numeric_gradient, relative_error

np.set_printoptions(precision=4, suppress=True, linewidth=80)
rng = np.random.default_rng(0)
print("ready")

# %% [markdown]
# ## The rules
#
# There is one number at the end, the loss J. For an array X write dX for the derivative of J with respect to
# X: an array of the shape of X. Each of its elements is the slope of J in the same element of X. Four rules are
# enough.
#
# 1. Chain rule. If y = u(x), element by element, then dx = dy * u'(x).
# 2. Sum. If y = a + b, then da = dy and db = dy.
# 3. Product. If y = a * b, element by element, then da = dy * b and db = dy * a.
# 4. Users. If X is used in several places, dX is the sum of what each place sends back.
#
# Rule 4 is the one that people lose. (Why a sum: nudge X by a little. Each use of X changes J by its own
# little, and to first order the changes add up.)
#
# Two slopes are needed. Both can be written with the result itself, which the forward pass has kept:
#
# - s = 1 / (1 + exp(-x)). Then ds/dx = exp(-x) / (1 + exp(-x))² = s * exp(-x) / (1 + exp(-x)) = s (1 - s),
#   because exp(-x) / (1 + exp(-x)) and s add up to 1.
# - t = tanh x = sinh x / cosh x, and each of sinh, cosh is the derivative of the other. By the quotient rule
#   dt/dx = (cosh² x - sinh² x) / cosh² x = 1 - t².
#
# ## One step, derived
#
# The forward pass of lesson 05 with a name for each line. a_i, a_f, a_o, a_g are the four blocks of `gates`,
# the numbers before the sigmoids and the tanh:
#
#     (1)  i = sigmoid(a_i),  f = sigmoid(a_f),  o = sigmoid(a_o),  g = tanh(a_g)
#     (2)  c = f * c_prev + i * g
#     (3)  tanh_c = tanh(c)
#     (4)  h = o * tanh_c
#
# The step backward is given `dh`, the sum of what all users of h send back, and `dc`, what the next step sends
# back to c (at the last step: zero). It must return dgates and dc_prev. Start at the bottom.
#
# **(4)** h = o * tanh_c is a product:
#
#     do      = dh * tanh_c
#     dtanh_c = dh * o
#
# **(3)** The chain rule through tanh gives what line (3) sends to c: dtanh_c * (1 - tanh_c²). But c has two
# users: line (3) here, and line (2) of the NEXT step, where it is called c_prev. Rule 4:
#
#     dc = dc + dh * o * (1 - tanh_c * tanh_c)
#
# The dc on the right came from the next step. The dc on the left is the whole.
#
# **(2)** c = f * c_prev + i * g is a sum of two products. Each product gets dc (rule 2), then rule 3 gives
#
#     df      = dc * c_prev
#     dc_prev = dc * f
#     di      = dc * g
#     dg      = dc * i
#
# **(1)** By rule 1, each times its slope:
#
#     da_i = di * i * (1 - i)
#     da_f = df * f * (1 - f)
#     da_o = do * o * (1 - o)
#     da_g = dg * (1 - g * g)
#
# dgates is these four side by side. dc_prev is what the step BEFORE will be given as its dc.
#
# ## Predict
#
# At the first step of a sequence let c_prev = 0, and draw all else at random. Look at the lines under (2) and
# (1). Of the four blocks of dgates one is exactly zero then. Which, and why?
#
# ## Run

# %%
N, H = 3, 4
gates, dh, dc = rng.standard_normal((N, 4 * H)), rng.standard_normal((N, H)), rng.standard_normal((N, H))
(h, c), cache = lstm_cell_forward(gates, np.zeros((N, H)))
dgates, dc_prev = lstm_cell_backward((dh, dc), cache)
for name, block in zip("ifog", np.split(dgates, 4, axis=1), strict=True):
    print(f"|da_{name}| = {np.linalg.norm(block):.4f}")

# %% [markdown]
# The forget gate: df = dc * c_prev, and there is nothing to forget yet. A caption's first step cannot teach
# the forget gate anything, unless c_0 is made of the photo, as in Show, Attend and Tell.
#
# Here is the real code. Find each line of the derivation. There are two functions: the first cuts dgates
# into its four blocks and hands them over as the places to write to (`out=`), the second is the arithmetic.
# (`xp_of(dc)` is NumPy here. `cache` holds c_prev, i, f, o, g and tanh_c, in this order.)

# %%
show(lstm_cell_backward)
show(lstm._cell_gradient)

# %% [markdown]
# ### With numbers that fit on a page
#
# One caption, one unit. Each line is computed by itself; then the real function must say the same.

# %%
a_i, a_f, a_o, a_g, c_prev = 0.5, 1.0, -0.3, 0.8, 2.0
dh, dc = 1.0, 0.25
i, f, o = (1 / (1 + np.exp(-a)) for a in (a_i, a_f, a_o))
g = np.tanh(a_g)
c = f * c_prev + i * g
tanh_c = np.tanh(c)
print(f"forward   i {i:.4f}  f {f:.4f}  o {o:.4f}  g {g:.4f}  c {c:.4f}  h {o * tanh_c:.4f}")

# %%
do = dh * tanh_c
dc_whole = dc + dh * o * (1 - tanh_c * tanh_c)
df, dc_before, di, dg = dc_whole * c_prev, dc_whole * f, dc_whole * g, dc_whole * i
by_hand = np.array([[di * i * (1 - i), df * f * (1 - f), do * o * (1 - o), dg * (1 - g * g)]])
print(f"dc        {dc} from the next step + {dc_whole - dc:.4f} through h = {dc_whole:.4f}")
print("dgates   ", by_hand[0], f" dc_prev {dc_before:.4f}")

# %%
_, cache = lstm_cell_forward(np.array([[a_i, a_f, a_o, a_g]]), np.array([[c_prev]]))
dgates, dc_prev = lstm_cell_backward((np.array([[dh]]), np.array([[dc]])), cache)
near("dgates of the real function", dgates, by_hand, within=1e-14)
near("dc_prev of the real function", dc_prev, [[dc_before]], within=1e-14)

# %% [markdown]
# ## Check by number
#
# The derivation and the code could share a mistake. The complex step of lesson 02 knows nothing of either: it
# nudges one element of the input by 1e-30 times the imaginary unit and looks at the imaginary part of J. What
# is J here? A step has two outputs, h and c. Let R_h and R_c be random arrays of their shapes and
#
#     J = sum(h * R_h) + sum(c * R_c)
#
# Then dJ/dh = R_h and dJ/dc = R_c: we hand these two to the backward pass. Random, not ones and not zero: with
# R_c = 0 the first of the two parts of dc could be missing and nobody would see.

# %%
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
# Now T steps. Forward, for t = 0 ... T-1 (x is (T, N, M): the words; h_(-1) and c_(-1) are the initial state):
#
#     (5)  gates_t = x_t W_x + h_(t-1) W_h + b
#     (6)  h_t, c_t = step(gates_t, c_(t-1))
#
# and every h_t is used by the output layer, which says from it what the next word is. What that layer sends
# back we call dh_out[t]. In this lesson it is a random array: J = sum over t of sum(h_t * dh_out[t]).
#
# **The users of h_t.** The output layer at t, and line (5) of step t+1. So dh at step t is a sum of two:
#
#     dh_t = dh_out[t] + (what line (5) of step t+1 sends back)
#
# In the whole captioner there are four: attention and the gate beta also look at h_t when step t+1 begins
# (lessons 08 to 10). Each is one more term of this sum.
#
# **The users of c_t.** tanh in step t, and line (2) of step t+1. Also two; the step function adds them up.
#
# **Line (5) backward** is the affine map of lesson 01. Element by element, with h for h_(t-1) and W for W_h:
# gates[n, k] = sum_j h[n, j] W[j, k] + ... An h[n, j] is used for all k, so
# dh[n, j] = sum_k dgates[n, k] W[j, k]. A W[j, k] is used for all captions n, so
# dW[j, k] = sum_n h[n, j] dgates[n, k]. As matrices (^T is the transpose, .T in NumPy):
#
#     dh_(t-1) gets  dgates_t W_h^T              dx_t = dgates_t W_x^T
#     dW_h gets      h_(t-1)^T dgates_t          dW_x gets x_t^T dgates_t          db gets the sum over n of dgates_t
#
# The shapes leave no choice: (N, 4H) times (4H, H) is (N, H); (H, N) times (N, 4H) is (H, 4H).
#
# **The users of W_h.** All T steps use the same W_h. Rule 4 once more: dW_h is the sum over t. Each step's
# product is itself a sum over n, so this is one sum over all t and n. Put the h_(t-1) of all steps under each
# other, (T N, H), and the dgates too, (T N, 4H):
#
#     dW_h = h_before^T dgates        one product for all steps, after the loop
#
# dW_x is formed in the same way, and dx needs nothing but dgates. Only what the step before waits for must be
# in the loop: dgates_t, dc_(t-1) and dh_(t-1).
#
# ## Predict
#
# How many matrix products does the loop of a backward pass through T = 20 steps take, if it is written so? And
# how many if dh, dx, dW_x and dW_h are all formed in the loop?
#
# ## Run


# %%
def forward(x, h, c, W_x, W_h, b):
    """x (T, N, M), h (N, H), c (N, H) -> h of all steps (T, N, H), what the way back needs"""
    T, N, M = x.shape
    word_gates = (x.reshape(T * N, M) @ W_x + b).reshape(T, N, -1)
    hs, h_before, cells = [], [], []
    for t in range(T):
        h_before.append(h)
        (h, c), cell = lstm_cell_forward(word_gates[t] + h @ W_h, c)
        hs.append(h)
        cells.append(cell)
    return np.stack(hs), (x, W_x, W_h, np.stack(h_before), cells)


print("forward is the loop of lesson 05, and keeps h_(t-1) and the cache of each step")


# %%
def backward(dh_out, cache, cell_backward=lstm_cell_backward):
    """dh_out (T, N, H) -> gradients in the order of forward's arguments: dx, dh, dc, dW_x, dW_h, db"""
    x, W_x, W_h, h_before, cells = cache
    T, N, M = x.shape
    dgates = [None] * T
    dh = dc = np.zeros(dh_out.shape[1:])  # nothing comes after the last step
    for t in reversed(range(T)):
        dgates[t], dc = cell_backward((dh_out[t] + dh, dc), cells[t])  # dc: now that of c_(t-1)
        dh = dgates[t] @ W_h.T  # that of h_(t-1), from line (5)
    dgates = np.concatenate(dgates)  # (T N, 4H)
    dx = (dgates @ W_x.T).reshape(x.shape)
    dW_x = x.reshape(T * N, M).T @ dgates
    dW_h = h_before.reshape(T * N, -1).T @ dgates
    return dx, dh, dc, dW_x, dW_h, dgates.sum(axis=0)


print("in the loop: one product. After it: three.")

# %% [markdown]
# So 20 in the loop and 3 after it, instead of 80 in the loop. What leaves the loop at its end, dh and dc,
# belongs to the initial state: it goes on into what made it (in the captioner that is the mean over the places
# of the photo).
#
# Now all six gradients against the complex step. No two sizes are equal, so that a transposed or swapped axis
# cannot go unseen.

# %%
T, N, M, H = 6, 3, 5, 4
names = "x", "h0", "c0", "W_x", "W_h", "b"
shapes = (T, N, M), (N, H), (N, H), (M, 4 * H), (H, 4 * H), (4 * H,)
inputs = [rng.standard_normal(shape) for shape in shapes]
dh_out = rng.standard_normal((T, N, H))


def J(*inputs):
    return (forward(*inputs)[0] * dh_out).sum()


def by_complex_step(J, inputs):
    """The gradient of J for each input, one element at a time."""
    return [numeric_gradient(lambda x, k=k: J(*inputs[:k], x, *inputs[k + 1 :]), inputs[k]) for k in range(len(inputs))]


wanted = by_complex_step(J, inputs)
print("nudged", sum(x.size for x in inputs), "elements, one at a time")

# %%
_, cache = forward(*inputs)
found = backward(dh_out, cache)
for name, ours, number in zip(names, found, wanted, strict=True):
    near(f"d{name:3} {ours.shape!s:12}", ours, number, within=1e-12)

# %% [markdown]
# And the claim that a sum of products is one product:

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
# How far back does a gradient reach? Send one in at the last step only and watch its size as it goes back. It
# has two ways back. The belt: dc_(t-1) = dc_t * f, once a step. A forget gate whose bias is 0 is at about one
# half, and 2^-40 is 1e-12; bias 1: f = 0.731; bias 3: f = 0.953, and 0.953^40 = 0.15. The other way goes
# through the gates and W_h^T into h_(t-1), and from there to the belt again.
#
# Beside it a plain network, h_t = tanh(x_t W_x + h_(t-1) W_h), whose gradient goes through a tanh and W_h^T at
# each step: dh_(t-1) = (dh_t * (1 - h_t²)) W_h^T. In all four networks (three biases and the plain one) the
# weights are normal numbers over the root of the rows of their matrix.
#
# **Predict** which of the biases 0, 1, 3 makes the LSTM forget as fast as the plain network, and what is left of
# the gradient after 40 steps with bias 3: less than the 0.15 of the belt, as much, or more?

# %%
T, N, M, H = 41, 8, 7, 16
x = rng.standard_normal((T, N, M))
W_x, W_h = rng.standard_normal((M, 4 * H)) / np.sqrt(M), rng.standard_normal((H, 4 * H)) / np.sqrt(H)
last, W_plain = rng.standard_normal((N, H)), rng.standard_normal((H, H)) / np.sqrt(H)
print("the gradient that comes in at the last step has size", round(np.linalg.norm(last), 2))


# %%
def lstm_sizes(forget_bias):
    """Size of what reaches (h, c) k steps before the last, k = 0, 1, ...; the same by the belt alone"""
    b = np.zeros(4 * H)
    b[H : 2 * H] = forget_bias
    _, (_, _, _, _, cells) = forward(x, np.zeros((N, H)), np.zeros((N, H)), W_x, W_h, b)
    dh, dc, belt, sizes = last, last, last, []
    for cell in reversed(cells):
        sizes.append([np.sqrt((dh * dh + dc * dc).sum()), np.linalg.norm(belt)])
        dgates, dc = lstm_cell_backward((dh, dc), cell)
        dh, belt = dgates @ W_h.T, belt * cell.f
    return np.transpose(sizes)


print(f"a factor of 1/2 a step: {0.5**10:.1e} after 10 steps, {0.5**40:.1e} after 40")


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
    curves[f"LSTM, forget bias {bias}"], curves[f"bias {bias}, belt alone"] = lstm_sizes(bias)
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
axis.set_ylabel("size of the gradient (share of the last step's)")
axis.legend()
save(figure, "06_reach", "only with forget bias 3 does the first step hear the last; dotted, what the belt alone brings")

# %% [markdown]
# An LSTM whose forget gates are half shut forgets about as fast as a plain network. The cell alone does not
# help: the gates must be open, by their bias or by training. The belt alone brings 0.09 with bias 3, not 0.15:
# the gates move about with the words, and a product loses more by a small f than it gains by a large one. But
# what comes through W_h is added to the belt at each step. Together they fall to one half at step 20 and are
# at 1.2 after 40: nothing is lost.

# %% [markdown]
# ## Break it
#
# Three mistakes that people make, each planted in the step by hand:
#
# - `c lost`: what comes from the next step is dropped (the first of the two parts of dc).
# - `i, g swapped`: di and dg are written to each other's columns.
# - `no tanh'`: the factor 1 - tanh_c² is forgotten.
#
# Each gradient g is held against the complex step's n by the error of lesson 02, |g - n| / max(|n|, G / 1000),
# with G the largest |n| of the check.
#
# **Predict** which of them a check that runs a sequence of ONE step will not see. (At the last step dc is
# zero.)


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
# One step does not see `c lost`: there is no step t+1 whose gradient could be lost. A check through time needs
# T of at least 2, better 3. (And dc0 of one step does not see the swap: dc_prev = dc * f has no i, no g in it.)
#
# Would training have told? A small step of -e times a wrong gradient changes J by -e * sum(wrong * right). That is
# downhill as long as the sum is positive, that is, the angle between the two is below 90 degrees. Take the six
# gradients together as one long vector:

# %%
right = np.concatenate([g.ravel() for g in found])
for mistake, cell_backward in mistakes.items():
    wrong = np.concatenate([g.ravel() for g in backward(dh_out, forward(*inputs)[1], cell_backward)])
    cosine = wrong @ right / np.linalg.norm(wrong) / np.linalg.norm(right)
    print(f"{mistake:13} {np.degrees(np.arccos(min(cosine, 1))):5.1f} degrees from the right direction")

# %% [markdown]
# All below 90: the loss goes down under each of these mistakes, only worse. Nobody notices without a check.
#
# `diagnose` (lesson 02) says what kind of wrong a gradient is. What will it say of the swapped gates? H is 4, so
# the blocks of i, f, o, g are the columns 0-3, 4-7, 8-11, 12-15.

# %%
some = rng.standard_normal((3, 16)), rng.standard_normal((3, 4))
_, cache = lstm_cell_forward(*some)
wanted = numeric_gradient(lambda x: J_of_step(x, some[1]), some[0])
for mistake in ("i, g swapped", "no tanh'"):
    finding = diagnose("dgates", mistakes[mistake]((R_h, R_c), cache)[0], wanted)
    print(mistake, *finding.sentence.split("; "), sep="\n    ")

# %% [markdown]
# Columns 0-3 and 12-15: the sentence names the two gates, i and g. Without tanh' all but the o block is wrong:
# do = dh * tanh_c is the only one that does not need dc.
#
# satnp keeps such mistakes in a table, `satnp.proof.bugs`, and plants them in its own source. Three of them live in
# the LSTM (here H = 5, so a block has 5 columns):

# %%
for bug in bugs.BUGS:
    if bug.case == "layers/lstm_cell":
        result = bugs.check(bug)
        print(f"{bug.name}: {'passed' if result.passed else 'caught'}")
        for finding in result.findings:
            print("   ", finding.sentence.partition("; ")[0])
        assert not result.passed

# %% [markdown]
# ## Exercises
#
# 1. Pencil: gates (0, 0, 0, 0), c_prev = 0.5, dh = 1, dc = 0. All gates are one half and g = 0, so c = 0.25. Go
#    through lines (4) to (1). Check with `lstm_cell_backward`: dgates = (0, 0.0588, 0.0612, 0.2350), dc_prev =
#    0.2350.
# 2. Close the listing above and write `my_cell_backward(dout, cache)` from the derivation, with
#    `c_prev, i, f, o, g, tanh_c = cache`. Check:
#    `backward(dh_out, forward(*inputs)[1], my_cell_backward)` is within 1e-12 of `by_complex_step(J, inputs)`.
# 3. h = o * c, without the tanh (Vinyals et al. 2015). Which lines change? Write both passes for one step.
#    Check: below 1e-12 by the complex step, as under "Check by number" with your forward in `J_of_step`; and
#    your do is now dh * c.
# 4. A peephole: the forget gate also sees the cell, f = sigmoid(a_f + p * c_prev) with weights p (H,). c_prev
#    has one user more. Derive dc_prev (two parts) and dp (a sum over n). Check as in 3: all three below 1e-12.
# 5. Captions of different lengths: after a caption has ended its state stands still,
#    h_t = m_t h_new + (1 - m_t) h_(t-1), and c alike, with a mask m (T, N, 1) of zeros and ones, for lengths 6, 3
#    and 1. h_(t-1) has one user more, and so has c_(t-1). Derive what dh and dc become. Check all six gradients
#    by `by_complex_step`, below 1e-12; and dx of the steps after the end is exactly 0.
#
# ## Next
#
# 07: the words at both ends of the step. What comes in is a row of a table, what goes out a probability for
# each word, and dh_out, random here, becomes what the words teach.
