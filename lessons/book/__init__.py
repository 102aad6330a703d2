"""The book: every lesson with its answers is run as a notebook, and becomes a page of a static site.

Sphinx makes the site, with the theme Furo; pages.py writes what Sphinx reads, and site.py tells it what is ours.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from satnp.files import read_json, write_json

from ..cells import BadInput, read_answers
from . import pages, site

RECORD, MADE_BY = "book.json", "python -m lessons book"  # a file in the folder of a book: what made it, and the run times


class Failed(Exception):
    """A lesson or the site failed; the message is one sentence."""


def make(lessons, out):
    """Run the lessons and write the site to the folder `out` -> exit status"""
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or _is_book(out))):
        raise BadInput(f"{out} is there and is not a book; give another folder, or one that is empty")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".book-", dir=out.parent.resolve())
    except OSError as error:
        raise BadInput(f"cannot write into {out.parent} ({error.strerror}); give another folder") from None
    try:
        with scratch as folder:
            _make(lessons, Path(folder))
            if out.exists():
                shutil.rmtree(out)
            os.rename(Path(folder) / "site", out)
    except Failed as error:
        print(f"lessons: {error}", file=sys.stderr)
        return 1
    print(f"open {out / 'index.html'} in a browser")
    return 0


def _is_book(folder):
    record = read_json(folder / RECORD)
    return isinstance(record, dict) and record.get("made by") == MADE_BY


def _make(lessons, scratch):
    source, times = scratch / "pages", {}
    (scratch / "work").mkdir()
    book = pages.Pages(source, lessons)
    for lesson in lessons:
        answers = read_answers(lesson)
        cells = [*lesson.cells, *(cell for answer in answers.values() for cell in answer.cells)]
        ran, seconds = execute(lesson, cells, source / "figures", scratch / "work")
        book.add(lesson, answers, {cell: done.get("outputs", []) for cell, done in zip(cells, ran, strict=True)})
        count = len(lesson.cells)
        nbformat.write(nbformat.v4.new_notebook(cells=ran[:count]), source / f"{lesson.path.stem}.ipynb")
        times[lesson.number] = {"lesson": round(sum(seconds[:count]), 2), "answers": round(sum(seconds[count:]), 2)}
        print(f"{lesson.number} {lesson.title}: {sum(seconds):.1f} s", flush=True)
    book.finish()
    if wrong := site.build(source, scratch / "site", scratch / "doctrees"):
        raise Failed(f"the pages have mistakes:\n{wrong}")
    write_json(scratch / "site" / RECORD, {"made by": MADE_BY, "seconds": times})


def execute(lesson, cells, figures, folder):
    """Run cells as a notebook, in a process whose working directory is `folder` -> (the notebook's, seconds of each)"""
    paths = [lesson.path.parent, *Path(__file__).parents[1:3], os.environ.get("PYTHONPATH", "")]  # kit.py, satnp
    environment = os.environ | {
        "SATNP_LESSONS": str(figures), "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(map(str, paths)),
    }  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    notebook = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_markdown_cell(cell.text) if cell.is_text else nbformat.v4.new_code_cell(cell.text) for cell in cells
    ])  # fmt: skip
    client, seconds = NotebookClient(notebook, timeout=None, kernel_name="python3"), []
    with client.setup_kernel(env=environment, cwd=str(folder), **quiet):
        for k, cell in enumerate(cells):
            started = time.monotonic()
            try:
                client.execute_cell(notebook.cells[k], k)
            except (CellExecutionError, DeadKernelError) as error:
                what = f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else "its process died"
                file = lesson.path if k < len(lesson.cells) else lesson.answers_path
                place = f"{file.relative_to(lesson.path.parent)}, cell at line {cell.first}"
                raise Failed(f"lesson {lesson.number} failed in {place}: {' '.join(what.split())}") from None
            seconds.append(time.monotonic() - started)
    for output in (x for cell in notebook.cells for x in cell.get("outputs", []) if "text" in x):
        output["text"] = output["text"].replace(str(figures), "satnp-lessons").replace(str(folder), "/tmp")
    return notebook.cells, seconds
