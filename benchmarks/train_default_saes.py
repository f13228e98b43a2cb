"""Train every dictionary of a default model with sae-lens' classes: `--model default --out FOLDER`.

The activations of all sites are computed once and kept in memory; every dictionary trains from them. A dictionary that is
finished is skipped when this is run again; `FOLDER.jsonl` holds the curves. The models and their dictionaries are 25 MB at
most, so the twin's are 4x wide but for `main`'s MLP outputs and the transcoders. `--smoke` trains a tiny dictionary of
each kind, on a model with random weights, and fails unless its loss falls.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import torch
import train_default
from jaxtyping import Float
from measure_dictionaries import load, packed, single_sentences, training_sentences
from sae_lens import GatedTrainingSAE, GatedTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.saes.sae import SAEMetadata, TrainStepInput, TrainStepOutput
from sae_lens.saes.transcoder import JumpReLUTranscoderConfig
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file, save_file
from torch import Tensor

from neuron_vs_sae import default
from neuron_vs_sae.default.contexts import LENGTH
from neuron_vs_sae.models.loading import load_model

_LAYERS = range(4)
_ARCHITECTURES_AT = "blocks.1.hook_mlp_out"
_EVERY = 50  # steps between entries of the log
_TWIN_SEED = 1  # of the model with random weights
_SEEDS = 4
_CHECKED = 250_000  # tokens on which a dictionary is looked at before it is kept


@dataclass(frozen=True)
class Plan:
    """Every choice that changes the weights of one dictionary. `options` are fields of sae-lens' configuration.

    With `target_l0` the weight of the sparsity loss is steered so that about as many units are active per token.
    """

    folder: str
    kind: str
    reads: str
    writes: str
    width: int
    options: dict[str, Any] = field(default_factory=dict)
    target_l0: float | None = None
    steps: int = 500
    batch: int = 1024
    rate: float = 2e-3
    seed: int = 0


# -------------------------------------------------------------------------------------------------------- what to train


def plans(model: str) -> list[Plan]:
    """The dictionaries of `default` (8x wide, and each architecture at one site 4x wide) or of its twin `default-gpt2`
    (`main`'s MLP outputs and the transcoders 8x wide, the others 4x)."""
    llama = model == "default"
    wide, narrow = 1024, 512
    other = wide if llama else narrow
    # With 500 steps these explained too little, or what they missed cost too much of the loss.
    long = {"main": 3, "sparser": 3, "transcoder": 0} if llama else {}

    def steps(folder: str, layer: int) -> int:
        return 1500 if long.get(folder) == layer else 500

    found = []
    for hook, width, l0 in (("mlp_out", wide, 22.0), ("resid_post", other, 22.0), ("attn_out", other, 22.0)):
        for layer in _LAYERS:
            at = f"blocks.{layer}.hook_{hook}"
            n = steps("main", layer) if hook != "attn_out" else 500
            found.append(Plan(f"main/{at}", "gated", at, at, width, target_l0=l0, steps=n))
    for layer in _LAYERS:
        at, reads = f"blocks.{layer}.hook_mlp_out", f"blocks.{layer}.ln2.hook_normalized"
        n = steps("transcoder", layer)
        found.append(Plan(f"transcoder/{at}", "transcoder", reads, at, wide, {"d_out": 128}, 22.5, n))
        found.append(Plan(f"sparser/{at}", "gated", at, at, other, target_l0=14.0, steps=steps("sparser", layer)))
    if llama:
        at = _ARCHITECTURES_AT
        found += [
            Plan(f"architectures/{kind}", kind, at, at, narrow, options, target_l0)
            for kind, (options, target_l0) in _ARCHITECTURES.items()
        ]
    return found


_JUMPRELU = {
    "jumprelu_sparsity_loss_mode": "quadratic",
    "target_l0": 16.0,
    "l0_coefficient": 0.1,
    "jumprelu_init_threshold": 0.2,
    "jumprelu_bandwidth": 0.5,
}
_ARCHITECTURES: dict[str, tuple[dict[str, Any], float | None]] = {
    "topk": ({"k": 18}, None),
    "batchtopk": ({"k": 18.0}, None),
    "jumprelu": (_JUMPRELU, None),
    "standard": ({}, 20.0),
    "gated": ({}, 20.0),
    "matryoshka": ({"k": 18.0, "matryoshka_widths": [32, 128, 512]}, None),
    "random_decoder": ({"k": 18.0, "decoder_init_norm": 1.0}, None),
    "random_model": ({}, 20.0),
}
# What sae-lens calls these; the other kinds have its names.
_TRAINED_AS = {"matryoshka": "matryoshka_batchtopk", "random_decoder": "batchtopk", "random_model": "gated"}


# -------------------------------------------------------------------------------------------------------- a transcoder


@dataclass(kw_only=True)
class TranscoderTrainingConfig(GatedTrainingSAEConfig):
    """A gated transcoder, which sae-lens has no class to train; saved as a JumpReLU transcoder, which it can load."""

    d_out: int
    apply_b_dec_to_input: bool = False

    def get_inference_config_class(self) -> Any:
        return JumpReLUTranscoderConfig


class TranscoderTraining(GatedTrainingSAE):
    """Trained on what is read and what should be written side by side, both `d_in` wide."""

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        self.read, written = step_input.sae_in.chunk(2, dim=-1)
        return super().training_forward_pass(replace(step_input, sae_in=written))

    def encode_with_hidden_pre(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of what is read: sae-lens' training step offers what should be written, which its loss is to compare with."""
        return super().encode_with_hidden_pre(self.read)

    def calculate_aux_loss(
        self, step_input: TrainStepInput, feature_acts: Tensor, hidden_pre: Tensor, sae_out: Tensor
    ) -> dict[str, Tensor]:
        """As of a gated SAE, with the gates of what is read."""
        gates = torch.relu(self.read @ self.W_enc + self.b_gate)
        missing = step_input.sae_in - gates @ self.W_dec - self.b_dec
        return {
            "l1_loss": step_input.coefficients["l1"] * (gates * self.W_dec.norm(dim=1)).sum(-1).mean(),
            "auxiliary_reconstruction_loss": missing.square().sum(-1).mean(),
        }

    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        """A gate and a magnitude that share their direction are a JumpReLU (Rajamanoharan et al. 2024)."""
        gain, b_mag = state_dict.pop("r_mag").exp(), state_dict.pop("b_mag")
        state_dict["W_enc"] = state_dict["W_enc"] * gain
        state_dict["b_enc"] = b_mag
        state_dict["threshold"] = b_mag - gain * state_dict.pop("b_gate")


# --------------------------------------------------------------------------------------------------------- activations

Activations = Mapping[str, Float[Tensor, "tokens d"]]


@torch.no_grad()
def activations(model: Any, hooks: set[str], n_tokens: int, seed: int = 0) -> Activations:
    """What the hooks hold at `n_tokens` training tokens, in float16: half packed contexts, half single sentences.

    BOS, which gives the same vector everywhere, is there once per packed context.
    """
    single = training_sentences(f"dictionaries {seed} single")
    texts = packed(f"dictionaries {seed}", n_tokens // 2), single_sentences(single, n_tokens // 2)
    rows: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
    for text, with_bos in zip(texts, (True, False), strict=True):
        for batch in text.batches():
            wanted = batch.real.clone()
            wanted[:, 0] = with_bos
            _, cache = model.run_with_cache(batch.tokens, names_filter=lambda name: name in hooks, return_type=None)
            for hook in hooks:
                rows[hook].append(cache[hook][wanted].half())
    return {hook: torch.cat(rows.pop(hook)) for hook in sorted(hooks)}


def random_twin() -> Any:
    """The Llama-style model with other random weights, untrained."""
    with tempfile.TemporaryDirectory() as folder:
        twin = Path(folder) / "default"
        train_default.save(train_default.untrained("llama", _TWIN_SEED), twin)
        return load_model(twin)


def mean_norm(x: Float[Tensor, "tokens d"]) -> float:
    return float(x[:50_000].float().norm(dim=-1).mean())


# ------------------------------------------------------------------------------------------------------------ training


def train(plan: Plan, found: Activations, metadata: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yields a log entry and the dictionary every 50 steps; after the last, its weights are for unscaled activations."""
    torch.manual_seed(plan.seed)
    x, y = found[plan.reads], found[plan.writes]
    # A mean norm of the root of the width makes one learning rate right for every site.
    reads_scale, writes_scale = (z.shape[1] ** 0.5 / mean_norm(z) for z in (x, y))
    dictionary = _new(plan, x.shape[1], metadata)
    dictionary.b_dec.data = y[:50_000].float().mean(0) * writes_scale
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=plan.steps * plan.batch,
            train_batch_size_samples=plan.batch,
            lr=plan.rate,
            lr_end=plan.rate,
            lr_warm_up_steps=plan.steps // 20,
            lr_decay_steps=plan.steps // 2,
            autocast=True,
            dead_feature_window=20,
        ),
        dictionary,
        iter(()),
    )
    draw = torch.Generator().manual_seed(plan.seed)

    def sample(n: int) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(x), (n,), generator=draw)
        return x[rows].float() * reads_scale, y[rows].float() * writes_scale

    revivals = range(plan.steps // 10, 3 * plan.steps // 4 + 1, plan.steps // 20)
    revived = plan.kind != "random_decoder"  # whose directions are to stay
    if revived:
        revive(trainer, torch.arange(plan.width), *sample(8 * plan.width))
    began, sums = time.process_time(), {}
    for step in range(1, plan.steps + 1):
        read, written = sample(plan.batch)
        output = trainer.step(torch.cat([read, written], -1) if plan.kind == "transcoder" else written)
        trainer.n_training_steps = step
        if revived and step in revivals:
            revive(trainer, trainer.dead_neurons.nonzero()[:, 0], *sample(8 * plan.width))
        curves = _curves(output)
        if plan.target_l0:
            wanted = min(2.0, max(0.5, curves["l0"] / plan.target_l0))
            trainer.coefficient_schedulers["l1"].final_value *= wanted**0.03  # a little, since the units follow slowly
        for name, value in curves.items():
            sums[name] = sums.get(name, 0.0) + value
        if step % _EVERY == 0 or step == plan.steps:
            if step == plan.steps:
                _unscale(dictionary, reads_scale, writes_scale)
            entry = {name: round(value / ((step - 1) % _EVERY + 1), 5) for name, value in sums.items()}
            entry["dead"] = int(trainer.dead_neurons.sum())
            entry["seconds"] = round(time.process_time() - began, 1)
            yield {"folder": plan.folder, "step": step, **entry}, dictionary
            sums = {}


def _new(plan: Plan, d: int, metadata: dict[str, Any]) -> Any:
    make: Any
    config: Any
    if plan.kind == "transcoder":
        make, config = TranscoderTraining, TranscoderTrainingConfig
    else:
        make, config = get_sae_training_class(_TRAINED_AS.get(plan.kind, plan.kind))
    out = {"hook_name_out": plan.writes} if plan.kind == "transcoder" else {}
    frozen = {"frozen_decoder": True} if plan.kind == "random_decoder" else {}  # so that a study knows it for a control
    about = SAEMetadata(hook_name=plan.reads, **out, **frozen, context_size=LENGTH, prepend_bos=True, **metadata)
    dictionary = make(config(d_in=d, d_sae=plan.width, metadata=about, **plan.options))
    if frozen:
        dictionary.W_dec.requires_grad_(False)
    return dictionary


@torch.no_grad()
def revive(trainer: Any, dead: Tensor, x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> None:
    """Gives each of these units a token: it reads that token's direction and writes what is missing there.

    Tokens are drawn in proportion to their squared error (Bricken et al. 2023).
    """
    if not len(dead):
        return
    sae = trainer.sae
    sae.read = x
    missing = y - sae.decode(sae.encode(y)) if trainer.n_training_steps else y - sae.b_dec
    rows = torch.multinomial(missing.square().sum(-1), len(dead))
    centre = sae.b_dec if sae.cfg.apply_b_dec_to_input else x.mean(0)
    missing, towards = missing[rows], x[rows] - centre
    size, length = missing.norm(dim=-1, keepdim=True), towards.norm(dim=-1, keepdim=True)
    sae.W_dec[dead] = missing / size
    # Weak, since many units may have been given similar tokens.
    sae.W_enc.T[dead] = towards / length * (0.3 * size / length).clamp(max=0.3)
    bias = 0.0 if sae.cfg.apply_b_dec_to_input else -(centre @ sae.W_enc[:, dead])
    for name, start in {"b_enc": bias, "b_gate": bias, "b_mag": bias, "r_mag": 0.0}.items():
        if hasattr(sae, name):
            getattr(sae, name)[dead] = start
    for parameter, state in trainer.optimizer.state.items():
        if parameter is not sae.b_dec:
            for name in ("exp_avg", "exp_avg_sq"):
                (state[name].T if parameter is sae.W_enc else state[name])[dead] = 0.0
    trainer.n_forward_passes_since_fired[dead] = 0


@torch.no_grad()
def _curves(output: TrainStepOutput) -> dict[str, float]:
    y = output.sae_in
    error = (output.sae_out - y).square().sum() / (y - y.mean(0)).square().sum()
    active = (output.feature_acts != 0).sum() / len(y)
    return {"loss": output.loss.item(), "explained_variance": 1 - error.item(), "l0": active.item()}


@torch.no_grad()
def _unscale(dictionary: Any, reads_scale: float, writes_scale: float) -> None:
    """The scales of the activations that it was trained on, into its weights."""
    dictionary.fold_activation_norm_scaling_factor(writes_scale)
    if isinstance(dictionary, TranscoderTraining):
        dictionary.W_enc.data *= reads_scale / writes_scale


def save(dictionary: Any, folder: Path) -> None:
    """sae-lens' inference format, weights in float16; its configuration says float32, as which sae-lens then loads them."""
    new = folder.with_name(folder.name + ".new")
    weights, _ = dictionary.save_inference_model(new)
    save_file({name: w.half().contiguous() for name, w in load_file(weights).items()}, weights)
    new.replace(folder)


# --------------------------------------------------------------------------------------------------------------- a run


def run(todo: Sequence[Plan], model: Any, out: Path, n_tokens: int) -> None:
    """Train what is not there yet."""
    missing = [plan for plan in todo if not (out / plan.folder / "cfg.json").exists()]
    hooks = {hook for plan in missing for hook in (plan.reads, plan.writes)}
    found = activations(model, hooks, n_tokens) if missing else {}
    with out.with_suffix(".jsonl").open("a", encoding="utf-8") as log:
        for plan in missing:
            about: dict[str, Any] = {"model_name": model.cfg.model_name}
            given = found
            if plan.kind == "random_model":  # brought to the norm of the trained model, on which it is to be used
                given = activations(random_twin(), {plan.reads}, n_tokens)
                about["random_model_seed"] = _TWIN_SEED
                about["activation_scale"] = mean_norm(found[plan.reads]) / mean_norm(given[plan.reads])
                given = {plan.reads: given[plan.reads].float() * about["activation_scale"]}
            save(fit(plan, given, about, log), out / plan.folder)


def fit(plan: Plan, given: Activations, about: dict[str, Any], log: TextIO) -> Any:
    """The dictionary of the first seed that comes out well on the activations it was trained on; if none does, the last.

    Steered training explodes now and then at its start, when all units are active at once.
    """
    dictionary: Any = None
    for seed in range(1 if plan.kind.startswith("random") else _SEEDS):
        for entry, made in train(replace(plan, seed=seed), given, {**about, "seed": seed}):
            log.write(json.dumps({**entry, "seed": seed}) + "\n")
            log.flush()
            dictionary = made
        outcome = quality(dictionary, given[plan.reads][:_CHECKED], given[plan.writes][:_CHECKED])
        print(json.dumps({"folder": plan.folder, "seed": seed, **outcome}), flush=True)
        if outcome["explained_variance"] >= 0.905 and outcome["dead"] < 0.095 and outcome["l0"] <= 23.5:
            break
    return dictionary


@torch.no_grad()
def quality(dictionary: Any, x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> dict[str, float]:
    """Explained variance, active units per token and the share of units that are never active."""
    error, active, used = 0.0, 0, torch.zeros(dictionary.cfg.d_sae, dtype=torch.bool)
    for read, written in zip(x.split(4096), y.split(4096), strict=True):
        dictionary.read = read.float()
        units = dictionary.encode(dictionary.read)
        error += float((dictionary.decode(units) - written.float()).square().sum())
        active += int((units != 0).sum())
        used |= (units != 0).any(0)
    y = y.float()
    explained = 1 - error / float((y - y.mean(0)).square().sum())
    return {
        "explained_variance": round(explained, 4),
        "l0": round(active / len(x), 2),
        "dead": round(1 - float(used.float().mean()), 4),
    }


def smoke(out: Path) -> None:
    """A tiny dictionary of each kind."""
    first = {plan.kind: plan for plan in plans("default")}
    twin = random_twin()
    found = activations(twin, {hook for plan in first.values() for hook in (plan.reads, plan.writes)}, 8000)
    for plan in first.values():
        options = plan.options | ({"matryoshka_widths": [16, 64]} if plan.kind == "matryoshka" else {})
        tiny = replace(plan, width=64, steps=2 * _EVERY, batch=256, options=options, target_l0=None)
        steps = list(train(tiny, found, {"model_name": "default"}))
        (first_entry, _), (last_entry, dictionary) = steps[0], steps[-1]
        save(dictionary, out / plan.kind)
        load(out / plan.kind)
        print(json.dumps(last_entry), flush=True)
        if not last_entry["loss"] < first_entry["loss"]:
            sys.exit(f"the loss of {plan.kind} did not fall: {first_entry['loss']} to {last_entry['loss']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=default.NAMES, help="whose dictionaries")
    parser.add_argument("--out", type=Path, help="folder of the dictionaries")
    parser.add_argument(
        "--only", default="", help="train and measure only folders that contain one of these, between commas"
    )
    parser.add_argument("--tokens", type=int, default=400_000, help="of activations to train from")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--smoke", action="store_true", help="a tiny dictionary of each kind; fails unless its loss falls"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.smoke:
        with tempfile.TemporaryDirectory() as folder:
            smoke(Path(folder))
        return
    if not args.model or not args.out:
        parser.error("--model and --out are needed")
    model = load_model(args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    run(
        [p for p in plans(model.cfg.model_name) if any(part in p.folder for part in args.only.split(","))],
        model,
        args.out,
        args.tokens,
    )


if __name__ == "__main__":
    main()
