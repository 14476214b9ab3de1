"""A source that is read in parts, each a series of tables, so that it need not fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa

from healthfm_core.data.store.events import Limits


@dataclass(frozen=True)
class RejectedRows:
    """Raw rows that give no event, and why."""

    reason: str
    rows: pa.Table


@dataclass(frozen=True)
class CodeTexts:
    """What codes mean in the source's own words, as it names them beside its events."""

    of: Mapping[str, str]


@dataclass(frozen=True)
class NotRead:
    """What a source holds beside its events that the reader does not read: kind → how many."""

    kinds: Mapping[str, int]


@dataclass(frozen=True)
class SourceCodes:
    """What was mapped: (code in the store, code of the source) → rows."""

    rows: Mapping[tuple[str, str], int]


StreamItem: TypeAlias = pa.Table | RejectedRows | CodeTexts | NotRead | SourceCodes
"""What reading a part yields: MEDS columns in any order of rows, or one of the others."""


@dataclass(frozen=True)
class SourcePart:
    """A piece of a source that is read as a whole: a file, a table.

    Attributes:
        name: Unique in its source, and the same when the source is read again.
        rows: How many rows it has, about; for the progress that is shown.
        tables: What is in it, read as it is asked for, once: a generator's call, usually.
        file: The file that it is; None where it is none, as a table of a database.
        of_everyone: Whether it has a row for each person, who has other rows elsewhere.
    """

    name: str
    rows: int
    tables: Iterable[StreamItem]
    file: Path | None = None
    of_everyone: bool = False


@dataclass(frozen=True)
class EventStream:
    """Events in parts, and what makes one of them impossible.

    Attributes:
        parts: Read one after the other.
        now_us: What is dated later is set aside.
        limits: Values of a code outside its limits are set aside.
        codes: Codes that occur → MEDS's table of what is known of them and of those above them.
    """

    parts: Sequence[SourcePart]
    now_us: int
    limits: Limits = field(default_factory=dict)
    codes: Callable[[Sequence[str]], pa.Table] | None = None

    @property
    def rows(self) -> int:
        """How many rows there are, about."""
        return sum(part.rows for part in self.parts)
