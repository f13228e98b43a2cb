"""Text comes out as text in every format, and can be read."""

import re

import pytest
from conftest import HOSTILE

from neuron_vs_sae.report.escaping import in_drawing, in_figure, in_html, in_latex, in_markdown, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a_b & 50 % of $x$", r"a\_b \& 50 \% of \$x\$"),
        ("\\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ("x^2 ~ #1", r"x\textasciicircum{}2 \textasciitilde{} \#1"),
        ("<b> \"q\" 'q'", r"\textless{}b\textgreater{} {\char34}q{\char34} \textquotesingle{}q\textquotesingle{}"),
        ("Dupré, Kramár, Čapek, Łódź", r"Dupr\'{e}, Kram\'{a}r, \v{C}apek, {[}U+0141{]}\'{o}d\'{z}"),
        ("אב 😀 中", "{[}U+05D0{]}{[}U+05D1{]} {[}U+1F600{]} {[}U+4E2D{]}"),
        ("-- and --- are ligatures", "{-}{-} and {-}{-}{-} are ligatures"),
    ],
)
def test_latex_prints_what_was_written(text: str, shown: str) -> None:
    assert in_latex(text) == shown


def test_latex_is_ascii_whatever_it_is_given() -> None:
    assert in_latex("".join(map(chr, range(0x3000)))).isascii()


def test_what_cannot_be_seen_or_turns_the_direction_is_made_visible() -> None:
    assert visible("a\u202eb\u200bc\x00d\ne\tf") == "a[U+202E]b[U+200B]c[U+0000]d e f"
    assert visible("\u05d0\U0001f600") == "\u05d0\U0001f600"  # letters and emoji can be seen


def test_html_has_no_tag_and_no_way_out_of_an_attribute() -> None:
    assert not set(in_html(HOSTILE)) & set("<>\"'")
    assert in_html("<b>&") == "&lt;b&gt;&amp;"


def test_a_figures_text_is_no_formula_either() -> None:
    assert "$" not in in_figure(HOSTILE)
    assert in_figure("$x$") == "&#36;x&#36;"


def test_markdown_has_no_markup() -> None:
    assert in_markdown("mlp_neurons") == "mlp_neurons"  # an underscore within a word is none
    assert in_markdown("_a_ *b* `c` [d](e) |f| $g$ ~h~ <i>") == (
        r"\_a\_ \*b\* \`c\` \[d\](e) \|f\| \$g\$ \~h\~ &lt;i&gt;"
    )


def test_a_drawing_has_no_formula_and_only_glyphs_that_its_font_has() -> None:
    assert in_drawing("$x$ \u05d0\U0001f600 é λ") == r"\$x\$ [U+05D0][U+1F600] é λ"
    assert not re.search(r"(?<!\\)\$", in_drawing(HOSTILE))
