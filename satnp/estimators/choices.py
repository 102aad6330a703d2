"""Hard attention's choices: the location of each step, its reward, and the gradient with respect to the scores.

`config` is the captioner's Config; its fields estimator, baseline, samples, reward, reward_weight, entropy_weight and
decoding are used. T steps, L locations, N rows: sample 0 of all captions, then sample 1 of all, and so on.
"""

from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.estimators.gumbel import draw
from satnp.estimators.rewards import after, leave_one_out, moving_average, to_go, total
from satnp.estimators.score_function import entropy, entropy_gradient, local_expectation, reinforce


class Hard(NamedTuple):
    """The choices of one forward pass, and the other arrays that score_gradients needs."""

    scores: object    # (T, N, L), e_t
    alphas: object    # (T, N, L), softmax of the scores
    looks: object     # (T, N, L), s_t, or alpha_t where the expected value was used
    gumbel: object    # (T, N, L), the Gumbel numbers with which s_t was drawn
    expected: object  # (N,), 1 where alpha_t was used in place of s_t
    log_p: object     # (T, N), log p of the words
    mask: object      # (T, N), 1 where a word counts
    ahead: object     # (T, N, L), log p of the word for each location (local_expectation), else None
    baseline: object  # (), b from the training steps before
    weights: object = None  # (T, N), Batch.weights: they replace the rewards


def choose(config, scores, alpha, gumbel=None, expected=None):
    """s_t ~ Multinoulli(alpha_t), or alpha_t where `expected` is 1

    scores (N, L), alpha (N, L), gumbel (N, L), expected (N,) -> look (N, L)

    Without gumbel nothing is drawn: look is the one-hot argmax of alpha_t if `config.decoding` is "argmax", else alpha_t.
    Source: Xu et al. 2015, eqs. 8-9.
    """
    if gumbel is None:
        return draw(scores, xp_of(scores).zeros_like(alpha)) if config.decoding == "argmax" else alpha
    sample = draw(scores, gumbel)
    return sample if expected is None else xp_of(scores).where(expected[:, None] > 0, alpha, sample)


def entropy_cost(config, hard):
    """-lambda_e sum_t H_t, the mean over the captions: (). Its gradient is a part of score_gradients."""
    return -config.entropy_weight * (hard.mask * entropy(hard.scores)).sum() / hard.mask.shape[1]


def next_baseline(config, hard):
    """b_k = 0.9 b_{k-1} + 0.1 r: the baseline of the next training step, ()"""
    return moving_average(hard.baseline, reward(config, total, hard)[0], 1 - hard.expected)


def score_gradients(config, hard):
    """The REINFORCE and entropy terms of dloss/de_t, for all steps at once -> dscores (T, N, L)

    With Batch.weights, a location has the weight of its word, in place of an advantage (self-critical training).
    Source: Xu et al. 2015, section 4.1.
    """
    share = hard.mask / hard.mask.shape[1]  # each word's weight in a mean over captions
    dscores = entropy_gradient(hard.scores, hard.alphas, config.entropy_weight * share)
    if hard.weights is not None:
        return dscores + reinforce(hard.looks, hard.alphas, hard.weights)
    if config.estimator == "gumbel_st":
        return dscores
    paid = config.reward_weight * share
    if config.estimator == "local_expectation":
        now = paid * (1 - hard.expected) / _words_counted(config, hard)
        weighted = paid * advantage(config, hard)
        return dscores + local_expectation(now[:, :, None] * hard.ahead, hard.looks, hard.alphas, weighted)
    return dscores + reinforce(hard.looks, hard.alphas, paid * advantage(config, hard))


# The part of a caption's log p that rewards a choice, for each estimator.
REWARDS = {"reinforce": total, "reward_to_go": to_go, "local_expectation": after}


def advantage(config, hard):
    """r - b of each choice: (T, N)

    Source: Xu et al. 2015, section 4.1.
    """
    part = REWARDS[config.estimator]
    rewards = reward(config, part, hard)
    if config.baseline == "none":
        return rewards
    if config.baseline == "moving_average":
        # b averages whole captions, so a part of a caption is compared with its share of the words
        return rewards - hard.baseline * part(hard.mask, hard.mask) / _length(hard)
    T, rows = rewards.shape
    of_samples = rewards.reshape(T, config.samples, -1).transpose(1, 0, 2)
    return rewards - leave_one_out(of_samples).transpose(1, 0, 2).reshape(T, rows)


def reward(config, part, hard):
    """r of each choice (T, N): log p of the words that `part` selects, divided by the caption's words if `config.reward` is
    "mean"."""
    return part(hard.log_p, hard.mask) / _words_counted(config, hard)


def _words_counted(config, hard):
    """The divisor of a reward: the caption's number of words (N,) for a mean, 1 for a sum."""
    return _length(hard) if config.reward == "mean" else 1


def _length(hard):
    """The number of words of each caption (N,), and 1 for a caption that is all padding."""
    return xp_of(hard.mask).maximum(hard.mask.sum(axis=0), 1)
