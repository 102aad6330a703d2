# %% [markdown]
# # Answers to lesson 09

# %% [markdown]
# ## 1
#
# - hint: First the weighted mean m of $d\alpha$.
# - hint: $m = 0.5 \cdot 1 + 0.25 \cdot 3 + 0.25 \cdot 7 = 3$.
#
# $de = (0.5 \cdot (1 - 3), 0.25 \cdot (3 - 3), 0.25 \cdot (7 - 3)) = (-1, 0, 1)$. The second element is 0 because
# $d\alpha_2$ equals the mean.

# %%
de = plain_softmax_backward(np.array([[1.0, 3, 7]]), np.array([[0.5, 0.25, 0.25]]))
print("de", de[0])
assert (de == [[-1, 0, 1]]).all()

# %% [markdown]
# ## 2
#
# - hint: `J` as in the lesson, with the softmax of s times e.
# - hint: If one weight is nearly 1, all products $\alpha_i \alpha_k$ and $\alpha_k (1 - \alpha_k)$ are nearly 0.
#
# The gradient of the scores is $d\alpha$ times J, so with J near 0 attention hardly changes any more, even if the one
# location is the wrong one.

# %%
largest = []
for s in (1, 5, 20):
    p = softmax(s * np.array([[1.0, 0.0, -1.0, 0.5, 2.0, 0.2]]))[0]
    largest.append(np.abs(np.diag(p) - np.outer(p, p)).max())
print("largest element of J", *(f"{x:.4g}" for x in largest))
assert round(largest[0], 4) == 0.2498 and round(largest[1], 4) == 0.0074 and f"{largest[2]:.0e}" == "2e-09"

# %% [markdown]
# ## 3
#
# - hint: $\exp(-\infty) = 0$, and the largest score of the row is still finite.
# - hint: $de_i$ has the factor $\alpha_i$.
#
# alpha[:, 3] is $\exp(-\infty) / S = 0$, so dscores[:, 3] = 0 times a finite number. The other weights sum to 1 without it.

# %%
masked = scores.copy()
masked[:, 3] = -np.inf
alpha_masked, masked_cache = softmax_forward(masked)
dalpha_masked, da_masked = context_backward(dcontext, context_forward(alpha_masked, annotations)[1])
de_masked = softmax_backward(dalpha_masked, masked_cache)
print("alpha  ", alpha_masked[0], "\ndscores", de_masked[0])
assert not alpha_masked[:, 3].any() and not de_masked[:, 3].any()
assert all(np.isfinite(x).all() for x in (alpha_masked, dalpha_masked, da_masked, de_masked))

# %% [markdown]
# ## 4
#
# - hint: Forward: keys, scores `dot(keys, h)`, softmax, `mix`.
# - hint: Backward: `dot` and `outer` for the context, `plain_softmax_backward`, then `outer(de, h)` and `mix(de, keys)`.
# - hint: da is the sum of `outer(alpha, dcontext)` and of what comes back through the keys.
#
# The softmax and the context do not change. In place of the tanh there is one product, whose two gradients are given.


# %%
def general_forward(h, annotations, W_a):
    keys = annotations @ W_a
    alpha = softmax(dot(keys, h))
    return mix(alpha, annotations), (h, annotations, W_a, keys, alpha)


def general_backward(dcontext, cache):
    h, annotations, W_a, keys, alpha = cache
    de = plain_softmax_backward(dot(annotations, dcontext), alpha)
    dkeys, dh = outer(de, h), mix(de, keys)
    return dh, outer(alpha, dcontext) + dkeys @ W_a.T, np.einsum("nld,nlh->dh", annotations, dkeys)


general = {"h": inputs["h"], "annotations": annotations, "W_a": rng.standard_normal((D, H))}
for name, g in zip(general, general_backward(dcontext, general_forward(**general)[1]), strict=True):
    point = {n: x.astype(complex) for n, x in general.items()}
    loss = lambda x, at=point, name=name: (general_forward(**(at | {name: x}))[0] * dcontext).sum()  # noqa: E731
    near(f"d{name}", g, numeric_gradient(loss, general[name]))

# %% [markdown]
# ## 5
#
# - hint: $da_{id} = \alpha_i \, d\text{context}_d$. What is it if $d\text{context}_d = 1$?
#
# The loss is the sum of the context, $\sum_{i} \alpha_i \sum_{d} a_{id}$. A change of one $a_{id}$ changes it by $\alpha_i$
# times as much. Equal sums over d make all $d\alpha_i$ equal, so only the gradient of the scores is 0.

# %%
alpha_same, same_cache = softmax_forward(scores)
dalpha, da = context_backward(np.ones((N, D)), context_forward(alpha_same, same_sum)[1])
print("largest dscores", f"{np.abs(softmax_backward(dalpha, same_cache)).max():.0e}", " da of the first location", da[0, 0])
assert np.abs(softmax_backward(dalpha, same_cache)).max() < 1e-12
near("da_id against alpha_i", da, np.repeat(alpha_same[:, :, None], D, axis=2))
