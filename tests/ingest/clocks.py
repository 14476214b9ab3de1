"""Sources that say the same moment in several ways: ``python -m tests.ingest.clocks FOLDER``.

A person born on 2 March 1950 has an event at half past eleven in the evening of 1 July 2020, in
Vienna. Each source is read twice, without a zone and with the site's own, and what the store then
says is printed as JSON; a test runs it under several zones of the machine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from healthfm_client.ingest import ingest
from healthfm_client.ingest.tables.duckdb_reader import DuckDBReader

VIENNA = "Europe/Vienna"
BORN = datetime(1950, 3, 2, tzinfo=ZoneInfo(VIENNA))
SEEN = datetime(2020, 7, 1, 23, 30, tzinfo=ZoneInfo(VIENNA))
WITH_OFFSET = "2020-07-01T23:30:00+02:00"
OF_UTC = "2020-07-01T21:30:00Z"


def omop(folder: Path, birth: pa.Array, seen: pa.Array, day: pa.Array) -> Path:
    """A CDM as Parquet."""
    folder.mkdir()
    one = pa.array([1], pa.int64())
    person = {"person_id": one, "year_of_birth": pa.array([1950]), "birth_datetime": birth}
    zero = pa.array([0], pa.int64())
    for name in ("gender", "race", "ethnicity"):
        person[f"{name}_concept_id"] = zero
    pq.write_table(pa.table(person), folder / "person.parquet")
    condition = {
        "person_id": one,
        "condition_concept_id": pa.array([44054006], pa.int64()),
        "condition_start_date": day,
        "condition_start_datetime": seen,
    }
    pq.write_table(pa.table(condition), folder / "condition_occurrence.parquet")
    return folder


def adjusted(moment: datetime, zone: str) -> pa.Array:
    return pa.array([moment.astimezone(UTC)], pa.timestamp("us", "UTC")).cast(
        pa.timestamp("us", zone)
    )


def omop_of_utc(folder: Path) -> Path:
    return omop(folder, adjusted(BORN, "UTC"), adjusted(SEEN, "UTC"), adjusted(SEEN, "UTC"))


def omop_of_vienna(folder: Path) -> Path:
    return omop(folder, adjusted(BORN, VIENNA), adjusted(SEEN, VIENNA), adjusted(SEEN, VIENNA))


def omop_without_a_zone(folder: Path) -> Path:
    born, seen = (pa.array([t.replace(tzinfo=None)], pa.timestamp("us")) for t in (BORN, SEEN))
    return omop(folder, born, seen, pa.array([SEEN.date()], pa.date32()))


def omop_as_text(folder: Path, seen: str = WITH_OFFSET) -> Path:
    folder.mkdir()
    (folder / "person.csv").write_text(
        "person_id,year_of_birth,birth_datetime,gender_concept_id\n1,1950,1950-03-02 00:00:00,0\n"
    )
    (folder / "condition_occurrence.csv").write_text(
        "person_id,condition_concept_id,condition_start_date,condition_start_datetime\n"
        f"1,44054006,2020-07-01,{seen}\n"
    )
    return folder


def omop_as_text_of_utc(folder: Path) -> Path:
    return omop_as_text(folder, OF_UTC)


def omop_as_text_of_bigquery(folder: Path) -> Path:
    return omop_as_text(folder, "2020-07-01 21:30:00 UTC")


def omop_as_text_with_a_gap(folder: Path) -> Path:
    return omop_as_text(folder, "2020-07-01 23:30:00.000 +02:00")


def event_table(folder: Path, zone: str = "UTC") -> Path:
    folder.mkdir()
    born, seen = adjusted(BORN, zone), adjusted(SEEN, zone)
    table = {
        "subject_id": pa.array([1, 1], pa.int64()),
        "time": pa.concat_arrays([born, seen]),
        "code": pa.array(["MEDS_BIRTH", "OMOP//44054006"]),
        "numeric_value": pa.nulls(2, pa.float32()),
        "site": pa.array([1, 1], pa.int64()),
    }
    pq.write_table(pa.table(table), folder / "events.parquet")
    return folder / "events.parquet"


def event_table_of_vienna(folder: Path) -> Path:
    return event_table(folder, VIENNA)


def fhir(folder: Path, seen: str = WITH_OFFSET) -> Path:
    folder.mkdir()
    patient = {"resourceType": "Patient", "id": "1", "birthDate": "1950-03-02"}
    code = {"coding": [{"system": "http://snomed.info/sct", "code": "44054006"}]}
    subject = {"reference": "Patient/1"}
    found = {
        "resourceType": "Condition",
        "id": "c",
        "subject": subject,
        "code": code,
        "onsetDateTime": seen,
    }
    (folder / "all.ndjson").write_text(f"{json.dumps(patient)}\n{json.dumps(found)}\n")
    return folder


def fhir_of_utc(folder: Path) -> Path:
    return fhir(folder, OF_UTC)


def apple(folder: Path) -> Path:
    folder.mkdir()
    at = "2020-07-01 23:30:00 +0200"
    (folder / "export.xml").write_text(
        f'<HealthData><Record type="HKQuantityTypeIdentifierBodyMass" unit="kg" startDate="{at}" '
        f'endDate="{at}" value="70"/></HealthData>'
    )
    return folder / "export.xml"


def fitbit(folder: Path) -> Path:
    folder.mkdir()
    table = {
        "person_id": pa.array([1], pa.int64()),
        "datetime": adjusted(SEEN, "UTC"),
        "heart_rate_value": pa.array([61.0]),
    }
    pq.write_table(pa.table(table), folder / "heart_rate_minute_level.parquet")
    return folder


SOURCES: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "omop, adjusted to UTC": ("omop", omop_of_utc),
    "omop, of Vienna": ("omop", omop_of_vienna),
    "omop, without a zone": ("omop", omop_without_a_zone),
    "omop, text with an offset": ("omop", omop_as_text),
    "omop, text of UTC": ("omop", omop_as_text_of_utc),
    "omop, text as BigQuery writes UTC": ("omop", omop_as_text_of_bigquery),
    "omop, text with an offset apart": ("omop", omop_as_text_with_a_gap),
    "event table, adjusted to UTC": ("event_table", event_table),
    "event table, of Vienna": ("event_table", event_table_of_vienna),
    "fhir, with an offset": ("fhir", fhir),
    "fhir, of UTC": ("fhir", fhir_of_utc),
    "apple, with an offset": ("apple_health", apple),
    "fitbit, adjusted to UTC": ("fitbit", fitbit),
}


def said(store: Path) -> dict[str, str | None]:
    """Return when the person was born and when something was seen, as the store says it."""
    if (store / "wearable").is_dir():
        sql = (
            "select start::varchar as day, list_position(mask, true) - 1 as minute "
            f"from '{store}/wearable/*/*.parquet'"
        )
        ((day, minute),) = duckdb.sql(sql).fetchall()
        return {"seen": f"{day[:10]} {minute // 60:02d}:{minute % 60:02d}:00", "born": None}
    rows = duckdb.sql(
        f"select code, time::varchar from '{store}/data/*/*.parquet' where time is not null"
    ).fetchall()
    times = {"born" if code == "MEDS_BIRTH" else "seen": at for code, at in rows}
    return {"born": None, **times}


def main(folder: Path) -> None:
    """Read every source, without a zone and with it, and print what the stores say."""
    found: dict[str, dict[str, object]] = {}
    for number, (name, (reader, make)) in enumerate(SOURCES.items()):
        source = make(folder / f"source-{number}")
        for zone in (None, VIENNA):
            notices: list[str] = []
            options = {} if zone is None else {"time_zone": zone}
            out = folder / f"store-{number}-{zone is None}"
            if reader == "event_table":
                options["site_column"] = ""
            (store,) = ingest(reader, source, out, notify=notices.append, **options)
            found[f"{name}, {zone}"] = {**said(store), "notices": len(notices)}
    ((zone,),) = DuckDBReader().connection.sql("SELECT current_setting('TimeZone')").fetchall()
    found["DuckDB"] = {"zone": zone, "notices": 0}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
