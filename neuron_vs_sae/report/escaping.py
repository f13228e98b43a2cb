"""Escaping, so that no format takes names, tags or prompts for markup, and all of them stay legible."""

import html
import re
import unicodedata
from typing import Any

# LaTeX's accent commands, by the combining mark into which Unicode decomposes an accented letter.
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"{\char34}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
    "-": r"{-}", "[": "{[}", "]": "{]}", "*": "{*}", "\u2013": "--", "\u2014": "---", "\u2018": "`", "\u2019": "'",
    "\u201c": "``", "\u201d": "''", "\u2026": r"\ldots{}", "\u00df": r"\ss{}", "\u00e6": r"\ae{}", "\u00f8": r"\o{}",
    "\u00d7": r"$\times$", "\u00b7": r"$\cdot$", "\u2205": r"$\emptyset$",
}  # fmt: skip


def visible(text: Any) -> str:
    """The text on one line; characters without a glyph, or that turn the reading direction, appear as `[U+202E]`."""
    return "".join(
        _escape(c) if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Cn"} else c
        for c in " ".join(str(text).split())
    )


def in_terminal(text: Any) -> str:
    """For a terminal, line by line: no sequence that moves the cursor, colours, or turns the reading direction."""
    return "".join(
        _escape(c) if unicodedata.category(c) in {"Cc", "Cf", "Cs"} and c not in "\n\t" else c for c in str(text)
    )


def in_html(text: Any) -> str:
    """For HTML, between tags and in quoted attributes."""
    return html.escape(visible(text))


def in_figure(text: Any) -> str:
    """For plotly, which renders a little HTML, and what stands between dollars where a page has MathJax."""
    return in_html(text).replace("$", "&#36;")


def in_markdown(text: Any) -> str:
    """For a cell of a Markdown table, or a paragraph: no markup, no HTML, no formula, no way out of the cell."""
    marked = re.sub(r"([\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", visible(text))
    return html.escape(marked)


def in_latex(text: Any) -> str:
    """For LaTeX, in ASCII: accented letters by their commands, what pdfLaTeX has no glyph for as `[U+5DD0]`."""
    return "".join(map(_in_latex, visible(text)))


def in_drawing(text: Any) -> str:
    """For matplotlib: no formula; what is not of the Latin, Greek or Cyrillic script or common punctuation as `[U+5DD0]`."""
    drawn = "".join(
        c if ord(c) < 0x530 or 0x2010 <= ord(c) < 0x2028 or c in "∅×" else _escape(c) for c in visible(text)
    )
    return drawn.replace("$", r"\$")


def _in_latex(character: str) -> str:
    if character in _LATEX:
        return _LATEX[character]
    if character.isascii():
        return character
    base, *marks = unicodedata.normalize("NFD", character)
    if base.isascii() and base.isalpha() and len(marks) == 1 and marks[0] in _ACCENTS:
        return f"\\{_ACCENTS[marks[0]]}{{{base}}}"
    return in_latex(_escape(character))


def _escape(character: str) -> str:
    return f"[U+{ord(character):04X}]"
