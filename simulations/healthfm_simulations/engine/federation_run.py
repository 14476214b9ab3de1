"""One simulated federation, from configuration and sites to the final model."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from healthfm_client.app import make_app as make_client_app
from healthfm_client.local_work import LocalWork
from healthfm_core.arrays import Float32
from healthfm_core.config.run import RunConfig
from healthfm_core.errors import ConfigError, RunError
from healthfm_core.federation.early_stopping import RoundChoice
from healthfm_core.federation.protocol import Study
from healthfm_server.app import make_app as make_server_app
from healthfm_server.clock import SYSTEM_CLOCK
from healthfm_server.run_folder.run_progress import ProgressEvent
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.study_setup.model_setup import ModelSetup
from healthfm_simulations.engine import inprocess
from healthfm_simulations.engine.nodes import NodeSpec
from healthfm_simulations.engine.regions import regional_grid
from healthfm_simulations.network.network_grid import NetworkGrid

__all__ = [
    "Apps",
    "Engine",
    "FederationResult",
    "NodeSpec",
    "ProgressEvent",
    "core_apps",
    "rounds_done",
    "run_federation",
]

Engine = Literal["inprocess", "ray"]


@dataclass(frozen=True)
class Apps:
    """What the apps work with; `core_apps()` is the real thing, a test brings three numbers."""

    server: ModelSetup
    client: LocalWork


@dataclass(frozen=True)
class FederationResult:
    """A finished run.

    Attributes:
        parameters: The final global model, float32: the last round's, or the one chosen.
        study: Its contract.
        history: A row per round (see `healthfm_server.round_loop`).
        choice: Which round's model it is, where the run was to choose.
    """

    parameters: Mapping[str, Float32]
    study: Study
    history: list[dict[str, Any]]
    choice: RoundChoice | None = None


def run_federation(
    config: RunConfig,
    nodes: Sequence[NodeSpec],
    folder: Path,
    *,
    resume: bool = False,
    progress: Callable[[ProgressEvent], None] | None = None,
    engine: Engine | None = None,
    apps: Apps | None = None,
    until: int | None = None,
) -> FederationResult:
    """Run a federation over `nodes` and return its result; `folder` is its run folder.

    Args:
        config: The run's configuration.
        nodes: The sites.
        folder: Where checkpoints, history and events go.
        resume: Continue the run in `folder`; one that was not begun yet is begun.
        progress: Hears of every reply and every round.
        engine: ``inprocess`` or ``ray``; None is the configuration's.
        apps: What the apps work with; None is the real thing.
        until: Stop after this round, as if the coordinator had been stopped; other nodes may go on
            with `resume`. None runs to the end.

    Raises:
        RunError: The folder holds another run (HF-702, HF-704), a checkpoint is damaged (HF-703),
            the run was interrupted and can be resumed (HF-705), or Ray did not start (HF-706).
        ProtocolError: Too few sites answered (HF-403) or none has what the model needs (HF-406).
    """
    _check_names(nodes)
    hashes = [hashlib.sha256(node.name.encode()).hexdigest() for node in nodes]  # fit any disk
    nodes = [
        replace(node, state=folder / "sites" / name[:16])
        for node, name in zip(nodes, hashes, strict=True)
    ]
    apps = apps or core_apps()
    stop = threading.Event()

    until = config.federation.rounds if until is None else until

    def hear(event: ProgressEvent) -> None:
        if progress is not None:
            progress(event)
        if event.phase == "round" and event.round == until < config.federation.rounds:
            stop.set()

    run_config: dict[str, str | int | float | bool] = {
        "config": config.model_dump_json(),
        "folder": str(folder),
        "resume": resume and (folder / "config.json").exists(),
        "nodes": _nodes_of(config, nodes),
    }
    try:
        if (engine or config.simulation.engine) == "ray":
            from healthfm_simulations.engine.on_ray import simulate  # where wanted: it is heavy

            server = make_server_app(apps.server, hear, stop.is_set)
            simulate(server, make_client_app(apps.client), nodes, run_config, config.simulation)
        else:
            grid = _grid(config, nodes, folder, apps.client, stop.is_set)
            clock = grid.clock if isinstance(grid, NetworkGrid) else SYSTEM_CLOCK
            server = make_server_app(apps.server, hear, stop.is_set, clock)
            inprocess.run_on(grid, server, run_config)
    except KeyboardInterrupt as interrupt:
        raise interrupted(folder) from interrupt
    except RunError as error:
        if error.number != 705 or not stop.is_set():
            raise
    finally:
        stop.set()
    return _result(folder, config)


def _nodes_of(config: RunConfig, nodes: Sequence[NodeSpec]) -> int:
    """Return how many nodes the coordinator waits for: who trains alone has no region."""
    return config.simulation.regions if config.simulation.regions and len(nodes) > 1 else len(nodes)


def _grid(
    config: RunConfig,
    nodes: Sequence[NodeSpec],
    folder: Path,
    work: LocalWork,
    stopped: Callable[[], bool],
) -> inprocess.InProcessGrid:
    """Return the grid of a run in this process, with its regions or its simulated lines."""
    if config.simulation.regions and len(nodes) > 1:
        return regional_grid(config, nodes, folder, make_client_app(work), stopped)
    if not config.network.enabled:
        return inprocess.InProcessGrid(make_client_app(work), nodes)
    history = RunStore(folder, keep=1).history() if RunStore.begun(folder) else []
    shown_s = [float(row["simulated_s"]) for row in history if "simulated_s" in row]
    folder.mkdir(parents=True, exist_ok=True)
    return NetworkGrid.over(work, nodes, config, folder, begin_s=max(shown_s, default=0.0))


def rounds_done(folder: Path) -> int:
    """Return how many rounds the run in `folder` has completed; 0 where there is none."""
    return max(RunStore(folder, keep=1).checkpoints.rounds(), default=0)


def core_apps() -> Apps:
    """Return the real work of server and site."""
    from healthfm_client.core_local_work import CoreLocalWork as ClientWork
    from healthfm_server.study_setup.core_model_setup import CoreModelSetup

    return Apps(CoreModelSetup(), ClientWork())


def _result(folder: Path, config: RunConfig) -> FederationResult:
    store = RunStore(folder, config.federation.keep_checkpoints)
    study, state, choice = store.study(), store.result(), store.choice()
    if study is None or state is None:
        raise interrupted(folder)
    return FederationResult(state.parameters, study, store.history(), choice)


def _check_names(nodes: Sequence[NodeSpec]) -> None:
    names = [node.name for node in nodes]
    if not names or len(set(names)) < len(names):
        raise ConfigError(
            103,
            where="nodes",
            seen="no site, or two sites of one name",
            wanted="every site has a name of its own",
            do="Rename one of the two",
        )


def interrupted(folder: Path) -> RunError:
    """Return the error of a run in `folder` that was stopped, and can be gone on with."""
    return RunError(705, where=str(folder), seen="the run was interrupted")
