"""What is shown of interventions, written into their studies' folders: a page each, and steering for Neuronpedia."""

from typing import Any

import pandas as pd

from neuron_vs_sae.core import files
from neuron_vs_sae.report import intervention_figures as draw
from neuron_vs_sae.report.intervention_page import Section, render
from neuron_vs_sae.report.neuronpedia import steering
from neuron_vs_sae.studies.heads import HeadsResult
from neuron_vs_sae.studies.patching import PatchResult
from neuron_vs_sae.studies.selectivity import SelectivityResult
from neuron_vs_sae.studies.steering import SteerResult

_VERDICT = (
    "task",
    "score",
    "size_measure",
    "specification",
    "basis_a",
    "basis_b",
    "a",
    "b",
    "difference",
    "low",
    "high",
    "p_holm",
    "verdict",
)


def write_patching(result: PatchResult) -> None:
    """(Re)write `report.html`."""
    table, flips, swaps, verdicts = result.table, result.flips, result.swapped, result.verdicts
    names, sections = draw.called(table["basis"]), []
    for task in dict.fromkeys(table["task"]):
        part = flips.loc[
            flips["task"] == task, ["basis", "q25", "median", "q75", "flips", "low", "high", "all_units", "n"]
        ]
        caption = "Solid: units ranked for each prompt by delta x gradient, with Wilson's interval; dashed: as much moved in random units."
        sections.append(Section(f"Units to flip the answer: {task}", caption, draw.units_to_flip(table, task), part))
        sections.append(
            Section(
                f"Predicted and measured: {task}",
                "A point per number of units; dotted: equal.",
                draw.foretold(table, task),
            )
        )
        controls = table.loc[(table["task"] == task) & ~table["control"].isin(["", "all_units"])]
        shown = controls[
            [
                "basis",
                "k",
                "control",
                "actual",
                "flip_rate",
                "difference",
                "difference_low",
                "difference_high",
                "z",
                "norm",
            ]
        ]
        sections.append(
            Section(
                f"Against controls: {task}",
                "`difference`: the patch's effect less the control's, paired over prompts.",
                None,
                shown,
            )
        )
        if len(swaps):
            caption = f"The donor's {result.study.swap} swapped in: the rate at which its answer comes first, by how the units were result."
            mine = swaps.loc[(swaps["task"] == task) & swaps["swap"].ne("swap")]
            sections.append(
                Section(
                    f"Swaps: {task}",
                    caption,
                    draw.swap_matrix(swaps, task),
                    mine[["basis", "way", "k", "swap", "hit", "kept", "relation", "unchanged"]],
                )
            )
    if len(result.signatures):
        sections.append(
            Section("Signatures", "Classes by thresholds that were chosen ad hoc.", None, result.signatures)
        )
    sections.append(_verdicts(verdicts))
    answer = [
        f"On {row['task']}, {'fewer than half of the prompts flip' if pd.isna(row['median']) else format(row['median'], '.0f') + ' units flip the answer of half of the prompts'} in {names[row['basis']]}."
        for row in flips.to_dict("records")
    ]
    limits = [
        "Units are ranked by the same prompt that judges them: the numbers say what one prompt needs, not what a circuit found elsewhere would do.",
        "The error of a dictionary stays the recipient's, so a basis with an error may not flip with all of its units.",
        "That a patch flips an answer shows that the units suffice, not that the model uses them; suppression, rescue and transfer are in the swaps.",
    ]
    files.write_text(result.folder / "report.html", render(f"Patching {result.study.model}", answer, sections, limits))


def write_steering(result: SteerResult) -> None:
    """(Re)write `report.html` and `neuronpedia_steering.json`."""
    table, frontier = result.table, result.frontier
    names, sections, answer = draw.called(table["basis"]), [], []
    for task in dict.fromkeys(table["task"]):
        caption = (
            "Left: mean change of the metric with its interval over prompts. Right: what the same dose does elsewhere."
        )
        shown = table.loc[
            table["task"] == task,
            [
                c
                for c in (
                    "basis",
                    "dose",
                    "norm",
                    "effect",
                    "low",
                    "high",
                    "kl",
                    "corpus_kl",
                    "cross_entropy",
                    "flip_rate",
                )
                if c in table
            ],
        ]
        sections.append(Section(f"Dose and response: {task}", caption, draw.dose_response(table, task), shown))
        for guard in dict.fromkeys(frontier.loc[frontier["task"] == task, "guard"]):
            caption = "The dose was chosen on one half of the prompts and is scored on the other."
            sections.append(
                Section(f"Efficacy for its price ({guard}): {task}", caption, draw.frontier(frontier, task, guard))
            )
        areas = frontier.loc[(frontier["task"] == task) & frontier["price"].isna()]
        answer += [
            f"On {task}, priced by {row['guard']}, {names[row['basis']]} move the metric by {row['efficacy']:.2f} [{row['low']:.2f}, {row['high']:.2f}] on average over prices."
            for row in areas.to_dict("records")
        ]
    for heading, part in (
        ("Which number foretells an effect", result.prediction),
        ("Text under steering", result.generated),
    ):
        if len(part):
            sections.append(
                Section(
                    heading,
                    "Over single units of each basis." if part is result.prediction else "Drawn with a seed.",
                    None,
                    part,
                )
            )
    sections.append(_verdicts(result.verdicts))
    limits = [
        "A set of units shares one dose; another choice of units, or of their signs, is another comparison.",
        "Doses are compared at equal relative norm and equal price, never at equal multiples of a largest value.",
        "An effect on a metric is not a change of meaning: nobody has read the texts.",
    ]
    files.write_text(result.folder / "report.html", render(f"Steering {result.study.model}", answer, sections, limits))
    files.write_json(
        result.folder / "neuronpedia_steering.json", steering(result.doses, result.study.generate, result.study.at)
    )


def write_heads(result: HeadsResult) -> None:
    """(Re)write `report.html`."""
    best = result.heads.loc[result.heads["order"] == "all"].sort_values("score", ascending=False, kind="stable").iloc[0]
    answer = [
        f"The best successor head is head {best['head']} of layer {best['layer']}: the successor comes first for {best['score']:.0%} of {best['n']} pairs "
        f"[{best['low']:.0%}, {best['high']:.0%}]."
    ]
    by_list = result.heads.sort_values("score", ascending=False, kind="stable").groupby("order", sort=False).head(1)
    sections = [
        Section(
            "Successor score of every head",
            "Over all lists: how often the successor comes first among the list's own tokens.",
            draw.head_map(result.heads),
            by_list,
        ),
        Section(
            "The last digit in the first MLP",
            "Chance accuracy is .1; `explained_permuted` is what choosing units alone explains.",
            None,
            result.digits,
        ),
    ]
    limits = [
        "The score leaves out attention patterns, norms and all layers between: a head that scores may not be used, and one that is used may not score.",
        "Lists are what the tokenizer has as single tokens.",
    ]
    files.write_text(
        result.folder / "report.html", render(f"Successor heads of {result.study.model}", answer, sections, limits)
    )


def write_selectivity(result: SelectivityResult) -> None:
    """(Re)write `report.html`."""
    table: Any = result.table
    study = result.study
    sections = [
        Section(f"At as {size}", "1: the other task is untouched; 0: both lose alike. Dashed: random units.", draw.selective(table, matched),
                table.loc[table["matched"] == matched, ["basis", "own", "size", "control", "k", "selectivity", "low", "high", "loss_own", "loss_other"]])
        for matched, size in (("k", "many units"), ("norm", "large a norm"))
        if (table["matched"] == matched).any()
    ]  # fmt: skip
    caption = "The share of units with such an AUROC: on templates that did not choose their sign, with labels exchanged by template, and on one template for each task."
    sections += [
        Section("Units that tell the tasks apart", caption, None, result.templates),
        _verdicts(result.verdicts),
    ]
    main = table.loc[(table["control"] == "") & (table["matched"] == "k") & (table["size"] == max(study.k))]
    names = draw.called(table["basis"])
    answer = [
        f"Ablating {row['k']} units of {row['own']} in {names[row['basis']]} costs it {row['loss_own']:.0%} and the other task {row['loss_other']:.0%}: "
        f"selectivity {row['selectivity']:.2f} [{row['low']:.2f}, {row['high']:.2f}]."
        for row in main.to_dict("records")
    ]
    limits = [
        "A selectivity says nothing where neither task loses anything: read it beside the losses.",
        "Units that tell two tasks apart need not do either of them; those of two templates may tell the wording.",
    ]
    files.write_text(
        result.folder / "report.html", render(f"{study.task_a} against {study.task_b}", answer, sections, limits)
    )


def _verdicts(verdicts: Any) -> Section:
    shown = verdicts[[column for column in _VERDICT if column in verdicts]]
    return Section("Verdicts", "Bases pair by pair, on the same prompts; Holm's adjustment over all rows.", None, shown)
