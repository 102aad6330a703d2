"""Gradient checks of the systems in satnp/early, and the mistakes that they must catch."""

import numpy as np

from satnp.early import babytalk, every_picture, fang, objects, ranking, words
from satnp.proof.cases import pack, random_weights, unpack
from satnp.proof.gradcheck import Case
from satnp.proof.planting import Bug

N, T, L = 4, 5, 3


def _ranking(option, config):
    shapes = ranking.learned_shapes(config)

    def make(rng):
        mask = np.ones((N, T))
        mask[1, 3:], mask[2, 1:] = 0, 0
        others = 1 - np.eye(N)
        others[0, 2] = others[2, 0] = 0  # two sentences of the same photo
        dropout = ranking.draw_dropout(config, T, N, rng)
        batch = ranking.Batch(
            rng.standard_normal((N, L, config.D)), rng.integers(0, config.V, (N, T)), mask, others,
            np.ones((T, N, config.M)) if dropout is None else dropout.astype(float),
        )  # fmt: skip
        return random_weights(shapes, rng) | batch._asdict()

    def forward(*inputs):
        weights, batch = inputs[: len(shapes)], inputs[len(shapes) :]
        return ranking.forward(pack(shapes, weights), config, ranking.Batch(*batch))

    def backward(dloss, cache):
        grads = cache.p.zeros_like()
        dannotations = ranking.backward(cache, grads)
        return *unpack(grads, dloss), dannotations * dloss

    return Case(f"early/ranking {option}".strip(), make, forward, backward, ("mask", "others", "dropout"))


def _loss(name, shapes, forward, backward, **entries):
    """The Case of a loss forward(p, *entries) -> loss, (p, ...) and backward(cache, grads) of linear detectors."""

    def make(rng):
        return random_weights(shapes, rng) | {n: entry(rng) for n, entry in entries.items()}

    def of_weights(*inputs):
        return forward(pack(shapes, inputs[: len(shapes)]), *inputs[len(shapes) :])

    def gradients(dloss, cache):
        grads = cache[0].zeros_like()
        backward(cache, grads)
        return unpack(grads, dloss)

    return Case(f"early/{name}", make, of_weights, gradients, tuple(entries))


def _words(option, **choices):
    config = words.Config(K=3, D=4, decay=0.3, **choices)
    return _loss(
        f"words {option}".strip(), words.shapes(config), lambda p, a, y: words.forward(p, config, a, y),
        lambda cache, grads: words.backward(cache, grads),
        annotations=lambda rng: rng.standard_normal((N, L, 4)), y=lambda rng: rng.integers(0, 2, (N, 3)).astype(float),
    )  # fmt: skip


def _every_picture():
    config = every_picture.Config(V=1, D=4, decay=0.3, objects=3, actions=4, scenes=2)
    return _loss(
        "every_picture", every_picture.learned_shapes(config),
        lambda p, v, triples: every_picture.loss_forward(p, config, v, triples),
        lambda cache, grads: every_picture.loss_backward(cache, grads),
        v=lambda rng: rng.standard_normal((N, 4)),
        triples=lambda rng: np.array([[0, 3, 1], [2, 1, 0], [1, 0, 1], [2, 2, 0]]),
    )  # fmt: skip


def _babytalk():
    config = babytalk.Config(V=1, decay=0.3, prepositions=3)
    return _loss(
        "babytalk", babytalk.learned_shapes(config), lambda p, x, r: babytalk.loss_forward(p, config, x, r),
        lambda cache, grads: babytalk.loss_backward(cache, grads),
        x=lambda rng: rng.standard_normal((N, 5)), r=lambda rng: np.array([2, 0, 3, 2]),
    )  # fmt: skip


def _objects():
    config = objects.Config(D=3, F=4, rows=3, box=0.7)

    def wanted(high):
        return lambda rng: rng.integers(0, high, (2, 6))

    return _loss(
        "objects", objects.shapes(config), lambda p, a, *wanted: objects.forward(p, config, a, objects.Targets(*wanted)),
        lambda cache, grads: objects.backward(cache, grads),
        annotations=lambda rng: rng.standard_normal((2, 6, 3)),
        object=lambda rng: np.array([[1, 0, 0, 1, 1, 0], [0, 1, 0, 0, 0, 1.0]]),
        colour=wanted(6), shape=wanted(4), size=wanted(2), box=lambda rng: 2 * rng.standard_normal((2, 6, 3)),
    )  # fmt: skip


def _fang():
    config = fang.Config(V=6, decay=0.3, F=4)
    places = {"rows": [[0, 1, 1, 4], [2, 4, 4]], "said": [[3, 0, 5, 2], [1, 2, 3]], "features": [[0, 1, 2, 1], [3, 0, 3]]}

    def remaining(rng):
        found = rng.integers(0, 2, (5, 6)).astype(float)
        found[1], found[3] = 0, 1
        return found

    def forward(p, targets, weights, remaining, log_p, *grams):
        grams = list(zip(*(grams[k : k + 2] for k in range(0, 6, 2)), strict=True))
        return fang.forward(p, config, fang.Batch(targets, weights, remaining, log_p, grams))

    return _loss(
        "fang", fang.learned_shapes(config), forward, lambda cache, grads: fang.backward(cache, grads),
        targets=lambda rng: np.array([3, 5, 2, 1, 2]), weights=lambda rng: rng.random(5), remaining=remaining,
        log_p=lambda rng: rng.standard_normal((5, 6)),
        **{f"{name} {k}": lambda rng, x=x: np.array(x) for name, of in places.items() for k, x in enumerate(of)},
    )  # fmt: skip


CASES = [
    *(_ranking(option, config) for option, config in ranking.CHECKS.items()),
    _words(""), _words("whole", whole=True), _words("hidden", hidden=True, H=5), _every_picture(), _objects(), _babytalk(),
    _fang(),
]  # fmt: skip

LSTM, WORDS = "early/ranking", "early/ranking words"

BUGS = [
    Bug("gradient of the last word's state lost", ranking.sentences_backward,
        "dh[:n] = dfed[step] @ p.W_h.T", "dh[...] = 0; dh[:n] = dfed[step] @ p.W_h.T", LSTM, {"block", "term"}),
    Bug("sentences in the order of their lengths on the way back", ranking.sentences_backward,
        "cache.normalise)[packed.order]", "cache.normalise)", LSTM, {"block", "term"}),
    Bug("state's gradient not carried along the sentence", ranking._recurrent_backward,
        "(df[step] + carried[:n], relu)", "(df[step], relu)", WORDS, {"term"}),
    Bug("gradient carried past the beginning of the sentence", ranking._recurrent_backward,
        "carried[:n] = de[step] @ W.T", "carried[:n] += de[step] @ W.T", WORDS, {"block", "term"}),
    Bug("decay of the detectors forgotten on the way back", words.backward,
        "affine.x.T @ dz + config.decay * p.W_d", "affine.x.T @ dz", "early/words", {"term"}),
    Bug("ReLU of the hidden layer forgotten on the way back", words.backward,
        "relu_backward(dz @ p.W_d.T, relu)", "dz @ p.W_d.T", "early/words hidden", {"term"}),
    Bug("words that are said treated as words that are left", fang.backward,
        "batch.remaining[rows, said] * d)", "d)", "early/fang", {"block"}),
    Bug("n-grams that occur twice counted once", fang.backward,
        "bincount(features, x,", "bincount(features, x * xp.isin(xp.arange(len(x)), xp.unique(features, 1)[1]),",
        "early/fang", {"block"}),
    Bug("score's gradient without log p_w", fang.backward,
        "(left * dlogits).sum()", "(batch.remaining * dlogits).sum()", "early/fang", {"term"}),
    Bug("end counted for all words", fang.backward,
        "(ended * dlogits).sum(axis=0), theta", "dlogits.sum(axis=0), theta", "early/fang", {"term"}),
    Bug("decay twice as large on the way back", every_picture.loss_backward,
        "dW + config.decay *", "dW + 2 * config.decay *", "early/every_picture", {"term"}),
    Bug("decay of the prepositions forgotten on the way back", babytalk.loss_backward,
        "dW + config.decay * p.W_r", "dW", "early/babytalk", {"term"}),
    Bug("ReLU of the detector forgotten on the way back", objects.outputs_backward,
        "relu_backward(dh.reshape(shape), relu)", "dh.reshape(shape)", "early/objects", {"mask"}),
    Bug("weight of the box loss forgotten on the way back", objects.backward,
        "smooth_l1_backward(config.box", "smooth_l1_backward(1.0", "early/objects", {"block", "term"}),
    Bug("classes of empty cells learnt", objects.backward,
        "cross_entropy_backward(1.0, caches[name])",
        "cross_entropy_backward(1.0, caches[name]._replace(weights=caches[name].weights * 0 + 0.5))",
        "early/objects", {"block", "term"}),
    Bug("photos' gradient without that of their norm", ranking.photos_backward,
        "normalise_backward(dx, normalise)", "dx / normalise.norm", LSTM, {"term"}),
]  # fmt: skip
