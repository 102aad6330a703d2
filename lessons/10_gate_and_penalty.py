# %% [markdown]
# # 10 The beta gate and the doubly stochastic term
#
# - time: 45 minutes
# - cpu: 10 seconds
# - before: 02, 07, 09
# - equations: Xu et al. 2015, section 4.2.1 and eq. 14
# - about: satnp.layers.doubly_stochastic_backward
#
# The paper adds two things to soft attention. A gate $\beta$ controls how much of the context each word uses: "circle" may
# need much of it, "of" little. And a penalty pushes the sum of the weights of each location over a caption towards 1. The
# gate adds a path to the gradient of h. The penalty adds a gradient to $\alpha$ that depends on all time steps at once.

# %% [markdown]
# ## Predict
#
# 1. The gate is closed, $\beta = 0$, at some word. Which of these are 0 at that word: the gradient of the context, the
#    gradient of the gate's own weights, both, or neither?
# 2. The penalty is $P = \sum_{i} (1 - \sum_{t} \alpha_{ti})^2$ for one caption of T words on L locations. Another program
#    has $(T/L - \sum_{t} \alpha_{ti})^2$ instead. It prints another loss. How do its gradients differ, those of
#    the weights $\alpha$ and those of the scores?
# 3. In the backward loop, t runs from T down to 1. Can step t compute its share of the gradient of the penalty from what the
#    loop has computed so far?

# %%
from textwrap import fill

import numpy as np
from kit import graph, near, save
from matplotlib.figure import Figure

from satnp.layers import (
    doubly_stochastic_backward,
    doubly_stochastic_forward,
    gate_backward,
    gate_forward,
    sigmoid,
    softmax,
    softmax_backward,
    softmax_forward,
)
from satnp.proof import bugs
from satnp.proof.gradcheck import diagnose, numeric_gradient

np.set_printoptions(precision=4, suppress=True, linewidth=78)
rng = np.random.default_rng(0)
N, T, L, D, H = 2, 4, 7, 5, 3

# %% [markdown]
# ## Run
#
# ### The gate
#
# The gate is one number between 0 and 1 for each photo, computed from the state h (N, H) with weights W (H, 1) and a bias b
# (1,). It multiplies the context of lesson 09. The result z goes to the LSTM and to the output layer.
#
# $$
# \begin{aligned}
# \text{pre} &= h W + b \\
# \beta &= \sigma(\text{pre}) \\
# z &= \beta \, \text{context}
# \end{aligned}
# $$
#
# We write $dX$ for the derivative of the loss with respect to X. Backward, from $dz$: in a product each factor gets $dz$
# times the other factor. One $\beta$ multiplies all D numbers of the context, so its gradient is a sum over d. And
# $\sigma' = \sigma (1 - \sigma)$ (lesson 06):
#
# $$
# \begin{aligned}
# d\text{context} &= \beta \, dz \\
# d\beta &= \sum_{d} dz_d \, \text{context}_d \\
# d\text{pre} &= d\beta \cdot \beta (1 - \beta) \\
# dh &= d\text{pre} \, W^{\top} \\
# dW &= h^{\top} d\text{pre} \\
# db &= \sum_{n} d\text{pre}_n
# \end{aligned}
# $$
#
# So h now has two users in each step: attention computes the weights from it, and the gate computes $\beta$. The same as
# code, compared with satnp's `gate_forward` and `gate_backward` (`satnp/layers/gate.py`):


# %%
def plain_gate(h, context, W, b):
    beta = sigmoid(h @ W + b)
    return beta * context, beta


def plain_gate_backward(dz, h, context, W, beta):
    dcontext = dz * beta
    dbeta = (dz * context).sum(axis=1, keepdims=True)
    dpre = dbeta * beta * (1 - beta)
    return dpre @ W.T, dcontext, h.T @ dpre, dpre.sum(axis=0)  # dh, dcontext, dW, db


h, context = rng.standard_normal((N, H)), rng.standard_normal((N, D))
W, b, dz = rng.standard_normal((H, 1)), rng.standard_normal(1), rng.standard_normal((N, D))
z, gate_cache = gate_forward(h, context, W, b)
dh, dcontext, dW, db = gate_backward(dz, gate_cache)
plain_z, beta = plain_gate(h, context, W, b)
near("z", plain_z, z)
for name, plain, ours in zip(
    ("h", "context", "W", "b"), plain_gate_backward(dz, h, context, W, beta), (dh, dcontext, dW, db), strict=True
):
    near(f"d{name}", plain, ours)
print("beta", beta.ravel(), " dh", dh[0])

# %% [markdown]
# The gate as a drawing. Both factors of the product, $\beta$ and the context, have a dashed arrow with the other factor:

# %%
values = {"h": h, "context": context, "W": W, "b": b, "z": z, "dh": dh, "dcontext": dcontext, "dW": dW, "db": db,
          "beta": gate_cache.beta, "sigmoid": sigmoid}  # fmt: skip
steps = [
    ("pre", "h @ W + b", {"h": "dpre @ W.T", "W": "h.T @ dpre", "b": "dpre.sum(axis=0)"}),
    ("beta", "sigmoid(pre)", {"pre": "dbeta * beta * (1 - beta)"}),
    ("z", "beta * context", {"beta": "(dz * context).sum(1, keepdims=True)", "context": "dz * beta"}),
]
see = "dbeta is a sum over the D numbers of the context; dcontext has the factor beta"
graph("10_gate", steps, values, {"N": N, "D": D, "H": H}, {"z": dz}, see)

# %% [markdown]
# What happens if the gate is closed? $\sigma(-50)$ is 2e-22, which satnp's sigmoid, $\tanh(x/2)/2 + 1/2$, rounds to exactly
# 0. Then $d\text{context} = \beta \, dz$ is 0, so attention gets no gradient at this word. The gate's own gradient has the
# factor $\beta (1 - \beta)$ and is 0 as well. A gate that is completely closed for all words does not open again: the answer
# to the first question is "both". (satnp initialises b with 0, so at first $\beta$ is near one half.)

# %%
for bias in (0.0, -5.0, -50.0):
    _, cache = gate_forward(h, context, W, b + bias)
    dh_shut, dcontext_shut, dW_shut, _ = gate_backward(dz, cache)
    norms = (np.linalg.norm(x) for x in (dcontext_shut, dW_shut, dh_shut))
    print("b {:+4.0f}  beta {:.0e}  |dcontext| {:.0e}  |dW| {:.0e}  |dh| {:.0e}".format(bias, cache.beta.max(), *norms))

# %% [markdown]
# Some programs give each feature its own $\beta$, with W (H, D), for example `f_beta` in `models.py` of the GitHub
# repository `sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning`. Then there is no sum over d. `gate_backward` handles both.
#
# ### The doubly stochastic term
#
# The softmax makes the weights of each step sum to 1 over the locations. Nothing restricts their sum over time, so a decoder
# may attend to the same location at all of its words. Equation 14 adds for each caption, with a factor $\lambda$,
#
# $$
# \lambda \sum_{i} \left( 1 - \sum_{t} \alpha_{ti} \right)^2.
# $$
#
# A matrix whose rows and columns all sum to 1 is called doubly stochastic; hence the name. The captions of a batch have
# different lengths: let $m_{tn}$ be 1 if caption n has a word at step t, and 0 otherwise. With the mean over the N captions
#
# $$
# \begin{aligned}
# \text{excess}_{ni} &= \sum_{t} m_{tn} \alpha_{tni} - 1 \\
# P &= \frac{1}{N} \sum_{n} \sum_{i} \text{excess}_{ni}^2
# \end{aligned}
# $$
#
# By the chain rule, with $\partial P / \partial \text{excess}_{ni} = 2 \, \text{excess}_{ni} / N$ and
# $\partial \text{excess}_{ni} / \partial \alpha_{tni} = m_{tn}$:
#
# $$
# d\alpha_{tni} = \frac{2}{N} m_{tn} \, \text{excess}_{ni}
# $$
#
# The excess does not depend on t, so all words of a caption get the same gradient. But it contains the weights of ALL steps.
# The backward loop begins with the last word; at step t it has seen the steps after t, but not those before t. So the excess
# must be computed before the loop, from the weights that the forward pass has kept. The answer to the third question is no.
# The same as code, compared with satnp's functions (`satnp/layers/penalty.py`):


# %%
def plain_penalty(alphas, mask, target=1.0):
    """alphas (T, N, L), mask (T, N) -> P (), excess (N, L)"""
    excess = (mask[:, :, None] * alphas).sum(axis=0) - target
    return (excess**2).sum() / len(excess), excess


def plain_penalty_backward(excess, mask):
    """-> dalphas (T, N, L)"""
    return 2 / len(excess) * mask[:, :, None] * excess


scores = 2 * rng.standard_normal((T, N, L))
mask = np.array([[1.0, 1], [1, 1], [1, 1], [1, 0]])  # (T, N): the second caption has three words
alphas, softmax_cache = softmax_forward(scores)
penalty, cache = doubly_stochastic_forward(alphas, mask)
dalphas = doubly_stochastic_backward(1.0, cache)
near("P", plain_penalty(alphas, mask)[0], penalty)
near("dalphas", plain_penalty_backward(plain_penalty(alphas, mask)[1], mask), dalphas)
print("sums over time, caption 1:", (mask[:, :, None] * alphas).sum(axis=0)[0])
print("P", penalty.round(4))
print("dalpha, caption 2, steps 1 to 4, location 1:", dalphas[:, 1, 0])

# %% [markdown]
# The penalty as a drawing, from the scores of all steps on. `m(dalphas)` is the weighted mean of lesson 09.

# %%
values = {"scores": scores, "alphas": alphas, "mask": mask, "N": N, "excess": cache.excess, "P": penalty, "dalphas": dalphas,
          "dscores": softmax_backward(dalphas, softmax_cache), "softmax": softmax,
          "m": lambda d: (alphas * d).sum(axis=2, keepdims=True)}  # fmt: skip
steps = [
    ("alphas", "softmax(scores)", {"scores": "alphas * (dalphas - m(dalphas))"}),
    ("total", "(mask[:, :, None] * alphas).sum(0)", {"alphas": "mask[:, :, None] * dtotal", "mask": None}),
    ("excess", "total - 1", {"total": "dexcess"}),
    ("P", "(excess**2).sum() / N", {"excess": "dP * 2 / N * excess"}),
]
see = "the sum over the steps comes before the square, so each step's gradient contains all steps"
graph("10_penalty_flow", steps, values, {"T": T, "N": N, "L": L}, {"P": 1.0}, see)

# %% [markdown]
# ### Another target changes the loss, but not the gradient of the scores
#
# Let the target be k instead of 1. Then the excess grows by 1 - k, by the same amount at all locations i, so $d\alpha_{ti}$
# changes by a number that does not depend on i. But the softmax passes $\alpha_i (d\alpha_i - m)$ back (lesson 09), and if
# the same number is added to all $d\alpha_i$, it is added to their weighted mean m as well. So the gradient of the scores is
# the same, and so are the gradients of all earlier layers: this answers the second question. The reason is that
# $\sum_{i} \sum_{t} \alpha_{ti} = T$ always. With the excess of target 1,
#
# $$
# \begin{aligned}
# & \sum_{i} (\text{excess}_i + 1 - k)^2 \\
# & \quad = \sum_{i} \text{excess}_i^2 + 2 (1 - k) \sum_{i} \text{excess}_i + L (1 - k)^2,
# \end{aligned}
# $$
#
# and the last two terms are constants, because $\sum_{i} \text{excess}_i = T - L$. For $k = T/L$ we have
# $1 - k = (L - T)/L$, and the two terms are
#
# $$
# 2 \frac{L - T}{L} (T - L) + \frac{(L - T)^2}{L} = - \frac{(L - T)^2}{L}.
# $$
#
# By this amount the printed loss is lower. (`core/model.py` of the GitHub repository `yunjey/show-attend-and-tell` has the
# target 16/196, that is, T = 16 and L = 196.)

# %%
words = mask.sum(axis=0)[:, None]  # T of each caption
other, excess = plain_penalty(alphas, mask, words / L)
dalphas_other = plain_penalty_backward(excess, mask)
print(f"P with target 1: {penalty:.4f}, with T/L: {other:.4f}, less {penalty - other:.4f}")
near("the difference is the mean of (L - T)^2 / L", penalty - other, ((L - words) ** 2 / L).mean())
print("dalpha, caption 1, step 1, with target 1\n", dalphas[0, 0])
print("and with T/L\n", dalphas_other[0, 0])
near("dscores of the two", softmax_backward(dalphas_other, softmax_cache), softmax_backward(dalphas, softmax_cache))
print(f"(L - T)^2 / L for 10 words on 196 locations: {(196 - 10) ** 2 / 196:.1f}")

# %% [markdown]
# $(L - T)^2 / L$ is also the smallest possible P, because the penalty with target T/L is at least 0, and 0 if all sums over
# time are T/L. For 10 words on 196 locations it adds $176.5 \, \lambda$ to the cross-entropy, which no training can remove.
# So the losses of two programs can be compared only if their targets are equal. satnp also prints the cross-entropy by
# itself, as `nll`.
#
# ## Look
#
# Six words on twelve locations. At first every step has most of its weight on location 3. Gradient descent changes the
# scores, with the penalty as the only loss.

# %%
steps, locations = 6, 12
scores_now = 1.5 * rng.standard_normal((steps, 1, locations))
scores_now[:, :, 3] += 4
ones, history, shown = np.ones((steps, 1)), [], {}
for iteration in range(401):
    alphas_now, cache_now = softmax_forward(scores_now)
    value, penalty_cache = doubly_stochastic_forward(alphas_now, ones)
    history.append(float(value))
    if iteration in (0, 20, 400):
        shown[iteration] = alphas_now[:, 0]
    scores_now = scores_now - 0.5 * softmax_backward(doubly_stochastic_backward(1.0, penalty_cache), cache_now)
floor = (locations - steps) ** 2 / locations
print("P at 0, 20, 400:", *(f"{history[k]:.3f}" for k in shown), f"  smallest possible {floor:.3f}")

# %%
figure = Figure(figsize=(10, 4.4), layout="constrained")
axes = figure.subplots(2, 3, sharex=True, height_ratios=(2, 1))
box = (-0.5, locations - 0.5, steps + 0.5, 0.5)  # steps count from 1
for (above, below), (iteration, alpha_map) in zip(axes.T, shown.items(), strict=True):
    figure.colorbar(above.imshow(alpha_map, cmap="gray", vmin=0, aspect="auto", extent=box), ax=above)
    above.set(title=f"alpha, iteration {iteration}: P = {history[iteration]:.2f}", ylabel="step t (words)")
    below.bar(range(locations), alpha_map.sum(axis=0), color="0.5")
    below.axhline(1, color="C3", label="target 1")
    below.axhline(steps / locations, color="C0", linestyle="--", label="T/L")
    below.set(xlabel="location i", ylabel="sum over t", xticks=range(0, locations, 2))
axes[1, 0].legend(fontsize=7)
see = "the penalty makes the sums over time equal to T/L, below the target 1; a single step may still prefer some locations"
save(figure, "10_penalty", see)

# %% [markdown]
# ## Check by number
#
# Each gradient against the complex step:

# %%
gate_inputs = {"h": h, "context": context, "W": W, "b": b}
for name, g in zip(gate_inputs, gate_backward(dz, gate_cache), strict=True):
    point = {n: x.astype(complex) for n, x in gate_inputs.items()}
    n = numeric_gradient(lambda x, at=point, name=name: (gate_forward(**(at | {name: x}))[0] * dz).sum(), gate_inputs[name])
    near(f"gate d{name}", g, n)
numbers = numeric_gradient(lambda x: doubly_stochastic_forward(x, mask)[0], alphas)
near("penalty dalphas", dalphas, numbers)
through = numeric_gradient(lambda e: doubly_stochastic_forward(softmax(e), mask)[0], scores)
near("penalty through softmax", softmax_backward(dalphas, softmax_cache), through)

# %% [markdown]
# Three more steps of padding change neither the value nor the gradient of the steps that count:

# %%
padded = np.concatenate([alphas, rng.dirichlet(np.ones(L), (3, N))])
longer = np.concatenate([mask, np.zeros((3, N))])
value, cache = doubly_stochastic_forward(padded, longer)
near("P with more padding", value, penalty)
near("dalphas with more padding", doubly_stochastic_backward(1.0, cache)[:T], dalphas)
print("largest gradient at steps of padding", np.abs(doubly_stochastic_backward(1.0, cache)[T:]).max())

# %% [markdown]
# ## Break it
#
# The mistake of the third question as code: step t of the backward loop uses the sum over the steps that the loop has seen,
# t to T. This is right for t = 1 and wrong for the others.

# %%
so_far = (mask[:, :, None] * alphas)[::-1].cumsum(axis=0)[::-1]  # the sum over the steps from t on
running = mask[:, :, None] * 2 / N * (so_far - 1)
for t in range(T):
    print(f"step {t + 1}: off by {np.abs(running[t] - numbers[t]).max():.3f}")
print(fill(diagnose("dalphas", running, numbers, sizes={"N": N}).sentence, 78))

# %% [markdown]
# Four more mistakes from `satnp.proof.bugs`, each planted in satnp's source and compared with the complex step. (The last
# one is in a whole captioner; `dE` is the gradient of its table of words.)

# %%
for name in ("beta forgotten", "sign of the penalty", "penalty of padded steps", "doubly stochastic term lost"):
    result = bugs.check(next(bug for bug in bugs.BUGS if bug.name == name))
    print(name)
    print(fill(result.findings[0].sentence, 78, initial_indent="  ", subsequent_indent="  "))
    assert not result.passed

# %% [markdown]
# Two of them are hard to notice in training. If $\beta$ is forgotten in dcontext, the gradient is too large by a factor, but
# its direction at each word is right. If the penalty's gradient is lost, the cross-entropy is still trained. And a gradient
# check cannot see at all whether the forward pass is the one of the paper. The authors' code sums the penalty over the batch
# and averages it over the locations (`alpha_reg` in `capgen.py` of the GitHub repository `kelvinxu/arctic-captions`). So its
# $\lambda$ is not that of eq. 14 (exercise 4), and its backward pass is right for its forward pass.

# %% [markdown]
# ## Exercises
#
# 1. By hand: T = 2, L = 3, $\alpha_1 = (1, 0, 0)$, $\alpha_2 = (1/2, 1/2, 0)$. Check: P = 1.5, its smallest possible value
#    is 1/3, and $d\alpha_t = (1, -1, -2)$ for both t.
# 2. In exercise 1 the gradient of the scores of step 1 is 0 although $d\alpha_1$ is not. Why? Check with `softmax_backward`:
#    $\alpha_1$ is one-hot.
# 3. Use a gate for each feature: W (H, D), b (D,). Check by the complex step that `gate_backward` is right. dh has the same
#    shape as before, db has the shape (D,).
# 4. The penalty of the authors' code, averaged over the locations and summed over the batch, is that of eq. 14 with another
#    $\lambda$. Which one? Check on `alphas`: its value with weight 1 is N/L times P.
# 5. In "Look", add 30 instead of 4 to the scores of location 3. Check: P stays at 36 for 400 iterations. Which factor of the
#    gradient is the reason? (Lesson 09, exercise 2.)

# %% [markdown]
# ## Next
#
# All parts are complete. Lesson 11 joins them into one training step, and overfits twenty captions.
