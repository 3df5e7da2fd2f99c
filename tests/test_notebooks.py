"""Every notebook is kept without outputs, and (slow) runs from top to bottom without a warning that matters."""

import ast
import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
SECONDS = 600  # for one cell, on a machine that does other things besides


def named(path: Path) -> str:
    return path.stem


def test_there_are_notebooks():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_kept_without_outputs(path):
    book = json.loads(path.read_text())
    assert book["nbformat"] == 4
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    assert book["cells"][0]["cell_type"] == "markdown"
    assert "".join(book["cells"][0]["source"]).startswith("# ")
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            code = "".join(cell["source"])
            ast.parse("\n".join(line for line in code.splitlines() if not line.startswith("%")))
    assert path.stat().st_size < 20_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_valid(path):
    nbformat = pytest.importorskip("nbformat", reason="pip install 'neuroprior[lab]'")
    nbformat.validate(nbformat.read(path, as_version=4))


@pytest.mark.slow
@pytest.mark.timeout(SECONDS * 2)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_runs(path, tmp_path, monkeypatch):
    """In a folder of its own that looks like docs/notebooks: what a notebook leaves behind is left there."""
    nbformat = pytest.importorskip("nbformat", reason="pip install 'neuroprior[lab]'")
    nbclient = pytest.importorskip("nbclient", reason="pip install 'neuroprior[lab]'")
    pytest.importorskip("ipykernel", reason="pip install 'neuroprior[lab]'")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    folder = tmp_path / "docs" / "notebooks"
    folder.mkdir(parents=True)
    os.symlink(ROOT / "docs" / "results", tmp_path / "docs" / "results")
    book = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        book, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    said = [out for cell in book.cells for out in cell.get("outputs", ()) if out.get("name") == "stderr"]
    assert not said, said
    assert list(folder.iterdir()) == []
