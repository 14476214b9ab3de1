"""PhysioNet/CinC Challenge 2012: the first 48 hours of ICU stays; four ICU types as sites.

Source: Silva et al. 2012, Computing in Cardiology 39:245, as an event table with ``stays.parquet``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from healthfm_client.ingest.event_site import event_site
from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site
from healthfm_client.ingest.readers.event_table import read_events
from healthfm_client.ingest.tables.parquet_columns import (
    ColumnKind,
    by_group,
    folder_name,
    has_columns,
    matched,
    read_columns,
    refuse_nulls,
)
from healthfm_core.data.store.events import ids
from healthfm_core.data.store.labels import label_table
from healthfm_core.data.store.schemas import HELD_OUT, TRAIN, TUNING
from healthfm_core.data.store.splits import DEFAULT_KEY, assign, split_table
from healthfm_core.data.store.wearables import HOUR_US

TASK: Final = "in_hospital_mortality"
START_US: Final = 946_684_800 * 1_000_000
"""2000-01-01, when every stay of this export begins."""
WINDOW_US: Final = 48 * HOUR_US
TRAIN_SHARES: Final = {TRAIN: 0.85, TUNING: 0.15}

LIMITS: Final = {
    "HEIGHT_CM": (50.0, 275.0),
    "WEIGHT_KG": (10.0, 500.0),
    "OBS//Weight": (10.0, 500.0),
    "OBS//HR": (0.0, 350.0),
    "OBS//DiasABP": (0.0, 300.0),
    "OBS//NIDiasABP": (0.0, 300.0),
    "OBS//Temp": (14.0, 46.0),
    "OBS//pH": (6.3, 8.0),
    "OBS//RespRate": (0.0, 120.0),
    "OBS//SaO2": (0.0, 100.0),
    "OBS//WBC": (0.0, 1500.0),
}
"""What no adult survives, or no unit of the variable can be (a pH of 735, a weight of 0 kg)."""

_STAYS: Final = {
    "subject_id": ColumnKind.INTEGER,
    "set": ColumnKind.TEXT,
    "icu_type": ColumnKind.TEXT,
    "hospital_death": ColumnKind.FLAG,
}


def read(path: Path, options: ReaderOptions) -> Iterator[Site]:
    """Yield the four ICU types: sets a and b to train and tune, set c held out."""
    stays = read_columns(path / "stays.parquet", _STAYS)
    refuse_nulls(stays, _STAYS, "stays.parquet")
    subject = ids(stays)
    last = np.full(len(subject), START_US + WINDOW_US, np.int64)
    died = np.asarray(stays["hospital_death"].to_numpy(), np.bool_)
    labels = {TASK: label_table(subject, last, died)}
    split = np.where(
        np.asarray(stays["set"].to_pylist()) == "c",
        HELD_OUT,
        assign(subject, key=DEFAULT_KEY, shares=TRAIN_SHARES),
    )
    splits = split_table(subject, split)
    events = read_events(path, site_column="")
    unit = matched(ids(events), subject, stays["icu_type"], "stays.parquet")
    for name, rows in by_group(events.append_column("unit", unit), "unit"):
        yield event_site(
            folder_name(name),
            rows,
            now_us=options.now_us,
            limits=LIMITS,
            labels=labels,
            splits=splits,
        )


def sniff(path: Path) -> bool:
    """Whether the folder has events and the challenge's stays."""
    stays = path / "stays.parquet"
    return (path / "events.parquet").is_file() and has_columns(stays, [*_STAYS, "saps1"])


READER = Reader(
    name="physionet2012",
    summary="PhysioNet/CinC Challenge 2012 as an event table; sites are ICU types",
    reads="46 variables of the first 48 hours, death in hospital as a label",
    not_read="values beyond a variable's limits are counted",
    tried_on="the challenge's sets a, b, c: 12,000 stays, 5,264,676 events (Silva et al. 2012)",
    sniff=sniff,
    read=read,
)
