"""Every Picture Tells a Story (Farhadi et al. 2010): photos and sentences meet in a space of meaning, and a photo gets the
sentence whose meaning fits it best.

    meaning: a triple <object, action, scene> of words; those of sentences are found by rules (triples.py)
    node scores of a photo: the mean of log p(word) of a linear classifier of each role, on v = mean_i a_i, and of the
        logarithm of how often the k nearest training photos have the word
    edge scores: log p(a, b) / (p(a) p(b)), by how often two words of different roles are in the triple of one sentence
    score(o, a, s) = node_o + node_a + node_s + w (edge_oa + edge_as + edge_os)            a three-node MRF, solved exactly

The caption is the training sentence whose triple has the largest score; of several sentences with this triple, that of the
most similar photo. A sentence that lacks a part has the word "none" there, like any other word.

Differs: the paper has detectors of objects and scenes among its features, learns all weights together, and measures how near
two triples are by WordNet; here a triple is as near as its score says.
"""

from collections import Counter
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from satnp.arrays.backend import to_host, xp_of
from satnp.arrays.parameters import Parameters
from satnp.captioners.config import Validated
from satnp.data.captions import END
from satnp.decoding import Decoded
from satnp.early.factors import Graph, exact
from satnp.early.fitting import fit_parameters, minibatches
from satnp.early.photos import directions, means, sentences_of, standardise, standardised, store, stored
from satnp.early.triples import triple_of
from satnp.layers import affine_backward, affine_forward, cross_entropy_backward, cross_entropy_forward

SIZES = "P", "S", "T", "objects", "actions", "scenes"  # of Config, which fit() sets
ROLES = "objects", "actions", "scenes"
MOST = {"objects": 80, "actions": 60, "scenes": 80}  # words of a role, without "none"
SMOOTHING = 0.5  # added to each count


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    k: int = 50           # neighbours
    edge: float = 0.3     # w, the weight of the edges
    decay: float = 1e-3   # weight of |W|^2 / 2 in the loss of the classifiers
    epochs: int = 6
    batch: int = 64
    rate: float = 1e-3
    P: int = 1            # training photos
    S: int = 1            # their sentences
    T: int = 1            # words of the longest one
    objects: int = 1      # words of each role, the first one is "none"
    actions: int = 1
    scenes: int = 1


def learned_shapes(config):
    """{name: shape} of the classifiers."""
    sizes = {role: getattr(config, role) for role in ROLES}
    return {name: shape for role, n in sizes.items() for name, shape in
            ((f"W_{role}", (config.D, n)), (f"b_{role}", (n,)))}  # fmt: skip


def shapes(config):
    sizes = {role: getattr(config, role) for role in ROLES}
    return learned_shapes(config) | {
        "mean": (config.D,), "deviation": (config.D,), "v": (config.P, config.D),
        **{f"of_{role}": (config.P, n) for role, n in sizes.items()},  # the share of a photo's sentences with each word
        **{f"{a}_{b}": (sizes[a], sizes[b]) for a, b in combinations(ROLES, 2)},  # edges
        "sentences": (config.S, config.T), "photo_of": (config.S,), "triples": (config.S, 3),
    }  # fmt: skip


def meanings(photos):
    """The triples of all training sentences as numbers (S, 3), and the number of words of each role."""
    found = [triple_of([photos.words[i] for i in caption[1:-1]]) for captions in photos.captions for caption in captions]
    numbers, sizes = np.zeros((len(found), 3), int), {}
    for r, role in enumerate(ROLES):
        counts = Counter(triple[r] for triple in found if triple[r] is not None)
        known = {word: n for n, (word, _) in enumerate(counts.most_common(MOST[role]), 1)}
        numbers[:, r] = [known.get(triple[r], 0) for triple in found]
        sizes[role] = len(known) + 1
    return numbers, sizes


def loss_forward(p, config, v, triples):
    """The sum over the roles of the cross-entropy of v (N, D), triples (N, 3), + decay/2 |W|^2 -> loss (), cache"""
    loss, caches, weights = 0, {}, xp_of(v).full(len(v), 1 / len(v), dtype=v.dtype)
    for r, role in enumerate(ROLES):
        logits, affine = affine_forward(v, p[f"W_{role}"], p[f"b_{role}"])
        of_role, cross_entropy = cross_entropy_forward(logits, triples[:, r], weights)
        loss = loss + of_role + 0.5 * config.decay * (p[f"W_{role}"] * p[f"W_{role}"]).sum()
        caches[role] = affine, cross_entropy
    return loss, (p, config, caches)


def loss_backward(cache, grads):
    """Adds the gradients of the classifiers to grads."""
    p, config, caches = cache
    for role, (affine, cross_entropy) in caches.items():
        _, dW, db = affine_backward(cross_entropy_backward(1.0, cross_entropy), affine)
        grads.add(**{f"W_{role}": dW + config.decay * p[f"W_{role}"], f"b_{role}": db})


def fit(config, photos):
    """Parse the sentences, count, and train the classifiers."""
    rng = np.random.default_rng([photos.seed, 7])
    ids, photo_of = sentences_of(photos.captions)
    triples, sizes = meanings(photos)
    config = replace(config, P=len(photos.captions), S=len(ids), T=max(map(len, ids)), **sizes)
    p = Parameters(shapes(config))
    v = means(photos.annotations)
    standardise(p, v)
    p.v[...], p.photo_of[...], p.triples[...] = directions(p, v), photo_of, triples
    store(ids, p.sentences)
    for r, role in enumerate(ROLES):
        said = p[f"of_{role}"]
        np.add.at(said, (photo_of, triples[:, r]), 1)
        said /= np.maximum(said.sum(axis=1, keepdims=True), 1)
    for (i, a), (j, b) in combinations(enumerate(ROLES), 2):
        edge = p[f"{a}_{b}"]
        np.add.at(edge, (triples[:, i], triples[:, j]), 1)
        joint = (edge + SMOOTHING) / (edge + SMOOTHING).sum()
        edge[...] = np.log(joint / joint.sum(axis=1, keepdims=True) / joint.sum(axis=0))

    learned, batches = Parameters(learned_shapes(config)), minibatches(config.S, config.batch, rng)
    inputs = standardised(p, v)

    def draw(rng):
        chosen = next(batches)
        return inputs[photo_of[chosen]], triples[chosen]

    def work(batch, grads):
        loss, cache = loss_forward(learned, config, *batch)
        loss_backward(cache, grads)
        return loss

    steps = config.epochs * -(-config.S // config.batch)
    fit_parameters(learned, draw, work, steps, config.rate, rng, what="every_picture")
    for name, x in learned.items():
        p[name][...] = x
    return config, p


def node_scores(p, config, v, similar):
    """The node scores of one photo, three of (n,): v (D,) standardised; similar (P,), its cosine with the training photos"""
    nearest, found = np.argsort(-similar, kind="stable")[: config.k], []
    for role in ROLES:
        logits = v @ p[f"W_{role}"] + p[f"b_{role}"]
        log_p = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        share = p[f"of_{role}"][nearest].mean(axis=0)
        found.append((log_p + np.log((share + SMOOTHING / config.k) / (1 + SMOOTHING * len(share) / config.k))) / 2)
    return found


def graph_of(p, config, nodes):
    """The MRF of a photo with these node scores."""
    edges = [((i, j), config.edge * p[f"{ROLES[i]}_{ROLES[j]}"].astype(float)) for i, j in combinations(range(3), 2)]
    return Graph(tuple(map(len, nodes)), [*(((r,), x.astype(float)) for r, x in enumerate(nodes)), *edges])


def describe(p, config, annotations):
    """annotations (N, L, D) -> list of N Decoded"""
    p, found = p.on(to_host(p.flat)), []
    triples, photo_of = p.triples.astype(int), p.photo_of.astype(int)
    for similar, graph in _graphs(p, config, annotations):
        scores = sum(table[tuple(triples[:, r] for r in nodes)] for nodes, table in graph.factors)
        best = scores.max()
        equal = np.flatnonzero(scores >= best - 1e-6 * abs(best))
        row = equal[similar[photo_of[equal]].argmax()]
        found.append(Decoded([*stored(p.sentences[row]), END], None, None))
    return found


def meaning(p, config, annotations):
    """The most probable triple of each photo, which need not be that of a sentence: (N, 3) numbers of words"""
    return np.array([exact(graph)[0] for _, graph in _graphs(p.on(to_host(p.flat)), config, annotations)])


def _graphs(p, config, annotations):
    """Yield for each photo its cosine with the training photos (P,), and its Graph."""
    v = means(annotations)
    for x, similar in zip(standardised(p, v), directions(p, v) @ p.v.T, strict=True):
        yield similar, graph_of(p, config, node_scores(p, config, x, similar))
