"""Rounds of regression through real server and sites: resumed, in secret sums, what they reach."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tests.quiet_flower  # noqa: F401
from healthfm_core.config import RunConfig
from healthfm_core.federation.aggregation.regression_step import regressed
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.cohort.cohort_tables import RETURN_TASK
from healthfm_simulations.engine import NodeSpec, run_federation
from healthfm_simulations.sites import prepare_sites

ROUNDS = 6
SECURE = {"aggregation": {"secure": {"enabled": True, "ring_bits": 64, "clip": 50.0}}}


def config(**federation) -> RunConfig:
    return RunConfig.model_validate(
        {
            "seed": 1,
            "data": {"cohort": {"subjects": 120, "sites": 3, "years": 2, "wearable_hours": 3}},
            "tokens": {"k_min": 2, "max_len": 48, "bin_spread": True},
            "model": {"layers": 1, "width": 16, "heads": 2, "ffn": 32, "linear_logit": True},
            "train": {
                "objectives": {"next_visit": 0.0, "label": 1.0},
                "regression_rounds": ROUNDS - 1,
                "regression_penalty": 3.0,
                "max_steps": 2,
            },
            "evaluation": {"task": RETURN_TASK},
            "federation": {"rounds": ROUNDS, "evaluate_every": 0, **federation},
        }
    )


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> list[NodeSpec]:
    sites = prepare_sites(config(), tmp_path_factory.mktemp("cohort"))
    return [NodeSpec(site.name, [(site.path, None)]) for site in sites]


@pytest.fixture(scope="module")
def plain(nodes: list[NodeSpec], tmp_path_factory: pytest.TempPathFactory):
    return run_federation(config(), nodes, tmp_path_factory.mktemp("plain") / "run")


def test_each_step_lowers_the_loss_and_the_network_stays_as_round_one_left_it(
    plain, nodes: list[NodeSpec], tmp_path: Path
):
    losses = [row["metrics"]["loss_label"] for row in plain.history[1:]]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.01
    first = run_federation(config(), nodes, tmp_path / "first", until=1)
    moved = set(regressed(plain.parameters))
    for name, array in plain.parameters.items():
        assert np.array_equal(array, first.parameters[name]) == (name not in moved), name


def test_a_run_that_is_stopped_among_them_goes_on_to_the_same_weights(
    plain, nodes: list[NodeSpec], tmp_path: Path
):
    run_federation(config(), nodes, tmp_path / "run", until=4)
    remembered = RunStore.open(tmp_path / "run").checkpoints.load().optimizer.regression
    assert "step-1" in remembered  # it goes on with the curvature of three rounds
    resumed = run_federation(config(), nodes, tmp_path / "run", resume=True)
    for name, array in plain.parameters.items():
        assert array.tobytes() == resumed.parameters[name].tobytes(), name


def test_sums_that_hide_the_sites_give_the_same_regression(
    plain, nodes: list[NodeSpec], tmp_path: Path
):
    hidden = run_federation(config(**SECURE), nodes, tmp_path / "masked")
    for name in regressed(plain.parameters):
        np.testing.assert_allclose(hidden.parameters[name], plain.parameters[name], atol=1e-4)
