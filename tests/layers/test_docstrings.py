"""The shapes in the docstrings are those of real calls."""

import inspect
import re

import numpy as np
import pytest

from satnp import estimators, layers
from satnp.proof import layers as layer_checks

FORWARDS = {name for name in vars(layers) if name.endswith("_forward")}


def function_of(case):
    return getattr(case.forward, "func", case.forward)


def shape_line(function):
    """'x (N, D), b (4H,) -> out (N, H)' -> [{'x': ['N', 'D'], 'b': ['4H']}, {'out': ['N', 'H']}]"""
    (line,) = (line for line in function.__doc__.splitlines() if re.search(r"\w \([^)]*\).* -> ", line))
    sides = line.split(" -> ")
    assert len(sides) == 2, line
    named = [re.findall(r"(\w+) \(([^)]*)\)", side) for side in sides]
    return [{name: [a.strip() for a in axes.split(",") if a.strip()] for name, axes in side} for side in named]


def hold(described, arrays, sizes):
    """Bind the symbols of one side of a shape line to the sizes of `arrays`, and hold the expressions against them."""
    for axes, x in zip(described.values(), arrays, strict=True):
        assert len(axes) == x.ndim, (axes, x.shape)
        for axis, size in zip(axes, x.shape, strict=True):
            if axis.isalpha():
                assert sizes.setdefault(axis, size) == size, f"{axis} is {sizes[axis]} and {size}"
    for axes, x in zip(described.values(), arrays, strict=True):
        for axis, size in zip(axes, x.shape, strict=True):
            expression = re.sub(r"(\d)([A-Z])", r"\1*\2", axis)
            assert eval(expression, {"__builtins__": {}}, sizes) == size, f"{axis} is {size} with {sizes}"


def as_tuple(x):
    return x if isinstance(x, tuple) else (x,)


def test_every_public_forward_is_in_the_table_of_checks():
    assert {function_of(case).__name__ for case in layer_checks.CASES} == FORWARDS


@pytest.mark.parametrize("case", layer_checks.CASES, ids=lambda case: case.name)
def test_shapes(case, rng):
    inputs, sizes = case.make(rng), {}
    given, returned = shape_line(function_of(case))
    assert list(given) == list(inputs) == list(inspect.signature(function_of(case)).parameters)[: len(inputs)]
    out, cache = case.forward(*inputs.values())
    hold(given, inputs.values(), sizes)
    hold(returned, as_tuple(out), sizes)

    upstream, gradients = shape_line(case.backward)
    dout = tuple(np.ones(x.shape) for x in as_tuple(out))
    grads = case.backward(dout if isinstance(out, tuple) else dout[0], cache)
    assert list(upstream) == [f"d{name}" for name in returned]
    assert list(gradients) == [f"d{n}" for n, x in inputs.items() if x.dtype.kind == "f" and n not in case.constants]
    hold(upstream, dout, sizes)
    hold(gradients, as_tuple(grads), sizes)


def axes_of(described):
    """{'scores': ['...', 'L']} -> {'scores': (3, 4, 5)}"""
    sizes = {"T": 3, "N": 4, "S": 2, "L": 5}
    return {
        name: tuple(n for axis in axes for n in ((3, 4) if axis == "..." else (sizes[axis],)))
        for name, axes in described.items()
    }


@pytest.mark.parametrize(
    "function", [f for f in vars(estimators).values() if inspect.isfunction(f)], ids=lambda function: function.__name__
)
def test_shapes_of_estimators(function, rng):
    given, returned = (axes_of(side) for side in shape_line(function))
    parameters = list(inspect.signature(function).parameters.values())
    assert list(given) == [p.name for p in parameters][: len(given)]
    more = {p.name: 0.5 for p in parameters[len(given) :] if p.default is p.empty}
    assert function(*(rng.random(shape) for shape in given.values()), **more).shape == tuple(*returned.values())


@pytest.mark.parametrize(
    ("line", "arrays"),
    [
        ("x (N, D) -> out (N,)", [(3, 4, 5)]),
        ("x (N, N) -> out (N,)", [(3, 4)]),
        ("x (4H, H) -> out (N,)", [(12, 4)]),
        ("x (1, H) -> out (N,)", [(2, 4)]),
    ],
)
def test_a_wrong_line_is_found(line, arrays):
    def function():
        pass

    function.__doc__ = line
    with pytest.raises(AssertionError):
        hold(shape_line(function)[0], [np.zeros(shape) for shape in arrays], {})
