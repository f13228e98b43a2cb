"""Figures: what they draw is what the result holds; colours can be told apart."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from compared import compared

from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.nodes import NodeIndex, NodeScores
from neuron_vs_sae.report import paper_figures, plots
from neuron_vs_sae.report.escaping import in_figure
from neuron_vs_sae.report.plots.against_size import CHANCE
from neuron_vs_sae.report.plots.circuits import jaccard
from neuron_vs_sae.report.plots.estimates import agreement
from neuron_vs_sae.report.plots.prompts import per_prompt
from neuron_vs_sae.report.plots.scores import gini, mass
from neuron_vs_sae.report.plots.style import POLICIES

# Machado, Oliveira and Fernandes 2009: how a dichromat sees linear RGB.
SEEN_BY = {
    "protanope": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranope": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "all colours": np.eye(3).tolist(),
}


def lab(colour: str, eye: str) -> np.ndarray:
    """CIE L*a*b* of a colour as that eye sees it."""
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(SEEN_BY[eye]) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ seen / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def task_of(found: Any) -> str:
    return str(found.summary["task"].iloc[0])


@pytest.mark.parametrize("eye", SEEN_BY)
def test_colours_of_the_default_studys_bases_can_be_told_apart(eye: str) -> None:
    """A difference of 10 in CIE L*a*b* is several times what can just be noticed (about 2.3); markers differ as well."""
    bases = ["mlp_neurons", "mlp_outputs", "sae", "transcoder", "rotation", "random_sae"]
    seen = {basis: lab(colour, eye) for basis, colour in plots.colours_of(bases).items()}
    for a in bases:
        for b in bases[: bases.index(a)]:
            assert np.linalg.norm(seen[a] - seen[b]) > 10, (a, b)
    assert len(set(plots.markers_of(bases).values())) == len(bases)


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance."""
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("page", ["#ffffff", "#14171b"])
def test_colours_have_a_contrast_of_3_to_1_on_a_light_and_on_a_dark_page(page: str) -> None:
    kinds = [
        "mlp_neurons",
        "mlp_outputs",
        "sae",
        "transcoder",
        "rotation",
        "random_sae",
        "residual",
        "attention",
        "pca",
    ]
    for colour in (*plots.colours_of(kinds).values(), *(look.colour for look in POLICIES.values())):
        low, high = sorted((luminance(colour), luminance(page)))
        assert (high + 0.05) / (low + 0.05) >= 3, colour


def test_chance_is_a_band_and_the_other_methods_wait_in_a_menu(evident: Any) -> None:
    figure = plots.curves(evident, task=task_of(evident))
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    shown = {trace.meta["method"]: trace.visible for trace in lines}
    assert shown == {"relp": True, "activation_patching": False}
    assert [t.name for t in figure.data if t.legendgroup == "chance" and t.showlegend is not False] == [CHANCE]
    (menu,) = figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == ["method relp", "method activation_patching"]
    chosen = menu.buttons[1].args[0]["visible"]
    assert [v for v, t in zip(chosen, figure.data, strict=True) if t.legendgroup == "chance"] == [True] * 5
    assert {t.meta["method"] for v, t in zip(chosen, figure.data, strict=True) if v and t.meta} == {
        "activation_patching"
    }


def test_names_in_figures_are_text(evident: Any) -> None:
    task = task_of(evident)
    for figure in (
        plots.curves(evident, task=task),
        plots.sizes(evident),
        plots.shares(evident, task=task, method="relp"),
    ):
        text = figure.to_json()
        assert "\\u003cimg" not in text
        assert "<img" not in text
        assert in_figure(task).split("&")[1] in text


def test_sizes_are_the_least_that_reach_the_level(evident: Any) -> None:
    figure = plots.sizes(evident, level=0.5)
    for trace, basis in zip(figure.data, evident.study.basis, strict=True):
        least = evident.curve(basis=basis, method="relp").size_at(0.5)
        assert list(trace.x) == ([least] if least else [])


@pytest.mark.checked
def test_shares_of_layers_and_of_positions_add_up_to_one() -> None:
    index = NodeIndex(("blocks.0.hook_mlp_out", "blocks.2.hook_mlp_out"), (2, 1), 2)
    # site 0: units 1, -2 and error 3 at position 0, nothing at 1; site 1: nothing at 0, unit 0 and error -4 at position 1.
    scores = NodeScores(index, torch.tensor([1.0, -2, 3, 0, 0, 0, 0, 0, 0, -4]))
    by_layer, by_position = mass(scores)
    assert by_layer.tolist() == [[0.3, 0.3], [0.0, 0.0], [0.0, 0.4]]
    assert by_position.tolist() == [[0.3, 0.3], [0.0, 0.4]]


@pytest.mark.checked
def test_ginis_coefficient_is_0_when_all_are_alike_and_1_less_1_over_n_when_one_has_all() -> None:
    assert gini(np.full(5, 3.0)) == pytest.approx(0)
    assert gini(np.array([0.0, 0, 0, 7])) == pytest.approx(1 - 1 / 4)
    assert gini(np.array([1.0, 2, 3])) == pytest.approx(2 / 9)  # sum over pairs |x - y| / (2 n^2 mean) = 8 / 36


@pytest.mark.checked
def test_overlap_is_what_both_have_of_what_either_has() -> None:
    sets = [
        torch.tensor([True, True, False, False]),
        torch.tensor([False, True, True, True]),
        torch.zeros(4, dtype=torch.bool),
    ]
    found = jaccard(sets)
    assert found[:2, :2].tolist() == [[1.0, 0.25], [0.25, 1.0]]
    assert np.isnan(found[2]).all()


@pytest.mark.checked
def test_agreement_is_pearson_spearman_and_slope() -> None:
    exact = np.array([0.0, 1, 2, 3])
    line = agreement(exact, 2 * exact + 1)
    assert (line.pearson, line.spearman, line.slope) == pytest.approx((1, 1, 2))
    # Means 1.5 and 2.5, deviations (-1.5, -.5, .5, 1.5) and (-2.5, -1.5, -.5, 4.5): sum of products 11, of squares 5 and 29.
    bent = agreement(exact, np.array([0.0, 1, 2, 7]))
    assert (bent.pearson, bent.spearman, bent.slope) == pytest.approx((11 / 145**0.5, 1, 2.2))
    assert np.isnan(agreement(exact, np.ones(4)).pearson)


def test_an_exact_method_against_itself_is_the_diagonal(evident: Any) -> None:
    figure = plots.against_exact(evident, task=task_of(evident), method="activation_patching")
    for trace in figure.data[::2]:
        assert trace.x == trace.y
    assert all("r 1.000" in note.text and "slope 1.00" in note.text for note in figure.layout.annotations)


@pytest.mark.checked
def test_what_prompts_add_has_the_difference_of_faithfulness_as_its_mean(evident: Any) -> None:
    figure = plots.differences(evident, task=task_of(evident), method="relp", size=50)
    a, b = (evident.curve(basis=basis, method="relp") for basis in evident.study.basis)
    at = a.sizes.index(50)
    (trace,) = (one for one in figure.data if one.mode == "markers+lines")
    assert np.mean(trace.y) == pytest.approx(float(a.faithfulness[at] - b.faithfulness[at]))
    assert list(trace.y) == sorted(trace.y)
    kept = per_prompt(a.circuit[at].numpy(), a.whole.numpy(), a.empty.numpy())
    assert kept.mean() == pytest.approx(float(a.faithfulness[at]))


def test_methods_overlap_wholly_with_themselves_and_pooled_nodes_have_no_positions(evident: Any) -> None:
    figure = plots.overlap_of_methods(evident, task=task_of(evident), size=5)
    assert len(figure.data) == len(evident.study.basis)
    for heat in figure.data:
        values = np.array(heat.z, dtype=float)
        assert np.diag(values).tolist() == [1.0] * 3
        assert (values == values.T).all()


def test_what_a_result_has_not_is_said(evident: Any) -> None:
    with pytest.raises(KeyError, match=r"0 discoveries match .*nonesuch"):
        plots.shares(evident, task="nonesuch", method="relp")
    with pytest.raises(KeyError, match="no curve of method 'nonesuch'"):
        plots.sizes(evident, method="nonesuch")


def test_a_dark_figure_is_light_on_dark(evident: Any) -> None:
    figure = plots.themed(plots.sizes(evident), "dark")
    assert (figure.layout.paper_bgcolor, figure.layout.font.color) == ("#14171b", "#e4e7eb")


def test_paper_figures_have_a_columns_width_and_the_same_bytes_again(evident: Any, tmp_path: Any) -> None:
    first = evident.summary.iloc[0]
    for name, again in (("a.pdf", "b.pdf"), ("a.png", "b.png")):
        for file in (name, again):
            drawn = paper_figures.curves(evident, task=first["task"], ablation="mean", errors="nodes")
            assert drawn.get_size_inches()[0] == paper_figures.COLUMN
            paper_figures.save(drawn, tmp_path / file)
        assert (tmp_path / name).read_bytes() == (tmp_path / again).read_bytes()
    with pytest.raises(KeyError, match="no curve of method 'random'"):
        paper_figures.curves(evident, task=first["task"], ablation="mean", errors="nodes", method="random")


def test_what_is_drawn_is_natural_where_nothing_is_chosen(evident: Any) -> None:
    for draw in (
        plots.curves, plots.sizes, plots.shares, plots.concentration, plots.distributions, plots.overlap_of_methods,
        plots.overlap_of_positions, plots.differences, plots.against_exact, plots.circuit,
    ):  # fmt: skip
        assert len(draw(evident).data) > 0, draw.__name__


def test_no_figure_offers_to_upload_its_data(evident: Any, tmp_path: Any) -> None:
    figure = plots.sizes(evident)
    figure.write_html(tmp_path / "figure.html", include_plotlyjs=False, config={"responsive": True})
    for text in (figure.to_html(include_plotlyjs=False), (tmp_path / "figure.html").read_text()):
        assert '"showSendToCloud": false' in text


def test_a_circuits_squares_are_its_best_nodes_and_errors_are_crossed(evident: Any) -> None:
    figure = plots.circuit(evident, nodes=7)
    for trace, basis in zip(figure.data, evident.study.basis, strict=True):
        scores = evident.scores(basis=basis, method="relp")
        best = scores.top(7).nodes
        kept = best[scores.values[best] != 0]
        assert len(trace.x) == len(kept)
        crossed = [symbol == "square-x-open" for symbol in trace.marker.symbol]
        assert crossed == scores.index.is_error[kept].tolist()


def test_comparisons_are_drawn_as_the_tables_say(evident: Any, tmp_path: Any) -> None:
    tables = compared(evident)
    tables.specifications.to_parquet(tmp_path / "specifications.parquet")
    tables.robustness.to_csv(tmp_path / "robustness.csv", index=False)
    found = replace(evident, folder=tmp_path)
    forest = plots.forest(found)
    assert [list(trace.x) for trace in forest.data] == [[-0.1]]
    curve = plots.specification_curve(found)
    by_name = {trace.name: list(trace.y) for trace in curve.data if trace.name}
    assert by_name["SAE features better"] == [-0.1, -0.1]  # by nodes and by bits
    assert by_name["MLP neurons better"] == []
    paper_figures.save(paper_figures.forest(found), tmp_path / "forest.pdf")
    with pytest.raises(InputError, match="holds no comparison"):
        plots.forest(replace(evident, folder=tmp_path / "nothing"))


def test_papers_fonts_are_truetype(evident: Any, tmp_path: Any) -> None:
    first = evident.summary.iloc[0]
    paper_figures.save(
        paper_figures.curves(evident, task=first["task"], ablation="mean", errors="nodes"), tmp_path / "a.pdf"
    )
    content = (tmp_path / "a.pdf").read_bytes()
    assert b"/FontFile2" in content
    assert b"/Type3" not in content
