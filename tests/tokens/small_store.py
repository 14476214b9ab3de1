"""Stores of a few people, written with the real writer from rows of plain Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from healthfm_core.data.store.labels import label_table
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_writer import StoreWriter
from healthfm_core.data.store.wearables import stretches

HOUR_US = 3_600_000_000
Row = tuple[int, float | None, str, float | None]
"""(subject, hours since 1970 or None for static, code, value or None)."""
Worn = tuple[int, float, str, float, list[float | None]]
"""(subject, start in hours, channel, hz, samples, None where unobserved)."""


def write(
    path: Path,
    rows: Sequence[Row],
    *,
    worn: Sequence[Worn] = (),
    device: str = "wrist",
    labels: Mapping[str, Sequence[tuple[int, float, bool]]] | None = None,
    splits: Mapping[int, str] | None = None,
    parents: Mapping[str, str] | None = None,
) -> SiteStore:
    """Write a store and open it; everybody is in train unless `splits` says otherwise."""
    people = {row[0] for row in rows} | {row[0] for row in worn}
    writer = StoreWriter(path, dataset_name=path.name)
    writer.add_events(events(rows))
    for subject, start, channel, hz, samples in worn:
        values = np.array([[np.nan if s is None else s for s in samples]], np.float32)
        who, when = np.array([subject]), np.array([round(start * HOUR_US)])
        writer.add_wearable(device, stretches(who, when, channel, hz, values))
    for task, given in (labels or {}).items():
        subject, hour, value = zip(*given, strict=True)
        times = np.array([round(h * HOUR_US) for h in hour])
        writer.set_labels(task, label_table(np.array(subject), times, np.array(value)))
    writer.set_splits({s: (splits or {}).get(s, "train") for s in people})
    writer.write()
    if parents:
        pq.write_table(codes(parents), path / "metadata" / "codes.parquet")
    return SiteStore.open(path)


def events(rows: Sequence[Row]) -> pa.Table:
    """MEDS rows."""
    times = [None if row[1] is None else round(row[1] * HOUR_US) for row in rows]
    return pa.table(
        {
            "subject_id": pa.array([row[0] for row in rows], pa.int64()),
            "time": pa.array(times, pa.int64()).cast(pa.timestamp("us")),
            "code": pa.array([row[2] for row in rows], pa.string()),
            "numeric_value": pa.array([row[3] for row in rows], pa.float32()),
        }
    )


def codes(parents: Mapping[str, str]) -> pa.Table:
    """The codes' metadata."""
    return pa.table(
        {
            "code": pa.array(list(parents), pa.string()),
            "description": pa.array([None] * len(parents), pa.string()),
            "parent_codes": pa.array([[p] for p in parents.values()], pa.list_(pa.string())),
        }
    )
