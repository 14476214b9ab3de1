"""The ensemble of the local models: whom it asks, and what it makes of the answers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from healthfm_core.config.compose import compose
from healthfm_core.federation.protocol import Study
from healthfm_simulations.__main__ import main
from healthfm_simulations.arms.arm_training import config_of, shared_vocabulary
from healthfm_simulations.arms.ensemble import mean_of
from healthfm_simulations.cross_validation import cross_validation_folds
from healthfm_simulations.scoring.model_scores import EVERYTHING, Model, readable
from healthfm_simulations.sites import SimulatedSite, prepare_sites
from tests.simulations.test_model_scores import scored
from tests.simulations.test_simulate_command import SMALL

ALONE = [*SMALL, "rounds=1", "evaluation.inputs=[wearable]"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble") / "out"
    assert main([*ALONE, "simulation.arms=[ensemble,federated,local]", f"out={folder}"]) == 0
    return folder


def test_the_mean_is_of_probabilities_query_by_query():
    one, other = scored([(0, 7, 10), (0, 7, 20)]), scored([(0, 7, 30), (0, 7, 60)])
    found = mean_of({"a": one, "b": other})
    np.testing.assert_allclose(found.predictions.score, [0.2, 0.2, 0.4, 0.4])
    assert found.time_us.tolist() == [10, 20]


def test_it_answers_the_very_people_and_trains_nothing_of_its_own(finished):
    rows = json.loads((finished / "metrics.json").read_text())
    people = {row["arm"]: row["n_subjects"] for row in rows if row["subset"] == "overall"}
    assert people["ensemble"] == people["federated"] == people["local"] > 0
    assert "federated - ensemble" in people
    assert sorted(p.name for p in (finished / "runs" / "fold-0").iterdir()) == [
        "federated",
        "local",
    ]


def test_a_model_without_the_encoder_has_no_say_on_wearables_alone(finished):
    """Two of the four sites hold wearables; only their models hear a wearable, and only there."""
    rows = json.loads((finished / "metrics.json").read_text())
    alone = {row["arm"] for row in rows if row["subset"] == "wearable"}
    assert {"ensemble", "federated"} <= alone


def test_without_the_other_arms_it_trains_the_local_models(tmp_path):
    folder = tmp_path / "out"
    assert main([*SMALL, "rounds=1", "simulation.arms=[ensemble]", f"out={folder}"]) == 0
    rows = json.loads((folder / "metrics.json").read_text())
    arms = {row["arm"] for row in rows}
    assert "ensemble" in arms
    assert "local" not in arms
    models = folder / "runs" / "fold-0" / "local"
    studies = [Study.from_json(p.read_text()) for p in models.glob("*/study.json")]
    assert len(studies) == 4
    assert len({study.vocabulary.to_json() for study in studies}) == 1


def test_the_vocabulary_agreed_on_beforehand_is_the_federated_run_s(finished):
    config = compose([*ALONE, f"out={finished}", "resume=true"])
    sites = prepare_sites(config, finished / "sites")
    found = shared_vocabulary(config, cross_validation_folds(config, sites)[0])
    run = finished / "runs" / "fold-0" / "federated" / "study.json"
    assert found.to_json() == Study.from_json(run.read_text()).vocabulary.to_json()


def test_what_a_model_can_read_is_held_shown_and_known(finished):
    run = finished / "runs" / "fold-0" / "federated" / "study.json"
    study = replace(Study.from_json(run.read_text()), modalities=("ehr", "genomics"))
    held = SimulatedSite("s", finished / "sites" / "site-00", ("ehr", "wearable"))
    assert readable(Model(study, {}), held, EVERYTHING) == {"ehr"}
    assert readable(Model(study, {}), held, "wearable") == frozenset()


def test_the_centralised_arm_may_have_a_budget_of_its_own():
    given = ["local_epochs=2", "batch_size=64", "lr=1e-4", "server_optimizer=false"]
    config = compose([f"simulation.centralised.{one}" for one in given])
    own, federated = config_of("centralised", config), config_of("federated", config)
    assert (own.train.local_epochs, own.train.batch_size, own.train.lr) == (2.0, 64, 1e-4)
    assert own.federation.aggregation.server_optimizer.name == "none"
    assert federated.train == config.train
    assert federated.federation.aggregation.server_optimizer.name == "momentum"
    assert config_of("centralised", compose([])) == config_of("federated", compose([]))
