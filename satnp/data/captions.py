"""Captions as words, as ids and as batches."""

import re
import unicodedata
from collections import Counter

import numpy as np

from satnp.errors import InputError

PAD, START, END, UNK = range(4)
SPECIALS = ("<pad>", "<start>", "<end>", "<unk>")
MAX_WORDS = 100  # limit for a caption in a file; Flickr8k's longest caption has 36

_PUNCTUATION = ".?!,:;-'`\"·"  # tokenise drops words that consist only of these
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "{": "-lcb-", "}": "-rcb-", "[": "-lsb-", "]": "-rsb-"}
_ASCII = {
    "'": "’‘ʼ＇´׳՚", '"': "“”", "-": "‐‑－−־", "--": "–—", "...": "…", ",": "，٬", ".": "٫", ":": "：", "%": "％٪",
    "&": "＆", "#": "＃", "@": "＠", "/": "／", "*": "＊", "~": "～", "$": "＄",
    "": "՛՜՞",  # Armenian has these marks inside of words
}  # fmt: skip


class _Typed(dict):
    """What str.translate puts for a character; a new character is looked up when it first occurs."""

    def __missing__(self, code):
        sign = chr(code)
        kind = unicodedata.category(sign)
        if kind == "Cf" or kind == "Cc" and not sign.isspace() or "VARIATION SELECTOR" in unicodedata.name(sign, ""):
            self[code] = ""  # it has no width
        else:
            self[code] = " " if kind.startswith("P") and not sign.isascii() and sign != "·" else sign
        return self[code]


_TYPED = _Typed({ord(sign): typed for typed, signs in _ASCII.items() for sign in signs})
_CLITICS = re.compile(r"(?<=\w)n't\b|'(?:s|m|d|ll|re|ve)\b|'n'|\bcan(?=not\b)")
_SIGNS = re.compile(
    r"""[!?;"`$%&=*~^]+ | [(){}[\]] | \#(?=\d)
    | [,:](?!\d) | (?<!\d)[,:]                                  # not in 1,000 and 12:30
    | (?<!\w)[-·]+ | [-·]+(?!\w)                                # not in black-and-white
    | (?<!\w)'(?!\d|(?:s|m|d|ll|re|ve|n|em|til)\b) | (?<!'n)'(?!\w)
    | \.\.+ | (?<!\S)\.(?!\d)
    | (?<!\b[a-z])(?<!\b(?:mr|ms|dr|st|jr|sr|vs))(?<!\b(?:mrs|etc))\.(?!\w)  # not in d.c. and 3.5
    """,
    re.VERBOSE,
)


def _nfc(text):
    return unicodedata.normalize("NFC", text)


class Words(str):
    """A caption whose words, with spaces between them, are already those of its author's tokeniser."""


def tokenise(sentence):
    """Split a sentence into lower-case words without punctuation; "(" becomes -lrb-, "don't" becomes do n't.

    The words are in Unicode's form NFC. Punctuation outside ASCII is dropped too, and so are characters without width.
    `Words` are only split at their spaces.

    Gives the same words as coco-caption's tokeniser (the Penn Treebank's rules, Stanford CoreNLP 3.4.1) on the 35,000
    captions of Flickr8k's training and validation photos, with and without the spaces around their punctuation.
    Differs: in rare abbreviations; coco-caption's tokeniser keeps "!!" as a word.
    """
    if isinstance(sentence, Words):
        return _nfc(sentence).split()
    text = _nfc(sentence.lower().translate(_TYPED))
    text = _SIGNS.sub(r" \g<0> ", _CLITICS.sub(r" \g<0> ", text))
    return [_BRACKETS.get(word, word) for word in text.split() if word.strip(_PUNCTUATION)]


class Vocabulary:
    """The words that a model knows. The id of a word is its index in `words`, which starts with <pad> <start> <end> <unk>.

    Words that differ only in how Unicode writes them are one word; `encode` and `decode` use the form NFC, as tokenise.

    Raises: InputError when `words` does not start with these four, or has an entry twice or one that is not a string.
    """

    def __init__(self, words):
        self.words = list(words)
        if tuple(self.words[:4]) != SPECIALS:
            raise InputError(f"the vocabulary starts with {self.words[:4]}: it must start with {list(SPECIALS)}")
        if not all(isinstance(word, str) for word in self.words) or len(set(self.words)) < len(self.words):
            raise InputError("the vocabulary has a word twice, or an entry that is not a string: give different strings")
        # the specials are left out, so the text "<end>" inside a caption is an unknown word and not the end
        self._ids = {}
        for i, word in enumerate(self.words[len(SPECIALS) :], len(SPECIALS)):
            self._ids.setdefault(_nfc(word), i)

    @classmethod
    def build(cls, captions, min_count=5, max_words=None):
        """Build a vocabulary of the words that occur at least `min_count` times in `captions` (lists of words).

        It keeps at most the `max_words` most frequent words, in falling order of frequency; equally frequent words are in
        alphabetical order. Specials in the captions are ignored.
        """
        for name, limit in (("min_count", min_count), ("max_words", 1 if max_words is None else max_words)):
            if limit < 1:
                raise InputError(f"{name} is {limit}: give 1 or more")
        counts = Counter(_nfc(word) for caption in captions for word in caption if word not in SPECIALS)
        kept = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
        return cls([*SPECIALS, *kept[:max_words]])

    def __len__(self):
        return len(self.words)

    def encode(self, words):
        """Return the ids of <start>, the words and <end>; a word that is not in the vocabulary becomes <unk>."""
        return [START, *(self._ids.get(_nfc(word), UNK) for word in words), END]

    def decode(self, ids):
        """Return the words of `ids` up to the first <end>, without specials.

        Raises: InputError for an id that is not in the vocabulary.
        """
        words = []
        for i in ids:
            if not 0 <= i < len(self.words):
                raise InputError(f"word id {i} is not in this vocabulary of {len(self)} words: use the model's vocabulary")
            if i == END:
                break
            if i >= len(SPECIALS):
                words.append(_nfc(self.words[i]))
        return words


def pad(captions):
    """Pad captions of different lengths to one batch: lists of ids -> captions (N, T+1) int64, mask (N, T) float32.

    T is the largest number of words to predict, including <end>. mask[n, t] is 1 where captions[n, t+1] is a word to
    predict, and 0 where it is padding.
    Raises: InputError when there is no caption, or when a caption has fewer than two ids or a negative id.
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
    """Draw the minibatches of one epoch in random order: index arrays of at most `batch_size` captions of equal length.

    lengths (N,); every caption is in one minibatch. Because the minibatches are shuffled, each length is drawn in
    proportion to its number of captions.
    Source: Xu et al. (2015), section 4.3, which draws a length, then captions of that length.
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
