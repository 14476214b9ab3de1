"""Who looks at a page: a session of a browser, begun with a token or with a one-time link."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

LONGEST_S: Final = 12 * 3600.0
"""A session ends after so long: a working day."""
LINK_S: Final = 3600.0
"""A one-time link that nobody opened is of no use after so long."""
MOST_SESSIONS: Final = 256
"""More end the oldest."""
MOST_LINKS: Final = 64
"""More end the oldest."""
SESSIONS: Final = "/s"
"""Under which every address of a session's pages begins."""

Who = TypeVar("Who")


@dataclass(frozen=True)
class Session(Generic[Who]):
    """One browser's.

    A browser sends a cookie to every port of a host, so that a program of somebody else on this
    machine could be sent it, once a person was lured there. It sends it to addresses below the
    cookie's path alone, and that has `key` in it, which nobody else knows.

    Attributes:
        who: Whom it stands for.
        until_s: When it ends, of the monotonic clock.
        form_secret: Stands in each form of the session and in no other site's.
        key: Part of the address of each of its pages.
    """

    who: Who
    until_s: float
    form_secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    key: str = field(default_factory=lambda: secrets.token_urlsafe(16), repr=False)

    @property
    def root(self) -> str:
        """What every address of its pages begins with, without a slash at its end."""
        return f"{SESSIONS}/{self.key}"

    def sent_form(self, given: str) -> bool:
        """Whether a form came from a page of this session."""
        return hmac.compare_digest(given.encode(), self.form_secret.encode())

    def has_key(self, given: str) -> bool:
        """Whether an address is one of this session's."""
        return hmac.compare_digest(given.encode(), self.key.encode())


class PageSessions(Generic[Who]):
    """The sessions of one process, in memory alone: it ends, and all have ended.

    Args:
        own: Whom the one-time link stands for.
        of_token: Returns whom a token stands for; None where it is not known.
        holds: Whether somebody may still look, as a token may be revoked.
        clock: Tells the seconds.

    Attributes:
        clock: As given.
        cookie: Name of the cookie, this process's own.
    """

    def __init__(
        self,
        own: Who,
        of_token: Callable[[str], Who | None] = lambda given: None,
        holds: Callable[[Who], bool] = lambda who: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._own = own
        self._of_token = of_token
        self._holds = holds
        self._links: dict[str, float] = {}
        self._sessions: dict[str, Session[Who]] = {}
        self._lock = threading.Lock()
        self.cookie = f"healthfm-{secrets.token_hex(8)}"

    def link_secret(self) -> str:
        """Return what a one-time link ends with; it opens one session, within an hour."""
        secret = secrets.token_urlsafe(32)
        with self._lock:
            while len(self._links) >= MOST_LINKS:
                self._links.pop(next(iter(self._links)))
            self._links[_hash(secret)] = self.clock() + LINK_S
        return secret

    def begin(self, given: str) -> tuple[str, Session[Who]] | None:
        """Return the cookie of a new session and it; None where `given` is no token and no link's.

        Args:
            given: A token, or what a one-time link ends with.
        """
        who = self._of_link(given) or self._of_token(given)
        return None if who is None else self.begin_for(who)

    def begin_for(self, who: Who) -> tuple[str, Session[Who]]:
        """Return the cookie of a new session and it, of somebody who is known by other means."""
        cookie, session = secrets.token_urlsafe(32), Session(who, self.clock() + LONGEST_S)
        with self._lock:
            while len(self._sessions) >= MOST_SESSIONS:
                self._sessions.pop(next(iter(self._sessions)))
            self._sessions[_hash(cookie)] = session
        return cookie, session

    def of(self, cookie: str) -> Session[Who] | None:
        """Return the session of a cookie; None where it ended, or its token was revoked."""
        session = self._sessions.get(_hash(cookie))
        if session is None:
            return None
        if self.clock() < session.until_s and self._holds(session.who):
            return session
        self.end(cookie)
        return None

    def end(self, cookie: str) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(_hash(cookie), None)

    def _of_link(self, given: str) -> Who | None:
        with self._lock:
            until_s = self._links.pop(_hash(given), None)
        return self._own if until_s is not None and self.clock() < until_s else None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
