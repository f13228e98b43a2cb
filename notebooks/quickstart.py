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
# # Quickstart
#
# Are raw MLP neurons as sparse, faithful and complete a basis for circuits as SAE features are? This notebook asks it
# of one behaviour of one small model, from the model to a verdict one may defend, in a minute on a laptop.
#
# What to watch for: the loop below changes **one thing**, the basis. Prompts, attribution, ablation and score are the
# same.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import neuron_vs_sae as nvs

torch.set_grad_enabled(False)
model = nvs.load_model("default")
print(f"{model.cfg.n_layers} layers, width {model.cfg.d_model}, {model.cfg.d_mlp} neurons per layer")

# %% [markdown]
# ## The behaviour
#
# A task is a set of minimal pairs: the same sentence with one thing changed, such that the right next word changes too.
# Here a verb agrees with a noun across another noun, which has the other number in half of the pairs. We discover on
# one set of pairs and judge on another that shares no prompt, no noun and no verb with it.

# %%
discover = nvs.tasks.world(model, source="agreement_nounpp", n=100)
held_out = nvs.tasks.world(model, source="agreement_nounpp", part="evaluation", n=40)
pd.DataFrame(
    {
        "clean": held_out.clean_text,
        "answer": held_out.answer_text,
        "corrupt": held_out.corrupt_text,
        "foil": held_out.foil_text,
    }
).head(4)

# %% [markdown]
# ## One loop, two bases
#
# `scores` says for every node (a unit at a position) how much the metric, `logit[answer] - logit[foil]`, would fall if
# it alone were set to its corrupt value; positive means that it helps. `evaluate` keeps the best 1, 2, 5, 10, ... nodes
# and writes the mean of the corrupt prompts everywhere else at these sites.

# %%
bases = {"mlp_neurons": nvs.bases.mlp_neurons(model), "sae": nvs.bases.sae(model)}
curves = {}
for name, basis in bases.items():
    scores = nvs.attribution.relp(model, basis, discover)
    curves[name] = nvs.evaluate(model, basis, scores, held_out)


def table(curve: nvs.Curve) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "faithfulness": curve.faithfulness,
            "completeness": curve.completeness,
            "error nodes": curve.n_error_nodes,
        },
        index=pd.Index(curve.sizes, name="nodes"),
    ).round(3)


pd.concat({name: table(curve) for name, curve in curves.items()}, axis=1, join="inner").loc[:500]

# %% [markdown]
# Faithfulness 1 is the model's behaviour and 0 that of a model with everything at these sites ablated. Completeness is
# the same score for what is left when the circuit is *removed*: **0 is complete, lower is better**.

# %%
from neuron_vs_sae.statistics.estimates import intervals

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharex=True, layout="constrained")
for (name, curve), colour in zip(curves.items(), ("#0072B2", "#D55E00"), strict=True):
    for ax, score, interval in zip(axes, ("faithfulness", "completeness"), intervals(curve), strict=True):
        ax.plot(curve.sizes, getattr(curve, score), "o-", color=colour, markersize=3, label=name)
        ax.fill_between(curve.sizes, interval.low, interval.high, color=colour, alpha=0.2, linewidth=0)
        ax.set(xscale="symlog", xlabel="nodes in the circuit", title=score)
axes[0].legend(frameon=False)
plt.show()

# %% [markdown]
# The bands are 95 % intervals over the 40 prompts, point by point. They do not contain what another choice of discovery
# prompts would have given, and none of the choices that were not varied.
#
# ## How many nodes does it take?


# %%
def at_80(curve: nvs.Curve) -> dict[str, float]:
    k = curve.size_at(faithfulness=0.8)
    if k is None:
        return {"nodes for 80 %": float("nan")}
    return {
        "nodes for 80 %": round(k, 1),
        "... of them error nodes": np.interp(k, curve.sizes, curve.n_error_nodes).round(1),
        "... in bits": round(nvs.bits(curve.n_total, k)),
    }


common = min(curve.n_scored for curve in curves.values())
pd.DataFrame(
    {
        name: {
            "nodes there are": curve.n_total,
            "nodes with a score": curve.n_scored,
            **at_80(curve),
            f"area up to {common} nodes": round(curve.area("faithfulness", up_to=common), 3),
        }
        for name, curve in curves.items()
    }
).T.convert_dtypes()

# %% [markdown]
# Circuits of 1, 2, 5, 10, ... nodes were run. The size for 80 % lies between two of them: faithfulness is taken to be
# linear in the logarithm of the size from the last that does not reach 80 % to the first that does, so it need not be
# whole. Nodes with a score of 0 are in no circuit, so a curve ends at its last node with a score, and areas are compared
# up to the end of the shorter curve.
#
# ## What any basis gets, and what no ranking gets
#
# A number for neurons and SAE features alone cannot be read. Three controls: a random rotation of the same site (what
# does *any* orthonormal basis there give?), an untrained SAE of the same width and sparsity, and a random order of the
# neurons.

# %%
controls = {
    "rotation": nvs.bases.rotation(model),
    "random_sae": nvs.bases.random_sae(model, prompts=discover),
}
found = {name: curve.size_at(faithfulness=0.8) for name, curve in curves.items()}
for name, basis in controls.items():
    curve = nvs.evaluate(model, basis, nvs.attribution.relp(model, basis, discover), held_out)
    found[name] = curve.size_at(faithfulness=0.8)
neurons = bases["mlp_neurons"]
chance = nvs.evaluate(model, neurons, nvs.attribution.random(model, neurons, discover), held_out)
found["mlp_neurons, random order"] = chance.size_at(faithfulness=0.8)
pd.Series(found, name="nodes for 80 %").round(1).to_frame()

# %% [markdown]
# `NaN` is *not reached*: all nodes of the untrained SAE that have a score, together, restore less than 80 %. A random
# order needs most of the neurons.

# %% [markdown]
# ## What would be wrong to conclude
#
# - *"Neurons are better than SAE features."* This is one behaviour of one model with one SAE per layer. The model was
#   trained on a small written world; it is a test bed with a ground truth, not a sample of language models.
# - *"The circuit is these fifty neurons."* Other rankings find other circuits of the same faithfulness. See
#   `one_circuit_by_hand` for what single units do, and `reading_the_evidence` for which choices change the answer.
# - *"Half as many nodes is twice as simple."* A node of a wide dictionary says more than one of a narrow one; hence
#   bits.
#
# The whole study, six tasks by six bases by four methods with verdicts, tables and figures, is one command: `nvs
# compare`. For models and SAEs of your own, see `your_own_model_and_saes`.
