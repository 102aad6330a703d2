# %% [markdown]
# # 20 The sentinel: when to look at the photo
#
# - time: 65 minutes
# - cpu: 20 seconds
# - before: 06, 09, 10, 19
# - equations: Lu et al. 2017, eqs. 6-13
# - about: satnp.captioners.adaptive.attention_backward
#
# Soft attention must look somewhere: its weights sum to 1 at each word, also when the word is "of". Lu et al. (2017) give
# the softmax one more entry. It is no location of the photo, but the visual sentinel $s_t$: a vector that the LSTM makes
# from its own memory. The weight of this entry is $\beta_t$, and the photo shares the rest, $1 - \beta_t$. This lesson
# derives the backward pass of the sentinel, checks it, and then measures on rendered scenes what $\beta_t$ does at each
# word.

# %% [markdown]
# The symbols, for one photo and one step (the index $t$ is left out where nothing is mixed up):
#
# | symbol | shape | meaning |
# |---|---|---|
# | $v_i$ | (H,) | the vector of location $i$, of L locations |
# | $x$ | (2M,) | the LSTM's input: the embedding of the word before, and a vector made from the mean of the photo |
# | $h$, $m$ | (H,) | the LSTM's new state and memory (Lu et al. write $m$ for the cell $c$) |
# | $g$, $s$ | (H,) | the sentinel's gate (not the $g$ of lesson 05), the sentinel |
# | $W_{x5}$, $W_{h5}$ | (2M, H), (H, H) | the weights of this gate |
# | $W_v$, $W_s$, $W_g$, $w$ | (H, A), (A,) | the weights of the scores; $w$ is a vector |
# | $e_i$, $e_s$ | numbers | scores of the locations and of the sentinel |
# | $\alpha_i$, $\beta$ | numbers | weights; $\sum_i \alpha_i + \beta = 1$ |
# | $z$ | (H,) | what attention returns |
#
# The equations, without biases:
#
# $$
# \begin{aligned}
# g_t &= \sigma(x_t W_{x5} + h_{t-1} W_{h5}) \\
# s_t &= g_t \odot \tanh(m_t) \\
# e_i &= w \cdot \tanh(v_i W_v + h_t W_g) \\
# e_s &= w \cdot \tanh(s_t W_s + h_t W_g) \\
# (\alpha_1, \ldots, \alpha_L, \beta) &= \operatorname{softmax}(e_1, \ldots, e_L, e_s) \\
# z_t &= \sum_i \alpha_i v_i + \beta s_t
# \end{aligned}
# $$
#
# The word is predicted from $z_t + h_t$. Compare the second line with lesson 05: $h_t = o_t \odot \tanh(m_t)$. The
# sentinel is a second output of the same memory, with an output gate of its own. satnp therefore computes $g_t$ as a fifth
# gate: $W_{x5}$ and $W_{h5}$ are the fifth blocks of H columns.

# %%
from textwrap import fill

import numpy as np
from kit import DATA, graph, near, save, show
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from satnp import load
from satnp.arrays.parameters import Parameters
from satnp.captioners import adaptive
from satnp.captioners.contract import Batch
from satnp.captioners.deferred import Deferred
from satnp.data.captions import pad, tokenise
from satnp.data.scenes import make_scenes
from satnp.layers import (
    log_softmax,
    lstm_cell_backward,
    lstm_cell_forward,
    sigmoid,
    softmax,
    softmax_backward,
    softmax_forward,
)
from satnp.proof import bugs
from satnp.proof.gradcheck import diagnose, numeric_gradient

threadpool_limits(1)  # small matrices: two threads would wait for each other
np.set_printoptions(precision=4, suppress=True, linewidth=78)
rng = np.random.default_rng(0)
N, L, D, M, H, A, V = 2, 6, 5, 3, 9, 8, 10
SIZES = {"N": N, "L": L, "L+1": L + 1, "D": D, "M": M, "H": H, "A": A}
print(f"N {N} captions, L {L} locations, H {H}, A {A}: no two alike")

# %% [markdown]
# ## Predict
#
# 1. Two locations with one number each, $v = (4, 0)$, and the sentinel $s = 8$. All scores of the photo are 0, and
#    $e_s = \log 2$. What are the weights, $\beta$ and $z$?
# 2. The loss would fall if $z$ fell: $dz = 1$. Which of the three scores should be raised, which lowered?
# 3. A captioner of rendered scenes says "a small red circle is left of a blue square". At which words do you expect a
#    large $\beta$?
#
# ## Run

# %%
v, s, e = np.array([4.0, 0.0]), 8.0, np.array([[0.0, 0.0, np.log(2)]])
weights, softmax_cache = softmax_forward(e)
z = weights[0] @ [*v, s]
print("weights", weights[0], " z", z)
print("de     ", softmax_backward(np.array([[*v, s]]), softmax_cache)[0])

# %% [markdown]
# The weights are quarters and a half, and $z = 1 + 0 + 4 = 5$. Both scores of the photo have a negative gradient, so a
# step of gradient descent raises them. The first gradient has the smaller size, because 4 is nearer to 5 than 0 is. The
# sentinel's score goes down.
#
# ### Backward: the sentinel is one more location
#
# For the softmax the sentinel's score is a score like the others. So lesson 09's gradient of soft attention holds for all
# L + 1 entries. The gradient of the loss by $x$ is written $dx$:
#
# $$
# \begin{aligned}
# d\alpha_i &= dz \cdot v_i \\
# d\beta &= dz \cdot s \\
# de_i &= \alpha_i \, dz \cdot (v_i - z) \\
# de_s &= \beta \, dz \cdot (s - z)
# \end{aligned}
# $$
#
# There is a second way to read the last line. Lu et al. write $z$ as a mixture of two vectors (their eq. 11), the sentinel
# and the context $c$ of an ordinary attention without a sentinel:
#
# $$
# z = \beta s + (1 - \beta) c, \quad c = \sum_i \frac{\alpha_i}{1 - \beta} v_i
# $$
#
# Both forms are the same, because $\alpha_i / (1 - \beta) = \exp(e_i) / \sum_k \exp(e_k)$: the exponential of the
# sentinel's score cancels. And $\beta$ is a logistic function of the difference between the sentinel's score and all the
# others:
#
# $$
# \beta = \frac{\exp(e_s)}{\exp(e_s) + \sum_k \exp(e_k)} = \sigma\left( e_s - \log \sum_k \exp(e_k) \right)
# $$
#
# Put the mixture into $de_s$. Since $s - z = (1 - \beta)(s - c)$,
#
# $$
# de_s = \beta (1 - \beta) \, dz \cdot (s - c)
# $$
#
# $\beta (1 - \beta)$ is the slope of the logistic function, as in every gate. The sign says whether the sentinel or the
# photo's context is better for this word. Note the size: if $\beta$ is near 0 or 1, almost no gradient is left to change
# it.

# %%
v, s, dz = rng.standard_normal((N, L, H)), rng.standard_normal((N, H)), rng.standard_normal((N, H))
e = rng.standard_normal((N, L + 1))
weights, softmax_cache = softmax_forward(e)
alpha, beta = weights[:, :-1], weights[:, -1:]
context = (softmax(e[:, :-1])[:, :, None] * v).sum(axis=1)
near("eq. 11", beta * s + (1 - beta) * context, (alpha[:, :, None] * v).sum(axis=1) + beta * s)
near("beta is a logistic function", beta[:, 0], sigmoid(e[:, -1] - np.log(np.exp(e[:, :-1]).sum(axis=1))))
dweights = np.concatenate([(v * dz[:, None]).sum(axis=2), (s * dz).sum(axis=1, keepdims=True)], axis=1)
de = softmax_backward(dweights, softmax_cache)
near("de_s", de[:, -1:], beta * (1 - beta) * (dz * (s - context)).sum(axis=1, keepdims=True))
print(f"sum of de over the L + 1 entries {np.abs(de.sum(axis=1)).max():.0e}, over the L locations {de[:, :-1].sum(axis=1)}")

# %% [markdown]
# The sum over all L + 1 scores is 0. The sum over the locations alone is $-de_s$: the scores of the photo together get the
# opposite of the sentinel's gradient.
#
# ### Backward: what a location does not have
#
# $v_i$ depends on the photo only. $s_t$ depends on the memory $m_t$ and on the gate $g_t$, so its gradient goes on into
# the LSTM. It is read twice, as the vector that is mixed and as the key that is scored. With $k_i = v_i W_v$, $k_s = s W_s$
# and $q = h W_g$:
#
# $$
# \begin{aligned}
# dk_i &= de_i \, w \odot \left( 1 - \tanh^2(k_i + q) \right) \\
# dk_s &= de_s \, w \odot \left( 1 - \tanh^2(k_s + q) \right) \\
# ds &= \beta \, dz + dk_s W_s^\top \\
# dq &= \sum_i dk_i + dk_s
# \end{aligned}
# $$
#
# $s = g \odot \tanh(m)$ is a product, so $dg = ds \odot \tanh(m)$, and before the sigmoid $dg \odot g \odot (1 - g)$. The
# memory now has three readers: $h_t$, $s_t$ and the memory of the next step:
#
# $$
# dm_t = (ds \odot g + dh \odot o) \odot \left( 1 - \tanh^2(m_t) \right) + dm_{t+1} \odot f_{t+1}
# $$
#
# Here $dh$ is the whole gradient of $h_t$. It has three readers as well: the output $z + h$, the query (of the locations
# and of the sentinel), and the next step.
#
# Here is one step by hand, forward and backward. `bias` is added to the sentinel's score; it is 0 until the experiments
# below.


# %%
def step_forward(p, gates, m_prev, v, keys, bias=0.0):
    """gates (N, 5H), m_prev (N, H), v (N, L, H), keys (N, L, A) -> out (N, H), h, m, weights (N, L + 1), cache"""
    H = m_prev.shape[1]
    (h, m), cell = lstm_cell_forward(gates[:, : 4 * H], m_prev)
    g, tanh_m = sigmoid(gates[:, 4 * H :]), np.tanh(m)
    s = g * tanh_m
    query, all_keys = h @ p.W_g, np.concatenate([keys, (s @ p.W_s)[:, None]], axis=1)
    u = np.tanh(all_keys + query[:, None])  # (N, L + 1, A)
    scores = u @ p.w
    scores[:, -1] += bias
    weights, softmax_cache = softmax_forward(scores)
    vectors = np.concatenate([v, s[:, None]], axis=1)
    z = np.matmul(weights[:, None], vectors)[:, 0]
    return z + h, h, m, weights, (cell, g, tanh_m, s, h, u, softmax_cache, vectors)


def step_backward(p, dout, dh, dm, cache):
    """dout (N, H); dh, dm (N, H) from the next step -> dgates (N, 5H), dm_prev (N, H), dkeys (N, L, A), dv (N, L, H)"""
    cell, g, tanh_m, s, h, u, softmax_cache, vectors = cache
    de = softmax_backward((vectors * dout[:, None]).sum(axis=2), softmax_cache)  # dz = dout
    dvectors = softmax_cache.alpha[:, :, None] * dout[:, None]
    dkeys = de[:, :, None] * p.w * (1 - u * u)
    ds = dvectors[:, -1] + dkeys[:, -1] @ p.W_s.T  # the last entry is the sentinel
    dh = dh + dout + dkeys.sum(axis=1) @ p.W_g.T
    dm = dm + ds * g * (1 - tanh_m**2)
    dgates, dm_prev = lstm_cell_backward((dh, dm), cell)
    return np.concatenate([dgates, ds * tanh_m * g * (1 - g)], axis=1), dm_prev, dkeys[:, :-1], dvectors[:, :-1]


# %% [markdown]
# satnp does the same with two pairs of functions. The cell makes $h_t$ and $s_t$, step by step. Attention follows after the
# loop, for all steps at once, because no state depends on $z_t$ (lesson 19): its arrays have T N rows. It keeps the L
# locations and the sentinel in separate arrays, because the locations' arrays belong to the photo and are shared by all
# steps. `additive_steps_backward` returns $dk_i$, summed over the steps, and the locations' part of $dq$;
# `additive_scores_backward` returns $dk_s$ and the sentinel's part. `deferred` collects the gradients of the weights and of
# the photo: its `product` returns $dk_s W_s^\top$ and keeps what $dW_s$ needs.

# %%
show(adaptive.attention_forward)
show(adaptive.attention_backward)
show(adaptive.cell_backward)
config = adaptive.Config(V=V, D=D, M=M, H=H, A=A, dropout=0.0)
shapes = adaptive.shapes(config)
p = Parameters(shapes, flat=0.7 * rng.standard_normal(sum(int(np.prod(shape)) for shape in shapes.values())))
p.c_a[...] = 0  # a constant that is added to all scores changes nothing (lesson 08)
annotations = rng.standard_normal((N, L, D))
word, h_prev, m_prev, dout, dh, dm = (rng.standard_normal((N, size)) for size in (5 * H, H, H, H, H, H))
photo, _, _ = adaptive.photo_forward(p, config, annotations)
v, keys = photo.locations.vectors, photo.locations.vectors @ p.W_v
gates = word + photo.gates + h_prev @ p.W_h

(h_satnp, s_satnp), (_, m_satnp), _, step = adaptive.cell_forward(p, config, photo, word, (h_prev, m_prev))
(out_satnp,), _, attention = adaptive.attention_forward(p, config, photo, (h_satnp, s_satnp))
weights_satnp = attention.softmax.alpha
out, h, m, weights, cache = step_forward(p, gates, m_prev, v, keys)
near("out     against satnp's", out_satnp, out)
near("weights against satnp's", weights_satnp, weights)
deferred = Deferred(p, p.zeros_like())
dhs = adaptive.attention_backward(p, config, (dout,), None, deferred, attention)
dgates_satnp, (dh_prev_satnp, dm_prev_satnp) = adaptive.cell_backward(p, config, dhs, (dh, dm), None, step, deferred)
dgates, dm_prev, dkeys, dv = step_backward(p, dout, dh, dm, cache)
near("dgates  against satnp's", dgates_satnp, dgates)
near("dm_prev against satnp's", dm_prev_satnp, dm_prev)
near("dh_prev against satnp's", dh_prev_satnp, dgates @ p.W_h.T)
near("dv      against satnp's", deferred.vectors(), dv)

# %% [markdown]
# ### Draw it
#
# The flow after the LSTM, from its memory and its two output gates `o` and `g` on. The gradients in the drawing are held
# against those of satnp: the gates' gradients divided by their slopes, and the memory's divided by the forget gate.
# No gradient of the memory comes from a next step here. `back_s` is $dk_s$, `back` the sum of the $dk_i$; `join` puts two
# arrays side by side, `mix` is the weighted sum and `dot` its dot products, `slope` is the softmax's backward pass.

# %%
dgates_satnp, (_, dm_prev_satnp) = adaptive.cell_backward(p, config, dhs, (dh, 0 * dm), None, step, deferred)
o, f, g, s = step.cell.o, step.cell.f, step.gate.out, s_satnp
u, u_s = np.tanh(keys + (h @ p.W_g)[:, None]), np.tanh(s @ p.W_s + h @ p.W_g)
graph("20_sentinel", [
    ("h", "o * np.tanh(m)", {"o": "dh * np.tanh(m)", "m": "dh * o * (1 - np.tanh(m)**2)"}),
    ("s", "g * np.tanh(m)", {"m": "ds * g * (1 - np.tanh(m)**2)", "g": "ds * np.tanh(m)"}),
    ("e", "scores(h @ W_g)", {"h": "back(de) @ W_g.T"}),
    ("e_s", "score(s @ W_s + h @ W_g)", {"h": "back_s(de_s) @ W_g.T", "s": "back_s(de_s) @ W_s.T"}),
    ("weights", "softmax(join(e, e_s))", {"e": "slope(dweights)[:, :-1]", "e_s": "slope(dweights)[:, -1:]"}),
    ("z", "mix(weights, join(v, s))", {"weights": "dot(dz, join(v, s))", "s": "weights[:, -1:] * dz"}),
    ("out", "z + h", {"z": "dout", "h": "dout"}),
], {
    "o": o, "g": g, "m": m_satnp, "h": h_satnp, "s": s, "v": v, "W_g": p.W_g, "W_s": p.W_s, "out": out_satnp,
    "weights": weights_satnp, "softmax": softmax,
    "scores": lambda q: np.tanh(keys + q[:, None]) @ p.w, "score": lambda x: (np.tanh(x) @ p.w)[:, None],
    "back": lambda de: (de[:, :, None] * p.w * (1 - u * u)).sum(axis=1),
    "back_s": lambda de_s: de_s * p.w * (1 - u_s * u_s),
    "slope": lambda d: weights * (d - (weights * d).sum(axis=1, keepdims=True)),
    "join": lambda x, y: np.concatenate([x, y[:, None] if x.ndim == 3 else y], axis=1),
    "mix": lambda alpha, x: np.einsum("nl,nld->nd", alpha, x), "dot": lambda dz, x: np.einsum("nd,nld->nl", dz, x),
    "dg": dgates_satnp[:, 4 * H :] / (g * (1 - g)), "do": dgates_satnp[:, 2 * H : 3 * H] / (o * (1 - o)),
    "dm": dm_prev_satnp / f,
}, SIZES, {"out": dout, "h": dh}, "s is read twice; h by the scores (twice), by out, and by the next step")  # fmt: skip

# %% [markdown]
# ## Look
#
# ### What beta does at each word
#
# `adaptive.npz` is a captioner with a sentinel that was trained on rendered scenes, on the encoder of `scenes.npz`
# (`lessons/data/README.md`). It is given the true captions of 500 unseen scenes, word by word, with the cell that you
# wrote above. The table has the mean $\beta$ of each word, and the mean $-\log p$ of the true word in three experiments (in
# nats, because the logarithm is natural):
#
# - `as it is`: as the captioner was trained,
# - `no s`: without the sentinel. 50 is subtracted from its score, so that $\beta = 0$ and the photo has the whole weight,
# - `only s`: without the photo in $z_t$. 50 is added, so that $\beta = 1$ and $z_t = s_t$.


# %%
def load_decoder():
    """The trained decoder, in half precision -> its config and its parameters"""
    file = np.load(DATA / "adaptive.npz")
    config = adaptive.Config(**{name: value.item() for name, value in file.items() if name != "flat"})
    return config, Parameters(adaptive.shapes(config), flat=file["flat"].astype(np.float32))


def follow(p, config, annotations, ids, bias=0.0, see_all=1.0):
    """log p of all words (N, T, V) and beta (N, T); see_all = 0 takes the photo's mean out of the LSTM's input"""
    photo, (h, m), _ = adaptive.photo_forward(p, config, annotations)
    v, log_p, betas = photo.locations.vectors, [], []
    keys = v @ p.W_v
    for t in range(ids.shape[1] - 1):
        gates = p.E[ids[:, t]] @ p.W_x + p.b + see_all * photo.gates + h @ p.W_h
        out, h, m, weights, _ = step_forward(p, gates, m, v, keys, bias)
        log_p.append(log_softmax(out @ p.W_p + p.b_p))
        betas.append(weights[:, -1])
    return np.stack(log_p, axis=1), np.stack(betas, axis=1)


model = load(DATA / "scenes.npz")
trained_config, trained = load_decoder()
scenes = make_scenes(500, "test", 0)
ids, mask = pad([model.vocabulary.encode(tokenise(scene.captions[0])) for scene in scenes])
seen = model.annotate(np.stack([scene.image for scene in scenes]))
biases = {"as it is": 0, "no s": -50, "only s": 50}
said = {name: follow(trained, trained_config, seen, ids, bias) for name, bias in biases.items()}
runs = {name: -np.take_along_axis(log_p, ids[:, 1:, None], axis=2)[:, :, 0] for name, (log_p, _) in said.items()}
nats, beta = runs["as it is"], said["as it is"][1]
loss, _ = adaptive.captioner.forward(trained, trained_config, Batch(seen, ids, mask), adaptive.captioner.Noise())
near("the loss against satnp's", (mask * nats).sum() / len(ids), loss, 1e-5)  # float32

targets, table = ids[:, 1:], []
for i in np.unique(targets[mask > 0]):
    here = (targets == i) & (mask > 0)
    table.append((model.vocabulary.words[i], here.sum(), beta[here].mean(), *(run[here].mean() for run in runs.values())))
table.sort(key=lambda row: -row[2])
print(f"{'word':10}{'count':>6}{'beta':>8}" + "".join(f"{name:>10}" for name in runs))
for word, count, *numbers in table:
    print(f"{word:10}{count:6}{numbers[0]:8.3f}" + "".join(f"{x:10.3f}" for x in numbers[1:]))
print("all words " + " " * 14 + "".join(f"{run[mask > 0].mean():10.3f}" for run in runs.values()))

# %%
figure = Figure(figsize=(8, 5), layout="constrained")
left, right = figure.subplots(1, 2, sharey=True)
rows, names = np.arange(len(table))[::-1], [word for word, *_ in table]
left.barh(rows, [row[2] for row in table], color="0.5")
left.set_yticks(rows, names, fontsize=8)
left.set(xlabel="mean beta: the weight of the sentinel", xlim=(0, 1))
for k, (label, colour) in enumerate((("without the sentinel", "C0"), ("without the photo in z", "C3"))):
    right.barh(rows + 0.2 - 0.4 * k, [row[4 + k] - row[3] for row in table], 0.4, color=colour, label=label)
right.axvline(0, color="0.3", linewidth=0.8)
right.set(xlabel="more nats for the true word")
right.legend(fontsize=8)
save(figure, "20_beta", "above, words for which the sentinel is needed; below, words for which the photo is needed")

# %% [markdown]
# The answer to the third question: "of", "the" and `<end>` follow from the words before them, and $\beta$ is above .94
# there. Without the photo in $z_t$ they still cost 0.000 nats. The shapes have $\beta$ below .01: all of the weight is on
# the photo, and without it they cost .6 to 1.9 nats. Colours and sizes lie between .15 and .31. Lu et al. (2017, section
# 5.4) show such a ranking of words for COCO.
#
# Three things in this table need an explanation.
#
# **A small beta does not mean that the photo is needed.** After a relation ("left of", "above"), "a" follows from the
# grammar: the last row of the next output says that it costs less than .001 nats there. Yet $\beta$ is below .1. Nothing in
# the loss rewards a large $\beta$. What moves it is $dz \cdot (s - c)$ alone, and $dz$ is almost 0 where the right word is
# already certain.
#
# **The value of beta can carry information by itself.** In scenes with one object over another, the captioner must choose
# between "above" or "over" and "below" or "under". The next cell prints the mean probability of each pair.

# %%
up, down = ([model.vocabulary.words.index(word) for word in pair] for pair in (("above", "over"), ("below", "under")))
for truth, name in ((up, "above or over"), (down, "below or under")):
    here = np.isin(targets, truth) & (mask > 0)
    for experiment, (log_p, _) in said.items():
        p_up, p_down = (np.exp(log_p[here])[:, pair].sum(axis=1).mean() for pair in (up, down))
        print(f"true: {name:15} {experiment:9} p(above or over) {p_up:.3f}  p(below or under) {p_down:.3f}")
ends = [model.vocabulary.words.index(word) for word in ("of", "above", "over", "below", "under")]  # of a relation
after = np.cumsum(np.isin(targets, ends), axis=1) > 0
a = (targets == model.vocabulary.words.index("a")) & (mask > 0) & after
print(f"'a' after the relation: beta {beta[a].mean():.3f}, {nats[a].mean():.4f} nats")

# %% [markdown]
# With `no s`, "below" and "under" have almost no probability, and with `only s`, "above" and "over", whatever is true. So
# the captioner uses $\beta$ itself as the answer: a $z$ that is mostly photo means "above", one that is mostly sentinel
# means "below". A small weight of the photo does not show that the photo was not used: the captioner needs the photo to
# choose the weight.
#
# **These are experiments with a trained network.** They say what this network does with its sentinel. They do not say that
# attention without a sentinel cannot learn "of": Show, Attend and Tell has none, and 97.4 % of the captions of
# `scenes.npz` are true (`lessons/data/README.md`). A network that is trained without a sentinel learns another way.

# %% [markdown]
# ## Check by number
#
# One step by complex step: the gradients of the gates, of the memory, and of the vectors and keys of the locations, with
# random numbers as upstream gradients of all three outputs, `out`, `h` and `m`.

# %%
def objective(gates=gates, m_prev=m_prev, v=v, keys=keys):
    point = [x.astype(complex) for x in (gates, m_prev, v, keys)]
    out, h, m, *_ = step_forward(p, *point)
    return (out * dout + h * dh + m * dm).sum()


dgates, dm_prev, dkeys, dv = step_backward(p, dout, dh, dm, cache)
for name, found, x in (("gates", dgates, gates), ("m_prev", dm_prev, m_prev), ("v", dv, v), ("keys", dkeys, keys)):
    near(f"d{name}", found, numeric_gradient(lambda x, name=name: objective(**{name: x}), x))

# %% [markdown]
# The whole captioner of satnp, through four steps: every weight of the sentinel.

# %%
T = 4
batch = Batch(annotations, rng.integers(4, V, (N, T + 1)), np.ones((N, T)))


def satnp_gradients():
    _, cache = adaptive.captioner.forward(p, config, batch, adaptive.captioner.Noise())
    g = p.zeros_like()
    adaptive.captioner.backward(cache, g)
    return g


right = satnp_gradients()
numbers = p.on(numeric_gradient(
    lambda flat: adaptive.captioner.forward(p.on(flat), config, batch, adaptive.captioner.Noise())[0], p.flat
))  # fmt: skip
for name in ("W_s", "W_g", "W_v", "w", "W_x", "W_vg", "W_h", "b"):
    near(f"d{name}", right[name], numbers[name])

# %% [markdown]
# ## Break it
#
# Four planted bugs in the sentinel's backward pass. Which arrays does each of them reach? Predict it before you read on:
# $W_s$ makes the sentinel's key, $W_g$ the query, $W_v$ the keys of the locations, $W_h$ the gates.

# %%
NAMES = (
    "sentinel outside of the softmax", "beta missing in the sentinel's gradient", "memory's gradient from the sentinel lost",
    "query's gradient from the sentinel's score lost",
)  # fmt: skip
print(f"{'relative error of':48}{'dW_s':>8}{'dW_g':>8}{'dW_v':>8}{'dW_h':>8}")
for bug in (bug for name in NAMES for bug in bugs.BUGS if bug.name == name):
    with bugs.in_place(bug):
        wrong = satnp_gradients()
    errors = [np.linalg.norm(wrong[w] - right[w]) / np.linalg.norm(right[w]) for w in ("W_s", "W_g", "W_v", "W_h")]
    print(f"{bug.name:48}" + "".join(f"{error:8.4f}" for error in errors))
    print(f"    {bug.old}  ->  {bug.new}")

# %% [markdown]
# The first bug reaches all four arrays, because the scores' gradients go to all keys and to the query, and on into the
# LSTM. Its errors are the smallest, 5 to 8 %. And it keeps the law of the softmax: the sum of $de$ over the L + 1 entries
# is still 0, because `softmax_backward` has this property for any input. So a test of that law does not find it. The
# second and the third change $ds$ and $dm$ only, after the backward pass of the scores, and are seen in the LSTM's weights.
# The fourth loses $dk_s$ in the query, so $W_g$ is wrong, and through $dh$ the LSTM's weights.
#
# The first bug in one line: the sentinel's $de_s$ becomes $\beta (0 - \text{mean})$ in place of
# $\beta (d\beta - \text{mean})$, with the mean of all $d\alpha$ under the weights. This is the gradient that would be
# right if the vector $s$ were 0.

# %%
bug = next(bug for bug in bugs.BUGS if bug.name == NAMES[0])
with bugs.in_place(bug):
    wrong = satnp_gradients()
print(fill(diagnose("dW_s", wrong.W_s, right.W_s, sizes=SIZES).sentence, 78))

# %% [markdown]
# ## Exercises
#
# 1. By hand: $v = (4, 0)$, $s = 8$, both scores of the photo 0, $e_s = \log 6$ and $dz = 1$. What are $\beta$, $z$ and
#    $de_s$? Check: 0.75, 6.5 and 1.125, by both formulas of $de_s$.
# 2. If all scores are alike, $\beta = 1 / (L + 1)$. Which $e_s$ gives $\beta = 1/2$ with 196 locations whose scores are 0?
#    Check: 5.28. A score is a sum of $w_k \tanh(\ldots)$, so it is at most $\sum_k |w_k|$. How large is this bound in the
#    trained decoder? Check: 13.05.
# 3. Replace the softmax over L + 1 by a gate as in lesson 10: $\beta = \sigma(h u)$ with a vector $u$ (H, 1), and
#    $z = \beta s + (1 - \beta) c$. Write forward and backward, and check $dh$, $ds$ and $dc$ by complex step: below 1e-10.
#    The weight of the sentinel depends on something that this gate does not depend on. On what?
# 4. Take the mean of the photo out of the LSTM's input: `follow(..., see_all=0.0)`. Check: 0.837 nats a word, and still
#    0.000 for "of". Which words lose most?
# 5. A check with captions of one word, T = 1: which of the four bugs do `dW_s`, `dW_g`, `dW_v` and `dW_h` find? Check: two
#    of four. Why is `dW_h` of no use there?

# %% [markdown]
# ## Next
#
# In all captioners so far attention weights locations. Lesson 21 weights channels, too, and runs a convolution of the
# encoder again at each word.
