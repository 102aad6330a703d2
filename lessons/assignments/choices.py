"""Hard attention draws its locations. No gradient passes through a draw, so the scores learn from the rewards."""

from itertools import product
from typing import NamedTuple

import numpy as np

from satnp.estimators.rewards import leave_one_out, total
from satnp.estimators.score_function import entropy_gradient, reinforce
from satnp.layers.softmax import softmax_forward


class BoundCache(NamedTuple):
    sample: object   # (P, T, L), every path as one-hot rows
    alpha: object    # (T, L)
    rewards: object  # (P,)
    p: object        # (P,), the probability of each path


def every_path(T, L):
    """All paths over L locations in T steps, as one-hot rows of integers: (L**T, T, L)."""
    return np.eye(L, dtype=np.int8)[list(product(range(L), repeat=T))]


def bound_forward(scores, rewards):
    """L_s = sum over all paths s of p(s) r(s),  p(s) = product over t of alpha_t[s_t],  alpha = softmax(scores)

    scores (T, L), rewards (L**T,) in the order of `every_path` -> bound ()

    Source: Xu et al. 2015, eq. 10, with r(s) = log p(y | s, a).
    """
    sample, (alpha, _) = every_path(*scores.shape), softmax_forward(scores)
    p = (sample * alpha).sum(axis=2).prod(axis=1)
    return (p * rewards).sum(), BoundCache(sample, alpha, rewards, p)


def bound_backward(dbound, cache):
    """dbound () -> dscores (T, L), drewards (L**T,)

    dscores is a mean of `reinforce` over all paths: the gradient from one sampled path is unbiased.
    """
    sample, alpha, rewards, p = cache
    T = len(alpha)
    cost = reinforce(sample, alpha, np.tile(rewards[:, None], (1, T)))  # of -r
    return -dbound * np.einsum("p,ptl->tl", p, cost), dbound * p


def choices_backward(scores, sample, log_p, mask, entropy_weight):
    """The gradient of the cost -(r + entropy_weight H), the mean over S samples of each of N captions, by leave-one-out.

    scores (S, T, N, L), sample (S, T, N, L) one-hot, log_p (S, T, N), mask (T, N) -> dscores (S, T, N, L)

    r is the sum of log p over the words of a caption; its baseline is the mean r of the other samples. H is summed over
    the steps that count; the gradient at a padded step is 0.

    Source: Xu et al. 2015, section 4.1; Kool, van Hoof & Welling 2019.
    """
    (S, _, N, _), (alpha, _) = scores.shape, softmax_forward(scores)
    rewards = np.stack([total(of_sample, mask) for of_sample in log_p])
    advantage = rewards - leave_one_out(rewards)
    share = np.broadcast_to(mask / (S * N), advantage.shape)
    return reinforce(sample, alpha, share * advantage) + entropy_gradient(scores, alpha, entropy_weight * share)
