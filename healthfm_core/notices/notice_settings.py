"""What an administrator writes of notices: ``notices`` in ``study.yaml`` and ``site.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from healthfm_core.config.base import Schema
from healthfm_core.loopback import is_loopback
from healthfm_core.notices.notice import KINDS, Kind


class EmailSettings(Schema):
    """A mail server that takes messages, and whom they are for."""

    host: str = Field(min_length=1, description="the mail server")
    port: int = Field(587, ge=1, le=65535, description="587 with starttls, 465 with tls")
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="none: to this machine alone"
    )
    ca_file: Path | None = Field(
        None, description="certificates that the server's is checked by; None: the system's"
    )
    user: str | None = Field(None, description="account at the server; None: it asks for none")
    password_file: Path | None = Field(
        None, description="file with the account's password, readable by its owner alone"
    )
    sender: str = Field(pattern=r"^[^@\s]+@[^@\s]+$", description="address the mail is from")
    to: tuple[str, ...] = Field(min_length=1, description="addresses it goes to")

    @model_validator(mode="after")
    def _is_protected(self) -> Self:
        if self.security == "none" and not is_loopback(self.host):
            raise ValueError("security: none is for a mail server on this machine")
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together")
        return self


class WebhookSettings(Schema):
    """An address that takes each notice as JSON, signed as standardwebhooks.com says."""

    url: str = Field(description="https://…; http:// to this machine alone")
    secret_file: Path = Field(
        description="file with the secret, whsec_ and base64, readable by its owner alone"
    )
    ca_file: Path | None = Field(
        None, description="certificates that the server's is checked by; None: the system's"
    )

    @model_validator(mode="after")
    def _is_protected(self) -> Self:
        parts = urlsplit(self.url)
        safe = parts.scheme == "https" or (
            parts.scheme == "http" and is_loopback(parts.hostname or "")
        )
        if not safe or not parts.hostname:
            raise ValueError("url: https, or http to this machine")
        return self


class NoticeSettings(Schema):
    """How a person is told, and of what; by default nobody is told of anything."""

    email: EmailSettings | None = None
    webhook: WebhookSettings | None = None
    desktop: bool = Field(False, description="on the desktop of this account, by notify-send")
    kinds: tuple[Kind, ...] = Field(KINDS, description="what is told")
    stalled_minutes: float = Field(
        30.0, gt=0, description="for how long something has to stand still before it is told"
    )

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the channels that are set, in the order they are tried."""
        names = ("email", "webhook", "desktop")
        return tuple(name for name in names if getattr(self, name))

    def in_folder(self, folder: Path) -> NoticeSettings:
        """Return these settings with paths that are relative to `folder` made whole."""
        update: dict[str, EmailSettings | WebhookSettings] = {}
        for name in ("email", "webhook"):
            channel: EmailSettings | WebhookSettings | None = getattr(self, name)
            if channel is not None:
                paths = {key: folder / value for key, value in channel if isinstance(value, Path)}
                update[name] = channel.model_copy(update=paths)
        return self.model_copy(update=update)
