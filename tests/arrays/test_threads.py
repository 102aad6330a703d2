"""Parts on all cores: in their order, each once, BLAS with one thread inside, and errors as they were raised."""

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from satnp.arrays import threads


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 2)
    threads._pool.cache_clear()
    yield
    threads._pool.cache_clear()


def blas_threads():
    return {found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"}


def test_every_part_is_worked_on_once_and_in_order(two):
    assert threads.parallel(lambda k: k * k, range(7)) == [k * k for k in range(7)]


def test_two_parts_run_at_the_same_time(two):
    meet = threading.Barrier(2, timeout=20)
    assert sorted(threads.parallel(lambda part: meet.wait(), range(2))) == [0, 1]


def test_blas_has_one_thread_inside_and_its_own_again_after(two):
    before = blas_threads()
    assert threads.parallel(lambda part: blas_threads(), range(2)) == [{1}] * 2
    assert blas_threads() == before


def test_blas_has_its_own_threads_again_when_the_last_of_several_threads_has_left():
    with threads._blas().limit(limits=2):
        one, other = threads.one_blas_thread(), threads.one_blas_thread()
        one.__enter__()
        other.__enter__()
        one.__exit__(None, None, None)
        assert blas_threads() == {1}
        other.__exit__(None, None, None)
        assert blas_threads() == {2}


def test_cores_are_not_counted_while_another_thread_limits_blas(monkeypatch):
    blas, asked, limited = threads._blas(), threading.Event(), threading.Event()

    class Slow:
        """Its first answer comes when BLAS has one thread, or after .2 s."""

        limit = blas.limit

        def info(self):
            if not asked.is_set():
                asked.set()
                limited.wait(0.2)
            return blas.info()

    monkeypatch.setattr(threads, "_blas", Slow)
    threads._cores.cache_clear()
    with blas.limit(limits=2):
        count = threading.Thread(target=threads.cores)
        count.start()
        asked.wait()
        with threads.one_blas_thread():
            limited.set()
            count.join()
        found = threads.cores()
    threads._cores.cache_clear()
    assert found == 2


def test_parts_within_parts_wait_for_no_thread(two):
    inner = threads.parallel(lambda part: threads.parallel(lambda k: threading.get_ident(), range(3)), range(4))
    assert all(len(set(row)) == 1 for row in inner)


def test_what_goes_wrong_in_a_part_is_raised(two):
    with pytest.raises(ZeroDivisionError):
        threads.parallel(lambda part: 1 / (1 - part), range(2))


@pytest.mark.parametrize("size", [0, 1, 2, 3, 64])
def test_shares_cover_everything_once(two, size):
    parts = threads.shares(size)
    assert len(parts) == min(2, max(1, size))
    np.testing.assert_array_equal(np.concatenate([np.arange(size)[part] for part in parts]), np.arange(size))
    assert len(threads.shares(size, least=size + 1)) == 1


def test_ahead_yields_all_in_order_with_a_few_under_way(two):
    begun = []

    def work(k):
        begun.append(k)
        return k * k, blas_threads()

    found = threads.ahead(work, iter(range(9)))
    assert next(found) == (0, {1})
    assert len(begun) <= 5
    assert [k for k, _ in found] == [k * k for k in range(1, 9)] and sorted(begun) == list(range(9))


def test_what_goes_wrong_ahead_is_raised_in_its_turn_and_blas_has_its_threads_again(two):
    before = blas_threads()
    found = threads.ahead(lambda k: 1 / (2 - k), range(9))
    assert [next(found), next(found)] == [0.5, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)
    assert blas_threads() == before


def test_ahead_that_is_closed_early_begins_nothing_more(two):
    begun = []
    found = threads.ahead(begun.append, range(100))
    next(found)
    found.close()
    assert len(begun) <= 5
