r"""The LaTeX of the lessons as text for a terminal: $\frac{a + b}{c}$ becomes (a + b) / c.

A lesson may have the macros below and frac, sqrt, left, right, the environment aligned: with these its formulas are readable
in the script, too.
"""

import re

GREEK = dict(zip(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau phi chi psi omega".split(),
    "αβγδεζηθικλμνξπρστφχψω", strict=True,
)) | dict(zip("Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega".split(), "ΓΔΘΛΞΠΣΦΨΩ", strict=True))  # fmt: skip
SYMBOLS = GREEK | {
    "partial": "∂", "nabla": "∇", "sum": "Σ", "prod": "Π", "infty": "∞", "top": "⊤", "ldots": "…", "{": "{", "}": "}",
    "quad": "\N{EM SPACE}", ",": " ",
}  # fmt: skip
OPERATORS = {
    "cdot": "·", "odot": "⊙", "times": "×", "le": "≤", "ge": "≥", "ne": "≠", "approx": "≈", "to": "→", "in": "∈", "mid": "|",
    "pm": "±",
}  # fmt: skip
FUNCTIONS = {"tanh", "exp", "log", "max", "min", "sin", "cos"}
ACCENTS = {"hat": "\u0302", "bar": "\u0304", "tilde": "\u0303"}
WORDS = {"mathrm", "mathbf", "text", "operatorname", "mathbb"}

BLACKBOARD = {"E": "𝔼", "R": "ℝ"}
RAISED = dict(zip("0123456789+-=()ni⊤", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱᵀ", strict=True))
TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\s+|.", re.DOTALL)
IN_TEXT = re.compile(r"(`+).+?\1|\$(?![\s$])([^$]+?)(?<!\s)\$", re.DOTALL)  # code, which stays as it is, or a formula
DISPLAY = re.compile(r"^( *)\$\$\n(.*?)\n\1\$\$$", re.MULTILINE | re.DOTALL)


class UnknownMacro(ValueError):
    """A formula has a macro that a lesson may not have, or braces that do not close."""


def formulas(markdown):
    """All formulas of a text, the displayed and those in its lines."""
    rest = re.sub(r"^(    |```).*$", "", DISPLAY.sub("", markdown), flags=re.MULTILINE)
    return [latex for _, latex in DISPLAY.findall(markdown)] + [match[2] for match in IN_TEXT.finditer(rest) if match[2]]


def in_text(markdown, space=" "):
    """Write the formulas in the lines of a paragraph as text, with `space` for their spaces."""
    return IN_TEXT.sub(lambda match: as_text(match[2]).replace(" ", space) if match[2] else match[0], markdown)


def as_text(latex):
    """A formula as text, of several lines if it is aligned. Raises: UnknownMacro."""
    text = re.sub(r"(?<=[(\[]) +| +(?=[)\]])", "", _Reader(latex).all())
    rows = [[_spaced(cell) for cell in line.split("\t")] for line in text.split("\n")]
    if len(rows) > 1:
        widths = [max(_width(row[k]) for row in rows if k < len(row)) for k in range(max(map(len, rows)))]
        rows = [[_pad(cell, widths[k], left=k % 2) for k, cell in enumerate(row)] for row in rows]
    return "\n".join(" ".join(row).rstrip() for row in rows)


def _spaced(text):
    return re.sub(" *\N{EM SPACE} *", "  ", re.sub(" +", " ", text).lstrip(" ")).rstrip()


def _width(text):
    return len(text) - sum(text.count(accent) for accent in ACCENTS.values())


def _pad(text, width, left):
    spaces = " " * (width - _width(text))
    return text + spaces if left else spaces + text


class _Reader:
    """Reads the tokens of a formula from left to right; tabs separate the cells of aligned lines."""

    def __init__(self, latex):
        self.latex, self.tokens = latex, TOKEN.findall(latex.strip())

    def all(self):
        text = self.group(None)
        if self.tokens:
            self.refuse("a brace that was not opened")
        return text

    def refuse(self, what):
        formula = " ".join(self.latex.split())
        raise UnknownMacro(f"the formula {formula} has {what}; lessons/formulas.py lists what it may have")

    def group(self, end):
        """The text up to the token `end`, which is dropped."""
        out = ""
        while self.tokens and self.tokens[0] != end and self.tokens[0] != "}":
            token = self.tokens.pop(0)
            if token in "_^":
                out = out.rstrip(" ") + self.script(token)
            elif token == r"\frac":
                out += self.fraction(out)
            elif (name := token[1:]) in OPERATORS and token[0] == "\\":
                out = f"{out.rstrip(' ')} {OPERATORS[name]} "
            elif name in FUNCTIONS and token[0] == "\\":
                out += f" {name}" if out[-1:].isalnum() else name
                out += " " if self.next().isalnum() or self.next()[:1] == "\\" and self.next() != r"\left" else ""
            elif token.isspace():
                out += "" if out[-1:] in ("", " ", "\n", "\t", "∂", "∇") else " "
            else:
                out += self.atom(token)
        if end is not None and not self.tokens:
            self.refuse(f"no {end} where one is needed")
        if end is not None:
            self.tokens.pop(0)
        return out

    def next(self):
        return self.tokens[0] if self.tokens else ""

    def argument(self):
        """The text of the next token or {group}."""
        while self.next().isspace():
            self.tokens.pop(0)
        if not self.tokens:
            self.refuse("nothing after its last macro")
        token = self.tokens.pop(0)
        return self.group("}").strip() if token == "{" else self.atom(token)

    def script(self, token):
        text = self.argument()
        if token == "^" and all(x in RAISED for x in text):
            return "".join(RAISED[x] for x in text)
        if re.fullmatch(r"[^\W_]+|[⊤*]", text):
            return token + text
        return f"{token}({text})" if token == "^" else f"_{{{text}}}"

    def fraction(self, before):
        top, bottom = self.argument(), self.argument()
        if re.search(r"[-+=·⊙×]", _outside(top)):
            top = f"({top})"
        if re.search(r"[-+=·⊙×/ ]", _outside(bottom)):
            bottom = f"({bottom})"
        after = "".join(self.tokens).lstrip()
        ends = re.match(r"$|[-+=),&|}]|\\(\\|le|ge|approx|right|end|quad|,)", after)
        alone = ends and re.search(r"(^|[-+=(,{|≤≥≈→\t\n])\s*$", before)
        return f"{top} / {bottom}" if alone else f"({top} / {bottom})"

    def atom(self, token):
        if token == "{":
            return self.group("}")
        if token == "&":
            return "\t"
        if token == r"\\":
            return "\n"
        if token[0] != "\\":
            return token
        name = token[1:]
        if name in SYMBOLS:
            return SYMBOLS[name]
        if name in OPERATORS:
            return OPERATORS[name]
        if name in FUNCTIONS:
            return name
        if name in ACCENTS:
            text = self.argument()
            return text + ACCENTS[name] if len(text) == 1 else f"{name}({text})"
        if name == "mathbb":
            text = self.argument()
            return BLACKBOARD.get(text, text)
        if name in WORDS:
            return self.verbatim()
        if name == "sqrt":
            text = self.argument()
            return f"√{text}" if re.fullmatch(r"\w+", text) else f"√({text})"
        if name in ("left", "right"):
            bracket = self.argument()
            return "" if bracket == "." else bracket
        if name in ("begin", "end"):
            if self.verbatim() != "aligned":
                self.refuse("an environment other than aligned")
            return ""
        return self.refuse(token)

    def verbatim(self):
        """The next {group}, with its spaces."""
        if self.next() != "{" or "}" not in self.tokens:
            self.refuse("no {} where some are needed")
        end = self.tokens.index("}")
        text = "".join(self.tokens[1:end]).replace(r"\_", "_")
        del self.tokens[: end + 1]
        if "\\" in text:
            self.refuse("a macro inside of text")
        return text


def _outside(text):
    """`text` without what is in brackets."""
    while (shorter := re.sub(r"\([^()]*\)|\{[^{}]*\}|\[[^\[\]]*\]", "", text)) != text:
        text = shorter
    return text
