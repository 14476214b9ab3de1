"""What a reader is: a name, how it knows its source, its options, and the sites it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
from pydantic import Field, field_validator

from healthfm_core.config.base import Schema
from healthfm_core.data.store.event_stream import EventStream
from healthfm_core.data.store.genetics import DECLARED_Z
from healthfm_core.data.store.set_aside_share import MOST


class ReaderOptions(Schema):
    """Options every reader has; a reader adds its own as fields, which become flags."""

    today: date | None = Field(None, description="what is dated later is set aside [today, UTC]")
    time_zone: str | None = Field(
        None,
        description="the site's zone (IANA), for times with an offset or a zone [as written]",
    )
    subjects: Path | None = Field(
        None,
        description="linking table: the source's id, and subject_id or same_as (the id elsewhere)",
    )
    key: Path | None = Field(
        None, description="file of the site's key, made if absent: ids become keyed hashes"
    )
    splits_of: Path | None = Field(
        None, description="a store whose people keep the split that they have there"
    )
    codes: Path | None = Field(
        None, description="what is above a code: table of code and parent, or MEDS's codes.parquet"
    )
    map: tuple[Path, ...] = Field(
        (),
        description="tables that replace codes: source_code and code, SOURCE_TO_CONCEPT_MAP, "
        "Usagi's, or a folder of vocabulary tables as from Athena",
    )

    max_set_aside: float = Field(
        MOST,
        ge=0,
        le=1,
        description="share of the rows that may be set aside; above it nothing is written",
    )

    @field_validator("time_zone")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        try:
            return name if name is None else ZoneInfo(name).key
        except (KeyError, ValueError, OSError) as error:
            raise ValueError("it is no IANA time zone, such as Europe/London") from error

    def files_beside(self) -> tuple[Path, ...]:
        """Return the files and folders beside the source that say how it is read."""
        return self.map

    @property
    def now_us(self) -> int:
        """The end of `today` in µs since 1970."""
        day = self.today or datetime.now(UTC).date()
        return int(datetime.combine(day, time.max, UTC).timestamp() * 1_000_000)


@dataclass(frozen=True)
class WearingPart:
    """What devices say of some people, whom no other part of the source has.

    Attributes:
        wearables: Device → rows of `schemas.WEARABLE` in any order.
        rejected: Reason → rows set aside.
        not_read: Kind of record → how many there are that the reader does not read.
    """

    wearables: Mapping[str, pa.Table]
    rejected: Mapping[str, pa.Table] = field(default_factory=dict)
    not_read: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class WearingStream:
    """What devices say of all people, in parts, so that it need not fit in memory.

    Attributes:
        parts: Read as they are asked for, once.
        people: How many parts there are, about; for the progress that is shown.
    """

    parts: Iterable[WearingPart]
    people: int


@dataclass(frozen=True)
class Site:
    """All that a source says of one site; any part may be absent.

    Attributes:
        name: The site; None where the source is one site, whose store is then the output folder.
        events: MEDS columns, rows in any order.
        stream: Events that need not fit in memory; scores may come beside them, `events` not.
        wearables: Device → rows of `schemas.WEARABLE`.
        wearing: Wearables that need not fit in memory; `wearables` not beside them.
        scores: subject_id, score, z.
        normalisation: How the scores came to be z (see `healthfm_core.data.store.genetics`).
        labels: Task → MEDS label table.
        splits: MEDS's subject_splits; None is the keyed hash.
        codes: MEDS's code metadata.
        rejected: Reason → rows set aside.
        not_read: Kind of record → how many there are that the reader does not read.
        source_codes: (code, code of the source that a mapping replaced by it) → rows.
        notices: Sentences for the person who reads it in.
        title: The store's own name; None is `name`, or the output folder's.
        vocabularies: Tables beside the events that decide what a code is called.
    """

    name: str | None
    events: pa.Table | None = None
    stream: EventStream | None = None
    wearables: Mapping[str, pa.Table] = field(default_factory=dict)
    wearing: WearingStream | None = None
    scores: pa.Table | None = None
    normalisation: str = DECLARED_Z
    labels: Mapping[str, pa.Table] = field(default_factory=dict)
    splits: pa.Table | None = None
    codes: pa.Table | None = None
    rejected: Mapping[str, pa.Table] = field(default_factory=dict)
    not_read: Mapping[str, int] = field(default_factory=dict)
    source_codes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    title: str | None = None
    vocabularies: tuple[str, ...] = ()


@dataclass(frozen=True)
class SitesInOneStream:
    """Events of several sites in one stream, with a column that says whose each is.

    Attributes:
        stream: MEDS columns and `column`.
        column: The site, integer or text.
        labels: Task → MEDS label table of anyone.
        splits: MEDS's subject_splits of anyone; None is the keyed hash.
        notices: Sentences for the person who reads it in.
    """

    stream: EventStream
    column: str
    labels: Mapping[str, pa.Table] = field(default_factory=dict)
    splits: pa.Table | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reader:
    """One kind of source.

    Attributes:
        name: As in ``ingest NAME PATH``.
        summary: One line for ``--help``.
        options: Its options, all with a default.
        links: Whether it turns ids into subject_ids itself; for others, whose ids are integers,
            the pipeline does.
        opens_archives: Whether a .zip is read as it is, by `sniff` too, and not unpacked before.
        sniff: Whether a path looks like this source; cheap, never raises for a wrong one.
        read: (path, options) → the sites, one at a time, or several in one stream; raises
            `IngestError`.
        reads: What of the source comes into the store, for ``--help`` and docs/readers.md.
        not_read: What stays outside, and which of it the summary of an `ingest` counts.
        tried_on: Data that nobody of this project wrote, with where they are from.
    """

    name: str
    summary: str
    sniff: Callable[[Path], bool]
    read: Callable[
        [Path, Any], Iterator[Site] | Iterator[SitesInOneStream] | Iterator[Site | SitesInOneStream]
    ]
    options: type[ReaderOptions] = ReaderOptions
    links: bool = False
    opens_archives: bool = False
    reads: str = ""
    not_read: str = ""
    tried_on: str = ""
