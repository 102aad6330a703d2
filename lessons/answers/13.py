# %% [markdown]
# # Answers to lesson 13

# %% [markdown]
# ## 1
#
# - hint: Insert $\hat{b} = \mathbb{E}[g \cdot K] / \mathbb{E}[K \cdot K]$ into
#   $\mathbb{E} |g|^2 - 2 b \, \mathbb{E}[g \cdot K] + b^2 \, \mathbb{E}[K \cdot K]$.
# - hint: The variance is $\mathbb{E} |g_b|^2$ minus the squared norm of the mean, which is the exact gradient for every $b$.
#
# The two terms with $b$ become $-2x + x$ with $x = (\mathbb{E}[g \cdot K])^2 / \mathbb{E}[K \cdot K]$, so together $-x$. As
# $x$ is not negative, the best baseline never raises the variance.

# %%
square = p @ (g * g).sum(axis=1) - E_gK**2 / E_KK
lowest = (square - size**2) / size**2
print(f"variance at the best b: {lowest:.3f}")
near("against the table's row", lowest, bias_and_variance(g - best * K)[1], 1e-9)
assert round(lowest, 3) == 0.483

# %% [markdown]
# ## 2
#
# - hint: `(paths.scores**2).sum(axis=2)` holds $|K_t|^2$ of each path and step, (27, T).
# - hint: The estimate is `paths.likelihood` plus the sum over $t$ of $(R_t - b_t) K_t$.
#
# $b_t$ is a mean of $R_t$, too, with the weights $p(s) |K_t|^2$ in place of $p(s)$. The two would be equal if $|K_t|^2$ were
# the same for all paths, or independent of $R_t$.

# %%
square = (paths.scores**2).sum(axis=2)
b_t = p @ (to_go * square) / (p @ square)
g_t = paths.likelihood + np.einsum("pt,ptf->pf", to_go - b_t, paths.scores)
bias_t, variance_t = bias_and_variance(g_t)
print("b", b_t, " mean reward to go", p @ to_go, f" bias {bias_t:.1e}, variance {variance_t:.3f}")
assert b_t.round(2).tolist() == [-9.02, -4.66, -2.04] and bias_t < 1e-12 and round(variance_t, 3) == 0.383

# %% [markdown]
# ## 3
#
# - hint: For step $t$, the paths that begin alike are those with the same `PATHS[:, :t]`.
# - hint: If $b_t$ depends on $s_t$ as well, take `PATHS[:, :t + 1]`, and look at
#   $\mathbb{E}[(r - b_t) K_t]$ for paths with the same $s_{\le t}$.
#
# Given $s_{<t}$, the mean of $K_t$ over $s_t$ is 0, so a baseline that depends only on $s_{<t}$ adds no bias. If $b_t$ is
# the mean reward given $s_{\le t}$, then for each beginning $s_{\le t}$ the mean of $r - b_t$ is 0, while $K_t$ is fixed. So
# the whole score part becomes 0 on average: the baseline has subtracted exactly what the choice is responsible for.


# %%
def mean_given(steps):
    """E[r | the first `steps` locations] for each path, (27,)"""
    alike = (PATHS[:, None, :steps] == PATHS[None, :, :steps]).all(axis=2)
    return alike @ (p * r) / (alike @ p)


for more, wanted_bias in ((0, 0.0), (1, 0.327)):
    b_t = np.stack([mean_given(t + more) for t in range(T)], axis=1)
    g_t = paths.likelihood + np.einsum("pt,ptf->pf", r[:, None] - b_t, paths.scores)
    bias_t, variance_t = bias_and_variance(g_t)
    print(f"b_t depends on {'s_<t' if more == 0 else 's_<=t'}: bias {bias_t:.1e}, variance {variance_t:.3f}")
    assert abs(bias_t - wanted_bias) < 1e-3 and (more or (bias_t < 1e-12 and round(variance_t, 3) == 0.426))
near("mean against the path part", p @ g_t, path_part)

# %% [markdown]
# ## 4
#
# - hint: The mean of $S$ independent estimates has $1/S$ of the variance of one.
#
# Neither has a bias, so their errors are equal if $\mathrm{variance}_{\mathrm{plain}} / S = \mathrm{variance}_b$.

# %%
ratio = bias_and_variance(g)[1] / bias_and_variance(g - (p @ r) * K)[1]
print(f"{ratio:.1f} paths")
assert round(ratio, 1) == 43.5

# %% [markdown]
# ## 5
#
# - hint: Multiply both sides by $S$: $v_1 = S \cdot \mathrm{bias}^2 + v_2$.
#
# $S = (v_1 - v_2) / \mathrm{bias}^2 = 3.5$. The coin has the smaller variance, because half of its estimates are not random.
# With four paths or more REINFORCE has the smaller error, because the coin's bias stays.

# %%
bias, variance = np.linalg.norm(coin[0] - exact) / size, coin[1] / size**2
S = (bias_and_variance(g - (p @ r) * K)[1] - variance) / bias**2
print(f"S = {S:.1f}")
assert round(S, 1) == 3.5
