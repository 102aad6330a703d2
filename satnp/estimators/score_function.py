"""The score-function estimator in the space of the scores, where it is simple: d log softmax(e)[s] / de = s - alpha."""

from satnp.arrays.backend import xp_of
from satnp.layers import log_softmax


def reinforce(sample, alpha, advantage):
    """de = -(r - b) (s - alpha), the gradient of the cost -E[r] through the choice; r - b is its advantage.

    sample (..., L), alpha (..., L), advantage (...,) -> dscores (..., L)

    Source: Williams 1992; Xu et al. 2015, section 4.1.
    """
    return -advantage[..., None] * (sample - alpha)


def local_expectation(ahead, sample, alpha, advantage):
    """de = -[alpha * (l - alpha . l) + (R - b) (s - alpha)]: the word said now by its expectation, the rest by the sample.

    ahead (..., L), sample (..., L), alpha (..., L), advantage (...,) -> dscores (..., L)

    ahead is l_i = log p of this word had the choice been i; the advantage is that of the reward AFTER this word.
    Rao-Blackwellised: what this word is worth is averaged over the choice instead of sampled.
    Source: Titsias & Lazaro-Gredilla 2015, local expectation gradients.
    """
    return reinforce(sample, alpha, advantage) - alpha * (ahead - (alpha * ahead).sum(axis=-1, keepdims=True))


def entropy(scores):
    """H = -sum_i alpha_i log alpha_i of alpha = softmax(e), in nats.

    scores (..., L) -> H (...,)
    """
    return -_alpha_log_alpha(scores).sum(axis=-1)


def entropy_gradient(scores, alpha, weight):
    """de = weight alpha * (log alpha + H), the gradient of the cost -weight H: it spreads alpha.

    scores (..., L), alpha (..., L), weight (...,) -> dscores (..., L)

    Source: Xu et al. 2015, section 4.1 (the term lambda_e).
    """
    x = _alpha_log_alpha(scores)
    return weight[..., None] * (x - alpha * x.sum(axis=-1, keepdims=True))


def _alpha_log_alpha(scores):
    """log alpha is the log-softmax, never log(alpha); where alpha is 0 the product is 0, not 0 times infinity."""
    xp, log_alpha = xp_of(scores), log_softmax(scores)
    alpha = xp.exp(log_alpha)
    return alpha * xp.where(alpha == 0, 0, log_alpha)
