"""The contract that training, decoding, evaluation and figures know a captioner by. A captioner is a module with

    Config                                    frozen dataclass: sizes and choices, the paper's values as defaults
    Noise, draw_noise(config, T, N, L, rng)   what is random in a pass (dropout masks, locations), host arrays: (N,), or
                                              (T, S*N, ...) sample by sample
    shapes(config) -> {name: shape}           of its parameters
    init(config, rng) -> Parameters
    forward(params, config, batch, noise) -> loss, cache      cache.nll is the loss without penalties, nats a caption
    backward(cache, grads, frozen) -> dannotations            adds into grads; None where the encoder is frozen. It lets go
                                              what it has used: give it a cache that you hold no more, and its memory is free
    diagnostics(cache.told) -> {name: ()}                     means over a pass that a log should keep
    weights(cache.told) -> {name: ()}                         of these means, and of the baseline if there is one, in those
                                              of several passes as one; `told` is what is small in a cache
    decoding_noise(config, N, L, steps, rng)                  what is random in decoding, a host array, or None
    start(params, config, annotations, noise) -> State        decoding: N captions without a word, one a photo
    step(params, config, state, words, parents) -> log_probs (R, V), State, look (R, L)
                                              R captions: those of `parents` (R,) in State with one of words (R,) more,
                                              photo by photo; both on the host. look is where it looked

What training remembers from one pass to the next (a moving baseline) comes in as noise.baseline and goes out as
cache.baseline (and told.baseline), all (); None where there is nothing yet.
"""

from typing import NamedTuple


class Batch(NamedTuple):
    """What a minibatch says.

    annotations (N, L, D), captions (N, T+1) int with <start> first and <end> last, mask (N, T) 1 where a word counts.
    """

    annotations: object
    captions: object
    mask: object


class State(NamedTuple):
    """Where decoding stands with R captions of N photos, any number of each.

    `photo` holds arrays (N, ...) that a photo's captions share, `captions` arrays (R, ...), a row for each; photos (R,)
    says whose it is, rising, on the host.
    """

    photo: tuple
    captions: tuple
    photos: object
