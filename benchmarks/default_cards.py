"""Measure the embedded default's models and dictionaries and write their cards.

    python benchmarks/default_cards.py            # about ten minutes on one core

Writes `MODEL_CARD.md`, `SAE_CARD.md` and `measured.json` in `neuron_vs_sae/default/`. Nothing in the cards is typed in.
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measure_default import asker, bar, measured_tasks, patched_states, probes, two_hop_held_out
from measure_dictionaries import dictionary_folders, measure_dictionaries

from neuron_vs_sae import default
from neuron_vs_sae.default.families import FAMILIES, HELD_OUT_CITIES, TRAINED_CITIES
from neuron_vs_sae.default.tokenizer import vocabulary
from neuron_vs_sae.models.loading import load_model

HERE = Path(default.__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cards-only", action="store_true", help="write the cards again from measured.json")
    if not parser.parse_args().cards_only:
        measured = {name: measure(name) for name in default.NAMES}
        _write(HERE / "measured.json", json.dumps(_rounded(measured), indent=1, ensure_ascii=False) + "\n")
    found = json.loads((HERE / "measured.json").read_text(encoding="utf-8"))
    _write(HERE / "MODEL_CARD.md", model_card(found))
    _write(HERE / "SAE_CARD.md", sae_card(found))


def measure(name: str) -> dict[str, Any]:
    """Every number of one model and its dictionaries."""
    model = load_model(name)
    ask = asker(model)
    folders = dictionary_folders(default.MODELS / name / "saes")
    return {
        "parameters": sum(p.numel() for p in _hugging_face(name).parameters()),
        "tasks": measured_tasks(ask, seed=2),
        "two_hop_held_out": two_hop_held_out(ask),
        "patched_states": patched_states(model),
        "probes": probes(model),
        "dictionaries": measure_dictionaries(model, folders),
        "training": json.loads((default.MODELS / name / "training.json").read_text(encoding="utf-8")),
    }


def _hugging_face(name: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(default.MODELS / name)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _rounded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(v) for v in value]
    return round(value, 4) if isinstance(value, float) else value


def _write(file: Path, text: str) -> None:
    file.with_suffix(".partial").write_text(text, encoding="utf-8")
    file.with_suffix(".partial").replace(file)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] + ["---:"] * (len(head) - 1), *rows)]


def model_card(found: dict[str, Any]) -> str:
    """Model card of both models."""
    names = list(found)
    both = [found[name] for name in names]
    lines = [
        "# Model card: the embedded default",
        "",
        f"Two models trained from scratch on one small written-English world: `default` (Llama-style: RMSNorm, rotary positions, "
        f"gated SiLU MLP, no biases; {both[0]['parameters']:,} parameters) and its twin `default-gpt2` (GPT-2-style: LayerNorm, learned "
        f"positions, GELU MLP, biases; {both[1]['parameters']:,}). Four layers, width 128, MLP 512, four heads, embedding and unembedding "
        f"shared, a word-level tokenizer of {len(vocabulary())} tokens, float16 weights. They are for studying methods, offline and with a "
        "known ground truth; they know nothing of the real world beyond the facts they were given, and speak only in its templates.",
        "",
        "Made by `benchmarks/train_default.py` (`--architecture llama`, `gpt2`); measured and written by "
        f"`benchmarks/default_cards.py` with transformer-lens {version('transformer-lens')}. The text is drawn without end "
        "from a seed (`neuron_vs_sae/default/language.py`), so no text is read twice by plan, and what is held out is so by "
        "construction.",
        "",
        *_table(
            ["training", *names],
            [
                ["steps of 4,096 tokens", *(str(m["training"]["step"]) for m in both)],
                ["CPU seconds, one core", *(f"{m['training']['cpu_seconds']:.0f}" for m in both)],
                ["final loss (weighted, nats)", *(f"{m['training']['loss']:.3f}" for m in both)],
            ],
        ),
        "",
        "## Tasks",
        "",
        "Share of evaluation pairs with the right sign of the logit difference on both the clean and the corrupt prompt, and share of "
        "clean prompts after which the answer is the most probable token. Pairs come from a seed that training did not look at. A "
        "task is shipped at 98 % (agreement) or 95 % (all others) or not at all.",
        "",
        *_table(
            ["task `world:...`", "pairs", *(f"{n}: {what}" for n in names for what in ("both", "top 1"))],
            [
                [
                    f"{family} ({FAMILIES[family].about})",
                    str(both[0]["tasks"][family]["pairs"]),
                    *(_percent(m["tasks"][family][what]) for m in both for what in ("both", "top1")),
                ]
                for family in both[0]["tasks"]
            ],
        ),
        "",
        "Kinds of pairs below their task's bar: "
        + (
            "; ".join(
                f"{name}, {family}, {kind} {_percent(share)}"
                for name, m in found.items()
                for family, task in m["tasks"].items()
                for kind, share in task["kinds"].items()
                if share < bar(family)
            )
            or "none"
        )
        + ".",
        "",
        "## Composition",
        "",
        f"{len(HELD_OUT_CITIES)} of {len(HELD_OUT_CITIES) + len(TRAINED_CITIES)} cities never appear in a two-hop question in training. Of all "
        "questions about them, the most probable token is the right capital in:",
        "",
        *_table(
            ["template", *names],
            [
                [f"`{template}`", *(_percent(m["two_hop_held_out"][template]) for m in both)]
                for template in both[0]["two_hop_held_out"]
            ],
        ),
        "",
        "Patching the state: in held-out two-hop questions, what some layers write (attention and MLP outputs) is replaced by its mean "
        "over the *trained* cities of another state, so that no city is copied in. Share of questions whose answer becomes that "
        "state's capital (`city`: replaced at the city, `after`: at the later words; `own state`: replaced by the mean of the city's own "
        "state, and the share is of answers that stay right). Where the state is written differs between the two models:",
        "",
        *_table(
            ["layers, where", *names],
            [[key, *(_percent(m["patched_states"][key]) for m in both)] for key in both[0]["patched_states"]],
        ),
        "",
        "## Known latent variables",
        "",
        "Accuracy of a linear probe (ridge) on the residual stream at the last token of the prompt, after the embedding and after each "
        "layer, fitted on discovery pairs and tested on evaluation pairs: of other nouns (agreement), names and persons (pronoun), cities "
        "(two_hop), invented states (recall, reasoning), or of other questions on the same words (successor, addition):",
        "",
        *_table(
            ["latent", *(f"{n} {layer}" for n in names for layer in ("emb", "0", "1", "2", "3"))],
            [[latent, *(f"{a:.2f}" for m in both for a in m["probes"][latent])] for latent in both[0]["probes"]],
        ),
        "",
    ]
    return "\n".join(lines)


def sae_card(found: dict[str, Any]) -> str:
    """SAE card: every dictionary of both models."""
    lines = [
        "# SAE card: dictionaries of the embedded default",
        "",
        "Trained by `benchmarks/train_default_saes.py` with sae-lens' classes on activations over the world's text, half of it packed "
        "contexts and half single sentences after BOS; float16, in sae-lens' own format; measured and written by "
        f"`benchmarks/default_cards.py` with sae-lens {version('sae-lens')}, on text of a seed that training did not use. "
        "Dictionaries are 8x wide (1024), but for `default/architectures` and, so that all of it stays under 25 MB, the twin's "
        "`resid_post`, `attn_out` and `sparser` (4x). `--basis sae` and `--basis transcoder` take `main` and `transcoder`; any other set is `sae:default/SET`, for example "
        "`sae:default/sparser` or `sae:default/architectures/topk`.",
        "",
        "EV: explained variance without BOS, of packed text and of single sentences. L0: active units per token. Dead: units never active. "
        "CE: share of the cross-entropy recovered, against zero and against mean ablation of the site, and at the answers of task "
        "prompts (against zero), with the increase there in nats, which matters where ablating the site costs little. The bars are EV 0.90, CE 0.95 (zero), L0 24, dead 10 %; controls (`random_decoder`: a frozen random "
        "decoder, arXiv 2602.14111; `random_model`: trained on a randomly initialised twin of the model, arXiv 2501.17727) need not meet "
        "them.",
        "",
    ]
    for name, m in found.items():
        rows = [
            [
                f"`{name}/{folder}`",
                d["architecture"],
                str(d["width"]),
                f"{d['explained_variance']:.3f}",
                f"{d['explained_variance_single_sentences']:.3f}",
                f"{d['l0']:.1f}",
                _percent(d["dead"]),
                f"{d['ce_recovered']:.3f}",
                f"{d['ce_recovered_mean']:.3f}",
                f"{d['ce_recovered_answers']:.3f}",
                f"{d['ce_increase_answers']:.3f}",
            ]
            for folder, d in m["dictionaries"].items()
        ]
        head = [
            "dictionary",
            "kind",
            "width",
            "EV",
            "EV single",
            "L0",
            "dead",
            "CE zero",
            "CE mean",
            "CE answers",
            "in nats",
        ]
        lines += [f"## {name}", "", *_table(head, rows), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
