"""Lessons that have run, as Markdown pages for Sphinx."""

import inspect
import re
import struct
import textwrap
from pathlib import Path
from pkgutil import resolve_name

from ..cells import EXERCISE, NUMBER, exercise_section, short_path
from .needs import drawing

ROOT = Path(__file__).parents[2]
SAID = re.compile(r"^figure: (?P<figure>.+)\n  see: (?P<see>.+)\n?|^(?P<source>\S+\.py):(?P<line>\d+)\n", re.MULTILINE)
EQUATIONS = r"eqs?\.\s\d+(?:-\d+)?(?:(?:,|\sand)\s\d+(?:-\d+)?)*"
# What of a text stays as it is (headings, listings, formulas, links) and what becomes a link.
LINKS = re.compile(
    r"^(?:    |#)[^\n]*|^( *)\$\$\n.*?\n\1\$\$$|(?P<ticks>`+)(?P<code>.+?)(?P=ticks)|\$[^$]+\$|\[[^\]]*\]\([^)]*\)"
    rf"|\b[Ll]essons?\s{NUMBER}(?:(?:,|\sand|,\sand|\sto)\s{NUMBER})*"
    r"|(?P<author>[A-Z][\w-]+)(?:\set\sal\.|\s(?:and|&)\s[\w-]+)?\s\(?(?P<year>\d{4})\b"
    rf"(?:,\s{EQUATIONS})?|\b(?P<equations>{EQUATIONS})",
    re.MULTILINE | re.DOTALL,
)
PAPER = re.compile(r"(?:^- |; |: )(?:[A-Z]\. )+([\w-]+)[^*\n]*\*[^*\n]+\*, [^,;\n]*?(\d{4}), arXiv:([\d.]+\d)", re.MULTILINE)
ANSI = re.compile(r"\x1b\[[\d;]*[A-Za-z]|[^\n]*\r(?!\n)")  # colours, and what a progress bar wrote over
CONTENTS = """\
# The lessons

*Show, Attend and Tell* (Xu et al. 2015) and related image captioners, from the first derivative to captions of photos. Each
lesson takes one idea from a question to a figure. Most lessons derive a gradient, check it numerically, and then plant a
mistake in it. All outputs and figures on these pages are from one run.

{short}

| lesson | reading | computing | read before |
|---|---|---|---|
{rows}

## Prerequisites

```{{raw}} html
<div class="needs-frame">
{drawing}
</div>
```

```{{toctree}}
:hidden:

{pages}
```
"""


class Pages:
    """The pages, written to `folder`: one for each lesson, for each file of source that they name, and the contents."""

    def __init__(self, folder, lessons):
        self.folder, self.lessons, self.sources = folder, {lesson.number: lesson for lesson in lessons}, set()
        self.paper = None
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        self.papers = {(author, year): f"https://arxiv.org/abs/{number}" for author, year, number in PAPER.findall(readme)}
        folder.mkdir()

    def write(self, name, text):
        path = self.folder / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def add(self, lesson, answers, outputs):
        """Write the page of a lesson; `outputs` has what each cell showed in a notebook."""
        paper = LINKS.match(lesson.equations)
        self.paper = paper and self.papers.get((paper["author"], paper["year"]))  # where the lesson's equations are
        folds = {exercise: self.folded(answer, outputs) for exercise, answer in answers.items()}
        texts = []
        for cell in lesson.cells:
            text = self.cell(cell, outputs[cell])
            if cell.is_text:
                before, section, after = exercise_section(text)
                section = EXERCISE.sub(lambda match: f"{match[0].rstrip()}\n\n{folds.get(match[1], '')}\n", section)
                text = f"{before}{section}\n{after}"
            texts.append(text)
        header = self.header(lesson)
        texts[0] = re.sub(r"(?:^- .*\n)+", lambda _: header, texts[0], count=1, flags=re.MULTILINE)
        self.write(lesson.path.stem, "\n\n".join(texts) + "\n")

    def header(self, lesson):
        """The fields of the header as a list with links."""
        before = ", ".join(self.lesson_link(number) for number in lesson.before) or "nothing"
        return (
            f"- time: {lesson.minutes} minutes\n- computing: {lesson.seconds} seconds\n- read before: {before}\n"
            f"- equations: {self.linked(lesson.equations)}\n- about: {self.linked(f'`{lesson.about}`')}\n"
            f"- notebook: [{lesson.path.stem}.ipynb]({lesson.path.stem}.ipynb)\n"
        )

    def lesson_link(self, number, text=None):
        return f"[{text or number}]({self.lessons[number].path.stem}.md)" if number in self.lessons else text or number

    def folded(self, answer, outputs):
        """The hints and the answer of an exercise, hidden until they are opened; indented, as parts of its list item."""
        texts = [(f"Hint {k}", self.linked(hint)) for k, hint in enumerate(answer.hints, 1)]
        texts.append(("Answer", "\n\n".join(self.cell(cell, outputs[cell]) for cell in answer.cells)))
        return textwrap.indent("\n\n".join(f"::::::{{fold}} {title}\n{text}\n::::::" for title, text in texts), "   ")

    def cell(self, cell, outputs):
        if cell.is_text:
            return self.linked(cell.text)
        return f"{fenced(cell.text, 'python')}\n\n{self.output(outputs)}".rstrip()

    def linked(self, text):
        """Make links of what a text names: lessons, papers, files and functions of satnp."""

        def link(match):
            if match["code"]:
                target = self.source(match["code"])
                return f"[{match[0]}]({target})" if target else match[0]
            if match["author"]:
                target = self.papers.get((match["author"], match["year"]))
                return f"[{match[0]}]({target})" if target else match[0]
            if match["equations"] and self.paper:
                return f"[{match[0]}]({self.paper})"
            if match[0].lower().startswith("lesson"):
                return re.sub(NUMBER, lambda number: self.lesson_link(number[0]), match[0])
            return match[0]

        return LINKS.sub(link, text)

    def source(self, name, line=1):
        """Where the site has a file such as satnp/layers/lstm.py, or a function such as satnp.layers.lstm; None: nowhere."""
        if re.fullmatch(r"satnp(\.\w+)+", name):
            try:
                found = inspect.unwrap(resolve_name(name))
                name = str(Path(inspect.getsourcefile(found)).relative_to(ROOT))
                line = max(1, inspect.getsourcelines(found)[1])  # 0 for a module
            except (ImportError, AttributeError, TypeError, OSError, ValueError):  # a number or a name of something else
                return None
        if not re.fullmatch(r"\w+(/\w+)+\.py", name) or not (ROOT / name).is_file():
            return None
        self.sources.add(name)
        return f"source:{name}#L-{line}"

    def output(self, outputs):
        """What a cell has shown: text, listings of source with a link, figures in their places."""
        data = [x.get("data", {}) for x in outputs]
        texts = [x.get("text", d.get("text/plain", "")) for x, d in zip(outputs, data, strict=True) if "image/png" not in d]
        text, out, at = ANSI.sub("", "".join(texts)), [], 0
        for match in SAID.finditer(text):
            if match["figure"]:
                shown, end = self.figure(Path(match["figure"]).name, match["see"]), match.end()
            else:
                shown, end = self.listing(match, text)
            if shown:
                out += [fenced(text[at : match.start()], "text", "output"), shown]
                at = end
        return "\n\n".join(filter(None, [*out, fenced(text[at:], "text", "output")]))

    def figure(self, name, see):
        with open(self.folder / "figures" / name, "rb") as png:
            (width,) = struct.unpack(">16x I", png.read(20))
        caption = re.sub(r"([\\`*_$<>\[\]|~#])", r"\\\1", see)
        return f":::{{figure}} figures/{name}\n:alt: {see}\n:width: {width}px\n\n{caption}\n:::"

    def listing(self, match, text):
        """What kit.show has printed, and its end in `text`; None if it is something else."""
        target = self.source(match["source"], match["line"])
        if target is None:
            return None, match.end()
        lines = (ROOT / match["source"]).read_text(encoding="utf-8").splitlines(keepends=True)
        block = "".join(inspect.getblock(lines[int(match["line"]) - 1 :]))
        if not text.startswith(block, match.end()):
            return None, match.end()
        return f"[{match[0].strip()}]({target})\n\n{fenced(block, 'python', 'shown')}", match.end() + len(block)

    def finish(self):
        """Write the contents, and the pages of source."""
        rows = [
            f"| {self.lesson_link(x.number, f'{x.number} {x.title}')} | {x.minutes} min | {x.seconds} s "
            f"| {' '.join(map(self.lesson_link, x.before))} |"
            for x in self.lessons.values()
        ]
        names = "\n".join(x.path.stem for x in self.lessons.values())
        short = re.sub(rf"{NUMBER}(?= \()", lambda number: self.lesson_link(number[0]), short_path())
        contents = CONTENTS.format(short=short, rows="\n".join(rows), drawing=drawing(self.lessons), pages=names)
        self.write("index", self.linked(contents))
        for name in sorted(self.sources):
            code = fenced((ROOT / name).read_text(encoding="utf-8"), "python")
            self.write(f"source/{name}", f"---\norphan: true\nnosearch: true\n---\n\n# {name}\n\n{code}\n")


def fenced(text, language, name=None):
    """A block of code or output, "" for an empty text; `name` is its CSS class."""
    text = text.strip("\n")
    fence = "`" * max(3, *(len(ticks) + 1 for ticks in re.findall("`+", text)), 3)
    head = f"{{code-block}} {language}\n:class: {name}\n" if name else f"{language}"
    return f"{fence}{head}\n{text}\n{fence}" if text.strip() else ""
