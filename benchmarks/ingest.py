"""How fast sources become stores, beside DuckDB reading the same file with the same casts.

    python benchmarks/ingest.py [--events 1000000 10000000] [--only event_table omop fhir]

Each source is made from a seed, read by a process of its own, and timed by the processor's clock,
all threads together, so that a busy machine does not matter: rates are per core. DuckDB does three
things with the same files. `scan`: it reads every column with the casts that the reader makes and
keeps counts and sums; nothing leaves it. `read`: it hands the events over as Arrow tables, which is
all that our readers do, so `reading` (our stream, nothing sorted, nothing written) is compared with
that. `job`: it does the same as `ingest` as far as SQL goes: those casts, events by subject and
time, a split, zstd Parquet (no doubles set aside, no units harmonised, nothing checked). Goals:
1,000,000 events/s from Parquet event tables, 150,000 from OMOP CSV, 20 MB/s from FHIR ndjson; at
most 2 times DuckDB; at most 2 GB of memory, and the same at every size. Several sizes may be
given; 100 million events take 10 GB of disk and half an hour. Writes results/ingest.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from memory import peak_mib

RESULTS = Path(__file__).parent / "results"
ROWS_AT_ONCE = 1_000_000
EVENTS_PER_PERSON = 500
FHIR_SHARE = 20
"""FHIR has one resource for so many events of the others."""
SCANS = {
    "event_table": "SELECT count(*), sum(subject_id), max(time), count(DISTINCT code), "
    "sum(numeric_value) FROM read_parquet('{path}/*.parquet')",
    "omop": "SELECT count(*), sum(TRY_CAST(person_id AS BIGINT)), "
    "sum(TRY_CAST(measurement_concept_id AS BIGINT)), sum(TRY_CAST(value_as_number AS DOUBLE)), "
    "max(coalesce(TRY_CAST(measurement_datetime AS TIMESTAMP), "
    "TRY_CAST(measurement_date AS TIMESTAMP))), sum(TRY_CAST(unit_concept_id AS BIGINT)), "
    "max(unit_source_value) FROM read_csv('{path}/measurement.csv', all_varchar=true)",
    "fhir": "SELECT count(*), max(subject.reference), max(effectiveDateTime), max(code.coding[1]), "
    "sum(valueQuantity.value) FROM read_ndjson('{path}/*.ndjson', columns={{"
    "resourceType: 'VARCHAR', subject: 'STRUCT(reference VARCHAR)', effectiveDateTime: 'VARCHAR', "
    "code: 'STRUCT(coding STRUCT(system VARCHAR, code VARCHAR)[])', "
    "valueQuantity: 'STRUCT(value DOUBLE, code VARCHAR)'}})",
}

JOBS = {
    "event_table": "SELECT subject_id, time, code, numeric_value "
    "FROM read_parquet('{path}/*.parquet')",
    "omop": "SELECT TRY_CAST(person_id AS BIGINT) AS subject_id, coalesce(TRY_CAST("
    "measurement_datetime AS TIMESTAMP), TRY_CAST(measurement_date AS TIMESTAMP)) AS time, "
    "'OMOP//' || TRY_CAST(measurement_concept_id AS BIGINT) || '//' || coalesce(unit_source_value, "
    "TRY_CAST(unit_concept_id AS BIGINT)::VARCHAR) AS code, "
    "TRY_CAST(value_as_number AS FLOAT) AS numeric_value "
    "FROM read_csv('{path}/measurement.csv', all_varchar=true)",
    "fhir": "SELECT TRY_CAST(split_part(subject.reference, '/', 2) AS BIGINT) AS subject_id, "
    "TRY_CAST(left(effectiveDateTime, 19) AS TIMESTAMP) AS time, code.coding[1].system || '//' || "
    "code.coding[1].code || '//' || valueQuantity.code AS code, "
    "valueQuantity.value::FLOAT AS numeric_value "
    "FROM read_ndjson('{path}/*.ndjson', columns={{subject: 'STRUCT(reference VARCHAR)', "
    "effectiveDateTime: 'VARCHAR', code: 'STRUCT(coding STRUCT(system VARCHAR, code VARCHAR)[])', "
    "valueQuantity: 'STRUCT(value DOUBLE, code VARCHAR)'}})",
}
JOB = (
    "COPY (SELECT *, CASE WHEN hash(subject_id) % 100 < 70 THEN 'train' WHEN hash(subject_id) % 100"
    " < 85 THEN 'tuning' ELSE 'held_out' END AS split FROM ({events}) ORDER BY subject_id, time) "
    "TO '{out}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 1000000, PARTITION_BY (split))"
)
MEMORY = "1500MB"


def batches(events: int) -> Any:
    """Yield columns of events: ids, times in s since 1970, code number, value."""
    rng = np.random.default_rng(0)
    for start in range(0, events, ROWS_AT_ONCE):
        size = min(ROWS_AT_ONCE, events - start)
        who = rng.integers(1, max(2, events // EVENTS_PER_PERSON), size)
        when = rng.integers(1_300_000_000, 1_600_000_000, size)
        what = np.minimum(rng.zipf(1.3, size), 5000)
        yield who, when, what, rng.normal(100, 15, size).round(2)


def make_event_table(folder: Path, events: int) -> None:
    """Write Parquet events."""
    writer = None
    for who, when, what, value in batches(events):
        table = pa.table(
            {
                "subject_id": who,
                "time": pa.array(when * 1_000_000).cast(pa.timestamp("us")),
                "code": pa.array([f"LAB//{n}" for n in range(5001)]).take(pa.array(what)),
                "numeric_value": value.astype(np.float32),
            }
        )
        writer = writer or pq.ParquetWriter(folder / "events.parquet", table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def make_omop(folder: Path, events: int) -> None:
    """Write PERSON and MEASUREMENT as CSV."""
    people = range(1, max(2, events // EVENTS_PER_PERSON))
    lines = "\n".join(f"{n},8507,{1940 + n % 60}" for n in people)
    (folder / "person.csv").write_text(f"person_id,gender_concept_id,year_of_birth\n{lines}\n")
    with (folder / "measurement.csv").open("w") as out:
        out.write(
            "measurement_id,person_id,measurement_concept_id,measurement_date,measurement_datetime,"
            "value_as_number,value_as_concept_id,unit_concept_id,unit_source_value\n"
        )
        for who, when, what, value in batches(events):
            stamp = np.datetime_as_string(when.astype("datetime64[s]"))
            rows = zip(who, what, stamp, value, strict=True)
            out.writelines(
                f"1,{p},{3000000 + c},{t[:10]},{t.replace('T', ' ')},{v},0,8840,mg/dL\n"
                for p, c, t, v in rows
            )


def make_fhir(folder: Path, events: int) -> None:
    """Write Observations as a bulk export does, about 600 bytes each."""
    with (folder / "Observation.ndjson").open("w") as out:
        for who, when, what, value in batches(events // FHIR_SHARE):
            stamp = np.datetime_as_string(when.astype("datetime64[s]"))
            for p, t, c, v in zip(who, stamp, what, value, strict=True):
                out.write(json.dumps(_observation(int(p), str(t), int(c), float(v))) + "\n")


def _observation(person: int, time_: str, code: int, value: float) -> dict[str, Any]:
    coding = {"system": "http://loinc.org", "code": f"{code}-1", "display": "A laboratory test"}
    unit = {"unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"}
    category = {"system": "http://terminology.hl7.org/CodeSystem/observation-category"}
    return {
        "resourceType": "Observation",
        "id": f"{person:08d}-{code:04d}",
        "meta": {"profile": ["http://hl7.org/fhir/StructureDefinition/vitalsigns"]},
        "status": "final",
        "category": [{"coding": [category | {"code": "laboratory"}]}],
        "code": {"coding": [coding], "text": "A laboratory test"},
        "subject": {"reference": f"Patient/{person}"},
        "encounter": {"reference": f"Encounter/{person}-{code}"},
        "effectiveDateTime": f"{time_}+00:00",
        "issued": f"{time_}+00:00",
        "valueQuantity": unit | {"value": value},
    }


MAKERS = {"event_table": make_event_table, "omop": make_omop, "fhir": make_fhir}


def ingest_here(source: str, folder: Path) -> None:
    """Ingest in this process and print what it took."""
    from healthfm_client.ingest import ingest

    options = {"site_column": ""} if source == "event_table" else {}
    start, wall = time.process_time(), time.perf_counter()
    (out,) = ingest(source, folder / "in", folder / "out", overwrite=True, **options)
    seconds = time.process_time() - start
    files = (out / "data").rglob("*.parquet")
    found = {
        "job_cpu_s": round(seconds, 2),
        "wall_s": round(time.perf_counter() - wall, 2),
        "events": sum(pq.read_metadata(file).num_rows for file in files),
        "peak_mb": round(peak_mib()),
    }
    print(json.dumps(found))


def reading_cpu_s(source: str, folder: Path) -> float:
    """Return the processor seconds of reading alone: every table of the stream, dropped."""
    from healthfm_client.ingest.pipeline import parse_options
    from healthfm_client.ingest.reader_registry import find

    reader = find(source, folder / "in")
    options = {"site_column": ""} if source == "event_table" else {}
    start = time.process_time()
    for site in reader.read(folder / "in", parse_options(reader, options)):
        for part in site.stream.parts:
            for _ in part.tables:
                pass
    return time.process_time() - start


def peer_cpu_s(sql: str, folder: Path, *, as_tables: bool = False) -> float:
    """Return the processor seconds of DuckDB for a statement, in as much memory as we may take."""
    config = {"memory_limit": MEMORY, "temp_directory": str(folder / "spilt")}
    with duckdb.connect(config=config) as connection:
        start = time.process_time()
        if as_tables:
            for _ in connection.sql(sql).to_arrow_reader(ROWS_AT_ONCE):
                pass
        else:
            connection.execute(sql).fetchall()
        return time.process_time() - start


def peers(source: str, folder: Path) -> dict[str, float]:
    """Return the processor seconds of DuckDB's scan and of the same job."""
    job = JOBS[source].format(path=folder / "in")
    written = folder / "duckdb"
    found = {
        "scan": peer_cpu_s(SCANS[source].format(path=folder / "in"), folder),
        "read": peer_cpu_s(job, folder, as_tables=True),
        "job": peer_cpu_s(JOB.format(events=job, out=written), folder),
    }
    shutil.rmtree(written)
    return found


def measure(source: str, events: int, folder: Path) -> dict[str, Any]:
    """Return the figures of one source."""
    (folder / "in").mkdir(parents=True)
    MAKERS[source](folder / "in", events)
    size = sum(file.stat().st_size for file in (folder / "in").iterdir())
    peer = peers(source, folder)
    command = [sys.executable, __file__, "--keep", str(folder)]
    found: dict[str, Any] = {}
    for step in ("--read", "--ingest"):
        done = subprocess.run([*command, step, source], check=True, capture_output=True, text=True)
        found |= json.loads(done.stdout.splitlines()[-1])
    found |= {
        "source_mb": round(size / 1e6, 1),
        "events_per_core_s": round(found["events"] / found["job_cpu_s"]),
        "mb_per_core_s": round(size / 1e6 / found["job_cpu_s"], 1),
        "duckdb_cpu_s": {name: round(seconds, 2) for name, seconds in peer.items()},
        "times_duckdb": {
            f"{ours} / {theirs}": round(found[f"{ours}_cpu_s"] / max(peer[theirs], 1e-9), 2)
            for ours, theirs in (("reading", "read"), ("reading", "scan"), ("job", "job"))
        },
    }
    return found


def main() -> None:
    """Measure each source and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--only", nargs="+", default=list(MAKERS), choices=list(MAKERS))
    parser.add_argument("--keep", type=Path, help="where the sources are made [a temporary folder]")
    parser.add_argument("--read", choices=list(MAKERS), help=argparse.SUPPRESS)
    parser.add_argument("--ingest", choices=list(MAKERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps({"reading_cpu_s": round(reading_cpu_s(options.read, options.keep), 2)}))
        return
    if options.ingest:
        ingest_here(options.ingest, options.keep)
        return
    found: dict[str, dict[int, Any]] = {}
    for source, events in product(options.only, options.events):
        with tempfile.TemporaryDirectory(dir=options.keep) as folder:
            figures = measure(source, events, Path(folder))
        found.setdefault(source, {})[events] = figures
        print(source, events, json.dumps(figures), flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "ingest.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
