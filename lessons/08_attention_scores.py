# %% [markdown]
# # 08 Attention scores three ways: dot, general, additive
#
# - time: 50 minutes
# - cpu: 10 seconds
# - before: 01, 02, 05
# - equations: Xu et al. 2015, eq. 4; Luong et al. 2015; Bahdanau et al. 2015
# - about: satnp.layers.additive_scores_forward
#
# Before each word the decoder decides which part of the photo it needs. It gives each location a score, a number computed
# from the annotation of the location, $a_i$, and from the decoder's state h. Three formulas for this score are in use. They
# differ in which locations they can select at all, whatever their weights, and in where their gradients vanish.

# %% [markdown]
# A photo is given as L vectors $a_i$ of D numbers, one for each location (the last feature map of a CNN, lesson 04). The
# decoder's state h has H numbers (lesson 05). For N photos at a time:
#
# | array | shape |
# |---|---|
# | annotations a | (N, L, D) |
# | state h | (N, H) |
# | scores e | (N, L) |
#
# Each of the three formulas compares a key, computed from the annotation alone, with a query, computed from the state alone.
# So the keys of a photo are computed once, and the query once for each word.
#
# | score | $\text{key}_i$ | query | $e_i$ |
# |---|---|---|---|
# | dot | $a_i$ | $h / \sqrt{D}$ | $\text{key}_i \cdot \text{query}$ |
# | general | $a_i W_a$ | $h$ | $\text{key}_i \cdot \text{query}$ |
# | additive | $a_i W_a + b_a$ | $h W_s$ | $v \cdot \tanh(\text{key}_i + \text{query}) + c$ |
#
# The dot score needs D = H. The general score has $W_a$ (D, H); the additive score has $W_a$ (D, A), $W_s$ (H, A) and
# v (A,), with A of our choice. (Luong's dot score is not divided by $\sqrt{D}$; Vaswani et al. 2017, section 3.2.1,
# introduced the division.)
#
# The softmax turns scores into weights, $\alpha_i = \exp(e_i) / \sum_{k} \exp(e_k)$. The weights are positive and sum to 1,
# and the largest score has the largest weight. Lesson 09 derives its backward pass.
#
# Here are the formulas as code, for keys (N, L, A) and queries (N, A). satnp's own functions return the same numbers. They
# are written to use less memory and less time (lesson 15).

# %%
from types import SimpleNamespace

import numpy as np
from kit import graph, near, save, show
from matplotlib.figure import Figure

from satnp.layers import (
    additive_scores_backward,
    additive_scores_forward,
    dot_scores_backward,
    dot_scores_forward,
    softmax,
    softmax_backward,
    softmax_forward,
)
from satnp.proof.gradcheck import diagnose, numeric_gradient
from satnp.reference.show_attend_tell import f_att_backward, f_att_forward

np.set_printoptions(precision=4, suppress=True, linewidth=78)
rng = np.random.default_rng(0)
N, L, D, H, A = 2, 5, 3, 4, 6


def dot(keys, query):
    return np.einsum("nla,na->nl", keys, query)


def additive(keys, query, v, c):
    u = np.tanh(keys + query[:, None, :])  # (N, L, A)
    return u @ v + c


keys, query = rng.standard_normal((N, L, A)), rng.standard_normal((N, A))
v, c = rng.standard_normal(A), rng.standard_normal(1)
near("dot", dot_scores_forward(keys, query)[0], dot(keys, query))
near("additive", additive_scores_forward(keys, query, v, c)[0], additive(keys, query, v, c))
print("additive scores\n", additive(keys, query, v, c), "\nalpha\n", softmax(additive(keys, query, v, c)))

# %% [markdown]
# ## Predict
#
# Three locations lie on a line: $a_i = -1, 0, 1$ (D = 1). The decoder needs the MIDDLE one.
#
# 1. Is there any query q for which the dot score $q \, a_i$ is largest in the middle?
# 2. Are there any v, W and q for which the additive score $v \cdot \tanh(W a_i + q)$ is largest there, with A = 2?
# 3. Remove the tanh: $e_i = v \cdot (\text{key}_i + \text{query})$. How much does $\alpha$ change when the query changes?

# %% [markdown]
# ## Run
#
# ### What a linear score cannot do
#
# For a given state the dot and the general score are linear in $a_i$: $e_i = a_i \cdot w$, with $w = h / \sqrt{D}$ or
# $w = W_a h$. If $a_2$ is the mean of $a_1$ and $a_3$, then $e_2$ is the mean of $e_1$ and $e_3$, which is never larger than
# both. The same holds for weighted means (with positive weights that sum to 1); the set of all of them is the convex hull of
# the annotations. So a location whose annotation lies inside the convex hull of the others never has a larger score than all
# others, whatever $W_a$ and h are. Moreover, an annotation that is twice as long has twice the score: a dot product measures
# how much of w is present, not how similar $a_i$ and w are.
#
# The additive score is not linear. $\tanh(x + 1) - \tanh(x - 1)$ is a bump: it is highest at x = 0 and near 0 for large
# $|x|$. With two units, W = (4, 4), q = (-4m + 1, -4m - 1) and v = (1, -1), the maximum of the bump is at a = m. So the
# query decides where it is. (The cell multiplies v by 3, which makes the largest weight larger.)

# %%
a = np.array([[[-1.0], [0.0], [1.0]]])  # N = 1, L = 3, D = 1
best = {"dot": 0.0, "additive": 0.0}
for q in np.linspace(-20, 20, 401):
    best["dot"] = max(best["dot"], softmax(dot(a, np.array([[q]])))[0, 1])
for m in (-1.0, 0.0, 1.0):
    bump = np.array([[1.0, -1.0]]) - 4 * m
    scores = additive(a * np.array([4.0, 4.0]), bump, 3 * np.array([1.0, -1.0]), np.zeros(1))
    print(f"additive, bump at {m:4}: alpha", softmax(scores)[0])
    best["additive"] = max(best["additive"], softmax(scores)[0, 1])
print("largest weight of the middle location:", {name: round(float(x), 4) for name, x in best.items()})
assert best["dot"] <= 1 / 3 + 1e-12

# %% [markdown]
# The dot score never gives the middle location more than one third. The general score is the dot score in another basis: it
# can compare any feature with any unit of the state and does not need D = H, but for a given state it is linear, too.
#
# How much does that matter if there are many features? Take 49 random annotations. For how many of them is there a vector w
# such that their score $a_i \cdot w$ is the largest? The next cell tries $w = a_i$ and 20,000 random directions, so it
# finds a lower bound.

# %%
for features in (1, 2, 4, 8, 16):
    vectors = rng.standard_normal((49, features))
    directions = np.concatenate([vectors, rng.standard_normal((20_000, features))])
    print(f"D = {features:2}: {len(np.unique((vectors @ directions.T).argmax(axis=0)))} of 49 can have the largest score")

# %% [markdown]
# With many features few annotations lie inside the convex hull of the others, so a linear score can select nearly every one
# of them. (The features of a CNN are not random, so other numbers hold for them.)
#
# ### What happens without the tanh
#
# The third question: $v \cdot (\text{key}_i + \text{query}) = v \cdot \text{key}_i + v \cdot \text{query}$, and the second
# term is the same for all i. The softmax does not depend on what is added to all scores, because
# $\exp(e_i + k) = \exp(k) \exp(e_i)$ and the factor cancels. So $\alpha$ is the same for every word of the caption, and the
# state has no influence on it. This has happened: `attend` in `model.py` of the GitHub repository `DeepRNN/image_captioning`
# uses, in its form with two layers, $v \cdot (\tanh(\text{key}_i) + \tanh(\text{query}))$, in which the query cancels, too.


# %%
def moved(score):
    """How much of the weight moves when the query changes: half of sum |alpha - alpha'|, from 0 to 1."""
    one, two = (softmax(score(keys, q)) for q in (query, query[::-1]))
    return 0.5 * np.abs(one - two).sum(axis=1).max()


SCORES = {
    "dot": dot,
    "additive": lambda keys, query: additive(keys, query, v, c),
    "no tanh": lambda keys, query: (keys + query[:, None, :]) @ v,
    "tanh of each": lambda keys, query: (np.tanh(keys) + np.tanh(query[:, None, :])) @ v,
    "additive, tiny": lambda keys, query: additive(0.01 * keys, 0.01 * query, v, c),
}
for name, score in SCORES.items():
    print(f"{name:15} weight that moves with the query: {moved(score):.1e}")
assert moved(SCORES["no tanh"]) < 1e-12 and moved(SCORES["tanh of each"]) < 1e-12

# %% [markdown]
# The last row is a warning. For tiny arguments $\tanh(x)$ is nearly x, so the query nearly cancels in the additive score as
# well. If all weights are initialised with very small numbers, attention hardly reacts to the state at first.
#
# ### Backward
#
# We write $dX$ for the derivative of the loss with respect to X, an array of the shape of X.
#
# **Dot**: $e_i = \sum_{k} \text{key}_{ik} \text{query}_k$. Each key is used for one score, and the query for all L of them:
#
# $$
# d\text{key}_i = de_i \, \text{query}, \quad d\text{query} = \sum_{i} de_i \, \text{key}_i.
# $$
#
# **Additive**: let $s_i = \text{key}_i + \text{query}$ and $u_i = \tanh(s_i)$, so that $e_i = v \cdot u_i + c$. With
# $\tanh' = 1 - \tanh^2$:
#
# $$
# \begin{aligned}
# dv &= \sum_{i} de_i \, u_i \\
# dc &= \sum_{i} de_i \\
# du_i &= de_i \, v \\
# ds_i &= du_i \odot (1 - u_i^2) \\
# d\text{key}_i &= ds_i \\
# d\text{query} &= \sum_{i} ds_i
# \end{aligned}
# $$
#
# The sums for v and c run over all photos too, because all photos share them. The sum for the query runs over the L keys
# that it was added to. Line by line as code, compared with satnp's functions:


# %%
def outer(de, query):
    """de_i query, for each location i: (N, L), (N, A) -> (N, L, A)"""
    return de[:, :, None] * query[:, None, :]


def mix(de, keys):
    """The sum over i of de_i keys_i: (N, L), (N, L, A) -> (N, A)"""
    return np.einsum("nl,nla->na", de, keys)


def dot_backward(de, keys, query):
    return outer(de, query), mix(de, keys)  # dkeys, dquery


def additive_backward(de, keys, query, v):
    u = np.tanh(keys + query[:, None, :])
    dv = (de[:, :, None] * u).sum(axis=(0, 1))
    dc = de.sum()[None]
    du = de[:, :, None] * v
    ds = du * (1 - u**2)
    return ds, ds.sum(axis=1), dv, dc  # dkeys, dquery, dv, dc


de = rng.standard_normal((N, L))
_, dot_cache = dot_scores_forward(keys, query)
_, additive_cache = additive_scores_forward(keys, query, v, c)
pairs = {"dot": (dot_backward(de, keys, query), dot_scores_backward(de, dot_cache)),
         "additive": (additive_backward(de, keys, query, v), additive_scores_backward(de, additive_cache))}  # fmt: skip
for kind, gradients in pairs.items():
    for name, plain, fast in zip(("keys", "query", "v", "c"), *gradients, strict=False):
        near(f"{kind} d{name}", plain, fast)

# %% [markdown]
# A step of the captioner includes the matrix products before the scores. For $y = x W$, $dx = dy \, W^{\top}$ and
# $dW = x^{\top} dy$ (lesson 01), where every location of every photo is one row. Here is the code of satnp's step-by-step
# captioner; `p` holds the parameters, with c under the name `c_a`, and `g` holds their gradients.

# %%
show(f_att_forward)
show(f_att_backward)

# %% [markdown]
# Three drawings, one for each score, show the whole path from a and h to e. Their formulas are compared with what the two
# functions above return.


# %%
def by_reference(kind, a, h, de, **weights):
    """{name: array} of the inputs, the scores, and the gradients that the reference returns."""
    p, config = SimpleNamespace(**weights), SimpleNamespace(f_att=kind, D=a.shape[2])
    e, cache = f_att_forward(p, config, a, h)
    g = SimpleNamespace(**{name: np.zeros_like(w) for name, w in weights.items()})
    da, dh = f_att_backward(config, de, cache, g)
    return {"a": a, "h": h, "e": e, "da": da, "dh": dh, **weights, **{f"d{name}": x for name, x in vars(g).items()}}


a, h = rng.standard_normal((N, L, D)), rng.standard_normal((N, H))
W_a, b_a, W_s = rng.standard_normal((D, A)), rng.standard_normal(A), rng.standard_normal((H, A))

steps = [
    ("query", "h / D**0.5", {"h": "dquery / D**0.5"}),
    ("e", "dot(a, query)", {"a": "outer(de, query)", "query": "mix(de, a)"}),
]
functions = {"dot": dot, "outer": outer, "mix": mix}
values = by_reference("dot", a, h[:, :D], de) | functions | {"D": D}
graph("08_dot", steps, values, {"N": N, "L": L, "D": D}, {"e": de}, "the keys are the annotations themselves, and H = D")

# %%
products = {"a": "dkeys @ W_a.T", "W_a": "np.einsum('nld,nla->da', a, dkeys)"}  # of the keys
steps = [
    ("keys", "a @ W_a", products),
    ("e", "dot(keys, h)", {"keys": "outer(de, h)", "h": "mix(de, keys)"}),
]
values = by_reference("general", a, h, de, W_a=W_a[:, :H]) | functions
graph("08_general", steps, values, {"N": N, "L": L, "D": D, "H": H}, {"e": de}, "the query is the state itself")

# %%
values = by_reference("additive", a, h, de, W_a=W_a, b_a=b_a, W_s=W_s, v=v, c_a=c)
steps = [
    ("keys", "a @ W_a + b_a", products | {"b_a": "dkeys.sum((0, 1))"}),
    ("query", "h @ W_s", {"h": "dquery @ W_s.T", "W_s": "h.T @ dquery"}),
    ("s", "keys + query[:, None]", {"keys": "ds", "query": "ds.sum(axis=1)"}),
    ("u", "np.tanh(s)", {"s": "du * (1 - u**2)"}),
    ("e", "u @ v + c_a", {"u": "de[:, :, None] * v", "v": "(de[:, :, None] * u).sum((0, 1))", "c_a": "de.sum()[None]"}),
]
see = "the query is added to every key, so its gradient is a sum over the locations"
graph("08_additive", steps, values, {"N": N, "L": L, "D": D, "H": H, "A": A}, {"e": de}, see)

# %% [markdown]
# ### The gradient of c is 0
#
# The constant c is added to all scores, and the softmax does not depend on such a constant. So the loss does not depend on
# c, and its gradient must be 0. The formula agrees: $dc = \sum_{i} de_i$, and behind a softmax
# $de_i = \alpha_i (d\alpha_i - \sum_{k} \alpha_k d\alpha_k)$ (lesson 09 derives it). The weights sum to 1, so
#
# $$
# dc = \sum_{i} \alpha_i d\alpha_i - \left( \sum_{i} \alpha_i \right) \sum_{k} \alpha_k d\alpha_k = 0.
# $$
#
# The authors' code has c (`c_tt` in `capgen.py` of `kelvinxu/arctic-captions`), so satnp keeps it. A gradient check that
# finds dc = 0 has not found a bug. The bias $b_a$ inside the tanh is different: it changes the scores of the locations by
# different amounts.

# %%
scores, cache = additive_scores_forward(keys, query, v, c)
alpha, softmax_cache = softmax_forward(scores)
behind = softmax_backward(rng.standard_normal((N, L)), softmax_cache)
dkeys, dquery, dv, dc = additive_scores_backward(behind, cache)
print(f"alpha with c + 100 differs by {np.abs(softmax(scores + 100) - alpha).max():.0e}")
print(f"dc {dc[0]:.0e}   db_a, the sum of dkeys: {dkeys.sum(axis=(0, 1))}")
assert abs(dc[0]) < 1e-12

# %% [markdown]
# ## Look
#
# ### Saturation
#
# Both kinds of score can saturate. (a) The additive score: where $|\text{key}_i + \text{query}|$ is large, $1 - \tanh^2$ is
# near 0, and the gradients of the key and the query are near 0, too. (b) The dot score: if keys and queries have independent
# elements of variance 1, a sum of D products has the standard deviation $\sqrt{D}$, which is 23 for D = 512. Then the
# softmax gives nearly all weight to one location, and its own gradient is near 0. The division by $\sqrt{D}$ prevents this.

# %%
sizes, slopes = (0.1, 1, 3, 10, 30), []
print("size of keys and query   mean of 1 - tanh^2   |dkeys| for the same de")
for size in sizes:
    dkeys_now = additive_backward(de, size * keys, size * query, v)[0]
    slopes.append((1 - np.tanh(size * (keys + query[:, None, :])) ** 2).mean())
    print(f"{size:22}   {slopes[-1]:18.3f}   {np.linalg.norm(dkeys_now):8.3f}")
depths, largest = (4, 16, 64, 256, 1024), {"a . h": [], "a . h / sqrt(D)": []}
for depth in depths:
    many, states = rng.standard_normal((200, 49, depth)), rng.standard_normal((200, depth))
    for name, scale in (("a . h", 1), ("a . h / sqrt(D)", depth**-0.5)):
        largest[name].append(softmax(dot_scores_forward(many, states * scale)[0]).max(axis=1).mean())
print("mean of the largest of 49 weights, D =", depths)
for name, means in largest.items():
    print(f"{name:16}", np.array(means))

# %%
figure = Figure(figsize=(10, 3.6), layout="constrained")
left, middle, right = figure.subplots(1, 3)
line = np.linspace(-2, 2, 200)
for m, colour in ((-1, "C0"), (0, "C1"), (1, "C2")):
    bump = np.array([[1.0, -1.0]]) - 4 * m
    e = additive(line[None, :, None] * np.array([4.0, 4.0]), bump, np.array([1.0, -1.0]), np.zeros(1))
    left.plot(line, e[0], color=colour, label=f"additive, query for {m}")
left.plot(line, 0.5 * line, "k--", label="dot, q = 0.5")
left.plot([-1, 0, 1], [0, 0, 0], "ks", label="the three locations")
left.set(xlabel="annotation a", ylabel="score e")
left.legend(fontsize=7)
middle.semilogx(sizes, slopes, "o-")
middle.set(xlabel="size of keys and query", ylabel="mean of 1 - tanh², additive", ylim=(0, 1))
for name, means in largest.items():
    right.semilogx(depths, means, "o-", label=name)
right.set(xlabel="D (features)", ylabel="largest of 49 weights", ylim=(0, 1))
right.legend(fontsize=8)
see = "left, an additive score can be largest anywhere, a dot score only at an end; middle and right, saturation"
save(figure, "08_scores", see)

# %% [markdown]
# ## Check by number
#
# Each gradient against the complex step (lesson 02), with random numbers as the gradient of the scores.

# %%
inputs = {"keys": keys, "query": query, "v": v, "c": c}


def numbers(forward, names, name):
    point = {n: inputs[n].astype(complex) for n in names}  # all complex, so that no intermediate array is real
    return numeric_gradient(lambda x: (forward(**(point | {name: x}))[0] * de).sum(), inputs[name])


for kind, forward, backward, names in (
    ("additive", additive_scores_forward, additive_scores_backward, ("keys", "query", "v", "c")),
    ("dot", dot_scores_forward, dot_scores_backward, ("keys", "query")),
):
    gradients = backward(de, forward(*(inputs[n] for n in names))[1])
    for name, g in zip(names, gradients, strict=True):
        near(f"{kind} d{name}", g, numbers(forward, names, name))

# %% [markdown]
# ## Break it
#
# First a mistake in the backward pass: the sum over the locations is forgotten, so that the query gets the gradient of the
# last location only. The check sees it, and `diagnose` describes it.

# %%
dkeys, dquery, _, _ = additive_backward(de, keys, query, v)
right = numbers(additive_scores_forward, ("keys", "query", "v", "c"), "query")
error = np.linalg.norm(dkeys[:, -1] - right) / np.linalg.norm(right)
print(f"error {error:.2f};", *diagnose("dquery", dkeys[:, -1], right).sentence.split("; "), sep="\n    ")
assert error > 0.1

# %% [markdown]
# Then the forgotten tanh. Its backward pass is right for its forward pass, so a gradient check has nothing to report. The
# only sign is the gradient of the query: behind a softmax it is 0.

# %%
upstream = rng.standard_normal((N, L))
n = numeric_gradient(lambda q: (softmax((keys + q[:, None, :]) @ v) * upstream).sum(), query)
by_hand = np.outer(softmax_backward(upstream, softmax_forward((keys + query[:, None, :]) @ v)[1]).sum(axis=1), v)
print(f"no tanh: |dquery| by complex step {np.linalg.norm(n):.0e}, by hand {np.linalg.norm(by_hand):.0e}")
print("what diagnose reports:", diagnose("dquery", by_hand, n, scale=1.0))
print(f"what the other test reports: the weight that moves with the query is {moved(SCORES['no tanh']):.0e}")

# %% [markdown]
# A gradient check proves that the backward pass belongs to the forward pass. It cannot know whether the forward pass is the
# one that you wanted. For that you need tests of behaviour: does $\alpha$ change when h changes? Lesson 11 collects them.

# %% [markdown]
# ## Exercises
#
# 1. By hand: the keys are (1, 2), (0, 1), (3, -1), the query is (2, 1), and de = (1, -1, 2). Check with
#    `dot_scores_backward`: dquery = (7, -1), and the gradient of the third key is (4, 2).
# 2. Add a bias to the keys of the dot score, $\text{key}_i + b$. Show on paper that the softmax does not depend on b either.
#    Check: db behind a softmax is below 1e-12, while for the additive score it is not. (So the general score has no $b_a$.)
# 3. Place four locations at the corners of a square and a fifth in its centre (D = 2). Find v, $W_a$ and a query of an
#    additive score with A = 4 that gives the centre more than 0.9. Check: no dot score gives it more than 0.2. Why 0.2?
# 4. From which x on is $1 - \tanh^2 x$ below 1 %, and from which on below 1e-6? Check: 3.0 and 7.6. How large may keys and
#    queries be?
# 5. Write `general_backward(de, cache)` for $e_i = (a_i W_a) \cdot h$, using `dot_scores_backward`; it returns the gradients
#    of a, $W_a$ and h. Check all three by the complex step: below 1e-10.

# %% [markdown]
# ## Next
#
# Lesson 09 turns the scores into weights and the weights into the context, and derives the gradient all the way back.
