"""Bearer tokens of people and their programs: random, shown once, kept as a hash, with a role."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, get_args

from healthfm_core.errors import TrustError
from healthfm_core.trust import files
from healthfm_core.trust.names import check_name

Role = Literal["coordinator", "viewer", "enrolment"]
"""``coordinator`` starts and stops runs, ``viewer`` looks, ``enrolment`` may hand in a request."""

ROLES: Final = get_args(Role)


@dataclass(frozen=True)
class AccessToken:
    """The entry of a token; the token itself is not kept.

    Attributes:
        name: Whose it is.
        role: What it permits.
        sha256: Hash of the token, which has 256 random bits.
        made: When, ISO 8601 in UTC.
    """

    name: str
    role: Role
    sha256: str
    made: str


class AccessTokens:
    """The tokens of a study, in one file that is replaced whole.

    Args:
        path: Of the file; one that is not there is an empty list.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> dict[str, AccessToken]:
        """Return the tokens by name.

        Raises:
            TrustError: The file is damaged or open to others (HF-802).
        """
        if not self._path.exists():
            return {}
        try:
            rows = json.loads(files.read_private(self._path, "the list of tokens"))
            return {row["name"]: AccessToken(**row) for row in rows}
        except (ValueError, KeyError, TypeError) as error:
            raise files.unusable(self._path, "the list of tokens is damaged") from error

    def add(self, name: str, role: Role) -> str:
        """Return a new token for `name`; it cannot be shown again.

        Raises:
            TrustError: The name has one already (HF-821), or cannot be used (HF-810).
        """
        known = self.all()
        if check_name(name, "token") in known:
            raise _refusal(name, "that name has a token already", "Revoke it first")
        token = secrets.token_urlsafe(32)
        made = datetime.now(UTC).isoformat(timespec="seconds")
        self._write({**known, name: AccessToken(name, role, _hash(token), made)})
        return token

    def revoke(self, name: str) -> None:
        """Revoke a token; it is refused from the next call on.

        Raises:
            TrustError: Nobody of that name has one (HF-821).
        """
        known = self.all()
        if known.pop(name, None) is None:
            raise _refusal(
                name, "nobody of that name has a token", "See: healthfm-server token list"
            )
        self._write(known)

    def of(self, token: str) -> AccessToken | None:
        """Return the entry of `token`; None where it was never given or was revoked."""
        hashed = _hash(token)
        for known in self.all().values():
            if hmac.compare_digest(known.sha256, hashed):
                return known
        return None

    def _write(self, tokens: dict[str, AccessToken]) -> None:
        rows = [asdict(token) for _, token in sorted(tokens.items())]
        files.replace(self._path, (json.dumps(rows, indent=1) + "\n").encode(), files.PRIVATE)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _refusal(name: str, seen: str, do: str) -> TrustError:
    return TrustError(
        821,
        where=f"token {name[:64]}",
        seen=seen,
        do=do,
    )
