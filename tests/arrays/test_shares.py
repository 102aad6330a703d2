"""A minibatch in shares of several cores: the gradient of the whole, the same bits each time, one core inside a share."""

import threading
from time import sleep

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from satnp.arrays import shares, threads
from satnp.arrays.parameters import Parameters
from satnp.arrays.shares import Gradient, add_in_shares, of_captions
from satnp.captioners import CAPTIONERS
from satnp.captioners.contract import Batch
from satnp.encoders import small
from satnp.model import Model
from tests.captioners.test_recurrent import N, world


@pytest.fixture
def two(monkeypatch):
    """Two cores, and a share for each of them, however small."""
    monkeypatch.setattr(threads, "cores", lambda: 2)
    monkeypatch.setattr(shares, "LEAST", 1)
    threads._pool.cache_clear()
    yield
    threads._pool.cache_clear()


def gradient(captioner, config):
    """(loss, gradient) of three captions, in shares of one and of two where there are two cores."""
    params, batch, noise = world(captioner, config)
    noise, together = captioner.Noise(*noise[: len(captioner.Noise._fields)]), Gradient(params.zeros_like(), 1)

    def passes(rows, grads, dloss):
        part = Batch(batch.annotations[rows], batch.captions[rows], batch.mask[rows])
        loss, cache = captioner.forward(params, config, part, of_captions(noise, rows, N))
        captioner.backward(cache, grads, dloss=dloss)
        return loss

    done = together.compute(passes, N, N)
    return len(done), sum(dloss * loss for dloss, loss in done), together.grads.flat


@pytest.mark.parametrize("name", [name for name in CAPTIONERS if name != "show_attend_tell"])
def test_shares_have_the_gradient_of_the_whole_and_the_same_bits_each_time(two, monkeypatch, name):
    captioner = CAPTIONERS[name]
    for config in captioner.CHECKS.values():
        count, loss, grads = gradient(captioner, config)
        assert count == 2
        np.testing.assert_array_equal(gradient(captioner, config)[2], grads)
        with monkeypatch.context() as alone:
            alone.setattr(threads, "cores", lambda: 1)
            count, wanted, whole = gradient(captioner, config)
        assert count == 1 and loss == pytest.approx(wanted, rel=1e-13)
        np.testing.assert_allclose(grads, whole, rtol=1e-10, atol=1e-13 * np.linalg.norm(whole))


def inside():
    """(on one core, the numbers of BLAS threads, the thread) where this is called"""
    found = {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}
    return threads.on_one_core(), found, threading.get_ident()


def shares_of(count, size=1):
    """What `inside` says in each share of `count` captions, for `size` parameters a word."""
    params, _, _ = world(CAPTIONERS["lrcn"], CAPTIONERS["lrcn"].CHECKS[""])
    return [found for _, found in Gradient(params, size).compute(lambda rows, grads, dloss: inside(), count, count)]


def test_each_share_runs_on_one_core_and_a_thread_of_its_own(two):
    found = shares_of(5)
    assert [on_one_core for on_one_core, *_ in found] == [True, True]
    assert all(blas == {1} for _, blas, _ in found) and len({thread for *_, thread in found}) == 2


def test_a_small_minibatch_is_one_share_in_which_convolutions_may_use_all_cores(two, monkeypatch):
    monkeypatch.setattr(shares, "LEAST", 1000)
    ((on_one_core, blas, thread),) = shares_of(19, size=100)
    assert not on_one_core and blas == {1} and thread == threading.get_ident()
    assert len(shares_of(20, size=100)) == 2


@pytest.mark.parametrize("late", [0, 1, 2])  # the share that comes last to its additions
def test_shares_add_in_their_order_each_in_its_own_way(monkeypatch, late):
    """Sums of numbers whose order is seen in the last bits: in place, as products, twice, through a view, not at all."""
    monkeypatch.setattr(threads, "cores", lambda: 3)
    monkeypatch.setattr(shares, "LEAST", 1)
    threads._pool.cache_clear()
    rng = np.random.default_rng(0)
    shapes = {"part.a": (2, 3), "part.b": (4, 3), "part.c": (5,), "part.d": (3,), "part.e": (2,), "part.f": (3, 3)}
    x, dout, c, d, f = (rng.standard_normal((3, *shape)) for shape in ((7, 6), (7, 3), (5,), (3,), (3, 3)))
    grads = Parameters(shapes, dtype=float)
    grads.flat[...] = np.nan  # what was there before

    def passes(rows, grads, dloss):
        g, k = grads.part("part"), rows.start
        if k == late:
            sleep(0.05)
        g.add_product(x[k], dout[k], "a", "b")
        g.add(c=c[k])
        if k:  # the first share has no term
            g.add(f=f[k])
        g.add(c=2 * c[k])
        g.d[...] += d[k]
        g.add_product(x[k][:, :2], dout[k], "a")

    Gradient(grads, 1).compute(passes, 3, 3)
    threads._pool.cache_clear()
    g = grads.part("part")
    product = [x[k].T @ dout[k] for k in range(3)]
    second = [0 + 2 * c[k] for k in range(3)]
    np.testing.assert_array_equal(np.concatenate([g.b]), (product[0] + product[1] + product[2])[2:])
    np.testing.assert_array_equal(g.c, c[0] + c[1] + c[2] + second[0] + second[1] + second[2])
    np.testing.assert_array_equal(g.d, d[0] + d[1] + d[2])
    np.testing.assert_array_equal(g.f, f[1] + f[2])
    assert not g.e.any()
    np.testing.assert_allclose(g.a, sum(2 * product[k][:2] for k in range(3)), rtol=1e-14)


@pytest.mark.parametrize("late", [0, 1])
def test_parts_of_a_single_share_add_in_their_order_to_what_it_has_added(two, monkeypatch, late):
    monkeypatch.setattr(shares, "LEAST", 10**9)
    rng = np.random.default_rng(0)
    x, dout, c, d = (rng.standard_normal((2, *shape)) for shape in ((7, 6), (7, 3), (5,), (3,)))
    grads = Parameters({"part.a": (2, 3), "part.b": (4, 3), "part.c": (5,), "part.d": (3,), "other.e": (2,)}, dtype=float)
    grads.flat[...] = np.nan

    def of_a_part(k, g):
        if k == late:
            sleep(0.05)
        g.add_product(x[k], dout[k], "a", "b")
        g.add(c=c[k])
        g.add(c=2 * c[k])
        g.d[...] += d[k]

    def passes(rows, grads, dloss):
        grads.part("part").add(d=d[0])
        add_in_shares(of_a_part, grads.part("part"), [0, 1])
        grads.part("part").add_product(x[0][:, :2], dout[0], "a")

    def check(before=0):
        g, product = grads.part("part"), [x[k].T @ dout[k] for k in range(2)]
        np.testing.assert_array_equal(g.b, before + product[0][2:] + product[1][2:])
        np.testing.assert_array_equal(g.c, before + c[0] + c[1] + 2 * c[0] + 2 * c[1])
        np.testing.assert_array_equal(g.d, before + d[0] + d[0] + d[1])
        np.testing.assert_allclose(g.a, before + 2 * product[0][:2] + product[1][:2], rtol=1e-13)

    ((_, _),) = Gradient(grads, 1).compute(passes, 2, 2)
    check()
    assert not grads.part("other").flat.any()
    grads.flat[...] = 0.5
    passes(None, grads, None)  # Parameters outside of a minibatch
    check(0.5)


@pytest.fixture
def encoding(rng):
    """function(size) -> (numbers of captions' shares and of photos' shares in each, annotations, gradient of an encoder)"""
    config = small.Config((4, 6, 8))
    params = small.init(config, rng)
    params = Parameters({f"encoder.{name}": shape for name, shape in params.shapes.items()}, flat=params.flat.astype(float))
    model = Model("small", config, None, None, None, params, False, None)
    images, dout = rng.integers(0, 256, (8, 64, 64, 3), np.uint8), rng.standard_normal((8, 256, 8))

    def passes(rows, grads, dloss):
        annotations, cache = model.encode(images[rows])
        model.encode_backward(dout[rows], cache, grads.part("encoder"))
        return len(cache), annotations

    def run(size):
        gradient = Gradient(params.zeros_like(), size)
        counts, annotations = zip(*(found for _, found in gradient.compute(passes, 8, 8)), strict=True)
        return counts, np.concatenate(annotations), gradient.grads.flat

    return run


@pytest.mark.parametrize(("size", "counts"), [(100, (1, 1)), (1, (2,))])  # two shares of captions; one, with two of photos
def test_an_encoder_in_shares_has_the_gradient_of_the_whole_and_the_same_bits_each_time(
    two, encoding, monkeypatch, size, counts
):  # fmt: skip
    monkeypatch.setattr(shares, "LEAST", 100)
    found, annotations, grads = encoding(size)
    assert found == counts
    for _ in range(3):
        np.testing.assert_array_equal(encoding(size)[2], grads)
    monkeypatch.setattr(threads, "cores", lambda: 1)
    found, wanted, whole = encoding(size)
    assert found == (1,)
    np.testing.assert_allclose(annotations, wanted, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(grads, whole, rtol=1e-10, atol=1e-12 * np.linalg.norm(whole))


def test_shares_inside_of_a_share_are_refused(two):
    grads = Parameters({"a": (2,)})

    def passes(rows, grads, dloss):
        add_in_shares(lambda share, grads: None, grads, [0, 1])

    with pytest.raises(ValueError, match="2 shares inside one of 2"):
        Gradient(grads, 1).compute(passes, 2, 2)


@pytest.mark.parametrize("broken", [0, 1])
def test_what_goes_wrong_in_a_part_of_a_share_is_raised_and_the_next_minibatch_is_right(two, monkeypatch, broken):
    monkeypatch.setattr(shares, "LEAST", 10**9)
    together = Gradient(Parameters({"a": (2,)}), 1)

    def of_a_part(k, grads):
        grads.add(a=np.ones(2))
        1 / (k - broken)

    def passes(rows, grads, dloss):
        add_in_shares(of_a_part, grads, [0, 1])

    with pytest.raises(ZeroDivisionError):
        together.compute(passes, 2, 2)
    broken = 2
    together.compute(passes, 2, 2)
    np.testing.assert_array_equal(together.grads.a, 2)


def test_what_goes_wrong_in_a_share_is_raised_and_the_next_minibatch_is_right(two):
    params, _, _ = world(CAPTIONERS["lrcn"], CAPTIONERS["lrcn"].CHECKS[""])
    together = Gradient(params.zeros_like(), 1)

    def passes(rows, grads, dloss):
        grads.add(b_p=np.full(grads.b_p.shape, dloss))
        return 1 / (rows.start - broken)

    broken = 2
    with pytest.raises(ZeroDivisionError):
        together.compute(passes, 4, 4)
    broken = 1
    together.compute(passes, 4, 4)
    np.testing.assert_array_equal(together.grads.b_p, 1)
    assert together.grads.flat.sum() == together.grads.b_p.size
