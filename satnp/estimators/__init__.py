"""Gradients through random choices: plain functions that return the gradient of the scores a choice was drawn from.

The choice is made with numbers that the caller draws on the host (`gumbel`), so a run can be repeated and a pass checked.
Every cost is minimised: C = -log-likelihood. A reward is a log-likelihood, or any number that is better when larger.
"""

from satnp.estimators.gumbel import draw, straight_through
from satnp.estimators.rewards import after, leave_one_out, moving_average, to_go, total
from satnp.estimators.score_function import entropy, entropy_gradient, local_expectation, reinforce
