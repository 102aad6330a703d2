"""The grader and wrong solutions: none gets full marks, nine in ten are named by their kind, right ones are told nothing."""

import importlib
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import pytest

from lessons.assignments import cut, grade, marks
from lessons.assignments.cut import write
from lessons.assignments.declare import HIDDEN, place
from tests.lessons.mutants import FRESH, MUTANTS, VARIANTS, submission

NAMES = list(MUTANTS)
KINDS = {
    "sign", "factor", "size", "transposed", "batch", "gate", "c-path", "beta", "penalty", "diagonal", "repeated", "mask",
    "mutation", "dtype", "step",
}  # fmt: skip


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
    """All kinds that were told; what follows from another task is no kind of its own."""
    return {kind for row in marked.rows for kind in grade.kinds(row)} - {"follows"}


def mark_all(name, many, folder):
    """[(assignment, Marked)] of submissions made with `many` edits."""

    def one(pair):
        k, edits = pair
        wanted = touched(name, edits)
        write(folder / str(k), submission(assignment(name), edits))
        return wanted, grade.mark(wanted, str(k), folder / str(k))

    for wanted in {touched(name, edits) for edits in many}:
        marks.predictions(wanted, HIDDEN)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(one, enumerate(many)))


def test_there_are_mutants_enough_of_kinds_enough():
    kinds = Counter(mutant.kind for mutants in MUTANTS.values() for mutant in mutants)
    assert sum(kinds.values()) >= 40 and len(kinds) >= 12 and kinds.keys() >= KINDS
    assert all(len(variants) >= 2 for variants in VARIANTS.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_mutants_are_between_none_and_all_and_named(name, tmp_path):
    wrong, mutants = [], (*MUTANTS[name], *FRESH[name])
    for mutant, (wanted, marked) in zip(mutants, mark_all(name, [x.edits for x in mutants], tmp_path), strict=True):
        rest = assignment(name).points - wanted.points  # of the tasks that are as in the model solution
        assert 0 < rest + marked.points < assignment(name).points, mutant.name
        found = told(marked)
        if mutant.kind not in found or not found <= {mutant.kind, *mutant.also}:
            wrong.append((mutant.name, mutant.kind, found))
    assert len(wrong) <= len(mutants) // 10, wrong


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_right_solutions_written_otherwise_are_told_nothing(name, tmp_path):
    for wanted, marked in mark_all(name, VARIANTS[name], tmp_path):
        assert marked.points == wanted.points and not told(marked) and not marked.said


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_mistake_of_the_table_makes_something_wrong(name):
    for mistake, wrong in marks.predictions(assignment(name), HIDDEN):
        assert wrong, mistake
