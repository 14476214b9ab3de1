"""The twin of the federated arm, and how alike the states of two arms are."""

from __future__ import annotations

import json

import numpy as np
import pytest

from healthfm_core.config.compose import compose
from healthfm_core.errors import ConfigError
from healthfm_simulations.__main__ import main
from healthfm_simulations.arms.arm_training import TWIN_SEED, config_of, train_arm
from healthfm_simulations.cross_validation import cross_validation_folds
from healthfm_simulations.secondary.arm_alignment import QueryStates, _same, alignment_rows
from healthfm_simulations.sites import prepare_sites
from tests.simulations.test_simulate_command import SMALL

ALIKE = [*SMALL, "rounds=1", "simulation.arms=[federated,twin]", "evaluation.state_alignment=true"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twin")
    config = compose(ALIKE)
    sites = prepare_sites(config, folder / "sites")
    (fold,) = cross_validation_folds(config, sites)
    models, vocabulary = {}, None
    for arm in ("federated", "twin", "fedavg"):
        done = train_arm(
            arm, config, fold, folder / arm, vocabulary=vocabulary, on_progress=lambda *_: None
        )
        models[arm] = done.models[""]
        vocabulary = models[arm].study.vocabulary
    return config, sites, fold, models


def test_a_twin_has_another_seed_and_all_else_the_same(trained):
    config, _, _, models = trained
    twin = config_of("twin", config)
    assert twin.seed == config.seed + TWIN_SEED
    assert twin.model_copy(update={"seed": config.seed}) == config_of("federated", config)
    one, other = models["federated"], models["twin"]
    assert one.study.vocabulary == other.study.vocabulary
    assert one.parameters.keys() == other.parameters.keys()
    assert not any(
        np.array_equal(one.parameters[name], other.parameters[name])
        for name in one.parameters
        if name.endswith("qkv.weight")
    )


def test_a_model_is_the_same_as_itself_and_no_twin_is(trained):
    config, sites, fold, models = trained
    both = {"federated": models["federated"], "twin": models["federated"]}
    same = {row.metric: row.value for row in alignment_rows(both, fold, sites, config)}
    assert same == {"cka": pytest.approx(1.0), "r2": pytest.approx(1.0, abs=1e-4)}
    rows = alignment_rows(models, fold, sites, config)
    assert {(row.arm, row.subset) for row in rows} == {
        ("twin", "federated"),
        ("fedavg", "federated"),
    }
    assert all(row.value < 0.999 for row in rows)


def test_states_are_compared_query_by_query_whoever_was_asked_more():
    one = QueryStates(np.eye(3, dtype=np.float32), np.array([7, 7, 8]), np.array([1, 2, 1]))
    other = QueryStates(
        np.arange(4, dtype=np.float32)[:, None], np.array([8, 7, 9, 7]), np.array([1, 1, 1, 3])
    )
    here, there = _same(one, other)
    np.testing.assert_array_equal(here, np.eye(3)[[2, 0]])
    np.testing.assert_array_equal(there, [[0], [1]])


def test_a_run_has_the_twin_the_alignment_and_no_baselines_where_none_are_wanted(tmp_path):
    out = tmp_path / "out"
    assert main([*ALIKE, "simulation.baselines=false", f"out={out}"]) == 0
    rows = json.loads((out / "metrics.json").read_text())
    visits = {row["arm"] for row in rows if row["task"] == "next_visit"}
    assert {"federated", "twin", "reachable", "ceiling"} <= visits
    assert not visits & {"linear", "repeat_history", "logistic_regression", "gradient_boosting"}
    alike = {row["metric"]: row["value"] for row in rows if row["task"] == "state_alignment"}
    assert alike.keys() == {"cka", "r2"}
    page = (out / "report.html").read_text()
    assert "state alignment: linear CKA" in page


@pytest.mark.parametrize("wrong", [["evaluation.protocol=leave_sites_out"], ["data=physionet2012"]])
def test_alignment_is_asked_at_next_visits_of_one_fold(wrong):
    with pytest.raises(ConfigError, match="state_alignment"):
        compose([*wrong, "evaluation.state_alignment=true"])
