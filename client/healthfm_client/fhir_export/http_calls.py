"""Calls to a FHIR server: of bounded size, tried again where that helps, never led elsewhere.

A token goes to trusted origins alone, and not along with a redirect to another one. What a server
says is told as plain characters, so many of them.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final, Protocol

import httpx

from healthfm_client.fhir_export.origins import TrustedOrigins, origin_of
from healthfm_core.errors import HealthFMError, IngestError

CONNECT_S: Final = 30.0
SILENT_S: Final = 300.0
"""A server that says nothing for so long is taken for gone."""
TRIES: Final = 5
REDIRECTS: Final = 5
MOST_BYTES: Final = 4 * 1024**2
"""Of an answer that is no file and no list of files."""
BUSY: Final = frozenset({429, 502, 503, 504})
"""Statuses that ask to come again."""
_LONGEST_S: Final = 60.0
_REDIRECT: Final = frozenset({301, 302, 303, 307, 308})
Sleep = Callable[[float], None]


class TokenSource(Protocol):
    """Where an access token comes from."""

    def token(self) -> str:
        """Return one that still holds."""

    def drop(self) -> None:
        """Forget the one there is: the server did not take it."""


class OutOfTimeError(IngestError):
    """The time that was given has run out; another run may go on."""


@dataclass(frozen=True)
class HttpAnswer:
    """A whole answer.

    Attributes:
        status: HTTP's.
        headers: By name, whatever its case.
        body: Unpacked.
        url: What was asked, redirects followed.
    """

    status: int
    headers: httpx.Headers
    body: bytes
    url: str


@dataclass
class HttpCalls:
    """Calls to one FHIR server and to the hosts named beside it.

    Attributes:
        client: Carries them; follows no redirect by itself.
        origins: Where they may go.
        until: Of `clock`: no waiting beyond it.
        sleep: Waits for seconds.
        clock: Seconds, of a clock that only goes forward.
        hours: What `until` was made from, for a sentence.
    """

    client: httpx.Client
    origins: TrustedOrigins
    hours: float
    sleep: Sleep = time.sleep
    clock: Callable[[], float] = time.monotonic
    until: float = field(init=False)

    def __post_init__(self) -> None:
        self.until = self.clock() + 3600 * self.hours

    def answer(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        form: Callable[[], Mapping[str, str]] | None = None,
        tokens: TokenSource | None = None,
        most_bytes: int = MOST_BYTES,
        tries: int = TRIES,
        again: bool = True,
    ) -> HttpAnswer:
        """Ask, and return the whole answer, whatever its status.

        Args:
            method: HTTP's.
            url: Of a trusted origin.
            headers: Beside those of every call.
            form: Makes what is sent as a form, anew for each try.
            tokens: Where the token comes from; None sends none.
            most_bytes: The answer may have so many, unpacked.
            tries: At most; what is still busy after them is returned.
            again: Whether asking twice does no harm where no answer came.

        Raises:
            IngestError: HF-328 where there is no answer, HF-329 where it is too large, HF-331 where
                time is up, HF-332 where it leads elsewhere.
        """
        for attempt in range(tries):
            last = attempt == tries - 1
            try:
                sent = None if form is None else form()
                with self.opened(method, url, headers, sent, tokens) as response:
                    if response.status_code not in BUSY or last:
                        body = self._whole(response, most_bytes)
                        code = response.status_code
                        return HttpAnswer(code, response.headers, body, str(response.url))
                    wait = retry_after(response.headers, attempt)
            except httpx.TransportError as error:
                if last or not _helps(error, again):
                    raise unreachable(url, error) from error
                wait = backoff(attempt)
            self.pause(wait)
        raise ValueError("tries is at least 1")

    @contextmanager
    def opened(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        tokens: TokenSource | None = None,
    ) -> Iterator[httpx.Response]:
        """Give an answer of which only the head was read.

        A token that is not taken is fetched anew, once.

        Raises:
            IngestError: HF-332.
            httpx.TransportError: There is none.
        """
        response = self._followed(method, url, headers, form, tokens)
        try:
            if response.status_code == httpx.codes.UNAUTHORIZED and tokens is not None:
                response.close()
                tokens.drop()
                response = self._followed(method, url, headers, form, tokens)
            yield response
        finally:
            response.close()

    def pause(self, seconds: float) -> None:
        """Wait.

        Raises:
            IngestError: HF-331 where that is beyond the time there is.
        """
        self.check_time(seconds)
        if seconds > 0:
            self.sleep(seconds)

    def check_time(self, ahead_s: float = 0.0) -> None:
        """Raise HF-331 where the time there is has run out, or will have in so many seconds."""
        if self.clock() + ahead_s > self.until:
            raise OutOfTimeError(
                331,
                where=str(self.origins.server),
                seen=f"the server was not done within {self.hours:g} hours",
                wanted="all files within the time given",
                do="Give --resume to go on waiting, with more --hours",
            )

    def _followed(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        form: Mapping[str, str] | None,
        tokens: TokenSource | None,
    ) -> httpx.Response:
        """Return the open answer at the end of a few redirects."""
        start = origin_of(self.origins.checked(url, url, "an address of the FHIR server"))
        for _ in range(REDIRECTS + 1):
            sent = dict(headers or {})
            if tokens is not None and origin_of(url) == start:
                sent["Authorization"] = f"Bearer {tokens.token()}"
            request = self.client.build_request(method, url, headers=sent, data=form)
            response = self.client.send(request, stream=True)
            if method != "GET" or response.status_code not in _REDIRECT:
                return response
            response.close()
            to = response.headers.get("location", "")
            url = self.origins.checked(to, url, "a redirect of the FHIR server")
        raise not_understood(url, f"it redirects more than {REDIRECTS} times")

    def _whole(self, response: httpx.Response, most_bytes: int) -> bytes:
        parts, size = [], 0
        for part in response.iter_bytes():
            size += len(part)
            if size > most_bytes:
                seen = f"the answer has more than {most_bytes:,} bytes"
                raise not_understood(str(response.url), seen)
            parts.append(part)
            self.check_time()
        return b"".join(parts)


def new_client(ca: Path | None) -> httpx.Client:
    """Return a client that trusts the authorities of a file, or else this machine's.

    A proxy is taken from HTTPS_PROXY and NO_PROXY; none stands before this machine itself.

    Raises:
        IngestError: HF-327 where the file has no certificates.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        seen = "ca names no file of certificates (PEM)"
        raise IngestError(327, where="ca" if ca is None else ca.name, seen=seen) from error
    here = dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]"))
    return httpx.Client(
        verify=context,
        timeout=httpx.Timeout(SILENT_S, connect=CONNECT_S),
        follow_redirects=False,
        mounts=here,
        headers={"User-Agent": "healthfm-client"},
    )


def retry_after(headers: httpx.Headers, attempt: int) -> float:
    """Return how many seconds a server asks to wait; where it says nothing, ever longer."""
    said = headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit() and len(said) < 10:
        return float(said)
    try:
        then = parsedate_to_datetime(said)
    except (ValueError, TypeError):
        return backoff(attempt)
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())


def backoff(attempt: int) -> float:
    """Return how long to wait after so many tries: not at all after the first, then ever longer."""
    return min(_LONGEST_S, 2.0 ** (attempt - 1)) if attempt else 0.0


def plain(text: object, most: int = 200) -> str:
    """Return what a server said on one line, so many characters, none that moves a terminal."""
    line = " ".join(str(text).split())
    kept = "".join(c if c.isascii() and c.isprintable() else "?" for c in line[: most + 1])
    return kept if len(kept) <= most else kept[: most - 3] + "..."


def not_understood(where: str, seen: str) -> IngestError:
    """Return the error for an answer that is none (HF-329)."""
    return IngestError(329, where=short(where), seen=seen)


def unreachable(url: str, error: httpx.TransportError) -> HealthFMError:
    """Return the error behind a connection that failed (HF-328)."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return IngestError(
                328,
                where=short(url),
                seen=f"its certificate is not trusted: {plain(cause.verify_message)}",
                wanted="a certificate for that name, of an authority that this machine trusts",
                do="Name your hospital's authority with ca in the server file",
            )
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.TimeoutException):
        return IngestError(328, where=short(url), seen="it did not answer in time")
    if isinstance(error, httpx.ConnectError | httpx.ProxyError):
        return IngestError(328, where=short(url), seen="the connection was refused")
    return IngestError(328, where=short(url), seen="the connection broke off")


def short(url: str) -> str:
    """Return an address without what may be a secret in it: its query."""
    return plain(url.partition("?")[0].partition("#")[0])


def _helps(error: httpx.TransportError, again: bool) -> bool:
    """Whether to try again after no answer came."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return False
        cause = cause.__cause__ or cause.__context__
    return again or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
