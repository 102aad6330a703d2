# %% [markdown]
# # 02 Checking a gradient
#
# - time: 70 minutes
# - cpu: 30 seconds
# - before: 01
# - equations: none of the paper's; Squire & Trapp 1998 for the complex step
# - about: satnp.proof.gradcheck.check_gradients
#
# A backward pass written by hand is wrong until shown to be right, and a wrong one often still trains, only worse. So we
# need an instrument: numbers made from the forward pass alone, held against what the backward says. This lesson builds
# it, finds where it goes blind, and ends with one that is good to fifteen digits and names the mistake in words.

# %% [markdown]
# ## Predict
#
# A derivative is a limit: (f(x + h) - f(x)) / h for ever smaller h. Take f = exp at x = 0.7. It is its own derivative, so
# we know the answer to the last digit. Two candidates:
#
#     one-sided   (f(x + h) - f(x)) / h
#     central     (f(x + h) - f(x - h)) / (2 h)
#
# Of h = 1e-2, 1e-5, 1e-8, 1e-11, 1e-14, 1e-17, which is the best for each? What comes out for 1e-17?

# %% [markdown]
# ## Run

# %%
import textwrap
import warnings
from dataclasses import replace

import numpy as np
from kit import near, save, show
from matplotlib.figure import Figure

from satnp.layers import relu_backward, relu_forward, softmax_backward, softmax_forward, tanh_backward, tanh_forward
from satnp.proof import bugs, checks
from satnp.proof.gradcheck import Case, check_gradients, diagnose, numeric_gradient, relative_error


def one_sided(f, x, h):
    return (f(x + h) - f(x)) / h


def central(f, x, h):
    return (f(x + h) - f(x - h)) / (2 * h)


x, right = 0.7, np.exp(0.7)
print("h        one-sided   central      relative errors of the derivative of exp")
for h in (1e-2, 1e-5, 1e-8, 1e-11, 1e-14, 1e-17):
    print(f"{h:.0e}   " + "     ".join(f"{abs(rule(np.exp, x, h) / right - 1):.1e}" for rule in (one_sided, central)))

# %% [markdown]
# At h = 1e-17 the error is 1, that is 100 %: x + h rounds to x, the difference is 0. Two errors pull against each other.
#
# Too large an h: the curve bends. Taylor's series says
#
#     f(x + h) = f + h f' + h^2/2 f'' + h^3/6 f''' + ...
#
# so the one-sided quotient is f' + h/2 f'' + ...; in the central one the even terms cancel: f' + h^2/6 f''' + ...
#
# Too small an h: digits are lost. A float64 keeps about 16 digits: eps = 2.2e-16 is the gap between 1 and the next
# number, and each f is rounded by up to eps/2 * |f|. The difference of two nearby numbers keeps that rounding and loses
# all the leading digits, and then it is divided by h: up to eps |f| / h one-sided, eps |f| / (2 h) central. (x + h is
# rounded too: an error of the same kind.)
#
# The sum is smallest between, where its own slope by h is 0. For exp, where f = f' = f'' = f''', the relative errors are
#
#     one-sided   h/2   + eps/h        slope 1/2 - eps/h^2 = 0        at h = (2 eps)^(1/2)
#     central     h^2/6 + eps/(2 h)    slope h/3 - eps/(2 h^2) = 0    at h = (1.5 eps)^(1/3)
#
# Put these h back: the error there is h one-sided (half of it from each part) and h^2/2 central.

# %%
for name, eps in (("float64", np.finfo(np.float64).eps), ("float32", np.finfo(np.float32).eps)):
    h1, h2 = (2 * eps) ** 0.5, (1.5 * eps) ** (1 / 3)
    print(f"{name}: best h one-sided {h1:.1e} (error {h1:.1e}), central {h2:.1e} ({h2**2 / 2:.1e})")

# %% [markdown]
# ## Look
#
# The valley of h, measured. float32 means: x, h and f in numbers of 7 digits, as networks are trained in.

# %%
hs = 10.0 ** np.arange(-16, 0.01, 0.125)


def errors_of(rule, number):
    """Relative errors of exp' at 0.7 for each of `hs`, computed in `number`."""
    at = number(0.7)
    found = [rule(np.exp, at, number(h)) for h in hs]
    return np.maximum(np.abs(np.array(found, float) / np.exp(float(at)) - 1), 1e-17)


figure = Figure(figsize=(7, 4.2))
axes = figure.subplots()
for name, rule, number in (
    ("one-sided, float64", one_sided, np.float64),
    ("central, float32", central, np.float32),
    ("central, float64", central, np.float64),
):
    axes.loglog(hs, errors_of(rule, number), ".-", lw=0.6, ms=4, label=name)
axes.loglog(hs, np.minimum(hs**2 / 6 + 1.1e-16 / hs, 1), "k--", lw=1, label="h²/6 + eps/(2h), float64")
axes.set(xlabel="h (in units of x)", ylabel="relative error of f'", ylim=(1e-13, 3))
axes.legend()
save(figure, "02_valley", "right wall: the curve bends; left wall: digits lost; float32: at best 1e-5")

# %% [markdown]
# So the best a central difference can do is 1e-11 in float64 and some 1e-5 in float32. And only if f is one number of
# ordinary size. (The flat part at 1 is where x + h is x.)

# %% [markdown]
# ## Predict
#
# A loss is a sum of many terms. Let it be the sum of exp over 10,000 numbers, in float32, and push ONE of them by the best
# h = 5.6e-3. The loss is about 16,400, where the gap between one float32 and the next is 0.002. The derivative is about 1.1,
# so the two losses differ by about 0.012. How many digits of the derivative will be right?

# %% [markdown]
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

# %% [markdown]
# One. The rounding is relative to the LOSS, not to its small change: the more terms, the fewer digits. That is why a
# network in float32 cannot be checked in float32: the tolerance would have to be so loose that bugs fit through. satnp's
# layers take the dtype they are given: the same lines train in float32 and are checked in float64.

# %% [markdown]
# ## Predict
#
# A kink. ReLU is max(x, 0): slope 0 left of zero, 1 right of it. What does a central difference with h = 1e-5 say at
# x = 1, at x = 3e-6, at x = -3e-6 and at x = 0? And what does it say with h/2?

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
# At 3e-6 the step reaches over the kink: 0.65 in place of 1. Nothing is wrong with the backward, the instrument is. The test
# for it is h against h/2: where f is smooth the two agree to ten digits, across a kink they do not (0.65 and 0.80). A
# check by differences that fails should ask this before it blames the backward.
#
# Exactly AT 0 there is no derivative, and h against h/2 does not show it: 0.5 both times. `relu_backward` says 0 there, by
# convention; any number from 0 to 1 would do. So a check must not sit on a kink: inputs and biases are random. (Biases
# of zero under an all-black photo put every unit exactly on it.)
#
# How likely is a step over a kink? A normal number lies within 1e-5 of 0 with probability 8e-6. A network with 100,000
# ReLUs has one such unit about every time that all of them are moved.

# %% [markdown]
# ## Predict
#
# Now a step in a direction where no real kink, curve or rounding is met: the imaginary one. Put x + ih into Taylor's
# series, with i*i = -1 and h real:
#
#     f(x + ih) = f  +  ih f'  -  h^2/2 f''  -  i h^3/6 f'''  + ...
#
# The imaginary part, Im, is h f' - h^3/6 f''' + ...; f itself is in the real part. Divide by h:
#
#     f'(x) = Im f(x + ih) / h  +  h^2/6 f''' ...
#
# Nothing is subtracted! So what would you choose for h? 1e-5? 1e-30? 1e-300? And what do you expect as the error?

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
# From 1e-8 on, h^2 is below eps: no bend is left. And no rounding is there at any h, because the real part (about 2) and the
# imaginary part (about 2e-30) are two floats, each with its own 16 digits. Only at the end of the range of a
# float64, some 1e-308, do digits get lost: h = 1e-322 itself has only one or two. So h = 1e-30 and no valley to look for.
#
# Why does it work through a whole network? Multiply two numbers that carry derivatives:
#
#     (u + ih u') * (v + ih v') = u v + ih (u' v + u v') - h^2 u' v'
#
# The last term is 1e-60: gone. What stays in the imaginary part is the product rule. Each operation of complex
# arithmetic applies the chain rule by itself. We get the derivative by running the FORWARD in complex numbers. It
# shares no line with the backward that it is to judge.

# %%
z = 0.7 + 1e-30j
print(f"z            {z.real:.6f}  + 1e-30 i * {z.imag / 1e-30:.6f}")
print(f"z * z        {(z * z).real:.6f}  + 1e-30 i * {(z * z).imag / 1e-30:.6f}   (2x is 1.4)")
w = np.tanh(z * z)
print(f"tanh(z * z)  {w.real:.6f}  + 1e-30 i * {w.imag / 1e-30:.6f}")
near("by the chain rule", w.imag / 1e-30, (1 - np.tanh(0.49) ** 2) * 1.4, within=1e-15)
print("relu at 3e-6, -3e-6 and 0:", *(complex_step(relu, x) for x in (3e-6, -3e-6, 0.0)))

# %% [markdown]
# A kink does no harm: the real part does not move, so the step never reaches over it. At 3e-6 and -3e-6 it gives exactly
# 1 and 0. At 0 itself it gives 1, where `relu_backward` says 0. (NumPy orders complex numbers by the real part, then by
# the imaginary one, and 0 + ih > 0.) Random inputs never sit there.

# %% [markdown]
# ## Look

# %%
steps = 10.0 ** np.arange(-40, 0.01, 0.5)
figure = Figure(figsize=(7, 4.2))
axes = figure.subplots()
for name, rule, size in (("one-sided", one_sided, 5), ("central", central, 10), ("complex step", complex_step, 5)):
    found = np.array([rule(np.exp, x, h) for h in steps])
    axes.loglog(steps, np.maximum(np.abs(found / np.exp(x) - 1), 1e-17), ".-", lw=0.8, ms=size, label=name)
axes.axvline(1e-30, color="grey", ls=":", label="h = 1e-30")
axes.set(xlabel="h (in units of x)", ylabel="relative error of f' (an error of 0 is drawn at 1e-17)")
axes.legend()
save(figure, "02_complex_step", "the complex step has the right wall only; below 1e-8 no error is left")

# %% [markdown]
# ## Predict
#
# There is a price: the forward must be made of operations that are analytic, that is, that treat x + ih like x. Which of
# these give a wrong derivative, and which say so?
#
#     abs(x)    norm([x, 1])    sqrt(x*x + 1)    vdot(x, x)    x.conj() * x    var([x, 1, 2])
#     maximum(x, 0)    where(x > 0, x, -x)    hypot(x, 1)    logaddexp(x, 0)    log(1 + exp(x))
#
# (All are NumPy's. norm is the length of a vector, and hypot(x, 1) that of (x, 1), so both are sqrt(x*x + 1). vdot is the
# sum of x.conj() * x, and conj turns ih into -ih. var is the mean square distance from the mean. logaddexp(x, 0) is
# log(exp(x) + exp(0)), the last one of the list.)

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
    "hypot(x, 1)": lambda x: np.hypot(x, 1),
    "sqrt(x*x + 1)": lambda x: np.sqrt(x * x + 1),
    "vdot(x, x)": lambda x: np.vdot(x, x),
    "x.conj() * x": lambda x: x.conj() * x,
    "x * x": lambda x: x * x,
    "var([x, 1, 2])": lambda x: np.var([x, 1, 2]),
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
# Silently wrong, with a derivative of 0: abs, norm and var (they take the length of x + ih, sqrt(x^2 + h^2), which is
# real), vdot and conj (ih and -ih cancel). They all have an analytic twin that is as short: x*x for |x|^2, sqrt of a sum
# of x*x for norm, where for abs. `maximum` and `where` are right. hypot and logaddexp refuse complex numbers. The last
# line is a slip, not an operation: an array of zeros of the wrong dtype drops the imaginary part with a ComplexWarning,
# which satnp's tests and `check_gradients` make an error. A silent 0 is found too: the backward, if right, then disagrees.
#
# One more, of another kind: the sigmoid 1 / (1 + exp(-x)), from 0 to 1 (lesson 05), at x = -800. In real numbers exp(800)
# is inf, and 1/inf is 0: a warning, but right. In complex numbers both parts of exp(800 - ih) are inf, and
# 1 / (inf - i inf) is NaN. The same function as a tanh never overflows:

# %%
with np.errstate(all="ignore"):
    print("1/(1+exp(-x)) at -800: real", 1 / (1 + np.exp(800.0)), " complex", 1 / (1 + np.exp(800.0 - 1e-30j)))
print("tanh(x/2)/2 + 1/2:     real", 0.5 * np.tanh(-400.0) + 0.5, " complex", 0.5 * np.tanh(-400.0 + 5e-31j) + 0.5)

# %% [markdown]
# ## Predict
#
# From one number to arrays. A layer's output is an array, and a derivative needs one number. So we invent a loss:
#
#     loss = sum of out * dout,  with dout an array of our choice
#
# Then dloss/dout is dout: exactly what the backward is given from upstream. For an input of 12 numbers, how many forward
# passes does the complex step need? And the central difference?

# %% [markdown]
# ## Run
#
# One element at a time: 12 for the complex step, 24 for the central difference. Here it is, with both methods, held
# against tanh's backward from lesson 01.

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
# A whole captioner has millions of numbers. There one asks about ONE random direction v over all of them. As a function of
# the single number h, loss(params + h v) has the slope sum of gradient * v (all roads add), and one forward at
# params + ih * v gives it. A wrong entry anywhere changes that sum. It says that something is wrong, not where.
# (`direction=True` in satnp.)

# %% [markdown]
# ## Predict
#
# "Equal" needs a measure. Let g be the backward's array and n the numbers from the forward. Three that are in use:
#
#     elementwise   max of |g - n| / max(|g|, |n|)          "relative error" of many courses
#     absolute      |g - n| < 1e-8 + 1e-5 |n| everywhere      np.allclose as it comes
#     by norm       |g - n| / |n|, with |.| the norm of the whole array
#
# For which arrays does which measure say the wrong thing? Think of a right g whose entries range from 1 to 1e-9, held
# against central differences; and of a g that is twice too large, with all entries about 1e-9 (a mean over many words,
# times a small weight).

# %% [markdown]
# ## Run


# %%
def measures(g, n):
    elementwise = np.max(np.abs(g - n) / np.maximum(np.abs(g), np.abs(n)))
    return f"elementwise {elementwise:.0e}  allclose {np.allclose(g, n)!s:5}  by norm {relative_error(g, n):.0e}"


wide = np.linspace(0, 11, 12).reshape(3, 4)  # tanh' falls from 1 to 1e-9
ones = np.ones((3, 4))
g = tanh_backward(ones, tanh_forward(wide)[1])
n = numeric_gradient(lambda x: tanh_forward(x)[0].sum(), wide, "central difference")
print("right, wide range, central:", measures(g, n))
print("right, wide, complex step: ", measures(g, numeric_gradient(lambda x: tanh_forward(x)[0].sum(), wide)))
small = 1e-9 * rng.standard_normal((3, 4))
print("TWICE the right one, small:", measures(2 * small, small))

# %% [markdown]
# The elementwise measure calls a right backward 4 % wrong, where an entry (1e-9) is hardly larger than the rounding of the
# differences (1e-11). So people loosen the tolerance to 1e-2, and bugs pass. Even against the complex step it says 1e-8:
# there the backward itself has lost digits, in 1 - out*out with out near 1. `allclose` has an absolute part of 1e-8, so
# anything small enough is "close" to anything else. The norm says 1e-10, 3e-16 and 1: right each time. satnp asks for
# an error by norm below 1e-10 AND each element within 1e-8 of the largest.
#
# One case is left: a gradient that is truly zero, where |n| is only rounding, 1e-17, and g is another 1e-17. Their ratio
# means nothing. So |g - n| is divided by at least a thousandth of G, the largest norm |n| among the arrays of the same
# check:

# %%
show(relative_error)
g, n = 1e-17 * rng.standard_normal((2, 5))
print(f"two zeros up to rounding: without G {relative_error(g, n):.2f}, with G = 1: {relative_error(g, n, scale=1.0):.0e}")

# %% [markdown]
# ## Predict
#
# Now the blind spots of the check itself. Most checks in the wild use `out.sum()` as their loss: an upstream gradient of all
# ones. Softmax turns scores e into positive weights alpha that sum to 1, alpha_i = exp(e_i) / sum over k of exp(e_k)
# (attention is made of it). Its backward is
#
#     de_i = alpha_i * (dalpha_i - sum over k of alpha_k dalpha_k)
#
# (derived in lesson 09; believe it for now). What is it if dalpha is all ones? So which of these wrong ones will
# a check with out.sum() accept?
#
#     A  zeros                    nothing flows back at all
#     B  7 * the right one
#     C  alpha * (dalpha - mean of dalpha)      the plain mean, not the weighted one
#     D  alpha * dalpha                         the sum forgotten

# %% [markdown]
# ## Run

# %%
wrong = {
    "right": softmax_backward,
    "A zeros": lambda d, c: np.zeros_like(d),
    "B 7 times": lambda d, c: 7 * softmax_backward(d, c),
    "C plain mean": lambda d, c: c.alpha * (d - d.mean(axis=-1, keepdims=True)),
    "D sum forgotten": lambda d, c: c.alpha * d,
}
scores = rng.standard_normal((3, 5))
alpha, cache = softmax_forward(scores)
for name, backward in wrong.items():
    worst = []
    for dalpha in (np.ones((3, 5)), rng.standard_normal((3, 5))):
        n = numeric_gradient(lambda e, d=dalpha: (softmax_forward(e)[0] * d).sum(), scores)
        worst.append(np.abs(backward(dalpha, cache) - n).max())
    print(f"{name:16} largest error: all ones {worst[0]:.0e}, random upstream {worst[1]:.0e}")

# %% [markdown]
# With all ones the sum of alpha is 1 whatever the scores are. So the right gradient is 0, and A, B and C, which give 0 too,
# pass. A random upstream catches them all. Other layers lose other things under all ones: a backward that never multiplies
# by dout, or takes its entries in the wrong order. So: always a random, non-constant upstream, for EVERY output.
#
# The next blind spot: zeros on both sides. Here is ReLU without its mask (dx = dout), checked at inputs that are all
# positive; and a ReLU that lets nothing through, checked at inputs that are all negative:


# %%
def largest_error(x, backward):
    dout = rng.standard_normal(x.shape)
    n = numeric_gradient(lambda x: (relu(x) * dout).sum(), x)
    return np.abs(backward(dout, relu_forward(x)[1]) - n).max()


positive, negative = rng.uniform(0.1, 1, (3, 4)), -rng.uniform(0.1, 1, (3, 4))
print("no mask, at positive inputs:    ", largest_error(positive, lambda d, c: d))
print("nothing through, at negative:   ", largest_error(negative, lambda d, c: 0 * d))
print("no mask, at inputs of both signs:", largest_error(rng.standard_normal((3, 4)), lambda d, c: d).round(3))

# %% [markdown]
# A check sees only what its inputs reach. They must have both sides of a kink, masks with zeros in them, a batch of more
# than one (with N = 1 a mean IS the sum), sizes that differ; and where a word looks up its row of a table, by its id, an
# id that comes twice (lesson 07).
#
# The third: mutation, that is, writing into an array that belongs to somebody else. This ReLU backward saves memory by
# writing into the upstream gradient. Its result is right, so every comparison passes. Now use it where a value has two
# roads: out = relu(x) + x, so dx = relu's share + dout.


# %%
def thrifty_backward(dout, cache):
    dout *= cache.out > 0
    return dout


x = rng.standard_normal((3, 4))
_, cache = relu_forward(x)
print("alone, largest error:", largest_error(x, thrifty_backward))
wanted = relu_backward(ones, cache) + ones
dout = ones.copy()
found = thrifty_backward(dout, cache) + dout
print("with two roads, largest error:", np.abs(found - wanted).max())

dout = ones.copy()
dout.flags.writeable = False  # what check_gradients does with inputs, parameters, cache and upstream gradients
try:
    thrifty_backward(dout, cache)
except ValueError as error:
    print("read-only:", error)

# %% [markdown]
# Aliasing is its sibling: an addition's backward that returns the SAME array twice, `return dout, dout`. It is right too,
# until someone adds into one of the two and finds the other changed. So in satnp no backward writes to what it is given.
#
# The last one: tolerance. A gradient that is 0.01 % too large passes at 1e-3, and a check in float32 cannot ask for
# more. It looks harmless, but so looks a small term that was forgotten: a penalty with a small weight, an epsilon, one row
# in ten thousand.

# %% [markdown]
# ## Predict
#
# Let us count. `satnp.proof.bugs` is a zoo: real mistakes, each planted in the real source while a check runs. We try those
# in single layers (some of which you will meet only later) with a common check: central differences, np.allclose, arrays
# that may be written to. It is made weaker in one way at a time, then in all three. Last comes satnp's check. Which weakness
# costs most?
#
#     strict         random upstream, tolerance 1e-6, the inputs of satnp's own cases
#     all ones       upstream of ones
#     loose          tolerance 1e-2
#     easy inputs    positive numbers, masks and weights all 1, no id twice

# %% [markdown]
# ## Run
#
# What to check is written down in a `Case`: a name, how to make the inputs, the pair, and which inputs get no gradient.
# (`xp` in satnp is the array library: NumPy, unless a GPU is checked.)

# %%
show(Case)
dropout = checks.find("layers/dropout")  # zeroes the numbers that its mask has at 0
dropout_inputs = dropout.make(np.random.default_rng(0))
print("inputs", {name: x.shape for name, x in dropout_inputs.items()}, " no gradient:", dropout.constants)


# %%
def normal(rng, shape):
    return rng.standard_normal(shape)


def all_ones(rng, shape):
    return np.ones(shape)


def easy(case):
    """The same case with inputs that most people would take."""

    def make(rng):
        found = {}
        for name, x in case.make(rng).items():
            number = np.ones(x.shape) if name in case.constants else rng.uniform(0.1, 1, x.shape)
            found[name] = number if x.dtype.kind == "f" else np.arange(len(x)) % (x.max() + 1)
        return found

    return replace(case, make=make)


print("first row of the mask", dropout_inputs["mask"][0].round(2), "made easy", easy(dropout).make(rng)["mask"][0])


# %%
def passes(case, upstream=normal, tolerance=1e-6):
    """Whether a common check finds nothing wrong with the backward of `case`."""
    rng = np.random.default_rng(0)
    inputs = case.make(rng)
    names = [k for k, v in inputs.items() if v.dtype.kind == "f" and k not in case.constants]
    out, cache = case.forward(*inputs.values())
    several = isinstance(out, tuple)
    dout = [upstream(rng, x.shape) for x in (out if several else (out,))]
    copies = tuple(np.array(d) for d in dout)
    grads = case.backward(copies if several else copies[0], cache)
    grads = grads if isinstance(grads, tuple) else (grads,)

    def objective(point):
        out, _ = case.forward(*(inputs | point).values())
        return sum((x * d).sum() for x, d in zip(out if several else (out,), dout, strict=True))

    numbers = [numeric_gradient(lambda x, k=k: objective({k: x}), inputs[k], "central difference") for k in names]
    if len(grads) != len(names) or any(g is None or g.shape != n.shape for g, n in zip(grads, numbers, strict=True)):
        return False
    return all(np.allclose(g, n, rtol=tolerance) for g, n in zip(grads, numbers, strict=True))


print("dropout as it is passes:", passes(dropout))

# %%
tries = {
    "strict": passes,
    "all ones": lambda case: passes(case, upstream=all_ones),
    "loose": lambda case: passes(case, tolerance=1e-2),
    "easy inputs": lambda case: passes(easy(case)),
    "all three": lambda case: passes(easy(case), all_ones, 1e-2),
    "satnp": lambda case: check_gradients(case).passed,
}
layer_bugs = [bug for bug in bugs.BUGS if bug.case.startswith("layers/")]
missed = {name: [] for name in tries}
for bug in layer_bugs:
    with bugs.in_place(bug) as broken, np.errstate(all="ignore"):
        case = checks.find(bug.case)
        if case.backward is bug.function:  # planted in satnp, but the case still holds the right one
            case = replace(case, backward=broken)
        for name, attempt in tries.items():
            missed[name] += [bug.name] if attempt(case) else []
for name, found in missed.items():
    print(textwrap.fill(f"{name}: {len(found)} of {len(layer_bugs)} pass. {'; '.join(found)}", 78, subsequent_indent="    "))
assert not missed["satnp"]

# %% [markdown]
# The inputs cost most: a mask of ones, words without a repeat and positive numbers hide six mistakes more, whatever the
# tolerance. A tolerance of 1e-2 hides the 0.01 %. Ones alone hide none of THESE (they hid A, B and C above). With easy
# inputs they hide swapped halves: `expand` lays two outputs side by side, and where ReLU stops nothing the two halves of
# dout are alike. Writing into dout passes everything that does not forbid it. Each weakness seems small, and each is
# common. satnp's check has none of the four.

# %% [markdown]
# ## Check by number
#
# This is satnp's check: everything of this lesson in one function. Find in it the random upstream, the read-only arrays, the
# complex step with ComplexWarning as an error, G, and the call of `diagnose`.

# %%
show(check_gradients)

# %% [markdown]
# Write a `Case` for a layer of your own in ten lines. Ours is out = x * t with t = tanh(a) and a = x @ W. W is square, so
# that t has the shape of x, and x has two roads:
#
#     dt = dout * x
#     da = dt * (1 - t*t)
#     dW = x.T @ da
#     dx = dout * t + da @ W.T           x in the product, and x in a


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

# %% [markdown]
# And the layers of satnp, as `satnp gradcheck layers` prints them (`checks.cases()` is the table). The second column is the
# central difference, as a second opinion: six digits fewer, the same verdict.

# %%
print("largest error        complex step   central difference")
for name in ("affine", "relu", "softmax", "cross_entropy zero weights", "lstm_cell", "additive_scores"):
    case = checks.find(f"layers/{name}")
    exact, rough = check_gradients(case), check_gradients(case, method="central difference")
    print(f"{name:26} {exact.error:9.1e}   {rough.error:9.1e}")
    assert exact.passed and rough.passed

# %% [markdown]
# What no gradient check sees: a wrong FORWARD. The right backward of a wrong forward passes. Against that stand the plain
# twins in satnp/reference/, identities (weights that sum to 1) and a look at what comes out.

# %% [markdown]
# ## Break it
#
# A number above 1e-10 says that something is wrong. `diagnose` says what kind of wrong, by comparing the two arrays: are
# they one multiple of each other? a transpose? right except in some rows? First on your own layer. Say before you run what
# each of these is:


# %%
def broken(change):
    def backward(dout, cache):
        x, W, t = cache
        da = dout * x * (1 - t * t)
        return change(dout, x, W, t, da)

    return check_gradients(replace(swing, backward=backward)).findings


mistakes = {
    "one road lost": lambda dout, x, W, t, da: (dout * t, x.T @ da),
    "da.T @ x": lambda dout, x, W, t, da: (dout * t + da @ W.T, da.T @ x),
    "mean over the batch": lambda dout, x, W, t, da: (dout * t + da @ W.T, x.T @ da / len(x)),
    "minus": lambda dout, x, W, t, da: (-dout * t - da @ W.T, x.T @ da),
    "first example only": lambda dout, x, W, t, da: (dout * t + np.eye(3)[0, :, None] * (da @ W.T), x.T @ da),
}
for name, change in mistakes.items():
    for finding in broken(change):
        print(textwrap.fill(f"{name} -> {finding.kind}: {finding.sentence}", 78, subsequent_indent="    "))

# %% [markdown]
# Now the zoo: one of each kind.
#
#     missing      None, or too few gradients      shape        another shape than the input
#     non-finite   inf or NaN                      zero         nothing flows back
#     sign         -1 times the right one          factor       another multiple of the right one
#     transposed   the right one, transposed       mask         not 0 where it should be 0
#     block        right except in some rows       scattered    right except here and there
#     term         wrong everywhere                mutation     writes to what it was given

# %%
seen = set()
for bug in layer_bugs:
    for finding in bugs.check(bug).findings:
        if finding.kind not in seen:
            seen.add(finding.kind)
            print(f"\n{bug.name}: `{bug.old}`\n    became `{bug.new}`")
            print(textwrap.fill(f"{finding.kind}: {finding.sentence}", 78, initial_indent="    ", subsequent_indent="    "))
print(f"\n{len(seen)} kinds")
assert len(seen) == 12

# %% [markdown]
# A sentence names the pattern, not the line: it says where to look. `diagnose` can also be asked directly, with your own
# array and the numbers. Here a gradient that is 0.01 % too large:

# %%
n = rng.standard_normal((4, 5))
print(diagnose("dW", 1.0001 * n, n).sentence)
print(diagnose("dW", n * (1 + 1e-12), n))

# %% [markdown]
# ## Exercises
#
# 1. The one-sided difference in float32: what do the formulas say for the best h and its error? Plot
#    errors_of(one_sided, np.float32) over hs, as in the first figure. You are right with h = 4.9e-4 and an error of at most
#    4.9e-4. With np.float32(0.7) and np.float32(4.9e-4) it happens to be 7.7e-5.
# 2. f(x) = sqrt(abs(sin(x))) at x = 4: the complex step gives 0. Mend f. You are right if it gives 0.375681.
# 3. z = np.random.default_rng(0).standard_normal(100_000): for how many of them is central(relu, z, 1e-3) neither 0 nor 1,
#    to within 1e-6? Say first how many you expect (the density of a normal number at 0 is 0.4): 80. You are right with 75.
# 4. The second derivative is in the real part: f'' = 2 (f(x) - Re f(x + ih)) / h^2. Has this one a valley? Find the best h
#    for exp at 0.7 among powers of ten. You are right with h = 1e-4 and a relative error of 6e-9.
# 5. Write the pair of out = x / r, with r = sqrt(m + 0.01) and m the mean of x*x over the row, x (3, 5). Derive first: each
#    x_j has two roads, the second through r, with dr/dx_j = x_j / (5 r). You are right with
#    dx_j = dout_j / r - x_j (sum over k of dout_k x_k) / (5 r^3). Its Case passes with an error below 1e-14. Then forget
#    the 5: `diagnose` says "term".

# %% [markdown]
# ## Next
#
# 03, convolution: the first layer whose fast form no longer looks like its formula. You now have the means to trust it.
