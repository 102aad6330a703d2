"""How visual words are, for a captioner with a sentinel: 1 - beta_t, the attention that a word gives to the photo."""

from collections import defaultdict

LEAST = 10  # occurrences of a word in the table


def visual(caption):
    """1 - beta_t of each word: model.Caption -> (T,)"""
    return caption.alpha.sum(axis=(1, 2))[: len(caption.words)]  # alpha may have a map for <end>


def visual_words(captions, least=LEAST):
    """Mean of 1 - beta_t over the occurrences of each word: [model.Caption] -> [(word, mean, count)], largest mean first

    Words with fewer than `least` occurrences are left out.

    Source: Lu et al. 2017, section 5.4, the visual grounding probability.
    """
    found = defaultdict(list)
    for caption in captions:
        for word, value in zip(caption.words, visual(caption), strict=True):
            found[word].append(float(value))
    table = [(word, sum(values) / len(values), len(values)) for word, values in found.items() if len(values) >= least]
    return sorted(table, key=lambda row: (-row[1], row[0]))
