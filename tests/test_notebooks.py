"""Every notebook runs from top to bottom in its smoke size, is short, and is committed without outputs."""

import os
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
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


@pytest.fixture(scope="module")
def kernel():
    """A kernel that has loaded what all notebooks load; each begins in it with no name of another one."""
    manager, client = start_new_kernel(cwd=str(FOLDER), env=os.environ | {"STUDIO_SMOKE": "1"})
    client.stop_channels()
    yield manager
    manager.shutdown_kernel(now=True)
    manager.cleanup_resources()


@NOTEBOOKS
@pytest.mark.filterwarnings("default")
def test_it_runs(path, kernel):
    book = nbformat.read(path, as_version=4)
    book.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    client = NotebookClient(book, km=kernel, timeout=240, resources={"metadata": {"path": str(FOLDER)}})
    try:
        client.execute()
    finally:
        client.kc.stop_channels()
    last = [cell for cell in book.cells if cell.cell_type == "code"][-1]
    assert last.outputs
