"""The notebooks of docs/notebooks run from the first cell to the last, in a kernel of their own."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from healthfm_core.config.compose import compose
from healthfm_core.errors import ConfigError, RunError
from healthfm_simulations.notebook import Result, simulate

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def executed(file, folder, monkeypatch):
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(folder / f".{name.lower()}"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(file, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, kernel_name="python3", resources=place, timeout=600).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell, kind="text/html"):
    """Return what a cell shows in the end, of one kind."""
    last = [out for out in cell.outputs if out.output_type == "execute_result"][-1]
    return last.data[kind]


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        (file,) = NOTEBOOKS
        folder = tmp_path_factory.mktemp("notebook")
        yield executed(file, folder, patched), folder


def test_a_cell_shows_how_far_the_run_is_and_then_that_it_is_done(cells):
    (first, *_), _ = cells
    bars = [out for out in first.outputs if out.output_type == "display_data"]
    assert [out.data["text/plain"] for out in bars] == ["done 100 %"]
    assert 'value="100"' in bars[0].data["text/html"]
    said = "".join(out.text for out in first.outputs if out.output_type == "stream")
    assert "120 people at 3 sites" in said
    assert "fold-0/federated" in said


def test_a_result_shows_its_arms(cells):
    (first, *_), folder = cells
    assert "federated − local" in shown(first)
    assert "\x1b" not in shown(first), "no colours of a terminal"
    assert "95 % intervals over" in shown(first)
    assert len(list((folder / "runs").glob("*/report.html"))) == 1


def test_tables_are_arrow_and_read_by_pandas(cells):
    (_, metrics, predictions, *_), _ = cells
    assert "federated - local" in shown(metrics)
    assert "logistic_regression" in shown(predictions)


def test_a_figure_has_colours_of_its_own(cells):
    (_, _, _, figure, names, *_), _ = cells
    assert "<svg" in shown(figure)
    assert "var(--" not in shown(figure)
    assert "curves" in shown(names, "text/plain")


def test_a_model_is_asked_about_a_store(cells):
    *_, asked = cells[0]
    for column in ("subject_id", "prediction_time", "task", "predicted_boolean_probability"):
        assert f"<th>{column}</th>" in shown(asked)


def test_notebooks_have_no_output_on_disk():
    """An output would be somebody's, of some day."""
    for file in NOTEBOOKS:
        for cell in nbformat.read(file, as_version=4).cells:
            assert not cell.get("outputs"), file.name
            assert cell.get("execution_count") is None


def test_settings_that_are_refused_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="rounds"):
        simulate("rounds=none")
    assert not list(tmp_path.iterdir())


def test_an_arm_without_a_model_is_told_with_those_that_have_one(tmp_path):
    run = tmp_path / "runs" / "fold-0" / "local" / "site-00"
    run.mkdir(parents=True)
    (run / "config.json").touch()
    result = Result(tmp_path, compose([]), (), {}, None)
    with pytest.raises(RunError, match=r"HF-701.*one of local/site-00 is wanted"):
        result.model("federated")
