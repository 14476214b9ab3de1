"""Table schemas of a site store: MEDS 0.4's own, and HealthFM's for wearables beside them."""

from __future__ import annotations

from typing import Final

import pyarrow as pa
from meds import (
    CodeMetadataSchema,
    DataSchema,
    LabelSchema,
    SubjectSplitSchema,
    held_out_split,
    train_split,
    tuning_split,
)

from healthfm_core.errors import StoreError

EVENTS: Final[pa.Schema] = DataSchema.schema()
CODES: Final[pa.Schema] = CodeMetadataSchema.schema()
SPLITS: Final[pa.Schema] = SubjectSplitSchema.schema()
LABELS: Final[pa.Schema] = LabelSchema.schema()
WEARABLE: Final[pa.Schema] = pa.schema(
    [
        pa.field("subject_id", pa.int64(), nullable=False),
        pa.field("start", pa.timestamp("us"), nullable=False),
        pa.field("channel", pa.string(), nullable=False),
        pa.field("hz", pa.float64(), nullable=False),
        pa.field("value", pa.list_(pa.float32()), nullable=False),
        pa.field("mask", pa.list_(pa.bool_()), nullable=False),
    ]
)
"""A row is one stretch of regular samples: `value[i]` was read at `start` + i / `hz`; where `mask`
is false there was no reading and `value` is 0."""
SOURCE_CODES: Final[pa.Schema] = pa.schema(
    [("code", pa.string()), ("source_code", pa.string()), ("rows", pa.int64())]
)
"""Which code of the source a mapping replaced by which, and in how many rows."""

TRAIN: Final = train_split
TUNING: Final = tuning_split
HELD_OUT: Final = held_out_split
SPLIT_NAMES: Final = (TRAIN, TUNING, HELD_OUT)

_OPTIONAL: Final = frozenset(
    {
        "numeric_value",
        "text_value",
        "description",
        "parent_codes",
        "boolean_value",
        "integer_value",
        "float_value",
        "categorical_value",
    }
)
_NEVER_NULL: Final = frozenset({"subject_id", "code", "split", "prediction_time"}) | {
    field.name for field in WEARABLE
}


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds text, however it is encoded (plain, large, view or dictionary)."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_list_of(kind: pa.DataType, item: pa.DataType) -> bool:
    """Whether a column holds lists of `item`, of any list layout."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in lists) and same_kind(kind.value_type, item)


def same_kind(seen: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether `seen` is `wanted` up to the encoding of texts and lists; numbers must be exact."""
    if is_text(wanted):
        return is_text(seen)
    if pa.types.is_list(wanted):
        return is_list_of(seen, wanted.value_type)
    return bool(seen == wanted)


def check_schema(seen: pa.Schema, wanted: pa.Schema, where: str) -> None:
    """Check the names and types of the columns; further columns are allowed, as in MEDS.

    Args:
        seen: The schema of a table or a Parquet file.
        wanted: One of this module's schemas.
        where: Named in the error: a path inside the store.

    Raises:
        StoreError: HF-201 for a missing column, HF-202 for one of another type.
    """
    for field in wanted:
        if seen.names.count(field.name) != 1:
            if field.name in _OPTIONAL and field.name not in seen.names:
                continue
            there = "two columns are called" if field.name in seen.names else "there is no column"
            raise StoreError(
                201,
                where=where,
                seen=f'{there} "{field.name}"',
                wanted=f"MEDS 0.4 wants it as {field.type}",
            )
        if not same_kind(seen.field(field.name).type, field.type):
            raise StoreError(
                202,
                where=where,
                seen=f'column "{field.name}" is {seen.field(field.name).type}',
                wanted=f"MEDS 0.4 wants {field.type}",
                do="Cast the column, or ingest the source again",
            )


def conform(table: pa.Table, wanted: pa.Schema, where: str, *, extra: bool = False) -> pa.Table:
    """Check `table` and return it with the columns of `wanted`, in order, in their exact types.

    Args:
        table: Columns as in `wanted`; optional ones may lack and become null, but for the label
            values, which are left out.
        wanted: One of this module's schemas.
        where: Named in an error.
        extra: Keep further columns, behind the others.

    Raises:
        StoreError: HF-201, HF-202 (also for nulls where MEDS allows none).
    """
    check_schema(table.schema, wanted, where)
    for name in _NEVER_NULL.intersection(wanted.names):
        if table[name].null_count:
            raise StoreError(
                202,
                where=where,
                seen=f'column "{name}" holds nulls',
                wanted="MEDS 0.4 wants a value in every row",
                do="Remove or repair those rows",
            )
    columns: dict[str, pa.ChunkedArray] = {}
    for field in wanted:
        if field.name in table.column_names:
            columns[field.name] = table[field.name].cast(field.type)
        elif wanted is not LABELS:
            columns[field.name] = pa.chunked_array([pa.nulls(table.num_rows, field.type)])
    if extra:
        rest = [name for name in table.column_names if name not in columns]
        columns |= {name: table[name] for name in rest}
    return pa.table(columns)
