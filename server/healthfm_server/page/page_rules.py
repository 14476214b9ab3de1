"""Whom the coordinator's page knows, and what their roles permit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from healthfm_core.local_page.page_access import Deed
from healthfm_server.deploy.access_tokens import AccessToken, AccessTokens, Role
from healthfm_server.deploy.audit_log import AuditLog
from healthfm_server.deploy.gateway_routes import MAY


@dataclass(frozen=True)
class ProviderUser:
    """A person who signed in by the organisation's provider.

    Attributes:
        name: ``oidc:`` and what the provider calls them: no token has such a name.
        role: What they may do until their session ends.
    """

    name: str
    role: Role


PageUser = AccessToken | ProviderUser


class RoleRules:
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

    def holds(self, user: PageUser) -> bool:
        """Whether a token was not revoked since; a provider's user stays for a session."""
        return isinstance(user, ProviderUser) or self._tokens.all().get(user.name) == user

    def may(self, user: PageUser, deed: Deed) -> bool:
        """Whether the role permits it."""
        return deed in MAY[user.role]

    def name(self, user: PageUser) -> str:
        """Return whose token it is, or who signed in."""
        return user.name

    def note_refusal(self, details: Mapping[str, str]) -> None:
        """Put a refusal into the audit log."""
        self._log.note_refusal("page refused", details)
