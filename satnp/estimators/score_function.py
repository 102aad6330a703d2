"""The score-function estimator with respect to the scores e, where d log softmax(e)[s] / de = s - alpha."""

from satnp.arrays.backend import xp_of
from satnp.layers import log_softmax


def reinforce(sample, alpha, advantage):
    """de = -(r - b) (s - alpha), an estimate of the gradient of the cost -E[r]; r - b is the advantage.

    sample (..., L), alpha (..., L), advantage (...,) -> dscores (..., L)

    Source: Williams 1992; Xu et al. 2015, section 4.1.
    """
    return -advantage[..., None] * (sample - alpha)


def local_expectation(ahead, sample, alpha, advantage):
    """de = -[alpha * (l - alpha . l) + (R - b) (s - alpha)]

    ahead (..., L), sample (..., L), alpha (..., L), advantage (...,) -> dscores (..., L)

    ahead is l_i = log p of this word if the choice is i; advantage is R - b, where R is the reward of the words after this
    one. Rao-Blackwellised: the reward of this word is averaged over all choices, the reward R is sampled.
    Source: Titsias & Lazaro-Gredilla 2015, local expectation gradients.
    """
    return reinforce(sample, alpha, advantage) - alpha * (ahead - (alpha * ahead).sum(axis=-1, keepdims=True))


def entropy(scores):
    """H = -sum_i alpha_i log alpha_i of alpha = softmax(e), in nats.

    scores (..., L) -> H (...,)
    """
    return -_alpha_log_alpha(scores).sum(axis=-1)


def entropy_gradient(scores, alpha, weight):
    """de = weight alpha * (log alpha + H), the gradient of the cost -weight H, which makes alpha more uniform.

    scores (..., L), alpha (..., L), weight (...,) -> dscores (..., L)

    Source: Xu et al. 2015, section 4.1 (the term lambda_e).
    """
    x = _alpha_log_alpha(scores)
    return weight[..., None] * (x - alpha * x.sum(axis=-1, keepdims=True))


def _alpha_log_alpha(scores):
    """alpha * log alpha, with log alpha from log_softmax; where alpha is 0 the result is 0 and not 0 times infinity."""
    xp, log_alpha = xp_of(scores), log_softmax(scores)
    alpha = xp.exp(log_alpha)
    return alpha * xp.where(alpha == 0, 0, log_alpha)
