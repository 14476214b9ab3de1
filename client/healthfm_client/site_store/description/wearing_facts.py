"""How long wearables were worn."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from healthfm_client.site_store.description.withholding import counted, quartiles
from healthfm_core.arrays import Int64
from healthfm_core.data.store.events import coded, ids, times_us
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.wearables import DAY_US

GOOD_HOURS: Final = 10.0
"""Hours that make a day count, as studies of activity have it."""
EDGES: Final = (0.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0)
"""Hours between which days are counted."""


def wearing(store: SiteStore, k: int) -> dict[str, Any]:
    """Return of each device its channels' people and hours, and days by hours worn."""
    return {device: _device(store.wearable(device), k) for device in store.devices}


def _device(table: pa.Table, k: int) -> dict[str, Any]:
    subject, channel, names = ids(table), *coded(table["channel"])
    hours = _hours(table)
    channels = {}
    for at, name in enumerate(names):
        its = channel == at
        people = len(np.unique(subject[its & (hours > 0)]))
        channels[name] = {
            "subjects": counted(people, k),
            "hours": counted(round(float(hours[its].sum())), k, people=people),
        }
    who, worn = _days(subject, times_us(table, "start") // DAY_US, channel, hours)
    days = np.unique(who, return_counts=True)[1].astype(np.float64)
    people = len(days)
    good = len(np.unique(who[worn >= GOOD_HOURS]))
    counts = np.histogram(worn, EDGES)[0]
    few = people < k
    return {
        "channels": dict(sorted(channels.items())),
        "days": counted(len(worn), k, people=people),
        "days_per_subject_quartiles": quartiles(days, k),
        "hours_per_day_quartiles": None if few else quartiles(worn, k),
        "subjects_with_a_day_of_10_hours": counted(good, k, of=people),
        "days_by_hours": None if few else _by_hours(counts.tolist(), k),
    }


def _by_hours(counts: list[int], k: int) -> dict[str, int | None]:
    names = [f"{low:g} to {high:g}" for low, high in pairwise(EDGES)]
    return {name: counted(n, k) for name, n in zip(names, counts, strict=True)}


def _hours(table: pa.Table) -> np.ndarray:
    """Return [R] the hours with a reading of each row."""
    counts = np.asarray(pc.list_value_length(table["mask"]).to_numpy(), np.int64)
    flat = np.asarray(pc.list_flatten(table["mask"]).to_numpy(), np.bool_)
    ends = np.concatenate([[0], np.cumsum(flat)])[np.cumsum(counts)]
    seen = np.diff(ends, prepend=0)
    return np.asarray(seen / np.asarray(table["hz"].to_numpy()) / 3600)


def _days(
    subject: Int64, day: Int64, channel: Int64, hours: np.ndarray
) -> tuple[Int64, np.ndarray]:
    """Return (whose, hours worn) of each person's days with a reading.

    Of several channels the one that was read longest counts; a row counts for the day it begins on.
    """
    keys, at = np.unique(np.stack([subject, day, channel]), axis=1, return_inverse=True)
    total = np.minimum(np.bincount(at.ravel(), weights=hours, minlength=keys.shape[1]), 24.0)
    days, of = np.unique(keys[:2], axis=1, return_inverse=True)
    most = np.zeros(days.shape[1])
    np.maximum.at(most, of.ravel(), total)
    worn = most > 0
    return days[0][worn], most[worn]
