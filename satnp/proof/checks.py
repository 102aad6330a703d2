"""All gradient checks of satnp, for the command `satnp gradcheck` and for the tests.

The cases are in layers.py, encoders.py, estimators.py, captioners.py and early.py beside this file, together with the
mistakes that they must catch. A case added there is checked without a change here.
"""

from satnp.errors import InputError
from satnp.proof import captioners, early, encoders, estimators, layers
from satnp.proof.gradcheck import CENTRAL_DIFFERENCE, COMPLEX_STEP, Draws, check_draws, check_gradients

ROOMS = layers, estimators, encoders, captioners, early
SECOND_OPINION = [name for room in ROOMS for name in getattr(room, "SECOND_OPINION", ())]


def cases():
    """Every Case and Draws. Those of the captioners are made at each call, from CAPTIONERS as it is then."""
    return [case for room in ROOMS for case in (room.cases() if hasattr(room, "cases") else room.CASES)]


def run(names=()):
    """Check the cases whose name contains one of `names`, or all cases, and print a row for each -> list of Results.

    Raises InputError for a name that no case contains.
    """
    table = cases()
    for name in names:
        if not any(name in case.name for case in table):
            groups = ", ".join(sorted({case.name.partition(" ")[0] for case in table}))
            raise InputError(f"no gradient check is called {name!r}; give a part of a name, such as {groups}")
    found = []
    for case in table:
        if not names or any(name in case.name for name in names):
            for result in results(case):
                mark = "ok" if result.passed else "WRONG"
                print(f"{mark:<6}{result.error:<9.1e}{result.method.split()[0]:<9}{case.name}", flush=True)
                for finding in result.findings:
                    print(f"      {finding.sentence}")
                found.append(result)
    return found


def results(case):
    """The Results of one case: by complex step, and for the cases in SECOND_OPINION also by central differences."""
    if isinstance(case, Draws):
        return [check_draws(case)]
    methods = (COMPLEX_STEP, CENTRAL_DIFFERENCE) if case.name in SECOND_OPINION else (COMPLEX_STEP,)
    return [check_gradients(case, method=method) for method in methods]


def find(name):
    """The case called `name`."""
    return next(case for case in cases() if case.name == name)
