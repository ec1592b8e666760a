"""Every notebook runs from top to bottom in its smoke size, is short, and is committed without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)


@NOTEBOOKS
def test_it_is_short_and_stripped(path):
    book = nbformat.read(path, as_version=4)
    assert len(book.cells) <= 12 and book.cells[0].cell_type == "markdown"
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert "STUDIO_SMOKE" in code[0].source
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


@NOTEBOOKS
@pytest.mark.filterwarnings("default")
def test_it_runs(path, monkeypatch):
    monkeypatch.setenv("STUDIO_SMOKE", "1")
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=240, resources={"metadata": {"path": str(FOLDER)}}).execute()
    last = [cell for cell in book.cells if cell.cell_type == "code"][-1]
    assert last.outputs
