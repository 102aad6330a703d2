"""Inference in factor graphs, held against the enumeration of all combinations."""

from itertools import product

import numpy as np
import pytest

from satnp.early.factors import Graph, all_scores, best_of, exact, icm, loopy, marginals


def random_graph(rng, sizes, scopes):
    return Graph(sizes, [(nodes, rng.standard_normal([sizes[k] for k in nodes])) for nodes in scopes])


def combinations_of(graph):
    """In the order of all_scores."""
    return list(product(*map(range, graph.sizes)))


def is_settled(graph, values):
    """No change of one node improves the score."""
    changed = ((*values[:k], x, *values[k + 1 :]) for k, size in enumerate(graph.sizes) for x in range(size))
    return all(graph.score(other) <= graph.score(values) + 1e-12 for other in changed)


def test_all_scores_are_those_of_each_combination(rng):
    graph = random_graph(rng, (2, 3, 4), [(0,), (2, 0), (1, 2, 0), (2, 1)])
    wanted = [graph.score(values) for values in combinations_of(graph)]
    np.testing.assert_allclose(all_scores(graph).ravel(), wanted, rtol=1e-13)
    assert exact(graph) == (combinations_of(graph)[int(np.argmax(wanted))], pytest.approx(max(wanted)))


def test_marginals_are_sums_of_probabilities(rng):
    graph = random_graph(rng, (2, 3), [(0,), (1,), (1, 0)])
    p = np.exp([[graph.score((a, b)) for b in range(3)] for a in range(2)])
    for found, wanted in zip(marginals(graph), (p.sum(1) / p.sum(), p.sum(0) / p.sum()), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_belief_propagation_is_exact_without_loops(seed):
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, (3, 4, 2, 5, 3), [(0,), (1,), (2,), (3,), (4,), (0, 1), (1, 2, 3), (3, 4)])
    assert loopy(graph) == (exact(graph)[0], pytest.approx(exact(graph)[1]))


def test_icm_ends_where_no_single_change_helps_and_never_above_the_optimum():
    reached = {"icm": 0, "loopy": 0}
    for seed in range(100):
        graph = random_graph(
            np.random.default_rng(seed), (3, 4, 3, 3), [(0,), (1,), (2,), (3,), (0, 1), (1, 2), (2, 3), (3, 0), (0, 1, 2)]
        )
        best = exact(graph)[1]
        values, score = icm(graph)
        assert is_settled(graph, values) and score <= best + 1e-12
        assert loopy(graph)[1] <= best + 1e-12
        reached["icm"] += score >= best - 1e-9
        reached["loopy"] += loopy(graph)[1] >= best - 1e-9
        assert best_of(graph)[1] == pytest.approx(best) and best_of(graph, limit=1)[1] >= max(score, loopy(graph)[1]) - 1e-12
    assert reached["icm"] >= 50 and reached["loopy"] >= 65, reached
