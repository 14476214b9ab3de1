"""What a data steward is shown: facts of a store whose every number is known, and their page."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from healthfm_client.__main__ import main
from healthfm_client.site_store.description.description_page import page, percent
from healthfm_client.site_store.description.facts import describe
from healthfm_client.site_store.description.withholding import apart, counted, quartiles, together
from healthfm_core.data.store.labels import label_table
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_writer import StoreWriter
from healthfm_core.data.store.wearables import stretches
from healthfm_core.errors import ConfigError

PEOPLE = 40
WORN = 30
SCORED = 25
BASE_ID = 7_700_000
DAY = datetime(2020, 1, 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> SiteStore:
    """40 people with a lab, 30 of them with a watch for 12 h on two days, 25 with a score."""
    people = np.arange(PEOPLE, dtype=np.int64) + BASE_ID
    rows = []
    for n, who in enumerate(people.tolist()):
        rows.append((who, datetime(1960, 1, 1), "MEDS_BIRTH", None))
        rows.append((who, DAY, "LOINC//2345-7//mg/dL", 90.0 + n))
        if n < 24:
            rows.append((who, DAY, "LOINC//2345-7//mmol/L", 5.0))
        rows.append((who, DAY + timedelta(days=366), "LOINC//2345-7", None))
        if n < 19:
            rows.append((who, DAY, "SNOMED//1", None))
    columns = zip(*rows, strict=True)
    kinds = (pa.int64(), pa.timestamp("us"), pa.string(), pa.float32())
    names = ("subject_id", "time", "code", "numeric_value")
    events = pa.table({k: pa.array(c, t) for k, c, t in zip(names, columns, kinds, strict=True)})
    worn = np.full((2 * WORN, 1440), np.nan, np.float32)
    worn[:, :720] = 60.0
    start = np.tile([0, 86_400_000_000], WORN) + 1_577_836_800_000_000
    scores = {"subject_id": people[:SCORED], "z": np.linspace(-1, 1, SCORED)}
    folder = tmp_path_factory.mktemp("described") / "store"
    writer = StoreWriter(folder, dataset_name="north")
    writer.add_events(events)
    writer.set_codes(
        pa.table(
            {
                "code": ["LOINC//2345-7", "LOINC//2345-7//mg/dL"],
                "description": pa.array(["Glucose", None]),
                "parent_codes": pa.array([None, ["LOINC//2345-7"]], pa.list_(pa.string())),
            }
        )
    )
    writer.add_wearable("watch", stretches(np.repeat(people[:WORN], 2), start, "HR", 1 / 60, worn))
    writer.add_scores(pa.table(scores | {"score": ["PGS1"] * SCORED}))
    at = np.full(PEOPLE, 1_577_836_800_000_000)
    writer.set_labels("death", label_table(people, at, np.arange(PEOPLE) < 20))
    writer.write()
    return SiteStore.open(folder)


def test_every_number_is_the_stores(store):
    found = describe(store, 5, ("PGS1", "PGS2"))
    assert found["subjects"] == PEOPLE
    assert found["modalities"] == {
        "ehr": {"subjects": 40, "events": 123},
        "genomics": {"subjects": 25, "events": 25},
        "wearable/watch": {"subjects": 30, "channels": ["HR"], "hours": 720},
    }
    assert found["together"] == {"ehr": 10, "ehr + wearable": 5, "ehr + wearable + genomics": 25}
    assert found["by_year"] == {
        "2020": {"subjects": 40, "events": 83},
        "2021": {"subjects": 40, "events": 40},
    }
    assert found["history"]["years_quartiles"] == [1.0, 1.0, 1.0]
    assert found["history"]["subjects_without_birth"] == 0
    assert found["vocabularies"]["LOINC"] == {
        "codes": 3,
        "events": 104,
        "subjects": 40,
        "described": 1.0,
        "with_parents": round(40 / 104, 4),
    }
    assert found["without_number"] == {
        "LOINC//2345-7": {
            "description": "Glucose",
            "subjects": 40,
            "events": 104,
            "share_without_number": round(40 / 104, 4),
        }
    }
    assert found["units_apart"] == {"LOINC//2345-7": {"mg/dL": 40, "mmol/L": 24}}
    worn = found["wearing"]["watch"]
    assert (worn["days"], worn["hours_per_day_quartiles"]) == (60, [12.0, 12.0, 12.0])
    assert worn["days_per_subject_quartiles"] == [2.0, 2.0, 2.0]
    assert worn["subjects_with_a_day_of_10_hours"] == 30
    assert worn["days_by_hours"]["12 to 16"] == 60
    assert found["scores"] == {
        "scores": 1,
        "panel": 2,
        "of_the_panel": 1,
        "not_here": ["PGS2"],
        "not_in_the_panel": 0,
        "subjects_with_all": 25,
    }
    assert found["labels"] == {"death": {"labels": 40, "positive": 20}}


def test_small_counts_and_those_that_tell_them_are_withheld(store):
    found = describe(store, 20)
    assert found["modalities"]["wearable/watch"]["subjects"] is None, "10 have none"
    assert set(found["together"].values()) == {None}, "10, 5 and 25: one shown tells the sum"
    assert "SNOMED" not in found["vocabularies"]
    assert found["history"]["years_quartiles"] is None
    assert found["scores"] == {"scores": 1, "subjects_with_all": None}


def test_withholding_by_itself():
    assert [counted(n, 5) for n in (0, 4, 5)] == [0, None, 5]
    assert [counted(n, 5, of=20) for n in (15, 16, 20)] == [15, None, 20]
    assert counted(100, 5, people=4) is None
    assert together([30, 4, 6], 5) == [None] * 3
    assert apart([30, 4, 6], 5) == [30, None, None]
    assert apart([30, 4, 3, 6], 5) == [30, None, None, 6]
    assert apart([30, 0, 6], 5) == [30, 0, 6]
    assert quartiles(np.arange(20.0), 5) == [4.8, 9.5, 14.2]
    assert quartiles(np.arange(19.0), 5) is None
    assert [percent(s) for s in (0.0, 0.0001, 0.5, 0.9999, 1.0)] == [
        "0 %",
        "under 0.1 %",
        "50.0 %",
        "over 99.9 %",
        "100 %",
    ]


def test_the_page_needs_no_other_file_and_names_nobody(store):
    text = page([describe(store, 5, ("PGS1", "PGS2"))])
    assert not re.search(r"(?:src|href)=|https?://|url\(|@import|<script", text)
    assert str(BASE_ID)[:4] not in text
    for shown in ("40 people", "720", "Glucose", "38.5 %", "not here: PGS2", "mmol/L: 24"):
        assert shown in text
    assert "None" not in text
    assert page([describe(store, 20)]).count("withheld") > 5


def test_the_command_gives_text_json_and_a_page(store, tmp_path, capsys):
    (tmp_path / "panel.txt").write_text("PGS1\nPGS2\n")
    command = ["describe", str(store.path), "--panel", str(tmp_path / "panel.txt")]
    assert main([*command, "--html", str(tmp_path / "page.html"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["scores"]["not_here"] == ["PGS2"]
    assert (tmp_path / "page.html").stat().st_mode & 0o777 == 0o600
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "in units that do not meet   LOINC//2345-7: mg/dL, mmol/L" in said
    assert main([*command, "--html", str(tmp_path / "page.html")]) == 8
    assert "HF-711" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "number"), [("", 102), ("PGS 1 €\n", 102), (None, 104)])
def test_a_panel_that_is_none_is_refused(store, tmp_path, capsys, text, number):
    file = Path(tmp_path / "panel.txt")
    if text is not None:
        file.write_text(text)
    assert main(["describe", str(store.path), "--panel", str(file)]) == ConfigError.exit_code
    assert f"HF-{number}" in capsys.readouterr().err
