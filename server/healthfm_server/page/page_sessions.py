"""Who looks at the page: a session of a browser, begun with a token or with a one-time link."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from healthfm_server.deploy.access_tokens import AccessToken, AccessTokens

LONGEST_S: Final = 12 * 3600.0
"""A session ends after so long: a working day."""
LINK_S: Final = 3600.0
"""A one-time link that nobody opened is of no use after so long."""
MOST_SESSIONS: Final = 256
"""More end the oldest."""


@dataclass(frozen=True)
class Session:
    """One browser's.

    Attributes:
        token: The token that it stands for; when that is revoked the session has ended.
        until_s: When it ends, of the monotonic clock.
        form_secret: Stands in each form of the session and in no other site's.
    """

    token: AccessToken
    until_s: float
    form_secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    def sent_form(self, given: str) -> bool:
        """Whether a form came from a page of this session."""
        return hmac.compare_digest(given.encode(), self.form_secret.encode())


class PageSessions:
    """The sessions of one process, in memory alone: it ends, and all have ended.

    Args:
        tokens: Of the study.
        own: The token's entry that the one-time link stands for.
        clock: Tells the seconds.

    Attributes:
        clock: As given.
        cookie: Name of the cookie. It is this process's own: a browser sends a cookie to every
            port of a host.
    """

    def __init__(
        self,
        tokens: AccessTokens,
        own: AccessToken,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._tokens = tokens
        self._own = own
        self._links: dict[str, float] = {}
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        self.cookie = f"healthfm-{secrets.token_hex(8)}"

    def link_secret(self) -> str:
        """Return what a one-time link ends with; it opens one session, within an hour."""
        secret = secrets.token_urlsafe(32)
        self._links[_hash(secret)] = self.clock() + LINK_S
        return secret

    def begin(self, given: str) -> str | None:
        """Return the cookie of a new session; None where `given` is no token and no link's."""
        token = self._of_link(given) or self._tokens.of(given)
        if token is None:
            return None
        cookie = secrets.token_urlsafe(32)
        with self._lock:
            while len(self._sessions) >= MOST_SESSIONS:
                self._sessions.pop(next(iter(self._sessions)))
            self._sessions[_hash(cookie)] = Session(token, self.clock() + LONGEST_S)
        return cookie

    def of(self, cookie: str) -> Session | None:
        """Return the session of a cookie; None where it ended, or its token was revoked."""
        session = self._sessions.get(_hash(cookie))
        if session is None:
            return None
        if self.clock() < session.until_s and self._holds(session.token):
            return session
        self.end(cookie)
        return None

    def end(self, cookie: str) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(_hash(cookie), None)

    def _of_link(self, given: str) -> AccessToken | None:
        with self._lock:
            until_s = self._links.pop(_hash(given), None)
        return self._own if until_s is not None and self.clock() < until_s else None

    def _holds(self, token: AccessToken) -> bool:
        return self._tokens.all().get(token.name) == token


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
