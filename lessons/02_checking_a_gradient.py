# %% [markdown]
# # 02 Checking a gradient
#
# - time: 45 minutes
# - cpu: 10 seconds
# - before: 01
# - equations: none of the paper's; Squire & Trapp 1998 for the complex step
# - about: satnp.proof.gradcheck.numeric_gradient
#
# A backward pass written by hand is wrong until it is shown to be right, and a wrong one often still trains, only worse.
# So we need a numerical gradient: one that is computed from the forward pass alone, to compare with the result of the
# backward. This lesson computes it by differences, shows why these lose digits, and ends with a method that is exact to
# fifteen digits and a check that names the mistake in words. Lesson 07b looks for the mistakes that a check can miss.
#
# As in lesson 01, $dx$ is the gradient of the loss by $x$.

# %% [markdown]
# ## Predict
#
# A derivative is a limit: $(f(x + h) - f(x)) / h$ for smaller and smaller $h$. Take $f = \exp$ at $x = 0.7$. It is its own
# derivative, so we know the answer to the last digit. There are two candidates:
#
# | difference | formula |
# |---|---|
# | one-sided | $\frac{f(x + h) - f(x)}{h}$ |
# | central | $\frac{f(x + h) - f(x - h)}{2h}$ |
#
# Which of $h = 10^{-2}, 10^{-5}, 10^{-8}, 10^{-11}, 10^{-14}, 10^{-17}$ is the best for each? What is the result for
# $10^{-17}$?

# %% [markdown]
# ## Run

# %%
import textwrap
import warnings
from dataclasses import replace

import numpy as np
from kit import graph, near, save, show
from matplotlib.figure import Figure

from satnp.layers import relu_backward, relu_forward, tanh_backward, tanh_forward
from satnp.proof.gradcheck import Case, check_gradients, diagnose, numeric_gradient


def one_sided(f, x, h):
    return (f(x + h) - f(x)) / h


def central(f, x, h):
    return (f(x + h) - f(x - h)) / (2 * h)


x, right = 0.7, np.exp(0.7)
print("h        one-sided   central      relative errors of the derivative of exp")
for h in (1e-2, 1e-5, 1e-8, 1e-11, 1e-14, 1e-17):
    print(f"{h:.0e}   " + "     ".join(f"{abs(rule(np.exp, x, h) / right - 1):.1e}" for rule in (one_sided, central)))

# %% [markdown]
# Of these six, $10^{-8}$ is the best for the one-sided difference and $10^{-5}$ for the central one. At $h = 10^{-17}$ the
# error is 1, that is 100 %: $x + h$ is rounded to $x$, so the difference is 0. There are two sources of error, and a
# smaller $h$ makes one of them smaller and the other larger.
#
# **The curve bends.** Taylor's series is
#
# $$
# f(x + h) = f + h f' + \frac{h^2}{2} f'' + \frac{h^3}{6} f''' + \ldots
# $$
#
# So the one-sided difference is $f' + \frac{h}{2} f'' + \ldots$ In the central one the even terms cancel: it is
# $f' + \frac{h^2}{6} f''' + \ldots$
#
# **Digits are lost.** A float64 has about 16 digits. The gap between 1 and the next number is
# $\epsilon = 2.2 \cdot 10^{-16}$, so each value of $f$ has a rounding error of up to $\frac{1}{2} \epsilon |f|$. In the
# difference of two nearby values the leading digits cancel and the rounding errors remain, and then they are divided by
# $h$: the error is up to $\epsilon |f| / h$ for the one-sided difference and $\epsilon |f| / (2h)$ for the central one.
#
# The best $h$ is where the sum of both errors has slope 0 as a function of $h$. For exp, where $f = f' = f'' = f'''$,
# divide both errors by $f'$:
#
# | difference | relative error | its slope is 0 at |
# |---|---|---|
# | one-sided | $\frac{h}{2} + \frac{\epsilon}{h}$ | $h = (2 \epsilon)^{1/2}$ |
# | central | $\frac{h^2}{6} + \frac{\epsilon}{2h}$ | $h = (\frac{3}{2} \epsilon)^{1/3}$ |
#
# With these $h$ the error is $h$ for the one-sided difference (half of it from each source), and $h^2 / 2$ for the central
# one.

# %%
for name, eps in (("float64", np.finfo(np.float64).eps), ("float32", np.finfo(np.float32).eps)):
    h1, h2 = (2 * eps) ** 0.5, (1.5 * eps) ** (1 / 3)
    print(f"{name}: best h one-sided {h1:.1e} (error {h1:.1e}), central {h2:.1e} ({h2**2 / 2:.1e})")

# %% [markdown]
# So a central difference is right to about 11 digits in float64, and to 5 in float32, the numbers of 7 digits in which
# networks are trained. That holds for a function whose value is about as large as its derivative. A loss can be far larger
# than its derivative by one of its inputs.
#
# ## Predict
#
# A loss is a sum of many terms. Take the sum of exp over 10,000 numbers in float32, and change ONE of them by the best
# $h = 5.6 \cdot 10^{-3}$. The loss is about 16,400; there, the gap between one float32 and the next is 0.002. The two
# losses differ by about 0.012. How many digits of the derivative will be right?
#
# ## Run

# %%
terms = np.random.default_rng(0).standard_normal(10_000)
terms[0] = 0.1
for number, h in ((np.float32, 5.6e-3), (np.float64, 6.9e-6)):

    def loss(x0, number=number):
        changed = terms.astype(number)
        changed[0] = x0
        return np.exp(changed).sum()

    found = central(loss, number(0.1), number(h))
    print(f"{number.__name__}: loss {loss(0.1):.7g}, found {found:.6f}, off by {abs(found / np.exp(0.1) - 1):.1e}")
print(f"the gap at the loss in float32: {np.spacing(np.float32(loss(0.1))):.3f}")
print(f"the difference of the two losses: {2 * 5.6e-3 * np.exp(0.1):.3f}")

# %% [markdown]
# Only one digit is right. The rounding error is relative to the LOSS, and not to its small change: the more terms, the fewer
# digits. Even float64 keeps only 7 digits of its 11 here. So a network cannot be checked in float32. satnp's layers compute
# in the dtype of their inputs: the same lines train in float32 and are checked in float64.

# %% [markdown]
# ## Predict
#
# A kink. ReLU is $\max(x, 0)$: its slope is 0 for $x < 0$ and 1 for $x > 0$. What is its central difference with
# $h = 10^{-5}$ at $x = 1$, at $x = 3 \cdot 10^{-6}$, at $x = -3 \cdot 10^{-6}$ and at $x = 0$? And with half of that $h$?

# %% [markdown]
# ## Run


# %%
def relu(x):
    return np.maximum(x, 0)


print("       x      h = 1e-5   h/2      what relu_backward says")
for x in (1.0, 3e-6, -3e-6, 0.0):
    slope = relu_backward(1.0, relu_forward(np.array([x]))[1])[0]
    print(f"{x:9.0e}   {central(relu, x, 1e-5):7.4f}   {central(relu, x, 5e-6):7.4f}      {slope:.0f}")
print(f"exp(0.7): {central(np.exp, 0.7, 1e-5):.9f}  {central(np.exp, 0.7, 5e-6):.9f}")

# %% [markdown]
# At $x = 3 \cdot 10^{-6}$ the point $x - h$ is on the other side of the kink: the result is 0.65 in place of 1. The
# backward is right; the difference is wrong. To recognise this, compare $h$ with $h/2$: where $f$ is smooth the two
# results agree to ten digits, across a kink they do not (0.65 and 0.80).
#
# Exactly AT 0 there is no derivative, and both results are 0.5. `relu_backward` returns 0 there, by convention; any number
# from 0 to 1 would do. So the inputs and biases of a check are random numbers, which are not at a kink.

# %% [markdown]
# ## Predict
#
# Now a step in the imaginary direction. Put $x + ih$ into Taylor's series, with $i^2 = -1$ and a real $h$:
#
# $$
# f(x + ih) = f + i h f' - \frac{h^2}{2} f'' - i \frac{h^3}{6} f''' + \ldots
# $$
#
# The imaginary part is $h f' - \frac{h^3}{6} f''' + \ldots$, and $f$ itself is in the real part. Divide by $h$:
#
# $$
# f'(x) = \frac{1}{h} \operatorname{Im} f(x + ih) + \frac{h^2}{6} f''' + \ldots
# $$
#
# Nothing is subtracted. Which $h$ would you choose: $10^{-5}$, $10^{-30}$, $10^{-300}$? How large do you expect the error
# to be?

# %% [markdown]
# ## Run


# %%
def complex_step(f, x, h=1e-30):
    return np.imag(f(x + 1j * h)) / h


x = 0.7
for h in (1e-2, 1e-5, 1e-8, 1e-30, 1e-200, 1e-300, 1e-322):
    found = complex_step(np.exp, x, h)
    print(f"h {h:.0e}: off by {abs(found / np.exp(x) - 1):.1e}")

# %% [markdown]
# For $h = 10^{-8}$ and below, $h^2$ is below $\epsilon$, so the error from the bent curve is smaller than
# the rounding of the result. And there is no loss of digits, because the real part (about 2) and the imaginary part (about
# $2 \cdot 10^{-30}$) are two separate floats with 16 digits each. Only near the smallest float64 numbers, about
# $10^{-308}$, there are fewer digits: $h = 10^{-322}$ itself has only one or two. So satnp uses $h = 10^{-30}$, and there
# is no best $h$ to search for.
#
# Why does this work through a whole network? Multiply two numbers that have their derivatives in the imaginary part:
#
# $$
# (u + i h u') (v + i h v') = u v + i h \, (u' v + u v') - h^2 u' v'
# $$
#
# The last term is about $10^{-60}$, too small to change the real part. The imaginary part is the product rule. In the same
# way each operation of complex arithmetic applies the chain rule. So running the FORWARD in complex numbers gives the
# derivative, without a line of the backward that is to be checked.

# %%
z = 0.7 + 1e-30j
print(f"z            {z.real:.6f}  + 1e-30 i * {z.imag / 1e-30:.6f}")
print(f"z * z        {(z * z).real:.6f}  + 1e-30 i * {(z * z).imag / 1e-30:.6f}   (2x is 1.4)")
w = np.tanh(z * z)
print(f"tanh(z * z)  {w.real:.6f}  + 1e-30 i * {w.imag / 1e-30:.6f}")
near("by the chain rule", w.imag / 1e-30, (1 - np.tanh(0.49) ** 2) * 1.4, within=1e-15)
print("relu at 3e-6, -3e-6 and 0:", *(complex_step(relu, x) for x in (3e-6, -3e-6, 0.0)))

# %% [markdown]
# A kink does no harm: the real part does not change, so the step does not cross the kink. At $3 \cdot 10^{-6}$ and
# $-3 \cdot 10^{-6}$ the result is exactly 1 and 0. At 0 itself it is 1, where `relu_backward` returns 0. (NumPy orders
# complex numbers by the real part and then by the imaginary part, and $0 + ih > 0$.)

# %% [markdown]
# ## Look
#
# All methods in one figure: the error as a function of $h$.

# %%
hs = 10.0 ** np.arange(-40, 0.01, 0.25)


def errors_of(rule, number):
    """Relative errors of exp' at 0.7 for each of `hs`, computed in `number`."""
    with np.errstate(all="ignore"):
        found = [rule(np.exp, number(0.7), number(h)) for h in hs]
        return np.maximum(np.abs(np.array(found, float) / np.exp(float(number(0.7))) - 1), 1e-17)


figure = Figure(figsize=(8, 4.2))
axes = figure.subplots()
for name, rule, number, style in (
    ("one-sided, float64", one_sided, np.float64, "."),
    ("central, float32", central, np.float32, "."),
    ("central, float64", central, np.float64, "."),
    ("complex step, float64", complex_step, np.float64, "x"),
):
    axes.loglog(hs, errors_of(rule, number), style, ls="-", lw=0.6, ms=4, label=name)
axes.loglog(hs, np.minimum(hs**2 / 6 + 1.1e-16 / hs, 1), "k--", lw=1, label="h²/6 + ε/(2h), ε of float64")
axes.axvline(1e-30, color="grey", ls=":", label="h = 1e-30")
axes.set(xlabel="h (in units of x)", ylabel="relative error of f' (0 is drawn at 1e-17)", ylim=(5e-18, 10))
axes.legend(fontsize=8, loc=(0.14, 0.12))
save(figure, "02_errors", "a difference is best where its falling and its rising line meet; the complex step only rises")

# %% [markdown]
# ## Predict
#
# There is a condition: the forward must consist of analytic operations, which treat $x + ih$ in the same way as $x$. Which
# of these NumPy operations give a wrong derivative, and which raise an error?
#
# ```text
# abs(x)    where(x > 0, x, -x)    norm([x, 1])    sqrt(x*x + 1)    x.conj() * x
# maximum(x, 0)    logaddexp(x, 0)    log(1 + exp(x))
# ```
#
# (`norm` is the length of a vector, here $\sqrt{x^2 + 1}$. `conj` turns $ih$ into $-ih$. `logaddexp(x, 0)` is NumPy's own
# function for the last one of the list.)

# %% [markdown]
# ## Run


# %%
def into_zeros(x):
    out = np.zeros(1)  # float64, whatever x is: should be np.zeros(1, dtype=x.dtype)
    out[0] = x * x
    return out[0]


x = np.float64(0.7)
operations = {
    "abs(x)": np.abs,
    "where(x > 0, x, -x)": lambda x: np.where(x > 0, x, -x),
    "norm([x, 1])": lambda x: np.linalg.norm([x, 1]),
    "sqrt(x*x + 1)": lambda x: np.sqrt(x * x + 1),
    "x.conj() * x": lambda x: x.conj() * x,
    "maximum(x, 0)": relu,
    "logaddexp(x, 0)": lambda x: np.logaddexp(x, 0),
    "log(1 + exp(x))": lambda x: np.log(1 + np.exp(x)),
    "zeros(1)[0] = x * x": into_zeros,
}
print("operation              complex step   central")
for name, f in operations.items():
    with warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        try:
            found = f"{complex_step(f, x):.6f}"
        except (TypeError, np.exceptions.ComplexWarning) as error:
            found = type(error).__name__
    print(f"{name:22} {found:14} {central(f, x, 6.9e-6):.6f}")

# %% [markdown]
# `abs`, `norm` and `conj` give 0 and no error message: the first two compute with the length of $x + ih$,
# which is $\sqrt{x^2 + h^2}$ and real, and with `conj` $ih$ and $-ih$ cancel. NumPy's `vdot` and `var` do the same. Each
# has an analytic form that is as short: `where` for `abs`, `sqrt` of a sum of `x*x` for `norm`. `maximum` and `where` are
# right. `logaddexp` does not accept complex numbers. The last line, which was not in the list, is a mistake in the
# forward: an array of zeros of the wrong dtype drops the imaginary part with a ComplexWarning. satnp's check turns this
# warning into an error. A derivative that is wrongly 0 is also found, because a right backward then disagrees.

# %% [markdown]
# ## Predict
#
# So far $x$ was one number. The output of a layer is an array, but a derivative needs one number to differentiate. So we
# make a loss from it:
#
# $$
# \mathrm{loss} = \sum_{k} \mathrm{out}_k \, d\mathrm{out}_k
# $$
#
# with an array `dout` of our choice. Its derivative by `out` is `dout`, which is exactly the upstream gradient that the
# backward receives. For an input of 12 numbers, how many forward passes does the complex step need? And the central
# difference?

# %% [markdown]
# ## Run
#
# One element at a time: 12 for the complex step, 24 for the central difference. Here are both, compared with tanh's
# backward from lesson 01. (`STEP[method]` in the listing is $10^{-30}$ or $10^{-5}$.) The upstream gradient is random: a
# constant one would hide mistakes (lesson 07b).

# %%
show(numeric_gradient)
rng = np.random.default_rng(0)
x, dout = rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
g = tanh_backward(dout, tanh_forward(x)[1])


def objective(x):
    return (tanh_forward(x)[0] * dout).sum()


n = numeric_gradient(objective, x)
d = numeric_gradient(objective, x, "central difference")
near("tanh_backward against the complex step", g, n, within=1e-14)
near("tanh_backward against central differences", g, d, within=1e-9)

# %% [markdown]
# For a whole captioner, with hundreds of thousands of parameters $\theta$, this is too slow. There we check ONE random
# direction $v$ in the space of all parameters. As a function of the single number $h$, the loss at $\theta + h v$ has the
# slope $\sum_{j} d\theta_j \, v_j$ (all paths add), and one forward at $\theta + i h v$ gives it. This check says that
# something is wrong, but not where. (`direction=True` in satnp.)
#
# "Equal" needs a measure. Let $g$ be the array from the backward, $n$ the numerical gradient, and $|n|$ its norm, the root
# of the sum of its squares. satnp divides the norm of the difference by the norm of $n$:
#
# $$
# \mathrm{error} = \frac{|g - n|}{\max(|n|, G / 1000)}
# $$
#
# $G$ is the largest $|n|$ of the arrays in the same check. It matters for a gradient that is truly zero: there $g$ and $n$
# are both rounding errors of about $10^{-17}$, and their ratio means nothing. Lesson 07b compares this measure with
# others.

# %% [markdown]
# ## Check by number
#
# Now check a layer of your own. A `Case` describes what to check: a name, a function that makes random inputs, and the
# pair of forward and backward. `check_gradients` does the rest: a random upstream gradient for each output, the backward,
# the complex step for each input, and the error. It passes if the error is below 1e-10 and no single element is far off.

# %%
show(Case)

# %% [markdown]
# Our layer is $\mathrm{out} = x \odot t$ with $t = \tanh(a)$ and $a = x W$, where $\odot$ multiplies element by element.
# $W$ is square, so that $t$ has the shape of $x$, and $x$ is used twice. Backward:
#
# $$
# \begin{aligned}
# dt &= d\mathrm{out} \odot x \\
# da &= dt \odot (1 - t^2) \\
# dW &= x^\top da \\
# dx &= d\mathrm{out} \odot t + da \, W^\top
# \end{aligned}
# $$
#
# The first term of $dx$ comes from the product, the second from $a$.


# %%
def swing_forward(x, W):
    t = np.tanh(x @ W)
    return x * t, (x, W, t)


def swing_backward(dout, cache):
    x, W, t = cache
    da = dout * x * (1 - t * t)
    return dout * t + da @ W.T, x.T @ da


def make(rng):
    return {"x": rng.standard_normal((3, 4)), "W": rng.standard_normal((4, 4))}


swing = Case("swing", make, swing_forward, swing_backward)
result = check_gradients(swing)
print(f"passed: {result.passed}, error {result.error:.1e}, findings: {result.findings}")
assert result.passed and result.error < 1e-14

# %%
inputs, dout = make(rng), rng.standard_normal((3, 4))
out, cache = swing_forward(**inputs)
dx, dW = swing_backward(dout, cache)
steps = [
    ("a", "x @ W", {"W": "x.T @ da", "x": "da @ W.T"}),
    ("t", "np.tanh(a)", {"a": "dt * (1 - t**2)"}),
    ("out", "x * t", {"x": "dout * t", "t": "dout * x"}),
]
values = inputs | {"out": out, "t": cache[2], "dx": dx, "dW": dW}
graph("02_two_paths", steps, values, {"N": 3, "D": 4}, {"out": dout}, "x is used twice, so dx is the sum of two")

# %% [markdown]
# No gradient check finds a wrong FORWARD: the right backward of a wrong forward passes. Against this, satnp has plain
# versions of its layers (`satnp/reference/`) and tests of identities (weights that sum to 1), and people look at the
# results.

# %% [markdown]
# ## Break it
#
# If the error is above the tolerance, something is wrong. `diagnose` compares the two arrays and says which kind of
# mistake it is: is one a multiple of the other? its transpose? are they equal except in some rows? Here are five mistakes
# in our layer. Say before you run the cell what `diagnose` will say of each.


# %%
def broken(change):
    def backward(dout, cache):
        x, W, t = cache
        da = dout * x * (1 - t * t)
        return change(dout, x, W, t, da)

    return check_gradients(replace(swing, backward=backward)).findings


mistakes = {
    "one path lost": lambda dout, x, W, t, da: (dout * t, x.T @ da),
    "da.T @ x": lambda dout, x, W, t, da: (dout * t + da @ W.T, da.T @ x),
    "mean over the batch": lambda dout, x, W, t, da: (dout * t + da @ W.T, x.T @ da / len(x)),
    "minus": lambda dout, x, W, t, da: (-dout * t - da @ W.T, x.T @ da),
    "first example only": lambda dout, x, W, t, da: (dout * t + np.eye(3)[0, :, None] * (da @ W.T), x.T @ da),
}
for name, change in mistakes.items():
    (finding,) = broken(change)
    print(textwrap.fill(f"{name} -> {finding.kind}: {finding.sentence}", 78, subsequent_indent="    "))

# %% [markdown]
# Each sentence names a pattern, and not the line of the mistake: it says where to look. You can also call `diagnose`
# yourself, with your array and the numerical gradient. Here is a gradient that is 0.01 % too large, and one that is right
# to twelve digits, for which `diagnose` returns `None`:

# %%
n = rng.standard_normal((4, 5))
print(diagnose("dW", 1.0001 * n, n).sentence)
print(diagnose("dW", n * (1 + 1e-12), n))

# %% [markdown]
# ## Exercises
#
# 1. The one-sided difference in float32: what do the formulas above say for the best $h$ and its error? Plot
#    `errors_of(one_sided, np.float32)` over `hs`, as in the figure. Check: $h$ = 4.9e-4 and an error of at most 4.9e-4.
#    With `np.float32(0.7)` and `np.float32(4.9e-4)` the error happens to be 7.7e-5.
# 2. $f(x) = \sqrt{|\sin x|}$ at $x = 4$, written with `abs`: the complex step gives 0. Mend `f`. Check: 0.375681.
# 3. `z = np.random.default_rng(0).standard_normal(100_000)`: for how many of these numbers is `central(relu, z, 1e-3)`
#    neither 0 nor 1, to within 1e-6? Say first how many you expect, with the density of a normal number at 0, which is
#    0.4. Check: 80 expected, 75 counted.
# 4. The second derivative is in the real part: $f'' = 2 \, (f(x) - \operatorname{Re} f(x + ih)) / h^2$. Does this one lose
#    digits? Find the best $h$ for exp at 0.7 among the powers of ten. Check: $h$ = 1e-4, with a relative error of 6e-9.
# 5. Write the pair of $\mathrm{out} = x / r$ with $r = \sqrt{m + 0.01}$, where $m$ is the mean of $x^2$ over the row and
#    `x` is (3, 5). Derive it first: each $x_j$ is used twice, the second time through $r$, with
#    $\partial r / \partial x_j = x_j / (5r)$. Check:
#    $dx_j = d\mathrm{out}_j / r - x_j \left( \sum_{k} d\mathrm{out}_k x_k \right) / (5 r^3)$, and its `Case` passes with
#    an error below 1e-14. Then forget the 5: `diagnose` says "term".

# %% [markdown]
# ## Next
#
# 03, convolution: the first layer whose fast form no longer looks like its formula. You now have what you need to check
# it. The mistakes that a check can miss follow in 07b, after you have met the layers that it needs.
