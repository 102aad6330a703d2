# %% [markdown]
# # 18 From 2010 to 2018: before the neural decoder, and beside it
#
# - time: 75 minutes
# - cpu: 50 seconds
# - before: 02, 09, 14
# - equations: Farhadi et al. 2010; Kulkarni et al. 2011; Fang et al. 2015, section 3; Lu et al. 2018, eqs. 3-9
# - about: satnp.early.factors.exact
#
# Show, Attend and Tell is one captioner of many. Each captioner must answer three questions: what is in the photo, which
# words describe it, and in which order do they come? This lesson presents the answers of eight years. The systems run here
# on the same rendered scenes, and the last figure has their scores on real photos. The lessons from 19 on treat some of them
# in depth.
#
# | year | system | what is in the photo | where the sentence comes from |
# |---|---|---|---|
# | 2010 | Every Picture Tells a Story | a triple of object, action and scene | a training sentence |
# | 2011 | BabyTalk | boxes with objects, attributes and prepositions | a template |
# | 2012 | retrieve and trim | what the nearest photos have | a training sentence without some of its phrases |
# | 2014 | ranking, log-bilinear models | one vector | a training sentence; a network without recurrence |
# | 2015 | Fang et al. | words, each with its place | a language model that must use them |
# | 2015 | NeuralTalk, m-RNN, LRCN, Show and Tell | one vector | a recurrent network |
# | 2015 | Show, Attend and Tell | a grid of vectors | a recurrent network with attention at each word |
# | 2018 | Neural Baby Talk | boxes with classes | a recurrent network that may take a word from a box |

# %%
from itertools import product

import numpy as np
from kit import DATA, graph, near, save, show
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from satnp import load
from satnp.data.captions import Vocabulary, tokenise
from satnp.data.scenes import COLOURS, is_true, make_scenes
from satnp.early import babytalk, factors, retrieval, trim, words
from satnp.early.photos import Photos
from satnp.early.triples import triple_of
from satnp.layers import noisy_or_forward, noisy_or_loss_backward, noisy_or_loss_forward, sigmoid, slots_forward
from satnp.proof.gradcheck import numeric_gradient

threadpool_limits(1)  # the matrices are small
np.set_printoptions(precision=3, suppress=True, linewidth=78)
rng = np.random.default_rng(0)
model = load(DATA / "scenes.npz")  # its encoder is used, its decoder is not
train, test = make_scenes(1500, "train", 0), make_scenes(200, "test", 0)
seen, unseen = (model.annotate(np.stack([scene.image for scene in scenes])) for scenes in (train, test))
said = [[tokenise(caption) for caption in scene.captions] for scene in train]
vocabulary = Vocabulary.build([caption for captions in said for caption in captions], 1)
ids = [[vocabulary.encode(caption) for caption in captions] for captions in said]
photos = Photos(seen, ids, unseen[:0], [], vocabulary.words, scenes=tuple(train))
print("annotations", seen.shape, unseen.shape, " words", len(vocabulary))


def sentences(found):
    """What describe() returned -> sentences"""
    return [" ".join(vocabulary.words[i] for i in caption.ids[:-1]) for caption in found]


def count_true(captions):
    return sum(map(is_true, captions, test))

# %% [markdown]
# ## Predict
#
# 1. The test scenes have pairs of objects that no training scene has. A system returns the best of the training sentences.
#    How many of its 200 sentences are true?
# 2. Three unknowns (object, action, scene) have 81, 61 and 81 values. How many combinations must be compared to find the
#    best one? Can one change the unknowns one after the other instead?
# 3. A detector of the word "red" is trained with photos and their captions. It is never given the place of the red thing.
#    Can it find the place in a new photo?

# %% [markdown]
# ## Run
#
# ### 2010: a sentence and a photo have the same triple
#
# Farhadi et al. describe a photo by a triple of object, action and scene, and a sentence, too. They parse the sentences;
# satnp finds the triples by rules.

# %%
for sentence in (
    "a black dog is running through the wet grass",
    "two children are playing in a fountain",
    "a man in a red shirt climbs a rock",
):
    print(sentence, "->", *triple_of(sentence.split()))

# %% [markdown]
# Rules make mistakes: the scene of the last sentence should be "rock", and it is "shirt", the last word after "in". ("gras"
# is the common root of "grass" and "grasses".)
#
# For a photo, three classifiers give a score to each word of each role: the node scores. The classifiers are independent, so
# their best words may not fit each other, such as (dog, ride, water). Edge scores say how often two words occur in one
# sentence. The best triple has the largest sum of all six:
#
# $$
# \mathrm{score}(o, a, s) = n_o + n_a + n_s + m_{oa} + m_{as} + m_{os}
# $$
#
# with $n$ for the node scores and $m$ for the edge scores. This is a Markov random field with three nodes. Here is one with
# two values per node and two edges, which can be computed by hand.

# %%
things, acts, places = ("dog", "man"), ("swim", "ride"), ("water", "road")
nodes = np.array([1.0, 0.8]), np.array([0.3, 0.5]), np.array([0.6, 0.4])
dog_swims, swims_in_water = np.array([[2.0, -2.0], [0.0, 1.0]]), np.array([[1.5, -1.0], [-2.0, 1.0]])
field = factors.Graph((2, 2, 2), [
    *(((k,), node) for k, node in enumerate(nodes)), ((0, 1), dog_swims), ((1, 2), swims_in_water),
])  # fmt: skip
for o, a, s in product(range(2), repeat=3):
    print(f"{things[o]:4} {acts[a]:5} {places[s]:6} {field.score((o, a, s)):6.2f}")
print("best:", factors.exact(field), " ICM from (man, ride, road):", factors.icm(field, (1, 1, 1)))

# %% [markdown]
# `exact` compares all combinations. ICM (iterated conditional modes), below, changes one node at a time, as long as this
# raises the score. From (man, ride, road) no change of a single node raises it, so ICM stays there, in a local optimum. The
# three unknowns of the second question have $81 \cdot 61 \cdot 81 = 400{,}221$ combinations. That is few enough, so
# `every_picture` always compares them all.

# %%
show(factors.icm)

# %% [markdown]
# ### The sentence of a similar photo
#
# The simplest system needs no triple. It takes the sentences of the 30 most similar training photos, and returns the one
# that is most similar to the others (Devlin et al. 2015).

# %%
config, p = retrieval.fit(retrieval.Config(V=len(vocabulary), D=seen.shape[2]), photos)
retrieved = sentences(retrieval.describe(p, config, unseen))
for scene, caption in list(zip(test, retrieved, strict=True))[:3]:
    print(f"{caption}\n    the photo: {scene.captions[0]}")
print("true:", count_true(retrieved), "of", len(test))

# %% [markdown]
# No sentence is true, and none can be: each test scene has a combination that no training sentence states. Retrieval cannot
# say anything new. With real photos this is less visible, as the scores in the last figure show.
#
# ### 2011: find the objects, then write the sentence
#
# BabyTalk composes. Detectors give boxes, with probabilities of objects and attributes. A conditional random field (CRF)
# labels all boxes together. Its potentials come from the training captions: how often does an object have an attribute, how
# often does a preposition connect two objects? A template turns the labels into a sentence. (Lesson 23 builds the CRF.)

# %%
config, p = babytalk.fit(babytalk.Config(V=len(vocabulary), D=seen.shape[2]), photos)
written = sentences(babytalk.describe(p, config, unseen))
for scene, caption in list(zip(test, written, strict=True))[:3]:
    print(f"{caption}\n    the photo: {scene.captions[0]}")
print("true:", count_true(written), "of", len(test))

# %% [markdown]
# The training scenes are the same. But the detector recognises "cyan" and "square" separately, so new combinations are not
# difficult. The price: all sentences have the same form, and a person must name the classes and draw the boxes.
#
# With more objects, it takes too long to compare all combinations: N objects of 24 kinds have $24^N$. Loopy belief
# propagation sends messages between the nodes instead. For graphs without loops it is exact. How often does it find the best
# values of three nodes in a loop, and how often does ICM? (`best_of` takes the better of the two.)


# %%
def random_graph(rng, n=3, size=4):
    tables = [((k,), rng.standard_normal(size)) for k in range(n)]
    return factors.Graph((size,) * n, tables + [((k, (k + 1) % n), rng.standard_normal((size, size))) for k in range(n)])


found = {"ICM": 0, "loopy belief propagation": 0, "best_of, with no enumeration": 0}
for _ in range(200):
    field = random_graph(rng)
    best = factors.exact(field)[1]
    for name, (_, score) in zip(found, (
        factors.icm(field), factors.loopy(field), factors.best_of(field, limit=0)
    ), strict=True):  # fmt: skip
        found[name] += score > best - 1e-9
for name, count in found.items():
    print(f"best values found by {name}: {count} of 200")

# %% [markdown]
# ### 2012: retrieve and trim
#
# This is a way between the two: take a retrieved sentence, and cut the phrases that the photo does not support. These
# phrases may be cut:

# %%
sentence = "a small brown dog runs through the grass with a red ball".split()
for start, stop in trim.phrases(sentence):
    print("  may go:", *sentence[start:stop])
print("ways to cut:", len(trim.cuts(len(sentence), trim.phrases(sentence))))

# %% [markdown]
# "a" and "dog runs" always stay, because they are in no phrase of the list. Word detectors give the probability $p$ that a
# word fits the photo. A word that stays adds $\log \frac{p}{1 - p} - \log \frac{\tau}{1 - \tau}$ to the score, with a
# threshold $\tau$. So it is better to cut words with $p < \tau$. The sentence can only become shorter: it says less, and
# less that is false.
#
# ### 2015: words from photos, without boxes
#
# The captions of a photo have the word "red", but nobody drew a box. In the model of Fang et al. each location $j$ has a
# probability $p_j$ of the word, and the photo has the word if at least one location has it (noisy-OR):
#
# $$
# p = 1 - \prod_j (1 - p_j)
# $$
#
# If the captions of a photo have the word, the loss is $-\log p$. How is its gradient divided among the locations? With
# $p_j = \sigma(z_j)$, write $p = 1 - \exp(-S)$ with $S = -\sum_j \log(1 - p_j) = \sum_j \log(1 + \exp(z_j))$. Then
# $\partial S / \partial z_j = \sigma(z_j)$, and by the chain rule
#
# $$
# dz_j = \frac{\partial (-\log p)}{\partial z_j} = -\frac{\exp(-S)}{p} \sigma(z_j) = -\frac{1 - p}{p} p_j
# $$
#
# The share of a location is proportional to $p_j$. So the location that is already the most certain gets the largest part,
# and becomes still more certain. This is how the detector can learn a place that is not in the data.

# %%
z = np.array([2.0, 0.0, -1.0, -3.0]).reshape(1, 4, 1)
loss, cache = noisy_or_loss_forward(z, np.ones((1, 1)))
print("p_j          ", sigmoid(z).ravel())
print("d(-log p)/dz ", noisy_or_loss_backward(1.0, cache).ravel())
near("share of each ", noisy_or_loss_backward(1.0, cache).ravel() / noisy_or_loss_backward(1.0, cache).sum(),
     sigmoid(z).ravel() / sigmoid(z).sum())  # fmt: skip

# %% [markdown]
# The drawing has three photos, two words and four locations. The last step back divides the gradient: all locations of a
# photo get the same $dS$, times their own $\sigma(z_j)$.

# %%
z = rng.standard_normal((3, 4, 2))
(loss, cache), (p, _) = noisy_or_loss_forward(z, np.ones((3, 2))), noisy_or_forward(z)
graph("18_noisy_or", [
    ("S", "log(1 + exp(z)).sum(axis=1)", {"z": "dS[:, None] * sigmoid(z)"}),
    ("p", "1 - exp(-S)", {"S": "dp * exp(-S)"}),
    ("loss", "-log(p).sum() / N", {"p": "-dloss / (N * p)"}),
], {
    "z": z, "S": cache.S, "p": p, "loss": loss, "dz": noisy_or_loss_backward(1.0, cache),
    "log": np.log, "exp": np.exp, "sigmoid": sigmoid, "N": 3,
}, {"N": 3, "L": 4, "K": 2}, {"loss": np.ones(())}, "each location gets dS times its own probability")  # fmt: skip

# %%
names = [*COLOURS]
y_of_colours = np.array([[any(name in caption for caption in captions) for name in names] for captions in said])
truth = np.array([[any(name in tokenise(caption) for caption in scene.captions) for name in names] for scene in test])
of = words.Config(K=len(names), D=seen.shape[2], epochs=12)
detector, _ = words.train(of, seen, y_of_colours, unseen, truth)  # prints log p of the unseen scenes
found, maps = words.detect(detector, of, unseen), words.where(detector, of, unseen)
hits = total = 0
for scene, map_ in zip(test, maps, strict=True):
    for thing in scene.objects[:2]:
        cell = map_[:, names.index(thing.colour)].argmax()
        x, y_ = cell % 8 * 8 + 4, cell // 8 * 8 + 4
        boxes = [other.box for other in scene.objects if other.colour == thing.colour]
        hits += any(x0 - 4 < x < x1 + 4 and y0 - 4 < y_ < y1 + 4 for x0, y0, x1, y1 in boxes)
        total += 1
print(f"the best cell of a colour overlaps an object of this colour: {hits} of {total}")

# %% [markdown]
# ## Look
#
# Here are the maps of $p_j$ for one scene, one for each colour. The data had captions only, and no places.

# %%
scene, map_ = test[0], maps[0].reshape(8, 8, -1)
figure = Figure((9, 1.9), layout="constrained")
axes = figure.subplots(1, 1 + len(names))
axes[0].imshow(scene.image)
axes[0].set_title("the photo", fontsize=9)
for ax, name, k in zip(axes[1:], names, range(len(names)), strict=True):
    ax.imshow(map_[:, :, k], vmin=0, vmax=1, cmap="gray")
    ax.set_title(f"{name} {found[0, k]:.2f}", fontsize=9)
for ax in axes:
    ax.set_xticks([])
    ax.set_yticks([])
save(figure, "18_words", "p_j of six colours, above each the p of the whole photo: " + "; ".join(scene.captions[:1]))

# %% [markdown]
# Yellow is found at its place, too, but faintly. The triangle is the third object, which the captions of scenes never
# mention. So in training "yellow" was often wrong although a yellow thing was there, on the right, and the detector gives it
# a low probability.
#
# In the next step Fang et al. put the likely words in order: a language model prefers words that are not used yet, and a
# beam search continues until all are used (`satnp/early/fang.py`).
#
# ## Predict
#
# A recurrent network has written "a red", and now needs a noun. Its vocabulary has 20 words, and a detector has found two
# boxes. How can the network take the word from a box, such that the probabilities of all words still sum to 1?
#
# ## Run
#
# ### 2018: a pointer chooses between the vocabulary and the boxes
#
# Neural Baby Talk returns to detectors. At each word a softmax over the regions and a "sentinel" decides where the word
# comes from: the sentinel stands for the vocabulary, and a region gives a word of its class. With $W$ the output weights,
#
# $$
# \begin{aligned}
# p(\text{word of the text}) &= p(\text{sentinel}) \, \mathrm{softmax}(h W)_{\text{word}} \\
# p(\text{visual word}) &= \sum_i p(i) \, p(\text{class} \mid i) \, p(\text{form} \mid i)
# \end{aligned}
# $$
#
# where the sum is over the regions $i$, and class and form are those of the word.

# %%
text = np.zeros((1, 8))                                        # logits of eight words
classes = np.array([[[0.9, 0.1], [0.2, 0.8]]])                 # two regions: circle or square?
forms = ((5, 6),), ((7, -1),)                                  # words of a class: circle(s) are 5 and 6, square is 7
for pointer in ([0.0, 0.0, 3.0], [3.0, 0.0, 0.0], [0.0, 3.0, 0.0]):
    log_p, _ = slots_forward(text, np.array([pointer]), classes, np.zeros((1, 2, 2)), np.full((1, 2), -2.0), forms, 3)
    p = np.exp(log_p)[0]
    print("pointer", pointer, "-> text", round(p[:5].sum(), 3), "circle", round(p[5], 3), "circles", round(p[6], 3),
          "square", round(p[7], 3), "sum", round(p.sum(), 12))  # fmt: skip

# %% [markdown]
# So the language model writes the sentence, and the detector gives the nouns. The detector gives the second region the class
# circle with probability .2. So "circle" has probability .196 when the pointer chooses this region.

# %% [markdown]
# ## Look
#
# The figure has all systems on the same rendered scenes and, if they were measured with the same features, on real photos.
# Left: the share of true captions of 500 unseen scenes (validation scenes; for Neural Baby Talk test scenes). Right: CIDEr
# on the 1,000 validation photos of Flickr8k, with EfficientNet-Lite0 and short trainings. The numbers and how they were
# computed are in `tests/benchmarks/results/early.md`, `family_scenes.md` and `flickr8k_released.md`; `flickr8k_compare.md`
# has the other systems with another encoder.

# %%
# year, system, true captions of scenes, CIDEr on Flickr8k; None where it was not measured
SCORES = [
    (2010, "Every Picture", 0.000, 0.245),
    (2011, "BabyTalk", 0.992, 0.315),
    (2012, "retrieve and trim", 0.000, 0.431),
    (2014, "ranking", 0.000, 0.285),
    (2014, "log-bilinear, MLBL-B", 0.108, 0.444),
    (2015, "retrieval with 30 neighbours", 0.000, 0.432),
    (2015, "Fang et al.", 0.268, 0.435),
    (2015, "NeuralTalk", 0.192, None),
    (2015, "m-RNN", 0.210, 0.399),
    (2015, "LRCN", 0.462, None),
    (2015, "Show and Tell", 0.520, None),
    (2015, "Show, Attend and Tell", 0.956, None),
    (2017, "adaptive attention", 0.816, 0.480),
    (2017, "SCA-CNN", 0.950, None),
    (2018, "Top-Down, on a grid", 0.928, None),
    (2018, "Neural Baby Talk", 0.958, None),
]
figure = Figure((8, 4.2), layout="constrained")
left, right = figure.subplots(1, 2, sharey=True)
rows = np.arange(len(SCORES))[::-1]
for ax, column, title in ((left, 2, "true captions of scenes"), (right, 3, "CIDEr on Flickr8k")):
    values = [row[column] for row in SCORES]
    ax.barh(rows, [value or 0 for value in values], color="0.6")
    for y_, value in zip(rows, values, strict=True):
        ax.text(value or 0, y_, " not measured" if value is None else f" {value:.3f}", va="center", fontsize=7)
    ax.set_title(title, fontsize=9)
    ax.set_xlim(0, 1.25 * max(value or 0 for value in values))
left.set_yticks(rows, [f"{year} {system}" for year, system, *_ in SCORES], fontsize=7)
save(figure, "18_systems", "systems that compose sentences can describe new scenes; systems that retrieve them cannot")

# %% [markdown]
# On the right, the retrieved sentences (.432) have nearly the same score as those of Fang et al. (.435), and a higher one
# than those of m-RNN (.399). On the left, none of them is true. CIDEr compares a caption with other captions, and not with
# the photo.
#
# ## Check by number
#
# Noisy-OR is computed as $p = 1 - \exp(-S)$, because the product of many factors $1 - p_j$ loses digits. Both forms must
# agree where the product is exact, and the gradient must be that of the loss.

# %%
z = rng.standard_normal((3, 5, 4))
near("noisy-OR", noisy_or_forward(z)[0], 1 - np.prod(1 - sigmoid(z), axis=1), 1e-13)
y = rng.integers(0, 2, (3, 4)).astype(float)
near("its gradient", noisy_or_loss_backward(1.0, noisy_or_loss_forward(z, y)[1]),
     numeric_gradient(lambda z: noisy_or_loss_forward(z, y)[0], z))  # fmt: skip

# %% [markdown]
# The best values of a graph, by a list of all combinations and by `exact`, which adds whole tables:

# %%
field = random_graph(rng, n=5, size=3)
best = max((field.score(values), values) for values in product(range(3), repeat=5))
assert factors.exact(field)[0] == best[1]
near("score of the best values", factors.exact(field)[1], best[0])

# %% [markdown]
# ## Break it
#
# A detector is nearly certain that a rare word does not fit: $z$ is about -50 at each of 64 locations. Compute the loss of a
# photo that has the word with the formula of the paper, the product.

# %%
z = np.full((1, 64, 1), -50.0)
with np.errstate(divide="ignore"):
    naive = -np.log(1 - np.prod(1 - sigmoid(z), axis=1)).item()
print("-log p with the product:", naive, " with S:", round(float(noisy_or_loss_forward(z, np.ones((1, 1)))[0]), 3))
assert np.isinf(naive)
single = np.full(64, -20, np.float32)
print("the product in single precision, z = -20: p =", 1 - np.prod(1 - sigmoid(single)))

# %% [markdown]
# $p$ is $64 \exp(-50)$, about 1e-20. Beside 1 this is lost, so $1 - (1 - p)$ is 0, and its logarithm is minus infinity. A
# single photo of this kind makes all gradients of the minibatch NaN. In single precision it already happens at $z = -20$.
#
# ## Exercises
#
# 1. Set the edges of the small graph of 2010 to 0. Which triple is now the best? (dog, ride, water)
# 2. Take one neighbour in place of 30: `retrieval.Config(..., k=1)`. How many of the 200 sentences name the colours and
#    shapes of the first two objects correctly, whatever the relation? And with 30? (9; 21. `data.scenes.parse` gives the
#    kinds.)
# 3. Train `words` with `whole=True`: one score for the mean of all locations. In what share of the $200 \cdot 6$ cases is
#    $p > .5$ if and only if the captions have the colour? (about .70, and .92 with the locations.) Why do the locations
#    help, for a question in which no place occurs?
# 4. Derive the gradient of $-\log p$ from the product itself, without $S$: what is $\partial p / \partial p_j$? (Check it
#    for the four $z$ of the lesson.)
# 5. Give both regions the class probabilities (0.5, 0.5) in `slots_forward`. Which word is now the most probable one when
#    the pointer chooses a region? (square)
#
# ## Next
#
# The next lessons treat single systems of the family in depth. Lesson 19: attention two ways in time. And `satnp compare`
# trains these systems on your own photos, side by side, all but Neural Baby Talk, which needs regions; the README shows how
# to add one.
