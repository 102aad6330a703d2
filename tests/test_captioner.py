"""Show, Attend and Tell as a whole: equal to its step-by-step twin, to itself under padding, and on every device."""

import numpy as np
import pytest

from satnp import checks, optim
from satnp.backend import to_device, to_host
from satnp.captioners import show_attend_tell as sat
from satnp.captioners.contract import Batch
from satnp.encoders import small
from satnp.encoders.photos import Preprocessing
from satnp.errors import InputError
from satnp.gradcheck import relative_error
from satnp.layers import softmax
from satnp.parameters import Parameters
from satnp.reference import show_attend_tell as reference
from tests import strict

OPTIONS = [(attention, gate) for attention in checks.F_ATT for gate in checks.GATES]
N, T, L = 3, 4, 7
LENGTHS = (4, 3, 2)


def world(config, xp=np, dtype=np.float64, padding=0):
    """Random parameters, batch and noise; `padding` more steps that do not count."""
    rng = np.random.default_rng(0)
    params = Parameters(sat.shapes(config), flat=0.5 * rng.standard_normal(sat.init(config, rng).flat.size))
    annotations = rng.standard_normal((N, L, config.D))
    captions = np.concatenate([rng.integers(0, config.V, (N, T + 1)), np.zeros((N, padding), int)], axis=1)
    mask = (np.arange(T + padding) < np.array(LENGTHS)[:, None]).astype(dtype)
    noise = sat.draw_noise(config, T + padding, N, L, rng)
    noise = sat.Noise(*(None if x is None else to_device(x.astype(dtype), xp) for x in noise))
    batch = Batch(*(to_device(x, xp) for x in (annotations.astype(dtype), captions, mask)))
    return params.on(to_device(params.flat.astype(dtype), xp)), batch, noise


def gradients(module, params, config, batch, noise):
    """Loss and {name: gradient} with the annotations', on the host."""
    loss, cache = module.forward(params, config, batch, noise)
    grads = params.zeros_like()
    dannotations = module.backward(cache, grads)
    return float(to_host(loss)), {n: to_host(g) for n, g in grads.items()} | {"annotations": to_host(dannotations)}


def assert_equal(ours, theirs, tolerance):
    assert ours[0] == pytest.approx(theirs[0], rel=tolerance)
    scale = max(np.linalg.norm(g) for g in theirs[1].values())
    for name, g in ours[1].items():
        assert relative_error(g, theirs[1][name], scale) <= tolerance, name


@pytest.mark.parametrize("choices", [{"dropout": 0.4, "penalty": 0.7}, {"dropout": 0.0, "penalty": 0.0}])
@pytest.mark.parametrize(("attention", "gate"), OPTIONS)
def test_the_step_by_step_form_gives_the_same_loss_and_gradients(xp, attention, gate, choices):
    config = checks.sizes(attention, gate, **choices)
    params, batch, noise = world(config, xp)
    ours, plain = (gradients(module, params, config, batch, noise) for module in (sat, reference))
    assert_equal(ours, plain, 1e-12)
    assert all(g.any() for name, g in ours[1].items() if name != "c_a")


@pytest.mark.parametrize(("attention", "gate"), OPTIONS)
def test_more_padding_changes_nothing(xp, attention, gate):
    config = checks.sizes(attention, gate, dropout=0.4)
    results = []
    for padding in (0, 3):
        params, batch, noise = world(config, xp, padding=padding)
        results.append(gradients(sat, params, config, batch, noise))
    assert_equal(*results, 1e-12)


def test_the_scalar_behind_the_softmax_has_no_gradient(xp):
    config = checks.sizes("additive", "scalar")
    params, batch, noise = world(config, xp)
    _, grads = gradients(sat, params, config, batch, noise)
    assert abs(grads["c_a"][0]) < 1e-14 < 1e-3 < np.abs(grads["b_a"]).max()


@pytest.mark.parametrize(("attention", "gate"), OPTIONS)
def test_attention_sums_to_1_and_follows_the_state(xp, attention, gate):
    config = checks.sizes(attention, gate)
    params, batch, noise = world(config, xp)
    _, cache = sat.forward(params, config, batch, noise)
    alphas = to_host(cache.alphas)
    np.testing.assert_allclose(alphas.sum(axis=2), 1, rtol=1e-14)
    assert np.abs(np.diff(alphas, axis=0)).max(axis=2).min() > 1e-4
    keys, h = sat.attention_keys(params, config, batch.annotations), cache.h_prev[0]
    still, moved = (softmax(sat.attention_scores_forward(params, config, keys, h + d)[0]) for d in (0.0, 0.5))
    np.testing.assert_array_equal(to_host(still), alphas[0])
    assert np.abs(to_host(moved) - to_host(still)).max(axis=1).min() > 1e-3


@pytest.mark.parametrize(("attention", "gate"), OPTIONS)
def test_a_decoding_step_is_the_training_step(xp, attention, gate):
    config = checks.sizes(attention, gate, dropout=0.0)
    params, batch, noise = world(config, xp)
    _, cache = sat.forward(params, config, batch, noise)
    state, nll = sat.start(params, config, batch.annotations), np.zeros(N)
    captions, mask = to_host(batch.captions), to_host(batch.mask)
    for t in range(T):
        log_probs, state, alpha = sat.step(params, config, state, batch.captions[:, t : t + 1])
        assert log_probs.shape == (N, 1, config.V)
        np.testing.assert_allclose(to_host(alpha)[:, 0], to_host(cache.alphas)[t], rtol=1e-12)
        nll -= mask[:, t] * to_host(log_probs)[range(N), 0, captions[:, t + 1]]
    assert nll.mean() == pytest.approx(float(to_host(cache.nll)), rel=1e-12)


def test_beams_do_not_see_each_other(xp):
    config = checks.sizes("additive", "vector", dropout=0.0)
    params, batch, _ = world(config, xp)
    state = sat.start(params, config, batch.annotations)
    words = to_device(np.array([[1, 4], [2, 2], [0, 3]]), xp)
    wide = state._replace(beams=tuple(xp.concatenate([x, x], axis=1) for x in state.beams))
    both = sat.step(params, config, wide, words)
    for beam in range(2):
        alone = sat.step(params, config, state, words[:, beam : beam + 1])
        for x, y in ((both[0], alone[0]), (both[2], alone[2]), *zip(both[1].beams, alone[1].beams, strict=True)):
            np.testing.assert_allclose(to_host(x)[:, beam], to_host(y)[:, 0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("attention", "gate"), OPTIONS)
def test_float32_is_float64_but_for_rounding(xp, attention, gate):
    config = checks.sizes(attention, gate, dropout=0.4)
    params, batch, noise = world(config, xp, np.float32)
    loss, cache = sat.forward(params, config, batch, noise)
    grads = params.zeros_like()
    dannotations = sat.backward(cache, grads)
    assert {x.dtype for x in (loss, cache.alphas, cache.h_prev, cache.z, grads.flat, dannotations)} == {np.dtype("f4")}
    single = gradients(sat, params, config, batch, noise)
    params, batch, noise = world(config)
    assert_equal(single, gradients(sat, params, config, batch, noise), 1e-3)


def test_the_cost_is_the_mean_over_captions_of_eq_14():
    config = checks.sizes("additive", "scalar", dropout=0.0, penalty=0.7)
    params, batch, noise = world(config)
    loss, cache = sat.forward(params, config, batch, noise)
    singles = [sat.forward(params, config, Batch(*(x[n : n + 1] for x in batch)), noise)[0] for n in range(N)]
    assert loss == pytest.approx(np.mean(singles), rel=1e-12)
    looked = (batch.mask.T[:, :, None] * cache.alphas).sum(axis=0)
    assert loss - cache.nll == pytest.approx(0.7 * ((1 - looked) ** 2).sum(axis=1).mean(), rel=1e-12)


def test_gradients_are_added_and_a_frozen_encoder_gets_none(xp):
    config = checks.sizes("general", "scalar")
    params, batch, noise = world(config, xp)
    _, cache = sat.forward(params, config, batch, noise)
    once, twice = params.zeros_like(), params.zeros_like()
    sat.backward(cache, once)
    assert sat.backward(cache, twice, frozen=True) is None
    np.testing.assert_array_equal(to_host(twice.flat), to_host(once.flat))
    sat.backward(cache, twice)
    np.testing.assert_allclose(to_host(twice.flat), 2 * to_host(once.flat), rtol=1e-12)


def test_noise_is_drawn_step_by_step():
    config = checks.sizes("additive", "scalar", dropout=0.4)
    short, long = (sat.draw_noise(config, steps, N, L, np.random.default_rng(0)) for steps in (4, 6))
    for a, b, size in zip(short[:3], long[:3], (config.M, config.H, config.M), strict=True):
        assert a.shape == (4, N, size) and a.dtype == np.float32
        np.testing.assert_array_equal(a, b[:4])
    assert sat.draw_noise(checks.sizes("additive", "scalar", dropout=0.0), 4, N, L, None) == sat.Noise()


@pytest.mark.parametrize(("attention", "gate"), OPTIONS)
def test_init(attention, gate):
    config = checks.sizes(attention, gate)
    params = sat.init(config, np.random.default_rng(3))
    np.testing.assert_array_equal(params.flat, sat.init(config, np.random.default_rng(3)).flat)
    assert params.flat.dtype == np.float32
    for name, x in params.items():
        assert bool(x.any()) != name.startswith(("b", "c")), name
    for i in range(4):
        block = params.W_h[:, i * config.H : (i + 1) * config.H]
        np.testing.assert_allclose(block @ block.T, np.eye(config.H), atol=1e-6)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"attention": "none"}, "attention is 'none'; choose soft or hard"),
        ({"f_att": "cosine"}, "f_att is 'cosine'; choose additive, general or dot"),
        ({"gate": "none"}, "gate is 'none'; choose scalar or vector"),
        ({"f_att": "dot", "D": 4, "H": 5}, "f_att dot needs D = H, but D is 4 and H is 5"),
        ({"dropout": 1.0}, "dropout is 1.0; choose a rate from 0 to below 1"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(choices, words):
    with pytest.raises(InputError, match=words):
        sat.Config(V=5, **choices)


def training_step(xp, images, captions, mask, noise, encoder, decoder, memory):
    """One whole step: both forwards, both backwards, clipping, Adam -> loss, norm; writes the parameters."""
    params = {"encoder": encoder, "decoder": decoder}
    grads = {name: p.zeros_like() for name, p in params.items()}
    annotations, seen = small.forward(encoder, ENCODER, images)
    loss, said = sat.forward(decoder, DECODER, Batch(annotations, captions, mask), noise)
    small.backward(sat.backward(said, grads["decoder"]), seen, grads["encoder"])
    for name, p in params.items():
        norm = optim.clip_by_global_norm(grads[name].flat, 0.5)
        optim.adam(p.flat, grads[name].flat, memory[name], lr=0.01)
    return loss, norm


ENCODER = small.Config((4, 6, 8), Preprocessing(12))
DECODER = sat.Config(V=10, D=8, M=5, H=7, A=6, dropout=0.4)


def test_a_whole_training_step_on_the_device_is_numpys_and_never_waits():
    results = []
    for xp in (np, strict):
        rng = np.random.default_rng(0)
        encoder, decoder = (p.on(to_device(p.flat, xp)) for p in (small.init(ENCODER, rng), sat.init(DECODER, rng)))
        images = to_device(rng.integers(0, 256, (N, 12, 12, 3), dtype=np.uint8), xp)
        _, batch, noise = world(DECODER, xp, np.float32)
        memory = {name: optim.new_state("adam", p.flat) for name, p in (("encoder", encoder), ("decoder", decoder))}
        with strict.no_sync(), strict.budget(h2d=0, d2h=0, syncs=0):
            for _ in range(2):
                loss, norm = training_step(xp, images, *batch[1:], noise, encoder, decoder, memory)
        decoder.c_a[...] = 0  # its true gradient is 0, so Adam walks on rounding errors
        results.append([to_host(x) for x in (loss, norm, encoder.flat, decoder.flat)])
    for x, y in zip(*results, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)
