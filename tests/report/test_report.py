"""The page: opened in a real browser, without a network, on a desk and on a phone."""

import itertools
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from chromium import PROGRAM, REASON, Page, browser
from conftest import HOSTILE
from verdicts import verdicts

from neuron_vs_sae.report.again import config
from neuron_vs_sae.report.escaping import in_html, visible
from neuron_vs_sae.report.page import page
from neuron_vs_sae.report.words import verdict
from neuron_vs_sae.studies.evidence import Evidence, evidence
from neuron_vs_sae.studies.per_curve import per_curve
from neuron_vs_sae.studies.study import make_study

needs_browser = pytest.mark.skipif(PROGRAM is None, reason=REASON)
DRAWN = "[...document.querySelectorAll('.drawing')].every(p => p.dataset.drawn === 'yes')"
OPEN_ALL = "document.querySelectorAll('details').forEach(d => { d.open = true })"


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def written(evident: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hostile study's page, with verdicts."""
    said = verdicts(evident, {("faithfulness", "nodes"): "a better"})
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(page(evident, Evidence(said, said.head(2), None), per_curve(evident)), encoding="utf-8")
    return file


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (375, True)])
def test_every_figure_is_drawn_without_an_error_or_a_request_at_every_width(
    tab: Page, written: Path, width: int, dark: bool
) -> None:
    tab.problems.clear()
    tab.requests.clear()
    tab.open(written, width=width, dark=dark)
    tab.run(OPEN_ALL)
    tab.wait_for(DRAWN)
    assert tab.problems == []
    assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []
    empty = "[...document.querySelectorAll('.drawing')].filter(p => !p.querySelector('.cartesianlayer .trace path, .cartesianlayer image')).length"
    assert tab.run("document.querySelectorAll('.drawing').length") >= 8
    assert tab.run(empty) == 0
    assert tab.run("document.documentElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll, .drawing')).map(e => e.outerHTML.slice(0, 80))"
    assert tab.run(wide) == []
    ink = tab.run("getComputedStyle(document.body).color")
    assert (int(re.findall(r"\d+", ink)[0]) > 128) == dark


@needs_browser
def test_names_are_text_on_the_page(tab: Page, written: Path) -> None:
    tab.open(written)
    tab.run(OPEN_ALL)
    tab.wait_for(DRAWN)
    assert tab.run("document.querySelectorAll('img').length") == 0
    assert visible(HOSTILE) in tab.run("document.querySelector('summary').innerText")
    assert "onerror" not in tab.run("[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames()).join()")


@needs_browser
def test_the_page_is_worked_by_keyboard(tab: Page, written: Path) -> None:
    tab.open(written)
    tab.wait_for("document.querySelector('.drawing').dataset.drawn === 'yes'")
    tab.press("Tab")
    assert tab.run("document.activeElement.textContent") == "Skip to the content"
    tab.press("Enter")
    tab.wait_for("location.hash === '#main'")
    cannot = (
        "[...document.querySelectorAll('.scroll, .drawing, select, summary, nav a')].filter(e => e.tabIndex < 0).length"
    )
    assert tab.run(cannot) == 0
    levels = tab.run("[...document.querySelectorAll('h1, h2, h3, h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert tab.run("[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash))")
    assert tab.run("document.documentElement.lang") == "en"


@needs_browser
def test_a_menu_shows_another_method(tab: Page, written: Path) -> None:
    tab.open(written)
    tab.wait_for("document.querySelector('#figure-1-1').dataset.drawn === 'yes'")
    shown = "[...new Set(document.querySelector('#figure-1-1').data.filter(t => t.meta && t.visible).map(t => t.meta.method))].join()"
    assert tab.run(shown) == "relp"
    tab.run(
        "{ const s = document.querySelector('select'); s.value = 'activation_patching'; s.dispatchEvent(new Event('change')) }"
    )
    tab.wait_for(f"{shown} === 'activation_patching'")


@needs_browser
def test_printed_it_is_whole(tab: Page, written: Path) -> None:
    tab.open(written)
    tab.run("dispatchEvent(new Event('beforeprint'))")
    tab.wait_for(DRAWN)
    assert tab.run("document.querySelectorAll('details:not([open])').length") == 0
    assert len(tab.call("Page.printToPDF")["data"]) > 20_000


def test_the_page_has_its_parts_in_order(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    at = [
        text.index(f'<section id="{part}"')
        for part in ("verdict", "figures", "tables", "settings", "made", "again", "cite")
    ]
    assert at == sorted(at)
    assert text.count("Plotly.newPlot(place") == 1
    assert "http://" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)


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


def test_the_config_makes_the_same_study(evident: Any) -> None:
    assert make_study(tomllib.loads(config(evident.study))).key == evident.study.key


def test_a_verdict_is_counted_over_tasks_and_says_whether_size_decides(evident: Any) -> None:
    said = verdicts(evident, {("faithfulness", "nodes"): "a better", ("faithfulness", "bits"): "equivalent"})
    head, *told = verdict(evident, said, per_curve(evident))
    assert head == "Under relp, ablation mean and errors nodes, with size by nodes, error nodes counted:"
    assert told[0].startswith("faithfulness, mlp_neurons against sae:")
    assert told[0].endswith("mlp_neurons better on 1 of 1 task. The count differs by bits.")
    assert told[1].endswith("undecided on 1 of 1 task. It is the same by every size measure.")


def test_without_a_verdict_the_page_says_why(evident: Any) -> None:
    table = per_curve(evident)
    untested, sizes = verdict(evident, None, table)
    assert "none was computed" in untested
    assert "Sizes are of the grid that was run" in sizes
    record = {**evident.record, "study": {**evident.record["study"], "basis": ["mlp_neurons"]}}
    alone = replace(evident, record=record, summary=evident.summary[evident.summary["basis"] == "mlp_neurons"])
    assert verdict(alone, None, table) == ["There is no verdict between bases: the study has one basis."]
    single = replace(evident, summary=evident.summary.assign(n_eval=1))
    assert "one prompt bears no test" in verdict(single, None, table)[0]


def test_tables_of_a_folder_are_read_where_they_are(tmp_path: Path) -> None:
    assert evidence(tmp_path).verdicts is None
    (tmp_path / "verdicts.csv").write_text("task,verdict\n")
    assert evidence(tmp_path).verdicts is None  # nothing was compared
    pd.DataFrame({"task": ["t"], "mean": [0.5]}).to_csv(tmp_path / "stability.csv", index=False)
    assert json.loads(evidence(tmp_path).stability.to_json(orient="records")) == [{"task": "t", "mean": 0.5}]
