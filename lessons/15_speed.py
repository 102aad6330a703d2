# %% [markdown]
# # 15 Speed: where the time goes
#
# - time: 50 minutes
# - cpu: 30 seconds
# - before: 03, 09, 11
# - equations: Xu et al. 2015, eqs. 1-14, twice: as printed and as run
# - about: satnp.captioners.show_attend_tell.forward
#
# The same numbers can be computed in a fraction of the time. First measure where the time goes. Then move out of the loop
# what need not be in it, and keep the arrays inside it small enough for the processor's cache. After every change, compare
# the numbers with the plain form.
#
# Other lessons show the plain form of a function. This one shows the fast forms on purpose: how they differ from the
# printed equations is its subject.

# %%
import satnp
from satnp.arrays import runtime

runtime.tune()  # as the commands do, before NumPy is imported: how this process uses memory and threads

# isort: split
from contextlib import ExitStack
from statistics import median
from time import perf_counter
from unittest.mock import patch

import numpy as np
from kit import graph, near, save, show
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from satnp.arrays import optim
from satnp.arrays.threads import cores
from satnp.captioners import show_attend_tell as sat
from satnp.captioners.contract import Batch
from satnp.layers import attention, conv, embedding_backward, embedding_forward, lstm, winograd
from satnp.reference import conv as plain
from satnp.reference import show_attend_tell as reference

threadpool_limits(1)  # with more, the times would say how busy the other cores are
rng = np.random.default_rng(0)
print(f"satnp {satnp.__version__}, NumPy {np.__version__}, threads: {cores()}")

# %% [markdown]
# ## How to measure
#
# Times vary: other programs run, the clock of the processor changes, and so does the content of its cache. So:
#
# - Run everything once before the measurement (the first call fills caches and tables).
# - Run the candidates in turn, A B C A B C, so that a slow moment affects all of them.
# - Take the median: a single interruption changes a mean.
#
# Every time below is one of your machine, now. No check in this lesson depends on a time; the checks compare numbers.


# %%
def interleaved(works, rounds=7):
    """{name: function} -> {name: median milliseconds}, the functions taken in turn."""
    seconds = {name: [] for name in works}
    for round_ in range(rounds + 1):
        for name, work in works.items():
            start = perf_counter()
            work()
            if round_:
                seconds[name].append(perf_counter() - start)
    return {name: 1000 * median(times) for name, times in seconds.items()}


x, two = rng.standard_normal((300, 200)), np.ones(2)
works = {"x + x": lambda: x + x, "tanh x": lambda: np.tanh(x), "x.T @ x": lambda: x.T @ x, "two + two": lambda: two + two}
for name, ms in interleaved(works, 50).items():
    print(f"{name:9} {ms:.4f} ms")

# %% [markdown]
# An addition of 60,000 numbers takes much less time than their tanh. An addition of two numbers takes almost no
# arithmetic: its time is the cost of the call itself.
#
# ## Predict
#
# A training step of the captioner has $N = 16$ captions of $T = 12$ words, $L = 49$ locations of $D = 64$ numbers, and the
# sizes $M = 64$ of a word, $H = 96$ of the state, $A = 64$ of the attention and $V = 1500$ of the vocabulary. Which part
# takes most of its time: attention, the LSTM, or the words at the end?
#
# Count the multiplications of one forward:
#
# | part | multiplications |
# |---|---|
# | attention | $T N L A$ for the scores (each with a tanh), $T N L D$ for the context |
# | LSTM | $T N (M + H + D) \cdot 4H$ |
# | words | $T N M V$ |
#
# ## Run

# %%
N, T, L = 16, 12, 49
config = sat.Config(V=1500, D=64, M=64, H=96, A=64, dropout=0)
V, D, M, H, A = config.V, config.D, config.M, config.H, config.A
millions = {"attention": T * N * L * (A + D), "LSTM": T * N * (M + H + D) * 4 * H, "words": T * N * M * V}
print(", ".join(f"{part} {count / 1e6:.1f}" for part, count in millions.items()), "million multiplications")


# %%
def model(dtype):
    """Parameters and batch; the same numbers in any dtype."""
    rng = np.random.default_rng(0)
    params = sat.init(config, rng)
    annotations, captions = rng.standard_normal((N, L, D)), rng.integers(4, V, (N, T + 1))
    return params.on(params.flat.astype(dtype)), Batch(annotations.astype(dtype), captions, np.ones((N, T), dtype))


def training_step(module, params, batch):
    """-> loss, gradients"""
    grads = params.zeros_like()
    loss, cache = module.forward(params, config, batch, sat.Noise())
    module.backward(cache, grads)
    return loss, grads


params, batch = model(np.float32)
loss, grads = training_step(sat, params, batch)
print(f"loss {loss:.4f} nats a caption, {len(grads.flat):,} gradients")

# %% [markdown]
# Now measure each part. For a moment, the functions that the captioner calls are replaced by functions that read the clock
# before and after.

# %%
PARTS = {
    "attention": ["attention_keys", "attention_scores_forward", "soft_attention", "attention_look_backward",
                  "context_weights_backward", "attention_keys_backward"],
    "beta gate": ["gate_forward", "gate_backward_preactivation"],
    "LSTM cell": ["lstm_cell_forward", "lstm_cell_backward"],
    "deep output": ["deep_output_forward", "deep_output_backward"],
    "words": ["vocabulary_forward", "vocabulary_backward_factors"],
    "embedding": ["embedding_forward", "embedding_backward"],
}  # fmt: skip
print("clocks for", sum(map(len, PARTS.values())), "functions")


# %%
def timed(spent, part, function):
    def call(*args, **where):
        start = perf_counter()
        found = function(*args, **where)
        spent[part] += perf_counter() - start
        return found

    return call


def clocked_step():
    """-> {part: milliseconds} of a training step with Adam"""
    spent, memory = dict.fromkeys(PARTS, 0.0), optim.new_state("adam", params.flat)
    with ExitStack() as stack:
        for part, names in PARTS.items():
            for name in names:
                stack.enter_context(patch.object(sat, name, timed(spent, part, getattr(sat, name))))
        start = perf_counter()
        _, grads = training_step(sat, params, batch)
        spent["products of the loop, rest"] = perf_counter() - start - sum(spent.values())
    start = perf_counter()
    optim.adam(params.flat.copy(), grads.flat, memory, 1e-3)
    spent["Adam"] = perf_counter() - start
    return {part: 1000 * seconds for part, seconds in spent.items()}


print("the first step took", round(sum(clocked_step().values()), 1), "ms")

# %%
steps = [clocked_step() for _ in range(9)]
parts = {part: median(step[part] for step in steps) for part in steps[0]}
whole = sum(parts.values())
for part, ms in parts.items():
    print(f"{part:28} {ms:7.2f} ms {ms / whole:6.1%}")
print(f"{'a training step':28} {whole:7.2f} ms")

# %% [markdown]
# ## Look

# %%
figure = Figure(figsize=(7, 3.5))
axis = figure.subplots()
axis.barh(list(parts), list(parts.values()))
axis.invert_yaxis()
axis.set_xlabel("time of a training step (ms, median of 9)")
save(figure, "15_parts", "attention has few of the multiplications and much of the time: tanh, and many calls")

# %% [markdown]
# A count of multiplications is misleading. A product of large matrices runs near the limit of the machine; a tanh costs as
# much as many multiplications; and for small arrays, most of the time is the call itself.
#
# ## Out of the loop
#
# `satnp/reference/show_attend_tell.py` is the paper step by step: every equation at every step.
# `satnp/captioners/show_attend_tell.py` computes the same, but four things are outside the loop, because they do not
# depend on $h_{t-1}$:
#
# - the keys $a W_a + b_a$: once per caption in place of once per word;
# - the word inputs $E[y] W_x + b$ of all words: one product before the loop;
# - the deep output and the $V$ logits of all words: one product after it;
# - every weight gradient: one product over all steps (lesson 06 shows that a sum of products is one product).
#
# **Predict.** First the last of them alone: $T$ products of (H, N) by (N, 4H) and their sum, or one product of (H, TN) by
# (TN, 4H). The number of multiplications is the same. Is the time?

# %%
h, dgates = rng.standard_normal((T, N, H)), rng.standard_normal((T, N, 4 * H))
works = {
    "T products, added up": lambda: sum(h[t].T @ dgates[t] for t in range(T)),
    "one product": lambda: h.reshape(-1, H).T @ dgates.reshape(-1, 4 * H),
}
near("dW_h", works["one product"](), works["T products, added up"](), within=1e-13)
for name, ms in interleaved(works, 15).items():
    print(f"{name:22} {ms:.3f} ms")

# %% [markdown]
# Now the two models. First the numbers, in float64: the loss and every gradient.

# %%
exact = model(np.float64)
(loss_fast, fast), (loss_plain, step_by_step) = (training_step(module, *exact) for module in (sat, reference))
near("loss", loss_fast, loss_plain, within=1e-13)
near("all gradients", fast.flat, step_by_step.flat, within=1e-12)

# %%
works = {
    "step by step": lambda: training_step(reference, params, batch),
    "hoisted": lambda: training_step(sat, params, batch),
}
times = interleaved(works, 5)
print(", ".join(f"{name} {ms:.1f} ms" for name, ms in times.items()), end=": ")
print(f"{times['step by step'] / times['hoisted']:.1f} times as fast")

# %% [markdown]
# ## Blocks and the cache
#
# `dout * (1 - out * out)` is three operations, and NumPy makes an array for each. If the arrays are larger than the
# processor's cache, each operation reads its inputs from memory and writes its result there, so the arithmetic waits.
# Instead, cut the arrays into blocks and apply all three operations to one block at a time: the result of one operation is
# still in the cache when the next one needs it.
#
# **Predict** the curve of the time as a function of the block size. Very small blocks are slow, too, for another reason.
# Which?

# %%
size = 1 << 22
dout, out = rng.standard_normal(size, dtype=np.float32), np.tanh(rng.standard_normal(size, dtype=np.float32))
result = np.empty_like(out)


def in_blocks(block):
    for start in range(0, size, block):
        rows = slice(start, start + block)
        result[rows] = dout[rows] * (1 - out[rows] * out[rows])


BLOCKS = [1 << k for k in (10, 12, 14, 16, 18, 20, 22)]
times = interleaved({block: lambda block=block: in_blocks(block) for block in BLOCKS}, 5)
for block, ms in times.items():
    print(f"blocks of {block:8} numbers ({4 * block // 1024:6} KiB) {1e6 * ms / size:.2f} ns a number")
in_blocks(BLOCKS[2])
near("in blocks", result, dout * (1 - out * out), within=1e-15)

# %%
figure = Figure(figsize=(7, 4))
axis = figure.subplots()
kib = [4 * block // 1024 for block in times]
axis.semilogx(kib, [1e6 * ms / size for ms in times.values()], "o-", base=2)
axis.set_xticks(kib, kib)
axis.set_ylim(0)
axis.set_xlabel("size of a block of one array (KiB)")
axis.set_ylabel("time (ns a number)")
save(figure, "15_blocks", "small blocks: the calls cost; large blocks: the arrays do not fit into the cache")

# %% [markdown]
# `@elementwise` does this for every formula whose results have a million numbers or more, and divides the blocks among all
# cores (one core here, by the limit at the top). The formula itself is not changed. Here is the LSTM's gradient of lesson
# 06:

# %%
arrays = [rng.standard_normal((4096, 1024), dtype=np.float32) for _ in range(8)]
works = {"plain": lambda: lstm._cell_gradient.__wrapped__(*arrays), "@elementwise": lambda: lstm._cell_gradient(*arrays)}
for ours, wanted in zip(works["@elementwise"](), works["plain"](), strict=True):
    assert np.array_equal(ours, wanted)
for name, ms in interleaved(works, 5).items():
    print(f"{name:13} {ms:.1f} ms")

# %% [markdown]
# The results are equal to the last bit. On one core the gain is small, and with a short formula there may be none: a fast
# memory is nearly as good as a cache.
#
# ## A tanh without tanh
#
# Additive attention computes $T N L A$ tanhs: $\tanh(k + q)$ with $k$ a key, made once per caption, and $q$ the query of
# this step. Let
#
# $$
# F = \exp(-2k), \quad E = \exp(2q), \quad R = \frac{F}{F + E}
# $$
#
# $F$ is computed once per caption, and $E$ has only $N A$ numbers per step. Then $\exp(2(k + q)) = E / F$, and with
# $y = k + q$
#
# $$
# \begin{aligned}
# \tanh(y) &= \frac{\exp(2y) - 1}{\exp(2y) + 1} \\
#   &= 1 - \frac{2}{\exp(2y) + 1} \\
#   &= 1 - \frac{2}{E/F + 1} \\
#   &= 1 - 2R
# \end{aligned}
# $$
#
# So an addition and a division replace a tanh. **Predict** where this fails. (How large may $|k|$ be in float32?)
#
# In the listings, `exponentials` is $F$, and `saturation` computes $R$: with `ratio` its `x` and `y` are $F$ and $E$, and
# otherwise the keys and the query.

# %%
show(attention.exponentials)
show(attention.saturation)

# %% [markdown]
# The gradient of this form ($dk$ is that of the loss by $k$), in the drawing, goes through $R$: its slope is $R (1 - R)$,
# divided by $F$ or $E$, which the exponentials multiply again. So `satnp/layers/attention.py` computes
# $dk = 4 \, de \, v R (1 - R)$ directly.

# %%
small = {"keys": rng.standard_normal((2, 5, 3)), "query": rng.standard_normal((2, 3)), "v": rng.standard_normal(3)}
small["c"], de = np.ones(1), rng.standard_normal((2, 5))
e, cache = attention.additive_scores_forward(*small.values(), attention.exponentials(small["keys"]))
gradients = dict(zip(("dkeys", "dquery", "dv", "dc"), attention.additive_scores_backward(de, cache), strict=True))
steps = [
    ("F", "exp(-2 * keys)", {"keys": "-2 * dF * F"}),
    ("E", "exp(2 * query[:, None])", {"query": "(2 * dE * E)[:, 0]"}),
    ("R", "F / (F + E)", {"F": "dR * R * (1 - R) / F", "E": "-(dR * R * (1 - R)).sum(1, keepdims=True) / E"}),
    ("e", "(1 - 2 * R) @ v + c",
     {"R": "-2 * de[:, :, None] * v", "v": "np.einsum('nl,nla->a', de, 1 - 2 * R)", "c": "de.sum().reshape(1)"}),
]  # fmt: skip
values = small | gradients | {"e": e, "exp": np.exp}
see = "the ratio form of the scores; its gradients equal those of tanh"
graph("15_ratio", steps, values, {"N": 2, "L": 5, "A": 3}, {"e": de}, see)


# %%
def printed(keys, query, v, c):
    return np.tanh(keys + query[:, None, :]) @ v + c


for shape in ((N, L, A), (N, 196, 512)):  # as above; the paper's places and attention units
    keys, query, v, c = (rng.standard_normal(s, dtype=np.float32) for s in (shape, shape[::2], shape[2:], (1,)))
    F = attention.exponentials(keys)
    wanted = printed(*(x.astype(float) for x in (keys, query, v, c)))
    works = {
        "tanh, printed": lambda a=(keys, query, v, c): printed(*a),
        "tanh, blocks": lambda a=(keys, query, v, c): attention.additive_scores_forward(*a)[0],
        "ratio, blocks": lambda a=(keys, query, v, c, F): attention.additive_scores_forward(*a)[0],
    }
    times = interleaved(works, 9)
    print(f"keys {shape}")
    for name, work in works.items():
        print(f"  {times[name]:.3f} ms, ", end="")
        near(name, work(), wanted, within=3e-6)

# %% [markdown]
# For small arrays this form may be slower: its calls cost more than the tanh. For large ones it is faster; how much
# depends on the speed of NumPy's tanh on your processor. A fast form is fast from a certain size on, so measure at your
# sizes.
#
# ## Winograd
#
# Lesson 03 had three ways to compute a convolution. The plain sum is the definition. Here are the two fast ones at a size
# of VGG: 28 x 28 cells, 128 channels to 128. Winograd's form takes a quarter of the multiplications. How many digits does
# it lose?

# %%
small = [rng.standard_normal(shape) for shape in ((1, 7, 6, 3), (3, 3, 3, 4), (4,))]
near("winograd against the plain sum", winograd.correlate(*small, 1), plain.conv2d(*small, padding=1), within=1e-13)

# %%
photo, W, b = rng.standard_normal((2, 28, 28, 128)), rng.standard_normal((3, 3, 128, 128)) / 34, rng.standard_normal(128)
wanted = conv.whole_correlate(photo, W, b, 1, 1)
photo, W, b = (x.astype(np.float32) for x in (photo, W, b))
works = {
    "patches": lambda: conv.patches_correlate(photo, W, b, 1, 1),
    "winograd": lambda: winograd.correlate(photo, W, b, 1),
}
times = interleaved(works)
for name, work in works.items():
    print(f"{name:9} {times[name]:6.2f} ms, ", end="")
    near("float32", work(), wanted, within=5e-6)

# %% [markdown]
# Its error is a few times larger, about 2e-6. Its time is not a quarter: the transforms take time, too, and move memory.
#
# ## Check by number
#
# A float32 takes half the memory, and a register of the processor holds twice as many. **Predict** the ratio of the times,
# and how many digits the gradients lose. For comparison, the next cell also prints how far the gradient of one half of the
# minibatch is from that of the other half.

# %%
works = {
    "float32": lambda: training_step(sat, params, batch),
    "float64": lambda: training_step(sat, *exact),
}
times = interleaved(works, 5)
print(", ".join(f"{name} {ms:.1f} ms" for name, ms in times.items()))
near("loss in float32", loss, loss_fast, within=1e-6)
near("gradients in float32", grads.flat, fast.flat, within=1e-5)
halves = [training_step(sat, exact[0], Batch(*(x[part] for x in exact[1][:3])))[1] for part in (slice(0, 8), slice(8, 16))]
noise = np.linalg.norm(halves[0].flat - halves[1].flat) / np.linalg.norm(fast.flat)
print(f"the gradients of the two halves differ by {noise:.1f} times the norm of the whole")
assert noise > 0.01

# %% [markdown]
# Rounding in float32 changes the gradients in the seventh digit; another choice of captions changes all digits. So float32
# is exact enough for training. It is not for a gradient check, so satnp trains in float32 and checks in float64.
#
# ## Break it
#
# Fast and wrong. First: the sum over repeated words (lesson 07), in three ways.

# %%
ids, rows = rng.zipf(1.5, 4000) % 1000, rng.standard_normal((4000, 64))
table = np.zeros((1000, 64))
cache = embedding_forward(ids, table)[1]


def fancy():
    dE = np.zeros_like(table)
    dE[ids] += rows
    return dE


def add_at():
    dE = np.zeros_like(table)
    np.add.at(dE, ids, rows)
    return dE


works = {"dE[ids] +=": fancy, "np.add.at": add_at, "sorted sums": lambda: embedding_backward(rows, cache)}
times = interleaved(works)
for name, work in works.items():
    off = np.linalg.norm(work() - add_at()) / np.linalg.norm(add_at())
    print(f"{name:12} {times[name]:6.2f} ms, off by {off:.0e}")
near("sorted sums", works["sorted sums"](), add_at(), within=1e-12)
assert not np.allclose(fancy(), add_at())

# %% [markdown]
# The fastest one is wrong, so a measurement of time alone would choose it. Second: the ratio of exponentials without its
# guard, with keys of size 50.

# %%
large = np.float32([[[-50.0], [0], [50]]])
query = np.float32([[1]])
with np.errstate(over="ignore", invalid="ignore"):
    F, E = np.exp(-2 * large), np.exp(2 * query)
    print("unguarded    ", (1 - 2 * F / (F + E)).ravel())
print("exponentials ", attention.exponentials(large))
x, y, ratio = attention.summands(large, query[:, None], attention.exponentials(large))
R = attention.saturation(x, y, ratio, np.empty_like(large))
print("guarded      ", (1 - 2 * R).ravel())
near("guarded", 1 - 2 * R, np.tanh(large + query), within=1e-6)

# %% [markdown]
# $\exp(100)$ is too large for float32, and inf / inf is NaN. `exponentials` looks at the largest key and returns `None`;
# then `saturation` computes the tanh. A fast form needs the question "for which numbers is it right?", and a test on both
# sides of the answer.
#
# ## Exercises
#
# 1. Amdahl's law: a part takes the share $p$ of the time and becomes $s$ times as fast; then the whole takes $1 - p + p/s$
#    of its time before. If attention takes 40 % and you make it twice as fast, how much faster is the whole? Check: 1.25
#    times.
# 2. The paper's sizes: $N = 64$, $L = 196$, $D = A = 512$, $T = 20$. How many multiplications do the keys take, once per
#    word and once per caption? Check: 65.8e9 and 3.3e9.
# 3. $x W y$ with `x` (N, D), `W` (D, D), `y` (D,): is $(x W) y$ or $x (W y)$ faster? Count for $N = 200$, $D = 300$, then
#    measure with `interleaved`. Check: $N D^2 + N D = 18060000$ against $D^2 + N D = 150000$, and the same numbers to
#    1e-12.
# 4. Write the sigmoid as $1 / (1 + \exp(-x))$ and as $\frac{1}{2} \tanh(x/2) + \frac{1}{2}$. Measure both on a million
#    float32. Check: equal to 1e-6; which is faster depends on your NumPy.
# 5. `np.add.at` and `embedding_backward` on 4000 words that are all different, and on one word 4000 times: which is
#    faster? Check: equal to 1e-12 in both cases.
#
# ## Next
#
# 16: the GPU. There each kernel has to be launched, so the number of calls matters, too.
