"""When a score says something about a model."""

import pytest

from satnp.data.split import Split
from satnp.model import Caption
from satnp.scores.evaluation import cannot_tell


@pytest.mark.parametrize(("cider", "why"), [(0.0, "CIDEr is 0"), (9.8e-10, "CIDEr is 0"), (0.01, None)])
def test_a_score_that_is_0_but_for_rounding_cannot_tell_two_models_apart(cider, why):
    split = Split([f"{n}.jpg" for n in range(25)], [[["a", "dog"]]] * 25, [None] * 25)
    captions = [Caption(["a", "cat"], -1.0, None)] * 25
    assert cannot_tell("CIDEr", {"CIDEr": cider}, split, captions) == why
