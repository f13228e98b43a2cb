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
# # Trace one prompt
#
# A circuit says which nodes matter. An attribution graph says what each of them took directly from which other, on one
# prompt. This notebook traces a two-hop question in MLP neurons and in SAE features by one rule, checks the edges
# against interventions, and says how much of either graph may be believed.

# %%
# %matplotlib inline
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.graphs import circuits, ensemble, exact, prompt
from neuron_vs_sae.report.graph_viewer import viewer_graph

torch.set_grad_enabled(False)
model = nvs.load_model("default")
pairs = nvs.tasks.world(model, source="two_hop", part="evaluation", n=40)
pair = pairs.take([0])
pair

# %% [markdown]
# ## One graph
#
# The model is cut where the basis writes. An edge is the part of its target's value that comes from its source along
# paths that pass no other cut, attention patterns and norms held. What the graph does not hold is in it too, as the
# *rest* of each site at each position.

# %%
bases = {"neurons": nvs.bases.mlp_neurons(model), "SAE": nvs.bases.sae(model)}
graphs = {name: nvs.trace(model, basis, pair) for name, basis in bases.items()}
graphs["neurons"]

# %%
graphs["neurons"].nodes.head(6)

# %% [markdown]
# ## It conserves
#
# What flows into a node, and its bias, is its value: the sums below are the metric to rounding. The bias is a sum over
# the model's and the dictionaries' constants, not what is left over, so this could fail. With `slope="gradient"` it does.

# %%
rows = []
for name, basis in bases.items():
    for slope in ("chord", "gradient"):
        graph = nvs.trace(model, basis, pair, slope=slope)
        of_units = graph.remainder[1:].abs() / graph.values[1:].abs()
        rows.append(
            {
                "basis": name,
                "slope": slope,
                "metric": float(graph.values[0]),
                "flows in": float(graph.edges.total[0]),
                "median remainder of a unit": float(of_units.median()),
            }
        )
pd.DataFrame(rows).round(4)

# %% [markdown]
# ## Is an edge what an intervention does?
#
# Silence a source on its direct paths alone, every other site held at its value, and see by how much the target falls.

# %%
figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
given = prompt.prompt_of(model, pair)
for axes, (name, basis) in zip(panels, bases.items(), strict=True):
    held = exact.sampled(model, basis, given, graphs[name], n=400)
    live = exact.sampled(model, basis, given, graphs[name], n=400, live=True)
    for sample, label in ((held, "norms and patterns held"), (live, "all live")):
        axes.scatter(sample.weight, sample.effect, s=6, label=f"{label}: rank correlation {sample.spearman:.2f}")
    axes.axline((0, 0), slope=1, color="grey", linewidth=0.5)
    axes.set(title=name, xlabel="edge", ylabel="what the target loses", xscale="symlog", yscale="symlog")
    axes.legend(fontsize=7)

# %% [markdown]
# ## How much does each graph hold?
#
# With all units as nodes a lossless basis scores 1 by construction. So units that a graph leaves out count as error, and
# the score is a function of how many it holds. Beside it stands the faithfulness of the same units in the model itself.

# %%
sizes, rows = (3, 10, 30, 100, 300), []
for name, basis in bases.items():
    graph = graphs[name]
    curve = nvs.evaluate(
        model, basis, circuits.as_scores(basis, graph), pair, sizes=sizes, ablation="counterfactual", errors="ablate"
    )
    faithful = dict(zip(curve.sizes, curve.faithfulness.tolist(), strict=True))
    for k in sizes:
        scores = graph.at(min(k, len(graph))).scores()
        rows.append(
            {
                "basis": name,
                "units": k,
                "replacement": scores.replacement,
                "completeness": scores.completeness,
                "faithfulness": faithful.get(k, np.nan),
            }
        )
pd.DataFrame(rows).set_index(["basis", "units"]).round(2)

# %% [markdown]
# A graph may score far above what its units restore: the score follows absolute flows through frozen patterns, and counts
# nothing twice that the model then needs together.

# %% [markdown]
# ## What depends on where it is pruned?

# %%
pd.concat({name: ensemble.ensemble(graph).counts(graph).set_index("what") for name, graph in graphs.items()})

# %% [markdown]
# ## Edges, patched
#
# Keep the edges of largest effect and let every other one carry what the corrupt prompt would send: how many edges
# restore the metric, in the frozen model?

# %%
for name, graph in graphs.items():
    assert graph.reference is not None
    effects = circuits.effects(graph).abs()
    order = effects.flatten().argsort(descending=True)
    none, whole = float(graph.reference.total[0]), float(graph.values[0])
    counts, restored = [1, 10, 100, 1000, 10000], []
    for n in counts:
        kept = torch.zeros(effects.numel(), dtype=torch.bool)
        kept[order[:n]] = True
        restored.append((float(circuits.edge_patching(graph, kept.view_as(effects))[0]) - none) / (whole - none))
    plt.semilogx(counts, restored, marker="o", label=name)
plt.axhline(1, color="grey", linewidth=0.5)
plt.xlabel("edges kept")
plt.ylabel("share of the metric restored")
plt.legend()
# %% [markdown]
# ## In the viewers that people use
#
# The page (`graph.html`) is made by `nvs trace --task world:two_hop --index 0`; the same graph in the format of
# circuit-tracer's and Neuronpedia's pages:

# %%
document = viewer_graph(graphs["SAE"], graphs["SAE"].prune(), "two-hop-0")
with TemporaryDirectory() as folder:
    nvs.save_graph(graphs["SAE"], Path(folder))
    again = nvs.load_graph(Path(folder))
print(
    len(document["nodes"]),
    "nodes,",
    len(document["links"]),
    "links; read again:",
    torch.equal(again.A, graphs["SAE"].A),
)

# %% [markdown]
# ## What would be wrong to conclude
#
# - *"The model computes this graph."* Patterns are constant: why a head attends where it does is in no edge.
# - *"This unit causes that one."* A chord says where a value came from. What a change would do is the scatter above.
# - *"This basis is better, its graph scores higher."* One prompt, one size. `nvs trace --index 0-39` compares areas over
#   sizes and prompts, with intervals; the order turns around between tasks.
# - *"These supernodes are concepts."* Compare them with random groups of the same sizes first (`--supernodes`).
