"""How fast OMOP is read from PostgreSQL, beside the same tables as Parquet.

    python benchmarks/omop_database.py [--rows 10000000] [--repeats 3]

PERSON, MEASUREMENT and the CONCEPT of its tests and units are made from a seed, written as Parquet
and loaded into a PostgreSQL that this program starts; both are ingested whole by the same command
in processes of their own, turn about. One measurement in 80 is a limit, one in 50 has an answer
beside its number, one in 16 has no number, one in 11 a unit that is no concept. Beside the time on
the clock it prints the processor's, of the server too, since what else runs on the machine changes
that less. Goals: at 10 million rows at least .6 of Parquet's rate, at most 2 GB. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import duckdb
from memory import peak_mib

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.ingest.postgresql_server import Server, binaries, server

ROWS_OF_A_PERSON = 500
TESTS = 300
UNITS = ("%", "mg/dL", "g/dL", "mmol/L", "U/L", "10*3/uL", "pg/mL", "mm[Hg]")
CONCEPT = (
    "concept_id int, concept_name varchar(255), vocabulary_id varchar(20), concept_code varchar(50)"
)
PERSON = "person_id bigint, gender_concept_id int, year_of_birth int"
MEASUREMENT = (
    "measurement_id bigint, person_id bigint, measurement_concept_id int, measurement_date date, "
    "measurement_datetime timestamp, measurement_type_concept_id int, operator_concept_id int, "
    "value_as_number numeric, value_as_concept_id int, unit_concept_id int, range_low numeric, "
    "range_high numeric, provider_id bigint, visit_occurrence_id bigint, "
    "measurement_source_value varchar(50), unit_source_value varchar(50)"
)


def make(folder: Path, rows: int) -> None:
    """Write the tables as CSV, for PostgreSQL, and as Parquet."""
    people = max(2, rows // ROWS_OF_A_PERSON)
    units = ", ".join(f"(8501 + {n}, '{unit}', 'UCUM', '{unit}')" for n, unit in enumerate(UNITS))
    its_unit = ", ".join(f"'{unit}'" for unit in UNITS)
    queries = {
        "concept": "select 3000000 + n as concept_id, 'test ' || n as concept_name, "
        f"'LOINC' as vocabulary_id, 90000 + n || '-1' as concept_code from range({TESTS}) t(n) "
        f"union all select * from (values {units})",
        "person": "select n as person_id, 8507 as gender_concept_id, "
        f"1940 + n % 60 as year_of_birth from range(1, {people + 1}) t(n)",
        "measurement": "select n as measurement_id, 1 + hash(n) % "
        f"{people} as person_id, 3000000 + test as measurement_concept_id, "
        "moment::date as measurement_date, moment as measurement_datetime, "
        "32817 as measurement_type_concept_id, "
        "if(hash(n, 4) % 80 = 0, 4171756, 0) as operator_concept_id, if(hash(n, 6) % 16 = 0, null, "
        "round(hash(n, 2) % 100000 / 100.0, 2)::decimal(12, 2)) as value_as_number, "
        "if(hash(n, 5) % 50 = 0, 4135493, 0) as value_as_concept_id, "
        f"if(test % 11 = 0, 0, 8501 + test % {len(UNITS)}) as unit_concept_id, "
        "1.0::decimal(12, 2) as range_low, 9.0::decimal(12, 2) as range_high, "
        "n % 99 as provider_id, n // 10 as visit_occurrence_id, "
        "'LAB ' || test as measurement_source_value, "
        f"if(test % 11 = 0, 'arb. u.', [{its_unit}][1 + test % {len(UNITS)}]) as unit_source_value "
        f"from (select n, (hash(n, 1) % {TESTS})::int as test, "
        "timestamp '2010-01-01' + to_seconds(hash(n, 3) % 300000000) as moment "
        f"from range({rows}) t(n))",
    }
    for name, query in queries.items():
        for form in ("csv", "parquet"):
            (folder / form).mkdir(exist_ok=True)
            duckdb.sql(f"copy ({query}) to '{folder}/{form}/{name}.{form}'")


def server_seconds(running: Server) -> float:
    """Return the processor's seconds that a server has taken, its sessions' as well."""
    first = int((running.folder / "data" / "postmaster.pid").read_text().split()[0])
    its = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    ticks = sum(_ticks(int(pid), 2) for pid in its) + _ticks(first, 4)
    return ticks / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int, fields: int) -> int:
    """Return what a process has taken: by itself (2), and with its children that ended (4)."""
    try:
        said = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended: its parent tells of it
        return 0
    return sum(map(int, said[11 : 11 + fields]))


def ingest_here(path: Path) -> None:
    """Ingest in this process, and print what it took."""
    import adbc_driver_postgresql.dbapi  # noqa: F401 - it takes half a second where Polars is

    from healthfm_client.ingest import ingest

    before = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        ingest("omop", path, Path(folder) / "store")
        took = {
            "seconds": time.monotonic() - started,
            "processor": time.process_time() - before,
            "peak_mib": peak_mib(),
        }
    sys.stdout.write(json.dumps(took) + "\n")


def measured(path: Path, running: Server) -> dict[str, float]:
    """Return what an ingest of `path` takes, in a process of its own."""
    before = server_seconds(running)
    command = [sys.executable, __file__, "--ingest", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found | {"server": server_seconds(running) - before}


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
        running.load("concept", CONCEPT, folder / "csv" / "concept.csv")
        running.load("measurement", MEASUREMENT, folder / "csv" / "measurement.csv")
        running.run("vacuum (freeze, analyze);")  # as a table that was not loaded a second ago
        address = folder / "cdm.toml"
        address.write_text(f'[database]\nurl = "{running.url}"\n')
        where = {"parquet": folder / "parquet", "postgresql": address}
        turns = [
            {form: measured(path, running) for form, path in where.items()}
            for _ in range(given.repeats)
        ]
    sys.stdout.write(json.dumps({"rows": given.rows, **_told(turns)}, indent=1) + "\n")


def _told(turns: list[dict[str, dict[str, float]]]) -> dict[str, object]:
    """Return medians of the turns, of which each has both forms."""
    both = [(turn["parquet"], turn["postgresql"]) for turn in turns]
    clock = [files["seconds"] / rows["seconds"] for files, rows in both]
    work = [files["processor"] / (rows["processor"] + rows["server"]) for files, rows in both]
    return {
        "share_of_parquet": round(median(clock), 2),
        "share_by_processor": round(median(work), 2),
        **{
            form: {
                kind: round(median(turn[form][kind] for turn in turns), 2)
                for kind in ("seconds", "processor", "server", "peak_mib")
            }
            for form in ("parquet", "postgresql")
        },
    }


if __name__ == "__main__":
    main()
