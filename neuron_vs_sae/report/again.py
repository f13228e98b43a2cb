"""How to run a study again: its settings as a config file, and the command."""

import json
import re
import shlex
import unicodedata
from typing import Any

from neuron_vs_sae.report.escaping import visible
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.study import Study


def config(study: Study) -> str:
    """The study as a TOML file for `nvs compare --config`; a study made from it has the same key."""
    settings = study.model_dump(mode="json")
    return "".join(f"{name} = {_toml(value)}\n" for name, value in settings.items() if value is not None)


def commands(result: Result) -> str:
    """What to type: the code that ran, and the study from its config file."""
    provenance = result.record["provenance"]
    version = provenance["versions"]["neuron_vs_sae"]
    code = provenance.get("code")
    code = (
        code if code and re.fullmatch(r"[0-9a-f]{7,64}[+]?", code) else None
    )  # whoever wrote the record, it is a commit
    clean = code and not code.endswith("+")
    made_by = f"# neuron_vs_sae {version}"
    made_by += f", commit {code}" if clean else f", commit {code[:-1]} with changes" if code else ""
    lines = [visible(made_by)]  # on one line, or what follows a line break would be a command
    if code and clean:
        lines.append(f"git checkout {shlex.quote(code)}")
    lines += [
        "pip install -c constraints.txt -e .",
        f"nvs compare --config study.toml --device {shlex.quote(visible(provenance['device']))} --batch-size {shlex.quote(visible(provenance['batch_size']))} --out results",
    ]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    """Strings as JSON writes them, which TOML reads alike; what cannot be seen as its number."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    text = json.dumps(value, ensure_ascii=False)
    return "".join(f"\\U{ord(c):08X}" if unicodedata.category(c) in {"Cc", "Cf"} else c for c in text)
