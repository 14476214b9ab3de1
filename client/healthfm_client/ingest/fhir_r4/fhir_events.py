"""Events as FHIR's resources give them, on their way into a stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from healthfm_client.ingest.fhir_r4.fhir_columns import Plain
from healthfm_client.ingest.reader_interface import ReaderOptions
from healthfm_client.ingest.subject_linking import linked
from healthfm_core.data.store.event_stream import CodeTexts, NotRead, RejectedRows, StreamItem
from healthfm_core.data.store.events import as_float32


@dataclass
class FhirEvents:
    """Events as they are found, and what was set aside, column by column.

    `place` is that of the line or entry they are of, in its file or piece; those of `plain` come in
    between the others, by their places from `before` on.
    """

    subject: list[str] = field(default_factory=list)
    time: list[int | None] = field(default_factory=list)
    code: list[str | None] = field(default_factory=list)
    value: list[float | None] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    rejected_rows: int = 0
    not_read: Counter[str] = field(default_factory=Counter)
    place: int = 0
    plain: Plain | None = None
    before: int = 0

    def reject(self, reason: str, kind: str) -> None:
        """Note a resource that gives no event: its place in the file, and its type."""
        self.rejected.setdefault(reason, []).append((self.place, kind))
        self.rejected_rows += 1

    def add(
        self, subject: str, time: int | None, code: str | None, value: float | None = None
    ) -> None:
        """Add an event."""
        self.subject.append(subject)
        self.time.append(time)
        self.code.append(code)
        self.value.append(value)
        self.places.append(self.place)

    def call(self, texts: dict[str, str]) -> None:
        """Note what codes are called; what was said first stays."""
        for code, text in texts.items():
            self.texts.setdefault(code, text)

    def tables(self, options: ReaderOptions, where: str) -> Iterator[StreamItem]:
        """Yield what there is."""
        yield CodeTexts(self.texts)
        if self.not_read:
            yield NotRead(self.not_read)
        for reason, resources in sorted(self.rejected.items()):
            places = {
                "file": [where] * len(resources),
                "number": pa.array([number for number, _ in resources], pa.int64()),
                "resource": pa.array([kind for _, kind in resources], pa.string()),
            }
            yield RejectedRows(reason, pa.table(places))
        parts = [self._events()] if self.subject else []
        if self.plain is not None:
            parts.append(_plain_events(self.plain, self.before))
        if parts:
            events = pa.concat_tables(parts).unify_dictionaries().combine_chunks()
            if len(parts) > 1:
                order = np.argsort(events["place"].to_numpy(), kind="stable")
                events = events.take(pa.array(order))
            subject = linked(events["subject_id"], options, where)
            at = events.column_names.index("subject_id")
            yield events.set_column(at, "subject_id", subject).drop_columns(["place"])

    def _events(self) -> pa.Table:
        value = np.array([np.nan if v is None else v for v in self.value], np.float64)
        absent = np.array([v is None for v in self.value], np.bool_)
        return pa.table(
            {
                "subject_id": pa.array(self.subject, pa.string()),
                "time": pa.array(self.time, pa.timestamp("us")),
                "code": pa.array(self.code, pa.string()).dictionary_encode(),
                "numeric_value": pa.array(as_float32(value), mask=absent),
                "place": pa.array(self.places, pa.int64()),
            }
        )


def _plain_events(plain: Plain, before: int) -> pa.Table:
    return pa.table(
        {
            "subject_id": plain.subject,
            "time": pa.array(plain.time, pa.timestamp("us")),
            "code": plain.code,
            "numeric_value": pa.array(as_float32(plain.value), mask=plain.absent),
            "place": plain.line + before,
        }
    )
