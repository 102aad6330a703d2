# %% [markdown]
# # 12 Hard attention: a draw has no derivative
#
# - time: 70 minutes
# - cpu: 20 seconds
# - before: 02, 09, 11
# - equations: Xu et al. 2015, section 4.1, eqs. 8-12
# - about: satnp.estimators.reinforce
#
# Soft attention gives the LSTM a mixture of all locations. Hard attention gives it one location, which is drawn at random
# with the weights $\alpha$ as probabilities. A draw has no derivative. But the mean reward over all draws has one, because
# $\alpha$ says how probable each draw is. This lesson derives that gradient, and an estimate of it from a single draw.
#
# As before, $dx$ is the gradient of the cost with respect to $x$. The cost is $C$, and smaller is better; a reward $r$ is
# better when it is larger.

# %% [markdown]
# ## Predict
#
# The scores are $e = (1, 0, -1)$, and one location is drawn from $\alpha = \mathrm{softmax}(e)$. The reward of the three
# locations is $r = (0, 5, 1)$.
#
# 1. Add 0.000001 to $e_1$ and draw again with the same random numbers. What happens to the drawn location? What is the
#    derivative of the reward through the draw?
# 2. The mean reward is $\sum_i \alpha_i r_i$, which is smooth in $e$. Which lesson has derived its gradient?
# 3. You have a single draw, say location 3 with reward 1. In which direction would you change the scores?

# %%
from dataclasses import replace
from inspect import getsource
from textwrap import fill

import numpy as np
from kit import graph, near, save, show
from matplotlib.figure import Figure

from satnp import estimators
from satnp.estimators import choices
from satnp.layers import log_softmax, softmax, softmax_backward, softmax_forward
from satnp.proof import bugs, enumeration
from satnp.proof.gradcheck import numeric_gradient
from satnp.reference import show_attend_tell as plain

np.set_printoptions(precision=4, suppress=True, linewidth=78)
rng = np.random.default_rng(0)
e, r = np.array([1.0, 0.0, -1.0]), np.array([0.0, 5.0, 1.0])
alpha = softmax(e)
print("alpha", alpha, f" mean reward {alpha @ r:.4f}")

# %% [markdown]
# ## Run
#
# ### Drawing by an argmax
#
# To draw a location, take random numbers $u_i$, uniform between 0 and 1, set $g_i = -\log(-\log u_i)$ (Gumbel noise), and
# choose the location with the largest $e_i + g_i$ (Gumbel 1954; Maddison et al. 2014). Location $i$ is then chosen with
# probability $\alpha_i$. Here is why.
#
# Write $w_i = \exp(e_i)$ and $x_i = -\log(u_i) / w_i$, which is positive. Because $u_i$ is uniform,
#
# $$
# P(x_i > x) = P(u_i < \exp(-w_i x)) = \exp(-w_i x)
# $$
#
# so the density of $x_i$ is $w_i \exp(-w_i x)$, the negative derivative of this probability. Now $x_i$ is the smallest of
# all if every other $x_k$ is larger. The density of this event, with $x_i = x$, is
#
# $$
# w_i \exp(-w_i x) \prod_{k \ne i} \exp(-w_k x) = w_i \exp(-W x), \quad W = \sum_k w_k
# $$
#
# Its integral over all $x > 0$ is $w_i / W = \alpha_i$: the probability that $x_i$ is the smallest. Finally, the smallest
# $x_i$ has the largest $-\log x_i = e_i - \log(-\log u_i) = e_i + g_i$.
#
# In satnp the caller draws the noise, so a run can be repeated. If the noise of a location is infinite, that location is
# chosen; we use this below. (The paper and the listing call a draw of one location Multinoulli.)

# %%
show(estimators.draw)
count = 20_000
gumbel = rng.gumbel(size=(count, 3))
samples = estimators.draw(np.tile(e, (count, 1)), gumbel)
print("first four draws\n", samples[:4])
print("how often", samples.mean(axis=0), " alpha", alpha)
deviation = np.sqrt(alpha * (1 - alpha) / count)  # standard error of a frequency
print("in standard errors", (samples.mean(axis=0) - alpha) / deviation)
assert (np.abs(samples.mean(axis=0) - alpha) < 5 * deviation).all()

# %% [markdown]
# ### Why no gradient comes through a draw
#
# As a function of $e$, with $g$ fixed, the draw is constant almost everywhere, and jumps where two locations tie. So its
# derivative is 0, or does not exist. The complex step gives exactly 0 for each score. In the captioner, with $s_t$ the
# location drawn at step $t$, the likelihood has a gradient with respect to the context $z_t = \beta_t a_{s_t}$, but through
# the draw its gradient with respect to the scores is 0. So `f_att` gets no gradient from it, and attention would not learn.
#
# The cell also computes the reward for many values of $e_1$: for a fixed draw it is a step, and the mean of 300 such steps
# is near the smooth curve $\sum_i \alpha_i r_i$ (left in the figure of "Look").

# %%
g = gumbel[0]
through = numeric_gradient(lambda e: (estimators.draw(e, g) * r).sum(), e)
print("derivative of the reward through one draw:", through)
grid = np.linspace(-3, 3, 601)
earned = np.array([[(estimators.draw(np.array([x, e[1], e[2]]), noise) * r).sum() for x in grid] for noise in gumbel[:300]])
smooth = np.array([softmax(np.array([x, e[1], e[2]])) @ r for x in grid])
print(f"mean of 300 such steps against sum_i alpha_i r_i: off by {np.abs(earned.mean(axis=0) - smooth).max():.2f} at most")

# %% [markdown]
# ### The score-function estimator
#
# A single draw is a step function of $e$. But its mean over all draws, $J(e) = \sum_i \alpha_i r_i$, is smooth. Its gradient
# follows from $\partial \alpha_i = \alpha_i \, \partial \log \alpha_i$:
#
# $$
# \begin{aligned}
# \frac{\partial J}{\partial e} &= \sum_i r_i \frac{\partial \alpha_i}{\partial e} \\
#   &= \sum_i \alpha_i \, r_i \frac{\partial \log \alpha_i}{\partial e} \\
#   &= \mathbb{E}_s \left( r_s \frac{\partial \log \alpha_s}{\partial e} \right)
# \end{aligned}
# $$
#
# The last form is a mean over the draws $s$. So $r_s \, \partial \log \alpha_s / \partial e$ of ONE draw is an estimate of
# the gradient, and its mean is exact (Williams 1992, REINFORCE). No derivative of $r$ is needed. For a softmax,
#
# $$
# \log \alpha_s = e_s - \log \sum_k \exp(e_k), \quad
# \frac{\partial \log \alpha_s}{\partial e_i} = 1_{i = s} - \alpha_i
# $$
#
# where $1_{i = s}$ is 1 for $i = s$, and else 0. With $s$ as a one-hot row this is $s - \alpha$. The cost is $C = -J$, and
# from the reward we may subtract a number $b$, the baseline (more on it below). The estimate is
#
# $$
# de = -(r - b)(s - \alpha)
# $$
#
# If the drawn location earned more than $b$, a gradient step raises its score and lowers all others.

# %%
show(estimators.reinforce)
each = estimators.reinforce(np.eye(3), np.tile(alpha, (3, 1)), r)  # one row for each possible draw
print("estimate for each draw\n", each)
mean = alpha @ each
exact = softmax_backward(-r[None], softmax_forward(e[None])[1])[0]
near("their mean against softmax_backward of -r", mean, exact)
near("and against the complex step", mean, numeric_gradient(lambda e: -(softmax(e) * r).sum(), e))
print(f"mean of s - alpha over all draws: {np.abs(alpha @ (np.eye(3) - alpha)).max():.0e}")

# %% [markdown]
# This answers the three questions. The drawn location stays the same, and the derivative through the draw is 0. The exact
# gradient is that of lesson 09: $\alpha \odot (d\alpha - m)$ with $d\alpha = -r$ and $m = \sum_i \alpha_i d\alpha_i$. And if
# location 3 is drawn, the third row of the printed table raises its score (a step goes against the gradient) and lowers the
# others, although location 2 would be better.
#
# REINFORCE is for the case in which $r$ is known only at the drawn location. This is our case, because the rest of the
# caption was computed for that location alone. The last printed line shows why any $b$ may be used: the mean of
# $b(s - \alpha)$ is 0. Lesson 13 measures how much $b$ helps.
#
# ### The flow, drawn
#
# One choice and one word, for four captions: $s$ is drawn from the scores, $z$ is the annotation of the drawn location, and
# the word has the log-probability $\log p(y \mid s)$, which is the reward. The gradient of the cost has two parts; the next
# section derives them:
#
# - The likelihood, with upstream gradient $-1$. Its gradient flows back through $z$ to the drawn annotation and to $s$. It
#   ends there: the arrow from $e$ to $s$ has no dashed partner.
# - In its place stands $\log \alpha_s$, the log-probability of the draw, with upstream gradient $-(r - b)$, in which $r$ is
#   a constant number. It gives $e$ its gradient: the one of `reinforce`.

# %%
N, L, D, V, b = 4, 3, 2, 5, -1.5
scores, a, W = rng.standard_normal((N, L)), rng.standard_normal((N, L, D)), rng.standard_normal((D, V))
y = np.eye(V)[rng.integers(0, V, N)]  # the right words, one-hot
noise = rng.gumbel(size=(N, L))
s = estimators.draw(scores, noise)
r_word = (y * log_softmax(np.einsum("nl,nld->nd", s, a) @ W)).sum(axis=1, keepdims=True)
FLOW = [
    ("s", "draw(e, noise)", {"e": None}),
    ("z", "mix(s, a)", {"s": "dot(dz, a)", "a": "outer(s, dz)"}),
    ("logits", "z @ W", {"z": "dlogits @ W.T"}),
    ("log_p", "sum(y * log_softmax(logits))", {"logits": "dlog_p * (y - softmax(logits))"}),
    ("log_alpha_s", "sum(s * log_softmax(e))", {"e": "dlog_alpha_s * (s - softmax(e))", "s": None}),
]  # fmt: skip
graph("12_flow", FLOW, {
    "e": scores, "a": a, "W": W, "y": y, "noise": noise, "log_p": r_word,
    "de": estimators.reinforce(s, softmax(scores), r_word[:, 0] - b),
    "draw": estimators.draw, "sum": lambda x: x.sum(axis=1, keepdims=True), "softmax": softmax, "log_softmax": log_softmax,
    "mix": lambda s, a: np.einsum("nl,nld->nd", s, a), "dot": lambda dz, a: np.einsum("nd,nld->nl", dz, a),
    "outer": lambda s, dz: np.einsum("nl,nd->nld", s, dz),
}, {"N": N, "L": L, "D": D, "V": V}, {"log_p": -np.ones((N, 1)), "log_alpha_s": -(r_word - b)},
    "no dashed arrow goes from s to e; the gradient of e comes from log_alpha_s, with upstream -(r - b)")  # fmt: skip

# %% [markdown]
# ### A whole caption
#
# Before each word a location is drawn. A path $s = (s_1, \ldots, s_T)$ has the probability
# $p(s) = \alpha_1[s_1] \cdot \ldots \cdot \alpha_T[s_T]$, where $\alpha_t$ depends on the locations drawn before step $t$.
# By Jensen's inequality, the logarithm of a mean is at least the mean of the logarithms. So the paper maximises a lower
# bound of the log-likelihood (eq. 10), by a sampled gradient:
#
# $$
# L_s = \sum_s p(s) \log p(y \mid s) \le \log \sum_s p(s) \, p(y \mid s) = \log p(y)
# $$
#
# ($L_s$ is the paper's name; $L$ alone remains the number of locations.) The reward is $r = \log p(y \mid s)$, and the cost
# is $C = -L_s$. In each term of $L_s$ both factors depend on the parameters $W$. By the product rule, and
# $\partial p(s) = p(s) \, \partial \log p(s)$, the estimate from one path has two parts (eqs. 11-12):
#
# $$
# \frac{\partial C}{\partial W}
#   \approx - \left( \frac{\partial r}{\partial W} + (r - b) \frac{\partial \log p(s)}{\partial W} \right)
# $$
#
# The first part is the ordinary backward pass along the drawn path; it ends at each draw. The second part is the gradient of
# $\log p(s)$, a sum over $t$. So it adds to the scores of each step
#
# $$
# de_t = -(r - b)(s_t - \alpha_t)
# $$
#
# From there it flows on like any gradient of scores: through `f_att` to $v$, $W_a$ and $W_s$, and to $h_{t-1}$, hence
# through the recurrence to all steps before. Here is the formula as a function, held against satnp's own, and then the lines
# of the plain backward pass (lesson 11) that belong to hard attention. `drawn` is 1 where a location was drawn: there no
# gradient of the likelihood reaches `dalpha`, and `choice_backward` adds the score part.


# %%
def score_part(s, alpha, r, b=0.0):
    """de_t = -(r - b) (s_t - alpha_t) of each step: s (T, N, L), alpha (T, N, L), r (N,) -> (T, N, L)"""
    return -(r - b)[:, None] * (s - alpha)


world = enumeration.small_world()  # one photo of 3 locations, one caption of 3 words: 27 paths
path = np.array([[1, 0, 2]])
cache = enumeration.walk(world, path)  # the captioner's forward pass along `path`, by infinite noise
reward = cache.hard.log_p.sum(axis=0)
print("log p of the three words", cache.hard.log_p[:, 0], " r", reward[0].round(4))
print("s_t - alpha_t\n", (cache.looks - cache.alphas)[:, 0])
de = score_part(cache.looks, cache.alphas, reward)
print("de_t of REINFORCE, b = 0\n", de[:, 0])
near("satnp's score_gradients", choices.score_gradients(world.config, cache.hard), de)
for line in getsource(plain.backward).splitlines():
    if "drawn" in line or "choices is not" in line:
        print(line)

# %% [markdown]
# Which parameters get a gradient from which part? We run the backward pass with the score part multiplied by 0 and by 1.
# Predict the rows of $v$, $L_o$ and $W_h$ first.

# %%
off = enumeration.walk(world._replace(config=replace(world.config, reward_weight=0.0)), path)
likelihood = world.params.on(enumeration.gradient(off))
whole = world.params.on(enumeration.gradient(cache))
print("             |likelihood part|   |score part|")
for name, what in (("v", "f_att"), ("W_a", "f_att"), ("W_s", "f_att"), ("W_h", "LSTM"), ("E", "words"),
                   ("W_beta", "gate"), ("L_z", "output"), ("L_o", "output")):  # fmt: skip
    print(f"{name:7}{what:7}{np.linalg.norm(likelihood[name]):13.4f}{np.linalg.norm(whole[name] - likelihood[name]):16.4f}")

# %% [markdown]
# `f_att` gets its gradient from the score part alone, the output layer from the likelihood alone. The LSTM, the words and
# the gate have both: they determine $h$, and the next scores depend on $h$.
#
# ### The coin
#
# The paper adds a trick: with probability one half an image uses the expected value, $\alpha_t$ in place of $s_t$, at every
# step. Then the likelihood has a gradient with respect to $\alpha_t$, as in soft attention, without the noise of a draw.
# The price is a bias: half of the expected gradient belongs to another cost. `choose` does it; `expected` is 1 where the
# coin has chosen the expected value.

# %%
show(choices.choose)
shown = enumeration.walk(world, path, expected=1)
print("weights at step 2: drawn", cache.looks[1, 0], " expected", shown.looks[1, 0])
soft = world.params.on(enumeration.gradient(shown))
print(f"|dv| by likelihood alone: drawn {np.linalg.norm(likelihood.v):.4f}, expected {np.linalg.norm(soft.v):.4f}")

# %% [markdown]
# ## Look
#
# Learning by REINFORCE alone: we update the three scores of the prediction, with one draw per step, and compare with the
# exact gradient. Location 2 has the largest reward, but begins with a weight of .24. The rewards of a captioner are
# log-likelihoods, which are all negative. So we subtract 15 from each, $r = (-15, -10, -14)$, which changes no exact
# gradient.


# %%
def learn(rng, r, b, steps=400, rate=0.05):
    """The weight of location 2 over steps; without rng by the exact gradient."""
    scores, weight = e.copy(), []
    for _ in range(steps):
        alpha = softmax(scores)
        weight.append(alpha[1])
        if rng is None:
            de = softmax_backward(-r[None], softmax_forward(scores[None])[1])[0]
        else:
            s = estimators.draw(scores, rng.gumbel(size=3))
            de = estimators.reinforce(s, alpha, np.array(s @ r - b))
        scores -= rate * de
    return np.array(weight)


runs = {b: np.array([learn(np.random.default_rng(k), r - 15, b) for k in range(20)]) for b in (0, -12)}
by_exact = learn(None, r - 15, 0)
print(f"weight of location 2 at the last step: exact {by_exact[-1]:.3f}")
for b, weights in runs.items():
    print(f"  REINFORCE, b = {b:3}: mean of 20 runs {weights[:, -1].mean():.3f}, lowest {weights[:, -1].min():.3f}")

# %%
figure = Figure(figsize=(10, 3.6), layout="constrained")
first, *others = figure.subplots(1, 3)
first.plot(grid, earned[0], "C3", label="one draw, noise fixed")
first.plot(grid, earned.mean(axis=0), "C0", label="mean of 300 draws")
first.plot(grid, smooth, "k--", label="sum of alpha r")
first.set(xlabel="score of location 1", ylabel="reward")
first.legend(fontsize=8)
for ax, (b, weights) in zip(others, runs.items(), strict=True):
    ax.plot(weights.T, color="C0", alpha=0.3, linewidth=0.8)
    ax.plot(by_exact, "k--", label="exact gradient")
    ax.set(title=f"20 runs of REINFORCE, b = {b}", xlabel="step", ylabel="weight of location 2", ylim=(0, 1))
    ax.legend(fontsize=8, loc="lower right")
see = "left, a draw is a step but its mean is smooth; the runs scatter round the exact path, far less with b"
save(figure, "12_hard", see)

# %% [markdown]
# With $b = 0$ all rewards are negative. So each step lowers the score of the drawn location, whichever it is, and in the
# worst of the 20 runs location 2 ends with a weight of 0.001.
#
# ## Check by number
#
# How can one check a gradient that is random? Along one given path nothing is random. Hold the path and its reward fixed.
# Then the backward pass must give the gradient of
#
# $$
# \mathrm{surrogate} = -\log p(y \mid s) - (r - b) \log p(s), \quad r \text{ a constant number}
# $$
#
# and the complex step can compute that. (Lesson 13 shows that the mean over the paths is right.)

# %%
chosen = np.arange(3) == path.T[:, :, None]  # (T, 1, L)


def surrogate(flat, b=0.0):
    seen = enumeration.walk(world, path, flat=flat)
    log_alpha = seen.hard.scores - np.log(np.exp(seen.hard.scores).sum(axis=2, keepdims=True))
    return -seen.hard.log_p.sum() - (reward[0] - b) * (chosen * log_alpha).sum()


numbers = world.params.on(numeric_gradient(surrogate, world.params.flat))
for name in ("v", "W_s", "W_h", "E", "L_o", "W_h0"):
    near(f"d{name}", whole[name], numbers[name])
near("all parameters", whole.flat, numbers.flat)
moving = world._replace(config=replace(world.config, baseline="moving_average"))  # b is given to the forward pass
with_b = enumeration.gradient(enumeration.walk(moving, path, baseline=-7.5))
near("all, with b = -7.5", with_b, numeric_gradient(lambda flat: surrogate(flat, -7.5), world.params.flat))

# %% [markdown]
# ## Break it
#
# Here are four mistakes, planted in satnp's source one by one. In the third, $de_t$ reaches $v$, $W_a$ and $W_s$, but is not
# passed on to $h_{t-1}$. The last mistake is not in a gradient: the noise of the draw is wrong, and only a count of many
# draws shows it.

# %%
for name in ("sign of REINFORCE", "likelihood leaks through the sample", "score gradient not sent on into h_{t-1}",
             "locations drawn without Gumbel's second logarithm"):  # fmt: skip
    bug = next(bug for bug in bugs.BUGS if bug.name == name)
    result = bugs.check(bug)
    assert not result.passed
    print(f"{name}: {len(result.findings)} wrong, the first:")
    print(fill(result.findings[0].sentence, 78, initial_indent="  ", subsequent_indent="  "))

# %% [markdown]
# The next mistake is to let the reward carry a gradient, because $\log p(y \mid s)$ is part of the computation. In a
# framework with automatic differentiation it is a forgotten `detach`. In a backward pass by hand it hardly happens: the
# reward enters `reinforce` as a number. In the surrogate it is easy to make. With $R = \log p(y \mid s)$ as a variable, the
# derivative of $-R - R \log p(s)$ with respect to $R$ is $-(1 + \log p(s))$ where it should be $-1$. So every gradient of
# the likelihood is multiplied by $1 + \log p(s)$.


# %%
def not_detached(flat):
    seen = enumeration.walk(world, path, flat=flat)
    log_alpha = seen.hard.scores - np.log(np.exp(seen.hard.scores).sum(axis=2, keepdims=True))
    reward_alive = seen.hard.log_p.sum()
    return -reward_alive - reward_alive * (chosen * log_alpha).sum()


alive = world.params.on(numeric_gradient(not_detached, world.params.flat))
factor = float((alive.L_o * whole.L_o).sum() / (whole.L_o * whole.L_o).sum())
print(f"dL_o becomes {factor:.4f} times the right one: 1 + log p(s) = {1 + float(np.log(cache.alphas[chosen]).sum()):.4f}")

# %% [markdown]
# ## Exercises
#
# 1. By hand: $\alpha = (1/2, 1/4, 1/4)$, the draw is location 3, $r = 2$, $b = 1$. Check with `reinforce` (all three inputs
#    are arrays, so write `np.array(1.0)` for $r - b$): $de = (0.5, 0.25, -0.75)$.
# 2. Draw 20,000 times with scores (0, -inf, 2). Check: the second location never comes, the third in 88.1 % of the draws,
#    to within one percentage point.
# 3. Write `draw` by the cumulative sum: the first $i$ with $\alpha_1 + \ldots + \alpha_i > u$. Check: the same frequencies.
#    How does your draw change when one score changes a little and $u$ stays the same? Is it better than Gumbel noise in this
#    respect?
# 4. Run `learn` with $r = (0, 5, 1)$ itself and $b = 3$. Check: the same 20 curves as with $r - 15$ and $b = -12$, up to
#    rounding. With $b = 0$ they are similar, too. Why is 0 a good baseline for $r$, and a bad one for $r - 15$?
# 5. Take all 27 paths of `enumeration.PATHS` and the gradient of each,
#    `enumeration.gradient(enumeration.walk(world, path))`, where a path has the shape (1, 3). Compute their mean with the
#    weights $p(s)$. Check against `enumeration.exact_gradient(world)`: below 1e-12. Lesson 13 begins there.

# %% [markdown]
# ## Next
#
# The mean of the estimate is right, but a single estimate can be far from it. Lesson 13 computes how far, exactly, and
# what makes the distance smaller.
