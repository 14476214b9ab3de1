"""A study's status with its processes: what ``status --json`` prints and the API answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.deploy.study_process import PROCESSES
from healthfm_server.deploy.study_status import study_status
from healthfm_server.deploy.study_supervision import supervision


def study_overview(study: StudyFolder) -> dict[str, Any]:
    """Return sites, runs, alarms and processes of a study as plain values."""
    return with_processes(study_status(study), supervision(study).states())


def with_processes(status: Mapping[str, Any], processes: Mapping[str, str]) -> dict[str, Any]:
    """Return a status with the processes' states, in which no run is told as running without.

    Args:
        status: As `study_status` returns it.
        processes: Name → state, in the supervisor's words; empty where the study is down.
    """
    runs = interrupted(status["runs"], processes)
    return {**status, "runs": runs, "processes": dict(processes)}


def interrupted(
    runs: Iterable[Mapping[str, Any]], processes: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return runs as they are where processes that they need may not run."""
    idle = sorted(p for p in PROCESSES if not processes.get(p, "").startswith("RUNNING"))
    return [{**run, **(_without(idle) if idle and _works(run) else {})} for run in runs]


def _works(run: Mapping[str, Any]) -> bool:
    return run["state"] in ("running", "waiting")


def _without(idle: Sequence[str]) -> dict[str, Any]:
    down = f"the study's {', '.join(idle)} does not run; it goes on when it does"
    return {"state": "interrupted", "waits_for": None, "reason": down}
