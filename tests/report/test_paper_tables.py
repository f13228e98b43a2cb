"""Tables: columns by name in three formats, bold only by a verdict, and LaTeX that compiles."""

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from verdicts import verdicts

import neuron_vs_sae as nvs
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.report.columns import COLUMNS, chosen, significantly_best, told_apart, with_intervals
from neuron_vs_sae.report.latex import latex
from neuron_vs_sae.report.tables import paper_tables, table_of
from neuron_vs_sae.studies.per_curve import per_curve
from neuron_vs_sae.studies.study import make_study

AREA = COLUMNS["area_faithfulness"]


def compiled(tex: str, folder: Path) -> tuple[bytes, str]:
    """(PDF, log) of a page with these tables; fails where LaTeX does."""
    page = (
        "\\documentclass{article}\\pdfcompresslevel=0\\pdfobjcompresslevel=0\\usepackage{booktabs}\\usepackage{siunitx}"
        f"\\begin{{document}}\n{tex}\n\\end{{document}}"
    )
    (folder / "page.tex").write_text(page, encoding="ascii")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "page.tex"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)
    assert ended.returncode == 0, ended.stdout[-3000:]
    return (folder / "page.pdf").read_bytes(), (folder / "page.log").read_text(errors="replace")


needs_tex = pytest.mark.skipif(
    shutil.which("pdflatex") is None,
    reason="no pdflatex on this machine (Debian: apt-get install texlive-latex-recommended texlive-science)",
)


@needs_tex
def test_a_results_tables_compile_whatever_their_names_hold(evident: Any, tmp_path: Path) -> None:
    _, log = compiled((evident.folder / "table.tex").read_text(encoding="ascii"), tmp_path)
    assert "Missing character" not in log


@needs_tex
def test_bold_numbers_are_bold_and_nothing_else_is(evident: Any, tmp_path: Path) -> None:
    table = per_curve(evident)
    plain, _ = compiled(paper_tables(evident, table, None), tmp_path)
    bold, _ = compiled(paper_tables(evident, table, verdicts(evident, _better(evident, table))), tmp_path)
    assert b"CMBX" not in plain
    assert b"CMBX" in bold


def _better(found: Any, table: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Verdicts that call the basis with the larger area better."""
    first = table[table["method"] == found.study.method[0]].set_index("basis")["area_faithfulness"]
    a, b = found.study.basis
    return {("faithfulness", "nodes"): "a better" if first[a] > first[b] else "b better"}


def test_the_best_is_bold_only_where_it_is_better_than_every_other_shown() -> None:
    rows = pd.DataFrame({
        "task": "t", "method": "relp", "ablation": "mean", "errors": "nodes", "basis": ["a", "b", "c"],
        "area_faithfulness": [0.5, 0.7, 0.6], "area_completeness": [0.1, 0.3, 0.2], "cpr": [1.0, 2.0, 3.0],
    })  # fmt: skip
    common = {"task": "t", "method": "relp", "ablation": "mean", "errors": "nodes", "size_measure": "nodes"}

    def said(*pairs: tuple[str, str, str], score: str = "faithfulness", **other: str) -> pd.DataFrame:
        return pd.DataFrame(
            [{**common, "score": score, "basis_a": a, "basis_b": b, "verdict": v, **other} for a, b, v in pairs]
        )

    both = (("a", "b", "b better"), ("b", "c", "a better"))
    assert significantly_best(rows, AREA, said(*both)) == {1}
    assert significantly_best(rows, AREA, None) == set()
    assert significantly_best(rows, AREA, said(both[0])) == set()  # nothing is known of b and c
    assert significantly_best(rows, AREA, said(both[0], ("b", "c", "undecided"))) == set()
    assert significantly_best(rows, AREA, said(both[0], ("b", "c", "b better"))) == set()
    assert significantly_best(rows[:2], AREA, said(both[0])) == {1}  # c is not shown
    assert significantly_best(rows, AREA, said(*both, size_measure="bits")) == set()
    assert significantly_best(rows, AREA, said(*both, method="delta")) == set()
    completeness = said(("a", "b", "a better"), ("a", "c", "a better"), score="completeness")
    assert significantly_best(rows, COLUMNS["area_completeness"], completeness) == {0}  # lower is better
    assert significantly_best(rows, COLUMNS["cpr"], said(*both)) == set()  # no verdict is of it


def test_columns_are_chosen_by_name_in_every_format(evident: Any) -> None:
    names = ["basis", "size_at_level", "area_faithfulness"]
    csv = table_of(evident, columns=names, form="csv", method=["relp"])
    table = pd.read_csv(io.StringIO(csv))
    assert list(table.columns) == names
    assert table["basis"].tolist() == list(evident.study.basis)
    markdown = table_of(evident, columns=names, form="markdown", method=["relp"])
    assert "| basis | nodes for 80 % | area F |" in markdown
    tex = table_of(evident, columns=names, form="latex", method=["relp"])
    assert "basis & {80 \\%} & {area F} \\\\" in tex
    value = per_curve(evident)["area_faithfulness"][0]
    assert f"{value:.3f}" in markdown
    assert f"{value:.3f}" in tex


def test_sizes_and_verdicts_are_tables_too(evident: Any) -> None:
    sizes = table_of(evident, rows="sizes", columns=["size", "faithfulness", "faithfulness_interval"], form="csv")
    assert len(sizes.splitlines()) == 1 + len(evident.summary)
    text = table_of(evident, rows="verdicts", verdicts=verdicts(evident, {}))
    assert text.count("| undecided |") == 4
    assert "\\[0.020, 0.180\\]" in text
    assert "(3 clusters)" in text


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"columns": ["nonesuch"]}, "no column 'nonesuch'; it has: task, "),
        ({"method": ["nonesuch"]}, "no method 'nonesuch'; it has: relp, "),
        ({"form": "docx"}, "no form 'docx'"),
        ({"rows": "verdicts"}, "holds no verdicts"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(options: dict[str, Any], part: str, evident: Any) -> None:
    with pytest.raises(InputError, match=part):
        table_of(evident, **options)


def test_a_caption_says_what_made_the_numbers_and_every_field_changes_it(evident: Any) -> None:
    def caption(**changed: Any) -> str:
        study = make_study({**evident.record["study"], **changed})
        record = {**evident.record, "study": study.model_dump(mode="json"), "key": study.key}
        return table_of(
            nvs.Result(evident.folder, record, evident.curves, evident.summary), form="latex", method=["relp"]
        )

    said = caption()
    for part in ("Model tiny", "method relp, ablation mean, error policy nodes", "separate positions", "20 units each, at hook",
                 "8 prompt pairs for discovery and 6 others", "95\\% paired BCa", "100 resamples", f"study {evident.study.key}"):  # fmt: skip
        assert part in said.replace("\\_", "_").replace("{-}", "-"), part
    others = {
        "seed": 1,
        "resamples": 200,
        "positions": "pooled",
        "rank_by": "signed",
        "mean_source": "discovery",
        "split_by": "case",
    }
    assert len({said, *(caption(**{name: value}) for name, value in others.items())}) == 1 + len(others)


def test_intervals_are_text_of_both_ends_and_absent_where_they_are() -> None:
    table = with_intervals(pd.DataFrame({"f_low": [0.1234, None], "f_high": [0.5, None], "lone_low": [0, 0]}))
    assert table["f_interval"].tolist()[0] == "[0.123, 0.500]"
    assert table["f_interval"].isna().tolist() == [False, True]
    assert "lone_interval" not in table


def test_an_empty_cell_is_a_dash_that_the_caption_explains() -> None:
    rows = pd.DataFrame({"task": ["t", "t", "u"], "size_at_level": pd.array([7, None, 10000], "Int64")})
    text = latex(rows, chosen(rows, ["task", "size_at_level"]), bold={"size_at_level": {0}}, caption="C.", label="l")
    assert "\\caption{C. --: not reached.}" in text
    assert "t & \\bfseries 7 \\\\\n & {--} \\\\\n\\midrule\nu & 10000 \\\\" in text
    assert "S[table-format=5.0]" in text


def test_rows_that_would_look_alike_are_told_apart() -> None:
    rows = pd.DataFrame({
        "task": ["t"] * 4, "basis": ["a"] * 4, "errors": ["nodes", "keep"] * 2, "seed": [0, 0, 1, 1], "method": "relp", "n_total": 5,
    })  # fmt: skip
    shown = told_apart(rows, chosen(rows, ["basis", "n_total"]))
    assert [column.name for column in shown] == ["basis", "errors", "seed", "n_total"]
    alone = rows[rows["seed"] == 0]
    assert [column.name for column in told_apart(alone, chosen(alone, ["n_total"]))] == ["errors", "n_total"]
    assert [column.name for column in told_apart(rows[:1], chosen(rows, ["n_total"]))] == ["n_total"]


def test_any_basis_is_bold_where_each_of_its_pairs_was_tested() -> None:
    rows = pd.DataFrame({"task": "t", "basis": ["neurons", "sae", "rotation"], "area_faithfulness": [0.5, 0.7, 0.6]})
    common = {"task": "t", "size_measure": "nodes", "score": "faithfulness"}
    pairs = [("neurons", "sae", "b better"), ("neurons", "rotation", "b better"), ("sae", "rotation", "a better")]
    said = pd.DataFrame([{**common, "basis_a": a, "basis_b": b, "verdict": v} for a, b, v in pairs])
    assert significantly_best(rows, AREA, said) == {1}
    assert significantly_best(rows, AREA, said[:2]) == set()  # SAE features and the rotation were not compared
