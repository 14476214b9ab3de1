"""Switches that keep Flower and Ray from phoning home; set before either is imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

QUIET: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Environment of every process of a federation; the last only stills a warning of Ray's."""


def supervised(folder: Path) -> dict[str, str]:
    """Return the environment of a folder's supervised processes; loopback needs no proxy.

    Args:
        folder: Takes Flower's own files.
    """
    unproxied = filter(None, ("127.0.0.1,localhost", os.environ.get("NO_PROXY")))
    flower = str((folder / "flower").resolve())
    return {**QUIET, "NO_PROXY": ",".join(unproxied), "FLWR_HOME": flower}


def keep_quiet() -> None:
    """Set `QUIET` in this process and so in its children, whatever was there before."""
    os.environ.update(QUIET)
