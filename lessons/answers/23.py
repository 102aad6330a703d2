# %% [markdown]
# # Answers to lesson 23

# %% [markdown]
# ## 1
#
# - hint: Only the red circle has a ratio other than 1. With $w = 2$ its $\exp(s)$ has the factor $3^2$.
# - hint: The derivative is observed minus expected. The feature is $\log 3$ for the red circle and 0 for the others.
#
# $\exp(s)$ is .3, .3, .2 and, for the red circle, $.4 \cdot .5 \cdot 9 = 1.8$. So $Z = 2.6$, $p = 9/13$, and the derivative
# is $(1 - 9/13) \log 3$.

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
# - hint: $\partial p(y) / \partial \theta_l = p(y) \left( f_l(y) - \mathbb{E}[f_l] \right)$, from the derivative of
#   $\log p(y)$.
#
# The second derivative is $\sum_y p(y) \left( f_l(y) - \mathbb{E}[f_l] \right) f_k(y)$, which is
# $\mathbb{E}[f_k f_l] - \mathbb{E}[f_k] \, \mathbb{E}[f_l]$, the covariance. For any vector $u$, $u^\top \mathbf{H} u$ is
# the variance of $\sum_k u_k f_k(y)$, which is never negative. So $\log Z$ is convex, and the other term of the loss is
# linear.

# %%
mean = p_all @ phi_all
covariance = (phi_all * p_all[:, None]).T @ phi_all - np.outer(mean, mean)
H = np.stack([gradient(theta + 1e-20j * e, of_test[two], y_two).imag / 1e-20 for e in np.eye(K)], axis=1)
near("the second derivatives", H, covariance)
print("eigenvalues", np.linalg.eigvalsh(covariance))
assert np.linalg.eigvalsh(covariance).min() > 0

# %% [markdown]
# ## 3
#
# - hint: For one node, fix all other nodes at their true values. `phi[(slice(None), ...)]`, with `slice(None)` for the node
#   and `y[k]` for the others, is (K, values of the node).
# - hint: The sum of these over the factors of the node is the features of each of its values. Its product with `theta` is
#   the score of each value.
# - hint: The gradient of one node is, as in lesson 07, the expected features under its softmax minus those of the true
#   value.
#
# In the pseudo-likelihood each node is predicted with the true values of the others given; in the likelihood all nodes are
# predicted together. The two are the same if, given the photo, the nodes are independent. The vectors of weights differ by
# 2 % (most in $\theta_4$, .33 in place of .39), so here the nodes depend little on each other.

# %%
def pseudo(theta, phis, y):
    total = 0
    for k in range(len(y)):
        f = sum(phi[(slice(None), *(slice(None) if j == k else y[j] for j in nodes))] for nodes, phi in phis if k in nodes)
        total = total + f @ np.exp(theta @ f - log_sum(theta @ f)) - f[:, y[k]]
    return total


by_pseudo = train_weights(known, pseudo)
print(f"theta {by_pseudo}, true {share(describe(by_pseudo)):.3f}")
near("theta against that of the likelihood", by_pseudo, learned, 0.1)

# %% [markdown]
# ## 4
#
# - hint: `right` and `wrong` say for each test scene whether the sentence with and without text potentials is true.
# - hint: A colour of an object is rare if it is not in `FAVOURITES[x.shape]`.
#
# The text potentials gain in scenes that are as the town mostly is, and lose a little in the others.

# %%
is_rare = np.array([any(x.colour not in FAVOURITES[x.shape] for x in scene.objects[:2]) for scene in test])
of_rare, of_others = ([round(float(kept[here].mean()), 3) for kept in (right, wrong)] for here in (is_rare, ~is_rare))
print(f"{is_rare.sum()} rare: with and without text potentials {of_rare}; others: {of_others}")
assert of_rare[0] < of_rare[1] and of_others[0] > of_others[1]

# %% [markdown]
# ## 5
#
# - hint: `known_of` and `train_weights` do the work. The own photos are `seen[:200]` of `elsewhere[:200]`; new scenes are
#   `make_scenes(1400, "train", 0)[1200:]`, at night.
# - hint: How certain is a detector of photos that it was trained with? And are shapes and colours of scenes from elsewhere
#   related as they are in the town?
#
# The detector was fitted to its own photos, so there its probabilities are better than on new ones, and get a larger weight.
# Both sets are from elsewhere, where shapes and colours are independent. There the counts of the town are no help, so
# $\theta_2$ is near 0. Weights must be trained with photos like those that they are used for, and that the detector has not
# seen.

# %%
new = make_scenes(1400, "train", 0)[1200:]
for name, annotations, scenes in (("own", seen[:200], elsewhere[:200]), ("new", model.annotate(at_night(new)), new)):
    mine = train_weights(known_of(annotations, scenes))
    true = share(describe(mine))
    print(name, mine, f"true {true:.3f}")
    assert abs(mine[2]) < 0.3 and true < share(with_text)

# %% [markdown]
# ## 6
#
# - hint: The factors $G$ come after the N factors $F$ in the list: `observed(phis[N:], y)` is their part of the observed
#   features, with the factor.
# - hint: Without the factor this part is $(N - 1) / 2$ times as large.
#
# For three boxes the factor is 1, so a gradient check with three boxes alone does not find the mistake; with two boxes it
# does. In training, $\theta_3$ becomes much too large, and after step 10 the loss no longer falls, although the computed
# gradient is followed downhill. The sentences do not show it. So check a gradient with inputs of several sizes, and look at
# the loss itself.

# %%
def unscaled(theta, phis, y):
    N = count_boxes(phis)
    return gradient(theta, phis, y) - ((N - 1) / 2 - 1) * observed(phis[N:], y)


for photo in ((of_test[two], y_two), three):
    print(count_boxes(photo[0]), "boxes, right", gradient(learned, *photo), "\n         wrong", unscaled(learned, *photo))
near("three boxes", unscaled(learned, *three), gradient(learned, *three))
mine, losses = theta, {}
for step in range(51):
    losses[step] = mean_loss(mine, known) if step in (10, 50) else None
    if losses[step]:
        print(f"step {step}: theta {mine}, -log p {losses[step]:.3f}, true {share(describe(mine)):.3f}")
    mine = mine - 0.1 * np.mean([unscaled(mine, *photo) for photo in known], axis=0)
assert losses[50] > losses[10] - 0.01 and mine[3] > 2 * learned[3]
