"""The page: opened in a real browser, without a network, on a desk and on a phone."""

import itertools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import PROGRAM, REASON, Page, browser
from compared import compared
from conftest import HOSTILE
from verdicts import verdicts

from neuron_vs_sae.report.again import config
from neuron_vs_sae.report.circuit_nodes import best_nodes
from neuron_vs_sae.report.escaping import in_html, visible
from neuron_vs_sae.report.page import page
from neuron_vs_sae.report.words import answers
from neuron_vs_sae.studies.evidence import Evidence
from neuron_vs_sae.studies.per_curve import per_curve
from neuron_vs_sae.studies.study import make_study

needs_browser = pytest.mark.skipif(PROGRAM is None, reason=REASON)
DRAWN = "[...document.querySelectorAll('.drawing')].every(p => p.dataset.drawn === 'yes')"
OPEN_ALL = "document.querySelectorAll('details').forEach(d => { d.open = true })"
FIGURES = ["forest", "curves", "circuit", "specifications", "distributions"]
MOST_BYTES = 2_000_000


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def written(evident: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hostile study's page, with an answer and a control that equals it."""
    file = tmp_path_factory.mktemp("page") / "report.html"
    tested = Evidence(verdicts(evident, {("faithfulness", "nodes"): "a better"}), None, evident.stability)
    file.write_text(page(evident, tested, per_curve(evident), compared(evident, control=True)), encoding="utf-8")
    return file


def drawn(tab: Page, file: Path, **options: Any) -> None:
    tab.problems.clear()
    tab.requests.clear()
    tab.open(file, **options)
    tab.run(OPEN_ALL)
    tab.wait_for(DRAWN)


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1440, False), (1024, True), (390, True)])
def test_every_figure_is_drawn_without_an_error_or_a_request_at_every_width(
    tab: Page, written: Path, width: int, dark: bool
) -> None:
    drawn(tab, written, width=width, dark=dark)
    assert tab.problems == []
    assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []
    assert tab.run("[...document.querySelectorAll('.drawing')].map(p => p.id)") == FIGURES
    marks = (
        "[...document.querySelectorAll('.drawing')].map(p => p.querySelectorAll(':scope > svg :is(path, rect)').length)"
    )
    assert all(tab.run(marks))
    assert tab.run("document.documentElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll, svg')).map(e => e.outerHTML.slice(0, 80))"
    assert tab.run(wide) == []
    outside = """[...document.querySelectorAll('.drawing > svg')].flatMap(s => [...s.querySelectorAll('text')].filter(t => {
      const [a, b] = [t.getBoundingClientRect(), s.getBoundingClientRect()];
      return a.left < b.left - 2 || a.right > b.right + 2 || a.bottom > b.bottom + 2; }).map(t => t.textContent))"""
    assert tab.run(outside) == []
    ink = tab.run("getComputedStyle(document.body).color")
    assert (int(re.findall(r"\d+", ink)[0]) > 128) == dark


@needs_browser
@pytest.mark.parametrize("width", [1440, 390])
def test_the_first_screen_answers_the_question(tab: Page, written: Path, evident: Any, width: int) -> None:
    drawn(tab, written, width=width, height=900)
    (first,) = answers(evident, compared(evident, control=True))
    assert tab.run("[...document.querySelectorAll('.answer')].map(p => p.textContent)") == [
        visible(sentence) for sentence in first.sentences
    ]
    assert tab.run("document.querySelectorAll('.warning').length") == 1
    for part in (".answer", ".warning", "#forest .legend"):
        assert tab.run(f"document.querySelector('{part}').getBoundingClientRect().bottom") < 900, part


@needs_browser
def test_names_are_text_on_the_page(tab: Page, written: Path) -> None:
    drawn(tab, written)
    assert tab.run("document.querySelectorAll('img').length") == 0
    assert visible(HOSTILE).replace("_", " ") in tab.run("document.querySelector('h1').innerText")
    assert "onerror" not in tab.run("[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames()).join()")


@needs_browser
def test_the_page_is_worked_by_keyboard(tab: Page, written: Path) -> None:
    drawn(tab, written)
    tab.press("Tab")
    assert tab.run("document.activeElement.textContent") == "Skip to the answer"
    tab.press("Enter")
    tab.wait_for("location.hash === '#main'")
    reached = "[...document.querySelectorAll('.scroll, .entry, .save, select, summary, a')].filter(e => e.tabIndex < 0).length"
    assert tab.run(reached) == 0
    for stops in ("[role=tablist]", "#circuit > svg"):
        one = (
            f"[...document.querySelectorAll('{stops}')].every(e => e.querySelectorAll('[tabindex=\"0\"]').length === 1)"
        )
        assert tab.run(one), stops
    levels = tab.run("[...document.querySelectorAll('h1, h2, h3, h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 2 for before, after in itertools.pairwise(levels))
    assert tab.run("document.documentElement.lang") == "en"


@needs_browser
def test_a_node_opens_its_card(tab: Page, written: Path, evident: Any) -> None:
    drawn(tab, written)
    tab.run("document.querySelector('#circuit .node').focus()")
    tab.press("Enter")
    told = tab.run("document.querySelector('.card').innerText")
    scores = evident.scores(basis="mlp_neurons", method="relp")
    ranked = best_nodes(scores)
    rank = int(re.findall(r"rank\s+(\d+)", told)[0])
    node = next(node for node in ranked if node.rank == rank)
    assert scores.index.sites[node.row] in told
    assert "MLP neurons" in told
    assert f"{abs(node.score):.4g}" in told


@needs_browser
def test_a_legends_entry_shows_and_hides(tab: Page, written: Path) -> None:
    drawn(tab, written)
    lines = "document.querySelectorAll('#curves > svg path[stroke-width=\"2\"][fill=none]').length"
    before = tab.run(lines)
    tab.run("document.querySelector('#curves .entry').click()")
    assert tab.run(lines) < before
    tab.run("document.querySelector('#curves .entry').click()")
    assert tab.run(lines) == before


@needs_browser
def test_printed_it_is_whole_and_drawn_to_the_papers_width(tab: Page, written: Path) -> None:
    tab.open(written, width=1440)
    tab.run("dispatchEvent(new Event('beforeprint'))")
    tab.wait_for(DRAWN)
    assert tab.run("document.querySelectorAll('details:not([open])').length") == 0
    assert max(tab.run("[...document.querySelectorAll('.drawing > svg')].map(s => +s.getAttribute('width'))")) <= 700
    assert len(tab.call("Page.printToPDF")["data"]) > 20_000
    tab.run("dispatchEvent(new Event('afterprint'))")
    assert tab.run("document.querySelectorAll('details[open]').length") == 0


def test_the_page_is_small_and_refers_to_nothing_elsewhere(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    assert len(text.encode()) < MOST_BYTES
    outside = re.findall(
        r"""(?:src|href|action|data)\s*=\s*["']?(?:https?:)?//|url\(\s*["']?http|\bfetch\(|\bimport\s*\(|@import""",
        text,
    )
    assert outside == []
    assert "plotly" not in text.lower()


def test_settings_provenance_command_and_citations_are_there(written: Path, evident: Any) -> None:
    text = written.read_text(encoding="utf-8")
    for said in (
        evident.study.key,
        evident.record["provenance"]["versions"]["torch"],
        *evident.record["inputs"].values(),
        "nvs compare --config study.toml",
        "@misc{jafari2025relp,",
    ):
        assert in_html(said) in text, said


def test_without_a_comparison_the_page_says_why_and_shows_the_rest(evident: Any) -> None:
    text = page(evident, Evidence(), per_curve(evident), None)
    assert "Nothing was compared" in text
    assert 'id="curves"' in text
    assert 'id="forest"' not in text


def test_the_config_makes_the_same_study(evident: Any) -> None:
    assert make_study(tomllib.loads(config(evident.study))).key == evident.study.key
