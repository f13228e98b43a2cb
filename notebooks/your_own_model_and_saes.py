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
# # Your own model and SAEs
#
# Everything that a study needs from outside: a checkpoint folder, SAE folders, a file of pairs. To keep this
# self-contained we make all three here, in miniature: a Llama of two layers trained for some seconds on sentences of
# eight words, and one SAE per layer trained with sae-lens. If you have yours, start at *The study*.

# %%
import json
import random
import shutil
from pathlib import Path

import pandas as pd
import torch
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.saes.sae import SAEMetadata, TrainStepInput
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import neuron_vs_sae as nvs

own = Path("own")
shutil.rmtree(own, ignore_errors=True)
torch.manual_seed(0)
draw = random.Random(0)

# %% [markdown]
# ## A checkpoint
#
# Any folder that `transformers` can load will do: `config.json`, `model.safetensors`, a tokenizer. Ours has read
# sentences in which a pronoun follows a name.

# %%
girls, boys = "anna ella maya rosa tara".split(), "adam carl john luis paul".split()
saw, animals, slept = "saw met heard found".split(), "dog cat fox hen".split(), "smiled slept left sang".split()


def sentence(name: str, verb: str, animal: str) -> str:
    return f"{name} {verb} the {animal} because {'she' if name in girls else 'he'} {draw.choice(slept)}"


words = ["<unk>", "<s>", *girls, *boys, *saw, *animals, *slept, "the", "because", "she", "he"]
of_words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
of_words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=of_words, bos_token="<s>", unk_token="<unk>")
checkpoint = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=16, bos_token_id=1, eos_token_id=1,
    )
)  # fmt: skip
optimiser = torch.optim.Adam(checkpoint.parameters(), lr=3e-3)
for _step in range(300):
    texts = ["<s> " + sentence(draw.choice(girls + boys), draw.choice(saw), draw.choice(animals)) for _ in range(64)]
    batch = tokenizer(texts, return_tensors="pt").input_ids
    loss = checkpoint(batch, labels=batch).loss
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
checkpoint.save_pretrained(own / "pronouns")
tokenizer.save_pretrained(own / "pronouns")
sorted(file.name for file in (own / "pronouns").iterdir())

# %% [markdown]
# ## SAEs
#
# In sae-lens' own format, one folder each; they say themselves which hook of which model they were trained on, and that
# is checked. Note that they are trained on what *this package's* model computes: transformer-lens can fold norms and
# centre weights, which moves every coordinate of the residual stream.

# %%
model = nvs.load_model(str(own / "pronouns"))
texts = [sentence(name, verb, animal) for name in girls + boys for verb in saw for animal in animals]
tokens = tokenizer(["<s> " + text for text in texts], return_tensors="pt").input_ids
hooks = [f"blocks.{layer}.hook_mlp_out" for layer in range(2)]
with torch.no_grad():
    _, cache = model.run_with_cache(tokens, prepend_bos=False, names_filter=hooks)
for hook in hooks:
    x = cache[hook][:, 1:].flatten(0, 1)
    trained = TopKTrainingSAE(
        TopKTrainingSAEConfig(
            d_in=32, d_sae=128, k=6, metadata=SAEMetadata(model_name="pronouns", hook_name=hook, prepend_bos=True)
        )
    )
    adam = torch.optim.Adam(trained.parameters(), lr=3e-3)
    for step in range(400):
        some = x[torch.randint(len(x), (256,))]
        out = trained.training_forward_pass(TrainStepInput(some, {}, None, step, False))
        adam.zero_grad()
        out.loss.backward()
        adam.step()
    trained.save_inference_model(own / "saes" / hook)
sorted(str(file.relative_to(own)) for file in (own / "saes").rglob("*.*") if file.is_file())

# %% [markdown]
# ## A task
#
# One JSON object per line. Answers carry their leading space where the tokenizer wants one. Every other key is a tag,
# which statistics and splits may use. Clean and corrupt prompt must have equally many tokens.

# %%
rows = [
    {"clean": f"{girl} {verb} the {animal} because", "corrupt": f"{boy} {verb} the {animal} because", "answer": " she", "foil": " he", "name": girl}
    for girl, boy in zip(girls, boys, strict=True) for verb in saw for animal in animals
]  # fmt: skip
rows += [
    {"clean": r["corrupt"], "corrupt": r["clean"], "answer": r["foil"], "foil": r["answer"], "name": r["name"]}
    for r in rows
]
(own / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
pd.DataFrame(rows).sample(3, random_state=0)

# %% [markdown]
# ## The study
#
# `nvs check` loads everything, looks at what commonly goes wrong, and says what the study would cost. It runs nothing
# else. `--split-by name` keeps all prompts with one name on one side, so that circuits are judged on names that they
# were not found on.

# %%
# !nvs check --model own/pronouns --task own/pairs.jsonl --examples 90 --eval-examples 40 --split-by name --basis mlp_neurons --basis mlp_outputs --basis sae:own/saes

# %% [markdown]
# Right on both prompts, one BOS, and an explained variance of each SAE *on these prompts*: read it before any circuit.
# What is wrong is refused, with what to do about it. Three mistakes that would give numbers elsewhere:

# %%
two_tokens = {**rows[0], "answer": " she slept"}
(own / "two_tokens.jsonl").write_text(json.dumps(two_tokens) + "\n")
mistakes = [
    {"model": "own/pronouns", "task": "own/pairs.jsonl", "basis": "mlp_neurons", "examples": 120, "split_by": "name"},
    {"model": "own/pronouns", "task": "own/two_tokens.jsonl", "basis": "mlp_neurons"},
    {"model": "default", "task": "world:agreement_nounpp", "basis": "sae:own/saes"},
]
for settings in mistakes:
    try:
        nvs.check(nvs.Study(**settings))
    except nvs.InputError as error:
        print(f"{error}\n")

# %% [markdown]
# ... and run it. The same from Python or from the command line; a study that is in its folder already is loaded, not
# run again.

# %%
study = nvs.Study(
    model="own/pronouns",
    task="own/pairs.jsonl",
    examples=90,
    eval_examples=40,
    split_by="name",
    basis=["mlp_neurons", "mlp_outputs", "sae:own/saes", "rotation"],
    method=["relp", "random"],
)
found = nvs.compare(study, own / "results")
nvs.tables.per_curve(found)[
    ["basis", "method", "n_total", "n_scored", "size_at_level", "error_nodes_at_level", "area_faithfulness"]
].round(2)

# %% [markdown]
# `size_at_level` is the number of nodes at which faithfulness first reaches 0.8, between two sizes that were run. Each
# area is over the curve's own nodes with a score: to compare two bases, read `verdicts.csv`. The folder holds everything, and what made it:

# %%
record = found.record
print(sorted(file.name for file in found.folder.iterdir() if not file.name.startswith(".")))
print(json.dumps({name: facts["explained_variance"] for name, facts in found.bases.items()}, indent=1))

# %% [markdown]
# ## What would be wrong to conclude
#
# Nothing follows about neurons and SAE features in general from a model of 40 words. What carries over is the
# procedure: check first, hold out what the pairs share, look at explained variance on the task's own prompts, and keep
# the controls (`rotation`, `random`) in the study. For real models: `--model` takes a Hugging Face name, `--basis
# sae:RELEASE[/ID]` any release of sae-lens' registry (`nvs list saes --model NAME`).
