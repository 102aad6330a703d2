# %% [markdown]
# # Answers to lesson 18

# %% [markdown]
# ## 1
#
# - hint: Without edges the score is a sum of three numbers that do not depend on each other.
#
# Each node takes its own best value: dog (1.0), ride (.5), water (.6). The words do not fit each other; in the lesson the
# edges prevent this.

# %%
alone = factors.Graph((2, 2, 2), [((k,), node) for k, node in enumerate(nodes)])
(o, a, s), score = factors.exact(alone)
print(things[o], acts[a], places[s], score)
assert (things[o], acts[a], places[s]) == ("dog", "ride", "water")

# %% [markdown]
# ## 2
#
# - hint: `parse(sentence).kinds` are the two objects as (colour, shape). `parse` returns None for a sentence that it does
#   not understand.
# - hint: The first two objects of a scene are `scene.objects[:2]`, and each has a `kind`.
#
# Nine with one neighbour, 21 with 30. With 30 neighbours the sentence is one that agrees with many similar photos, so its
# words are more often right. It is still a sentence about other photos.

# %%
from satnp.data.scenes import parse  # noqa: E402


def both_named(captions):
    found = [parse(caption) for caption in captions]
    there = [sorted(thing.kind for thing in scene.objects[:2]) for scene in test]
    return sum(x is not None and sorted(x.kinds) == kinds for x, kinds in zip(found, there, strict=True))


named = {30: both_named(retrieved)}
of_one, p_one = retrieval.fit(retrieval.Config(V=len(vocabulary), D=seen.shape[2], k=1), photos)
named[1] = both_named(sentences(retrieval.describe(p_one, of_one, unseen)))
print(named)
assert named == {30: 21, 1: 9}

# %% [markdown]
# ## 3
#
# - hint: `replace(of, whole=True)` from `dataclasses`, then `words.train` and `words.detect` as in the lesson.
# - hint: Compare `found > .5` with `truth`; the mean of the agreement is the share.
#
# A colour covers a few of the 64 cells. In the mean annotation it is a small part of a sum, beside the background and the
# other objects. Noisy-OR needs only one location that is certain, so it can look for the colour where the colour fills a
# cell.

# %%
from dataclasses import replace  # noqa: E402

truth = truth.astype(bool)
of_whole = replace(of, whole=True)
whole, _ = words.train(of_whole, seen, y_of_colours, unseen, truth)
both = words.detect(whole, of_whole, unseen), words.detect(detector, of, unseen)
shares = [((p_word > 0.5) == truth).mean() for p_word in both]
print("\nmean of all locations {:.3f}, with the locations {:.3f}".format(*shares))
near("shares", shares, [0.70, 0.92], 0.02)

# %% [markdown]
# ## 4
#
# - hint: $p_j$ occurs in one factor of the product; the others are constant.
# - hint: $\partial p_j / \partial z_j = p_j (1 - p_j)$ (lesson 01).
#
# $\partial p / \partial p_j = \prod_{k \ne j} (1 - p_k) = (1 - p) / (1 - p_j)$. With $\partial p_j / \partial z_j$ this is
# $\partial p / \partial z_j = (1 - p) \, p_j$, and with $\partial (-\log p) / \partial p = -1/p$ it is
# $-(1 - p)/p \cdot p_j$, as in the lesson.

# %%
z = np.array([2.0, 0.0, -1.0, -3.0])
p_j = sigmoid(z)
p_photo = 1 - np.prod(1 - p_j)
by_product = -1 / p_photo * (1 - p_photo) / (1 - p_j) * p_j * (1 - p_j)
near("by the product", by_product, -(1 - p_photo) / p_photo * p_j)
near("against the complex step", by_product, numeric_gradient(lambda z: -np.log(1 - np.prod(1 - sigmoid(z))), z))

# %% [markdown]
# ## 5
#
# - hint: Which words share the probability of their class?
#
# "square": its class has one form in this small vocabulary, which gets all of the .5. The forms "circle" and "circles" share
# theirs.

# %%
even = np.full((1, 2, 2), 0.5)
log_p, _ = slots_forward(text, np.array([[3.0, 0.0, 0.0]]), even, np.zeros((1, 2, 2)), np.full((1, 2), -2.0), forms, 3)
p_word = np.exp(log_p)[0]
print("circle", p_word[5].round(3), "circles", p_word[6].round(3), "square", p_word[7].round(3))
assert p_word.argmax() == 7
