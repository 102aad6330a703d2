"""One flat buffer with named views."""

import numpy as np
import pytest

from satnp.arrays.backend import to_device, to_host
from satnp.arrays.parameters import Parameters

SHAPES = {"W": (2, 3), "b": (3,), "scale": ()}


def test_views_and_buffer_are_the_same_memory(xp):
    params = Parameters(SHAPES, xp, dtype=xp.float64)
    assert params.flat.shape == (10,) and list(params) == ["W", "b", "scale"] and len(params) == 3
    params.W[1, 2] = 5.0
    params["b"][...] += 2.0
    params.scale[...] = 7.0
    np.testing.assert_array_equal(to_host(params.flat), [0, 0, 0, 0, 0, 5, 2, 2, 2, 7])
    params.flat[...] = 1.0
    assert all((to_host(x) == 1).all() and x.shape == SHAPES[name] for name, x in params.items())


def test_zeros_like_and_on_keep_the_names(xp):
    params = Parameters(SHAPES, flat=to_device(np.arange(10.0), xp))
    zeros = params.zeros_like()
    assert zeros.shapes == params.shapes and zeros.flat.dtype == np.float64 and not to_host(zeros.flat).any()
    zeros.W[...] = 1.0
    np.testing.assert_array_equal(to_host(params.flat), np.arange(10))
    np.testing.assert_array_equal(to_host(zeros.on(params.flat).b), [6, 7, 8])


def test_of_copies():
    W = np.ones((2, 3), np.float32)
    params = Parameters.of({"W": W, "b": np.zeros(3, np.float32)})
    params.W[...] = 5
    assert params.flat.dtype == np.float32 and (W == 1).all()
    assert Parameters.of({}).flat.shape == (0,)


def test_parts_of_a_whole_share_its_memory(xp):
    encoder, decoder = (Parameters(SHAPES, dtype=np.float64) for _ in range(2))
    encoder.flat[...], decoder.flat[...] = 1, 2
    whole = Parameters.join(encoder=encoder, decoder=decoder)
    whole = whole.on(to_device(whole.flat, xp))
    assert list(whole)[:4] == ["encoder.W", "encoder.b", "encoder.scale", "decoder.W"]
    part = whole.part("decoder")
    assert part.shapes == SHAPES and (to_host(part.flat) == 2).all()
    part.W[...] = 3.0
    part.flat[9:] = 4.0
    assert (to_host(whole["decoder.W"]) == 3).all() and float(to_host(whole["decoder.scale"])) == 4
    assert (to_host(whole.part("encoder").flat) == 1).all()
    assert len(whole.part("nothing")) == 0


ROWS = {"a": (2, 3), "b": (4, 3), "c": (1, 3), "wide": (2, 4), "d": (2, 3), "bias": (3,)}


def test_stacked_matrices_are_a_view_of_their_rows(xp):
    params = Parameters(ROWS, flat=to_device(np.arange(38.0), xp))
    both = params.stacked("b", "c")
    np.testing.assert_array_equal(to_host(both), np.arange(6.0, 21.0).reshape(5, 3))
    np.testing.assert_array_equal(to_host(both), np.concatenate([to_host(params.b), to_host(params.c)]))
    both[4] = -1.0
    assert (to_host(params.c) == -1).all() and params.stacked("b", "c") is both
    np.testing.assert_array_equal(to_host(params.stacked("d")), to_host(params.d))


@pytest.mark.parametrize(("names", "says"), [
    (("b", "a"), "cannot stack b, a: b, c follow each other in the buffer; give b, a in this order"),  # order
    (("a", "c"), "cannot stack a, c: a, b follow each other"),  # a gap
    (("c", "d"), "cannot stack c, d: c, wide follow each other"),
    (("a", "a"), "cannot stack a, a: a, b follow each other"),
    (("c", "wide"), r"cannot stack c \(1, 3\), wide \(2, 4\); name matrices that have the same number of columns"),  # sizes
    (("d", "bias"), r"cannot stack d \(2, 3\), bias \(3,\); name matrices"),
    (("d", "none"), r"cannot stack d \(2, 3\), none \(no parameter\); name matrices"),
    (("none", "d"), r"cannot stack none \(no parameter\), d \(2, 3\); name matrices"),
])  # fmt: skip
def test_matrices_that_do_not_lie_side_by_side_are_not_stacked(names, says):
    with pytest.raises(ValueError, match=says):
        Parameters(ROWS).stacked(*names)


def test_a_part_that_does_not_lie_side_by_side_is_refused():
    params = Parameters({"encoder.W": (2, 3), "decoder.W": (2, 2), "encoder.b": (3,)})
    with pytest.raises(ValueError, match=r"cannot take encoder\.\* as one part: encoder\.W, decoder\.W follow each other"):
        params.part("encoder")
    assert params.part("decoder").shapes == {"W": (2, 2)}


@pytest.mark.parametrize("cut", ["before", "since"])
def test_a_cut_at_a_name_that_is_not_there_says_so(cut):
    params = Parameters({"encoder.W": (2, 3), "decoder.W": (2, 2)})
    with pytest.raises(ValueError, match=r"there is no parameter head\.\*; there are encoder\.W, decoder\.W"):
        getattr(params, cut)("head")


def test_a_buffer_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"flat has shape \(9,\), the named arrays need \(10,\)"):
        Parameters(SHAPES, flat=np.zeros(9))


def test_an_unknown_name_says_which_there_are():
    params = Parameters(SHAPES)
    with pytest.raises(AttributeError, match="no parameter 'V'; there are W, b, scale"):
        _ = params.V
    with pytest.raises(KeyError):
        _ = params["V"]
    assert repr(params) == "Parameters(W (2, 3), b (3,), scale ())"


def test_a_product_is_added_to_what_is_there(xp):
    x, dout = (xp.asarray(np.random.default_rng(0).random(shape)) for shape in ((5, 2), (5, 3)))
    grads = Parameters({"W": (2, 3)}, xp, float)
    for _ in range(2):
        grads.add_product(x, dout, "W")
    np.testing.assert_allclose(to_host(grads.W), 2 * to_host(x).T @ to_host(dout), rtol=1e-15)
