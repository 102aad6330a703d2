"""Decoding against its definitions: enumeration, a plain beam search, greedy by hand, and teacher forcing."""

import json
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from satnp.arrays import shares, threads
from satnp.arrays.backend import to_device, to_host, xp_of
from satnp.arrays.parameters import Parameters
from satnp.captioners import show_attend_tell as sat
from satnp.captioners.contract import Batch
from satnp.data.captions import END, START, UNK, pad, tokenise
from satnp.data.scenes import make_scenes
from satnp.data.split import Split
from satnp.decoding import LENGTH_SCORES, NEVER, LengthScore, beam_search, best_words, may_say, sample, unsaid
from satnp.errors import InputError
from satnp.layers import log_softmax
from satnp.model import Model
from satnp.training.presets import PRESETS, new_model
from satnp.training.trainer import Recipe

CONFIG = sat.Config(V=7, D=5, M=4, H=6, A=3, dropout=0)
WORDS = [word for word in range(CONFIG.V) if word not in (*NEVER, END)]
N, L = 6, 4


@pytest.fixture
def params(rng):
    """Weights large enough that the next word depends on the photo and on the words before it; float64, on the host."""
    p = sat.init(CONFIG, rng)
    return p.on(3 * p.flat.astype(np.float64))


@pytest.fixture
def annotations(rng):
    return rng.standard_normal((N, L, CONFIG.D))


def on(xp, params, annotations, config=CONFIG):
    """The four first arguments of a decoder."""
    p = Parameters(sat.shapes(config), flat=to_device(params.flat, xp))
    return sat, p, config, to_device(annotations, xp)


def batch_of(annotation, ids, min_length=1):
    """One caption, a list of ids with no <start>, whose words have the probabilities of decoding."""
    ids, mask = pad([[START, *ids]])
    never, late = unsaid(CONFIG.V, min_length)
    return Batch(annotation[None], ids, mask.astype(np.float64), never=never, late=late)


def log_probs(params, annotation, captions, min_length=1):
    """log p(caption | photo) by teacher forcing, in float64: lists of ids with no <start> -> array of nats."""
    nats = []
    for ids in captions:
        batch = batch_of(annotation, ids, min_length)
        loss, cache = sat.forward(params, CONFIG, batch, sat.Noise())
        nats.append(-float(cache.nll))
    return np.array(nats)


def all_captions(max_length, min_length=1):
    """Every caption that can be said: ended by <end> after `min_length` words or more, or cut at `max_length` words."""
    ended = [[*words, END] for T in range(min_length, max_length) for words in product(WORDS, repeat=T)]
    return ended + [list(words) for words in product(WORDS, repeat=max_length)]


def scores_of(params, annotation, captions, known):
    """Their log_probs, each scored once: `known` {caption: its own}."""
    new = [ids for ids in captions if tuple(ids) not in known]
    known.update(zip(map(tuple, new), log_probs(params, annotation, new), strict=True))
    return np.array([known[tuple(ids)] for ids in captions])


def plain_beam_search(params, annotation, beam, max_length, divisor, known):
    """One photo, lists only, every prefix scored from its start; each caption that ends leaves its place empty.

    -> [(log p / f(T), ids)], best first
    """
    unfinished, finished = [[]], []
    for t in range(1, max_length + 1):
        longer = [[*ids, word] for ids in unfinished for word in (END, *WORDS)[t == 1 :]]
        scores = scores_of(params, annotation, longer, known)
        best = [(scores[k], longer[k]) for k in np.argsort(-scores)[: beam - len(finished)]]
        ends = [(score, ids) for score, ids in best if ids[-1] == END or t == max_length]
        finished += [(score / divisor(t), ids) for score, ids in ends]
        unfinished = [ids for _, ids in best if ids[-1] != END]
        if not unfinished:
            break
    return sorted(finished, reverse=True)


@pytest.mark.parametrize("min_length", [0, 1, 2])
def test_a_large_beam_finds_the_most_probable_caption(xp, params, annotations, min_length):
    params.b_o[END] += 4  # the most probable caption is short
    captions = all_captions(3, min_length)
    found = beam_search(*on(xp, params, annotations), beam=len(captions), max_length=3, min_length=min_length)
    assert min(len(decoded.ids) - (decoded.ids[-1] == END) for decoded in found) == min_length
    for annotation, decoded in zip(annotations, found, strict=True):
        nats = log_probs(params, annotation, captions, min_length)
        assert decoded.ids == captions[nats.argmax()]
        assert decoded.log_prob == pytest.approx(nats.max(), abs=1e-9)


@pytest.mark.parametrize("min_length", [0, 1, 2, 3])
def test_the_captions_that_can_be_said_have_all_probability(params, annotations, min_length):
    nats = log_probs(params, annotations[0], all_captions(3, min_length), min_length)
    assert np.exp(nats).sum() == pytest.approx(1, abs=1e-12)


@pytest.fixture(scope="module")
def scored():
    """{parameters and photo: {caption: its log-probability}}: searches of other beams meet the same captions."""
    return {}


# f(T) of Jia et al. 2015, once more, with the spread of lengths (mu, sigma) that belongs to it
DIVISORS = {
    "plain": (LengthScore(), lambda T: 1),
    "power .7": (LengthScore(power=0.7, mu=3, sigma=1), lambda T: T**0.7),
    "power 1": (LengthScore(power=1.0), lambda T: T),
    "min_hinge": (LengthScore("min_hinge", mu=2.5), lambda T: T if T < 2.5 else 2.5),
    "max_hinge": (LengthScore("max_hinge", mu=2.5), lambda T: T if T > 2.5 else 2.5),
    "gaussian": (LengthScore("gaussian", mu=2.6, sigma=0.8), lambda T: np.exp(-((T - 2.6) ** 2) / 1.28)),
    "gaussian, long": (LengthScore("gaussian", mu=8.0, sigma=2.5), lambda T: np.exp(-((T - 8) ** 2) / 12.5)),
}


@pytest.mark.parametrize("length_score, divisor", DIVISORS.values(), ids=DIVISORS)
@pytest.mark.parametrize("beam", [2, 3, 5])
def test_beams_are_those_of_the_plain_search(params, rng, scored, beam, length_score, divisor):
    annotations = rng.standard_normal((30, L, CONFIG.D))
    found = beam_search(sat, params, CONFIG, annotations, beam, max_length=6, length_score=length_score)
    for annotation, decoded in zip(annotations, found, strict=True):
        known = scored.setdefault(params.flat.tobytes() + annotation.tobytes(), {})
        assert decoded.ids == plain_beam_search(params, annotation, beam, 6, divisor, known)[0][1]


@pytest.mark.parametrize("name", ["plain", "power 1", "gaussian"])
@pytest.mark.parametrize("beam", [1, 5])
def test_every_caption_of_the_beam_is_found_in_the_order_of_the_plain_search(xp, params, annotations, scored, beam, name):
    length_score, divisor = DIVISORS[name]
    how = {"beam": beam, "max_length": 6, "length_score": length_score}
    found = beam_search(*on(xp, params, annotations), **how, every=True)
    for n, captions in enumerate(found):
        known = scored.setdefault(params.flat.tobytes() + annotations[n].tobytes(), {})
        wanted = plain_beam_search(params, annotations[n], beam, 6, divisor, known)
        assert [decoded.ids for decoded in captions] == [ids for _, ids in wanted] and len(captions) == beam
        ranks = [decoded.log_prob / divisor(len(decoded.ids)) for decoded in captions]
        assert ranks == pytest.approx([rank for rank, _ in wanted], abs=1e-9)
        assert all(len(decoded.alphas) == len(decoded.ids) for decoded in captions)
        (best,) = beam_search(*on(xp, params, annotations[n : n + 1]), **how)
        ((same, *_),) = beam_search(*on(xp, params, annotations[n : n + 1]), **how, every=True)
        assert best.ids == same.ids and best.log_prob == same.log_prob  # to the last digit
        np.testing.assert_array_equal(best.alphas, same.alphas)


@pytest.mark.parametrize("gate", sat.CHOICES["gate"])
@pytest.mark.parametrize("looking", ["soft", "expectation", "argmax"])
def test_the_gates_are_those_that_decoding_used(xp, params, annotations, rng, gate, looking):
    config = replace(CONFIG, gate=gate)
    config = config if looking == "soft" else replace(config, attention="hard", decoding=looking)
    p = sat.init(config, rng)
    p = p.on(3 * p.flat.astype(np.float64))
    decoder = on(xp, p, annotations[:1], config)
    words = [np.array([START]), np.array([4]), np.array([5])]  # before each word
    state, wanted = decoder[0].start(*decoder[1:]), []
    for before in words:
        h = to_host(state.captions[0])
        wanted.append((1 / (1 + np.exp(-(h @ p.W_beta + p.b_beta)))).mean())
        _, state, _ = decoder[0].step(*decoder[1:3], state, before, np.array([0]))
    ids, mask = pad([[START, 4, 5, END], [START, 5, END]])
    batch = Batch(*(to_device(x, xp) for x in (np.repeat(annotations[:1], 2, axis=0), ids, mask.astype(float))))
    gates = to_host(sat.gates(decoder[1], config, batch))
    np.testing.assert_allclose(gates[:, 0], wanted, rtol=1e-9)
    assert gates[0, 1] == pytest.approx(wanted[0], rel=1e-9) and len(gates) == 3


def test_beam_1_is_greedy(xp, params, annotations):
    found = beam_search(*on(xp, params, annotations), beam=1, max_length=8)
    assert len({len(decoded.ids) for decoded in found}) > 1
    for annotation, decoded in zip(annotations, found, strict=True):
        state, ids, total = sat.start(params, CONFIG, annotation[None]), [], 0
        while len(ids) < 8 and END not in ids:
            last = ids[-1] if ids else START
            log_p, state, alpha = sat.step(params, CONFIG, state, [last], [0])
            said = WORDS if last == START else [END, *WORDS]
            ids.append(max(said, key=lambda word: log_p[0, word]))
            total += log_p[0, ids[-1]] - np.log(np.exp(log_p[0, said]).sum())
            np.testing.assert_allclose(decoded.alphas[len(ids) - 1], alpha[0], rtol=1e-9)
        assert decoded.ids == ids
        assert decoded.log_prob == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("beam", [1, 3])
def test_a_batch_is_its_photos_one_at_a_time(xp, params, annotations, beam):
    score = LengthScore(power=0.5)
    together = beam_search(*on(xp, params, annotations), beam, max_length=8, length_score=score)
    for n, decoded in enumerate(together):
        (alone,) = beam_search(*on(xp, params, annotations[n : n + 1]), beam, max_length=8, length_score=score)
        assert decoded.ids == alone.ids
        assert decoded.log_prob == pytest.approx(alone.log_prob, abs=1e-9)
        np.testing.assert_allclose(decoded.alphas, alone.alphas, rtol=1e-9)


@pytest.mark.parametrize("looking", ["soft", *sat.CHOICES["decoding"]])
@pytest.mark.parametrize("decode", [beam_search, sample])
def test_scores_and_looks_are_those_of_teacher_forcing(xp, params, rng, decode, looking):
    config = CONFIG if looking == "soft" else replace(CONFIG, attention="hard", decoding=looking)
    annotations = rng.standard_normal((20, L, CONFIG.D))
    found = decode(*on(xp, params, annotations, config), rng=np.random.default_rng(3), max_length=5)
    assert len({len(decoded.ids) for decoded in found}) > 2
    gumbel = sat.decoding_noise(config, 20, L, 5, np.random.default_rng(3))  # what `decode` drew first
    for n, decoded in enumerate(found):
        assert END not in decoded.ids[:-1]
        noise = sat.Noise()
        if gumbel is not None:
            noise = noise._replace(gumbel=gumbel[n, : len(decoded.ids), None], expected=np.zeros(1))
        _, cache = sat.forward(params, config, batch_of(annotations[n], decoded.ids), noise)
        assert isinstance(decoded.log_prob, float)
        assert decoded.log_prob == pytest.approx(-float(cache.nll), abs=1e-9)
        np.testing.assert_allclose(decoded.alphas, cache.looks[:, 0], rtol=1e-9)
        assert (set(decoded.alphas.ravel()) == {0, 1}) == (looking in ("argmax", "sampling"))
        if looking != "sampling":
            np.testing.assert_array_equal(decoded.alphas.argmax(axis=1), cache.alphas[:, 0].argmax(axis=1))


def test_drawn_locations_are_reproducible_and_differ(xp, params, annotations):
    config = replace(CONFIG, attention="hard", decoding="sampling")
    annotations = np.repeat(annotations[:1], 20, axis=0)
    first, again, other = (
        beam_search(*on(xp, params, annotations, config), rng=np.random.default_rng(seed), max_length=6)
        for seed in (3, 3, 4)
    )
    for a, b in zip(first, again, strict=True):
        assert a.ids == b.ids
        np.testing.assert_array_equal(a.alphas, b.alphas)
    paths = [[str(decoded.alphas.argmax(axis=1)) for decoded in found] for found in (first, other)]
    assert paths[0] != paths[1] and len(set(paths[0])) > 1  # of one photo, twenty times


def test_beams_on_all_cores_are_those_on_one(params, rng, monkeypatch):
    annotations = rng.standard_normal((19, L, CONFIG.D))
    config = replace(CONFIG, attention="hard", decoding="sampling")
    found = {}
    monkeypatch.setattr(shares, "LEAST", 1)
    for cores in (1, 2):
        monkeypatch.setattr(threads, "cores", lambda cores=cores: cores)
        threads._pool.cache_clear()
        found[cores] = beam_search(sat, params, config, annotations, rng=np.random.default_rng(0), max_length=6)
    threads._pool.cache_clear()
    for one, two in zip(*found.values(), strict=True):
        assert one.ids == two.ids and one.log_prob == pytest.approx(two.log_prob, rel=1e-12)
        np.testing.assert_allclose(one.alphas, two.alphas)


@pytest.mark.parametrize("k", [1, 3, 70, 300])
def test_the_best_words_are_those_of_a_sort(rng, k):
    log_p = rng.integers(-40, 0, (5, 250)).astype(np.float32)  # with words of the same probability: the first goes first
    log_p[1, 7:] = log_p[2] = -np.inf
    photos, total, places = np.array([0, 0, 1, 2, 2]), rng.integers(-9, 0, 5) / 4, np.array([k, k, max(1, k - 2)])
    rows, words, scores = best_words(log_p, total, photos, places)
    scored = total[:, None] + log_p
    wanted = []
    for n in range(3):
        of = [(-scored[r, w], r, w) for r in np.flatnonzero(photos == n) for w in range(250) if np.isfinite(scored[r, w])]
        wanted += sorted(of)[: places[n]]
    assert list(zip(-scores, rows, words, strict=True)) == wanted


def test_a_search_that_is_decided_stops(params, annotations):
    params.b_o[END] = 100
    steps = []
    counting = SimpleNamespace(**vars(sat) | {"step": lambda *arguments: steps.append(1) or sat.step(*arguments)})
    for min_length, wanted in ((0, 1), (1, 2), (4, 5)):
        steps.clear()
        beam_search(counting, params, CONFIG, annotations, beam=3, min_length=min_length)
        assert len(steps) == wanted


@pytest.mark.parametrize("bias", [-1e4, -np.inf])
@pytest.mark.parametrize("beam", [1, 3, 50])
def test_when_no_caption_ends_the_best_is_cut(xp, params, annotations, rng, beam, bias):
    params.b_o[END] = bias
    for decoded in beam_search(*on(xp, params, annotations), beam, max_length=4, length_score=LengthScore(power=1)):
        assert len(decoded.ids) == 4 and END not in decoded.ids
        assert np.isfinite(decoded.log_prob) and decoded.alphas.shape == (4, L)
    for decoded in sample(*on(xp, params, annotations), rng, max_length=4):
        assert len(decoded.ids) == 4 and END not in decoded.ids


@pytest.mark.parametrize("beam", [1, CONFIG.V + 5])
def test_one_word_at_most(xp, params, annotations, rng, beam):
    for decoded in beam_search(*on(xp, params, annotations), beam, max_length=1):
        assert len(decoded.ids) == 1 and decoded.alphas.shape == (1, L)
    assert [len(decoded.ids) for decoded in sample(*on(xp, params, annotations), rng, max_length=1)] == [1] * N


def test_some_words_are_never_said(xp, params, annotations, rng):
    params.b_o[list(NEVER)] = 100  # what the model wants most
    found = beam_search(*on(xp, params, annotations), beam=40, max_length=4)
    found += sample(*on(xp, params, annotations), rng, max_length=4)
    assert not any(set(decoded.ids) & set(NEVER) for decoded in found)
    assert all(np.isfinite(decoded.log_prob) for decoded in found)


@pytest.mark.parametrize("min_length", [0, 1, 3])
def test_no_caption_ends_before_its_time(xp, params, annotations, rng, min_length):
    params.b_o[END] = 100  # what the model wants most
    for beam in (1, 3):
        found = beam_search(*on(xp, params, annotations), beam, min_length=min_length)
        found += sample(*on(xp, params, annotations), rng, min_length=min_length)
        assert [len(decoded.ids) for decoded in found] == [min_length + 1] * 2 * N
        assert all(decoded.ids[-1] == END and np.isfinite(decoded.log_prob) for decoded in found)


def test_a_vocabulary_without_words_says_nothing(xp, rng):
    config = replace(CONFIG, V=4)
    params, annotations = sat.init(config, rng), rng.standard_normal((N, L, CONFIG.D)).astype(np.float32)
    found = beam_search(*on(xp, params, annotations, config)) + sample(*on(xp, params, annotations, config), rng)
    assert [decoded.ids for decoded in found] == [[END]] * 2 * N
    assert [decoded.log_prob for decoded in found] == [0.0] * 2 * N


def test_what_may_be_said_has_all_probability(rng):
    log_p = np.log(rng.dirichlet(np.ones(8), 3))
    for t, min_length, may_end in ((0, 1, False), (1, 1, True), (0, 0, True), (2, 3, False)):
        words = [END, 4, 5, 6, 7] if may_end else [4, 5, 6, 7]
        wanted = np.zeros((3, 8))
        wanted[:, words] = np.exp(log_p[:, words]) / np.exp(log_p[:, words]).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(np.exp(may_say(log_p.copy(), t, min_length)), wanted, rtol=1e-12)


@pytest.mark.parametrize("dtype, error", [(np.float32, 1e-6), (np.float64, 1e-14)])
def test_what_may_be_said_is_exact_even_if_it_is_improbable(rng, dtype, error):
    """Words that are never said have up to all probability but 1e-30; the others are as in a softmax without them."""
    logits = rng.standard_normal((6, 9))
    logits[:, UNK] += [-50, 0, 1, 2, 20, 70]
    for t in (0, 1):
        said = [word for word in range(9) if word not in NEVER and (t or word != END)]
        x = logits[:, said]
        wanted = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
        for rows in (slice(0, 2), slice(0, 6)):  # subtracts log(1 - p), or needs a softmax
            found = may_say(log_softmax(logits[rows]).astype(dtype), t)
            scale = np.abs(log_softmax(logits[rows])[:, said]).max()
            np.testing.assert_allclose(found[:, said], wanted[rows], atol=error * scale)


def test_a_large_beam_finds_the_caption_that_ranks_first(params, rng, scored):
    params.b_o[END] += 2  # the most probable captions are short
    captions = all_captions(4)
    annotations = rng.standard_normal((20, L, CONFIG.D))
    lengths, said = np.array([len(ids) for ids in captions]), {}
    for name, (length_score, divisor) in DIVISORS.items():
        found = beam_search(sat, params, CONFIG, annotations, len(captions), max_length=4, length_score=length_score)
        divisors = np.array([divisor(T) for T in lengths])
        for annotation, decoded in zip(annotations, found, strict=True):
            nats = scores_of(
                params, annotation, captions, scored.setdefault(params.flat.tobytes() + annotation.tobytes(), {})
            )  # fmt: skip
            best = (nats / divisors).argmax()
            assert decoded.ids == captions[best], name
            assert decoded.log_prob == pytest.approx(nats[best], abs=1e-9)  # the probability itself, not the rank
        said[name] = [len(decoded.ids) for decoded in found]
    assert len({str(T) for T in said.values()}) == len(DIVISORS)  # each score prefers other captions
    assert sum(said["power 1"]) > sum(said["plain"]) and np.std(said["gaussian"]) < np.std(said["plain"])


def test_a_gaussian_far_from_every_length_finds_a_caption(params, annotations):
    score = LengthScore("gaussian", mu=500.0, sigma=0.1)
    found = beam_search(sat, params, CONFIG, annotations, max_length=4, length_score=score)
    for decoded, plain in zip(found, beam_search(sat, params, CONFIG, annotations, max_length=4), strict=True):
        assert decoded.ids == plain.ids


def scenes_model(**recipe):
    """A new model for four scenes, and the split."""
    drawn = make_scenes(4, "train", 0)
    captions = [[tokenise(caption) for caption in scene.captions] for scene in drawn]
    split = Split([scene.name for scene in drawn], captions, [scene.image for scene in drawn])
    preset = replace(PRESETS["scenes"], config={"M": 8, "H": 12, "A": 6})
    return new_model(replace(preset, recipe=replace(preset.recipe, **recipe)), split), split


def test_a_model_knows_the_lengths_of_its_training_captions_and_a_checkpoint_keeps_them():
    model, split = scenes_model(length_score="gaussian", length_power=0.5)
    lengths = [len(model.vocabulary.encode(caption)) - 1 for captions in split.captions for caption in captions]
    assert model.length_score == LengthScore("gaussian", 0.5, np.mean(lengths), np.std(lengths))
    header = json.loads(json.dumps(model.header()))
    assert Model.from_header(header).length_score == model.length_score


def test_a_header_of_an_older_version_has_a_length_power():
    model, _ = scenes_model()
    header = model.header()
    del header["length_score"]
    assert Model.from_header(header | {"length_power": 0.7}).length_score == LengthScore(power=0.7)


@pytest.mark.parametrize("wrong, says", [
    ({"kind": "mean"}, "length_score is 'mean'; choose polynomial, min_hinge, max_hinge or gaussian"),
    ({"power": -1}, "length_power is -1; choose 0 to 100"),
    ({"mu": float("nan")}, "mu of the lengths is nan"),
    ({"sigma": -1.0}, "sigma of the lengths is -1.0"),
    ({"kind": "min_hinge"}, "length_score is min_hinge with mu 0.0 .* so choose polynomial"),
    ({"kind": "max_hinge"}, "length_score is max_hinge with mu 0.0 .* so choose polynomial"),
    ({"kind": "gaussian", "mu": 9.0}, "gaussian with mu 9.0 and sigma 0.0; .* so choose polynomial"),
])  # fmt: skip
def test_a_length_score_that_makes_no_sense_is_refused(wrong, says):
    with pytest.raises(InputError, match=says):
        LengthScore(**wrong)


@pytest.mark.parametrize("wrong", [{"length_score": "mean"}, {"length_power": -1.0}, {"length_power": float("nan")}])
def test_a_recipe_refuses_a_wrong_length_score(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Recipe(**wrong)


def test_every_length_score_is_tested():
    assert {score.kind for score, _ in DIVISORS.values()} == set(LENGTH_SCORES)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_sampling_has_the_frequencies_of_the_model(xp, params, annotations, temperature):
    S, max_length = 4000, 2
    captions = all_captions(max_length)
    drawn = sample(
        *on(xp, params, np.repeat(annotations[:1], S, axis=0)), np.random.default_rng(1), max_length, temperature
    )  # fmt: skip

    def log_p(ids):
        """Word by word, among the words that can be said, at this temperature."""
        state, total, last = sat.start(params, CONFIG, annotations[:1]), 0, START
        for word in ids:
            all_words, state, _ = sat.step(params, CONFIG, state, [last], [0])
            scaled = all_words[0, WORDS if last == START else [END, *WORDS]] / temperature
            total += all_words[0, word] / temperature - np.log(np.exp(scaled).sum())
            last = word
        return total

    expected = S * np.exp([log_p(ids) for ids in captions])
    counts = np.array([sum(decoded.ids == ids for decoded in drawn) for ids in captions])
    assert expected.sum() == pytest.approx(S) and counts.sum() == S
    common = expected >= 5
    chi2 = ((counts - expected)[common] ** 2 / expected[common]).sum()
    freedom = common.sum()
    assert freedom > 5
    assert chi2 < freedom + 4 * np.sqrt(2 * freedom)


def test_sampling_is_reproducible(xp, params, annotations):
    first, again, other = (
        sample(*on(xp, params, annotations), np.random.default_rng(seed), max_length=8) for seed in (3, 3, 4)
    )
    assert [d.ids for d in first] == [d.ids for d in again]
    assert [d.log_prob for d in first] == [d.log_prob for d in again]
    assert [d.ids for d in first] != [d.ids for d in other]


@pytest.mark.parametrize("wrong", [{"beam": 0}, {"max_length": 0}, {"min_length": -1}, {"min_length": 41}])
def test_beam_search_refuses_what_makes_no_sense(params, annotations, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        beam_search(sat, params, CONFIG, annotations, **wrong)


@pytest.mark.parametrize("wrong", [{"temperature": 0}, {"max_length": 0}, {"min_length": -1}, {"min_length": 41}])
def test_sampling_refuses_what_makes_no_sense(params, annotations, rng, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        sample(sat, params, CONFIG, annotations, rng, **wrong)


def test_a_model_captions_a_photo_alike_on_every_device(xp, rng):
    model, split = scenes_model()
    images = split.photos
    model.params = model.params.on(2 * model.params.flat.astype(np.float64))
    device = model.on(xp)
    assert xp_of(device.params.flat) is xp
    for photo in (*images, rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)):
        here, there = model.caption(photo, beam=3), device.caption(photo, beam=3)
        assert isinstance(there.alpha, np.ndarray) and isinstance(there.log_prob, float)
        assert there.words == here.words and there.log_prob == pytest.approx(here.log_prob, abs=1e-9)
        np.testing.assert_allclose(there.alpha, here.alpha, rtol=1e-6)
    assert len({str(model.caption(photo)) for photo in images}) > 1
