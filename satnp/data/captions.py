"""Captions as words, as ids and as batches."""

import re
from collections import Counter

import numpy as np

from satnp.errors import InputError

PAD, START, END, UNK = range(4)
SPECIALS = ("<pad>", "<start>", "<end>", "<unk>")
MAX_WORDS = 100  # of a caption in a file; Flickr8k's longest has 36

_PUNCTUATION = ".?!,:;-'`\""  # a word of nothing else is dropped
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "{": "-lcb-", "}": "-rcb-", "[": "-lsb-", "]": "-rsb-"}
_TYPED = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "--", "—": "--", "…": "..."})
_CLITICS = re.compile(r"(?<=\w)n't\b|'(?:s|m|d|ll|re|ve)\b|'n'|\bcan(?=not\b)")
_SIGNS = re.compile(
    r"""[!?;"`$%&=*~^]+ | [(){}[\]] | \#(?=\d)
    | [,:](?!\d) | (?<!\d)[,:]                                  # not in 1,000 and 12:30
    | (?<!\w)-+ | -+(?!\w)                                      # not in black-and-white
    | (?<!\w)'(?!\d|(?:s|m|d|ll|re|ve|n|em|til)\b) | (?<!'n)'(?!\w)
    | \.\.+ | (?<!\S)\.(?!\d)
    | (?<!\b[a-z])(?<!\b(?:mr|ms|dr|st|jr|sr|vs))(?<!\b(?:mrs|etc))\.(?!\w)  # not in d.c. and 3.5
    """,
    re.VERBOSE,
)


def tokenise(sentence):
    """The words of a sentence: lower case, without punctuation, brackets as -lrb- and the like, "don't" as do n't.

    Equal to coco-caption's tokeniser (the Penn Treebank's rules, Stanford CoreNLP 3.4.1) on the 35,000 captions of
    Flickr8k's training and validation photos, as they are and without the spaces around their punctuation.
    Differs: from it in rare abbreviations, and where it keeps "!!" as a word.
    """
    text = _SIGNS.sub(r" \g<0> ", _CLITICS.sub(r" \g<0> ", sentence.lower().translate(_TYPED)))
    return [_BRACKETS.get(word, word) for word in text.split() if word.strip(_PUNCTUATION)]


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
