"""How far an export in a folder is, in its file ``export.state``: what was asked, and what is here.

The file stays with the downloaded ones; whoever reads the folder can tell whether it is whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, Self, TypeAlias

from pydantic import Field, ValidationError

from healthfm_core.config.base import Schema
from healthfm_core.errors import IngestError
from healthfm_core.trust import files

STATE_FILE: Final = "export.state"
Phase: TypeAlias = Literal["asked", "fetching", "whole"]


class FetchedFile(Schema):
    """A file that is here.

    Attributes:
        size: In bytes.
        lines: How many have something in them.
    """

    size: int = Field(ge=0)
    lines: int = Field(ge=0)


class ExportState(Schema):
    """How far an export is.

    Attributes:
        url: The server's base address.
        group: Whose records; None: all patients'.
        types: That were asked for.
        since: The server was asked for what changed since then; None: for all.
        earlier: Folder of the export that `since` is of; None: it was given as a time.
        phase: Asked for, being fetched, or all here.
        job: The address of the server's job; None where there is none.
        transaction_time: As of when the records are.
        listed: What identifies the server's list of files.
        fetched: Name → the file, of those that are here.
    """

    url: str
    group: str | None
    types: tuple[str, ...]
    since: str | None = None
    earlier: Path | None = None
    phase: Phase = "asked"
    job: str | None = None
    transaction_time: str | None = None
    listed: str | None = None
    fetched: Mapping[str, FetchedFile] = Field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return how far the export in a folder is; None where the folder is of no export.

        Raises:
            IngestError: HF-334 where the file is damaged.
        """
        try:
            text = (folder / STATE_FILE).read_bytes()
        except FileNotFoundError:
            return None
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise IngestError(
                334,
                where=f"{folder.name}/{STATE_FILE}",
                seen="it is damaged",
                do="Remove the folder and export anew",
            ) from error

    def write(self, folder: Path) -> None:
        """Write it; a kill leaves the one before or this one."""
        text = self.model_dump_json(indent=1).encode("utf-8")
        files.replace(folder / STATE_FILE, text, files.PRIVATE)

    def remove(self, folder: Path) -> None:
        """Remove it, so that the folder is of no export any more."""
        (folder / STATE_FILE).unlink()

    def differs_in(self, other: ExportState) -> list[str]:
        """Return what two exports were asked for differently."""
        asked = ("url", "group", "types", "since")
        return [name for name in asked if getattr(self, name) != getattr(other, name)]


def refuse_unfinished(path: Path) -> None:
    """Check that a folder to be read holds no part of an export.

    Raises:
        IngestError: HF-334.
    """
    for folder, state in _exports_below(path):
        if state.phase != "whole":
            raise IngestError(
                334,
                where=folder.name,
                seen="an export into this folder has not come to its end",
                wanted="a whole export",
                do="Give healthfm-client fhir-export with --resume first",
            )


def refuse_partial_records(path: Path) -> None:
    """Check that a folder has whole records of people, not what changed since a time.

    Raises:
        IngestError: HF-334.
    """
    for folder, state in _exports_below(path):
        if state.since is not None:
            raise IngestError(
                334,
                where=folder.name,
                seen="it has what changed since a time, which would take the place of people's "
                "whole records",
                wanted="an export without --since",
                do="Give --update rows, or export without --since",
            )


def _exports_below(path: Path) -> Iterator[tuple[Path, ExportState]]:
    """Yield the folders of exports in a folder, and how far each is."""
    for file in sorted(path.rglob(STATE_FILE)) if path.is_dir() else []:
        state = ExportState.read(file.parent)
        if state is not None:
            yield file.parent, state
