"""A table in a text, all cells as texts; for exports whose cells hold JSON and are long."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
from pyarrow import csv as arrow_csv

_COLUMNS_AT_MOST: Final = 1_000


@dataclass(frozen=True)
class CsvTexts:
    """Rows of a CSV text.

    Attributes:
        rows: Texts, a column per name in lower case; what is empty is ''.
        malformed: Lines that have more or fewer cells than there are columns.
    """

    rows: pa.Table
    malformed: int


def csv_texts(text: bytes) -> CsvTexts | None:
    """Return the rows of a text with a header, between commas or semicolons; None of another."""
    plain = text.decode("utf-8-sig", errors="replace").replace("\x00", "")
    first = plain.split("\n", 1)[0].strip()
    delimiter = ";" if first.count(";") > first.count(",") else ","
    try:
        names = [name.strip().lower() for name in next(csv.reader([first], delimiter=delimiter))]
    except (csv.Error, StopIteration):
        return None
    if not names or len(set(names)) < len(names) or len(names) > _COLUMNS_AT_MOST:
        return None
    encoded = plain.encode()
    malformed: list[int] = []

    def skip(_: object) -> str:
        malformed.append(1)
        return "skip"

    try:
        rows = arrow_csv.read_csv(
            pa.BufferReader(encoded),
            arrow_csv.ReadOptions(
                use_threads=False, block_size=len(encoded) + 1, column_names=names, skip_rows=1
            ),
            arrow_csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
            ),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:
        return None
    schema = pa.schema([(name, pa.string()) for name in names])
    sound = rows.column_names == names  # a table without a sound row may have no column
    return CsvTexts(rows.cast(schema) if sound else schema.empty_table(), len(malformed))
