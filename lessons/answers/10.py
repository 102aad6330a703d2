# %% [markdown]
# # Answers to lesson 10

# %% [markdown]
# ## 1
#
# - hint: First the sums over time, then subtract 1.
# - hint: The excess is (1/2, -1/2, -1).
# - hint: The smallest P is $(L - T)^2 / L$.
#
# $P = 1/4 + 1/4 + 1 = 1.5$; the smallest value is $(3 - 2)^2 / 3 = 1/3$; $d\alpha_t = 2 \, \text{excess} = (1, -1, -2)$.

# %%
two = np.array([[[1.0, 0, 0]], [[0.5, 0.5, 0]]])  # (T, N, L)
P, two_cache = doubly_stochastic_forward(two, np.ones((2, 1)))
dtwo = doubly_stochastic_backward(1.0, two_cache)
print("P", P, " dalpha", dtwo[:, 0])
assert P == 1.5 and (dtwo == [1, -1, -2]).all()
near("smallest P", plain_penalty(np.full((2, 1, 3), 1 / 3), np.ones((2, 1)))[0], 1 / 3)

# %% [markdown]
# ## 2
#
# - hint: $de_i = \alpha_i (d\alpha_i - m)$ with $m = \sum_{i} \alpha_i d\alpha_i$.
# - hint: For a one-hot $\alpha$ the mean m is the $d\alpha$ of the one location with weight.
#
# At the location with weight 1, $d\alpha_1 - m = 0$; at the others $\alpha_i = 0$. The softmax is saturated, and a small
# change of the scores does not change the weights.

# %%
_, one_hot = softmax_forward(np.array([[0.0, -np.inf, -np.inf]]))
de = softmax_backward(dtwo[0], one_hot)
print("alpha", one_hot.alpha[0], " de", de[0])
assert not de.any()

# %% [markdown]
# ## 3
#
# - hint: `gate_forward` and `gate_backward` read the kind of the gate from the shape of W.
# - hint: Each $\beta_d$ multiplies one number of the context, so $d\beta_d = dz_d \, \text{context}_d$, without a sum.
#
# The shapes: dpre is (N, D), so $dh = d\text{pre} \, W^{\top}$ is (N, H), dW is (H, D), and db is (D,).

# %%
vector = {"h": h, "context": context, "W": rng.standard_normal((H, D)), "b": rng.standard_normal(D)}
vector_gradients = gate_backward(dz, gate_forward(**vector)[1])
for name, g in zip(vector, vector_gradients, strict=True):
    point = {n: x.astype(complex) for n, x in vector.items()}
    n = numeric_gradient(lambda x, at=point, name=name: (gate_forward(**(at | {name: x}))[0] * dz).sum(), vector[name])
    near(f"d{name} {g.shape}", g, n)

# %% [markdown]
# ## 4
#
# - hint: P has the factor 1/N and a sum over i; the code has the factor 1/L and a sum over n.
#
# Both contain the sum of the squared excess over all n and i. The code multiplies it by 1/L, eq. 14 by 1/N, so a weight of
# $\lambda$ in the code is $\lambda N / L$ in eq. 14.

# %%
authors = (plain_penalty(alphas, mask)[1] ** 2).mean(axis=1).sum()
near("the authors' penalty against N/L times P", authors, N / L * penalty)

# %% [markdown]
# ## 5
#
# - hint: With 30 more, the softmax is one-hot to about 1e-12.
# - hint: $de_i$ has the factor $\alpha_i$, and $d\alpha_i - m$ is 0 at the one location with weight.
#
# All six steps have the weight 1 on location 3, so the sums over time are 6 there and 0 elsewhere, and
# $P = 25 + 11 = 36$. The softmax is saturated: its Jacobian is nearly 0, so the scores do not change.

# %%
stuck = 1.5 * rng.standard_normal((steps, 1, locations))
stuck[:, :, 3] += 30
for _ in range(401):
    alphas_now, cache_now = softmax_forward(stuck)
    value, penalty_cache = doubly_stochastic_forward(alphas_now, ones)
    stuck = stuck - 0.5 * softmax_backward(doubly_stochastic_backward(1.0, penalty_cache), cache_now)
print(f"P after 400 iterations: {value:.6f}")
assert abs(value - 36) < 1e-6
