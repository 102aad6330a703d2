"""Fixtures shared by all tests: the array libraries that every array test runs on, and the optional shared data."""

import importlib
import os
from pathlib import Path

import numpy as np
import pytest

from satnp.arrays.backend import find_device
from tests.small_world import use_tiny_encoders


def _cuda():
    xp, reason = find_device("auto")
    if xp is np:
        if os.environ.get("SATNP_REQUIRE_GPU") == "1":
            pytest.fail(f"SATNP_REQUIRE_GPU=1, but {reason}")
        pytest.skip(reason)
    return xp


@pytest.fixture(params=["numpy", "strict", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request):
    """Each array library in turn: NumPy, the strict stand-in for CuPy, and CuPy itself (mark gpu)."""
    if request.param == "numpy":
        return np
    return importlib.import_module("tests.strict") if request.param == "strict" else _cuda()


@pytest.fixture
def cuda():
    """CuPy, for a test with the mark gpu."""
    return _cuda()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module", params=["tiny", pytest.param("whole", marks=pytest.mark.slow)])
def encoders(request):
    """The encoders of new models: tiny ones, and those of satnp itself (mark slow)."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "tiny":
            use_tiny_encoders(patch)
        yield request.param


@pytest.fixture(scope="module")
def no_figures():
    """A training of the module ends without its figures, which other modules look at."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("curves_figure", "diagnostics_figure"):
            patch.setattr(f"satnp.figures.{name}", lambda records, path: None)
        yield


@pytest.fixture(scope="session")
def shared_data():
    """The folder named by SATNP_DATA: Flickr8k, SqueezeNet weights and golden values."""
    folder = os.environ.get("SATNP_DATA")
    if not folder:
        pytest.skip("SATNP_DATA is not set: no folder with photos, public weights and golden values")
    return Path(folder)
