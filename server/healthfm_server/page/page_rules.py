"""Whom the coordinator's page knows: the study's tokens, and what their roles permit."""

from __future__ import annotations

from collections.abc import Mapping

from healthfm_core.local_page.page_access import Deed
from healthfm_server.deploy.access_tokens import AccessToken, AccessTokens
from healthfm_server.deploy.audit_log import AuditLog
from healthfm_server.deploy.gateway_routes import MAY


class TokenRules:
    """The rules of a study's page.

    Args:
        tokens: Of the study.
        log: Takes what is refused.
    """

    def __init__(self, tokens: AccessTokens, log: AuditLog) -> None:
        self._tokens = tokens
        self._log = log

    def of_token(self, given: str) -> AccessToken | None:
        """Return a token's entry; None where it was never given or was revoked."""
        return self._tokens.of(given)

    def holds(self, token: AccessToken) -> bool:
        """Whether a token was not revoked since."""
        return self._tokens.all().get(token.name) == token

    def may(self, token: AccessToken, deed: Deed) -> bool:
        """Whether the role permits it."""
        return deed in MAY[token.role]

    def name(self, token: AccessToken) -> str:
        """Return whose token it is."""
        return token.name

    def note_refusal(self, details: Mapping[str, str]) -> None:
        """Put a refusal into the audit log."""
        self._log.note_refusal("page refused", details)
