"""Systems that describe photos without a neural decoder: retrieval, templates, detectors, ranking. One file for each paper.

Each system in EARLY is a module, and is named like a captioner wherever one is named. In place of the interface of
captioners/contract.py it has

    Config                            frozen dataclass of sizes and choices. V and D come from the vocabulary and the encoder
    fit(config, photos) -> config, params     learns from Photos. Sizes of the config that follow from these have their names
                                              in SIZES; fit sets them
    shapes(config) -> {name: shape}           of the parameters, float32; word ids in them are exact up to 2^24
    describe(params, config, annotations) -> list of N decoding.Decoded       annotations (N, L, D); without probability, the
                                              log_prob of a Decoded is None, and so are the alphas if it knows no places
    SAYS_WORDS                                optional, True for a system that makes sentences of single words, so that its
                                              vocabulary leaves out rare words like a captioner's; the others keep all words
    MIRRORS                                   optional, True for a system that also learns from mirrored photos
    found_in(params, config, annotations)     optional: for each photo [(word ids, box)] of the objects that it found, with
                                              boxes (x0, y0, x1, y1) in shares of the photo's sides
"""

from satnp.early import babytalk, every_picture, fang, ranking, retrieval, trim

EARLY = {
    "every_picture": every_picture, "babytalk": babytalk, "retrieval": retrieval, "trim": trim, "fang": fang,
    "ranking": ranking,
}  # fmt: skip
