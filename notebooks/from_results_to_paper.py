# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From results to paper
#
# A finished study is a folder. This notebook makes a small one and takes out of it what a paper needs: verdicts, a
# table, figures, a sentence, citations, and what a reader needs to run it again. No number is typed in by hand, so none
# can go stale.

# %%
# %matplotlib inline
import json
import shutil

import pandas as pd
from IPython.display import Markdown

import neuron_vs_sae as nvs
from neuron_vs_sae.report import citation, paper_figures

pd.set_option("display.max_colwidth", 90)
shutil.rmtree("study", ignore_errors=True)
study = nvs.Study(
    model="default",
    task=["world:agreement_nounpp", "world:two_hop,template=0"],
    basis=["mlp_neurons", "sae", "mlp_outputs"],
    method=["relp", "random"],
    examples=100,
    eval_examples=40,
)
found = nvs.compare(study, "study")
sorted(file.name for file in found.folder.iterdir() if not file.name.startswith("."))

# %% [markdown]
# The command line writes the same folder: `nvs compare --config study.toml --out study`. `report.html` is the whole of
# it on one page, `study.json` what made it.
#
# ## The figure
#
# Faithfulness, completeness, and the share of error nodes in each circuit; 95 % intervals over prompts, random circuits
# dotted. The first thing to look at is whether a curve has left its dotted line. A curve ends at its last node with a
# score.

# %%
paper_figures.curves(found, task="agreement_nounpp", ablation="mean", errors="nodes")

# %%
paper_figures.sizes(found)

# %% [markdown]
# Both are at the width of a paper's column; `nvs figures study --format pdf` writes them as files.
#
# ## The verdict
#
# Per task and pair of bases: the difference of the areas under the score, over the sizes that both reach, its paired
# interval, a sign-flip test, Holm's adjustment for all comparisons of one family (neurons against trained dictionaries,
# or the rest), and a test of *equivalence* within a margin stated in advance (here .05).

# %%
verdicts = nvs.verdicts(found)
relp = verdicts[(verdicts["method"] == "relp") & (verdicts["basis_a"] == "mlp_neurons")]
shown = relp[relp["size_measure"] == "nodes"]
columns = [
    "task",
    "basis_a",
    "basis_b",
    "score",
    "difference",
    "low",
    "high",
    "p_holm",
    "minimum_detectable",
    "verdict",
]
shown[columns].round(3)

# %% [markdown]
# Read `minimum_detectable` with every `undecided`: it is the true difference that these prompts find with a power of
# 80 %. An `equivalent` is a claim of its own, not the lack of one: the interval lies within the margin.
#
# ## Does the verdict depend on what size means?

# %%
faithful = relp[relp["score"] == "faithfulness"]
faithful.pivot_table(index=["task", "basis_b"], columns="size_measure", values="verdict", aggfunc="first", sort=False)

# %% [markdown]
# `a` is `mlp_neurons`. A row with one word in it is a finding; a row with two opposite ones is a finding about measures
# of size. `values` counts an error node as the vector that it is, and turns the two-hop question around. `change` asks
# for the norm of what is removed rather than for a count, and it disagrees with the count of nodes on SAE features in
# both tasks.
#
# ## Does the verdict depend on a convention?
#
# A specification is a choice of every convention: error policy, ablation, metric, measure of size. `robustness` judges
# all those of a study at once. In this one only the measure of size varies, so there are six.

# %%
robust = nvs.robustness(found)
columns = [
    "task",
    "basis_a",
    "basis_b",
    "score",
    "n_specifications",
    "share_a_better",
    "share_b_better",
    "share_equivalent",
    "verdict",
    "decided_by",
]
robust = robust[(robust["score"] == "faithfulness") & (robust["basis_a"] == "mlp_neurons")]
robust[columns].round(2)

# %% [markdown]
# `a better` needs a joint test of all specifications and no significant one against it; where significant ones disagree
# the verdict is `depends`, and `decided_by` names the convention. `all` is the mean over these two tasks and says nothing
# of others. A study for a paper gives several `errors` and `ablation`.

# %% [markdown]
# ## Over tasks

# %%
across = nvs.across_tasks(verdicts, study.confidence)
chosen = (
    (across["method"] == "relp")
    & (across["basis_a"] == "mlp_neurons")
    & (across["score"] == "faithfulness")
    & (across["size_measure"] == "nodes")
)
columns = [
    "basis_b",
    "n_tasks",
    "a_better",
    "b_better",
    "equivalent",
    "undecided",
    "mean",
    "low",
    "high",
    "n_reversed",
    "note",
]
across.loc[chosen, columns].round(3)

# %% [markdown]
# The interval is for other tasks like these, and two tasks are too few for one: the table says so itself. A mean over
# tasks without this row would be the most misleading number of the paper.
#
# ## The table

# %%
Markdown(nvs.tables.table_of(found, method=["relp"], verdicts=verdicts))

# %%
print(nvs.tables.table_of(found, form="latex", method=["relp"], verdicts=verdicts))

# %% [markdown]
# Bold is the best of its task, and only where a verdict says that it is better than *every* other basis. The caption is
# generated with the table, so that a changed setting changes it. On the command line: `nvs table study --format latex`.
#
# ## The sentence
#
# From the same rows, so that it cannot say more than they do:


# %%
def in_words(verdict: str) -> str:
    return verdict.replace("a better", "neurons better").replace("b better", "SAE features better")


against_sae = faithful[(faithful["basis_b"] == "sae") & (faithful["size_measure"] == "nodes")]
over_all = robust[robust["basis_b"] == "sae"].set_index("task")["verdict"]
parts = [
    f"on {row.task} {in_words(row.verdict)} "
    f"(difference of areas {row.difference:+.2f}, {study.confidence:.0%} interval {row.low:+.2f} to {row.high:+.2f}; "
    f"over all measures of size: {in_words(over_all[row.task])})"
    for row in against_sae.itertuples()
]
first = found.summary.iloc[0]
Markdown(
    f"> In the model `{first['model']}`, under {first['ablation']} ablation with error nodes counted and sizes in nodes, neurons against SAE features are, "
    f"{'; '.join(parts)}; {first['n_eval']} held-out prompts each."
)

# %% [markdown]
# ## Whom to cite

# %%
bibtex = citation.bibtex(found)
print(bibtex[bibtex.index("@misc") :][:1200], "...")

# %% [markdown]
# `nvs cite study` prints all of it: the tool, model, dictionaries, tasks, methods and statistics that *this* study
# used.
#
# ## What made it

# %%
made = found.record["provenance"]
print(json.dumps({key: made[key] for key in ("versions", "python", "device", "dtype", "threads")}, indent=1))

# %% [markdown]
# Give readers the folder: `nvs.load("study")` reads it, `nvs report study` writes tables and figures again from the
# per-prompt values, and `nvs compare-results study theirs` says what differs between it and their run.
#
# ## What would be wrong to conclude
#
# - *From the mean over tasks alone*, anything.
# - *From `equivalent`*, that the circuits are the same: two bases may be equally sparse with unrelated circuits.
# - *From an interval over prompts*, that another discovery sample would agree: give several `--seed` and look at
#   `stability.csv`.
# - *From one ablation*, see `reading_the_evidence`.
