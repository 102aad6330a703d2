# %% [markdown]
# # Answers to lesson 23

# %% [markdown]
# ## 1
#
# - hint: Only the red circle has a ratio other than 1. With $w = 2$ its $\exp(s)$ is $.6 \cdot .5 \cdot ...$; write all four.
# - hint: The derivative is observed minus expected; the feature is $\log 3$ for the red circle and 0 for the others.
#
# $\exp(s) = (.3, .3, .4 \cdot .5 \cdot 9, .2) = (.3, .3, 1.8, .2)$ and $Z = 2.6$, so $p = 9/13$, and the derivative is
# $(1 - 9/13) \log 3$.

# %%
score = np.log([0.6, 0.4])[:, None] + np.log([0.5, 0.5]) + 2.0 * text
p_tiny = np.exp(score) / np.exp(score).sum()
near("p(red circle)", p_tiny[1, 0], 9 / 13)
near("its derivative", text[1, 0] - (p_tiny * text).sum(), 4 / 13 * np.log(3))
assert round(9 / 13, 3) == 0.692 and round(4 / 13 * np.log(3), 3) == 0.338

# %% [markdown]
# ## 2
#
# - hint: Differentiate $\sum_y p(y) f_k(y)$. Only $p(y)$ depends on $\theta$.
# - hint: $\partial p(y) / \partial \theta_l = p(y) \left( f_l(y) - \mathbb{E}[f_l] \right)$, from the derivative of $\log p(y)$.
#
# The second derivative is $\sum_y p(y) \left( f_l(y) - \mathbb{E}[f_l] \right) f_k(y) = \mathbb{E}[f_k f_l] -
# \mathbb{E}[f_k] \, \mathbb{E}[f_l]$, the covariance. For any vector $u$, $u^\top \mathbf{H} u$ is the variance of
# $\sum_k u_k f_k(y)$, which is never negative: the loss is convex.

# %%
mean = p_all @ phi_all
covariance = (phi_all * p_all[:, None]).T @ phi_all - np.outer(mean, mean)
H = np.stack([gradient(theta + 1e-20j * e, of_test[two], y_two).imag / 1e-20 for e in np.eye(K)], axis=1)
near("the second derivatives", H, covariance)
assert np.linalg.eigvalsh(covariance).min() > -1e-12

# %% [markdown]
# ## 3
#
# - hint: For one node, fix all others at their true values. Each factor of the node becomes a row of features for each value.
# - hint: `phi[(slice(None), ...)]` with `slice(None)` at the node and `y[k]` at the others is (K, values). The sum over the
#   factors of the node, weighted by `theta`, is the score of each value.
# - hint: The gradient of one node is, as in lesson 07, the expected features under its softmax minus those of the true value.
#
# Both have nearly the same weights: here the scores of the detectors decide most nodes alone, and knowing the others changes
# little. Where nodes depend strongly on each other, the two differ.

# %%
def pseudo(theta, phis, y):
    total = 0
    for k in range(len(y)):
        of_node = sum(phi[(slice(None), *(slice(None) if j == k else y[j] for j in nodes))] for nodes, phi in phis if k in nodes)
        scores_of_node = theta @ of_node
        total = total + of_node @ np.exp(scores_of_node - log_sum(scores_of_node)) - of_node[:, y[k]]
    return total


by_pseudo, _ = train_weights(known, pseudo)
print(by_pseudo, shares(describe(by_pseudo))[0], mean_loss(by_pseudo, known), mean_loss(by_pseudo, known_test))

# %% [markdown]
# ## 4
#
# - hint: `right` and `wrong` say for each test scene whether the sentence with and without text potentials is true.
# - hint: A colour of an object is rare if it is not in `FAVOURITES[thing.shape]`.
#
# The text potentials gain in scenes that are as the town mostly is, and lose in the others.

# %%
is_rare = np.array([any(x.colour not in FAVOURITES[x.shape] for x in scene.objects[:2]) for scene in test])
found = [kept[here].mean() for here in (is_rare, ~is_rare) for kept in (right, wrong)]
print(is_rare.sum(), found)

# %% [markdown]
# ## 5

# %%
own, new = elsewhere[:200], make_scenes(1400, "train", 0)[1200:]
results = {}
for name, annotations, scenes in (("own", seen[:200], own), ("new", model.annotate(at_night(new)), new)):
    of_them = known_of(annotations, scenes)
    results[name], _ = train_weights(of_them)
    print(name, len(of_them), results[name], mean_loss(results[name], of_them), mean_loss(results[name], known_test), shares(describe(results[name]))[0])
of_them = known_of(seen[:1200],elsewhere)
# perceptron etc
