"""What a site admin sees: a record in words, a dry run, a reading that goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from healthfm_client.__main__ import main
from healthfm_client.ingest import ingest
from healthfm_client.site.private_file import HANDED_ON
from healthfm_core.data.store.store_writer import StoreWriter
from healthfm_core.trained import STUDY, WEIGHTS

CDM = Path(__file__).parents[1] / "ingest" / "omop_cdm"


def test_a_record_reads_naturally(tmp_path, capsys):
    ingest("omop", CDM, tmp_path / "out")
    assert main(["show", str(tmp_path / "out"), "--subject", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Subject of out"
    assert "  Gender M" in lines
    assert "02 January 2010, aged 59.8" in lines
    assert "         Glucose [LOINC//2345-7//mg/dL] = 90 mg/dL" in lines
    assert "         Type 2 diabetes mellitus [SNOMED//44054006]" in lines
    assert lines[-1] == "         Death"


def test_numbers_stand_in_the_units_a_clinician_expects(tmp_path, capsys):
    codes = ["WEARABLE//STEPS//DAY//count", "LOINC//718-7//mg/dL", "LOINC//2345-7//mg/dL"]
    writer = StoreWriter(tmp_path / "store", dataset_name="a")
    writer.add_events(
        pa.table(
            {
                "subject_id": pa.array([1, 1, 1], pa.int64()),
                "time": pa.array([0, 1, 2], pa.timestamp("us")),
                "code": codes,
                "numeric_value": pa.array([13162.0, 14700.0, 90.0], pa.float32()),
            }
        )
    )
    writer.write()
    assert main(["show", str(tmp_path / "store"), "--subject", "1"]) == 0
    said = capsys.readouterr().out
    assert "steps, day = 13162 count\n" in said
    assert "LOINC 718-7 mg/dL = 14.7 g/dL\n" in said
    assert "LOINC 2345-7 mg/dL = 90 mg/dL\n" in said


def test_a_visit_says_how_long_it_was_and_ends_once(tmp_path, capsys):
    day = 86_400 * 1_000_000
    visits = [
        ("Visit//OP", 0, 0.0),
        ("Visit//OP//END", 1, None),
        ("Visit//ER", day, 0.2),
        ("Visit//ER//END", day + 1, None),
        ("Visit//IP", 2 * day, 3.0),
        ("Visit//IP//END", 5 * day, None),
        ("Visit//HH", 9 * day, None),
    ]
    codes, times, lengths = zip(*visits, strict=True)
    writer = StoreWriter(tmp_path / "store", dataset_name="a")
    writer.add_events(
        pa.table(
            {
                "subject_id": pa.array([1] * len(visits), pa.int64()),
                "time": pa.array(times, pa.timestamp("us")),
                "code": codes,
                "numeric_value": pa.array(lengths, pa.float32()),
            }
        )
    )
    writer.write()
    assert main(["show", str(tmp_path / "store"), "--subject", "1"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    said = [line for line in lines if "isit" in line or "stay" in line]
    assert said == [
        "Outpatient visit",
        "Emergency room visit, 5 h",
        "Inpatient stay, 3 days",
        "Inpatient stay ends",
        "Visit HH",
    ]


def test_a_person_who_is_not_there_is_not_guessed(tmp_path, capsys):
    ingest("omop", CDM, tmp_path / "out")
    assert main(["show", str(tmp_path / "out"), "--subject", "77"]) == 3
    said = capsys.readouterr()
    assert "HF-210" in said.err
    assert "77" not in said.err + said.out


def test_a_record_in_a_file_is_for_its_owner(tmp_path):
    ingest("omop", CDM, tmp_path / "out")
    file = tmp_path / "one.txt"
    assert main(["show", str(tmp_path / "out"), "--subject", "1", "--out", str(file)]) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert "Glucose" in file.read_text()


def test_a_dry_run_says_what_would_come_of_it_and_keeps_nothing(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["ingest", "omop", str(CDM), "--out", str(out), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "set aside in rejected/: <20 before_birth" in said
    assert "most_common" not in said
    assert said.endswith("Nothing was kept: this was a dry run.\n")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from healthfm_client.__main__ import main

replace = Path.replace

def noted(draft, to):  # die as soon as the first table is noted as done
    replace(draft, to)
    if to.name == "journal.json" and "condition" in to.read_text():
        os.kill(os.getpid(), signal.SIGKILL)

Path.replace = noted
main(sys.argv[1:])
"""


ROWS = 40_000


def test_killed_and_started_again_it_goes_on_to_the_same_store(tmp_path):
    rng = np.random.default_rng(0)
    cdm = tmp_path / "cdm"
    cdm.mkdir()
    people = "\n".join(f"{n},8507,19{n % 90 + 10}" for n in range(1, 2001))
    (cdm / "person.csv").write_text(f"person_id,gender_concept_id,year_of_birth\n{people}\n")
    for table, about, day in (
        ("condition_occurrence", "condition", "condition_start_date"),
        ("procedure_occurrence", "procedure", "procedure_date"),
    ):
        rows = zip(rng.integers(1, 2001, ROWS), rng.integers(1, 5000, ROWS), strict=True)
        lines = [f"{who},{what},2015-01-{what % 28 + 1:02d}" for who, what in rows]
        head = f"person_id,{about}_concept_id,{day}"
        (cdm / f"{table}.csv").write_text("\n".join([head, *lines]))
    command = ["ingest", "omop", str(cdm), "--out", str(tmp_path / "out"), "--resume"]
    process = subprocess.run([sys.executable, "-c", KILLED, *command], check=False)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    (journal,) = tmp_path.glob(".out.work-*/store/journal.json")
    assert "condition" in journal.read_text()
    assert main(command) == 0
    ingest("omop", cdm, tmp_path / "at_once")
    one, other = tmp_path / "out", tmp_path / "at_once"
    files = sorted(f.relative_to(one) for f in (one / "data").rglob("*.parquet"))
    assert files
    assert all((one / f).read_bytes() == (other / f).read_bytes() for f in files)
    assert not list(tmp_path.glob(".out.*work*"))


def test_a_model_is_known_by_the_names_it_is_saved_under():
    assert {STUDY, WEIGHTS} <= set(HANDED_ON)
