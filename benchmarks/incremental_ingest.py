"""What a day's update of a store costs, beside reading its whole source again.

    python benchmarks/incremental_ingest.py [--events 4000000] [--delta .01] [--repeats 3]
        [--sources event_table omop] [--cases alone whole late people]

A source is made from a seed, as Parquet, and ingested; then the command ingests it whole and
updates the store by a delta, turn about, each in a process of its own, on a copy of the store.
Cases: `alone`: a file with the rows of the next day is given by itself. `whole`: it lies in the
source's folder, which is given whole. `late`: by itself, rows of any day of the store's. `people`:
all rows of so many of the people, with `--update people`. Everybody has a row in the first three.
`omop` has a birth of each person, which every update is held against; the event table has none.

Goal: a delta of 1 % costs less than 5 % of a whole ingest. Told are medians of seconds, of the
clock and of the processor (`_cpu`): `command`, from the process's start to its end, and `work`,
without the start of Python and its imports, which take the same at every size. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from shutil import copytree, rmtree
from statistics import median
from typing import Any, Final

import duckdb
from memory import peak_mib

EVENTS_PER_PERSON: Final = 500
DAYS: Final = 3000
GOAL: Final = 0.05
OPTIONS: Final = {"event_table": ["--site-column", ""], "omop": []}
CASES: Final = ("alone", "whole", "late", "people")
Figures = dict[str, float]

COLUMNS: Final = {
    "event_table": "who AS subject_id, moment AS time, 'LAB//' || what AS code, "
    "value::FLOAT AS numeric_value",
    "omop": "n AS measurement_id, who AS person_id, 3000000 + what AS measurement_concept_id, "
    "moment::DATE AS measurement_date, moment AS measurement_datetime, value AS value_as_number, "
    "0 AS value_as_concept_id, 8840 AS unit_concept_id, 'mg/dL' AS unit_source_value",
}


def rows(first: int, count: int, people: int, day: str, days: int) -> str:
    """Return a query of `count` rows, numbered from `first`, of people and some days."""
    return (
        f"SELECT n, 1 + hash(n) % {people} AS who, hash(n, 1) % 300 AS what, "
        "hash(n, 2) % 100000 / 100.0 AS value, "
        f"TIMESTAMP '{day}' + to_seconds(hash(n, 3) % {days * 86_400}) AS moment "
        f"FROM range({first}, {first + count}) t(n)"
    )


class Source:
    """A source of so many events, and the deltas of each case.

    Args:
        name: The reader.
        folder: Where it is made.
        events: How many events it has.
        delta: Events of a delta by those.
    """

    def __init__(self, name: str, folder: Path, events: int, delta: float) -> None:
        self.name, self.folder, self.events = name, folder, events
        self.new = max(1, round(events * delta))
        self.people = max(2, events // EVENTS_PER_PERSON)
        self.base = rows(0, events, self.people, "2010-01-01", DAYS)
        self.write("source", "2010", self.base)

    def write(self, into: str, part: str, query: str) -> Path:
        """Write the rows of a query as one part of a source's folder; return the folder."""
        folder = self.folder / into
        if self.name == "event_table":
            place = folder
        else:
            place = folder / "measurement"
            people = (
                "SELECT n AS person_id, 8507 AS gender_concept_id, 1940 + n % 60 AS year_of_birth "
                f"FROM range(1, {self.people + 1}) t(n)"
            )
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "person.parquet").exists():
                duckdb.sql(f"COPY ({people}) TO '{folder}/person.parquet'")
        place.mkdir(parents=True, exist_ok=True)
        duckdb.sql(f"COPY (SELECT {COLUMNS[self.name]} FROM ({query})) TO '{place}/{part}.parquet'")
        return folder

    def delta(self, case: str) -> Path:
        """Make what a case gives, and return its folder."""
        next_day = rows(self.events, self.new, self.people, "2019-01-01", 1)
        if case == "whole":
            return self.write("source", "2019", next_day)
        if case == "late":
            any_day = rows(self.events, self.new, self.people, "2010-01-01", DAYS)
            return self.write(case, "more", any_day)
        if case == "people":
            some = max(1, self.people * self.new // self.events)
            return self.write(case, "more", f"SELECT * FROM ({self.base}) WHERE who <= {some}")
        return self.write(case, "2019", next_day)


def ingest_here(words: Sequence[str]) -> None:
    """Run the command in this process, and print what its work took."""
    from healthfm_client.__main__ import main
    from healthfm_client.commands import ingest  # noqa: F401  before the clock
    from healthfm_client.ingest.reader_registry import readers

    readers()
    clock, processor = time.perf_counter(), time.process_time()
    code = main(["ingest", *words])
    took = {"work": time.perf_counter() - clock, "work_cpu": time.process_time() - processor}
    sys.stdout.write(json.dumps({"code": code, **took, "peak_mib": peak_mib()}) + "\n")


def command(words: Sequence[str]) -> Figures:
    """Return what ``healthfm-client ingest`` with some words takes, in a process of its own."""
    compiled = {n: v for n, v in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    clock = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--run", *words],
        capture_output=True,
        text=True,
        check=True,
        env=compiled,
    )
    seconds = time.perf_counter() - clock
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if found.pop("code") or "Nothing in it is new" in done.stdout:
        raise SystemExit(done.stdout + done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"command": seconds, "command_cpu": cpu, **found}


def measured(source: Source, cases: Sequence[str], repeats: int) -> dict[str, Any]:
    """Return the figures of a source: a whole ingest, and each case beside it."""
    store, copy, whole = (source.folder / name for name in ("store", "copy", "all"))
    options = OPTIONS[source.name]
    path = str(source.folder / "source")
    command([source.name, path, "--out", str(store), *options])
    ingests: list[Figures] = []
    updates: dict[str, list[Figures]] = {case: [] for case in cases}
    for _ in range(repeats):
        ingests.append(command([source.name, path, "--out", str(whole), "--overwrite", *options]))
        for case in cases:
            delta = source.delta(case)
            copytree(store, copy, copy_function=os.link)
            how = "people" if case == "people" else "rows"
            words = [source.name, str(delta), "--out", str(copy), "--update", how, *options]
            updates[case].append(command(words))
            rmtree(copy)
            if case == "whole":
                for file in delta.rglob("2019.parquet"):
                    file.unlink()
    ingest = _medians(ingests)
    found: dict[str, Any] = {"events": source.events, "delta": source.new, "ingest": ingest}
    for case, figures in updates.items():
        update = _medians(figures)
        told = [name for name in ingest if name != "peak_mib"]
        share = {name: round(update[name] / max(ingest[name], 0.01), 3) for name in told}
        found[case] = {**update, "share": share, "reached": share["command"] < GOAL}
    return found


def _medians(figures: Sequence[Figures]) -> Figures:
    return {name: round(median(one[name] for one in figures), 2) for name in figures[0]}


def main() -> None:
    """Measure each source and print."""
    if sys.argv[1:2] == ["--run"]:
        ingest_here(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=4_000_000)
    parser.add_argument("--delta", type=float, default=0.01)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sources", nargs="+", default=list(OPTIONS), choices=list(OPTIONS))
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    given = parser.parse_args()
    found = {}
    for name in given.sources:
        with tempfile.TemporaryDirectory(prefix="incremental-") as folder:
            source = Source(name, Path(folder), given.events, given.delta)
            found[name] = measured(source, given.cases, given.repeats)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
