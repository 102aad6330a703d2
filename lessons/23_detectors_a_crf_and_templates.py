# %% [markdown]
# # 23 Detectors, a CRF and templates: captions without a recurrent network
#
# - time: 90 minutes
# - cpu: 55 seconds
# - before: 02, 07, 18
# - equations: Kulkarni et al. 2011, the energy of the CRF; Farhadi et al. 2010, the score of a triple
# - about: satnp.early.babytalk.infer
#
# BabyTalk (Kulkarni et al. 2011) describes a photo in three steps. Detectors find boxes and score what each may be. A
# conditional random field (CRF) chooses one label for every box and one preposition for every pair of boxes. A template makes
# a sentence of the labels. This lesson builds the CRF by hand: its energy, its best labelling, its likelihood and the gradient
# of the likelihood, each first by listing all labellings and then without the list. It trains the weights of the CRF, which
# satnp sets by hand, and measures what each part contributes.

# %% [markdown]
# The names:
#
# | name | values | meaning |
# |---|---|---|
# | $o_i$ | O = 4 | the object in box $i$: a shape |
# | $a_i$ | A = 12 | its attribute: a size and a colour |
# | $r_{ij}$ | 2R = 12 | the preposition for the boxes $i < j$: R = 6 phrases, each in the orders "$i$ ... $j$" and "$j$ ... $i$" |
# | $y$ | | a labelling: one value for each of these nodes |
# | $f_k(y)$ | K = 5 | the features of a labelling of this photo; `theta`, $\theta_k$, are their weights |
# | $s(y)$ | | the score of a labelling, $\sum_k \theta_k f_k(y)$; the energy is $E(y) = -s(y)$ |
#
# $dx$ is the derivative of the loss with respect to $x$.

# %%
from dataclasses import replace
from itertools import combinations, permutations, product

import numpy as np
from kit import DATA, graph, near, save, show
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from satnp import load
from satnp.arrays.optim import adam
from satnp.data.captions import Vocabulary, tokenise
from satnp.data.scenes import COLOURS, KINDS, SHAPES, SIDE, SIZES, is_true, make_scenes, parse
from satnp.early import babytalk, every_picture, factors, objects
from satnp.early.photos import Photos
from satnp.layers import log_softmax
from satnp.proof.gradcheck import numeric_gradient

threadpool_limits(1)  # small matrices: two cores would wait for each other
np.set_printoptions(precision=3, suppress=True, linewidth=78)
rng = np.random.default_rng(0)

# %% [markdown]
# ## Predict
#
# One box. The detector says that it is a square with probability .6 or a circle with .4, and red or blue with .5 each. In the
# captions, a red circle is three times as frequent as its parts suggest; the other combinations are as frequent as theirs. The
# score of a labelling is the sum of $\log p(o)$, $\log p(a)$ and $w$ times the logarithm of this ratio (3 or 1), with $w = 1$.
#
# 1. Which of the four labellings has the largest score?
# 2. Its probability is $\exp(s)$ divided by the sum of $\exp(s)$ over all four. How large is it?
# 3. In a training photo this box is a red circle. Does the likelihood of the photo rise or fall if $w$ rises a little? And if
#    the box is a blue square, where the ratio is 1, so that $w$ does not occur in its score?

# %% [markdown]
# ## Run

# %%
text = np.log([[1.0, 1.0], [3.0, 1.0]])  # rows: square, circle; columns: red, blue
score = np.log([0.6, 0.4])[:, None] + np.log([0.5, 0.5]) + 1.0 * text
p_tiny = np.exp(score) / np.exp(score).sum()
print("exp(score)", np.exp(score).ravel(), " probabilities", p_tiny.ravel())
for name, y in {"red circle": (1, 0), "blue square": (0, 1)}.items():
    print(f"d log p({name}) / dw = {text[y] - (p_tiny * text).sum():.3f}")

# %% [markdown]
# The detector alone would say "square". With the captions the red circle is best, with probability 3/7. And $w$ changes all
# probabilities: it raises the red circle at the expense of all others. So the likelihood of the blue square falls, although
# $w$ does not occur in its score. The derivative is the feature of the true labelling minus its mean over all labellings.
#
# ### What a detector gives
#
# BabyTalk's detectors were trained on photos from one place, and its counts of words came from texts of another. So it is
# here. *Elsewhere* all shapes have all colours. In the *town*, each shape mostly has two of the six colours; the town's
# captions know it, and the detector, which was trained elsewhere, does not. All photos are taken at night: their noise has a
# standard deviation of 50 of 255, where lesson 18 had 10.

# %%
FAVOURITES = {"circle": ("red", "yellow"), "square": ("green", "cyan"), "triangle": ("blue", "pink"), "cross": ("yellow", "blue")}


def town(count, split):
    """Scenes of the town: each object of another colour makes a scene ten times as rare."""
    draw = np.random.default_rng(count)
    rare = [(scene, sum(x.colour not in FAVOURITES[x.shape] for x in scene.objects)) for scene in make_scenes(count, split, 1)]
    return [scene for scene, n in rare if draw.random() < 0.1**n]


model = load(DATA / "scenes.npz")  # its encoder is used, its decoder is not
elsewhere, train, test = make_scenes(1200, "train", 0), town(6000, "train"), town(3000, "test")


def at_night(scenes):
    images = np.stack([scene.image for scene in scenes])
    return np.clip(images + 50 * rng.standard_normal(images.shape), 0, 255).astype(np.uint8)


night = at_night(test)
seen, of_town, unseen = (model.annotate(images) for images in (at_night(elsewhere), at_night(train[:200]), night))
said = [[tokenise(caption) for caption in scene.captions] for scene in elsewhere]
vocabulary = Vocabulary.build([caption for captions in said for caption in captions], 1)
ids = [[vocabulary.encode(caption) for caption in captions] for captions in said]
photos = Photos(seen, ids, unseen[:0], [], vocabulary.words, scenes=tuple(elsewhere))
config, p = babytalk.fit(babytalk.Config(V=len(vocabulary), D=seen.shape[2]), photos)
p = p.on(p.flat.astype(float))
found = objects.detect(p, config.of_detector, unseen)
print(len(elsewhere), "scenes elsewhere; town:", len(train), "to train,", len(test), "to test")
for kinds, what in ((False, "boxes"), (True, "boxes with colour and shape")):
    print(f"average precision of {what}: {objects.average_precision(found, test, classes=kinds):.3f}")
for box in found[0]:
    print("box", np.round(box.box).astype(int), f"p(object) {box.score:.2f}, shapes", box.shape)
print("shapes:", *SHAPES, " the first scene has", *(f"{x.colour} {x.shape}," for x in test[0].objects))

# %% [markdown]
# The detector (`satnp/early/objects.py`) has one box for each of 8 x 8 cells: the probability of an object, softmaxes over
# shape, colour and size, and the sides of the box. Of boxes that overlap, the most certain one is kept. At night it finds
# the boxes, and confuses shapes.
#
# ### From scores to potentials
#
# A sum of log-probabilities is the logarithm of their product, so scores enter as logarithms. There are two kinds of factors,
#
# $$
# \begin{aligned}
# F_i(o_i, a_i) &= \theta_0 \log p(o_i \mid \text{box } i) + \theta_1 \log p(a_i \mid \text{box } i) +
# \theta_2 \log \frac{p(o_i, a_i)}{p(o_i) \, p(a_i)} \\
# G_{ij}(o_i, r_{ij}, o_j) &= \theta_3 \log p(r_{ij} \mid \text{boxes } i, j) +
# \theta_4 \log \frac{p(o_i, r_{ij}, o_j)}{p(o_i) \, p(r_{ij}) \, p(o_j)} \\
# E(y) &= -\sum_i F_i - \frac{2}{N - 1} \sum_{i<j} G_{ij}
# \end{aligned}
# $$
#
# | term | kind | source |
# |---|---|---|
# | $\theta_0$, $\theta_1$ | unary potentials: one node each | the detector |
# | $\theta_2$ | pairwise potential of an object and its attribute | counts in the captions |
# | $\theta_3$ | unary potential of the preposition | a linear classifier of the differences of two boxes |
# | $\theta_4$ | potential of two objects and the preposition | counts in the captions |
#
# The text potentials have the ratio to independent words, and not $p(o, a)$ itself: 0 where the captions say nothing. N boxes
# have $N (N - 1) / 2$ pairs, so the factor $2 / (N - 1)$ gives all pairs together the weight of N terms. satnp has
# $\theta = (1, 1, w, 1, w)$ with $w = .5$ (`text`).
#
# The counts are of the 5 captions of each of the town's scenes: a few lines, in which `mentions` finds the two nouns and the
# preposition of a sentence.

# %%
O, A, R, K = len(SHAPES), len(SIZES) * len(COLOURS), config.prepositions, 5
pairs = list(product(SIZES, COLOURS))
prepositions = [" ".join(vocabulary.words[int(i)] for i in row if i >= 0) for row in p.preposition_words]
lexicon = babytalk.Lexicon(
    {word: k for k, word in enumerate(SHAPES)}, {pair: k for k, pair in enumerate(pairs)} | {(x,): None for x in COLOURS},
    {tuple(words.split()): k for k, words in enumerate(prepositions)},
)  # fmt: skip
o_a, o_r_o = np.zeros((O, A)), np.zeros((O, R, O))
for caption in (caption for scene in train for caption in scene.captions):
    for first, words, second in babytalk.mentions(caption.split(), lexicon):
        o_r_o[first.object, lexicon.prepositions[words], second.object] += 1
        for noun in (first, second):
            if noun.attribute is not None:  # the caption states a size and a colour
                o_a[noun.object, noun.attribute] += 1
p.o_a[...], p.o_r_o[...] = babytalk.association(o_a, 10.0), babytalk.association(o_r_o, 30.0)
print("small", *COLOURS)
for shape, row in zip(SHAPES, p.o_a, strict=True):
    print(f"{shape:9}", row[: len(COLOURS)])

# %% [markdown]
# `association` adds 10 (or 30) counts of independent words, so that a rare pair does not get a ratio of 0. Now the features
# of the factors, with an axis for $k$ in front, and their weighted sum, held against satnp's.


# %%
def features(regions):
    """[(nodes of a factor, its features (K, a size for each node))]; nodes: o_1 ... o_N, a_1 ... a_N, then r_ij"""
    N, found = len(regions), []
    for i, region in enumerate(regions):
        phi = np.zeros((K, O, A))
        phi[0], phi[1], phi[2] = region.log_p[:, None], region.attributes, p.o_a
        found.append(((i, N + i), phi))
    for n, (i, j) in enumerate(combinations(range(N), 2)):
        phi = np.zeros((K, O, 2 * R, O))
        for order, (first, second) in enumerate(((i, j), (j, i))):
            difference = babytalk.differences(regions[first].box, regions[second].box)
            here = slice(order * R, (order + 1) * R)
            phi[3, :, here] = log_softmax(difference @ p.W_r + p.b_r)[:R, None]  # the last class is none
            phi[4, :, here] = p.o_r_o.transpose(2, 1, 0) if order else p.o_r_o
        found.append(((i, 2 * N + n, j), 2 / (N - 1) * phi))
    return found


def count_boxes(phis):
    return sum(len(nodes) == 2 for nodes, _ in phis)  # one F for each


def graph_of(phis, theta):
    N = count_boxes(phis)
    sizes = (O,) * N + (A,) * N + (2 * R,) * (len(phis) - N)
    return factors.Graph(sizes, [(nodes, np.tensordot(theta, phi, 1)) for nodes, phi in phis])


theta = np.array([1, 1, 0.5, 1, 0.5])
regions = babytalk.regions(p, config, unseen)
of_test = [features(of_photo) for of_photo in regions]
boxes = [count_boxes(phis) for phis in of_test]
for n in (boxes.index(2), boxes.index(3)):
    ours, wanted = (np.concatenate([x.ravel() for _, x in g.factors]) for g in (
        graph_of(of_test[n], theta), babytalk.graph_of(p, config, regions[n])
    ))  # fmt: skip
    near(f"F and G of a photo with {boxes[n]} boxes", ours, wanted)

# %% [markdown]
# ### All labellings of one photo
#
# Two boxes have the five nodes $o_1, o_2, a_1, a_2, r_{12}$, with 4 * 4 * 12 * 12 * 12 = 27,648 labellings. A computer can list
# them. The probability of a labelling of the photo is a softmax over the list:
#
# $$
# p(y) = \frac{\exp(s(y))}{Z}, \quad Z = \sum_y \exp(s(y))
# $$
#
# A template makes a sentence of a labelling. Its slots take the nouns and the preposition of one pair of boxes:
# "a SIZE COLOUR SHAPE PREPOSITION a SIZE COLOUR SHAPE". `truth` finds the labelling that the objects of a scene give to the
# boxes. The photo below is the first one with two boxes whose objects are right with the text potentials and wrong without.


# %%
def noun(values, N, i):
    return f"a {' '.join(pairs[values[N + i]])} {SHAPES[values[i]]}"


def template(values, N, i, j, r):
    """The sentence about the boxes i < j, of which r is the preposition."""
    first, second = (i, j) if r < R else (j, i)
    return f"{noun(values, N, first)} {prepositions[r % R]} {noun(values, N, second)}"


def truth(of_photo, scene):
    """The labelling of the boxes by the objects of the scene; None if they are not one and the same"""
    overlap = objects.overlaps(SIDE * np.array([region.box for region in of_photo]), [x.box for x in scene.objects])
    of = overlap.argmax(axis=1)
    if len(set(of)) < len(of) or overlap.max(axis=1).min() < 0.5:
        return None
    things = [scene.objects[k] for k in of]
    values = [SHAPES.index(x.shape) for x in things] + [pairs.index((x.size, x.colour)) for x in things]
    for i, j in combinations(range(len(of)), 2):
        first, second = (things[k] for k in sorted((i, j), key=lambda k: of[k]))  # the leftmost one first, as in captions
        said = (f"a {first.colour} {first.shape} {words} a {second.colour} {second.shape}" for words in prepositions)
        values.append(int(rng.choice([k for k, caption in enumerate(said) if is_true(caption, scene)])) + R * (of[i] > of[j]))
    return tuple(values)


def best_of(phis, theta):
    return babytalk.infer(graph_of(phis, theta), count_boxes(phis)) if phis else ()


two = next(
    n for n, N in enumerate(boxes)
    if N == 2 and (y := truth(regions[n], test[n])) and best_of(of_test[n], theta)[:4] == y[:4]
    and best_of(of_test[n], theta * [1, 1, 0, 1, 0])[:4] != y[:4]
)  # fmt: skip
small = graph_of(of_test[two], theta)
scores = factors.all_scores(small)
log_Z = scores.max() + np.log(np.exp(scores - scores.max()).sum())
print(scores.size, f"labellings, log Z = {log_Z:.4f}; the scene has", *(f"{x.colour} {x.shape}," for x in test[two].objects))
for row in np.argsort(-scores.ravel())[:4]:
    y = np.unravel_index(row, scores.shape)
    print(f"p = {np.exp(scores[y] - log_Z):.3f}  {template(y, 2, 0, 1, y[4])}")
y = best_of(of_test[two], theta * [1, 1, 0, 1, 0])
print("without the text potentials:", template(y, 2, 0, 1, y[4]))

# %% [markdown]
# ### The best labelling without the list
#
# Three boxes have 191,102,976 labellings. But each $a_i$ and each $r_{ij}$ is in one factor only. For a sum in which a variable
# is in one term, the maximum over it can be taken in that term:
#
# $$
# \max_{o, a, r} s(y) = \max_{o} \left( \sum_i \max_{a_i} F_i(o_i, a_i) +
# \frac{2}{N - 1} \sum_{i<j} \max_{r_{ij}} G_{ij}(o_i, r_{ij}, o_j) \right)
# $$
#
# The maxima inside are tables of $o_i$, and of $o_i, o_j$. What remains is a maximum over the objects alone, 64 combinations
# for three boxes. `infer` lists these. On real photos a node has up to 185 nouns; where there are more than 200,000
# combinations, `best_of` takes the best of loopy belief propagation and ICM (lesson 18). Then $a_i$ and $r_{ij}$ follow.

# %%
show(babytalk.infer)
best = [best_of(phis, theta) for phis in of_test]
listed = [n for n, N in enumerate(boxes) if N in (1, 2)]
same = sum(factors.exact(graph_of(of_test[n], theta))[0] == best[n] for n in listed)
print(f"photos with one or two boxes: the best of the whole list in {same} of {len(listed)}")
more = [n for n, N in enumerate(boxes) if N > 2]
same = sum(babytalk.infer(graph_of(of_test[n], theta), boxes[n], limit=0) == best[n] for n in more)
print(f"photos with three or four boxes: loopy belief propagation and ICM give the same as 4^N objects in {same} of {len(more)}")

# %% [markdown]
# ### The likelihood: a sum where there was a maximum
#
# Kulkarni et al. chose the weights on 100 photos with labels by search. The likelihood gives a gradient instead. For the true
# labelling $y^*$ of a photo, the loss is
#
# $$
# -\log p(y^*) = \log Z - s(y^*) = \log \sum_y \exp \left( \sum_k \theta_k f_k(y) \right) - \sum_k \theta_k f_k(y^*)
# $$
#
# The second term is linear in $\theta$. For the first one, the derivative of the logarithm and the chain rule give
#
# $$
# \frac{\partial \log Z}{\partial \theta_k} = \frac{1}{Z} \sum_y \exp(s(y)) \, f_k(y) = \sum_y p(y) f_k(y) = \mathbb{E}[f_k]
# $$
#
# $$
# d\theta_k = \mathbb{E}[f_k] - f_k(y^*)
# $$
#
# Expected minus observed: at the minimum, the model expects what the photos have. With the list this is the cross-entropy of
# lesson 07, with labellings in place of words: the gradient of the scores is $p - \operatorname{onehot}(y^*)$. The drawing
# shows it for the photo with two boxes. `phi` has a row for each labelling; `scores` is used twice, so it has two gradients.


# %%
def log_sum(x, axis=None):
    """log(sum(exp(x))), also for complex x"""
    largest = x.real.max(axis=axis, keepdims=True)
    return np.log(np.exp(x - largest).sum(axis=axis)) + (largest.squeeze(axis) if axis is not None else largest.item())


y_two = truth(regions[two], test[two])
phi_all = np.stack([factors.all_scores(graph_of(of_test[two], one)).ravel() for one in np.eye(K)], axis=1)
row, p_all = np.ravel_multi_index(y_two, small.sizes), np.exp(scores - log_Z).ravel()
onehot = np.eye(1, phi_all.shape[0], row)[0]
dtheta = p_all @ phi_all - phi_all[row]
print(f"-log p of the true labelling {log_Z - scores[y_two]:.4f}")
print("observed", phi_all[row], "\nexpected", p_all @ phi_all, "\ndtheta  ", dtheta)
graph(
    "23_enumeration",
    [
        ("scores", "phi @ theta", {"phi": None, "theta": "phi.T @ dscores"}),
        ("log_Z", "log_sum(scores)", {"scores": "dlog_Z * p"}),
        ("of_truth", "scores @ onehot", {"scores": "dof_truth * onehot"}),
        ("loss", "log_Z - of_truth", {"log_Z": "dloss", "of_truth": "-dloss"}),
    ],
    {"phi": phi_all, "theta": theta, "log_sum": log_sum, "onehot": onehot, "p": p_all, "log_Z": log_Z, "scores": scores.ravel(),
     "dtheta": dtheta, "dscores": p_all - onehot},
    {"Y": phi_all.shape[0], "K": K},
    {"loss": np.float64(1)},
    "two dashed arrows to the scores: all labellings lose probability in proportion to p, the true one gains",
)  # fmt: skip

# %% [markdown]
# ### The likelihood without the list
#
# What was done with max can be done with the sum, because a factor without $a_i$ can be taken out of the sum over $a_i$:
#
# $$
# \begin{aligned}
# m_i(o_i) &= \log \sum_{a_i} \exp F_i(o_i, a_i), \quad M_{ij}(o_i, o_j) = \log \sum_{r_{ij}} \exp G_{ij}(o_i, r_{ij}, o_j) \\
# S(o) &= \sum_i m_i(o_i) + \sum_{i<j} M_{ij}(o_i, o_j), \quad \log Z = \log \sum_o \exp S(o)
# \end{aligned}
# $$
#
# ($G_{ij}$ contains the factor $2 / (N - 1)$ here.) Backward, each logarithm of a sum gives a softmax. $dS = \exp(S - \log Z)$ is
# $p(o)$; its sum over all objects but $o_i$ is $dm_i = p(o_i)$; and
#
# $$
# dF_i(o_i, a_i) = p(o_i) \exp \left( F_i(o_i, a_i) - m_i(o_i) \right) = p(o_i) \, p(a_i \mid o_i) = p(o_i, a_i)
# $$
#
# The backward pass of $\log Z$ computes the marginals of the factors. They are all that the gradient needs: the expectation of
# a feature is the sum over its factor's table of the marginal times the feature.


# %%
def log_Z_forward(graph):
    """A graph of N boxes -> log Z, cache"""
    N = sum(len(nodes) == 2 for nodes, _ in graph.factors)
    S, left = np.zeros((O,) * N), []
    for nodes, table in graph.factors:
        left.append(log_sum(table, 1))  # over node 1 of the factor, which no other factor has
        S = S + left[-1].reshape([O if k in nodes else 1 for k in range(N)])
    log_Z = log_sum(S)
    return log_Z, (graph, left, S, log_Z)


def log_Z_backward(cache):
    """-> the marginals of the factors, a list of arrays"""
    graph, left, S, log_Z = cache
    dS, found = np.exp(S - log_Z), []
    for (nodes, table), m in zip(graph.factors, left, strict=True):
        dm = dS.sum(axis=tuple(k for k in range(S.ndim) if k not in nodes))
        found.append(np.expand_dims(dm, 1) * np.exp(table - np.expand_dims(m, 1)))
    return found


def observed(phis, y):
    """f(y), (K,)"""
    return sum(phi[(slice(None), *(y[k] for k in nodes))] for nodes, phi in phis)


def loss_forward(theta, phis, y, of_Z=None):
    """-log p(y) of a photo -> loss, cache; of_Z: the features that log Z is computed from, default those of the photo"""
    of_Z = of_Z or phis
    log_Z, cache = log_Z_forward(graph_of(of_Z, theta))
    return log_Z - theta @ observed(phis, y), (phis, y, of_Z, cache)


def loss_backward(cache):
    """-> dtheta (K,), expected minus observed"""
    phis, y, of_Z, cache = cache
    expected = sum(np.tensordot(phi, dF, dF.ndim) for (_, phi), dF in zip(of_Z, log_Z_backward(cache), strict=True))
    return expected - observed(phis, y)


loss, cache = loss_forward(theta, of_test[two], y_two)
near("log Z against the list", cache[3][3], log_Z)
near("dtheta against the list", loss_backward(cache), dtheta)
F_1, F_2, G = (table for _, table in small.factors)
m_1, m_2, M = cache[3][1]
graph(
    "23_log_Z",
    [
        ("m_1", "log_sum(F_1, 1)", {"F_1": "up(dm_1) * exp(F_1 - up(m_1))"}),
        ("M", "log_sum(G, 1)", {"G": "up(dM) * exp(G - up(M))"}),
        ("m_2", "log_sum(F_2, 1)", {"F_2": "up(dm_2) * exp(F_2 - up(m_2))"}),
        ("S", "m_1[:, None] + m_2 + M", {"m_1": "dS.sum(1)", "M": "dS", "m_2": "dS.sum(0)"}),
        ("log_Z", "log_sum(S)", {"S": "dlog_Z * exp(S - log_Z)"}),
    ],
    {"F_1": F_1, "F_2": F_2, "G": G, "m_1": m_1, "m_2": m_2, "M": M, "S": cache[3][2], "log_Z": log_Z, "exp": np.exp,
     "up": lambda x: np.expand_dims(x, 1), "log_sum": log_sum,
     **dict(zip(("dF_1", "dF_2", "dG"), log_Z_backward(cache[3]), strict=True))},
    {},
    {"log_Z": np.float64(1)},
    "up(x) adds the axis over which the sum was; dF_1, dF_2 and dG are marginals",
)  # fmt: skip

# %% [markdown]
# ### Training the five weights
#
# The loss is the logarithm of a sum of exponentials of linear functions, minus a linear function. So it is convex in $\theta$:
# it has one minimum, and Newton's method finds it in a few steps. Its matrix $\mathbf{H}$ of second derivatives comes from
# the complex step of the gradient, one gradient for each column:
#
# $$
# \theta \to \theta - \mathbf{H}^{-1} d\theta
# $$
#
# The training set has 200 photos of the town, which the detector has not seen, without those in which a box is not an object
# of its own.


# %%
def known_of(annotations, scenes):
    """The photos whose labelling is known: [(features, labelling)]"""
    found = babytalk.regions(p, config, annotations)
    known = ((of_photo, truth(of_photo, scene)) for of_photo, scene in zip(found, scenes, strict=True) if of_photo)
    return [(features(of_photo), y) for of_photo, y in known if y is not None]


def mean_loss(theta, known):
    return np.mean([loss_forward(theta, phis, y)[0] for phis, y in known])


def gradient(theta, phis, y):
    return loss_backward(loss_forward(theta, phis, y)[1])


def train_weights(known, gradient=gradient, steps=6):
    """Newton's method from satnp's weights -> theta, and the largest entry of the last mean gradient"""
    mine = np.array([1, 1, 0.5, 1, 0.5])
    for _ in range(steps):
        g, *columns = (sum(gradient(mine + 1e-20j * e, *photo) for photo in known) / len(known) for e in np.eye(K + 1, K, -1))
        mine = mine - np.linalg.solve(np.stack(columns, axis=1).imag / 1e-20, g.real)
    return mine, np.abs(g).max()


known, known_test = known_of(of_town, train[:200]), known_of(unseen, test)
learned, largest = train_weights(known)
print(f"{len(known)} photos to train, {len(known_test)} to test; theta {learned}, gradient {largest:.0e}")
for name, mine in {"satnp's weights": theta, "learned weights": learned}.items():
    print(f"{name}: mean -log p of the true labelling {mean_loss(mine, known):.3f}, of the test photos "
          f"{mean_loss(mine, known_test):.3f}")  # fmt: skip
phrases = np.mean([len(phis) - count_boxes(phis) for phis, _ in known_test]) * np.log(2)
print(f"of it, the choice between two phrases of the same meaning: {phrases:.3f}")

# %% [markdown]
# All weights of detectors are above 1. On these photos, in which each box is an object, the probabilities of the detector are
# too cautious. $\theta_2$ is twice satnp's $w$. $\theta_4$ is small: the habits of the town are about colours, not about
# prepositions. Most of the loss cannot be avoided. "left of" and "to the left of" are true of the same boxes, and so are
# "above" and "over", "below" and "under"; the true labelling has one of the two, drawn at random, so its probability is at
# most one half for each pair.
#
# ### What each part contributes
#
# The caption is about the pair with the largest $F_i + F_j + G_{ij}$. With satnp's weights, the lesson's own sentences must be
# those of `babytalk.describe`. Then one potential after the other is taken away. "kinds" are sentences whose two nouns are
# objects of the scene, whatever their relation.


# %%
def describe(theta, photos=of_test):
    """-> a sentence for each photo"""
    sentences = []
    for phis in photos:
        graph, N = graph_of(phis, theta), count_boxes(phis)
        y = best_of(phis, theta)
        part = [table[tuple(y[k] for k in nodes)] for nodes, table in graph.factors]
        ways = [(part[i] + part[j] + part[N + n], i, j, y[2 * N + n]) for n, (i, j) in enumerate(combinations(range(N), 2))]
        sentences.append(template(y, N, *max(ways)[1:]) if ways else noun(y, N, 0) if N else "")
    return sentences


def kinds_right(sentence, scene):
    parsed = parse(sentence)
    return parsed is not None and {*parsed.kinds} <= {x.kind for x in scene.objects}


def shares(sentences):
    """The share of true sentences, and of sentences with the right kinds"""
    return [np.mean([right(*pair) for pair in zip(sentences, test, strict=True)]) for right in (is_true, kinds_right)]


theirs = [" ".join(vocabulary.words[i] for i in caption.ids[:-1]) for caption in babytalk.describe(p, config, unseen)]
assert theirs == describe(theta)
WEIGHTS = {
    "satnp's weights": theta, "learned weights": learned,
    "no theta_0 (shape)": learned * [0, 1, 1, 1, 1], "no theta_1 (size and colour)": learned * [1, 0, 1, 1, 1],
    "no theta_2 (text, o and a)": learned * [1, 1, 0, 1, 1], "no theta_4 (text, o, r, o')": learned * [1, 1, 1, 1, 0],
    "no theta_3, theta_4 (r)": learned * [1, 1, 1, 0, 0],
}  # fmt: skip
for name, mine in WEIGHTS.items():
    print(f"{name:29} true {shares(describe(mine))[0]:.3f}, kinds {shares(describe(mine))[1]:.3f}")

# %% [markdown]
# The learned weights describe .776 of the scenes truly, satnp's .741. What the captions know about colours and shapes is worth
# .090 ($\theta_2$), what they know about prepositions nothing here ($\theta_4$). Without any potential of the preposition the
# nouns are as right as before, but $r$ is free, and the first value of the list is taken: .234 are true.
#
# With satnp's usual noise, where the detector confuses few shapes, BabyTalk describes .994 of 500 unseen scenes truly
# (`tests/benchmarks/results/early.md`).
#
# ### Every Picture Tells a Story: the same model, another ending
#
# Farhadi et al. (2010) find the best triple of object, action and scene with a CRF of three nodes (lesson 18). But the triple
# does not become a sentence. It chooses one among the sentences of the training photos. Can any of them be true of a test
# scene? A fact is two kinds of objects (colour and shape) and their relation.

# %%
def facts_of(scene):
    """(kind, relation, kind) of each two objects, in both orders"""
    caption = "a {0.colour} {0.shape} {1} a {2.colour} {2.shape}"
    return {(a.kind, r, b.kind) for a, b in permutations(scene.objects, 2) for r in ("left of", "above", "below")
            if is_true(caption.format(a, r, b), scene)}  # fmt: skip


stated = {facts for scene in (*elsewhere, *train) for facts in facts_of(scene)}
print(f"{len(stated)} facts in the training scenes; test scenes with one of them:", sum(bool(facts_of(x) & stated) for x in test))
of_retrieval, q = every_picture.fit(every_picture.Config(V=len(vocabulary), D=seen.shape[2]), photos)
fetched = [" ".join(vocabulary.words[i] for i in x.ids[:-1]) for x in every_picture.describe(q, of_retrieval, unseen)]
print(f"Every Picture: true {shares(fetched)[0]:.3f}, kinds {shares(fetched)[1]:.3f}; such as {fetched[0]!r}")

# %% [markdown]
# No training sentence is true of any test scene, so no system that fetches sentences can have more than .000, however good its
# scores are. In `early.md`, `retrieval`, `trim` and `ranking` have .000, too. BabyTalk has never seen these combinations
# either. But its potentials are about parts of a combination: a shape, a shape with its colour, two shapes with a preposition.
# All of these occur in training.
#
# ### What a template cannot do
#
# The same two systems on the 1,000 validation photos of Flickr8k (CIDEr, `tests/benchmarks/results/early.md`):
#
# | system | CIDEr |
# |---|---|
# | Every Picture | .245 |
# | BabyTalk, template, text potentials with the weight $w$ = 0, .25, .5, 1 | .275, .304, .315, .285 |
# | BabyTalk, `ngram`: function words from a bigram model | .326 |
# | retrieval with 30 neighbours | .432 |
# | adaptive attention (lesson 20), 4 epochs | .480 |
#
# Again the text potentials help, up to a point. But here a fetched sentence scores higher. There is no detector with boxes for
# these photos; the words are detected, with rough boxes. And the sentences of people have verbs: "two dogs play in the snow".
# A template of attributes, objects and prepositions has no slot for a verb, and always the same form. A template is true or
# false in its slots; the words between them are nobody's choice.
#
# ## Look
#
# Three photos of the town: the detector's best shape for each box, and above each photo the sentence without text potentials
# and the one with them. Predict: for which scenes do the text potentials do harm? The curve is the share of true captions if
# $\theta_2$ and $\theta_4$ are multiplied by a factor.

# %%
with_text, without = describe(learned), describe(learned * [1, 1, 0, 1, 0])
right, wrong = (np.array([is_true(*pair) for pair in zip(x, test, strict=True)]) for x in (with_text, without))
helped, misled = np.flatnonzero(right & ~wrong), np.flatnonzero(wrong & ~right)
print(f"the text potentials make {len(helped)} false sentences true, and {len(misled)} true ones false")
factor = np.linspace(0, 3, 7)
curve = [shares(describe(learned * [1, 1, c, 1, c]))[0] for c in factor]
figure = Figure((10, 3.4), layout="constrained")
axes = figure.subplots(1, 4)
for ax, n, colour in zip(axes, (*helped[:2], misled[0]), ("tab:green", "tab:green", "tab:red"), strict=False):
    ax.imshow(night[n])
    for region in regions[n]:
        x0, y0, x1, y1 = SIDE * region.box
        ax.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color="white", linewidth=1)
        ax.text(x0, y0 - 1, f"{SHAPES[region.log_p.argmax()]} {np.exp(region.log_p.max()):.2f}", color="white", fontsize=6)
    ax.set_title(f"without: {without[n]}\nwith: {with_text[n]}", fontsize=6, color=colour)
    ax.set_axis_off()
axes[3].plot(factor, curve, "o-", color="black")
axes[3].set(xlabel="the learned text weights times ...", ylabel="true captions", ylim=(0, 1))
save(figure, "23_town", "in green titles the captions of the town correct the detector, in the red one they mislead it")

# %% [markdown]
# The text potentials do harm where a scene is not as the town mostly is: a pink circle becomes a pink triangle (exercise 4). A
# prior helps on average, and errs on what is rare. The curve is highest at the factor 1, which the likelihood chose, although
# the likelihood knows nothing of sentences. At the factor 3 the captions count so much that the sentences are no better than
# without them.
#
# ## Check by number
#
# The complex step of the loss by $\theta$, for the photo with two boxes and for one with three. Then the marginals, against
# `factors.marginals`, which lists all labellings; and the sum of all probabilities.

# %%
three = next((phis, y) for phis, y in known_test if count_boxes(phis) == 3)
for phis, y in ((of_test[two], y_two), three):
    computed = loss_backward(loss_forward(learned, phis, y)[1])
    wanted = numeric_gradient(lambda x, phis=phis, y=y: loss_forward(x, phis, y)[0], learned)
    near(f"dtheta, {count_boxes(phis)} boxes", computed, wanted)
_, of_Z = log_Z_forward(small)
nodes = factors.marginals(small)
for (i, *_), dF in list(zip((nodes for nodes, _ in small.factors), log_Z_backward(of_Z), strict=True))[:2]:
    near(f"p(o_{i + 1}) and p(a_{i + 1})", np.concatenate([dF.sum(axis=1), dF.sum(axis=0)]), np.concatenate([nodes[i], nodes[2 + i]]))
print(f"sum of the probabilities of all labellings: {np.exp(scores - log_Z_forward(small)[0]).sum():.12f}")

# %% [markdown]
# ## Break it
#
# **A unary potential with the wrong sign.** Somebody stores the cost $-\log p(o_i \mid \text{box } i)$ as the feature, and
# the code adds it to the score.


# %%
def with_sign(phis):
    return [(nodes, phi * np.array([-1.0, 1, 1, 1, 1]).reshape(-1, *[1] * (phi.ndim - 1))) for nodes, phi in phis]


flipped = [with_sign(phis) for phis in of_test]
print(f"hand-set weights: true {shares(describe(theta, flipped))[0]:.3f}")
repaired = learned * [-1, 1, 1, 1, 1]
g = np.mean([gradient(repaired, with_sign(phis), y) for phis, y in known], axis=0)
print(f"learned weights: the gradient is 0 (at most {np.abs(g).max():.0e}) at {repaired}, "
      f"true {shares(describe(repaired, flipped))[0]:.3f}")  # fmt: skip

# %% [markdown]
# With weights set by hand, the CRF chooses the least probable shapes, and no sentence is true. Learned weights repair the
# mistake: $\theta_0$ becomes negative, and all sentences are as before. So look at the signs of learned weights. A
# log-probability with a negative weight is a mistake in the features.
#
# **The normaliser of another photo.** $\log Z$ costs most of the time. Somebody computes it for one photo, and uses it for all.


# %%
def of_another(theta, phis, y):
    return loss_backward(loss_forward(theta, phis, y, known[0][0])[1])


y, phis, first = known[1][1], known[1][0], known[0][0]
near("its gradient by the complex step", of_another(learned, phis, y),
     numeric_gradient(lambda x: loss_forward(x, phis, y, first)[0], learned))  # fmt: skip
total = np.exp(log_Z_forward(graph_of(phis, learned))[0] - log_Z_forward(graph_of(first, learned))[0])
print(f"the sum of all probabilities of the second photo: {total:.3f}")
mine, mean_observed = theta, np.mean([observed(*photo) for photo in known], axis=0)
for step in range(1, 301):
    mine = mine - 0.1 * (of_another(mine, first, known[0][1]) + observed(*known[0]) - mean_observed)
    if step in (20, 100, 300):
        wrong_loss = log_Z_forward(graph_of(first, mine))[0] - mine @ mean_observed
        print(f"step {step:3}: theta {mine}, its loss {wrong_loss:.2f}, -log p {mean_loss(mine, known):.2f}, "
              f"true {shares(describe(mine))[0]:.3f}")  # fmt: skip

# %% [markdown]
# The complex step finds nothing: it is the right gradient of a wrong loss. The loss falls, even below 0, which no
# $-\log p$ of a labelling can be; the weights grow without end; and the sentences get worse. The check that finds the mistake
# is the sum of the probabilities, which must be 1. (If each photo of a minibatch gets the $Z$ of the next one, the sum
# of the losses is the right one, because it has each $\log Z$ once. Then the training is right, and each $p(y)$ is wrong.)
#
# **Marginals of nodes in place of marginals of factors.** The expected text potential needs $p(o_i, a_i)$. Somebody has
# $p(o_i)$ and $p(a_i)$, and multiplies them.


# %%
def of_nodes(theta, phis, y):
    """The wrong gradient: expected features from p(o) p(a) and p(o) p(r) p(o')"""
    _, of_Z = log_Z_forward(graph_of(phis, theta))
    expected = 0
    for (_, phi), dF in zip(phis, log_Z_backward(of_Z), strict=True):
        alone = [dF.sum(axis=tuple(k for k in range(dF.ndim) if k != axis)) for axis in range(dF.ndim)]
        product_of = alone[0]
        for x in alone[1:]:
            product_of = np.multiply.outer(product_of, x)
        expected = expected + np.tensordot(phi, product_of, dF.ndim)
    return expected - observed(phis, y)


phis, y = three
print("right", gradient(learned, phis, y), "\nwrong", of_nodes(learned, phis, y))
mine, _ = train_weights(known, of_nodes)
print(f"theta {mine}, -log p {mean_loss(mine, known):.4f} (right: {mean_loss(learned, known):.4f}), "
      f"true {shares(describe(mine))[0]:.3f}")  # fmt: skip

# %% [markdown]
# Where the photo decides a node alone, $p(o, a)$ and $p(o) \, p(a)$ are nearly the same. So the sentences do not show this
# mistake, and the loss hardly: only $\theta_4$ is a fifth too large. The complex step shows it at once.
#
# ## Exercises
#
# 1. By hand: $w = 2$ in the example of "Predict". What is the probability of the red circle, and the derivative of its
#    logarithm with respect to $w$? Check: .692 and .338.
# 2. Prove that the second derivative of $\log Z$ with respect to $\theta_k$ and $\theta_l$ is the covariance of $f_k$ and
#    $f_l$ under $p(y)$, and that the loss is therefore convex. Check with `phi_all` and `p_all`: the covariance equals the
#    complex step of `gradient` for the photo with two boxes (with `theta`), to 1e-10, and its eigenvalues are not negative.
# 3. The pseudo-likelihood (Besag 1975) needs no $Z$: it is the sum over all nodes of $\log p$ of the node's true value, given
#    the true values of all other nodes. Write its gradient, one softmax for each node, and train with it. Check:
#    $\theta$ = (1.32, 1.86, 1.01, 1.80, .30), and .779 true sentences. Why is the likelihood not much better?
# 4. Divide the test scenes into those where one of the first two objects has a rare colour, and the others. Check: of the 95
#    rare ones, .621 are described truly with the text potentials and .663 without; of the others, .851 and .682.
# 5. Train the weights on 200 photos with which the detector was trained, and on 200 new scenes from elsewhere. Check:
#    E5
#
# ## Next
#
# NNN
