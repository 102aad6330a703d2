# %% [markdown]
# # Answers to lesson 22

# %% [markdown]
# ## 1
#
# - hint: The expected reward is the mean of the rewards, weighted by $p$.
# - hint: $\partial J / \partial z_k = p_k (r_k - J)$, and the rewards 0 lie below $J$.
#
# $J = 8/2 = 4$, and the derivative is $(1/2 \cdot 4, 1/4 \cdot (-4), 1/4 \cdot (-4)) = (2, -1, -1)$.

# %%
p_1, r_1 = np.array([0.5, 0.25, 0.25]), np.array([8.0, 0.0, 0.0])
near("dJ/dz", p_1 * (r_1 - (p_1 * r_1).sum()), np.array([2.0, -1.0, -1.0]))

# %% [markdown]
# ## 2
#
# - hint: The sum is a quadratic function of $b$. Set its derivative to 0.
# - hint: The derivative is $-2 \sum_y p(y) (r(y) - b) |g(y)|^2$.
#
# $b = \sum p r |g|^2 / \sum p |g|^2$: the mean of the rewards with the weights $p |g|^2$. It would be $J$ if $|g|^2$ were
# the same for all captions. The standard deviation is hardly smaller than with $b = J$ (4.14 and 4.20).

# %%
best_b = (p * r * square).sum() / (p * square).sum()
variance = (p * (r - best_b) ** 2 * square).sum() - truth @ truth
print(f"b = {best_b:.2f}, standard deviation / norm for S = 5: {np.sqrt(variance / 5) / np.linalg.norm(truth):.2f}")
assert variance <= of_one

# %% [markdown]
# ## 3
#
# - hint: `estimate("exact", ...)` uses `weight = p * r`. Only the weight changes.
# - hint: $\nabla \mathrm{H} = -\sum_y \nabla p(y) \, (\log p(y) + 1)$. The 1 adds nothing, since the probabilities sum to 1.
#
# The weight is `p * (r - 0.5 * log_p)`, with the log-probability of each caption. An improbable caption gets a higher
# reward, so the captioner keeps several captions.

# %%
def train_exact(mine, weight_of, steps=120):
    """Train `mine` with the exact gradient -> log_p of the captions at the end"""
    states = {n: {"step": 0, "mean": np.zeros_like(x), "square": np.zeros_like(x)} for n, x in mine.items()}
    for _ in range(steps):
        log_p_now, cache_now = policy_forward(mine, captions)
        for n, g in surrogate_backward(weight_of(of_captions(log_p_now)), log_p_now, cache_now)[1].items():
            adam(mine[n], g, states[n], 0.02)
    return of_captions(policy_forward(mine, captions)[0])


for c in (0.0, 0.5):
    end = train_exact({n: x.copy() for n, x in params.items()}, lambda log_p, c=c: np.exp(log_p) * (r - c * log_p))
    entropy = -(np.exp(end) * end).sum()
    print(f"c = {c}: expected reward {(np.exp(end) * r).sum():.2f}, entropy {entropy:.3f}")
assert round(entropy, 3) == 0.132

# %% [markdown]
# ## 4
#
# - hint: Cross-entropy is the same loss with fixed weights: 1/2 for each reference, 0 for all other captions.
# - hint: Find the rows of the references in `sentences_of_all`, and train twice with the same parameters.
#
# Cross-entropy makes both references probable. "a red square" has the larger reward, and now the factor $p(y)$ of its
# gradient is not small.

# %%
target = np.zeros(len(captions))
target[[sentences_of_all.index(text) for text in references[0]]] = 0.5
mine = {n: x.copy() for n, x in params.items()}
after_cross_entropy = train_exact(mine, lambda log_p: target, 60)
end = train_exact(mine, lambda log_p: np.exp(log_p) * r)
print(f"{sentences_of_all[end.argmax()]!r}, expected reward {(np.exp(end) * r).sum():.2f}")
assert sentences_of_all[end.argmax()] == "a red square"

# %% [markdown]
# ## 5
#
# - hint: A reward may use the scene itself: the objects in `scene.objects` have `size`, `colour` and `shape`.
# - hint: A sentence about an object of the scene contains, for example, "cyan triangle". Give a reward for that, and
#   subtract a little for each word.
#
# The reward is 1 if the sentence names the colour and the shape of one of the objects, minus .1 for each word. Three words
# cost .3, which is less than the 1 for the object, so a sentence that names one has the larger reward.

# %%
def names_one(sentence, scene):
    return any(f"{thing.colour} {thing.shape}" in sentence for thing in scene.objects)


train_with(lambda sentence, scene: names_one(sentence, scene) - 0.1 * len(sentence.split()))
said = measured()[2]
decoder.flat[:] = start
length, share = np.mean([len(x.split()) for x in said]), np.mean([names_one(*pair) for pair in zip(said, test, strict=True)])
print(*said[:3], f"{length:.1f} words, {share:.3f} name an object", sep="\n")
assert length < 4 and share > 0.9
