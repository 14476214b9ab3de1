"""The study folder: everything that a coordinator keeps and backs up.

``study.yaml`` is for the admin to edit. ``authority/`` certifies, ``server/`` holds the gateway's
certificate, ``sites.json`` who may answer, ``tokens.json`` who may ask, ``secret/`` what only this
machine's processes know, ``superlink.db`` Flower's state, ``runs/`` a folder a run, ``audit.log``
what happened, ``process/`` the supervisor's files.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import yaml
from cryptography import x509
from pydantic import Field, ValidationError

from healthfm_core.config.base import Schema
from healthfm_core.config.study_statement import StudyStatement
from healthfm_core.errors import ConfigError, RunError
from healthfm_core.notices.notice_settings import NoticeSettings
from healthfm_core.owner_only import close_to_others
from healthfm_core.trust import certificates, files, fingerprint
from healthfm_core.trust.authority import Authority
from healthfm_core.trust.names import check_host
from healthfm_core.trust.site_registry import Registry
from healthfm_server.deploy.access_tokens import AccessTokens
from healthfm_server.deploy.audit_log import AuditLog, BackgroundAuditLog
from healthfm_server.deploy.caller_limits import CallerLimits
from healthfm_server.deploy.provider_settings import ProviderSettings
from healthfm_server.deploy.site_calls import FILE as SITE_CALLS

LOOPBACK: Final = "127.0.0.1"
SETTINGS: Final = "study.yaml"
LOCAL: Final = "this-machine"
"""Name of the token by which the commands on the coordinator's own machine control runs."""
OWN: Final = (
    *("authority", "server", "sites.json*", "tokens.json*", "secret", "superlink.db*", "runs"),
    *("requests", "renewals", "audit*", "process", "reconciler.lock", "notices.json", SETTINGS),
)
"""What this software makes in a study folder; a coordinator may keep other things there."""


class StudySettings(Schema):
    """What ``study.yaml`` holds."""

    study: str = Field(description="the study's name, as every certificate has it")
    hosts: tuple[str, ...] = Field(
        min_length=1, description="names and addresses by which sites reach this server"
    )
    bind: str = Field("0.0.0.0", description="address the one public port listens on")
    port: int = Field(8443, ge=1, le=65535, description="the one public port")
    superlink_port: int = Field(
        9091, ge=1, le=65535, description="port on loopback, of Flower's SuperLink"
    )
    most_body_mb: int = Field(
        8, ge=6, le=1024, description="largest request accepted; Flower sends pieces of 5 MB"
    )
    limits: CallerLimits = Field(
        CallerLimits(), description="how many callers the public port takes, and how slow"
    )
    statement: StudyStatement = Field(
        StudyStatement(), description="what people at the sites read before they approve a run"
    )
    notices: NoticeSettings = Field(
        NoticeSettings(), description="how the coordinator's people are told of what happens"
    )
    sign_in: ProviderSettings | None = Field(
        None, description="by which provider people sign in to the coordinator's page"
    )

    @property
    def url(self) -> str:
        """The address that sites get."""
        host = self.hosts[0]
        return f"https://[{host}]:{self.port}" if ":" in host else f"https://{host}:{self.port}"


class StudyFolder:
    """A coordinator's folder; use `create` or `open`.

    Args:
        path: Where it is.
        settings: What its ``study.yaml`` says.
    """

    def __init__(self, path: Path, settings: StudySettings) -> None:
        self.path = path
        self.settings = settings
        self.sites = Registry(path / "sites.json")
        self.tokens = AccessTokens(path / "tokens.json")
        self.database = path / "superlink.db"
        self.server = path / "server"
        self.runs = path / "runs"
        self.process = path / "process"
        self.calls = self.process / SITE_CALLS
        self.superexec_secret = path / "secret" / "superexec"
        self._control = path / "secret" / "control"

    @classmethod
    def create(cls, path: Path, settings: StudySettings) -> StudyFolder:
        """Make a study: authority, server certificate, secrets, settings last.

        Raises:
            TrustError: One is in there already (HF-801), or a name cannot be used (HF-810).
        """
        for host in settings.hosts:
            check_host(host)
        path.mkdir(parents=True, exist_ok=True)
        authority = Authority.create(path / "authority", settings.study)
        study = cls(path, settings)
        study.issue_server(authority, settings.hosts)
        study.publish(authority)
        files.write_new(study.superexec_secret, secrets.token_bytes(32))
        files.write_new(study._control, study.tokens.add(LOCAL, "coordinator").encode())
        plain = {"limits": CallerLimits(), "notices": NoticeSettings(), "sign_in": None}
        usual = {name for name, value in plain.items() if getattr(settings, name) == value}
        text = yaml.safe_dump(settings.model_dump(mode="json", exclude=usual), sort_keys=False)
        files.write_new(path / SETTINGS, text.encode(), files.PUBLIC)
        return study

    @classmethod
    def open(cls, path: Path) -> StudyFolder:
        """Open the study in `path`.

        Raises:
            RunError: There is none (HF-720).
            ConfigError: Its ``study.yaml`` cannot be used (HF-102).
        """
        file = path / SETTINGS
        if not file.is_file():
            raise RunError(
                720,
                where=str(path),
                seen=f"there is no {SETTINGS} in it",
            )
        try:
            return cls(path, StudySettings.model_validate(yaml.safe_load(file.read_text("utf-8"))))
        except (yaml.YAMLError, ValidationError) as error:
            raise _unusable(file, error) from error

    def close_to_others(self) -> int:
        """Take others' rights from the study's own files; return how many had some.

        Raises:
            PermissionError: One is another account's.
        """
        own = (path for name in OWN for path in self.path.glob(name))
        return sum(close_to_others(path) for path in own)

    def authority(self) -> Authority:
        """Return the study's certificate authority."""
        return Authority(self.path / "authority")

    def trusted_roots(self) -> list[x509.Certificate]:
        """Return the roots that are trusted, the newest first, without the authority's keys.

        Raises:
            TrustError: The published roots are missing or damaged (HF-802, HF-803).
        """
        path = self.server / "trust.pem"
        return certificates.read_certificates(files.read(path, "the study's roots"), str(path))

    def root_fingerprint(self) -> str:
        """Return the fingerprint of the root that signs now.

        Raises:
            TrustError: The published roots are missing or damaged (HF-802, HF-803).
        """
        return fingerprint.of_certificate(self.trusted_roots()[0])

    def audit(self, process: str) -> AuditLog:
        """Return the audit log, for `process` to write."""
        return AuditLog(self.path / "audit.log", process)

    def background_audit(self, process: str) -> BackgroundAuditLog:
        """Return the audit log, for the event loop of `process` to write."""
        return BackgroundAuditLog(self.path / "audit.log", process)

    def control_token(self) -> str:
        """Return the token by which this machine's own commands control runs."""
        return files.read_private(self._control, "the token of this machine").decode()

    def issue_server(self, authority: Authority, hosts: Sequence[str]) -> None:
        """Put a new server certificate in place; a running gateway loads it by itself."""
        key, chain = authority.issue_server(hosts)
        files.replace(self.server / "identity.pem", key + chain, files.PRIVATE)

    def certificate_ends(self) -> datetime:
        """Return when the gateway's certificate ends."""
        identity = (self.server / "identity.pem").read_bytes()
        return x509.load_pem_x509_certificates(identity)[0].not_valid_after_utc

    def publish(self, authority: Authority) -> None:
        """Write the roots and revocation lists by which the gateway judges a site's certificate."""
        files.replace(self.server / "trust.pem", authority.roots_pem() + authority.crl())


def _unusable(file: Path, error: yaml.YAMLError | ValidationError) -> ConfigError:
    seen, where = "it is not YAML", file.name
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        where = f"{file.name}, {'.'.join(map(str, first['loc'])) or 'top level'}"
        seen = str(first["msg"])
    return ConfigError(
        102, where=where, seen=seen, wanted="the keys that healthfm-server init wrote"
    )
