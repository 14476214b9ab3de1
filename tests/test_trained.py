"""A trained model as a folder, and what is asked of it."""

from __future__ import annotations

import doctest
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save as save_file

import tests.quiet_flower  # noqa: F401
from healthfm_core import trained
from healthfm_core.config.compose import compose
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import RunError
from healthfm_core.federation.protocol import VERSION, Study
from healthfm_core.tokens.statistics import merge, site_statistics
from healthfm_core.tokens.vocabulary import build_vocabulary
from healthfm_core.trained import TrainedModel, death_among
from healthfm_core.training import initial_parameters
from healthfm_server.__main__ import main
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.cohort import generate, write_sites
from healthfm_simulations.engine import run_federation
from tests import three_numbers as small
from tests.training.test_loop import SETTINGS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "using-a-trained-model.md"


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    config = compose(SETTINGS)
    paths = write_sites(generate(config.data.cohort, 0), tmp_path_factory.mktemp("sites"))
    return [SiteStore.open(path) for path in paths]


@pytest.fixture(scope="module")
def model(stores):
    config = compose(SETTINGS)
    merged = merge([site_statistics([store], config.tokens) for store in stores])
    vocabulary = build_vocabulary(merged, config.tokens)
    study = Study(VERSION, "first", config, vocabulary, ("ehr", "genomics", "wearable"))
    return TrainedModel(study, initial_parameters(study), round=0)


def test_a_folder_gives_back_the_model_bit_for_bit(model, tmp_path):
    model.save(tmp_path / "models" / "first")
    again = TrainedModel.load(tmp_path / "models" / "first")
    assert (again.study, again.round) == (model.study, 0)
    assert again.parameters.keys() == model.parameters.keys()
    assert all(np.array_equal(again.parameters[n], a) for n, a in model.parameters.items())
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["first"]
    card = (tmp_path / "models" / "first" / "README.md").read_text()
    assert model.study.vocabulary.hash in card
    assert "ehr, genomics, wearable" in card


def test_no_folder_is_overwritten(model, tmp_path):
    model.save(tmp_path / "first")
    with pytest.raises(RunError, match="HF-704"):
        model.save(tmp_path / "first")


def test_a_folder_with_parts_of_two_models_is_refused(model, tmp_path):
    other = replace(model, study=replace(model.study, run_id="second"))
    model.save(tmp_path / "first")
    other.save(tmp_path / "second")
    (tmp_path / "second" / "study.json").replace(tmp_path / "first" / "study.json")
    with pytest.raises(RunError, match=r"HF-707.*of another study"):
        TrainedModel.load(tmp_path / "first")
    with pytest.raises(RunError, match=r"HF-707.*no study\.json"):
        TrainedModel.load(tmp_path / "second")


def test_a_folder_of_a_release_with_fewer_settings_is_read(model, tmp_path):
    model.save(tmp_path / "first")
    raw = json.loads((tmp_path / "first" / "study.json").read_text())
    del raw["config"]["train"]["fedprox_mu"]
    text = json.dumps(raw, sort_keys=True, separators=(",", ":"))
    (tmp_path / "first" / "study.json").write_text(text)
    marks = {"study": hashlib.sha256(text.encode()).hexdigest(), "round": "0"}
    weights = save_file(dict(model.parameters), metadata=marks)
    (tmp_path / "first" / "model.safetensors").write_bytes(weights)
    assert TrainedModel.load(tmp_path / "first").study == model.study


def test_a_model_of_a_release_with_other_parameters_is_refused(model, stores):
    named = {name.replace("norm_ffn", "norm_mlp"): a for name, a in model.parameters.items()}
    with pytest.raises(RunError, match=r"HF-707.*not those that this release"):
        replace(model, parameters=named).embed(stores[0])


def test_weights_cut_short_are_refused(model, tmp_path):
    model.save(tmp_path / "first")
    weights = tmp_path / "first" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(RunError, match=r"HF-707.*cannot be read"):
        TrainedModel.load(tmp_path / "first")


def test_every_store_is_answered_whatever_it_lacks(model, stores):
    assert {len(store.modalities) for store in stores} >= {1, 3}
    for store in stores:
        found = model.embed(store)
        assert found.vector.shape == (len(found.subject_id), model.study.config.model.width)
        assert np.isfinite(found.vector).all()
        assert set(found.subject_id) <= set(store.subjects().tolist())
        assert (np.diff(found.time_us)[np.diff(found.subject_id) == 0] > 0).all()
        soon, later = (model.risks(store, horizon_days=days) for days in (90.0, 365.25))
        assert np.array_equal(later.time_us, found.time_us)
        assert soon.probability.shape == (len(found.time_us), len(model.study.vocabulary.targets))
        assert (soon.probability <= later.probability).all()
        assert (soon.probability >= 0).all()
        assert (later.probability <= 1).all()


def test_risks_are_refused_by_a_model_that_has_none(model, stores):
    objectives = model.study.config.train.objectives.model_copy(update={"time_to_event": 0.0})
    train = model.study.config.train.model_copy(update={"objectives": objectives})
    config = model.study.config.model_copy(update={"train": train})
    other = replace(model, study=replace(model.study, config=config))
    with pytest.raises(RunError, match="HF-708"):
        other.risks(stores[0], horizon_days=90.0)


@pytest.mark.parametrize("days", [0.0, -1.0, 730.5, float("nan")])
def test_a_horizon_that_the_model_knows_nothing_of_is_refused(model, stores, days):
    with pytest.raises(RunError, match=r"HF-708.*from now to 730 days"):
        model.risks(stores[0], horizon_days=days)


def test_predictions_are_the_risks_in_a_row_for_each_person_moment_and_target(model, stores):
    store = stores[0]
    risks = model.risks_at(store, horizon_days=30.0)
    table = model.predict(store, horizon_days=30.0)
    count = len(risks.targets)
    assert table.num_rows == len(risks.subject_id) * count > 0
    assert table["task"].to_pylist()[:count] == list(risks.targets)
    assert table["subject_id"].to_pylist()[::count] == risks.subject_id.tolist()
    assert table["prediction_time"].cast("int64").to_pylist()[::count] == risks.time_us.tolist()
    told = np.asarray(table["predicted_boolean_probability"]).reshape(-1, count)
    np.testing.assert_array_equal(told.astype(np.float32), risks.probability)


def test_a_model_without_a_label_predicts_none(model, stores):
    with pytest.raises(RunError, match="no head for a label"):
        model.predict(stores[0])


def test_who_dies_first_has_nothing_else_occur(model, stores, monkeypatch):
    assert death_among(("DX//A", "MEDS_DEATH")) == 1
    assert death_among(("DX//A",)) is None
    alone = model.risks(stores[0], horizon_days=365.0).probability
    monkeypatch.setattr(trained, "death_among", lambda targets: 1)
    competing = model.risks(stores[0], horizon_days=365.0).probability
    assert np.allclose(competing[:, 1], alone[:, 1], rtol=1e-5)
    assert (np.delete(competing, 1, 1) < np.delete(alone, 1, 1)).all()


def test_a_view_of_some_people_is_answered_as_the_store_is(model, stores):
    store = max(stores, key=lambda store: len(store.modalities))
    some = store.subjects()[3:8]
    whole = model.risks(store, horizon_days=90.0)
    part = model.risks(store.narrowed(subjects=some), horizon_days=90.0)
    rows = np.isin(whole.subject_id, some)
    assert np.array_equal(part.time_us, whole.time_us[rows])
    assert np.allclose(part.probability, whole.probability[rows], rtol=1e-5)


def test_the_page_does_what_it_shows(model, stores, tmp_path, monkeypatch):
    model.save(tmp_path / "models" / "first")
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / "mine").symlink_to(stores[0].path)
    monkeypatch.chdir(tmp_path)
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result == (0, 20)


def test_a_run_s_model_is_exported_by_its_coordinator(tmp_path, capsys):
    nodes = small.three_sites(tmp_path / "sites")
    run_federation(small.config(), nodes, tmp_path / "run", apps=small.apps())
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "model")]) == 0
    assert "the model after round" in capsys.readouterr().out
    state = RunStore.open(tmp_path / "run").checkpoints.load()
    exported = TrainedModel.load(tmp_path / "model")
    assert exported.round == state.round > 0
    assert exported.parameters.keys() == state.parameters.keys()
    assert all(np.array_equal(exported.parameters[n], a) for n, a in state.parameters.items())
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "x"), "--round", "99"]) == 8
    assert not (tmp_path / "x").exists()
    assert "HF-701" in capsys.readouterr().err
