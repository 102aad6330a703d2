"""Every gradient check of satnp in one table, for the command `satnp gradcheck` and for the tests.

Sizes are tiny and mostly different, so that hardly a misplaced axis fits by chance; inputs AND biases are
random, so that no unit sits exactly on a kink.
"""

from dataclasses import replace
from functools import partial

import numpy as np

from satnp import estimators, layers
from satnp.arrays.backend import xp_of
from satnp.arrays.parameters import Parameters
from satnp.captioners import show_attend_tell as sat
from satnp.captioners.contract import Batch
from satnp.encoders import small, squeezenet, vgg
from satnp.encoders.photos import Preprocessing
from satnp.errors import InputError
from satnp.proof import enumeration
from satnp.proof.gradcheck import CENTRAL_DIFFERENCE, COMPLEX_STEP, Case, Draws, check_draws, check_gradients


def run(names=()):
    """Check the cases whose name contains one of `names` (without names, all), print a row each -> list of Results.

    Raises InputError where a name is contained in none.
    """
    for name in names:
        if not any(name in case.name for case in CASES):
            groups = ", ".join(sorted({case.name.partition(" ")[0] for case in CASES}))
            raise InputError(f"no gradient check is called {name!r}; give a part of a name, such as {groups}")
    found = []
    for case in CASES:
        if not names or any(name in case.name for name in names):
            for result in results(case):
                mark = "ok" if result.passed else "WRONG"
                print(f"{mark:<6}{result.error:<9.1e}{result.method.split()[0]:<9}{case.name}", flush=True)
                for finding in result.findings:
                    print(f"      {finding.sentence}")
                found.append(result)
    return found


def results(case):
    """The Results of one row of the table: most have one, some a second opinion."""
    if isinstance(case, Draws):
        return [check_draws(case)]
    methods = (COMPLEX_STEP, CENTRAL_DIFFERENCE) if case.name in SECOND_OPINION else (COMPLEX_STEP,)
    return [check_gradients(case, method=method) for method in methods]


def find(name):
    """The case of that name."""
    return next(case for case in CASES if case.name == name)


def _inputs(**entries):
    """make(rng) of a Case: a shape stands for normal numbers, a function of rng for what it returns."""

    def make(rng):
        return {n: entry(rng) if callable(entry) else rng.standard_normal(entry) for n, entry in entries.items()}

    return make


def _layer(name, constants=(), options=None, **entries):
    """The pair layers.NAME_forward, layers.NAME_backward; what follows a space in `name` only tells cases apart."""
    pair = name.partition(" ")[0]
    forward, backward = (getattr(layers, f"{pair}_{way}") for way in ("forward", "backward"))
    if options:
        forward = partial(forward, **options)
    return Case(f"layers/{name}", _inputs(**entries), forward, backward, constants)


def _conv(K, stride, padding):
    return _layer(
        f"conv2d K={K} stride={stride} padding={padding}", (), {"stride": stride, "padding": padding},
        x=(2, 7, 6, 3), W=(K, K, 3, 4), b=(4,),
    )  # fmt: skip


def _max_pool(K, stride, ceil, relu=False):
    name = f"max_pool K={K} stride={stride} {'ceil' if ceil else 'floor'}{' relu' if relu else ''}"
    return _layer(name, (), {"K": K, "stride": stride, "ceil": ceil, "relu": relu}, x=(2, 7, 6, 3))


CONVOLUTIONS = (1, 1, 0), (1, 2, 0), (2, 2, 1), (3, 1, 0), (3, 1, 1), (3, 2, 0), (3, 2, 1), (5, 3, 2)

LAYERS = [
    _layer("affine", x=(3, 4), W=(4, 5), b=(5,)),
    _layer("affine square", x=(3, 4), W=(4, 4), b=(4,)),  # only here does a transposed gradient fit
    _layer("embedding repeated ids", ids=lambda rng: np.array([2, 0, 2, 5, 2]), E=(6, 3)),
    _layer("dropout", ("mask",), x=(4, 5), mask=lambda rng: layers.dropout_mask(rng, (4, 5), 0.4, np.float64)),
    _layer("relu", x=(4, 5)),
    _layer("tanh", x=(4, 5)),
    _layer("sigmoid", x=(4, 5)),
    _layer("softmax", scores=(3, 5)),
    _layer(
        "cross_entropy zero weights", ("weights",),
        logits=(5, 4), targets=lambda rng: rng.integers(0, 4, 5), weights=lambda rng: rng.random(5) * [1, 0, 1, 1, 0],
    ),
    _layer(
        "vocabulary zero weights", ("weights",), hidden=(5, 3), W=(3, 4), b=(4,),
        targets=lambda rng: rng.integers(0, 4, 5), weights=lambda rng: rng.random(5) * [1, 0, 1, 1, 0],
    ),
    *(_conv(*sizes) for sizes in CONVOLUTIONS),
    _layer("conv2d_relu", (), {"padding": 1}, x=(2, 7, 6, 3), W=(3, 3, 3, 4), b=(4,)),
    _layer("expand_relu", x=(2, 5, 6, 3), W1=(1, 1, 3, 4), b1=(4,), W3=(3, 3, 3, 4), b3=(4,)),
    *(_max_pool(*sizes) for sizes in ((2, 2, False), (3, 2, False), (3, 2, True), (2, 3, True), (2, 2, False, True))),
    _layer("average_pool K=2 stride=2", (), {"K": 2, "stride": 2}, x=(2, 7, 6, 3)),
    _layer("average_pool K=3 stride=2", (), {"K": 3, "stride": 2}, x=(2, 7, 6, 3)),
    _layer("lstm_cell", gates=(3, 20), c_prev=(3, 5)),
    _layer("additive_scores", keys=(2, 5, 4), query=(2, 4), v=(4,), c=(1,)),
    _layer("dot_scores", keys=(2, 5, 4), query=(2, 4)),
    _layer("context", alpha=(2, 5), annotations=(2, 5, 4)),
    _layer("gate scalar", h=(3, 5), context=(3, 4), W=(5, 1), b=(1,)),
    _layer("gate vector", h=(3, 5), context=(3, 4), W=(5, 4), b=(4,)),
    _layer("initial_state", annotations=(2, 7, 4), W_h=(4, 5), b_h=(5,), W_c=(4, 5), b_c=(5,)),
    _layer("deep_output", words=(3, 6), h=(3, 5), z=(3, 4), L_h=(5, 6), L_z=(4, 6), b=(6,)),
    _layer(
        "doubly_stochastic", ("mask",),
        alphas=(4, 3, 5), mask=lambda rng: np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1], [0, 0, 1.0]]),
    ),
]  # fmt: skip


def _weights(shapes, rng):
    """{name: array}: He-normal weights, normal biases."""
    fan_in = {name: np.prod(shape[:-1]) if len(shape) > 1 else 4 for name, shape in shapes.items()}
    return {name: rng.standard_normal(shape) * np.sqrt(2 / fan_in[name]) for name, shape in shapes.items()}


def _pack(shapes, arrays):
    """Parameters laid out from single arrays of any module; one complex array makes all complex."""
    flat = xp_of(*arrays).concatenate([x.ravel() for x in arrays])
    return Parameters(shapes, flat=flat)


def _unpack(params, scale=1):
    return tuple(x * scale for _, x in params.items())


def encoder_case(name, encoder, config, direction, start=None):
    """The case of an encoder's parameters on two random photos, or of those from layer `start` on."""
    shapes, size = encoder.shapes(config), config.preprocessing.size
    taken_up = {} if start is None else {"start": start}
    if taken_up:
        below = Parameters(shapes).before(start).shapes
        shapes = {name: shape for name, shape in shapes.items() if name not in below}

    def make(rng):
        images = rng.uniform(0, 255, (2, size, size, 3))
        if taken_up:
            params = _pack(below, _weights(below, rng).values())
            images, _ = encoder.feature_map(params, config, images, stop=start)
        return _weights(shapes, rng) | {"images": images}

    def forward(*inputs):
        *weights, images = inputs
        params = _pack(shapes, weights)
        annotations, cache = encoder.forward(params, config, images, **taken_up)
        return annotations, (params, cache)

    def backward(dannotations, cache):
        params, cache = cache
        grads = params.zeros_like()
        encoder.backward(dannotations, cache, grads)
        return _unpack(grads)

    return Case(f"encoders/{name}", make, forward, backward, ("images",), direction)


def _estimator(name, value, gradient, constants, **entries):
    """A gradient of the scores against the value that it is the gradient of: value(scores, *rest) -> (N,)"""

    def forward(scores, *rest):
        return value(scores, *rest), (scores, *rest)

    def backward(dout, cache):
        return gradient(dout, *cache)

    return Case(f"estimators/{name}", _inputs(**entries), forward, backward, constants)


def _one_hot(rng, N=3, L=5):
    return np.eye(L)[rng.integers(0, L, N)]


def _log_p(scores, sample):
    """log p of the sample, 0 for the rest of the row however unlikely."""
    xp = xp_of(scores)
    return xp.where(sample > 0, layers.log_softmax(scores), 0).sum(axis=-1)


def _extreme(rng):
    """Scores of which some are so low that their weight is exactly 0."""
    scores = rng.standard_normal((3, 5))
    scores[0, 1], scores[1, 2:] = 1e4, -1e4
    return scores


ESTIMATORS = [
    _estimator(
        "reinforce", lambda e, s, r: -r * _log_p(e, s),
        lambda d, e, s, r: estimators.reinforce(s, layers.softmax(e), d * r), ("sample", "advantage"),
        scores=(3, 5), sample=_one_hot, advantage=(3,),
    ),
    _estimator(
        "local_expectation", lambda e, s, r, a: -(layers.softmax(e) * a).sum(axis=-1) - r * _log_p(e, s),
        lambda d, e, s, r, a: estimators.local_expectation(d[:, None] * a, s, layers.softmax(e), d * r),
        ("sample", "advantage", "ahead"), scores=(3, 5), sample=_one_hot, advantage=(3,), ahead=(3, 5),
    ),
    _estimator(
        "entropy", lambda e: -estimators.entropy(e),
        lambda d, e: estimators.entropy_gradient(e, layers.softmax(e), d), (), scores=(3, 5),
    ),
    _estimator(
        "entropy with weights of 0", lambda e: -estimators.entropy(e),
        lambda d, e: estimators.entropy_gradient(e, layers.softmax(e), d), (), scores=_extreme,
    ),
    _estimator(
        "straight_through", lambda e, g: layers.softmax((e + g) / 0.7),
        lambda d, e, g: estimators.straight_through(d, e, g, 0.7), ("gumbel",),
        scores=(3, 5), gumbel=lambda rng: rng.gumbel(size=(3, 5)),
    ),
]  # fmt: skip

NOISE = ("words", "state", "hidden", "gumbel", "expected", "baseline")
L = 7


def _words(config, rng, N=3, T=4):
    """Captions, some of them padded, and their noise."""
    mask = np.ones((N, T))
    mask[1, 3:], mask[2, 2:] = 0, 0
    batch = {"captions": rng.integers(0, config.V, (N, T + 1)), "mask": mask}
    noise = sat.draw_noise(config, T, N, L, rng)
    if config.hard:
        expected = noise.expected if config.coin == "none" else np.array([0, 1, 0])
        noise = noise._replace(expected=expected, baseline=np.array(-3.0))
    return batch | {f"noise_{n}": x.astype(float) for n, x in noise._asdict().items() if x is not None}


def _noise(config, arrays):
    """The Noise of the arrays that _words has made of one, in its order."""
    drawn = (NOISE[:3] if config.dropout else ()) + (NOISE[3:] if config.hard else ())
    return sat.Noise(**dict(zip(drawn, arrays, strict=True)))


def surrogate(loss, cache):
    """What hard attention's backward is the gradient of, the drawn path and its rewards being held: loss + the terms
    -lambda_r (r - b) log p(s), and for local_expectation each word's expectation over its own step's choice."""
    config, hard = cache.config, cache.hard
    if hard is None or config.estimator == "gumbel_st":
        return loss
    xp = xp_of(cache.alphas)
    weight = config.reward_weight * hard.mask * (1 - hard.expected) / len(hard.expected)
    term = (xp.real(sat.advantage(config, hard)) * weight * _log_p(hard.scores, cache.looks)).sum()
    if config.estimator == "local_expectation":
        share = 1 / hard.mask.sum(axis=0) if config.reward == "mean" else 1
        term = term + (weight * share * (cache.alphas * xp.real(hard.ahead)).sum(axis=2)).sum()
    return loss - term


def _expectation(estimator, baseline, b=0.0, samples=1):
    """The mean of hard attention's backward over all paths against the gradient of the enumerated bound, eq. 10."""
    tiny = enumeration.small_world(estimator=estimator, baseline=baseline, samples=samples)
    shapes = tiny.params.shapes

    def world(weights):
        return tiny._replace(params=_pack(shapes, weights))

    def forward(*weights):
        return enumeration.expected_cost(world(weights)), weights

    def backward(dcost, weights):
        params = world(weights).params
        return _unpack(params.on(enumeration.expected_gradient(world(weights), b)), dcost)

    return Case(f"expectations/{estimator} {baseline}", lambda rng: dict(tiny.params.items()), forward, backward)


def _coins(rng, count):
    """The coins of two images, `count` times."""
    config = sizes("additive", "scalar", attention="hard", dropout=0.0)
    return [tuple(int(x) for x in sat.draw_noise(config, 0, 2, 1, rng).expected) for _ in range(count)]


def _samples(rng, count):
    """Where two samples of one image look when its two places weigh the same."""
    config = sizes("additive", "scalar", attention="hard", dropout=0.0, samples=2)
    gumbel = sat.draw_noise(config, count, 1, 2, rng).gumbel
    return [tuple(pair) for pair in gumbel.argmax(axis=2).tolist()]


WEIGHTS = np.array([0.05, 0.15, 0.3, 0.5])


def _locations(rng, count):
    """Where hard attention looks when its weights are WEIGHTS."""
    scores = np.log(WEIGHTS) + np.zeros((count, 1))
    return estimators.draw(scores, rng.gumbel(size=scores.shape)).argmax(axis=1).tolist()


def _captioner(name, captioner, config, direction):
    shapes = captioner.shapes(config)

    def make(rng):
        return _weights(shapes, rng) | {"annotations": rng.standard_normal((3, L, config.D))} | _words(config, rng)

    def forward(*inputs):
        weights, (annotations, captions, mask, *noise) = inputs[: len(shapes)], inputs[len(shapes) :]
        batch = Batch(annotations, captions, mask)
        loss, cache = captioner.forward(_pack(shapes, weights), config, batch, _noise(config, noise))
        return surrogate(loss, cache), cache

    def backward(dloss, cache):
        grads = cache.params.zeros_like()
        dannotations = captioner.backward(cache, grads)
        return *_unpack(grads, dloss), dannotations * dloss

    return Case(f"captioners/{name}", make, forward, backward, ("mask", *(f"noise_{n}" for n in NOISE)), direction)


def _model(name, encoder, encoder_config, captioner, config):
    """Encoder and captioner together, from pixels to the loss, along one direction."""
    shapes = [encoder.shapes(encoder_config), captioner.shapes(config)]
    first, second = map(len, shapes)

    def make(rng):
        size = encoder_config.preprocessing.size
        images = rng.uniform(0, 255, (3, size, size, 3))
        return _weights(shapes[0], rng) | _weights(shapes[1], rng) | {"images": images} | _words(config, rng)

    def forward(*inputs):
        images, captions, mask, *noise = inputs[first + second :]
        params = _pack(shapes[0], inputs[:first])
        annotations, seen = encoder.forward(params, encoder_config, images)
        batch = Batch(annotations, captions, mask)
        decoder = _pack(shapes[1], inputs[first : first + second])
        loss, said = captioner.forward(decoder, config, batch, _noise(config, noise))
        return surrogate(loss, said), (params, seen, said)

    def backward(dloss, cache):
        params, seen, said = cache
        encoder_grads, grads = params.zeros_like(), said.params.zeros_like()
        encoder.backward(captioner.backward(said, grads), seen, encoder_grads)
        return *_unpack(encoder_grads, dloss), *_unpack(grads, dloss)

    return Case(f"models/{name}", make, forward, backward, ("images", "mask", *(f"noise_{n}" for n in NOISE)), True)


def sizes(f_att, gate, **choices):
    """A tiny Show, Attend and Tell Config; dot scores need D = H."""
    return sat.Config(V=10, D=6, M=2, H=6 if f_att == "dot" else 5, A=8, f_att=f_att, gate=gate, **choices)


SMALL = small.Config((2, 3, 5), Preprocessing(12))
SQUEEZENET = squeezenet.Config(replace(squeezenet.PREPROCESSING["caffe"], size=39))
VGG = vgg.Config(replace(vgg.PREPROCESSING["torchvision"], size=32), (2, 3, 4, 5, 6))
F_ATT, GATES = ("additive", "general", "dot"), ("scalar", "vector")

HARD = [
    (False, {"estimator": "reinforce", "baseline": "moving_average"}),
    (False, {"estimator": "reinforce", "baseline": "none", "coin": "none", "penalty": 0.0, "entropy_weight": 0.0}),
    (True, {"estimator": "reinforce", "baseline": "none", "reward": "mean", "dropout": 0.0}),
    (True, {"estimator": "reinforce", "baseline": "leave_one_out", "samples": 2}),
    (True, {"estimator": "reward_to_go", "baseline": "moving_average", "reward": "mean"}),
    (True, {"estimator": "reward_to_go", "baseline": "leave_one_out", "samples": 3, "dropout": 0.0}),
    (True, {"estimator": "local_expectation", "baseline": "leave_one_out", "samples": 2, "reward": "mean"}),
]


def _hard(f_att, gate, direction, **choices):
    """Hard attention given the path: its backward against the surrogate's numbers."""
    said = " ".join(value for value in choices.values() if isinstance(value, str))
    config = {"attention": "hard", "penalty": 0.7, "dropout": 0.4, "entropy_weight": 0.3, "reward_weight": 0.6} | choices
    return _captioner(f"show_attend_tell hard {f_att} {gate} {said}", sat, sizes(f_att, gate, **config), direction)


CASES = [
    *LAYERS,
    *ESTIMATORS,
    encoder_case("small", small, SMALL, direction=False),
    encoder_case("small direction", small, small.Config(preprocessing=Preprocessing(24)), direction=True),
    encoder_case("squeezenet1_1 direction", squeezenet, SQUEEZENET, direction=True),
    encoder_case("squeezenet1_1 from fire8 direction", squeezenet, SQUEEZENET, direction=True, start="fire8"),
    encoder_case("vgg19 direction", vgg, VGG, direction=True),
    encoder_case("vgg19 from conv4_2", vgg, VGG, direction=False, start="conv4_2"),
    *(
        _captioner(f"show_attend_tell {f_att} {gate}", sat,
                   sizes(f_att, gate, penalty=0.7, dropout=0.4), direction=False)
        for f_att in F_ATT for gate in GATES
    ),
    *(
        _captioner(f"show_attend_tell {f_att} {gate} {option}", sat,
                   sizes(f_att, gate, penalty=penalty, dropout=dropout), direction=True)
        for f_att in F_ATT for gate in GATES
        for option, penalty, dropout in (("bare", 0.0, 0.0), ("penalty", 0.7, 0.0), ("dropout", 0.0, 0.4))
    ),
    *(_hard("additive", "scalar", direction, **choices) for direction, choices in HARD),
    *(_hard(f_att, gate, True, estimator="local_expectation") for f_att in F_ATT for gate in GATES),
    *(
        _expectation(estimator, baseline, b, samples)
        for estimator in ("reinforce", "reward_to_go", "local_expectation")
        for baseline, b, samples in (("none", 0.0, 1), ("moving_average", -3.3, 1), ("leave_one_out", 0.0, 2))
    ),
    Draws("draws/coins of two images", _coins, {(a, b): 0.25 for a in (0, 1) for b in (0, 1)}),
    Draws("draws/two samples of an image", _samples, {(a, b): 0.25 for a in (0, 1) for b in (0, 1)}),
    Draws("draws/locations", _locations, dict(enumerate(WEIGHTS))),
    _model("small + show_attend_tell direction", small, small.Config((2, 3, 6), Preprocessing(12)),
           sat, sizes("additive", "scalar", penalty=0.7, dropout=0.4)),
]  # fmt: skip

SECOND_OPINION = (
    "layers/affine", "layers/softmax", "layers/conv2d K=3 stride=2 padding=1", "layers/max_pool K=3 stride=2 ceil",
    "layers/lstm_cell", "layers/additive_scores", "models/small + show_attend_tell direction",
)  # fmt: skip
