"""Rewards of choices, and the baselines that are subtracted from them.

A choice at step t cannot change the words before step t, so its reward may leave them out. A baseline may depend on
everything except the choice s that it multiplies; then E[b (s - alpha)] = 0, and the baseline adds no bias.
"""

from satnp.arrays.backend import xp_of


def total(log_p, mask):
    """r = sum over all steps of mask log p

    log_p (T, N), mask (T, N) -> rewards (T, N)

    Source: Xu et al. 2015, section 4.1.
    """
    return mask * 0 + (mask * log_p).sum(axis=0)


def to_go(log_p, mask):
    """R_t = sum from step t on of mask log p

    log_p (T, N), mask (T, N) -> rewards (T, N)
    """
    return (mask * log_p)[::-1].cumsum(axis=0)[::-1]


def after(log_p, mask):
    """R_t = sum after step t of mask log p

    log_p (T, N), mask (T, N) -> rewards (T, N)
    """
    return to_go(log_p, mask) - mask * log_p


def moving_average(baseline, reward, sampled, decay=0.9):
    """b_k = decay b_{k-1} + (1 - decay) mean of r over the images that were sampled

    baseline (), reward (N,), sampled (N,) -> baseline ()

    `sampled` is 1 or 0; if no image was sampled, b does not change. The gradient of step k uses b_{k-1}: a baseline that
    contains the reward it is subtracted from adds bias. Source: Xu et al. 2015, section 4.1.
    """
    count = sampled.sum()
    mean = (sampled * reward).sum() / xp_of(reward).maximum(count, 1)
    return xp_of(reward).where(count > 0, decay * baseline + (1 - decay) * mean, baseline)


def leave_one_out(rewards):
    """b_s = mean of the rewards of the other samples of the same image and caption; S must be 2 or more

    rewards (S, ...) -> baselines (S, ...)

    Source: Kool, van Hoof & Welling 2019.
    """
    return (rewards.sum(axis=0) - rewards) / (len(rewards) - 1)
