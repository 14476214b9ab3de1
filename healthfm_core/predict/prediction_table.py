"""Predictions as a table: MEDS's columns of a binary prediction, then HealthFM's beside them.

The MEDS ecosystem has predictions as ``subject_id, prediction_time, boolean_value,
predicted_boolean_value, predicted_boolean_probability`` (the prediction schema of
meds-evaluation 0.0.1 and later; ``meds`` 0.4 itself has labels only). Further columns are allowed
there.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from healthfm_core.arrays import Float64
from healthfm_core.data.batch.sequences import UNKNOWN_TIME
from healthfm_core.predict.people_limits import REASONS
from healthfm_core.predict.people_predictions import PeoplePredictions

PREDICTIONS: Final[pa.Schema] = pa.schema(
    [
        pa.field("subject_id", pa.int64(), nullable=False),
        pa.field("prediction_time", pa.timestamp("us")),
        pa.field("boolean_value", pa.bool_()),
        pa.field("predicted_boolean_value", pa.bool_()),
        pa.field("predicted_boolean_probability", pa.float64()),
        pa.field("reason", pa.string()),
        pa.field("uncalibrated_probability", pa.float64()),
        pa.field("known_codes", pa.float32()),
        pa.field("age_years", pa.float32()),
        pa.field("gap_days", pa.float32()),
    ]
)
"""`reason` says why there is no probability; `uncalibrated_probability` is the model's own."""


def prediction_table(
    found: PeoplePredictions, probability: Float64, threshold: float | None
) -> pa.Table:
    """Return predictions in the columns of `PREDICTIONS`.

    Args:
        found: What the model said.
        probability: [n] what is to be told, NaN where nothing is.
        threshold: From which probability on `predicted_boolean_value` is true; None tells none.
    """
    nothing = np.isnan(probability)
    names = pa.array([*REASONS, None], pa.string())
    reason = names.take(pa.array(np.where(found.reason < 0, len(REASONS), found.reason)))
    told = np.zeros(len(found), np.bool_) if threshold is None else probability >= threshold
    unknown_time = found.time_us == UNKNOWN_TIME
    time_us = pa.array(np.where(unknown_time, 0, found.time_us), mask=unknown_time)
    columns = {
        "subject_id": pa.array(found.subject_id),
        "prediction_time": time_us.cast(pa.timestamp("us")),
        "boolean_value": pa.array(found.outcome > 0, mask=np.isnan(found.outcome)),
        "predicted_boolean_value": pa.array(told, mask=nothing | (threshold is None)),
        "predicted_boolean_probability": _numbers(probability),
        "reason": reason,
        "uncalibrated_probability": _numbers(found.probability.astype(np.float64)),
        "known_codes": _numbers(found.known_codes),
        "age_years": _numbers(found.age_years),
        "gap_days": _numbers(found.gap_days),
    }
    return pa.table(columns, schema=PREDICTIONS)


def _numbers(values: Float64 | np.ndarray) -> pa.Array:
    return pa.array(values, from_pandas=True)
