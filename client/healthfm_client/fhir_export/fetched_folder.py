"""The private folder that an export's files are downloaded into, resumed after any interruption.

A file appears under its own name when all of it is there. ``export.state`` says what is here; while
the folder is not whole, ``ingest`` does not read it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import msgspec

from healthfm_client.fhir_export.bulk_request import (
    NDJSON,
    ExportManifest,
    outcome_text,
)
from healthfm_client.fhir_export.export_state import STATE_FILE, ExportState, FetchedFile
from healthfm_client.fhir_export.http_calls import (
    BUSY,
    MOST_BYTES,
    TRIES,
    HttpCalls,
    TokenSource,
    backoff,
    not_understood,
    retry_after,
    short,
    unreachable,
)
from healthfm_client.fhir_export.resource_lines import LinesFault, ResourceLines
from healthfm_core.errors import ConfigError, IngestError
from healthfm_core.trust import files

LEAST_FREE_BYTES: Final = 1 << 30
"""A disk is not filled beyond it."""
_PART: Final = ".part"
_GB: Final = 1e9
_LOOK_EVERY: Final = 64 * 1024**2


@dataclass(frozen=True)
class WantedFile:
    """A file of the list, and what it is called here.

    Attributes:
        name: Here.
        url: At the server.
        kind: The type of its resources; '' is any.
        count: How many the server says there are; None: it does not say.
    """

    name: str
    url: str
    kind: str
    count: int | None = None


@dataclass
class FetchedFolder:
    """A folder of an export.

    Attributes:
        path: The folder.
        calls: To the server.
        most_bytes: A file may have so many, unpacked.
        say: Tells the person who waits.
    """

    path: Path
    calls: HttpCalls
    most_bytes: int
    say: Callable[[str], None]

    def fetch(
        self, manifest: ExportManifest, state: ExportState, tokens: TokenSource
    ) -> ExportState:
        """Download what is not here yet; return the state, with all of it.

        Raises:
            IngestError: HF-311, HF-328, HF-330, HF-331, HF-333.
            ConfigError: HF-105 where the disk is full.
        """
        sent = tokens if manifest.requires_access_token else None
        wanted = wanted_files(manifest)
        for at, one in enumerate(wanted, 1):
            if not self._is_here(one, state):
                got = self._fetched(one, sent)
                state = state.model_copy(update={"fetched": {**state.fetched, one.name: got}})
                state.write(self.path)
                size = f"{got.size / 1e6:,.1f} MB"
                self.say(f"{at} of {len(wanted)}: {one.name}, {got.lines:,} lines, {size}")
        return state

    def _is_here(self, one: WantedFile, state: ExportState) -> bool:
        known, file = state.fetched.get(one.name), self.path / one.name
        return known is not None and file.is_file() and file.stat().st_size == known.size

    def _fetched(self, one: WantedFile, tokens: TokenSource | None) -> FetchedFile:
        """Download a file, tried again where it did not come whole."""
        part = self.path / f"{one.name}{_PART}"
        wrong: IngestError | None = None
        for attempt in range(TRIES):
            wait = backoff(attempt)
            try:
                with self.calls.opened("GET", one.url, {"Accept": NDJSON}, None, tokens) as answer:
                    if answer.status_code in BUSY and attempt < TRIES - 1:
                        wait = retry_after(answer.headers, attempt)
                    else:
                        lines = self._saved(one, answer, part)
                        part.replace(self.path / one.name)
                        files.flush_folder(self.path)
                        return FetchedFile(size=lines.size, lines=lines.lines)
            except httpx.TransportError as error:
                wrong = _broken_off(one, error)
            except _NotWholeError as error:
                wrong = IngestError(333, where=one.name, seen=str(error))
            self.calls.pause(wait)
        part.unlink(missing_ok=True)
        raise wrong or IngestError(331, where=one.name, seen="the server stayed busy")

    def _saved(self, one: WantedFile, answer: httpx.Response, part: Path) -> ResourceLines:
        """Write what arrives to disk, and look whether it is a whole file of resources."""
        if answer.status_code != httpx.codes.OK:
            raise _not_given(one, answer)
        told = "content-length" in answer.headers or "transfer-encoding" in answer.headers
        if not told and one.count is None:
            raise _NotWholeError("the server does not say how long it is")
        lines = ResourceLines(one.kind)
        try:
            with part.open("wb") as out:
                self._refuse_full_disk()
                looked = 0
                for chunk in answer.iter_bytes():
                    _refuse(one, lines.add(chunk))
                    if lines.size > self.most_bytes:
                        seen = f"it has more than {self.most_bytes / _GB:g} GB"
                        raise IngestError(
                            329,
                            where=one.name,
                            seen=seen,
                            do="Write a larger largest_file_gb into the server file",
                        )
                    if lines.size - looked >= _LOOK_EVERY:
                        looked = lines.size
                        self._refuse_full_disk()
                    out.write(chunk)
                    self.calls.check_time()
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            raise self._disk(error) from error
        _refuse(one, lines.end())
        if one.count is not None and lines.lines != one.count:
            raise _NotWholeError(f"it has {lines.lines:,} lines, the list says {one.count:,}")
        return lines

    def _refuse_full_disk(self) -> None:
        if shutil.disk_usage(self.path).free < LEAST_FREE_BYTES:
            raise IngestError(
                311,
                where=self.path.name,
                wanted=f"at least {LEAST_FREE_BYTES / _GB:.1f} GB free is wanted at any time",
                do="Free some space, then give --resume",
            )

    def _disk(self, error: OSError) -> ConfigError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return ConfigError(
            105 if full else 107,
            where=self.path.name,
            seen=(error.strerror or type(error).__name__).lower(),
            do="Make room, then give --resume" if full else None,
        )


class _NotWholeError(Exception):
    """A file did not come whole; another try may help."""


def wanted_files(manifest: ExportManifest) -> list[WantedFile]:
    """Return what a list names, in its order, each with a name of its own here.

    Names that ``ingest`` reads are those of resources; errors and deletions have others.
    """
    named: Counter[str] = Counter()
    wanted = []
    for file in manifest.output:
        named[file.type] += 1
        name = f"{file.type}.{named[file.type]:04}.ndjson"
        wanted.append(WantedFile(name, file.url, file.type, file.count))
    for ending, listed in (("errors", manifest.error), ("deleted", manifest.deleted)):
        wanted += [
            WantedFile(f"{at:04}.{ending}", file.url, "", file.count)
            for at, file in enumerate(listed, 1)
        ]
    return wanted


def listed(manifest: ExportManifest) -> str:
    """Return what tells one list of files from another: all but the query of its addresses."""
    files_ = [(one.name, one.count, one.url.partition("?")[0]) for one in wanted_files(manifest)]
    said = msgspec.json.encode([manifest.transaction_time, files_])
    return hashlib.sha256(said).hexdigest()


@contextmanager
def private_folder(path: Path, *, resume: bool) -> Iterator[None]:
    """Hold a folder, made for its owner alone, against other exports meanwhile.

    Raises:
        IngestError: HF-334 where there is something in it that is not to be resumed, or another
            export works there.
    """
    made = not path.exists()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not _locked(handle):
            raise IngestError(
                334,
                where=path.name,
                seen="another export is writing it",
                wanted="one at a time",
                do="Wait for it to end, or name another folder",
            )
        inside = sorted(one.name for one in path.iterdir())
        if resume and inside and STATE_FILE not in inside:
            raise IngestError(
                334,
                where=path.name,
                seen=f"it is of no export: there is no {STATE_FILE} in it",
                do="Name the folder of the export, or a new one",
            )
        if inside and not resume:
            raise IngestError(334, where=path.name, seen="there is something in it")
        path.chmod(0o700)
        yield
    finally:
        os.close(handle)
        if made and not any(path.iterdir()):
            path.rmdir()


def start_over(path: Path) -> None:
    """Remove what was downloaded of a job that the server does not know any more."""
    for file in path.iterdir():
        if file.suffix in (".ndjson", ".errors", ".deleted", _PART):
            file.unlink()


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks keeps nobody off
    return True


def _refuse(one: WantedFile, wrong: LinesFault | None) -> None:
    """Raise for lines that are no whole file; only what is cut off may be whole another time."""
    if wrong is not None and wrong.cut_off:
        raise _NotWholeError(wrong.seen)
    if wrong is not None:
        raise IngestError(333, where=one.name, seen=wrong.seen)


def _broken_off(one: WantedFile, error: httpx.TransportError) -> IngestError:
    if isinstance(error, httpx.RemoteProtocolError):
        return IngestError(333, where=one.name, seen="the connection ended in the middle of it")
    failed = unreachable(one.url, error)
    return failed if isinstance(failed, IngestError) else not_understood(one.url, str(failed))


def _not_given(one: WantedFile, answer: httpx.Response) -> IngestError:
    """Return the error for an answer that is no file."""
    body = b""
    for chunk in answer.iter_bytes():
        body += chunk
        if len(body) > MOST_BYTES:
            break
    status = answer.status_code
    seen = f"the server does not give it: HTTP {status}{outcome_text(body[:MOST_BYTES])}"
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return IngestError(
            330,
            where=f"{one.name} ({short(answer.url.host)})",
            seen=seen,
            wanted="a token that the server takes for its files",
            do="Give --resume; if it stays so, tell the FHIR server's administrator",
        )
    do = "Give --resume; if it stays so, remove the folder and export anew"
    return IngestError(331, where=one.name, seen=seen, do=do)
