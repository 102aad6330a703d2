"""Formulas in blocks on all cores: the same numbers as in one call, whatever broadcasts."""

import numpy as np
import pytest

from satnp.arrays import elementwise as module
from satnp.arrays.backend import to_device, to_host
from satnp.arrays.elementwise import elementwise


@elementwise
def two(a, b, c):
    return a * b + c, a - 2 * c


@elementwise
def one(a, b):
    return a + b


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 20)
    monkeypatch.setattr(module, "LEAST", 81)


@pytest.mark.parametrize(
    "shapes",
    [((9, 30),) * 3, ((9, 30), (30,), ()), ((9, 1), (1, 30), (9, 30)), ((9, 5, 6), (5, 6), (1, 1, 6))],
)
def test_blocks_give_what_one_call_gives(xp, rng, small_blocks, shapes):
    args = [rng.standard_normal(shape) for shape in shapes]
    wanted = two.__wrapped__(*args)
    found = two(*(to_device(x, xp) for x in args))
    assert isinstance(found, tuple)
    for x, y in zip(found, wanted, strict=True):
        np.testing.assert_allclose(to_host(x), y, rtol=1e-15, atol=1e-15)
    np.testing.assert_array_equal(to_host(one(*(to_device(x, xp) for x in args[:2]))), args[0] + args[1])


def test_what_is_given_is_written_to_and_the_rest_made(xp, rng, small_blocks):
    args = [rng.standard_normal(shape) for shape in ((9, 30), (30,), (9, 1))]
    wanted, room = two.__wrapped__(*args), xp.zeros((9, 50))
    first, second = two(*(to_device(x, xp) for x in args), out=(room[:, 10:40], None))
    for x, y in zip((first, room[:, 10:40], second), (wanted[0], *wanted), strict=True):
        np.testing.assert_allclose(to_host(x), y, rtol=1e-15, atol=1e-15)
    assert not to_host(room[:, :10]).any() and not to_host(room[:, 40:]).any()


def test_large_arrays_are_cut_and_small_and_complex_ones_are_not(small_blocks, monkeypatch):
    cut = []
    monkeypatch.setattr(module, "_in_blocks", lambda formula, args, shape, out: cut.append(shape))
    one(np.ones((8, 10)), np.ones(10))
    one(np.ones((9, 10), complex), np.ones(10))
    assert cut == []
    one(np.ones((9, 10)), np.ones(10))
    assert cut == [(9, 10)]


def test_a_block_is_small(small_blocks):
    seen = []

    def formula(a, b):
        seen.append(len(a))
        return a * b

    module._in_blocks(formula, (np.ones((9, 10)), np.ones(10)), (9, 10), [None])
    assert max(seen) == 2 and sum(seen) >= 9


def test_float32_stays_float32(small_blocks):
    assert one(np.ones((30, 30), np.float32), 1).dtype == np.float32
