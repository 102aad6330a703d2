"""A training step on the stand-in for CuPy: few launches and no wait; and eight mistakes that a GPU punishes, planted."""

import numpy as np
import pytest

from satnp import layers
from satnp.arrays import optim
from satnp.captioners import show_attend_tell as sat
from satnp.captioners.contract import Batch
from satnp.proof import bugs
from tests import strict

LAUNCHES = 450


def training_step(T=20, frozen=True, launches=LAUNCHES, **choices):
    """Forward, backward, clipping and Adam of T words, everything on the stand-in already -> its costs"""
    rng, N, L = np.random.default_rng(0), 3, 6
    config = sat.Config(V=30, D=6, M=4, H=6, A=7, **choices)
    params = sat.init(config, rng)
    params = params.on(strict.asarray(params.flat))
    noise = sat.draw_noise(config, T, N, L, rng)
    assert noise.words is not None
    noise = type(noise)(*(None if x is None else strict.asarray(x) for x in noise))
    annotations, mask = rng.standard_normal((N, L, config.D), dtype=np.float32), np.ones((N, T), np.float32)
    batch = Batch(*map(strict.asarray, (annotations, rng.integers(4, config.V, (N, T + 1)), mask)))
    grads, memory = params.zeros_like(), optim.new_state("adam", params.flat)
    with strict.no_sync(), strict.budget(launches=launches, h2d=0, d2h=0, syncs=0) as used:
        grads.flat[...] = 0
        _, cache = sat.forward(params, config, batch, noise)
        sat.backward(cache, grads, frozen)
        _, factor = optim.clip_factor(grads.flat, 5.0)
        optim.adam(params.flat, grads.flat, memory, 1e-3, factor)
    return used


@pytest.mark.parametrize("frozen", [True, False])
def test_a_training_step_of_20_words_takes_at_most_450_launches_and_never_waits(frozen):
    assert LAUNCHES - 20 < training_step(frozen=frozen).launches <= LAUNCHES


@pytest.mark.parametrize("choices", [
    {"f_att": "dot"}, {"f_att": "general"}, {"gate": "vector"}, {"attention": "hard"},
    {"attention": "hard", "estimator": "gumbel_st"}, {"attention": "hard", "estimator": "local_expectation"},
    {"attention": "hard", "samples": 2, "baseline": "leave_one_out"},
])  # fmt: skip
def test_a_step_of_any_kind_transfers_nothing_and_never_waits(choices):
    used = training_step(launches=None, **choices)  # more launches, for which no bound was asked
    assert used.launches > 300 and used.h2d == used.d2h == used.syncs == 0


def device_bug(function, old, new):
    return bugs.Bug(new, function, old, new, None, None)


NUMPY = "__import__('numpy')"
BUGS = {
    "a host mask": device_bug(
        layers.doubly_stochastic_forward, "(mask[:, :, None] * alphas)", f"({NUMPY}.ones((20, 3, 1)) * alphas)"),
    "np.exp": device_bug(layers.initial_state_forward, "annotations.mean(axis=1)", f"{NUMPY}.exp(annotations).mean(axis=1)"),
    "dE[ids] +=": device_bug(
        layers.embedding_backward, "return segment_sum(dout, ids[order], order, shape[0])",
        "dE = xp.zeros(shape, dtype=dout.dtype); dE[ids] += dout; return dE"),
    "a missing dtype": device_bug(sat.loop_forward, "N, H + D), dtype=h.dtype)", "N, H + D))"),
    "if loss >": device_bug(
        optim.clip_factor, "return _norm_and_factor(xp_of(grads).dot(grads, grads), limit)",
        "norm = xp_of(grads).dot(grads, grads) ** 0.5; return norm, (limit / norm if norm > limit else 1)"),
    "where=": device_bug(
        layers.dropout_backward, "dout * mask", "__import__('tests.strict').strict.multiply(dout, mask, where=mask > 0)"),
    "a host scratch buffer": device_bug(sat.loop_forward, "hz = xp.empty(", f"hz = {NUMPY}.empty("),
    "maximum.reduce": device_bug(
        layers.initial_state_forward, "annotations.mean(axis=1)", "xp_of(annotations).maximum.reduce(annotations, axis=1)"),
}  # fmt: skip
REFUSALS = {
    "a host mask": (TypeError, "np.multiply got a device array"),
    "np.exp": (TypeError, "np.exp got a device array"),
    "dE[ids] +=": (ValueError, "writes an element twice"),
    "a missing dtype": (TypeError, "arrays of one type T"),
    "if loss >": (RuntimeError, r"bool\(\) waits for the device"),
    "where=": (TypeError, "Wrong arguments where"),
    "a host scratch buffer": (TypeError, "Implicit conversion to a NumPy array"),
    "maximum.reduce": (NotImplementedError, "cupy_maximum.reduce"),
}


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_device_bug_fails_the_step(name):
    error, said = REFUSALS[name]
    with bugs.in_place(BUGS[name]), pytest.raises(error, match=said):
        training_step()
