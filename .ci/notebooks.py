"""Runs the notebooks in quick mode and stores what they print and draw: `python .ci/notebooks.py`.

The documentation shows them as they are stored: figures, and what the cells print. Progress lines
are left out.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "colabs"


def with_outputs(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """The notebook after a run from top to bottom, in that folder."""
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(
        notebook,
        timeout=1800,
        kernel_name="python3",
        resources=resources,
        record_timing=False,
        coalesce_streams=True,
    ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if stays(each)]
            cell.execution_count = None
            for each in cell.outputs:
                if "execution_count" in each:
                    each["execution_count"] = None
    return notebook


def stays(output: nbformat.NotebookNode) -> bool:
    """Whether an output is none of progress, which comes as standard error or as displayed text."""
    if output.output_type == "display_data":
        return "image/png" in output.data
    return output.get("name") != "stderr"


def main(files: list[Path]) -> None:
    """Run those files, or all notebooks, and write them back."""
    os.environ["JAXTICKETS_QUICK"] = "1"
    for file in files or sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            notebook = with_outputs(nbformat.read(file, as_version=4), Path(folder))
        nbformat.write(notebook, file)
        print(f"{file}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
