"""A FHIR server of three people, a second host beside it, and a site that is known there."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from healthfm_client.fhir_export.export_run import BulkExport
from healthfm_client.fhir_export.export_state import ExportState
from healthfm_client.fhir_export.http_calls import HttpCalls, new_client
from healthfm_client.fhir_export.server_file import server_file
from healthfm_client.fhir_export.signing_key import AssertionKey
from tests.client.fhir_export.fhir_server import CLIENT, FhirServer, authority, listening


def resource(kind: str, number: str, **more: object) -> str:
    return json.dumps({"resourceType": kind, "id": number, **more})


def observed(number: str, person: str, day: str, value: float) -> str:
    quantity = {"value": value, "system": "http://unitsofmeasure.org", "code": "mg/dL"}
    return resource(
        "Observation",
        number,
        status="final",
        subject={"reference": f"Patient/{person}"},
        code={"coding": [{"system": "http://loinc.org", "code": "2345-7"}]},
        effectiveDateTime=day,
        valueQuantity=quantity,
    )


def lines(*resources: str) -> bytes:
    return "".join(f"{one}\n" for one in resources).encode()


def three_people() -> dict[str, bytes]:
    people = [resource("Patient", f"p{n}", birthDate=f"19{n}0-01-01") for n in (5, 6, 7)]
    glucose = [observed(f"o{n}", f"p{5 + n % 3}", f"2020-01-{n:02}", 90.0 + n) for n in range(1, 9)]
    drug = resource(
        "MedicationRequest",
        "r1",
        intent="order",
        subject={"reference": "Patient/p5"},
        authoredOn="2020-02-01",
        medicationReference={"reference": "Medication/m1"},
    )
    code = {"coding": [{"system": "http://www.whocc.no/atc", "code": "C07AB02"}]}
    return {
        "Patient.ndjson": lines(*people),
        "Observation-1.ndjson": lines(*glucose[:4]),
        "Observation-2.ndjson": lines(*glucose[4:]),
        "MedicationRequest.ndjson": lines(drug),
        "Medication.ndjson": lines(resource("Medication", "m1", code=code)),
    }


@dataclass
class Site:
    """A site that a server knows."""

    folder: Path
    fhir: FhirServer
    settings: dict[str, object]

    @property
    def file(self) -> Path:
        path = self.folder / "fhir.toml"
        said = [f"{name} = {json.dumps(value)}" for name, value in self.settings.items()]
        path.write_text("\n".join(["[server]", *said, ""]))
        path.chmod(0o644)
        return path

    @property
    def out(self) -> Path:
        return self.folder / "export"

    def export(
        self,
        *,
        since: str | None = None,
        earlier: Path | None = None,
        resume: bool = False,
        hours: float = 1.0,
        slept: list[float] | None = None,
        said: list[str] | None = None,
    ) -> ExportState:
        """Export in this process; a wait moves a clock of its own and takes no time."""
        slept, server = [] if slept is None else slept, server_file(self.file)
        with new_client(server.ca) as client:
            calls = HttpCalls(
                client, server.origins, hours, sleep=slept.append, clock=lambda: float(sum(slept))
            )
            say = [].append if said is None else said.append
            key = AssertionKey.load(server.key)
            return BulkExport(server, key, calls, self.out, say).run(
                since, earlier=earlier, resume=resume
            )


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A throwaway authority: its file, and TLS of a server on 127.0.0.1."""
    return authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def other(tls: tuple[Path, ssl.SSLContext]) -> Iterator[FhirServer]:
    """Another host than the FHIR server."""
    fhir = FhirServer({})
    with listening(fhir, tls[1]) as port:
        fhir.base = f"https://127.0.0.1:{port}"
        yield fhir


@pytest.fixture
def site(tmp_path: Path, tls: tuple[Path, ssl.SSLContext]) -> Iterator[Site]:
    """A site with a key that its FHIR server knows."""
    key = AssertionKey.create(tmp_path / "fhir.key")
    fhir = FhirServer(three_people(), jwks=json.loads(json.dumps(key.jwks())))
    with listening(fhir, tls[1]) as port:
        fhir.base = f"https://127.0.0.1:{port}"
        given = {"url": f"{fhir.base}/fhir", "client_id": CLIENT, "key": "fhir.key"}
        yield Site(tmp_path, fhir, given | {"group": "g-1", "ca": str(tls[0])})
