"""The stand-in refuses what would fail, stall or go wrong on CuPy, and computes what NumPy computes."""

import math

import numpy as np
import pytest

import tests.strict as strict
from satnp.arrays import kernels
from satnp.arrays.backend import to_device, to_host


def device(*shape, dtype=np.float64):
    return strict.asarray(np.arange(1, 1 + math.prod(shape), dtype=dtype).reshape(shape))


def assign(x, index, value):
    x[index] = value


def add_in_place(x, index, value):
    x[index] += value


def product_in_place(x, w):
    x @= w


HOST = np.ones((2, 3))
REPEATED = np.array([1, 1])
INDEX = strict.asarray([0])

DEVICE_BUGS = {
    "host array added": (TypeError, lambda x: x + HOST),
    "device array added to a host array": (TypeError, lambda x: HOST + x),
    "host array, comparison": (TypeError, lambda x: x > HOST),
    "host array in a ufunc": (TypeError, lambda x: strict.maximum(x, HOST)),
    "host 0-d array in a ufunc": (TypeError, lambda x: strict.maximum(x, np.array(0.0))),
    "host array in a function": (TypeError, lambda x: strict.concatenate([x, HOST])),
    "host array in a method": (TypeError, lambda x: x.dot(HOST.T)),
    "host array as out": (TypeError, lambda x: strict.exp(x, out=HOST.copy())),
    "host array alone": (TypeError, lambda x: strict.sum(HOST)),
    "list in a ufunc": (TypeError, lambda x: strict.add(x, [1.0, 2.0, 3.0])),
    "list in an operator": (TypeError, lambda x: x + [1.0, 2.0, 3.0]),
    "None in a comparison": (TypeError, lambda x: x == None),  # noqa: E711
    "NumPy ufunc": (TypeError, lambda x: np.exp(x)),
    "NumPy function": (TypeError, lambda x: np.sum(x)),
    "np.asarray": (TypeError, lambda x: np.asarray(x)),
    "np.array of a list": (TypeError, lambda x: np.array([x, x])),
    "NumPy dtype as a function": (TypeError, lambda x: np.float32(x)),
    "NumPy assertion": (TypeError, lambda x: np.testing.assert_allclose(x, HOST)),
    "device value into a host array": (TypeError, lambda x: assign(HOST.copy(), 0, x[0])),
    "device index into a host array": ((TypeError, IndexError), lambda x: HOST[INDEX]),
    "device index into a list": (TypeError, lambda x: ["a", "b"][strict.asarray(0)]),
    "device length in range": (TypeError, lambda x: range(strict.asarray(2))),
    "list with a device array to the device": (TypeError, lambda x: strict.asarray([x[0], x[1]])),
    "host index": (TypeError, lambda x: x[REPEATED]),
    "host index among others": (TypeError, lambda x: x[:, REPEATED]),
    "list index": (TypeError, lambda x: x[[0, 1]]),
    "host index in add.at": (TypeError, lambda x: strict.add.at(x, REPEATED, 1.0)),
    "host value assigned": (TypeError, lambda x: assign(x, 0, HOST[0])),
    "list assigned": (TypeError, lambda x: assign(x, 0, [1.0, 2.0, 3.0])),
    "index out of range": (IndexError, lambda x: x[strict.asarray([2])]),
    "repeated index assigned": (ValueError, lambda x: assign(x, strict.asarray(REPEATED), device(2, 3))),
    "repeated negative index": (ValueError, lambda x: assign(x, strict.asarray([1, -1]), device(2, 3))),
    "repeated pair assigned": (ValueError, lambda x: assign(x, (strict.asarray([0, 0]),) * 2, device(2))),
    "repeated index +=": (ValueError, lambda x: add_in_place(x, strict.asarray(REPEATED), device(2, 3))),
    "product in place": (TypeError, lambda x: product_in_place(x, device(3, 3))),
    "3-D @ 2-D": (TypeError, lambda x: device(4, 2, 3) @ device(3, 2)),
    "3-D @ 1-D": (TypeError, lambda x: strict.matmul(device(4, 2, 3), device(3))),
    "ufunc where=": (TypeError, lambda x: strict.exp(x, where=x > 0)),
    "ufunc order=": (TypeError, lambda x: strict.exp(x, order="C")),
    "reduction where=": (TypeError, lambda x: strict.sum(x, where=x > 0)),
    "reduction initial=": (TypeError, lambda x: x.max(initial=0.0)),
    "einsum out=": (TypeError, lambda x: strict.einsum("ij->ji", x, out=device(3, 2))),
    "maximum.reduce": (NotImplementedError, lambda x: strict.maximum.reduce(x)),
    "multiply.at": (NotImplementedError, lambda x: strict.multiply.at(x, INDEX, 2.0)),
    "subtract.at of floats": (TypeError, lambda x: strict.subtract.at(x, INDEX, 2.0)),
    "add.at of int64": (TypeError, lambda x: strict.add.at(device(2, dtype=np.int64), INDEX, 2)),
    "xp.errstate": (AttributeError, lambda x: strict.errstate(divide="ignore")),
    "xp.block": (AttributeError, lambda x: strict.block([[x]])),
    "xp.vecdot": (AttributeError, lambda x: strict.vecdot(x, x)),
    "xp.linalg.vector_norm": (AttributeError, lambda x: strict.linalg.vector_norm(x)),
    "xp.random": (AttributeError, lambda x: strict.random.default_rng()),
    "xp.testing": (AttributeError, lambda x: strict.testing.assert_allclose(x, x)),
    "strings": (ValueError, lambda x: strict.asarray(["a", "dog"])),
    "objects": (ValueError, lambda x: strict.asarray([None])),
}


@pytest.mark.parametrize("name", DEVICE_BUGS)
def test_device_bug_is_refused(name):
    error, bug = DEVICE_BUGS[name]
    with pytest.raises(error):
        bug(device(2, 3))


WAITS = {
    "get": lambda x: x.get(),
    "to_host": lambda x: to_host(x),
    "item": lambda x: x[0, 0].item(),
    "tolist": lambda x: x.tolist(),
    "float": lambda x: float(x.sum()),
    "int": lambda x: int(x.argmax()),
    "complex": lambda x: complex(x.sum()),
    "math": lambda x: math.sqrt(x.sum()),
    "if": lambda x: 1 if x.sum() > 0 else 0,
    "max of Python": lambda x: max(x.sum(), 1.0),
    "in": lambda x: 3.0 in x[0],
    "print": lambda x: str(x),
    "f-string": lambda x: f"{x.sum():.3f}",
    "mask": lambda x: x[x > 2],
    "mask assigned": lambda x: assign(x, x > 2, 0.0),
    "mask in add.at": lambda x: strict.add.at(x, x > 2, 1.0),
    "nonzero": lambda x: x.nonzero(),
    "where with one argument": lambda x: strict.where(x > 2),
    "unique": lambda x: strict.unique(x),
    "allclose": lambda x: bool(strict.allclose(x, x)),
}


@pytest.mark.parametrize("name", WAITS)
def test_what_waits_for_the_device_is_counted_and_refused_in_no_sync(name):
    x = device(2, 3)
    before = strict.counts.syncs
    WAITS[name](x)
    assert strict.counts.syncs > before
    with strict.no_sync(), pytest.raises(RuntimeError, match="waits for the device"):
        WAITS[name](x)
    WAITS[name](x)


def small_step(xp, x, W, v, ids):
    """A scaled-down model: embedding, product, tanh, attention, softmax, scattered gradient, update in place."""
    h = xp.tanh(x @ W[:3] + W[3])
    scores = (h.reshape(-1, h.shape[1]) @ v).reshape(2, -1)
    e = xp.exp(scores - scores.max(axis=1, keepdims=True))
    alpha = e / e.sum(axis=1, keepdims=True)
    loss = -xp.log(xp.take_along_axis(alpha, ids[:2, None] % 2, axis=1)).mean()
    dW = xp.zeros_like(W)
    xp.add.at(dW, ids, xp.concatenate([h, h * 2.0])[: len(ids)])
    norm = xp.sqrt(xp.einsum("ij,ij->", dW, dW))
    dW *= xp.minimum(1, 5 / norm)
    W -= np.float64(0.1) * dW
    xp.multiply(W, 2, out=W)
    return loss, alpha, W


def small_arguments(xp, dtype):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in ((4, 3), (4, 5), (5,))]
    if np.dtype(dtype).kind == "c":
        arrays = [a + 1e-30j for a in arrays]
    return [to_device(a, xp) for a in (*arrays, np.array([0, 3, 3, 1, 3, 0]))]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_a_correct_step_is_numpys_to_the_bit_and_never_waits(dtype):
    expected = small_step(np, *small_arguments(np, dtype))
    arguments = small_arguments(strict, dtype)
    with strict.no_sync(), strict.budget(launches=40, h2d=0, d2h=0, syncs=0) as costs:
        results = small_step(strict, *arguments)
    assert costs.launches >= 20
    for result, wanted in zip(results, expected, strict=True):
        assert isinstance(result, strict.ndarray) and result.dtype == wanted.dtype and result.shape == np.shape(wanted)
        np.testing.assert_array_equal(to_host(result), wanted)


EXPRESSIONS = {
    "views": lambda xp, x: [x.T, x.ravel(), x.reshape(3, 2), x.reshape((6,)), x.transpose(1, 0), x.swapaxes(0, 1)],
    "basic index": lambda xp, x: [x[0, 1], x[-1:, ::2], x[..., None], x[()], *x],
    "gather": lambda xp, x: [x[xp.asarray([1, 1, 0])], x[xp.arange(2), xp.asarray([2, 0])], x[x.real > 2]],
    "reductions": lambda xp, x: [x.sum(axis=1, keepdims=True), x.mean(), x.max(axis=0), x.min(), x.argmax(axis=1)],
    "complex parts": lambda xp, x: [x.real, x.imag, x.astype(xp.complex128) * 1j, x.conj()],
    "elementwise": lambda xp, x: [xp.tanh(x), xp.exp(x), xp.log(x), xp.maximum(x, 2), x > 2, ~(x <= 2), -x, abs(x)],
    "operators": lambda xp, x: [1 / x, 2**x, x**2, x**0.5, 1 - x, np.float32(2) * x, x @ x.T, (x > 2) & (x < 5)],
    "selection": lambda xp, x: [xp.where(x > 2, x, 0), xp.take_along_axis(x, xp.asarray([[1], [2]]), axis=1)],
    "creation": lambda xp, x: [xp.zeros((2, 1)), xp.ones_like(x), xp.full((2,), 3.0), xp.arange(4), xp.eye(2)],
    "joining": lambda xp, x: [xp.stack([x, x]), xp.concatenate([x, x], axis=1), xp.pad(x, ((0, 0), (1, 2)))],
    "products": lambda xp, x: [xp.einsum("nd,md->nm", x, x), x.dot(x.T), xp.stack([x, x]) @ xp.stack([x.T, x.T])],
    "shapes": lambda xp, x: [xp.broadcast_to(x[:1], (4, 3)), xp.expand_dims(x, 0), xp.split(x, 3, axis=1)[1]],
    "windows": lambda xp, x: [xp.lib.stride_tricks.as_strided(x, (1, 2, 2, 2), (*x.strides, *x.strides))],
    "norm": lambda xp, x: [xp.linalg.norm(x)],
    "order": lambda xp, x: [xp.argsort(-x, axis=1, kind="stable"), xp.sort(x), xp.cumsum(x, axis=0), xp.unique(x)],
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_values_and_dtypes_are_numpys(name, dtype):
    host = np.arange(1, 7).reshape(2, 3).astype(dtype)
    results = EXPRESSIONS[name](strict, strict.asarray(host))
    for result, wanted in zip(results, EXPRESSIONS[name](np, host), strict=True):
        assert isinstance(result, strict.ndarray) and result.dtype == wanted.dtype and result.shape == np.shape(wanted)
        np.testing.assert_array_equal(result.get(), wanted)


def test_writes():
    x = device(2, 3)
    same = x
    x += 1
    x[0] = 0
    x[:, 1] = device(2)
    x[strict.asarray([1])] *= 2
    x[1, 2:].fill(7)
    row = x[0]
    row[0] = 4
    corner = x[0, 0]
    corner += 1
    strict.tanh(x[:, :1], out=x[:, :1])
    assert x is same
    np.testing.assert_array_equal(x.get(), [[np.tanh(5), 1, 0], [np.tanh(10), 4, 7]])


def test_reductions_and_elements_are_0d_arrays():
    x = device(2, 3)
    for value in (x.sum(), x[0, 0], x.max(), strict.dot(x[0], x[0]), strict.allclose(x, x), strict.exp(1.0)):
        assert isinstance(value, strict.ndarray) and value.shape == ()


def test_the_device_never_shares_memory_with_the_host():
    host = np.zeros(3)
    x = strict.asarray(host)
    host[0] = 1
    back = x.get()
    back[1] = 1
    np.testing.assert_array_equal(x.get(), 0)


def test_a_read_only_array_is_not_written_to():
    x = device(2, 3)
    x.flags.writeable = False
    writes = [
        lambda: assign(x, 0, 1.0),
        lambda: assign(x[0], 1, 1.0),
        lambda: assign(x, INDEX, device(1, 3)),
        lambda: x.__iadd__(1),
        lambda: x.fill(0),
        lambda: strict.add.at(x, INDEX, 1.0),
        lambda: strict.exp(x, out=x),
        lambda: strict.sum(x, axis=0, out=x[0]),
    ]
    for write in writes:
        with pytest.raises(ValueError, match="read-only"):
            write()
    np.testing.assert_array_equal(x.get(), device(2, 3).get())


@pytest.mark.parametrize(
    ("costs", "work"),
    [
        ({"launches": 1}, lambda x: strict.exp(x)),
        ({"launches": 1}, lambda x: x @ x.T),
        ({"launches": 1}, lambda x: strict.exp(x, out=x)),
        ({"launches": 1}, lambda x: x.sum(axis=0)),
        ({"launches": 2}, lambda x: strict.concatenate([x, x])),
        ({"launches": 8}, lambda x: strict.concatenate([x] * 8)),
        ({"launches": 1, "h2d": 1}, lambda x: strict.stack([x] * 9)),
        ({"launches": 2}, lambda x: strict.dot(x[0], x[0])),
        ({"launches": 2}, lambda x: x[:, :2] @ x),
        ({"launches": 1}, lambda x: x[None] @ x.reshape(1, 3, 2)),
        ({"launches": 2}, lambda x: x[None] @ x[None].swapaxes(1, 2)),
        ({"launches": 1}, lambda x: assign(x, 0, 1.0)),
        ({}, lambda x: x.T.reshape(3, 2)[0]),
        ({}, lambda x: strict.empty_like(x)),
        ({}, lambda x: strict.broadcast_to(x, (4, 2, 3))),
        ({"h2d": 1}, lambda x: strict.asarray(HOST)),
        ({"launches": 1, "h2d": 1}, lambda x: assign(x, INDEX, 1.0)),
        ({"launches": 1, "h2d": 1}, lambda x: strict.add.at(x, INDEX, 1.0)),
        ({"launches": 1}, lambda x: x[INDEX]),
        ({"syncs": 1, "d2h": 1}, lambda x: x.get()),
    ],
)
def test_budget(costs, work):
    limits = {"launches": 0, "h2d": 0, "d2h": 0, "syncs": 0} | costs
    x = device(2, 3)
    with strict.budget(**limits) as used:
        work(x)
    assert vars(used) == limits
    for name in costs:
        with pytest.raises(AssertionError, match=f"{name}: {costs[name]}, not 0"), strict.budget(**limits | {name: 0}):
            work(x)


def test_an_error_inside_budget_stays_itself():
    with pytest.raises(KeyError), strict.budget(launches=0):
        strict.exp(device(2))
        raise KeyError


def test_cupy_has_every_name_that_the_stand_in_has():
    cupy = pytest.importorskip("cupy")
    names = [name for name in dir(np) if not name.startswith("_") and not hasattr(cupy, name)]
    names += [f"linalg.{n}" for n in dir(np.linalg) if not n.startswith("_") and not hasattr(cupy.linalg, n)]
    assert [name for name in names if name not in strict.MISSING] == []


@pytest.mark.parametrize("out", [strict.zeros((3, 2), dtype="float32"), strict.zeros((2, 3)).T, strict.zeros((3, 3))])
def test_a_kernel_by_hand_writes_to_the_contiguous_array_of_its_type_and_shape_only(out):
    with pytest.raises(TypeError, match=r"softmax writes to a contiguous \(3, 2\) of float64 only"):
        kernels.softmax(device(3, 2), out=(out,))
