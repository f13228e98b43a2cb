"""What a result must cite: its model, dictionaries, tasks, methods and this tool, as BibTeX."""

import re
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from neuron_vs_sae.core.lookup import parse
from neuron_vs_sae.models.presets import preset_of, presets
from neuron_vs_sae.report.escaping import in_latex
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.spec import looks_like_file


class CitedWork(BaseModel):
    """An entry of `references.toml`: its fields, and what it is cited for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str
    title: str
    author: str
    year: str
    arxiv: str | None = None
    url: str | None = None
    booktitle: str | None = None
    journal: str | None = None
    volume: str | None = None
    number: str | None = None
    pages: str | None = None
    institution: str | None = None
    always: bool = False
    names: tuple[str, ...] = Field((), alias="for")
    models: tuple[str, ...] = ()
    releases: tuple[str, ...] = ()

    def bibtex(self, key: str) -> str:
        fields = {
            "title": f"{{{self.title}}}", "author": self.author, "year": self.year, "booktitle": self.booktitle,
            "journal": self.journal, "volume": self.volume, "number": self.number, "pages": self.pages,
            "institution": self.institution, "eprint": self.arxiv, "archiveprefix": "arXiv" if self.arxiv else None,
            "url": self.url,
        }  # fmt: skip
        return entry(self.type, key, {name: value for name, value in fields.items() if value})


@cache
def cited_works() -> dict[str, CitedWork]:
    """Every work of `references.toml` by its BibTeX key."""
    text = (Path(__file__).parent / "references.toml").read_text(encoding="utf-8")
    return {key: CitedWork(**table) for key, table in tomllib.loads(text).items()}


def entry(kind: str, key: str, fields: dict[str, str]) -> str:
    """A BibTeX entry; the fields' values are LaTeX already."""
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


def used(result: Result) -> set[str]:
    """What the study names, as `references.toml` writes it: `attribution/relp`, `ablation/mean`, `tasks/ioi`, `world/ioi` ..."""
    study = result.study
    names = {f"attribution/{parse('attribution', text).name}" for text in study.method}
    names |= {f"ablation/{text}" for text in study.ablation}
    names |= {f"bases/{parse('bases', text).name}" for text in study.basis}
    names |= {f"metrics/{metric}" for metric in study.metric} | {
        f"sizes/{size}" for size in study.sizes if isinstance(size, str)
    }
    for text in study.task:
        if not looks_like_file(text):
            spec = parse("tasks", text)
            source = spec.options.get("source", "")
            names |= {
                f"tasks/{spec.name}",
                f"world/{source}" if spec.name == "world" else f"formats/{source.split('/')[0]}",
            }
    return names


def bibtex(result: Result) -> str:
    """BibTeX of what this result used: this tool, its model and dictionaries, tasks, bases, methods and statistics.

    A release of SAEs without a paper of its own, and a model that no preset knows, are cited by where they are.
    """
    names, releases = used(result), _releases(result)
    preset = preset_of(result.study.model)
    model = next((name for name, candidate in presets().items() if candidate is preset), None)
    cited = {
        key: work
        for key, work in cited_works().items()
        if work.always
        or names & set(work.names)
        or model in work.models
        or any(fnmatchcase(release, pattern) for release in releases for pattern in work.releases)
    }
    entries = [_this_tool(result), *([] if preset else [_model(result)])]
    entries += [work.bibtex(key) for key, work in cited.items()]
    written = [pattern for work in cited.values() for pattern in work.releases]
    entries += [
        entry("misc", _key("saes", release), {"title": f"{{SAEs {in_latex(release)}}}", "howpublished": _where(repo)})
        for release, repo in releases.items()
        if not any(fnmatchcase(release, pattern) for pattern in written)
    ]
    entries += [
        entry(
            "misc",
            _key("data", text),
            {"title": f"{{Prompt pairs {in_latex(Path(text).name)}}}", "note": in_latex(f"sha256 {digest}")},
        )
        for text, digest in _files(result).items()
    ]
    return "\n\n".join(entries) + "\n"


def _this_tool(result: Result) -> str:
    code = result.record["provenance"].get("code")
    about = f"version {result.record['provenance']['versions']['neuron_vs_sae']}" + (f", commit {code}" if code else "")
    title = "{neuron\\_vs\\_sae: one circuit-discovery pipeline, any basis}"
    return entry(
        "software",
        "neuron_vs_sae",
        {"title": title, "author": "{The neuron\\_vs\\_sae developers}", "year": "2026", "note": in_latex(about)},
    )


def _model(result: Result) -> str:
    name = result.study.model
    local = Path(name).exists() or name in result.record["inputs"]
    fields = {"title": f"{{Model {in_latex(Path(name).name if local else name)}}}"}
    if local:
        fields["note"] = in_latex(f"local files, sha256 {result.record['inputs'].get(name, 'unknown')}")
    else:
        fields["howpublished"] = _where(name)
    return entry("misc", _key("model", Path(name).name), fields)


def _releases(result: Result) -> dict[str, str]:
    """The releases of sae-lens' registry that bases were made of (or calibrated like), and their repositories."""
    parts = [part for facts in result.bases.values() for part in (*facts.get("saes", ()), *facts.get("like", ()))]
    return {part["release"]: part["repo"] for part in parts if part.get("release")}


def _files(result: Result) -> dict[str, str]:
    given: Iterable[str] = (*result.study.task, *result.study.eval_task)
    return {text: result.record["inputs"].get(text, "unknown") for text in given if looks_like_file(text)}


def _where(repository: str) -> str:
    return f"\\url{{https://huggingface.co/{re.sub(r'[^A-Za-z0-9._/-]', '', repository)}}}"


def _key(kind: str, text: str) -> str:
    return f"{kind}_{re.sub(r'[^A-Za-z0-9]+', '_', text).strip('_')}"
