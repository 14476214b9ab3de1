"""Engines that run the real apps of server and site on one machine: in-process, or on Ray."""

from healthfm_simulations.engine.federation_run import (
    Apps,
    FederationResult,
    NodeSpec,
    ProgressEvent,
    rounds_done,
    run_federation,
)

__all__ = ["Apps", "FederationResult", "NodeSpec", "ProgressEvent", "rounds_done", "run_federation"]
