"""Flower's own simulation on Ray, with the same apps: for federations that outgrow one process."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from flwr.app import Context, Message, UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from healthfm_core.config.simulation import SimulationConfig
from healthfm_core.errors import RunError
from healthfm_core.federation.environment import QUIET
from healthfm_simulations.engine.nodes import NodeSpec

START_S: Final = 120.0
"""How long Ray may take to start; left alone it waits for an hour."""


class SiteOnRay(ClientApp):
    """The sites' app in a Ray worker, where Flower says only which of the nodes it plays.

    Args:
        app: The real app.
        configs: Node configuration of each site, in order.
        threads: Torch threads of the worker.
    """

    def __init__(self, app: ClientApp, configs: Sequence[UserConfig], threads: int) -> None:
        super().__init__()
        self._app = app
        self._configs = list(configs)
        self._threads = threads

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer as the site whose turn it is; its state stays in Flower's context."""
        torch.set_num_threads(self._threads)
        site = self._configs[int(context.node_config["partition-id"])]
        own = Context(context.run_id, context.node_id, site, context.state, context.run_config)
        return self._app(message, own)


class ConfiguredServer(ServerApp):
    """The coordinator's app with the run configuration that `run_simulation` cannot hand over.

    Args:
        app: The real app.
        run_config: What a deployment would pass with ``--run-config``.
    """

    def __init__(self, app: ServerApp, run_config: UserConfig) -> None:
        super().__init__()
        self._app = app
        self._run_config = run_config

    def __call__(self, grid: Grid, context: Context) -> None:
        """Run the app."""
        config = {**context.run_config, **self._run_config}
        self._app(grid, Context(context.run_id, context.node_id, {}, context.state, config))


def simulate(
    server: ServerApp,
    client: ClientApp,
    nodes: Sequence[NodeSpec],
    run_config: UserConfig,
    config: SimulationConfig,
) -> None:
    """Run `server` against the sites `nodes` to its end, the sites' work spread over Ray.

    Raises:
        RunError: Ray is not installed or did not start (HF-706).
        HealthFMError: What the server's app raises.
    """
    with _ray(config) as cpus:
        from flwr.simulation import run_simulation  # needs Ray; the in-process engine does not

        workers = max(1, int(cpus // config.threads))
        turns = math.ceil(len(nodes) / workers)
        run_simulation(
            ConfiguredServer(server, {**run_config, "timeout_factor": float(turns)}),
            SiteOnRay(client, [node.node_config() for node in nodes], config.threads),
            num_supernodes=len(nodes),
            backend_config={
                "client_resources": {"num_cpus": min(config.threads, cpus), "num_gpus": 0.0}
            },
        )


@contextmanager
def _ray(config: SimulationConfig) -> Iterator[int]:
    """Start or join Ray, give the number of its processors, and leave nothing behind."""
    if importlib.util.find_spec("ray") is None:
        raise _no_ray("the package is not installed", "Install healthfm[ray]")
    import ray

    flower = logging.getLogger("flwr")
    level, folder = flower.level, tempfile.mkdtemp(prefix="hfm-")
    done = threading.Event()
    flower.setLevel(logging.ERROR)
    try:
        _start(config.ray_address, folder, done)
        yield int(ray.cluster_resources().get("CPU", 1))
    finally:
        ray.shutdown()
        done.set()
        flower.setLevel(level)
        shutil.rmtree(folder, ignore_errors=True)


def _start(address: str | None, folder: str, done: threading.Event) -> None:
    """Start Ray on this machine, or join the one at `address`, within `START_S`.

    Args:
        address: Of a running cluster; None starts one here.
        folder: Takes what a cluster started here writes.
        done: Set when Ray is needed no more.
    """
    import ray

    os.environ.pop("RAY_ADDRESS", None)  # else `local` may join a cluster nobody asked for
    path = os.pathsep.join(filter(None, [*sys.path, os.environ.get("PYTHONPATH")]))
    options: dict[str, Any] = {
        "address": address or "local",
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": {"env_vars": {**QUIET, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}},
    }
    if address is None:
        options |= {"include_dashboard": False, "_temp_dir": folder}
    failure: list[Exception] = []
    ready = threading.Event()

    def begin() -> None:
        try:
            ray.init(**options)
        except Exception as error:
            failure.append(error)
        ready.set()
        done.wait()  # Ray's processes die with the thread that started them

    threading.Thread(target=begin, daemon=True).start()
    if not ready.wait(START_S):
        raise _no_ray(f"no answer in {START_S:.0f} s", "Check ray_address and free memory")
    if failure:
        raise _no_ray(type(failure[0]).__name__, "See Ray's own message above") from failure[0]


def _no_ray(seen: str, do: str) -> RunError:
    return RunError(
        706,
        where="simulation.engine=ray",
        seen=seen,
        do=f"{do}, or use simulation.engine=inprocess",
    )
