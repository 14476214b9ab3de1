"""What a study is doing, read from its folder: for the command line and the public port."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from healthfm_core.federation.code_overlap import (
    overlap_sentence,
    told_coverage,
    told_devices,
    told_roll_up,
)
from healthfm_core.federation.input_overlap import told_inputs
from healthfm_core.flower.flower_database import online_until
from healthfm_core.trust import fingerprint
from healthfm_core.trust.site_registry import AdmittedSite
from healthfm_server.deploy.audit_log import AuditLog
from healthfm_server.deploy.root_rotation import root_rotation
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.run_reading import RunReading
from healthfm_server.deploy.site_calls import CallTimes
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.run_folder.dry_run_file import DryRunTold
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.run_folder.run_waiting import Waiting

CONNECTED: Final = "site connected"
FULL_BYTES: Final = 256 * 2**20
"""With less room on its disk a study's rounds and orders may not be written."""
WORDS: Final[Mapping[str, str]] = {
    "begin": "would begin",
    "ask a person": "would ask a person there, who approves or denies",
    "refuse": "would refuse",
    "not connected": "is not connected",
    "no answer": "gave no answer",
}
"""What a site would do → how it is told."""
LOOKED_AT: Final = 8
"""Files of the audit log, 16 MiB each, that are looked through for a site's last connection."""


def study_status(
    study: StudyFolder,
    runs: Sequence[dict[str, Any]] | None = None,
    seen: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return sites and runs of a study as plain values; the same for every reader.

    Args:
        study: The study.
        runs: As `run_status` returns each; None: they are read now.
        seen: As `last_connections` returns it; None: it is read now.
    """
    if seen is None:
        seen = last_connections(study.audit("status"))
    sites = study.sites.sites()
    online, rotation = _online(study), root_rotation(study)
    calls = CallTimes.read(study.calls, time.time())
    return {
        "study": study.settings.study,
        "url": study.settings.url,
        "root_words": fingerprint.in_words(study.root_fingerprint()),
        "root_fingerprint": study.root_fingerprint(),
        "alarms": list(_alarms(study)),
        "rotation": None if rotation is None else {**asdict(rotation), "said": rotation.sentence()},
        "sites": [_site(sites[name], seen, online, calls) for name in sorted(sites)],
        "runs": [run_status(order, sites) for order in RunOrder.all(study.runs)]
        if runs is None
        else list(runs),
    }


def _alarms(study: StudyFolder) -> Iterator[str]:
    free = shutil.disk_usage(study.path).free
    if free < FULL_BYTES:
        yield (
            f"the disk of {study.path} has {free // 2**20} MiB left: rounds and orders may not "
            f"be written (HF-725); make room, then the runs go on by themselves"
        )


def _online(study: StudyFolder) -> dict[int, float] | None:
    """Return until when each node counts as connected; None where Flower's database is busy."""
    try:
        return online_until(study.database)
    except sqlite3.Error:
        return None


def run_status(
    order: RunOrder, sites: Mapping[str, AdmittedSite], reading: RunReading | None = None
) -> dict[str, Any]:
    """Return what a run is doing, and where it does nothing, what it waits for.

    Args:
        order: The run.
        sites: The study's, by name.
        reading: Of the run's folder; None: it is read now.
    """
    read = RunReading.of(order) if reading is None else reading
    status, last = order.status(), read.last
    choice, asked = RunStore(order.folder, keep=1).choice(), DryRunTold.read(order.folder)
    coverage, inputs = told_coverage(read.events), told_inputs(read.events)
    waits = _waits_for(order, sites) if status.state == "running" else None
    idle = waits is not None and waits["what"] != "answers"
    return {
        "run": order.name,
        "wanted": order.wanted,
        "state": "waiting" if idle else status.state,
        "waits_for": waits,
        "rounds_done": order.rounds_done(),
        "rounds": read.config.federation.rounds,
        "dry_run": asdict(asked or DryRunTold("")) if order.is_dry_run else None,
        "submissions": status.submissions,
        "reason": status.reason,
        "coverage": coverage,
        "codes": overlap_sentence(coverage),
        "rolled_up": told_roll_up(read.events),
        "devices": told_devices(read.events),
        "inputs": None if inputs is None else {**inputs.to_event(), "said": [*inputs.sentences()]},
        "chosen_round": "" if choice is None else choice.sentence(),
        "answered": last.get("answered", []),
        "set_aside": last.get("set_aside", {}),
        "outliers": last.get("outliers", {}),
        "metrics": last.get("metrics", {}),
        "alarms": last.get("alarms", []),
    }


def _waits_for(order: RunOrder, sites: Mapping[str, AdmittedSite]) -> dict[str, Any] | None:
    """Return what a run waits for, of which sites, since when; None where for nothing."""
    waiting = Waiting.read(order.folder)
    if waiting is None:
        return None
    names = {site.node_id: name for name, site in sites.items() if not site.revoked}
    if waiting.what == "connections":
        chosen = [name for name in names.values() if not order.sites or name in order.sites]
        there = {names.get(node) for node in waiting.nodes}
        missing = sorted(name for name in chosen if name not in there)
    else:
        missing = sorted(names.get(node, f"node {node}") for node in waiting.nodes)
    return {
        "what": waiting.what,
        "sites": missing,
        "since": waiting.since,
        "sentence": _sentence(waiting, missing),
    }


def _sentence(waiting: Waiting, missing: Sequence[str]) -> str:
    who = ", ".join(missing) or "nobody that is admitted"
    since = f"since {waiting.since[:19]}Z"
    if waiting.what == "connections":
        connected = f"{len(waiting.nodes)} of {waiting.of} sites are connected"
        return f"{connected}; waits {since} for {who}"
    if waiting.what == "approval":
        return (
            f"waits {since} until a person approves it at {who}"
            " (there: healthfm-client requests, then approve)"
        )
    part = f"round {waiting.phase}" if waiting.phase.isdigit() else waiting.phase
    answered = waiting.of - len(waiting.nodes)
    return f"{part}: {answered} of {waiting.of} sites answered; asked {since}: {who}"


def _site(
    site: AdmittedSite,
    seen: Mapping[str, str],
    online: Mapping[int, float] | None,
    calls: CallTimes | None,
) -> dict[str, Any]:
    until = None if online is None else online.get(site.node_id)
    now = datetime.now(UTC)
    connected = until is not None and until > now.timestamp() and not site.revoked
    if calls is not None:
        connected = connected and not calls.is_silent(site.name)
        until = calls.sites.get(site.name, until)
    return {
        "site": site.name,
        "state": "revoked" if site.revoked else "admitted",
        "modalities": list(site.modalities),
        "connected": None if online is None else connected,
        "last_seen": now.isoformat(timespec="seconds") if connected else _at(until),
        "last_connected": seen.get(site.name, ""),
    }


def _at(until: float | None) -> str:
    """Return the latest time at which a node may have called, ISO 8601 in UTC."""
    return "" if until is None else datetime.fromtimestamp(until, UTC).isoformat(timespec="seconds")


def last_connections(log: AuditLog) -> dict[str, str]:
    """Return when each site's node last connected, by the newest files of the audit log."""
    return {row["site"]: row["at"] for row in log.rows(CONNECTED, newest=LOOKED_AT)}


def status_lines(status: dict[str, Any]) -> Iterator[str]:
    """Yield a status as a person reads it."""
    yield f"study {status['study']} at {status['url']}"
    yield f"read to a site that joins: {status['root_words']}"
    for alarm in status["alarms"]:
        yield f"ALARM: {alarm}"
    if status["rotation"]:
        yield f"the root is being changed: {status['rotation']['said']}"
    for site in status["sites"]:
        yield f"site {site_line(site)}"
    for run in status["runs"]:
        yield from _run_lines(run)


def _run_lines(run: dict[str, Any]) -> Iterator[str]:
    rounds = f"{run['rounds_done']} of {run['rounds']} rounds"
    if run["dry_run"]:
        yield f"dry run {run['run']}: {run['state']}"
        yield from (f"  {line}" for line in dry_run_lines(run["dry_run"]))
        return
    again = f", submitted {run['submissions']} times" if run["submissions"] > 1 else ""
    yield f"run {run['run']}: {run['state']}, {rounds}{again}"
    if run["waits_for"]:
        yield f"  {run['waits_for']['sentence']}"
    if run["answered"]:
        yield f"  last round: {', '.join(run['answered'])} answered"
    if run["codes"]:
        yield f"  {run['codes']}"
    yield from (f"  {said}" for said in (run["rolled_up"], run["devices"]) if said)
    yield from (f"  {said}" for said in (run["inputs"] or {}).get("said", ()))
    for site, reason in run["outliers"].items():
        yield f"  {site} was held back: {reason}"
    for site, reason in run["set_aside"].items():
        yield f"  set aside: {site}: {reason}"
    if run["chosen_round"]:
        yield f"  {run['chosen_round']}"
    if run["reason"]:
        before = "the last try ended: " if run["state"] == "running" else ""
        yield f"  {before}{run['reason']}"


def dry_run_lines(told: dict[str, Any]) -> Iterator[str]:
    """Yield what came of a dry run as a person reads it; nothing while it goes on."""
    for name, one in told["sites"].items():
        reason = f": {one['reason']}" if one["reason"] else ""
        yield f"{name}: {WORDS[one['would']]}{reason}"
    if told["sites"]:
        yield told["said"]


def site_line(site: dict[str, Any], never: str = "") -> str:
    """Return one site of a status as a person reads it; `never` ends it before its first call."""
    seen = (site["last_seen"] or site["last_connected"])[:19]
    when = f", not connected; last seen {seen}Z" if seen else never
    if site["connected"] or site["connected"] is None:
        when = ", connected" if site["connected"] else ", whether it is connected is not known now"
    brings = ", ".join(site["modalities"]) or "modalities not said"
    return f"{site['site']}: {site['state']}; {brings}{when}"
