"""What every captioner speaks: its batch in training and its state in decoding (see design of satnp/captioners)."""

from typing import NamedTuple


class Batch(NamedTuple):
    """annotations (N, L, D), captions (N, T+1) int with <start> first and <end> last, mask (N, T) 1 where a word counts."""

    annotations: object
    captions: object
    mask: object


class State(NamedTuple):
    """Where decoding stands for N photos with B beams each.

    `photo` holds arrays (N, ...) that all beams of a photo share; `beams` holds arrays (N, B, ...) that follow the beams.
    """

    photo: tuple
    beams: tuple
