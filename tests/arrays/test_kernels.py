"""What runs on a GPU, checked without one: kernels as C++ against their definitions, and by NVIDIA's compiler for sm_90."""

import importlib
import pkgutil
import shutil

import numpy as np
import pytest

import satnp
from satnp.arrays import formulas, kernels
from satnp.arrays.backend import to_device, to_host, xp_of
from satnp.arrays.elementwise import elementwise
from satnp.arrays.formulas import NotElementwise
from satnp.layers.activations import sigmoid
from tests import cuda_on_cpu, nvrtc, strict


def elementwise_formulas():
    """Every @elementwise formula of satnp."""
    names = [x.name for x in pkgutil.walk_packages(satnp.__path__, "satnp.") if not x.name.endswith("__main__")]
    found = {f for name in names for f in vars(importlib.import_module(name)).values() if is_formula(f)}
    assert len({f.kernel.name for f in found}) == len(found)  # or one would be tested in place of the other
    return sorted(found, key=lambda f: f.__name__)


def is_formula(x):
    return isinstance(getattr(x, "kernel", None), formulas.Kernel)


FORMULAS, KERNELS = elementwise_formulas(), kernels.KERNELS

# {name: its arguments}, of sizes that no warp and no block divides
ARGUMENTS = {
    "scores": lambda draw: (draw(3, 5, 37), draw(3, 37), draw(37), draw(1)),
    "query_gradient": lambda draw: (draw(3, 5), draw(3, 5, 37), draw(3, 37), draw(37)),
    "keys_gradient": lambda draw: (draw(4, 3, 5), draw(3, 5, 37), draw(4, 3, 37), draw(37)),
    "look_gradient": lambda draw: (draw(3, 41), abs(draw(3, 41)), draw(3, 41, 37), draw(3, 37), draw(37)),
    "soft_attention": lambda draw: (30 * draw(3, 43), draw(3, 43, 41)),
    "gate_gradient": lambda draw: (draw(5, 49), draw(5, 49), abs(draw(5, 3))),
    "word_errors": lambda draw: (9 * draw(5, 49), draw(49), np.array([3, 0, 48, 3, 7])),
    "vector_products_plus": lambda draw: (draw(3, 41), draw(3, 7, 41), draw(3, 7)),
    "vector_products": lambda draw: (draw(3, 41), draw(3, 7, 41)),
    "weighted_sum": lambda draw: (draw(3, 7), draw(3, 7, 41)),
    "softmax": lambda draw: (30 * draw(5, 49),),
    "softmax_gradient": lambda draw: (draw(5, 49), abs(draw(5, 49))),
    "segment_sum": lambda draw: (draw(9, 21), *sorted_words([5, 0, 5, 2, 5, 7, 2, 0, 0]), 8),
}


def sorted_words(ids):
    order = np.argsort(ids, kind="stable")
    return np.array(ids)[order], order


def draw(rng):
    return lambda *shape: rng.standard_normal(shape).astype(np.float32)


def relative(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    if not shutil.which("g++"):
        pytest.skip("g++ is not installed: it runs CUDA kernels on the CPU")
    return cuda_on_cpu.build(tmp_path_factory.mktemp("kernels"), FORMULAS, KERNELS)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
def test_a_kernel_by_hand_is_its_definition(library, kernel, rng):
    args = ARGUMENTS[kernel.__name__](draw(rng))
    wanted = kernel.__wrapped__(*(x.astype(float) if getattr(x, "dtype", None) == np.float32 else x for x in args))
    found = cuda_on_cpu.run_by_hand(library, kernel, args)
    for x, y in zip(found, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        assert x.shape == y.shape and relative(x, y) < 2e-6


@pytest.mark.slow
@pytest.mark.parametrize("formula", FORMULAS, ids=lambda formula: formula.__name__)
def test_a_kernel_of_a_formula_is_the_formula(library, formula, rng):
    args = [draw(rng)(7, 5) for _ in formula.kernel.inputs]
    if "sqrt" in formula.kernel.body:
        args = list(map(abs, args))
    wanted = formula.__wrapped__(*(x.astype(float) for x in args))
    found = cuda_on_cpu.run_elementwise(library, formula, args)
    for x, y in zip(found, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        assert relative(x, y) < 2e-6


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float", "double"])
def test_every_kernel_compiles_for_sm_90(dtype):
    compiler = nvrtc.find()
    if compiler is None:
        pytest.skip("the wheel nvidia-cuda-nvrtc is not installed: it compiles CUDA kernels")
    for source in (kernels.code(kernel, dtype) for kernel in KERNELS):
        assert nvrtc.compiled(compiler, source, "--gpu-architecture=sm_90") == (True, "")
    for kernel in (formula.kernel for formula in FORMULAS):
        arguments = [f"const {dtype}* p{x}" for x in kernel.inputs] + [f"{dtype}* p{x}" for x in kernel.outputs]
        lines = [f"typedef {dtype} T;"] + [f"const T {x} = p{x}[threadIdx.x];" for x in kernel.inputs]
        lines += [f"T& {x} = p{x}[threadIdx.x];" for x in kernel.outputs]
        source = f"{formulas.PREAMBLE}__global__ void each({', '.join(arguments)}) {{ {' '.join(lines)}\n{kernel.body} }}"
        assert nvrtc.compiled(compiler, source, "--gpu-architecture=sm_90") == (True, "")
    fine, said = nvrtc.compiled(compiler, "__global__ void f() { x = 1; }", "--gpu-architecture=sm_90")
    assert not fine and 'identifier "x" is undefined' in said


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
def test_a_kernel_by_hand_is_one_launch(kernel, rng):
    args = ARGUMENTS[kernel.__name__](draw(rng))
    wanted = kernel(*args)
    on_device = [to_device(x, strict) if isinstance(x, np.ndarray) else x for x in args]
    with strict.budget(launches=1, syncs=0, h2d=0):
        found = kernel(*on_device)
    for x, y in zip(*((r if isinstance(r, tuple) else (r,)) for r in (found, wanted)), strict=True):
        np.testing.assert_array_equal(x.get(), y)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
def test_a_kernel_by_hand_on_each_library_is_its_definition(kernel, xp, rng):
    args = ARGUMENTS[kernel.__name__](draw(rng))
    wanted = kernel.__wrapped__(*(x.astype(float) if getattr(x, "dtype", None) == np.float32 else x for x in args))
    found = kernel(*(to_device(x, xp) if isinstance(x, np.ndarray) else x for x in args))
    for x, y in zip(*((r if isinstance(r, tuple) else (r,)) for r in (found, wanted)), strict=True):
        assert relative(to_host(x), y) < 1e-5


def clip(x):
    return xp_of(x).maximum(x, LIMIT)


LIMIT = 0.25


@elementwise
def many_lines(x, y):
    """Everything that a formula may have in it."""
    xp = xp_of(x)
    x = xp.where(x > y, -x, 2 * sigmoid(y))
    low, high = xp.minimum(x, 0.5), clip(y)
    x = x / (1 + low * low)
    return x - high, low


def test_a_formula_becomes_one_kernel_that_can_be_printed(xp, rng):
    assert str(many_lines.kernel) == """many_lines(T x_, T y_, T& out0, T& out1)
{
    const T x_2 = where((x_ > y_), (-x_), (T(2.0) * ((T(0.5) * tanh((T(0.5) * y_))) + T(0.5))));
    const T low_ = minimum(x_2, T(0.5));
    const T high_ = maximum(y_, T(0.25));
    const T x_3 = (x_2 / (T(1.0) + (low_ * low_)));
    const T result_ = (x_3 - high_);
    out0 = result_;
    out1 = low_;
}"""
    args = draw(rng)(4, 3), draw(rng)(3)
    found = many_lines(*(to_device(x, xp) for x in args))
    for x, y in zip(found, many_lines.__wrapped__(*args), strict=True):
        np.testing.assert_allclose(x.get() if hasattr(x, "get") else x, y, rtol=1e-6, atol=1e-6)
    with strict.budget(launches=1):
        many_lines(*(strict.asarray(x) for x in args))


def total(x):
    return x.sum()


def power(x):
    return x**2


def loop(x):
    for _ in range(3):
        x = x + 1
    return x


def endless(x):
    return x + ENDLESS


ENDLESS = float("inf")


def unknown(x):
    return x + nowhere  # noqa: F821


@pytest.mark.parametrize(
    ("formula", "line"),
    [(total, "x.sum()"), (power, "x ** 2"), (loop, "for _ in range(3):"), (endless, "ENDLESS"), (unknown, "nowhere")],
)
def test_what_cannot_become_a_kernel_is_refused_with_its_line(formula, line):
    with pytest.raises(NotElementwise) as error:
        elementwise(formula)
    number = formula.__code__.co_firstlineno + 1
    assert str(error.value).startswith(f"{__file__}, line {number}: `{line}` is not elementwise arithmetic; write")


@pytest.mark.parametrize("formula", FORMULAS, ids=lambda formula: formula.__name__)
def test_cupy_takes_the_kernel_of_a_formula(formula):
    cupy = pytest.importorskip("cupy")
    kernel = satnp.arrays.elementwise._on_device(cupy, formula.kernel)
    assert kernel.nin == len(formula.kernel.inputs) and kernel.nout == len(formula.kernel.outputs)
