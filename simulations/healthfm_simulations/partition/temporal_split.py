"""Temporal hold-out: what a site knew some months before each person's last event.

Trained on `early_store` and tested on the whole store, a model is asked about times that nobody's
training record reached: not who is new, but what comes next.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from healthfm_core.arrays import Bool, Float64, Int64
from healthfm_core.data.store.events import ids, times_us
from healthfm_core.data.store.schemas import SPLIT_NAMES
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import CODES_FILE
from healthfm_core.data.store.store_writer import StoreWriter

DAY_US = 86_400_000_000


@dataclass(frozen=True)
class RecordCuts:
    """Where each subject's late part begins.

    Attributes:
        subject_id: [S] ascending.
        time_us: [S] the last moment of the early part: the last event's time less the late days.
    """

    subject_id: Int64
    time_us: Int64

    @classmethod
    def of(cls, store: SiteStore, late_days: float) -> RecordCuts:
        """Return the cuts of everybody in `store` who has an event with a time."""
        events = store.events()
        timed = np.asarray(events["time"].is_valid())
        rows = events.filter(pa.array(timed))
        subject, row = np.unique(ids(rows), return_inverse=True)
        last = np.full(len(subject), np.iinfo(np.int64).min)
        np.maximum.at(last, row, times_us(rows))
        return cls(subject, last - round(late_days * DAY_US))

    def is_early(self, subject_id: Int64, time_us: Int64) -> Bool:
        """Return [n] whether each time lies in its subject's early part."""
        return np.asarray(self.days_left(subject_id, time_us) >= 0, np.bool_)

    def days_left(self, subject_id: Int64, time_us: Int64) -> Float64:
        """Return [n] days from each time to its subject's cut: negative in the late part.

        Of whom no cut is known everything is early, inf days before it.
        """
        if not len(self.subject_id):
            return np.full(len(subject_id), np.inf)
        row = np.minimum(np.searchsorted(self.subject_id, subject_id), len(self.subject_id) - 1)
        left = (self.time_us[row] - time_us) / DAY_US
        return np.where(self.subject_id[row] == subject_id, left, np.inf)


def early_store(path: Path, folder: Path, late_days: float) -> Path:
    """Write the early part of the store at `path` to `folder`; everybody keeps their split.

    What has no time stays; a stretch of wearing stays when it ended early. Labels, which speak of
    what came later, are left out. A subject who is left with nothing is not in it.

    Raises:
        IngestError: HF-304 where the folder exists.
        StoreError: HF-2xx where the store cannot be read, HF-206 where nothing is early.
    """
    store = SiteStore.open(path)
    cuts = RecordCuts.of(store, late_days)
    writer = StoreWriter(folder, dataset_name=store.name)
    writer.add_events(_early_events(store.events(), cuts))
    writer.set_codes(pq.read_table(store.path / CODES_FILE))
    writer.set_splits({int(s): split for split in SPLIT_NAMES for s in store.subjects(split)})
    for device in store.devices:
        writer.add_wearable(device, _early_wearing(store.wearable(device), cuts))
    writer.write()
    return folder


def _early_events(events: pa.Table, cuts: RecordCuts) -> pa.Table:
    static = np.asarray(events["time"].is_null())
    early = cuts.is_early(ids(events), np.where(static, 0, times_us(events)))
    return events.filter(pa.array(static | early))


def _early_wearing(rows: pa.Table, cuts: RecordCuts) -> pa.Table:
    samples = np.diff(rows["value"].combine_chunks().offsets.to_numpy())
    end_us = times_us(rows, "start") + (samples / rows["hz"].to_numpy() * 1e6).astype(np.int64)
    return rows.filter(pa.array(cuts.is_early(ids(rows), end_us)))
