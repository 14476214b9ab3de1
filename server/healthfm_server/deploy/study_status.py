"""What a study is doing, read from its folder: for the command line and the public port."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from healthfm_core.federation.code_overlap import (
    overlap_sentence,
    told_coverage,
    told_devices,
)
from healthfm_server.deploy.audit_log import AuditLog
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.run_folder.run_store import RunStore

CONNECTED: Final = "site connected"
LOOKED_AT: Final = 8
"""Files of the audit log, 16 MiB each, that are looked through for a site's last connection."""


def study_status(study: StudyFolder) -> dict[str, Any]:
    """Return sites and runs of a study as plain values; the same for every reader."""
    seen = last_connections(study.audit("status"))
    return {
        "study": study.settings.study,
        "url": study.settings.url,
        "sites": [_site(study, name, seen) for name in sorted(study.sites.sites())],
        "runs": [run_status(order) for order in RunOrder.all(study.runs)],
    }


def run_status(order: RunOrder) -> dict[str, Any]:
    """Return what a run is doing."""
    status, store = order.status(), RunStore(order.folder, keep=1)
    history, choice = store.history(), store.choice()
    last = history[-1] if history else {}
    events = store.events()
    coverage = told_coverage(events)
    return {
        "run": order.name,
        "wanted": order.wanted,
        "state": status.state,
        "rounds_done": order.rounds_done(),
        "rounds": order.config().federation.rounds,
        "submissions": status.submissions,
        "reason": status.reason,
        "coverage": coverage,
        "codes": overlap_sentence(coverage),
        "devices": told_devices(events),
        "chosen_round": "" if choice is None else choice.sentence(),
        "answered": last.get("answered", []),
        "set_aside": last.get("set_aside", {}),
        "outliers": last.get("outliers", {}),
        "metrics": last.get("metrics", {}),
    }


def _site(study: StudyFolder, name: str, seen: Mapping[str, str]) -> dict[str, Any]:
    site = study.sites.site(name)
    return {
        "site": name,
        "state": "revoked" if site.revoked else "admitted",
        "modalities": list(site.modalities),
        "last_connected": seen.get(name, ""),
    }


def last_connections(log: AuditLog) -> dict[str, str]:
    """Return when each site's node last connected, by the newest files of the audit log."""
    return {row["site"]: row["at"] for row in log.rows(CONNECTED, newest=LOOKED_AT)}


def status_lines(status: dict[str, Any]) -> Iterator[str]:
    """Yield a status as a person reads it."""
    yield f"study {status['study']} at {status['url']}"
    for site in status["sites"]:
        yield f"site {site_line(site)}"
    for run in status["runs"]:
        rounds = f"{run['rounds_done']} of {run['rounds']} rounds"
        again = f", submitted {run['submissions']} times" if run["submissions"] > 1 else ""
        yield f"run {run['run']}: {run['state']}, {rounds}{again}"
        if run["answered"]:
            yield f"  last round: {', '.join(run['answered'])} answered"
        if run["codes"]:
            yield f"  {run['codes']}"
        if run["devices"]:
            yield f"  {run['devices']}"
        for site, reason in run["outliers"].items():
            yield f"  {site} was held back: {reason}"
        for site, reason in run["set_aside"].items():
            yield f"  set aside: {site}: {reason}"
        if run["chosen_round"]:
            yield f"  {run['chosen_round']}"
        if run["reason"]:
            yield f"  {run['reason']}"


def site_line(site: dict[str, Any], never: str = "") -> str:
    """Return one site of a status as a person reads it; `never` ends it before its first call."""
    seen = site["last_connected"][:19]
    when = f", connected {seen}Z" if seen else never
    brings = ", ".join(site["modalities"]) or "modalities not said"
    return f"{site['site']}: {site['state']}; {brings}{when}"
