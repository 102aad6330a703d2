# %% [markdown]
# # 09 Soft attention, forward and backward
#
# - time: 60 minutes
# - cpu: 10 seconds
# - before: 01, 02, 08
# - equations: Xu et al. 2015, eqs. 4-6 and 13
# - about: satnp.layers.softmax_backward
#
# Soft attention turns L scores into L weights that sum to 1, and computes the weighted sum of the L annotation vectors of a
# photo. All of this is differentiable, so the gradient of the weighted sum says for each location whether its weight should
# be larger or smaller. This lesson derives that gradient step by step, from the weighted sum back to the decoder's state.

# %% [markdown]
# The names, in this lesson and the following ones, for N photos with L locations and D numbers at each location:
#
# | name | shape | meaning |
# |---|---|---|
# | annotations a | (N, L, D) | what the photo shows: a vector $a_i$ for each location i |
# | state h | (N, H) | the decoder's state before the next word |
# | scores e | (N, L) | how well each location suits h (lesson 08) |
# | weights $\alpha$, `alpha` | (N, L) | positive, and each row sums to 1 |
# | context | (N, D) | the weighted sum of the annotations, $\sum_{i} \alpha_i a_i$ |
#
# Later layers compute the loss, one number, from the context. We write $dX$ for the derivative of the loss with respect to
# X, an array of the shape of X. The backward pass receives the gradient of the context and must return those of all inputs.

# %%
from textwrap import fill

import numpy as np
from kit import graph, near, save
from matplotlib.figure import Figure

from satnp.layers import (
    additive_scores_backward,
    additive_scores_forward,
    context_backward,
    context_forward,
    softmax,
    softmax_backward,
    softmax_forward,
)
from satnp.proof.gradcheck import diagnose, numeric_gradient

np.set_printoptions(precision=4, suppress=True, linewidth=78)
rng = np.random.default_rng(0)
N, L, D, H, A = 2, 6, 4, 5, 3
print(f"N {N} photos, L {L} locations, D {D}, H {H}, A {A}: all different")

# %% [markdown]
# ## Predict
#
# One photo has three locations with one number at each: a = (4, 0, 8). The scores are $e = (\log 2, 0, 0)$.
#
# 1. What are the weights $\alpha_i = \exp(e_i) / \sum_{k} \exp(e_k)$, and what is the context?
# 2. Suppose that the loss falls by 1 if the context falls by 1, that is, $d\text{context} = 1$. To make the loss smaller,
#    which of the three scores should be lower, which higher, and which should stay as it is?
#
# Use paper: $\exp(\log 2) = 2$ and $\exp(0) = 1$, so the weights are halves and quarters. The next cell prints the answer;
# `de` is the derivative of the loss with respect to e.

# %% [markdown]
# ## Run

# %%
a = np.array([[[4.0], [0.0], [8.0]]])  # (1, 3, 1)
e = np.array([[np.log(2), 0.0, 0.0]])
alpha, softmax_cache = softmax_forward(e)
context, context_cache = context_forward(alpha, a)
print("alpha  ", alpha[0])
print("context", context[0])

dalpha, da = context_backward(np.array([[1.0]]), context_cache)
de = softmax_backward(dalpha, softmax_cache)
print("dalpha ", dalpha[0])
print("de     ", de[0])

# %% [markdown]
# The first location has the largest weight, but its score gets the gradient 0. Its annotation is 4 and the context is 4, so
# more or less of it changes nothing. The second location lowers the context, the third raises it. So de is negative for the
# second score (a step against the gradient raises it) and positive for the third. Now the derivation.
#
# ### From the context back to the weights
#
# Forward, for one photo and feature d:
#
# $$
# \text{context}_d = \sum_{i} \alpha_i a_{id}
# $$
#
# By the chain rule (lesson 01) the gradient of an input is a sum over all outputs that it is used for. $\alpha_i$ is used
# for all D numbers of the context, each time with the factor $a_{id}$. $a_{id}$ is used for one of them, with the factor
# $\alpha_i$:
#
# $$
# \begin{aligned}
# d\alpha_i &= \sum_{d} d\text{context}_d \, a_{id} = d\text{context} \cdot a_i \\
# da_{id} &= \alpha_i \, d\text{context}_d
# \end{aligned}
# $$
#
# In the example $d\alpha = a$, because $d\text{context} = 1$. In words: $d\alpha_i$ is the rate at which the loss grows if
# location i gets more weight and no other location gets less. The same as code, compared with satnp's `context_backward`
# (`satnp/layers/attention.py`):


# %%
def mix(alpha, a):
    """The sum over i of alpha_i a_i: (N, L), (N, L, D) -> (N, D)"""
    return np.einsum("nl,nld->nd", alpha, a)


def dot(a, x):
    """x . a_i for each location i: (N, L, D), (N, D) -> (N, L)"""
    return np.einsum("nld,nd->nl", a, x)


def outer(alpha, x):
    """alpha_i x for each location i: (N, L), (N, D) -> (N, L, D)"""
    return alpha[:, :, None] * x[:, None, :]


alpha = rng.dirichlet(np.ones(L), N)  # random weights that sum to 1
annotations = rng.standard_normal((N, L, D))
dcontext = rng.standard_normal((N, D))
context, cache = context_forward(alpha, annotations)
dalpha, da = context_backward(dcontext, cache)
near("context", context, mix(alpha, annotations))
near("dalpha", dalpha, dot(annotations, dcontext))
near("da", da, outer(alpha, dcontext))

# %% [markdown]
# ### From the weights back to the scores
#
# The weights sum to 1, so one of them cannot grow alone. A larger $e_k$ makes $\alpha_k$ larger and all other weights
# smaller. Write $S = \sum_{j} \exp(e_j)$, so that $\alpha_i = \exp(e_i) / S$ and $\partial S / \partial e_k = \exp(e_k)$. By
# the quotient rule
#
# $$
# \begin{aligned}
# \frac{\partial \alpha_k}{\partial e_k} &= \frac{\exp(e_k)}{S} - \frac{\exp(e_k)^2}{S^2} = \alpha_k (1 - \alpha_k) \\
# \frac{\partial \alpha_i}{\partial e_k} &= - \frac{\exp(e_i) \exp(e_k)}{S^2} = - \alpha_i \alpha_k \quad \text{for } i \ne k
# \end{aligned}
# $$
#
# Both in one, with $\delta_{ik} = 1$ if i = k and 0 otherwise:
#
# $$
# J_{ik} = \frac{\partial \alpha_i}{\partial e_k} = \alpha_i (\delta_{ik} - \alpha_k)
# $$
#
# This L x L matrix is the Jacobian of the softmax. For a row vector $\alpha$,
# $J = \operatorname{diag}(\alpha) - \alpha^{\top} \alpha$. The next cell prints it for one photo.

# %%
alpha, softmax_cache = softmax_forward(np.array([[1.0, 0.0, -1.0, 0.5, 2.0, 0.2]]))
J = np.diag(alpha[0]) - np.outer(alpha[0], alpha[0])
print("alpha", alpha[0])
print(J)
print(f"largest sum of a row {np.abs(J.sum(axis=1)).max():.0e}")
print("J equals its transpose:", (J == J.T).all())

# %% [markdown]
# Each row and each column sums to 0: what one weight gains, the others lose. The matrix is symmetric, so here it makes no
# difference if J and its transpose are confused. (For $y = x W$ of lesson 01 it does.)
#
# Backward, $e_k$ is used for all L weights:
#
# $$
# \begin{aligned}
# de_k &= \sum_{i} d\alpha_i J_{ik} = \sum_{i} d\alpha_i \alpha_i \delta_{ik} - \sum_{i} d\alpha_i \alpha_i \alpha_k \\
# &= \alpha_k d\alpha_k - \alpha_k \sum_{i} \alpha_i d\alpha_i \\
# &= \alpha_k (d\alpha_k - m), \quad m = \sum_{i} \alpha_i d\alpha_i
# \end{aligned}
# $$
#
# So the L x L matrix need not be computed. m is the mean of $d\alpha$, weighted by the weights themselves. If $d\alpha_k$ is
# larger than this mean, a larger score $e_k$ makes the loss larger; if it is smaller, the loss becomes smaller. In the
# example $m = 0.5 \cdot 4 + 0.25 \cdot 0 + 0.25 \cdot 8 = 4$, and
# $de = (0.5 \cdot (4 - 4), 0.25 \cdot (0 - 4), 0.25 \cdot (8 - 4)) = (0, -1, 1)$.
#
# Insert $d\alpha_i = d\text{context} \cdot a_i$. The mean becomes
# $m = d\text{context} \cdot \sum_{i} \alpha_i a_i = d\text{context} \cdot \text{context}$, and
#
# $$
# de_i = \alpha_i \, d\text{context} \cdot (a_i - \text{context}).
# $$
#
# This equation is the gradient of soft attention. The gradient of a score is a product of two factors: the weight of its
# location, $\alpha_i$, and the difference between its annotation and the context, as a dot product with $d\text{context}$.
#
# The same as code, compared with satnp's `softmax_backward`, with the Jacobian, and with the equation above:


# %%
def plain_softmax_backward(dalpha, alpha):
    m = (alpha * dalpha).sum(axis=1, keepdims=True)
    return alpha * (dalpha - m)


scores = rng.standard_normal((N, L))
alpha, softmax_cache = softmax_forward(scores)
context, context_cache = context_forward(alpha, annotations)
dalpha, _ = context_backward(dcontext, context_cache)
dscores = softmax_backward(dalpha, softmax_cache)
near("plain softmax backward", plain_softmax_backward(dalpha, alpha), dscores)
near("by the Jacobian, first photo", dalpha[0] @ (np.diag(alpha[0]) - np.outer(alpha[0], alpha[0])), dscores[0])
near("softmax and context in one", alpha * dot(annotations - context[:, None, :], dcontext), dscores)
print(f"largest sum over the locations of a photo {np.abs(dscores.sum(axis=1)).max():.0e}")

# %% [markdown]
# The gradient of the scores sums to 0 over the locations of each photo. It must: a constant that is added to all scores does
# not change $\alpha$ (lesson 08), so the loss does not change in that direction. For the same reason the forward pass can
# avoid overflow. $\exp(1000)$ is infinite in floating point, and infinity divided by infinity is NaN. So `softmax_forward`
# first subtracts the largest score of the row, which in exact arithmetic changes nothing.

# %%
with np.errstate(over="ignore", invalid="ignore"):
    print("naive", np.exp([1000.0, 999, 0]) / np.exp([1000.0, 999, 0]).sum())
print("satnp", softmax_forward(np.array([[1000.0, 999, 0]]))[0][0])

# %% [markdown]
# ### From the scores back to the state
#
# Lesson 08 derived the additive scores and their backward pass: $\text{key}_i = a_i W_a + b_a$, $\text{query} = h W_s$ and
# $e_i = v \cdot \tanh(\text{key}_i + \text{query}) + c$. From de that layer returns the gradients of keys, query, v and c.
# Two matrix products remain, and lesson 01 derived those: for $y = x W$, $dx = dy \, W^{\top}$ and $dW = x^{\top} dy$, with
# one row for each photo (or for each location of each photo). So
#
# $$
# \begin{aligned}
# dh &= d\text{query} \, W_s^{\top}, \quad & dW_s &= h^{\top} d\text{query} \\
# da_i &= d\text{key}_i \, W_a^{\top}, \quad & dW_a &= \sum_{n,i} a_{ni}^{\top} d\text{key}_{ni}
# \end{aligned}
# $$
#
# where n counts the photos; $db_a$ is the sum of $d\text{key}_{ni}$ over n and i. In the code these sums are one product:
# all annotations of all photos are the rows of one matrix. The annotations have two users, the keys and the context. An
# array with two users receives two gradients, and its gradient is their sum. Here is all of it, forward and backward:


# %%
def look_forward(h, annotations, W_a, b_a, W_s, v, c):
    N, L, D = annotations.shape
    keys = (annotations.reshape(N * L, D) @ W_a + b_a).reshape(N, L, -1)
    scores, scores_cache = additive_scores_forward(keys, h @ W_s, v, c)  # eq. 4
    alpha, softmax_cache = softmax_forward(scores)  # eq. 5
    context, context_cache = context_forward(alpha, annotations)  # eqs. 6, 13
    return context, (h, annotations, W_a, W_s, scores_cache, softmax_cache, context_cache)


def look_backward(dcontext, cache):
    h, annotations, W_a, W_s, scores_cache, softmax_cache, context_cache = cache
    N, L, D = annotations.shape
    dalpha, da_context = context_backward(dcontext, context_cache)
    dscores = softmax_backward(dalpha, softmax_cache)
    dkeys, dquery, dv, dc = additive_scores_backward(dscores, scores_cache)
    dh, dW_s = dquery @ W_s.T, h.T @ dquery
    dkeys = dkeys.reshape(N * L, -1)
    da_keys, dW_a, db_a = (dkeys @ W_a.T).reshape(N, L, D), annotations.reshape(N * L, D).T @ dkeys, dkeys.sum(axis=0)
    return dh, da_context + da_keys, dW_a, db_a, dW_s, dv, dc


inputs = {
    "h": rng.standard_normal((N, H)), "annotations": annotations, "W_a": rng.standard_normal((D, A)),
    "b_a": rng.standard_normal(A), "W_s": rng.standard_normal((H, A)), "v": rng.standard_normal(A), "c": np.ones(1),
}  # fmt: skip
context, look_cache = look_forward(*inputs.values())
gradients = dict(zip(inputs, look_backward(dcontext, look_cache), strict=True))
for name, g in gradients.items():
    print(f"d{name:12}{g.shape!s:11} norm {np.linalg.norm(g):.4f}")

# %% [markdown]
# The same as a drawing (without the biases $b_a$ and c). Solid arrows are the forward pass, dashed arrows are gradients, and
# u is the tanh. `kit.graph` evaluates every formula and compares it with what `look_forward` and `look_backward` returned.
# Two dashed arrows arrive at the annotations a, one from each user. `m(dalpha)` is the weighted mean m.

# %%
*_, softmax_cache, context_cache = look_cache
values = {name: inputs[name] for name in ("h", "W_a", "b_a", "W_s", "v", "c")} | {"a": annotations}
values |= {f"d{name}": gradients[name] for name in ("h", "W_a", "W_s", "v")} | {"da": gradients["annotations"]}
values |= {"alpha": context_cache.alpha, "context": context, "softmax": softmax, "mix": mix, "dot": dot, "outer": outer,
           "m": lambda d: (context_cache.alpha * d).sum(axis=1, keepdims=True)}  # fmt: skip
steps = [
    ("keys", "a @ W_a + b_a", {"a": "dkeys @ W_a.T", "W_a": "np.einsum('nld,nla->da', a, dkeys)"}),
    ("query", "h @ W_s", {"h": "dquery @ W_s.T", "W_s": "h.T @ dquery"}),
    ("u", "np.tanh(keys + query[:, None])", {"keys": "du * (1 - u**2)", "query": "(du * (1 - u**2)).sum(1)"}),
    ("e", "u @ v + c", {"u": "de[:, :, None] * v", "v": "(de[:, :, None] * u).sum((0, 1))"}),
    ("alpha", "softmax(e)", {"e": "alpha * (dalpha - m(dalpha))"}),
    ("context", "mix(alpha, a)", {"alpha": "dot(a, dcontext)", "a": "outer(alpha, dcontext)"}),
]
see = "the annotations have two users, the keys and the context; the state gets its gradient through alpha"
graph("09_flow", steps, values, {"N": N, "L": L, "D": D, "H": H, "A": A}, {"context": dcontext}, see)

# %% [markdown]
# Two of the printed norms are remarkable. dc is 0 up to rounding, as lesson 08 said: c changes all scores alike. And dh is
# not 0: the context depends on the state, because the state determines the weights of the locations. Through this path the
# network learns where to look.
#
# In satnp the same calls are in `satnp/reference/show_attend_tell.py`, which follows the equations step by step, and a
# faster form of them is in `satnp/captioners/show_attend_tell.py`. There softmax and context are one function,
# `soft_attention`, and the keys are computed once for each caption, because they do not depend on h.

# %% [markdown]
# ## Look
#
# A photo has 6 x 9 locations with four numbers each (D = 4): how red it is, how blue it is, its row and its column. There is
# a red spot at the upper left and a blue one at the lower right. All weights are random and fixed; only the state h changes,
# starting at 0. The context should become the annotation of the middle of the blue spot: the loss is half the squared
# distance, so that `dcontext = context - wanted`. Gradient descent on h (h - 0.3 dh, 300 times) uses only the path from
# dcontext through dalpha, dscores and dquery to dh. Which location's score gets the largest gradient at step 0?

# %%
rows, columns = 6, 9
y, x = np.mgrid[:rows, :columns]
red, blue = (np.exp(-((y - r) ** 2 + (x - k) ** 2) / 1.5) for r, k in ((1, 2), (4, 6)))
photo = np.stack([red, blue, y / rows - 0.5, x / columns - 0.5], axis=2).reshape(1, rows * columns, 4)
wanted = photo[:, 4 * columns + 6]  # row 4, column 6: the middle of the blue spot
draw = np.random.default_rng(1)
fixed = [3 * draw.standard_normal(shape) for shape in ((4, 16), (16,), (5, 16))]  # W_a, b_a, W_s
fixed += [draw.standard_normal(16), np.zeros(1)]  # v, c
state, maps, losses = np.zeros((1, 5)), {}, []
for step in range(301):
    context, cache = look_forward(state, photo, *fixed)
    dcontext_now = context - wanted
    losses.append(0.5 * float((dcontext_now**2).sum()))
    if step in (0, 10, 300):
        *_, softmax_now, context_now = cache
        de = softmax_backward(context_backward(dcontext_now, context_now)[0], softmax_now)
        maps[step] = context_now.alpha.reshape(rows, columns), de.reshape(rows, columns)
    dh = look_backward(dcontext_now, cache)[0]
    state = state - 0.3 * dh
print("loss at steps 0, 10, 100, 300:", *(f"{losses[k]:.4f}" for k in (0, 10, 100, 300)))
for k, (alpha_map, _) in maps.items():
    print(f"step {k:3}: weight of blue's middle {alpha_map[4, 6]:.3f}, of 3 x 3 around it {alpha_map[3:6, 5:8].sum():.3f}")
print(f"norm of dh at step 300: {np.linalg.norm(dh):.0e}")

# %%
figure = Figure(figsize=(10, 4.6), layout="constrained")
axes = figure.subplots(2, 3)
for column, (step, (alpha_map, de_map)) in enumerate(maps.items()):
    largest = np.abs(de_map).max()
    drawn = [
        (alpha_map, {"cmap": "gray", "vmin": 0}, f"alpha, step {step} (loss {losses[step]:.3f})"),
        (de_map, {"cmap": "PuOr", "vmin": -largest, "vmax": largest}, f"dscores, step {step}"),
    ]
    for ax, (values, style, title) in zip(axes[:, column], drawn, strict=True):
        figure.colorbar(ax.imshow(values, **style), ax=ax)
        ax.plot(2, 1, "o", color="red", markerfacecolor="none", markersize=14)
        ax.plot(6, 4, "o", color="blue", markerfacecolor="none", markersize=14)
        ax.set(title=title, xlabel="column (cells)", ylabel="row (cells)")
see = "above, the weight moves to the blue circle; below, a step raises the scores where dscores is brown (negative)"
save(figure, "09_alpha", see)

# %% [markdown]
# At step 0 the largest weights happen to be at the red spot, and the gradient of its score is the largest (purple in the
# lower map): a step lowers it. Other scores are raised, but hardly that of the blue spot: its weight is 0.002, and $de_i$
# has the factor $\alpha_i$. A location with almost no weight gets almost no gradient, however much it would help. At step 10
# most of the weight is near the blue spot, and at step 300 most of it is on its middle. There dscores is not 0, but dh
# nearly is (3e-4): no small change of the five numbers of h lowers the loss much further. So a fifth of the weight stays
# spread over the photo, and the loss does not reach 0.
#
# ## Check by number
#
# The complex step (lesson 02) computes the derivative of a forward pass to the last digits. It needs a loss, so the context
# is multiplied by random numbers and summed: if the loss is the sum of `context * dcontext`, the gradient of the context is
# exactly `dcontext`.


# %%
def numbers(name, upstream):
    """The gradient with respect to the input `name`, from the forward pass alone."""
    point = {n: x.astype(complex) for n, x in inputs.items()}  # all complex, so that no intermediate array is real
    return numeric_gradient(lambda x: (look_forward(**(point | {name: x}))[0] * upstream).sum(), inputs[name])


for name, g in gradients.items():
    if name != "c":  # it is 0, so it has no relative error
        near(f"d{name}", g, numbers(name, dcontext))
print(f"dc: {gradients['c'][0]:.0e}, by complex step {numbers('c', dcontext)[0]:.0e}")

# %% [markdown]
# ### Why the upstream gradient must be random
#
# Some gradient checks use `loss = out.sum()`, that is, an upstream gradient of ones. Apply this to the softmax alone: the
# loss is $\sum_{i} \alpha_i = 1$, whatever the scores are, and its gradient is exactly 0. In the formula: $d\alpha_i = 1$
# for all i, so m = 1 and $de_i = \alpha_i (1 - 1) = 0$. Then a backward pass that returns zeros passes the check, and so
# does one with the wrong sign or the wrong scale.
#
# This does not only happen for the softmax alone. If the numbers at each location have the same sum (annotations that are
# the output of a softmax, or one-hot), an upstream gradient of ones at the context gives $d\alpha_i = \sum_{d} a_{id}$, the
# same for all i, and again de = 0.

# %%
ones = np.ones((N, L))
alpha, softmax_cache = softmax_forward(scores)
print("dscores of ones  ", softmax_backward(ones, softmax_cache).round(12)[0] + 0.0)  # no -0
random = rng.standard_normal((N, L))
print("dscores of random", softmax_backward(random, softmax_cache)[0])

same_sum = annotations / annotations.sum(axis=2, keepdims=True)  # each location's numbers sum to 1
dalpha, _ = context_backward(np.ones((N, D)), context_forward(alpha, same_sum)[1])
print("dalpha where each location sums to 1:", dalpha[0])
assert np.abs(softmax_backward(dalpha, softmax_cache)).max() < 1e-12

# %% [markdown]
# ## Break it
#
# Five wrong backward passes of the softmax, each against the complex step, once with ones and once with random numbers as
# the upstream gradient. Predict the table first: which of them pass the check with ones?


# %%
def softmax_numbers(upstream):
    return numeric_gradient(lambda e: (softmax_forward(e)[0] * upstream).sum(), scores)


WRONG = {
    "nothing flows back": lambda d, alpha: 0 * d,
    "wrong sign": lambda d, alpha: -plain_softmax_backward(d, alpha),
    "divided by L": lambda d, alpha: plain_softmax_backward(d, alpha) / L,
    "only the diagonal": lambda d, alpha: alpha * (1 - alpha) * d,
    "mean not weighted": lambda d, alpha: alpha * (d - d.mean(axis=1, keepdims=True)),
}
for name, backward in WRONG.items():
    result = {}
    for kind, upstream in (("ones", ones), ("random", random)):
        error = np.abs(backward(upstream, alpha) - softmax_numbers(upstream)).max()
        result[kind] = "passes" if error < 1e-10 else f"caught, off by {error:.3f}"
    print(f"{name:20} ones: {result['ones']:24} random: {result['random']}")

# %% [markdown]
# With ones, four of the five pass. Only the diagonal of the Jacobian is caught, because its result is not 0 where it should
# be. With random numbers none passes.
#
# `diagnose` (lesson 02) describes the difference between a wrong gradient and the right one. Here are two of the
# five, and one mistake in the whole path: dquery is forgotten, so that h gets no gradient.

# %%
for name in ("wrong sign", "only the diagonal"):
    finding = diagnose("dscores", WRONG[name](random, alpha), softmax_numbers(random), sizes={"L": L})
    print(fill(f"{name}: {finding.sentence}", 78))
print(f"lost query: {diagnose('dh', 0 * gradients['h'], numbers('h', dcontext)).sentence}")

# %% [markdown]
# A forgotten dquery is easy to overlook in training. The loss can still fall, because v, $W_a$ and the other layers have
# their gradients. But $W_s$ and h get no gradient from attention, so the network cannot learn where to look for each word.
# In the experiment of the figure, where h alone changes, the loss cannot fall:

# %%
state = np.zeros((1, 5))
for _ in range(300):
    context, cache = look_forward(state, photo, *fixed)
    dh = 0 * look_backward(context - wanted, cache)[0]  # the bug
    state = state - 0.3 * dh
print(f"loss after 300 steps without dquery {0.5 * ((context - wanted) ** 2).sum():.4f}, with it {losses[300]:.4f}")

# %% [markdown]
# ## Exercises
#
# 1. By hand: $\alpha = (1/2, 1/4, 1/4)$ and $d\alpha = (1, 3, 7)$. What is de? Check: it sums to 0, and its second element
#    is 0.
# 2. What if nearly all weight is on one location? Multiply e = (1, 0, -1, 0.5, 2, 0.2) by 1, 5 and 20, and print the largest
#    element of the softmax's J. Check: 0.2498, 0.0074 and 2e-9. What does this mean for attention that puts all weight on
#    one location too early in training?
# 3. Set `scores[:, 3]` to -inf in a copy of `scores`, and run softmax and context forward and backward. Check: alpha[:, 3]
#    and dscores[:, 3] are exactly 0, and nothing is NaN. This is how padding is masked.
# 4. Without looking, write `look_forward` and `look_backward` for $e_i = \text{key}_i \cdot h$ with
#    $\text{key}_i = a_i W_a$ and $W_a$ (D, H). Of the backward pass, $d\text{key}_i = de_i \, h$ and
#    $dh = \sum_{i} de_i \, \text{key}_i$ are new (lesson 08). Check $dh$, $da$ (again a sum of two) and $dW_a$ as
#    `numbers` does, with your own forward pass and inputs: every error is below 1e-10.
# 5. Let the upstream gradient of the context be ones, and let the annotations sum to 1 at each location (`same_sum`).
#    dscores is 0; show that dannotations is NOT. Check: each $da_{id}$ is $\alpha_i$.

# %% [markdown]
# ## Next
#
# Lesson 10 adds two things from the paper: a gate that controls how much of the context is used, and a penalty for captions
# that leave parts of the photo out.
