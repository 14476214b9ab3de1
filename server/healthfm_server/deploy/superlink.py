"""The SuperLink's process: Flower's own server, on loopback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import uvicorn

from healthfm_server.deploy.flower_superlink import SuperLinkSettings, superlink_app
from healthfm_server.deploy.study_folder import LOOPBACK, StudyFolder


def serve(study: StudyFolder) -> None:
    """Serve on loopback until killed."""
    log = study.audit("superlink")

    def account(token: str) -> str | None:
        known = study.tokens.of(token)
        return known.name if known is not None and known.role == "coordinator" else None

    def note(event: str, details: Mapping[str, Any]) -> None:
        write = log.note_refusal if event == "control refused" else log.note
        write(event, details)

    port = study.settings.superlink_port
    app = superlink_app(
        SuperLinkSettings(study.database, study.superexec_secret.read_bytes(), port, account, note)
    )
    uvicorn.run(
        app, host=LOOPBACK, port=port, access_log=False, log_level="warning", proxy_headers=False
    )
