"""The notebooks: each is its source, executed. That they still run is seen in `.ci/run`, which executes them again."""

from pathlib import Path

import jupytext
import mutants
import nbformat
import pytest

SOURCES = sorted((mutants.ROOT / "notebooks").glob("*.py"))


def executed(source: Path) -> nbformat.NotebookNode:
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def test_every_notebook_has_its_source() -> None:
    assert (
        {file.stem for file in (mutants.ROOT / "notebooks").glob("*.ipynb")} == {file.stem for file in SOURCES} != set()
    )


@pytest.mark.parametrize("source", SOURCES, ids=lambda file: file.stem)
def test_a_notebook_is_its_source(source: Path) -> None:
    theirs, ours = ([(c.cell_type, c.source) for c in n.cells] for n in (jupytext.read(source), executed(source)))
    assert theirs == ours, "run `make notebooks`"


@pytest.mark.parametrize("source", SOURCES, ids=lambda file: file.stem)
def test_a_notebook_was_run_from_top_to_bottom_without_an_error(source: Path) -> None:
    cells = [cell for cell in executed(source).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    # A command in a cell (`!nvs ...`) that fails only prints that it did.
    assert "Traceback (most recent call last)" not in str([cell.outputs for cell in cells])


@pytest.mark.parametrize("source", SOURCES, ids=lambda file: file.stem)
def test_a_notebook_does_not_show_where_it_was_run(source: Path) -> None:
    shown = [output for cell in executed(source).cells for output in cell.get("outputs", [])]
    for place in (str(mutants.ROOT), str(Path.home()), "/tmp/"):
        assert place not in str(shown)


@pytest.mark.parametrize("source", SOURCES, ids=lambda file: file.stem)
def test_a_notebook_says_what_would_be_wrong_to_conclude(source: Path) -> None:
    text = "\n".join(cell.source for cell in executed(source).cells if cell.cell_type == "markdown")
    assert "wrong to conclude" in text or "no table here can show" in text


@pytest.mark.parametrize("source", SOURCES, ids=lambda file: file.stem)
def test_no_line_of_text_is_taken_for_a_comment(source: Path) -> None:
    """MyST leaves out what begins with a percent sign."""
    for cell in executed(source).cells:
        assert cell.cell_type == "code" or not any(line.startswith("%") for line in cell.source.splitlines())
