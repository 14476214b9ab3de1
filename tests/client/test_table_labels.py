"""Labels of a table of one's own, put into the stores of the people whom they are of."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.__main__ import main
from healthfm_client.ingest import ingest
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError

PEOPLE = 30


def clinic(path: Path, ids: list[str]) -> Path:
    rows = [f"{who},2020-01-01,5.{n % 10}" for n, who in enumerate(ids)]
    path.mkdir()
    (path / "clinic.csv").write_text("\n".join(["patient_id,day,value", *rows]) + "\n")
    (path / "events.yaml").write_text(
        "subject_id_col: patient_id\n"
        "clinic:\n  lab: {code: LAB, time: col(day), numeric_value: value}\n"
    )
    return path


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Path:
    """A folder of two stores, whose people are 100 to 129 and 200 to 229."""
    folder = tmp_path_factory.mktemp("stores")
    for name, first in (("north", 100), ("south", 200)):
        ids = [str(first + n) for n in range(PEOPLE)]
        ingest("tables", clinic(folder.parent / f"{folder.name}-{name}", ids), folder / name)
    return folder


def table(path: Path, *rows: str, head: str = "patient_id,prediction_date,readmitted") -> Path:
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def of(store: Path, task: str) -> dict[int, tuple[datetime, bool]]:
    rows = SiteStore.open(store).labels(task).to_pylist()
    return {row["subject_id"]: (row["prediction_time"], row["boolean_value"]) for row in rows}


def refused(capsys, *command: object) -> str:
    assert main(["labels", *map(str, command)]) == IngestError.exit_code
    return capsys.readouterr().err


def test_each_store_gets_the_labels_of_its_own_people(stores, tmp_path, capsys):
    rows = [f"{n},2020-02-01,{'yes' if n % 2 else 'no'}" for n in (*range(100, 130), 205, 999)]
    file = table(tmp_path / "readmitted.csv", *rows, "206,,yes", "207,2020-02-01,")
    assert main(["labels", str(stores), str(file)]) == 0
    said = capsys.readouterr().out
    assert "north, readmitted: labels 30, positive withheld" in said
    assert "fewer than 20 labels are of people whom no store has" in said
    assert "fewer than 20 rows without a person, a time or an outcome are no labels" in said
    north, south = (of(stores / name, "readmitted") for name in ("north", "south"))
    assert north == {n: (datetime(2020, 2, 1), n % 2 == 1) for n in range(100, 130)}
    assert south == {205: (datetime(2020, 2, 1), True)}
    SiteStore.open(stores / "north").check()


def test_texts_as_ids_are_found_by_the_key_of_the_ingest(tmp_path):
    ids = [f"P-{n}" for n in range(PEOPLE)]
    key, raw = tmp_path / "key", clinic(tmp_path / "raw", ids)
    ingest("tables", raw, tmp_path / "store", key=key)
    file = table(tmp_path / "back.csv", "P-3,2020-02-01 08:30,1", "P-4,2020-02-01 08:30,0")
    assert main(["labels", str(tmp_path / "store"), str(file), "--key", str(key)]) == 0
    found = of(tmp_path / "store", "back")
    assert sorted(found.values()) == [
        (datetime(2020, 2, 1, 8, 30), False),
        (datetime(2020, 2, 1, 8, 30), True),
    ]
    assert set(found) < set(SiteStore.open(tmp_path / "store").subjects().tolist())


def test_parquet_and_named_columns(stores, tmp_path):
    columns = {"who": [101, 102], "asked": ["31/01/2020", "01/02/2020"], "died": [True, False]}
    pq.write_table(pa.table(columns), tmp_path / "any.parquet")
    named = ["--subject-column", "who", "--time-column", "asked", "--value-column", "died"]
    form = ["--time-format", "%d/%m/%Y", "--name", "death"]
    command = ["labels", str(stores / "north"), str(tmp_path / "any.parquet"), *named, *form]
    assert main(command) == 0
    assert of(stores / "north", "death") == {
        101: (datetime(2020, 1, 31), True),
        102: (datetime(2020, 2, 1), False),
    }
    assert main(command) == IngestError.exit_code, "nothing is replaced unasked"
    assert main([*command, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("rows", "head", "said"),
    [
        (["101,2020-02-01,maybe"], None, 'HF-308.*column "readmitted".*1 cells'),
        (["101,soon,yes"], None, 'HF-308.*column "prediction_date".*--time-format'),
        (["101,2020-02-01,yes", "101,2020-02-01,no"], None, "HF-305.*two answers"),
        (["101,2020-02-01,yes"], "who,prediction_date,readmitted", "HF-307.*--subject-column"),
        (["101,2020-02-01,1,1"], "patient_id,date,a,b", "HF-307.*--value-column"),
        (["101,,"], None, "HF-306"),
        (["999,2020-02-01,yes"], None, "HF-316.*is in north.*--key"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_and_writes_nothing(
    stores, tmp_path, capsys, rows, head, said
):
    import re

    file = table(tmp_path / "bad.csv", *rows, **({"head": head} if head else {}))
    error = refused(capsys, stores / "north", file)
    assert re.search(said, error), error
    assert not {"maybe", "soon", "999"} & set(re.split(r"\W+", error)), "no value of a row"
    assert "bad" not in SiteStore.open(stores / "north").tasks


def test_the_same_row_twice_is_one_label(stores, tmp_path):
    file = table(tmp_path / "twice.csv", "103,2020-02-01,yes", "103,2020-02-01,TRUE")
    assert main(["labels", str(stores / "north"), str(file)]) == 0
    assert of(stores / "north", "twice") == {103: (datetime(2020, 2, 1), True)}


def test_a_file_that_is_not_there(stores, capsys):
    assert "HF-301" in refused(capsys, stores / "north", "nowhere.csv")
