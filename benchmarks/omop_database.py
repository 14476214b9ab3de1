"""How fast OMOP is read from PostgreSQL, beside the same tables as Parquet.

    python benchmarks/omop_database.py [--rows 10000000] [--repeats 3]

PERSON and MEASUREMENT are made from a seed, written as Parquet and loaded into a PostgreSQL that
this program starts; both are ingested whole by the same command in processes of their own, turn
about. Goals: at 10 million rows at least .6 of Parquet's rate, at most 2 GB. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import duckdb
from memory import peak_mib

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.ingest.postgresql_server import binaries, server

ROWS_OF_A_PERSON = 500
PERSON = "person_id bigint, gender_concept_id int, year_of_birth int"
MEASUREMENT = (
    "measurement_id bigint, person_id bigint, measurement_concept_id int, measurement_date date, "
    "measurement_datetime timestamp, measurement_type_concept_id int, operator_concept_id int, "
    "value_as_number numeric, value_as_concept_id int, unit_concept_id int, range_low numeric, "
    "range_high numeric, provider_id bigint, visit_occurrence_id bigint, "
    "measurement_source_value varchar(50), unit_source_value varchar(50)"
)


def make(folder: Path, rows: int) -> None:
    """Write both tables as CSV, for PostgreSQL, and as Parquet."""
    people = max(2, rows // ROWS_OF_A_PERSON)
    queries = {
        "person": "select n as person_id, 8507 as gender_concept_id, "
        f"1940 + n % 60 as year_of_birth from range(1, {people + 1}) t(n)",
        "measurement": "select n as measurement_id, 1 + hash(n) % "
        f"{people} as person_id, 3000000 + hash(n, 1) % 300 as measurement_concept_id, "
        "moment::date as measurement_date, moment as measurement_datetime, "
        "32817 as measurement_type_concept_id, 0 as operator_concept_id, "
        "round(hash(n, 2) % 100000 / 100.0, 2)::decimal(12, 2) as value_as_number, "
        "0 as value_as_concept_id, 8840 as unit_concept_id, 1.0::decimal(12, 2) as range_low, "
        "9.0::decimal(12, 2) as range_high, n % 99 as provider_id, n // 10 as visit_occurrence_id, "
        "'LAB ' || hash(n, 1) % 300 as measurement_source_value, 'mg/dL' as unit_source_value "
        "from (select n, timestamp '2010-01-01' + to_seconds(hash(n, 3) % 300000000) as moment "
        f"from range({rows}) t(n))",
    }
    for name, query in queries.items():
        for form in ("csv", "parquet"):
            (folder / form).mkdir(exist_ok=True)
            duckdb.sql(f"copy ({query}) to '{folder}/{form}/{name}.{form}'")


def ingest_here(path: Path) -> None:
    """Ingest in this process, and print what it took."""
    from healthfm_client.ingest import ingest

    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        ingest("omop", path, Path(folder) / "store")
        took = {"seconds": time.monotonic() - started, "peak_mib": peak_mib()}
    sys.stdout.write(json.dumps(took) + "\n")


def measured(path: Path) -> dict[str, float]:
    """Return what an ingest of `path` takes, in a process of its own."""
    command = [sys.executable, __file__, "--ingest", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ingest", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ingest is not None:
        ingest_here(given.ingest)
        return
    if binaries() is None:
        sys.stdout.write("PostgreSQL's server is not installed; nothing was measured\n")
        return
    with tempfile.TemporaryDirectory(prefix="omop-") as name, server() as running:
        folder = Path(name)
        make(folder, given.rows)
        running.load("person", PERSON, folder / "csv" / "person.csv")
        running.load("measurement", MEASUREMENT, folder / "csv" / "measurement.csv")
        running.run("vacuum (freeze, analyze);")  # as a table that was not loaded a second ago
        address = folder / "cdm.toml"
        address.write_text(f'[database]\nurl = "{running.url}"\n')
        turns = [(measured(folder / "parquet"), measured(address)) for _ in range(given.repeats)]
    parquet, database = ([one[i] for one in turns] for i in (0, 1))
    seconds = {
        "parquet": median(one["seconds"] for one in parquet),
        "postgresql": median(one["seconds"] for one in database),
    }
    found = {
        "rows": given.rows,
        "seconds": {form: round(value, 2) for form, value in seconds.items()},
        "share_of_parquet": round(seconds["parquet"] / seconds["postgresql"], 2),
        "peak_mib": {
            "parquet": round(max(one["peak_mib"] for one in parquet)),
            "postgresql": round(max(one["peak_mib"] for one in database)),
        },
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
