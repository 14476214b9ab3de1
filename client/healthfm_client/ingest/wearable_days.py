"""Totals and means of days, as a store keeps wearables: a channel with one sample a day.

Their device is `PER_DAY`. A sample stands at its day's midnight and is known at the day's end. The
channels have names of their own, STEPS_DAY beside STEPS, since a day's total is no minute's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from healthfm_client.ingest.reader_interface import ReaderOptions
from healthfm_client.ingest.subject_linking import linked
from healthfm_client.ingest.tables.duckdb_reader import DuckDBReader, TableFile
from healthfm_client.ingest.tables.wearable_minutes import EARLIEST_US
from healthfm_core.arrays import Bool, Float64, Int64
from healthfm_core.data.store.events import as_float32, coded, ids, repeated, times_us
from healthfm_core.data.store.schemas import WEARABLE
from healthfm_core.data.store.wearables import DAY_US

PER_DAY: Final = "per_day"
A_DAY_HZ: Final = 1 / 86_400
GAP_DAYS: Final = 31
"""A longer time without a day ends a stretch, so that a wrong date costs no room."""
_MINUTES: Final = (0.0, 1440.0)
LIMITS: Final[Mapping[str, tuple[float, float]]] = {
    "STEPS": (0.0, 200_000.0),
    "ENERGY": (0.0, 30_000.0),
    "ACTIVE_ENERGY": (0.0, 30_000.0),
    "VERY_ACTIVE": _MINUTES,
    "FAIRLY_ACTIVE": _MINUTES,
    "LIGHTLY_ACTIVE": _MINUTES,
    "SEDENTARY": _MINUTES,
    "ASLEEP": _MINUTES,
    "IN_BED": _MINUTES,
    "AWAKE": _MINUTES,
    "LIGHT_SLEEP": _MINUTES,
    "DEEP_SLEEP": _MINUTES,
    "REM_SLEEP": _MINUTES,
    "HR": (20.0, 260.0),
    "RESTING_HR": (20.0, 260.0),
    "HRV": (0.0, 1000.0),
    "SPO2": (50.0, 100.0),
    "RESPIRATORY_RATE": (2.0, 80.0),
}
"""Quantity → what a day of it can be: steps, kcal, minutes, beats/min, ms (RMSSD), %, breaths/min.
A channel is a quantity with ``_DAY`` or, of a person's mean over days, ``_MEAN`` behind it."""
_VALUES: Final = pa.schema(
    [
        pa.field("subject_id", pa.int64()),
        pa.field("day", pa.timestamp("us")),
        pa.field("channel", pa.string()),
        pa.field("value", pa.float64()),
    ]
)


def day_values(
    file: TableFile,
    person: str,
    day: str,
    channels: Mapping[str, str],
    options: ReaderOptions,
    *,
    pieces: str = "",
) -> tuple[pa.Table, pa.Table]:
    """Return a table's (values that can be true, the others): person, day, channel, value.

    Args:
        file: A row per person and day.
        person: SQL of the person's id.
        day: SQL of a time within the day.
        channels: Column → channel of what is read; an empty cell is no value.
        options: The reader's.
        pieces: Column that tells a day's several rows apart, whose values add up; '' where a day
            has one row. A row that is there twice counts once.

    Raises:
        IngestError: HF-303, HF-305, HF-307, HF-308.
    """
    cells = {name: f"CAST({file.column(name)} AS VARCHAR)" for name in channels}
    chosen = [f"CAST({person} AS VARCHAR) AS person", f"date_trunc('day', {day}) AS day"]
    chosen += [f"CAST({file.column(pieces)} AS VARCHAR) AS piece"] if pieces else []
    for n, cell in enumerate(cells.values()):
        chosen += [f"TRY_CAST({cell} AS DOUBLE) AS v{n}", f"trim({cell}) <> '' AS said{n}"]
    rows = DuckDBReader().table(f"SELECT {', '.join(chosen)} FROM {file.source()}", file.path)
    rows = rows.set_column(1, "day", rows["day"].cast(pa.timestamp("us")))
    if pieces:
        rows = rows.group_by(rows.column_names, use_threads=False).aggregate([])
    kept, odd = [_VALUES.empty_table()], []
    for n, channel in enumerate(channels.values()):
        said = rows.filter(pc.fill_null(rows[f"said{n}"], False))
        columns = [said["person"], said["day"], said[f"v{n}"]]
        values = pa.table(columns, names=["person", "day", "value"])
        good = _possible(values, channel, options.now_us)
        odd.append(_named(values.filter(pa.array(~good)), channel))
        kept.append(_values(values.filter(pa.array(good)), channel, options, file.path.name))
    table = pa.concat_tables(kept)
    return (_added_up(table) if pieces else table), pa.concat_tables(odd)


def stretched(values: Sequence[pa.Table]) -> tuple[pa.Table, pa.Table]:
    """Return (wearable rows, what says a person's day a second time in other words).

    A row is a stretch of days of one person and channel; a day that is not there has no reading.

    Args:
        values: As `day_values` gives them.
    """
    table = pa.concat_tables([_VALUES.empty_table(), *values])
    channel, names = coded(table["channel"])
    subject, day = ids(table), times_us(table, "day") // DAY_US
    again = repeated([subject, day, channel])
    value = np.asarray(table["value"].to_numpy(), np.float64)
    same = repeated([subject, day, channel, value.view(np.int64)])
    order = np.flatnonzero(~again)
    order = order[np.lexsort((day[order], channel[order], subject[order]))]
    stretches = _stretches(subject[order], channel[order], day[order], value[order], names)
    return stretches, table.filter(pa.array(again & ~same))


def days_of_one(
    subject: int, channels: Mapping[str, Mapping[int, float]], now_us: int
) -> tuple[pa.Table, pa.Table]:
    """Return one person's (wearable rows, values that cannot be true).

    Args:
        subject: Whose.
        channels: Channel → day since 1970 → its value.
        now_us: What is later cannot be true.
    """
    kept, odd = [_VALUES.empty_table()], [_VALUES.empty_table()]
    for channel, days in sorted(channels.items()):
        day = np.array(list(days), np.int64)
        columns = {
            "person": pa.array(np.full(len(day), subject, np.int64)),
            "day": pa.array(day * DAY_US).cast(pa.timestamp("us")),
            "channel": pa.array([channel] * len(day), pa.string()),
            "value": pa.array(list(days.values()), pa.float64()),
        }
        table = pa.table(columns)
        good = _possible(table, channel, now_us)
        table = table.rename_columns(_VALUES.names).cast(_VALUES)
        kept.append(table.filter(pa.array(good)))
        odd.append(table.filter(pa.array(~good)))
    return stretched(kept)[0], pa.concat_tables(odd)


def cells_not_read(file: TableFile, known: Collection[str]) -> dict[str, int]:
    """Return column → cells that are not empty, of the columns that are none of `known`."""
    others = [name for name in file.columns if name not in known]
    if not others:
        return {}
    counts = ", ".join(
        f"count(*) FILTER (trim(CAST({file.column(name)} AS VARCHAR)) <> '') AS c{n}"
        for n, name in enumerate(others)
    )
    (row,) = DuckDBReader().table(f"SELECT {counts} FROM {file.source()}", file.path).to_pylist()
    return {name: row[f"c{n}"] for n, name in enumerate(others) if row[f"c{n}"]}


def _stretches(
    subject: Int64, channel: Int64, day: Int64, value: Float64, names: list[str]
) -> pa.Table:
    """Return wearable rows of values in the order of their subject, channel and day.

    Args:
        subject: [N] whose.
        channel: [N] index of the channel.
        day: [N] days since 1970, each once.
        value: [N] the number.
        names: The channels.
    """
    if not len(subject):
        return WEARABLE.empty_table()
    other = (np.diff(subject) != 0) | (np.diff(channel) != 0) | (np.diff(day) > GAP_DAYS)
    first = np.flatnonzero(np.append(True, other))
    row = np.cumsum(np.append(0, other)).astype(np.int64)
    last = np.append(first[1:], len(subject)) - 1
    offsets = np.append(0, np.cumsum(day[last] - day[first] + 1))
    at = offsets[row] + day - day[first][row]
    samples, seen = np.zeros(offsets[-1], np.float32), np.zeros(offsets[-1], np.bool_)
    samples[at], seen[at] = as_float32(value), True
    ends = pa.array(offsets, pa.int32())
    columns = {
        "subject_id": pa.array(subject[first]),
        "start": pa.array(day[first] * DAY_US).cast(pa.timestamp("us")),
        "channel": pa.array(names, pa.string()).take(pa.array(channel[first])),
        "hz": pa.array(np.full(len(first), A_DAY_HZ)),
        "value": pa.ListArray.from_arrays(ends, pa.array(samples)),
        "mask": pa.ListArray.from_arrays(ends, pa.array(seen)),
    }
    return pa.table(columns, schema=WEARABLE)


def _possible(values: pa.Table, channel: str, now_us: int) -> Bool:
    """Return where somebody's day is known, past, and within its quantity's limits."""
    quantity = channel.removesuffix("_DAY").removesuffix("_MEAN")
    low, high = LIMITS.get(quantity, (-np.inf, np.inf))
    value = np.asarray(values["value"].fill_null(np.nan).to_numpy(), np.float64)
    day = times_us(values, "day")
    known = pc.and_(values["person"].is_valid(), values["day"].is_valid())
    good = np.asarray(known.to_numpy(), np.bool_) & np.isfinite(value)
    return np.asarray(
        good & (value >= low) & (value <= high) & (day > EARLIEST_US) & (day <= now_us)
    )


def _values(rows: pa.Table, channel: str, options: ReaderOptions, where: str) -> pa.Table:
    if not rows.num_rows:
        return _VALUES.empty_table()
    return pa.table(
        {
            "subject_id": linked(rows["person"], options, where),
            "day": rows["day"],
            "channel": pa.array([channel] * rows.num_rows, pa.string()),
            "value": rows["value"],
        },
        schema=_VALUES,
    )


def _added_up(values: pa.Table) -> pa.Table:
    """Return the sums of each person's days."""
    summed = values.group_by(["subject_id", "day", "channel"], use_threads=False).aggregate(
        [("value", "sum")]
    )
    return summed.rename_columns(_VALUES.names).cast(_VALUES)


def _named(rows: pa.Table, channel: str) -> pa.Table:
    return rows.append_column("channel", pa.array([channel] * rows.num_rows, pa.string()))
