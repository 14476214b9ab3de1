"""A study's figures as Prometheus reads them; no count of people, and nothing one site told."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any, Final, get_args

from prometheus_client.core import GaugeMetricFamily

from healthfm_core.federation.metric_names import is_count
from healthfm_core.prometheus_text import exposition, gauge
from healthfm_server.deploy.run_orders import State
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.deploy.study_status import study_status

WAITS: Final = ("connections", "approval", "answers")
"""For what a run may wait."""


def study_metrics(study: StudyFolder) -> bytes:
    """Return a study's figures in Prometheus's text format."""
    status = study_status(study)
    gauges = [
        *_of_study(status, study.certificate_ends(), shutil.disk_usage(study.path).free),
        *_of_sites(status["sites"]),
        *_of_runs(status["runs"]),
    ]
    return exposition(gauges)


def _of_study(
    status: Mapping[str, Any], ends: datetime, free_bytes: int
) -> Iterator[GaugeMetricFamily]:
    said = (status["study"], version("healthfm"))
    yield gauge("healthfm_info", "always 1", ("study", "release"), {said: 1})
    alarms = len(status["alarms"])
    yield gauge("healthfm_alarms", "alarms of the study itself", (), {(): alarms})
    name = "healthfm_certificate_end_timestamp_seconds"
    yield gauge(name, "when the gateway's certificate ends", (), {(): ends.timestamp()})
    yield gauge("healthfm_disk_free_bytes", "room in the study's folder", (), {(): free_bytes})


def _of_sites(sites: Sequence[Mapping[str, Any]]) -> Iterator[GaugeMetricFamily]:
    admitted = [site for site in sites if site["state"] == "admitted"]
    known = {(s["site"],): int(s["connected"]) for s in admitted if s["connected"] is not None}
    yield gauge("healthfm_site_connected", "1 while a site calls", ("site",), known)
    seen = {
        (s["site"],): datetime.fromisoformat(s["last_seen"]).timestamp()
        for s in admitted
        if s["last_seen"]
    }
    name = "healthfm_site_last_seen_timestamp_seconds"
    yield gauge(name, "when a site called last", ("site",), seen)


def _of_runs(runs: Sequence[Mapping[str, Any]]) -> Iterator[GaugeMetricFamily]:
    for field, about in (
        ("rounds", "rounds that were ordered"),
        ("rounds_done", "rounds that have ended"),
        ("submissions", "how often the run was started"),
    ):
        yield gauge(f"healthfm_run_{field}", about, ("run",), {(r["run"],): r[field] for r in runs})
    for field, about in (
        ("answered", "sites taken in the newest round"),
        ("set_aside", "sites left out of the newest round"),
        ("outliers", "sites far from the others in the newest round"),
    ):
        counts = {(run["run"],): len(run[field]) for run in runs}
        yield gauge(f"healthfm_run_{field}_sites", about, ("run",), counts)
    alarms = {(run["run"],): len(run["alarms"]) for run in runs}
    yield gauge("healthfm_run_alarms", "alarms of the newest round", ("run",), alarms)
    states = {(r["run"], s): int(r["state"] == s) for r in runs for s in get_args(State)}
    yield gauge("healthfm_run_state", "1 for a run's state", ("run", "state"), states)
    waits = {(run["run"], what): _waits(run, what) for run in runs for what in WAITS}
    about = "sites that a run waits for, by what for"
    yield gauge("healthfm_run_waiting_sites", about, ("run", "what"), waits)
    told = {
        (run["run"], name): value
        for run in runs
        for name, value in run["metrics"].items()
        if not is_count(name) and math.isfinite(value)
    }
    about = "mean over the sites of the newest round, by the metric's name"
    yield gauge("healthfm_run_metric", about, ("run", "metric"), told)


def _waits(run: Mapping[str, Any], what: str) -> int:
    waits = run["waits_for"]
    return len(waits["sites"]) if waits and waits["what"] == what else 0
