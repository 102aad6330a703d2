"""The interface of a captioner, for training, decoding, evaluation and figures. A captioner is a module, or an object
such as recurrent.Recurrent, with

    Config                                    frozen dataclass: sizes and choices, with the paper's values as defaults
    Noise, draw_noise(config, T, N, L, rng)   all random numbers of a forward pass (dropout masks, locations), as host
                                              arrays (N,), or (T, S*N, ...) sample by sample
    shapes(config) -> {name: shape}           of the parameters
    init(config, rng) -> Parameters
    forward(params, config, batch, noise) -> loss, cache      cache.nll is the loss without penalties, in nats a caption
    backward(cache, grads, frozen, dloss) -> dannotations     adds dloss times the gradient of the loss to grads; returns
                                              None if the encoder is frozen. Frees parts of the cache after use, if the
                                              caller holds no reference to it. dloss is 1, or the part of a minibatch that
                                              this pass has
    diagnostics(cache.told) -> {name: ()}     statistics of a forward pass for the log; `told` is a small part of the cache
    weights(cache.told) -> {name: ()}         the number of values in each statistic's and the baseline's mean: weights
                                              with which the trainer averages the statistics of several ranks
    decoding_noise(config, N, L, steps, rng)  all random numbers of decoding, a host array, or None
    start(params, config, annotations, noise) -> State        decoding: N empty captions, one for each photo
    step(params, config, state, words, parents) -> log_probs (R, V), State, look (R, L)
                                              continues caption parents[r] of State with words[r]; parents and words (R,)
                                              are host arrays, ordered by photo. look: the weights of the locations,
                                              None for a captioner without attention. They sum to 1, or, if Config has a
                                              `sentinel` that is True, to 1 - beta, with beta the weight of the sentinel
    prepare(params, config, corpus)           optional, or None: changes initial parameters in place. The trainer calls it
                                              once, before the first step, with a Corpus of the training
    corpus                                    with `prepare`: the largest number of photos of the Corpus
    channels(params, config, batch) -> beta (T, N, D), maps (T, N, L, D)      optional, or None: the weights of the
                              channels when the captioner says the words of the batch, and the maps whose channels they
                              weight
    gates(params, config, batch) -> beta (T, N)      optional: the weight of the context when the captioner says the words
                              of the batch, with locations that are not drawn

The state that training carries from one pass to the next (a moving baseline) enters as noise.baseline and leaves as
cache.baseline and told.baseline, each () or None.
"""

from typing import NamedTuple


class Batch(NamedTuple):
    """A minibatch: annotations (N, L, D), captions (N, T+1) int with <start> first and <end> last, mask (N, T).

    mask is 1 where a word counts. weights (N, T), of any sign, replace mask / N as the weight of each word's -log p and, if
    hard attention draws the locations, of the -log p of the location of that step (self-critical training: Rennie et al.
    2017). given (N, T) replaces captions[:, :-1] as the words that the captioner reads (scheduled sampling: Bengio et al.
    2015). smoothing, never and temperature are those of vocabulary_forward; cache.nll is without smoothing. late
    (word, n): this word has probability 0 as one of the first n words of a caption.
    """

    annotations: object
    captions: object
    mask: object
    weights: object = None
    given: object = None
    smoothing: float = 0.0
    never: tuple = ()
    temperature: float = 1.0
    late: tuple = (0, 0)


class Corpus(NamedTuple):
    """What a captioner may know before the first step: some training photos, and the words of the training captions.

    annotations (N, L, D) of the photos; said (N, V), bool: whether a caption of the photo has the word; counts (V,): the
    number of times that all training captions have each word (<end> included, <start> not); words: the V words, in falling
    order of counts after <pad> <start> <end> <unk>. said and counts are host arrays.
    """

    annotations: object
    said: object
    counts: object
    words: list


class State(NamedTuple):
    """Decoding: R captions of N photos, any number of captions for each.

    `photo` holds arrays (N, ...), shared by the captions of a photo; `captions` holds arrays (R, ...), a row for each
    caption; photos (R,), a host array in rising order, is the photo of each caption. `weights` is what all steps use of the
    parameters, in the form in which `start` has prepared them; word_gates is a WordGates, or None.
    """

    photo: tuple
    captions: tuple
    photos: object
    weights: object = None
    word_gates: object = None

    def share(self, rows):
        """Return a State of the captions in the slice `rows`, for one core. It does not copy the photos and the weights."""
        word_gates = self.word_gates and self.word_gates.without_words()
        captions = tuple(x[rows] for x in self.captions)
        return self._replace(captions=captions, photos=self.photos[rows], word_gates=word_gates)
