"""Rules of the house, read off the package's source: who imports whom, who registers hooks, who prints, how long a signature is, what
locals are called."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import mutants

PACKAGE = mutants.ROOT / "neuron_vs_sae"
FILES = sorted(PACKAGE.rglob("*.py"))

STAIR = (
    "core", "default", "statistics", "models", "execution", "catalog", "analyses", "studies", "report", "running", "cli",
)  # fmt: skip
"""The rooms: each may import those before it, but for those of `NARROW`."""
NARROW = {"statistics": {"core"}, "models": {"core", "default"}, "execution": {"core"}}
BETWEEN_ANALYSES: set[tuple[str, str]] = {("interventions", "units")}
"""(folder, folder it imports) within `analyses/`; a pair stands here and in the importing folder's README."""
LONGEST_SIGNATURE = 9
LONG_SIGNATURES = {
    "analyses/circuits/evaluation.py evaluate": 14,
}
"""What is longer still, and how long it may be. Only to be shortened."""
MEANINGLESS = {"found", "made", "told", "one"}
"""Names that say nothing of what a local holds."""


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def name_of(file: Path) -> str:
    """`neuron_vs_sae.core.basis`; of an `__init__`, its folder's name."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for file in FILES}


def imports(file: Path, *, inside: bool = True) -> Iterator[str]:
    """The package's modules and names that a file imports; `inside`: within functions too."""
    nodes = ast.walk(tree(file)) if inside else iter(tree(file).body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("neuron_vs_sae."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            if (node.module or "").split(".")[0] == "neuron_vs_sae":
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(name: str) -> str:
    """`core` of `neuron_vs_sae.core.basis`; the package's own names have none."""
    return [*name.split("."), ""][1]


def calls(file: Path) -> Iterator[str]:
    """What is called, as it is written: `print`, `model.hooks`."""
    return (ast.unparse(node.func) for node in ast.walk(tree(file)) if isinstance(node, ast.Call))


def test_every_folder_is_a_room_and_few_files_lie_beside_them() -> None:
    assert {file.relative_to(PACKAGE).parts[0] for file in FILES if file.parent != PACKAGE} == set(STAIR)
    assert len([f for f in PACKAGE.iterdir() if f.is_file()]) <= 4


def test_imports_go_up_the_stair() -> None:
    uphill = []
    for file in FILES:
        ours = room(name_of(file))
        if ours not in STAIR:
            continue  # the package's own `__init__` and `__main__` are its face and its door
        may = NARROW.get(ours, set(STAIR[: STAIR.index(ours)])) | {ours}
        for name in imports(file):
            between = ours == room(name) == "analyses"
            folders = tuple(n.split(".")[2] for n in (name_of(file), name)) if between else ("", "")
            if room(name) not in may or (folders[0] != folders[1] and folders not in BETWEEN_ANALYSES):
                uphill.append(f"{name_of(file)} imports {name}")
    assert not uphill


def test_what_is_private_stays_in_its_room() -> None:
    taken = []
    for file in FILES:
        others = [name for name in imports(file) if room(name) != room(name_of(file))]
        modules = {name.split(".")[-1] for name in others if name in MODULES}
        attributes = [
            ast.unparse(node)
            for node in ast.walk(tree(file))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
        ]
        for name in (*others, *attributes):
            if any(part.startswith("_") and not part.startswith("__") for part in name.split(".")):
                taken.append(f"{name_of(file)} takes {name}")
    assert not taken


def test_no_modules_import_each_other_in_a_circle() -> None:
    def needed(name: str) -> set[str]:
        """The modules that importing this one imports, but for the folders above them."""
        names = {n if n in MODULES else n.rpartition(".")[0] for n in imports(MODULES[name], inside=False)}
        return names & MODULES.keys() - {name}

    waiting = {name: needed(name) for name in MODULES}
    while ready := [name for name, others in waiting.items() if not others & waiting.keys()]:
        for name in ready:
            del waiting[name]
    assert not waiting


def test_only_execution_registers_hooks() -> None:
    registering = re.compile(r"(\.hooks|\.(perma_)?add_(perma_)?hooks?|register_\w*hook|\.run_with_\w+)$")
    registrations = {name_of(file): [call for call in calls(file) if registering.search(call)] for file in FILES}
    assert {room(name) for name, registered in registrations.items() if registered} == {"execution"}


def test_only_one_module_knows_sae_lens() -> None:
    def knows(file: Path) -> bool:
        named = re.compile(r"\s*(from|import) sae_lens\b")
        return any(named.match(line) for line in file.read_text(encoding="utf-8").splitlines())

    assert [name_of(file) for file in FILES if knows(file)] == ["neuron_vs_sae.catalog.dictionaries.sources"]


def test_only_the_command_line_prints() -> None:
    printing = re.compile(r"(print|typer\.s?echo|(rich\.\w+\.)?Console|sys\.std(out|err)\.write)")
    rooms = {room(name_of(file)) for file in FILES for call in calls(file) if printing.fullmatch(call)}
    assert rooms == {"cli"}


def test_every_file_that_is_named_is_there() -> None:
    """In docstrings, comments and messages; NAME.py in capitals stands for any. From the root, the package, the file's own
    folder, or by a name that only files of the package bear."""
    absent = []
    for file in FILES:
        for named in re.findall(r"`([\w./-]+\.py)`", file.read_text(encoding="utf-8")):
            there = any((folder / named).exists() for folder in (mutants.ROOT, PACKAGE, file.parent))
            if not (there or Path(named).stem.isupper() or ("/" not in named and list(PACKAGE.rglob(named)))):
                absent.append(f"{name_of(file)} names {named}")
    assert not absent


def test_no_signature_is_long() -> None:
    """Options that belong together are passed together."""
    long = []
    for file in FILES:
        for node in ast.walk(tree(file)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                arguments = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                place, n = f"{file.relative_to(PACKAGE)} {node.name}", len(set(arguments) - {"self", "cls"})
                if n > LONG_SIGNATURES.get(place, LONGEST_SIGNATURE):
                    long.append((place, n))
    assert not long


def test_locals_are_named_for_what_they_hold() -> None:
    """Of the package and of the modules that tests share: no parameter and no local has one of the names `MEANINGLESS`."""
    support = [file for file in (mutants.ROOT / "tests").rglob("*.py") if not file.name.startswith("test_")]
    bad = []
    for file in (*FILES, *support):
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                name = node.id
            elif isinstance(node, ast.arg):
                name = node.arg
            else:
                continue
            if name in MEANINGLESS:
                bad.append(f"{file.relative_to(mutants.ROOT)}:{node.lineno} {name}")
    assert not bad


def test_importing_the_package_and_its_rooms_is_light() -> None:
    """In a process of its own: here, torch is imported already."""
    script = "import sys, neuron_vs_sae as nvs\n" + "".join(f"import neuron_vs_sae.{name}\n" for name in STAIR)
    script += "print(sorted({'torch', 'transformer_lens', 'pandas', 'sae_lens', 'pydantic'} & sys.modules.keys()))"
    ended = subprocess.run([sys.executable, "-c", script], cwd=mutants.ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
