"""A site of events in memory: what cannot be true set aside, labels and splits its own people's."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from healthfm_client.ingest.reader_interface import Site
from healthfm_client.ingest.tables.parquet_columns import refuse_empty, rows_of
from healthfm_core.data.store.events import ids, set_aside
from healthfm_core.data.store.schemas import EVENTS, conform


def event_site(
    name: str | None,
    events: pa.Table,
    *,
    now_us: int,
    limits: Mapping[str, tuple[float, float]] | None = None,
    labels: Mapping[str, pa.Table] | None = None,
    splits: pa.Table | None = None,
) -> Site:
    """Return a site of its events: what cannot be true set aside, labels and splits its own.

    Args:
        name: The site.
        events: Its events in any order, MEDS types (codes may be a dictionary).
        now_us: What is later than it is set aside.
        limits: See `healthfm_core.data.store.events.set_aside`.
        labels: Task → labels of any sites' people.
        splits: Splits of any sites' people.
    """
    kept, rejected = set_aside(_with_text(events), now_us=now_us, limits=limits)
    refuse_empty(kept, name or "events")
    subjects = ids(kept)
    return Site(
        name=name,
        events=conform(kept, EVENTS, name or "events"),
        labels={task: rows_of(table, subjects) for task, table in (labels or {}).items()},
        splits=None if splits is None else rows_of(splits, subjects),
        rejected=rejected,
    )


def _with_text(events: pa.Table) -> pa.Table:
    if "text_value" in events.column_names:
        return events
    return events.append_column("text_value", pa.nulls(events.num_rows, pa.large_string()))
