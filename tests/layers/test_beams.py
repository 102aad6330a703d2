"""Attention for several captions of a photo at once, against the same for each caption by itself."""

import numpy as np
import pytest

from satnp.arrays.backend import to_device, to_host
from satnp.layers import additive_scores_forward, beam_additive_scores, beam_products, context_forward, exponentials

N, L, A, D = 4, 5, 7, 6
PHOTOS = np.array([0, 0, 2, 3, 3, 3])  # photo 1 has no caption left


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("largest", [1, 30, 100], ids=lambda largest: f"up to {largest}")
@pytest.mark.parametrize("of", ["keys", "query"])
def test_scores_are_those_of_one_caption_a_photo(xp, rng, dtype, largest, of):
    x = {"keys": rng.standard_normal((N, L, A)), "query": rng.standard_normal((len(PHOTOS), A))}
    x[of] *= largest / np.abs(x[of]).max()
    x = [*x.values(), rng.standard_normal(A), rng.standard_normal(1)]
    keys, query, v, c = (to_device(y.astype(dtype), xp) for y in x)
    F = exponentials(keys)
    scores = beam_additive_scores(keys if F is None else None, F, query, v, c, PHOTOS)
    wanted = additive_scores_forward(keys[to_device(PHOTOS, xp)], query, v, c)[0]
    assert scores.dtype == dtype and scores.shape == (len(PHOTOS), L)
    np.testing.assert_allclose(to_host(scores), to_host(wanted), atol=1e-13 if dtype == np.float64 else 2e-6)


def test_scores_are_right_where_an_exponential_of_the_query_would_overflow():
    keys, query, v = np.full((1, L, A), -40, np.float32), np.full((1, A), 45, np.float32), np.ones(A, np.float32)
    scores = beam_additive_scores(keys, exponentials(keys), query, v, np.zeros(1, np.float32), np.zeros(1, int))
    np.testing.assert_allclose(scores, A * np.tanh(5), rtol=1e-6)


def test_products_are_those_of_one_caption_a_photo(xp, rng):
    x, annotations = (to_device(rng.standard_normal(shape), xp) for shape in ((len(PHOTOS), L), (N, L, D)))
    wanted = context_forward(x, annotations[to_device(PHOTOS, xp)])[0]
    np.testing.assert_allclose(to_host(beam_products(x, annotations, PHOTOS)), to_host(wanted), rtol=1e-12, atol=1e-14)


def test_exponentials_are_left_out_where_they_would_overflow():
    keys = np.zeros((N, L, A), np.float32)
    keys[1, 2, 3] = -20
    assert np.isfinite(exponentials(keys)).all()
    keys[1, 2, 3] = -21
    assert exponentials(keys) is None
