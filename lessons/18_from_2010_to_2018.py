# %% [markdown]
# # 18 From 2010 to 2018: before the neural decoder, and beside it
#
# - time: 75 minutes
# - cpu: 50 seconds
# - before: 02, 09, 14
# - equations: Farhadi et al. 2010; Kulkarni et al. 2011; Fang et al. 2015, section 3; Lu et al. 2018, eqs. 3-9
# - about: satnp.early.factors.exact
#
# Show, Attend and Tell is one answer of many. Every captioner answers three questions: what is in the photo, which words
# belong to it, and in which order? This lesson walks through the answers of eight years. Each system runs here on the same
# rendered scenes, and the last figure has their scores on real photos.
#
# | year | system | what is in the photo | where the sentence comes from |
# |---|---|---|---|
# | 2010 | Every Picture Tells a Story | a triple of object, action and scene | a training sentence |
# | 2011 | BabyTalk | boxes with objects, attributes and prepositions | a template |
# | 2012 | retrieve and trim | what the nearest photos have | a training sentence with parts cut away |
# | 2014 | ranking, log-bilinear models | one vector | a training sentence; a network without recurrence |
# | 2015 | Fang et al. | words, each with its place | a language model that must use them |
# | 2015 | NeuralTalk, m-RNN, LRCN, Show and Tell | one vector | a recurrent network |
# | 2015 | Show, Attend and Tell | a grid of vectors | a recurrent network that looks at each word |
# | 2018 | Neural Baby Talk | boxes with classes | a recurrent network that may take a word from a box |

# %%
from itertools import product

import numpy as np
from kit import DATA, near, save, show
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

threadpool_limits(1)  # small matrices: two cores would wait for each other
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
# 1. The test scenes have pairs of objects that no training scene has. A system returns the best sentence of the training
#    captions. How many of its 200 sentences are true?
# 2. Three unknowns (object, action, scene) have 81, 61 and 81 values. How many combinations must be compared to find the
#    best one? Can one change the unknowns one after the other instead?
# 3. A detector of the word "red" learns only which photos have a caption with "red", and never where the red thing is. Will
#    it know where it is?

# %% [markdown]
# ## Run
#
# ### 2010: a sentence and a photo meet in a triple
#
# Farhadi et al. give a photo a triple <object, action, scene>, and so they do with each sentence. Sentences are parsed;
# satnp finds their triples by rules.

# %%
for sentence in (
    "a black dog is running through the wet grass",
    "two children are playing in a fountain",
    "a man in a red shirt climbs a rock",
):
    print(sentence, "->", *triple_of(sentence.split()))

# %% [markdown]
# Rules make mistakes: the scene of the last one should be "rock", and it is "shirt", the last word behind "in". ("gras" is
# the root of "grass" and "grasses".)
#
# For a photo, three classifiers score the words of each role: the node scores. They do not know each other, so they may
# say <dog, ride, water>. Edge scores say how often two words occur in one sentence. The best triple is the one with the
# largest sum of all six:
#
#     score(o, a, s) = node_o + node_a + node_s + edge_oa + edge_as + edge_os
#
# This is a Markov random field with three nodes. Here is one with two values a node that can be computed by hand.

# %%
things, acts, places = ("dog", "man"), ("swim", "ride"), ("water", "road")
nodes = np.array([1.0, 0.8]), np.array([0.3, 0.5]), np.array([0.6, 0.4])
dog_swims, swims_in_water = np.array([[2.0, -2.0], [0.0, 1.0]]), np.array([[1.5, -1.0], [-2.0, 1.0]])
graph = factors.Graph((2, 2, 2), [
    *(((k,), node) for k, node in enumerate(nodes)), ((0, 1), dog_swims), ((1, 2), swims_in_water),
])  # fmt: skip
for o, a, s in product(range(2), repeat=3):
    print(f"{things[o]:4} {acts[a]:5} {places[s]:6} {graph.score((o, a, s)):6.2f}")
print("best:", factors.exact(graph), " ICM from (man, ride, road):", factors.icm(graph, (1, 1, 1)))

# %% [markdown]
# `exact` compares all combinations. ICM (iterated conditional modes) changes one node at a time as long as this helps. From
# (man, ride, road) no single change helps, so ICM stays there: a local optimum. With 81 * 61 * 81 combinations, 400,221
# sums, enumeration is still cheap, so `every_picture` never uses anything else.

# %%
show(factors.exact)

# %% [markdown]
# ### The sentence of a similar photo
#
# The simplest system needs no triple. It takes the 30 most similar training photos, and of their sentences the one that is
# most similar to all the others (Devlin et al. 2015).

# %%
config, p = retrieval.fit(retrieval.Config(V=len(vocabulary), D=seen.shape[2]), photos)
retrieved = sentences(retrieval.describe(p, config, unseen))
for scene, caption in list(zip(test, retrieved, strict=True))[:3]:
    print(f"{caption}\n    the photo: {scene.captions[0]}")
print("true:", count_true(retrieved), "of", len(test))

# %% [markdown]
# None is true, and none can be: each test scene has a combination that no training sentence states. Retrieval cannot say
# anything new. On real photos this is less visible, because many photos look alike: the last figure shows it.
#
# ### 2011: find the objects, then write the sentence
#
# BabyTalk composes. Detectors give boxes with probabilities of objects and attributes. A conditional random field (CRF)
# decides for all of them together, with potentials from the training captions: how often does an attribute belong to an
# object, how often is a preposition between two objects? A template writes the result down.

# %%
config, p = babytalk.fit(babytalk.Config(V=len(vocabulary), D=seen.shape[2]), photos)
written = sentences(babytalk.describe(p, config, unseen))
for scene, caption in list(zip(test, written, strict=True))[:3]:
    print(f"{caption}\n    the photo: {scene.captions[0]}")
print("true:", count_true(written), "of", len(test))

# %% [markdown]
# The training scenes are the same. The detector knows "cyan" and "square" apart from each other, and so a new combination is
# no difficulty. The price: all its sentences have the same form, and somebody must name the classes and draw the boxes.
#
# With more objects, enumeration gets expensive: N objects of 24 kinds have 24^N combinations. Loopy belief propagation
# sends messages between nodes instead. It is exact for graphs without loops. How often does it find the best values of
# three nodes in a loop, and how often does ICM?

# %%
def random_graph(rng, n=3, size=4):
    tables = [((k,), rng.standard_normal(size)) for k in range(n)]
    return factors.Graph((size,) * n, tables + [((k, (k + 1) % n), rng.standard_normal((size, size))) for k in range(n)])


found = {"ICM": 0, "loopy belief propagation": 0, "best_of, with no enumeration": 0}
for _ in range(200):
    graph = random_graph(rng)
    best = factors.exact(graph)[1]
    for name, (_, score) in zip(found, (
        factors.icm(graph), factors.loopy(graph), factors.best_of(graph, limit=0)
    ), strict=True):  # fmt: skip
        found[name] += score > best - 1e-9
for name, count in found.items():
    print(f"best values found by {name}: {count} of 200")

# %% [markdown]
# ### 2012: retrieve and trim
#
# A way between these two: take a retrieved sentence, and cut the phrases that the photo does not support. These may be cut:

# %%
sentence = "a small brown dog runs through the grass with a red ball".split()
for start, stop in trim.phrases(sentence):
    print("  may go:", *sentence[start:stop])
print("ways to cut:", len(trim.cuts(len(sentence), trim.phrases(sentence))))

# %% [markdown]
# "a" must stay, and so must "dog runs", because no phrase of the list has them. Word detectors say how probable each word
# is in the photo. A word that stays adds log p/(1-p) - log tau/(1-tau) to the score, so it is better to cut a word whose p
# is below tau. A sentence can only get shorter. It says less, but also less that is false.
#
# ### 2015: words from photos, without boxes
#
# A caption has the word "red" but no box. Fang et al. let each location j have a probability p_j of the word. The photo has
# the word if at least one location has it:
#
#     p = 1 - prod_j (1 - p_j)                                                                       noisy-OR
#
# With the logistic loss -log p of a photo whose captions have the word, how is the gradient divided among the locations?
# With p_j = sigmoid(z_j),
#
#     d(-log p)/dz_j = - (1 - p)/p  sigmoid(z_j)
#
# Its share is proportional to p_j: the location that is already the most certain gets the largest part. So it becomes still
# more certain, and the others are left alone. This is how a place is learned that nobody has told.

# %%
z = np.array([2.0, 0.0, -1.0, -3.0]).reshape(1, 4, 1)
loss, cache = noisy_or_loss_forward(z, np.ones((1, 1)))
print("p_j          ", sigmoid(z).ravel())
print("d(-log p)/dz ", noisy_or_loss_backward(1.0, cache).ravel())
near("share of each ", noisy_or_loss_backward(1.0, cache).ravel() / noisy_or_loss_backward(1.0, cache).sum(),
     sigmoid(z).ravel() / sigmoid(z).sum())  # fmt: skip

# %%
names = [*COLOURS]
y = np.array([[any(name in caption for caption in captions) for name in names] for captions in said])
truth = np.array([[any(name in tokenise(caption) for caption in scene.captions) for name in names] for scene in test])
of = words.Config(K=len(names), D=seen.shape[2], epochs=12)
detector, _ = words.train(of, seen, y, unseen, truth)  # prints the mean log-likelihood of unseen scenes after each epoch
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
# The map of each colour of one scene. Nobody told the detector where anything is.

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
# Yellow is at its place, too, but faint. The triangle is the third object, which captions of scenes never name: "yellow" was
# often wrong where a yellow thing stood on the right, and the detector has learned to doubt it.
#
# In the next step Fang et al. put the likely words in order: a language model prefers the words that are not yet said, and a
# beam search goes on until all of them are said (`satnp/early/fang.py`).
#
# ## Predict
#
# A recurrent network says "a red" and must now say a noun. Its vocabulary has 20 words, and a detector has found two boxes.
# How can the network take the word from a box, and still give probabilities that sum to 1?
#
# ## Run
#
# ### 2018: a pointer chooses between the vocabulary and the boxes
#
# Neural Baby Talk returns to the detector. At each word a softmax over the regions and a "sentinel" decides. The sentinel
# leaves the word to the vocabulary; a region gives the word of its class:
#
#     p(word of the text) = p(sentinel) softmax(h W)[word]
#     p(visual word) = sum over regions i of p(i) p(class of the word | i) p(form of the word | i)

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
# So the language model writes the sentence, and the detector gives the nouns, even a noun that few captions have. The
# detector gives the second region the class circle with probability .2. That is why "circle" has probability .196 when the
# pointer chooses this region.

# %% [markdown]
# ## Look
#
# All systems on the same rendered scenes, and those that were measured with the same features of real photos. Left: the
# share of true captions of 500 unseen scenes. Right: CIDEr on the 1,000 validation photos of Flickr8k with
# EfficientNet-Lite0, after short trainings. The numbers are those of `tests/benchmarks/results/early.md`,
# `family_scenes.md` and `flickr8k_released.md`, which say how each was computed; `flickr8k_compare.md` has the others with
# another encoder.

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
save(figure, "18_systems", "systems that compose sentences describe new scenes; systems that fetch sentences cannot")

# %% [markdown]
# On the right, a sentence that is fetched scores nearly as high as one that is composed. On the left it is never true. CIDEr
# compares a caption with other captions, and not with the photo.
#
# ## Check by number
#
# Noisy-OR is computed as p = 1 - exp(-S), S = sum_j log(1 + exp(z_j)), because the product of many 1 - p_j loses digits.
# Both forms must agree where the product is exact, and the gradient must be that of the loss.

# %%
z = rng.standard_normal((3, 5, 4))
near("noisy-OR", noisy_or_forward(z)[0], 1 - np.prod(1 - sigmoid(z), axis=1), 1e-13)
y = rng.integers(0, 2, (3, 4)).astype(float)
near("its gradient", noisy_or_loss_backward(1.0, noisy_or_loss_forward(z, y)[1]),
     numeric_gradient(lambda z: noisy_or_loss_forward(z, y)[0], z))  # fmt: skip

# %% [markdown]
# The best values of a graph by five nested loops, and by `exact`, which adds whole tables.

# %%
graph = random_graph(rng, n=5, size=3)
best = max((graph.score(values), values) for values in product(range(3), repeat=5))
assert factors.exact(graph)[0] == best[1]
near("score of the best values", factors.exact(graph)[1], best[0])

# %% [markdown]
# ## Break it
#
# A detector of a rare word is nearly certain that it is not there: z is about -50 at each of 64 locations. Write the loss
# of a photo that has the word with the formulas as they stand in the paper.

# %%
z = np.full((1, 64, 1), -50.0)
with np.errstate(divide="ignore"):
    naive = -np.log(1 - np.prod(1 - sigmoid(z), axis=1)).item()
print("-log p with the product:", naive, " with S:", round(float(noisy_or_loss_forward(z, np.ones((1, 1)))[0]), 3))
assert np.isinf(naive)

# %% [markdown]
# p is 64 * exp(-50), about 1e-20. Beside 1 it is lost, so 1 - (1 - p) is 0, and its logarithm is minus infinity. One such
# photo makes all gradients of the minibatch NaN. In single precision this already happens at z = -20.
#
# ## Exercises
#
# 1. Give the small graph of 2010 the edges 0. Which triple is the best one now? (dog, ride, water)
# 2. Take one neighbour in place of 30: `retrieval.Config(..., k=1)`. How many of the 200 sentences name the colours and
#    shapes of the first two objects correctly, whatever the relation? And with 30? (9; 21. `data.scenes.parse` gives the
#    kinds.)
# 3. Train `words` with `whole=True`, one score for the mean of all locations. In what share of the 200 * 6 cases is p > .5
#    if and only if the captions have the colour? (.703, and .922 with the locations.) Why can it not say where a word is?
# 4. Prove that the gradient of -log p by z_j is -(1 - p)/p sigmoid(z_j). (Use dS/dz_j = sigmoid(z_j) and p = 1 - exp(-S).)
# 5. Give both regions the class probabilities (0.5, 0.5) in `slots_forward`. Which word is now the most probable one when
#    the pointer chooses a region? (square: "circle" and "circles" share the half of their class.)
#
# ## Next
#
# `satnp compare` trains these systems on your own photos, side by side, all but Neural Baby Talk, which needs regions. The
# README says how to write one more.
