"""The end of a study: its values put together and listed, all that is derived from them written, and made again where it is lost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuron_vs_sae.core import files
from neuron_vs_sae.running.analyses import analysis_called, report_of
from neuron_vs_sae.studies.analysis import Analysis
from neuron_vs_sae.studies.cells import Cell, CellFiles
from neuron_vs_sae.studies.loaded import Loaded
from neuron_vs_sae.studies.record import RECORD, analysis_in, digests_of, read_record, unsound


def assembled(
    analysis: Analysis[Any], loaded: Loaded[Any], places: Mapping[Cell, CellFiles], folder: Path
) -> dict[str, str]:
    """Have the analysis put its finished cells together; returns the SHA-256 of every file that it wrote, by name.

    Those are the study's values, which nothing else in the folder could give back.
    """
    for name in analysis.files:  # so that what is there afterwards was written now
        files.remove(folder / name)
    analysis.assemble(loaded, places, folder)
    return digests_of(folder, analysis.files)


def finish(name: str, folder: Path) -> Any:
    """The result in a folder whose values are all there, with all that is derived from them written (again) and listed.

    Raises `FolderError` where a value is missing or damaged, or the folder cannot be written.
    """
    analysis = analysis_called(name)
    result = analysis.load(folder)
    analysis.summarise(result)
    report_of(name)(result)
    record: dict[str, Any] = result.record
    derived = digests_of(folder, [file for file in analysis.files if file not in record["primary"]])
    standing = {"derived": derived, "finished": {*record["primary"], *derived} >= {*analysis.files}}
    if any(record[key] != value for key, value in standing.items()):
        files.write_json(folder / RECORD, record | standing)
        record.update(standing)  # the result says what the folder says
    return result


def report(folder: Path | str) -> Any:
    """The result in a folder, all that is derived from its values written again. Raises `FolderError` as `finish` does."""
    folder = Path(folder)
    name = analysis_in(folder)
    analysis_called(name).load(folder)  # before a lock makes the folder
    with files.locked(folder):
        return finish(name, folder)


def mend(folder: Path | str) -> None:
    """Write what is derived from the values again where some of it is missing or damaged; else touch nothing.

    Raises `FolderError` where the folder holds no finished study, or a value is missing or damaged.
    """
    folder = Path(folder)
    analysis = analysis_called(analysis_in(folder))
    record = read_record(folder, analysis.spec)
    if record is not None and record["primary"] and (not record["finished"] or unsound(folder, record["derived"])):
        report(folder)
