# %% [markdown]
# # 08 Attention scores three ways: dot, general, additive
#
# - time: 45 minutes
# - cpu: 10 seconds
# - before: 01, 02, 05
# - equations: Xu et al. 2015, eq. 4; Luong et al. 2015; Bahdanau et al. 2015
# - about: satnp.layers.additive_scores_forward
#
# Before each word the decoder asks: which part of the photo do I need now? It asks by giving each location a score, a
# number made from what is there (a_i) and what it has in mind (h). Three formulas for that number are in use. They differ
# in what they can single out at all, whatever their weights, and in how well they learn.

# %% [markdown]
# A photo is L vectors a_i of D numbers, one for each location (the last map of a CNN, lesson 04). The decoder's state h has
# H numbers (lesson 05). N photos at a time:
#
#     annotations (N, L, D),  h (N, H)   ->   scores e (N, L)
#
# All three formulas compare a key, made from the photo alone, with a query, made from the state alone. The keys of a photo
# are made once, the query anew for each word.
#
#     dot        keys_i = a_i              query = h / sqrt(D)     e_i = keys_i . query
#     general    keys_i = a_i W_a          query = h               e_i = keys_i . query
#     additive   keys_i = a_i W_a + b_a    query = h W_s           e_i = v . tanh(keys_i + query) + c
#
# Dot needs D = H. General has W_a (D, H), additive W_a (D, A), W_s (H, A) and v (A,).
#
# Scores become weights by softmax, alpha_i = exp(e_i) / sum_k exp(e_k): positive, summing to 1, the largest score the
# largest weight. Lesson 09 is about it; here we need only that.

# %%
from textwrap import fill

import numpy as np
from kit import near, save, show
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
from satnp.proof import bugs
from satnp.proof.gradcheck import diagnose, numeric_gradient

np.set_printoptions(precision=4, suppress=True, linewidth=78)
rng = np.random.default_rng(0)
N, L, D, H, A = 2, 5, 3, 4, 6
show(dot_scores_forward)
show(additive_scores_forward)

# %% [markdown]
# The additive code looks unlike its formula because it saves memory and time: with tanh(x) = 1 - 2R, R = (1 - tanh x)/2, it
# is e = sum(v) + c - 2 v . R, for a few photos at a time. R is between 0 and 1. (What F is, lesson 15 tells; here it is
# None, and R is made by a tanh.) The numbers are the same; the first check below shows it. Complex numbers, as in a
# gradient check, always take the printed formula.

# %%
keys, query = rng.standard_normal((N, L, A)), rng.standard_normal((N, A))
v, c = rng.standard_normal(A), rng.standard_normal(1)
scores, cache = additive_scores_forward(keys, query, v, c)
printed = (v * np.tanh(keys + query[:, None, :])).sum(axis=2) + c
near("the fast form against the printed formula", scores, printed)
print("scores\n", scores, "\nalpha\n", softmax(scores))

# %% [markdown]
# ## Predict
#
# Three locations lie on a line: a = -1, 0, 1 (D = 1). The decoder wants the MIDDLE one.
#
# 1. Is there any query q with which the dot score q a_i is largest in the middle?
# 2. Is there any v, W, q with which the additive score v . tanh(W a_i + q) is, with A = 2?
# 3. Take the tanh out: e_i = v . (keys_i + query). How much does alpha change when the query does?

# %% [markdown]
# ## Run
#
# ### What a linear score cannot do
#
# For a given state, dot and general scores are linear in a_i: e_i = a_i . w with w = h / sqrt(D) or W_a h. If a_2 is the
# mean of a_1 and a_3, then e_2 is the mean of e_1 and e_3, and a mean is never the largest. So whatever lies between
# others (inside their convex hull) can never win, with any weights. A vector twice as long gets twice the score: dot
# looks for "much of it", not for "like it".
#
# The additive score bends. tanh(x + 1) - tanh(x - 1) is a bump: near 0 for large |x|, highest at x = 0. With two units,
# W = (4, 4) and q = (-4m + 1, -4m - 1) and v = (1, -1), the bump sits at a = m. The query moves it.

# %%
a = np.array([[[-1.0], [0.0], [1.0]]])  # N = 1, L = 3, D = 1
best = {"dot": 0.0, "additive": 0.0}
for q in np.linspace(-20, 20, 401):
    scores, _ = dot_scores_forward(a, np.array([[q]]))
    best["dot"] = max(best["dot"], softmax(scores)[0, 1])
for m in (-1.0, 0.0, 1.0):
    bump = np.array([[1.0, -1.0]]) - 4 * m
    scores, _ = additive_scores_forward(a * np.array([4.0, 4.0]), bump, 3 * np.array([1.0, -1.0]), np.zeros(1))
    print(f"additive, bump at {m:4}: alpha", softmax(scores)[0])
    best["additive"] = max(best["additive"], softmax(scores)[0, 1])
print("most weight on the middle:", {name: round(float(x), 4) for name, x in best.items()})
assert best["dot"] <= 1 / 3 + 1e-12

# %% [markdown]
# The dot score never puts more than a third on the middle one. General is dot with another basis: it can compare any
# feature with any unit of the state and needs no D = H, but for a given state it is as linear. With more features the
# corners become many, and few vectors lie between others, so dot and general work well on the 512 features of a CNN. That
# is why all three are offered.
#
# ### What happens without the tanh
#
# Third question. v . (keys_i + query) = v . keys_i + v . query: the second part is the same for all i. Softmax forgets what
# is added to all scores, because exp(e_i + k) = exp(k) exp(e_i) and the factor cancels. Then alpha is the same for each
# word of the caption, and the decoder cannot ask. One popular port (the paper's model in another framework) has such
# scores. It trains, and its loss falls.


# %%
def moved(score):
    """How much of the weight moves when the query becomes another one: half of sum |alpha - alpha'|, from 0 to 1."""
    one, two = (softmax(score(keys, q)) for q in (query, query[::-1]))
    return 0.5 * np.abs(one - two).sum(axis=1).max()


SCORES = {
    "dot": lambda keys, query: dot_scores_forward(keys, query)[0],
    "additive": lambda keys, query: additive_scores_forward(keys, query, v, c)[0],
    "no tanh": lambda keys, query: (keys + query[:, None, :]) @ v,
    "additive, tiny": lambda keys, query: additive_scores_forward(0.01 * keys, 0.01 * query, v, c)[0],
}
for name, score in SCORES.items():
    print(f"{name:15} weight that moves with the query: {moved(score):.1e}")
assert moved(SCORES["no tanh"]) < 1e-12

# %% [markdown]
# The last row is a warning: for tiny arguments tanh(x) is x, and the additive score nearly forgets the query as well. A
# network initialised with very small weights starts with an attention that hardly listens.
#
# ### Backward
#
# Dot: e_i = sum_k keys_ik query_k. Each key went into one score, the query into all L of them:
#
#     dkeys_i = de_i query             dquery = sum_i de_i keys_i
#
# Additive: write u_i = tanh(keys_i + query), with tanh' = 1 - tanh^2. Then e_i = v . u_i + c and
#
#     dv = sum_i de_i u_i              (over all photos too: v is shared)
#     dc = sum_i de_i
#     du_i = de_i v
#     dkeys_i = de_i v (1 - u_i^2)     (one tanh for each number, so elementwise)
#     dquery = sum_i dkeys_i           (the query was added to each of the L keys)
#
# The code has R in place of u: 1 - u^2 = (1 - u)(1 + u) = 2R (2 - 2R) = 4 R (1 - R).

# %%
show(dot_scores_backward)
show(additive_scores_backward)
dscores = rng.standard_normal((N, L))
_, cache = additive_scores_forward(keys, query, v, c)
dkeys, dquery, dv, dc = additive_scores_backward(dscores, cache)
u = np.tanh(keys + query[:, None, :])
near("dkeys as derived", dkeys, dscores[:, :, None] * v * (1 - u * u))
near("dquery is their sum over the locations", dquery, dkeys.sum(axis=1))
near("dv as derived", dv, (dscores[:, :, None] * u).sum(axis=(0, 1)))

# %% [markdown]
# ### c learns nothing
#
# c is added to all scores, and softmax forgets it. So the loss does not depend on c, and its gradient must be 0. In the
# formula: dc = sum_i de_i, and behind a softmax de_i = alpha_i (dalpha_i - sum_k alpha_k dalpha_k) (derived in lesson 09).
# Summed over i: sum alpha_i dalpha_i - 1 * sum alpha_k dalpha_k = 0. The paper has c, so satnp keeps it; a gradient check
# that finds dc = 0 for all inputs has found no bug. The bias b_a inside the tanh is another matter: it moves each location
# along its own tanh.

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
# Two ways to go numb. (a) Additive: where |keys + query| is large, 1 - tanh^2 is 0, and neither key nor query learns.
# (b) Dot: for keys and queries of unit spread a sum of D products has spread sqrt(D). At D = 512 that is 23, softmax puts
# all weight on one location, and its own gradient is 0. Hence the division by sqrt(D).

# %%
sizes, slopes = (0.1, 1, 3, 10, 30), []
print("size of keys and query   mean of 1 - tanh^2   |dkeys| for the same dscores")
for size in sizes:
    dkeys_now = additive_scores_backward(dscores, additive_scores_forward(size * keys, size * query, v, c)[1])[0]
    slopes.append((1 - np.tanh(size * (keys + query[:, None, :])) ** 2).mean())
    print(f"{size:22}   {slopes[-1]:18.3f}   {np.linalg.norm(dkeys_now):8.3f}")
depths, largest = (4, 16, 64, 256, 1024), {"a . h": [], "a . h / sqrt(D)": []}
for depth in depths:
    many, asked = rng.standard_normal((200, 49, depth)), rng.standard_normal((200, depth))
    for name, scale in (("a . h", 1), ("a . h / sqrt(D)", depth**-0.5)):
        largest[name].append(softmax(dot_scores_forward(many, asked * scale)[0]).max(axis=1).mean())
print("largest of 49 weights, D =", depths)
for name, values in largest.items():
    print(f"{name:16}", np.array(values))

# %%
figure = Figure(figsize=(10, 3.6), layout="constrained")
left, middle, right = figure.subplots(1, 3)
line = np.linspace(-2, 2, 200)
places = line[None, :, None]
for m, colour in ((-1, "C0"), (0, "C1"), (1, "C2")):
    bump = np.array([[1.0, -1.0]]) - 4 * m
    e, _ = additive_scores_forward(places * np.array([4.0, 4.0]), bump, np.array([1.0, -1.0]), np.zeros(1))
    left.plot(line, e[0], color=colour, label=f"additive, query for {m}")
left.plot(line, 0.5 * line, "k--", label="dot, q = 0.5")
left.plot([-1, 0, 1], [0, 0, 0], "ks", label="the three locations")
left.set(xlabel="annotation a", ylabel="score e")
left.legend(fontsize=7)
middle.semilogx(sizes, slopes, "o-")
middle.set(xlabel="size of keys and query", ylabel="mean of 1 - tanh², additive", ylim=(0, 1))
for name, values in largest.items():
    right.semilogx(depths, values, "o-", label=name)
right.set(xlabel="D (features)", ylabel="largest of 49 weights", ylim=(0, 1))
right.legend(fontsize=8)
see = "left, additive scores can peak anywhere, a dot score only at an end; middle and right, what grows too large goes numb"
save(figure, "08_scores", see)

# %% [markdown]
# ## Check by number
#
# Each gradient against the complex step (lesson 02), with random numbers as the gradient of the scores.

# %%
inputs = {"keys": keys, "query": query, "v": v, "c": c}


def numbers(forward, names, name):
    point = {n: inputs[n].astype(complex) for n in names}  # all of them, so that no array on the way is real
    return numeric_gradient(lambda x: (forward(**(point | {name: x}))[0] * dscores).sum(), inputs[name])


for kind, forward, backward, names in (
    ("additive", additive_scores_forward, additive_scores_backward, ("keys", "query", "v", "c")),
    ("dot", dot_scores_forward, dot_scores_backward, ("keys", "query")),
):
    gradients = backward(dscores, forward(*(inputs[n] for n in names))[1])
    for name, g in zip(names, gradients, strict=True):
        near(f"{kind} d{name}", g, numbers(forward, names, name))

# %% [markdown]
# ## Break it
#
# First a mistake in the backward pass, planted in satnp's own source: the query's gradient of the last location only, a
# sum over L forgotten. The check sees it.

# %%
bug = next(bug for bug in bugs.BUGS if bug.name == "scores' query of the last location only")
result = bugs.check(bug)
print(f"{bug.old}\n  became {bug.new}\nerror {result.error:.2f}")
print(fill(result.findings[0].sentence, 78))
assert not result.passed

# %% [markdown]
# Then the forgotten tanh. Its backward is right for its forward, so the gradient check has nothing to say. The only sign is
# what a gradient check shows of the query: behind a softmax it is 0.

# %%
upstream = rng.standard_normal((N, L))
n = numeric_gradient(lambda q: (softmax((keys + q[:, None, :]) @ v) * upstream).sum(), query)
by_hand = np.outer(softmax_backward(upstream, softmax_forward((keys + query[:, None, :]) @ v)[1]).sum(axis=1), v)
print(f"no tanh: |dquery| by complex step {np.linalg.norm(n):.0e}, by hand {np.linalg.norm(by_hand):.0e}")
print("what diagnose says of the two:", diagnose("dquery", by_hand, n, scale=1.0))
print(f"what the other test says: the weight that moves with the query is {moved(SCORES['no tanh']):.0e}")

# %% [markdown]
# A gradient check proves that backward belongs to forward. It cannot know that the forward is the one you wanted. For that
# one needs checks of behaviour: does alpha move when h moves? Lesson 11 collects them.

# %% [markdown]
# ## Exercises
#
# 1. By hand: keys (1, 2), (0, 1), (3, -1), query (2, 1), dscores (1, -1, 2). Check with `dot_scores_backward`:
#    dquery = (7, -1) and dkeys_3 = (4, 2).
# 2. Add a bias to the keys of the dot score, keys_i + b. Show on paper that softmax forgets b as well. Check: db behind a
#    softmax is below 1e-12, while for the additive score it is not. (So `general` has no b_a.)
# 3. Place four locations at the corners of a square and one in its centre (D = 2). Find v, W_a and q of an additive score
#    with A = 4 that puts more than 0.9 on the centre. Check: no dot score gives it more than 0.2. Why 0.2?
# 4. From which x on is 1 - tanh^2(x) below 1 %, and below 1e-6? Check: 3.0 and 7.6. How large may keys and query be?
# 5. Write `general_backward(dscores, cache)` for e_i = (a_i W_a) . h on top of `dot_scores_backward`; it returns
#    dannotations, dW_a and dh. Check all three by the complex step: below 1e-10.

# %% [markdown]
# ## Next
#
# Lesson 09 turns scores into weights and weights into what is seen, and carries the gradient all the way back.
