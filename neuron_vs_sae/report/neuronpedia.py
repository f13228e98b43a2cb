"""Units in Neuronpedia's format: the body of `POST /api/feature/upload-batch`, from the tables of `nvs units`.

It keeps to Neuronpedia's limits: 128 features a file, 20 logits, 1024 tokens a window, names in lower case. A feature has one
sign there, so negative values form a source of their own, with the sign reversed.
"""

import json
import re
from typing import Any

import pandas as pd

from neuron_vs_sae.core.errors import InputError

_FEATURES, _LOGITS, _TOKENS = 128, 20, 1024


def uploads(model: str, units: pd.DataFrame, windows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """File name to body. A unit without any window (one that is never active) is left out: an activation is required.

    Raises `InputError` where a unit's name has no number.
    """
    shown = windows.loc[windows["kind"] != "negative"]
    places = shown.groupby(["unit", "sign"], sort=False).indices
    features: dict[str, list[dict[str, Any]]] = {}
    for row in units.to_dict("records"):
        key = (row["unit"], row["sign"])
        if key in places:
            features.setdefault(_source(row), []).append(_feature(row, shown.iloc[places[key]]))
    return {
        f"{source}-{i // _FEATURES}.json": {
            "modelId": _lower(model),
            "source": source,
            "features": of_source[i : i + _FEATURES],
        }
        for source, of_source in features.items()
        for i in range(0, len(of_source), _FEATURES)
    }


def _source(row: dict[str, Any]) -> str:
    """`3-sae-hook-mlp-out`, of negative values `3-...-negative`."""
    site = str(row["unit"]).rpartition("/")[0]
    match = re.fullmatch(r"blocks\.(?P<layer>\d+)\.(?P<kind>.+)", site)
    layer, kind = (match["layer"], match["kind"]) if match else ("0", site)
    return _lower(f"{layer}-{row['basis']}-{kind}{'-negative' if row['sign'] == '-' else ''}")


def _feature(row: dict[str, Any], windows: pd.DataFrame) -> dict[str, Any]:
    number = str(row["unit"]).rpartition("/")[2]
    if not number.isdecimal():
        raise InputError(f"unit {row['unit']!r} has no number, and Neuronpedia's features have: expected SITE/NUMBER")
    turned = -1.0 if row["sign"] == "-" else 1.0
    return {
        "index": int(number),
        "density": row["density"],
        "topLogits": _logits(row["top_tokens"], row["top_values"]),
        "bottomLogits": _logits(row["bottom_tokens"], row["bottom_values"]),
        "explanations": [],
        "activations": [_activation(window, turned, row["maximum"]) for window in windows.to_dict("records")],
    }


def _logits(tokens: str, values: str) -> list[dict[str, Any]]:
    pairs = zip(json.loads(tokens), json.loads(values), strict=True)
    return [{"token": token, "value": value} for token, value in pairs][:_LOGITS]


def _activation(window: dict[str, Any], turned: float, maximum: float) -> dict[str, Any]:
    """A top window belongs to no quantile: both its limits are the unit's largest value, and its share of the tokens is unknown."""
    is_top = window["kind"] == "top"
    return {
        "tokens": list(window["tokens"])[:_TOKENS],
        "values": [max(turned * value, 0.0) for value in window["values"]][:_TOKENS],
        "quantileMin": maximum if is_top else window["quantile_low"],
        "quantileMax": maximum if is_top else window["quantile_high"],
        "quantileFraction": 0.0 if is_top else window["quantile_fraction"],
    }


def _lower(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def steering(doses: pd.DataFrame, n_tokens: int, at: str) -> list[dict[str, Any]]:
    """What was steered in the names of Neuronpedia's graph steering: a request per task, basis and dose of `nvs steer`.

    `delta` is the dose as it was counted (`dose_in` beside it says in what; Neuronpedia's own is in activations), `ablate` a scale of 0. Units without a
    layer in their name are left out.
    """
    requests = []
    keys: Any = doses.groupby(["task", "basis", "dose"], sort=False)
    for (task, basis, dose), part in keys:
        first = part.iloc[0]
        units = [re.fullmatch(r"blocks\.(\d+)\..*/(\d+)", name) for name in str(first["units"]).split()]
        features = [
            {
                "layer": int(unit[1]), "index": int(unit[2]), "token_active_position": -1,
                "steer_position": -1 if at == "answer" else None, "steer_generated_tokens": True, "delta": float(dose),
                "ablate": first["kind"] == "scale" and dose == 0,
            }
            for unit in units
            if unit
        ]  # fmt: skip
        requests.append({
            "task": task, "basis": basis, "dose_in": first["dose_in"], "features": features, "n_tokens": n_tokens, "top_k": 10,
            "freeze_attention": False,
        })  # fmt: skip
    return requests
