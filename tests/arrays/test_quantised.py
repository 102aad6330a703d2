"""Weights as 8-bit integers: what is lost, what is not, and what is refused."""

import numpy as np
import pytest

from satnp.arrays.quantised import dequantise, quantise
from satnp.errors import InputError

TINY, HUGE = np.float32(1e-45), np.float32(1e38)


@pytest.mark.parametrize("shape", [(7, 5), (300, 200), (3, 3, 4, 6), (1, 9), (9, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_element_loses_more_than_half_a_step(shape, dtype, rng):
    W = (rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 6, shape[-1])).astype(dtype)
    q, s = quantise(W)
    found = dequantise(q, s)
    assert q.dtype == np.int8 and s.dtype == found.dtype == np.float32 and q.shape == found.shape == W.shape
    assert np.all(abs(found - W) <= s / 2 * (1 + 1e-4))
    assert np.abs(q).max() == 127


def test_columns_or_rows_have_the_factors_whichever_loses_less(rng):
    W, of_columns = rng.standard_normal((60, 40)).astype(np.float32), np.logspace(-3, 3, 40, dtype=np.float32)
    assert quantise(W * of_columns)[1].shape == (1, 40)
    assert quantise((W * of_columns).T)[1].shape == (40, 1)
    for x in (W * of_columns, (W * of_columns).T):
        assert np.linalg.norm(dequantise(*quantise(x)) - x) < 0.01 * np.linalg.norm(x)


def test_known_numbers():
    q, s = quantise(np.array([[127.0, -2.54], [-63.0, 1.27], [0.25, 0.0]], np.float32))
    np.testing.assert_array_equal(q, [[127, -127], [-63, 64], [0, 0]])
    np.testing.assert_array_equal(s, np.array([[1.0, 0.02]], np.float32))


def test_zeros_stay_zeros(rng):
    W = rng.standard_normal((6, 5)).astype(np.float32)
    W[rng.random(W.shape) < 0.5] = 0
    W[:, 2], W[3] = 0, 0
    found = dequantise(*quantise(W))
    np.testing.assert_array_equal(found[W == 0], 0)
    np.testing.assert_array_equal(dequantise(*quantise(np.zeros((3, 4), np.float32))), np.zeros((3, 4)))


@pytest.mark.parametrize("c", [1.0, -0.3, 1e-30, 1e38])
def test_a_constant_is_lost_only_to_rounding(c):
    np.testing.assert_allclose(dequantise(*quantise(np.full((4, 3), c, np.float32))), c, rtol=2e-7)


def test_the_smallest_and_the_largest_numbers():
    W = np.array([[TINY, HUGE, -HUGE], [-TINY, 0, HUGE]], np.float32)
    q, s = quantise(W)
    assert np.isfinite(s).all() and np.abs(q).max() == 127
    np.testing.assert_allclose(dequantise(q, s), W, rtol=2e-7, atol=2 * TINY)


@pytest.mark.parametrize("x", [np.nan, np.inf, -np.inf, 1.01e38, -1e39])
def test_what_float32_may_not_hold_is_refused(x):
    with pytest.raises(InputError, match="not finite, or beyond 1e\\+38, cannot be quantised"):
        quantise(np.array([[x, 1.0]]))


def test_what_was_quantised_stays_as_it_is(rng):
    q, s = quantise(rng.standard_normal((20, 30)).astype(np.float32))
    again, factors = quantise(dequantise(q, s))
    np.testing.assert_array_equal(again, q)
    np.testing.assert_allclose(factors, s, rtol=2e-7)


@pytest.mark.parametrize(
    ("q", "s"),
    [
        (np.zeros((2, 3), np.int8), np.ones((1, 2), np.float32)),
        (np.zeros((1, 3), np.int8), np.ones((4, 3), np.float32)),  # would have more elements than q
        (np.zeros((2, 3), np.int8), np.ones(3, np.float32)),
        (np.zeros((2, 3), np.int16), np.ones((1, 3), np.float32)),
        (np.zeros((2, 3), np.int8), np.ones((1, 3), np.float64)),
    ],
)
def test_factors_of_another_array_are_refused(q, s):
    with pytest.raises(ValueError, match=r"integers \(|broadcast"):
        dequantise(q, s)
