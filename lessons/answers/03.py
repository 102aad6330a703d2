# %% [markdown]
# # Answers to lesson 03

# %% [markdown]
# ## 1
#
# - hint: The sides of the output are $(64 + 2 \cdot 2 - 5) / 2 + 1$, rounded down.
# - hint: Each number of the output costs $K^2 C = 75$ multiplications.
# - hint: Backward, `dW` and `dx` are one product each.
#
# The output is (8, 32, 32, 16), and its 131,072 numbers take 75 multiplications each: 9,830,400. `dW` and `dx` take as
# many each, so the backward takes twice as many. The input of the first layer is the photo, which has no parameters behind
# it, so nobody needs its `dx`: that is the half that is left out.

# %%
shape = conv2d_forward(np.zeros((8, 64, 64, 3)), np.zeros((5, 5, 3, 16)), np.zeros(16), 2, 2)[0].shape
count = np.prod(shape) * 5 * 5 * 3
print(shape, f"{count:,} forward, {2 * count:,} backward")
assert shape == (8, 32, 32, 16) and count == 9_830_400

# %% [markdown]
# ## 2
#
# - hint: With K = 1 a window is one cell with its channels.
# - hint: `W[0, 0]` is (3, 4); the rows of `x.reshape(-1, 3)` are the cells.
#
# Every cell is a row, and all rows are multiplied by the same matrix.

# %%
from satnp.layers import affine_forward  # noqa: E402

x, W, b = rng.standard_normal((2, 7, 6, 3)), rng.standard_normal((1, 1, 3, 4)), rng.standard_normal(4)
near("1 x 1", conv2d_forward(x, W, b)[0].reshape(-1, 4), affine_forward(x.reshape(-1, 3), W[0, 0], b)[0], within=1e-15)

# %% [markdown]
# ## 3
#
# - hint: Name the parts: $u = G g$, $v = B^\top d$, $m = u \odot v$, $y = A^\top m$.
# - hint: $y = A^\top m$ gives $dm = A \, dy$.
# - hint: $du = dm \odot v$, and $u = G g$ gives $dg = G^\top du$.
#
# $dg = G^\top [(B^\top d) \odot (A \, dy)]$. The sum itself says $dg_i = \sum_{p} d_{p+i} \, dy_p$: a correlation of $d$
# with $dy$.

# %%
d, dy = rng.standard_normal(4), rng.standard_normal(2)
near("dg", G2.T @ ((B2.T @ d) * (A2 @ dy)), np.correlate(d, dy), within=1e-13)

# %% [markdown]
# ## 4
#
# - hint: With tiles as vectors, the transforms are `np.kron` of the small matrices: O (16, 36), I (36, 36), G (36, 9).
# - hint: For F(2, 3): `np.kron(A2.T, A2.T)` is (4, 16), `np.kron(B2.T, B2.T)` (16, 16), `np.kron(G2, G2)` (16, 9).
# - hint: Compute the same in float64 and take the relative error by norm.
#
# The larger tile loses most of a digit more: its matrices have larger numbers (an 8 and a 1/24) that cancel.

# %%
kron = {"F(4, 3)": (winograd.OUTPUT, winograd.WEIGHTS, winograd.INPUT)}
kron["F(2, 3)"] = tuple(np.kron(m, m) for m in (A2.T, G2, B2.T))
errors = {}
for name, (O, G, I) in kron.items():
    d, g = rng.standard_normal((I.shape[1], 1000)), rng.standard_normal(9)
    exact = O @ ((G @ g)[:, None] * (I @ d))
    O, G, I, d, g = (array.astype(np.float32) for array in (O, G, I, d, g))
    errors[name] = np.linalg.norm(O @ ((G @ g)[:, None] * (I @ d)) - exact) / np.linalg.norm(exact)
    print(f"{name}: {errors[name]:.0e}")
assert 3e-7 < errors["F(4, 3)"] < 3e-6 and 5e-8 < errors["F(2, 3)"] < 3e-7

# %% [markdown]
# ## 5
#
# - hint: For each $(i, j)$, the cells of all windows at this place are the slice `x[:, i : i + P, j : j + Q]`.
# - hint: Forward: `out += cells * W[i, j]`. Which sum gives `dW[i, j]`, and where does `dout * W[i, j]` go?
#
# The forward multiplies two arrays and adds, so each gradient is `dout` times the other array: summed over photos, rows
# and columns for `dW`, and added to the same slice for `dx`.


# %%
def depthwise_forward(x, W):
    P, Q = x.shape[1] - 2, x.shape[2] - 2
    return sum(x[:, i : i + P, j : j + Q] * W[i, j] for i, j in np.ndindex(3, 3)), (x, W)


def depthwise_backward(dout, cache):
    x, W = cache
    (_, P, Q, _), dx, dW = dout.shape, np.zeros_like(x), np.zeros_like(W)
    for i, j in np.ndindex(3, 3):
        dW[i, j] = (x[:, i : i + P, j : j + Q] * dout).sum(axis=(0, 1, 2))
        dx[:, i : i + P, j : j + Q] += dout * W[i, j]
    return dx, dW


def depthwise_inputs(rng):
    return {"x": rng.standard_normal((2, 7, 6, 3)), "W": rng.standard_normal((3, 3, 3))}


result = check_gradients(Case("depthwise", depthwise_inputs, depthwise_forward, depthwise_backward))
print(f"passed {result.passed}, error {result.error:.1e}")
assert result.passed and result.error < 1e-14
