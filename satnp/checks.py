"""Every gradient check of satnp in one table, for the command `satnp gradcheck` and for the tests.

Sizes are tiny and mostly different, so that hardly a misplaced axis fits by chance; inputs AND biases are
random, so that no unit sits exactly on a kink.
"""

from functools import partial

import numpy as np

from satnp import layers
from satnp.backend import xp_of
from satnp.captioners import show_attend_tell
from satnp.captioners.contract import Batch
from satnp.encoders import small, squeezenet
from satnp.encoders.photos import Preprocessing
from satnp.errors import InputError
from satnp.gradcheck import CENTRAL_DIFFERENCE, COMPLEX_STEP, Case, check_gradients
from satnp.parameters import Parameters


def run(names=()):
    """Check the cases whose name contains one of `names` (without names, all), print a row each -> list of Results.

    Raises InputError where a name is contained in none.
    """
    for name in names:
        if not any(name in case.name for case in CASES):
            groups = ", ".join(sorted({case.name.partition(" ")[0] for case in CASES}))
            raise InputError(f"no gradient check is called {name!r}; give a part of a name, such as {groups}")
    results = []
    for case in CASES:
        if not names or any(name in case.name for name in names):
            methods = (COMPLEX_STEP, CENTRAL_DIFFERENCE) if case.name in SECOND_OPINION else (COMPLEX_STEP,)
            for method in methods:
                result = check_gradients(case, method=method)
                mark = "ok" if result.passed else "WRONG"
                print(f"{mark:<6}{result.error:<9.1e}{method.split()[0]:<9}{case.name}", flush=True)
                for finding in result.findings:
                    print(f"      {finding.sentence}")
                results.append(result)
    return results


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


def _max_pool(K, stride, ceil):
    name = f"max_pool K={K} stride={stride} {'ceil' if ceil else 'floor'}"
    return _layer(name, (), {"K": K, "stride": stride, "ceil": ceil}, x=(2, 7, 6, 3))


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
    *(_conv(*sizes) for sizes in CONVOLUTIONS),
    *(_max_pool(*sizes) for sizes in ((2, 2, False), (3, 2, False), (3, 2, True), (2, 3, True))),
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


def encoder_case(name, encoder, config, direction):
    """The case of an encoder's parameters on two random photos."""
    shapes = encoder.shapes(config)

    def make(rng):
        size = config.preprocessing.size
        return _weights(shapes, rng) | {"images": rng.uniform(0, 255, (2, size, size, 3))}

    def forward(*inputs):
        *weights, images = inputs
        params = _pack(shapes, weights)
        annotations, cache = encoder.forward(params, config, images)
        return annotations, (params, cache)

    def backward(dannotations, cache):
        params, cache = cache
        grads = params.zeros_like()
        encoder.backward(dannotations, cache, grads)
        return _unpack(grads)

    return Case(f"encoders/{name}", make, forward, backward, ("images",), direction)


NOISE = ("mask_words", "mask_state", "mask_hidden")


def _words(config, rng, N=3, T=4):
    """Captions, some of them padded, and their noise."""
    mask = np.ones((N, T))
    mask[1, 3:], mask[2, 2:] = 0, 0
    batch = {"captions": rng.integers(0, config.V, (N, T + 1)), "mask": mask}
    noise = show_attend_tell.draw_noise(config, T, N, rng)
    return batch | {n: x.astype(float) for n, x in zip(NOISE, noise, strict=True) if x is not None}


def _captioner(name, captioner, config, direction):
    shapes = captioner.shapes(config)

    def make(rng):
        return _weights(shapes, rng) | {"annotations": rng.standard_normal((3, 7, config.D))} | _words(config, rng)

    def forward(*inputs):
        weights, (annotations, captions, mask, *noise) = inputs[: len(shapes)], inputs[len(shapes) :]
        batch = Batch(annotations, captions, mask)
        return captioner.forward(_pack(shapes, weights), config, batch, show_attend_tell.Noise(*noise))

    def backward(dloss, cache):
        grads = cache.params.zeros_like()
        dannotations = captioner.backward(cache, grads)
        return *_unpack(grads, dloss), dannotations * dloss

    return Case(f"captioners/{name}", make, forward, backward, ("mask", *NOISE), direction)


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
        loss, said = captioner.forward(decoder, config, batch, show_attend_tell.Noise(*noise))
        return loss, (params, seen, said)

    def backward(dloss, cache):
        params, seen, said = cache
        encoder_grads, grads = params.zeros_like(), said.params.zeros_like()
        encoder.backward(captioner.backward(said, grads), seen, encoder_grads)
        return *_unpack(encoder_grads, dloss), *_unpack(grads, dloss)

    return Case(f"models/{name}", make, forward, backward, ("images", "mask", *NOISE), direction=True)


def sizes(attention, gate, **choices):
    """A tiny Show, Attend and Tell Config; dot attention needs D = H."""
    return show_attend_tell.Config(
        V=10, D=6, M=2, H=6 if attention == "dot" else 5, A=8, attention=attention, gate=gate, **choices
    )


SMALL = small.Config((2, 3, 5), Preprocessing(12))
ATTENTIONS, GATES = ("additive", "general", "dot"), ("scalar", "vector")

CASES = [
    *LAYERS,
    encoder_case("small", small, SMALL, direction=False),
    encoder_case("small direction", small, small.Config(preprocessing=Preprocessing(24)), direction=True),
    encoder_case(
        "squeezenet1_1 direction", squeezenet,
        squeezenet.Config(Preprocessing(39, "BGR", (104.0, 117.0, 123.0), 1.0)), direction=True,
    ),
    *(
        _captioner(f"show_attend_tell {attention} {gate}", show_attend_tell,
                   sizes(attention, gate, penalty=0.7, dropout=0.4), direction=False)
        for attention in ATTENTIONS for gate in GATES
    ),
    *(
        _captioner(f"show_attend_tell {attention} {gate} {option}", show_attend_tell,
                   sizes(attention, gate, penalty=penalty, dropout=dropout), direction=True)
        for attention in ATTENTIONS for gate in GATES
        for option, penalty, dropout in (("bare", 0.0, 0.0), ("penalty", 0.7, 0.0), ("dropout", 0.0, 0.4))
    ),
    _model("small + show_attend_tell direction", small, small.Config((2, 3, 6), Preprocessing(12)),
           show_attend_tell, sizes("additive", "scalar", penalty=0.7, dropout=0.4)),
]  # fmt: skip

SECOND_OPINION = (
    "layers/affine", "layers/softmax", "layers/conv2d K=3 stride=2 padding=1", "layers/max_pool K=3 stride=2 ceil",
    "layers/lstm_cell", "layers/additive_scores", "models/small + show_attend_tell direction",
)  # fmt: skip
