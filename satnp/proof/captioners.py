"""Gradient checks of the captioners, alone and behind an encoder, and the mistakes that they must catch."""

import numpy as np

from satnp.arrays.backend import xp_of
from satnp.captioners import (
    CAPTIONERS,
    adaptive,
    att_lstm,
    f_att,
    glstm,
    locations,
    log_bilinear,
    lrcn,
    m_rnn,
    neural_baby_talk,
    neuraltalk,
    recurrent,
    s2vt,
    sca_cnn,
    show_and_tell,
    top_down,
)
from satnp.captioners import show_attend_tell as sat
from satnp.captioners.contract import Batch
from satnp.encoders import ENCODERS, small
from satnp.encoders.photos import Preprocessing
from satnp.estimators import choices
from satnp.proof.cases import pack, random_weights, sampled_log_p, unpack
from satnp.proof.encoders import VGG
from satnp.proof.gradcheck import Case, Draws
from satnp.proof.planting import Bug

NOISE = tuple(f"noise_{n}" for n in ("words", "state", "out", "hidden", "gumbel", "expected", "baseline"))
N, T, L = 3, 4, 7


def _words(captioner, config, rng, own_words=False):
    """{name: array} of captions, some padded, and of the noise; with `own_words` also Batch.weights, of both signs, and
    Batch.given. (With Batch.given, _loss smooths the labels too.)"""
    mask = np.ones((N, T))
    mask[1, 3:], mask[2, 2:] = 0, 0
    batch = {"captions": rng.integers(0, config.V, (N, T + 1)), "mask": mask}
    noise = captioner.draw_noise(config, T, N, L, rng)._asdict()
    if getattr(config, "hard", False):
        expected = noise["expected"] if config.coin == "none" else np.array([0, 1, 0])
        noise |= {"expected": expected, "baseline": np.array(-3.0)}
    if own_words:
        batch |= {"weights": rng.standard_normal((N, T)) * mask, "given": rng.integers(0, config.V, (N, T))}
    return batch | {f"noise_{n}": x.astype(float) for n, x in noise.items() if x is not None}


def _loss(captioner, config, decoder, annotations, words):
    """-> loss, cache of the captioner on `words`, the arrays from _words"""
    noise = {n.removeprefix("noise_"): x for n, x in words.items() if n.startswith("noise_")}
    batch = Batch(annotations, **{n: x for n, x in words.items() if not n.startswith("noise_")})
    batch = batch._replace(smoothing=0 if batch.given is None else 0.1)
    return captioner.forward(decoder, config, batch, captioner.Noise(**noise))


def surrogate(loss, cache):
    """The function whose gradient hard attention's backward computes, for fixed sampled locations and rewards.

    It is the loss, minus lambda_r (r - b) log p(s), and for local_expectation minus the expectation of each word's log p
    over its own step's location. With Batch.weights it is the loss, minus the weighted log p(s).
    """
    config, hard = cache.config, getattr(cache, "hard", None)
    if hard is None or config.estimator == "gumbel_st":
        return loss
    xp = xp_of(hard.alphas)
    if hard.weights is not None:
        return loss - (hard.weights * (1 - hard.expected) * sampled_log_p(hard.scores, hard.looks)).sum()
    weight = config.reward_weight * hard.mask * (1 - hard.expected) / len(hard.expected)
    term = (xp.real(choices.advantage(config, hard)) * weight * sampled_log_p(hard.scores, hard.looks)).sum()
    if config.estimator == "local_expectation":
        share = 1 / hard.mask.sum(axis=0) if config.reward == "mean" else 1
        term = term + (weight * share * (hard.alphas * xp.real(hard.ahead)).sum(axis=2)).sum()
    return loss - term


def _coins(rng, count):
    """`count` draws of the coins of two images."""
    config = sizes("additive", "scalar", attention="hard", dropout=0.0)
    return [tuple(int(x) for x in sat.draw_noise(config, 0, 2, 1, rng).expected) for _ in range(count)]


def _samples(rng, count):
    """`count` draws of the locations of two samples of one image, which has two equally likely locations."""
    config = sizes("additive", "scalar", attention="hard", dropout=0.0, samples=2)
    gumbel = sat.draw_noise(config, count, 1, 2, rng).gumbel
    return [tuple(pair) for pair in gumbel.argmax(axis=2).tolist()]


def probable(annotations, config, rng):
    """Let the last features of regions (N, k, D) be class probabilities, in place; absent regions stay 0."""
    C = len(config.classes)
    annotations[:, :, -C:] = rng.dirichlet(np.ones(C), annotations.shape[:2]) * annotations.any(axis=2)[:, :, None]


def captioner_case(name, captioner, config, direction, own_words=False):
    """The Case of a captioner: the gradients of its parameters and of the annotations.

    A backward pass with frozen=True must give the same gradients of the parameters.
    """
    shapes = captioner.shapes(config)
    names = [*shapes, "annotations", *_words(captioner, config, np.random.default_rng(0), own_words)]

    def make(rng):
        places = 2 * config.rows if hasattr(config, "rows") else L
        annotations = rng.standard_normal((N, places, config.D))
        if getattr(config, "regions", False):  # absent ones: two of the first photo and one of the second
            annotations[0, 5:], annotations[1, 2] = 0, 0
        if getattr(config, "classes", ()):
            probable(annotations, config, rng)
        return random_weights(shapes, rng) | {"annotations": annotations} | _words(captioner, config, rng, own_words)

    def forward(*inputs):
        *weights, annotations = inputs[: len(shapes) + 1]
        words = dict(zip(names[len(shapes) + 1 :], inputs[len(shapes) + 1 :], strict=True))
        loss, cache = _loss(captioner, config, pack(shapes, weights), annotations, words)
        return surrogate(loss, cache), cache

    def backward(dloss, cache):
        grads, frozen = cache.params.zeros_like(), cache.params.zeros_like()
        dannotations = captioner.backward(cache, grads, dloss=dloss)
        captioner.backward(cache, frozen, True, dloss)
        checked = grads if (frozen.flat == grads.flat).all() else frozen
        return *unpack(checked), dannotations

    return Case(f"captioners/{name}", make, forward, backward, ("mask", "weights", *NOISE), direction)


def _model(name, encoder, encoder_config, captioner, config):
    """The Case of an encoder and a captioner together, from pixels to the loss, along one random direction."""
    shapes = [encoder.shapes(encoder_config), captioner.shapes(config)]
    first, second = map(len, shapes)
    names = list(_words(captioner, config, np.random.default_rng(0)))

    def make(rng):
        size = encoder_config.preprocessing.size
        weights = random_weights(shapes[0], rng) | {f"decoder_{n}": x for n, x in random_weights(shapes[1], rng).items()}
        return weights | {"images": rng.uniform(0, 255, (N, size, size, 3))} | _words(captioner, config, rng)

    def forward(*inputs):
        images, *words = inputs[first + second :]
        params = pack(shapes[0], inputs[:first])
        annotations, seen = encoder.forward(params, encoder_config, images)
        decoder = pack(shapes[1], inputs[first : first + second])
        loss, said = _loss(captioner, config, decoder, annotations, dict(zip(names, words, strict=True)))
        return surrogate(loss, said), (params, seen, said)

    def backward(dloss, cache):
        params, seen, said = cache
        encoder_grads, grads = params.zeros_like(), said.params.zeros_like()
        encoder.backward(captioner.backward(said, grads, dloss=dloss), seen, encoder_grads)
        return *unpack(encoder_grads), *unpack(grads)

    return Case(f"models/{name}", make, forward, backward, ("images", "mask", *NOISE), True)


def sizes(f_att, gate, **choices):
    """A tiny Show, Attend and Tell Config; dot scores need D = H."""
    return sat.Config(V=10, D=6, M=2, H=6 if f_att == "dot" else 5, A=8, f_att=f_att, gate=gate, **choices)


F_ATT, GATES = ("additive", "general", "dot"), ("scalar", "vector")

HARD_CHOICES = [
    (False, {"estimator": "reinforce", "baseline": "moving_average"}),
    (False, {"estimator": "reinforce", "baseline": "none", "coin": "none", "penalty": 0.0, "entropy_weight": 0.0}),
    (True, {"estimator": "reinforce", "baseline": "none", "reward": "mean", "dropout": 0.0}),
    (True, {"estimator": "reinforce", "baseline": "leave_one_out", "samples": 2}),
    (True, {"estimator": "reward_to_go", "baseline": "moving_average", "reward": "mean"}),
    (True, {"estimator": "reward_to_go", "baseline": "leave_one_out", "samples": 3, "dropout": 0.0}),
    (True, {"estimator": "local_expectation", "baseline": "leave_one_out", "samples": 2, "reward": "mean"}),
]


def _hard(f_att, gate, direction, own_words=False, **choices):
    """The Case of hard attention for fixed locations: its backward must be the gradient of the surrogate."""
    said = " ".join([*(value for value in choices.values() if isinstance(value, str)), *["own words"] * own_words])
    config = {"attention": "hard", "penalty": 0.7, "dropout": 0.4, "entropy_weight": 0.3, "reward_weight": 0.6} | choices
    return captioner_case(f"show_attend_tell hard {f_att} {gate} {said}", sat, sizes(f_att, gate, **config), direction,
                          own_words)


SHOW_ATTEND_TELL = [
    *(
        captioner_case(f"show_attend_tell {f_att} {gate}", sat,
                   sizes(f_att, gate, penalty=0.7, dropout=0.4), direction=False)
        for f_att in F_ATT for gate in GATES
    ),
    *(
        captioner_case(f"show_attend_tell {f_att} {gate} {option}", sat,
                   sizes(f_att, gate, penalty=penalty, dropout=dropout), direction=True)
        for f_att in F_ATT for gate in GATES
        for option, penalty, dropout in (("bare", 0.0, 0.0), ("penalty", 0.7, 0.0), ("dropout", 0.0, 0.4))
    ),
    captioner_case("show_attend_tell signed weights, words given", sat, sizes("additive", "scalar", dropout=0.4),
                   direction=False, own_words=True),
    *(_hard("additive", "scalar", direction, **choices) for direction, choices in HARD_CHOICES),
    _hard("additive", "scalar", False, own_words=True, estimator="reinforce", samples=2),
    *(_hard(f_att, gate, True, estimator="local_expectation") for f_att in F_ATT for gate in GATES),
    Draws("draws/coins of two images", _coins, {(a, b): 0.25 for a in (0, 1) for b in (0, 1)}),
    Draws("draws/two samples of an image", _samples, {(a, b): 0.25 for a in (0, 1) for b in (0, 1)}),
    _model("small + show_attend_tell direction", small, small.Config((2, 3, 6), Preprocessing(12)),
           sat, sizes("additive", "scalar", penalty=0.7, dropout=0.4)),
    _model("vgg19_cbam + show_attend_tell direction", ENCODERS["vgg19_cbam"], VGG,
           sat, sizes("additive", "scalar", penalty=0.7, dropout=0.4)),
]  # fmt: skip


def cases():
    """SHOW_ATTEND_TELL, and two Cases for each Config in the CHECKS of a captioner: every parameter, then one random
    direction with Batch.weights and Batch.given."""
    found = list(SHOW_ATTEND_TELL)
    for name, captioner in CAPTIONERS.items():
        for option, config in getattr(captioner, "CHECKS", {}).items():
            what = f"{name} {option}".strip()
            found.append(captioner_case(what, captioner, config, direction=False))
            found.append(captioner_case(f"{what} own words direction", captioner, config, direction=True, own_words=True))
    return found


SECOND_OPINION = ("models/small + show_attend_tell direction",)

CAPTIONER = "captioners/show_attend_tell additive scalar"
HARD = "captioners/show_attend_tell hard additive scalar reinforce moving_average"
REGIONS, GLSTM_FILE = "captioners/top_down regions", "captioners/glstm file"
TOP_DOWN, ADAPTIVE, SHOW_AND_TELL = "captioners/top_down", "captioners/adaptive", "captioners/show_and_tell"
NEURALTALK, LRCN, GLSTM = "captioners/neuraltalk", "captioners/lrcn", "captioners/glstm"
SCA_CNN, TWO_LAYERS = "captioners/sca_cnn", "captioners/sca_cnn two layers"
NEURAL_BABY_TALK = "captioners/neural_baby_talk"
S2VT = "captioners/s2vt"
ATT_LSTM, M_RNN, LOG_BILINEAR = "captioners/att_lstm", "captioners/m_rnn", "captioners/log_bilinear"
REINFORCE = "captioners/show_attend_tell hard additive scalar reinforce none none"  # no other gradient reaches f_att

BUGS = [
    Bug("doubly stochastic term lost", sat.backward,
        "(dloss * config.penalty, ", "(0, ", CAPTIONER, {"term", "block"}),
    Bug("the penalty not multiplied by dloss", sat.backward,
        "(dloss * config.penalty, ", "(config.penalty, ", CAPTIONER, {"term", "block"}),
    Bug("c not carried to the step before", sat.loop_backward,
        "(dh, dc), step.cell", "(dh, 0 * dc), step.cell", CAPTIONER, {"term", "block"}),
    Bug("h not carried to the step before", sat._to_state,
        " + dh_next + dh_att + dgate * weight", " + 0 * (dh_next + dh_att + dgate * weight)",
        CAPTIONER, {"term", "block", "zero"}),
    Bug("h's gradient from the attention lost", sat._to_state,
        " + dh_att", "", CAPTIONER, {"term", "block"}),
    Bug("h's gradient from beta lost", sat._to_state,
        " + dgate * weight", "", CAPTIONER, {"term", "block"}),
    Bug("context's gradient from the output layer lost", sat._through_gate,
        "dz = dz_out + ", "dz = ", CAPTIONER, {"term", "block"}),
    Bug("beta missing in the context's gradient", sat._through_gate,
        "dz * beta", "dz", CAPTIONER, {"term", "block"}),
    Bug("annotations' gradient from the context lost", sat._sum,
        "a + b + c", "a + c", CAPTIONER, {"term"}),
    Bug("annotations' gradient from the keys lost", sat._sum,
        "a + b + c", "a + b", CAPTIONER, {"term"}),
    Bug("embedding's gradient from the output layer lost", sat.backward,
        "dwords += dgates", "dwords = dgates", CAPTIONER, {"block"}),
    Bug("embedding's dropout forgotten on the way back", sat.backward,
        "dropout_backward(dwords, words_dropout)", "dwords", CAPTIONER, {"mask"}),
    Bug("W_h's gradient of the last step only", sat.backward,
        "(hz, dgates, ", "(hz[-N:], dgates[-N:], ", CAPTIONER, {"term"}),
    Bug("keys of the last step only", f_att.attention_keys_backward,
        "(dscores, cache.queries, ", "(dscores[-1:], cache.queries[-1:], ",
        CAPTIONER, {"term"}),
    Bug("likelihood leaks through the sample", sat.loop_backward,
        "expected * dlook", "dlook", HARD, {"term", "block"}),
    Bug("the score gradient not multiplied by dloss", sat.backward,
        "dloss * score_gradients", "score_gradients", HARD, {"term", "block"}),
    Bug("score gradient not sent on into h_{t-1}", sat.loop_backward,
        "step.scores, out=dquery)", "step.scores, out=dquery)\n"
        "            dh_att = attention_query_backward(p, config, dscores[t] - dscores_hard[t], step.scores)",
        HARD, {"term", "block"}),
    Bug("sum over the batch for the mean", choices.score_gradients,
        "share = hard.mask / hard.mask.shape[1]", "share = hard.mask", REINFORCE, {"factor", "term", "block"}),
    Bug("padded steps rewarded", choices.score_gradients,
        "hard.mask / hard.mask.shape[1]", "(0 * hard.mask + 1) / hard.mask.shape[1]", HARD, {"term", "block"}),
    Bug("one coin for the batch", sat.draw_noise,
        '"image": N', '"image": 1', "draws/coins of two images", {"distribution"}),
    Bug("one draw for all samples", sat.draw_noise,
        "rng.gumbel(size=(S * N, L))", "np.tile(rng.gumbel(size=(N, L)), (S, 1))",
        "draws/two samples of an image", {"distribution"}),
    Bug("h2's gradient from the first LSTM lost", top_down.cell_backward,
        "dh2 + dhh[:, H:]", "dh2", TOP_DOWN, {"block", "term"}),
    Bug("h1's gradient from the second LSTM lost", top_down.cell_backward,
        "dh1 + dzhh[:, D : D + H]", "dh1", TOP_DOWN, {"term"}),
    Bug("memory of the second LSTM not carried", top_down.cell_backward,
        "(dh2 + dh_out, dc2)", "(dh2 + dh_out, 0 * dc2)", TOP_DOWN, {"block", "term"}),
    Bug("photo's gates of the first step only", top_down.cell_backward,
        "deferred.sum(gates=dgates1)", "deferred.sums['gates'] = dgates1", TOP_DOWN, {"term"}),
    Bug("a weight gradient never recorded", top_down.cell_backward,
        'deferred.product(dquery, step.h1, "W_s")', "dquery @ p.W_s.T", TOP_DOWN, {"zero"}),
    Bug("penalty's gradient not sent into alpha", top_down.cell_backward,
        "(dz, dalpha, step.attend)", "(dz, None, step.attend)", TOP_DOWN, {"term"}),
    Bug("annotations' gradient from their mean lost", top_down.photo_backward,
        "mean_backward(dgates @ p.W_v.T, mean)", "mean_backward(0 * dgates @ p.W_v.T, mean)",
        TOP_DOWN, {"term"}),
    Bug("absent regions get the gradient of the mean", top_down.photo_backward,
        "mean_backward(dgates @ p.W_v.T, mean)", "mean_annotation_backward(dgates @ p.W_v.T, [dannotations.shape])",
        REGIONS, {"mask"}),
    Bug("softmax over absent regions too on the way back", locations.attend_forward,
        "AttendCache(cache, alpha,",
        "AttendCache(cache, softmax(scores_forward(locations._replace(present=None), query, v, c)[0]),",
        REGIONS, {"mask", "term", "block"}),
    Bug("sentinel outside of the softmax", adaptive.attention_backward,
        "[dweights, dbeta]", "[dweights, 0 * dbeta]", ADAPTIVE, {"term"}),
    Bug("query's gradient from the sentinel's score lost", adaptive.attention_backward,
        "dquery + dquery_s", "dquery", ADAPTIVE, {"block", "term"}),
    Bug("memory's gradient from the sentinel lost", adaptive.cell_backward,
        "dm = dm + ds * step.gate.out * (1 - tanh_m * tanh_m)", "dm = dm + 0 * ds", ADAPTIVE, {"block", "term"}),
    Bug("beta missing in the sentinel's gradient", adaptive.attention_backward,
        "beta * dz", "dz", ADAPTIVE, {"term"}),
    Bug("h's gradient from the output layer lost", adaptive.attention_backward,
        "return dz + deferred.product(dquery +", "return deferred.product(dquery +", ADAPTIVE, {"block", "term"}),
    Bug("h's gradient from the query lost", adaptive.attention_backward,
        'dz + deferred.product(dquery + dquery_s, h, "W_g"), ds', "dz, ds", ADAPTIVE, {"block", "term", "zero"}),
    Bug("photo's step forgotten in the shared weights", show_and_tell.photo_backward,
        "W_x=x.T @ dgates, b=dgates.sum(axis=0), ", "", SHOW_AND_TELL, {"block"}),
    Bug("gradient of the photo's bias lost", show_and_tell.photo_backward,
        ", b_i=dx.sum(axis=0)", "", SHOW_AND_TELL, {"zero"}),
    Bug("state before the first word not sent on to the photo", show_and_tell.photo_backward,
        "lstm_backward(config, dstate, cell)", "lstm_backward(config, (0 * dstate[0], 0 * dstate[1]), cell)",
        SHOW_AND_TELL, {"block", "zero"}),
    Bug("photo's gradient of every step, though it is read once", neuraltalk.cell_backward,
        "dimage + dsum if config.each_step else dsum", "dimage + dsum", NEURALTALK, {"mask", "term"}),
    Bug("photo's gradient of one step, though it is read at each", neuraltalk.cell_backward,
        "dimage + dsum if config.each_step else dsum", "dsum", f"{NEURALTALK} each step", {"term"}),
    Bug("ReLU forgotten on the way back", neuraltalk.cell_backward,
        "relu_backward(dh_out + dh, step.relu)", "dh_out + dh", NEURALTALK, {"mask", "term"}),
    Bug("h's gradient from the step after lost", neuraltalk.cell_backward,
        "dh_out + dh, ", "dh_out, ", NEURALTALK, {"block", "term"}),
    Bug("photo's gates of the first step only, in LRCN", lrcn.cell_backward,
        "deferred.sum(gates=dgates2)", "deferred.sums['gates'] = dgates2", LRCN, {"term"}),
    Bug("h1's gradient from LRCN's second LSTM lost", lrcn.cell_backward,
        "dh1 + dhh[:, :H]", "dh1", LRCN, {"zero"}),
    Bug("h2 not carried to the step before", lrcn.cell_backward,
        "(dh1, dc1, dhh[:, H:], dc2)", "(dh1, dc1, 0 * dhh[:, H:], dc2)", LRCN, {"block", "term"}),
    Bug("guidance of one step only", glstm.cell_backward,
        "deferred.sum(gates=dgates)", "deferred.sums['gates'] = dgates", GLSTM, {"term"}),
    Bug("guidance from a file of one step only", glstm.cell_backward,
        "deferred.sum(gates=dgates)", "deferred.sums['gates'] = dgates", GLSTM_FILE, {"term", "block"}),
    Bug("guidance from a file gets no gradient", glstm.photo_backward,
        "concatenate([dguidance, behind]", "concatenate([0 * dguidance, behind]", GLSTM_FILE, {"block"}),
    Bug("guidance's gradient before that of the photo", glstm.photo_backward,
        "[dannotations, xp.concatenate([dguidance, behind], axis=1).reshape(N, -1, D)]",
        "[xp.concatenate([dguidance, behind], axis=1).reshape(N, -1, D), dannotations]", GLSTM_FILE, {"mask"}),
    Bug("another photo's guidance in W_q's gradient", glstm.photo_backward,
        "(image.v if guidance is None else guidance).T", "(guidance[::-1]).T", GLSTM_FILE, {"term"}),
    Bug("annotations' gradient from the guidance lost", glstm.photo_backward,
        "dannotations + mean_annotation_backward(dguidance, image.mean)", "dannotations", GLSTM, {"term"}),
    Bug("annotations' gradient from the first step lost", glstm.photo_backward,
        "dannotations + mean", "0 * dannotations + mean", GLSTM, {"term"}),
    Bug("channel softmax's Jacobian diagonal only", sca_cnn._attention_backward,
        "dscores = softmax", "p = cache.softmax.alpha; dscores = total * p * (1 - p) if name in CHANNELS else softmax",
        SCA_CNN, {"block", "term"}),
    Bug("weights forgotten in the map's gradient", sca_cnn._attention_backward,
        "dX = dout * cache.times", "dX = dout + 0 * cache.times", SCA_CNN, {"block", "term"}),
    Bug("map's gradient through the keys of its locations lost", sca_cnn._attention_backward,
        "dX + _keys_backward(", "dX + 0 * _keys_backward(", SCA_CNN, {"block", "term"}),
    Bug("number of weights forgotten on the way back", sca_cnn._attention_backward,
        "total * total.shape[1] if config.scaled else total", "total", f"{SCA_CNN} scaled", {"block", "term"}),
    Bug("keys' weights of one step only", sca_cnn._keys_backward,
        'g.add(**{f"W_{name}": dW, f"b_{name}": db})', 'g[f"W_{name}"][...] = dW; g.add(**{f"b_{name}": db})',
        SCA_CNN, {"term"}),
    Bug("h's gradient from the channels' attention lost", sca_cnn.cell_backward,
        'f"W_h{name}")', 'f"W_h{name}") * (name not in CHANNELS)', SCA_CNN, {"block", "term"}),
    Bug("h's gradient from the locations' attention lost", sca_cnn.cell_backward,
        'f"W_h{name}")', 'f"W_h{name}") * (name in CHANNELS)', SCA_CNN, {"block", "term"}),
    Bug("z's gradient not sent into the map", sca_cnn.cell_backward,
        "dhz[:, None, config.H :]", "0 * dhz[:, None, config.H :]", SCA_CNN, {"block", "term"}),
    Bug("z's gradient without the mean's share", sca_cnn.cell_backward,
        'dX / step.caches["s"].X.shape[1]', "dX", f"{SCA_CNN} scaled", {"block", "term"}),
    Bug("annotations' gradient of the first step only", sca_cnn.cell_backward,
        "deferred.sum(X=dX)", "deferred.sums['X'] = dX", SCA_CNN, {"term"}),
    Bug("penalty on the first layer's locations", sca_cnn.cell_backward,
        "LOCATIONS[config.layers - 1]", "LOCATIONS[0]", TWO_LAYERS, {"block", "term"}),
    Bug("annotations' gradient through beta lost", sca_cnn.photo_backward,
        'deferred.sums["X"] + dX', 'deferred.sums["X"]', SCA_CNN, {"term"}),
    Bug("convolution's gradient of one step only", sca_cnn._convolution_backward,
        "g.add(F=dF.reshape(g.F.shape), b_F=db_F)", "g.F[...] = dF.reshape(g.F.shape); g.add(b_F=db_F)",
        TWO_LAYERS, {"term"}),
    Bug("ReLU between the layers forgotten on the way back", sca_cnn._convolution_backward,
        "conv.x.shape), cache)", "conv.x.shape), cache._replace(relu=(1 + 0 * cache.relu.out,)))",
        TWO_LAYERS, {"block", "term"}),
    Bug("first layer's gradient through the convolution lost", sca_cnn._convolution_backward,
        "return dX.", "return 0 * dX.", TWO_LAYERS, {"block", "term", "zero"}),
    Bug("attributes of the first step forgotten", att_lstm.photo_backward,
        "dfirst + deferred.sums", "deferred.sums", f"{ATT_LSTM} each step", {"block", "term"}),
    Bug("attributes of the last step only", att_lstm.cell_backward,
        "deferred.sum(gates=dgates)", "deferred.sums.setdefault('gates', dgates)", f"{ATT_LSTM} each step", {"term"}),
    Bug("bias of the gates learns from the first step's sum twice", att_lstm.photo_backward,
        "b=dfirst.sum(axis=0)", "b=dgates.sum(axis=0)", f"{ATT_LSTM} each step", {"term"}),
    Bug("detector's gradient from the captions lost", att_lstm.photo_backward,
        "W_d=annotations.T @ dscores, b_d=dscores.sum(axis=0),", "", ATT_LSTM, {"zero"}),
    Bug("annotations' gradient from the detector lost", att_lstm.photo_backward,
        "dscores @ p.W_d.T", "0 * dscores @ p.W_d.T", ATT_LSTM, {"zero"}),
    Bug("multimodal layer's photo of the last step only", m_rnn.output_backward,
        "-1, cache.N, config.A).sum(axis=0)", "-1, cache.N, config.A)[-1]", M_RNN, {"term"}),
    Bug("steps and photos exchanged in the multimodal layer", m_rnn.output_backward,
        "dx.reshape(-1, cache.N, config.A).sum(axis=0)", "dx.reshape(cache.N, -1, config.A).sum(axis=1)",
        M_RNN, {"term"}),
    Bug("word's gradient from the multimodal layer lost", m_rnn.output_backward,
        "return dx @ p.V_w.T", "return 0 * dx @ p.V_w.T", M_RNN, {"term"}),
    Bug("r's gradient from the multimodal layer lost", m_rnn.output_backward,
        "(dx @ p.V_r.T,)", "(0 * dx @ p.V_r.T,)", M_RNN, {"zero", "scattered"}),
    Bug("older words of the window get no gradient", log_bilinear.cell_backward,
        "before[:, M:] = dwindow[:, :-M]", "before[:, M:] = 0 * dwindow[:, :-M]", LOG_BILINEAR, {"block", "zero"}),
    Bug("words of the window exchanged on the way back", log_bilinear.cell_backward,
        "dwindow[:, -M:], (before,)", "dwindow[:, :M], (before,)", LOG_BILINEAR, {"term"}),
    Bug("words before the first one get no gradient", log_bilinear.photo_backward,
        ", b_0=dstate[0].reshape(-1, config.M).sum(axis=0)", "", LOG_BILINEAR, {"zero"}),
    Bug("photo's factor forgotten on the way back", log_bilinear.cell_backward,
        "deferred.product(dr * step.image,", "deferred.product(dr,", f"{LOG_BILINEAR} gate", {"term"}),
    Bug("frames' memory not carried to the frame before", s2vt.photo_backward,
        "((dh, dc), step.cell)", "((dh, 0 * dc), step.cell)", S2VT, {"term"}),
    Bug("frames' h not carried to the frame before", s2vt.photo_backward,
        "dh = dgates_k @ p.U_h.T", "dh = 0 * dgates_k @ p.U_h.T", S2VT, {"term", "block"}),
    Bug("gates of the frames in the order of the loop", s2vt.photo_backward,
        "dgates[::-1]", "dgates", S2VT, {"term"}),
    Bug("difference's gradient into the frame before lost", s2vt.frames_backward,
        "da[:-1] -= dstep[1:]", "pass", S2VT, {"block"}),
    Bug("difference's gradient into its frame lost", s2vt.frames_backward,
        "da[1:] += dstep[1:]", "da[1:] += 0 * dstep[1:]", S2VT, {"block"}),
    Bug("embedding's gradient through the word gates lost", recurrent._words_backward,
        "return dword @ p.W_x.T", "return 0 * dword @ p.W_x.T", SHOW_AND_TELL, {"zero"}),
    Bug("regions' scores of the pointer get no gradient", neural_baby_talk.cell_backward,
        'deferred.scores(dpointer[:, :-1], step.scores, "pointer")',
        'deferred.scores(0 * dpointer[:, :-1], step.scores, "pointer")', NEURAL_BABY_TALK, {"block", "term"}),
    Bug("keys' gradient from the pointer lost", neural_baby_talk.photo_backward,
        'deferred.keys("u", "c_u", "pointer")', '0 * deferred.keys("u", "c_u", "pointer")', NEURAL_BABY_TALK, {"term"}),
    Bug("query's gradient from the sentinel lost", neural_baby_talk.cell_backward,
        "dquery = dquery + deferred", "dquery = deferred", NEURAL_BABY_TALK, {"block", "term"}),
    Bug("memory's gradient from the pointer's sentinel lost", neural_baby_talk.cell_backward,
        "dc2 + ds * step.gate.out * (1 - tanh_c * tanh_c)", "dc2", NEURAL_BABY_TALK, {"block", "term"}),
    Bug("h2's gradient from the pointer lost", neural_baby_talk.cell_backward,
        'dh_out + deferred.product(dquery, step.h2, "W_q")', 'dh_out + 0 * deferred.product(dquery, step.h2, "W_q")',
        NEURAL_BABY_TALK, {"block", "term"}),
    Bug("forms of the first word only", neural_baby_talk.logits_backward,
        "forms=dx.sum(axis=0)", "forms=dx[0]", NEURAL_BABY_TALK, {"block", "term"}),
    Bug("h2's gradient from the forms lost", neural_baby_talk.logits_backward,
        "dh + dh_forms @ p.F_h.T", "dh", NEURAL_BABY_TALK, {"block", "term"}),
    Bug("plural's gradient not sent into the forms", neural_baby_talk.logits_backward,
        "dx_fine + dx_plural", "dx_fine", NEURAL_BABY_TALK, {"block", "term"}),
    Bug("class probabilities get no gradient of the words", neural_baby_talk.photo_backward,
        'deferred.sums["classes"]', '0 * deferred.sums["classes"]', NEURAL_BABY_TALK, {"block"}),
    Bug("regions' gradient from the forms lost", neural_baby_talk.photo_backward,
        "p.W_v.T + dv_forms", "p.W_v.T", NEURAL_BABY_TALK, {"block", "term"}),
    Bug("regions' gradient from the attention and the mean lost", neural_baby_talk.photo_backward,
        "dv + dkeys", "0 * dv + dkeys", NEURAL_BABY_TALK, {"term"}),
]  # fmt: skip
