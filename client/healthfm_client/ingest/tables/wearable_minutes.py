"""Readings at any time, to days of 1,440 minutes as a store keeps wearables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa

from healthfm_core.arrays import Bool, Float64, Int64
from healthfm_core.data.store.wearables import DAY_US, SECOND_US, stretches

MINUTE_US: Final = 60 * 1_000_000
MINUTES: Final = 1440
EARLIEST_US: Final = 315_532_800 * 1_000_000
"""1980: what a device dates earlier, it dated without a clock."""
LIMITS: Final[Mapping[str, tuple[float, float]]] = {
    "HR": (20.0, 260.0),
    "STEPS": (0.0, 400.0),
    "INTENSITY": (0.0, 3.0),
    "SLEEP": (0.0, 4.0),
    "ACCELERATION": (0.0, 8000.0),
    "GLUCOSE": (20.0, 600.0),
    "ENERGY": (0.0, 100.0),
    "MET": (0.0, 30.0),
}
"""Channel → what a minute of it can be: beats/min, steps, Fitbit's 0 to 3, level, milli-g,
mg/dL, kcal, multiples of what somebody at rest uses."""


def by_day(
    subject: Int64, time_us: Int64, value: Float64, channel: str, every_s: int = 60
) -> pa.Table:
    """Return a row of minutes per subject and day, 1,440; each is the mean of its readings.

    An hour that summer time repeats holds the readings of both, the one it skips has none.

    Args:
        subject: [N] whose.
        time_us: [N] when, on the clock that was worn.
        value: [N] the reading, finite.
        channel: What was measured.
        every_s: Seconds of what is a minute else, a divisor of a day.
    """
    day = time_us // DAY_US
    per_day = DAY_US // (every_s * SECOND_US)
    minute = (time_us - day * DAY_US) // (every_s * SECOND_US)
    days, row = np.unique(np.stack([subject, day]), axis=1, return_inverse=True)
    cell = row.ravel() * per_day + minute
    size = days.shape[1] * per_day
    count = np.bincount(cell, minlength=size)
    mean = np.bincount(cell, weights=value, minlength=size) / np.maximum(count, 1)
    grid = mean.reshape(-1, per_day).astype(np.float32)
    seen = (count > 0).reshape(-1, per_day)
    return stretches(days[0], days[1] * DAY_US, channel, 1 / every_s, grid, seen)


def possible(value: Float64, time_us: Int64, channel: str, now_us: int) -> Bool:
    """Return where a reading is finite, within its channel's limits, and not of the future."""
    low, high = LIMITS.get(channel, (-np.inf, np.inf))
    past = (time_us <= now_us) & (time_us > EARLIEST_US)
    return np.asarray(np.isfinite(value) & (value >= low) & (value <= high) & past)
