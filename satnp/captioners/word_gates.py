"""E[y] W_x + b of the words that a search reads, computed once for each word of the vocabulary."""

import numpy as np

from satnp.arrays.backend import to_device, xp_of
from satnp.arrays.products import packed


class WordGates:
    """words (R,), host -> E[words] W_x + b (R, K). It stores the result of each word that it has met, (V, K) in all.

    product: x -> x W_x
    """

    def __init__(self, p, product=None):
        self.p, self.product, self.is_known = p, product or packed(p.W_x), np.zeros(len(p.E), bool)
        self.known = None

    def without_words(self):
        """Return a WordGates with the same weights that has met no word. Each thread needs one of its own."""
        return WordGates(self.p, self.product)

    def __call__(self, words):
        if self.known is None:
            self.known = xp_of(self.p.E).empty((len(self.p.E), self.p.W_x.shape[1]), dtype=self.p.E.dtype)
        xp, new = xp_of(self.known), np.unique(words[~self.is_known[words]])
        if len(new):
            self.is_known[new] = True
            new = to_device(new, xp)
            self.known[new] = self.product(self.p.E[new]) + self.p.b
        return self.known[to_device(words, xp)]
