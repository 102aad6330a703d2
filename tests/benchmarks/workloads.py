"""The workloads that are timed, in satnp: each makes its inputs from a seed and returns a function to time.

A workload is a function of sizes that returns a Workload: `inputs()` on the host, the same for every peer, and
`ours(inputs)` -> run, where run() does the work once and returns {name: array}, the results that a peer must reproduce.
`flops` counts the multiplications and additions of the plain sums.
"""

from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import count, islice
from math import isqrt, prod
from typing import Any

import numpy as np

from satnp.arrays import optim
from satnp.arrays.parameters import Parameters
from satnp.arrays.shares import Gradient, of_captions, parameters_of_a_word
from satnp.captioners import CAPTIONERS
from satnp.captioners import show_attend_tell as sat
from satnp.captioners.contract import Batch
from satnp.data.captions import END
from satnp.decoding import beam_search
from satnp.encoders import ENCODERS, efficientnet, small, squeezenet, vgg
from satnp.layers import conv2d_backward, conv2d_forward
from satnp.model import Model
from satnp.proof.captioners import probable
from satnp.scores.metrics import score
from satnp.training.presets import find_preset
from tests.captioners import soft_attention

RATE = 1e-4  # learning rate of the training step
CLIP = 100.0  # never reached: PyTorch's float32 norm has an error of 1e-4, which would hide smaller errors of gradients
COMPARED = "W_h", "W_h1", "U_z", "L_o", "W_p", "W_a", "W_i", "E"  # gradients that are compared, if a captioner has them
MARGIN = 5e-5  # least distance of the small encoder from another choice; float32 changes these numbers by up to 4.1e-5
LONGEST = 20  # largest number of words in beam search
GRID, REGIONS = 169, 36  # locations of a photo: SqueezeNet's, and the regions of Anderson et al. 2018
CLASSES = 80  # of regions: COCO's
NEAR = 1e-5  # the largest rounding error of a W_a was 3e-6


@dataclass(frozen=True)
class Workload:
    inputs: Any
    ours: Any
    flops: float | None = None
    peers: tuple = ("eager", "compile")


def step(N, L, T, V, D=512, M=512, H=1000, A=512):
    """One training step of Show, Attend and Tell on stored features."""
    # forward pass and two gradients, without the gradient with respect to the annotations
    once, steps = N * L * D * A, H * A + (M + H + D) * 4 * H + (H + D) * M + M * V + L * (A + D)
    workload = training(sat, sat.Config(V, D, M, H, A), N, L, T, ("eager", "compile", "port", "frame"))
    return replace(workload, flops=4 * once + 6 * T * N * steps)


def training(captioner, config, N, L, T, peers=()):
    """One training step of a captioner on stored features: forward, backward, clipping, Adam."""

    def inputs():
        rng = np.random.default_rng(0)
        params, noise = captioner.init(config, rng), captioner.draw_noise(config, T, N, L, rng)
        return {
            "params": params, "noise": noise, "penalty": getattr(config, "penalty", 0), "config": config,
            "annotations": annotations_of(captioner, params, config, N, L, rng),
            "captions": rng.integers(4, config.V, (N, T + 1)), "mask": np.ones((N, T), np.float32),
        }  # fmt: skip

    def ours(given):
        return training_step(captioner, given["params"], config, given["noise"], given)

    return Workload(inputs, ours, peers=peers)


def annotations_of(captioner, p, config, N, L, rng):
    """Random annotations. Where adaptive's ReLU(a W_a) is near 0, rounding decides its gradient: such rows are replaced."""
    annotations = rng.standard_normal((N, L, config.D), dtype=np.float32)
    while captioner is CAPTIONERS["adaptive"] and (near := (np.abs(annotations @ p.W_a) < NEAR).any(axis=2)).any():
        annotations[near] = rng.standard_normal((near.sum(), config.D), dtype=np.float32)
    if getattr(config, "classes", ()):
        probable(annotations, config, rng)
    return annotations


def training_step(captioner, params, config, noise, given):
    """run() of one step with Adam; {name: gradient} by the names of the parameters of `given`."""
    grads, memory = params.zeros_like(), optim.new_state("adam", params.flat)
    batch, N = (given["annotations"], given["captions"], given["mask"]), len(given["captions"])
    named, gradient = given["params"].on(grads.flat), Gradient(grads, parameters_of_a_word(params))

    def passes(rows, grads, dloss):
        loss, *cache = captioner.forward(
            params, config, Batch(*(x[rows] for x in batch)), of_captions(noise, rows, N)
        )  # fmt: skip
        captioner.backward(cache.pop(), grads, True, dloss)
        return loss

    def run():
        loss = sum(dloss * loss for dloss, loss in gradient.compute(passes, N, N))
        _, factor = optim.clip_factor(grads.flat, CLIP)
        optim.adam(params.flat, grads.flat, memory, RATE, factor)
        return {"loss": loss} | {name: named[name] for name in COMPARED if name in named.shapes}

    return run


def on_the_frame(given):
    """The same step by Show, Attend and Tell on the frame of all captioners, tests/captioners/soft_attention.py."""
    own, noise = given["config"], given["noise"]
    sizes = {name: getattr(own, name) for name in ("V", "D", "M", "H", "A", "penalty", "dropout")}
    captioner, config = soft_attention.captioner, soft_attention.Config(**sizes)
    params = Parameters(captioner.shapes(config), flat=given["params"].flat)
    return training_step(captioner, params, config, captioner.Noise(noise.words, noise.state, noise.hidden), given)


def features(encoder, N, sides):
    """The annotations of N photos with random weights, by Model.annotate; `sides` are those of the convolutions' maps."""
    config = encoder.Config()

    def inputs():
        rng = np.random.default_rng(0)
        size = config.preprocessing.size
        return {
            "config": config, "params": encoder.init(config, rng),
            "images": rng.integers(0, 256, (N, size, size, 3), dtype=np.uint8),
        }  # fmt: skip

    def ours(given):
        model = encoder_alone(encoder, config, given["params"])
        return lambda: {"annotations": model.annotate(given["images"])}

    return Workload(inputs, ours, flops=2 * N * sum(_products(encoder, sides)))


def encoder_alone(encoder, config, params):
    """A Model with this encoder, and without a captioner."""
    name = next(name for name, module in ENCODERS.items() if module is encoder)
    params = Parameters({f"encoder.{weight}": shape for weight, shape in params.shapes.items()}, flat=params.flat)
    return Model(name, config, None, None, None, params, False, None)


def _products(encoder, sides):
    """The number of multiplications of each convolution for one photo."""
    weights = [shape for shape in encoder.shapes(encoder.Config()).values() if len(shape) >= 3]  # depthwise: (K, K, C)
    return [side**2 * prod(shape) for side, shape in zip(sides, weights, strict=True)]


def conv3x3_backward(N=8, side=56, C=256):
    """The gradients of a 3x3 convolution with respect to its input and its weights, without the forward pass."""

    def inputs():
        rng = np.random.default_rng(0)
        x, dout = rng.standard_normal((2, N, side, side, C), dtype=np.float32)
        return {"x": x, "dout": dout, "W": rng.standard_normal((3, 3, C, C), dtype=np.float32)}

    def ours(given):
        _, cache = conv2d_forward(given["x"], given["W"], np.zeros(C, np.float32), padding=1)

        def run():
            dx, dW, db = conv2d_backward(given["dout"], cache)
            return {"dx": dx, "dW": dW, "db": db}

        return run

    return Workload(inputs, ours, flops=4 * N * side**2 * 9 * C**2)


def small_encoder_step(N=32):
    """The encoder for scenes in training: its forward and backward pass."""
    config = small.Config()

    def inputs():
        rng = np.random.default_rng(0)
        params = small.init(config, rng)
        photos = (rng.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8) for _ in count())
        return {
            "config": config, "params": params,
            "images": np.concatenate(list(islice((x for x in photos if _margin(params, config, x) > MARGIN), N))),
            "dout": rng.standard_normal((N, 64, 128), dtype=np.float32),
        }  # fmt: skip

    def ours(given):
        model, gradient = encoder_alone(small, config, given["params"]), Gradient(given["params"].zeros_like(), size=1)

        def passes(rows, grads, dloss):
            annotations, cache = model.encode(given["images"][rows])
            model.encode_backward(given["dout"][rows], cache, grads)
            return annotations

        def run():
            ((_, annotations),) = gradient.compute(passes, N, N)  # one share of captions, as a minibatch of scenes is
            return {"annotations": annotations, **dict(gradient.grads.items())}

        return run

    products = _products(small, (32, 32, 16, 8))
    return Workload(inputs, ours, flops=2 * N * (3 * sum(products) - products[0]))  # no gradient of the pixels


def _margin(params, config, photo):
    """How far a photo is from another choice in a ReLU or in a max-pool, in float64.

    It is the smallest distance of a ReLU's input from 0, and of the two largest numbers of a window. Where rounding decides
    the choice, the gradients of two correct programs differ by 1e-3.
    """
    params = Parameters.of({name: x.astype(float) for name, x in params.items()})
    _, (stages, _) = small.forward(params, config, photo)
    distances = []
    for stage, (conv, _, pool) in enumerate(stages):
        out, _ = conv2d_forward(conv.x, conv.W, params[f"b{stage}"], conv.stride, conv.padding)
        if pool:
            *_, second, out = np.sort([out[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=0)
            distances.append((out - second)[out > 0].min())  # below 0, the ReLU stops the gradient of both
        distances.append(abs(out).min())
    return min(distances)


def beams(beam, N=64, L=169, V=2543, H=512, A=256):
    """The captions of N photos by beam search."""
    config = sat.Config(V, H=H, A=A)

    def inputs():
        rng = np.random.default_rng(0)
        params = _talker(config, rng)
        return {"params": params, "annotations": rng.standard_normal((N, L, config.D), dtype=np.float32), "beam": beam}

    def ours(given):
        def run():
            found = beam_search(sat, given["params"], config, given["annotations"], beam, LONGEST)
            return captions(found)

        return run

    return Workload(inputs, ours, peers=("eager", "port"))


def _talker(config, rng):
    """Random parameters whose captions end after about ten words: cell 0 counts words, and <end> depends only on it."""
    p, H = sat.init(config, rng), config.H
    p.L_o[...] *= 6  # otherwise all words are about equally probable
    for W in (p.W_x, p.W_h, p.W_z):
        W[:, ::H] = 0
    p.b[::H] = 10, 10, 10, 0.1  # gates i, f, o are open; c grows by g
    p.W_c0[:, 0] *= 3  # the initial count depends on the photo
    for W in (p.E, p.L_h, p.L_z):
        W[:, 0] = 0
    p.L_h[0, 0], p.b_m[0] = 20, -20 * np.tanh(1)
    p.L_o[0], p.L_o[:, END] = 0, 0
    p.L_o[0, END] = 20
    return p


def captions(found):
    """Convert [(ids, log_prob, ...)] to arrays of words and log-probabilities."""
    ids = np.zeros((len(found), LONGEST))
    for row, said in zip(ids, found, strict=True):
        row[: len(said[0])] = said[0]
    return {"ids": ids, "log_prob": np.array([said[1] for said in found])}


def of_family(name, L=None, V=2543, **sizes):
    """A captioner, its Config in `satnp train --data flickr8k` with `sizes` in place of its own, and the locations L."""
    captioner = CAPTIONERS[name]
    known = {field.name for field in fields(captioner.Config)}
    L = L or (REGIONS if "classes" in known else GRID)
    words = [[(y, y + 1)] for y in range(4, 4 + 2 * CLASSES, 2)]  # of each class: singular and plural
    given = {"V": V, "rows": isqrt(L), "classes": map(str, range(CLASSES)), "words": words} | sizes
    given = {name: value for name, value in given.items() if name in known}
    return captioner, captioner.Config(**find_preset("flickr8k", name).config | given), L


def family_step(name, peers=(), N=64, T=12, **sizes):
    captioner, config, L = of_family(name, **sizes)
    return training(captioner, config, N, L, T, peers)


def family_beam3(name, N=64, T=12, **sizes):
    """The captions of N photos by beam search, with T words each, so that all captioners take as many steps."""
    captioner, config, L = of_family(name, **sizes)

    def inputs():
        rng = np.random.default_rng(0)
        params = captioner.init(config, rng)
        return {"params": params, "annotations": annotations_of(captioner, params, config, N, L, rng)}

    def ours(given):
        def run():
            found = beam_search(captioner, given["params"], config, given["annotations"], 3, T, min_length=T)
            return captions(found)

        return run

    return Workload(inputs, ours, peers=())


def scores(N=5000):
    """BLEU, ROUGE-L and CIDEr-D of N captions against five references each."""

    def inputs():
        rng = np.random.default_rng(0)
        words = np.array([f"w{k}" for k in range(2000)])
        odds = 1 / np.arange(1, 2001)

        def sentence():
            return " ".join(rng.choice(words, rng.integers(7, 15), p=odds / odds.sum()))

        said = {k: sentence() for k in range(N)}
        return {"said": said, "told": {k: [sentence() for _ in range(5)] for k in said}}

    def ours(given):
        return lambda: {k: np.array(v) for k, v in score(given["said"], given["told"]).corpus.items()}

    return Workload(inputs, ours, peers=())


VGG19 = [224] * 2 + [112] * 2 + [56] * 4 + [28] * 4 + [14] * 4
SQUEEZENET = [111] + [55] * 6 + [27] * 6 + [13] * 12


def _efficientnet(side=112):
    """The sides of its convolutions' output maps; `side` is that of the stem's."""
    yield side
    for block in efficientnet.BLOCKS.values():
        if block.factor > 1:
            yield side
        side //= block.stride
        yield from (side, side)
    yield side


WORKLOADS = {
    "step_paper": partial(step, N=64, L=196, T=20, V=10_000),
    "step_flickr8k": partial(step, N=64, L=169, T=12, V=2543, H=512, A=256),
    "step_efficientnet": partial(step, N=64, L=49, T=12, V=2543, D=1280, H=512, A=256),
    "vgg19_b1": partial(features, vgg, 1, VGG19),
    "vgg19_b8": partial(features, vgg, 8, VGG19),
    "squeezenet_b1": partial(features, squeezenet, 1, SQUEEZENET),
    "squeezenet_b8": partial(features, squeezenet, 8, SQUEEZENET),
    "efficientnet_b1": partial(features, efficientnet, 1, list(_efficientnet())),
    "efficientnet_b8": partial(features, efficientnet, 8, list(_efficientnet())),
    "conv3x3_backward": conv3x3_backward,
    "small_encoder_step": small_encoder_step,
    "beam3": partial(beams, 3),
    "beam5": partial(beams, 5),
    "beam10": partial(beams, 10),
    "scores": scores,
}
PEERS = {  # of the family's training steps
    "show_attend_tell": ("eager", "compile"), "show_and_tell": ("eager", "compile", "loop"),
    "adaptive": ("eager", "compile"), "top_down": ("eager", "compile", "loop"),
}  # fmt: skip
FAMILY = {f"step_{name}": partial(family_step, name, PEERS.get(name, ())) for name in CAPTIONERS}
FAMILY |= {f"beam3_{name}": partial(family_beam3, name) for name in CAPTIONERS}
WORKLOADS |= FAMILY
