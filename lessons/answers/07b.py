# %% [markdown]
# # Answers to lesson 07b

# %% [markdown]
# ## 1
#
# - hint: Put $d\alpha_i = c$, the same for all $i$ of a row, into the formula. What is $\sum_{k} \alpha_k \, c$?
# - hint: The weights of a row sum to 1.
#
# The sum is $c$, so the right gradient is $\alpha_i (c - c) = 0$ for every row. A is 0, B is 7 times 0, and the plain mean
# of a constant is $c$ too, so C is 0: all three pass. D is $c \, \alpha_i$, which is not 0.

# %%
dalpha = np.repeat([[2.0], [-1.0], [7.0]], 5, axis=1)
alpha, cache = softmax_forward(scores)
number = numeric_gradient(lambda e: (softmax_forward(e)[0] * dalpha).sum(), scores)
worst = {name: np.abs(backward(dalpha, cache) - number).max() for name, backward in wrong.items()}
print(*(f"{name}: {error:.0e}" for name, error in worst.items()), sep="\n")
assert max(worst[name] for name in ("A zeros", "B 7 times", "C plain mean")) < 1e-14 < worst["D sum forgotten"]

# %% [markdown]
# ## 2
#
# - hint: What is the derivative of $\mathrm{out}_n$ by $x_{nt}$? It has the mask in it twice.
# - hint: `dout` is (2, 3) and `dx` (2, 4, 3), so `dout` needs a new axis, and so does the mask: `m[:, :, None]`.
# - hint: The mask has no gradient: it belongs to the `constants` of the `Case`.
#
# $x_{nt}$ has slope $m_{nt} / \sum_{t} m_{nt}$ in $\mathrm{out}_n$, so $dx_{nt}$ is this times $d\mathrm{out}_n$.
# With a mask of ones the number of words that count is 4, so dividing by 4 is right. With the mask above the rows have 2
# and 3 words, and the wrong gradient is too small by the factors 1/2 and 3/4.


# %%
def mean_forward(x, m):
    return (m[:, :, None] * x).sum(axis=1) / m.sum(axis=1, keepdims=True), m


def mean_backward(dout, m):
    return dout[:, None] * (m / m.sum(axis=1, keepdims=True))[:, :, None]


def by_all(dout, m):
    return dout[:, None] * (m / m.shape[1])[:, :, None]


x, masked = rng.standard_normal((2, 4, 3)), np.array([[1.0, 1, 0, 0], [1, 1, 1, 0]])
for name, m in (("ones", np.ones((2, 4))), ("masked", masked)):
    yours, theirs = (
        check_gradients(Case("mean", lambda _, m=m: {"x": x, "m": m}, mean_forward, backward, ("m",)))
        for backward in (mean_backward, by_all)
    )
    print(f"{name:7} right one: {yours.error:.0e}, divided by 4: passed {theirs.passed}, error {theirs.error:.2f}")
    assert yours.error < 1e-14 and theirs.passed == (name == "ones")

# %% [markdown]
# ## 3
#
# - hint: Through which of $h$ and $c$ does each gate reach the loss?
# - hint: $c = f c_{t-1} + i g$ and $h = o \tanh(c)$.
#
# The output gate: $o$ is used for $h$ alone. With $dh = 0$ its right gradient is 0, so a backward that always returns 0
# there passes. The gates $i$, $f$ and $g$ are used for $c$, and the check sees them.

# %%
gates, c_prev, dc = rng.standard_normal((N, 4 * H)), rng.standard_normal((N, H)), rng.standard_normal((N, H))
(_, c), cache = lstm_cell_forward(gates, c_prev)
number = numeric_gradient(lambda g: (lstm_cell_forward(g, c_prev)[0][1] * dc).sum(), gates)
error = {}
for k, name in enumerate("ifog"):
    dgates, _ = lstm_cell_backward((np.zeros((N, H)), dc), cache)
    dgates[:, k * H : (k + 1) * H] = 0
    error[name] = np.abs(dgates - number).max()
    print(f"d{name} = 0: largest error {error[name]:.0e}")
assert error["o"] < 1e-14 < min(error["i"], error["f"], error["g"])

# %% [markdown]
# ## 4
#
# - hint: `measures(g, n)` prints all three.
# - hint: The norm of `n` is 3, and the difference is one number, $10^{-9}$.
#
# The elementwise measure says 0.5: one element is twice as large. `allclose` accepts it, because the difference is below
# its absolute part of $10^{-8}$. The norm of the difference is $10^{-9} / 3$ of the whole, which is above $10^{-10}$, so
# `diagnose` has a finding. With $10^{-10}$ the error is below the limit. A limit is needed because of rounding, and a
# mistake that is smaller than the limit passes.

# %%
from satnp.proof.gradcheck import diagnose  # noqa: E402

n = np.ones(10)
for small, found in ((1e-9, True), (1e-10, False)):
    n[3] = small
    g = n.copy()
    g[3] *= 2
    print(f"{small:.0e}:", measures(g, n), "-> a finding:", diagnose("g", g, n) is not None)
    assert (diagnose("g", g, n) is not None) == found

# %% [markdown]
# ## 5
#
# - hint: The wrong one is the right one divided by the number of rows of `x`.
# - hint: `bugs.check(bug)` returns a result with `findings`.
#
# It is a multiple of the right gradient, by 1/3. The case has 3 examples, and `diagnose` looks for a size that explains
# the factor: it names the first axis of `x`.

# %%
from satnp.layers import affine_backward  # noqa: E402

bug = bugs.Bug("dW a mean", affine_backward, "x.T @ dout", "x.T @ dout / len(x)", case="layers/affine", kinds=None)
(finding,) = bugs.check(bug).findings
print(finding.kind, "-", finding.sentence)
assert finding.kind == "factor" and "0.333333" in finding.sentence and "first axis of x" in finding.sentence
