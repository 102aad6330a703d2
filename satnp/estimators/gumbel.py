"""Sampling from the softmax of scores as an argmax: s = argmax_i (e_i + g_i), g_i = -log(-log u_i), u_i uniform."""

from satnp.arrays.backend import xp_of
from satnp.layers import softmax


def draw(scores, gumbel):
    """s ~ Multinoulli(softmax(e)), as one-hot rows

    scores (..., L), gumbel (..., L) -> sample (..., L)

    gumbel holds samples of the standard Gumbel distribution. If all are 0, the largest score is chosen; if one is infinity,
    its location is chosen. A score of minus infinity is never chosen. Source: Gumbel 1954; Maddison, Tarlow & Minka 2014.
    """
    xp = xp_of(scores)
    chosen = (scores + gumbel).argmax(axis=-1)
    return (xp.arange(scores.shape[-1]) == chosen[..., None]).astype(gumbel.dtype)


def straight_through(dsample, scores, gumbel, temperature):
    """The gradient of softmax((e + g) / temperature); the gradient of the sample itself is zero almost everywhere.

    dsample (..., L), scores (..., L), gumbel (..., L) -> dscores (..., L)

    Biased, with low variance. Source: Jang, Gu & Poole 2017, straight-through Gumbel-softmax.
    """
    soft = softmax((scores + gumbel) / temperature)
    return soft * (dsample - (soft * dsample).sum(axis=-1, keepdims=True)) / temperature
