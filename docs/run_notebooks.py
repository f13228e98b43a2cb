"""Execute the notebooks' sources and write them beside it with their outputs.

    python docs/run_notebooks.py               # all
    python docs/run_notebooks.py quickstart    # some

Numbers are the kernel's; what would differ from run to run without meaning anything (timings, ids) is left out.
"""

import argparse
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="notebooks, without ending [all]")
    names = parser.parse_args().names or sorted(source.stem for source in FOLDER.glob("*.py"))
    for name in names:
        started = time.time()
        notebook = executed(FOLDER / f"{name}.py")
        nbformat.write(notebook, FOLDER / f"{name}.ipynb")
        print(f"{name}: {time.time() - started:.0f} seconds")


def executed(source: Path) -> nbformat.NotebookNode:
    """The notebook of a py:percent source with its outputs. Raises `CellExecutionError` where a cell fails."""
    notebook = jupytext.read(source)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": source.parent}}
    ).execute()
    notebook.metadata = nbformat.from_dict(
        {
            "jupytext": {"formats": "ipynb,py:percent"},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python", "pygments_lexer": "ipython3"},
        }
    )
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata.pop("execution", None)
        # Progress bars and library chatter are no result.
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    return notebook


if __name__ == "__main__":
    main()
