"""Assignments: what a starter holds, what a submission earns, and what it cannot do."""

import ast
import csv
import importlib
import json
import os
import shutil
import stat
import subprocess
import sys
import venv
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lessons.assignments import cut, grade, kinds, marks, process
from lessons.assignments.__main__ import NAMES, main
from lessons.assignments.build import build, write
from lessons.assignments.declare import HIDDEN, PUBLIC, Assignment, Edit, Speed, Task, place
from lessons.assignments.hints import HINTS
from lessons.assignments.through_time import lstm_backward
from satnp.layers import conv
from satnp.layers.lstm import _cell, _cell_gradient, lstm_cell_backward, lstm_cell_forward
from satnp.reference import conv as reference

HERE = Path(cut.__file__).parent


def assignment(name):
    return importlib.import_module(f"lessons.assignments.{name.lower()}").ASSIGNMENT


def long(name):
    """Does marking it take more than a second or two?"""
    return any(task.judge or task.score or task.speed for task in assignment(name).tasks)


WRITTEN = [name for name in NAMES if (HERE / f"{name.lower()}.py").exists()]
BUILT = [pytest.param(name, marks=pytest.mark.slow) if long(name) else name for name in WRITTEN]
QUICK = [name if name in ("A1", "A2") else pytest.param(name, marks=pytest.mark.slow) for name in WRITTEN]
A2 = assignment("A2")
CELL = replace(A2, tasks=tuple(replace(task, seconds=2) for task in A2.tasks[:1]))  # 40 points, a process of 0.2 s
SHORT = replace(CELL, tasks=(replace(CELL.tasks[0], seconds=1),))


def hand_in(folder, *edits, top="", cell=None):
    """The model solution with edits in it, code above lstm.py, or another body of lstm_cell_forward."""
    files = cut.package(A2, edits=edits)
    text = files["captioner/lstm.py"]
    if cell is not None:
        first = "    H = c_prev.shape[1]\n"
        text = text.replace(first, "".join(f"    {x}\n" for x in cell.splitlines()) + first)
    files["captioner/lstm.py"] = top + text
    write(folder, files)
    return folder


def mark(folder, wanted=CELL):
    return grade.mark(wanted, "name", folder)


def said(marked):
    """All sentences of a report, each in one line."""
    return grade.table(CELL, [marked]).replace("\n      ", " ")


# ---- the starter


@pytest.mark.parametrize("name", BUILT)
def test_no_line_of_a_cut_body_is_in_the_starter(name, tmp_path):
    """Nor of a helper that only cut bodies use. Lines below 12 characters, or that stand in what is given, say nothing."""
    wanted = assignment(name)
    build(wanted, tmp_path / "starter")
    text = "\n".join(x.read_text() for x in (tmp_path / "starter").rglob("*") if x.suffix in (".py", ".md", ".json"))
    seen = {line.strip() for line in text.splitlines()}
    roots, missing = [place(x) for x in (*wanted.cut, *wanted.given)], [place(x) for x in wanted.cut]
    kept, bodies = set(cut.closure(roots, missing)), 0
    given = {line.strip() for here in kept - set(missing) for line in cut.source(here[0]).definition(here[1]).splitlines()}
    for here in cut.closure(roots):
        if here in kept and here not in missing:
            continue
        node = cut.source(here[0]).nodes[here[1]]
        lines = ast.get_source_segment(cut.source(here[0]).text, node).splitlines()
        documented = isinstance(node, ast.FunctionDef) and ast.get_docstring(node)
        for line in map(str.strip, lines[node.body[0].end_lineno - node.lineno + 1 if documented else 1 :]):
            if len(line) >= 12 and line not in given:
                bodies += 1
                assert line not in seen, line
    assert bodies > 20


@pytest.mark.parametrize("name", BUILT)
def test_a_starter_has_signatures_docstrings_numbers_and_a_handout(name, tmp_path):
    wanted = assignment(name)
    build(wanted, tmp_path / "starter")
    for function in wanted.cut:
        module, called = place(function)
        tree = ast.parse((tmp_path / "starter/captioner" / f"{cut.short(module)}.py").read_text())
        (found,) = [x for x in tree.body if getattr(x, "name", "") == called]
        original = cut.source(module).nodes[called]
        arguments = [x.arg for x in original.args.args if x.arg not in ("F", "out", "more", "relu")]
        assert [x.arg for x in found.args.args] == arguments
        text = ast.get_docstring(found)
        assert text == cut.plain(ast.get_docstring(original)) and text.split("\n")[0] in ast.get_docstring(original)
        assert not any(word in text for word in ("`out`", "host", "relu", "F from", "more ("))
        assert len(found.body) == 2 and isinstance(found.body[1], ast.Raise)
        first, second = HINTS[called]
        stub = " ".join((tmp_path / "starter/captioner" / f"{cut.short(module)}.py").read_text().replace("#", "").split())
        assert f"Hint: {' '.join(first.split())}" in stub and f"check.py --hint {called}" in stub and second not in stub
    assert all(
        imported(x) <= {"numpy", "captioner", "calls", "kinds", *sys.stdlib_module_names} for x in tmp_path.rglob("*.py")
    )
    handout = (tmp_path / "starter/README.md").read_text()
    assert all(f"`{function.__name__}`" in handout for function in wanted.cut)
    assert "python check.py" in handout and f"{wanted.points} points" in handout
    for task in wanted.tasks:
        for array, points in task.points.items():
            assert f"`{array}` {points}" in handout, (task.name, array)


def imported(path):
    """First parts of the modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {x.name.partition(".")[0] for x in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_public_checks_fail_on_the_starter_and_pass_with_the_solution(name, tmp_path):
    build(assignment(name), tmp_path / "starter")

    def check(*words):
        environment = {k: x for k, x in os.environ.items() if k != "PYTHONPATH"}
        command = [sys.executable, *words]
        return subprocess.run(command, cwd=tmp_path / "starter", env=environment, capture_output=True, text=True)

    found = check("check.py")
    assert found.returncode == 1 and "not written yet" in found.stdout and not found.stderr
    write(tmp_path / "starter", cut.package(assignment(name)))
    found = check("check.py")
    assert found.returncode == 0 and found.stdout.endswith("all right\n"), found.stdout
    assert check("-m", "pytest", "-q", "check.py", "-p", "no:cacheprovider").returncode == 0


@pytest.mark.slow
def test_public_checks_tell_of_what_costs_points(tmp_path):
    build(A2, tmp_path)
    write(tmp_path, cut.package(A2))
    lstm = tmp_path / "captioner/lstm.py"
    right, wide = lstm.read_text(), "0 * gates.real.sum(dtype=float)"

    def check(name, old="", new=""):
        lstm.write_text(right.replace(old, new, 1))
        return subprocess.run([sys.executable, "check.py", name], cwd=tmp_path, capture_output=True, text=True)

    for told, old, new in (
        ("each is float64 where the inputs are float32", "    H = c_prev", f"    gates = gates + {wide}\n    H = c_prev"),
        (
            "a second backward from the same cache gives other numbers",
            "    return dgates",
            "    cache.f[:] = 0\n    return dgates",
        ),
        ("NameError: name 'heart' is not defined (captioner/lstm.py, line ", "    H = c_prev", "    H = heart"),
        ("lstm_cell_forward must return two things: (h, c) and the cache", "return (h, c), ", "return h, c, "),
        ("return dgates, dc_prev: 2 arrays, not 1", "return dgates, dc_prev", "return dgates"),
        (
            "with complex inputs your forward raised TypeError",
            "    H = c_prev",
            "    float(gates[0, 0].item())\n    H = c_prev",
        ),
    ):
        assert old in right
        found = check("cell", old, new)
        assert found.returncode == 1 and told in " ".join(found.stdout.split()) and not found.stderr, (told, found)
    found = check("sell")
    assert found.returncode == 2 and not found.stdout and "there are cell, sentence" in found.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT)
def test_a_starter_works_with_nothing_but_its_requirements(name, tmp_path):
    build(assignment(name), tmp_path / "starter")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run = {"cwd": tmp_path / "starter", "capture_output": True, "text": True, "env": {"PATH": os.environ["PATH"]}}
    installed = subprocess.run([python, "-m", "pip", "install", "-q", "-r", "requirements.txt"], **run)
    assert installed.returncode == 0, installed.stderr
    assert "not written yet" in subprocess.run([python, "check.py"], **run).stdout
    write(tmp_path / "starter", cut.package(assignment(name)))
    assert subprocess.run([python, "check.py"], **run).stdout.endswith("all right\n")


def test_a_folder_that_is_not_empty_is_refused(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    for words in (["build", "A2"], ["grade", "A2", str(tmp_path)]):
        assert main([*words, "--out", str(tmp_path)]) == 2
        assert "not empty" in capsys.readouterr().err
    assert [x.name for x in tmp_path.iterdir()] == ["mine.txt"]


def test_the_command_builds_a_starter(tmp_path):
    command = [sys.executable, "-m", "lessons.assignments", "build", "A2", "--out", tmp_path / "starter"]
    found = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True)
    assert found.returncode == 0 and "python check.py" in found.stdout and (tmp_path / "starter/gold.npz").exists(), found


def test_an_empty_folder_is_taken_and_nothing_else_is_left(tmp_path):
    (tmp_path / "starter").mkdir()
    assert main(["build", "A2", "--out", str(tmp_path / "starter")]) == 0
    assert (tmp_path / "starter/check.py").exists() and [x.name for x in tmp_path.iterdir()] == ["starter"]


def test_a_build_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        build(replace(A2, name="A9"), tmp_path / "starter")
    assert not list(tmp_path.iterdir())


# ---- marks


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_the_model_solution_gets_all_points_and_the_starter_none(name, tmp_path):
    wanted = assignment(name)
    write(tmp_path / "model", cut.package(wanted))
    found = mark(tmp_path / "model", wanted)
    assert found.points == wanted.points == 100
    assert not found.said and not any(grade.kinds(row) for row in found.rows)
    assert not [x for x in sys.modules if x.partition(".")[0] == cut.PACKAGE or x.startswith("mistake")]
    write(tmp_path / "starter", cut.package(wanted, cut=True))
    found = mark(tmp_path / "starter", wanted)
    assert found.points == 0
    assert {kind for row in found.rows for kind in grade.kinds(row)} == {"missing"}


OTHERS = Path(__file__).parent / "other_solutions"


@pytest.mark.parametrize(
    "name", [pytest.param(x.name, marks=[pytest.mark.slow] * (x.name == "A3")) for x in sorted(OTHERS.iterdir())]
)
def test_other_right_solutions_get_all_points_and_no_remark(name, tmp_path):
    """Written from the handouts, in another way than satnp's."""
    wanted = assignment(name)
    write(tmp_path, cut.package(wanted, cut=True))
    shutil.copytree(OTHERS / name, tmp_path, dirs_exist_ok=True)
    found = mark(tmp_path, wanted)
    assert found.points == 100 and not any(grade.kinds(row) for row in found.rows), said(found)


@pytest.mark.slow
def test_hidden_numbers_are_others_than_the_public_ones():
    for name in WRITTEN:
        public, hidden = (marks.cases(assignment(name), seed) for seed in (PUBLIC, HIDDEN))
        for one, other in zip(public, hidden, strict=True):
            for n, x in one.arrays.items():
                if x.dtype.kind == "f" and n not in one.task.constants:
                    drawn = np.isfinite(x) & (x != np.round(x))  # no mask, no one-hot row, no ties
                    assert not np.any((x == other.arrays[n])[drawn]), (name, n)


def test_a_right_backward_of_a_wrong_forward_is_told_as_that(tmp_path):
    edits = (
        Edit(_cell, "tanh_c = xp.tanh(c)\n    h = o * tanh_c", "tanh_c = 2 * xp.tanh(c)\n    h = o * tanh_c"),
        Edit(_cell_gradient, "dc = dc + dh * o * (1 - tanh_c * tanh_c)", "dc = dc + dh * o * (2 - tanh_c * tanh_c / 2)"),
    )
    found = mark(hand_in(tmp_path, *edits))
    of = {row.array: row for row in found.rows}
    assert of["h"].points == 0 and of["c"].points == of["c"].most
    for n in "dgates", "dc_prev":
        half_of_it = kinds.OWN / 2  # of the two outputs one is right, the other has a relative error of 1
        assert of[n].points == pytest.approx(half_of_it * of[n].most) and grade.kinds(of[n]) == ["forward"]
    assert grade.kinds(of["h"]) == ["factor"] and "2 times what is right" in said(found)


def test_a_known_mistake_is_named_and_nothing_is_given_away(tmp_path):
    found = mark(hand_in(tmp_path, Edit(lstm_backward, "dc = dc_prev + (1 - live) * dc", "dc = xp.zeros_like(dc)")), A2)
    assert {kind for row in found.rows for kind in grade.kinds(row)} == {"c-path"}
    assert "wanted" not in said(found) and "yours" not in said(found)
    found = mark(hand_in(tmp_path / "other", Edit(_cell_gradient, "dc_prev = dc * f", "dc_prev = dc * f**3 + i")))
    assert "wanted" not in said(found) and "dc_prev: it is wrong everywhere" in said(found)


def test_what_follows_from_another_task_is_told_as_that(tmp_path):
    found = mark(hand_in(tmp_path, Edit(_cell_gradient, "do * o * (1 - o)", "do * o")), A2)
    told = {(row.task, row.array): grade.kinds(row) for row in found.rows}
    assert told.pop(("cell", "dgates")) == ["gate"]
    for (task, array), kind in told.items():
        assert kind == (["follows"] if task == "sentence" and array != "h" else [])
    assert "  sentence: dx, dW_x, dW_h, db, dh_0, dc_0: each is wrong only because of `cell`" in said(found)
    assert found.points == pytest.approx(100 - 20 - 100 * marks.CASCADE)  # dgates, and 15 of the 45 that follow


def test_what_is_returned_in_another_order_is_told_as_that(tmp_path):
    found = mark(hand_in(tmp_path, Edit(lstm_backward, "db, dh, dc", "db, dc, dh")), A2)
    assert found.points == 86 and {kind for row in found.rows for kind in grade.kinds(row)} == {"order"}
    assert "dc_0: it has the numbers of dh_0" in said(found)


def test_a_factor_that_is_a_size_is_told_as_that(tmp_path):
    found = mark(hand_in(tmp_path, Edit(_cell_gradient, "dc_prev = dc * f", "dc_prev = dc * f / len(dc)")))
    assert grade.kinds(found.rows[3]) == ["size"] and "divided by N, the number of rows of the batch" in said(found)
    assert found.points == 40 - 10 * marks.SHARES["usual"]  # a batch of one is right
    found = mark(hand_in(tmp_path / "b", Edit(_cell_gradient, "dc_prev = dc * f", "dc_prev = -0.7 * dc * f")))
    assert grade.kinds(found.rows[3]) == ["factor"] and found.points == 30


def test_a_gradient_of_the_own_forward_pays_in_the_measure_in_which_the_forward_is_right(tmp_path):
    """h = c = the sum of the inputs: its derivative is easy."""
    forward = "s = gates.reshape(len(gates), 4, H_).sum(axis=1) + c_prev\nreturn (s, s + 0), (len(gates), H_)"
    backward = Edit(
        lstm_cell_backward,
        "    (dh, dc), (N, H) = dout, cache.i.shape\n",
        "    return np.tile(dout[0] + dout[1], (1, 4)), dout[0] + dout[1]\n    (dh, dc), (N, H) = dout, cache.i.shape\n",
    )
    found = mark(hand_in(tmp_path, backward, top="import numpy as np\n", cell="H_ = c_prev.shape[1]\n" + forward))
    assert {kind for row in found.rows[2:] for kind in grade.kinds(row)} == {"forward"} and found.points < 2, said(found)
    assert (
        kinds.measure([np.ones(3)], [2 * np.ones(3)], [1.0]) == 0.5
        and kinds.measure([np.ones(3)], [-np.ones(3)], [1.0]) == 0
    )


def test_a_buffer_that_two_forwards_share_is_told(tmp_path):
    """The cache of the first call holds what the second has written."""
    shared = "class Kept(dict):\n    pass\n\n\nKEPT = Kept()\n"
    keep = Edit(lstm_cell_forward, "    return (h, c), LSTMCache(c_prev, *made)",
                "    cache = KEPT.setdefault(h.shape, LSTMCache(c_prev * 1, *[x * 1 for x in made]))\n"
                "    for old, new in zip(cache, (c_prev, *made)):\n        old[...] = new\n"
                "    return (h, c), cache")  # fmt: skip
    found = mark(hand_in(tmp_path, keep, top=shared))
    assert found.points < 40 and "(the cache)" in said(found)


def test_hidden_cases_have_ties_holes_and_far_rows():
    def of(name, task):
        return [case for case in marks.cases(assignment(name), HIDDEN) if case.task.name == task]

    assert any(len(np.unique(case.arrays["x"])) < 4 for case in of("A1", "max pooling"))
    for name, task, axis in ("A2", "sentence", 0), ("A3", "penalty", 0), ("A4", "captioner", 1), ("A5", "total", 0):
        masks = [np.moveaxis(case.arrays["mask"], axis, 0) for case in of(name, task)]
        assert any((np.diff(mask, axis=0) > 0).any() for mask in masks), name  # 1 after a 0
    for name, task, array in ("A3", "softmax", "scores"), ("A4", "cross-entropy", "logits"):
        tops = [case.arrays[array].max(axis=1) for case in of(name, task)]
        assert any((top > 900).any() and (np.abs(top) < 10).any() for top in tops), name


@pytest.mark.parametrize("name", WRITTEN)
def test_no_two_sizes_are_the_same_in_all_cases(name):
    """Else a factor that is one of them is called by the other's name."""
    for task in [task for task in assignment(name).tasks if not marks.judged(task)]:
        mine = [case for case in marks.cases(assignment(name), HIDDEN) if case.task is task]
        sizes = {a: tuple(case.sizes[a] for case in mine) for a in mine[0].sizes if all(a in case.sizes for case in mine)}
        assert len(set(sizes.values())) == len(sizes), (task.name, sizes)


def test_inputs_that_are_changed_and_dtypes_that_are_not_kept_cost_a_part(tmp_path):
    found = mark(hand_in(tmp_path / "a", cell="gates += 0.5\ngates -= 0.5\ngates[0, 0] += 1e-15"))
    assert {kind for row in found.rows for kind in grade.kinds(row)} == {"mutation"} and "(gates)" in said(found)
    assert found.points == pytest.approx(marks.CHANGED * 40)
    found = mark(hand_in(tmp_path / "b", Edit(_cell_gradient, "dc = dc + dh", "c_prev *= 2\n    dc = dc + dh")))
    assert "mutation" in {kind for row in found.rows for kind in grade.kinds(row)}
    found = mark(hand_in(tmp_path / "c", cell="gates = gates.real.astype(float)"))
    assert found.points < 40 and {kind for row in found.rows for kind in grade.kinds(row)} == {"dtype"}
    found = mark(hand_in(tmp_path / "d", Edit(_cell, "h = o * tanh_c", "h = (1 + 0j) * o * tanh_c")))
    assert found.points < 40 and "h: it is complex" in said(found)


def test_shapes_and_what_is_not_finite_are_told(tmp_path):
    one_row = Edit(lstm_cell_backward, "return dgates,", "return dgates[0],")
    found = mark(hand_in(tmp_path, Edit(_cell_gradient, "dc_prev = dc * f", "dc_prev = dc / 0"), one_row))
    assert [grade.kinds(row) for row in found.rows] == [[], [], ["shape"], ["non-finite"]] and found.points == 10


def image(rng, R, stride=1):
    arrays = {"x": (4, R, 20, 8), "W": (3, 3, 8, 6), "b": (6,)}
    return {n: rng.standard_normal(s) for n, s in arrays.items()} | {"stride": stride, "padding": 1}


FAST = Assignment(
    "A1", "a fast convolution", (conv.whole_correlate,), (reference.conv2d,), (
        Task(
            "fast", conv.whole_correlate, None, image, ("out",), usual=({"R": 4},), edges=({"R": 1}, {"R": 5, "stride": 2}),
            points={"out": 10, "seconds": 30}, cache=False, speed=Speed(reference.conv2d, None, 10, ({"R": 60}, {"R": 61})),
        ),
    ),
)  # fmt: skip
NAIVE = """from captioner.reference_conv import conv2d


def whole_correlate(x, W, b, stride, padding):
    return conv2d(x, W, b, stride, padding)
"""


@pytest.mark.slow
def test_speed_is_measured_against_the_naive_form(tmp_path):
    write(tmp_path / "model", cut.package(FAST))
    found = mark(tmp_path / "model", FAST)
    assert found.points == 40 and "times as fast as the naive form, 10 times is wanted" in said(found)
    write(tmp_path / "plain", cut.package(FAST) | {"captioner/conv.py": NAIVE})
    found = mark(tmp_path / "plain", FAST)
    # the naive form against itself: 1.45 times as fast was measured on a shared machine; 20 points are 2.15 times
    assert 10 <= found.points < 20 and [grade.kinds(row) for row in found.rows] == [[], ["slow"]]
    wrong = NAIVE.replace("conv2d(x,", "(1 + (len(x[0]) > 9)) * conv2d(x,")
    write(tmp_path / "wrong", cut.package(FAST) | {"captioner/conv.py": wrong})
    found = mark(tmp_path / "wrong", FAST)
    assert found.points == 10 and "so the time does not count" in said(found)
    write(tmp_path / "starter", cut.package(FAST, cut=True))
    assert mark(tmp_path / "starter", FAST).points == 0


@pytest.mark.slow
def test_a_student_sees_the_speed_and_what_is_judged(tmp_path):
    free = replace(FAST.tasks[0], name="free", judge=abs, speed=None, points={"out": 5})
    judged = replace(FAST, tasks=(*FAST.tasks, free))
    build(judged, tmp_path / "starter")

    def check():
        run = {"cwd": tmp_path / "starter", "capture_output": True, "text": True}
        return subprocess.run([sys.executable, "check.py"], **run)

    found = check()
    assert "not written yet" in found.stdout and found.returncode == 1
    write(tmp_path / "starter", cut.package(judged))
    found = check()
    assert "times as fast as the naive form, 10 times is wanted" in found.stdout and found.returncode == 0, found
    write(tmp_path / "starter", {"captioner/conv.py": NAIVE})
    assert check().returncode == 1


def test_a_judge_gives_a_share(tmp_path):
    task = replace(CELL.tasks[0], backward=None, points={"h": 10}, judge=lambda inputs, outputs: {
        "h": (0, "not there") if outputs["h"] is None else (float((outputs["h"] < 1).mean()) / 2, "half of what could be")
    })  # fmt: skip
    judged = replace(A2, tasks=(task,))
    broken = mark(hand_in(tmp_path), replace(A2, tasks=(replace(task, judge=lambda inputs, outputs: 1 / 0),)))
    assert broken.points == 0 and "cannot be judged: ZeroDivisionError" in said(broken)
    found = mark(hand_in(tmp_path), judged)
    assert found.points == 5 and "half of what could be" in said(found) and grade.kinds(found.rows[0]) == ["score"]
    write(tmp_path / "starter", cut.package(A2, cut=True))
    assert mark(tmp_path / "starter", judged).points == 0


def test_what_the_grader_cannot_cope_with_hurts_no_other(tmp_path, monkeypatch):
    real = process.Worker
    monkeypatch.setattr(process, "Worker", lambda folder, code, *rest: real(folder, code, *rest) if "lucky" in str(
        (code / "captioner/lstm.py").read_text()) else 1 / 0)  # fmt: skip
    found = grade.grade(CELL, [hand_in(tmp_path / "a", top="# lucky\n"), hand_in(tmp_path / "b")], tmp_path / "out")
    assert [x.points for x in found] == [40, 0] and "the grader itself failed" in said(found[1])


# ---- what a submission cannot do; each earns nothing by it, and is told


@pytest.mark.slow
def test_an_infinite_loop_is_ended(tmp_path):
    found = mark(hand_in(tmp_path, cell="while True:\n    pass"), SHORT)
    assert found.points == 0 and "was ended after" in said(found)


def test_sleep_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "PATIENCE", 1)
    found = mark(hand_in(tmp_path, cell="import time\ntime.sleep(100)"), SHORT)
    assert found.points == 0 and "was ended after 1 s" in said(found)


@pytest.mark.slow
def test_a_loop_in_one_task_leaves_the_others(tmp_path):
    short = replace(A2, tasks=tuple(replace(task, seconds=1) for task in A2.tasks))
    loop = Edit(lstm_backward, "xp = xp_of(x)\n", "xp = xp_of(x)\n    while True:\n        pass\n")
    found = mark(hand_in(tmp_path, loop), short)
    assert found.points == 40 and "sentence: the process was ended after" in said(found)


def test_memory_is_limited(tmp_path):
    found = mark(hand_in(tmp_path, top="import numpy as np\n", cell="kept = [np.zeros(2**27) for _ in range(4)]"))
    assert found.points == 0 and "MemoryError" in said(found)


def test_processes_are_refused(tmp_path):
    """A fork bomb of at most 2^6, so that a hole here hurts nobody."""
    found = mark(hand_in(tmp_path, top="import os\n", cell="for _ in range(6):\n    os.fork()"))
    assert found.points == 0
    if "seccomp" in found.confined:
        assert "PermissionError" in said(found)
    found = mark(hand_in(tmp_path / "b", top="import subprocess\n", cell="subprocess.run(['/bin/true'])"))
    assert found.points == 0 and "PermissionError" in said(found)


@pytest.mark.parametrize("way, told", [("sys.exit(0)", "SystemExit"), ("os._exit(0)", "ended itself with exit status 0"),
                                       ("os.abort()", "SIGABRT"), ("raise KeyboardInterrupt", "ended itself")])  # fmt: skip
def test_ending_the_process_earns_nothing(way, told, tmp_path):
    for k, where in enumerate(("top", "cell")):
        code = f"import os, sys\n{way if where == 'top' else ''}\n"
        found = mark(hand_in(tmp_path / str(k), top=code, cell=way if where == "cell" else None))
        assert found.points == 0 and told in said(found)


@pytest.mark.parametrize(
    "module", ["satnp", "jax.numpy", *(pytest.param(x, marks=pytest.mark.slow) for x in ("torch", "autograd", "tensorflow"))]
)
def test_other_libraries_are_refused_and_named(module, tmp_path):
    found = mark(hand_in(tmp_path / "a", top=f"import {module}\n"))
    assert found.points == 0 and f"captioner/lstm.py, line 1 imports {module}" in said(found)
    found = mark(hand_in(tmp_path / "b", cell=f"import importlib\nimportlib.import_module('{module}')"))
    assert found.points == 0 and f"ImportError: {module.partition('.')[0]} may not be imported" in said(found)


def test_what_we_know_cannot_be_read_there(tmp_path):
    """satnp's source, the grader's, and finding satnp by another way than an import."""
    for k, path in enumerate((conv.__file__, str(HERE / "marks.py"), "/etc/passwd")):
        found = mark(hand_in(tmp_path / str(k), cell=f"raise OSError(open({path!r}).read(20))"))
        assert found.points == 0
        if "Landlock" in found.confined:
            assert "PermissionError" in said(found)
    way = f"import sys\nsys.meta_path.pop(0)\nsys.path.insert(0, {str(HERE.parents[1])!r})\n"
    found = mark(hand_in(tmp_path / "x", top=way, cell="__import__('satn' + 'p.errors')\nraise OSError('found')"))
    assert found.points == 0
    if "Landlock" in found.confined:
        assert "OSError" not in said(found) and "Error" in said(found)


def test_numpy_made_to_lie_changes_nothing(tmp_path):
    lies = (
        "import numpy as np\nnp.linalg.norm = lambda *a, **k: 0.0\nnp.abs = lambda x: x * 0\n"
        "np.array_equal = np.allclose = lambda *a, **k: True\nnp.testing.assert_allclose = lambda *a, **k: None\n"
    )
    found = mark(hand_in(tmp_path, Edit(_cell, "h = o * tanh_c", "h = o * tanh_c * 1.001"), top=lies))
    of = {row.array: row for row in found.rows}
    assert of["h"].points == 0 and np.linalg.norm([3.0, 4.0]) == 5


def test_printing_and_writing_a_result_changes_nothing(tmp_path):
    """results.json where the grader's might be, the log, arrays of its own, and files elsewhere."""
    fake = (
        "import json, os, sys\n"
        "text = json.dumps({'score': 100, 'tests': [], 'confined': 'iron', 'errors': {'0': 1}, 'done': True})\n"
        "print(text); print(text, file=sys.stderr); os.write(4, b'0\\n1\\n2\\n')\n"
        "for name in ('log.json', '0.npz', '../job.json', 'results.json'):\n"
        "    try:\n"
        "        open(name, 'w').write(text)\n"
        "    except OSError as error:\n"
        "        refused = error\n"
        "os._exit(0)\n"
    )
    found = mark(hand_in(tmp_path / "a", cell=fake))
    assert found.points == 0
    found = mark(hand_in(tmp_path / "c", cell="open('new', 'w')"))
    if "Landlock" in found.confined:
        assert "PermissionError" in said(found)
    outside = tmp_path / "outside.txt"
    found = mark(hand_in(tmp_path / "b", cell=f"open({str(outside)!r}, 'w').write('here')"))
    if "not confined" not in found.confined:
        assert found.points == 0 and not outside.exists()
        assert "PermissionError" in said(found) or "Read-only" in said(found)


def test_nobody_is_signalled_and_no_network_is_had(tmp_path):
    found = mark(hand_in(tmp_path, cell="import os\nos.kill(os.getppid(), 9)"))
    assert found.points == 0
    found = mark(hand_in(tmp_path / "b", cell="import socket\nsocket.create_connection(('127.0.0.1', 9), 1)"))
    if "seccomp" in found.confined:
        assert "PermissionError" in said(found)


def test_files_are_not_written(tmp_path):
    found = mark(hand_in(tmp_path, cell="open('0.npz', 'r+b').truncate(100 * 2**20)"))
    assert found.points == 0 and "Error" in said(found)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="namespaces and Landlock are Linux's")
def test_without_landlock_a_namespace_confines_and_without_both_it_is_said(tmp_path, monkeypatch):
    outside = tmp_path / "outside.txt"
    writes = hand_in(tmp_path / "w", cell=f"open({str(outside)!r}, 'w').write('here')")
    reads = hand_in(tmp_path / "r", cell=f"raise OSError(open({conv.__file__!r}).read(20))")
    for missing in (["landlock"], ["landlock", "namespace", "refuse_calls"]):
        tools = tmp_path / str(len(missing))
        tools.mkdir()
        for name in "worker.py", "calls.py", "confine.py", "watch.py":
            shutil.copy(HERE / name, tools)
        text = (tools / "confine.py").read_text()
        for name in missing:
            text += f"\n\ndef {name}(*arguments):\n    return ''\n"
        (tools / "confine.py").write_text(text)
        monkeypatch.setattr(process, "HERE", tools)
        found = mark(writes)
        if len(missing) == 1 and "namespace" in found.confined:
            assert found.points == 0 and not outside.exists() and "Error" in said(found)
            assert "FileNotFoundError" in said(mark(reads))
            assert mark(hand_in(tmp_path / "model")).points == 40
        else:
            assert found.confined.startswith("not confined") and "(not confined" in said(found)


# ---- what is handed in


def zipped(path, entries, prefix=""):
    with zipfile.ZipFile(path, "w") as file:
        for name, text in entries.items():
            file.writestr(prefix + name, text)
    return path


def test_a_zip_a_folder_and_a_folder_in_it_are_the_same(tmp_path):
    files = cut.package(A2)
    assert mark(zipped(tmp_path / "a.zip", files)).points == 40
    assert mark(zipped(tmp_path / "b.zip", files, "my homework/")).points == 40
    write(tmp_path / "c" / "deeper", files)
    assert mark(tmp_path / "c").points == 40


@pytest.mark.parametrize("name", ["../evil.py", "/tmp/evil.py", "captioner/../../evil.py", "..\\evil.py", "C:\\evil.py"])
def test_a_zip_that_leaves_its_folder_is_refused(name, tmp_path):
    found = mark(zipped(tmp_path / "a.zip", cut.package(A2) | {name: "raise SystemExit"}))
    assert found.points == 0 and "leaves its folder" in said(found)


def test_links_bombs_and_what_is_no_zip_are_refused(tmp_path):
    link = zipfile.ZipInfo("captioner/lstm.py")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    assert "has a link in it" in said(mark(tmp_path / "link.zip"))
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("captioner/lstm.py", bytes(200 * 2**20))
    assert (tmp_path / "bomb.zip").stat().st_size < 2**20 and "too large" in said(mark(tmp_path / "bomb.zip"))
    many = zipped(tmp_path / "many.zip", {f"captioner/x{k}.py": "" for k in range(300)})
    assert "too large" in said(mark(many))
    (tmp_path / "no.zip").write_bytes(b"no zip")
    assert "neither a folder nor a zip" in said(mark(tmp_path / "no.zip"))
    (tmp_path / "empty").mkdir()
    assert "there is no folder captioner/" in said(mark(tmp_path / "empty"))
    folder = hand_in(tmp_path / "folder")
    (folder / "captioner/lstm.py").unlink()
    (folder / "captioner/lstm.py").symlink_to("/etc/passwd")
    assert "is a link" in said(mark(folder))
    broken = hand_in(tmp_path / "broken", top="def (:\n")
    assert "SyntaxError" in said(mark(broken))


# ---- reports


@pytest.mark.slow
def test_reports_of_a_class_with_strange_names(tmp_path, capsys):
    paths = [hand_in(tmp_path / "one" / "ann"), hand_in(tmp_path / "two" / "ann"), hand_in(tmp_path / "=cmd|x"),
             hand_in(tmp_path / "loop", top="import os\nos._exit(3)\n"), tmp_path / "nothing.zip"]  # fmt: skip
    (tmp_path / "nothing.zip").write_bytes(b"")
    hand_in(tmp_path / "ünïcode name")
    paths += [tmp_path / "ünïcode name", hand_in(tmp_path / "results.csv")]
    assert main(["grade", "A2", *map(str, paths), "--out", str(tmp_path / "out")]) == 0
    with open(tmp_path / "out/results.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["submission"] for row in rows] == [
        "ann", "ann-2", "cmd_x", "loop", "nothing", "ünïcode_name", "results.csv-2"
    ]  # fmt: skip
    assert [float(row["points"]) for row in rows] == [100, 100, 100, 0, 0, 100, 100]
    printed = capsys.readouterr().out
    assert (tmp_path / "out/table.txt").read_text("utf-8") == printed
    assert f"ann-2, handed in as {tmp_path / 'two/ann'} (" in printed and "\nloop (" in printed
    assert sorted(x.name for x in (tmp_path / "out").iterdir()) == sorted(
        [*(row["submission"] for row in rows), "results.csv", "table.txt"]
    )
    for row in rows:
        result = json.loads((tmp_path / "out" / row["submission"] / "results.json").read_text())
        assert result["score"] == float(row["points"]) == pytest.approx(sum(x["score"] for x in result["tests"]))
        assert sum(x["max_score"] for x in result["tests"]) == 100
        assert all({"name", "score", "max_score", "output"} <= set(x) for x in result["tests"])
    assert "ended itself with exit status 3" in printed and "neither a folder nor a zip" in printed


@pytest.mark.slow
def test_a_path_that_is_not_there_and_another_seed(tmp_path, capsys):
    model = hand_in(tmp_path / "model")
    assert main(["grade", "A2", str(model), str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    assert "there is no" in capsys.readouterr().err and not (tmp_path / "out").exists()
    for seed in "0", "-3":
        assert main(["grade", "A2", str(model), "--seed", seed, "--out", str(tmp_path / "out")]) == 2
        assert f"--seed {seed} is not allowed" in capsys.readouterr().err
    assert main(["grade", "A2", str(model), "--seed", "2025", "--out", str(tmp_path / "out")]) == 0
    assert "model 100.00 40.00 60.00" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_a_hundred_submissions(tmp_path):
    paths = []
    for k in range(100):
        edits = [Edit(_cell_gradient, "dc_prev = dc * f", f"dc_prev = dc * f * {k}")] if k % 2 else []
        paths.append(hand_in(tmp_path / f"student{k}", *edits))
    found = grade.grade(A2, paths, tmp_path / "out")
    assert len(found) == 100 and all((x.points == 100) == (k % 2 == 0 or k == 1) for k, x in enumerate(found))
