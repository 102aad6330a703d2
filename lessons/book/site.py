"""Sphinx for the book: its settings, formulas as MathML, and the directive `fold` for hints and answers."""

import io
import re
from html import escape
from pathlib import Path
from xml.etree import ElementTree

from docutils import nodes
from docutils.parsers.rst import Directive
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

MATHML = "http://www.w3.org/1998/Math/MathML"
ElementTree.register_namespace("", MATHML)
FUNCTIONS = {"log", "exp", "tanh", "max", "min", "sin", "cos"}
SETTINGS = {
    "project": "satnp: the lessons",
    "html_title": "satnp: the lessons",
    "extensions": ["myst_parser", __name__],
    "html_theme": "furo",
    "html_theme_options": {"top_of_page_buttons": []},
    "html_static_path": [str(Path(__file__).parent / "static")],
    "html_css_files": ["book.css"],
    "html_math_renderer": "mathml",
    "html_copy_source": False,
    "html_use_index": False,
    "html_show_sphinx": False,
    "html_show_copyright": False,
    "html_show_search_summary": False,  # the browser loads the pages for it, which it refuses to do for files
    "smartquotes": False,
    "myst_enable_extensions": ["dollarmath", "colon_fence"],
    "myst_dmath_allow_space": False,
    "myst_disable_syntax": ["html_inline", "html_block"],  # <end> in a text is a word
    "myst_url_schemes": {"http": None, "https": None, "source": "source/{{path}}.html#{{fragment}}"},
    "suppress_warnings": ["myst.header"],  # a ### without a ## before it
}


class Fold(Directive):
    """Content that is hidden until the reader opens it; the argument is the line that is seen."""

    required_arguments, final_argument_whitespace, has_content = 1, True, True

    def run(self):
        inside = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, inside)
        opening = f"<details><summary>{escape(self.arguments[0])}</summary>"
        return [nodes.raw("", opening, format="html"), inside, nodes.raw("", "</details>", format="html")]


def mathml(latex, display):
    """A formula as MathML; latex2mathml knows `aligned` as align*, and loses the limits of a sum in brackets."""
    latex = latex.strip().replace("{aligned}", "{align*}").replace(r"\_", "_")
    math = ElementTree.fromstring(convert(latex, display=display))
    for name, better in (("msub", "munder"), ("msup", "mover"), ("msubsup", "munderover")):
        for element in math.iter(f"{{{MATHML}}}{name}"):
            if element[0].text in ("∑", "∏"):
                element.tag = f"{{{MATHML}}}{better}"
    for row in list(math.iter()):
        for before, element, after in zip([None, *row], row, [*row[1:], None], strict=False):
            name = element[0] if element.tag.endswith(("}msub", "}msup")) else element
            if len(name.text or "") > 1 and name.text.isalpha() and (name.tag.endswith("}mo") or name.text in FUNCTIONS):
                name.tag = f"{{{MATHML}}}mo"  # a function such as log: a thin space on each side, none at a bracket
                name.set("lspace", "0.17em" if before is not None and not before.tag.endswith("}mo") else "0")
                name.set("rspace", "0" if after is None or after.text == "(" else "0.17em")
            starts = before is None or before.tag.endswith("}mo") and before.text not in ")]}|"
            if starts and element.text in ("-", "−", "±"):
                element.set("form", "prefix")  # a sign, which has no space after it
            if element.text == "|":  # of a norm; \mid is another sign, with spaces
                element.attrib |= {"lspace": "0", "rspace": "0"}
    return ElementTree.tostring(math, encoding="unicode")


def inline(translator, node):
    translator.body.append(mathml(node.astext(), "inline") + "\N{WORD JOINER}")  # a comma stays on the line of the formula
    raise nodes.SkipNode


def display(translator, node):
    translator.body.append(f'<div class="math">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def number_lines(app, doctree):
    """On the pages of source, each line has a number and an anchor."""
    if app.env.docname.startswith("source/"):
        for block in doctree.findall(nodes.literal_block):
            block["linenos"] = True
            block["highlight_args"] = {"lineanchors": "L", "anchorlinenos": True}


def setup(app):
    app.add_directive("fold", Fold)
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    app.connect("doctree-read", number_lines)
    return {"parallel_read_safe": True}


def build(source, site, scratch):
    """Make the site -> the warnings of Sphinx, "" if all is well"""
    warnings = io.StringIO()
    with patch_docutils(), docutils_namespace():
        app = Sphinx(source, None, site, scratch, "html", SETTINGS, status=None, warning=warnings)
        app.build()
    return re.sub(r"\x1b\[[\d;]*m", "", warnings.getvalue()).strip()
