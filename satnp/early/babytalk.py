"""BabyTalk (Kulkarni et al. 2011): detectors say what may be in a photo, a conditional random field decides, and a template
or a language model makes a sentence of it.

    nodes: for each of N boxes an object o_i and its attribute a_i; for each pair of boxes a preposition r_ij
    E = -sum_i F(o_i, a_i) - 2/(N-1) sum_{i<j} G(o_i, r_ij, o_j)                                   the energy, lowered
    F = log p(o_i | box i) + log p(a_i | box i) + w log p(o, a) / p(o) p(a)
    G = log p(r_ij | boxes i and j) + w log p(o, r, o') / p(o) p(r) p(o')

The first terms are of detectors; the last ones, the text potentials, are of counts in the training captions. r_ij also says
which of the two objects comes first. Each attribute and each preposition is in one factor only, so the maximum over it is
taken first; the objects that are left are enumerated, or, if their values have too many combinations, found by loopy belief
propagation and ICM (factors.py). The sentence is about the pair with the largest F_i + F_j + G_ij.

    rendered scenes   objects.py finds the boxes; an object is a shape, an attribute is a size and a colour
    photos            words.py is trained on words of captions. The box of a noun is the extent of the map of its probability
                      above half of its maximum; boxes that overlap are one node, and the nouns of these boxes its values
    p(r | boxes)      a linear classifier on the differences of two boxes, which learns from pairs of objects that a caption
                      names; in the other order, the pair has no preposition

    sentences = "template"   "a ATTRIBUTE OBJECT PREPOSITION a ATTRIBUTE OBJECT"; the article is chosen by counts
    sentences = "ngram"      function words between these, such that the mean log p of a bigram model is largest

Differs: the paper trains its detectors on photos with boxes and takes text from the web; it describes all pairs, in several
sentences; its w and other weights are learnt.
"""

from collections import Counter
from dataclasses import dataclass, replace
from itertools import combinations, pairwise, product
from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import to_host, xp_of
from satnp.arrays.parameters import Parameters
from satnp.captioners.attributes import FUNCTION_WORDS, attributes_of, labels, root
from satnp.captioners.config import Validated, check_choices
from satnp.captioners.initialise import initialise
from satnp.data.captions import END, START, UNK
from satnp.decoding import Decoded
from satnp.early import objects, words
from satnp.early.factors import Graph, best_of
from satnp.early.fitting import fit_parameters
from satnp.early.photos import sentences_of, store, stored
from satnp.early.triples import PREPOSITIONS, triple_of
from satnp.errors import InputError
from satnp.layers import affine_backward, affine_forward, cross_entropy_backward, cross_entropy_forward, log_softmax

SIZES = "detector", "K", "objects", "attributes", "prepositions", "words"  # of Config, which fit() sets
CHOICES = {"sentences": ("template", "ngram"), "detector": ("objects", "words")}
WORDS = 300          # words that are detected in photos
NOUN, ATTRIBUTE = 0.1, 0.4  # smallest share of the places of a word: in a triple; before a noun
PREPOSITIONS_MOST = 16
LINKS = PREPOSITIONS | {"the", "front", "top", "next"}  # a preposition may have several words
ARTICLES = "", "a", "an", "the", "two", "three", "some"
GROUP = 0.7          # IoU from which nouns of a photo are values of one node
STRENGTH = {"attribute": 10.0, "preposition": 30.0}  # counts that independent words add to those of captions
MEMORY = 5.0         # counts that a word's frequency adds to those of the bigrams
FILL = 3             # most function words between two content words
TINY = 1e-6          # smallest probability


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    rows: int = 8                # of the grid of annotations
    sentences: str = "template"
    most: int = 4                # objects in a photo
    text: float = 0.5            # w, the weight of the text potentials
    decay: float = 1e-4          # weight of |W_r|^2 / 2 in the loss of the prepositions
    epochs: int = 12             # of the detectors
    detector: str = "words"
    K: int = 1                   # words that are detected in photos
    objects: int = 1
    attributes: int = 1
    prepositions: int = 1
    words: int = 1               # of the bigram model

    def __post_init__(self):
        super().__post_init__()
        check_choices(self, CHOICES)

    @property
    def of_detector(self):
        """The Config of the detector."""
        if self.detector == "objects":
            return objects.Config(D=self.D, rows=self.rows, epochs=self.epochs)
        return words.Config(K=self.K, D=self.D, epochs=self.epochs)  # over the locations: the boxes are from its maps


class Region(NamedTuple):
    """One box (4,), in shares of the photo's sides: the objects that it may be (m,), numbers, their log p (m,), and log p of
    each attribute (A,)"""

    box: object
    objects: object
    log_p: object
    attributes: object


class Phrase(NamedTuple):
    """A noun of a sentence with its attribute: numbers, None for an attribute that is no node's value, and its words."""

    object: int
    attribute: int | None
    start: int
    end: int


class Lexicon(NamedTuple):
    """{word: object}, {words: attribute or None} and {words: preposition}, numbers; the words are tuples"""

    objects: dict
    attributes: dict
    prepositions: dict


def learned_shapes(config):
    """{name: shape} of the classifier of prepositions; its last class is none."""
    return {"W_r": (5, config.prepositions + 1), "b_r": (config.prepositions + 1,)}


def shapes(config):
    O, A, R, W = config.objects, config.attributes, config.prepositions, config.words
    detector = (objects if config.detector == "objects" else words).shapes(config.of_detector)
    return detector | learned_shapes(config) | {
        "of_objects": (O,), "of_attributes": (A,),      # which word that is detected in photos they are, or -1
        "o_a": (O, A), "o_r_o": (O, R, O),              # text potentials
        "object_words": (O,), "attribute_words": (A, 2), "preposition_words": (R, 5),  # word ids, then -1
        "articles": (len(ARTICLES),), "article": (2, O, len(ARTICLES)),  # their log p before the first noun and the second
        "known": (W,), "fill": (W,), "bigram": (W, W),  # of the language model: word ids, which are function words, log p
    }  # fmt: skip


def phrases(sentence, lexicon):
    """The Phrases of a tokenised sentence. The last of several nouns in a row counts: "a tennis ball" is a ball."""
    found = []
    for t, word in enumerate(sentence):
        if word in lexicon.objects and not (t + 1 < len(sentence) and sentence[t + 1] in lexicon.objects):
            first = t
            while first and sentence[first - 1] in lexicon.objects:
                first -= 1
            known = (tuple(sentence[max(first - k, 0) : first]) for k in (2, 1))
            of_noun = next((pair for pair in known if pair in lexicon.attributes), ())
            found.append(Phrase(lexicon.objects[word], lexicon.attributes.get(of_noun), first - len(of_noun), t + 1))
    return found


def article_of(sentence, phrase, lexicon):
    """The number of the word in ARTICLES that is before a phrase; there may be more attributes between them."""
    t = phrase.start - 1
    while t >= 0 and (sentence[t],) in lexicon.attributes:
        t -= 1
    return ARTICLES.index(sentence[t]) if t >= 0 and sentence[t] in ARTICLES else 0


def preposition(between):
    """The preposition at the end of the words between two phrases, a tuple of words; () if there is none"""
    kept = list(between)
    while kept and kept[-1] in ARTICLES:
        kept.pop()
    start = len(kept)
    while start and kept[start - 1] in LINKS:
        start -= 1
    return tuple(kept[start + (kept[start : start + 1] == ["the"]) :])


def mentions(sentence, lexicon):
    """[(Phrase, the words of its preposition, Phrase)] of neighbouring phrases of a sentence."""
    pairs = pairwise(phrases(sentence, lexicon))
    return [(a, preposition(sentence[a.end : b.start]), b) for a, b in pairs]


def association(counts, strength):
    """log p(x, y, ...) / p(x) p(y) ... of a table of counts; `strength` counts as of independent words are added."""
    n, independent = max(counts.sum(), 1), np.ones(())
    for axis in range(counts.ndim):
        others = tuple(k for k in range(counts.ndim) if k != axis)
        share = (counts.sum(axis=others) + 1) / (n + counts.shape[axis])
        independent = independent[..., None] * share
    return np.log((counts + strength * independent) / ((n + strength) * independent))


def bigrams(sentences, known):
    """log p(next | word) of the words `known` (W,), ids: (W, W). p = (count + MEMORY p(next)) / (count of word + MEMORY)"""
    index = {word: k for k, word in enumerate(known)}
    counts, before, alone = np.zeros((len(known),) * 2), np.zeros(len(known)), np.ones(len(known))
    for ids in sentences:
        for word in ids:
            if word in index:
                alone[index[word]] += 1
        for a, b in pairwise(ids):
            if a in index:
                before[index[a]] += 1
                if b in index:
                    counts[index[a], index[b]] += 1
    return np.log((counts + MEMORY * alone / alone.sum()) / (before + MEMORY)[:, None])


def differences(a, b):
    """What a preposition depends on: boxes a and b (..., 4) in shares of the photo -> (..., 5)

    The centre of b from that of a in eighths of the photo, the logarithms of the ratios of widths and heights, and IoU.
    """
    size_a, size_b = (np.maximum(x[..., 2:] - x[..., :2], TINY) for x in (a, b))
    centres = (b[..., :2] + b[..., 2:] - a[..., :2] - a[..., 2:]) / 2
    return np.concatenate([8 * centres, np.log(size_b / size_a), objects.intersection_over_union(a, b)[..., None]], axis=-1)


def loss_forward(p, config, x, r):
    """Cross-entropy of the prepositions r (N,) of differences x (N, 5), + decay/2 |W_r|^2 -> loss (), cache"""
    logits, affine = affine_forward(x, p.W_r, p.b_r)
    loss, cross_entropy = cross_entropy_forward(logits, r, xp_of(x).full(len(r), 1 / len(r), x.dtype))
    return loss + 0.5 * config.decay * (p.W_r * p.W_r).sum(), (p, config, affine, cross_entropy)


def loss_backward(cache, grads):
    """Adds the gradients of W_r and b_r to grads."""
    p, config, affine, cross_entropy = cache
    _, dW, db = affine_backward(cross_entropy_backward(1.0, cross_entropy), affine)
    grads.add(W_r=dW + config.decay * p.W_r, b_r=db)


def fit(config, photos):
    """Train the detector, read the captions, and train the classifier of prepositions."""
    rng = np.random.default_rng([photos.seed, 9])
    learn = _from_photos if photos.scenes is None else _from_scenes
    config, detector, lexicon, tables, box_of = learn(config, photos)

    ids, photo_of = sentences_of(photos.captions)
    said = [[photos.words[i] for i in sentence] for sentence in ids]
    commonest = Counter(r for spoken in said for _, r, _ in mentions(spoken, lexicon) if r).most_common(PREPOSITIONS_MOST)
    lexicon = lexicon._replace(prepositions={r: k for k, (r, _) in enumerate(commonest)})

    id_of = {word: i for i, word in enumerate(photos.words)}
    content = {i for table in (tables["object_words"], *tables["attribute_words"]) for i in np.ravel(table) if i > UNK}
    content |= {id_of[word] for r in lexicon.prepositions for word in r}
    fill = {i for word, i in id_of.items() if word in FUNCTION_WORDS - PREPOSITIONS}
    known = [START, END, *sorted(content | fill)]
    config = replace(config, prepositions=max(1, len(commonest)), words=len(known))

    p = Parameters(shapes(config))
    for name, x in detector.items():
        p[name][...] = x
    for name in ("of_objects", "of_attributes", "object_words"):
        p[name][...] = tables[name]
    store(tables["attribute_words"], p.attribute_words)
    store([[id_of[word] for word in r] for r in lexicon.prepositions] or [[]], p.preposition_words)
    p.articles[...] = [id_of.get(word, -1) for word in ARTICLES]
    p.known[...], p.fill[...] = known, [i in fill for i in known]
    p.bigram[...] = bigrams([[START, *sentence, END] for sentence in ids], known)
    pairs, relations = _count(p, photo_of, said, lexicon, box_of)
    if pairs:
        a, b = np.array(pairs).transpose(1, 0, 2)
        x, none = np.concatenate([differences(a, b), differences(b, a)]), np.full(len(a), config.prepositions)
        _learn_prepositions(p, config, x.astype(np.float32), np.concatenate([relations, none]), rng)
    return config, p


def _count(p, photo_of, said, lexicon, box_of):
    """Set the text potentials and the articles' log p; photo_of (S,) and said are the photo and the words of each sentence

    -> [(box, box)], prepositions of the pairs whose preposition and boxes are known
    """
    pairs, relations = [], []
    for n, spoken in zip(photo_of, said, strict=True):
        for k, phrase in enumerate(phrases(spoken, lexicon)):
            p.article[min(k, 1), phrase.object, article_of(spoken, phrase, lexicon)] += 1
            if phrase.attribute is not None:
                p.o_a[phrase.object, phrase.attribute] += 1
        for a, r, b in mentions(spoken, lexicon):
            if r in lexicon.prepositions:
                p.o_r_o[a.object, lexicon.prepositions[r], b.object] += 1
                boxes = [box_of(n, spoken, phrase) for phrase in (a, b)]
                if all(box is not None for box in boxes):
                    pairs.append(boxes)
                    relations.append(lexicon.prepositions[r])
    p.o_a[...], p.o_r_o[...] = association(p.o_a, STRENGTH["attribute"]), association(p.o_r_o, STRENGTH["preposition"])
    p.article[...] = np.log((p.article + 0.1) / (p.article + 0.1).sum(axis=2, keepdims=True))
    return pairs, relations


def _learn_prepositions(p, config, x, r, rng, steps=2000, batch=256):
    learned = initialise(learned_shapes(config), rng)

    def work(chosen, grads):
        loss, cache = loss_forward(learned, config, x[chosen], r[chosen])
        loss_backward(cache, grads)
        return loss

    fit_parameters(learned, lambda rng: rng.integers(0, len(r), batch), work, steps, 0.1, rng, what="prepositions")
    p.W_r[...], p.b_r[...] = learned.W_r, learned.b_r


def _from_scenes(config, photos):
    """The detector of rendered scenes -> config, its parameters, Lexicon, tables, box_of(photo, sentence, phrase)"""
    of, id_of = objects.CLASSES, {word: i for i, word in enumerate(photos.words)}
    pairs = list(product(of["size"], of["colour"]))
    config = replace(config, detector="objects", objects=len(of["shape"]), attributes=len(pairs))
    things = [scene.objects for scene in photos.scenes]
    detector = objects.train(config.of_detector, photos.annotations, things, photos.seed)
    lexicon = Lexicon(
        {word: k for k, word in enumerate(of["shape"])},
        {pair: k for k, pair in enumerate(pairs)} | {(colour,): None for colour in of["colour"]}, {},
    )  # fmt: skip
    tables = {
        "of_objects": -1, "of_attributes": -1, "object_words": [id_of.get(word, UNK) for word in of["shape"]],
        "attribute_words": [[id_of.get(word, UNK) for word in pair] for pair in pairs],
    }  # fmt: skip

    def box_of(n, sentence, phrase):
        kind = tuple(sentence[phrase.end - 2 : phrase.end])
        return next((np.array(thing.box) / objects.SIDE for thing in things[n] if thing.kind == kind), None)

    return config, detector, lexicon, tables, box_of


def _from_photos(config, photos):
    """Word detectors, and which of their words are nouns or attributes -> as _from_scenes"""
    attribute = attributes_of(photos.words, WORDS)
    K = attribute.max() + 1
    if not K:
        raise InputError("the captions have only function words, such as \"the\"; give captions that name objects")
    y, val_y = (_labels(captions, attribute, K) for captions in (photos.captions, photos.val_captions))
    config = replace(config, detector="words", K=int(K))
    detector, _ = words.train(config.of_detector, photos.annotations, y, photos.val_annotations, val_y, photos.seed)

    nouns, adjectives = _parts_of_speech(photos, attribute, K)
    form = np.array([int(np.flatnonzero(attribute == k)[0]) for k in range(K)])  # the commonest word of each root
    config = replace(config, objects=len(nouns), attributes=1 + len(adjectives))
    numbers = {k: n for n, k in enumerate(nouns)}, {k: n for n, k in enumerate(adjectives, 1)}
    pairs = list(zip(photos.words, attribute, strict=True))
    of_word = [{word: number[k] for word, k in pairs if k in number} for number in numbers]
    lexicon = Lexicon(of_word[0], {(): 0} | {(word,): n for word, n in of_word[1].items()}, {})
    tables = {
        "of_objects": nouns, "of_attributes": [-1, *adjectives], "object_words": form[nouns],
        "attribute_words": [[], *([int(form[k])] for k in adjectives)],
    }  # fmt: skip
    maps = (words.where(detector, config.of_detector, seen)[:, :, nouns] for seen in _chunks(detector, photos.annotations))
    boxes = np.concatenate([extents(x, config.rows) for x in maps])
    return config, detector, lexicon, tables, lambda n, sentence, phrase: boxes[n, phrase.object]


def _labels(captions, attribute, K):
    """Which of the K words that are detected the captions of each photo have: (N, K) bool"""
    said = np.zeros((len(captions), len(attribute)), bool)
    for row, of_photo in zip(said, captions, strict=True):
        row[[i for caption in of_photo for i in caption]] = True
    return labels(said, attribute, K).astype(bool)


def _parts_of_speech(photos, attribute, K):
    """Which of the K words that are detected are nouns, and which are attributes: two lists of numbers

    A noun is an object or a scene of the triples in a share of NOUN of its places, and does not end in "ing" or "ed"; an
    attribute is no noun, and is before a noun in a share of ATTRIBUTE of its places.
    """
    sentences, _ = sentences_of(photos.captions)
    number = {word: k for word, k in zip(photos.words, attribute, strict=True) if k >= 0}
    roots = {root(word): k for word, k in number.items()}
    places, named, before = (np.zeros(K + 1) for _ in range(3))  # the last one counts what is not among the K
    for sentence in sentences:
        np.add.at(places, attribute[sentence], 1)
        triple = triple_of([photos.words[i] for i in sentence])
        np.add.at(named, [roots.get(triple.object, K), roots.get(triple.scene, K)], 1)
    form = [photos.words[int(np.flatnonzero(attribute == k)[0])] for k in range(K)]
    share = named[:K] / np.maximum(places[:K], 1)
    nouns = [k for k in range(K) if share[k] >= NOUN and not (len(form[k]) > 5 and form[k].endswith(("ing", "ed")))]
    for sentence in sentences:
        np.add.at(before, [attribute[i] for i, j in pairwise(sentence) if attribute[j] in nouns], 1)
    share = before[:K] / np.maximum(places[:K], 1)
    return nouns or [0], [k for k in range(K) if share[k] >= ATTRIBUTE and k not in nouns]


def extents(maps, rows):
    """The box of what is above half of the largest value of each map: maps (N, L, O) -> (N, O, 4), in shares of the sides"""
    N, L, O = maps.shape
    high = (maps >= maps.max(axis=1, keepdims=True) / 2).reshape(N, rows, -1, O)
    sides = []
    for axis in (2, 1):  # columns give x0 and x1, rows y0 and y1
        there = high.any(axis=3 - axis)
        n = there.shape[1]
        sides.append((there.argmax(axis=1) / n, 1 - there[:, ::-1].argmax(axis=1) / n))
    return np.stack([sides[0][0], sides[1][0], sides[0][1], sides[1][1]], axis=-1)


def _chunks(p, annotations, chunk=100):
    """Yield the annotations of some photos at a time, on the host."""
    for n in range(0, len(annotations), chunk):
        yield to_host(annotations[n : n + chunk]).astype(p.flat.dtype)


def regions(p, config, annotations):
    """annotations (N, L, D) -> for each photo a list of Regions"""
    find = _regions_of_scenes if config.detector == "objects" else _regions_of_photos
    return [found for seen in _chunks(p, annotations) for found in find(p, config, seen)]


def _regions_of_scenes(p, config, annotations):
    known, of = np.arange(config.objects), config.of_detector
    for found in objects.detect(p, of, annotations):
        yield [
            Region(np.array(x.box) / of.side, known, np.log(np.maximum(x.shape, TINY)),
                   np.log(np.maximum(np.outer(x.size, x.colour).ravel(), TINY)))
            for x in found[: config.most]
        ]  # fmt: skip


def _regions_of_photos(p, config, annotations):
    maps = words.where(p, config.of_detector, annotations)
    nouns, adjectives = p.of_objects.astype(int), p.of_attributes[1:].astype(int)
    boxes, rows = extents(maps[:, :, nouns], config.rows), config.rows
    for box, of_photo in zip(boxes, maps, strict=True):
        log_p = np.log(np.maximum(1 - (1 - of_photo[:, nouns]).prod(axis=0), TINY))
        shared, found = objects.overlaps(box, box), []
        kept = objects.suppress(box, log_p, GROUP)[: config.most]
        for i in kept:
            group = [j for j in range(len(nouns)) if j == i or shared[i, j] > GROUP and j not in kept]
            x0, y0, x1, y1 = box[i]
            cells = of_photo.reshape(rows, -1, of_photo.shape[1])
            columns = cells.shape[1]
            inside = cells[round(y0 * rows) : round(y1 * rows), round(x0 * columns) : round(x1 * columns)][..., adjectives]
            there = 1 - (1 - inside).prod(axis=(0, 1))
            p_a = np.array([1 - there.max(initial=0), *there])
            found.append(Region(box[i], np.array(group), log_p[group], np.log(np.maximum(p_a, TINY))))
        yield found


def graph_of(p, config, found):
    """The Graph of a photo's Regions: nodes o_0 ... o_N-1, a_0 ... a_N-1, then r_ij for i < j

    Factor F has the nodes (o, a), factor G the nodes (o_i, r, o_j). A value of r below R is the preposition of "i r j", a
    value from R on that of "j r i".
    """
    N, factors = len(found), []
    for i, x in enumerate(found):
        factors.append(((i, N + i), x.log_p[:, None] + x.attributes + config.text * p.o_a[x.objects]))
    for n, (i, j) in enumerate(combinations(range(N), 2)):
        ways = []
        for first, second in ((found[i], found[j]), (found[j], found[i])):
            log_p = log_softmax(differences(first.box, second.box) @ p.W_r + p.b_r)[:-1]
            ways.append(log_p[:, None] + config.text * p.o_r_o[first.objects][:, :, second.objects])
        both = np.concatenate([ways[0], ways[1].transpose(2, 1, 0)], axis=1)
        factors.append(((i, 2 * N + n, j), 2 / (N - 1) * both))
    sizes = [*(len(x.objects) for x in found), *(len(x.attributes) for x in found)]
    sizes += [2 * config.prepositions] * (len(factors) - N)
    return Graph(tuple(sizes), factors)


def infer(graph, N, **options):
    """The values with the smallest energy of a graph with N objects, as graph_of makes it; options of factors.best_of

    Node 1 of each factor has no other factor, so max over it leaves a graph of the objects.
    """
    left = [((nodes[0], *nodes[2:]), table.max(axis=1)) for nodes, table in graph.factors]
    chosen, _ = best_of(Graph(graph.sizes[:N], left), **options)
    values = [*chosen, *[0] * (len(graph.sizes) - N)]
    for nodes, table in graph.factors:
        values[nodes[1]] = int(table[(chosen[nodes[0]], slice(None), *(chosen[k] for k in nodes[2:]))].argmax())
    return tuple(values)


class Noun(NamedTuple):
    """What was found in a box: its object and its attribute, numbers, and the box (4,) in shares of the photo's sides"""

    object: int
    attribute: int
    box: object

    def words(self, p):
        """Word ids, those of the attribute first"""
        return [*stored(p.attribute_words[self.attribute]), int(p.object_words[self.object])]


def meanings(p, config, annotations):
    """annotations (N, L, D) -> for each photo a list of Noun, and what the sentence is about: (Noun, preposition, Noun), or
    (Noun,) if there is no pair, or ()"""
    found = []
    for of_photo in regions(p, config, annotations):
        N = len(of_photo)
        graph = graph_of(p, config, of_photo)
        values = infer(graph, N) if N else ()
        nouns = [Noun(int(x.objects[values[i]]), values[N + i], x.box) for i, x in enumerate(of_photo)]
        terms = [float(table[tuple(values[k] for k in nodes)]) for nodes, table in graph.factors]
        about = tuple(nouns[:1])
        if N > 1:
            pairs = list(combinations(range(N), 2))
            n = max(range(len(pairs)), key=lambda n: terms[pairs[n][0]] + terms[pairs[n][1]] + terms[N + n])
            (i, j), r = pairs[n], values[2 * N + n]
            first, second = (i, j) if r < config.prepositions else (j, i)
            about = nouns[first], r % config.prepositions, nouns[second]
        found.append((nouns, about))
    return found


def describe(p, config, annotations):
    """annotations (N, L, D) -> list of N Decoded"""
    p = p.on(to_host(p.flat))
    return [Decoded([*sentence(p, config, about), END], None, None) for _, about in meanings(p, config, annotations)]


def found_in(p, config, annotations):
    """annotations (N, L, D) -> for each photo [(word ids, box)] of all objects, boxes in shares of the photo's sides"""
    p = p.on(to_host(p.flat))
    return [[(noun.words(p), noun.box) for noun in nouns] for nouns, _ in meanings(p, config, annotations)]


def sentence(p, config, about):
    """What `meanings` gives -> word ids"""
    parts = [stored(p.preposition_words[x]) if isinstance(x, int) else x.words(p) for x in about]
    if config.sentences == "ngram":
        return glue(p, parts)
    index = {int(i): k for k, i in enumerate(p.known)}
    for position, (part, noun) in enumerate(zip(parts[::2], about[::2], strict=True)):
        if part[0] in index:  # the article must fit the noun and the word after it: an orange ball
            after = np.append(p.bigram[:, index[part[0]]], -np.inf).astype(float)
            of_article = after[[index.get(int(article), -1) for article in p.articles]]
            of_article[0] = np.log(np.exp(after).sum() / len(p.known))  # no article: after any word
            article = int(p.articles[(p.article[position, noun.object] + of_article).argmax()])
            part[:0] = [article] if article >= 0 else []
    return [i for part in parts for i in part]


def glue(p, parts):
    """The parts, lists of word ids, with up to FILL function words before each of them -> word ids

    Of all such sentences the one with the largest mean log p of a word, <end> included. The best words of a gap of a given
    length depend only on its two neighbours (`gaps`), so all combinations of lengths are compared.
    """
    index = {int(i): k for k, i in enumerate(p.known)}
    parts = [known for part in parts if (known := [index[i] for i in part if i in index])]
    start, end, fill = index[START], index[END], np.flatnonzero(p.fill)
    length = 1 + sum(map(len, parts))
    neighbours, before = [], start
    for part in parts:
        neighbours.append((before, part[0]))
        before = part[-1]
    fixed = sum(p.bigram[a, b] for part in (*parts, [before, end]) for a, b in pairwise(part))
    filled = [gaps(p.bigram, fill, *pair) for pair in neighbours]

    def mean(chosen):
        return (fixed + sum(score for score, _ in chosen)) / (length + sum(len(between) for _, between in chosen))

    chosen = max(product(*filled), key=mean)
    ids = [i for (_, between), part in zip(chosen, parts, strict=True) for i in (*between, *part)]
    return [int(p.known[i]) for i in ids]


def gaps(bigram, fill, left, right, most=FILL):
    """The best words of `fill` between `left` and `right`, by dynamic programming: [(log p, words)] for 0 to `most` words"""
    found = [(float(bigram[left, right]), [])]
    score, back = bigram[left, fill], []
    for _ in range(most if len(fill) else 0):
        path = [int((score + bigram[fill, right]).argmax())]
        total = float((score + bigram[fill, right])[path[0]])
        for before in reversed(back):
            path.append(int(before[path[-1]]))
        found.append((total, [int(fill[k]) for k in reversed(path)]))
        through = score[:, None] + bigram[np.ix_(fill, fill)]
        back.append(through.argmax(axis=0))
        score = through.max(axis=0)
    return found
