"""Captions as words, as ids and as batches."""

from collections import Counter

import numpy as np

from satnp.errors import InputError

PAD, START, END, UNK = range(4)
SPECIALS = ("<pad>", "<start>", "<end>", "<unk>")

_PUNCTUATION = frozenset("'' ' `` ` . ? ! , : - -- ... ; \"".split())
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "{": "-lcb-", "}": "-rcb-", "[": "-lsb-", "]": "-rsb-"}


def tokenise(sentence):
    """The words of a sentence: lower case, split at spaces, without punctuation, brackets as -lrb- and the like.

    Equal to coco-caption's tokeniser on all but 9 of Flickr8k's 40,455 captions. It expects, as in Flickr8k, spaces
    around punctuation: "a dog ." and not "a dog.".
    """
    return [_BRACKETS.get(word, word) for word in sentence.lower().split() if word not in _PUNCTUATION]


class Vocabulary:
    """The words a model knows; a word's id is its place in `words`, where <pad> <start> <end> <unk> come first.

    Raises: InputError when `words` do not start with these four, or are not different strings.
    """

    def __init__(self, words):
        self.words = list(words)
        if tuple(self.words[:4]) != SPECIALS:
            raise InputError(f"the vocabulary starts with {self.words[:4]}: it must start with {list(SPECIALS)}")
        if not all(isinstance(word, str) for word in self.words) or len(set(self.words)) < len(self.words):
            raise InputError("the vocabulary has a word twice or something that is no word: give different strings")
        # without the specials: "<end>" written inside a caption is an unknown word, not its end
        self._ids = {word: i for i, word in enumerate(self.words) if i >= len(SPECIALS)}

    @classmethod
    def build(cls, captions, min_count=5, max_words=None):
        """The words seen at least `min_count` times in `captions` (lists of words), at most the `max_words` commonest.

        In falling order of their counts, equally common ones by the alphabet; the specials are not counted.
        """
        for name, limit in (("min_count", min_count), ("max_words", 1 if max_words is None else max_words)):
            if limit < 1:
                raise InputError(f"{name} is {limit}: give 1 or more")
        counts = Counter(word for caption in captions for word in caption if word not in SPECIALS)
        kept = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
        return cls([*SPECIALS, *kept[:max_words]])

    def __len__(self):
        return len(self.words)

    def encode(self, words):
        """The ids of a caption's words between <start> and <end>; a word that is not in the vocabulary is <unk>."""
        return [START, *(self._ids.get(word, UNK) for word in words), END]

    def decode(self, ids):
        """The words of a caption's ids up to the first <end>, without specials.

        Raises: InputError for an id that the vocabulary does not have.
        """
        words = []
        for i in ids:
            if not 0 <= i < len(self.words):
                raise InputError(f"word id {i} is not in this vocabulary of {len(self)} words: use the model's own one")
            if i == END:
                break
            if i >= len(SPECIALS):
                words.append(self.words[i])
        return words


def pad(captions):
    """Captions of different lengths as one batch: lists of ids -> captions (N, T+1) int64, mask (N, T) float32.

    T is the largest number of words to predict, <end> included; mask[:, t] is 1 where captions[:, t+1] is such a word.
    Raises: InputError when there is no caption, or one is not at least two ids that are 0 or more.
    """
    if not captions:
        raise InputError("there is no caption in the batch: give at least one")
    lengths = np.array([len(ids) for ids in captions])
    if lengths.min() < 2:
        raise InputError(f"a caption has {lengths.min()} ids: give at least <start> and one word to predict")
    batch = np.full((len(captions), lengths.max()), PAD, np.int64)
    for row, ids in zip(batch, captions, strict=True):
        row[: len(ids)] = ids
    if batch.min() < 0:
        raise InputError(f"a caption has the word id {batch.min()}: ids are 0 or more")
    mask = np.arange(1, lengths.max()) < lengths[:, None]
    return batch, mask.astype(np.float32)


def batches_of_one_length(lengths, batch_size, rng):
    """One epoch as index arrays: every caption once, at most `batch_size` of one length together, in random order.

    lengths (N,). Shuffling the batches draws each length in proportion to its captions.
    Source: Xu et al. (2015), section 4.3, which draws a length, then captions of it.
    """
    lengths = np.asarray(lengths)
    if batch_size < 1:
        raise InputError(f"the batch size is {batch_size}: give 1 or more")
    if not lengths.size:
        raise InputError("there is no caption to draw batches from: give at least one")
    batches = []
    for length in np.unique(lengths):
        indices = rng.permutation(np.flatnonzero(lengths == length))
        batches += [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]
