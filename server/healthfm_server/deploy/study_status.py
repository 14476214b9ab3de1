"""What a study is doing, read from its folder: for the command line and the public port."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from healthfm_server.deploy.audit_log import AuditLog
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.run_folder.run_store import RunStore


def study_status(study: StudyFolder) -> dict[str, Any]:
    """Return sites and runs of a study as plain values; the same for every reader."""
    return {
        "study": study.settings.study,
        "url": study.settings.url,
        "sites": [_site(study, name) for name in sorted(study.sites.sites())],
        "runs": [run_status(order) for order in RunOrder.all(study.runs)],
    }


def run_status(order: RunOrder) -> dict[str, Any]:
    """Return what a run is doing."""
    status, store = order.status(), RunStore(order.folder, keep=1)
    history, choice = store.history(), store.choice()
    last = history[-1] if history else {}
    return {
        "run": order.name,
        "wanted": order.wanted,
        "state": status.state,
        "rounds_done": order.rounds_done(),
        "rounds": order.config().federation.rounds,
        "submissions": status.submissions,
        "reason": status.reason,
        "chosen_round": "" if choice is None else choice.sentence(),
        "answered": last.get("answered", []),
        "set_aside": last.get("set_aside", {}),
        "metrics": last.get("metrics", {}),
    }


def _site(study: StudyFolder, name: str) -> dict[str, Any]:
    site = study.sites.site(name)
    seen = last_connections(study.audit("status")).get(name, "")
    return {
        "site": name,
        "state": "revoked" if site.revoked else "admitted",
        "modalities": list(site.modalities),
        "last_connected": seen,
    }


def last_connections(log: AuditLog) -> dict[str, str]:
    """Return when each site's node last connected, by the audit log."""
    return {row["site"]: row["at"] for row in log.rows() if row["event"] == "site connected"}


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
    return f"{site['site']}: {site['state']}; {', '.join(site['modalities'])}{when}"
