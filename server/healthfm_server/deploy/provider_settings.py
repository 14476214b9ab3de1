"""What an administrator writes of signing in by OpenID Connect: ``sign_in`` in ``study.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from healthfm_core.config.base import Schema
from healthfm_core.loopback import is_loopback
from healthfm_server.deploy.access_tokens import Role


class ProviderSettings(Schema):
    """An OpenID Connect provider, and which of its people may do what."""

    issuer: str = Field(description="the provider's issuer, https://…; http:// to this machine")
    client_id: str = Field(min_length=1, description="what the provider calls this page")
    client_secret_file: Path | None = Field(
        None,
        description="file with the client's secret, readable by its owner alone; None: the "
        "provider knows the page as a public client, and PKCE alone protects the code",
    )
    scopes: tuple[str, ...] = Field(
        ("openid", "profile", "email"), description="what is asked of the provider"
    )
    claim: str = Field(
        "groups", min_length=1, description="claim that tells the role: a text or a list of texts"
    )
    coordinators: tuple[str, ...] = Field(
        (), description="values of the claim whose people may order runs and admit sites"
    )
    viewers: tuple[str, ...] = Field((), description="values of the claim whose people may look")
    name_claim: str = Field(
        "preferred_username",
        min_length=1,
        description="claim that names a person on the page and in the audit log; sub without it",
    )
    label: str = Field(
        "your organisation’s account",
        min_length=1,
        max_length=60,
        description="what the page's link says: Sign in with …",
    )

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        parts = urlsplit(self.issuer)
        host = parts.hostname or ""
        if not host or not (
            parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
        ):
            raise ValueError("issuer: https, or http to this machine")
        if "openid" not in self.scopes:
            raise ValueError("scopes: openid has to be among them")
        if not self.coordinators and not self.viewers:
            raise ValueError("nobody may sign in: name values of the claim in viewers")
        return self

    def role_of(self, claims: Mapping[str, Any]) -> Role | None:
        """Return the role of a person of these claims; None where they have none."""
        given = claims.get(self.claim)
        values = {given} if isinstance(given, str) else _texts(given)
        if values.intersection(self.coordinators):
            return "coordinator"
        return "viewer" if values.intersection(self.viewers) else None


def _texts(given: object) -> set[str]:
    return {one for one in given if isinstance(one, str)} if isinstance(given, list) else set()
