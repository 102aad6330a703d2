# %% [markdown]
# # 13 Variance: baselines, entropy, and the exact answer by enumeration
#
# - time: 75 minutes
# - cpu: 30 seconds
# - before: 02, 09, 12
# - equations: Xu et al. 2015, section 4.1, eqs. 10-12
# - about: satnp.estimators.choices.advantage
#
# A gradient that is estimated from random paths has two kinds of error. Bias: its mean is not the gradient. Variance: one
# estimate is far from the mean. Both are usually guessed at. Here the world is so small that all 27 ways to look can be
# computed, so both are plain numbers, and each trick can be held against them.

# %% [markdown]
# What lesson 12 said, in short. A caption has T words. Before word t the decoder draws one location s_t from alpha_t, and
# sees a_{s_t} alone. A path is s = (s_1 ... s_T); with the right words given (teacher forcing) its probability is
#
#     p(s) = alpha_1[s_1] alpha_2[s_2] ... alpha_T[s_T]
#
# where alpha_t depends on s_1 ... s_{t-1}, s_<t for short, through the state. The words then have the log-likelihood
# r(s) = sum_t log p(y_t | s), in nats as ever. We raise the bound L_s = sum_s p(s) r(s), or lower the cost C = -L_s. Its
# derivative by any parameter W has two parts, because both factors of p(s) r(s) depend on W, and
# dp(s)/dW = p(s) d log p(s)/dW:
#
#     dC/dW = - sum_s p(s) [ dr(s)/dW  +  r(s) d log p(s)/dW ]
#                            path part    score part
#
# It is a mean over paths of a bracket: E[x] = sum_s p(s) x(s) is such a mean. REINFORCE draws a path and takes the bracket
# as its estimate of the mean.

# %%
from dataclasses import replace
from textwrap import fill

import numpy as np
from kit import near, save, show
from matplotlib.figure import Figure

from satnp.estimators import choices, entropy, entropy_gradient, leave_one_out, moving_average
from satnp.layers import softmax
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
print("path       p(s)    log p of the three words      r(s)")
for k in np.argsort(-p)[:6]:
    print(PATHS[k], f"{p[k]:9.4f}  {log_p[k]!s:26} {r[k]:8.3f}")
print(f"sum of p over all 27 {p.sum():.12f}; mean reward E[r] = L_s = {p @ r:.4f}")

# %% [markdown]
# `walk` is the real captioner's forward pass, told where to look: its Gumbel numbers are infinite at the wanted location
# and 0 elsewhere (lesson 12). Nothing in this lesson is a model of the captioner; it is the captioner. All its parameters
# lie in one flat vector, `world.params.flat`, and `world.params.on(x)` lays their names over another vector x.
#
# The bound is below what we would like to raise, log p(y) = log sum_s p(s) exp(r(s)), because a mean of logarithms is at
# most the logarithm of the mean (eq. 10).

# %%
print(f"L_s {p @ r:.4f} <= log p(y) {np.log(p @ np.exp(r)):.4f}")
assert p @ r <= np.log(p @ np.exp(r))

# %% [markdown]
# ## Predict
#
# 1. Add 100 to every reward. Does the mean of the estimate change? Does its spread?
# 2. Average the estimates of 100 paths instead of one. By what factor does the error fall?
# 3. Draw two paths and subtract from each reward the mean of the two. Is the estimate still right on average?
#
# Write down three answers. Each is computed below.

# %% [markdown]
# ## Run
#
# ### The exact gradient
#
# `enumerate_paths` runs the captioner's own backward on each path and keeps the pieces of the bracket, for the cost:
#
#     likelihood  (27, F)      d(-r(s))/dW, the path held fixed
#     scores      (27, T, F)   d(-log alpha_t[s_t])/dW, for each step t
#
# with F = 433, all parameters in one row. A warning: statistics calls the derivative of a log-probability its score, hence
# `scores` and "score part"; attention's scores are the e_t. By e_t the derivative is simple, alpha_t - s_t with s_t as a
# one-hot row (lesson 12); the captioner sends it on through f_att and the recurrence to all parameters. Call
# K(s) = sum_t scores_t = d(-log p(s))/dW. One estimate is
#
#     g(s) = likelihood(s) + r(s) K(s)
#
# and the exact gradient is its mean over the 27 paths.

# %%
paths = enumeration.enumerate_paths(world)
K = paths.scores.sum(axis=1)
g = paths.likelihood + r[:, None] * K
exact = enumeration.exact_gradient(world)  # complex step of the enumerated bound: no backward pass in it
print("likelihood", paths.likelihood.shape, " scores", paths.scores.shape, " g", g.shape)
near("mean of g against the complex step of -L_s", p @ g, exact)

# %% [markdown]
# So the estimate has no bias, to 15 digits. Now its variance. For a vector, take the mean squared distance from the mean,
# E|g - Eg|^2. Multiplied out, with E[g . Eg] = |Eg|^2, it is E|g|^2 - |Eg|^2. We print it in units of |exact|^2: a
# variance of 1 is noise as large as the signal.


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
# Subtract a number b from the reward: g_b(s) = likelihood(s) + (r(s) - b) K(s). Its mean has changed by -b E[K], and
#
#     E[K] = - sum_s p(s) d log p(s)/dW = - sum_s dp(s)/dW = - d/dW sum_s p(s) = - d/dW 1 = 0
#
# So any b leaves the mean alone. Not so the variance:
#
#     E|g_b|^2 = E|g - bK|^2 = E|g|^2 - 2b E[g . K] + b^2 E[K . K]
#
# a parabola in b. Its derivative is 0 at b* = E[g . K] / E[K . K]. If the path part were absent, g = r K, and |K|^2 the same
# for all paths, b* would be E[r] exactly: pay for being better than usual, not for being good.

# %%
print("largest entry of E[K]:", np.abs(p @ K).max())
E_gK, E_KK = p @ (g * K).sum(axis=1), p @ (K * K).sum(axis=1)
best = E_gK / E_KK
print("      b     bias   variance")
for b in (0.0, p @ r, best, -(p @ r), -100.0, 100.0):
    print(f"{b:7.2f}  {bias_and_variance(g - b * K)[0]:.0e}  {bias_and_variance(g - b * K)[1]:9.3f}")
print(f"E[r] is {p @ r:.2f}, the best b is {best:.2f}")

# %% [markdown]
# This answers the first question. Adding 100 to each reward is b = -100: the mean stays, and the variance grows a
# hundredfold. Rewards here are log-likelihoods, all negative: without a baseline every path is punished, the right
# ones only a little less.
#
# In training nobody knows E[r]. The paper's b is a moving average of the rewards seen so far. Its order matters: the
# gradient of training step k uses b_{k-1}, then b is updated.

# %%
show(moving_average)
b, seen = np.array(0.0), []
for _ in range(60):
    b = moving_average(b, r[rng.choice(27, size=1, p=p)], np.ones(1))
    seen.append(float(b))
print("b after 1, 5, 20, 60 draws:", *(f"{seen[k - 1]:.2f}" for k in (1, 5, 20, 60)), f"   E[r] {p @ r:.2f}")

# %% [markdown]
# ### Pay a choice only for what it can change
#
# The total reward pays s_3 also for words 1 and 2, which were said before it was drawn. That is noise. Take a word u
# before step t. Given s_1 ... s_{t-1}, log p(y_u) is a fixed number, and the mean of K_t over s_t alone is 0 (the argument
# above, for one step; K_t is column t of `paths.scores`). So E[log p(y_u) K_t] = 0 for u < t, and these terms can be
# dropped. What is left is the reward to go, R_t = sum of log p(y_u) over u >= t.

# %%
for u, t in ((0, 1), (0, 2), (1, 2), (1, 1), (2, 1)):
    term = np.linalg.norm(p @ (log_p[:, u, None] * paths.scores[:, t]))
    print(f"|E[log p(word {u + 1}) K_{t + 1}]| = {term:.1e}", "  word before choice" if u < t else "")
to_go = log_p[:, ::-1].cumsum(axis=1)[:, ::-1]
g_to_go = paths.likelihood + np.einsum("pt,ptf->pf", to_go, paths.scores)
print("reward to go: bias {:.1e}, variance {:.2f}".format(*bias_and_variance(g_to_go)))

# %% [markdown]
# ### Average where an average can be had
#
# At step t one can ask for each location i what the word would have been worth, l_i = log p(y_t | s_<t, s_t = i). It
# costs L evaluations of the cell, without any backward pass. In the gradient by e_t, word t stands as
# l_{s_t} (alpha_t - s_t). Its mean over s_t is then known. Entry i of it, with j for the location drawn:
#
#     sum_j alpha_j l_j (alpha_i - 1[i = j]) = alpha_i (alpha . l) - alpha_i l_i = -alpha_i (l_i - alpha . l)
#
# which is softmax_backward of -l (lesson 09). Use it for the word of step t, and the sampled path for the words after.
# This is the local expectation gradient (Titsias & Lazaro-Gredilla 2015): an average in place of a draw takes
# variance out of that term (Rao & Blackwell). `paths.local` is the path part with these averages in it.

# %%
after = to_go - log_p
g_local = paths.local + np.einsum("pt,ptf->pf", after, paths.scores)
print("local expectation: bias {:.1e}, variance {:.2f}".format(*bias_and_variance(g_local)))
show(choices.advantage)

# %% [markdown]
# `advantage` is the r - b that the captioner pays a choice with; `REWARDS` names the part of the caption: total, to_go or
# after. b is of the whole caption; a part of the caption gets its share of b, by the number of words.
#
# ### Leave one out
#
# With S paths of the same caption no moving average is needed. Give each path the mean reward of the OTHERS as its
# baseline. It is independent of the path's own K, so E[b K] = E[b] E[K] = 0: no bias, and no memory of old rewards.
#
# Here is the mean over all pairs of paths, 27 x 27 = 729 backward passes of the captioner with S = 2:

# %%
show(leave_one_out)
show(enumeration.expected_gradient)
print("rewards of three paths", r[:3], "\n-> baselines          ", leave_one_out(r[:3]))
pairs = world._replace(config=replace(world.config, samples=2, baseline="leave_one_out"))
near("leave one out, mean over 729 pairs", enumeration.expected_gradient(pairs), exact)

# %% [markdown]
# ## Look
#
# All of them in one table, each with S = 2 paths. `moments` does the sums above for any S (with leave-one-out the S terms
# depend on each other; its docstring has the algebra). Two more rows are biased on purpose. One is the paper's coin
# (lesson 12), which with probability one half shows the image its expected value alpha_t in place of s_t. The other is
# soft attention itself, whose gradient is exact for another cost.

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

# %% [markdown]
# A good baseline does most of the work. One row may surprise: with the moving average, reward to go is worse than the whole
# reward (`reinforce`). Its baseline is b's share by the number of words still to come, as if all words were equally hard;
# here word 1 costs 4.0 nats on average and word 3 costs 2.4. With a baseline of its own for each step it is the better one
# again (exercise 2). `satnp estimators` prints the same table with one more biased estimator, and then trains with each.
#
# ### The error falls as 1 / sqrt(S)
#
# The mean of S independent paths has the same bias and 1/S of the variance. So the root of the mean squared error is
#
#     error(S) = sqrt( bias^2 + variance / S )
#
# 100 paths give a tenth of the error of one: the second question. To halve it costs four times the work, so a variance
# that is 40 times smaller is worth 40 times the machines. An estimate with bias stops at its bias. In the figure the lines
# are the formula; each dot is measured, over 400 estimates of S paths each.

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
# The mean of each estimator over all draws, made by the captioner's own backward, against the complex step of the
# enumerated bound. A baseline that is far off, such as 250, does not matter to the mean.

# %%
for estimator in ("reinforce", "reward_to_go", "local_expectation"):
    for baseline, b in (("none", 0.0), ("moving_average", -3.3), ("moving_average", 250.0)):
        chosen = world._replace(config=replace(world.config, estimator=estimator, baseline=baseline))
        near(f"{estimator} {baseline} b = {b}", enumeration.expected_gradient(chosen, b), exact)

# %% [markdown]
# ### Entropy
#
# Early in training rewards are noisy, and alpha may become certain of a bad place; then no other is ever drawn, and
# nothing is learned of it. The paper adds lambda_e H to the objective, H = -sum_i alpha_i log alpha_i, the entropy: 0 when
# certain, log L when even. Its gradient, with the softmax rule of lesson 09 for dH/dalpha_i = -(log alpha_i + 1):
#
#     mean    = sum_i alpha_i (-(log alpha_i + 1)) = H - 1
#     dH/de_i = alpha_i ( -(log alpha_i + 1) - (H - 1) ) = -alpha_i (log alpha_i + H)
#
# The cost is -lambda_e H, so its gradient is +lambda_e alpha (log alpha + H). A weight that is larger than the others
# gets its score lowered.

# %%
e = rng.standard_normal((2, 5))
weight = np.array([0.3, 0.7])
numbers = numeric_gradient(lambda e: -(weight * entropy(e)).sum(), e)
near("entropy_gradient", entropy_gradient(e, softmax(e), weight), numbers)
print("alpha ", softmax(e)[0], " H", entropy(e)[0].round(4), "of at most", np.log(5).round(4))
print("dcost ", entropy_gradient(e, softmax(e), weight)[0])

# %% [markdown]
# H_t depends on the path, since alpha_t depends on s_<t. The paper takes its gradient along the drawn path and does not
# pay earlier choices for it. So with an entropy term the estimate is no longer the gradient of E[r + lambda_e H]. By
# enumeration, the bias is:

# %%
for weight in (0.01, 0.1, 1.0):
    with_entropy = enumeration.small_world(entropy_weight=weight)
    whole, found = enumeration.exact_gradient(with_entropy), enumeration.expected_gradient(with_entropy)
    print(f"lambda_e {weight:4}: bias {np.linalg.norm(found - whole) / np.linalg.norm(whole):.1e}")

# %% [markdown]
# ## Break it
#
# ### A baseline that knows its own sample
#
# The third question. Say the two paths have r, K and r', K'. With b = the mean of both rewards, (r + r')/2, the first gets
#
#     E[b K] = 1/2 E[r K] + 1/2 E[r'] E[K] = 1/2 E[r K]
#
# taken away: half of the score part; with S paths it is 1/S. Likewise a moving average that is updated BEFORE it is used:
# b = .9 b_old + .1 r takes away a tenth. The worst is a b_t that is a function of s_t: E[b_t K_t] can be anything.

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
# No training curve shows such a bias: the loss falls, only to another place. Enumeration shows it at once. Here are four
# mistakes planted in satnp's own source, one after the other; `in_place` puts the broken function where the captioner
# finds it. `diagnose` is asked about dv: v belongs to f_att, which has no path part, so a factor stands there clean.

# %%
CASES = {
    "own sample in the mean": {"samples": 2, "baseline": "leave_one_out"},
    "baseline updated before use": {"baseline": "moving_average"},
    "this word counted twice": {"estimator": "local_expectation"},
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
# 1. Show that at b = b* the parabola gives E|g_b|^2 = E|g|^2 - E_gK^2 / E_KK. Compute it, subtract |exact|^2 and divide by
#    |exact|^2. Check: 0.483, the third row of the baseline table.
# 2. Give each step its own baseline for the reward to go: b_t = E[R_t |K_t|^2] / E[|K_t|^2], K_t = paths.scores[:, t].
#    Check: b = (-9.02, -4.66, -2.04), bias below 1e-12, variance 0.383 (whole reward with b = E[r]: 0.525). Compare b with
#    the mean reward to go, p @ to_go. Why are they near?
# 3. A baseline may know the steps before: b_t = E[r | s_<t], a mean over the paths that begin alike, weighed by p. Check:
#    with the total reward, bias below 1e-12 and variance 0.426. Then let it know s_t too, b_t = E[r | s_<=t]. Check: the
#    bias is 0.327, and the mean equals path_part exactly. Where has the score part gone?
# 4. How many plain paths does it take to come as near as ONE path with b = E[r]? Check: 43.5, a ratio of two variances.
# 5. From which S on is REINFORCE with b = E[r] nearer to the gradient than the coin? Solve variance_1 / S = bias^2 +
#    variance_2 / S: 1 is b = E[r], 2 the coin, whose `bias` and `variance` the figure's cell has. Check: S = 3.5, where the
#    two lines cross.

# %% [markdown]
# ## Next
#
# The gradients are all there, soft and hard. Lesson 14 uses what they have trained: from a photo to a sentence by greedy
# and beam search, and from sentences to a score.
