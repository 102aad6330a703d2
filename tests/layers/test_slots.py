"""Words that name a region: the mixture against its equation, written with probabilities, and the loss on its log p."""

import numpy as np
import pytest

from satnp import layers
from satnp.arrays.backend import to_device, to_host
from satnp.proof.layers import SLOTS

N, K, C, G, V, UNKNOWN = 5, 4, 3, 3, 11, 3


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


@pytest.fixture
def arrays(rng):
    """text, pointer, classes, fine, plural; the last region of photo 1 is absent"""
    pointer, classes = rng.standard_normal((N, K + 1)), rng.dirichlet(np.ones(C), (N, K))
    pointer[1, 3], classes[1, 3] = -np.inf, 0
    return rng.standard_normal((N, V)), pointer, classes, rng.standard_normal((N, K, G)), rng.standard_normal((N, K))


def plain(text, pointer, classes, fine, plural, words, unknown):
    """p(y) of each word, by the equation in slots_forward"""
    p = np.zeros(text.shape)
    for n in range(len(text)):
        point, visual = softmax(pointer[n]), set()
        for i in range(classes.shape[1]):
            if point[i]:
                visual |= {y for pair in words[classes[n, i].argmax()] for y in pair if y >= 0}
        said = np.array([y for y in range(text.shape[1]) if y not in visual])
        p[n, said] = point[-1] * softmax(text[n, said])
        for i in range(classes.shape[1]):
            g = 0
            for c, pairs in enumerate(words):
                all_forms = [(y, g + m, b) for m, pair in enumerate(pairs) for b, y in enumerate(pair) if y >= 0]
                forms = {y: np.exp(fine[n, i, m] + b * plural[n, i]) for y, m, b in all_forms} or {unknown: 1.0}
                for y, form in forms.items():
                    p[n, y] += point[i] * classes[n, i, c] * form / sum(forms.values())
                g += len(pairs)
    return p


def test_the_mixture_is_its_equation_and_sums_to_1(arrays, xp):
    log_p, _ = layers.slots_forward(*(to_device(x, xp) for x in arrays), SLOTS, UNKNOWN)
    p = np.exp(to_host(log_p))
    np.testing.assert_allclose(p, plain(*arrays, SLOTS, UNKNOWN), rtol=1e-12)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-13)
    assert p.min() > 0


def test_plural_and_fine_grained_word_are_independent_where_the_vocabulary_has_all_forms(arrays):
    text, pointer, classes, fine, plural = arrays
    words = (((4, 5), (6, 7), (8, 9)),)
    classes = np.ones((N, K, 1))
    p = np.exp(layers.slots_forward(text, pointer, classes, fine, plural, words, UNKNOWN)[0])
    sigmoid = 1 / (1 + np.exp(-plural))
    for g, (one, several) in enumerate(words[0]):
        of_g = softmax(pointer)[:, :-1] * softmax(fine)[:, :, g]
        np.testing.assert_allclose(p[:, one], (of_g * (1 - sigmoid)).sum(axis=1), rtol=1e-12)
        np.testing.assert_allclose(p[:, several], (of_g * sigmoid).sum(axis=1), rtol=1e-12)


def test_the_papers_loss_is_the_sums_plus_log_m_with_the_same_gradient(rng):
    """The paper takes the mean over the m regions of the class; each region has one class."""
    m, words = 2, (((4, 5),), ((6, 7),))
    classes = np.eye(2)[[[0, 1, 0, 1]]]
    text, pointer, fine, plural = (rng.standard_normal(s) for s in ((1, 9), (1, 5), (1, 4, 2), (1, 4)))

    def paper(pointer):
        """-log of the mean over the regions of class 0 of p(i) p(plural | i): the word is 5"""
        named = softmax(pointer)[0, :-1] / (1 + np.exp(-plural[0]))
        return -np.log(named[[0, 2]].mean())

    log_p, cache = layers.slots_forward(text, pointer, classes, fine, plural, words, UNKNOWN)
    assert -log_p[0, 5] == pytest.approx(paper(pointer) - np.log(m), rel=1e-13)
    dpointer = layers.slots_backward(-np.eye(9)[[5]], cache)[1]
    steps = 1e-6 * np.eye(5)[:, None]
    np.testing.assert_allclose(dpointer[0], [(paper(pointer + s) - paper(pointer - s)) / 2e-6 for s in steps], atol=1e-8)


def test_a_word_is_a_word_of_the_text_where_no_region_shows_its_class(rng):
    words, classes = (((4, -1),), ((6, -1),)), np.zeros((1, 3, 2))
    classes[:, :, 0] = 1  # all regions show word 4, none word 6
    text, pointer = rng.standard_normal((1, 9)), rng.standard_normal((1, 4))
    p = np.exp(layers.slots_forward(text, pointer, classes, np.zeros((1, 3, 2)), np.zeros((1, 3)), words, UNKNOWN)[0])[0]
    point, said = softmax(pointer)[0], [y for y in range(9) if y != 4]
    np.testing.assert_allclose(p[said], point[-1] * softmax(text[0, said]), rtol=1e-12)
    assert p[4] == pytest.approx(point[:-1].sum())


def test_probabilities_far_below_the_smallest_float_have_logarithms(rng):
    classes = np.eye(2, dtype=np.float32)[[[0, 1]]]
    pointer = np.float32([[-300, 200, 0]])
    text, fine, plural = (np.zeros(s, np.float32) for s in ((1, 9), (1, 2, 2), (1, 2)))
    log_p, cache = layers.slots_forward(text, pointer, classes, fine, plural, (((4, -1),), ((6, -1),)), UNKNOWN)
    assert log_p[0, 4] < -68 and np.isfinite(log_p).all() and log_p.dtype == np.float32
    assert all(np.isfinite(g).all() for g in layers.slots_backward(np.ones_like(log_p), cache))


@pytest.mark.parametrize("options", [
    {}, {"smoothing": 0.3, "temperature": 0.7}, {"never": (0, 3), "late": (2, 4), "temperature": 1.6},
])  # fmt: skip
def test_the_loss_of_words_is_that_of_the_vocabulary_layer(xp, rng, options):
    hidden, W, b, weights = (to_device(rng.standard_normal(s), xp) for s in ((9, 3), (3, 20), (20,), (9,)))
    targets = to_device(rng.integers(4, 20, 9), xp)
    loss, cache = layers.word_loss_forward(hidden @ W + b, targets, weights, **options)
    dlogits = layers.word_loss_backward(1.0, cache)
    found = loss, cache.log_p, dlogits @ W.T, hidden.T @ dlogits, dlogits.sum(axis=0)
    loss, cache = layers.vocabulary_forward(hidden, W, b, targets, weights, **options)
    for x, y in zip(found, (loss, cache.log_p, *layers.vocabulary_backward(1.0, cache)), strict=True):
        np.testing.assert_allclose(to_host(x), to_host(y), rtol=1e-11, atol=1e-12)
