"""The attributes of photos: the commonest words of captions, without function words, and with tense and number merged."""

import numpy as np

# words that say nothing about a photo by themselves
FUNCTION_WORDS = frozenset("""
a about above across after against all along also among an and another any are around as at away back be been before
behind being below beside between both but by can do does doing down each five for four from front get gets getting go
goes going has have having he her hers him himself his how i if in inside into is it its itself just like more most near
next no not of off on one onto or other others out outside over own past several she so some someone something such than
that the their them themselves then there these they this those three through to together too toward towards two under
up upon very was we were what when where which while who whose will with within without you your 's n't
""".split())
IRREGULAR = {"men": "man", "women": "woman", "children": "child", "feet": "foot", "ran": "run", "sat": "sit"}


def root(word):
    """What tense and number leave of a word: runs, running, run -> run; riding, rides, ride -> rid

    In this order: "ies" and "ied" become "y"; a final "s" goes, but not from "ss", "us" or "is"; a final "ing" or "ed" goes
    if at least three letters with a vowel stay, but not from "eed"; then a final "e", then one of two equal final letters.
    Pitfall: nouns such as "building" and "wedding" are merged with their verbs, and irregular verbs, except a few, are not.
    """
    word = IRREGULAR.get(word, word)
    if len(word) > 4 and word.endswith(("ies", "ied")):
        word = word[:-3] + "y"
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) >= 3 and set(stem) & set("aeiouy") and not word.endswith("eed"):
            word = stem
            break
    word = word.removesuffix("e") if len(word) > 3 else word
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def attributes_of(words, K):
    """The attribute of each word: `words`, the V words of a Vocabulary, in falling order of frequency -> (V,) int

    Attribute k has the words with the k-th of the K commonest roots; other words have -1. A root is as common as its
    commonest word, so the attributes follow from the vocabulary alone.
    """
    found, roots = np.full(len(words), -1), {}
    for i, word in enumerate(words):
        if word.startswith("<") or word in FUNCTION_WORDS or not any(map(str.isalpha, word)):
            continue
        k = roots.setdefault(root(word), len(roots))
        if k < K:
            found[i] = k
    return found


def labels(said, attributes, K):
    """said (N, V), which words the captions of each photo have; attributes (V,) -> (N, K), 1.0 where a word is said"""
    y = np.zeros((len(said), K))
    rows, words = np.nonzero(said & (attributes >= 0))
    y[rows, attributes[words]] = 1
    return y
