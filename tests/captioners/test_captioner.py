"""Show, Attend and Tell as a whole: equal to its step-by-step twin, to itself under padding, and on every device."""

import weakref
from itertools import product

import numpy as np
import pytest

from satnp.arrays import optim
from satnp.arrays.backend import to_device, to_host
from satnp.arrays.parameters import Parameters
from satnp.captioners import f_att
from satnp.captioners import show_attend_tell as sat
from satnp.captioners.contract import Batch, State
from satnp.encoders import small
from satnp.encoders.photos import Preprocessing
from satnp.errors import InputError
from satnp.layers import softmax
from satnp.proof.captioners import F_ATT, GATES, sizes
from satnp.proof.gradcheck import relative_error
from satnp.reference import show_attend_tell as reference
from tests import strict

SOFT = [{"f_att": f_att, "gate": gate} for f_att, gate in product(F_ATT, GATES)]
LAMBDAS = {"reward_weight": 0.6, "entropy_weight": 0.3, "temperature": 0.7}
HARD = [  # each estimator with each baseline, and all of SOFT between them
    SOFT[e + b] | LAMBDAS | {"attention": "hard", "estimator": estimator, "baseline": baseline, "samples": samples}
    for e, estimator in enumerate(sat.CHOICES["estimator"])
    for b, (baseline, samples) in enumerate((("none", 1), ("moving_average", 1), ("leave_one_out", 2)))
]
N, T, L = 3, 4, 9
LENGTHS = (4, 3, 2)


def said(choices):
    """The words of a Config, as the name of a test."""
    return "-".join(str(value) for value in choices.values() if isinstance(value, str))


def each(configs):
    return pytest.mark.parametrize("choices", configs, ids=said)


def world(config, xp=np, dtype=np.float64, padding=0):
    """Random parameters, batch and noise; `padding` more steps that do not count."""
    rng = np.random.default_rng(0)
    params = Parameters(sat.shapes(config), flat=0.5 * rng.standard_normal(sat.init(config, rng).flat.size))
    annotations = rng.standard_normal((N, L, config.D))
    captions = np.concatenate([rng.integers(0, config.V, (N, T + 1)), np.zeros((N, padding), int)], axis=1)
    mask = (np.arange(T + padding) < np.array(LENGTHS)[:, None]).astype(dtype)
    noise = sat.draw_noise(config, T + padding, N, L, rng)
    if config.hard:
        noise = noise._replace(expected=np.array([0, 1, 0]), baseline=np.array(-3.0))
    noise = sat.Noise(*(None if x is None else to_device(x.astype(dtype), xp) for x in noise))
    batch = Batch(*(to_device(x, xp) for x in (annotations.astype(dtype), captions, mask)))
    return params.on(to_device(params.flat.astype(dtype), xp)), batch, noise


def gradients(module, params, config, batch, noise):
    """Loss and {name: gradient} with the annotations' and the next baseline (0 with soft attention), on the host."""
    loss, cache = module.forward(params, config, batch, noise)
    grads = params.zeros_like()
    found = dict(grads.items()) | {"annotations": module.backward(cache, grads)}
    found = {name: to_host(x) for name, x in found.items()}
    return float(to_host(loss)), found | {"baseline": to_host(cache.baseline) if config.hard else np.zeros(())}


def assert_equal(ours, theirs, tolerance):
    assert ours[0] == pytest.approx(theirs[0], rel=tolerance)
    scale = max(np.linalg.norm(g) for g in theirs[1].values())
    for name, g in ours[1].items():
        assert relative_error(g, theirs[1][name], scale) <= tolerance, name


@pytest.mark.parametrize(
    "more",
    [
        {"dropout": 0.4, "penalty": 0.7},
        {"dropout": 0.0, "penalty": 0.0, "reward": "mean"},
        {"dropout": 0.4, "penalty": 0.7, "reward": "mean", "samples": 2},
        {"dropout": 0.0, "penalty": 0.7, "samples": 3},
    ],
    ids=["plain", "bare", "two samples", "three samples"],
)
@each(SOFT + HARD)
def test_the_step_by_step_form_gives_the_same_loss_and_gradients(xp, choices, more):
    config = sizes(**choices | more)
    params, batch, noise = world(config, xp)
    ours, plain = (gradients(module, params, config, batch, noise) for module in (sat, reference))
    assert_equal(ours, plain, 1e-12)
    assert all(g.any() for name, g in ours[1].items() if name not in ("c_a", "baseline"))
    assert (ours[1]["baseline"] not in (0, -3)) == config.hard


@each(SOFT + HARD)
def test_more_padding_changes_nothing(xp, choices):
    config = sizes(**choices, dropout=0.4)
    results = []
    for padding in (0, 3):
        params, batch, noise = world(config, xp, padding=padding)
        results.append(gradients(sat, params, config, batch, noise))
    assert_equal(*results, 1e-12)


@each([choices for choices in SOFT[:1] + HARD if choices["f_att"] == "additive"])
def test_the_scalar_behind_the_softmax_has_no_gradient(xp, choices):
    config = sizes(**choices)
    params, batch, noise = world(config, xp)
    _, grads = gradients(sat, params, config, batch, noise)
    assert abs(grads["c_a"][0]) < 1e-14 < 1e-3 < np.abs(grads["b_a"]).max()


@each(SOFT)
def test_attention_sums_to_1_and_follows_the_state(xp, choices):
    config = sizes(**choices)
    params, batch, noise = world(config, xp)
    _, cache = sat.forward(params, config, batch, noise)
    alphas = to_host(cache.alphas)
    np.testing.assert_allclose(alphas.sum(axis=2), 1, rtol=1e-14)
    assert np.abs(np.diff(alphas, axis=0)).max(axis=2).min() > 1e-4
    (keys, F), h = f_att.attention_keys(params, config, batch.annotations), cache.h_prev[0]
    still, moved = (softmax(f_att.attention_scores_forward(params, config, keys, h + d, F)[0]) for d in (0.0, 0.5))
    np.testing.assert_allclose(to_host(still), alphas[0], rtol=1e-13)
    assert np.abs(to_host(moved) - to_host(still)).max(axis=1).min() > 1e-3


DECODING = [SOFT[k] | {"attention": "hard", "decoding": how} for k in (0, 3, 4) for how in sat.CHOICES["decoding"]]


@each(SOFT + DECODING)
def test_a_decoding_step_is_the_training_step(xp, choices):
    config = sizes(**choices, dropout=0.0)
    params, batch, noise = world(config, xp)
    gumbel = None
    if config.hard:
        expected = 0 * noise.expected + (config.decoding == "expectation")
        noise = noise._replace(gumbel=noise.gumbel * (config.decoding == "sampling"), expected=expected)
        gumbel = noise.gumbel.transpose(1, 0, 2) if config.decoding == "sampling" else None
    _, cache = sat.forward(params, config, batch, noise)
    state, nll = sat.start(params, config, batch.annotations, gumbel), np.zeros(N)
    captions, mask = to_host(batch.captions), to_host(batch.mask)
    for t in range(T):
        log_probs, state, look = sat.step(params, config, state, captions[:, t], np.arange(N))
        assert log_probs.shape == (N, config.V)
        np.testing.assert_allclose(to_host(look), to_host(cache.looks)[t], rtol=1e-12)
        nll -= mask[:, t] * to_host(log_probs)[range(N), captions[:, t + 1]]
    assert nll.mean() == pytest.approx(float(to_host(cache.nll)), rel=1e-12)
    if gumbel is None:
        assert float(to_host(sat.forward(params, config, batch, sat.Noise())[1].nll)) == pytest.approx(nll.mean())


@each([{"f_att": "additive"}, {"f_att": "general"}, {"f_att": "additive", "attention": "hard", "decoding": "sampling"}])
def test_captions_of_a_photo_do_not_see_each_other(xp, choices):
    config = sizes(gate="vector", dropout=0.0, **choices)
    params, batch, _ = world(config, xp)
    gumbel = sat.decoding_noise(config, N, L, 3, np.random.default_rng(0))
    assert gumbel is None or (gumbel[:, 0] != gumbel[:, 1]).all()
    start = sat.start(params, config, batch.annotations, gumbel if gumbel is None else to_device(gumbel, xp))
    # captions of photos 0 0 0 2 2, photo 1 is done; two of the first go on with one that was not the first
    steps = [([1, 1, 1], [0, 1, 2]), ([4, 2, 0, 3, 3], [0, 0, 0, 2, 2]), ([2, 4, 4, 1, 0], [1, 1, 0, 4, 3])]
    state, paths = start, [[n] for n in range(N)]
    for words, parents in steps:
        log_probs, state, look = sat.step(params, config, state, words, np.array(parents))
        paths = [[*paths[parent], word] for word, parent in zip(words, parents, strict=True)]
        assert list(state.photos) == [path[0] for path in paths]
        for row, (n, *said) in enumerate(paths):
            photo, caption = (tuple(x if x is None else x[n : n + 1] for x in part) for part in start[:2])
            alone = State(photo, caption, np.zeros(1, int), start.weights, start.word_gates)
            for word in said:
                wanted, alone, looked = sat.step(params, config, alone, [word], np.zeros(1, int))
            for x, y in ((log_probs, wanted), (look, looked), *zip(state.captions, alone.captions, strict=True)):
                np.testing.assert_allclose(to_host(x)[row], to_host(y)[0], rtol=1e-12, atol=1e-14)


@each(SOFT + HARD)
def test_float32_is_float64_but_for_rounding(xp, choices):
    config = sizes(**choices, dropout=0.4)
    params, batch, noise = world(config, xp, np.float32)
    loss, cache = sat.forward(params, config, batch, noise)
    grads = params.zeros_like()
    dannotations = sat.backward(cache, grads)
    made = [loss, cache.nll, cache.alphas, cache.looks, cache.h_prev, cache.z, grads.flat, dannotations]
    made += [cache.baseline, cache.hard.scores, *sat.diagnostics(cache.told).values()] if config.hard else []
    assert {x.dtype for x in made} == {np.dtype("f4")}
    single = gradients(sat, params, config, batch, noise)
    params, batch, noise = world(config)
    double = gradients(sat, params, config, batch, noise)
    if "c_a" in params:  # each softmax forgets it: its gradient is a sum of L that cancel, and in float32 their rounding
        scale = max(np.linalg.norm(g) for g in double[1].values())
        assert max(abs(found[1].pop("c_a")[0]) for found in (single, double)) < L * np.finfo("f4").eps * scale
    assert_equal(single, double, 1e-4)


def test_the_cost_is_the_mean_over_captions_of_eq_14():
    config = sizes("additive", "scalar", dropout=0.0, penalty=0.7)
    params, batch, noise = world(config)
    loss, cache = sat.forward(params, config, batch, noise)
    singles = [sat.forward(params, config, Batch(*(x[n : n + 1] for x in batch[:3])), noise)[0] for n in range(N)]
    assert loss == pytest.approx(np.mean(singles), rel=1e-12)
    looked = (batch.mask.T[:, :, None] * cache.alphas).sum(axis=0)
    assert loss - cache.nll == pytest.approx(0.7 * ((1 - looked) ** 2).sum(axis=1).mean(), rel=1e-12)


@each([SOFT[2], HARD[-1]])
def test_gradients_are_added_and_a_frozen_encoder_gets_none(xp, choices):
    config = sizes(**choices)
    params, batch, noise = world(config, xp)
    _, cache = sat.forward(params, config, batch, noise)
    once, twice = params.zeros_like(), params.zeros_like()
    sat.backward(cache, once)
    assert sat.backward(cache, twice, frozen=True) is None
    np.testing.assert_array_equal(to_host(twice.flat), to_host(once.flat))
    sat.backward(cache, twice)
    np.testing.assert_allclose(to_host(twice.flat), 2 * to_host(once.flat), rtol=1e-12)


@each([SOFT[2], HARD[-1]])
def test_a_cache_that_nobody_holds_is_let_go_on_the_way(monkeypatch, choices):
    config = sizes(**choices)
    params, batch, noise = world(config)
    _, *cache = sat.forward(params, config, batch, noise)
    error, cell = weakref.ref(cache[0].vocabulary.error), weakref.ref(cache[0].steps[0].cell.i)
    told, seen, deep_output_backward = cache[0].told, [], sat.deep_output_backward
    monkeypatch.setattr(sat, "deep_output_backward", lambda *args: seen.append(error()) or deep_output_backward(*args))
    sat.backward(cache.pop(), params.zeros_like(), frozen=True)
    assert seen == [None] and cell() is None and sat.diagnostics(told)


@each([{}, {"attention": "hard"}])
def test_noise_is_drawn_step_by_step(choices):
    config = sizes("additive", "scalar", dropout=0.4, samples=2, **choices)
    short, long = (sat.draw_noise(config, steps, N, L, np.random.default_rng(0)) for steps in (4, 6))
    shapes = {"words": (N, config.M), "state": (N, config.H), "hidden": (N, config.M)}
    if config.hard:
        shapes["gumbel"] = (2 * N, L)
        np.testing.assert_array_equal(short.expected, long.expected)
    for name, size in shapes.items():
        a, b = getattr(short, name), getattr(long, name)
        assert a.shape == (4, *size) and a.dtype == np.float32 and len(np.unique(a)) > 1
        np.testing.assert_array_equal(a, b[:4])
    assert {name for name, x in short._asdict().items() if x is not None} - {"expected"} == shapes.keys()
    assert sat.draw_noise(sizes("additive", "scalar", dropout=0.0), 4, N, L, None) == sat.Noise()


def test_the_coin_is_tossed_for_an_image_for_a_minibatch_or_not_at_all(rng):
    tossed = {}
    for coin in sat.CHOICES["coin"]:
        config = sizes("additive", "scalar", attention="hard", dropout=0.0, coin=coin)
        tossed[coin] = np.array([sat.draw_noise(config, 1, 50, 2, rng).expected for _ in range(200)])
        assert tossed[coin].dtype == np.float32 and tossed[coin].shape == (200, 50)
    assert tossed["image"].std(axis=1).min() > 0.3 and abs(tossed["image"].mean() - 0.5) < 0.02
    assert tossed["minibatch"].std(axis=1).max() == 0 and abs(tossed["minibatch"].mean() - 0.5) < 0.15
    assert not tossed["none"].any()
    for chance in (0.0, 0.9, 1.0):
        config = sizes("additive", "scalar", attention="hard", dropout=0.0, coin_chance=chance)
        assert abs(sat.draw_noise(config, 1, 2000, 2, rng).expected.mean() - chance) < 0.03 * (0 < chance < 1) + 1e-9


@each(SOFT)
def test_init(choices):
    config = sizes(**choices)
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
        ({"H": 0}, "H is 0; choose 1 to 1000000"),
        ({"estimator": "vimco"}, "estimator is 'vimco'; choose reinforce, reward_to_go, local_expectation or gumbel_st"),
        ({"baseline": "critic"}, "baseline is 'critic'; choose none, moving_average or leave_one_out"),
        ({"coin": "batch"}, "coin is 'batch'; choose image, minibatch or none"),
        ({"coin_chance": 1.5}, "coin_chance is 1.5; choose a chance from 0 to 1"),
        ({"reward": "bleu"}, "reward is 'bleu'; choose sum or mean"),
        ({"decoding": "greedy"}, "decoding is 'greedy'; choose expectation, argmax or sampling"),
        ({"samples": 0}, "samples is 0; choose 1 to 1000000"),
        ({"penalty": -1.0}, "penalty is -1.0; choose 0 or more"),
        ({"reward_weight": -0.1}, "reward_weight is -0.1; choose 0 or more"),
        ({"entropy_weight": float("nan")}, "entropy_weight is nan; choose 0 or more"),
        ({"temperature": 0.0}, "temperature is 0.0; choose a number above 0"),
        ({"attention": "hard", "baseline": "leave_one_out"}, "leave_one_out compares samples .* choose samples of 2"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(choices, words):
    with pytest.raises(InputError, match=words):
        sat.Config(V=5, **choices)


def test_what_only_hard_attention_reads_may_wait_for_it():
    assert not sat.Config(V=5, baseline="leave_one_out").hard
    assert sat.Config(V=5, attention="hard", baseline="leave_one_out", samples=2).hard


def training_step(xp, config, images, captions, mask, noise, encoder, decoder, memory):
    """One whole step: both forwards, both backwards, clipping, SGD -> loss, norm, baseline; writes the parameters.

    Adam would walk on rounding errors where a gradient is 0.
    """
    params = {"encoder": encoder, "decoder": decoder}
    grads = {name: p.zeros_like() for name, p in params.items()}
    annotations, seen = small.forward(encoder, ENCODER, images)
    loss, cache = sat.forward(decoder, config, Batch(annotations, captions, mask), noise)
    small.backward(sat.backward(cache, grads["decoder"]), seen, grads["encoder"])
    for name, p in params.items():
        norm, factor = optim.clip_factor(grads[name].flat, 0.5)
        optim.sgd(p.flat, grads[name].flat, memory[name], lr=0.01, factor=factor)
    sat.diagnostics(cache.told)
    return loss, norm, cache.baseline


ENCODER = small.Config((4, 6, 8), Preprocessing(12))  # 3 x 3 locations: L


@each(SOFT[:1] + HARD)
def test_a_whole_training_step_on_the_device_is_numpys_and_never_waits(choices):
    config = sat.Config(V=10, D=8, M=5, H=7 + (choices["f_att"] == "dot"), A=6, dropout=0.4, **choices)
    results = []
    for xp in (np, strict):
        rng = np.random.default_rng(0)
        encoder, decoder = (p.on(to_device(p.flat, xp)) for p in (small.init(ENCODER, rng), sat.init(config, rng)))
        images = to_device(rng.integers(0, 256, (N, 12, 12, 3), dtype=np.uint8), xp)
        _, batch, noise = world(config, xp, np.float32)
        memory = {name: optim.new_state("sgd", p.flat) for name, p in (("encoder", encoder), ("decoder", decoder))}
        with strict.no_sync(), strict.budget(h2d=0, d2h=0, syncs=0):
            for _ in range(2):
                loss, norm, b = training_step(xp, config, images, *batch[1:3], noise, encoder, decoder, memory)
                noise = noise._replace(baseline=b)
        results.append([to_host(x) for x in (loss, norm, encoder.flat, decoder.flat, *([b] if config.hard else []))])
    for x, y in zip(*results, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)
