# %% [markdown]
# # 19 Attention two ways in time
#
# - time: 90 minutes
# - cpu: 10 seconds
# - before: 06, 08, 09, 11
# - equations: Xu et al. 2015, eqs. 1-6; Lu et al. 2017, eqs. 6-8; Anderson et al. 2018, eqs. 1-7
# - about: satnp.captioners.top_down.cell_backward
#
# At each word a captioner with attention does two things: it updates its state with an LSTM, and it attends to the photo
# with a query that it makes from the state. Which comes first? Xu et al. attend first, with the old state. Lu et al.
# attend afterwards, with the new state. Anderson et al. use two LSTMs and attend between them. The layers are the same in
# all three. What changes is which value depends on which, and so the path of every gradient through time. In this lesson
# you write all three cells by hand, compare them with satnp's, and measure on what the attention of each order can depend.

# %% [markdown]
# The symbols are those of lessons 05 to 09: N captions, T words, L locations, D features, M numbers of a word's vector
# $E[y]$, H units, A attention units, V words in the vocabulary. In all three orders attention is the same function of a
# query $q$ (lessons 08 and 09; the vector $w$ is `v` in satnp's Show, Attend and Tell):
#
# $$
# \begin{aligned}
# e_i &= w \cdot \tanh(k_i + q) \\
# \alpha &= \operatorname{softmax}(e) \\
# z &= \sum_i \alpha_i a_i
# \end{aligned}
# $$
#
# with $k_i$ the key of location $i$, which depends only on the photo. $x_t$ is the part of the LSTM's gates that comes
# from the word $y_{t-1}$, that is $E[y_{t-1}] W_x + b$. Top-Down has two LSTMs, numbered above: $h^1_t$ and $h^2_t$. The
# three orders, without biases:
#
# | | Xu et al. 2015 | Lu et al. 2017 | Anderson et al. 2018 (Top-Down) |
# |---|---|---|---|
# | first | $q_t = h_{t-1} W_s$ | $h_t$ from $x_t, h_{t-1}$ | $h^1_t$ from $x_t, h^1_{t-1}, h^2_{t-1}$ |
# | then | $z_t$ from $q_t$ | $q_t = h_t W_g$ | $q_t = h^1_t W_s$, $z_t$ from $q_t$ |
# | last | $h_t$ from $x_t, h_{t-1}, z_t$ | $z_t$ from $q_t$ | $h^2_t$ from $z_t, h^1_t, h^2_{t-1}$ |
# | the word is predicted from | $h_t, z_t, y_{t-1}$ | $z_t + h_t$ | $h^2_t$ |
#
# Machine translation has the same choice: Bahdanau et al. (2015) attend with the old state, Luong et al. (2015) with the
# new one. Each cell below leaves out what has a lesson of its own: the gate $\beta$ of Xu et al. (lesson 10; here it is
# held open) and the sentinel of Lu et al. (lesson 20).

# %%
from textwrap import fill
from types import SimpleNamespace

import numpy as np
from kit import DATA, graph, near, show
from threadpoolctl import threadpool_limits

from satnp import load
from satnp.arrays.parameters import Parameters
from satnp.captioners import adaptive, top_down
from satnp.captioners import show_attend_tell as sat
from satnp.captioners.contract import Batch
from satnp.captioners.deferred import Deferred
from satnp.data.captions import pad, tokenise
from satnp.data.scenes import make_scenes, points
from satnp.layers import lstm_cell_backward, lstm_cell_forward, relu_forward, softmax, softmax_backward, softmax_forward
from satnp.proof import bugs
from satnp.proof.gradcheck import diagnose, numeric_gradient

threadpool_limits(1)  # small matrices: two threads would wait for each other
np.set_printoptions(precision=4, suppress=True, linewidth=78)
rng = np.random.default_rng(0)
N, T, L, D, M, H, A, V = 2, 4, 6, 5, 3, 7, 8, 9
SIZES = {"N": N, "T": T, "L": L, "D": D, "M": M, "H": H, "A": A}
annotations, captions = rng.standard_normal((N, L, D)), rng.integers(4, V, (N, T + 1))
batch = Batch(annotations, captions, np.ones((N, T)))
print(f"N {N} captions of T {T} words, L {L} locations, D {D}, H {H}, A {A}")

# %% [markdown]
# ## Predict
#
# A caption begins "a red circle". The network has just received the word "red" and will now predict "circle".
#
# 1. In which orders can the weights $\alpha_t$ of this step depend on the word "red"?
# 2. A caption has four words, which are given. Somebody changes $\alpha_2$, the weights of the second word, by hand. In
#    each order, which of the four words get other probabilities?
# 3. In one of the orders, attention can be computed for all words at once after the loop over time, when the captions are
#    given. In which one, and why not in the others?
#
# ## Run
#
# ### Three cells
#
# First attention itself, with its backward, as lesson 09 derived it. The gradient of the loss by $x$ is written $dx$, and
# so in the code: `dquery` is $dq$. `vectors` are the $a_i$. `nudge` is added to the scores; it is 0 until "Look".


# %%
def attend_forward(query, keys, vectors, w, nudge=0):
    """query (N, A), keys (N, L, A), vectors (N, L, D), w (A,) -> z (N, D), alpha (N, L), cache"""
    u = np.tanh(keys + query[:, None])
    alpha, softmax_cache = softmax_forward(u @ w + nudge)
    return np.matmul(alpha[:, None], vectors)[:, 0], alpha, (u, vectors, w, softmax_cache)


def attend_backward(dz, cache):
    """dz (N, D) -> dquery (N, A), and the gradients of keys, vectors and w"""
    u, vectors, w, softmax_cache = cache
    dalpha = (vectors * dz[:, None]).sum(axis=2)
    de = softmax_backward(dalpha, softmax_cache)
    dkeys = de[:, :, None] * w * (1 - u * u)
    return dkeys.sum(axis=1), dkeys, softmax_cache.alpha[:, :, None] * dz[:, None], (de[:, :, None] * u).sum(axis=(0, 1))


# %% [markdown]
# A cell is one step: word and state in, output and new state out. `out` is what the output layer reads, `state` is what
# the next step reads; a value may be in both. `step` is the cache.


# %%
def xu_forward(p, photo, x, state, nudge=0):
    h, c = state
    z, alpha, look = attend_forward(h @ p.W_s, photo.keys, photo.vectors, p.v, nudge)  # the query is made from h_{t-1}
    (h_new, c), cell = lstm_cell_forward(x + h @ p.W_h + z @ p.W_z, c)
    return (h_new, z), (h_new, c), alpha, (h, z, look, cell)


def lu_forward(p, photo, x, state, nudge=0):
    h, c = state
    (h_new, c), cell = lstm_cell_forward(x + h @ p.W_h, c)
    z, alpha, look = attend_forward(h_new @ p.W_g, photo.keys, photo.vectors, p.w, nudge)  # the query is made from h_t
    return (z + h_new,), (h_new, c), alpha, (h, h_new, look, cell)


def top_down_forward(p, photo, x, state, nudge=0):
    h1, c1, h2, c2 = state
    (h1_new, c1), cell1 = lstm_cell_forward(x + h1 @ p.W_h1 + h2 @ p.W_h2, c1)
    z, alpha, look = attend_forward(h1_new @ p.W_s, photo.keys, photo.vectors, p.w, nudge)
    (h2_new, c2), cell2 = lstm_cell_forward(z @ p.U_z + h1_new @ p.U_h1 + h2 @ p.U_h2 + p.b_2, c2)
    return (h2_new,), (h1_new, c1, h2_new, c2), alpha, (h1, h2, h1_new, z, look, cell1, cell2)


# %% [markdown]
# ### Backward, by hand
#
# The rule of lesson 11: the gradient of a value is the sum over all places that read it. So make a list of the readers.
#
# | value | is read by |
# |---|---|
# | Xu: $h_t$ | output $t$; query and LSTM of step $t+1$ |
# | Xu: $z_t$ | output and LSTM of step $t$ |
# | Lu: $h_t$ | output and query of step $t$; LSTM of step $t+1$ |
# | Lu: $z_t$ | output $t$ |
# | Top-Down: $h^1_t$ | query and second LSTM of step $t$; first LSTM of step $t+1$ |
# | Top-Down: $h^2_t$ | output $t$; both LSTMs of step $t+1$ |
# | Top-Down: $z_t$ | second LSTM of step $t$ |
#
# **Xu.** The backward of step $t$ begins with the LSTM. $d\mathrm{gates}_t$ comes from lesson 06, out of the sum
# $dh^{\mathrm{out}}_t + dh_t$, where $dh^{\mathrm{out}}_t$ comes from the output layer and $dh_t$ is what step $t+1$
# returned. Then
#
# $$
# \begin{aligned}
# dz_t &= dz^{\mathrm{out}}_t + d\mathrm{gates}_t W_z^\top \\
# dq_t &= \text{attention backward of } dz_t \\
# dh_{t-1} &= d\mathrm{gates}_t W_h^\top + dq_t W_s^\top
# \end{aligned}
# $$
#
# $dz_t$ contains $d\mathrm{gates}_t$, and $d\mathrm{gates}_t$ contains the losses of all later words. So the weights of
# step $t$ are trained by the losses of later words, too.
#
# **Lu.** Now attention is last in the forward pass, so it is first in the backward pass:
#
# $$
# \begin{aligned}
# dz_t &= d\mathrm{out}_t \\
# dq_t &= \text{attention backward of } dz_t \\
# dh_t &= d\mathrm{out}_t + dq_t W_g^\top + \text{(from step } t+1\text{)} \\
# d\mathrm{gates}_t &= \text{LSTM backward of } dh_t \\
# dh_{t-1} &= d\mathrm{gates}_t W_h^\top
# \end{aligned}
# $$
#
# $dz_t$ contains the loss of word $t$ only. The query's gradient goes to $h_t$, before the LSTM's backward, and not to
# $h_{t-1}$, after it. This is the whole difference in code: one term is added one line earlier.
#
# **Top-Down.** Second LSTM, attention, first LSTM, in this order:
#
# $$
# \begin{aligned}
# dh^2_t &= d\mathrm{out}_t + \text{(from step } t+1\text{)} \\
# d\mathrm{gates}^2_t &= \text{LSTM backward of } dh^2_t \\
# dz_t &= d\mathrm{gates}^2_t U_z^\top \\
# dq_t &= \text{attention backward of } dz_t \\
# dh^1_t &= d\mathrm{gates}^2_t U_{h1}^\top + dq_t W_s^\top + \text{(from step } t+1\text{)} \\
# d\mathrm{gates}^1_t &= \text{LSTM backward of } dh^1_t \\
# dh^1_{t-1} &= d\mathrm{gates}^1_t W_{h1}^\top \\
# dh^2_{t-1} &= d\mathrm{gates}^1_t W_{h2}^\top + d\mathrm{gates}^2_t U_{h2}^\top
# \end{aligned}
# $$
#
# In the code, `g` collects the gradients of the weights, and `sums` those of the photo, which all steps share.


# %%
def look_backward(dz, look, sums):
    """Attention backward -> dquery; adds the gradients of w, the keys and the vectors to `sums`."""
    dquery, *others = attend_backward(dz, look)
    for name, gradient in zip(("keys", "vectors", "w"), others, strict=True):
        sums[name] = sums.get(name, 0) + gradient
    return dquery


def xu_backward(p, dout, dstate, step, g, sums):
    (dh_out, dz_out), (dh, dc), (h, z, look, cell) = dout, dstate, step
    dgates, dc = lstm_cell_backward((dh_out + dh, dc), cell)
    dz = dz_out + dgates @ p.W_z.T
    dquery = look_backward(dz, look, sums)
    g.add(W_h=h.T @ dgates, W_z=z.T @ dgates, W_s=h.T @ dquery)
    return dgates, (dgates @ p.W_h.T + dquery @ p.W_s.T, dc)


def lu_backward(p, dout, dstate, step, g, sums):
    (dout,), (dh, dc), (h, h_new, look, cell) = dout, dstate, step
    dquery = look_backward(dout, look, sums)
    dgates, dc = lstm_cell_backward((dout + dquery @ p.W_g.T + dh, dc), cell)
    g.add(W_h=h.T @ dgates, W_g=h_new.T @ dquery)
    return dgates, (dgates @ p.W_h.T, dc)


def top_down_backward(p, dout, dstate, step, g, sums):
    (dout,), (dh1, dc1, dh2, dc2), (h1, h2, h1_new, z, look, cell1, cell2) = dout, dstate, step
    dgates2, dc2 = lstm_cell_backward((dout + dh2, dc2), cell2)
    dquery = look_backward(dgates2 @ p.U_z.T, look, sums)
    dgates1, dc1 = lstm_cell_backward((dgates2 @ p.U_h1.T + dquery @ p.W_s.T + dh1, dc1), cell1)
    g.add(U_z=z.T @ dgates2, U_h1=h1_new.T @ dgates2, U_h2=h2.T @ dgates2, b_2=dgates2.sum(axis=0), W_s=h1_new.T @ dquery)
    g.add(W_h1=h1.T @ dgates1, W_h2=h2.T @ dgates1)
    return dgates1, (dgates1 @ p.W_h1.T, dc1, dgates1 @ p.W_h2.T + dgates2 @ p.U_h2.T, dc2)


# %% [markdown]
# satnp's cells have the same order of lines. The listing is Top-Down's; `deferred.product(d, x, "W")` returns $d W^\top$
# now and adds $x^\top d$ to the gradient of $W$ after the loop. `stacked` joins matrices that are multiplied together.

# %%
show(top_down.cell_backward)

# %% [markdown]
# ### Through time
#
# The loops are the same for all three cells. Around them, each order needs what is computed before the loop (the keys, the
# words, the first state) and the output layer after it. The loss is the mean over the captions of $-\sum_t \log p(y_t)$.
# `world` makes random weights and runs satnp's captioner with them. The lines below it give each order its own parts; you
# may skip them at a first reading.


# %%
def run(order, x=None, nudge=None):
    """Forward of all steps -> losses of the words (T,), alphas (T, N, L), and what the backward needs"""
    x, nudge = order.x if x is None else x, np.zeros((T, N, L)) if nudge is None else nudge
    state, outs, alphas, steps = order.state, [], [], []
    for t in range(T):
        out, state, alpha, step = order.forward(order.p, order.photo, x[t], state, nudge[t])
        outs.append(out)
        alphas.append(alpha)
        steps.append(step)
    outs = [np.stack(out) for out in zip(*outs, strict=True)]
    hidden, (W, b) = order.hidden(*outs), order.vocabulary
    p_words, wanted = softmax(hidden @ W + b), np.eye(V)[captions[:, 1:].T]
    douts = order.dhidden((p_words - wanted) @ W.T / N, hidden)  # softmax and cross-entropy, lesson 07
    return -np.log((p_words * wanted).sum(axis=2)).mean(axis=1), np.stack(alphas), (douts, state, steps)


def back(order, douts, state, steps, backward=None):
    """Backward of all steps -> dx (T, N, 4H), gradients of the weights, gradients of the photo"""
    g, sums, dx, dstate = order.p.zeros_like(), {}, [None] * T, tuple(np.zeros_like(s) for s in state)
    for t in reversed(range(T)):
        dx[t], dstate = (backward or order.backward)(order.p, [d[t] for d in douts], dstate, steps[t], g, sums)
    return np.stack(dx), g, sums


def world(module, **choices):
    """-> random parameters of satnp's captioner, its loss, its gradients, and E[y] W_x + b"""
    captioner = getattr(module, "captioner", module)
    config = module.Config(V=V, D=D, M=M, H=H, A=A, dropout=0.0, **choices)
    shapes = module.shapes(config)
    p = Parameters(shapes, flat=0.7 * rng.standard_normal(sum(int(np.prod(shape)) for shape in shapes.values())))
    if "b_beta" in shapes:
        p.b_beta[...], p.W_beta[...] = 50.0, 0.0  # the gate of lesson 10 is open: sigmoid(50) is 1.0 in float64
    loss, cache = captioner.forward(p, config, batch, captioner.Noise())
    g = p.zeros_like()
    captioner.backward(cache, g)
    return SimpleNamespace(config=config, p=p, loss=loss, g=g, x=p.E[captions[:, :-1].T] @ p.W_x + p.b, alphas=cache.alphas)


xu = world(sat, penalty=0.0)
p = xu.p
xu.photo = SimpleNamespace(keys=annotations @ p.W_a + p.b_a, vectors=annotations)
mean = annotations.mean(axis=1)
xu.state = np.tanh(mean @ p.W_h0 + p.b_h0), np.tanh(mean @ p.W_c0 + p.b_c0)
xu.hidden = lambda h, z, p=p: np.tanh(p.E[captions[:, :-1].T] + h @ p.L_h + z @ p.L_z + p.b_m)  # deep output, eq. 7
xu.dhidden = lambda d, hidden, p=p: [d * (1 - hidden**2) @ p.L_h.T, d * (1 - hidden**2) @ p.L_z.T]
xu.vocabulary, xu.forward, xu.backward = (p.L_o, p.b_o), xu_forward, xu_backward

lu = world(adaptive, sentinel=False)
p = lu.p
v, _ = relu_forward(annotations @ p.W_a + p.b_a)
lu.photo = SimpleNamespace(keys=v @ p.W_v, vectors=v)
lu.x += relu_forward(mean @ p.W_b + p.b_b)[0] @ p.W_vg  # the whole photo is an input of each step
top = world(top_down)
p = top.p
top.photo = SimpleNamespace(keys=annotations @ p.W_a + p.b_a, vectors=annotations)
top.x += mean @ p.W_v
for order, forward, backward, count in ((lu, lu_forward, lu_backward, 2), (top, top_down_forward, top_down_backward, 4)):
    order.state, order.forward, order.backward = (np.zeros((N, H)),) * count, forward, backward
    order.hidden, order.dhidden, order.vocabulary = lambda out: out, lambda d, _: [d], (order.p.W_p, order.p.b_p)

ORDERS = {"Xu": xu, "Lu": lu, "Top-Down": top}
for name, order in ORDERS.items():
    losses, alphas, _ = run(order)
    near(f"{name:8} loss   against satnp's", losses.sum(), order.loss)
    near(f"{name:8} alphas against satnp's", alphas, order.alphas)

# %% [markdown]
# ### Draw it
#
# One step of each order. `kit.graph` evaluates every formula in the drawing and compares it with the arrays of the code.
# The memory cells are not drawn. `lstm` is the LSTM with its memory from the step before, and `lstm_back` its backward,
# with the gradient of the memory from the step after. `scores` is $w \cdot \tanh(k + q)$, and `scores_back` its backward.
# `mix` is the weighted sum over the locations, and `dot` the products of a vector with those of all locations. For Xu the
# arrays are those of the cell above; for the other two they are those of satnp's own `cell_forward` and `cell_backward`.
# satnp divides Lu's step into two pairs: the cell makes $h_t$, and `attention_forward` makes `out` from it.

# %%
ATTEND = [
    ("alpha", "softmax(e)", {"e": "alpha * (dalpha - (alpha * dalpha).sum(1)[:, None])"}),
    ("z", "mix(alpha, a)", {"alpha": "dot(dz, a)"}),
]


def functions(query, photo, w, **cells):
    """What the formulas call: attention with this query, and each LSTM of `cells` {name: (memory before, its dc, cache)}"""
    u, found = np.tanh(photo.keys + query[:, None]), {}
    for name, (c_prev, dc, cache) in cells.items():
        found[name] = lambda gates, c_prev=c_prev: lstm_cell_forward(gates, c_prev)[0][0]
        found[f"{name}_back"] = lambda dh, dc=dc, cache=cache: lstm_cell_backward((dh, dc), cache)[0]
    return found | {
        "a": photo.vectors, "softmax": softmax, "scores": lambda q: np.tanh(photo.keys + q[:, None]) @ w,
        "scores_back": lambda de: (de[:, :, None] * w * (1 - u * u)).sum(axis=1),
        "mix": lambda alpha, a: np.einsum("nl,nld->nd", alpha, a), "dot": lambda dz, a: np.einsum("nd,nld->nl", dz, a),
    }  # fmt: skip


h_prev, c_prev, dh, dc, dout, h2_prev, c2, dc2 = rng.standard_normal((8, N, H))
p, x, dz = xu.p, xu.x[1], rng.standard_normal((N, D))
(h, z), _, alpha, step = xu_forward(p, xu.photo, x, (h_prev, c_prev))
dx, (dh_prev, _) = xu_backward(p, (0 * dh, dz), (dh, dc), step, p.zeros_like(), {})
graph("19_xu", [
    ("e", "scores(h_prev @ W_s)", {"h_prev": "scores_back(de) @ W_s.T"}),
    *ATTEND,
    ("gates", "x + h_prev @ W_h + z @ W_z", {"x": "dgates", "h_prev": "dgates @ W_h.T", "z": "dgates @ W_z.T"}),
    ("h", "lstm(gates)", {"gates": "lstm_back(dh)"}),
], dict(p.items()) | functions(h_prev @ p.W_s, xu.photo, p.v, lstm=(c_prev, dc, step[3])) | {
    "h_prev": h_prev, "x": x, "alpha": alpha, "z": z, "h": h, "dx": dx, "dh_prev": dh_prev,
}, SIZES, {"h": dh, "z": dz}, "Xu: two gradients leave for h_prev")  # fmt: skip

# %%
p, x, photo = lu.p, lu.x[1], adaptive.photo_forward(lu.p, lu.config, annotations)[0]
x_word = x - photo.gates  # satnp adds the photo's part of the gates itself
(h,), _, _, step = adaptive.cell_forward(p, lu.config, photo, x_word, (h_prev, c_prev))
(out,), alpha, attention = adaptive.attention_forward(p, lu.config, photo, (h,))
deferred = Deferred(p, p.zeros_like())
dh_out = adaptive.attention_backward(p, lu.config, (dout,), None, deferred, attention)
dx, (dh_prev, _) = adaptive.cell_backward(p, lu.config, dh_out, (dh, dc), None, step, deferred)
graph("19_lu", [
    ("gates", "x + h_prev @ W_h", {"x": "dgates", "h_prev": "dgates @ W_h.T"}),
    ("h", "lstm(gates)", {"gates": "lstm_back(dh)"}),
    ("e", "scores(h @ W_g)", {"h": "scores_back(de) @ W_g.T"}),
    *ATTEND,
    ("out", "z + h", {"z": "dout", "h": "dout"}),
], dict(p.items()) | functions(h @ p.W_g, lu.photo, p.w, lstm=(c_prev, dc, step.cell)) | {
    "h_prev": h_prev, "x": x, "alpha": alpha, "h": h, "out": out, "dx": dx, "dh_prev": dh_prev,
}, SIZES, {"h": dh, "out": dout}, "Lu: three gradients arrive at h, one leaves for h_prev")  # fmt: skip

# %%
p, x, photo = top.p, top.x[1], top_down.photo_forward(top.p, top.config, annotations)[0]
(h2,), (h1, *_), alpha, step = top_down.cell_forward(p, top.config, photo, x - photo.gates, (h_prev, c_prev, h2_prev, c2))
deferred, dstate = Deferred(p, p.zeros_like()), (dh, dc, 0 * dout, dc2)
dx, (dh1_prev, _, dh2_prev, _) = top_down.cell_backward(p, top.config, (dout,), dstate, None, step, deferred)
graph("19_top_down", [
    ("gates1", "x + h1_prev @ W_h1 + h2_prev @ W_h2",
     {"x": "dgates1", "h1_prev": "dgates1 @ W_h1.T", "h2_prev": "dgates1 @ W_h2.T"}),
    ("h1", "lstm1(gates1)", {"gates1": "lstm1_back(dh1)"}),
    ("e", "scores(h1 @ W_s)", {"h1": "scores_back(de) @ W_s.T"}),
    *ATTEND,
    ("gates2", "z @ U_z + h1 @ U_h1 + h2_prev @ U_h2 + b_2",
     {"z": "dgates2 @ U_z.T", "h1": "dgates2 @ U_h1.T", "h2_prev": "dgates2 @ U_h2.T"}),
    ("h2", "lstm2(gates2)", {"gates2": "lstm2_back(dh2)"}),
], dict(p.items()) | functions(
    h1 @ p.W_s, top.photo, p.w, lstm1=(c_prev, dc, step.cell1), lstm2=(c2, dc2, step.cell2)
) | {
    "h1_prev": h_prev, "h2_prev": h2_prev, "x": x, "alpha": alpha, "h1": h1, "h2": h2,
    "dx": dx, "dh1_prev": dh1_prev, "dh2_prev": dh2_prev,
}, SIZES, {"h1": dh, "h2": dout}, "Top-Down: h1 and h2_prev are each read twice in one step")  # fmt: skip

# %% [markdown]
# Compare the arrows at `h_prev` and `h`. In Xu's step two gradients leave for `h_prev`: one from the LSTM, one from the
# query. In Lu's step only one leaves, because the query is made from the new `h`, where three gradients are added up before
# the LSTM's backward begins: from the output, from the query, and from the next step. In Top-Down both things happen: `h1`
# is read twice in its own step, `h2_prev` twice in the step after its own.

# %% [markdown]
# ## Look
#
# ### What do the weights depend on, and what depends on them?
#
# Two tables of derivatives for each order, by complex step. The first: how much do the weights of step $t$ (row) change
# with the word that is read at step $s$ (column)? The second: how much does the loss of word $t$ (row) change when the
# scores of step $s$ (column) change? A dot is an exact 0: there is no path.


# %%
def reach(order):
    """-> |d alphas_t / d x_s| and |d loss_t / d scores_s|, each (T, T), along one random direction at each s"""
    tables = np.zeros((2, T, T))
    for s in range(T):
        x, nudge = order.x.astype(complex), np.zeros((T, N, L), complex)
        x[s] += 1e-30j * np.random.default_rng(1).standard_normal(x[s].shape)
        tables[0, :, s] = np.linalg.norm(run(order, x)[1].imag / 1e-30, axis=(1, 2))
        nudge[s] += 1e-30j * np.random.default_rng(2).standard_normal((N, L))
        tables[1, :, s] = np.abs(run(order, nudge=nudge)[0].imag / 1e-30)
    return tables


tables = {name: reach(order) for name, order in ORDERS.items()}
for k, title in enumerate(("weights of step t (row) by word read at s", "loss of word t (row) by scores of step s")):
    print(title)
    print("   ".join(f"{name:>24}" for name in ORDERS))
    for t in range(T):
        rows = ("".join(f"{x:6.3f}" if x else "     ." for x in found[k, t]) for found in tables.values())
        print("   ".join(f"{row:24}" for row in rows).rstrip())

# %% [markdown]
# The first table answers the first question. In Xu's order the diagonal is 0: when $\alpha_t$ is computed, the word that
# step $t$ reads has not yet gone through the LSTM. The query of the step that predicts "circle" depends on "a", but not on
# "red". In the other two orders the query depends on all words up to the last one.
#
# The second table answers the second question (column 2). In Lu's order the table is diagonal: $z_t$ goes to the output
# only, so $\alpha_2$ changes the second word and no other. In Xu's order and in Top-Down $z_t$ enters a state, so the third
# and the fourth word change, too.
#
# So in Lu's order the query depends on one more word than in Xu's, and the state does not depend on the contexts $z$.
# Top-Down has both paths, at the price of a second LSTM.

# %% [markdown]
# ### What can be computed outside of the loop
#
# Whatever does not depend on the state of the step before is one product over all steps, before or after the loop.
#
# | | before the loop | after the loop |
# |---|---|---|
# | Xu | keys, $E[y] W_x + b$ | output layer |
# | Lu | keys, $E[y] W_x + b$ and the photo's gates | queries, scores, weights, contexts, output layer |
# | Top-Down | keys, $E[y] W_x + b$ and the photo's gates | output layer |
#
# In Lu's order the loop over time is a bare LSTM, because no $z_t$ enters it. This is the answer to the third question. In
# Top-Down $h^1_t$ needs $h^2_{t-1}$, which needs $z_{t-1}$, so nothing can be taken out. In the backward pass all *weight*
# gradients are products over all steps, in each of the orders: `deferred` in the listing. satnp's `adaptive` attends after
# the loop: in training, its `attention_forward` gets the $h_t$ of all steps at once. In decoding it gets those of one step,
# because $h_t$ must wait for the word $y_{t-1}$. In exercise 4 you write such a function yourself.
#
# ### Where they look
#
# Three trained captioners of rendered scenes: Xu's order is the decoder of `scenes.npz`, Lu's (with the sentinel of lesson
# 20) and Top-Down were trained on the same encoder (`lessons/data/README.md`). Each is given the true captions of 200
# unseen scenes. For each noun, such as "circle" in "a red circle", take the location with the largest weight. Is it on the
# object? The numbers are the share of the nouns for which it is, with the weights of the steps before, at and after the
# noun. The last column is the loss per word.


# %%
def trained(name):
    """A trained decoder in half precision -> its config and its parameters"""
    file, module = np.load(DATA / f"{name}.npz"), {"adaptive": adaptive, "top_down": top_down}[name]
    config = module.Config(**{field: value.item() for field, value in file.items() if field != "flat"})
    return module.captioner, config, Parameters(module.shapes(config), flat=file["flat"].astype(np.float32))


model = load(DATA / "scenes.npz")
scenes = make_scenes(200, "test", 0)
true_captions = [scene.captions[0] for scene in scenes]
ids, mask = pad([model.vocabulary.encode(tokenise(caption)) for caption in true_captions])
seen = Batch(model.annotate(np.stack([scene.image for scene in scenes])), ids, mask)
print(f"{'':10}two before  one before  at the noun  one after   nats a word")
for name, (captioner, config, p) in {
    "Xu": (sat, model.config, model.params.part("decoder")), "Lu": trained("adaptive"), "Top-Down": trained("top_down"),
}.items():  # fmt: skip
    loss, cache = captioner.forward(p, config, seen, captioner.Noise())
    alphas, shares = np.asarray(cache.alphas).transpose(1, 0, 2), []
    for offset in (-2, -1, 0, 1):
        found = [points(caption, np.roll(alpha, -offset, axis=0), model.grid, scene)
                 for caption, alpha, scene in zip(true_captions, alphas, scenes, strict=True)]  # fmt: skip
        hits, nouns = np.sum(found, axis=0)
        shares.append(hits / nouns)
    print(f"{name:10}" + "".join(f"{share:8.3f}    " for share in shares) + f"{cache.nll * len(ids) / mask.sum():10.3f}")

# %% [markdown]
# All three look at the object one word before the noun, when they say its colour or its size. At the noun Xu's order and
# Lu's are still there, for 98.5 and 99.0 % of the nouns. Top-Down is there for 83.8 %, and one word later for 2.5 % only:
# its attention has moved on. The second table explains what each order allows. In Lu's order $z_t$ changes the word of its
# own step only, so the network must look at the object when it says the noun. In Top-Down the second LSTM can remember
# $z$, so attention may come a word early. How early differs with the number of units and with the start of the training
# (`tests/benchmarks/results/family_scenes.md`). So a map of attention shows what is attended to at a step. The word of this
# step may depend on what was attended to before.
#
# None of the orders is the best at everything. After three epochs on the same features, the share of true captions of 500
# scenes is .956 for Xu's order, .928 for Top-Down and .816 for Lu's (the same file). On Flickr8k, after four epochs, Lu's
# has the smallest loss per word, 2.890, before Xu's 2.928 and Top-Down's 3.089 (`flickr8k_compare.md`, beside it).

# %% [markdown]
# ## Check by number
#
# The hand-written backwards against the complex step (the gradient by the words' gates $x$, which has every path through
# time in it) and against satnp's gradients of the weights.

# %%
WEIGHTS = {
    "Xu": ("W_h", "W_z", "W_s"), "Lu": ("W_h", "W_g"),
    "Top-Down": ("W_h1", "W_h2", "W_s", "U_z", "U_h1", "U_h2", "b_2"),
}  # fmt: skip
KEYS = {"Xu": ("W_a", "v"), "Lu": ("W_v", "w"), "Top-Down": ("W_a", "w")}
for name, order in ORDERS.items():
    _, _, upstream_and_steps = run(order)
    dx, g, sums = back(order, *upstream_and_steps)
    near(f"{name:8} dx", dx, numeric_gradient(lambda x, order=order: run(order, x)[0].sum(), order.x))
    for weight in WEIGHTS[name]:
        near(f"{name:8} d{weight}", g[weight], order.g[weight])
    words = order.p.E[captions[:, :-1].T].reshape(T * N, M)
    near(f"{name:8} dW_x", words.T @ dx.reshape(T * N, -1), order.g.W_x)
    vectors, (keys, w) = order.photo.vectors.reshape(N * L, -1), KEYS[name]
    near(f"{name:8} d{keys}", vectors.T @ sums["keys"].reshape(N * L, A), order.g[keys])
    near(f"{name:8} d{w}", sums["w"], order.g[w])


# %% [markdown]
# ## Break it
#
# Two planted bugs. In the first, somebody copies Xu's cell, moves attention behind the LSTM in the forward pass, and
# forgets to move one term in the backward pass. In the second, `h1`'s gradient from the second LSTM is lost. Predict for
# each: which gradients are wrong?


# %%
def lu_wrong(p, dout, dstate, step, g, sums):
    """The query's gradient is sent to h_{t-1}, as in Xu's order."""
    (dout,), (dh, dc), (h, h_new, look, cell) = dout, dstate, step
    dquery = look_backward(dout, look, sums)
    dgates, dc = lstm_cell_backward((dout + dh, dc), cell)
    g.add(W_h=h.T @ dgates, W_g=h_new.T @ dquery)
    return dgates, (dgates @ p.W_h.T + dquery @ p.W_g.T, dc)


def compare(order, wrong):
    """Print how far the dx of a wrong backward is from the right one."""
    _, _, upstream_and_steps = run(order)
    dx, right = (back(order, *upstream_and_steps, backward)[0] for backward in (wrong, None))
    print(fill(diagnose("dx", dx, right, sizes=SIZES).sentence, 78))
    error = np.linalg.norm(dx - right, axis=(1, 2)) / np.linalg.norm(right, axis=(1, 2))
    cosine = (dx * right).sum() / np.linalg.norm(dx) / np.linalg.norm(right)
    print(f"relative error of dx by step {error}\ncosine with the right dx {cosine:.3f}\n")


compare(lu, lu_wrong)

# %%
(lost,) = (bug for bug in bugs.BUGS if bug.name == "h1's gradient from the second LSTM lost")
print(f"top_down.cell_backward: {lost.old!r} becomes {lost.new!r}")
_, cache = top_down.captioner.forward(top.p, top.config, batch, top_down.captioner.Noise())
wrong = top.p.zeros_like()
with bugs.in_place(lost):
    top_down.captioner.backward(cache, wrong)
for name in ("W_x", "W_h1", "W_s", "U_h1", "W_p"):
    print(f"d{name}: relative error {np.linalg.norm(wrong[name] - top.g[name]) / np.linalg.norm(top.g[name]):.4f}")

# %% [markdown]
# Lu's forward with Xu's backward has a $dx$ with a cosine of .97 with the right one. A small step against it still reduces
# the loss, so a training curve does not show the mistake. `diagnose` cannot name it more exactly, because the term is not
# lost: it went to the wrong step. In Top-Down one lost term makes everything wrong that lies before $h^1_t$: the first
# LSTM, the words' weights `W_x`, and through the earlier steps the second LSTM (`U_h1`), too. Only the output layer
# (`W_p`) is right, because its gradient does not pass through $h^1$.
#
# ## Exercises
#
# 1. Write the mistake in the other direction, `xu_wrong`: Xu's forward with Lu's backward. Check: `compare` prints a cosine
#    of .772. Some weights have the right gradient in spite of `xu_wrong` or `lu_wrong`. Predict which, then compare what
#    `back` returns with and without the bug. Check: of the weights of the cell and the attention, three with Lu's, none
#    with Xu's.
# 2. Luong et al. (2015, section 3.3) feed what was seen back into the LSTM ("input feeding"). Add it to Lu's order: the
#    state gets $z_{t-1}$, with $z_0 = 0$, and the gates get $z_{t-1} W_f$ with a random `W_f` (H, 4H). Check: the second
#    table of `reach` is now full below its diagonal. Can attention still be computed after the loop?
# 3. In Xu's order the query does not depend on the last word. Add it: the query becomes $h_{t-1} W_s + x_t W_q$ with a
#    random `W_q` (4H, A). Check: the diagonal of the first table is no longer 0. Where can $x_t W_q$ be computed?
# 4. Write `lu_at_once(p, photo, hs)`, Lu's attention for all steps: hs (T, N, H) -> out (T, N, H), alphas (T, N, L). Check:
#    the `alphas` of `run(lu)`, to 1e-10. Then time it against T calls of `attend_forward` with float32 arrays, 12 words, 64
#    locations, H = 128 and A = 64, for 1 photo and for 32, the best of 25 runs each. (Where this was written: 0.06 against
#    0.19 ms, and 1.7 against 1.7 ms.) Why does it not help with 32 photos?
# 5. Set `W_z` of Xu's order to 0. Check: its second table is diagonal. Set `U_z` of Top-Down to 0: what does its second
#    table look like now, and why?
#
# ## Next
#
# Lu et al. have another idea: a word such as "of" needs no context of the photo. Lesson 20 adds the sentinel.
