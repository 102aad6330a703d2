# %% [markdown]
# # Answers to lesson 08

# %% [markdown]
# ## 1
#
# - hint: Each key's gradient is $de_i$ times the query.
# - hint: The query's gradient is the sum of $de_i$ times the key.
#
# $d\text{query} = 1 \cdot (1, 2) - 1 \cdot (0, 1) + 2 \cdot (3, -1) = (7, -1)$, and the third key gets
# $2 \cdot (2, 1) = (4, 2)$.

# %%
_, cache = dot_scores_forward(np.array([[[1.0, 2], [0, 1], [3, -1]]]), np.array([[2.0, 1]]))
dkeys, dquery = dot_scores_backward(np.array([[1.0, -1, 2]]), cache)
print("dquery", dquery[0], " third key", dkeys[0, 2])
assert (dquery == [[7, -1]]).all() and (dkeys[0, 2] == [4, 2]).all()

# %% [markdown]
# ## 2
#
# - hint: $(\text{key}_i + b) \cdot \text{query}$ is a sum of two terms. Which of them depends on i?
# - hint: $db$ is the sum of the keys' gradients over all locations and photos.
#
# $b \cdot \text{query}$ is the same for all locations of a photo, so it cancels in the softmax. In the formula:
# $db = \sum_{i} de_i \, \text{query}$, and behind a softmax $\sum_{i} de_i = 0$. In the additive score b is inside the tanh,
# so it changes each score by a different amount.

# %%
b = rng.standard_normal(A)
dot_e, dot_cache = dot_scores_forward(keys + b, query)
additive_e, additive_cache = additive_scores_forward(keys + b, query, v, c)
upstream = rng.standard_normal((N, L))
db_dot = dot_scores_backward(softmax_backward(upstream, softmax_forward(dot_e)[1]), dot_cache)[0].sum(axis=(0, 1))
de_additive = softmax_backward(upstream, softmax_forward(additive_e)[1])
db_additive = additive_scores_backward(de_additive, additive_cache)[0].sum(axis=(0, 1))
print(f"largest |db|: dot {abs(db_dot).max():.0e}, additive {abs(db_additive).max():.0e}")
assert abs(db_dot).max() < 1e-12 < 1e-3 < abs(db_additive).max()

# %% [markdown]
# ## 3
#
# - hint: Two units make a bump along one axis, as in the lesson. Use two units for each axis.
# - hint: The score of the centre is then the sum of two bumps; that of each corner is near 0.
# - hint: For 0.2: the score of the centre is the mean of the four scores of the corners.
#
# With the corners at 1 and -1, $W_a$ with the rows (4, 4, 0, 0) and (0, 0, 4, 4), the query (1, -1, 1, -1) and
# v = 3 (1, -1, 1, -1), the centre gets more than .999 of the weight. A dot score of the centre is the mean of those of the
# corners. The exponential function is convex, so the exponential of a mean is at most the mean of the exponentials. So the
# weight of the centre is at most a quarter of the sum of the corners' weights, that is, at most one fifth of the sum of all
# five.

# %%
square = np.array([[[1.0, 1], [1, -1], [-1, 1], [-1, -1], [0, 0]]])
W_square = np.array([[4.0, 4, 0, 0], [0, 0, 4, 4]])
sign = np.array([1.0, -1, 1, -1])
centre = softmax(additive(square @ W_square, sign[None], 3 * sign, np.zeros(1)))[0, 4]
by_dot = max(softmax(dot(square, q[None]))[0, 4] for q in 3 * rng.standard_normal((2000, 2)))
at_zero = softmax(dot(square, np.zeros((1, 2))))[0, 4]
print(f"additive {centre:.3f}, best of 2000 dot scores {by_dot:.3f}, dot with the query 0 {at_zero:.3f}")
assert centre > 0.999 and by_dot <= 0.2 + 1e-12

# %% [markdown]
# ## 4
#
# - hint: $1 - \tanh^2 x$ is near $4 \exp(-2x)$ for large x.
# - hint: Solve $1 - \tanh^2 x = y$ for x: $x = \operatorname{artanh} \sqrt{1 - y}$.
#
# x = 3.0 and 7.6. So $|\text{key} + \text{query}|$ should be below about 3 for most units, if all of them are to learn.

# %%
ends = np.arctanh(np.sqrt(1 - np.array([1e-2, 1e-6])))
print("x", ends)
assert (ends.round(1) == [3.0, 7.6]).all()

# %% [markdown]
# ## 5
#
# - hint: `dot_scores_backward` gives the gradients of the keys and of h.
# - hint: The keys are $a W_a$: `da = dkeys @ W_a.T`. For $dW_a$ every location of every photo is one row.
#
# It is the drawing of the general score, read from below.


# %%
def general_forward(a, W_a, h):
    e, dot_cache = dot_scores_forward(a @ W_a, h)
    return e, (a, W_a, dot_cache)


def general_backward(de, cache):
    a, W_a, dot_cache = cache
    dkeys, dh = dot_scores_backward(de, dot_cache)
    return dkeys @ W_a.T, np.einsum("nld,nlh->dh", a, dkeys), dh


general = {"a": a, "W_a": rng.standard_normal((D, H)), "h": h}
for name, g in zip(general, general_backward(de, general_forward(**general)[1]), strict=True):
    point = {n: x.astype(complex) for n, x in general.items()}
    n = numeric_gradient(lambda x, at=point, name=name: (general_forward(**(at | {name: x}))[0] * de).sum(), general[name])
    near(f"d{name}", g, n)
