"""The book: every lesson runs as a notebook with its answers, and its pages are whole (slow: all lessons are run here)."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from lessons import cells
from lessons.formulas import formulas
from tests.lessons.test_lessons import PATHS, environment, every_lesson

pytestmark = pytest.mark.slow
OPAQUE = {"pre", "code", "math", "script", "style", "svg", "title"}
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """What the tests ask of a page: its links, ids, images, formulas, and the text that is not code."""

    def __init__(self, path):
        super().__init__()
        self.path, self.stack, self.links, self.loaded, self.ids, self.images = path, [], [], [], set(), []
        self.text, self.emphasis, self.formulas, self.folds, self.tags = [], [], 0, [], set()
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.stack, f"{path.name} leaves {self.stack} open"

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.add(tag)
        if tag not in VOID:
            self.stack.append(tag)
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif "src" in values or tag == "link":
            self.loaded.append(values.get("src") or values["href"])
        if tag == "img":
            self.images.append(Path(values["src"]).name)
        self.formulas += tag == "math"

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.stack[-1] == tag, f"{self.path.name}: {tag} closes {self.stack[-1]}"
            self.stack.pop()

    def handle_data(self, data):
        if "summary" in self.stack:
            self.folds.append(data)
        if not OPAQUE & set(self.stack):
            self.text.append(data)
            if {"em", "strong"} & set(self.stack):
                self.emphasis.append(data)


class Book:
    """A folder with the site, what the command has printed, and its pages."""

    def __init__(self, folder, said):
        self.folder, self.said = folder, said
        self.record = json.loads((folder / "book.json").read_text())
        self.pages = {path.relative_to(folder).as_posix(): Page(path) for path in folder.rglob("*.html")}

    def notebook(self, path):
        (file,) = self.folder.glob(f"_downloads/*/{path.stem}.ipynb")
        return json.loads(file.read_text(encoding="utf-8"))

    def outputs(self, path):
        return [output for cell in self.notebook(path)["cells"] for output in cell.get("outputs", [])]


def made(folder, lessons, out, **more):
    """Run `python -m lessons book` with the lessons of a folder."""
    code = (
        "import sys; from pathlib import Path; from lessons import cells, __main__ as runner;"
        "cells.FOLDER = Path(sys.argv.pop(1)); sys.exit(runner.main())"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(lessons), "book", "--out", str(out)], cwd=folder, stdin=subprocess.DEVNULL,
        env=environment(SATNP_LESSONS=str(folder / "figures"), **more), capture_output=True, text=True, timeout=1800,
    )  # fmt: skip


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    """The book of all lessons."""
    pytest.importorskip("nbclient"), pytest.importorskip("sphinx")
    folder = tmp_path_factory.mktemp("book")
    done = made(folder, cells.FOLDER, folder / "book")
    assert done.returncode == 0, done.stderr
    return Book(folder / "book", done.stdout)


@every_lesson
def test_a_lesson_runs_within_the_time_it_states(book, path):
    lesson = cells.read(path)
    assert f"{lesson.number} {lesson.title}: " in book.said
    assert book.record[lesson.number]["lesson"] <= lesson.seconds


@every_lesson
def test_a_notebook_and_the_page_show_every_figure(book, path):
    outputs = book.outputs(path)
    said = re.findall(r"^figure: (.+)\n  see: .", "".join(x.get("text", "") for x in outputs), re.MULTILINE)
    page = book.pages[f"{path.stem}.html"]
    assert sum("image/png" in x.get("data", {}) for x in outputs) == len(said) >= 1
    assert {Path(file).name for file in said} <= set(page.images)
    assert all((book.folder / "_images" / Path(file).name).read_bytes().startswith(b"\x89PNG") for file in said)
    assert not any("figure: " in x for x in page.text)


@every_lesson
def test_a_page_shows_every_formula_hint_and_answer(book, path):
    lesson = cells.read(path)
    answers, page = cells.read_answers(lesson), book.pages[f"{path.stem}.html"]
    texts = [cell.text for cell in lesson.cells if cell.is_text]
    for answer in answers.values():
        texts += [*answer.hints, *(cell.text for cell in answer.cells if cell.is_text)]
    assert page.formulas == sum(len(formulas(text)) for text in texts)
    assert len(page.folds) == sum(len(answer.hints) + 1 for answer in answers.values())


@every_lesson
def test_a_page_has_no_markdown_and_no_tag_left(book, path):
    page = book.pages[f"{path.stem}.html"]
    text = "".join(page.text)
    assert not re.findall(r"\*\*|`|\]\(|</?\w+>|\$|^ *(?:#+|\||:::).*$", text, re.MULTILINE)
    assert all(re.fullmatch(r"[^\W\d_][\w ,.;:?!'’()&+-]*", x.replace("\n", " ")) for x in page.emphasis)


@every_lesson
def test_every_listing_of_source_has_its_link(book, path):
    text = "".join(x.get("text", "") for x in book.outputs(path))
    shown = re.findall(r"^(\w+(?:/\w+)+\.py):(\d+)\n", text, re.MULTILINE)
    links = book.pages[f"{path.stem}.html"].links
    for file, line in shown:
        assert f"source/{file}.html#L-{line}" in links


def test_no_link_is_broken_and_nothing_comes_from_the_network(book):
    check_links(book)


def check_links(book):
    for name, page in book.pages.items():
        assert not [x for x in page.loaded if urlsplit(x).scheme or x.startswith("//")], name
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https"):
                continue
            target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
            assert target.is_file(), f"{name}: {link}"
            if parts.fragment and target.suffix == ".html":
                ids = book.pages[target.relative_to(book.folder.resolve()).as_posix()].ids
                assert parts.fragment in ids, f"{name}: {link}"


def test_the_contents_name_every_lesson_and_what_it_needs(book):
    page = book.pages["index.html"]
    for path in PATHS:
        assert page.links.count(f"{path.stem}.html") >= 3  # the table, the drawing, the list beside the page
    assert page.formulas == 0 and cells.short_path() in " ".join("".join(page.text).split())
