"""What a graph's folder and files are called."""

import hashlib
import json
import re

from neuron_vs_sae.studies.cells import Cell
from neuron_vs_sae.studies.tracing import TraceStudy


def slug(study: TraceStudy, cell: Cell, index: int) -> str:
    """Task (or the text's beginning), pair, basis, and six digits that tell apart what these leave alike: `two_hop-3-sae-1f09ab`.

    Of letters, digits, `_`, `.` and `-` alone, as the viewers' names must be.
    """
    whole = json.dumps([study.model, cell.names, index, study.slope, study.targets])
    name = str(cell.get("task") or cell["prompt"]).rpartition("/")[2].removeprefix("world:")
    parts = (name[:40], *([] if cell.get("task") is None else [str(index)]), str(cell["basis"])[:40])
    plain = re.sub(r"[^a-zA-Z0-9_.-]+", "-", "-".join(parts)).strip("-.")
    return f"{plain}-{hashlib.sha256(whole.encode()).hexdigest()[:6]}"
