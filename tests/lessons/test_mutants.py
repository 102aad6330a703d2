"""The grader and wrong solutions: none gets full marks or a wrong name; right solutions are told nothing."""

import importlib
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import pytest

from lessons.assignments import cut, grade, marks
from lessons.assignments.build import build
from lessons.assignments.cut import write
from lessons.assignments.declare import HIDDEN, place
from lessons.assignments.mistakes import MISTAKES
from tests.lessons.mutants import FRESH, MUTANTS, UNSEEN, VARIANTS, submission

NAMES = list(MUTANTS)
KINDS = {
    "sign", "factor", "size", "transposed", "batch", "gate", "c-path", "beta", "penalty", "diagonal", "repeated", "mask",
    "mutation", "dtype", "step",
}  # fmt: skip
# These say what the numbers show, and claim no mistake: vague, but never wrong.
VAGUE = (
    "lost, added or misplaced", "correct that first", "it is wrong, and it uses", "each is wrong, and it uses",
    "of your own forward, which differs from the equation", "times as fast",
)  # fmt: skip
PLAIN = {"constant", "term", "part", "end", "edge", "zero", "forward", "follows", "border", "shape", "missing"}


def assignment(name):
    return importlib.import_module(f"lessons.assignments.{name.lower()}").ASSIGNMENT


@cache
def of_tasks(name, tasks):
    return replace(assignment(name), tasks=tasks)


def touched(name, edits):
    """The assignment with those tasks alone whose functions need an edited one; training only where nothing else does."""
    edited = {place(edit.function) for edit in edits}
    tasks = tuple(task for task in assignment(name).tasks if edited & set(
        cut.closure([place(x) for x in (task.forward, task.backward) if x])))  # fmt: skip
    return of_tasks(name, tuple(task for task in tasks if not task.score) or tasks)


def told(marked):
    """All kinds that were told, but what follows from something else is no kind of its own."""
    return {kind for row in marked.rows for kind in grade.kinds(row)} - {"follows"}


def mark_all(name, many, folder):
    """[(assignment, Marked)] of submissions made with `many` edits."""

    def one(pair):
        k, edits = pair
        wanted = touched(name, edits)
        write(folder / str(k), submission(assignment(name), edits))
        return wanted, grade.mark(wanted, str(k), folder / str(k))

    for task in {task for edits in many for task in touched(name, edits).tasks if not marks.judged(task)}:
        marks.predictions(assignment(name), HIDDEN, task)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(one, enumerate(many)))


def test_there_are_mutants_enough_of_kinds_enough():
    kinds = Counter(mutant.kind for mutants in MUTANTS.values() for mutant in mutants)
    assert sum(kinds.values()) >= 40 and len(kinds) >= 12 and kinds.keys() >= KINDS
    assert all(len(variants) >= 2 for variants in VARIANTS.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_mutants_are_between_none_and_all_and_named(name, tmp_path):
    vague, mutants = [], (*MUTANTS[name], *FRESH[name], *UNSEEN[name])
    for mutant, (wanted, marked) in zip(mutants, mark_all(name, [x.edits for x in mutants], tmp_path), strict=True):
        rest = assignment(name).points - wanted.points  # of the tasks that are as in the model solution
        assert 0 < rest + marked.points < assignment(name).points, mutant.name
        found = told(marked)
        assert found <= {mutant.kind, *mutant.also} | PLAIN, (mutant.name, found)  # no wrong name
        vague += [] if mutant.kind in found else [mutant.name]
    assert len(vague) <= len(mutants) // 10, vague


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_check_names_four_of_five_in_80_columns(name, tmp_path):
    """It has the grader's rules and, as fingerprints, its table."""
    wanted = assignment(name)
    build(wanted, tmp_path / "starter")
    vague, mutants = [], (*FRESH[name], *UNSEEN[name])
    for mutant in mutants:
        write(tmp_path / "starter", submission(wanted, mutant.edits))
        run = {"cwd": tmp_path / "starter", "capture_output": True, "text": True}
        said = subprocess.run([sys.executable, "check.py"], **run).stdout
        assert "all right" not in said and max(map(len, said.splitlines())) <= 80, (mutant.name, said)
        remarks = " ".join(said.split()).split(" * ")[1:]
        vague += [] if any(not any(word in x for word in VAGUE) for x in remarks) else [mutant.name]
    assert len(vague) <= len(mutants) // 5, vague


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_right_solutions_written_otherwise_are_told_nothing(name, tmp_path):
    for wanted, marked in mark_all(name, VARIANTS[name], tmp_path):
        assert marked.points == wanted.points and not told(marked) and not marked.said


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_mistake_of_the_table_makes_something_wrong(name):
    planted = [x for task in assignment(name).tasks if not marks.judged(task)
               for x in marks.predictions(assignment(name), HIDDEN, task)]  # fmt: skip
    assert {id(mistake) for mistake, _ in planted} == {id(mistake) for mistake in MISTAKES[name]}
    for mistake, wrong in planted:
        assert wrong, mistake
