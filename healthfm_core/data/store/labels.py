"""Labels as MEDS keeps them: what is to be predicted of whom, as of when."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from healthfm_core.arrays import Bool, Float64, Int64
from healthfm_core.data.store.events import ids, repeated, times_us
from healthfm_core.data.store.schemas import LABELS, conform
from healthfm_core.errors import StoreError


def label_table(
    subject_id: Int64,
    prediction_time_us: Int64,
    boolean_value: Bool,
    **extra: pa.Array,
) -> pa.Table:
    """Return a table of yes/no labels, sorted by subject and time.

    Args:
        subject_id: [L] ids.
        prediction_time_us: [L] µs since 1970; data up to and including it may be used.
        boolean_value: [L] the outcome.
        extra: Further columns, for example a published score for the same prediction.
    """
    columns = {
        "subject_id": pa.array(subject_id, pa.int64()),
        "prediction_time": pa.array(prediction_time_us, pa.int64()).cast(pa.timestamp("us")),
        "boolean_value": pa.array(boolean_value, pa.bool_()),
    }
    table = pa.table(columns | extra)
    return table.take(pa.array(np.lexsort((prediction_time_us, subject_id))))


def died_within(months_followed: Float64, died: Bool, months: float) -> tuple[Bool, Bool]:
    """Return ([N] death within `months`, [N] whether that is known).

    Whoever was followed for less and was alive then is unknown; whoever died is known, however
    short the follow-up: a rule that asked for "some event after the window" would drop them.

    Args:
        months_followed: [N] months from the prediction to death or the end of follow-up; NaN
            where there was no follow-up.
        died: [N] whether the follow-up ended in death.
        months: The horizon; a death in exactly that month is within it.
    """
    outcome = died & (months_followed <= months)
    return outcome, outcome | (months_followed >= months)


def check_labels(table: pa.Table, subjects: Int64, where: str) -> pa.Table:
    """Return the labels as MEDS wants them; further columns stay, values that nobody has go.

    Args:
        table: Columns of MEDS's label schema.
        subjects: Every subject of the store.
        where: Named in an error.

    Raises:
        StoreError: HF-201, HF-202, HF-204 for two labels at one time, HF-210.
    """
    table = conform(table, LABELS, where, extra=True)
    named = [name for name in LABELS.names if name in table.column_names]
    table = table.drop_columns([name for name in named if table[name].null_count == len(table) > 0])
    subject = ids(table)
    unknown = int(np.sum(~np.isin(subject, subjects)))
    if unknown:
        raise StoreError(
            210,
            where=where,
            seen=f"{unknown} labels are of subjects the store does not have",
            do="Ingest labels and events of the same people",
        )
    if repeated([subject, times_us(table, "prediction_time")]).any():
        raise StoreError(
            204,
            where=where,
            seen="a subject has two labels at one prediction time",
            do="Keep one label per subject and prediction_time",
        )
    return table
