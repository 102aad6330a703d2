# %% [markdown]
# # 15 Speed: where the time goes
#
# - time: 45 minutes
# - cpu: 30 seconds
# - before: 03, 09, 11
# - equations: Xu et al. 2015, eqs. 1-14, twice: as printed and as run
# - about: satnp.captioners.show_attend_tell.forward
#
# The same numbers can be had in a fraction of the time. Measure first where the time goes, then take out of the
# loop what need not be in it, keep what is in it small enough for the cache, and after every change hold the
# numbers against the plain form.

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
from kit import near, save, show
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
# Times vary: other programs, the clock of the processor, what lies in its cache. So:
#
# - Run everything once before the clock starts (the first call fills caches and tables).
# - Run the candidates in turn, A B C A B C, so that a slow second hits all of them.
# - Take the median: one interruption spoils a mean.
#
# Every time below is of your machine at this moment. In this lesson no check depends on a time; checks are
# about numbers.


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


x = rng.standard_normal((300, 200))
for name, ms in interleaved({"x + x": lambda: x + x, "tanh x": lambda: np.tanh(x), "x^T x": lambda: x.T @ x}).items():
    print(f"{name:8} {ms:.3f} ms")

# %% [markdown]
# ## Predict
#
# A training step of the captioner: N = 16 captions of T = 12 words, L = 49 places of D = 64 numbers, embedding
# M = 64, state H = 96, attention A = 64, vocabulary V = 1500. Which takes the largest part of it: attention,
# the LSTM, or the words at the end?
#
# Count multiplications, for one pass forward. Attention: T N L A for the scores (each with a tanh), T N L D for
# the context. LSTM: T N (M + H + D) 4H. Words: T N M V.
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
# Put a clock round each part: for a moment the functions that the captioner calls are replaced by ones that
# look at the clock before and after.

# %%
PARTS = {
    "attention": ["attention_keys", "attention_scores_forward", "soft_attention", "attention_look_backward",
                  "context_weights_backward", "attention_keys_backward"],
    "beta gate": ["gate_forward", "gate_backward_preactivation"],
    "LSTM cell": ["lstm_cell_forward", "lstm_cell_backward"],
    "deep output": ["deep_output_forward", "deep_output_backward"],
    "words": ["vocabulary_forward", "vocabulary_backward"],
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


print("a step took", round(sum(clocked_step().values()), 1), "ms, the first time")

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
# Counting multiplications misleads. A product of large matrices runs near the machine's limit; a tanh costs as
# much as many multiplications; and small arrays cost the call itself, about a microsecond each, whatever is in
# them.
#
# ## Out of the loop
#
# `satnp/reference/show_attend_tell.py` is the paper step by step: every equation at every step.
# `satnp/captioners/show_attend_tell.py` computes the same with four things taken out of the loop, because they
# do not depend on h_(t-1):
#
# - keys = a W_a + b_a, once a caption in place of once a word;
# - the word inputs E[y] W_x + b of all words, one product before the loop;
# - the deep output and the V logits of all words, one product after it;
# - every weight gradient, one product over all steps (lesson 06 shows why a sum of products is one).
#
# **Predict.** First that last one, alone: T products of (H, N) by (N, 4H) and their sum, or one of (H, T N) by
# (T N, 4H). The multiplications are the same. Is the time?

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
# Now the two models. **Check by number** first, in float64: the loss and every gradient.

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
# `dout * (1 - out * out)` is three operations, and NumPy makes an array for each. If the arrays are larger than
# the processor's cache, each operation fetches its operands from memory and writes its result there: the
# arithmetic waits. Cut the arrays into blocks and take each block through all three: what was just made is
# still in the cache.
#
# **Predict** the curve of time against the size of a block. Very small blocks are slow for another reason.
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
save(figure, "15_blocks", "left, the calls themselves cost; right, the arrays fall out of the cache; the best lies between")

# %% [markdown]
# `@elementwise` does this for every formula with results of a million numbers or more, and takes the blocks on
# all cores (here one, by the limit at the top). The formula itself stays as it is. The LSTM's gradient of
# lesson 06:

# %%
arrays = [rng.standard_normal((4096, 1024), dtype=np.float32) for _ in range(8)]
works = {"plain": lambda: lstm._cell_gradient.__wrapped__(*arrays), "@elementwise": lambda: lstm._cell_gradient(*arrays)}
for ours, wanted in zip(works["@elementwise"](), works["plain"](), strict=True):
    assert np.array_equal(ours, wanted)
for name, ms in interleaved(works, 5).items():
    print(f"{name:13} {ms:.1f} ms")

# %% [markdown]
# Equal to the last bit. On one core the gain is small, and with a short formula there may be none: a fast
# memory does nearly as well as a cache. Several cores share one memory, but each has a cache of its own.
#
# ## A tanh without tanh
#
# Additive attention takes T N L A tanh's: tanh(k + q) with k a key, made once a caption, and q the query of
# this step. Let
#
#     F = exp(-2k)   once a caption,      E = exp(2q)   N A numbers a step,      R = F / (F + E)
#
# Then exp(2(k + q)) = E / F, and
#
#     tanh(y) = (exp(2y) - 1) / (exp(2y) + 1) = 1 - 2 / (exp(2y) + 1) = 1 - 2 / (E/F + 1) = 1 - 2R
#
# An addition and a division in place of a tanh. **Predict** where it breaks down. (How large may |k| be in
# float32?)

# %%
show(attention.exponentials)
show(attention.saturation)


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
# For small arrays the detour loses: the calls cost more than the tanh. For large ones it wins, by how much
# depends on how good NumPy's tanh is on your processor. A fast form has a size from which on it is fast;
# measure at yours.
#
# ## Winograd
#
# Lesson 03 had three ways to a convolution. Its plain sum is the definition. Here are the two fast ones at a
# size of VGG: 28 x 28 cells, 128 channels to 128. Winograd's takes a quarter of the multiplications; what does
# it cost in exactness?

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
# A few times less exact, about 2e-6. Its time is not a quarter: the transforms cost, and they move
# memory.
#
# ## Check by number
#
# float32 takes half the memory and has twice as many numbers in a register of the processor. **Predict** the ratio
# of the times, and how many digits the gradients lose.

# %%
works = {
    "float32": lambda: training_step(sat, params, batch),
    "float64": lambda: training_step(sat, *exact),
}
times = interleaved(works, 5)
print(", ".join(f"{name} {ms:.1f} ms" for name, ms in times.items()))
near("loss in float32", loss, loss_fast, within=1e-6)
near("gradients in float32", grads.flat, fast.flat, within=1e-5)

# %% [markdown]
# Six digits are plenty for training, where the noise of a minibatch is larger by far. They are not enough for a
# gradient check: so satnp trains in float32 and checks in float64.
#
# ## Break it
#
# Fast and wrong. First: the sum over repeated words (lesson 07), three ways.

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
# A profile alone would have chosen badly. Second: the ratio of exponentials without its guard. Keys of size 50
# are nothing unusual late in a bad training.

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
# exp(100) is no float32, and inf / inf is NaN. `exponentials` looks at the largest key and says None;
# `saturation` then takes the tanh. A fast path needs the question "for which numbers?" and a test on both sides
# of the answer.
#
# ## Exercises
#
# 1. Amdahl's law: a part that takes the share p of the time becomes s times as fast; the whole then takes 1 - p
#    + p/s. If the share of attention is 40 % and you make it twice as fast, how much faster is the whole?
#    Check: 1.25 times.
# 2. Paper's sizes: N = 64, L = 196, D = A = 512, T = 20. How many multiplications do the keys take, once a word
#    and once a caption? Check: 65.8e9 and 3.3e9.
# 3. x W y with x (N, D), W (D, D), y (D,): (x W) y or x (W y)? Count for N = 200, D = 300, then measure with
#    `interleaved`. Check: N D² + N D = 18,060,000 against D² + N D = 150,000, and the same numbers to 1e-12.
# 4. Write sigmoid as 1 / (1 + exp(-x)) and as tanh(x/2)/2 + 1/2. Time both on a million float32. Check: equal
#    to 1e-6; which is faster depends on your NumPy.
# 5. `np.add.at` and `embedding_backward` on words that are all different, and on one word 4000 times: who wins?
#    Check: equal to 1e-12 in both.
#
# ## Next
#
# 16: the GPU, where a call costs more and arithmetic less, so that all of this counts twice.
