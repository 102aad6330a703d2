# %% [markdown]
# # Answers to lesson 07

# %% [markdown]
# ## 1
#
# - hint: $\exp(0) + \exp(1) + \exp(2) = 11.1073$.
# - hint: The loss is $\log 11.1073 - 0$. The gradient is p, minus 1 at the right word.
#
# $p = (1, 2.7183, 7.3891) / 11.1073 = (0.0900, 0.2447, 0.6652)$, and $-\log 0.0900 = 2.4076$.

# %%
loss1, entropy = cross_entropy_forward(np.array([[0.0, 1, 2]]), np.array([0]), np.ones(1))
dz = cross_entropy_backward(1.0, entropy)[0]
print(f"{loss1:.4f} nats, dz {dz}")
assert round(loss1, 4) == 2.4076 and (dz.round(4) == [-0.9100, 0.2447, 0.6652]).all()

# %% [markdown]
# ## 2
#
# - hint: With equal logits every word has the probability 1/V.
#
# $\exp(\log V) = V = 13$.

# %%
perplexity = np.exp(uniform * len(mask) / mask.sum())
near("perplexity", perplexity, V, within=1e-14)

# %% [markdown]
# ## 3
#
# - hint: `np.bincount(captions[:, 1:][mask > 0], minlength=V)` counts the targets.
# - hint: With W = 0 the logits are b at every position, and the softmax of the logarithm of counts is the share of each
#   word.
#
# The model predicts each word with the share $q_k$ that it has among the targets, so the mean loss is
# $-\sum_{k} q_k \log q_k$, the entropy of the counts, up to the added 0.01. That is the best that a model without any input
# can do.

# %%
counts = np.bincount(captions[:, 1:][mask > 0], minlength=V)
by_count = loss_and_gradients(captions, mask, E, 0 * W, np.log(counts + 0.01))[0] * len(mask) / mask.sum()
q = counts[counts > 0] / counts.sum()
print(f"{by_count:.3f} nats a word, from {np.log(V):.3f}; entropy {-(q * np.log(q)).sum():.3f}")
assert round(by_count, 3) == 2.127 and round(np.log(V), 3) == 2.565

# %% [markdown]
# ## 4
#
# - hint: The loss is $-\sum_{k} q_k \log p_k$ with the target q.
# - hint: $-\log p_k = \log \sum_{j} \exp(z_j) - z_k$. Multiply by $q_k$ and sum over k; q sums to 1.
#
# The loss is $\log \sum_{j} \exp(z_j) - \sum_{k} q_k z_k$, so $dz = p - q$. Both p and q sum to 1, so $dz$ sums to 0.

# %%
z = rng.standard_normal((5, V))
q = 0.9 * np.eye(V)[rng.integers(V, size=5)] + 0.1 / V
dz = np.exp(log_softmax(z)) - q
near("dz of label smoothing", dz, numeric_gradient(lambda z: -(q * log_softmax(z)).sum(), z), within=1e-12)
print("sum of dz over the vocabulary, largest:", abs(dz.sum(axis=1)).max())
assert abs(dz.sum(axis=1)).max() < 1e-14

# %% [markdown]
# ## 5
#
# - hint: $x E^{\top}$ is an affine map with $W = E^{\top}$, so `affine_backward` gives the gradient of $E^{\top}$.
# - hint: $dE$ is the sum of the transpose of that and of what `embedding_backward` returns.
#
# No row of $dE$ is zero: the softmax gives every word some probability, so every row gets a gradient from the logits, even
# the rows of words that do not occur.


# %%
def tied(E):
    """-> loss, dE"""
    x, looked_up = embedding_forward(given, E)
    logits, affine = affine_forward(x, E.T, 0)
    loss, entropy = cross_entropy_forward(logits, wanted, weights)
    dx, dE_T, _ = affine_backward(cross_entropy_backward(1.0, entropy), affine)
    return loss, dE_T.T + embedding_backward(dx, looked_up)


dE = tied(E)[1]
near("dE of tied tables", dE, numeric_gradient(lambda E: tied(E)[0], E), within=1e-12)
print("rows of dE that are zero:", (dE == 0).all(axis=1).sum())
assert not (dE == 0).all(axis=1).any()
