"""The doubly stochastic penalty: the weights of each location should sum to about 1 over a caption."""

from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.arrays.elementwise import elementwise


class PenaltyCache(NamedTuple):
    excess: object
    mask: object


def doubly_stochastic_forward(alphas, mask):
    """penalty = mean over N of sum_i (1 - sum_t mask_t alpha_ti)^2

    alphas (T, N, L), mask (T, N) -> penalty ()

    Source: Xu et al. 2015, eq. 14, second term, without lambda. A target of T/L instead of 1 gives
    another loss but the same gradient, because the weights of a step sum to 1.
    """
    excess = (mask[:, :, None] * alphas).sum(axis=0) - 1
    squares = xp_of(excess).dot(excess.ravel(), excess.ravel())
    return squares / excess.shape[0], PenaltyCache(excess, mask)


def doubly_stochastic_backward(dpenalty, cache):
    """dpenalty () -> dalphas (T, N, L); it needs the sum over all steps, so call it before the backward loop over steps."""
    excess, mask = cache
    return _spread(mask[:, :, None], excess, dpenalty, 2 / excess.shape[0])


@elementwise
def _spread(mask, excess, dpenalty, scale):
    return mask * (dpenalty * scale * excess)
