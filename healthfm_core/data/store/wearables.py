"""Wearable signals beside the events: stretches of regular samples with a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from healthfm_core.arrays import Bool, Float32, Int64
from healthfm_core.data.store.events import coded, ids, repeated, times_us
from healthfm_core.data.store.schemas import EVENTS, WEARABLE, conform
from healthfm_core.errors import StoreError
from healthfm_core.modalities.wearable import WEARABLE_PREFIX

SECOND_US: Final = 1_000_000
HOUR_US: Final = 3600 * SECOND_US
DAY_US: Final = 24 * HOUR_US


def stretches(
    subject_id: Int64,
    start_us: Int64,
    channel: str,
    hz: float,
    value: Float32,
    mask: Bool | None = None,
) -> pa.Table:
    """Return wearable rows of equal length.

    Args:
        subject_id: [R] ids.
        start_us: [R] time of each row's first sample, µs since 1970.
        channel: What was measured, for example ``HR``.
        hz: Samples per second (1/60 for a minute-level export).
        value: [R, L] readings in the channel's unit.
        mask: [R, L] where there was a reading; None is everywhere the value is finite.
    """
    rows, length = value.shape
    seen = np.isfinite(value) if mask is None else mask & np.isfinite(value)
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * length)
    readings = np.where(seen, value, np.float32(0)).ravel()
    return pa.table(
        {
            "subject_id": pa.array(subject_id, pa.int64()),
            "start": pa.array(start_us, pa.int64()).cast(pa.timestamp("us")),
            "channel": pa.array(np.full(rows, channel), pa.string()),
            "hz": pa.array(np.full(rows, hz), pa.float64()),
            "value": pa.ListArray.from_arrays(offsets, pa.array(readings, pa.float32())),
            "mask": pa.ListArray.from_arrays(offsets, pa.array(seen.ravel())),
        },
        schema=WEARABLE,
    )


def sort_wearable(table: pa.Table) -> pa.Table:
    """Return the rows by subject, start and channel."""
    keys = [(name, "ascending") for name in ("subject_id", "start", "channel")]
    return table.sort_by(keys)


def put_together(tables: Sequence[pa.Table]) -> tuple[pa.Table, int]:
    """Return several tables as one: of a subject, start and channel one row, with all samples.

    Args:
        tables: Wearable rows of one device; of a sample that two have the first's is kept.

    Returns:
        (rows in any order, samples that differ from the one that was kept).
    """
    table, differing = tables[0], 0
    for more in tables[1:]:
        more, unlike = _only_new(table, more)
        table, differing = pa.concat_tables([table, more]), differing + unlike
    keys = np.stack([ids(table), times_us(table, "start"), coded(table["channel"])[0]])
    _, first, group, size = np.unique(
        keys, axis=1, return_index=True, return_inverse=True, return_counts=True
    )
    often = np.flatnonzero(size[group.ravel()] > 1)
    if not len(often):
        return table, differing
    alone = np.ones(table.num_rows, np.bool_)
    alone[often] = False
    rows = dict.fromkeys(first[group.ravel()[often]].tolist())
    merged: dict[int, tuple[Float32, Bool, float]] = {}
    for at in often.tolist():
        kept = int(first[group.ravel()[at]])
        row = table.slice(at, 1)
        own = _samples_of(row)
        before = merged.get(kept)
        if before is not None:
            own, unlike = _filled(before, own)
            differing += unlike
        merged[kept] = own
    offsets = np.cumsum([0, *(len(merged[at][0]) for at in rows)])
    together = table.take(pa.array(list(rows), pa.int64()))
    for name, part in (("value", 0), ("mask", 1)):
        flat = pa.array(np.concatenate([merged[at][part] for at in rows]))
        lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)
        field = table.schema.field(name)
        together = together.set_column(
            together.column_names.index(name), field, lists.cast(field.type)
        )
    return pa.concat_tables([table.filter(pa.array(alone)), together]), differing


def _only_new(before: pa.Table, rows: pa.Table) -> tuple[pa.Table, int]:
    """Return rows without readings of times that stretches with another start have.

    Returns:
        (the rows that have a reading left, readings that differ from those that there were).
    """
    both, size = pa.concat_tables([before, rows]), before.num_rows
    keys = np.stack([ids(both), coded(both["channel"])[0]])
    of = np.unique(keys, axis=1, return_inverse=True)[1].ravel()
    start, hz = times_us(both, "start"), np.asarray(both["hz"].to_numpy())
    length = np.asarray(pc.list_value_length(both["value"]).to_numpy(), np.int64)
    end = start + np.rint(length / hz * SECOND_US).astype(np.int64)
    latest = np.full(len(both), np.iinfo(np.int64).min)
    np.maximum.at(latest, of[:size], end[:size])
    changed: dict[int, pa.Table] = {}
    differing = 0
    for at in (size + np.flatnonzero(start[size:] < latest[of[size:]])).tolist():
        near = np.flatnonzero(
            (of[:size] == of[at]) & (start[:size] < end[at]) & (end[:size] > start[at])
        )
        for other in near[(start[near] != start[at]) & (hz[near] == hz[at])].tolist():
            shift = (start[at] - start[other]) * hz[at] / SECOND_US
            if abs(shift - round(shift)) < 1e-6:
                own = changed.get(at, both.slice(at, 1))
                changed[at], unlike = _masked(own, both.slice(other, 1), round(shift))
                differing += unlike
    if not changed:
        return rows, 0
    kept = np.ones(rows.num_rows, np.bool_)
    kept[[at - size for at in changed]] = False
    left = [row for row in changed.values() if pc.any(pc.list_flatten(row["mask"])).as_py()]
    return pa.concat_tables([rows.filter(pa.array(kept)), *left]), differing


def _masked(row: pa.Table, other: pa.Table, shift: int) -> tuple[pa.Table, int]:
    """Return a row without the readings that another has, which began `shift` samples before."""
    value, mask, hz = _samples_of(row)
    before, seen, _ = _samples_of(other)
    at = np.arange(len(value)) + shift
    inside = (at >= 0) & (at < len(before))
    twice = np.zeros(len(value), np.bool_)
    twice[inside] = mask[inside] & seen[at[inside]]
    differing = int((value[twice] != before[at[twice]]).sum())
    left = stretches(
        ids(row),
        times_us(row, "start"),
        row["channel"][0].as_py(),
        hz,
        value[None],
        (mask & ~twice)[None],
    )
    return left.cast(row.schema), differing


def _samples_of(row: pa.Table) -> tuple[Float32, Bool, float]:
    """Return (values, mask, hz) of one row."""
    value = np.asarray(pc.list_flatten(row["value"]).to_numpy(), np.float32)
    mask = np.asarray(pc.list_flatten(row["mask"]).to_numpy(), np.bool_)
    return value, mask, row["hz"][0].as_py()


def _filled(
    first: tuple[Float32, Bool, float], second: tuple[Float32, Bool, float]
) -> tuple[tuple[Float32, Bool, float], int]:
    """Return the first's samples with the second's where it has none, and how many differ."""
    value, mask, hz = first
    if second[2] != hz:
        return first, int(second[1].sum())
    size = max(len(value), len(second[0]))
    values = [np.pad(one, (0, size - len(one))) for one in (value, second[0])]
    seen = [np.pad(one, (0, size - len(one))) for one in (mask, second[1])]
    differ = seen[0] & seen[1] & (values[0] != values[1])
    return (np.where(seen[0], *values).astype(np.float32), seen[0] | seen[1], hz), int(differ.sum())


def check_wearable(table: pa.Table, where: str) -> None:
    """Check order, doubles, rates, and that each value has its mask.

    Raises:
        StoreError: HF-202 for a rate that is no rate or a value without its mask, HF-203, HF-204.
    """
    lengths = pc.equal(pc.list_value_length(table["value"]), pc.list_value_length(table["mask"]))
    rates = pc.and_(pc.is_finite(table["hz"]), pc.greater(table["hz"], 0.0))
    if not (pc.all(lengths, min_count=0).as_py() and pc.all(rates, min_count=0).as_py()):
        raise StoreError(
            202,
            where=where,
            seen="a row has a rate of 0 or less, or more values than mask flags",
            wanted="hz > 0 and one mask flag per value are wanted",
        )
    subject, start = ids(table), times_us(table, "start")
    channel = coded(table["channel"])[0]
    same = subject[1:] == subject[:-1]
    if np.any((subject[1:] < subject[:-1]) | (same & (start[1:] < start[:-1]))):
        raise StoreError(
            203,
            where=where,
            seen="rows are out of order",
            wanted="the order subject_id, start is wanted",
        )
    again = int(np.sum(repeated([subject, start, channel])))
    if again:
        raise StoreError(204, where=where, seen=f"{again} rows repeat a subject, start and channel")


def hours_worn(table: pa.Table) -> float:
    """Return the hours for which there is a reading: of each person's channels the longest one's.

    A device that reads several quantities at once is worn once.
    """
    seen = pc.list_flatten(table["mask"]).to_numpy().astype(np.int64)
    ends = np.cumsum(np.asarray(pc.list_value_length(table["mask"]).to_numpy(), np.int64))
    total = np.concatenate([[0], np.cumsum(seen)])[ends]
    hours = np.diff(total, prepend=0) / np.asarray(table["hz"].to_numpy()) / 3600
    subject, channel = ids(table), coded(table["channel"])[0]
    whose, at = np.unique(np.stack([subject, channel]), axis=1, return_inverse=True)
    by_channel = np.bincount(at.ravel(), weights=hours, minlength=whose.shape[1])
    people, of = np.unique(whose[0], return_inverse=True)
    longest = np.zeros(len(people))
    np.maximum.at(longest, of, by_channel)
    return float(longest.sum())


def hourly_summaries(table: pa.Table, units: dict[str, str]) -> pa.Table:
    """Return the mean of each subject's hours as MEDS rows ``WEARABLE//HR//MEAN//bpm``.

    Args:
        table: Wearable rows sampled at least once an hour.
        units: Channel → its unit; other channels give no rows. An hour without a reading gives
            no row, and a row stands at the hour's end, when its mean is known.
    """
    table = table.filter(pc.is_in(table["channel"], pa.array(list(units), pa.string())))
    counts = np.asarray(pc.list_value_length(table["value"]).to_numpy(), np.int64)
    row = np.repeat(np.arange(table.num_rows), counts)
    within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    hz = np.asarray(table["hz"].to_numpy())
    seen = np.asarray(pc.list_flatten(table["mask"]).to_numpy(), np.bool_)
    value = np.asarray(pc.list_flatten(table["value"]).to_numpy(), np.float64)[seen]
    row, within = row[seen], within[seen]
    at = times_us(table, "start")[row] + np.rint(within / hz[row] * SECOND_US).astype(np.int64)
    channel, names = coded(table["channel"])
    key = np.stack([ids(table)[row], at // HOUR_US, channel[row]])
    groups, inverse = np.unique(key, axis=1, return_inverse=True)
    mean = np.bincount(inverse.ravel(), weights=value) / np.maximum(np.bincount(inverse.ravel()), 1)
    codes = [f"{WEARABLE_PREFIX}{name}//MEAN//{units.get(name, '')}" for name in names]
    code = pa.array(codes, pa.string()).take(pa.array(groups[2]))
    rows = pa.table(
        {
            "subject_id": pa.array(groups[0], pa.int64()),
            "time": pa.array((groups[1] + 1) * HOUR_US, pa.int64()).cast(pa.timestamp("us")),
            "code": code,
            "numeric_value": pa.array(mean.astype(np.float32)),
        }
    )
    return conform(rows, EVENTS, "hourly summaries")
