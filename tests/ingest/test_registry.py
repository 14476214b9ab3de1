from __future__ import annotations

import sys
from pathlib import Path

import pytest

import healthfm_client.ingest.readers as package
from healthfm_client.__main__ import main
from healthfm_client.ingest import ingest
from healthfm_client.ingest.reader_registry import find, readers
from healthfm_client.ingest.readers import fhir, omop
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError
from tests import readers_page

ONE_FILE = """
from healthfm_client.ingest.event_site import event_site
from healthfm_client.ingest.reader_interface import Reader
from healthfm_client.ingest.tables.parquet_columns import ColumnKind, read_columns
import pyarrow as pa

def read(path, options):
    rows = read_columns(path, {"person": ColumnKind.INTEGER})
    code = pa.array(["SEEN"] * rows.num_rows)
    none = pa.nulls(rows.num_rows, pa.timestamp("us")), pa.nulls(rows.num_rows, pa.float32())
    columns = [rows["person"], none[0], code, none[1]]
    names = ["subject_id", "time", "code", "numeric_value"]
    yield event_site("ward", pa.table(columns, names), now_us=options.now_us)

READER = Reader("ward_list", "a list of persons", lambda path: path.suffix == ".ward", read)
"""


def test_every_source_of_the_first_milestone_has_a_reader():
    assert {
        "meds",
        "event_table",
        "physionet2012",
        "eicu_demo",
        "nhanes",
        "chf_actigraphy",
        "pgsc_calc",
    } <= set(readers())


def test_a_new_reader_is_one_file(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "ward_list.py").write_text(ONE_FILE)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "more")])
    readers.cache_clear()
    try:
        pq.write_table(pa.table({"person": [5, 4]}), tmp_path / "list.ward")
        (path,) = ingest("auto", tmp_path / "list.ward", tmp_path / "out")
    finally:
        readers.cache_clear()
        sys.modules.pop("healthfm_client.ingest.readers.ward_list", None)
    assert SiteStore.open(path).subjects().tolist() == [4, 5]


def test_the_page_of_readers_is_made_from_them():
    page = (Path(__file__).parents[2] / "docs" / "readers.md").read_text("utf-8")
    assert page == readers_page.page(), "python -m tests.readers_page > docs/readers.md"


@pytest.mark.parametrize("name", sorted(readers()))
def test_a_reader_says_what_it_reads_what_not_and_what_it_was_tried_on(name, capsys):
    reader = readers()[name]
    assert all((reader.reads, reader.not_read, reader.tried_on))
    with pytest.raises(SystemExit, match="0"):
        main(["ingest", name, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert " ".join(reader.not_read.split()) in said.replace("- ", "-")


def test_what_fhir_and_omop_say_they_read_is_what_they_read():
    of_drugs = fhir.READER.reads.replace(" -", " Medication")
    assert {kind for kind in fhir.MAKERS if kind not in of_drugs} == set()
    assert {one.name for one in omop.TABLES if one.name not in omop.READER.reads} == set()


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(IngestError, match="HF-301"):
        find("auto", tmp_path / "nothing")


def test_a_source_nobody_reads(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    for source in ("auto", "hl7v2"):
        with pytest.raises(IngestError, match=r"HF-302.*physionet2012"):
            find(source, tmp_path / "notes.txt")


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("physionet2012", "physionet2012"),
        ("eicu_demo", "eicu_demo"),
        ("nhanes_2003_2006", "nhanes"),
        ("chf_actigraphy", "chf_actigraphy"),
        ("formats/pgs/aggregated_scores.txt.gz", "pgsc_calc"),
        ("formats/pgs/PGS_SUM_alpha5.txt.gz", "pgsc_calc"),
        ("formats/fitbit_csv", "fitbit"),
        ("nhanes_2003_2006/minute_counts_50subjects_2003_2004.parquet", "nhanes_minutes"),
        ("pgs_1000g/individuals.parquet", "score_table"),
        ("pgs_1000g/hgdp.parquet", "score_table"),
        ("physionet2012/events.parquet", "event_table"),
    ],
)
def test_real_sources_are_recognised(shared_data: Path, folder: str, name: str):
    assert find("auto", shared_data / folder).name == name
