# %% [markdown]
# # Answers to lesson 01

# %% [markdown]
# ## 1
#
# - hint: Name the steps: $s = w x$, $e = \exp(s)$, $\mathrm{loss} = \log(1 + e)$.
# - hint: The slope of the logarithm is $1 / (1 + e)$, that of exp is $e$.
# - hint: $de = 1 / (1 + e)$ and $ds = de \cdot e$.
#
# $dw = x \, e / (1 + e)$ with $e = \exp(1)$, which is $0.5 \cdot 0.731059$. The factor $e / (1 + e)$ is the sigmoid of
# $w x$.

# %%
e = np.exp(2 * 0.5)
dw = 0.5 * e / (1 + e)
print(f"dw {dw:.6f}, pushing {slope(lambda w: np.log(1 + np.exp(w * 0.5)), 2.0):.6f}")
near("dw", dw, 0.365529, within=1e-5)

# %% [markdown]
# ## 2
#
# - hint: Write one element: $\mathrm{out}_{nd} = \beta_n x_{nd}$.
# - hint: $\beta_n$ is used for all $d$. How do the gradients of several uses combine?
# - hint: `sum(axis=1, keepdims=True)` keeps the shape (N, 1).
#
# $d\beta_n = \sum_{d} d\mathrm{out}_{nd} \, x_{nd}$, a sum over the axis along which $\beta$ was broadcast, and
# $dx_{nd} = d\mathrm{out}_{nd} \, \beta_n$. With `dout` of ones, `dbeta` is the sum of each row of `x`.

# %%
beta, dout = np.array([[1.0], [2.0], [3.0]]), np.ones((3, 4))
dbeta, dx = (dout * x).sum(axis=1, keepdims=True), dout * beta
near("dbeta", dbeta, [[0.738948], [2.077007], [-2.551105]], within=1e-6)
near("dbeta against the forward", dbeta, numeric_gradient(lambda b: (b * x * dout).sum(), beta))
near("dx against the forward", dx, numeric_gradient(lambda x: (beta * x * dout).sum(), x))

# %% [markdown]
# ## 3
#
# - hint: Give the two uses names: $h = \tanh(x W)$ and $\mathrm{out} = h V$ with $V = W^\top$.
# - hint: The second use gives $dV = h^\top d\mathrm{out}$. What is the gradient of $W$ if $V = W^\top$?
# - hint: The first use is the chain of the lesson: $dh = d\mathrm{out} \, V^\top$, then tanh, then $x^\top ds$.
#
# $dW = x^\top \left[ (d\mathrm{out} \, W) \odot (1 - h^2) \right] + d\mathrm{out}^\top h$: the sum of the gradients of
# both uses. The transpose of a matrix has the transpose of the gradient.

# %%
W, dout = rng.standard_normal((4, 5)), rng.standard_normal((3, 4))
h = np.tanh(x @ W)
first, second = x.T @ ((dout @ W) * (1 - h * h)), dout.T @ h
number = numeric_gradient(lambda W: ((np.tanh(x @ W) @ W.T) * dout).sum(), W)
near("dW of both uses", first + second, number, within=1e-14)
alone = [np.linalg.norm(part - number) / np.linalg.norm(number) for part in (first, second)]
print("one use alone is off by", *(f"{error:.2f}" for error in alone))
assert min(alone) > 0.1

# %% [markdown]
# ## 4
#
# - hint: $W_{da}$ is used for every photo and every location.
# - hint: $dW_{da} = \sum_{n,l} a_{nld} \, d\mathrm{out}_{nla}$. Which two axes are summed?
# - hint: A reshape turns these two axes into one; then it is a product of two matrices.
#
# A location is another example with the same weights. `reshape` puts the locations of all photos under each other, and the
# product sums over all of these rows.

# %%
a, dout = rng.standard_normal((2, 6, 4)), rng.standard_normal((2, 6, 3))
dW = a.reshape(-1, 4).T @ dout.reshape(-1, 3)
near("dW", dW, np.einsum("nld,nla->da", a, dout), within=1e-14)

# %% [markdown]
# ## 5
#
# - hint: The product of an $(a, b)$ and a $(b, c)$ matrix takes $a b c$ multiplications.
# - hint: `dW = x.T @ dout` is (D, N) times (N, H), `dx = dout @ W.T` is (N, H) times (H, D).
#
# Each of the two products of the backward takes $N D H$ multiplications, so the backward costs two forwards, and a
# training step, forward and backward, costs three.

# %%
N, D, H = 3, 4, 5
print("backward / forward:", (D * N * H + N * H * D) / (N * D * H))
assert D * N * H + N * H * D == 2 * N * D * H
