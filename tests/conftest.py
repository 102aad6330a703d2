"""Fixtures shared by all tests: the array libraries that every array test runs on, and the optional shared data."""

import importlib
import os
from pathlib import Path

import numpy as np
import pytest

from satnp.arrays.backend import find_device


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


@pytest.fixture(scope="session")
def shared_data():
    """The folder named by SATNP_DATA: Flickr8k, SqueezeNet weights and golden values."""
    folder = os.environ.get("SATNP_DATA")
    if not folder:
        pytest.skip("SATNP_DATA is not set: no folder with photos, public weights and golden values")
    return Path(folder)
