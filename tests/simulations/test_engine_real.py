"""The engines over real stores, tokens and training, with the tiny model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import tests.quiet_flower  # noqa: F401
from healthfm_client.core_local_work import CoreLocalWork
from healthfm_core.config import RunConfig
from healthfm_core.errors import ProtocolError, RunError
from healthfm_core.federation.protocol import RoundOrder, RoundResult, Study
from healthfm_core.training import DriftCorrection, PrivacyPlan
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.engine import Apps, NodeSpec, run_federation
from healthfm_simulations.engine.federation_run import Engine, core_apps
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
    """Real work that ends in the middle of a round, by Ctrl-C unless another error is given."""

    def __init__(self, round_: int, error: BaseException | None = None) -> None:
        self._round = round_
        self._error = error or KeyboardInterrupt()

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
        if order.round == self._round:
            raise self._error
        return super().train_round(parameters, data, study, order, private, drift)


def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(
    nodes: list[NodeSpec], tmp_path: Path
) -> None:
    whole = run_federation(CONFIG, nodes, tmp_path / "whole")
    apps = Apps(core_apps().server, Interrupted(2))
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
def test_ray_gives_the_weights_of_the_in_process_engine_and_its_error(
    nodes: list[NodeSpec], tmp_path: Path
) -> None:
    """Both end in round 3, in which no site answers; a start of Ray takes long, so there is one."""
    heard: dict[str, list[int]] = {"inprocess": [], "ray": []}
    engines: tuple[Engine, ...] = ("inprocess", "ray")
    for engine in engines:
        rounds = heard[engine]
        with pytest.raises(ProtocolError, match="HF-403"):
            run_federation(
                CONFIG,
                nodes,
                tmp_path / engine,
                apps=Apps(core_apps().server, Interrupted(3, ValueError("broken"))),
                engine=engine,
                progress=lambda event, to=rounds: (
                    to.append(event.round) if event.phase == "round" else None
                ),
            )
    assert heard["ray"] == heard["inprocess"] == [1, 2]
    states = [RunStore(tmp_path / engine, keep=1).checkpoints.load() for engine in engines]
    here, there = (state.parameters for state in states if state is not None)
    assert here.keys() == there.keys()
    for name, value in here.items():
        assert there[name].tobytes() == value.tobytes()
