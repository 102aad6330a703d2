# %% [markdown]
# # Answers to lesson 12

# %% [markdown]
# ## 1
#
# - hint: Write $s$ as a one-hot row, $(0, 0, 1)$, and insert the numbers into $de = -(r - b)(s - \alpha)$.
#
# $r - b = 1$ and $s - \alpha = (-1/2, -1/4, 3/4)$, so $de = (1/2, 1/4, -3/4)$. A gradient step goes against $de$: it raises
# the score of location 3, which earned more than the baseline, and lowers the two others.

# %%
de = estimators.reinforce(np.array([0.0, 0.0, 1.0]), np.array([0.5, 0.25, 0.25]), np.array(2.0 - 1.0))
near("de", de, [0.5, 0.25, -0.75])

# %% [markdown]
# ## 2
#
# - hint: `np.tile` repeats the scores 20,000 times, as in the lesson; `-np.inf` is a score like any other.
# - hint: The weight of the third location is $\exp(2) / (\exp(0) + \exp(2))$.
#
# A score of minus infinity plus any noise is minus infinity, so it is never the largest. The third location comes with
# probability $1 / (1 + \exp(-2)) = .881$.

# %%
masked = np.tile([0.0, -np.inf, 2.0], (20_000, 1))
often = estimators.draw(masked, np.random.default_rng(5).gumbel(size=masked.shape)).mean(axis=0)
print("how often", often, f" exact {1 / (1 + np.exp(-2)):.4f}")
assert often[1] == 0 and abs(often[2] - 0.881) < 5 * np.sqrt(0.881 * 0.119 / 20_000)

# %% [markdown]
# ## 3
#
# - hint: `np.cumsum(alpha)`, and `argmax` of an array of True and False gives the first True.
# - hint: Plot the reward of your draw over one score, as in the left figure.
#
# The frequencies are the same. As a function of a score, with $u$ fixed, this draw is constant, too, except that it jumps
# where a sum crosses $u$. So its derivative is 0 or does not exist, and it is no better. Any function whose values are
# discrete has this property.


# %%
def draw_by_sum(scores, u):
    return np.eye(len(scores))[(np.cumsum(softmax(scores)) > u).argmax()]


u = np.random.default_rng(6).random(20_000)
often = np.mean([draw_by_sum(e, x) for x in u], axis=0)
print("how often", often, " alpha", alpha)
assert (np.abs(often - alpha) < 5 * np.sqrt(alpha * (1 - alpha) / len(u))).all()
along = np.array([draw_by_sum(np.array([x, e[1], e[2]]), 0.7).argmax() for x in grid])
print("locations along the grid of the figure (0 is the first), u = 0.7:", along[np.r_[True, np.diff(along) != 0]])

# %% [markdown]
# ## 4
#
# - hint: What is $r - b$ in each of the two runs?
# - hint: Compare 0 with the mean reward of the three locations, before and after 15 was subtracted.
#
# Only $r - b$ enters the estimate, and $(r - 15) - (-12) = r - 3$. The mean reward under the first $\alpha$ is 1.3, so
# $b = 0$ is near it; after the subtraction the mean is -13.7, and 0 is far away. A good baseline is near the mean reward.

# %%
same = np.array([learn(np.random.default_rng(k), r, 3) for k in range(20)])
near("20 curves", same, runs[-12], 1e-9)
calm = np.array([learn(np.random.default_rng(k), r, 0) for k in range(20)])
print(f"r and b = 0: mean at the last step {calm[:, -1].mean():.3f}, lowest {calm[:, -1].min():.3f}")
print(f"mean reward {alpha @ r:.1f}, and {alpha @ (r - 15):.1f}")
assert calm[:, -1].min() > 0.9

# %% [markdown]
# ## 5
#
# - hint: `enumeration.walk(world, path)` needs the path as an array (1, T): `path[None]`.
# - hint: `enumeration.path_probabilities(enumeration.walk(world, enumeration.PATHS))` gives all $p(s)$.
#
# The mean over all paths is the exact gradient of $-L_s$: the estimate has no bias.

# %%
p_s = enumeration.path_probabilities(enumeration.walk(world, enumeration.PATHS))
mean = sum(p * enumeration.gradient(enumeration.walk(world, x[None])) for p, x in zip(p_s, enumeration.PATHS, strict=True))
near("mean over 27 paths", mean, enumeration.exact_gradient(world), 1e-12)
