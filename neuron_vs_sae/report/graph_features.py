"""What units are active on, in the format that graph pages read for one feature: `FOLDER/NUMBER.json`."""

import json
from typing import Any

import numpy as np
import pandas as pd

from neuron_vs_sae.report.graph_viewer import plain, visible_token

_KINDS = {"top": "Top activations", "quantile": "Quantile", "negative": "Silent"}


def feature(number: int, basis: str, rows: pd.DataFrame, windows: pd.DataFrame) -> dict[str, Any]:
    """One unit's document, from the tables of `nvs units`: positive and negative values apart, as quantiles of their own."""
    quantiles, values = [], []
    for sign, of_sign in windows.groupby("sign", sort=False):
        prefix = "" if sign == "+" else "Negative values: "
        for _, group in of_sign.groupby(["kind", "quantile"], sort=False, dropna=False):
            kind, quantile = group["kind"].iloc[0], group["quantile"].iloc[0]
            name = f"{prefix}{_KINDS[kind]}{'' if pd.isna(quantile) else f' {int(quantile) + 1} of 10'}"
            quantiles.append({"quantile_name": name, "examples": [_example(w) for w in group.to_dict("records")]})
        values += [float(v) for window in of_sign["values"] for v in window]
    first = rows.iloc[0]
    counts, edges = np.histogram(values or [0.0], bins=20)
    return {
        "transcoder_id": plain(basis), "index": number, "examples_quantiles": quantiles,
        "top_logits": [visible_token(t) for t in json.loads(first["top_tokens"])],
        "bottom_logits": [visible_token(t) for t in json.loads(first["bottom_tokens"])],
        "act_min": float(min(values, default=0.0)), "act_max": float(max(values, default=0.0)), "quantile_values": [float(e) for e in edges],
        "histogram": [float(c) for c in counts], "activation_frequency": sum(rows["density"].tolist()),
    }  # fmt: skip


def _example(window: dict[str, Any]) -> dict[str, Any]:
    return {
        "tokens": [visible_token(token) for token in window["tokens"]],
        "tokens_acts_list": [float(value) for value in window["values"]],
        "train_token_ind": int(window["center"]),
        "is_repeated_datapoint": False,
    }
