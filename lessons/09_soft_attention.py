# %% [markdown]
# # 09 Soft attention, forward and backward
#
# - time: 60 minutes
# - cpu: 10 seconds
# - before: 01, 02, 08
# - equations: Xu et al. 2015, eqs. 4-6 and 13
# - about: satnp.layers.softmax_backward
#
# Soft attention turns L scores into L weights that sum to 1, and mixes the L vectors of a photo with them. Everything is
# smooth, so the gradient of the mixture says for each location whether it should have been looked at more or less. This
# lesson derives that gradient, line by line, from the mixture back to the state that asked the question.

# %% [markdown]
# The names, all through the course: N photos, L locations in each, D numbers at each location.
#
#     annotations   a        (N, L, D)   what the photo shows: one vector a_i for each location i
#     h                      (N, H)      what the decoder has in mind before the next word
#     scores        e        (N, L)      how well each location suits h (lesson 08)
#     alpha                  (N, L)      the weights: above 0, and each row sums to 1
#     context                (N, D)      what is seen: sum over i of alpha_i a_i
#
# The loss is one number made from the context by later layers. `dX` is the derivative of the loss by X: an array of
# X's own shape. The backward pass is handed dcontext and must return the rest.

# %%
from textwrap import fill

import numpy as np
from kit import near, save, show
from matplotlib.figure import Figure

from satnp.layers import (
    additive_scores_backward,
    additive_scores_forward,
    context_backward,
    context_forward,
    softmax_backward,
    softmax_forward,
)
from satnp.proof.gradcheck import diagnose, numeric_gradient

np.set_printoptions(precision=4, suppress=True, linewidth=78)
rng = np.random.default_rng(0)
N, L, D, H, A = 2, 6, 4, 5, 3
print(f"N {N} photos, L {L} locations, D {D}, H {H}, A {A}: no two alike")

# %% [markdown]
# ## Predict
#
# One photo, three locations, one number at each: a = (4, 0, 8). The scores are e = (log 2, 0, 0).
#
# 1. What are the weights alpha_i = exp(e_i) / sum_k exp(e_k), and what is the context?
# 2. Suppose the loss would fall by 1 if the context fell by 1, that is dcontext = 1. To make the loss smaller, which of the
#    three scores would you lower, which would you raise, and which would you leave as it is?
#
# Do it on paper. exp(log 2) = 2 and exp(0) = 1, so the weights are quarters and halves. The next cell prints the answer: de
# is the derivative of the loss by e.

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
# The first location is looked at most, and yet its score gets gradient 0. Its annotation, 4, equals the context, 4: more
# or less of it changes nothing. The second pulls the context down, the third up. So de is negative for the second (raise
# its score: a step goes against the gradient) and positive for the third. Now the derivation.
#
# ### From the context back to the weights
#
# Forward, for one photo and feature d:
#
#     context_d = sum_i alpha_i a_id
#
# It is linear in alpha_i with factor a_id, and linear in a_id with factor alpha_i. By the chain rule (lesson 01) each
# input collects from all outputs that it went into. alpha_i went into all D numbers of the context, a_id into one of them:
#
#     dalpha_i = sum_d dcontext_d a_id = dcontext . a_i          (N, L)
#     da_id    = alpha_i dcontext_d                              (N, L, D)
#
# In the example dalpha = a, because dcontext = 1. Read: dalpha_i is how fast the loss grows if location i gets more
# weight and no other gets less. In the listing, `context_weights_backward(dcontext, annotations)` is dcontext . a_i for each
# location of each photo. It is a function of its own because the loop of the captioner needs only that half.

# %%
show(context_backward)
alpha = rng.dirichlet(np.ones(L), N)  # random weights that sum to 1
annotations = rng.standard_normal((N, L, D))
dcontext = rng.standard_normal((N, D))
context, cache = context_forward(alpha, annotations)
dalpha, dannotations = context_backward(dcontext, cache)
print("by hand", (dcontext[0] * annotations[0, 2]).sum(), " by satnp", dalpha[0, 2])

# %% [markdown]
# ### From the weights back to the scores
#
# Weights that sum to 1 cannot grow alone. Raising e_k raises alpha_k and lowers all others. Write S = sum_j exp(e_j), so
# that alpha_i = exp(e_i) / S, and note dS/de_k = exp(e_k). With the quotient rule:
#
#     i = k:   dalpha_k/de_k = exp(e_k)/S - exp(e_k) exp(e_k)/S^2 = alpha_k - alpha_k alpha_k = alpha_k (1 - alpha_k)
#     i != k:  dalpha_i/de_k =            - exp(e_i) exp(e_k)/S^2                           =         - alpha_i alpha_k
#
# Both lines in one: dalpha_i/de_k = J_ik = alpha_i (1[i = k] - alpha_k), where 1[...] is 1 if so and else 0. This table of
# L x L numbers is the Jacobian of softmax: J = diag(alpha) - alpha^T alpha, for a row vector alpha. The next cell prints it
# for one photo.

# %%
alpha, softmax_cache = softmax_forward(np.array([[1.0, 0.0, -1.0, 0.5, 2.0, 0.2]]))
J = np.diag(alpha[0]) - np.outer(alpha[0], alpha[0])
print("alpha", alpha[0])
print(J)
print(f"largest sum of a row {np.abs(J.sum(axis=1)).max():.0e}")
print("J equals its transpose:", (J == J.T).all())

# %% [markdown]
# Each row and each column sums to 0: what one weight gains the others lose. The table is symmetric, so with softmax (and
# with few other layers) it does no harm to mix up J and its transpose.
#
# Backward, e_k collects from all L weights:
#
#     de_k = sum_i dalpha_i J_ik = sum_i dalpha_i alpha_i 1[i = k]  -  sum_i dalpha_i alpha_i alpha_k
#          = alpha_k dalpha_k - alpha_k sum_i alpha_i dalpha_i
#          = alpha_k (dalpha_k - mean),      mean = sum_i alpha_i dalpha_i
#
# The L x L table is never made. `mean` is the average of dalpha under the weights themselves: a score is told whether its
# location is better or worse than what is being looked at on average. In the example the mean is
# .5*4 + .25*0 + .25*8 = 4, and de = (.5*(4-4), .25*(0-4), .25*(8-4)) = (0, -1, 1).
#
# Put dalpha_i = dcontext . a_i into it. The mean becomes dcontext . (sum_i alpha_i a_i) = dcontext . context, and
#
#     de_i = alpha_i dcontext . (a_i - context)
#
# This one line is the gradient of soft attention. A location's score moves by how much it is looked at (alpha_i), times
# how far what is there differs from what was seen, along the direction that the loss cares for. In the listing,
# `softmax_gradient(dalpha, alpha)` is the line above it: alpha * (dalpha - mean), for each photo.

# %%
show(softmax_backward)
scores = rng.standard_normal((N, L))
alpha, softmax_cache = softmax_forward(scores)
context, context_cache = context_forward(alpha, annotations)
dalpha, _ = context_backward(dcontext, context_cache)
dscores = softmax_backward(dalpha, softmax_cache)
in_one = alpha * ((annotations - context[:, None, :]) * dcontext[:, None, :]).sum(axis=2)
near("two steps against the one line", dscores, in_one)
near("against the whole table J", dscores[0], dalpha[0] @ (np.diag(alpha[0]) - np.outer(alpha[0], alpha[0])))
print(f"largest sum over the locations of a photo {np.abs(dscores.sum(axis=1)).max():.0e}")

# %% [markdown]
# Each row of dscores sums to 0. It must: adding a constant to all scores leaves alpha as it is (lesson 08), so the loss
# does not change along that direction. The same fact makes the forward safe. exp(1000) is infinite in floating point, so
# `softmax_forward` first subtracts the largest score of the row, which changes nothing in exact arithmetic.

# %%
with np.errstate(over="ignore", invalid="ignore"):
    print("naive", np.exp([1000.0, 999, 0]) / np.exp([1000.0, 999, 0]).sum())
print("satnp", softmax_forward(np.array([[1000.0, 999, 0]]))[0][0])

# %% [markdown]
# ### From the scores back to the state
#
# Lesson 08 derived the additive scores and their backward: keys_i = a_i W_a + b_a, query = h W_s, and
# e_i = v . tanh(keys_i + query) + c. Given de the layer returns dkeys, dquery, dv and dc. What is left are two matrix
# products, and lesson 01 derived those: for y = x W, dx = dy W^T and dW = x^T dy, with one row for each photo (or each
# location of each photo). So
#
#     dh           = dquery W_s^T            dW_s = h^T dquery
#     dannotations = dkeys W_a^T             dW_a = (all annotations as rows)^T (all dkeys as rows)
#     db_a         = dkeys summed over all photos and locations
#
# The annotations are used twice, in the keys and in the context. An array that is used twice gets two gradients, and
# their sum is its gradient. Here is all of it: forward and, below, the same lines in reverse.


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
# Two things to notice. dc is 0 up to rounding, as lesson 08 said: c shifts all scores alike. And dh is not 0: the
# decoder's state learns from what it saw because of where it looked. That is the path that makes attention learnable.
#
# In satnp the same calls stand in `satnp/captioners/show_attend_tell.py`. There softmax and context run as one function,
# `soft_attention`, and keys are made once a caption, because they do not depend on h.

# %% [markdown]
# ## Look
#
# A photo of 6 x 9 locations. At each, four numbers (D = 4): how red it is, how blue, its row and its column. A red spot
# lies at the upper left, a blue one at the lower right. All weights are random and fixed; only the state h may move, from 0
# on. We want the context to be the annotation of the blue spot's middle: loss = half the squared distance. Then
# dcontext = context - wanted, and gradient descent on h (h - 0.3 dh, 300 times) uses the path dcontext -> dalpha -> dscores
# -> dquery -> dh and nothing else. Which location do you expect to be pushed hardest at step 0?

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
    state = state - 0.3 * look_backward(dcontext_now, cache)[0]
print("loss at steps 0, 10, 100, 300:", *(f"{losses[k]:.4f}" for k in (0, 10, 100, 300)))
for k, (alpha_map, _) in maps.items():
    print(f"step {k:3}: weight on blue's middle {alpha_map[4, 6]:.3f}, within a cell of it {alpha_map[3:6, 5:8].sum():.3f}")

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
see = "above, the weights move to the blue ring; below, scores are raised where dscores is brown (negative)"
save(figure, "09_alpha", see)

# %% [markdown]
# At step 0 the state happens to look at the red spot. Its score is pushed down hardest (purple in the lower map). Others
# are raised, but the blue spot itself hardly: its alpha is almost 0, and de_i has the factor alpha_i. A location that is
# not looked at cannot speak for itself. By step 10 most of the weight is there, and by step 300 most of it on the middle.
# dscores still asks for more, but no movement of the five numbers of h can give it: dh is 3e-4. So a fifth of the
# weight stays spread over the photo, and the loss does not reach 0.
#
# ## Check by number
#
# The complex step (lesson 02) gives the derivative of a forward pass to the last digits. A loss is one number, so the
# context is first multiplied by random numbers and summed: with loss = sum(context * dcontext) the upstream gradient is
# exactly dcontext.


# %%
def numbers(name, upstream):
    """The gradient by the input `name`, from the forward pass alone."""
    point = {n: x.astype(complex) for n, x in inputs.items()}  # all of them, so that no array on the way is real
    return numeric_gradient(lambda x: (look_forward(**(point | {name: x}))[0] * upstream).sum(), inputs[name])


for name, g in gradients.items():
    if name != "c":  # truly 0: no relative error
        near(f"d{name}", g, numbers(name, dcontext))
print(f"dc: {gradients['c'][0]:.0e}, by complex step {numbers('c', dcontext)[0]:.0e}")

# %% [markdown]
# ### Why the upstream gradient must be random
#
# Many checks use loss = out.sum(), an upstream gradient of ones. Check softmax alone that way: loss = sum_i alpha_i = 1,
# whatever the scores are. The right gradient is exactly 0. In the formula: dalpha = 1 everywhere, so mean = 1 and
# de = alpha (1 - 1) = 0. Then a backward that returns zeros is "right", and so is one with the wrong sign or size.
#
# It is not only softmax alone. If the numbers at each location sum to the same (annotations that are themselves a
# softmax, or one-hot), then ones at the context become the same dalpha_i = sum_d a_id for all i, and again de = 0.

# %%
ones = np.ones((N, L))
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
# Five wrong backwards of softmax, each against the complex step, with ones and with random numbers as the upstream
# gradient. Predict the table first: which of them does the check with ones let through?


# %%
def softmax_numbers(upstream):
    return numeric_gradient(lambda e: (softmax_forward(e)[0] * upstream).sum(), scores)


right = lambda d, alpha: alpha * (d - (alpha * d).sum(axis=1, keepdims=True))  # noqa: E731
WRONG = {
    "nothing flows back": lambda d, alpha: 0 * d,
    "wrong sign": lambda d, alpha: -right(d, alpha),
    "divided by L": lambda d, alpha: right(d, alpha) / L,
    "only the diagonal": lambda d, alpha: alpha * (1 - alpha) * d,
    "mean not weighted": lambda d, alpha: alpha * (d - d.mean(axis=1, keepdims=True)),
}
alpha, _ = softmax_forward(scores)
for name, backward in WRONG.items():
    seen = {}
    for kind, upstream in (("ones", ones), ("random", random)):
        error = np.abs(backward(upstream, alpha) - softmax_numbers(upstream)).max()
        seen[kind] = "passes" if error < 1e-10 else f"caught, off by {error:.3f}"
    print(f"{name:20} ones: {seen['ones']:24} random: {seen['random']}")

# %% [markdown]
# Ones let four of five through. Only the diagonal-only Jacobian is caught, because it is not 0 where it should be. With
# random numbers none passes.
#
# `diagnose` says what kind of wrong a gradient is (lesson 02). Here are two of the five, and one mistake in the whole path:
# dquery forgotten, so that nothing reaches h.

# %%
for name in ("wrong sign", "only the diagonal"):
    finding = diagnose("dscores", WRONG[name](random, alpha), softmax_numbers(random), sizes={"L": L})
    print(fill(f"{name}: {finding.sentence}", 78))
print(f"lost query: {diagnose('dh', 0 * gradients['h'], numbers('h', dcontext)).sentence}")

# %% [markdown]
# A lost query path is treacherous in training. The loss still falls: dv, dW_a and the other layers have their gradients,
# and only the state never learns to ask. In the figure's experiment, where h alone may move, the loss cannot fall:

# %%
state = np.zeros((1, 5))
for _ in range(300):
    context, cache = look_forward(state, photo, *fixed)
    dh = 0 * look_backward(context - wanted, cache)[0]  # the bug
    state = state - 0.3 * dh
print(f"loss after 300 steps with the query lost {0.5 * ((context - wanted) ** 2).sum():.4f}, without {losses[300]:.4f}")

# %% [markdown]
# ## Exercises
#
# 1. By hand: alpha = (1/2, 1/4, 1/4), dalpha = (1, 3, 7). What is de? Check: it sums to 0, and its second entry is 0.
# 2. Certain and wrong. Multiply e = (1, 0, -1, 0.5, 2, 0.2) by s = 1, 5, 20 and print the largest entry of J. Check:
#    0.2498 at s = 1, 0.0074 at s = 5, and 2e-9 at s = 20. What does that say of attention that has become certain too
#    early?
# 3. Set scores[:, 3] to -inf in a copy of `scores` and run softmax and context forward and backward. Check: alpha[:, 3]
#    and dscores[:, 3] are exactly 0 and nothing is NaN. This is how padding is masked.
# 4. Write the pair of `look` anew, without looking, for e_i = keys_i . h with keys_i = a_i W_a and W_a (D, H). Of the
#    backward, dkeys_i = de_i h and dh = sum_i de_i keys_i are new (lesson 08). Check dh, dannotations (two parts again) and
#    dW_a as `numbers` does, with your own forward and inputs: every error below 1e-10.
# 5. Take ones at the context, and annotations that sum to 1 at each location (`same_sum`). dscores is 0; show that
#    dannotations is NOT. Check: each entry of da_id is alpha_i.

# %% [markdown]
# ## Next
#
# Lesson 10 adds the two things that the paper puts around this: a gate that can turn the picture off, and a term that asks
# the caption as a whole to look everywhere.
