# %% [markdown]
# # Answers to lesson 16

# %% [markdown]
# ## 1
#
# - hint: An `if` on elements is written `xp.where(condition, one, other)`.
# - hint: The decorator is `one_kernel`.
#
# One line after `xp = xp_of(x)`. The kernel has the condition for each element, so it is one launch.

# %%
from satnp.arrays.backend import xp_of


@one_kernel
def leaky_relu(x):
    xp = xp_of(x)
    return xp.where(x > 0, x, 0.1 * x)


x = rng.standard_normal((N, H))
print(leaky_relu.kernel)
with strict.budget() as used:
    there = leaky_relu(strict.asarray(x))
near("leaky ReLU", there.get(), np.where(x > 0, x, 0.1 * x), within=1e-15)
print("launches", used.launches)
assert used.launches == 1

# %% [markdown]
# ## 2
#
# - hint: Define a function for each, decorate it inside `try`, and catch `formulas.NotElementwise`.
# - hint: Which of them are not in the list of what may be written? Which of them mixes elements?
#
# `x ** 2` is not in the list (write `x * x`); without its first line, `xp` is not known in the formula; `x @ x` mixes
# elements. Several assignments at once and a minus sign are translated.

# %%
refused = []


def square(x):
    return x**2


def root(x):
    return xp.sqrt(x)


def pair(x):
    a, b = x, 2 * x
    return a + b


def product(x):
    return x @ x


def minus(x):
    return -x


for formula in (square, root, pair, product, minus):
    try:
        one_kernel(formula)
    except formulas.NotElementwise:
        refused.append(formula.__name__)
print("refused:", *refused)
assert refused == ["square", "root", "product"]

# %% [markdown]
# ## 3
#
# - hint: `kernels.softmax_gradient(dalpha, alpha)`; `kernels.softmax_gradient.__wrapped__` is its definition.
# - hint: `with strict.budget() as lines:` counts what is launched inside.
#
# The definition is a product, a sum, a subtraction and a product: 4 launches. By hand it is 1.

# %%
dalpha, alpha = strict.asarray(rng.standard_normal((N, 7))), kernels.softmax(strict.asarray(rng.standard_normal((N, 7))))
with strict.budget() as lines:
    kernels.softmax_gradient.__wrapped__(dalpha, alpha)
with strict.budget() as kernel:
    kernels.softmax_gradient(dalpha, alpha)
print(f"its definition {lines.launches} launches, by hand {kernel.launches}")
assert (lines.launches, kernel.launches) == (4, 1)

# %% [markdown]
# ## 4
#
# - hint: `training_step` returns the loss as an array on the device; appending it to a list does not wait.
# - hint: `strict.stack(losses).get()` copies all of them at once.
#
# Python only waits where it needs a value. A hundred losses in one array need one wait; `float(loss)` in each step waits a
# hundred times.

# %%
here, losses = world(3, strict), []
with strict.budget() as once:
    for _ in range(100):
        losses.append(training_step(sat, *here)[0])
    values = strict.stack(losses).get()
with strict.budget() as each:
    for _ in range(100):
        float(training_step(sat, *here)[0])
print(f"waits: {once.syncs} and {each.syncs}; loss {values[0]:.3f} -> {values[-1]:.3f}")
assert (once.syncs, each.syncs) == (1, 100)

# %% [markdown]
# ## 5
#
# - hint: The cell prints a number of launches for each word and one for each step.
# - hint: With 17.0 a word and 108, what is it for 40 words?
#
# A line: $40 \cdot 17 + 108 = 788$.

# %%
counts = launches["hoisted"]
per_word = (counts[-1] - counts[0]) / (lengths[-1] - lengths[0])
predicted = counts[0] + (40 - lengths[0]) * per_word
here = world(40, strict)
with strict.budget() as used:
    training_step(sat, *here)
print(f"predicted {predicted:.0f}, counted {used.launches}")
assert used.launches == predicted
