"""The file that says where a FHIR server is and how this site is known there.

    [server]
    url = "https://fhir.hospital/r4"
    client_id = "healthfm"
    key = "fhir.key"
    group = "research"               # left out: all patients
    hosts = ["login.hospital"]       # that a token may be sent to, beside the server
    ca = "hospital-ca.pem"           # left out: the authorities that this machine trusts

Paths are beside the file. It holds no secret; whoever may change it decides where the token goes.
"""

from __future__ import annotations

import re
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, ValidationError, field_validator

from healthfm_client.fhir_export.origins import TrustedOrigins
from healthfm_core.config.base import Schema
from healthfm_core.errors import IngestError

TYPES: Final = (
    *("Patient", "Encounter", "Condition", "Observation", "Medication", "MedicationRequest"),
    *("MedicationAdministration", "MedicationDispense", "MedicationStatement"),
    *("AllergyIntolerance", "Procedure", "Immunization", "DiagnosticReport"),
)
"""What ``ingest fhir`` reads."""
_PRINTED: Final = r"^[\x21-\x7e]+$"


class FhirServer(Schema):
    """A FHIR server, as a site is known there.

    Attributes:
        url: The server's base address; https, or http to this machine.
        client_id: What the server calls this site's client.
        key: File of the private key whose public half the server knows.
        key_id: What the server calls the key; None is its thumbprint, as ``fhir-key`` prints it.
        group: Whose records; None is those of all patients.
        types: Types of resources that are asked for.
        hosts: Other hosts, ``HOST`` or ``HOST:PORT``, that a token and requests may be sent to.
        ca: File of certificates (PEM) that alone are trusted; None: those that this machine trusts.
        scope: What the token is asked for; None: to read each of `types`.
        token_url: Where tokens are given; None: where the server says.
        largest_file_gb: A file of the export may have so many GB, unpacked.
    """

    url: str = Field(pattern=r"^https?://[^?#]+$")
    client_id: str = Field(pattern=_PRINTED)
    key: Path
    key_id: str | None = Field(None, pattern=_PRINTED)
    group: str | None = Field(None, pattern=r"^[A-Za-z0-9.-]{1,64}$")
    types: tuple[Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]+$")], ...] = Field(
        TYPES, min_length=1
    )
    hosts: tuple[str, ...] = ()
    ca: Path | None = None
    scope: str | None = Field(None, min_length=1)
    token_url: str | None = None
    largest_file_gb: float = Field(100.0, gt=0)

    @field_validator("url")
    @classmethod
    def _without_slash(cls, url: str) -> str:
        return url.rstrip("/")

    @property
    def origins(self) -> TrustedOrigins:
        """Where requests and tokens may go."""
        return TrustedOrigins.of(self.url, self.hosts)


def server_file(path: Path) -> FhirServer:
    """Return what a file says of a FHIR server, its paths made whole.

    Raises:
        IngestError: HF-327.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(path, "it cannot be read") from error
    if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise IngestError(
            327,
            where=path.name,
            seen="others may change it, and with it where the token goes",
            wanted="a file that nobody but its owner may change",
            do=f"Run: chmod go-w {path}",
        )
    try:
        said = FhirServer.model_validate(tomllib.loads(text)["server"])
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise _wrong(path, "it is no TOML with [server]") from error
    except ValidationError as error:
        first = error.errors()[0]
        what = ".".join(map(str, first["loc"]))
        wrong = {"missing": "is missing", "extra_forbidden": "is not known"}
        raise _wrong(path, f"{what} {wrong.get(first['type'], 'does not fit')}") from error
    _check_addresses(path, said)
    beside = path.parent
    ca = None if said.ca is None else beside / said.ca
    return said.model_copy(update={"key": beside / said.key, "ca": ca})


def _check_addresses(path: Path, said: FhirServer) -> None:
    """Raise HF-327 for an address that is none, or that would be reached in the clear."""
    try:
        TrustedOrigins.of(said.url, ())
    except ValueError as error:
        clear = re.match("http:", said.url) is not None
        seen = "url is http, and not to this machine" if clear else "url is no address"
        raise _wrong(path, seen) from error
    try:
        origins = said.origins
    except ValueError as error:
        raise _wrong(path, "hosts has something that is no HOST or HOST:PORT") from error
    if said.token_url is not None:
        origins.checked(said.token_url, said.url, f"{path.name}: token_url")


def _wrong(path: Path, seen: str) -> IngestError:
    return IngestError(327, where=path.name, seen=seen)
