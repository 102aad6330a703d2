# %% [markdown]
# # 12 Hard attention: sampling, and a gradient without a derivative
#
# - time: 60 minutes
# - cpu: 20 seconds
# - before: 02, 09, 11
# - equations: Xu et al. 2015, section 4.1, eqs. 8-12
# - about: satnp.estimators.reinforce
#
# Soft attention sees a mixture of all locations. Hard attention looks at one, drawn at random with the weights alpha. A
# draw has no derivative, and yet there is a gradient: not of what was drawn, but of how likely it was.

# %% [markdown]
# ## Predict
#
# Scores e = (1, 0, -1); one location is drawn from alpha = softmax(e). Looking at location i earns a reward r = (0, 5, 1).
#
# 1. Nudge e_1 by 0.000001 while the random numbers stay the same. What happens to the drawn location? What is the
#    derivative of the reward through the draw?
# 2. The MEAN reward is sum_i alpha_i r_i, which is smooth in e. Which lesson has its gradient already?
# 3. From one draw, say location 3 with reward 1: in which direction would you move the scores?

# %%
from dataclasses import replace
from textwrap import fill

import numpy as np
from kit import near, save, show
from matplotlib.figure import Figure

from satnp import estimators
from satnp.estimators import choices
from satnp.layers import softmax, softmax_backward, softmax_forward
from satnp.proof import bugs, enumeration
from satnp.proof.gradcheck import numeric_gradient

np.set_printoptions(precision=4, suppress=True, linewidth=78)
rng = np.random.default_rng(0)
e, r = np.array([1.0, 0.0, -1.0]), np.array([0.0, 5.0, 1.0])
alpha = softmax(e)
print("alpha", alpha, " mean reward", alpha @ r)

# %% [markdown]
# ## Run
#
# ### Drawing by an argmax
#
# Take uniform numbers u_i, set g_i = -log(-log u_i) (Gumbel noise), and choose argmax_i (e_i + g_i). Then location i comes
# with probability alpha_i. Why: imagine L alarm clocks, where clock i rings at the time x_i = -log(u_i) / exp(e_i). As u_i
# is uniform, P(x_i > x) = P(u_i < exp(-w_i x)) = exp(-w_i x) with w_i = exp(e_i). Minus its derivative, w_i exp(-w_i x), is
# the density of clock i ringing at x. It rings first if all others ring later, so with probability
#
#     integral over x of  w_i exp(-w_i x)  prod_{k != i} exp(-w_k x)  =  w_i / sum_k w_k  =  alpha_i
#
# And the first to ring has the largest -log x_i = e_i - log(-log u_i) = e_i + g_i. The noise is drawn by the caller, so a
# run can be repeated, and an infinity in place of the noise forces a location.

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
# ### Why the gradient does not flow
#
# As a function of e, with g fixed, the draw is constant almost everywhere and jumps where two locations tie. Its derivative
# is 0, or does not exist. The complex step agrees: it says 0 for each score, exactly. So the likelihood, which flows back
# to z_t = beta_t a_{s_t}, stops at the draw. Nothing reaches f_att from there, and attention would never learn.

# %%
g = gumbel[0]
through = numeric_gradient(lambda e: (estimators.draw(e, g) * r).sum(), e)
print("derivative of the reward through one draw:", through)
grid = np.linspace(-3, 3, 601)
earned = np.array([[(estimators.draw(np.array([x, e[1], e[2]]), noise) * r).sum() for x in grid] for noise in gumbel[:300]])
smooth = np.array([softmax(np.array([x, e[1], e[2]])) @ r for x in grid])
print(f"mean of 300 such steps against sum_i alpha_i r_i: off by {np.abs(earned.mean(axis=0) - smooth).max():.2f} at most")

# %% [markdown]
# ### The score-function trick
#
# One draw is a step, but the mean over all draws, J(e) = sum_i alpha_i r_i, is smooth. Its gradient, with the one identity
# d alpha = alpha d log alpha:
#
#     dJ/de = sum_i r_i dalpha_i/de = sum_i alpha_i r_i dlog alpha_i/de = mean over draws s of  r_s dlog alpha_s/de
#
# The last form is a mean over what is drawn anyway. So r_s dlog alpha_s/de of ONE draw is an estimate of dJ/de that is
# right on average (Williams 1992, REINFORCE). No derivative of r is asked for. For a softmax it is simple:
#
#     log alpha_s = e_s - log sum_k exp(e_k),    dlog alpha_s/de_i = 1[i = s] - alpha_i
#
# With s as a one-hot row: s - alpha. We minimise the cost C = -J, and may subtract a number b from the reward (below):
#
#     de = -(r - b) (s - alpha)
#
# A drawn location that paid more than b gets a higher score, all others a lower one.

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
# So the exact gradient is lesson 09's: alpha * (dalpha - mean) with dalpha = -r. REINFORCE is for the case where r is known
# only at the drawn location, which is our case, since the rest of the caption was said for it alone. The last line says why
# b is free: the mean of b (s - alpha) is 0. Lesson 13 is about how much b helps.
#
# ### A whole caption
#
# Before each word a location is drawn, s = (s_1 ... s_T), with probability p(s) = alpha_1[s_1] ... alpha_T[s_T]. The paper
# raises, by Jensen's inequality (the logarithm of a mean is at least the mean of the logarithms), the bound
#
#     L_s = sum_s p(s) log p(y | s)  <=  log sum_s p(s) p(y | s) = log p(y)                         eq. 10
#
# by its sampled gradient. (L_s is the paper's name; L alone stays the number of locations.) The reward is
# r = log p(y | s), and both factors depend on the weights W:
#
#     dC/dW, estimated = - [ dr/dW  +  (r - b) dlog p(s)/dW ]                                       eqs. 11-12
#
# The first part is the ordinary backward pass along the drawn path; it stops at each draw. The second, since log p(s) is a
# sum over t, adds to the scores of each step t
#
#     de_t = -(r - b) (s_t - alpha_t)
#
# and from there goes on like any gradient of scores: through f_att into v, W_a, W_s, and into h_{t-1}, so through the
# recurrence into all that came before. In the captioner's backward pass these are two lines.

# %%
show(choices.score_gradients)
world = enumeration.small_world()  # one photo of 3 locations, one caption of 3 words: 27 paths
path = np.array([[1, 0, 2]])
cache = enumeration.walk(world, path)  # the captioner's forward pass, made to look where `path` says
reward = float(cache.hard.log_p.sum())
print("log p of the three words", cache.hard.log_p[:, 0], " r", round(reward, 4))
print("s_t - alpha_t\n", (cache.looks - cache.alphas)[:, 0])
print("de_t of REINFORCE, b = 0\n", choices.score_gradients(world.config, cache.hard)[:, 0])

# %% [markdown]
# Which parameters learn from which part? Run the backward pass with the score part weighed 0 and 1. Predict the rows of v,
# L_o and W_h first.

# %%
off = enumeration.walk(world._replace(config=replace(world.config, reward_weight=0.0)), path)
likelihood = world.params.on(enumeration.gradient(off))
whole = world.params.on(enumeration.gradient(cache))
print("             |likelihood part|   |score part|")
for name, what in (("v", "f_att"), ("W_a", "f_att"), ("W_s", "f_att"), ("W_h", "LSTM"), ("E", "words"),
                   ("W_beta", "gate"), ("L_z", "output"), ("L_o", "output")):  # fmt: skip
    print(f"{name:7}{what:7}{np.linalg.norm(likelihood[name]):13.4f}{np.linalg.norm(whole[name] - likelihood[name]):16.4f}")

# %% [markdown]
# f_att lives from the score part alone, the output layer from the likelihood alone. The LSTM, the words and the gate have
# both: they shape h, and h chooses where to look next.
#
# ### The coin
#
# The paper adds: with probability one half, an image is shown its expected value, alpha_t in place of s_t at every step.
# For it the likelihood reaches f_att as in soft attention, with little noise. The price is a bias: it is half the gradient
# of another cost. `choose` does it; `expected` is 1 where the coin says so.

# %%
show(choices.choose)
shown = enumeration.walk(world, path, expected=1)
print("looks at step 2: drawn", cache.looks[1, 0], " expected", shown.looks[1, 0])
soft = world.params.on(enumeration.gradient(shown))
print(f"|dv| by likelihood alone: drawn {np.linalg.norm(likelihood.v):.4f}, expected {np.linalg.norm(soft.v):.4f}")

# %% [markdown]
# ## Look
#
# Learning with REINFORCE alone: the three scores of the prediction, one draw a step, against the exact gradient. Location 2
# pays best but begins with a weight of .24. In a captioner rewards are log-likelihoods, all negative; so we take 15 off
# each, r = (-15, -10, -14), which changes no exact gradient.


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
# ## Check by number
#
# How does one check a gradient that is random? Along one given path nothing is random. Hold the path and its reward fixed;
# then the backward pass must be the gradient of
#
#     surrogate = -log p(y | s) - (r - b) log p(s),   r a constant number
#
# and the complex step can take that. (That the mean over paths is right is lesson 13.)

# %%
chosen = np.arange(3) == path.T[:, :, None]  # (T, 1, L)


def surrogate(flat, b=0.0):
    seen = enumeration.walk(world, path, flat=flat)
    log_alpha = seen.hard.scores - np.log(np.exp(seen.hard.scores).sum(axis=2, keepdims=True))
    return -seen.hard.log_p.sum() - (reward - b) * (chosen * log_alpha).sum()


numbers = world.params.on(numeric_gradient(surrogate, world.params.flat))
for name in ("v", "W_s", "W_h", "E", "L_o", "W_h0"):
    near(f"d{name}", whole[name], numbers[name])
near("all parameters", whole.flat, numbers.flat)
moving = world._replace(config=replace(world.config, baseline="moving_average"))
with_b = enumeration.gradient(enumeration.walk(moving, path, baseline=-7.5))
near("all, with b = -7.5", with_b, numeric_gradient(lambda flat: surrogate(flat, -7.5), world.params.flat))

# %% [markdown]
# ## Break it
#
# Four mistakes that people make, planted in satnp's source one by one. The third is subtle: de_t reaches v, W_a and W_s but
# is not sent on into h_{t-1}. The last is no gradient at all: the noise of the draw is wrong, and only counting finds it.

# %%
for name in ("sign of REINFORCE", "likelihood leaks through the sample", "score gradient not sent on into h_{t-1}",
             "locations drawn without Gumbel's second logarithm"):  # fmt: skip
    bug = next(bug for bug in bugs.BUGS if bug.name == name)
    result = bugs.check(bug)
    assert not result.passed
    print(f"{name}: {len(result.findings)} wrong, the first:")
    print(fill(result.findings[0].sentence, 78, initial_indent="  ", subsequent_indent="  "))

# %% [markdown]
# Now a mistake that no check along one path can see: the reward is allowed to carry a gradient, because log p(y | s) is
# part of the graph. In an automatic framework it is a forgotten `detach`. By hand it would need work to make: the reward
# enters `reinforce` as a number. In the surrogate it is easy. With R = log p(y | s) alive, the derivative of -R - R log
# p(s) by R is -(1 + log p(s)), where it should be -1: every gradient of the likelihood comes out multiplied by 1 + log
# p(s).


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
# 1. By hand: alpha = (1/2, 1/4, 1/4), draw s = location 3, r = 2, b = 1. Check with `reinforce`: de = (0.5, 0.25, -0.75).
# 2. Draw 20,000 times with scores (0, -inf, 2). Check: the middle never comes, the last 88.1 % of the time.
# 3. Write `draw` by the cumulative sum: the first i with alpha_1 + ... + alpha_i > u. Check: the same frequencies. What
#    becomes of your draw when one score moves a little and u stays? Is the other form better in this?
# 4. Run `learn` with r itself, (0, 5, 1), and b = 3. Check: the same 20 curves as with r - 15 and b = -12, to rounding. And
#    with b = 0 they are calm too. Why was 0 a good baseline for r and a bad one for r - 15?
# 5. Take all 27 paths of `enumeration.PATHS`, the gradient of each, `enumeration.gradient(enumeration.walk(world, path))`,
#    and their mean weighed with p(s). Check against `enumeration.exact_gradient(world)`: below 1e-12. Lesson 13
#    begins there.

# %% [markdown]
# ## Next
#
# One draw is right on average and wild by itself. Lesson 13 measures how wild, exactly, and what tames it.
