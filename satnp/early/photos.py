"""What an early system learns from."""

from typing import NamedTuple


class Photos(NamedTuple):
    """Training photos, and validation photos for choices: annotations (N, L, D), host arrays of any float type; captions, of
    each photo a list of lists of word ids, <start> first and <end> last; words, those of the vocabulary; seed."""

    annotations: object
    captions: list
    val_annotations: object
    val_captions: list
    words: list
    seed: int = 0
