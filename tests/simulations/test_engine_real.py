"""The engines over real stores, tokens and training, with the tiny model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tests.quiet_flower  # noqa: F401
from healthfm_client.core_local_work import CoreLocalWork
from healthfm_core.config import RunConfig
from healthfm_core.errors import RunError
from healthfm_core.federation.protocol import RoundOrder, RoundResult, Study
from healthfm_core.training import DriftCorrection, PrivacyPlan
from healthfm_simulations.engine import Apps, NodeSpec, run_federation
from healthfm_simulations.engine.federation_run import core_apps
from healthfm_simulations.sites import prepare_sites

CONFIG = RunConfig.model_validate(
    {
        "seed": 1,
        "data": {
            "cohort": {
                "subjects": 90,
                "sites": 3,
                "size_skew": 20.0,
                "wearable_hours": 6,
                "without_wearable": 0.0,
            }
        },
        "tokens": {"k_min": 2, "max_len": 64},
        "model": {"layers": 1, "width": 16, "heads": 2, "ffn": 32, "wearable_width": 8},
        "train": {"max_steps": 2, "batch_size": 8},
        "federation": {
            "rounds": 3,
            "aggregation": {"server_optimizer": {"name": "momentum", "lr": 0.5}},
        },
        "simulation": {"threads": 1},
    }
)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> list[NodeSpec]:
    """Three simulated sites, of which the first may use no wearables."""
    sites = prepare_sites(CONFIG, tmp_path_factory.mktemp("cohort"))
    views = [("ehr", "genomics"), None, None]
    return [
        NodeSpec(site.name, [(site.path, view)]) for site, view in zip(sites, views, strict=True)
    ]


class Interrupted(CoreLocalWork):
    """Real work that Ctrl-C ends in the middle of round 2."""

    def train_round(
        self,
        parameters: Mapping[str, Any],
        data: Any,
        study: Study,
        order: RoundOrder,
        private: PrivacyPlan | None = None,
        drift: DriftCorrection | None = None,
    ) -> RoundResult:
        """Train, or stop."""
        if order.round == 2:
            raise KeyboardInterrupt
        return super().train_round(parameters, data, study, order, private, drift)


def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(
    nodes: list[NodeSpec], tmp_path: Path
) -> None:
    whole = run_federation(CONFIG, nodes, tmp_path / "whole")
    apps = Apps(core_apps().server, Interrupted())
    with pytest.raises(RunError, match="HF-705"):
        run_federation(CONFIG, nodes, tmp_path / "run", apps=apps)
    resumed = run_federation(CONFIG, nodes, tmp_path / "run", resume=True)
    assert whole.parameters.keys() == resumed.parameters.keys()
    for name, value in whole.parameters.items():
        assert resumed.parameters[name].tobytes() == value.tobytes()
    first = whole.history[0]
    assert first["set_aside"] == {}
    assert first["groups"]["wearable"]["sites"] == 2
    assert first["groups"]["backbone"]["sites"] == 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.filterwarnings("ignore::FutureWarning:ray")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ray_gives_the_weights_of_the_in_process_engine(
    nodes: list[NodeSpec], tmp_path: Path
) -> None:
    here = run_federation(CONFIG, nodes, tmp_path / "here")
    there = run_federation(CONFIG, nodes, tmp_path / "there", engine="ray")
    for name, value in here.parameters.items():
        np.testing.assert_allclose(there.parameters[name], value, rtol=1e-5, atol=1e-6)
