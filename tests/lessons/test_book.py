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
from tests.lessons.test_lessons import PATHS, ROOT, environment, every_lesson

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
        self.formulas += tag == "math" and "article" in self.stack  # not those of a list of headings

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
        self.seconds = json.loads((folder / "book.json").read_text())["seconds"]
        self.pages = {path.relative_to(folder).as_posix(): Page(path) for path in folder.rglob("*.html")}

    def outputs(self, path):
        """What the notebook of a lesson has printed, and how many figures it has."""
        (file,) = self.folder.glob(f"_downloads/*/{path.stem}.ipynb")
        outputs = [x for cell in json.loads(file.read_text(encoding="utf-8"))["cells"] for x in cell.get("outputs", [])]
        printed = "".join("".join(x.get("text", "")) for x in outputs)
        return printed, sum("image/png" in x.get("data", {}) for x in outputs)


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
    assert book.seconds[lesson.number]["lesson"] <= lesson.seconds


@every_lesson
def test_a_notebook_and_the_page_show_every_figure(book, path):
    printed, count = book.outputs(path)
    said = re.findall(r"^figure: (.+)\n  see: .", printed, re.MULTILINE)
    page = book.pages[f"{path.stem}.html"]
    assert count == len(said) >= 1
    assert {Path(file).name for file in said} <= set(page.images)
    assert all((book.folder / "_images" / Path(file).name).read_bytes().startswith(b"\x89PNG") for file in said)
    assert "figure: satnp-lessons" not in (book.folder / f"{path.stem}.html").read_text(encoding="utf-8")


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
    assert not re.findall(r"\*\*|`|\]\(|</?\w+>|\$|^ *(?:#|:::|\|.*\|$)", text, re.MULTILINE)
    assert not [x for x in page.emphasis if re.search(r"[=*/^_{}\\<>|]", x)]


@every_lesson
def test_every_listing_of_source_has_its_link(book, path):
    shown = re.findall(r"^(\w+(?:/\w+)+\.py):(\d+)\n", book.outputs(path)[0], re.MULTILINE)
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


SMALL = """\\
# %% [markdown]
# # 07 A small lesson
#
# - time: 2 minutes
# - cpu: 9 seconds
# - before: nothing
# - equations: Xu et al. 2015, eq. 5
# - about: satnp.layers.softmax_backward
#
# Inline $\\alpha_i * x_i * y - 1 = -1$ and x * y * z, <end>, `satnp/layers/softmax.py`, lesson 07,
# eqs. 4 and 5, Vinyals et al. 2015, eq. 8.
#
# $$
# \\begin{aligned}
# de_k &= \\sum_i d\\alpha_i \\frac{\\partial \\alpha_i}{\\partial e_k} \\\\
#      &= \\alpha_k (d\\alpha_k - \\left( \\sum_i \\alpha_i d\\alpha_i \\right)), \\quad a < b
# \\end{aligned}
# $$
#
# | array | meaning |
# |---|---|
# | `alpha` | $\\alpha_i$ |

# %%
from kit import near, save, show
from matplotlib.figure import Figure

from satnp.layers import softmax_backward

show(softmax_backward)
print("<b>not bold</b> $x$ **")
save(Figure((2, 1)), "07_one", "the *first* of <two>, $1")
save(Figure((2, 1)), "07_two", "the second")
n = 4

# %% [markdown]
# ## Exercises
#
# 1. Twice $n$?
#    Say it.
# 2. Thrice?
"""
ANSWERS = """\\
# %% [markdown]
# # Answers to lesson 07

# %% [markdown]
# ## 1
#
# - hint: Multiply by $2$.
# - hint: Look at
#   `n`.
#
# Eight, $2 n$:
#
# $$
# 2 \\cdot 4 = 8
# $$

# %%
near("twice", 2 * n, 8)
save(Figure((2, 1)), "07_answer", "it is seen after a click")

# %% [markdown]
# ## 2
#
# - hint: Multiply.
#
# Twelve.

# %%
assert 3 * n == 12
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The book of one small lesson, and its folder."""
    pytest.importorskip("nbclient"), pytest.importorskip("sphinx")
    folder = tmp_path_factory.mktemp("small")
    (folder / "answers").mkdir()
    (folder / "07_small.py").write_text(SMALL)
    (folder / "answers" / "07.py").write_text(ANSWERS)
    done = made(folder, folder, folder / "book")
    assert (done.returncode, done.stderr) == (0, "")
    return Book(folder / "book", done.stdout)


def test_a_small_book_has_everything(small):
    page = small.pages["07_small.html"]
    check_links(small)
    assert page.formulas == 3 + 1 + 1 + 2 and page.folds == ["Hint 1", "Hint 2", "Answer", "Hint 1", "Answer"]
    assert page.images == ["07_one.png", "07_two.png", "07_answer.png"] and not page.emphasis
    text = " ".join("".join(page.text).split())
    for part in ("x * y * z, <end>,", "the *first* of <two>, $1", "Say it.", "Eight,", "Twelve."):
        assert part in text
    source = "source/satnp/layers/softmax.py.html"
    line, top, shown = (int(x.partition("#L-")[2]) for x in page.links if x.startswith(source))  # the header's is first
    assert line == shown > top == 1
    papers = [x.rpartition("/")[2] for x in page.links if x.startswith("https://arxiv.org/abs/")]
    assert papers == ["1502.03044", "1502.03044", "1411.4555"]  # of the header, of its equations, and of another paper's
    html = (small.folder / "07_small.html").read_text(encoding="utf-8")
    assert html.count('<mo form="prefix">−</mo>') == 1  # a sign has another space than a difference
    assert "&lt;b&gt;not bold&lt;/b&gt; $x$ **" in html and html.count("<munder") == 2 and "<mtable" in html
    listing = (small.folder / source).read_text(encoding="utf-8")
    assert re.search(rf'id="L-{line}".{{0,200}}def</span>.{{0,60}}softmax_backward', listing)
    printed, count = small.outputs(Path("07_small"))
    assert count == 2 and "figure: satnp-lessons/07_one.png\n" in printed


def test_a_book_is_replaced_and_nothing_else_is(small):
    folder = small.folder.parent
    (folder / "other").mkdir()
    (folder / "other" / "mine.txt").write_text("mine")
    (folder / "other" / "book.json").write_text('{"title": "mine"}')
    done = made(folder, folder, folder / "other")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "is not a book; give another folder" in done.stderr
    assert (folder / "other" / "mine.txt").read_text() == "mine"
    before = (folder / "book" / "index.html").read_bytes()
    lesson = folder / "07_small.py"
    lesson.write_text(SMALL.replace("n = 4", "n = 4 / 0"))
    done = made(folder, folder, folder / "book")
    line = SMALL[: SMALL.index("from kit")].count("\n") + 1
    assert done.returncode == 1
    place = f"07_small.py, cell at line {line}"
    assert done.stderr == f"lessons: lesson 07 failed in {place}: ZeroDivisionError: division by zero\n"
    assert (folder / "book" / "index.html").read_bytes() == before
    lesson.write_text(SMALL.replace("n = 4", "n = 5"))
    done = made(folder, folder, folder / "book")
    assert done.returncode == 1
    assert "failed in answers/07.py, cell at line" in done.stderr and "AssertionError" in done.stderr
    lesson.write_text(SMALL.replace("Say it", "Tell it"))
    done = made(folder, folder, folder / "book")
    assert done.returncode == 0 and "Tell it" in (folder / "book" / "07_small.html").read_text()
    assert sorted(x.name for x in folder.iterdir() if x.name.startswith(".")) == []


def test_without_the_extra_one_sentence_says_so(tmp_path):
    (tmp_path / "sphinx.py").write_text("raise ImportError(name='sphinx')")
    done = made(tmp_path, cells.FOLDER, tmp_path / "book", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode == 2
    assert done.stderr == 'lessons: the book needs the package sphinx; run: pip install -e ".[lessons]"\n'
