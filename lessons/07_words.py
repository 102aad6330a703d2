# %% [markdown]
# # 07 Words: embedding, cross-entropy, masks, repeated ids
#
# - time: 35 minutes
# - cpu: 5 seconds
# - before: 02
# - equations: Xu et al. 2015, eqs. 1, 7 and the first term of 14
# - about: satnp.layers.embedding_backward
#
# A word goes in as a row of a table and comes out as a probability among all words. Both ends have a trap: a
# word that occurs twice must teach its row twice, and a probability must never be computed before its
# logarithm.

# %%
import numpy as np
from kit import near, save, show
from matplotlib.figure import Figure

from satnp.data.captions import Vocabulary, pad
from satnp.layers import (
    affine_backward,
    affine_forward,
    cross_entropy_backward,
    cross_entropy_forward,
    embedding_backward,
    embedding_forward,
    log_softmax,
    vocabulary_backward,
    vocabulary_forward,
)
from satnp.proof import bugs
from satnp.proof.gradcheck import numeric_gradient

np.set_printoptions(precision=4, suppress=True, linewidth=80)
rng = np.random.default_rng(0)
print("ready")

# %% [markdown]
# Four captions. Every word gets a number, its id. Ids 0 to 3 are special: `<pad>` fills up short captions,
# `<start>` is the first word the network is given, `<end>` the last it has to say, `<unk>` any word that is not
# in the table.

# %%
sentences = "a red dog", "a cat on a red mat", "two dogs", "a dog on a mat by a cat"
vocabulary = Vocabulary.build([s.split() for s in sentences], min_count=1)
captions, mask = pad([vocabulary.encode(s.split()) for s in sentences])
print("\n".join(f"{k:2} {word}" for k, word in enumerate(vocabulary.words)))
print(captions)

# %% [markdown]
# `captions` is (N, T+1). The network is given word t and must say word t+1, so `captions[:, :-1]` is what goes
# in and `captions[:, 1:]` what shall come out. `mask` (N, T) is 1 where a word counts.
#
# ## Predict
#
# The table E is (V, M): V words, M numbers each. Going in is a look-up, out = E[ids]. Let ids be 4, 6, 4, 4
# (the word "a" three times) and let the way back bring [1, 1], [10, 10], [100, 100], [1000, 1000]. What must
# stand in row 4 of dE? And what does `dE[ids] += dout` put there?
#
# Row 4 has three users. Nudge it, and all three change the loss by their own little: to first order the changes
# add up. So its gradient is the sum of what the three send back.
#
# ## Run

# %%
show(embedding_forward)
show(embedding_backward)

# %%
ids = np.array([4, 6, 4, 4])
dout = np.array([[1.0, 1], [10, 10], [100, 100], [1000, 1000]])
V, M = 9, 2
fancy, add_at = np.zeros((V, M)), np.zeros((V, M))
fancy[ids] += dout
np.add.at(add_at, ids, dout)
ours = embedding_backward(dout, embedding_forward(ids, np.zeros((V, M)))[1])
print("                      row 4   row 6")
for name, dE in (("dE[ids] += dout", fancy), ("np.add.at", add_at), ("embedding_backward", ours)):
    print(f"{name:18} {dE[4, 0]:8.0f}{dE[6, 0]:8.0f}")

# %% [markdown]
# `dE[ids] += dout` means dE[ids] = dE[ids] + dout: NumPy reads rows 4, 6, 4, 4 (all zeros), adds, and writes
# them back. Row 4 is written three times and the last one wins. Nothing is raised. `np.add.at` adds one after
# the other, as it should. satnp sorts the ids, so that equal ones stand side by side, and adds up each run of
# equal ones (`np.add.reduceat`): the same sums, and on large batches faster (lesson 15 measures).
#
# Why it is right can be seen in one line. Let `onehot` have one row for each of the ids: zeros, and a 1 at the
# id. Then E[ids] = onehot E, an ordinary product, and so dE = onehot^T dout. That product is the definition;
# nobody computes it, V being 10,000.

# %%
onehot = np.eye(V)[ids]
near("sorted sums against one-hot", ours, onehot.T @ dout, within=1e-15)
near("add.at against one-hot", add_at, onehot.T @ dout, within=1e-15)

# %% [markdown]
# How common are repeated words? Count in our four captions.

# %%
given = captions[:, :-1][mask > 0]
words, counts = np.unique(given, return_counts=True)
print(", ".join(f"{vocabulary.words[word]} {count}" for word, count in zip(words, counts, strict=True)))
print(f"{len(given)} words given, {len(words)} different: {1 - len(words) / len(given):.0%} would be lost")

# %% [markdown]
# ## Cross-entropy, derived
#
# The network makes V numbers, the logits z, and says p_k = exp(z_k) / sum_j exp(z_j): the softmax. If y is the
# right word, the loss is -log p_y, in nats, the unit of the natural logarithm: 0 if it was certain and right,
# log V if it knew nothing. Write it out:
#
#     loss = -log p_y = log(sum_j exp(z_j)) - z_y
#
# The derivative with respect to z_k: the first part gives exp(z_k) / sum_j exp(z_j) = p_k, the second -1 where
# k = y.
#
#     dz = p - onehot(y)
#
# What it says: lower every word by the probability it was given, raise the right one by 1. The sum over k is 0.
#
# ## Predict
#
# Three words have logits 0, 0 and -120, in float32, and the third is the right one. What is the loss? What do
# you get from np.log(p)? And for logits 0, 0 and 120?

# %%
z = np.float32([[0, 0, -120], [0, 0, 120]])
with np.errstate(all="ignore"):
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    print("p of the right word   ", p[:, 2])
    print("-log(p)               ", -np.log(p[:, 2]))
print("-log_softmax          ", -log_softmax(z)[:, 2])

# %%
show(log_softmax)
show(cross_entropy_forward)
show(cross_entropy_backward)

# %% [markdown]
# exp(-120) = 8e-53 is below the smallest float32, so p is 0 and its logarithm -inf: one such word makes the
# loss of the whole batch infinite. exp(120) is above the largest, and inf / inf is no number. `log_softmax`
# never forms p. It uses two facts. Adding the same number to all logits changes no p: so subtract the largest,
# and no exp overflows. And log p_k = z_k - log(sum_j exp(z_j)), where the sum now has a 1 in it (the largest
# word's), so that its logarithm is harmless.
#
# ## Look

# %%
far = np.linspace(0, 140, 281, dtype=np.float32)
z = np.stack([np.zeros_like(far), -far], axis=1)
with np.errstate(divide="ignore"):
    naive = -np.log(np.exp(z[:, 1]) / np.exp(z).sum(axis=1))
stable = -log_softmax(z)[:, 1]
last = np.flatnonzero(np.isfinite(naive))[-1]
worst = abs(naive - stable)[: last + 1].max()
print(f"-log(p) is finite up to a distance of {far[last]:.1f}, and off by up to {worst:.2f} nats before")

# %%
figure = Figure(figsize=(7, 6))
axes = figure.subplots(2, 1, sharex=True)
axes[0].plot(far, stable, "-", color="C0", label="-log_softmax")
axes[0].plot(far[: last + 1], naive[: last + 1], "--", color="C3", label="-log(p)")
axes[0].axvline(far[last], color="C3", linestyle=":", label="from here on -log(p) is inf")
axes[0].set_ylabel("loss in float32 (nats)")
axes[0].legend()
axes[1].plot(far[: last + 1], abs(naive - stable)[: last + 1], ".", color="C3")
axes[1].set_ylabel("error of -log(p) (nats)")
axes[1].set_xlabel("how far the right word lies below the other (logits)")
save(figure, "07_log_p", "-log(p) grows coarse, as p runs out of bits, and ends at 103 nats; log_softmax goes on")

# %% [markdown]
# ## Check by number
#
# A small model of next words, with both ends: logits = E[given] W + b. Its loss is the mean over the N captions
# of the sum of -log p over the words that count. So each word has the weight mask / N, and a padded word 0.


# %%
def loss_and_gradients(captions, mask, E, W, b):
    """-> loss, dE, dW, db, dlogits"""
    given, wanted, weights = captions[:, :-1].ravel(), captions[:, 1:].ravel(), mask.ravel() / len(mask)
    x, looked_up = embedding_forward(given, E)
    logits, affine = affine_forward(x, W, b)
    loss, entropy = cross_entropy_forward(logits, wanted, weights)
    dlogits = cross_entropy_backward(1.0, entropy)
    dx, dW, db = affine_backward(dlogits, affine)
    return loss, embedding_backward(dx, looked_up), dW, db, dlogits


V, M = len(vocabulary), 3
mask = mask.astype(float)
parameters = E, W, b = rng.standard_normal((V, M)), rng.standard_normal((M, V)), rng.standard_normal(V)
loss, *gradients, dlogits = loss_and_gradients(captions, mask, *parameters)
print(f"loss {loss:.4f} nats a caption, {loss * len(mask) / mask.sum():.4f} a word; log V = {np.log(V):.4f}")

# %%
for k, name in enumerate(("dE", "dW", "db")):

    def of_one(x, k=k):
        return loss_and_gradients(captions, mask, *parameters[:k], x, *parameters[k + 1 :])[0]

    near(name, gradients[k], numeric_gradient(of_one, parameters[k]), within=1e-12)

# %% [markdown]
# A test that costs nothing: with all logits equal, every word has p = 1/V, so the loss is log V nats a word. A
# new model that prints much more than log V has something wrong at this end.

# %%
nothing = loss_and_gradients(captions, mask, E, 0 * W, 0 * b)[0]
near("loss of knowing nothing", nothing * len(mask) / mask.sum(), np.log(V), within=1e-14)
print("sum of dlogits over the words, largest:", abs(dlogits.sum(axis=1)).max())

# %% [markdown]
# ### Padding changes nothing
#
# Fill each caption up with five more `<pad>`. The mask gets five zeros more. The loss and all gradients must
# stay as they are, and what flows back to a padded word must be 0, exactly.

# %%
longer = np.pad(captions, ((0, 0), (0, 5)))
longer_mask = np.pad(mask, ((0, 0), (0, 5)))
loss2, *gradients2, dlogits2 = loss_and_gradients(longer, longer_mask, *parameters)
near("loss with more padding", loss2, loss, within=1e-14)
for name, g, wanted in zip(("dE", "dW", "db"), gradients2, gradients, strict=True):
    near(f"{name} with more padding", g, wanted, within=1e-14)
print("largest gradient at a padded word:", abs(dlogits2[longer_mask.ravel() == 0]).max())
assert not dlogits2[longer_mask.ravel() == 0].any() and not gradients[0][0].any()

# %% [markdown]
# Two habits that break it: a mean over all N T places (the loss then falls when you pad), and a loss that
# counts `<pad>` as a word (a network soon learns to say `<pad>` after `<pad>`, and the printed loss looks
# splendid).

# %%
print("           sum / words that count   sum / all places   <pad> counted as a word")
for what, c, m in (("as it is", captions, mask), ("longer", longer, longer_mask)):
    total = loss_and_gradients(c, m, *parameters)[0] * len(m)
    counted = loss_and_gradients(c, np.ones_like(m), *parameters)[0] * len(m)
    print(f"{what:10} {total / m.sum():22.4f} {total / m.size:18.4f} {counted / m.size:25.4f}")

# %% [markdown]
# ### In one
#
# For V = 10,000 the logits are the largest array of the whole model. `vocabulary_forward` does affine and
# cross-entropy in one, so that they are held once, and p - onehot is written in their place. Same numbers:

# %%
given, wanted, weights = captions[:, :-1].ravel(), captions[:, 1:].ravel(), mask.ravel() / len(mask)
in_one, cache = vocabulary_forward(E[given], W, b, wanted, weights)
near("loss in one", in_one, loss, within=1e-14)
near("dW in one", vocabulary_backward(1.0, cache)[1], gradients[1], within=1e-14)

# %% [markdown]
# ## Break it
#
# satnp.proof.bugs plants these mistakes in the real source and runs the check of that layer. What does each check
# say? Two of the checks are named after what makes them see: "repeated ids", "zero weights". With other inputs
# they would be blind.

# %%
for bug in bugs.BUGS:
    if bug.case.startswith(("layers/embedding", "layers/cross_entropy")):
        result = bugs.check(bug)
        print(f"{bug.name} ({bug.case.removeprefix('layers/')})")
        print("   ", result.findings[0].sentence.partition(";")[0])
        assert not result.passed

# %% [markdown]
# By hand: the mistake of the first Predict, on different words and on repeated ones.

# %%
for ids in (np.array([4, 6, 5, 8]), np.array([4, 6, 4, 4])):
    dout, dE = rng.standard_normal((4, M)), np.zeros((V, M))
    dE[ids] += dout
    right = np.eye(V)[ids].T @ dout
    print(ids, f"off by {np.linalg.norm(dE - right) / np.linalg.norm(right):.2f}")

# %% [markdown]
# ## Exercises
#
# 1. One word has the logits (0, 1, 2) and the right one is the first. Work out loss and dlogits by hand. Check
#    with `cross_entropy_forward`: 2.4076 nats, dlogits (-0.9100, 0.2447, 0.6652).
# 2. Perplexity is exp(nats a word): "as unsure as among so many equal words". What is it for a model that knows
#    nothing? Check: with W = 0 and b = 0 above it is V = 13, to rounding.
# 3. Set b to the log of how often each word is wanted (add 0.01 to each count) and W to 0. The loss a word must
#    fall from log V to about the entropy of the counts. Check: 2.127 nats a word, from 2.565.
# 4. Label smoothing: the target is 0.9 onehot + 0.1 / V. Derive dlogits. Check by the complex step, below
#    1e-12; and its sum over the words is still 0.
# 5. Tied tables: the logits are h E^T, the same E that words came in by. dE has two users. Write both passes
#    and check dE by the complex step, below 1e-12. Which rows of dE are zero now?
#
# ## Next
#
# 08: where to look. The softmax comes again, over places of the photo in place of words, and three ways to make
# its scores.
