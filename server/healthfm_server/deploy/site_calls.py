"""When each site called last, as the gateway sees it: a node that lives calls every few seconds.

Flower counts a node as connected for twice the time between two heartbeats, a minute. But a node
asks for messages every three seconds, and while it computes whether its run still runs, every two:
whoever has not called for `SILENT_S` is not there. A node that is killed ends its connection with
it, and then `GONE_S` do; a machine that loses its power ends nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

SILENT_S: Final = 7.0
"""A site that has not called for so long does not count as connected."""
GONE_S: Final = 4.0
"""Nor does one that has no connection and has not called for so long, longer than its pauses."""
WRITE_S: Final = 1.0
STALE_S: Final = 5.0
"""What a gateway that does not write any more has seen says nothing of now."""
FILE: Final = "site-calls.json"


class SiteCalls:
    """Keeps the times of the sites' calls, and writes them for other processes.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._began = time.time()
        self._sites: dict[str, float] = {}

    def note(self, site: str) -> None:
        """Note that a site called, or sent or took a piece of something, now."""
        self._sites[site] = time.time()

    def write(self, connections: Collection[str]) -> None:
        """Write the times.

        Args:
            connections: Sites that have a connection just now.

        Raises:
            OSError: The disk does not take them.
        """
        seen = CallTimes(time.time(), self._began, dict(self._sites), tuple(sorted(connections)))
        partial = self._path.with_name(f".{self._path.name}.tmp")
        partial.write_text(seen.to_json(), "utf-8")
        partial.replace(self._path)


@dataclass(frozen=True)
class CallTimes:
    """What a gateway has seen; times are Unix times.

    Attributes:
        at: When it wrote this.
        began: When it started.
        sites: Site → when it called last.
        connections: Sites that had a connection; None where that is not known.
    """

    at: float
    began: float
    sites: Mapping[str, float]
    connections: Collection[str] | None = None

    @classmethod
    def read(cls, path: Path, now_s: float) -> Self | None:
        """Return what the gateway that runs now has seen; None where none does."""
        try:
            seen = cls(**json.loads(path.read_text("utf-8")))
        except (FileNotFoundError, ValueError, TypeError):  # no gateway of this release ran
            return None
        return seen if abs(now_s - seen.at) <= STALE_S else None

    def to_json(self) -> str:
        """Return it as JSON."""
        sites = {site: round(at, 1) for site, at in self.sites.items()}
        found = {"at": self.at, "began": self.began, "sites": sites}
        return json.dumps(found | {"connections": self.connections})

    def is_silent(self, site: str) -> bool:
        """Whether a site has not called for too long, since the gateway runs."""
        is_gone = (
            self.connections is not None and site in self.sites and site not in self.connections
        )
        return self.at - self.sites.get(site, self.began) > (GONE_S if is_gone else SILENT_S)
