"""The notebook works on a finished run, from top to bottom, wherever it is started."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks/explore_run.ipynb"
MAGIC_OF_PNG = "iVBORw0KGgo"


@pytest.fixture
def notebook(monkeypatch, tmp_path):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "jupyter"))
    return nbformat.read(NOTEBOOK, as_version=4)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run_with(notebook, started_in, **values):
    """Set variables of the notebook as a reader would, in place, and execute it."""
    for name, value in values.items():
        (cell,) = [each for each in code_of(notebook) if f"\n{name} = " in f"\n{each.source}"]
        lines = [f"{name} = {value!r}" if line.startswith(f"{name} = ") else line for line in cell.source.splitlines()]
        cell.source = "\n".join(lines)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": started_in}}).execute()


def shown_by(cell):
    """The media types of a cell's outputs with their contents."""
    rich = [item for output in cell.outputs if "data" in output for item in output.data.items()]
    return rich + [("stream", output.text) for output in cell.outputs if output.output_type == "stream"]


def test_it_is_stored_without_outputs(notebook):
    assert code_of(notebook)[0].source.startswith("RUN = None")
    for cell in code_of(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None


def test_it_shows_a_finished_run(notebook, finished_run):
    run_with(notebook, ROOT, RUN=str(finished_run), IS_RIGHT=True)
    shown = [shown_by(cell) for cell in code_of(notebook)]
    assert shown[0] == []
    assert all(shown[1:])
    assert all(output.output_type != "error" for cell in code_of(notebook) for output in cell.outputs)
    assert not [text for outputs in shown for kind, text in outputs if kind == "stream" and "Warning" in text]
    pictures = [text for outputs in shown for kind, text in outputs if kind == "image/png"]
    assert len(pictures) == 5  # two curves, the gap, the confusion matrix, calibration
    assert all(text.startswith(MAGIC_OF_PNG) for text in pictures)
    summary = (finished_run / "report/summary.txt").read_text(encoding="utf-8")
    verdict = dict(shown[2])["stream"].splitlines()[0]
    assert verdict in " ".join(summary.split())
    tables = [text for outputs in shown for kind, text in outputs if kind == "text/html"]
    assert [table.split("</th>")[0].split(">")[-1] for table in tables] == ["", "epoch", "label", "path", "path"]
    epochs, labels = tables[1], tables[2]
    assert epochs.count("<tr>") == 1 + 16
    assert all(f">{label}</td>" in labels for label in ("ledger", "program", "recipe"))


def test_from_its_own_folder_it_takes_the_newest_run(notebook, finished_run, tmp_path):
    (tmp_path / "outputs/day").mkdir(parents=True)
    (tmp_path / "outputs/day/time").symlink_to(finished_run)
    (tmp_path / "notebooks").mkdir()
    run_with(notebook, tmp_path / "notebooks")
    assert dict(shown_by(code_of(notebook)[1]))["stream"] == "outputs/day/time: 16 epochs, 3 labels\n"
