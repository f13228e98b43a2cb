"""Units' tables, page and exports: what they show is what was collected, in the shapes that others' tools take."""

import json
import re
from typing import Annotated, Any

import pandas as pd
import pytest
import toys
from conftest import HOSTILE
from pydantic import BaseModel, ConfigDict, Field
from texts import text

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.units.collecting import Collection, Keeping, collect
from neuron_vs_sae.analyses.units.selection import drawn
from neuron_vs_sae.analyses.units.summary import units_table, windows_table
from neuron_vs_sae.analyses.units.vocabulary import direct_lens
from neuron_vs_sae.report.neuronpedia import uploads
from neuron_vs_sae.report.units_page import anchor, units_page

Tables = tuple[Collection, pd.DataFrame, pd.DataFrame]


def show(token: int) -> str:
    return f"{HOSTILE}{token}"


@pytest.fixture(scope="module", params=["mlp_neurons", "sae"])
def made(request: pytest.FixtureRequest) -> Tables:
    model = toys.model("llama")
    basis = nvs.bases.mlp_neurons(model) if request.param == "mlp_neurons" else nvs.bases.sae(model, source=toys.saes())
    units = drawn(basis, 5)
    got = collect(model, basis, units, text(), keeping=Keeping(top=4, per_quantile=2, negatives=2, window=2))
    return got, units_table(got, direct_lens(model, basis, units, 3), show), windows_table(got, show)


def test_the_units_table_has_a_row_per_unit_and_sign_that_occurs(made: Tables) -> None:
    got, units, windows = made
    expected = {(name, "+") for name in got.names} | {
        (name, "-") for u, name in enumerate(got.names) if got.maximum[1, u] > 0
    }
    assert set(zip(units["unit"], units["sign"], strict=True)) == expected
    assert set(zip(windows["unit"], windows["sign"], strict=True)) - expected <= {(name, "-") for name in got.names}
    for row in units.to_dict("records"):
        u, s = got.names.index(row["unit"]), "+-".index(row["sign"])
        assert row["maximum"] == float(got.maximum[s, u])
        assert row["density"] == float(got.histogram[s, u].sum() / got.counted[u])
        values = json.loads(row["top_values"])
        assert values == sorted(values, reverse=True)
        assert values[0] > 0 > json.loads(row["bottom_values"])[0]


def test_a_windows_center_is_its_token_and_tops_fall_by_rank(made: Tables) -> None:
    got, _, windows = made
    rows = [context.tokens for context in text().read()]
    for row in windows.to_dict("records"):
        assert row["tokens"][row["center"]] == show(rows[row["context"]][row["position"]])
        if row["kind"] == "quantile":
            size = abs(row["values"][row["center"]])
            last = row["quantile"] == 9
            assert row["quantile_low"] < size
            assert last or size <= row["quantile_high"]
    top = windows.loc[windows["kind"] == "top"]
    for _, mine in top.groupby(["unit", "sign"]):
        sizes = [abs(row["values"][row["center"]]) for row in mine.to_dict("records")]
        assert sizes == sorted(sizes, reverse=True)
    assert len(top) == int(got.top.filled.sum())


def test_the_page_shows_every_unit_escapes_its_texts_and_asks_nothing_of_the_network(made: Tables) -> None:
    _, units, windows = made
    page = units_page(f"Units of {HOSTILE}", units, windows)
    assert page.count("<article") == len(units)
    for row in units.to_dict("records"):
        assert f'id="{anchor(row["basis"], row["unit"], row["sign"])}"' in page
    assert "<img" not in page
    assert "<script" not in page
    assert not re.search(r"""(src|href)\s*=|url\(|https?:""", page.replace("src=x", ""))


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Logit(Strict):
    token: str
    value: float


class Activation(Strict):
    tokens: Annotated[list[str], Field(min_length=1, max_length=1024)]
    values: list[float]
    quantileMin: float  # noqa: N815 (Neuronpedia's names)
    quantileMax: float  # noqa: N815
    quantileFraction: float  # noqa: N815


class Feature(Strict):
    index: Annotated[int, Field(ge=0)]
    density: Annotated[float, Field(ge=0, le=1)]
    topLogits: Annotated[list[Logit], Field(max_length=20)]  # noqa: N815
    bottomLogits: Annotated[list[Logit], Field(max_length=20)]  # noqa: N815
    explanations: list[Any]
    activations: Annotated[list[Activation], Field(min_length=1)]


class Upload(Strict):
    """A mirror of Neuronpedia's `POST /api/feature/upload-batch`."""

    modelId: Annotated[str, Field(pattern=r"^[a-z0-9.-]+$")]  # noqa: N815
    source: Annotated[str, Field(pattern=r"^[a-z0-9.-]+$")]
    features: Annotated[list[Feature], Field(min_length=1, max_length=128)]


def test_an_upload_is_what_neuronpedia_takes(made: Tables) -> None:
    _, units, windows = made
    bodies = uploads("Toy-Llama", units, windows)
    active = units.loc[units["maximum"] > 0]
    assert sum(len(body["features"]) for body in bodies.values()) == len(active)
    for body in bodies.values():
        read = Upload.model_validate_json(json.dumps(body))
        for feature in read.features:
            for activation in feature.activations:
                assert len(activation.tokens) == len(activation.values)
                assert min(activation.values) >= 0
            assert len({(body["source"], f.index) for f in read.features}) == len(read.features)


def test_many_units_are_uploaded_in_files_of_128(made: Tables) -> None:
    _, units, windows = made
    one = units.loc[(units["sign"] == "+") & (units["maximum"] > 0)].iloc[:1]
    shown = windows.loc[windows["unit"] == one["unit"].iloc[0]]
    site = one["unit"].iloc[0].rpartition("/")[0]
    many = pd.concat([one.assign(unit=f"{site}/{i}") for i in range(300)])
    many_windows = pd.concat([shown.loc[shown["sign"] == "+"].assign(unit=f"{site}/{i}") for i in range(300)])
    bodies = uploads("toy", many, many_windows)
    assert [len(body["features"]) for body in bodies.values()] == [128, 128, 44]


def test_no_window_means_no_upload(made: Tables) -> None:
    _, units, windows = made
    assert uploads("toy", units, windows.iloc[:0]) == {}
