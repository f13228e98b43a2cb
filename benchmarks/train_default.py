"""Train the embedded default's models on its small world: `--architecture llama` and its twin `--architecture gpt2`.

Resumes from its checkpoint when run again with the same `--out`; `log.jsonl` there holds the curve, `model` the finished
Hugging Face folder in float16. Every step draws its text from the seed and the step's number, so an interrupted run
reads what an uninterrupted one would have read. `--smoke` trains a few steps in seconds and fails unless the loss falls.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from measure_default import bar, measured_tasks, two_hop_held_out
from torch import Tensor
from torch.nn.functional import cross_entropy

from neuron_vs_sae.default import tokenizer
from neuron_vs_sae.default.contexts import LENGTH, contexts


@dataclass(frozen=True)
class Training:
    """Every choice that changes the weights."""

    architecture: str
    seed: int = 0
    steps: int = 1600
    tokens_per_step: int = 4096
    muon_rate: float = 0.02  # of the matrices between the embeddings
    adam_rate: float = 0.004  # of embeddings, biases and norms
    weight_decay: float = 0.1
    warmup: int = 100
    decay_from: float = 0.3  # share of the steps after which the rates fall linearly to nothing
    other_weight: float = 0.2  # of a token that the words before do not determine, in the loss


def untrained(architecture: str, seed: int) -> Any:
    """The model with random weights: 4 layers, width 128, MLP 512, 4 heads, embedding and unembedding shared."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    words = tokenizer.vocabulary()
    bos, eos, pad = (words.index(x) for x in (tokenizer.BOS, tokenizer.EOS, tokenizer.PAD))
    shared: dict[str, Any] = {"vocab_size": len(words), "bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
    if architecture == "llama":
        return LlamaForCausalLM(
            LlamaConfig(
                hidden_size=128,
                intermediate_size=512,
                num_hidden_layers=4,
                num_attention_heads=4,
                num_key_value_heads=4,
                max_position_embeddings=LENGTH,
                tie_word_embeddings=True,
                **shared,
            )
        )
    return GPT2LMHeadModel(
        GPT2Config(
            n_embd=128,
            n_inner=512,
            n_layer=4,
            n_head=4,
            n_positions=LENGTH,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            tie_word_embeddings=True,
            **shared,
        )
    )


def loss_of(
    model: Any, tokens: Int[Tensor, "batch pos"], answers: Float[Tensor, "batch pos"], other_weight: float
) -> Float[Tensor, ""]:
    """Weighted mean of the next-token loss, in nats: answers count 1, other tokens `other_weight`, padding nothing.

    Products are in bfloat16, which is 1.8 times as fast on CPUs that have it, weights and sums in float32.
    """
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens[:, :-1]).logits.float()
    weight = torch.where(answers > 0, 1.0, other_weight) * (tokens != tokenizer.ids()[tokenizer.PAD])
    weight = weight[:, 1:].flatten()
    losses = cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return (losses * weight).sum() / weight.sum()


@torch.no_grad()
def last_logits(model: Any, prompts: list[str]) -> Float[Tensor, "batch vocab"]:
    """Logits after each prompt, float32."""
    batch = _tokenizer()(prompts, padding=True, return_tensors="pt")
    ends = batch.attention_mask.sum(1) - 1
    model.eval()
    found = [
        model(ids, attention_mask=mask).logits[torch.arange(len(ids)), end]
        for ids, mask, end in zip(*(x.split(64) for x in (batch.input_ids, batch.attention_mask, ends)), strict=True)
    ]
    model.train()
    return torch.cat(found).float()


@cache
def _tokenizer() -> Any:
    return tokenizer.tokenizer()


# --------------------------------------------------------------------------------------------------- training


def optimizers(model: Any, training: Training) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for what else there is."""
    blocks = {p for n, p in model.named_parameters() if p.ndim == 2 and (".layers." in n or ".h." in n)}
    rest = [p for p in model.parameters() if p not in blocks]
    decayed, others = [p for p in rest if p.ndim == 2], [p for p in rest if p.ndim < 2]
    matrices = [p for p in model.parameters() if p in blocks]
    return [
        torch.optim.Muon(matrices, lr=training.muon_rate, weight_decay=training.weight_decay),
        torch.optim.AdamW(
            [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
            lr=training.adam_rate,
            betas=(0.9, 0.98),
            weight_decay=training.weight_decay,
        ),
    ]


def rate(training: Training, step: int) -> float:
    """The share of the learning rates at `step`: a rise, a plateau, a straight fall to nothing."""
    rise = (step + 1) / training.warmup
    fall = (training.steps - step) / (training.steps * (1 - training.decay_from))
    return min(1.0, rise, fall)


def train(training: Training, out: Path, every: int) -> Iterator[dict[str, Any]]:
    """Train, or go on from `out/checkpoint.pt`; yields the loss every 50 steps, and every `every` the evaluation too."""
    model = untrained(training.architecture, training.seed)
    # In bfloat16 the fused attention's backward pass is slow on CPUs; at these lengths the plain one costs little.
    model.set_attn_implementation("eager")
    opts = optimizers(model, training)
    start, seconds = 0, 0.0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        if saved["training"] != json.dumps(asdict(training)):
            raise SystemExit(f"{checkpoint} was made by {saved['training']}; give another --out or the same options")
        model.load_state_dict(saved["model"])
        for opt, state in zip(opts, saved["optimizers"], strict=True):
            opt.load_state_dict(state)
        start, seconds = saved["step"], saved["seconds"]
    began, losses = time.process_time(), []
    for step in range(start, training.steps):
        for opt, full in zip(opts, (training.muon_rate, training.adam_rate), strict=True):
            for group in opt.param_groups:
                group["lr"] = full * rate(training, step)
        tokens, answers = contexts(f"{training.seed} {step}", training.tokens_per_step // LENGTH)
        loss = loss_of(model, tokens, answers, training.other_weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad()
        losses.append(loss.item())
        done = step + 1
        spent = seconds + time.process_time() - began
        if done % 50 == 0 or done == training.steps:
            entry: dict[str, Any] = {"step": done, "loss": sum(losses) / len(losses), "cpu_seconds": round(spent, 1)}
            losses = []
            if done % every == 0 or done == training.steps:
                ask = partial(last_logits, model)
                entry["tasks"] = {f: v["both"] for f, v in measured_tasks(ask, n=200).items()}
                entry["two_hop_held_out"] = two_hop_held_out(ask)["all"]
                saved = {
                    "training": json.dumps(asdict(training)),
                    "model": model.state_dict(),
                    "optimizers": [opt.state_dict() for opt in opts],
                    "step": done,
                    "seconds": spent,
                }
                torch.save(saved, checkpoint.with_suffix(".new"))
                checkpoint.with_suffix(".new").replace(checkpoint)
            yield entry
    save(model, out / "model")
    lines = (out / "log.jsonl").read_text(encoding="utf-8").splitlines()
    shown = ("step", "loss", "cpu_seconds", "two_hop_held_out")
    curve = [{key: one[key] for key in shown if key in one} for one in map(json.loads, lines)]
    about = {**curve[-1], "curve": curve}
    (out / "model" / "training.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def save(model: Any, folder: Path) -> None:
    """A Hugging Face folder: float16 safetensors, configuration and tokenizer."""
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.tokenizer().save_pretrained(folder)


def summary(entry: dict[str, Any]) -> str:
    """One line: the loss, held-out two-hop questions, and what is below its bar, if anything."""
    text = f"step {entry['step']} loss {entry['loss']:.4f} {entry['cpu_seconds']:.0f}s"
    if "tasks" in entry:
        low = {family: round(share, 3) for family, share in entry["tasks"].items() if share < bar(family)}
        text += f" two-hop {entry['two_hop_held_out']:.3f} below: {low}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--architecture", choices=("llama", "gpt2"), default="llama")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--every", type=int, default=200, help="steps between evaluations and checkpoints")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=NUMBER", help="other fields of Training")
    parser.add_argument("--smoke", action="store_true", help="a few steps; fails unless the loss falls")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {name: json.loads(value) for name, _, value in (item.partition("=") for item in args.set)}
    training = Training(args.architecture, args.seed, 60 if args.smoke else args.steps, **options)
    entries = []
    with (args.out / "log.jsonl").open("a", encoding="utf-8") as log:
        for entry in train(training, args.out, 10**9 if args.smoke else args.every):
            log.write(json.dumps(entry) + "\n")
            log.flush()
            print(summary(entry), flush=True)
            entries.append(entry)
    if args.smoke and entries and not entries[-1]["loss"] < entries[0]["loss"]:
        sys.exit(f"the loss did not fall: {entries[0]['loss']:.3f} to {entries[-1]['loss']:.3f}")


if __name__ == "__main__":
    main()
