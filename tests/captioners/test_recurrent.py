"""The frame and the captioners on it: what gradient checks cannot see."""

import json
from dataclasses import asdict, dataclass, fields, replace
from math import prod

import numpy as np
import pytest

from satnp import load
from satnp.arrays import optim, shares, threads
from satnp.arrays.backend import to_device, to_host
from satnp.arrays.parameters import Parameters
from satnp.captioners import (
    CAPTIONERS,
    adaptive,
    att_lstm,
    glstm,
    log_bilinear,
    lrcn,
    m_rnn,
    neural_baby_talk,
    neuraltalk,
    s2vt,
    sca_cnn,
    show_and_tell,
    show_attend_tell,
    top_down,
)
from satnp.captioners.attributes import attributes_of, labels, root
from satnp.captioners.contract import Batch, Corpus
from satnp.captioners.locations import Locations
from satnp.captioners.recurrent import Noise, Recurrent
from satnp.cli import _start_from, main
from satnp.data.captions import Vocabulary
from satnp.data.datasets import load_split
from satnp.decoding import beam_search
from satnp.errors import InputError
from satnp.proof import checks
from satnp.proof.captioners import captioner_case, probable
from satnp.proof.gradcheck import check_gradients, relative_error
from satnp.training.presets import find_preset, new_model
from tests import strict
from tests.captioners import soft_attention, toy
from tests.small_world import write_flickr8k

FAMILY = {
    "show_and_tell": show_and_tell, "neuraltalk": neuraltalk, "lrcn": lrcn, "glstm": glstm, "att_lstm": att_lstm,
    "adaptive": adaptive, "top_down": top_down, "sca_cnn": sca_cnn, "m_rnn": m_rnn, "log_bilinear": log_bilinear,
    "s2vt": s2vt,
}  # fmt: skip
MODULES = FAMILY | {"neural_baby_talk": neural_baby_talk, "toy": toy, "soft": soft_attention}
ATTEND = "adaptive", "top_down", "sca_cnn"
CONFIGS = {f"{name} {option}".strip(): (m.captioner, c) for name, m in MODULES.items() for option, c in m.CHECKS.items()}
N, T, L = 3, 4, 6


@pytest.fixture(params=CONFIGS)
def captioner(request):
    """(captioner, a tiny Config)"""
    return CONFIGS[request.param]


def world(captioner, config, xp=np, dtype=np.float64, padding=0, steps=T):
    """Random parameters, batch and noise; `padding` more steps that do not count."""
    rng = np.random.default_rng(0)
    params = Parameters(captioner.shapes(config))
    params = params.on(to_device(0.5 * rng.standard_normal(params.flat.size).astype(dtype), xp))
    annotations = rng.standard_normal((N, L, config.D))
    if getattr(config, "regions", False):  # some are absent
        annotations[0, 4:], annotations[1, 2] = 0, 0
    if getattr(config, "classes", ()):
        probable(annotations, config, rng)
    captions = np.concatenate([rng.integers(0, config.V, (N, steps + 1)), np.zeros((N, padding), int)], axis=1)
    mask = (np.arange(steps + padding) < np.array([steps, steps - 1, steps - 2])[:, None]).astype(dtype)
    noise = captioner.draw_noise(config, steps + padding, N, L, rng)
    noise = Noise(*(None if x is None else to_device(x.astype(dtype), xp) for x in noise))
    return params, Batch(*(to_device(x, xp) for x in (annotations.astype(dtype), captions, mask))), noise


def gradients(captioner, params, config, batch, noise):
    """Loss and {name: gradient} with the annotations', on the host."""
    loss, cache = captioner.forward(params, config, batch, noise)
    grads = params.zeros_like()
    found = dict(grads.items()) | {"annotations": captioner.backward(cache, grads)}
    return float(to_host(loss)), {name: to_host(x) for name, x in found.items()}


def assert_equal(ours, theirs, tolerance):
    assert ours[0] == pytest.approx(theirs[0], rel=tolerance)
    scale = max(np.linalg.norm(g) for g in theirs[1].values())
    for name, g in theirs[1].items():
        assert relative_error(ours[1][name], g, scale) <= tolerance, name


def test_soft_attention_on_the_frame_is_the_hand_made_one(rng):
    sizes = {"V": 9, "D": 4, "M": 3, "H": 5, "A": 7, "penalty": 0.7, "dropout": 0.4}
    config, own = soft_attention.Config(**sizes), show_attend_tell.Config(**sizes)
    params, batch, noise = world(soft_attention.captioner, config)
    hand_made = Parameters(show_attend_tell.shapes(own), flat=params.flat)
    batch = batch._replace(weights=rng.standard_normal((N, T)), given=rng.integers(0, 9, (N, T)))
    theirs = gradients(
        show_attend_tell, hand_made, own, batch, show_attend_tell.Noise(noise.words, noise.out, noise.hidden)
    )  # fmt: skip
    renamed = {{"L_o": "W_p", "b_o": "b_p"}.get(name, name): g for name, g in theirs[1].items()}
    assert_equal(gradients(soft_attention.captioner, params, config, batch, noise), (theirs[0], renamed), 1e-13)
    ours, wanted = (
        beam_search(module, p, c, batch.annotations, beam=3, max_length=6)
        for module, p, c in ((soft_attention.captioner, params, config), (show_attend_tell, hand_made, own))
    )
    for a, b in zip(ours, wanted, strict=True):
        assert a.ids == b.ids and a.log_prob == pytest.approx(b.log_prob, rel=1e-12)
        np.testing.assert_allclose(a.alphas, b.alphas, rtol=1e-11)


def in_another_order(params, names):
    return Parameters.of({name: params[name] for name in names})


def test_parameters_in_another_order_give_the_same_numbers_or_an_error(captioner):
    """Neighbours in the buffer are read by name, never by luck."""
    captioner, config = captioner
    params, batch, noise = world(captioner, config)
    wanted, stacked = gradients(captioner, params, config, batch, noise), [s for s in params._stacks if len(s) > 1]
    for names in stacked:
        apart = [name for name in params if name != names[0]]
        with pytest.raises(ValueError, match=f"cannot stack {', '.join(names)}: "):
            captioner.forward(in_another_order(params, [*apart, names[0]]), config, batch, noise)
    joined = list(dict.fromkeys(name for names in stacked for name in names))
    order = [*joined, *sorted(set(params) - set(joined))]
    assert order != list(params)
    assert_equal(gradients(captioner, in_another_order(params, order), config, batch, noise), wanted, 1e-12)


def test_decoding_gives_the_likelihood_of_the_forward_pass(captioner, xp):
    captioner, config = captioner
    params, batch, _ = world(captioner, config, xp)
    _, cache = captioner.forward(params, config, batch, Noise())
    captions, wanted = to_host(batch.captions), to_host(cache.vocabulary.log_p).reshape(T, N)
    state = captioner.start(params, config, batch.annotations)
    for t in range(T):
        log_probs, state, look = captioner.step(params, config, state, captions[:, t], np.arange(N))
        np.testing.assert_allclose(to_host(log_probs)[range(N), captions[:, t + 1]], wanted[t], rtol=1e-11)
        if look is not None:
            np.testing.assert_allclose(to_host(look), to_host(cache.alphas[t]), rtol=1e-10)


def test_captions_of_a_photo_do_not_depend_on_each_other_and_copy_no_annotations(captioner, xp, monkeypatch):
    captioner, config = captioner
    params, batch, _ = world(captioner, config, xp)
    start = captioner.start(params, config, batch.annotations)
    words, parents = np.array([2, 3, 4, 5, 6, 1]), np.array([0, 0, 1, 1, 1, 2])
    given, cell_forward = [], captioner.pairs.cell_forward
    monkeypatch.setattr(captioner.pairs, "cell_forward", lambda *a: given.append(a[2]) or cell_forward(*a))
    log_probs, state, look = captioner.step(params, config, start, words, parents)
    log_probs, state, look = captioner.step(params, config, state, words[::-1].copy(), np.arange(6))
    assert state.photo is start.photo and list(state.photos) == list(parents)
    for photo in given:
        for mine, shared in zip(photo, start.photo, strict=True):
            if isinstance(shared, Locations):
                assert all(getattr(mine, name) is getattr(shared, name) for name in ("keys", "F", "vectors"))
            else:  # SCA-CNN weighs the whole map of each caption; Neural Baby Talk has a few numbers of each region
                assert shared.ndim < 3 or captioner in (sca_cnn.captioner, neural_baby_talk.captioner)
    for r in range(6):
        alone = captioner.start(params, config, batch.annotations[parents[r] : parents[r] + 1])
        _, alone, _ = captioner.step(params, config, alone, words[r : r + 1], np.zeros(1, int))
        wanted, _, looked = captioner.step(params, config, alone, words[::-1][r : r + 1], np.zeros(1, int))
        np.testing.assert_allclose(to_host(log_probs)[r], to_host(wanted)[0], rtol=1e-11)
        if look is not None:
            np.testing.assert_allclose(to_host(look)[r], to_host(looked)[0], rtol=1e-11)


def test_beam_search_in_shares_finds_what_one_core_finds(captioner, monkeypatch):
    captioner, config = captioner
    params, batch, _ = world(captioner, config)
    found = []
    monkeypatch.setattr(shares, "LEAST", 1)
    for cores in (1, 2):
        monkeypatch.setattr(threads, "cores", lambda cores=cores: cores)
        threads._pool.cache_clear()
        found.append(beam_search(captioner, params, config, batch.annotations, 3, max_length=5, every=True))
    threads._pool.cache_clear()
    for one, two in zip(*found, strict=True):  # all captions of a photo; of equal ones any may come first
        np.testing.assert_allclose([caption.log_prob for caption in one], [caption.log_prob for caption in two], rtol=1e-9)


def test_padding_changes_neither_the_loss_nor_a_gradient_nor_the_noise(captioner):
    captioner, config = captioner
    short, long = (world(captioner, config, padding=padding) for padding in (0, 2))
    for a, b in zip(short[2], long[2], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_array_equal(a, b[:T])
    assert_equal(gradients(captioner, long[0], config, *long[1:]), gradients(captioner, short[0], config, *short[1:]), 1e-12)


def test_word_weights_are_those_of_the_loss(captioner):
    captioner, config = captioner
    params, batch, noise = world(captioner, config)
    plain = gradients(captioner, params, config, batch, noise)
    same = gradients(captioner, params, config, batch._replace(weights=batch.mask / N, given=batch.captions[:, :-1]), noise)
    assert_equal(same, plain, 1e-14)
    loss, cache = captioner.forward(params, config, batch._replace(weights=-batch.mask / N), noise)
    nll = captioner.forward(params, config, batch, noise)[1].nll
    assert loss < plain[0] and float(cache.nll) == pytest.approx(float(nll))


def test_a_training_step_on_the_device_is_numpys_and_never_waits(captioner):
    captioner, config = captioner
    found = []
    for xp in (np, strict):
        params, batch, noise = world(captioner, config, xp, np.float32)
        grads, memory = params.zeros_like(), optim.new_state("sgd", params.flat)
        with strict.no_sync(), strict.budget(h2d=0, d2h=0, syncs=0):
            loss, cache = captioner.forward(params, config, batch, noise)
            dannotations = captioner.backward(cache, grads)
            _, factor = optim.clip_factor(grads.flat, 0.5)
            optim.sgd(params.flat, grads.flat, memory, lr=0.01, factor=factor)
            statistics = captioner.diagnostics(cache.told)
        found.append([to_host(x) for x in (loss, params.flat, dannotations, *statistics.values())])
    for ours, numpys in zip(*found[::-1], strict=True):
        np.testing.assert_allclose(ours, numpys, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["adaptive", "adaptive spatial", "top_down"])
def test_attention_moves_from_word_to_word_and_depends_on_the_word_before(name):
    """Their query is h_t, which has read y_{t-1}; the query of Show, Attend and Tell, h_{t-1}, has not."""
    captioner, config = CONFIGS[name]
    params, batch, _ = world(captioner, config)
    other = batch.captions.copy()
    other[:, 2] = (other[:, 2] + 1) % config.V  # y_2, read at step 3 (t = 2)
    a, b = (
        captioner.forward(params, config, batch._replace(captions=c), Noise())[1].alphas for c in (batch.captions, other)
    )
    assert np.abs(np.diff(a, axis=0)).max(axis=2).min() > 1e-4
    np.testing.assert_array_equal(a[:2], b[:2])
    assert np.abs(a[2] - b[2]).max(axis=1).min() > 1e-6


def test_attention_of_the_hand_made_captioner_has_not_read_the_word_before():
    config = show_attend_tell.Config(V=9, D=4, M=3, H=5, A=7, dropout=0.0)
    params, batch, _ = world(soft_attention.captioner, soft_attention.Config(V=9, D=4, M=3, H=5, A=7, dropout=0.0))
    params = Parameters(show_attend_tell.shapes(config), flat=params.flat)
    other = batch.captions.copy()
    other[:, 2] = (other[:, 2] + 1) % config.V
    a, b = (
        show_attend_tell.forward(params, config, batch._replace(captions=c), show_attend_tell.Noise())[1].alphas
        for c in (batch.captions, other)
    )
    np.testing.assert_array_equal(a[:3], b[:3])
    assert np.abs(a[3] - b[3]).max(axis=1).min() > 1e-6


def test_the_sentinel_and_the_locations_share_one_softmax():
    captioner, config = CONFIGS["adaptive"]
    params, batch, noise = world(captioner, config)
    _, cache = captioner.forward(params, config, batch, noise)
    h, s, beta = (x.reshape(T, N, -1) for x in (*cache.attention.out, cache.attention.softmax.alpha[:, -1]))
    beta = beta[:, :, 0]
    np.testing.assert_allclose(cache.alphas.sum(axis=2) + beta, 1, rtol=1e-14)
    v = np.maximum(batch.annotations @ params.W_a + params.b_a, 0)
    for t, (alpha, b) in enumerate(zip(cache.alphas, beta, strict=True)):  # by hand, from h_t and s_t
        seen = np.concatenate([v @ params.W_v, (s[t] @ params.W_s)[:, None]], axis=1)
        weights = np.exp(np.tanh(seen + (h[t] @ params.W_g)[:, None]) @ params.w)
        weights /= weights.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(np.concatenate([alpha, b[:, None]], axis=1), weights, rtol=1e-11)
    assert (beta > 0).all() and (beta < 1).all()
    told = captioner.diagnostics(cache.told)
    assert told["beta"] == pytest.approx((batch.mask.T * beta).sum() / batch.mask.sum())
    spatial, sizes = CONFIGS["adaptive spatial"]
    params, batch, noise = world(spatial, sizes)
    _, cache = spatial.forward(params, sizes, batch, noise)
    np.testing.assert_allclose(cache.alphas.sum(axis=2), 1, rtol=1e-14)
    assert spatial.diagnostics(cache.told).keys() == {"alpha_entropy"}


def test_a_penalty_reaches_attention_after_the_loop():
    @dataclass(frozen=True)
    class Penalised(adaptive.Config):
        penalty: float = 0.7

    for config in adaptive.CHECKS.values():
        config = Penalised(**asdict(config))
        assert check_gradients(captioner_case("adaptive", adaptive.captioner, config, direction=False)).passed


SCA_CNN = [name for name in CONFIGS if name.startswith("sca_cnn")]


def attended(config, params, X, h):
    """SCA-CNN's step without a loop of its own: beta and alpha of each layer, and z."""
    found = {}
    for name in sca_cnn.parts(config):
        if name == "F":
            out, K = np.zeros_like(X), config.kernel
            rows, columns = config.rows, X.shape[1] // config.rows
            for i, j in np.ndindex(rows, columns):
                for k, m in np.ndindex(K, K):
                    r, c = i + k - K // 2, j + m - K // 2
                    if 0 <= r < rows and 0 <= c < columns:
                        out[:, i * columns + j] += X[:, r * columns + c] @ params.F.reshape(K, K, config.D, -1)[k, m]
            X = np.maximum(out + params.b_F, 0)
            continue
        x = X.mean(axis=1)[:, :, None] if name in ("c", "c2") else X
        b = np.tanh(x @ params[f"W_{name}"] + params[f"b_{name}"] + (h @ params[f"W_h{name}"])[:, None])
        e = b @ params[f"w_{name}"] + params[f"c_{name}"]
        found[name] = np.exp(e) / np.exp(e).sum(axis=1, keepdims=True)
        count = e.shape[1] if config.scaled else 1
        X = X * count * (found[name][:, None] if name in ("c", "c2") else found[name][:, :, None])
    return found, X.mean(axis=1) if config.scaled else X.sum(axis=1)


@pytest.mark.parametrize("name", SCA_CNN)
def test_sca_cnn_attends_as_its_equations_say_and_anew_at_each_word(name):
    captioner, config = CONFIGS[name]
    params, batch, noise = world(captioner, config)
    _, cache = captioner.forward(params, config, batch, noise)
    for t, step in enumerate(cache.steps):
        found, z = attended(config, params, batch.annotations, step.hz[:, : config.H])
        np.testing.assert_allclose(step.hz[:, config.H :], z, rtol=1e-10, atol=1e-13)
        for part, weights in found.items():
            np.testing.assert_allclose(step.caches[part].softmax.alpha, weights, rtol=1e-10)
            np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
            if t:
                assert np.abs(weights - cache.steps[t - 1].caches[part].softmax.alpha).max(axis=1).min() > 1e-6, part
        np.testing.assert_array_equal(cache.alphas[t], step.caches["s2" if config.layers == 2 else "s"].softmax.alpha)


@pytest.mark.parametrize("changes", [{"order": "S-C"}, {"scaled": True}, {"layers": 2}, {"layers": 2, "kernel": 3}])
def test_the_choices_of_sca_cnn_give_other_captions(changes):
    captioner, config = CONFIGS["sca_cnn"]
    params, batch, _ = world(captioner, config)
    losses = []
    for other in (config, replace(config, **changes)):
        p, rng = Parameters(captioner.shapes(other), dtype=float), np.random.default_rng(3)
        for name, x in p.items():  # what both have in common
            x[...] = params[name] if name in params.shapes else 0.5 * rng.standard_normal(x.shape)
        losses.append(captioner.forward(p, other, batch, Noise())[0])
    assert abs(losses[0] - losses[1]) > 1e-4


@pytest.mark.parametrize("name", SCA_CNN)
def test_a_constant_of_all_scores_has_no_gradient(name):
    captioner, config = CONFIGS[name]
    params, batch, noise = world(captioner, config)
    _, found = gradients(captioner, params, config, batch, noise)
    constants = [x for n, x in found.items() if n.startswith("c_")]
    assert len(constants) == 2 * config.layers and max(np.abs(x).max() for x in constants) < 1e-14
    assert min(np.abs(x).max() for n, x in found.items() if not n.startswith("c_")) > 1e-6


def test_a_kernel_of_3_lets_a_cell_of_the_second_layer_see_its_neighbours():
    seen = {}
    for kernel in (1, 3):
        config = replace(sca_cnn.CHECKS["two layers"], kernel=kernel)
        params, batch, _ = world(sca_cnn.captioner, config)
        X = batch.annotations.copy()
        X[:, 0] += 1  # the cell in the first row and column of 3 x 2
        outs = [sca_cnn._convolution_forward(params, config, x)[0] for x in (batch.annotations, X)]
        seen[kernel] = (np.abs(outs[1] - outs[0]).max(axis=(0, 2)) > 0).nonzero()[0].tolist()
    assert seen == {1: [0], 3: [0, 1, 2, 3]}


def test_the_weights_of_the_channels_are_those_of_the_captions_steps():
    captioner, config = CONFIGS["sca_cnn two layers"]
    params, batch, _ = world(captioner, config)
    beta, maps = captioner.channels(params, config, batch)
    steps = captioner.forward(params, config, batch, Noise())[1].steps
    assert beta.shape == (T, N, config.D) and maps.shape == (T, N, L, config.D)
    for t, step in enumerate(steps):
        np.testing.assert_array_equal(beta[t], step.caches["c2"].softmax.alpha)
        np.testing.assert_array_equal(maps[t], step.caches["c2"].X)
    assert top_down.captioner.channels is None


@pytest.mark.parametrize(("wrong", "said"), [
    ({"order": "both"}, "order is 'both'; choose C-S or S-C"), ({"layers": 3}, "layers is 3; choose 1 or 2"),
    ({"kernel": 2}, "kernel is 2; choose 1 or 3"),
])  # fmt: skip
def test_sca_cnn_refuses_what_is_no_choice(wrong, said):
    with pytest.raises(InputError, match=said):
        sca_cnn.Config(V=5, **wrong)


def test_the_grid_is_the_encoders_and_no_key_of_a_config(folder):
    split = load_split("flickr8k", "train", folder / "data", 0, None)
    model = new_model(find_preset("flickr8k", "sca_cnn", path=folder / "tiny.toml"), split)
    assert model.config.rows == model.grid[0] and model.config.A == 128
    photo = split.photos[0]
    beta, maps = model.channels(photo, split.captions[0][0][:3])
    assert beta.shape == (3, model.config.D) and maps.shape == (3, prod(model.grid), model.config.D)
    assert [len(x) for x in model.channels(photo, [])] == [0, 0]
    (folder / "rows.toml").write_text("[config]\nrows = 3\n")
    with pytest.raises(InputError, match="the key 'rows', which does not exist"):
        find_preset("flickr8k", "sca_cnn", path=folder / "rows.toml")


def test_show_and_tell_reads_the_photo_once():
    captioner, config = CONFIGS["show_and_tell"]
    params, batch, _ = world(captioner, config)
    photo, state, _ = show_and_tell.photo_forward(params, config, batch.annotations)
    assert photo == () and not np.allclose(state[0][0], state[0][1])
    assert captioner.diagnostics(captioner.forward(params, config, batch, Noise())[1].told) == {}


def steps_that_see_the_photo(name, forget):
    """For each step: does out[0] depend on the photo, if the parameters `forget` are 0?"""
    captioner, config = CONFIGS[name]
    params, batch, _ = world(captioner, config)
    for parameter in forget:
        params[parameter][...] = 0
    found = []
    for annotations in (batch.annotations, batch.annotations + 1):
        photo, state, _ = captioner.pairs.photo_forward(params, config, annotations)
        found.append([])
        for _ in range(T):
            word = np.zeros((N, params.b.size if "W_x" in params else config.M))
            out, state, _, _ = captioner.pairs.cell_forward(params, config, photo, word, state)
            found[-1].append(out[0])
    return [bool(np.abs(a - b).max() > 1e-9) for a, b in zip(*found, strict=True)]


def test_neuraltalk_reads_the_photo_once_or_at_each_step():
    assert steps_that_see_the_photo("neuraltalk", ["W_h"]) == [True, False, False, False]
    assert steps_that_see_the_photo("neuraltalk each step", ["W_h"]) == [True] * 4


@pytest.mark.parametrize(("name", "weights"), [("lrcn", "U_v"), ("glstm", "W_q")])
def test_the_second_lstm_of_lrcn_and_the_gates_of_glstm_read_the_photo_at_each_step(name, weights):
    assert steps_that_see_the_photo(name, ["W_h"]) == [True] * 4
    captioner, config = CONFIGS[name]
    params, batch, noise = world(captioner, config)
    each = []
    for t in range(T):
        mask = batch.mask * (np.arange(T) == t)
        _, found = gradients(captioner, params, config, batch._replace(mask=mask, weights=mask / N), noise)
        each.append(found[weights])
    assert all(np.abs(g).max() > 1e-3 for g in each)
    _, found = gradients(captioner, params, config, batch, noise)
    np.testing.assert_allclose(sum(each), found[weights], rtol=1e-10, atol=1e-13)


def test_the_recurrent_layer_of_m_rnn_reads_no_photo_and_its_multimodal_layer_reads_it_at_each_step():
    assert steps_that_see_the_photo("m_rnn", []) == [False] * 4
    captioner, config = CONFIGS["m_rnn"]
    params, batch, _ = world(captioner, config)
    words, r = np.zeros((2, T * N, config.M))
    hidden = [
        m_rnn.output_forward(params, config, m_rnn.photo_forward(params, config, a)[0], words, (r,))[0]
        for a in (batch.annotations, batch.annotations[::-1])
    ]
    of_steps = [x.reshape(T, N, -1) for x in hidden]
    np.testing.assert_allclose(of_steps[0], of_steps[1][:, ::-1], rtol=1e-12)  # of its own photo, at every step
    assert np.abs(of_steps[0] - of_steps[1]).max(axis=(1, 2)).min() > 1e-3


@pytest.mark.parametrize("name", ["log_bilinear", "log_bilinear gate"])
def test_the_log_bilinear_models_read_the_last_n_words_and_the_photo(name):
    captioner, config = CONFIGS[name]
    params, batch, _ = world(captioner, config, steps=6)

    def hidden(captions, annotations):
        cache = captioner.forward(params, config, batch._replace(captions=captions, annotations=annotations), Noise())[1]
        return cache.vocabulary.hidden.reshape(6, N, -1)

    before = hidden(batch.captions, batch.annotations)
    for k in range(6):
        captions = batch.captions.copy()
        captions[:, k] = (captions[:, k] + 1) % config.V
        changed = np.abs(hidden(captions, batch.annotations) - before).max(axis=(1, 2)) > 1e-9
        assert np.flatnonzero(changed).tolist() == [t for t in range(6) if k <= t < k + config.n]
    assert steps_that_see_the_photo(name, []) == [True] * 4


def test_mlbl_f_begins_as_a_language_model_that_the_photo_changes(rng):
    captioner, config = CONFIGS["log_bilinear gate"]
    params, annotations = captioner.init(config, rng), rng.uniform(3, 4, (50, L, config.D))
    captioner.prepare(params, config, corpus(annotations, config))
    photo, _, _ = log_bilinear.photo_forward(params, config, annotations)
    np.testing.assert_allclose(photo.image.mean(axis=0), 1, atol=1e-4)
    assert photo.image.std(axis=0).min() > 0.1


REGIONS, WITH_REGIONS = top_down.captioner, top_down.CHECKS["regions"]
ABSENT = np.array([[0, 0, 0, 0, 1, 1], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]], bool)


def test_an_absent_region_gets_no_weight_and_no_gradient_and_is_not_in_the_mean(xp):
    params, batch, noise = world(REGIONS, WITH_REGIONS, xp)
    _, cache = REGIONS.forward(params, WITH_REGIONS, batch, noise)
    alphas, annotations = to_host(cache.alphas), to_host(batch.annotations)
    assert not alphas[:, ABSENT].any() and (alphas[:, ~ABSENT] > 0).all()
    np.testing.assert_allclose(alphas.sum(axis=2), 1, rtol=1e-14)
    mean = np.stack([a[~absent].mean(axis=0) for a, absent in zip(annotations, ABSENT, strict=True)])
    np.testing.assert_allclose(to_host(cache.photo.v), mean, rtol=1e-14)
    _, found = gradients(REGIONS, params, WITH_REGIONS, batch, noise)
    assert not found["annotations"][ABSENT].any() and (found["annotations"][~ABSENT] != 0).all()


def test_more_absent_regions_change_neither_the_loss_nor_a_gradient():
    params, batch, noise = world(REGIONS, WITH_REGIONS)
    plain = gradients(REGIONS, params, WITH_REGIONS, batch, noise)
    more = np.insert(batch.annotations, [0, 3, 6, 6], 0, axis=1)  # in the middle too
    loss, found = gradients(REGIONS, params, WITH_REGIONS, batch._replace(annotations=more), noise)
    kept = [1, 2, 3, 5, 6, 7]
    assert not np.delete(found["annotations"], kept, axis=1).any()
    assert_equal((loss, found | {"annotations": found["annotations"][:, kept]}), plain, 1e-12)
    ours, theirs = (
        beam_search(REGIONS, params, WITH_REGIONS, x, beam=3, max_length=6) for x in (batch.annotations, more)
    )
    for a, b in zip(ours, theirs, strict=True):
        assert a.ids == b.ids and a.log_prob == pytest.approx(b.log_prob, rel=1e-12) and np.isfinite(b.log_prob)
        assert not np.delete(b.alphas, kept, axis=1).any()


def test_without_absent_regions_top_down_is_that_of_a_grid(rng):
    params, batch, noise = world(REGIONS, WITH_REGIONS)
    batch = batch._replace(annotations=rng.standard_normal(batch.annotations.shape))
    grid = replace(WITH_REGIONS, regions=False)
    ours, theirs = (gradients(REGIONS, params, config, batch, noise) for config in (WITH_REGIONS, grid))
    assert_equal(ours, theirs, 1e-13)
    some = world(REGIONS, WITH_REGIONS)[1]
    ours, theirs = (gradients(REGIONS, params, config, some, noise)[0] for config in (WITH_REGIONS, grid))
    assert abs(ours - theirs) > 1e-3


def test_a_photo_without_any_region_has_finite_numbers():
    params, batch, noise = world(REGIONS, WITH_REGIONS)
    batch.annotations[1] = 0
    with np.errstate(all="raise"):
        loss, found = gradients(REGIONS, params, WITH_REGIONS, batch, noise)
        (said, *_) = beam_search(REGIONS, params, WITH_REGIONS, batch.annotations[1:2], beam=2, max_length=4)
    assert np.isfinite(loss) and all(np.isfinite(g).all() for g in found.values()) and np.isfinite(said.log_prob)


def test_guidance_from_a_file_is_read_at_each_step_and_gets_the_sum_of_their_gradients(rng):
    captioner, config = CONFIGS["glstm file"]
    params, batch, noise = world(captioner, config)
    image, vectors = batch.annotations[:, :4], rng.standard_normal((N, config.G))
    batch = batch._replace(annotations=np.concatenate([image, glstm.guidance_rows(vectors, config.D)], axis=1))
    whole, each = gradients(captioner, params, config, batch, noise), []
    for t in range(T):
        mask = batch.mask * (np.arange(T) == t)
        _, found = gradients(captioner, params, config, batch._replace(mask=mask, weights=mask / N), noise)
        each.append(found["annotations"])
    np.testing.assert_allclose(sum(each), whole[1]["annotations"], rtol=1e-10, atol=1e-14)
    assert all(np.abs(g[:, 4:]).max() > 1e-4 for g in each)
    assert not whole[1]["annotations"][:, 4:].reshape(N, -1)[:, config.G :].any()  # zeros behind the vector
    loss, cache = captioner.forward(params, config, batch, noise)
    np.testing.assert_array_equal(cache.photo.guidance, vectors)
    np.testing.assert_allclose(cache.photo.image.v, image.mean(axis=1))
    h = 1e-6
    batch.annotations[1, 4, 2] += h  # the third number of the second photo's vector
    other, _ = captioner.forward(params, config, batch, noise)
    assert (other - loss) / h == pytest.approx(whole[1]["annotations"][1, 4, 2], rel=1e-4)


@pytest.mark.parametrize("G", [1, 4, 6, 8, 9])
def test_guidance_of_any_size_comes_out_as_it_went_in(G, rng):
    vectors, image = rng.standard_normal((N, G)), rng.standard_normal((N, 5, 4))
    config = glstm.Config(V=9, D=4, M=3, H=5, G=G, guidance="file")
    seen, guidance = glstm._split(config, np.concatenate([image, glstm.guidance_rows(vectors, 4)], axis=1))
    np.testing.assert_array_equal(guidance, vectors)
    np.testing.assert_array_equal(seen, image)


def test_lrcn_reads_the_photo_with_its_second_lstm_only():
    assert steps_that_see_the_photo("lrcn", ["U_v"]) == [False] * 4


def corpus(annotations, config, counts=None, said=None, words=()):
    """A Corpus of these photos, whose captions say nothing by default."""
    said = np.zeros((len(annotations), config.V), bool) if said is None else said
    return Corpus(annotations, said, np.ones(config.V) if counts is None else counts, words or ["<pad>"] * config.V)


@pytest.mark.parametrize("name", ["neuraltalk", "lrcn", "glstm", "m_rnn", "log_bilinear"])
def test_the_photo_is_standardised_before_the_first_step(name, rng):
    captioner, config = CONFIGS[name]
    W, b = {
        "neuraltalk": ("W_i", "b_i"), "lrcn": ("U_v", "b_2"), "glstm": ("W_q", "b_q"), "m_rnn": ("V_i", "b_m"),
        "log_bilinear": ("C_m", "b_m"),
    }[name]  # fmt: skip
    params, annotations = captioner.init(config, rng), rng.uniform(3, 4, (50, L, config.D))
    before, v = params[W].astype(float), annotations.mean(axis=1)
    captioner.prepare(params, config, corpus(annotations, config))
    np.testing.assert_allclose(v @ params[W] + params[b], (v - v.mean(axis=0)) / v.std(axis=0) @ before, atol=1e-4)


def test_neuraltalks_first_words_are_as_frequent_as_those_of_the_captions(rng):
    captioner, config = CONFIGS["neuraltalk"]
    params, counts = captioner.init(config, rng), np.array([0, 0, 5, 0, 20, 10, 3, 1, 1])
    captioner.prepare(params, config, corpus(rng.uniform(3, 4, (50, L, config.D)), config, counts))
    p = np.exp(params.b_p) / np.exp(params.b_p).sum()
    np.testing.assert_allclose(p, np.maximum(counts, 1) / 43, rtol=1e-6)


def test_show_and_tell_starts_from_a_standardised_photo(rng):
    captioner, config = CONFIGS["show_and_tell"]
    params = captioner.init(config, rng)
    W_i, annotations = params.W_i.copy(), rng.uniform(3, 4, (50, L, config.D)).astype(np.float32)
    annotations[..., 0] *= 0.1
    annotations[..., 1] = 2  # a feature that does not vary
    captioner.prepare(params, config, corpus(annotations, config))
    v = annotations.mean(axis=1)
    z = (v - v.mean(axis=0)) / np.maximum(v.std(axis=0), 1e-6)
    np.testing.assert_allclose(v @ params.W_i + params.b_i, z @ W_i, atol=2e-2)
    np.testing.assert_array_equal(params.b, [0] * 5 + [1] * 5 + [0] * 10)  # the forget gates
    changed = params.flat.copy()
    captioner.prepare(params, config, corpus(annotations[[0, 0, 0]], config))
    np.testing.assert_array_equal(params.flat, changed)  # photos that are all alike say nothing
    assert CAPTIONERS["top_down"].prepare is None


@pytest.mark.parametrize(("name", "each_step"), [("att_lstm", False), ("att_lstm each step", True)])
def test_att_lstm_reads_the_attributes_once_or_at_each_step(name, each_step):
    captioner, config = CONFIGS[name]
    params, batch, _ = world(captioner, config)
    empty, word, found = (np.zeros((N, config.H)),) * 2, np.zeros((N, 4 * config.H)), []
    for bias in (-2, -1):
        params.b_d[...] = bias  # changes V_att and nothing else
        photo, (h, _), _ = att_lstm.photo_forward(params, config, batch.annotations)
        (out,), _, _, _ = att_lstm.cell_forward(params, config, photo, word, empty)  # remembers nothing
        found.append((h, out))
    first, later = (np.abs(a - b).max() > 1e-6 for a, b in zip(*found, strict=True))
    assert first and later == each_step
    assert steps_that_see_the_photo(name, []) == [True] * T


def test_the_detector_finds_a_planted_word_and_its_loss_falls(rng):
    config = att_lstm.Config(V=9, D=5, K=3, M=3, H=4)
    words = ["<pad>", "<start>", "<end>", "<unk>", "a", "dog", "running", "cat", "runs"]
    annotations = rng.uniform(0, 1, (120, L, 5)).astype(np.float32)
    has = rng.random((120, 2)) < 0.3
    for feature in (0, 1):  # a dog has feature 0 at one location, and feature 1 is something that runs
        photos = np.flatnonzero(has[:, feature])
        annotations[photos, rng.integers(0, L, len(photos)), feature] += 3
    said = np.zeros((120, 9), bool)
    said[:, 4] = True
    said[:, 5] = has[:, 0]
    said[:60, 6], said[60:, 8] = has[:60, 1], has[60:, 1]  # one attribute
    params = att_lstm.captioner.init(config, rng)
    y = labels(said, attributes_of(words, 3), 3)
    np.testing.assert_array_equal(y, np.column_stack([has, np.zeros(120)]))
    losses = att_lstm.train_detector(params, annotations[:80], y[:80].astype(np.float32))
    assert min(losses) < 0.5 * losses[0] and losses[0] < np.log(2) * 3
    found, _ = att_lstm.attributes_forward(params, annotations[80:])
    assert ((found[:, :2] > 0.5) == has[80:]).mean() > 0.9 and found[:, 2].max() < 0.1
    captioner = att_lstm.captioner
    captioner.prepare(params, config, corpus(annotations, config, said=said, words=words))
    found, _ = att_lstm.attributes_forward(params, annotations)
    x = found @ params.W_ea + params.b_ea
    assert found.min() >= 0 and found.max() <= 1 and np.abs(x.mean(axis=0)).max() < 1e-3  # standardised
    np.testing.assert_array_equal(params.b, [0] * 4 + [1] * 4 + [0] * 8)  # the forget gates


def test_photos_whose_captions_say_nothing_prepare_too(xp, rng):
    config = CONFIGS["att_lstm"][1]
    params = att_lstm.captioner.init(config, rng)
    params = params.on(to_device(params.flat, xp))
    for photos in (1, 2, 70):
        annotations = to_device(rng.standard_normal((photos, L, 4)).astype(np.float32), xp)
        att_lstm.captioner.prepare(params, config, corpus(annotations, config))
        assert np.isfinite(to_host(params.flat)).all() and to_host(params.flat).dtype == np.float32


@pytest.mark.parametrize("of_one", [
    "run runs running ran", "dog dogs", "ride rides riding", "man men", "horse horses", "dress dresses", "watch watches",
    "baby babies", "fall falls falling", "play plays playing played", "carry carries carried", "tree trees",
])  # fmt: skip
def test_tense_and_number_are_merged(of_one):
    assert len({root(word) for word in of_one.split()}) == 1


def test_different_words_stay_different_attributes():
    words = "red bed ring king string grass gras bus dress tennis speed spring sit site cat car water white".split()
    words.remove("gras"), words.remove("site")
    assert len({root(word) for word in words}) == len(words)
    vocabulary = ["<pad>", "<start>", "<end>", "<unk>", "a", "dog", "is", "runs", "dogs", "in", "cat", "run", "2", "'s"]
    assert list(attributes_of(vocabulary, 9)) == [-1] * 5 + [0, -1, 1, 0, -1, 2, 1, -1, -1]
    assert list(attributes_of(vocabulary, 2)) == [-1] * 5 + [0, -1, 1, 0, -1, -1, 1, -1, -1]  # the commonest two


@pytest.mark.slow
def test_a_captioner_is_prepared_once(folder, monkeypatch):
    asked, vocabulary, prepare = [], [], show_and_tell.prepare

    def noted(p, config, corpus):
        asked.append((len(corpus.annotations), corpus.counts.sum(), {tuple(np.flatnonzero(words)) for words in corpus.said}))
        vocabulary.append(Vocabulary(corpus.words))
        prepare(p, config, corpus)

    monkeypatch.setattr(show_and_tell, "prepare", noted)
    train = f"train --data flickr8k --root {folder / 'data'} --captioner show_and_tell --config {folder / 'tiny.toml'}"
    assert main(f"{train} --epochs 1 --out {folder / 'run'}".split()) == 0
    split = load_split("flickr8k", "train", folder / "data", 0, None)
    words = sum(len(caption) + 1 for captions in split.captions for caption in captions)
    said = {tuple(sorted({i for c in captions for i in vocabulary[0].encode(c)[1:]})) for captions in split.captions}
    assert asked == [(len(split.names), words, said)] and len(said) > 1
    assert main(f"{train} --epochs 1 --out {folder / 'run'} --resume".split()) == 0
    assert main(f"{train} --epochs 1 --init {folder / 'run/best.npz'} --out {folder / 'more'}".split()) == 0
    assert len(asked) == 1
    assert main(f"train --data flickr8k --root {folder / 'data'} --captioner top_down --config {folder / 'tiny.toml'} "
                f"--epochs 1 --out {folder / 'other'}".split()) == 0
    assert main(f"{train} --epochs 1 --init {folder / 'other/best.npz'} --out {folder / 'new'}".split()) == 0
    assert len(asked) == 2  # only the encoder was trained


@pytest.mark.parametrize("name", FAMILY)
def test_a_config_refuses_sizes_and_rates_that_make_no_sense(name):
    Config = CAPTIONERS[name].Config
    for wrong, said in (({"M": 0}, "M is 0; choose 1 to"), ({"dropout": 1.0}, "dropout is 1.0; choose a rate")):
        with pytest.raises(InputError, match=said):
            Config(V=5, **wrong)
    if name == "glstm":
        with pytest.raises(InputError, match="guidance is 'text'; choose image or file"):
            Config(V=5, guidance="text")
    if name == "log_bilinear":
        with pytest.raises(InputError, match="image is 'word'; choose bias or gate"):
            Config(V=5, image="word")
    if name == "top_down":
        with pytest.raises(InputError, match="penalty is -1.0; choose 0 or more"):
            Config(V=5, penalty=-1.0)


def test_recurrent_matrices_begin_orthogonal_and_biases_at_zero(rng):
    for captioner, config in CONFIGS.values():
        params = captioner.init(config, rng)
        for name in getattr(captioner.pairs, "ORTHOGONAL", ("W_h",)):
            for block in np.split(params[name], params[name].shape[1] // config.H, axis=1):
                np.testing.assert_allclose(block.T @ block, np.eye(config.H), atol=1e-6)
        assert not params.b_p.any() and params.E.std() == pytest.approx(config.M**-0.5, rel=0.4)


@pytest.fixture
def folder(encoders, tmp_path, monkeypatch):
    """Rendered scenes in Flickr8k's layout, and a recipe of seconds; the toy is one of the captioners."""
    monkeypatch.setitem(CAPTIONERS, "toy", toy.captioner)
    write_flickr8k(tmp_path / "data")
    (tmp_path / "tiny.toml").write_text(
        'encoder = "small"\n[config]\nM = 8\nH = 12\ndropout = 0.1\n[recipe]\nepochs = 2\nbatch_size = 8\nmin_count = 1\n'
        "mirror = false\n"
    )
    return tmp_path


NAMES = ["toy", *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILY)]


@pytest.mark.parametrize("name", NAMES)
def test_a_captioner_is_trained_resumed_decoded_evaluated_and_drawn_by_its_name(folder, name, capsys):
    assert isinstance(CAPTIONERS[name], Recurrent)
    if "H" not in {field.name for field in fields(CAPTIONERS[name].Config)}:
        (folder / "tiny.toml").write_text((folder / "tiny.toml").read_text().replace("H = 12\n", ""))
    data = f"--data flickr8k --root {folder / 'data'}"
    train = f"train {data} --captioner {name} --config {folder / 'tiny.toml'} --out {folder / 'run'}".split()
    assert main(train) == 0
    assert (folder / "run/curves.png").is_file()
    assert (folder / "run/diagnostics.png").is_file() == (name in ATTEND)
    assert main([*train, "--resume"]) == 0
    other = "toy" if name != "toy" else "top_down"
    capsys.readouterr()
    assert main([*train, "--resume", "--captioner", other]) == 2
    assert "captioner" in capsys.readouterr().err
    checkpoint, photos = folder / "run/best.npz", sorted((folder / "data/Flicker8k_Dataset").glob("test-*.jpg"))[:2]
    files = f"--figures {folder / 'figures'} --json {folder / 'c.json'}"
    assert main(f"caption {checkpoint} {photos[0]} {photos[1]} --beam 3 {files}".split()) == 0
    rows = json.loads((folder / "c.json").read_text())
    assert all((row["alpha"] is None) == (name not in ATTEND) for row in rows) and len(rows) == 2
    kinds = {"sca_cnn": (".png", ".channels.png"), "adaptive": (".png", ".visual.png")}.get(name, (".png",))
    assert {p.name for p in (folder / "figures").iterdir()} == {p.stem + kind for p in photos for kind in kinds}
    assert main(f"evaluate {checkpoint} {data} --split test --json {folder / 's.json'}".split()) == 0
    assert "CIDEr" in json.loads((folder / "s.json").read_text())
    model = load(checkpoint)
    assert model.captioner == name and str(model.caption(str(photos[0]), beam=3)) == rows[0]["caption"]


def test_a_training_starts_from_the_encoder_of_another_captioners(folder, capsys):
    data = f"--data flickr8k --root {folder / 'data'} --config {folder / 'tiny.toml'}"
    assert main(f"train {data} --captioner toy --epochs 1 --out {folder / 'toy'}".split()) == 0
    toys, split = load(folder / "toy/best.npz"), load_split("flickr8k", "train", folder / "data", 0, None)
    model = new_model(find_preset("flickr8k", "top_down", path=folder / "tiny.toml"), split)
    decoder = model.params.part("decoder").flat.copy()
    _start_from(model, folder / "toy/best.npz")
    np.testing.assert_array_equal(model.params.part("encoder").flat, toys.params.part("encoder").flat)
    np.testing.assert_array_equal(model.params.part("decoder").flat, decoder)
    (folder / "wide.toml").write_text((folder / "tiny.toml").read_text().replace("H = 12", "H = 13"))
    wide = f"train {data.replace('tiny', 'wide')} --captioner toy --init {folder / 'toy/best.npz'} --out {folder / 'wide'}"
    capsys.readouterr()
    assert main(wide.split()) == 2
    assert "has other sizes than this training" in capsys.readouterr().err


def test_the_toy_is_gradient_checked_with_no_other_change(monkeypatch):
    assert len(open(toy.__file__).read().splitlines()) <= 60
    before = {case.name for case in checks.cases()}
    monkeypatch.setitem(CAPTIONERS, "toy", toy.captioner)
    cases = [case for case in checks.cases() if case.name not in before]
    assert [case.name for case in cases] == ["captioners/toy", "captioners/toy own words direction"]
    assert all(check_gradients(case).passed for case in cases)


def test_attention_is_chosen_for_show_attend_tell_alone(folder, capsys):
    line = f"train --data flickr8k --root {folder / 'data'} --captioner top_down --attention hard --out {folder / 'run'}"
    assert main(line.split()) == 2
    assert "--attention" in capsys.readouterr().err and not (folder / "run/last.npz").exists()
