# %% [markdown]
# # Answers to lesson 15

# %% [markdown]
# ## 1
#
# - hint: $p = 0.4$ and $s = 2$.
# - hint: The whole takes $1 - 0.4 + 0.2$ of its time before.
#
# It takes 0.8 of the time, so it is $1 / 0.8 = 1.25$ times as fast. Even with $s \to \infty$ it would be at most
# $1 / 0.6 = 1.67$ times: the other 60 % remain.

# %%
share, faster = 0.4, 2
print(f"{1 / (1 - share + share / faster):.2f} times")
near("Amdahl", 1 / (1 - share + share / faster), 1.25)

# %% [markdown]
# ## 2
#
# - hint: The keys of one caption are a product of (L, D) and (D, A).
# - hint: Once per word, it is done $T$ times.
#
# $N L D A = 3.3 \cdot 10^9$ once per caption, and $T$ times as many, $65.8 \cdot 10^9$, once per word.

# %%
count = 64 * 196 * 512 * 512
print(f"once per word {20 * count:.3g}, once per caption {count:.3g}")
assert round(20 * count / 1e9, 1) == 65.8 and round(count / 1e9, 1) == 3.3

# %% [markdown]
# ## 3
#
# - hint: $(x W)$ is a matrix (N, D), $(W y)$ a vector (D,).
# - hint: A product of (N, D) and (D, D) takes $N D^2$ multiplications.
#
# $x (W y)$: 120 times fewer multiplications. A product of matrices is associative, but its cost is not: begin with the
# vector.

# %%
x, W, y = rng.standard_normal((200, 300)), rng.standard_normal((300, 300)), rng.standard_normal(300)
left, right = 200 * 300**2 + 200 * 300, 300**2 + 200 * 300
works = {"(x W) y": lambda: (x @ W) @ y, "x (W y)": lambda: x @ (W @ y)}
near("the same numbers", works["x (W y)"](), works["(x W) y"](), within=1e-12)
for (name, ms), count in zip(interleaved(works).items(), (left, right), strict=True):
    print(f"{name}: {count:,} multiplications, {ms:.3f} ms")
assert (left, right) == (18_060_000, 150_000)

# %% [markdown]
# ## 4
#
# - hint: Use `rng.standard_normal(1_000_000, dtype=np.float32)`, and write the constants as Python floats, which keep
#   float32.
# - hint: `interleaved` measures both.
#
# Both compute the same function. The time is that of one exp and a division, or of one tanh; which NumPy computes faster
# depends on its version and on the processor. The form with tanh never overflows (lesson 02 needs that for complex
# numbers).

# %%
x = rng.standard_normal(1_000_000, dtype=np.float32)
works = {"exp": lambda: 1 / (1 + np.exp(-x)), "tanh": lambda: 0.5 * np.tanh(0.5 * x) + 0.5}
near("the same numbers", works["tanh"](), works["exp"](), within=1e-6)
for name, ms in interleaved(works).items():
    print(f"{name}: {ms:.2f} ms")

# %% [markdown]
# ## 5
#
# - hint: `np.arange(4000)` are words that are all different, `np.full(4000, 7)` is one word 4000 times.
# - hint: `embedding_backward` takes `dout` and the cache of `embedding_forward(ids, table)`.
#
# The times are printed below. `np.add.at` adds one row after the other in both cases. `embedding_backward` sorts the ids
# and adds up runs of equal ids, which are 4000 runs of one row, or one run of 4000 rows.

# %%
rows = rng.standard_normal((4000, 64))
for name, ids in (("all different", np.arange(4000)), ("one word", np.full(4000, 7))):
    table = np.zeros((4000, 64))
    cache = embedding_forward(ids, table)[1]

    def with_add_at(ids=ids):
        dE = np.zeros((4000, 64))
        np.add.at(dE, ids, rows)
        return dE

    works = {"np.add.at": with_add_at, "embedding_backward": lambda cache=cache: embedding_backward(rows, cache)}
    near(name, works["embedding_backward"](), works["np.add.at"](), within=1e-12)
    print("   ", ", ".join(f"{work} {ms:.2f} ms" for work, ms in interleaved(works).items()))
