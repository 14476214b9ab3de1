"""The truth as a MEDS 0.4 dataset: the unit behind the code, or as ETLs from OMOP have written it.

Those have one stroke in a code and the unit in a column of its own.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.ingest.one_truth.made_people import Person, true_events
from tests.ingest.one_truth.measurements import MEASUREMENTS

_TESTS = {test.loinc: test for test in MEASUREMENTS}
SPLITS = ("train", "tuning", "held_out")


def write_meds(people: list[Person], folder: Path, *, as_of_omop: bool = False) -> Path:
    """Write these people's events.

    Args:
        people: Who is in it.
        folder: New folder of the dataset.
        as_of_omop: ``LOINC/2345-7`` and a column `unit`, instead of ``LOINC//2345-7//g/L``.
    """
    rows = [_row(*event, as_of_omop=as_of_omop) for event in true_events(people)]
    rows.sort(key=lambda row: (row["subject_id"], row["time"] is not None, row["time"]))
    schema = [("subject_id", pa.int64()), ("time", pa.timestamp("us")), ("code", pa.string())]
    schema += [("numeric_value", pa.float32())] + [("unit", pa.string())] * as_of_omop
    (folder / "data").mkdir(parents=True)
    (folder / "metadata").mkdir()
    table = pa.Table.from_pylist(rows, schema=pa.schema(schema))
    pq.write_table(table, folder / "data" / "0.parquet")
    about = {"dataset_name": "made", "dataset_version": "1", "meds_version": "0.4.0"}
    (folder / "metadata" / "dataset.json").write_text(json.dumps(about))
    return folder


def _row(
    subject: int, time: object, code: str, value: float | None, *, as_of_omop: bool
) -> dict[str, object]:
    unit = None
    parts = code.split("//")
    if parts[0] == "LOINC" and value is not None:
        form = _TESTS[parts[1]].forms[2]
        limit = "<" if parts[2].startswith("<") else ""
        value, unit = value * form.times + form.plus, form.unit
        code = f"LOINC//{form.loinc}" + ("" if as_of_omop and not limit else f"//{limit}{unit}")
        unit = None if limit else unit
    if as_of_omop:
        code = code.replace("//", "/", 1)
    row = {"subject_id": subject, "time": time, "code": code, "numeric_value": value}
    return row | {"unit": unit} if as_of_omop else row
