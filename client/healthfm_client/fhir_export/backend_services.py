"""Access tokens by SMART Backend Services: a signed assertion of who asks, for a short-lived token.

The server says where tokens are given (``.well-known/smart-configuration``); the assertion is a JWT
that holds for four minutes and is used once (RFC 7523, SMART App Launch 2).
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from healthfm_client.fhir_export.http_calls import HttpAnswer, HttpCalls, not_understood, plain
from healthfm_client.fhir_export.server_file import FhirServer
from healthfm_client.fhir_export.signing_key import AssertionKey, base64url
from healthfm_core.errors import IngestError

DISCOVERY: Final = "/.well-known/smart-configuration"
ASSERTION_S: Final = 240
"""How long an assertion holds: below the five minutes allowed, for clocks that differ."""
RENEWED_BEFORE_S: Final = 60.0
"""A token is renewed so long before its end, or half way where it holds less than twice that."""
USUAL_LIFE_S: Final = 300.0
SKEW_S: Final = 30.0
"""Clocks that differ by more are named where a token is refused."""
_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class SmartConfiguration(msgspec.Struct):
    """What a server says of itself."""

    token_endpoint: str
    capabilities: list[str] = []
    token_endpoint_auth_signing_alg_values_supported: list[str] | None = None


class GivenToken(msgspec.Struct):
    """A token as a server gives it."""

    access_token: str
    token_type: str = "bearer"
    expires_in: float | None = None


class RefusedToken(msgspec.Struct):
    """Why a server gives none (RFC 6749, 5.2)."""

    error: str = ""
    error_description: str = ""


@dataclass
class BackendServices:
    """Gives tokens of one FHIR server, each as long as it holds.

    Attributes:
        calls: To the server.
        server: The server file.
        key: Of this site.
        wall_clock: Seconds since 1970, for assertions.
    """

    calls: HttpCalls
    server: FhirServer
    key: AssertionKey
    wall_clock: Callable[[], float] = time.time
    _token: str | None = field(default=None, init=False)
    _renew_at: float = field(default=0.0, init=False)
    _endpoint: tuple[str, str] | None = field(default=None, init=False)

    def token(self) -> str:
        """Return a token that still holds, a new one where the last is about to end.

        Raises:
            IngestError: HF-328 to HF-330, HF-332.
        """
        if self._token is None or self.calls.clock() >= self._renew_at:
            self._token = self._new()
        return self._token

    def drop(self) -> None:
        """Forget the token: the server did not take it."""
        self._token = None

    def _new(self) -> str:
        url, scope = self._endpoint = self._endpoint or self._found()
        asked = self.calls.clock()
        answer = self.calls.answer(
            "POST",
            url,
            headers={"Accept": "application/json"},
            form=lambda: {
                "grant_type": "client_credentials",
                "scope": scope,
                "client_assertion_type": _ASSERTION_TYPE,
                "client_assertion": self.assertion(url),
            },
        )
        if answer.status != 200:
            raise self._refused(answer)
        try:
            given = msgspec.json.decode(answer.body, type=GivenToken)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise not_understood(url, "it gives no token in JSON") from error
        usable = given.access_token.isascii() and given.access_token.isprintable()
        if not given.access_token or not usable or given.token_type.lower() != "bearer":
            raise not_understood(url, "it gives no bearer token")
        life = USUAL_LIFE_S if given.expires_in is None else max(0.0, given.expires_in)
        self._renew_at = asked + max(life - RENEWED_BEFORE_S, life / 2)
        return given.access_token

    def assertion(self, audience: str) -> str:
        """Return a signed assertion, to be used once, of who this site is."""
        head = {"alg": self.key.algorithm, "typ": "JWT"}
        head["kid"] = self.server.key_id or self.key.thumbprint
        who = self.server.client_id
        claims = {
            "iss": who,
            "sub": who,
            "aud": audience,
            "exp": int(self.wall_clock()) + ASSERTION_S,
            "jti": secrets.token_urlsafe(24),
        }
        parts = [base64url(json.dumps(part).encode("utf-8")) for part in (head, claims)]
        signed = ".".join(parts)
        return f"{signed}.{base64url(self.key.sign(signed.encode('ascii')))}"

    def _found(self) -> tuple[str, str]:
        """Return where tokens are given, and what to ask them for."""
        if self.server.token_url is not None:
            return self.server.token_url, self._scope(())
        url = self.server.url + DISCOVERY
        answer = self.calls.answer("GET", url, headers={"Accept": "application/json"})
        if answer.status != 200:
            raise IngestError(
                329,
                where=url,
                seen=f"it answers HTTP {answer.status}",
                wanted="SMART's configuration of the server, in JSON",
                do="Check url, or write token_url into the server file",
            )
        try:
            said = msgspec.json.decode(answer.body, type=SmartConfiguration)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise not_understood(url, "it is no SMART configuration in JSON") from error
        algorithms = said.token_endpoint_auth_signing_alg_values_supported
        if algorithms is not None and self.key.algorithm not in algorithms:
            raise IngestError(
                330,
                where=url,
                seen=f"the server takes {plain(', '.join(algorithms))}",
                wanted=f"{self.key.algorithm}, which this site's key signs with",
                do="Make a key with healthfm-client fhir-key --algorithm that it takes, "
                "and register it",
            )
        endpoint = self.calls.origins.checked(
            said.token_endpoint, url, "the address where tokens are given"
        )
        return endpoint, self._scope(said.capabilities)

    def _scope(self, capabilities: list[str] | tuple[()]) -> str:
        """Return what to ask for: to read each type, in the spelling that the server knows."""
        if self.server.scope is not None:
            return self.server.scope
        newer = "permission-v2" in capabilities
        return " ".join(f"system/{kind}.{'rs' if newer else 'read'}" for kind in self.server.types)

    def _refused(self, answer: HttpAnswer) -> IngestError:
        try:
            said = msgspec.json.decode(answer.body, type=RefusedToken)
        except (msgspec.DecodeError, UnicodeDecodeError):
            said = RefusedToken()
        why = f": {plain(said.error, 60)}" if said.error else ""
        why += f" ({plain(said.error_description)})" if said.error_description else ""
        seen = f"the server gives no token, HTTP {answer.status}{why}"
        skew = self._ahead_s(answer)
        if skew is not None and abs(skew) > SKEW_S:
            side = "ahead of" if skew > 0 else "behind"
            return IngestError(
                330,
                where=answer.url,
                seen=f"{seen}; this machine's clock is {abs(skew):.0f} s {side} the server's",
                do="Switch on time synchronisation (NTP), then give the command again",
            )
        if said.error == "invalid_scope":
            do = f"Have it permit {plain(self._endpoint[1] if self._endpoint else '')}, or write "
            return IngestError(330, where=answer.url, seen=seen, do=do + "scope or fewer types")
        return IngestError(330, where=answer.url, seen=seen)

    def _ahead_s(self, answer: HttpAnswer) -> float | None:
        """Return how far this machine's clock is ahead of the server's, where it tells its own."""
        try:
            theirs: datetime = parsedate_to_datetime(answer.headers.get("date", ""))
            return self.wall_clock() - theirs.timestamp()
        except (ValueError, TypeError, OverflowError):
            return None
