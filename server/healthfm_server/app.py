"""The coordinator's app, on one screen: agree on a study, then run its rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from healthfm_core.config.run import RunConfig
from healthfm_core.errors import HealthFMError, RunError
from healthfm_core.federation.aggregation.method_registry import methods
from healthfm_core.federation.aggregation.server_optimizer import OptimizerState
from healthfm_core.federation.compression.error_feedback import uplink_compressor
from healthfm_core.federation.compression.reference_model import downlink_compressor
from healthfm_core.federation.protocol import Study
from healthfm_server.clock import SYSTEM_CLOCK, Clock
from healthfm_server.held_out_round import HeldOutRound
from healthfm_server.round_loop import RoundLoop
from healthfm_server.run_folder.checkpoints import ServerState
from healthfm_server.run_folder.held_out_file import HeldOutTold, is_judged_at_sites
from healthfm_server.run_folder.run_progress import ProgressListener, ignore_progress
from healthfm_server.run_folder.run_store import RunStore, note_failure
from healthfm_server.study_setup.connected_nodes import wait_for_nodes
from healthfm_server.study_setup.contract_signer import ContractSigner
from healthfm_server.study_setup.core_model_setup import CoreModelSetup
from healthfm_server.study_setup.dry_run import dry_run
from healthfm_server.study_setup.model_setup import ModelSetup
from healthfm_server.study_setup.registered_sites import RegisteredSite
from healthfm_server.study_setup.setup import StudySetup
from healthfm_server.transport.clear import ClearTransport
from healthfm_server.transport.exchange import Exchange, Timeouts
from healthfm_server.transport.interface import Transport
from healthfm_server.transport.orders import Orders
from healthfm_server.transport.secure import SecureTransport

RUN_IS_LOCKED: Final = 724
"""Another process works on the run: this one must not mark it as failed."""


@dataclass(frozen=True)
class RunRequest:
    """What the app is started with: scalars of Flower's run configuration.

    Attributes:
        config: ``config``: the run's configuration, as JSON.
        folder: ``folder``: the run folder.
        resume: ``resume``: whether to continue the run in it. In a deployment a run that was
            begun is always continued, because a killed process may have begun it.
        nodes: ``nodes``: how many nodes to wait for.
        only: ``only``: numbers of the nodes that the run is for, with commas; empty: all.
        timeouts: ``timeout_factor``: factor on deadline and life of messages, for an engine whose
            sites take turns. There no answer is lost, and none is given up before its deadline.
        signer: ``study``: folder of the study whose contracts are signed; none in a simulation.
        dry_run: ``dry_run``: whether the sites are only asked if they would begin.
    """

    config: RunConfig
    folder: Path
    resume: bool
    nodes: int
    only: frozenset[int]
    timeouts: Timeouts
    signer: ContractSigner
    dry_run: bool = False

    @classmethod
    def of(cls, context: Context) -> RunRequest:
        """Read the request from `context`."""
        raw, folder = context.run_config, Path(str(context.run_config["folder"]))
        config = RunConfig.model_validate_json(str(raw["config"]))
        factor = float(raw.get("timeout_factor", 1.0))
        federation = config.federation
        return cls(
            config=config,
            folder=folder,
            resume=bool(raw.get("resume", False)) or ("study" in raw and RunStore.begun(folder)),
            nodes=int(raw.get("nodes", 1)),
            only=frozenset(int(node) for node in str(raw.get("only", "")).split(",") if node),
            timeouts=Timeouts(
                federation.deadline_s * factor,
                federation.ttl_s * factor,
                federation.patience if "study" in raw else 0.0,
            ),
            signer=ContractSigner.of(Path(str(raw["study"])), folder.name)
            if "study" in raw
            else ContractSigner(),
            dry_run=bool(raw.get("dry_run", False)),
        )

    def asked_nodes(self) -> frozenset[int]:
        """Return the nodes that a dry run asks: those it is for, or all that are admitted."""
        registry = self.signer.registry
        if self.only or registry is None:
            return self.only
        admitted = registry.sites().values()
        return frozenset(site.node_id for site in admitted if not site.revoked)


def make_app(
    model_setup: ModelSetup,
    listener: ProgressListener = ignore_progress,
    stopped: Callable[[], bool] = lambda: False,
    clock: Clock = SYSTEM_CLOCK,
) -> ServerApp:
    """Return the coordinator's app.

    Args:
        model_setup: Builds vocabulary and initial parameters.
        listener: Called after every reply and every round.
        stopped: Asked between replies; when true the run ends with HF-705 and can be resumed.
        clock: By which it waits and tells how long rounds take.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        request = RunRequest.of(context)
        begin = RunStore.resume if request.resume else RunStore.create
        try:
            store = begin(request.folder, request.config)
            with store.held():
                (ask_only if request.dry_run else run_rounds)(grid, request, store)
        except HealthFMError as error:
            if request.folder.is_dir() and error.number != RUN_IS_LOCKED:
                with suppress(RunError):  # the disk is full: the error itself says so
                    note_failure(request.folder, error)
            raise

    def ask_only(grid: Grid, request: RunRequest, store: RunStore) -> None:
        exchange = Exchange(grid, request.folder, stopped, clock)
        nodes = request.asked_nodes()
        dry_run(grid, exchange, store, request.config, request.signer, nodes)

    def run_rounds(grid: Grid, request: RunRequest, store: RunStore) -> None:
        nodes = wait_for_nodes(
            grid,
            request.nodes,
            request.config.federation,
            request.timeouts.deadline_s,
            stopped,
            request.folder,
            request.only,
            clock,
        )
        exchange = Exchange(grid, request.folder, stopped, clock)
        setup = StudySetup(exchange, store, request.timeouts, listener, model_setup, request.signer)
        study = store.study() or setup.study(nodes, request.config)
        sites = setup.sites(nodes, study)
        state = store.checkpoints.load()
        if state is None:
            parameters = model_setup.initial_parameters(study, request.config)
            state = store.save(ServerState(0, parameters, OptimizerState()))
            del parameters
        store.forget_after(state.round)
        timeouts, signer = request.timeouts, request.signer
        loop = make_round_loop(study, sites, exchange, store, timeouts, listener, signer)
        loop.run(state)
        if signer.signer is not None and is_judged_at_sites(study.config):
            judge_model(loop, exchange, timeouts)

    return app


def judge_model(loop: RoundLoop, exchange: Exchange, timeouts: Timeouts) -> None:
    """Have the sites judge the model that a run ended with, unless they have already."""
    result = loop.store.result()
    if result is not None and HeldOutTold.read(loop.store.folder) is None:
        HeldOutRound(loop.study, loop.sites, exchange, timeouts, loop.orders, loop.store).run(
            result
        )


def make_round_loop(
    study: Study,
    sites: Mapping[str, RegisteredSite],
    exchange: Exchange,
    store: RunStore,
    timeouts: Timeouts,
    listener: ProgressListener = ignore_progress,
    signer: ContractSigner | None = None,
) -> RoundLoop:
    """Return the round loop with the algorithm and the transport that the study asks for."""
    config = study.config.federation.aggregation
    method = methods()[config.method]
    codec = study.config.federation.codec
    up, down = uplink_compressor(codec), downlink_compressor(codec)
    orders = Orders(study, sites, exchange, timeouts, signer or ContractSigner())
    transport: Transport = (
        SecureTransport(study, sites, exchange, timeouts, orders, down)
        if config.secure.enabled
        else ClearTransport(sites, exchange, timeouts, orders, method, config, up, down)
    )
    return RoundLoop(study, sites, method, transport, orders, store, listener)


app = make_app(CoreModelSetup())
"""The coordinator's app, as pyproject.toml names it to Flower."""
