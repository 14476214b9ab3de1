"""The site's folder: its keys, what it got from the study, its policy, and its processes' files.

``keys/`` never leaves this machine. ``study/`` holds the kit. ``site.yaml`` is the policy,
``join.yaml`` how this machine takes part: its stores, its proxy. ``process/`` holds logs and what
the processes tell each other.
"""

from __future__ import annotations

import secrets
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError

from healthfm_core.config.base import Schema
from healthfm_core.config.data import Modality
from healthfm_core.errors import ConfigError, TrustError
from healthfm_core.owner_only import close_to_others
from healthfm_core.trust import files
from healthfm_core.trust.kit import Kit, installed, write_for_tls
from healthfm_core.trust.site_keys import TLS_KEY, SiteKeys

SETTINGS: Final = "join.yaml"
OWN: Final = (
    *("keys", "study", "state", "process", "site.yaml", SETTINGS),
    *("enrolment.json", "request.zip", "egress.log", "egress.head", "notices.json"),
)
"""What this software makes in a site's folder; an administrator may keep other things there."""


class StoreChoice(Schema):
    """A store the site takes part with."""

    path: Path = Field(description="folder of the store, or of several")
    modalities: tuple[Modality, ...] | None = Field(
        None, description="what of it may be used; None: all that the policy permits"
    )


class JoinSettings(Schema):
    """What ``join.yaml`` holds."""

    stores: tuple[StoreChoice, ...] = Field(min_length=1, description="the site's stores")
    port: int = Field(
        9094, ge=1, le=65535, description="on loopback, between this site's own two processes"
    )
    proxy: str | None = Field(
        None, description="http://USER:PASSWORD@HOST:PORT; None: HTTPS_PROXY of the environment"
    )


class SiteFolder:
    """A site's folder.

    Args:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys = path / "keys"
        self.study = path / "study"
        self.policy = path / "site.yaml"
        self.settings_file = path / SETTINGS
        self.process = path / "process"
        self.stopped = self.process / "stopped"

    def close_to_others(self) -> int:
        """Take others' rights from the site's own files; return how many had some.

        Raises:
            PermissionError: One is another account's.
        """
        return sum(close_to_others(self.path / name) for name in OWN)

    def kit(self) -> Kit:
        """Return the kit the site got from the study.

        Raises:
            TrustError: There is none (HF-830), or it is damaged (HF-80x).
        """
        kit = installed(self.study)
        if kit is None:
            raise TrustError(830, where=str(self.path), seen="this site has no kit")
        return kit

    def has_kit(self) -> bool:
        """Whether there is a kit, sound or not."""
        return (self.study / "kit.zip").exists()

    def settings(self) -> JoinSettings:
        """Return how this machine takes part.

        Raises:
            ConfigError: ``join.yaml`` is missing (HF-104) or cannot be used (HF-102).
        """
        try:
            text = self.settings_file.read_text("utf-8")
        except OSError as error:
            raise _unusable(104, str(self.settings_file), "there is no such file") from error
        try:
            return JoinSettings.model_validate(yaml.safe_load(text) or {})
        except (yaml.YAMLError, ValidationError) as error:
            seen, where = "it is not YAML", SETTINGS
            if isinstance(error, ValidationError):
                first = error.errors(include_input=False, include_url=False)[0]
                where = f"{SETTINGS}, {'.'.join(map(str, first['loc'])) or 'top level'}"
                seen = str(first["msg"])
            raise _unusable(102, where, seen) from error

    def write_settings(self, settings: JoinSettings) -> None:
        """Write ``join.yaml``, for its owner only: a proxy's password may be in it."""
        text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
        files.replace(self.settings_file, text.encode(), files.PRIVATE)

    def secret(self) -> bytes:
        """Return what the site's two processes know of each other, made at the first call."""
        path = self.process / "secret"
        if not path.exists():
            files.write_new(path, secrets.token_bytes(32))
        return files.read_private(path, "the secret of this site's processes")

    def tls(self) -> ssl.SSLContext:
        """Return a context that shows the site's certificate and trusts the study's roots alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.show_certificate(context)
        return context

    def show_certificate(self, context: ssl.SSLContext) -> None:
        """Let a context show the certificate of the kit that is here now, and trust its roots."""
        SiteKeys.load(self.keys)
        roots, certificate = write_for_tls(self.kit(), self.study)
        context.load_verify_locations(roots)
        context.load_cert_chain(certificate, self.keys / TLS_KEY)


def address_of(kit: Kit) -> str:
    """Return ``host:port`` of the study's server."""
    parts = urlsplit(kit.url)
    host = parts.hostname or ""
    return f"[{host}]:{parts.port or 443}" if ":" in host else f"{host}:{parts.port or 443}"


def _unusable(number: int, where: str, seen: str) -> ConfigError:
    return ConfigError(
        number,
        where=where,
        seen=seen,
        wanted="the site's stores, and its proxy where it needs one",
        do="Run: healthfm-client join --store FOLDER",
    )
