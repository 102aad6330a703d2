"""The check itself, and the whole table of checks on every array library."""

import re
from dataclasses import replace

import numpy as np
import pytest

from satnp.arrays.backend import to_device, to_host, xp_of
from satnp.errors import InputError
from satnp.proof import checks, gradcheck
from satnp.proof.gradcheck import CENTRAL_DIFFERENCE, COMPLEX_STEP, Case, Draws, check_draws, check_gradients, diagnose

GRADIENTS = [case for case in checks.cases() if isinstance(case, Case)]
MEANS = [case for case in GRADIENTS if case.name.startswith("expectations/")]
WHOLE = [case for case in GRADIENTS if case.name.startswith(("captioners/", "encoders/vgg19 from"))]


@pytest.mark.parametrize("case", [case for case in GRADIENTS if case not in MEANS + WHOLE], ids=lambda case: case.name)
def test_every_case(case, xp):
    result = check_gradients(case, xp)
    assert result.passed and result.error <= 1e-10, result.findings


@pytest.mark.slow
@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.name)
def test_every_whole_network(case, xp):
    result = check_gradients(case, xp)
    assert result.passed and result.error <= 1e-10, result.findings


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.name)
def test_every_whole_network_along_one_direction(case, xp):
    result = check_gradients(replace(case, direction=True), xp)
    assert result.passed and result.error <= 1e-10, result.findings


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] * ("reinforce none" not in case.name)) for case in MEANS],
    ids=lambda case: case.name,
)
def test_every_mean(case):
    result = check_gradients(case)
    assert result.passed and result.error <= 1e-10, result.findings


@pytest.mark.parametrize("case", [case for case in checks.cases() if isinstance(case, Draws)], ids=lambda case: case.name)
@pytest.mark.parametrize("seed", range(5))
def test_choices_come_as_often_as_they_should(case, seed):
    result = check_draws(case, seed)
    assert result.passed and 0 < result.error < 4, result.findings


@pytest.mark.parametrize("case", GRADIENTS, ids=lambda case: case.name)
def test_a_device_computes_what_numpy_computes(case, xp, rng):
    inputs = case.make(rng).values()
    outs = [case.forward(*(to_device(x, module) for x in inputs))[0] for module in (np, xp)]
    for host, device in zip(*(out if isinstance(out, tuple) else (out,) for out in outs), strict=True):
        np.testing.assert_allclose(to_host(device), host, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", checks.SECOND_OPINION)
def test_central_differences_agree(name):
    result = check_gradients(checks.find(name), method=CENTRAL_DIFFERENCE)
    assert result.passed and 1e-13 < result.error <= 1e-6


def test_no_two_cases_have_one_name():
    assert len({case.name for case in checks.cases()}) == len(checks.cases())


def test_run_takes_parts_of_names_and_prints_a_row_each(capsys):
    results = checks.run(["lstm_cell", "layers/affine"])
    assert [(r.name, r.method) for r in results] == [
        ("layers/affine", COMPLEX_STEP), ("layers/affine", CENTRAL_DIFFERENCE), ("layers/affine square", COMPLEX_STEP),
        ("layers/lstm_cell", COMPLEX_STEP), ("layers/lstm_cell", CENTRAL_DIFFERENCE),
        ("layers/lstm_cell_without_tanh", COMPLEX_STEP),
    ]  # fmt: skip
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == len(results) and all(row.startswith("ok") for row in rows)
    with pytest.raises(InputError, match="check is called 'gru'; give a part of a name, such as captioners/adaptive"):
        checks.run(["lstm", "gru"])


def polynomial(x, constant):
    return x * x * x + constant, (x,)


def polynomial_backward(dout, cache):
    return 3 * dout * cache[0] * cache[0]


POLYNOMIAL = Case(
    "polynomial", lambda rng: {"x": rng.standard_normal((3, 4)), "constant": np.ones(4)},
    polynomial, polynomial_backward, constants=("constant",),
)  # fmt: skip


@pytest.mark.parametrize("method", [COMPLEX_STEP, CENTRAL_DIFFERENCE])
@pytest.mark.parametrize("direction", [False, True])
def test_right_and_wrong(method, direction):
    case = replace(POLYNOMIAL, direction=direction)
    right = check_gradients(case, method=method)
    assert right.passed and right.method == method and right.error <= gradcheck.TOLERANCE[method]
    wrong = check_gradients(replace(case, backward=lambda d, c: 1.0001 * polynomial_backward(d, c)), method=method)
    assert not wrong.passed and wrong.error == pytest.approx(1e-4, rel=1e-3)


@pytest.mark.parametrize("direction", [False, True])
@pytest.mark.parametrize(
    ("backward", "kind"),
    [
        (lambda d, c: None, "missing"),
        (lambda d, c: (d, d), "missing"),
        (lambda d, c: d.sum(axis=0), "shape"),
        (lambda d, c: d * np.inf, "non-finite"),
        (lambda d, c: d.__imul__(2), "mutation"),
        (lambda d, c: c[0].__setitem__(0, 0), "mutation"),
    ],
)
def test_what_cannot_be_compared_is_named_too(backward, kind, direction):
    result = check_gradients(replace(POLYNOMIAL, backward=backward, direction=direction))
    assert not result.passed and result.error == np.inf
    assert [finding.kind for finding in result.findings] == [kind]


def test_caches_and_parameters_are_read_only_in_the_backward():
    case = checks.find("captioners/show_attend_tell dot scalar")

    def spoil(dloss, cache):
        cache.params.W_h[...] *= 2

    assert check_gradients(replace(case, backward=spoil)).findings[0].kind == "mutation"


def test_a_forward_that_drops_the_imaginary_part_is_an_error():
    def forward(x, constant):
        out = xp_of(x).zeros(x.shape)
        out[...] = x
        return out, (x,)

    with pytest.raises(np.exceptions.ComplexWarning):
        check_gradients(replace(POLYNOMIAL, forward=forward))


def test_a_gradient_that_is_truly_zero_has_an_error_too():
    case = Case("shift", lambda rng: {"x": rng.standard_normal((2, 3)), "c": rng.standard_normal(1)},
                lambda x, c: (x + 0 * c, None), lambda d, cache: (d, np.zeros(1)))  # fmt: skip
    assert check_gradients(case).passed
    result = check_gradients(replace(case, backward=lambda d, cache: (d, np.full(1, 1e-3))))
    assert not result.passed and result.error > 0.1


N = np.arange(1.0, 13).reshape(3, 4)
SWAPPED = N.copy()
SWAPPED[:, [0, 3]] = SWAPPED[:, [3, 0]]
TWO_CELLS = N.copy()
TWO_CELLS[[0, 1], [1, 2]] += 1
HALF = N * (N > 5)


@pytest.mark.parametrize(
    ("g", "n", "kind", "words"),
    [
        (None, N, "missing", "dx is None"),
        (N.T, N, "shape", "it looks transposed"),
        (np.stack([N, N]), N, "shape", "not summed over an axis"),
        (np.where(N == 6, np.nan, N), N, "non-finite", r"1 values that are not finite, first at \(1, 1\)"),
        (0 * N, N, "zero", "nothing flows back"),
        (-N, N, "sign", "wrong sign"),
        (N / 3, N, "factor", r"0.333333 times the right gradient: divided by 3 \(the first axis of x\), a mean"),
        (N * 4, N, "factor", r"multiplied by 4 \(the second axis of x\), a sum"),
        (N * 1.5, N, "factor", "1.5 times the right gradient$"),
        (N[:, :3].T, N[:, :3], "transposed", "transpose"),
        (SWAPPED, N, "block", "wrong only at indices 0, 3 of its second axis"),
        (N, HALF, "mask", "not 0 at 5 places where the right gradient is 0"),
        (TWO_CELLS, N, "scattered", "wrong only at 2 of 12 places"),
        (N + N[::-1], N, "term", r"wrong everywhere.*worst at \(0, 3\): yours 16, wanted 4"),
    ],
)
def test_diagnosis(g, n, kind, words):
    finding = diagnose("dx", g, n, sizes={"the first axis of x": 3, "the second axis of x": 4})
    assert finding.kind == kind
    assert re.search(words, finding.sentence)


def test_a_right_gradient_has_no_diagnosis():
    assert diagnose("dx", N, N * (1 + 1e-12)) is None


def test_the_gradients_of_a_device_are_compared_on_the_host(xp):
    case = replace(POLYNOMIAL, backward=lambda d, c: to_device(np.ones((3, 4)), xp) * polynomial_backward(d, c))
    assert check_gradients(case, xp).passed
