"""eICU collaborative research database, demo 2.0: ICU stays in 186 hospitals.

Source: Pollard et al. 2018, doi 10.13026/4mxk-na84, as an event table with ``stays.parquet`` and
``sites.parquet``. A subject is one hospital stay. Stays begin on 1 January of their year: time
within a stay is right, the order of one person's stays is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

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
from healthfm_core.data.store.events import ids, times_us
from healthfm_core.data.store.labels import label_table
from healthfm_core.data.store.wearables import HOUR_US

TASK: Final = "in_hospital_mortality"
AFTER_US: Final = 24 * HOUR_US
"""From the admission to the ICU to the prediction."""
LIMITS: Final = {
    "HEIGHT_CM": (30.0, 275.0),
    "WEIGHT_KG": (2.0, 650.0),
    "APS_DAY1//PH": (6.3, 8.0),
    "APS_DAY1//TEMPERATURE": (14.0, 46.0),
    "PE_VS//BP (systolic) Lowest": (0.0, 400.0),
    "PE_VS//BP (diastolic) Lowest": (0.0, 400.0),
}

_STAYS: Final = {
    "subject_id": ColumnKind.INTEGER,
    "patientunitstayid": ColumnKind.INTEGER,
    "site": ColumnKind.INTEGER,
    "unit_admit": ColumnKind.TIME,
    "hosp_disch": ColumnKind.TIME,
    "hospital_death": ColumnKind.FLAG,
    "apacheIVa_predictedhospitalmortality": ColumnKind.NUMBER,
    "split": ColumnKind.TEXT,
}
_SITES: Final = {"site": ColumnKind.INTEGER, "region": ColumnKind.TEXT}


class EicuOptions(ReaderOptions):
    """Options of ``eicu_demo``."""

    sites: Literal["natural", "hospital", "region", "groups"] = Field(
        "natural",
        description="natural is hospital (186 sites); region is five; groups of hospitals",
    )
    groups: int = Field(10, ge=1, description="sites to fold the hospitals into, with sites=groups")


def mortality_labels(stays: pa.Table) -> pa.Table:
    """Return death in hospital, predicted 24 h after a hospital stay's first admission to an ICU.

    Only who is in hospital then has a label: for others the outcome is in the record already.
    Stays whose discharge is not on record (28 of the demo) have none either.
    Death and discharge are stamped at the end of the stay, hence later than the prediction.
    ``reference_score`` is APACHE IVa's predicted hospital mortality, null where it gives none
    (-1 in the source).
    """
    order = np.lexsort((ids(stays, "patientunitstayid"), times_us(stays, "unit_admit")))
    stays = stays.take(pa.array(order))
    first = np.unique(ids(stays), return_index=True)[1]
    stays = stays.take(pa.array(np.sort(first)))
    at = times_us(stays, "unit_admit") + AFTER_US
    there = pa.array(times_us(stays, "hosp_disch") > at)
    stays = stays.filter(pc.and_(there, stays["hospital_death"].is_valid()))
    score = stays["apacheIVa_predictedhospitalmortality"].combine_chunks().cast(pa.float32())
    known = pc.and_(pc.greater_equal(score, 0), pc.less_equal(score, 1))
    return label_table(
        ids(stays),
        times_us(stays, "unit_admit") + AFTER_US,
        np.asarray(stays["hospital_death"].to_numpy(), np.bool_),
        reference_score=pc.if_else(known, score, pa.scalar(None, pa.float32())),
    )


def read(path: Path, options: EicuOptions) -> Iterator[Site]:
    """Yield the sites; a person's stays are all on one side of the split."""
    stays = read_columns(path / "stays.parquet", _STAYS)
    needed = ["subject_id", "patientunitstayid", "site", "unit_admit", "hosp_disch", "split"]
    refuse_nulls(stays, needed, "stays.parquet")
    labels = {TASK: mortality_labels(stays)}
    splits = stays.select(["subject_id", "split"])
    splits = splits.group_by(["subject_id", "split"]).aggregate([])
    events = read_events(path, site_column="site")
    places = read_columns(path / "sites.parquet", _SITES)
    refuse_nulls(places, ["site"], "sites.parquet")
    where = matched(ids(events, "site"), ids(places, "site"), _names(places, options), "sites")
    events = events.set_column(events.column_names.index("site"), "site", where)
    for name, rows in by_group(events, "site"):
        named = folder_name(name)
        yield event_site(
            named, rows, now_us=options.now_us, limits=LIMITS, labels=labels, splits=splits
        )


def _names(places: pa.Table, options: EicuOptions) -> pa.ChunkedArray:
    """Return what site each hospital goes to; hospital r (by number) to group r mod `groups`."""
    if options.sites == "region":
        return places["region"].fill_null("unknown")
    number = ids(places, "site")
    if options.sites == "groups":
        rank = np.unique(number, return_inverse=True)[1] % options.groups
        return pa.chunked_array([[f"group-{group:02d}" for group in rank]])
    return pa.chunked_array([[f"hospital-{name}" for name in number]])


def sniff(path: Path) -> bool:
    """Whether the folder has events and eICU's stays."""
    stays = path / "stays.parquet"
    return (path / "events.parquet").is_file() and has_columns(stays, _STAYS)


READER = Reader(
    name="eicu_demo",
    summary="eICU demo 2.0 as an event table; sites are hospitals or regions",
    reads=(
        "events of every table as the event table has them, death in hospital as a label, "
        "APACHE IVa beside it"
    ),
    not_read="values beyond a variable's limits are counted",
    tried_on="eICU demo 2.0 (Pollard et al. 2018): 2,520 stays, 186 hospitals, 1,423,062 events",
    sniff=sniff,
    read=read,
    options=EicuOptions,
)
