"""The NWGM is the softmax of the mean logits, and soft attention's prediction only where nothing bends in between."""

from dataclasses import replace

import numpy as np
import pytest

from satnp.arrays.backend import to_device, to_host
from satnp.arrays.parameters import Parameters
from satnp.captioners import show_attend_tell as sat
from satnp.captioners.contract import Batch
from satnp.errors import InputError
from satnp.layers import softmax
from satnp.proof import nwgm
from satnp.proof.captioners import F_ATT, GATES, sizes

N, T, L = 3, 4, 7
LENGTHS = (4, 2, 3)
AFFINE = (False, "held")


def world(xp=np, f_att="additive", gate="scalar", padding=0, sharpness=1):
    """A random soft captioner and batch; a great `sharpness` makes alpha one-hot."""
    rng = np.random.default_rng(0)
    config = sizes(f_att, gate)
    params = Parameters(sat.shapes(config), flat=0.7 * rng.standard_normal(sat.init(config, rng).flat.size))
    if "v" in params:
        params.v[...] *= sharpness
    captions = np.concatenate([rng.integers(0, config.V, (N, T + 1)), np.zeros((N, padding), int)], axis=1)
    mask = (np.arange(T + padding) < np.array(LENGTHS)[:, None]).astype(float)
    batch = Batch(*(to_device(x, xp) for x in (rng.standard_normal((N, L, config.D)), captions, mask)))
    return params.on(to_device(params.flat, xp)), config, batch


def steps(*world):
    """[{variant: Predictions on the host}]"""
    return [
        {variant: nwgm.Predictions(*map(to_host, found)) for variant, found in step.items()}
        for step in nwgm.predictions(*world)
    ]


def test_the_normalised_product_of_powers_is_the_softmax_of_the_mean_logits(xp, rng):
    alpha, n = softmax(rng.standard_normal((N, L))), 3 * rng.standard_normal((N, L, 5))
    product = (softmax(n) ** alpha[:, :, None]).prod(axis=1)
    ours = nwgm.nwgm(to_device(alpha, xp), to_device(n, xp))
    np.testing.assert_allclose(to_host(ours), product / product.sum(axis=1, keepdims=True), rtol=1e-12)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("f_att", F_ATT)
def test_soft_attention_is_the_nwgm_exactly_where_the_output_is_affine(xp, f_att, gate):
    found = nwgm.compare(*world(xp, f_att, gate))
    assert list(found) == nwgm.VARIANTS
    for variant, distances in found.items():
        assert list(distances) == ["soft-nwgm", "soft-expectation", "nwgm-expectation"]
        if variant == AFFINE:
            assert distances["soft-nwgm"].max() < 1e-12
        else:
            assert distances["soft-nwgm"].min() > 1e-6
        assert min(distances["soft-expectation"].min(), distances["nwgm-expectation"].min()) > 1e-6


def test_each_pair_is_what_it_is_called(xp):
    params, config, batch = world(xp)
    counts = to_host(batch.mask).T > 0
    for variant, pairs in nwgm.compare(params, config, batch).items():
        for pair, distances in pairs.items():
            p, q = ([getattr(step[variant], name) for step in steps(params, config, batch)] for name in pair.split("-"))
            wanted = 0.5 * np.abs(np.array(p) - np.array(q)).sum(axis=2)[counts]
            np.testing.assert_allclose(distances, wanted, rtol=1e-9, atol=1e-15)


def test_where_one_location_has_all_the_weight_the_three_are_one(xp):
    params, config, batch = world(xp, sharpness=1e5)
    alphas = to_host(sat.forward(params, config, batch, sat.Noise())[1].alphas)
    assert np.all(alphas.max(axis=2) == 1) and len(np.unique(alphas.argmax(axis=2))) > 1
    for distances in nwgm.compare(params, config, batch).values():
        assert max(x.max() for x in distances.values()) < 1e-12


def test_the_soft_prediction_is_the_captioners_own(xp):
    params, config, batch = world(xp)
    log_p = to_host(sat.forward(params, config, batch, sat.Noise())[1].vocabulary.log_p).reshape(T, N)
    targets = to_host(batch.captions)[:, 1:].T
    for t, step in enumerate(steps(params, config, batch)):
        for h in ("held", "recomputed"):
            np.testing.assert_allclose(np.log(step[True, h].soft[range(N), targets[t]]), log_p[t], rtol=1e-12)
            assert np.abs(step[False, h].soft - step[True, h].soft).sum(axis=1).min() > 1e-4


def test_the_expectation_with_h_recomputed_is_that_of_the_local_expectation_estimator(xp):
    params, config, batch = world(xp)
    hard = replace(config, attention="hard", estimator="local_expectation", baseline="none", dropout=0.0)
    gumbel, ones = np.zeros((T, N, L)), np.ones(N)  # all at their expected value: the soft path
    noise = sat.Noise(gumbel=to_device(gumbel, xp), expected=to_device(ones, xp))
    _, cache = sat.forward(params, hard, batch, noise)
    p = (to_host(cache.alphas) * np.exp(to_host(cache.hard.ahead))).sum(axis=2)
    targets = to_host(batch.captions)[:, 1:].T
    for t, step in enumerate(steps(params, config, batch)):
        np.testing.assert_allclose(step[True, "recomputed"].expectation[range(N), targets[t]], p[t], rtol=1e-12)


@pytest.mark.parametrize("gate", GATES)
def test_the_logits_of_a_location_are_those_of_the_equation(gate):
    params, config, batch = p, _, (annotations, captions, *_) = world(gate=gate)
    _, cache = sat.forward(params, config, batch, sat.Noise())
    for t, step in enumerate(steps(params, config, batch)):
        beta, h = cache.steps[t].gate.beta, cache.deep.h.reshape(T, N, -1)[t]
        expected = product = 0
        for i in range(L):
            words = p.E[captions[:, t]] + h @ p.L_h + beta * annotations[:, i] @ p.L_z + p.b_m
            n = np.tanh(words) @ p.L_o + p.b_o
            expected = expected + cache.alphas[t, :, i, None] * softmax(n)
            product = product + cache.alphas[t, :, i, None] * n
        np.testing.assert_allclose(step[True, "held"].expectation, expected, rtol=1e-12)
        np.testing.assert_allclose(step[True, "held"].nwgm, softmax(product), rtol=1e-12)


def test_all_are_distributions_and_the_distance_is_half_the_sum_of_differences(xp):
    for step in steps(*world(xp)):
        for found in step.values():
            for p in found:
                assert p.shape == found.soft.shape and p.min() > 0
                np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    p, q = np.array([[0.5, 0.3, 0.2], [1, 0, 0]]), np.array([[0.2, 0.2, 0.6], [0, 0, 1]])
    np.testing.assert_allclose(to_host(nwgm.total_variation(to_device(p, xp), to_device(q, xp))), [0.4, 1])


def test_only_the_words_that_count_are_compared(xp):
    alone, padded = (nwgm.compare(*world(xp, padding=padding)) for padding in (0, 3))
    for variant, distances in alone.items():
        for pair, x in distances.items():
            assert isinstance(x, np.ndarray) and x.shape == (sum(LENGTHS),)
            np.testing.assert_allclose(x, padded[variant][pair], rtol=1e-12, atol=1e-15)


def test_a_captioner_with_hard_attention_is_refused():
    params, config, batch = world()
    with pytest.raises(InputError, match="attention is hard; give a captioner"):
        nwgm.compare(params, replace(config, attention="hard"), batch)
