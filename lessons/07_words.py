# %% [markdown]
# # 07 Words: embedding, cross-entropy, masks, repeated ids
#
# - time: 40 minutes
# - cpu: 5 seconds
# - before: 02
# - equations: Xu et al. 2015, eqs. 1, 7 and the first term of 14
# - about: satnp.layers.embedding_backward
#
# A word enters the network as a row of a table, and leaves it as a probability for each word of the vocabulary. At both ends
# a mistake is easily made. If a word occurs twice, the gradients of both occurrences must be added to its row. And the
# logarithm of a probability must not be computed from the probability.

# %%
import numpy as np
from kit import graph, near, save, show
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
# Here are four captions. Every word has a number, its id. The ids 0 to 3 are special: `<pad>` fills up short captions,
# `<start>` is the first input of the network, `<end>` is the last word that it must predict, and `<unk>` stands for any word
# that is not in the table.

# %%
sentences = "a red dog", "a cat on a red mat", "two dogs", "a dog on a mat by a cat"
vocabulary = Vocabulary.build([s.split() for s in sentences], min_count=1)
captions, mask = pad([vocabulary.encode(s.split()) for s in sentences])
print("\n".join(f"{k:2} {word}" for k, word in enumerate(vocabulary.words)))
print(captions)

# %% [markdown]
# `captions` is (N, T+1). At step t the network reads word t and must predict word t+1, so `captions[:, :-1]` is the input
# and `captions[:, 1:]` is the target. `mask` (N, T) is 1 where the target is a word that counts, and 0 where it is padding.
#
# ## Predict
#
# The table E is (V, M): V words, M numbers for each. The forward pass is a look-up, `out = E[ids]`. Let `ids` be 4, 6, 4, 4
# (the word "a" three times), and let the upstream gradients be [1, 1], [10, 10], [100, 100], [1000, 1000]. We write $dX$ for
# the gradient of the loss with respect to X. What must row 4 of $dE$ be? And what does `dE[ids] += dout` make it?
#
# Row 4 has three users. A small change of it changes the loss through all three, and to first order these changes add up.
# So its gradient is the sum of what the three send back.
#
# ## Run

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
# `dE[ids] += dout` means `dE[ids] = dE[ids] + dout`. NumPy reads rows 4, 6, 4, 4 (all zeros), adds `dout`, and writes the
# four results back. Row 4 is written three times, and the last result remains. There is no error message. `np.add.at` adds
# the rows one after the other, as it should.
#
# The definition is a matrix product. Let `onehot` have one row for each id, with a 1 at the id and 0 elsewhere. Then
#
# $$
# \mathrm{out} = \mathrm{onehot} \, E, \quad dE = \mathrm{onehot}^{\top} \, d\mathrm{out},
# $$
#
# by the rule of the affine map (lesson 01). Nobody computes this product, because V is large (10,000 in the paper, section
# 5.1). satnp sorts the ids, so that equal ones are neighbours, and adds up each run of equal ones (`np.add.reduceat`).
# That gives the same sums, and lesson 15 measures how much time it saves. (`segment_sum` does the same on a GPU.)

# %%
show(embedding_forward)
show(embedding_backward)
onehot = np.eye(V)[ids]
near("np.add.at against the product", add_at, onehot.T @ dout, within=1e-15)
near("sorted sums against the product", ours, onehot.T @ dout, within=1e-15)

# %% [markdown]
# How common are repeated words? We count them in the four captions.

# %%
given = captions[:, :-1][mask > 0]
words, counts = np.unique(given, return_counts=True)
print(", ".join(f"{vocabulary.words[word]} {count}" for word, count in zip(words, counts, strict=True)))
print(f"{len(given)} input words, {len(words)} different: += would lose {1 - len(words) / len(given):.0%} of the gradients")

# %% [markdown]
# ## Cross-entropy, derived
#
# For each word the network computes V numbers, the logits z, and the softmax makes probabilities of them:
#
# $$
# p_k = \frac{\exp(z_k)}{\sum_{j} \exp(z_j)}
# $$
#
# If y is the right word, the loss is $-\log p_y$. Its unit is the nat (natural logarithm). It is 0 if the network gave the
# right word the probability 1, and $\log V$ if it gave all words the same probability. Written out:
#
# $$
# \mathrm{loss} = -\log p_y = \log \left( \sum_{j} \exp(z_j) \right) - z_y
# $$
#
# The derivative of the first term with respect to $z_k$ is $\exp(z_k) / \sum_{j} \exp(z_j) = p_k$. That of the second is
# -1 for k = y and 0 otherwise. So
#
# $$
# dz = p - \mathrm{onehot}(y).
# $$
#
# A step against the gradient lowers every logit by its word's probability, and raises that of the right word by
# $1 - p_y$. The sum of $dz$ over k is 0.
#
# ## Predict
#
# Three words have the logits 0, 0 and -120, in float32, and the third is the right one. What is the loss? What does
# `np.log(p)` give? And what if the logits are 0, 0 and 120?

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
# $\exp(-120)$ is 8e-53, less than the smallest positive float32, so p is 0 and its logarithm is -inf: one such word makes
# the loss of the whole batch infinite. $\exp(120)$ is greater than the largest float32, and inf / inf is not a number.
# `log_softmax` computes neither of them, for two reasons. Adding the same number to all logits does not change p, so it
# subtracts the largest logit, and no exp overflows. And
#
# $$
# \log p_k = z_k - \log \left( \sum_{j} \exp(z_j) \right)
# $$
#
# needs no p. After the subtraction the term of the largest logit is $\exp(0) = 1$, so the sum is at least 1, and its
# logarithm is finite.
#
# In `cross_entropy_forward` each word has a weight: the loss is $\sum_{n} w_n (-\log p_n)$, where n counts the words of all
# captions. So `cross_entropy_backward` returns $w_n (p_n - \mathrm{onehot}(y_n))$, times `dloss`, the gradient of the loss
# from later layers (1 if there are none).
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
print(f"-log(p) is finite up to a distance of {far[last]:.1f}, and up to there its error is at most {worst:.2f} nats")

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
axes[1].set_xlabel("logit of the other word - logit of the right word")
save(figure, "07_log_p", "-log(p) loses accuracy as p runs out of bits, and is inf beyond 103.5 nats; -log_softmax is not")

# %% [markdown]
# ## Check by number
#
# A small model with both ends: it predicts the next word from the last one alone, by logits = E[given] W + b. Its loss is
# the mean over the N captions of the sum of $-\log p$ over the words that count. So the weight of a word is `mask / N`, and
# that of padding is 0.


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

# %% [markdown]
# The flow as a drawing, with the words of all captions in NT rows. `onehot(ids)` has a 1 at the id in each row. `mask` has
# no gradient: it is data. Each word's gradient is multiplied by its mask, so padding gets 0.

# %%
given, wanted, rows = captions[:, :-1].ravel(), captions[:, 1:].ravel(), np.arange(mask.size)
dE, dW, db = gradients
values = {"E": E, "W": W, "b": b, "given": given, "wanted": wanted, "rows": rows, "N": len(mask), "mask": mask.ravel(),
          "log_softmax": log_softmax, "onehot": lambda ids: np.eye(V)[ids],
          "p": np.exp(log_softmax(E[given] @ W + b)), "loss": loss, "dE": dE, "dW": dW, "db": db,
          "dlogits": dlogits}  # fmt: skip
steps = [
    ("x", "E[given]", {"E": "onehot(given).T @ dx"}),
    ("logits", "x @ W + b", {"x": "dlogits @ W.T", "W": "x.T @ dlogits", "b": "dlogits.sum(axis=0)"}),
    ("nll", "-log_softmax(logits)[rows, wanted]", {"logits": "dnll[:, None] * (p - onehot(wanted))"}),
    ("loss", "(mask / N * nll).sum()", {"nll": "dloss * mask / N", "mask": None}),
]
see = "the mask enters once, at the loss; everything above is multiplied by it on the way back"
graph("07_words", steps, values, {"NT": mask.size, "V": V, "M": M}, {"loss": 1.0}, see)

# %% [markdown]
# The three gradients against the complex step:

# %%
for k, name in enumerate(("dE", "dW", "db")):

    def of_one(x, k=k):
        return loss_and_gradients(captions, mask, *parameters[:k], x, *parameters[k + 1 :])[0]

    near(name, gradients[k], numeric_gradient(of_one, parameters[k]), within=1e-12)

# %% [markdown]
# There is a test that needs only one forward pass. If all logits are equal, every word has p = 1/V, so the loss is
# $\log V$ nats a word. If an untrained model with small weights prints much more than $\log V$, something is wrong at this
# end.

# %%
uniform = loss_and_gradients(captions, mask, E, 0 * W, 0 * b)[0]
near("loss a word with equal logits", uniform * len(mask) / mask.sum(), np.log(V), within=1e-14)
print("sum of dlogits over the vocabulary, largest:", abs(dlogits.sum(axis=1)).max())

# %% [markdown]
# ### Padding changes nothing
#
# We append five more `<pad>` to each caption, and five zeros to its mask. The loss and all gradients must stay as they are,
# and the gradient of the logits at a padded position must be exactly 0.

# %%
longer = np.pad(captions, ((0, 0), (0, 5)))
longer_mask = np.pad(mask, ((0, 0), (0, 5)))
loss2, *gradients2, dlogits2 = loss_and_gradients(longer, longer_mask, *parameters)
near("loss with more padding", loss2, loss, within=1e-14)
for name, g, without in zip(("dE", "dW", "db"), gradients2, gradients, strict=True):
    near(f"{name} with more padding", g, without, within=1e-14)
print("largest gradient at a padded position:", abs(dlogits2[longer_mask.ravel() == 0]).max())
assert not dlogits2[longer_mask.ravel() == 0].any() and not gradients[0][0].any()

# %% [markdown]
# Two other definitions of the loss violate this. One is the mean over all N T positions: it falls when you append padding.
# The other counts `<pad>` as a word: a network can learn to predict `<pad>` after `<pad>`, and these easy predictions lower
# the printed loss.

# %%
print("           sum / words that count   sum / positions   <pad> counted as a word")
for what, c, m in (("as it is", captions, mask), ("longer", longer, longer_mask)):
    total = loss_and_gradients(c, m, *parameters)[0] * len(m)
    counted = loss_and_gradients(c, np.ones_like(m), *parameters)[0] * len(m)
    print(f"{what:10} {total / m.sum():22.4f} {total / m.size:17.4f} {counted / m.size:25.4f}")

# %% [markdown]
# ### Both layers in one
#
# For V = 10,000 the logits are the largest array of the decoder. `vocabulary_forward` computes the affine map and the
# cross-entropy in one function, which stores $p - \mathrm{onehot}(y)$ in the memory of the logits. The numbers are the same:

# %%
given, wanted, weights = captions[:, :-1].ravel(), captions[:, 1:].ravel(), mask.ravel() / len(mask)
in_one, cache = vocabulary_forward(E[given], W, b, wanted, weights)
near("loss in one", in_one, loss, within=1e-14)
near("dW in one", vocabulary_backward(1.0, cache)[1], gradients[1], within=1e-14)

# %% [markdown]
# ## Break it
#
# `satnp.proof.bugs` plants these mistakes in satnp's source and runs the gradient check of the layer. What does each check
# report? Two of the checks are named after the inputs that make the mistake visible, "repeated ids" and "zero weights". With
# other inputs they would not see it.

# %%
for bug in bugs.BUGS:
    if bug.case.startswith(("layers/embedding", "layers/cross_entropy")):
        result = bugs.check(bug)
        print(f"{bug.name} ({bug.case.removeprefix('layers/')})")
        print("   ", result.findings[0].sentence.partition(";")[0])
        assert not result.passed

# %% [markdown]
# The mistake of the first Predict once more, with different ids and with repeated ones:

# %%
for ids in (np.array([4, 6, 5, 8]), np.array([4, 6, 4, 4])):
    dout, dE = rng.standard_normal((4, M)), np.zeros((V, M))
    dE[ids] += dout
    right = np.eye(V)[ids].T @ dout
    print(ids, f"off by {np.linalg.norm(dE - right) / np.linalg.norm(right):.2f}")

# %% [markdown]
# ## Exercises
#
# 1. One word has the logits (0, 1, 2), and the first is the right one. Compute the loss and $dz$ by hand. Check with
#    `cross_entropy_forward` and `cross_entropy_backward`: 2.4076 nats, and (-0.9100, 0.2447, 0.6652).
# 2. The perplexity is $\exp(\text{nats a word})$: the number of equally probable words that would give the same loss. What
#    is it for a model with equal logits? Check: with W = 0 and b = 0 above it is V = 13, up to rounding.
# 3. Set b to the logarithm of the number of times that each word is a target (add 0.01 to each count), and W to 0. The loss
#    a word must fall from $\log V$ to about the entropy of the counts. Check: 2.127 nats a word, from 2.565.
# 4. Label smoothing: the target is $0.9 \, \mathrm{onehot}(y) + 0.1 / V$ instead of $\mathrm{onehot}(y)$. Derive $dz$. Check
#    by the complex step, below 1e-12; and its sum over k is still 0.
# 5. Tied tables: the logits are $x E^{\top}$, with the same E that the input words are looked up in. So E has two users.
#    Write both passes and check $dE$ by the complex step, below 1e-12. Which rows of $dE$ are zero now?
#
# ## Next
#
# Lesson 07b: the mistakes that a gradient check does not see, such as the one above with ids that are all different. Lesson
# 08: where to look. There the softmax is over the locations of a photo instead of words, and there are three ways to compute
# its scores.
