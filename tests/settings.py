"""Settings of a study, and another valid value of every field."""

from typing import Any

BASE: dict[str, Any] = {"model": "gpt2", "task": ["pairs.jsonl"], "basis": ["mlp_neurons"]}

# Another valid value of every field.
OTHER: dict[str, Any] = {
    "model": "gpt2-medium",
    "dtype": "float64",
    "backend": "bridge",
    "revision": "main",
    "process_weights": True,
    "prepend_bos": False,
    "task": ["others.jsonl"],
    "eval_task": ["held_out.jsonl"],
    "allow_overlap": True,
    "split_by": "lemma",
    "examples": 10,
    "eval_examples": 11,
    "basis": ["mlp_outputs"],
    "method": ["attribution_patching", "integrated_gradients,steps=3"],
    "ablation": ["zero_site", "resample"],
    "errors": ["keep", "ablate"],
    "mean_source": "discovery",
    "positions": "pooled",
    "pairing": "unpaired",
    "metric": ["probability", "kl"],
    "attribution_metric": "answer_logit",
    "rank_by": "signed",
    "sizes": [1, 2, "all"],
    "baseline_sizes": [1, 10],
    "seed": [7, 8],
    "folds": 10,
    "accept_poor_sae": True,
    "confidence": 0.9,
    "resamples": 200,
    "cluster_by": "lemma",
    "stratify_by": "case",
    "margin": 0.1,
    "sign_flips": 5000,
}
