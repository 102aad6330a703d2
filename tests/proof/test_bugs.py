"""The bug zoo: each planted mistake is caught, and called by its kind."""

from dataclasses import replace

import pytest

from satnp.proof import bugs, checks, gradcheck

WHOLE = [bug for bug in bugs.BUGS if bug.case.startswith("captioners/")]


LONG = [bug for bug in bugs.BUGS if bug in WHOLE or bug.case.startswith("expectations/")]


@pytest.mark.parametrize(
    "bug", [pytest.param(bug, marks=[pytest.mark.slow] * (bug in LONG)) for bug in bugs.BUGS], ids=lambda bug: bug.name
)
def test_a_planted_bug_is_caught_and_named(bug):
    result = bugs.check(bug)
    assert not result.passed and result.error > gradcheck.TOLERANCE[result.method]
    assert {finding.kind for finding in result.findings} == bug.kinds


def test_the_zoo_holds_every_kind_and_no_name_twice():
    assert len({bug.name for bug in bugs.BUGS}) == len(bugs.BUGS) >= 24
    kinds = {"missing", "shape", "non-finite", "zero", "sign", "factor", "transposed", "mask", "block", "scattered"}
    assert set.union(*(bug.kinds for bug in bugs.BUGS)) == kinds | {"term", "mutation", "distribution"}


@pytest.mark.slow
def test_a_planted_function_without_its_bug_passes_and_nothing_stays_planted():
    for bug in bugs.BUGS:
        assert bugs.check(bug._replace(new=bug.old)).passed
    for name in {bug.case for bug in bugs.BUGS}:
        assert all(result.passed for result in checks.results(checks.find(name)))


def test_a_fragment_must_occur_exactly_once():
    with pytest.raises(ValueError, match="occurs 0 times in affine_backward, not once"):
        bugs.planted(bugs.BUGS[0]._replace(old="dout @ V.T"))


@pytest.mark.parametrize("bug", WHOLE, ids=lambda bug: bug.name)
def test_one_random_direction_catches_them_too(bug, monkeypatch):
    case = checks.find(bug.case)
    monkeypatch.setattr(checks, "find", lambda name: replace(case, direction=True))
    assert not bugs.check(bug).passed
