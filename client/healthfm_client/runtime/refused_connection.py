"""Why the study does not let the node in, in a file: Flower itself says only that it ended."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from healthfm_client.doctor import connectivity
from healthfm_client.site.site_home import SiteHome
from healthfm_core.errors import HealthFMError
from healthfm_core.trust import files

FILE: Final = "refused.json"
RECENT: Final = timedelta(minutes=2)
"""A node that is refused tries again within that time, and finds why anew."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RefusedConnection:
    """The last reason.

    Attributes:
        at: When, ISO 8601 in UTC.
        reason: What stood in the way, in a sentence with a code.
    """

    at: str
    reason: str

    @classmethod
    def recent(cls, home: SiteHome, now: datetime | None = None) -> Self | None:
        """Return why the node was refused just now, None where it was not."""
        file = home.process / FILE
        if not file.is_file():
            return None
        found = cls(**json.loads(file.read_text("utf-8")))
        age = (now or datetime.now(UTC)) - datetime.fromisoformat(found.at)
        return found if age < RECENT else None


def note_refusal(home: SiteHome) -> str:
    """Find why the connection has ended, put it on disk and return it."""
    reason = _reason(home)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    files.replace(home.process / FILE, json.dumps({"at": at, "reason": reason}).encode())
    return reason


def _reason(home: SiteHome) -> str:
    try:
        errors = [finding.error for finding in connectivity.look(home) if finding.error]
    except HealthFMError as error:
        errors = [error]
    return str(errors[0]) if errors else "the study answers now; the connection had broken off"
