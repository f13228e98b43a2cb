"""What is said of the units that graphs show: the tokens that they promote, and where they are active in a corpus."""

from collections.abc import Sequence

import pandas as pd

from neuron_vs_sae.analyses.graphs.graph import Graph
from neuron_vs_sae.analyses.graphs.prompt import token_text
from neuron_vs_sae.analyses.units.collecting import Keeping, collect
from neuron_vs_sae.analyses.units.selection import named
from neuron_vs_sae.analyses.units.summary import units_table, windows_table
from neuron_vs_sae.analyses.units.vocabulary import direct_lens
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.studies.corpora import corpus_of
from neuron_vs_sae.studies.loaded import Loaded
from neuron_vs_sae.studies.tracing import TraceStudy

_TOKENS, _WINDOWS, _WINDOW = 8, 5, 8


def shown_units(
    loaded: Loaded[TraceStudy], basis: Basis, graphs: Sequence[Graph], text: str
) -> dict[str, pd.DataFrame]:
    """`units`, a row per unit that a pruned graph keeps with the tokens that it promotes, and with a corpus as `nvs units` writes it;
    `windows` of the corpus."""
    spec = loaded.spec
    names: dict[str, None] = {}
    for graph in graphs:
        kept = graph.prune(node_threshold=spec.node_threshold, edge_threshold=spec.edge_threshold).nodes[: len(graph)]
        names |= {graph.names[i].rpartition("@")[0]: None for i in kept.nonzero().flatten().tolist()}
    nothing = pd.DataFrame({"basis": pd.Series(dtype=str)})
    if not names:
        return {"units": nothing, "windows": nothing}
    units = named(basis, list(names))

    def show(token: int) -> str:
        return token_text(loaded.model, token)

    said = direct_lens(loaded.model, basis, units, min(_TOKENS, loaded.model.cfg.d_vocab))
    if spec.corpus:
        keeping = Keeping(top=_WINDOWS, per_quantile=_WINDOWS, negatives=1, window=_WINDOW, seed=spec.seed[0])
        collection = collect(loaded.model, basis, units, corpus_of(loaded), keeping=keeping)
        tables = {"units": units_table(collection, said, show), "windows": windows_table(collection, show)}
        return {name: table.assign(basis=text) for name, table in tables.items()}
    rows = [
        {
            "basis": text,
            "unit": name,
            "sign": "+",
            "top_tokens": [show(t) for t in top],
            "bottom_tokens": [show(t) for t in bottom],
        }
        for name, top, bottom in zip(units.names, said.top.tolist(), said.bottom.tolist(), strict=True)
    ]
    return {"units": pd.DataFrame(rows), "windows": nothing}
