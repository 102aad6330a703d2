# %% [markdown]
# # Answers to lesson 02

# %% [markdown]
# ## 1
#
# - hint: The formulas are in the row of the one-sided difference, in the table with the slopes.
# - hint: $\epsilon$ is that of float32, `np.finfo(np.float32).eps`.
#
# $h = 4.9 \cdot 10^{-4}$, with an error of up to $4.9 \cdot 10^{-4}$. That is a bound: the rounding errors of the two
# values happen to be smaller here.

# %%
eps = np.finfo(np.float32).eps
h = (2 * float(eps)) ** 0.5
at = np.float32(0.7)
found = one_sided(np.exp, at, np.float32(4.9e-4))
error = abs(float(found) / np.exp(float(at)) - 1)
print(f"best h {h:.1e}, error {error:.1e}")
near("h", h, 4.9e-4, within=0.01)
assert error < 4.9e-4
near("the error", error, 7.7e-5, within=0.05)
figure = Figure(figsize=(6, 3))
figure.subplots().loglog(hs, errors_of(one_sided, np.float32), ".-")

# %% [markdown]
# ## 2
#
# - hint: Which of the operations is not analytic?
# - hint: `np.where(s > 0, s, -s)` with `s = np.sin(x)`.
#
# `abs` of a complex number is its length, which is real, so the imaginary part and with it the derivative are lost.
# `where` chooses by the real part and keeps the number.


# %%
def f(x):
    s = np.sin(x)
    return np.sqrt(np.where(s > 0, s, -s))


wrong = complex_step(lambda x: np.sqrt(np.abs(np.sin(x))), 4.0)
print(f"with abs {wrong:.6f}, with where {complex_step(f, 4.0):.6f}, central {central(f, 4.0, 6.9e-6):.6f}")
near("f'(4)", complex_step(f, 4.0), 0.375681, within=2e-6)
assert wrong == 0

# %% [markdown]
# ## 3
#
# - hint: The difference is neither 0 nor 1 where the kink is between $z - h$ and $z + h$, that is, for $|z| < h$.
# - hint: The probability of $|z| < h$ is the density at 0 times $2h$.
#
# $0.4 \cdot 2 \cdot 10^{-3} \cdot 100000 = 80$ are expected, and 75 were drawn. In a network with 100,000 ReLUs, a central
# difference with this $h$ steps across about as many kinks.

# %%
z = np.random.default_rng(0).standard_normal(100_000)
found = central(relu, z, 1e-3)
count = int(((np.abs(found) > 1e-6) & (np.abs(found - 1) > 1e-6)).sum())
print(f"expected {0.4 * 2e-3 * len(z):.0f}, found {count}")
assert count == 75

# %% [markdown]
# ## 4
#
# - hint: Solve the real part of Taylor's series, $f - \frac{h^2}{2} f'' + \ldots$, for $f''$.
# - hint: Here two nearly equal numbers are subtracted. What happens for a small $h$?
# - hint: Compute the relative error for $h = 10^{-1}, 10^{-2}, \ldots, 10^{-8}$.
#
# It does lose digits: $f(x) - \operatorname{Re} f(x + ih)$ is a difference of nearby numbers, with a rounding error of
# about $\epsilon |f| / h^2$ in the result. The other error is about $h^2 / 12$. For exp both are small at $h = 10^{-4}$.

# %%
powers = 10.0 ** np.arange(-1, -9, -1)
errors = [abs(2 * (np.exp(0.7) - np.exp(0.7 + 1j * h).real) / h**2 / np.exp(0.7) - 1) for h in powers]
for h, error in zip(powers, errors, strict=True):
    print(f"h {h:.0e}: off by {error:.1e}")
assert powers[np.argmin(errors)] == 1e-4 and min(errors) < 1e-8

# %% [markdown]
# ## 5
#
# - hint: The first use is the numerator: $d\mathrm{out}_j / r$.
# - hint: The gradient of $r$ collects from all outputs of the row: $dr = -\sum_{k} d\mathrm{out}_k x_k / r^2$.
# - hint: Multiply $dr$ by $\partial r / \partial x_j$ and add both.
#
# The sum over $k$ is there because $r$ divides all five numbers of the row. Without the 5 the second term is five times
# too large; the first is right, so no factor explains the difference, and the kind is "term".


# %%
def scale_forward(x):
    r = np.sqrt((x * x).mean(axis=1, keepdims=True) + 0.01)
    return x / r, (x, r)


def scale_backward(dout, cache, width=5):
    x, r = cache
    return dout / r - x * (dout * x).sum(axis=1, keepdims=True) / (width * r**3)


scale = Case("scale", lambda rng: {"x": rng.standard_normal((3, 5))}, scale_forward, scale_backward)
result = check_gradients(scale)
print(f"passed {result.passed}, error {result.error:.1e}")
assert result.passed and result.error < 1e-14
(finding,) = check_gradients(replace(scale, backward=lambda dout, cache: scale_backward(dout, cache, 1))).findings
print(finding.kind, "-", finding.sentence)
assert finding.kind == "term"
