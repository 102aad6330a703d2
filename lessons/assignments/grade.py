"""Grade submissions and write the results: results.json for Gradescope, a table to read, a CSV file of the class."""

import csv
import json
import os
import re
import shutil
import tempfile
import textwrap
import traceback
import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from lessons.assignments import marks, numerical, process, speed
from lessons.assignments.build import whole
from lessons.assignments.cut import PACKAGE, write
from lessons.assignments.declare import HIDDEN
from lessons.assignments.kinds import merged
from lessons.assignments.submission import Refused, imports, unpack
from satnp.terminal import printable

COLUMNS = 80  # of a table


class Marked(NamedTuple):
    name: str
    rows: list
    said: list       # about the submission as a whole
    confined: str
    path: str = ""   # as given, if several submissions have this name

    @property
    def points(self):
        return round(sum(row.points for row in self.rows), 2)


def grade(assignment, paths, out, seed=HIDDEN):
    """Grade the submissions `paths` and write the folder `out`, new or empty -> list of Marked"""
    marks.cases(assignment, seed)
    for task in assignment.tasks:
        numerical.large(task, seed)
    names = unique([_given(path) for path in paths])
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()) as pool:
        found = list(pool.map(lambda pair: _whatever_comes(assignment, *pair, seed), zip(names, paths, strict=True)))
    given = Counter(_given(path) for path in paths)
    found = [x if given[x.name] == 1 else x._replace(path=str(path)) for x, path in zip(found, paths, strict=True)]
    _write(assignment, found, out)
    return found


def _given(path):
    """The name of a submission, in one Unicode form: some systems write an umlaut as two characters."""
    return unicodedata.normalize("NFC", Path(path).name.removesuffix(".zip"))


def _whatever_comes(assignment, name, path, seed):
    """As mark, but an error of the grader itself is reported, and the other submissions are still graded."""
    try:
        return mark(assignment, name, path, seed)
    except Exception:
        said = f"the grader itself failed, tell your instructor: {' '.join(traceback.format_exc(limit=-2).split())}"
        return Marked(name, nothing(assignment, "error", "not marked"), [said], "")


def mark(assignment, name, path, seed=HIDDEN):
    """Grade one submission -> Marked"""
    with tempfile.TemporaryDirectory(prefix="marks-") as folder:
        folder = Path(folder).resolve()
        package = folder / "package"
        try:
            files, said = unpack(path, PACKAGE, package)
            refused = imports(package, files)
            if refused:
                raise Refused("; ".join(f"{file}, line {line} imports {module}" for file, line, module in refused[:5])
                              + ": only NumPy and Python's standard library are allowed")  # fmt: skip
        except (Refused, OSError) as error:
            return Marked(name, nothing(assignment, "refused", "not marked"), [f"refused: {error}"], "")
        rows, confined = [], set()

        def run(task, name, package):
            """The task's Rows, and what ended and confined its process."""
            planned, large = marks.plan(assignment, task, seed, PACKAGE), numerical.large(task, seed)
            calls = [x[2] for x in planned] + numerical.calls(large, PACKAGE)
            calls[0]["watched"] = not marks.judged(task)
            limits = task.seconds, assignment.memory, numerical.MOST
            with process.Worker(folder / name, package, calls, *limits) as worker:
                for j, (*_, arrays) in enumerate(planned):
                    worker.ask(j, arrays)
                ran = worker.ran()
                found = marks.mark(assignment, task, seed, planned, ran)
                return ran, numerical.judge(task, found, worker, len(planned), large)

        def again(task):
            """The task's Rows if the functions of the tasks that it uses were right."""
            mixed = folder / f"mixed {task.name}"
            shutil.copytree(package, mixed)
            write(mixed, marks.right_parts(assignment, task, mixed))
            ran, alone = run(task, f"again {task.name}", mixed)
            return None if ran.ended else alone

        for k, task in enumerate(assignment.tasks):
            ran, found = run(task, f"task{k}", package)
            rows += found
            if ran.ended:
                said.append(f"{task.name}: the process {ran.ended}")
            confined |= {ran.confined} - {None}
            if task.speed:
                rows.append(speed.mark(assignment, task, seed, package, folder / f"speed{k}"))
        rows = marks.cascade(assignment, rows, again)
        if lost := min(sum(row.follows for row in rows), marks.CASCADE * assignment.points):
            most = f"{assignment.points}; at most {marks.CASCADE * assignment.points:.4g}"
            said.append(f"what is wrong only because of another task costs {lost:.4g} of {most}")
        return Marked(name, rows, said, "; ".join(sorted(confined)))


def nothing(assignment, kind, sentence):
    """The rows of a submission that gets no points."""
    told = marks.Told(0, kind, sentence)
    return [marks.Row(task.name, n, 0, most, dict.fromkeys(marks.SHARES, told), [])
            for task in assignment.tasks for n, most in task.points.items()]  # fmt: skip


def unique(names):
    """The names as folder names, all different."""
    found = []
    for name in names:
        plain = re.sub(r"[^\w.-]+", "_", name).strip("._-")[:60] or "submission"
        fresh, k = plain, 2
        while fresh.casefold() in {x.casefold() for x in found} | {"results.csv", "table.txt"}:
            fresh, k = f"{plain}-{k}", k + 1
        found.append(fresh)
    return found


def gradescope(assignment, marked):
    """The content of results.json for one submission."""
    tests = []
    for row in marked.rows:
        lines = [f"{group}: {told.sentence}" for group, told in row.groups.items()] + [told.sentence for told in row.notes]
        if len({told.sentence for told in row.groups.values()}) == 1:
            lines[: len(row.groups)] = [next(iter(row.groups.values())).sentence]
        tests.append({
            "name": f"{row.task}: {row.array}", "score": round(row.points, 2), "max_score": row.most,
            "output": "\n".join(map(printable, lines)), "extra_data": {"kinds": kinds(row)},
        })  # fmt: skip
    said = [*marked.said, f"confined by: {marked.confined}" if marked.confined else ""]
    return {"score": marked.points, "output": "\n".join(printable(x) for x in said if x), "tests": tests}


def kinds(row):
    """The kinds of mistakes in an array, without repeats; [] if it is right."""
    return list(dict.fromkeys(told.kind for told in [*row.groups.values(), *row.notes] if told.kind != "right"))


def table(assignment, found):
    """The points, one line a submission, then the remarks; the points of each task are there if a line is too short."""
    tasks, longest = [task.name for task in assignment.tasks], max([10, *(len(x.name) for x in found)])
    room = COLUMNS - sum(2 + max(8, len(t)) for t in ["points", *tasks])
    wide = room < min(longest, 20)
    width, columns = (longest, []) if wide else (min(longest, room), tasks)
    head = f"{'submission':<{width}}" + "".join(f"  {t:>{max(8, len(t))}}" for t in ["points", *columns])
    lines = [f"{assignment.name}, {assignment.title}: {assignment.points} points", "", head]
    each = [{t: sum(row.points for row in marked.rows if row.task == t) for t in tasks} for marked in found]
    for marked, points in zip(found, each, strict=True):
        name = marked.name if len(marked.name) <= width else f"{marked.name[: width - 9]}…{marked.name[-8:]}"
        lines.append(f"{name:<{width}}  {marked.points:>8.2f}"
                     + "".join(f"  {points[t]:>{max(8, len(t))}.2f}" for t in columns))  # fmt: skip
    for marked, points in zip(found, each, strict=True):
        told = [", ".join(f"{t} {x:.4g}" for t, x in points.items())] if wide and marked.points else []
        told = [f"  {x}" for x in [*told, *marked.said]] + _remarks(marked)
        handed_in = f", handed in as {marked.path}" if marked.path else ""
        lines += ["", f"{marked.name}{handed_in} ({marked.confined or 'not run'})", *(y for x in told for y in _folded(x))]
    return "\n".join(map(printable, lines)) + "\n"


def _folded(line):
    return textwrap.wrap(printable(line), COLUMNS, subsequent_indent=6 * " ", break_long_words=False, break_on_hyphens=False)


def _remarks(marked):
    """The remarks on arrays, one line for each task and sentence."""
    tasks = {}
    for row in marked.rows:
        tasks.setdefault(row.task, []).extend(
            (row.array, told.sentence) for told in [*row.groups.values(), *row.notes]
            if told.kind not in ("refused", "ended") and (told.kind != "right" or row.array == "seconds")
        )  # fmt: skip
    return [f"  {task}: {sentence}" for task, pairs in tasks.items() for sentence in merged(pairs)]


def _write(assignment, found, out):
    with whole(out) as made:
        for marked in found:
            (made / marked.name).mkdir()
            (made / marked.name / "results.json").write_text(json.dumps(gradescope(assignment, marked), indent=1) + "\n")
        (made / "table.txt").write_text(table(assignment, found), encoding="utf-8")
        with open(made / "results.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            arrays = [(task.name, n) for task in assignment.tasks for n in task.points]
            rows.writerow(["submission", "points", "of", *(f"{t}: {n}" for t, n in arrays), "said"])
            for marked in found:
                each = {(row.task, row.array): round(row.points, 2) for row in marked.rows}
                said = "; ".join(marked.said)
                points = [marked.points, assignment.points, *(each[x] for x in arrays)]
                rows.writerow([_cell(marked.name), *points, _cell(said)])


def _cell(text):
    """A cell that a spreadsheet does not take for a formula."""
    text = printable(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
