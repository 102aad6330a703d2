"""BabyTalk: inference against enumeration, text statistics by hand, sentences, and what it says of scenes and of photos."""

from dataclasses import replace
from itertools import combinations, pairwise, product

import numpy as np
import pytest

from satnp.arrays.parameters import Parameters
from satnp.data.captions import END, SPECIALS, START, Vocabulary
from satnp.data.scenes import RELATIONS, SIDE, _relation, is_true, make_scenes
from satnp.early import babytalk
from satnp.early.babytalk import Config, Lexicon, Region, association, bigrams, differences, extents, gaps, graph_of, infer
from satnp.early.factors import Graph, exact, icm, loopy
from satnp.early.photos import Photos
from tests.early.plain_scenes import annotations_of


def random_graph(rng, N, objects=3, attributes=2, prepositions=2):
    """A graph with the nodes and factors of a photo with N objects."""
    pairs = list(combinations(range(N), 2))
    sizes = (*rng.integers(2, objects + 1, N), *N * [attributes], *len(pairs) * [2 * prepositions])
    scopes = [(i, N + i) for i in range(N)] + [(i, 2 * N + n, j) for n, (i, j) in enumerate(pairs)]
    return Graph(tuple(map(int, sizes)), [(nodes, rng.standard_normal([sizes[k] for k in nodes])) for nodes in scopes])


@pytest.mark.parametrize("N", [1, 2, 3])
def test_up_to_three_objects_have_the_smallest_energy_of_all_combinations(N):
    for seed in range(30):
        graph = random_graph(np.random.default_rng(seed), N)
        values = infer(graph, N)
        assert graph.score(values) == pytest.approx(exact(graph)[1], abs=1e-12)


def test_four_objects_and_approximate_inference_against_all_combinations():
    reached = {"infer": 0, "loopy": 0, "icm": 0}
    for seed in range(25):
        graph = random_graph(np.random.default_rng(seed), 4, attributes=2, prepositions=1)
        best = exact(graph)[1]
        assert graph.score(infer(graph, 4)) == pytest.approx(best, abs=1e-12)
        found = {"infer": graph.score(infer(graph, 4, limit=1)), "loopy": loopy(graph)[1], "icm": icm(graph)[1]}
        for name, score in found.items():
            assert score <= best + 1e-12
            reached[name] += score >= best - 1e-9
    assert reached["infer"] >= 22 and reached["loopy"] >= 15 and reached["icm"] >= 5, reached


def parameters(config, rng):
    shapes = babytalk.shapes(config)
    return Parameters(shapes, flat=rng.standard_normal(sum(int(np.prod(s)) for s in shapes.values())))


def random_region(rng, config):
    corner = rng.random(2) * 0.7
    chosen = rng.permutation(config.objects)[: rng.integers(1, config.objects)]
    scores = (rng.standard_normal(n) for n in (len(chosen), config.attributes))
    return Region(np.r_[corner, corner + 0.2], chosen, *scores)


@pytest.mark.parametrize("N", [1, 2, 3])
def test_the_graph_has_the_energy_of_the_equations(N, rng):
    config = Config(V=9, D=4, objects=4, attributes=3, prepositions=2, text=0.7)
    p, R = parameters(config, rng), 2
    found = [random_region(rng, config) for _ in range(N)]
    graph, pairs = graph_of(p, config, found), list(combinations(range(N), 2))
    for _ in range(20):
        values = [int(rng.integers(size)) for size in graph.sizes]
        o = [int(x.objects[value]) for x, value in zip(found, values, strict=False)]
        energy = 0
        for i, x in enumerate(found):
            a = values[N + i]
            energy -= x.log_p[values[i]] + x.attributes[a] + 0.7 * p.o_a[o[i], a]
        for n, (i, j) in enumerate(pairs):
            r = values[2 * N + n]
            if r >= R:
                i, j = j, i
            logits = differences(found[i].box, found[j].box) @ p.W_r + p.b_r
            log_p = logits[r % R] - np.log(np.exp(logits).sum())
            energy -= 2 / (N - 1) * (log_p + 0.7 * p.o_r_o[o[i], r % R, o[j]])
        assert graph.score(values) == pytest.approx(-energy)


def test_association_is_zero_for_independent_counts_and_shrinks_with_few():
    np.testing.assert_allclose(association(1e6 * np.outer([1, 2], [1, 3, 1]), 10.0), 0, atol=1e-4)
    table = association(1e6 * np.eye(2), 10.0)
    assert table[0, 0] == pytest.approx(np.log(2), abs=1e-3) and table[0, 1] < -5
    few = association(np.eye(2), 10.0)
    assert 0 < few[0, 0] < 0.2 and -0.3 < few[0, 1] < 0
    three = association(np.array([[[50.0, 0], [0, 0]], [[0, 0], [0, 50.0]]]), 1e-9)
    assert three[0, 0, 0] == pytest.approx(np.log(4), abs=0.1)


def test_bigrams_are_counts_with_the_frequencies_mixed_in():
    found = np.exp(bigrams([[1, 5, 6, 2], [1, 5, 7, 2], [1, 7, 2]], [1, 2, 5, 7]))
    alone = np.array([4, 4, 3, 3]) / 14  # one is added to each count
    M = babytalk.MEMORY
    np.testing.assert_allclose(found[0], (np.array([0, 0, 2, 1]) + M * alone) / (3 + M))
    np.testing.assert_allclose(found[2], (np.array([0, 0, 0, 1]) + M * alone) / (2 + M))


LEXICON = Lexicon({"dog": 0, "grass": 1, "ball": 2, "tennis": 3}, {(): 0, ("brown",): 1, ("big", "red"): 2}, {})


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("a brown dog runs in the grass", [(0, 1, "in", 1, 0)]),
        ("the dog is to the left of a tennis ball on the grass", [(0, 0, "to the left of", 2, 0), (2, 0, "on", 1, 0)]),
        ("a big red ball and a red dog in front of grass", [(2, 2, "", 0, 0), (0, 0, "in front of", 1, 0)]),
        ("a dog", []),
        ("", []),
    ],
)
def test_mentions_are_two_nouns_and_what_is_between_them(sentence, wanted):
    found = babytalk.mentions(sentence.split(), LEXICON)
    assert [(a.object, a.attribute, " ".join(r), b.object, b.attribute) for a, r, b in found] == wanted


def test_the_box_of_a_map_is_the_extent_above_half_of_its_maximum():
    maps = np.zeros((1, 3, 4, 2))
    maps[0, 1, 2, 0], maps[0, 2, 3, 0], maps[0, 0, 0, 0] = 0.8, 0.4, 0.39
    maps[0, :, :, 1] = 0.2
    found = extents(maps.reshape(1, 12, 2), 3)
    np.testing.assert_allclose(found[0], [[2 / 4, 1 / 3, 1, 1], [0, 0, 1, 1]])


def log_p(bigram, path):
    return sum(bigram[a, b] for a, b in pairwise(path))


def test_the_best_words_of_a_gap_are_those_of_all_sequences(rng):
    for _ in range(20):
        bigram, fill = np.log(rng.dirichlet(np.full(7, 0.3), 7)), np.array([1, 3, 4, 6])
        found = gaps(bigram, fill, 0, 5)
        assert len(found) == babytalk.FILL + 1
        for length, (score, words) in enumerate(found):
            best = max(log_p(bigram, [0, *words, 5]) for words in product(fill, repeat=length))
            assert len(words) == length and score == pytest.approx(best) == pytest.approx(log_p(bigram, [0, *words, 5]))


@pytest.mark.parametrize("seed", range(5))
def test_the_sentence_has_the_largest_mean_of_all(seed):
    """Against every choice of at most FILL function words before each of two parts."""
    rng = np.random.default_rng(seed)
    p = parameters(Config(V=20, D=2, words=7), rng)
    known = [START, END, 10, 11, 12, 13, 14]
    p.known[...], p.fill[...], p.bigram[...] = known, [0, 0, 0, 0, 0, 1, 1], np.log(rng.dirichlet(np.full(7, 0.3), 7))
    fills = [x for n in range(babytalk.FILL + 1) for x in product([13, 14], repeat=n)]

    def mean(ids):
        return log_p(p.bigram, [known.index(i) for i in (START, *ids, END)]) / (len(ids) + 1)

    best = max(mean([*a, 10, 11, *b, 12]) for a, b in product(fills, fills))
    assert mean(babytalk.glue(p, [[10, 11], [12]])) == pytest.approx(best)


def world(scenes, shown):
    """Photos of (training, validation) scenes."""
    captions = [[caption.split() for caption in scene.captions] for scene in scenes[0]]
    vocabulary = Vocabulary.build([words for of_photo in captions for words in of_photo], 1)
    ids = [[[vocabulary.encode(caption.split()) for caption in scene.captions] for scene in of] for of in scenes]
    seen = [annotations_of(of) for of in scenes]
    return vocabulary, seen, Photos(
        seen[0], ids[0], seen[1], ids[1], vocabulary.words, 0, tuple(scenes[0]) if shown else None
    )  # fmt: skip


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(400, "train", seed=2), make_scenes(100, "test", seed=2)


def test_its_captions_of_new_scenes_are_true(scenes, capsys):
    vocabulary, seen, photos = world(scenes, shown=True)
    config, p = babytalk.fit(Config(V=len(vocabulary), D=16, epochs=30), photos)
    assert config.detector == "objects" and (config.objects, config.attributes, config.prepositions) == (4, 12, 6)
    for sentences in ("template", "ngram"):
        found = babytalk.describe(p, replace(config, sentences=sentences), seen[1])
        said = [" ".join(vocabulary.decode(x.ids)) for x in found]
        assert np.mean([is_true(*pair) for pair in zip(said, scenes[1], strict=True)]) > 0.85
    for found, scene in zip(babytalk.found_in(p, config, seen[1][:20]), scenes[1], strict=False):
        assert len(found) <= 3
        for ids, box in found:
            size, *kind = vocabulary.decode(ids)
            things = [x for x in scene.objects if x.kind == tuple(kind) and x.size == size]
            assert not things or np.abs(SIDE * box - things[0].box).max() < 8


def test_prepositions_are_learnt_from_boxes_and_captions(scenes, capsys):
    vocabulary, _, photos = world(scenes, shown=True)
    config, p = babytalk.fit(Config(V=len(vocabulary), D=16, epochs=1), photos)
    names = [" ".join(vocabulary.decode([*row[row >= 0].astype(int), END])) for row in p.preposition_words]
    hits = []
    for scene in scenes[1]:
        for a, b in combinations(scene.objects, 2):
            relation = _relation(a.box, b.box)
            logits = differences(np.array(a.box) / SIDE, np.array(b.box) / SIDE) @ p.W_r + p.b_r
            said = names[logits[:-1].argmax()]
            hits.append(relation == {"to the left of": "left of", "over": "above", "under": "below"}.get(said, said))
    assert set(RELATIONS) <= set(names) and np.mean(hits) > 0.95


def test_of_photos_it_names_what_its_word_detectors_see(scenes, capsys):
    vocabulary, seen, photos = world(scenes, shown=False)
    config, p = babytalk.fit(Config(V=len(vocabulary), D=16, most=2, epochs=30), photos)
    assert config.detector == "words" and config.objects == 4
    right = []
    for found, scene in zip(babytalk.describe(p, config, seen[1]), scenes[1], strict=True):
        words = vocabulary.decode(found.ids)
        named = {word for word in words if word in ("circle", "square", "triangle", "cross")}
        right.append(named <= {thing.shape for thing in scene.objects})
        assert not set(words) & set(SPECIALS)
    assert np.mean(right) > 0.9


def test_nothing_found_gives_no_words(scenes):
    config = Config(V=30, D=16, detector="objects", objects=4, attributes=12, prepositions=6, words=20)
    p = Parameters(babytalk.shapes(config))
    p.b_o[0] = -20
    (found,) = babytalk.describe(p, config, annotations_of(scenes[1][:1]))
    assert found.ids == [END] and babytalk.found_in(p, config, annotations_of(scenes[1][:1])) == [[]]
