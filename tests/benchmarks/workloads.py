"""What is timed, on satnp's side: each workload makes its inputs from a seed and gives a function to time.

A workload is a Workload: `inputs()` on the host, the same for every peer, and `ours(inputs)` -> run, where run() does the
work once and returns {name: array} for the comparison of numbers. `flops` counts multiplications and additions of the
direct sums, forward and backward.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from satnp import optim
from satnp.captioners import show_attend_tell as sat
from satnp.captioners.contract import Batch
from satnp.data.captions import END, START
from satnp.decoding import beam_search
from satnp.encoders import small, squeezenet, vgg
from satnp.layers import conv2d_backward, conv2d_forward
from satnp.metrics import score


@dataclass(frozen=True)
class Workload:
    inputs: Any
    ours: Any
    flops: float | None = None
    peers: tuple = ("eager", "compile")
    repeats: int = 7


def step(config, N, L, T):
    """One training step of the captioner on kept features: forward, backward, clipping, Adam."""

    def inputs():
        rng = np.random.default_rng(0)
        noise = sat.draw_noise(config, T, N, L, rng)
        return {
            "params": sat.init(config, rng), "config": config,
            "annotations": rng.standard_normal((N, L, config.D), dtype=np.float32),
            "captions": rng.integers(4, config.V, (N, T + 1)), "mask": np.ones((N, T), np.float32), "noise": noise,
        }  # fmt: skip

    def ours(given):
        params = given["params"]
        grads, memory = params.zeros_like(), optim.new_state("adam", params.flat)
        batch, first = Batch(given["annotations"], given["captions"], given["mask"]), {}

        def run():
            grads.flat[...] = 0
            loss, cache = sat.forward(params, config, batch, given["noise"])
            sat.backward(cache, grads, frozen=True)
            norm = optim.clip_by_global_norm(grads.flat, 5.0)
            if not first:
                first.update({"loss": loss.copy(), "norm": norm, "W_h": grads.W_h.copy(), "L_o": grads.L_o.copy()})
            optim.adam(params.flat, grads.flat, memory, 1e-4)
            return first

        return run

    D, M, H, A, V = config.D, config.M, config.H, config.A, config.V
    products = N * L * D * A + T * N * (M * 4 * H + H * A + (H + D) * 4 * H + (H + D) * M + M * V + L * (A + D))
    return Workload(inputs, ours, flops=6 * products, peers=("eager", "compile", "port"))


def features(encoder, N):
    """The annotations of N photos from random weights."""
    config = encoder.Config()

    def inputs():
        rng = np.random.default_rng(0)
        size = config.preprocessing.size
        return {
            "encoder": encoder, "config": config, "params": encoder.init(config, rng),
            "images": rng.integers(0, 256, (N, size, size, 3), dtype=np.uint8),
        }  # fmt: skip

    def ours(given):
        def run():
            annotations, _ = encoder.forward(given["params"], config, given["images"])
            return {"annotations": annotations}

        return run

    return Workload(inputs, ours, flops=2 * N * _products(encoder, config), repeats=9 if N == 1 else 5)


def _products(encoder, config):
    """Multiplications of the convolutions for one photo: output cells times the size of the weights."""
    params, blank = encoder.init(config, np.random.default_rng(0)), np.zeros((1, 224, 224, 3), np.uint8)
    _, cache = encoder.feature_map(params, config, blank)
    total = 0
    for layer in cache.layers.values():
        for conv in layer:
            if hasattr(conv, "W"):
                _, R, S, _ = conv.x_shape
                K = conv.W.shape[0]
                P, Q = ((n + 2 * conv.padding - K) // conv.stride + 1 for n in (R, S))
                total += P * Q * conv.W.size
    return total


def conv3x3_backward():
    """A 3x3 convolution of (8, 56, 56, 256), both gradients."""

    def inputs():
        rng = np.random.default_rng(0)
        x, dout = (rng.standard_normal((8, 56, 56, 256), dtype=np.float32) for _ in range(2))
        return {"x": x, "dout": dout, "W": rng.standard_normal((3, 3, 256, 256), dtype=np.float32) / 48}

    def ours(given):
        _, cache = conv2d_forward(given["x"], given["W"], np.zeros(256, np.float32), padding=1)

        def run():
            dx, dW, db = conv2d_backward(given["dout"], cache)
            return {"dx": dx, "dW": dW, "db": db}

        return run

    return Workload(inputs, ours, flops=4 * 8 * 56 * 56 * 9 * 256 * 256)


def small_encoder_step():
    """The scenes' encoder on 32 photos, forward and backward."""
    config = small.Config()

    def inputs():
        rng = np.random.default_rng(0)
        return {
            "config": config, "params": small.init(config, rng),
            "images": rng.integers(0, 256, (32, 64, 64, 3), dtype=np.uint8),
            "dout": rng.standard_normal((32, 64, 128), dtype=np.float32),
        }  # fmt: skip

    def ours(given):
        params = given["params"]

        def run():
            grads = params.zeros_like()
            annotations, cache = small.forward(params, config, given["images"])
            small.backward(given["dout"], cache, grads)
            return {"annotations": annotations, **{name: grads[name] for name in grads}}

        return run

    return Workload(inputs, ours, repeats=15)


def beams(beam):
    """Captions of 64 photos by beam search, Flickr8k's sizes; <end> comes after about ten words."""
    config = sat.Config(V=2543, D=512, M=512, H=512, A=256)

    def inputs():
        rng = np.random.default_rng(0)
        params = sat.init(config, rng)
        params.L_o[...] *= 6  # random weights would say every word alike
        params.b_o[END] = 3.0
        annotations = rng.standard_normal((64, 169, 512), dtype=np.float32)
        return {"params": params, "config": config, "annotations": annotations, "beam": beam, "start": START, "end": END}

    def ours(given):
        def run():
            found = beam_search(sat, given["params"], config, given["annotations"], beam=beam, max_length=20)
            return captions(found)

        return run

    return Workload(inputs, ours, peers=("eager", "port"), repeats=5)


def captions(found):
    """Words and log-probabilities of [(ids, log_prob, ...)] as arrays."""
    ids = np.zeros((len(found), 20))
    for row, said in zip(ids, found, strict=True):
        row[: len(said[0])] = said[0]
    return {"ids": ids, "log_prob": np.array([said[1] for said in found])}


def scores():
    """BLEU, ROUGE-L and CIDEr-D of 5,000 captions against five references each."""

    def inputs():
        rng = np.random.default_rng(0)
        words = np.array([f"w{k}" for k in range(2000)])
        odds = 1 / np.arange(1, 2001)

        def sentence():
            return " ".join(rng.choice(words, rng.integers(7, 15), p=odds / odds.sum()))

        said = {k: sentence() for k in range(5000)}
        return {"said": said, "told": {k: [sentence() for _ in range(5)] for k in said}}

    def ours(given):
        return lambda: {k: np.array(v) for k, v in score(given["said"], given["told"]).corpus.items()}

    return Workload(inputs, ours, peers=(), repeats=3)


PAPER = sat.Config(V=10_000)
FLICKR8K = sat.Config(V=2543, D=512, M=512, H=512, A=256)
WORKLOADS = {
    "step_paper": lambda: step(PAPER, N=64, L=196, T=20),
    "step_flickr8k": lambda: step(FLICKR8K, N=64, L=169, T=12),
    "vgg19_b1": lambda: features(vgg, 1),
    "vgg19_b8": lambda: features(vgg, 8),
    "squeezenet_b1": lambda: features(squeezenet, 1),
    "squeezenet_b8": lambda: features(squeezenet, 8),
    "conv3x3_backward": conv3x3_backward,
    "small_encoder_step": small_encoder_step,
    "beam3": lambda: beams(3),
    "beam5": lambda: beams(5),
    "beam10": lambda: beams(10),
    "scores": scores,
}
