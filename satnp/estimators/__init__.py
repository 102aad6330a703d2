"""Gradient estimators for random choices: each returns a gradient with respect to the scores of the choice.

The caller draws the random numbers (`gumbel`) on the host, so that a run can be repeated and a pass can be checked.
Costs are minimised: C = -log-likelihood. A reward is a log-likelihood, or any number that is better when larger.
"""

from satnp.estimators.gumbel import draw, straight_through
from satnp.estimators.rewards import after, leave_one_out, moving_average, to_go, total
from satnp.estimators.score_function import entropy, entropy_gradient, local_expectation, reinforce
