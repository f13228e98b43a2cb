"""A page of units: the tokens each promotes, and the texts it is active on, as heat maps. It needs no network."""

import json
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

_SHOWN = {"top": 8, "quantile": 1, "negative": 2}
"""How many windows the page shows per unit and sign (for quantiles: per quantile); the table has the rest."""


def units_page(title: str, units: pd.DataFrame, windows: pd.DataFrame) -> str:
    """The HTML of both tables of `nvs units`: a card per unit and sign, by basis, in the tables' order."""
    places = windows.groupby(["basis", "unit", "sign"], sort=False).indices
    cards = [
        _card(row, windows.iloc[places.get((row["basis"], row["unit"], row["sign"]), [])])
        for row in units.to_dict("records")
    ]
    environment = Environment(
        loader=PackageLoader("neuron_vs_sae.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("units.html.jinja").render(title=title, cards=cards)


def anchor(basis: str, unit: str, sign: str) -> str:
    """The id of a unit's card, for links from other pages."""
    return f"{basis} {unit} {'negative' if sign == '-' else 'positive'}".replace(" ", "_")


def _card(row: dict[str, Any], windows: pd.DataFrame) -> dict[str, Any]:
    sections = []
    for kind, heading in (
        ("top", "strongest"),
        ("quantile", "from each tenth of the range, strongest first"),
        ("negative", "silent"),
    ):
        rows = windows.loc[(windows["kind"] == kind) & (windows["rank"] < _SHOWN[kind])]
        if kind == "quantile":
            rows = rows.sort_values("quantile", ascending=False)
        if len(rows):
            sections.append(
                {"heading": heading, "windows": [_window(w, row["maximum"]) for w in rows.to_dict("records")]}
            )
    return {
        **row,
        "anchor": anchor(row["basis"], row["unit"], row["sign"]),
        "promotes": json.loads(row["top_tokens"]),
        "suppresses": json.loads(row["bottom_tokens"]),
        "sections": sections,
    }


def _window(window: dict[str, Any], maximum: float) -> dict[str, Any]:
    pieces = []
    for i, (token, value) in enumerate(zip(window["tokens"], window["values"], strict=True)):
        share = min(abs(value) / maximum, 1.0) if maximum > 0 else 0.0
        pieces.append({
            "text": token, "value": f"{value:.3g}", "share": f"{share:.2f}", "sign": "n" if value < 0 else "p",
            "is_center": i == window["center"],
        })  # fmt: skip
    return {"pieces": pieces, "where": f"context {window['context']}, token {window['position']}"}
