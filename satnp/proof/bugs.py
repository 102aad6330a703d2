"""The bug zoo: mistakes that people make in backward passes. A gradient check must catch each and name its kind.

BUGS joins the tables in layers.py, encoders.py, estimators.py, captioners.py and early.py beside this file.
"""

from dataclasses import replace

import numpy as np

from satnp.proof import checks
from satnp.proof.gradcheck import Draws, check_draws, check_gradients
from satnp.proof.planting import Bug, in_place, planted

__all__ = ["BUGS", "Bug", "check", "in_place", "planted"]

BUGS = [bug for room in checks.ROOMS for bug in room.BUGS]


def check(bug):
    """Run the gradient check of `bug` with the bug planted -> gradcheck.Result"""
    case = checks.find(bug.case)
    with in_place(bug) as broken, np.errstate(invalid="ignore", divide="ignore"):
        if isinstance(case, Draws):
            return check_draws(case)
        return check_gradients(replace(case, backward=broken) if case.backward is bug.function else case)
