"""Pages that list what there is, written from the package itself: settings, and what each folder of parts holds."""

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from neuron_vs_sae.core.lookup import known
from neuron_vs_sae.default.families import FAMILIES
from neuron_vs_sae.running.machine import Machine
from neuron_vs_sae.studies.study import Study

PARTS = {"bases": "bases", "attribution": "attribution", "ablation": "ablation", "metrics": "metrics", "tasks": "tasks"}


def pages(folder: Path) -> None:
    """Write them, where they are not so already (an unchanged page is not built again)."""
    folder.mkdir(exist_ok=True)
    texts = {name: functions(name) for name in PARTS}
    for name, text in {**texts, "settings": settings(), "families": families()}.items():
        file = folder / f"{name}.md"
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def functions(folder: str) -> str:
    """The reference of every function of a folder, under the name that the command line knows it by."""
    parts = []
    for name in known(folder):
        stem = name.replace("-", "_")
        parts.append(f"## `{name}`\n\n```{{eval-rst}}\n.. autofunction:: neuron_vs_sae.{folder}.{stem}\n```\n")
    return "\n".join(parts)


def settings() -> str:
    """Two tables: every field of `Study`, and every field of `Machine`."""
    lines = ["| setting | default | what it is |", "|---|---|---|"]
    for name, field in Study.model_fields.items():
        default = "needed" if field.is_required() else _shown(field.get_default())
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        told = f": {', '.join(choices)}" if choices else ""
        lines.append(f"| `{name}` | {default} | {_cell(str(field.description) + told)} |")
    lines += ["", "And what runs a study without changing its numbers beyond rounding:", ""]
    lines += ["| setting | default | what it is |", "|---|---|---|"]
    for field in Machine.__dataclass_fields__.values():
        lines.append(f"| `{field.name}` | {_shown(field.default)} | {_cell(field.metadata['description'])} |")
    return "\n".join(lines) + "\n"


def families() -> str:
    lines = ["| task | what it asks |", "|---|---|"]
    lines += [f"| `world:{name}` | {_cell(family.about)} |" for name, family in FAMILIES.items()]
    return "\n".join(lines) + "\n"


def _shown(default: Any) -> str:
    text = ", ".join(map(str, default)) if isinstance(default, tuple) else default
    return "" if text in (None, "") else f"`{text}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
