"""Fixtures of the tests of the layers."""

import pytest

from satnp.arrays import threads


@pytest.fixture(params=[1, 2])
def cores(request, monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: request.param)
    threads._pool.cache_clear()
    yield request.param
    threads._pool.cache_clear()
