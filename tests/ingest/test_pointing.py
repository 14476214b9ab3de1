"""Whoever points at the wrong thing is told what the right one is."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import duckdb
import pytest

from healthfm_client.ingest import ingest
from healthfm_core.errors import IngestError

CDM = Path(__file__).with_name("omop_cdm")
SCORES = "sampleset\tFID\tIID\tPGS\tSUM\ncohort\t1\t1\tPGS000018\t.5\n"


def archive(folder: Path) -> None:
    with zipfile.ZipFile(folder / "export.zip", "w") as whole:
        whole.write(CDM / "person.csv", "cdm/person.csv")


def database(folder: Path) -> None:
    with duckdb.connect(str(folder / "notes.duckdb")) as connection:
        connection.sql("create table note (id integer)")


def cdm_database(folder: Path) -> None:
    with duckdb.connect(str(folder / "cdm.duckdb")) as connection:
        connection.sql("create table person (person_id integer)")


def scores(folder: Path) -> None:
    (folder / "cohort" / "score").mkdir(parents=True)
    (folder / "cohort" / "score" / "aggregated_scores.txt").write_text(SCORES)
    (folder / "pipeline_info.html").write_text("")


def deeper(folder: Path) -> None:
    shutil.copytree(CDM, folder / "2026" / "november" / "cdm")


def archives(folder: Path) -> None:
    archive(folder)
    shutil.copy(folder / "export.zip", folder / "more.tar")


@pytest.mark.parametrize(
    ("source", "make", "do"),
    [
        ("omop", archive, "Point at the archive itself: here/export.zip"),
        ("fhir", archive, "Point at the archive itself: here/export.zip"),
        ("omop", archives, "here/export.zip, here/more.tar, one at a time, or unpack them"),
        ("fhir", database, "here/notes.duckdb is a database: export each table as Parquet"),
        ("omop", cdm_database, "Point at here/cdm.duckdb"),
        ("pgsc_calc", scores, "Point at here/cohort/score/aggregated_scores.txt"),
        ("omop", deeper, "Point at here/2026/november"),
    ],
)
@pytest.mark.parametrize("auto", [True, False])
def test_a_folder_that_is_no_source_names_what_to_point_at(tmp_path, source, make, do, auto):
    folder = tmp_path / "here"
    folder.mkdir()
    make(folder)
    with pytest.raises(IngestError) as refused:
        ingest("auto" if auto else source, folder, tmp_path / "out")
    assert do in refused.value.do
    assert not (tmp_path / "out").exists()


def test_inside_an_archive_the_archive_is_to_be_unpacked(tmp_path):
    for name in ("a", "b"):
        shutil.copytree(CDM, tmp_path / "raw" / name / "cdm")
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as whole:
        for file in sorted((tmp_path / "raw").rglob("*.csv")):
            whole.write(file, f"{file.parent.parent.name}/{file.name}")
    with pytest.raises(IngestError, match=r"HF-306.*Unpack it and point at a, b$"):
        ingest("omop", tmp_path / "both.zip", tmp_path / "out")


def test_a_folder_of_nothing_keeps_the_plain_sentence(tmp_path):
    (tmp_path / "here").mkdir()
    with pytest.raises(IngestError, match=r"HF-302.*Name the source$"):
        ingest("auto", tmp_path / "here", tmp_path / "out")
    with pytest.raises(IngestError, match=r"HF-306.*Check the source's export$"):
        ingest("omop", tmp_path / "here", tmp_path / "out")
