"""One export from the first question to the last file, resumed from wherever it was left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from healthfm_client.fhir_export.backend_services import BackendServices
from healthfm_client.fhir_export.bulk_request import BulkRequest, ExportManifest, JobGoneError
from healthfm_client.fhir_export.earlier_medications import CARRIED, carry_medications
from healthfm_client.fhir_export.export_state import ExportState
from healthfm_client.fhir_export.fetched_folder import (
    FetchedFolder,
    listed,
    private_folder,
    start_over,
)
from healthfm_client.fhir_export.http_calls import HttpCalls, OutOfTimeError
from healthfm_client.fhir_export.server_file import FhirServer
from healthfm_client.fhir_export.server_reports import deletions_in, issues_in
from healthfm_client.fhir_export.signing_key import AssertionKey
from healthfm_core.errors import IngestError

_GB: Final = 1e9
_NOT_MENDED_BY_RESUMING: Final = frozenset({329, 331})


@dataclass(frozen=True)
class BulkExport:
    """An export of a server into a folder.

    Attributes:
        server: The server file.
        key: Of this site.
        calls: To the server.
        folder: Where the files go.
        say: Tells the person who waits.
    """

    server: FhirServer
    key: AssertionKey
    calls: HttpCalls
    folder: Path
    say: Callable[[str], None]

    def run(
        self, since: str | None, *, earlier: Path | None = None, resume: bool = False
    ) -> ExportState:
        """Export, and return what is here in the end.

        Args:
            since: Ask for what changed since then; None: for all.
            earlier: The folder of the export that `since` is of; its Medications are taken over.
            resume: Go on from what is in the folder.

        Raises:
            IngestError: HF-311, HF-327 to HF-334.
            ConfigError: HF-105, where the disk is full.
            TrustError: HF-802 for the key.
        """
        with private_folder(self.folder, resume=resume):
            state = self._state(since, earlier)
            if state.phase != "whole":
                state = self._fetched(state)
            elif resume:
                self.say(f"{self.folder.name} is whole already.")
            return self._ended(state)

    def cancel(self) -> None:
        """Have the server drop the job, and remove what was downloaded.

        Raises:
            IngestError: HF-334 where the folder is of no export, or of a whole one.
        """
        with private_folder(self.folder, resume=True):
            state = ExportState.read(self.folder)
            if state is None or state.phase == "whole":
                raise IngestError(
                    334,
                    where=self.folder.name,
                    seen="no export is on its way into it",
                    wanted="the folder of an export that was interrupted",
                    do="Nothing was changed",
                )
            if state.job is not None and not self._request.end(state.job):
                self.say("The server did not take the cancellation; it drops the job by itself.")
            self._forget(state)

    @cached_property
    def _request(self) -> BulkRequest:
        services = BackendServices(self.calls, self.server, self.key)
        return BulkRequest(self.calls, services, self.server, self.say)

    def _state(self, since: str | None, earlier: Path | None) -> ExportState:
        """Return how far the folder is, of the same export."""
        server = self.server
        asked = ExportState(
            url=server.url,
            group=server.group,
            types=server.types,
            since=since,
            earlier=None if earlier is None else earlier.resolve(),
        )
        state = ExportState.read(self.folder)
        if state is None:
            return asked
        if since is None:
            asked = asked.model_copy(update={"since": state.since})
        different = state.differs_in(asked)
        if different:
            raise IngestError(
                334,
                where=self.folder.name,
                seen=f"it was begun with another {', '.join(different)}",
                wanted="the same export is wanted to go on with",
                do="Give what it was begun with, or name another folder",
            )
        return state

    def _fetched(self, state: ExportState) -> ExportState:
        """Return the state once all files are here."""
        request = self._request
        state, manifest = self._prepared(request, state)
        if state.listed not in (None, listed(manifest)):
            self.say("The server lists other files than before: they are downloaded anew.")
            start_over(self.folder)
            state = state.model_copy(update={"fetched": {}})
        state = state.model_copy(
            update={
                "phase": "fetching",
                "transaction_time": manifest.transaction_time,
                "listed": listed(manifest),
            }
        )
        state.write(self.folder)
        most = int(self.server.largest_file_gb * _GB)
        files = FetchedFolder(self.folder, self.calls, most, self.say)
        state = files.fetch(manifest, state, request.services)
        if state.earlier is not None and carry_medications(state.earlier, self.folder):
            self.say(f"{CARRIED}: the drugs of {state.earlier.name}")
        state = state.model_copy(update={"phase": "whole"})
        state.write(self.folder)
        return state

    def _prepared(
        self, request: BulkRequest, state: ExportState
    ) -> tuple[ExportState, ExportManifest]:
        """Return the server's list of files; a job that it knows no more is begun anew, once."""
        if state.job is not None:
            try:
                return state, self._manifest(request, state)
            except JobGoneError:
                self.say("The server does not know the export any more: it is begun anew.")
        state = self._begun(request, state)
        try:
            return state, self._manifest(request, state)
        except JobGoneError as error:
            self._forget(state)
            raise IngestError(
                331, where=self.server.url, seen="the server lost the export that it had begun"
            ) from error

    def _manifest(self, request: BulkRequest, state: ExportState) -> ExportManifest:
        """Return the list of files; a job of which no resuming can make one is given back."""
        job = state.job or ""
        try:
            return request.manifest(job)
        except OutOfTimeError:
            raise
        except IngestError as error:
            if error.number in _NOT_MENDED_BY_RESUMING:
                request.end(job)
                self._forget(state)
            raise

    def _forget(self, state: ExportState) -> None:
        """Leave the folder as if the export had not been begun."""
        start_over(self.folder)
        state.remove(self.folder)

    def _begun(self, request: BulkRequest, state: ExportState) -> ExportState:
        """Return the state with a new job at the server, nothing downloaded of it."""
        start_over(self.folder)
        whose = "all patients" if state.group is None else f"group {state.group}"
        what = "" if state.since is None else f", what changed since {state.since}"
        self.say(f"Asked {state.url} for {len(state.types)} types of {whose}{what}.")
        job = request.begin(state.since)
        state = state.model_copy(
            update={"phase": "asked", "fetched": {}, "listed": None, "job": job}
        )
        state.write(self.folder)
        return state

    def _ended(self, state: ExportState) -> ExportState:
        """Give the job back to the server, and tell what it said beside the files."""
        if state.job is not None:
            if not self._request.end(state.job):
                self.say("The server did not take the end of the job; it drops it by itself.")
            state = state.model_copy(update={"job": None})
            state.write(self.folder)
        errors = issues_in(self.folder.glob("*.errors"))
        if errors:
            self.say(f"The server could not export everything: {_told(errors)} (*.errors)")
        deleted = deletions_in(self.folder.glob("*.deleted"))
        if deleted:
            self.say(f"Deleted at the server since then: {_told(deleted)} (*.deleted)")
            self.say("An update of rows leaves them in the store; a whole export takes them out.")
        return state


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items()))
