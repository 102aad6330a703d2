# %% [markdown]
# # 07b Blind spots of a gradient check, and a zoo of bugs
#
# - time: 50 minutes
# - cpu: 50 seconds
# - before: 02, 06, 07
# - equations: none of the paper's
# - about: satnp.proof.gradcheck.check_gradients
#
# Lesson 02 built a check that is exact to fifteen digits. A check can still pass a wrong backward: because its measure is
# too lenient, because its upstream gradient is constant, or because its inputs do not reach the mistake. This lesson shows
# each of these blind spots with a mistake that goes through it, and then counts: how many of satnp's planted mistakes pass
# a common check, and how many pass its own?
#
# As before, $dx$ is the gradient of the loss by $x$.

# %% [markdown]
# ## Predict
#
# "Equal" needs a measure. Let $g$ be the array from the backward and $n$ the numerical gradient. Three measures are in
# use:
#
# - elementwise: the largest $|g_i - n_i| / \max(|g_i|, |n_i|)$
# - `np.allclose`: $|g_i - n_i| \le 10^{-8} + 10^{-5} |n_i|$ for all $i$
# - by norm: $|g - n| / |n|$, with the norm of the whole array
#
# Which measure is wrong for which arrays? Think of a right $g$ whose entries range from 1 to $10^{-9}$, compared with
# central differences; and of a $g$ that is twice too large, with all entries about $10^{-9}$ (a mean over many words, times
# a small weight).

# %% [markdown]
# ## Run

# %%
import textwrap
from dataclasses import replace

import numpy as np
from kit import graph, save, show
from matplotlib.figure import Figure

from satnp.layers import (
    affine_forward,
    cross_entropy_backward,
    cross_entropy_forward,
    embedding_forward,
    lstm_cell_backward,
    lstm_cell_forward,
    relu_backward,
    relu_forward,
    softmax_backward,
    softmax_forward,
    tanh_backward,
    tanh_forward,
)
from satnp.proof import bugs, checks
from satnp.proof.gradcheck import Case, check_gradients, numeric_gradient, relative_error

rng = np.random.default_rng(0)


def measures(g, n):
    elementwise = np.max(np.abs(g - n) / np.maximum(np.abs(g), np.abs(n)))
    return f"elementwise {elementwise:.0e}  allclose {np.allclose(g, n)!s:5}  by norm {relative_error(g, n):.0e}"


wide = np.linspace(0, 11, 12).reshape(3, 4)  # the slope of tanh falls from 1 to 1e-9
ones = np.ones((3, 4))
g = tanh_backward(ones, tanh_forward(wide)[1])
n = numeric_gradient(lambda x: tanh_forward(x)[0].sum(), wide, "central difference")
print("right, wide range, central:", measures(g, n))
print("right, wide, complex step: ", measures(g, numeric_gradient(lambda x: tanh_forward(x)[0].sum(), wide)))
small = 1e-9 * rng.standard_normal((3, 4))
print("TWICE the right one, small:", measures(2 * small, small))

# %% [markdown]
# The elementwise measure says that a right backward is 4 % wrong, at an entry ($10^{-9}$) that is hardly larger than the
# rounding error of the differences ($10^{-11}$). People then raise the tolerance to $10^{-2}$, and mistakes pass. Even
# against the complex step it is $10^{-8}$: there the backward itself has lost digits, in $1 - \mathrm{out}^2$ with
# $\mathrm{out}$ near 1. `allclose` has an absolute part of $10^{-8}$, so it accepts anything that small. The norm is right
# each time. satnp requires an error by norm below $10^{-10}$ AND that no element is wrong by more than $10^{-8}$ times the
# largest one.
#
# One case is left: a gradient that is truly zero. There $g$ and $n$ are both rounding errors of about $10^{-17}$, and
# their ratio means nothing. So $|g - n|$ is divided by at least a thousandth of $G$, the largest norm $|n|$ among the
# arrays of the same check:

# %%
show(relative_error)
g, n = 1e-17 * rng.standard_normal((2, 5))
print(f"two zeros up to rounding: without G {relative_error(g, n):.2f}, with G = 1: {relative_error(g, n, scale=1.0):.0e}")

# %% [markdown]
# ## Predict
#
# The next blind spot is the upstream gradient. Many checks use `out.sum()` as their loss, that is, an upstream gradient of
# all ones. Softmax (lesson 07) turns scores $e$ into weights $\alpha_i = \exp(e_i) / \sum_{k} \exp(e_k)$ that sum to 1.
# Its backward, which lesson 09 derives, is
#
# $$
# de_i = \alpha_i \left( d\alpha_i - \sum_{k} \alpha_k \, d\alpha_k \right)
# $$
#
# What is it if $d\alpha$ is all ones? Which of these wrong backwards will a check with `out.sum()` accept?
#
# | | wrong backward | mistake |
# |---|---|---|
# | A | zeros | no gradient at all |
# | B | 7 times the right one | a factor |
# | C | $\alpha_i (d\alpha_i - \bar{d\alpha})$ with the plain mean $\bar{d\alpha}$ | the mean is not weighted by $\alpha$ |
# | D | $\alpha_i \, d\alpha_i$ | the sum is forgotten |

# %% [markdown]
# ## Run

# %%
wrong = {  # functions of d, the upstream gradient, and c, the cache, which holds alpha
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
flow = [("alpha", "exp(scores) / total(exp(scores))", {"scores": "alpha * (dalpha - total(alpha * dalpha))"})]
values = {"scores": scores, "alpha": alpha, "exp": np.exp, "total": lambda x: x.sum(axis=1, keepdims=True)}
values["dscores"] = softmax_backward(dalpha, cache)
see = "total sums over a row; with dalpha = 1 the bracket is 1 - 1 = 0, whatever the scores are"
graph("07b_softmax", flow, values, {"N": 3, "L": 5}, {"alpha": dalpha}, see)

# %% [markdown]
# With all ones the loss of a row is $\sum_{i} \alpha_i = 1$ whatever the scores are. So the right gradient is 0, and A, B
# and C, which also give 0, pass. A random upstream gradient finds them all. A constant one hides other mistakes in other
# layers: a backward that never multiplies by `dout`, or that reads its entries in the wrong order. So: always a random,
# non-constant upstream gradient, for EVERY output.
#
# ## Predict
#
# The inputs can hide a mistake, too. For each of these wrong backwards there are inputs with which it is right. Which?
#
# | layer | wrong backward |
# |---|---|
# | affine | `dx = dout @ W` |
# | affine | `db = dout.mean(axis=0)` |
# | ReLU | `dx = dout` |
# | embedding | `dE[ids] = dout` |
# | cross-entropy of padded captions | the padded words count like the others |
# | LSTM cell | the gradient of the forget gate is 0 |

# %% [markdown]
# ## Run

# %%
N, H, r = 3, 5, rng.standard_normal
W = r((4, 4))
targets, logits, gates = np.array([2, 0, 3]), r((3, 6)), r((3, 4 * H))
all_words, padded = np.full(3, 1 / 3), np.array([1 / 3, 1 / 3, 0])


def no_forget(dout, cache):
    dgates, dc_prev = lstm_cell_backward(dout, cache)
    dgates[:, H : 2 * H] = 0
    return dgates, dc_prev


def once(dout, cache):
    dE = np.zeros(cache.shape)
    dE[cache.ids] = dout
    return dE


def with_padding(dloss, cache):
    return cross_entropy_backward(dloss, cache._replace(weights=all_words))


blind = [  # mistake, forward, wrong backward, inputs that hide it, inputs that show it
    ("dx = dout @ W", affine_forward, lambda d, c: (d @ c.W, c.x.T @ d, d.sum(axis=0)),
     {"x": r((3, 4)), "W": W + W.T, "b": r(4)}, {"x": r((3, 4)), "W": W, "b": r(4)}),
    ("db is a mean", affine_forward, lambda d, c: (d @ c.W.T, c.x.T @ d, d.mean(axis=0)),
     {"x": r((1, 4)), "W": W, "b": r(4)}, {"x": r((3, 4)), "W": W, "b": r(4)}),
    ("ReLU: dx = dout", relu_forward, lambda d, c: d, {"x": rng.uniform(0.1, 1, (3, 4))}, {"x": r((3, 4))}),
    ("dE[ids] = dout", embedding_forward, once,
     {"ids": np.array([4, 6, 1]), "E": r((9, 2))}, {"ids": np.array([4, 6, 4]), "E": r((9, 2))}),
    ("padded words count", cross_entropy_forward, with_padding,
     {"logits": logits, "targets": targets, "weights": all_words},
     {"logits": logits, "targets": targets, "weights": padded}),
    ("no forget gate", lstm_cell_forward, no_forget,
     {"gates": gates, "c_prev": np.zeros((N, H))}, {"gates": gates, "c_prev": r((N, H))}),
]  # fmt: skip
for mistake, forward, backward, hide, shows in blind:
    results = [check_gradients(Case(mistake, lambda _, x=x: x, forward, backward, ("weights",))) for x in (hide, shows)]
    print(f"{mistake:20}", *(f"passed: {result.passed!s:5}, error {result.error:.0e}  " for result in results))
    assert results[0].passed and not results[1].passed

# %% [markdown]
# On the left are the inputs that hide the mistake: a symmetric $W$; a batch of one, where a mean IS the sum; positive
# numbers, which never reach the other side of the kink; words that occur only once; captions without padding; and
# $c_{t-1} = 0$, so that the forget gate multiplies zeros. People choose such inputs because they are simple. So: random
# numbers of both signs, masks with zeros in them, ids that occur twice, sizes that differ, and more than one example.
#
# ## Predict
#
# The next mistake changes no result. This ReLU backward saves memory: it writes its result into the upstream gradient, an
# array that belongs to the caller. Now use it for $\mathrm{out} = \max(x, 0) + x$, where $x$ is used twice, so that
# $dx = d\mathrm{out} \odot 1[x > 0] + d\mathrm{out}$. What happens?
#
# ## Run


# %%
def thrifty_backward(dout, cache):
    dout *= cache.out > 0
    return dout


x, dout = rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
y, cache = relu_forward(x)
dx = relu_backward(dout, cache) + dout
uses = [("y", "np.maximum(x, 0)", {"x": "dy * (y > 0)"}), ("out", "y + x", {"y": "dout", "x": "dout"})]
see = "dout is used for both inputs of the sum, so no one may write to it"
graph("07b_two_uses", uses, {"x": x, "y": y, "dx": dx}, {"N": 3, "D": 4}, {"out": dout}, see)

copy = dout.copy()
print("alone, largest error:", np.abs(thrifty_backward(copy, cache) - relu_backward(dout, cache)).max())
copy = dout.copy()
found = thrifty_backward(copy, cache) + copy
print("with two uses, largest error:", np.abs(found - dx).max().round(3))
copy = dout.copy()
copy.flags.writeable = False  # as check_gradients does with inputs, parameters, cache and upstream gradients
try:
    thrifty_backward(copy, cache)
except ValueError as error:
    print("read-only:", error)

# %% [markdown]
# Alone it is right, so every comparison passes. With two uses the second one reads a changed `dout`. A related mistake is
# aliasing: the backward of an addition returns the SAME array twice, `return dout, dout`. That is right until someone adds
# to one of the two and the other changes as well. So in satnp no backward writes to what it receives, and the check makes
# all of these arrays read-only.
#
# The last blind spot is the tolerance. A gradient that is 0.01 % too large passes at $10^{-3}$, and in float32 a numerical
# gradient is often no more exact than that (lesson 02). That looks harmless; but a small term that was forgotten looks the
# same: a penalty with a small weight, an epsilon, one row in ten thousand.
#
# ## Predict
#
# Now count. `satnp.proof.bugs` is a zoo of bugs: real mistakes, each planted in satnp's own source while a check runs. We
# try those in single layers (you will meet some of these layers only later) with a common check: central differences,
# `np.allclose`, arrays that may be written to. It is weakened in one way at a time, then in all three. Last comes satnp's
# check. Which weakness hides most?
#
# | check | what is different |
# |---|---|
# | strict | nothing: random upstream gradient, tolerance 1e-6, the inputs of satnp's own cases |
# | all ones | upstream gradient of ones |
# | loose | tolerance 1e-2 |
# | easy inputs | positive numbers, masks and weights all 1, no id twice |

# %% [markdown]
# ## Run
#
# Each layer has a `Case` (lesson 02). Here is the one of dropout, which multiplies by a random mask of 0 and 1/0.6 (the
# share that it keeps is 0.6), and the same with easy inputs.


# %%
def easy(case):
    """The same case with inputs that are simple to choose."""

    def make(rng):
        found = {}
        for name, x in case.make(rng).items():
            number = np.ones(x.shape) if name in case.constants else rng.uniform(0.1, 1, x.shape)
            found[name] = number if x.dtype.kind == "f" else np.arange(len(x)) % (x.max() + 1)
        return found

    return replace(case, make=make)


dropout = checks.find("layers/dropout")
for name, case in (("satnp's", dropout), ("easy", easy(dropout))):
    print(f"{name:8} first row of the mask", case.make(np.random.default_rng(0))["mask"][0].round(2))


# %%
def normal(rng, shape):
    return rng.standard_normal(shape)


def all_ones(rng, shape):
    return np.ones(shape)


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
assert not missed["satnp"] and len(missed["easy inputs"]) > 5 * len(missed["loose"])
only_loose, only_ones = (set(missed[name]) - set(missed["strict"]) for name in ("loose", "all ones"))
print(f"found by the strict check, missed by the loose one: {only_loose}; by all ones: {only_ones or 'none'}")

# %% [markdown]
# ## Look

# %%
figure = Figure(figsize=(7, 2.6), layout="constrained")
axes = figure.subplots()
bars = axes.barh(list(missed), [len(found) for found in missed.values()])
axes.bar_label(bars, padding=3)
axes.invert_yaxis()
axes.set(xlabel=f"mistakes that pass, of {len(layer_bugs)}", xlim=(-0.3, 23), xticks=range(0, 21, 5))
save(figure, "07b_missed", "easy inputs hide most; satnp's check, in the last row, finds all")

# %% [markdown]
# The inputs matter most: masks of ones, words without a repeat and positive numbers hide many mistakes at any tolerance. A
# tolerance of $10^{-2}$ hides the gradient that is 0.01 % too large. Ones alone hide none of THESE mistakes (they hid A, B
# and C above), but the three weaknesses together hide two that none of them hides alone. The one that writes into its
# upstream gradient passes every check that does not forbid it. satnp's check has none of these weaknesses, and its cases
# were chosen so that it finds every mistake of the zoo. (A mistake that nobody has thought of can still pass.)
#
# ## Check by number
#
# This is satnp's check: all of lesson 02 and of this lesson in one function. Find in it the random upstream gradient, the
# read-only arrays, the complex step with ComplexWarning as an error, the largest norm $G$ (`scale`), and the call of
# `diagnose`.

# %%
show(check_gradients)
print("largest error        complex step   central difference")
for name in ("affine", "relu", "softmax", "cross_entropy zero weights", "lstm_cell", "additive_scores"):
    case = checks.find(f"layers/{name}")
    exact, rough = check_gradients(case), check_gradients(case, method="central difference")
    print(f"{name:26} {exact.error:9.1e}   {rough.error:9.1e}")
    assert exact.passed and rough.passed

# %% [markdown]
# `satnp gradcheck layers` prints such a line for each layer (`checks.cases()` is the table). The second column is the
# central difference, a second opinion: about five digits fewer, the same verdict.
#
# ## Break it
#
# Now the zoo: one mistake of each kind that `diagnose` and `check_gradients` can tell apart.
#
# | kind | what is seen | kind | what is seen |
# |---|---|---|---|
# | missing | `None`, or too few gradients | shape | another shape than the input |
# | non-finite | inf or NaN | zero | zeros only |
# | sign | $-1$ times the right one | factor | another multiple of the right one |
# | transposed | the right one, transposed | mask | not 0 where it should be 0 |
# | block | wrong in some rows or columns only | scattered | wrong in single places |
# | term | wrong everywhere | mutation | the backward writes to what it received |
#
# Before you run the cell: for which layers do you expect "mask", "block" and "scattered"?

# %%
seen = set()
for bug in layer_bugs:
    for finding in bugs.check(bug).findings:
        if finding.kind not in seen:
            seen.add(finding.kind)
            print(f"\n{bug.name}: `{bug.old}`\n    became `{bug.new}`")
            print(textwrap.fill(f"{finding.kind}: {finding.sentence}", 78, initial_indent="    ", subsequent_indent="    "))
print(f"\n{len(seen)} kinds")
assert len(seen) >= 12

# %% [markdown]
# "Mask" is dropout's, whose backward let a gradient through where the mask is 0. "Block" is the embedding's: only the row
# of a repeated word is wrong. "Scattered" is the cross-entropy's: only the target words are wrong. A sentence that names
# rows, columns or places tells you which line to read.
#
# ## Exercises
#
# 1. An upstream gradient that is constant within each row, for example rows of 2, of $-1$ and of 7: which of A to D pass
#    with it? Derive it from the formula, then run it. Check: the largest errors of A, B and C are below 1e-14, that of D
#    is not.
# 2. The mean over the words that count: $\mathrm{out}_n = \sum_{t} m_{nt} x_{nt} / \sum_{t} m_{nt}$, with `x` (2, 4, 3)
#    and the mask `m = [[1, 1, 0, 0], [1, 1, 1, 0]]`. Write the pair and its `Case`; a wrong backward divides by 4, the
#    number of all words. Check: yours has an error below 1e-14. The wrong one passes with a mask of ones, and with the
#    mask above its error is about 0.4.
# 3. Check the LSTM cell with an upstream gradient of 0 for $h$ and a random one for $c$. A wrong backward returns 0 for one
#    of the four gates. For which gate does it pass? Check: with $do = 0$ the largest error is still below 1e-14, with
#    $df = 0$ it is not.
# 4. `n = np.ones(10); n[3] = 1e-9`, and `g` equals `n`, but is twice as large at place 3. What do the three measures say?
#    Does `diagnose("g", g, n)` of `satnp.proof.gradcheck` find it? And with `n[3] = 1e-10`? Check: 0.5, True, 3e-10, and
#    yes. With 1e-10 it returns `None`.
# 5. Plant a mistake of your own:
#    `bugs.Bug("dW a mean", affine_backward, "x.T @ dout", "x.T @ dout / len(x)", case="layers/affine", kinds=None)`, with
#    `affine_backward` from `satnp.layers`. What will `bugs.check` say of it? Check: "factor", 0.333333, and that 3 is the
#    first axis of `x`.
#
# ## Next
#
# 08, attention scores: from here on every layer is checked with random upstream gradients and inputs that reach
# everything.
