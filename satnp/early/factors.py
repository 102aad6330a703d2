"""Factor graphs with few values a node: the most probable values, exactly and by two approximations; and exact marginals.

A graph has nodes 0, 1, ... with sizes[k] values each, and factors: (nodes, table) adds table[values of these nodes] to the
score. The probability of all values together is proportional to exp(score).
"""

from typing import NamedTuple

import numpy as np

ROUNDS = 50    # of loopy belief propagation
DAMPING = 0.3  # share of the old message that a new one keeps
SETTLED = 1e-9  # largest change of a message at which it stops


class Graph(NamedTuple):
    """sizes: the number of values of each node; factors: [(nodes, table)], with an axis of the table for each node."""

    sizes: tuple
    factors: list

    def score(self, values):
        """The sum of all factors at `values`, one for each node."""
        return float(sum(table[tuple(values[k] for k in nodes)] for nodes, table in self.factors))


def all_scores(graph):
    """The score of every combination of values, an array with one axis a node. Its size is the product of `sizes`."""
    total = np.zeros(graph.sizes)
    for nodes, table in graph.factors:
        order = np.argsort(nodes)
        shape = [graph.sizes[k] if k in nodes else 1 for k in range(len(graph.sizes))]
        total += np.transpose(table, order).reshape(shape)
    return total


def exact(graph):
    """The best values and their score, by enumeration; of equal scores the first."""
    scores = all_scores(graph)
    best = np.unravel_index(scores.argmax(), scores.shape)
    return tuple(map(int, best)), float(scores[best])


def marginals(graph):
    """The probability of each value of each node, by enumeration: a list of (sizes[k],)"""
    scores = all_scores(graph)
    p = np.exp(scores - scores.max())
    p /= p.sum()
    return [p.sum(axis=tuple(j for j in range(p.ndim) if j != k)) for k in range(p.ndim)]


def icm(graph, start=None):
    """Iterated conditional modes (Besag 1986): change one node at a time to its best value, until none changes.

    -> values, score; a local optimum: no change of a single node improves it. start: default the best value of each node by
    the factors of this node alone.
    """
    values = list(_alone(graph) if start is None else start)
    while True:
        before = tuple(values)
        for k in range(len(values)):
            values[k] = int(_given_the_others(graph, values, k).argmax())
        if tuple(values) == before:
            return before, graph.score(before)


def loopy(graph, rounds=ROUNDS):
    """Max-product belief propagation (Pearl 1988) -> values, score. Exact for a graph without loops.

    Messages go from factors to nodes in log space; each round computes all of them from those of the round before.
    """
    messages = {(f, k): np.zeros(graph.sizes[k]) for f, (nodes, _) in enumerate(graph.factors) for k in nodes}
    for _ in range(rounds):
        beliefs = _beliefs(graph, messages)
        new = {}
        for f, (nodes, table) in enumerate(graph.factors):
            incoming = [beliefs[k] - messages[f, k] for k in nodes]
            for axis, k in enumerate(nodes):
                total = table + sum(_along(x, j, table.ndim) for j, x in enumerate(incoming) if j != axis)
                message = total.max(axis=tuple(j for j in range(table.ndim) if j != axis))
                new[f, k] = DAMPING * messages[f, k] + (1 - DAMPING) * (message - message.max())
        change = max((np.abs(new[key] - messages[key]).max() for key in new), default=0)
        messages = new
        if change < SETTLED:
            break
    values = tuple(int(x.argmax()) for x in _beliefs(graph, messages))
    return values, graph.score(values)


def best_of(graph, limit=200_000):
    """The best values: exact for up to `limit` combinations, else the better one of `loopy` and of `icm` from there."""
    if np.prod(graph.sizes, dtype=float) <= limit:
        return exact(graph)
    return max((loopy(graph), icm(graph), icm(graph, loopy(graph)[0])), key=lambda found: found[1])


def _alone(graph):
    own = [np.zeros(size) for size in graph.sizes]
    for nodes, table in graph.factors:
        if len(nodes) == 1:
            own[nodes[0]] += table
    return [int(x.argmax()) for x in own]


def _given_the_others(graph, values, k):
    """The score of each value of node k, the others as they are, up to a constant: (sizes[k],)"""
    total = np.zeros(graph.sizes[k])
    for nodes, table in graph.factors:
        if k in nodes:
            total += table[tuple(slice(None) if j == k else values[j] for j in nodes)]
    return total


def _beliefs(graph, messages):
    beliefs = [np.zeros(size) for size in graph.sizes]
    for (_, k), message in messages.items():
        beliefs[k] = beliefs[k] + message
    return beliefs


def _along(x, axis, ndim):
    return x.reshape([-1 if j == axis else 1 for j in range(ndim)])
