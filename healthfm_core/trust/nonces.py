"""Nonces that were used and must not be used again, on disk before they count as used."""

from __future__ import annotations

import os
import re
import secrets
from datetime import datetime
from pathlib import Path
from typing import Final

from healthfm_core.trust import files

KEPT_S: Final = 86_400
"""A nonce is kept this much longer than it is valid, in case the clock is set back."""
_NONCE: Final = re.compile(r"[0-9a-f]{32}")


def new_nonce() -> str:
    """Return 128 random bits, in hexadecimal."""
    return secrets.token_hex(16)


def is_nonce(text: str) -> bool:
    """Whether `text` looks like what `new_nonce` returns."""
    return _NONCE.fullmatch(text) is not None


class UsedNonces:
    """A folder with an empty file per used nonce, named by when it expires and by the nonce.

    Making a file that must not exist is one step for the file system: of two processes one uses
    the nonce, and a kill leaves it used or unused. It is on disk before `spend` returns.

    Args:
        folder: It is made when it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def spend(self, nonce: str, until: datetime, now: datetime) -> bool:
        """Use `nonce` and return True; return False where it was used before.

        Args:
            nonce: From `new_nonce`.
            until: When it expires; signed together with it.
            now: The time; what expired long before is forgotten.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._forget(now)
        path = self._folder / f"{until.timestamp():.0f}-{nonce}"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, files.PRIVATE))
        except FileExistsError:
            return False
        files.flush_folder(self._folder)
        return True

    def _forget(self, now: datetime) -> None:
        for path in self._folder.iterdir():
            until = path.name.partition("-")[0]
            if until.isdigit() and int(until) + KEPT_S < now.timestamp():
                path.unlink(missing_ok=True)
