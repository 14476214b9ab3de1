"""Exports of continuous glucose monitors: Dexcom Clarity and LibreView (CSV), Tidepool (JSON).

A column is found by its place and by the unit in its header, since its words are in the language of
the account. A time is the clock that the sensor's display showed. LibreView writes days and months
in the order of the account, which a number over 12 tells; where none does, nothing is guessed.
A reading beyond the sensor's range is the end of the range: LibreView and Tidepool write that end,
Clarity a word, and the lowest readings of all must not look as if no sensor had been worn.
"""

from __future__ import annotations

import csv
import glob
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from healthfm_client.ingest.codes.molar_units import MASS, unit_of
from healthfm_client.ingest.tables.duckdb_reader import DuckDBReader, unreadable
from healthfm_client.ingest.tables.local_time import clock_us
from healthfm_core.arrays import Float64, Int64
from healthfm_core.data.store.events import times_us
from healthfm_core.errors import IngestError

GLUCOSE: Final = "LOINC//2345-7"
JSON_AT_MOST: Final = 256 * 1024**2
"""Bytes of a Tidepool export, which is read at once: several years of one person."""
_HEAD_BYTES: Final = 1 << 16
_LINES: Final = 6
"""Lines in which the header stands, behind a title and lines that are empty."""
_DELIMITERS: Final = ",;\t"
_UNIT: Final = re.compile(r"(mg/dl|mmol/l)\)?$", re.IGNORECASE)
_OF_CLARITY: Final = "hh:mm:ss"
_BEYOND: Final = {"low": 40.0, "high": 400.0}
"""Clarity's words for a reading beyond the sensor's range → the end of that range, mg/dL."""
_CLARITY: Final = {
    name: f"Clarity, {name}"
    for name in ("calibration", "insulin", "carbs", "exercise", "health", "activity")
}
_LIBRE: Final = {
    "1": "LibreView, scan",
    "2": "LibreView, glucose strip",
    "3": "LibreView, ketone strip",
    "4": "LibreView, insulin",
    "5": "LibreView, food",
    "6": "LibreView, note or other",
}
_TIDEPOOL: Final = {
    name: f"Tidepool, {name}"
    for name in (
        *("smbg", "bloodKetone", "basal", "bolus", "insulin", "wizard", "food", "physicalActivity"),
        *("deviceEvent", "pumpSettings", "pumpStatus", "cgmSettings", "controllerSettings"),
        *("controllerStatus", "dosingDecision", "reportedState", "water", "alert", "upload"),
    )
}
_DATE: Final = r"^(\d{1,2})-(\d{1,2})-\d{4}\b"
_CLOCKS: Final = ("%H:%M", "%I:%M %p", "%H:%M:%S", "%I:%M:%S %p")
_ORDERS: Final = {
    order: ", ".join(f"'{day} {clock}'" for day in (days, "%Y-%m-%d") for clock in _CLOCKS)
    for order, days in {"day": "%d-%m-%Y", "month": "%m-%d-%Y"}.items()
}


@dataclass(frozen=True)
class TableForm:
    """Where in a CSV export what stands.

    Attributes:
        skip: Lines before the first row.
        delimiter: Between cells.
        columns: How many there are.
        value: Column of the glucose; those of time and kind are in their places before it.
        unit: Of the glucose.
        clarity: Whether it is Clarity's, else LibreView's.
    """

    skip: int
    delimiter: str
    columns: int
    value: int
    unit: str
    clarity: bool

    @property
    def time(self) -> int:
        """Column of the time."""
        return 1 if self.clarity else self.value - 2

    @property
    def kind(self) -> int:
        """Column that says what a row is."""
        return 2 if self.clarity else self.value - 1


@dataclass(frozen=True)
class GlucoseReadings:
    """What an export says.

    Attributes:
        time_us: [N] when, on the clock that the display showed.
        mg_per_dl: [N] the glucose, finite.
        beyond: Readings beyond the sensor's range, which are its end.
        not_read: Kind of row → how many.
        of_utc: Whether some time is UTC's and nothing says what the display showed.
    """

    time_us: Int64
    mg_per_dl: Float64
    beyond: int
    not_read: Counter[str]
    of_utc: bool = False


class TidepoolRecord(msgspec.Struct):
    """One record of a Tidepool export, as far as it is read; of any types, since few are sure."""

    type: Any = None
    value: Any = None
    units: Any = None
    time: Any = None
    deviceTime: Any = None
    timezoneOffset: Any = None
    annotations: Any = None


_RECORDS: Final = msgspec.json.Decoder(list[TidepoolRecord])


def is_export(file: Path) -> bool:
    """Whether a file is an export of glucose; never raises."""
    return _is_tidepool(file) or table_form(file) is not None


def readings_of(file: Path, order: str | None, time_zone: str | None) -> GlucoseReadings:
    """Return the readings of an export.

    Args:
        file: One for which `is_export` is true.
        order: ``day`` or ``month``, what comes first in LibreView's dates; None is what they tell.
        time_zone: See `local_time`.

    Raises:
        IngestError: HF-303, HF-308 where the order of day and month cannot be told.
    """
    form = table_form(file)
    return _of_tidepool(file, time_zone) if form is None else _of_table(file, form, order)


def table_form(file: Path) -> TableForm | None:
    """Return the form of a CSV export, None of a file that is none."""
    if not file.name.lower().endswith((".csv", ".txt", ".tsv")):
        return None
    lines = _head(file).split("\n")[:_LINES]
    for number, line in enumerate(lines):
        for delimiter in _DELIMITERS:
            form = _form(_cells(line.rstrip("\r"), delimiter), number + 1, delimiter)
            if form is not None:
                return form
    return None


def _form(cells: list[str], skip: int, delimiter: str) -> TableForm | None:
    found = [_UNIT.search(cell) for cell in cells]
    units = ["" if unit is None else unit[1] for unit in found]
    value = next((at for at, unit in enumerate(units) if unit), 0)
    clarity = value >= 3 and _OF_CLARITY in cells[1].lower()
    libre = value >= 3 and units[value : value + 2] == [units[value]] * 2
    if not (clarity or libre):
        return None
    return TableForm(skip, delimiter, len(cells), value, units[value], clarity)


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []


def _head(file: Path) -> str:
    try:
        with file.open("rb") as raw:
            return raw.read(_HEAD_BYTES).decode("utf-8-sig", errors="replace")
    except OSError:
        return ""


def _of_table(file: Path, form: TableForm, order: str | None) -> GlucoseReadings:
    duckdb = DuckDBReader(threads=1)
    rows = f"FROM ({_rows(file, form)}) WHERE time <> ''"
    kinds = duckdb.table(f"SELECT kind, count(*) AS n {rows} GROUP BY kind ORDER BY kind", file)
    ours = "egv" if form.clarity else "0"
    names = _CLARITY if form.clarity else _LIBRE
    counts = zip(kinds["kind"].to_pylist(), kinds["n"].to_pylist(), strict=True)
    not_read = Counter[str]()
    for kind, count in counts:
        if kind != ours:
            not_read[names.get(kind, "another kind of row")] += count
    clock = "TRY_CAST(time AS TIMESTAMP)"
    if not form.clarity:
        clock = f"try_strptime(time, [{_ORDERS[_order(duckdb, rows, order, file)]}])"
    factor = unit_of(GLUCOSE, form.unit).factor
    words = " ".join(f"WHEN value = '{word}' THEN {end}" for word, end in _BEYOND.items())
    found = duckdb.table(
        f"SELECT {clock} AS time, CASE {words} ELSE TRY_CAST(value AS DOUBLE) * {factor} END "
        f"AS value, value IN {tuple(_BEYOND)} AS beyond {rows} AND kind = '{ours}'",
        file,
    )
    not_read["line that is no row"] += duckdb.malformed().num_rows
    value = np.asarray(found["value"].fill_null(np.nan).to_numpy(), np.float64)
    time = found["time"].cast(pa.timestamp("us"))
    good = np.isfinite(value) & np.asarray(time.is_valid().to_numpy(), np.bool_)
    not_read["reading without a number or a time"] += int((~good).sum())
    beyond = np.asarray(found["beyond"].fill_null(False).to_numpy(), np.bool_)
    when = times_us(pa.table({"time": time}))
    return GlucoseReadings(when[good], value[good], int((beyond & good).sum()), not_read)


def _rows(file: Path, form: TableForm) -> str:
    """Return an export's rows as SQL: time, kind and value, all texts."""
    columns = ", ".join(f"'c{n}': 'VARCHAR'" for n in range(form.columns))
    path, delimiter = _quoted(glob.escape(str(file))), _quoted(form.delimiter)
    day = f"regexp_replace(trim(c{form.time}), '^(\\d+)[./](\\d+)[./](\\d+)', '\\1-\\2-\\3')"
    return (
        f"SELECT coalesce({day}, '') AS time, lower(trim(coalesce(c{form.kind}, ''))) AS kind, "
        f"lower(replace(trim(coalesce(c{form.value}, '')), ',', '.')) AS value "
        f"FROM read_csv({path}, auto_detect=false, header=false, skip={form.skip}, "
        f"columns={{{columns}}}, delim={delimiter}, quote='\"', escape='\"', null_padding=true, "
        "parallel=false, max_line_size=4194304, strict_mode=true, store_rejects=true, "
        "rejects_limit=0)"
    )


def _order(duckdb: DuckDBReader, rows: str, asked: str | None, file: Path) -> str:
    """Return what comes first in LibreView's dates, the day or the month.

    Raises:
        IngestError: HF-308 where no number, or one in either place, is over 12.
    """
    highest = ", ".join(
        f"max(TRY_CAST(regexp_extract(time, '{_DATE}', {n}) AS INTEGER)) AS n{n}" for n in (1, 2)
    )
    found = duckdb.table(f"SELECT {highest} {rows}", file)
    first, second = ((found[name][0].as_py() or 0) > 12 for name in ("n1", "n2"))
    if asked is not None or first != second:
        return asked or ("day" if first else "month")
    if found["n1"][0].as_py() is None:
        return "day"
    raise IngestError(
        308,
        where=file.name,
        seen=(
            "its dates have a number over 12 both first and second"
            if first
            else "no number in its dates is over 12, so that day and month look alike"
        ),
        wanted="dates that begin with the day, or with the month, are wanted",
        do="Say what comes first: --date-order day, or --date-order month",
    )


def _is_tidepool(file: Path) -> bool:
    if not file.name.lower().endswith(".json"):
        return False
    head = _head(file).lstrip()
    known = any(f'"{name}"' in head for name in ("cbg", "deviceTime", "uploadId"))
    return head.startswith("[") and known and '"type"' in head


def _of_tidepool(file: Path, time_zone: str | None) -> GlucoseReadings:
    not_read = Counter[str]()
    found: list[tuple[int, float]] = []
    beyond, of_utc = 0, False
    for record in _records(file):
        if record.type != "cbg":
            kind = record.type if isinstance(record.type, str) else ""
            not_read[_TIDEPOOL.get(kind, "another kind of record")] += 1
            continue
        (when, is_utc), value = _clock(record, time_zone), _glucose(record)
        if when is None or value is None:
            not_read["reading without a number or a time"] += 1
            continue
        of_utc |= is_utc
        beyond += "bg/out-of-range" in str(record.annotations)
        found.append((when, value))
    time = np.array([when for when, _ in found], np.int64)
    glucose = np.array([mg_per_dl for _, mg_per_dl in found], np.float64)
    return GlucoseReadings(time, glucose, beyond, not_read, of_utc)


def _records(file: Path) -> list[TidepoolRecord]:
    """Return what is in a Tidepool export.

    Raises:
        IngestError: HF-303 where it is cut off, no list of records, or too large.
    """
    if file.stat().st_size > JSON_AT_MOST:
        raise unreadable(file, f"it is over {JSON_AT_MOST // 1024**2} MB; export fewer years")
    try:
        return _RECORDS.decode(file.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise unreadable(file, "it is cut off, damaged or no list of records") from error


def _glucose(record: TidepoolRecord) -> float | None:
    """Return mg/dL, None where there is no number or no unit."""
    unit = unit_of(GLUCOSE, record.units if isinstance(record.units, str) else None)
    number = isinstance(record.value, int | float) and not isinstance(record.value, bool)
    if not number or unit.name != MASS or not np.isfinite(float(record.value)):
        return None
    return float(record.value) * unit.factor


def _clock(record: TidepoolRecord, time_zone: str | None) -> tuple[int | None, bool]:
    """Return (what the display showed, µs; whether it is UTC's for want of anything else)."""
    if isinstance(record.deviceTime, str):
        return clock_us(record.deviceTime, time_zone), False
    moment = clock_us(record.time if isinstance(record.time, str) else None, time_zone)
    if moment is None or time_zone is not None:
        return moment, False
    minutes = record.timezoneOffset
    if isinstance(minutes, int) and abs(minutes) <= 14 * 60:
        return moment + minutes * 60_000_000, False
    return moment, True


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
