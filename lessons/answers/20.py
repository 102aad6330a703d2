# %% [markdown]
# # Answers to lesson 20

# %% [markdown]
# ## 1
#
# - hint: The exponentials of the scores are 1, 1 and 6. What is their sum?
# - hint: For the first formula you need $z$, for the second the context $c$ of the photo alone.
#
# The weights are 1/8, 1/8 and 6/8, so $\beta = 3/4$ and $z = 4/8 + 0 + 6 = 6.5$. The first formula gives
# $de_s = \beta (s - z) = 3/4 \cdot 1.5$. The photo's context is $c = 2$, so the second gives
# $3/4 \cdot 1/4 \cdot (8 - 2)$. Both are 1.125.

# %%
locations, s_1 = np.array([4.0, 0.0]), 8.0
by_hand = softmax(np.array([0.0, 0.0, np.log(6)]))
z_1, beta_1 = by_hand @ [*locations, s_1], by_hand[-1]
near("beta", beta_1, 0.75)
near("z", z_1, 6.5)
near("de_s, first formula", beta_1 * (s_1 - z_1), 1.125)
near("de_s, second formula", beta_1 * (1 - beta_1) * (s_1 - locations.mean()), 1.125)

# %% [markdown]
# ## 2
#
# - hint: $\beta$ is a logistic function of $e_s$ minus the log of the sum of the other exponentials.
# - hint: The logistic function is 1/2 at 0. The parameter $w$ of the trained decoder is `trained.w`.
#
# $\beta = 1/2$ needs $e_s = \log \sum_k \exp(0) = \log 196 = 5.28$. With more locations the sentinel needs a larger score
# for the same weight. The bound of the trained decoder is far above that.

# %%
near("the score for one half", np.log(196), 5.28, 1e-3)
near("its weight", softmax(np.array([0.0] * 196 + [np.log(196)]))[-1], 0.5)
bound = np.abs(trained.w).sum()
print(f"bound of a score in the trained decoder {bound:.2f}")
near("the bound", bound, 13.05, 1e-3)

# %% [markdown]
# ## 3
#
# - hint: $z$ is a sum of two products. By how much does it change if $\beta$ rises by a small $\epsilon$?
# - hint: $d\beta = dz \cdot (s - c)$. Then comes the slope of the sigmoid, and $h$ has the weights $u$.
#
# The gate depends on $h$ only. The sentinel's softmax compares $e_s$ with the scores of the locations: if one location
# fits the query very well, its score takes weight from the sentinel. A gate is computed without these scores. The form
# $\beta (1 - \beta) \, dz \cdot (s - c)$ is the same in both.

# %%
def gate_forward_20(h, s, c, u):
    beta = sigmoid(h @ u)
    return beta * s + (1 - beta) * c, (h, s, c, u, beta)


def gate_backward_20(dz, cache):
    h, s, c, u, beta = cache
    dx = (dz * (s - c)).sum(axis=1, keepdims=True) * beta * (1 - beta)
    return dx @ u.T, beta * dz, (1 - beta) * dz, h.T @ dx


gate_inputs = {name: rng.standard_normal((N, 9)) for name in ("h", "s", "c")} | {"u": rng.standard_normal((9, 1))}
dz_3 = rng.standard_normal((N, 9))
found_3 = gate_backward_20(dz_3, gate_forward_20(**gate_inputs)[1])
for (name, x), gradient in zip(gate_inputs.items(), found_3, strict=True):
    near(f"d{name}", gradient, numeric_gradient(
        lambda x, name=name: (gate_forward_20(**(gate_inputs | {name: x}))[0] * dz_3).sum(), x
    ))  # fmt: skip

# %% [markdown]
# ## 4
#
# - hint: The call is `follow(trained, trained_config, seen, ids, see_all=0.0)`; then take the log p of the true words, as
#   the lesson does for `runs`.
# - hint: Compare the mean over the places of each word with `runs["as it is"]`.
#
# "below" and "under" lose most, then the colours and the shapes. The mean of the photo says which colours and shapes there
# are. "of" needs no photo at all.

# %%
log_p_4, _ = follow(trained, trained_config, seen, ids, see_all=0.0)
nats_4 = -np.take_along_axis(log_p_4, ids[:, 1:, None], axis=2)[:, :, 0]
print(f"all words {nats_4[mask > 0].mean():.3f}")
near("nats a word without the mean", nats_4[mask > 0].mean(), 0.837, 1e-3)
loses = {}
for word, *_ in table:
    here = (targets == model.vocabulary.words.index(word)) & (mask > 0)
    loses[word] = float((nats_4 - nats)[here].mean())
print({word: round(x, 3) for word, x in sorted(loses.items(), key=lambda item: -item[1])})
assert set(sorted(loses, key=loses.get)[-2:]) == {"below", "under"} and abs(loses["of"]) < 5e-4

# %% [markdown]
# ## 5
#
# - hint: Which state does the first step read? See `photo_forward`.
# - hint: What is $h_0^\top d\mathrm{gates}$ for $h_0 = 0$?
#
# The first step reads $h_0 = 0$, so `dW_h` is exactly 0, with and without the bugs. The second and the third bug were seen
# in `dW_h` only, so now neither is found in these four arrays; `db` would find both. A check needs at least two steps for
# every weight of the recurrence.

# %%
batch = Batch(annotations, batch.captions[:, :2], np.ones((N, 1)))
right = satnp_gradients()
assert not right.W_h.any()
found_5 = []
for bug in (bug for name in NAMES for bug in bugs.BUGS if bug.name == name):
    with bugs.in_place(bug):
        wrong = satnp_gradients()
    differs = any(np.abs(wrong[w] - right[w]).max() > 1e-10 for w in ("W_s", "W_g", "W_v", "W_h"))
    found_5 += [bug.name] if differs else []
    assert np.abs(wrong.b - right.b).max() > 1e-10
print(found_5)
assert found_5 == [NAMES[0], NAMES[3]]
