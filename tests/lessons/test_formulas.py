"""LaTeX as text for a terminal."""

import pytest

from lessons.formulas import GREEK, UnknownMacro, as_text, formulas, in_text
from lessons.terminal import formatted


@pytest.mark.parametrize(
    "latex, text",
    [
        (r"\alpha_{ti}", "α_ti"),
        (r"h_{t-1}", "h_{t-1}"),
        (r"\max_{a_i} l_{s_t}", "max_{a_i} l_{s_t}"),
        (r"x_i^2", "x_i²"),
        (r"W^\top x", "Wᵀ x"),
        (r"w_{i}^{\top}", "w_iᵀ"),
        (r"e^{-x}", "e^(-x)"),
        (r"10^{-12}", "10⁻¹²"),
        (r"\sum_{i=1}^{L} \alpha_i a_i", "Σ_{i=1}^L α_i a_i"),
        (r"\prod_t p_t", "Π_t p_t"),
        (r"\frac{a}{b}", "a / b"),
        (r"\frac{a + b}{c}", "(a + b) / c"),
        (r"\frac{a}{b c}", "a / (b c)"),
        (r"\frac{1}{2} x", "(1 / 2) x"),
        (r"x = \frac{1}{1 + e^{-x}}", "x = 1 / (1 + e^(-x))"),
        (r"\frac{\partial L}{\partial e_k} = \alpha_k", "∂L / ∂e_k = α_k"),
        (r"v\tanh(u) + \exp e_i", "v tanh(u) + exp e_i"),
        (r"\log p(w \mid s)", "log p(w | s)"),
        (r"x\le y\cdot z", "x ≤ y · z"),
        (r"a \odot b \times c \approx d \ne \infty \to e \in \{1, \ldots, L\}", "a ⊙ b × c ≈ d ≠ ∞ → e ∈ {1, …, L}"),
        (r"\left( \frac{a}{b} \right)", "(a / b)"),
        (r"\hat{\mu} + \bar{x}\,\tilde{y}", "μ\u0302 + x\u0304 y\u0303"),
        (r"\mathbb{E}[r] = \nabla_\theta J", "𝔼[r] = ∇_θ J"),
        (r"\mathrm{softmax}(e)_i = \operatorname{diag}(\mathbf{W})", "softmax(e)_i = diag(W)"),
        (r"\text{the sum of all} \quad x", "the sum of all  x"),
        (r"\text{h\_before}^\top", "h_beforeᵀ"),
        (r"\sqrt{2} \pm \sqrt{\frac{1}{S}}", "√2 ± √(1 / S)"),
        ("\\begin{aligned}\na &= b \\\\\n  &= \\bar{c} d, \\quad e\n\\end{aligned}", "a = b\n  = c\u0304 d,  e"),
        (r"\begin{aligned} & a \quad & b \\ & \quad = c & d \end{aligned}", " a     b\n   = c d"),
    ],
)
def test_a_formula_is_text(latex, text):
    assert as_text(latex) == text


def test_every_greek_letter():
    assert all(as_text(f"\\{name}") == letter for name, letter in GREEK.items())


@pytest.mark.parametrize(
    "latex", [r"\mathcal{L}", "{a", "a}", r"\frac{a}", "x^", r"\begin{matrix} a \end{matrix}", r"\text{\alpha}", r"\_"]
)
def test_what_a_lesson_may_not_have_is_refused(latex):
    with pytest.raises(UnknownMacro, match="the formula .* has "):
        as_text(latex)


def test_formulas_are_told_from_code_and_dollars():
    text = "A $x$, `$y$` and 5 $ or 6 $, $a\nb$.\n\n$$\nc + d\n$$\n\n    $code$\n\n- an item\n\n  $$\n  e\n  $$\n"
    assert formulas(text) == ["c + d", "  e", "x", "a\nb"]
    assert in_text(r"`\alpha` is $\alpha$") == r"`\alpha` is α"


MARKDOWN = f"""\
# Head $x$

Words that go on $\\alpha_i +
b$ here.

1. An item
   goes on.
2. Next

$$
\\begin{{aligned}}
a &= b \\\\
  &= c
\\end{{aligned}}
$$

```
code $x$
```

| name | meaning |
|---|---|
| `a` | $\\beta$ |
| b | {"word " * 20}|
"""
TEXT = f"""\
Head x
------

Words that go on α_i + b here.

1. An item goes on.
2. Next

    a = b
      = c

    code $x$

    name  meaning
    ----  {"-" * 67}
    `a`   β
    b     {"word " * 12}word
          {"word " * 6}word"""


def test_markdown_is_formatted():
    assert formatted(MARKDOWN, False) == TEXT
