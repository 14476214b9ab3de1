"""Three small hospitals with a label: north has clinic and days, south and west one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from healthfm_core.data.store.labels import label_table
from healthfm_core.data.store.store_writer import StoreWriter
from healthfm_core.data.store.wearables import DAY_US, stretches

TASK = "back"
DEVICE = "per_day"
PEOPLE = 60
HOLDS = {"north": ("ehr", "wearable"), "south": ("ehr",), "west": ("wearable",)}
NOW_US = 18_300 * DAY_US


def write_hospitals(folder: Path, *, tasks: dict[str, str] | None = None) -> list[Path]:
    """Write the stores; return their folders, by name.

    Args:
        folder: Where to.
        tasks: Site → name of its label table; '' is none. A site not named has `TASK`.
    """
    named = {**dict.fromkeys(HOLDS, TASK), **(tasks or {})}
    return [
        _write(folder / name, 1000 * (at + 1), holds, named[name])
        for at, (name, holds) in enumerate(HOLDS.items())
    ]


def _write(folder: Path, first_id: int, holds: tuple[str, ...], task: str) -> Path:
    rng = np.random.default_rng(first_id)
    people = np.arange(PEOPLE) + first_id
    risk = rng.normal(size=PEOPLE)
    writer = StoreWriter(folder, dataset_name=folder.name)
    if "ehr" in holds:
        writer.add_events(_clinic(people, risk + rng.normal(size=PEOPLE) / 2))
    if "wearable" in holds:
        steps = 6000 - 1500 * risk[:, None] + rng.normal(size=(PEOPLE, 7)) * 500
        start = np.full(PEOPLE, NOW_US - 7 * DAY_US)
        days = stretches(people, start, "STEPS_DAY", 1 / 86_400, steps.astype(np.float32))
        writer.add_wearable(DEVICE, days)
    writer.set_splits(
        {int(who): ("train", "train", "tuning", "held_out")[int(who) % 4] for who in people}
    )
    if task:
        outcome = risk + rng.normal(size=PEOPLE) > 0
        writer.set_labels(task, label_table(people, np.full(PEOPLE, NOW_US), outcome))
    writer.write()
    return folder


def _clinic(people: np.ndarray, risk: np.ndarray) -> pa.Table:
    born = NOW_US - (60 + 5 * np.tanh(risk)) * 365.25 * DAY_US
    visit = np.full(PEOPLE, NOW_US - DAY_US)
    columns = [
        ("MEDS_BIRTH", born.astype(np.int64), np.full(PEOPLE, np.nan)),
        ("SYSTOLIC", visit, 130 + 10 * risk),
    ]
    return pa.concat_tables(
        pa.table(
            {
                "subject_id": people,
                "time": pa.array(time).cast(pa.timestamp("us")),
                "code": [code] * PEOPLE,
                "numeric_value": pa.array(value, pa.float32(), from_pandas=True),
            }
        )
        for code, time, value in columns
    )
