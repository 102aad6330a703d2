# %% [markdown]
# # 13 Variance: baselines, entropy, and the exact answer by enumeration
#
# - time: 80 minutes
# - cpu: 30 seconds
# - before: 02, 09, 12
# - equations: Xu et al. 2015, section 4.1, eqs. 10-12
# - about: satnp.estimators.choices.advantage
#
# A gradient that is estimated from random paths has two kinds of error. Bias: its mean is not the gradient. Variance: a
# single estimate is far from the mean. In training both are unknown. Here the model is so small that all 27 paths can be
# computed. So both errors are plain numbers, and we can measure how each trick changes them.

# %% [markdown]
# First, the results of lesson 12 in short. A caption has $T$ words. Before word $t$ the decoder draws one location $s_t$
# from $\alpha_t$, and reads only the annotation of that location. A path is $s = (s_1, \ldots, s_T)$. In training, the
# decoder reads the right words (teacher forcing), so only the path is random. Its probability is
#
# $$
# p(s) = \alpha_1[s_1] \, \alpha_2[s_2] \cdot \ldots \cdot \alpha_T[s_T]
# $$
#
# where $\alpha_t$ depends on the locations before, $s_1, \ldots, s_{t-1}$ (in short $s_{<t}$), through the state. The
# log-likelihood of the words, in nats, is $r(s) = \sum_t \log p(y_t \mid s)$. We maximise the bound
# $L_s = \sum_s p(s) \, r(s)$; that is, we minimise the cost $C = -L_s$. Its derivative with respect to any parameter $W$ has
# two parts, because both factors of $p(s) \, r(s)$ depend on $W$. With $\partial p(s) = p(s) \, \partial \log p(s)$,
#
# $$
# \frac{\partial C}{\partial W}
#   = - \sum_s p(s) \left( \frac{\partial r(s)}{\partial W} + r(s) \frac{\partial \log p(s)}{\partial W} \right)
# $$
#
# We call them the path part and the score part. The sum is a mean over paths: for any $x$, write
# $\mathbb{E}[x] = \sum_s p(s) \, x(s)$. REINFORCE draws one path, and its estimate of the mean is the term in
# parentheses for this path.

# %%
from dataclasses import replace
from textwrap import fill

import numpy as np
from kit import graph, near, save, show
from matplotlib.figure import Figure

from satnp.estimators import choices, draw, entropy, entropy_gradient, leave_one_out, local_expectation, moving_average
from satnp.layers import log_softmax, softmax
from satnp.proof import bugs, enumeration
from satnp.proof.enumeration import PATHS, L, T
from satnp.proof.gradcheck import diagnose, numeric_gradient

np.set_printoptions(precision=4, suppress=True, linewidth=78)
rng = np.random.default_rng(0)
world = enumeration.small_world()
passed = enumeration.walk(world, PATHS)  # one row for each path
p, log_p = enumeration.path_probabilities(passed), passed.hard.log_p.T  # (27,), and (27, T): log p(y_t | s)
r = log_p.sum(axis=1)
print(f"L {L} locations, T {T} words: {len(PATHS)} paths; {world.params.flat.size} parameters")
print("the six most probable (location 0 is the first):")
print("path       p(s)    log p of the three words      r(s)")
for k in np.argsort(-p)[:6]:
    print(PATHS[k], f"{p[k]:9.4f}  {log_p[k]!s:26} {r[k]:8.3f}")
print(f"sum of p over all 27 {p.sum():.12f}; mean reward E[r] = L_s = {p @ r:.4f}")

# %% [markdown]
# `walk` is the captioner's own forward pass along given paths: the Gumbel noise is infinite at the wanted location and 0
# elsewhere (lesson 12). So this lesson computes with the captioner itself, and not with a model of it. All its parameters
# are in one flat vector, `world.params.flat`, and `world.params.on(x)` gives the parts of another vector x their names.
#
# The bound is below the quantity that we want to maximise, $\log p(y) = \log \sum_s p(s) \exp(r(s))$, because the mean of a
# logarithm is at most the logarithm of the mean (eq. 10).

# %%
print(f"L_s {p @ r:.4f} <= log p(y) {np.log(p @ np.exp(r)):.4f}")
assert p @ r <= np.log(p @ np.exp(r))

# %% [markdown]
# ## Predict
#
# 1. Add 100 to every reward. Does the mean of the estimate change? Does its variance?
# 2. Take the mean of the estimates from 100 paths, in place of one. By what factor does the error fall?
# 3. Draw two paths, and subtract from each reward the mean of the two. Is the estimate still right on average?
#
# Write down three answers. Each is computed below.

# %% [markdown]
# ## Run
#
# ### The exact gradient
#
# `enumerate_paths` runs the captioner's own backward pass on each path and keeps the two parts of the estimate, for the
# cost:
#
# | name | shape | what it is |
# |---|---|---|
# | `likelihood` | (27, F) | $\partial (-r(s)) / \partial W$, for a fixed path |
# | `scores` | (27, T, F) | $\partial (-\log \alpha_t[s_t]) / \partial W$, for each step $t$ |
#
# All parameters are in one row, $F = 433$ numbers. Note the two meanings of a word: in statistics, the score is the
# derivative of a log-probability, hence `scores` and "score part"; the scores of attention are the $e_t$. With respect to
# $e_t$ the derivative is simple, $\alpha_t - s_t$ with $s_t$ as a one-hot row (lesson 12). The backward pass takes it from
# there through `f_att` and the recurrence to all parameters. Write $K_t$ for the row of step $t$ and
#
# $$
# K(s) = \sum_t K_t(s) = - \frac{\partial \log p(s)}{\partial W}
# $$
#
# One estimate is $g(s) = \mathrm{likelihood}(s) + r(s) \, K(s)$, and the exact gradient is its mean over the 27 paths.

# %%
paths = enumeration.enumerate_paths(world)
K = paths.scores.sum(axis=1)
g = paths.likelihood + r[:, None] * K
exact = enumeration.exact_gradient(world)  # complex step of the enumerated bound: no backward pass in it
print("likelihood", paths.likelihood.shape, " scores", paths.scores.shape, " g", g.shape)
near("mean of g against the complex step of -L_s", p @ g, exact)

# %% [markdown]
# So the bias of the estimate is 0, up to rounding. Now its variance. For a vector, take the mean squared distance from the
# mean, $\mathbb{E} |g - \mathbb{E} g|^2$. Multiplied out, it is $\mathbb{E} |g|^2 - |\mathbb{E} g|^2$, because
# $\mathbb{E}[g \cdot \mathbb{E} g] = |\mathbb{E} g|^2$. We print it in units of the squared norm of the exact gradient: at a
# variance of 1 the noise is as large as the gradient.


# %%
def bias_and_variance(g, p=p):
    """|E g - exact| / |exact| and E|g - E g|^2 / |exact|^2 of an estimate g (P, F) that comes with probability p (P,)"""
    mean, size = p @ g, np.linalg.norm(exact)
    return np.linalg.norm(mean - exact) / size, (p @ ((g - mean) ** 2).sum(axis=1)) / size**2


print("plain REINFORCE, one path: bias {:.1e}, variance {:.2f}".format(*bias_and_variance(g)))
k = rng.choice(27, p=p)
print(f"one draw, path {PATHS[k]}: |g| = {np.linalg.norm(g[k]):.1f} where |exact| = {np.linalg.norm(exact):.1f}")

# %% [markdown]
# ### A baseline
#
# Subtract a number $b$ from the reward: $g_b(s) = \mathrm{likelihood}(s) + (r(s) - b) \, K(s)$. This changes the mean by
# $-b \, \mathbb{E}[K]$, and
#
# $$
# \begin{aligned}
# \mathbb{E}[K] &= - \sum_s p(s) \frac{\partial \log p(s)}{\partial W} \\
#   &= - \sum_s \frac{\partial p(s)}{\partial W} \\
#   &= - \frac{\partial}{\partial W} \sum_s p(s) \\
#   &= - \frac{\partial}{\partial W} 1 = 0
# \end{aligned}
# $$
#
# So no $b$ changes the mean. The variance, $\mathbb{E} |g_b|^2 - |\mathrm{exact}|^2$, does change:
#
# $$
# \mathbb{E} |g_b|^2 = \mathbb{E} |g - b K|^2 =
# \mathbb{E} |g|^2 - 2 b \, \mathbb{E}[g \cdot K] + b^2 \, \mathbb{E}[K \cdot K]
# $$
#
# This is a parabola in $b$. Its derivative is 0 at $\hat{b} = \mathbb{E}[g \cdot K] / \mathbb{E}[K \cdot K]$. If there were
# no path part ($g = r K$), and $|K|^2$ were the same for all paths, $\hat{b}$ would be exactly $\mathbb{E}[r]$. With
# this $b$, a gradient step makes the drawn path more probable if its reward is above the average, and else less probable.

# %%
print(f"largest entry of E[K]: {np.abs(p @ K).max():.0e}")
E_gK, E_KK = p @ (g * K).sum(axis=1), p @ (K * K).sum(axis=1)
best = E_gK / E_KK
print("      b     bias   variance")
for b in (0.0, p @ r, best, -(p @ r), -100.0, 100.0):
    print(f"{b:7.2f}  {bias_and_variance(g - b * K)[0]:.0e}  {bias_and_variance(g - b * K)[1]:9.3f}")
print(f"E[r] is {p @ r:.2f}, the best b is {best:.2f}")

# %% [markdown]
# This answers the first question. To add 100 to each reward is to take $b = -100$: the mean stays the same, and the variance
# becomes a hundred times as large. The rewards here are log-likelihoods, which are all negative. Without a baseline every
# drawn path becomes less probable, the good ones only a little less than the others.
#
# In training $\mathbb{E}[r]$ is unknown. The paper's $b$ is a moving average of the rewards so far. The order matters: the
# gradient of training step $k$ uses $b_{k-1}$, and then $b$ is updated.

# %%
show(moving_average)
b, seen = np.array(0.0), []
for _ in range(60):
    b = moving_average(b, r[rng.choice(27, size=1, p=p)], np.ones(1))
    seen.append(float(b))
print("b after 1, 5, 20, 60 draws:", *(f"{seen[k - 1]:.2f}" for k in (1, 5, 20, 60)), f"   E[r] {p @ r:.2f}")

# %% [markdown]
# ### Reward a choice only for what it can change
#
# The total reward of the choice $s_3$ includes words 1 and 2, which came before it. For this choice they are noise. Take
# word $u$ before step $t$. Given $s_{<t}$, $\log p(y_u)$ is a fixed number, and the mean of $K_t$ over $s_t$ alone is 0, by
# the argument above for one step. So $\mathbb{E}[\log p(y_u) \, K_t] = 0$ for $u < t$, and these terms can be left out. The
# sum of the others, $R_t = \sum_{u \ge t} \log p(y_u)$, is called the reward to go.

# %%
for u, t in ((0, 1), (0, 2), (1, 2), (1, 1), (2, 1)):
    term = np.linalg.norm(p @ (log_p[:, u, None] * paths.scores[:, t]))
    print(f"|E[log p(word {u + 1}) K_{t + 1}]| = {term:.1e}", "  word before choice" if u < t else "")
to_go = log_p[:, ::-1].cumsum(axis=1)[:, ::-1]
g_to_go = paths.likelihood + np.einsum("pt,ptf->pf", to_go, paths.scores)
print("reward to go: bias {:.1e}, variance {:.2f}".format(*bias_and_variance(g_to_go)))

# %% [markdown]
# ### Compute a mean where you can
#
# At step $t$ one can compute the log-probability of the word for each location $i$,
# $l_i = \log p(y_t \mid s_{<t}, s_t = i)$. It takes $L$ forward evaluations of the cell, and no backward pass. In the
# gradient with respect to $e_t$, word $t$ occurs as $l_{s_t} (\alpha_t - s_t)$. Its mean over $s_t$ is then known. With $j$
# for the drawn location, entry $i$ of the mean is
#
# $$
# \begin{aligned}
# \sum_j \alpha_j l_j (\alpha_i - 1_{i = j}) &= \alpha_i (\alpha \cdot l) - \alpha_i l_i \\
#   &= - \alpha_i (l_i - \alpha \cdot l)
# \end{aligned}
# $$
#
# This is `softmax_backward` of $-l$ (lesson 09). Use it for word $t$, and the drawn path for the words after it. This is the
# local expectation gradient (Titsias & Lazaro-Gredilla 2015). A mean in place of a draw removes the variance of that term
# (the Rao-Blackwell theorem; Blackwell 1947). `paths.local` is the path part plus these means.

# %%
after = to_go - log_p
g_local = paths.local + np.einsum("pt,ptf->pf", after, paths.scores)
print("local expectation: bias {:.1e}, variance {:.2f}".format(*bias_and_variance(g_local)))
show(choices.advantage)

# %% [markdown]
# `advantage` computes the $r - b$ of each choice in the captioner. `REWARDS` selects the part of the caption that counts:
# all words, the words to go, or those after. $b$ is the baseline of a whole caption; a part of the caption gets a share of
# it, in proportion to the number of words.
#
# Here is one step of four captions, drawn. Word $t$ gives $e$ its gradient through $\alpha$ and the mean `average`; the
# words after it give theirs through $\log \alpha_s$, with upstream $-(R - b)$. The drawn $s$ is an input here: no gradient
# goes through the draw (lesson 12).

# %%
N, size_L, own = 4, 3, np.random.default_rng(1)
e, l, R = own.standard_normal((N, size_L)), own.standard_normal((N, size_L)), own.standard_normal((N, 1))
s = draw(e, own.gumbel(size=e.shape))
graph("13_local", [
    ("alpha", "softmax(e)", {"e": "alpha * (dalpha - sum(alpha * dalpha))"}),
    ("average", "sum(alpha * l)", {"alpha": "daverage * l", "l": None}),
    ("log_alpha_s", "sum(s * log_softmax(e))", {"e": "dlog_alpha_s * (s - softmax(e))", "s": None}),
], {
    "e": e, "l": l, "s": s, "softmax": softmax, "log_softmax": log_softmax,
    "sum": lambda x: x.sum(axis=1, keepdims=True), "de": local_expectation(l, s, softmax(e), (R - 0.3)[:, 0]),
}, {"N": N, "L": size_L}, {
    "average": -np.ones((N, 1)), "log_alpha_s": -(R - 0.3),
}, "left, the mean over all locations for this word; right, the drawn location for the words after it")  # fmt: skip

# %% [markdown]
# ### Leave one out
#
# With $S$ paths of the same caption, no moving average is needed. The baseline of each path is the mean reward of the OTHER
# paths. It is independent of the path's own $K$, so $\mathbb{E}[b K] = \mathbb{E}[b] \, \mathbb{E}[K] = 0$. There is no
# bias, and no memory of old rewards.
#
# Here is the mean over all pairs of paths: $27 \cdot 27 = 729$ backward passes of the captioner with $S = 2$.

# %%
show(leave_one_out)
show(enumeration.expected_gradient)
print("rewards of three paths", r[:3], "\n-> baselines          ", leave_one_out(r[:3]))
pairs = world._replace(config=replace(world.config, samples=2, baseline="leave_one_out"))
near("leave one out, mean over 729 pairs", enumeration.expected_gradient(pairs), exact)

# %% [markdown]
# ## Look
#
# Here are all estimators in one table, each with $S = 2$ paths. `moments` computes the sums above for any $S$. (With
# leave-one-out the $S$ terms depend on each other; its docstring has the algebra.) The last two rows are biased. The first
# of them is the paper's coin (lesson 12): with probability one half the image uses the expected value $\alpha_t$ in place of
# $s_t$. The other is soft attention itself, whose gradient is exact, but for another cost.

# %%
rows = {}
for estimator in ("reinforce", "reward_to_go", "local_expectation"):
    for baseline in ("none", "moving_average", "leave_one_out"):
        rows[f"{estimator} {baseline}"] = enumeration.moments(paths, estimator, baseline, 2)
soft, size = enumeration.soft_gradient(world), np.linalg.norm(exact)
rows["reinforce_coin moving_average"] = enumeration.with_coin(*rows["reinforce moving_average"], soft)
rows["soft"] = soft, 0.0
print(f"{'estimator, baseline':34}   bias   variance")
for name, (mean, variance) in rows.items():
    print(f"{name:34} {np.linalg.norm(mean - exact) / size:.1e} {variance / size**2:9.4f}")
print("mean log p of words 1, 2, 3:", p @ log_p)

# %% [markdown]
# A baseline lowers the variance more than the other tricks: for `reinforce`, the moving average divides it by 43. One row
# may surprise: with the moving average, the reward to go has a larger variance than the whole reward (`reinforce`). Its
# baseline is a share of $b$, in proportion to the number of words still to come, as if all words were equally probable. But
# the last printed line shows that word 1 costs 4.0 nats on average and word 3 costs 2.4. If each step has its own baseline,
# the reward to go has a smaller variance than the whole reward (exercise 2). The command `satnp estimators` prints the same
# table with one more biased estimator, and then trains with each.
#
# ### The error falls as $1 / \sqrt{S}$
#
# The mean of $S$ independent paths has the same bias and $1/S$ of the variance. So the root of the mean squared error is
#
# $$
# \mathrm{error}(S) = \sqrt{\mathrm{bias}^2 + \mathrm{variance} / S}
# $$
#
# This answers the second question: 100 paths have a tenth of the error of one. To halve the error takes four times the work.
# The error of a biased estimate does not fall below its bias. In the figure the lines are the formula; each dot is measured,
# over 400 estimates of $S$ paths each. `to go` and `local expectation` have no baseline here.

# %%
counts = np.array([1, 4, 16, 64, 256, 1024])
estimates = {"plain": g, "b = E[r]": g - (p @ r) * K, "to go": g_to_go, "local expectation": g_local}
errors = {}
for name, each in estimates.items():
    drawn = [rng.multinomial(S, p, size=400) / S @ each for S in counts]  # means of S paths
    errors[name] = np.array([np.sqrt(((x - exact) ** 2).sum(axis=1).mean()) for x in drawn]) / size
    slope = np.polyfit(np.log(counts), np.log(errors[name]), 1)[0]
    print(f"{name:18} error at S = 1: {errors[name][0]:.3f}, at 1024: {errors[name][-1]:.4f}, falls as S^{slope:.3f}")

# %%
figure = Figure(figsize=(10, 4), layout="constrained")
left, right = figure.subplots(1, 2)
b = np.linspace(-25, 15, 81)
left.plot(b, [bias_and_variance(g - x * K)[1] for x in b], "k-")
for x, name, colour in ((0.0, "no baseline", "C3"), (p @ r, "E[r]", "C0"), (best, "best b", "C2")):
    left.plot(x, bias_and_variance(g - x * K)[1], "o", color=colour, label=f"{name}: b = {x:.2f}")
left.set(xlabel="baseline b (nats)", ylabel="variance / |gradient|²", yscale="log")
left.legend()
fine = np.geomspace(1, 1024, 50)
for (name, each), colour in zip(estimates.items(), ("C3", "C0", "C1", "C2"), strict=True):
    right.plot(counts, errors[name], "o", color=colour)
    right.plot(fine, np.sqrt(bias_and_variance(each)[1] / fine), "-", color=colour, label=name)
coin = enumeration.with_coin(p @ g, size**2 * bias_and_variance(estimates["b = E[r]"])[1], soft)
bias, variance = np.linalg.norm(coin[0] - exact) / size, coin[1] / size**2
right.plot(fine, np.sqrt(bias**2 + variance / fine), "--", color="C4", label="coin, b = E[r]: biased")
right.set(xlabel="paths S", ylabel="error / |gradient|", xscale="log", yscale="log")
right.legend(fontsize=8)
see = "left, the baseline changes the variance and has a best value; right, error falls by 10 for 100 paths, unless biased"
save(figure, "13_variance", see)

# %% [markdown]
# ## Check by number
#
# The mean of each estimator over all paths, made by the captioner's own backward pass, must equal the complex step of the
# enumerated bound. A baseline that is far off, such as 250, does not change the mean.

# %%
for estimator in ("reinforce", "reward_to_go", "local_expectation"):
    for baseline, b in (("none", 0.0), ("moving_average", -3.3), ("moving_average", 250.0)):
        chosen = world._replace(config=replace(world.config, estimator=estimator, baseline=baseline))
        near(f"{estimator} {baseline} b = {b}", enumeration.expected_gradient(chosen, b), exact)

# %% [markdown]
# ### Entropy
#
# If a bad location gets almost all of the weight early in training, the other locations are hardly ever drawn, and nothing
# is learned about them. So the paper adds $\lambda_e H$ to the objective, where $H = -\sum_i \alpha_i \log \alpha_i$ is the
# entropy: 0 if one location has all of the weight, $\log L$ if all weights are equal. With
# $\partial H / \partial \alpha_i = -(\log \alpha_i + 1)$ and the softmax rule of lesson 09,
#
# $$
# \begin{aligned}
# \mathrm{mean} &= \sum_i \alpha_i \left( -(\log \alpha_i + 1) \right) = H - 1 \\
# \frac{\partial H}{\partial e_i} &= \alpha_i \left( -(\log \alpha_i + 1) - (H - 1) \right) = -\alpha_i (\log \alpha_i + H)
# \end{aligned}
# $$
#
# The cost is $-\lambda_e H$, so its gradient is $\lambda_e \alpha_i (\log \alpha_i + H)$. It is positive where
# $\log \alpha_i > -H$, so a gradient step lowers the scores of the large weights.

# %%
e = rng.standard_normal((2, 5))
weight = np.array([0.3, 0.7])  # lambda_e, here another one for each row
numbers = numeric_gradient(lambda e: -(weight * entropy(e)).sum(), e)
near("entropy_gradient", entropy_gradient(e, softmax(e), weight), numbers)
print("alpha ", softmax(e)[0], " H", entropy(e)[0].round(4), "of at most", np.log(5).round(4))
print("dcost ", entropy_gradient(e, softmax(e), weight)[0])

# %% [markdown]
# In the drawing $H$ is computed from $\log \alpha$, as the code does. $\log \alpha$ is used twice, so its gradient is a sum.
# The last formula, at $e$, follows from $\partial \log \alpha_i / \partial e_k = 1_{i = k} - \alpha_k$ (lesson 12).

# %%
graph("13_entropy", [
    ("log_alpha", "log_softmax(e)", {"e": "dlog_alpha - alpha * sum(dlog_alpha)"}),
    ("alpha", "exp(log_alpha)", {"log_alpha": "dalpha * alpha"}),
    ("H", "-sum(alpha * log_alpha)", {"alpha": "-dH * log_alpha", "log_alpha": "-dH * alpha"}),
], {
    "e": e, "log_softmax": log_softmax, "exp": np.exp, "sum": lambda x: x.sum(axis=1, keepdims=True),
    "alpha": softmax(e), "H": entropy(e)[:, None], "de": entropy_gradient(e, softmax(e), weight),
}, {"N": 2, "L": 5}, {"H": -weight[:, None]}, "log_alpha has two dashed arrows; the cost is -weight H")  # fmt: skip

# %% [markdown]
# $H_t$ depends on the path, because $\alpha_t$ depends on $s_{<t}$. The paper takes its gradient along the drawn path, and
# does not reward earlier choices for it. So with an entropy term the estimate is not exactly the gradient of
# $\mathbb{E}[r + \lambda_e \sum_t H_t]$. Enumeration gives the bias:

# %%
for weight in (0.01, 0.1, 1.0):
    with_entropy = enumeration.small_world(entropy_weight=weight)
    whole, found = enumeration.exact_gradient(with_entropy), enumeration.expected_gradient(with_entropy)
    print(f"lambda_e {weight:4}: bias {np.linalg.norm(found - whole) / np.linalg.norm(whole):.1e}")

# %% [markdown]
# ## Break it
#
# ### A baseline that contains its own sample
#
# This is the third question. Let the two paths have $r$, $K$ and $r'$, $K'$, and take the mean of both rewards as the
# baseline, $b = (r + r')/2$. It is subtracted from $r$, so the mean of the first path's score part, $\mathbb{E}[r K]$,
# becomes smaller by
#
# $$
# \mathbb{E}[b K] = \frac{1}{2} \mathbb{E}[r K] + \frac{1}{2} \mathbb{E}[r'] \, \mathbb{E}[K] = \frac{1}{2} \mathbb{E}[r K]
# $$
#
# So half of the score part is lost; with $S$ paths it is $1/S$. In the same way, a moving average that is updated BEFORE it
# is used, $b = .9 \, b_{\mathrm{old}} + .1 \, r$, loses a tenth. The worst case is a $b_t$ that is a function of $s_t$:
# $\mathbb{E}[b_t K_t]$ can be anything.

# %%
path_part, score_part = p @ paths.likelihood, p @ (r[:, None] * K)
both = (r[:, None] + r[None, :]) / 2
own_in_mean = path_part + ((p[:, None] * p[None, :]) * (r[:, None] - both)).sum(axis=1) @ K
near("own sample: path part + 1/2 score part", own_in_mean, path_part + score_part / 2)
early = p @ (paths.likelihood + (r - (0.9 * -3.3 + 0.1 * r))[:, None] * K)
near("updated before: path part + 9/10 score part", early, path_part + 0.9 * score_part)
known = rng.normal(size=(T, L))  # b_t(s_t): a number for each location
by_choice = p @ (paths.likelihood + np.einsum("pt,ptf->pf", r[:, None] - known[np.arange(T), PATHS], paths.scores))
for name, mean in (("own sample in the mean", own_in_mean), ("updated before use", early), ("b_t(s_t)", by_choice)):
    print(f"{name:24} bias {np.linalg.norm(mean - exact) / size:.3f}")

# %% [markdown]
# With such a bias the loss can still fall, so a training curve need not show it. Enumeration shows it at once. Here are four
# mistakes planted in satnp's own source, one after the other: `in_place` replaces the function that the captioner calls. We
# ask `diagnose` about $dv$: $v$ belongs to `f_att`, whose gradient has a score part only (lesson 12), so a factor of the
# score part is a factor of the whole $dv$.

# %%
CASES = {
    "own sample in the mean": {"samples": 2, "baseline": "leave_one_out"},
    "baseline updated before use": {"baseline": "moving_average"},
    "this word counted twice": {"estimator": "local_expectation"},  # in the mean, and among "the words after it"
    "sign of REINFORCE": {},
}
wanted = world.params.on(exact)
for name, changes in CASES.items():
    bug = next(bug for bug in bugs.BUGS if bug.name == name)
    with bugs.in_place(bug):
        found = enumeration.expected_gradient(world._replace(config=replace(world.config, **changes)))
    print(f"{name}: bias {np.linalg.norm(found - exact) / size:.3f}")
    for word, code in (("from", bug.old), ("to", bug.new)):
        print(fill(f"  {word:5} {'; '.join(map(str.strip, code.splitlines()))}", 78, subsequent_indent=8 * " "))
    print(fill("  " + diagnose("dv", world.params.on(found)["v"], wanted["v"]).sentence, 78, subsequent_indent="  "))

# %% [markdown]
# ## Exercises
#
# 1. Show that at $b = \hat{b}$ the parabola has the value
#    $\mathbb{E} |g|^2 - (\mathbb{E}[g \cdot K])^2 / \mathbb{E}[K \cdot K]$. Compute it (`E_gK`, `E_KK`), subtract
#    $|\mathrm{exact}|^2$, and divide by $|\mathrm{exact}|^2$. Check: 0.483, the third row of the baseline table.
# 2. Give each step its own baseline for the reward to go: $b_t = \mathbb{E}[R_t |K_t|^2] / \mathbb{E}[|K_t|^2]$ with
#    `paths.scores[:, t]` as $K_t$. Check: $b = (-9.02, -4.66, -2.04)$, bias below 1e-12, variance 0.383 (the whole reward
#    with $b = \mathbb{E}[r]$ has 0.525). Compare $b$ with the mean reward to go, `p @ to_go`. Why are they close?
# 3. A baseline may depend on the steps before: $b_t = \mathbb{E}[r \mid s_{<t}]$, a mean, with the weights $p$, over the
#    paths that begin alike. Check: with the total reward, bias below 1e-12 and variance 0.426. Then let it depend on $s_t$
#    too, $b_t = \mathbb{E}[r \mid s_{\le t}]$. Check: the bias is 0.327, and the mean equals `path_part` exactly. What has
#    happened to the score part?
# 4. How many plain paths have the same error as ONE path with $b = \mathbb{E}[r]$? Check: 43.5, a ratio of two variances.
# 5. For which $S$ has REINFORCE with $b = \mathbb{E}[r]$ a smaller error than the coin? Solve
#    $v_1 / S = \mathrm{bias}^2 + v_2 / S$, where $v_1$ is the variance with $b = \mathbb{E}[r]$, and $v_2$ and the bias are
#    those of the coin (`variance` and `bias` of the figure's cell). Check: $S = 3.5$, where the two lines cross.

# %% [markdown]
# ## Next
#
# You now have all gradients, of soft and of hard attention. Lesson 14 uses what they have trained: it goes from a photo to a
# sentence, by greedy and beam search, and from sentences to a score.
