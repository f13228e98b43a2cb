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
# # Steer and patch
#
# A circuit names units; here they are *changed*. How many must take a donor's values for the answer to flip? Does swapping the units of an intermediate step (the state
# that contains a city) move the answer with it? What does a dose cost elsewhere? The same calls in MLP neurons and in SAE features.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import pandas as pd
import torch

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.interventions.handles import first_units
from neuron_vs_sae.catalog.corpora import corpus

torch.set_grad_enabled(False)
model = nvs.load_model("default")
discover = nvs.tasks.world(model, source="two_hop", n=200)
held_out = nvs.tasks.world(model, source="two_hop", part="evaluation", n=8)
bases = {"MLP neurons": nvs.bases.mlp_neurons(model), "SAE features": nvs.bases.sae(model)}
held_out

# %% [markdown]
# ## How many units flip the answer?
#
# Each prompt's units are ranked by (value less donor's value) times gradient; the first k take the donor's values. `random` moves the same amounts in other units.

# %%
patched = {
    name: nvs.patch(
        model, basis, held_out, k=(1, 5, 10, 20, 50, 100), control=("random", "negated"), options=nvs.Patching(trials=2)
    ).values
    for name, basis in bases.items()
}
rows = pd.concat(patched, names=["basis"]).reset_index(level=0)
rows["effect"] = rows["before"] - rows["after"]
rows.groupby(["basis", "control", "k"])[["predicted", "effect", "flipped", "norm"]].mean().round(2)

# %%
figure, ax = plt.subplots(figsize=(5.5, 3), layout="constrained")
for (name, values), colour in zip(patched.items(), ("#0072B2", "#D55E00"), strict=True):
    for control, style in (("", "-"), ("random", "--")):
        share = values.loc[values["control"] == control].groupby("k")["flipped"].mean()
        ax.plot(share.index, share, style, color=colour, label=name if not control else None)
ax.set(
    xscale="log",
    xlabel="units at the donor's values",
    ylabel="share flipped",
    title="dashed: as much moved in random units",
)
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# The gradient foretells the order of the effects and too little of their size. As much moved in random units flips nothing: it is these units. It would be wrong to conclude that a
# prompt's twenty units are *the* circuit: they were ranked on the prompt that they are judged on.
#
# ## Swap the state
#
# Units of each state are found on prompts about other cities, and swapped in questions about cities that no text asks this of.

# %%
swapped = {
    name: nvs.swap(model, basis, discover, held_out, latent="state", k=(5, 50), ways=("answer", "auroc")).values
    for name, basis in bases.items()
}
table = pd.concat(swapped, names=["basis"]).reset_index(level=0)
shown = ["swap", "transfer", "equal_value", "suppress", "random", "permuted", "negated"]
table.loc[table["swap"].isin(shown)].pivot_table(index=["basis", "way", "k"], columns="swap", values="hit")[
    shown
].round(2)

# %%
table.loc[table["swap"] == "suppress"].pivot_table(index=["basis", "way"], columns="k", values="kept").round(2)

# %% [markdown]
# Fifty units of each state carry half of the answers over to the donor's capital in neurons, and most of them in SAE features; no control does. But nearly all prompts keep
# their answer when their state's units are taken to their mean: the units suffice, and are not needed. "The model uses these units for the state" is not shown by a swap,
# and eight prompts do not compare bases.
#
# ## Dose and side effect
#
# A set of units goes one way, so the pairs do: singular nouns, steered towards the plural verb. Neutral text is steered at every token.

# %%
agreement = nvs.tasks.world(model, source="agreement_nounpp", n=100)
verbs = nvs.tasks.world(model, source="agreement_nounpp", part="evaluation", n=40)


def singular(pairs: nvs.PromptPairs) -> nvs.PromptPairs:
    return pairs.take([i for i, tags in enumerate(pairs.tags) if tags["case"].startswith("singular")])


text = corpus(model, "world", length=64, contexts=10)
rows = []
for name, basis in bases.items():
    handle = first_units(model, basis, singular(agreement), 10)
    doses = nvs.steer(
        model, basis, handle, singular(verbs), doses=(0, 0.2, 0.4, 0.8), guard=text, options=nvs.Steering(at="all")
    )
    for d, dose in enumerate(doses.doses):
        rows.append({
            "basis": name, "dose (relative norm)": dose, "change of the metric": doses.effect[d].mean().item(),
            "flipped": doses.foil_wins[d].mean().item(), "KL on neutral text": doses.side[d].kl.mean().item(),
            "rise of cross-entropy": doses.side[d].cross_entropy.mean().item(),
        })  # fmt: skip
pd.DataFrame(rows).set_index(["basis", "dose (relative norm)"]).round(3)

# %% [markdown]
# Doses are relative norms, the same in both bases; at dose 0 everything is exactly 0. It would be wrong to conclude from one set of ten units, chosen by one ranking, which basis *steers*
# better: `nvs steer` gives frontiers with intervals and a verdict. And no table here can show that a unit means something.
