"""The egress log: a line for everything that leaves this site, on disk before it leaves.

It stays here; nothing in it is about a person, since nothing that leaves is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from healthfm_core.errors import PolicyError
from healthfm_core.trust.chained_log import ChainedLog, Entry

FIRST: Final = hashlib.sha256(b"healthfm egress log 1").hexdigest()
"""What the first line names as the one before it."""


class EgressLog(ChainedLog):
    """One site's log; several processes may append to it.

    Args:
        path: Of the log; it is made when it is missing.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, first=FIRST)

    def append(self, what: str, facts: Mapping[str, Any]) -> Entry:
        """Put a line on disk and return it; what a kill cut short before is mended and noted.

        Args:
            what: The kind of message, or what else happened.
            facts: JSON: what left, with shapes and hashes.

        Raises:
            PolicyError: The line cannot be written (HF-507); then nothing may leave.
            TrustError: The log was changed or cut (HF-822).
        """
        try:
            return self.add([{"what": what, **facts}])[-1]
        except OSError as error:
            seen = f"it cannot be written: {error.strerror}"
            raise PolicyError(507, where=self.path.name, seen=seen) from error
