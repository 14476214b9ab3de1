"""A FHIR server's Bulk Data export as a job: asked for, waited for, listed, and given back.

Bulk Data Access, ``$export`` of a group's or of all patients. The server prepares files and lists
them in a manifest; what went wrong it says as OperationOutcome.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

import httpx
import msgspec

from healthfm_client.fhir_export.backend_services import BackendServices
from healthfm_client.fhir_export.http_calls import (
    BUSY,
    HttpAnswer,
    HttpCalls,
    not_understood,
    plain,
    retry_after,
    short,
)
from healthfm_client.fhir_export.server_file import FhirServer
from healthfm_core.errors import IngestError

MOST_MANIFEST_BYTES: Final = 64 * 1024**2
NDJSON: Final = "application/fhir+ndjson"
FHIR_JSON: Final = "application/fhir+json"
PATIENCE_TRIES: Final = 20
"""While a job runs, a server may be away for so many tries, some 15 minutes."""
_AT_ONCE: Final = 10
"""A server that says "0 seconds" is asked so often without a wait, then once a second at most."""
_GONE: Final = frozenset({404, 410})


class ManifestFile(msgspec.Struct, frozen=True):
    """A file of an export."""

    url: str
    type: str = ""
    count: int | None = None


class ManifestLink(msgspec.Struct, frozen=True):
    """A link of a manifest to another one."""

    relation: str = ""


class ExportManifest(msgspec.Struct, frozen=True):
    """What a server lists of an export that it has prepared, under the specification's names.

    Attributes:
        transaction_time: As of when the records are.
        requires_access_token: Whether files are given to who has a token alone.
        output: Files of resources.
        deleted: Files of what is gone since the time asked for.
        error: Files of what went wrong.
        link: To further manifests.
    """

    transaction_time: str = msgspec.field(name="transactionTime")
    requires_access_token: bool = msgspec.field(name="requiresAccessToken")
    output: list[ManifestFile]
    deleted: list[ManifestFile] = []
    error: list[ManifestFile] = []
    link: list[ManifestLink] = []


class IssueDetails(msgspec.Struct):
    """What an issue is about, in words."""

    text: str = ""


class OutcomeIssue(msgspec.Struct):
    """One thing that went wrong."""

    severity: str = ""
    code: str = ""
    diagnostics: str = ""
    details: IssueDetails = msgspec.field(default_factory=IssueDetails)


class OperationOutcome(msgspec.Struct):
    """What a server says went wrong."""

    resourceType: str = ""
    issue: list[OutcomeIssue] = []


class JobGoneError(Exception):
    """The server does not know the job any more."""


@dataclass(frozen=True)
class BulkRequest:
    """An export of one server.

    Attributes:
        calls: To the server.
        services: Where the tokens come from.
        server: The server file.
        say: Tells the person who waits.
    """

    calls: HttpCalls
    services: BackendServices
    server: FhirServer
    say: Callable[[str], None]

    def begin(self, since: str | None) -> str:
        """Ask for an export and return the address of its job.

        Args:
            since: Of what changed since then; None: of all.

        Raises:
            IngestError: HF-331 where the server refuses, and those of `HttpCalls.answer`.
        """
        asked = {"_outputFormat": NDJSON, "_type": ",".join(self.server.types)}
        asked |= {} if since is None else {"_since": since}
        whose = "Patient" if self.server.group is None else f"Group/{self.server.group}"
        url = f"{self.server.url}/{whose}/$export"
        answer = self.calls.answer(
            "GET",
            f"{url}?{urlencode(asked)}",
            headers={"Accept": FHIR_JSON, "Prefer": "respond-async"},
            tokens=self.services,
            again=False,
        )
        if answer.status != httpx.codes.ACCEPTED:
            raise refused(answer, "the server does not begin an export")
        job = answer.headers.get("content-location", "")
        if not job:
            raise not_understood(answer.url, "it begins an export and does not say where")
        return self.calls.origins.checked(job, answer.url, "the address of the export's job")

    def manifest(self, job: str) -> ExportManifest:
        """Wait until the files are prepared, and return their list.

        Args:
            job: The address of the job.

        Raises:
            IngestError: HF-331 where the server gave up, or time is up; those of `answer`.
            JobGoneError: The server does not know it.
        """
        told, asked = "", 0
        while True:
            answer = self.calls.answer(
                "GET",
                job,
                headers={"Accept": "application/json"},
                tokens=self.services,
                most_bytes=MOST_MANIFEST_BYTES,
                tries=PATIENCE_TRIES,
            )
            if answer.status == httpx.codes.OK:
                return self._checked(answer)
            if answer.status in _GONE:
                raise JobGoneError
            if answer.status != httpx.codes.ACCEPTED and not _is_transient(answer):
                raise refused(answer, "the server could not do the export")
            progress = plain(answer.headers.get("x-progress", ""), 100)
            if progress != told:
                self.say(f"The server: {progress}")
                told = progress
            asked += 1
            at_least = 0.0 if asked < _AT_ONCE else 1.0
            self.calls.pause(max(at_least, retry_after(answer.headers, asked)))

    def end(self, job: str) -> bool:
        """Tell the server that the job's files are not needed any more; whether it took it."""
        try:
            answer = self.calls.answer("DELETE", job, tokens=self.services, tries=2)
        except IngestError:
            return False
        return answer.status in _GONE or answer.status < httpx.codes.MULTIPLE_CHOICES

    def _checked(self, answer: HttpAnswer) -> ExportManifest:
        try:
            manifest = msgspec.json.decode(answer.body, type=ExportManifest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            seen = "it is no list of an export's files in JSON"
            raise not_understood(answer.url, seen) from error
        if any(link.relation == "next" for link in manifest.link):
            seen = "the list of files goes on elsewhere, which was not asked for"
            raise not_understood(answer.url, seen)
        if any(not (file.type.isascii() and file.type.isalpha()) for file in manifest.output):
            raise not_understood(answer.url, "a file of the list is of no type of resources")
        whole = {
            name: [self._whole_address(file, answer.url) for file in getattr(manifest, name)]
            for name in ("output", "deleted", "error")
        }
        return msgspec.structs.replace(manifest, **whole)

    def _whole_address(self, file: ManifestFile, base: str) -> ManifestFile:
        url = self.calls.origins.checked(file.url, base, "a file of the export")
        return msgspec.structs.replace(file, url=url)


def refused(answer: HttpAnswer, what: str) -> IngestError:
    """Return the error for an answer that is no export (HF-331), or no token's fault (HF-330)."""
    seen = f"{what}: HTTP {answer.status}{outcome_text(answer.body)}"
    if answer.status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return IngestError(
            330,
            where=short(answer.url),
            seen=seen,
            wanted="a token that the server takes for these records",
            do="Have its administrator permit this client the group and the types",
        )
    return IngestError(331, where=short(answer.url), seen=seen)


def outcome_text(body: bytes) -> str:
    """Return what an OperationOutcome says first, to stand behind a sentence; '' of others."""
    issues = outcome_issues(body)
    if not issues:
        return ""
    worst = next((i for i in issues if i.severity in ("fatal", "error")), issues[0])
    said = worst.details.text or worst.diagnostics
    return f", {plain(worst.code, 40) or 'error'}" + (f": {plain(said)}" if said else "")


def outcome_issues(body: bytes) -> list[OutcomeIssue]:
    """Return the issues of an OperationOutcome in JSON; none of anything else."""
    try:
        said = msgspec.json.decode(body, type=OperationOutcome)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return said.issue if said.resourceType == "OperationOutcome" else []


def _is_transient(answer: HttpAnswer) -> bool:
    """Whether what went wrong may be right when asked again."""
    if answer.status in BUSY:
        return True
    issues = outcome_issues(answer.body)
    return bool(issues) and all(issue.code == "transient" for issue in issues)
