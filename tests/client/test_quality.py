"""``check --quality``: what no living person has is found, counted and named as OHDSI names it."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from healthfm_client.__main__ import main
from healthfm_client.doctor import site_files
from healthfm_client.site_store.quality.checks import (
    QualityCheck,
    QualityOfStore,
    check_quality,
)
from healthfm_client.site_store.quality.limits import QualityLimits, packaged
from healthfm_client.site_store.quality.quality_file import check_and_keep, last_report
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import stores_below
from healthfm_core.data.store.store_writer import StoreWriter
from healthfm_core.errors import ConfigError

DAY = datetime(2016, 4, 12)
POTASSIUM = "LOINC//2823-3//mmol/L"
WEIGHT = "LOINC//29463-7//kg"
PEOPLE = 40
Row = tuple[int, datetime | None, str, float | None]


def sound() -> list[Row]:
    """Forty people, half of them women, one of them a child: nothing about them is implausible."""
    rows: list[Row] = []
    for person in range(1, PEOPLE + 1):
        born = datetime(2014 if person == 1 else 1950, 1, 1)
        rows += [
            (person, born, "MEDS_BIRTH", None),
            (person, None, "Gender//F" if person % 2 else "Gender//M", None),
            (person, DAY, POTASSIUM, 4.0 + person / 100),
            (person, DAY, WEIGHT, 12.0 if person == 1 else 70.0),
            (person, DAY, "ICD10CM//E11.9", None),
        ]
    return rows


def written(path: Path, rows: list[Row], *, overwrite: bool = False) -> Path:
    columns = zip(*rows, strict=True)
    names = ("subject_id", "time", "code", "numeric_value")
    kinds = (pa.int64(), pa.timestamp("us"), pa.string(), pa.float32())
    arrays = [pa.array(list(of), kind) for of, kind in zip(columns, kinds, strict=True)]
    table = pa.table(arrays, names=names)
    writer = StoreWriter(path, dataset_name="north", overwrite=overwrite)
    writer.add_events(table.append_column("text_value", pa.nulls(len(rows), pa.large_string())))
    writer.write()
    return path


def found(path: Path, name: str, field: str) -> QualityCheck:
    checks, _ = check_quality(path, QualityLimits.read())
    (one,) = [check for check in checks if (check.name, check.field) == (name, field)]
    return one


def test_of_people_with_nothing_implausible_nothing_fails(tmp_path: Path) -> None:
    checks, _ = check_quality(written(tmp_path / "s", sound()), QualityLimits.read())
    assert [check for check in checks if check.failed] == []
    assert {check.category for check in checks} == {"conformance", "completeness", "plausibility"}
    assert {c.name for c in checks} >= {"plausibleValueLow", "plausibleBeforeDeath"}


@pytest.mark.parametrize(
    ("more", "name", "field", "count", "rows"),
    [
        ([(2, DAY, POTASSIUM, 44.0)], "plausibleValueHigh", POTASSIUM, 1, 41),
        ([(2, DAY, POTASSIUM, 0.4)], "plausibleValueLow", POTASSIUM, 1, 41),
        ([(2, DAY, WEIGHT, 12.0)], "plausibleValueLow", WEIGHT, 1, 40),
        (
            [(2, DAY, "MEDS_DEATH", None), (2, DAY + timedelta(90), "SNOMED//1", None)],
            *("plausibleBeforeDeath", "SNOMED", 1, 1),
        ),
        (
            [(2, DAY, "MEDS_DEATH", None), (2, DAY + timedelta(30), "SNOMED//1", None)],
            *("plausibleBeforeDeath", "SNOMED", 0, 1),
        ),
        ([(2, datetime(1940, 1, 1), "SNOMED//1", None)], "plausibleAfterBirth", "SNOMED", 1, 1),
        ([(2, DAY, "ICD10CM//O80", None)], "plausibleGender", "ICD10CM//O", 1, 1),
        ([(1, DAY, "ICD10CM//O80", None)], "plausibleGender", "ICD10CM//O", 0, 1),
        ([(2, DAY, "LOINC//2823-3", 4.0)], "plausibleUnit", "LOINC", 1, 81),
        (
            [(2, DAY, "WARD//7", None)],
            *("standardConceptRecordCompleteness", "all", 1, 161),
        ),
        ([(2, DAY, "CVX//1", None)], "measurePersonCompleteness", "CVX", 39, 40),
        ([(2, DAY, "LOINC//1", None)], "measureValueCompleteness", "LOINC", 1, 81),
        ([(99, DAY, "SNOMED//1", None)], "birthCompleteness", "MEDS_BIRTH", 1, 41),
        ([(99, DAY, "SNOMED//1", None)], "sexCompleteness", "Gender", 1, 41),
    ],
)
def test_what_is_planted_is_found_and_counted(
    tmp_path: Path, more: list[Row], name: str, field: str, count: int, rows: int
) -> None:
    store = written(tmp_path / "s", [*sound(), *more])
    check = found(store, name, field)
    assert (check.found, check.rows) == (count, rows)
    assert check.failed == (count / rows > check.threshold)


def test_rows_that_were_set_aside_are_part_of_the_quality(tmp_path: Path) -> None:
    raw, far = tmp_path / "events.parquet", datetime(2300, 1, 1)
    rows = {
        "subject_id": [*range(90), *[1] * 10],
        "time": pa.array([DAY] * 90 + [far] * 10, pa.timestamp("us")),
        "code": [f"SNOMED//{n}" for n in range(100)],
        "numeric_value": pa.nulls(100, pa.float32()),
    }
    pq.write_table(pa.table(rows), raw)
    words = ["ingest", "event_table", str(raw), "--out", str(tmp_path / "s"), "--site-column", ""]
    assert main([*words, "--max-set-aside", "1"]) == 0
    check = found(tmp_path / "s", "isSound", "all")
    assert (check.found, check.rows, check.failed) == (10, 100, True)


def own_limits(file: Path, **changes: Any) -> Path:
    file.write_text(yaml.safe_dump({**yaml.safe_load(packaged()), **changes}))
    return file


def test_limits_are_changed_without_reading_the_source_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = written(tmp_path / "s", sound())
    narrow = [{"code": POTASSIUM, "low": 4.2, "high": 5.0, "name": "potassium"}]
    own = own_limits(tmp_path / "own.yaml", values=narrow)
    assert main(["check", str(store), "--quality", "--limits", str(own)]) == 0
    said = capsys.readouterr().out
    assert (
        "plausibleValueLow  LOINC//2823-3//mmol/L: potassium: below 4.2: 47.5% (19 of 40)" in said
    )
    assert main(["check", "--show-limits"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(packaged())


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"values": [{"code": "a", "low": 3, "high": 2}]}, "values.0.*low 3 is above high 2"),
        ({"thresholds": {"plausibleValueLow": 0.1}}, "is missing or unknown"),
        ({"treshold": 1}, "treshold"),
    ],
)
def test_limits_that_cannot_be_used_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], seen: str
) -> None:
    with pytest.raises(ConfigError, match=rf"HF-102.*own.yaml.*{seen}"):
        QualityLimits.read(own_limits(tmp_path / "own.yaml", **changes))
    with pytest.raises(ConfigError, match="HF-104"):
        QualityLimits.read(tmp_path / "nowhere.yaml")


def test_every_packaged_limit_is_of_a_code_that_a_unit_is_brought_to() -> None:
    from healthfm_client.ingest.codes.molar_units import canonical_lab

    for one in QualityLimits.read().values:
        vocabulary, code, *unit = one.code.split("//", 2)
        bare, told = canonical_lab(f"{vocabulary}//{code}", "".join(unit) or None)
        assert bare == f"{vocabulary}//{code}", one.code
        assert (told.name, told.factor, told.offset) == ("".join(unit), 1.0, 0.0), one.code


def test_what_has_drifted_since_the_last_ingest_is_told(tmp_path: Path) -> None:
    raw, store = tmp_path / "raw", tmp_path / "s"
    first = [row for row in sound() if row[2] != POTASSIUM]
    usual = [(p, DAY, POTASSIUM, 4.0 + 0.1 * (p % 5)) for p in range(1, PEOPLE + 1)]
    words = ["ingest", "meds", str(raw), "--out", str(store)]
    written(raw, [*first, *usual])
    assert main(words) == 0
    check_and_keep(store, QualityLimits.read())
    report = check_and_keep(store, QualityLimits.read())
    assert [check.name for check in report.checks if check.name.startswith("drift")] == []

    shifted = [(p, t, c, v * 1.5) for p, t, c, v in usual]
    without = [row for row in first if row[2] != "ICD10CM//E11.9"]
    written(raw, [*without, *shifted], overwrite=True)
    assert main([*words, "--overwrite"]) == 0
    for _ in range(2):  # a second look at the same store compares with the same earlier one
        report = check_and_keep(store, QualityLimits.read())
        drifted = {c.name: (c.field, c.description) for c in report.failed}
        assert drifted["driftOfMedians"] == (POTASSIUM, "median 4.2 before, 6.3 now")
        assert drifted["driftOfRows"][0] == "ICD10CM"
        codes = next(c for c in report.checks if c.name == "driftOfCodes")
        assert codes.description == "1 of 6 codes are there no more"


def test_the_last_check_is_kept_for_the_doctor(tmp_path: Path) -> None:
    store = written(tmp_path / "s", [*sound(), (2, DAY, "ICD10CM//O80", None)])
    assert list(site_files._quality(store)) == []
    check_and_keep(store, QualityLimits.read())
    (said,) = site_files._quality(store)
    assert (said.level, "plausibleGender" in said.seen) == ("warn", True)
    assert f"check {store} --quality" in said.do
    written(store, sound(), overwrite=True)
    assert list(site_files._quality(store)) == [], "nobody looked at this one"
    check_and_keep(store, QualityLimits.read())
    (said,) = site_files._quality(store)
    assert said.level == "pass"
    marker = store / "metadata" / "dataset.json"
    marker.write_text(marker.read_text() + " ")
    (said,) = site_files._quality(store)
    assert "written anew since" in said.seen


def test_json_and_page_have_every_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = written(tmp_path / "s", [*sound(), (2, DAY, "WARD//<script>", None)])
    page = tmp_path / "quality.html"
    words = ["check", str(store), "--quality", "--json", "--html", str(page)]
    assert main(words) == 0
    (said,) = json.loads(capsys.readouterr().out)
    report = last_report(store)
    assert report is not None
    assert said["checks"] == [check.as_row() for check in report.checks]
    text = page.read_text()
    assert page.stat().st_mode & 0o077 == 0
    assert all(check.name in text for check in report.checks)
    assert '<html lang="en">' in text
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", ""), "it needs nothing from elsewhere"


def test_a_store_of_wearables_alone_is_checked_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    days, folder = tmp_path / "days.csv", tmp_path / "stores"
    rows = "".join(f"{p},2016-04-{d:02d},{100 * d}\n" for p in range(1, 31) for d in range(1, 29))
    days.write_text("subject_id,day,steps\n" + rows)
    assert main(["ingest", "daily_table", str(days), "--out", str(folder / "watch")]) == 0
    written(folder / "clinic", [*sound(), (2, DAY, "ICD10CM//O80", None)])
    capsys.readouterr()
    assert main(["check", str(folder), "--quality", "--json"]) == 0
    clinic, watch = json.loads(capsys.readouterr().out)
    assert [check["name"] for check in clinic["checks"] if check["failed"]] == ["plausibleGender"]
    assert [check["name"] for check in watch["checks"] if check["failed"]] == []


def test_what_does_not_fit_in_memory_is_spilt_where_only_the_owner_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, elsewhere = written(tmp_path / "stores" / "s", sound()), tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with closing(QualityOfStore(SiteStore.open(store), QualityLimits.read())) as quality:
        ((folder,),) = quality._ask("SELECT current_setting('temp_directory')")
        assert Path(folder).parent == store.parent
        assert Path(folder).stat().st_mode & 0o077 == 0
        assert stores_below(store.parent) == [store]
    assert [child.name for child in store.parent.iterdir()] == ["s"]
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("quartiles", [{POTASSIUM: [1]}, {POTASSIUM: 4}, [], None])
def test_a_kept_check_that_cannot_be_read_counts_as_none(tmp_path: Path, quartiles: object) -> None:
    store = written(tmp_path / "s", sound())
    check_and_keep(store, QualityLimits.read())
    kept = store / "metadata" / "quality.json"
    said = json.loads(kept.read_text())
    said["facts"]["quartiles"] = quartiles
    kept.write_text(json.dumps(said))
    assert last_report(store) is None
    assert list(site_files._quality(store)) == []
    assert check_and_keep(store, QualityLimits.read()).before is None


def test_options_of_quality_need_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = written(tmp_path / "s", sound())
    assert main(["check", str(store), "--json"]) != 0
    assert "HF-103" in capsys.readouterr().err
    assert main(["check"]) != 0


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, page = written(tmp_path / "s", sound()), tmp_path / "quality.html"
    page.write_text("another's")
    assert main(["check", str(store), "--quality", "--html", str(page)]) != 0
    assert "HF-711" in capsys.readouterr().err
    assert page.read_text() == "another's"
    assert last_report(store) is None
