"""Optimisers against the formulas of their papers, written out in float64."""

import numpy as np
import pytest

from satnp.arrays import elementwise, optim
from satnp.arrays.backend import to_device, to_host
from tests import strict

P, STEPS, LR = elementwise.LEAST + 17, 4, 0.01


def plain_sgd(x, grads):
    velocity = np.zeros(P)
    for g in grads:
        velocity = 0.9 * velocity - LR * g
        x = x + velocity
    return x


def plain_rmsprop(x, grads):
    square = np.zeros(P)
    for g in grads:
        square = 0.95 * square + 0.05 * g**2
        x = x - LR * g / np.sqrt(square + 1e-6)
    return x


def plain_adam(x, grads):
    mean, square = np.zeros(P), np.zeros(P)
    for step, g in enumerate(grads, 1):
        mean = 0.9 * mean + 0.1 * g
        square = 0.999 * square + 0.001 * g**2
        x = x - LR * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return x


PLAIN = {"sgd": plain_sgd, "rmsprop": plain_rmsprop, "adam": plain_adam}


@pytest.mark.parametrize("name", optim.OPTIMISERS)
def test_formula(xp, rng, name):
    x, grads = rng.standard_normal(P), rng.standard_normal((STEPS, P))
    params, state = to_device(x.copy(), xp), optim.new_state(name, to_device(x, xp))
    with strict.no_sync():
        for g in grads:
            optim.OPTIMISERS[name][0](params, to_device(g, xp), state, LR)
    np.testing.assert_allclose(to_host(params), PLAIN[name](x, grads), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", optim.OPTIMISERS)
def test_float32_stays_float32_and_gradients_are_only_read(xp, name):
    params = xp.ones(5, dtype=xp.float32)
    grads, state = 2 * params, optim.new_state(name, params)
    optim.OPTIMISERS[name][0](params, grads, state, np.float64(LR))
    assert {x.dtype for x in (params, *(s for s in state.values() if not isinstance(s, int)))} == {np.dtype("f4")}
    assert (to_host(grads) == 2).all() and (to_host(params) < 1).all()


def test_the_first_adam_step_is_the_learning_rate(xp):
    params = xp.zeros(3)
    optim.adam(params, to_device(np.array([1e-3, -5.0, 1e4]), xp), optim.new_state("adam", params), LR)
    np.testing.assert_allclose(to_host(params), [-LR, LR, -LR], rtol=1e-4)


@pytest.mark.parametrize(("limit", "scale"), [(2.5, 0.5), (5.0, 1.0), (50.0, 1.0)])
def test_clipping(xp, limit, scale):
    grads = to_device(np.array([3.0, 0.0, 4.0]), xp)
    with strict.no_sync():
        norm, factor = optim.clip_factor(grads, limit)
    assert norm.shape == factor.shape == () and float(to_host(norm)) == pytest.approx(5)
    assert float(to_host(factor)) == pytest.approx(scale)


def test_clipping_leaves_zeros_alone(xp):
    grads = xp.zeros(3, dtype=xp.float32)
    norm, factor = optim.clip_factor(grads, 5.0)
    assert float(to_host(norm)) == 0 and float(to_host(factor)) == 1 and factor.dtype == np.float32


@pytest.mark.parametrize("name", optim.OPTIMISERS)
def test_a_factor_is_the_same_as_smaller_gradients(xp, rng, name):
    grads, factor = rng.standard_normal(P), xp.asarray(np.array(0.25))
    ones = [xp.ones(P) for _ in range(2)]
    for x, g, f in zip(ones, (grads, 0.25 * grads), (factor, 1), strict=True):
        optim.OPTIMISERS[name][0](x, to_device(g, xp), optim.new_state(name, x), LR, f)
    np.testing.assert_allclose(to_host(ones[0]), to_host(ones[1]), rtol=1e-15)


def test_average_forgets_at_the_rate_given(xp, rng):
    mean, xs = np.zeros(P), rng.standard_normal((STEPS, P))
    ours = to_device(mean.copy(), xp)
    for x in xs:
        optim.average(ours, to_device(x, xp), keep=0.9)
        mean = 0.9 * mean + 0.1 * x
    np.testing.assert_allclose(to_host(ours), mean, rtol=1e-12, atol=1e-14)
