"""The notebooks: each runs from first cell to last, at a size at which it learns nothing, and is fit to be read."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TINY = {"ZOO_NOTEBOOK_STEPS": "2", "ZOO_NOTEBOOK_WIDTH": "8", "ZOO_NOTEBOOK_DATES": "80", "ZOO_NOTEBOOK_LABELLED": "32"}

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
# The others compile longer than the suite's budget allows.
run_notebook = pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[] if p.stem == "seq2seq_to_attention" else pytest.mark.slow) for p in NOTEBOOKS],
    ids=lambda path: path.stem,
)


def figures(cell) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


@run_notebook
def test_a_notebook_runs_from_top_to_bottom_and_draws_its_figures(path, tmp_path, monkeypatch):
    elsewhere = {"TMPDIR": tmp_path, "IPYTHONDIR": tmp_path, "JUPYTER_RUNTIME_DIR": tmp_path / "runtime"}
    compile_fast = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": ROOT}
    for name, value in (TINY | elsewhere | compile_fast).items():
        monkeypatch.setenv(name, str(value))
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.pop("outputs", None)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    drawing = [cell for cell in notebook.cells if "plt.show()" in cell.source]
    assert drawing
    assert all(figures(cell) == 1 for cell in drawing)


@every_notebook
def test_a_notebook_installs_the_project_only_where_it_cannot_be_imported(path, monkeypatch):
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if "pip install" in cell.source]
    assert len(cells) == 1
    magics = []
    shell = SimpleNamespace(run_line_magic=lambda *words: magics.append(words))
    code = compile(TransformerManager().transform_cell(cells[0]), path.name, "exec")
    exec(code, {"get_ipython": lambda: shell})
    assert magics == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exec(code, {"get_ipython": lambda: shell})
    assert [name for name, _ in magics] == ["pip"]


@every_notebook
def test_a_notebook_is_committed_with_small_figures_and_without_errors(path):
    cells = nbformat.read(path, as_version=4).cells
    assert path.stat().st_size < 500_000
    assert all(figures(cell) == 1 for cell in cells if "plt.show()" in cell.source)
    assert not [o for cell in cells for o in cell.get("outputs", []) if o.output_type == "error"]


@every_notebook
def test_a_notebook_opens_in_colab_and_is_linked_from_the_front_page(path):
    head = nbformat.read(path, as_version=4).cells[0].source
    assert f"https://colab.research.google.com/github/seqzoo/seqzoo/blob/main/notebooks/{path.name}" in head
    assert f"(notebooks/{path.name})" in (ROOT / "README.md").read_text(encoding="utf-8")
