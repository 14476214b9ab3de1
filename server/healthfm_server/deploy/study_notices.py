"""What the coordinator's people are told of, found in what a study is doing."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from healthfm_core.notices.notice import Notice
from healthfm_core.notices.notice_settings import NoticeSettings
from healthfm_core.notices.watch import watch
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.deploy.study_status import study_status

TOLD_BEFORE: Final = timedelta(days=30)
"""How long before its end a certificate is spoken of."""
STATUS: Final = "See: healthfm-server status"


def study_notices(
    status: Mapping[str, Any],
    certificate_ends: datetime,
    now: datetime,
    settings: NoticeSettings,
) -> Iterator[Notice]:
    """Yield what holds now.

    Args:
        status: What `study_status` says.
        certificate_ends: When the gateway's certificate ends.
        now: The time, with its zone.
        settings: For how long something has to stand still.
    """
    patience_s = 60.0 * settings.stalled_minutes
    for alarm in status["alarms"]:
        yield Notice(f"alarm {alarm[:40]}", "alarm", "the study needs help", f"{alarm}. {STATUS}")
    for run in status["runs"]:
        if run["dry_run"]:  # whoever ordered it waits for its answers
            continue
        name, rounds = run["run"], f"{run['rounds_done']} of {run['rounds']} rounds"
        if run["state"] in ("finished", "failed"):
            why = f": {run['reason']}" if run["reason"] else ""
            yield Notice(
                f"run {name} {run['state']}",
                "ended",
                f"run {name} has {run['state']}",
                f"Run {name} has {run['state']} after {rounds}{why}. {STATUS}",
            )
        elif run["waits_for"]:
            waits = run["waits_for"]
            since = f"{waits['what']} {waits['since']}"
            yield Notice(
                f"run {name} waits {since}",
                "stalled",
                f"run {name} waits for {waits['what']}",
                f"Run {name}, {rounds}: {waits['sentence']}. {STATUS}",
                wait_s=patience_s,
            )
        elif run["state"] == "waiting":
            yield Notice(
                f"run {name} tried again",
                "stalled",
                f"run {name} does not go on",
                f"Run {name}, {rounds}, is tried again and again: {run['reason']}. {STATUS}",
                wait_s=patience_s,
            )
    if certificate_ends - now < TOLD_BEFORE:
        yield Notice(
            f"certificate {certificate_ends:%Y-%m-%d}",
            "certificate",
            f"the server's certificate ends on {certificate_ends:%Y-%m-%d}",
            f"The certificate that sites see at {status['url']} ends on "
            f"{certificate_ends:%Y-%m-%d}; after that no site can connect. "
            "Make a new one: healthfm-server rotate server",
        )


def look(study: StudyFolder, settings: NoticeSettings) -> list[Notice]:
    """Return what holds now at a study."""
    ends, now = study.certificate_ends(), datetime.now(UTC)
    return list(study_notices(study_status(study), ends, now, settings))


def told_by(study: StudyFolder) -> str:
    """Return what begins each notice's subject."""
    return f"HealthFM study {study.settings.study}"


def settings_of(study: StudyFolder) -> NoticeSettings:
    """Return how a study's people are told; paths are those of its folder."""
    return study.settings.notices.in_folder(study.path)


def tell_until(stopped: threading.Event, path: Path) -> None:
    """Tell what happens in the study in `path`; its ``study.yaml`` may be changed meanwhile."""
    watch(
        lambda: settings_of(StudyFolder.open(path)),
        lambda settings: look(StudyFolder.open(path), settings),
        path,
        told_by(StudyFolder.open(path)),
        stopped,
    )
