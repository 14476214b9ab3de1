"""ACES task definitions to labels: a small cohort whose answers are plain, and Synthea's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from healthfm_client.__main__ import main
from healthfm_client.site_store.aces_labels import Definition
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_writer import StoreWriter
from healthfm_core.errors import ConfigError, IngestError

TASK = """
predicates:
  stay: {{code: {{any: [Visit//IP, Visit//OP, Visit//ER]}}}}
  death: {{code: MEDS_DEATH}}
  lab: {{code: LAB}}
trigger: stay
windows:
  input:
    start: null
    end: trigger + 24h
    start_inclusive: True
    end_inclusive: True
    index_timestamp: end
  target:
    start: input.end
    end: start + {days}d
    start_inclusive: False
    end_inclusive: True
    label: {label}
  followed:
    start: target.end
    end: {end}
    start_inclusive: False
    end_inclusive: True
    has: {{_ANY_EVENT: "(1, None)"}}
"""
DAY0 = datetime(2020, 1, 1)


def task(folder: Path, text: str = TASK, **changes: object) -> Path:
    file = folder / "death_30d.yaml"
    file.write_text(text.format(**({"days": 30, "label": "death", "end": "null"} | changes)))
    return file


def cohort(folder: Path, records: dict[int, dict[float, str]]) -> SiteStore:
    """A store of subject → day → code."""
    found = [(who, day, code, None) for who, days in records.items() for day, code in days.items()]
    return store_of(folder, found)


def store_of(folder: Path, found: Sequence[tuple[int, float, str, float | None]]) -> SiteStore:
    """A store of (subject, day, code, value or None)."""
    writer = StoreWriter(folder, dataset_name="a")
    writer.add_events(
        pa.table(
            {
                "subject_id": pa.array([row[0] for row in found], pa.int64()),
                "time": pa.array(
                    [DAY0 + timedelta(days=row[1]) for row in found], pa.timestamp("us")
                ),
                "code": pa.array([row[2] for row in found]),
                "numeric_value": pa.array([row[3] for row in found], pa.float32()),
            }
        )
    )
    writer.write()
    return SiteStore.open(folder)


PEOPLE = {
    1: {0: "Visit//IP", 9: "MEDS_DEATH"},
    2: {0: "Visit//IP", 150: "LAB"},
    3: {0: "Visit//IP", 5: "LAB"},
    4: {0: "Visit//IP", 366: "MEDS_DEATH"},
    5: {0: "MEDS_DEATH", 0.5: "Visit//IP", 200: "LAB"},
    6: {0: "Visit//IP", 0.1: "Visit//OP", 8: "LAB", 9: "MEDS_DEATH"},
}


def answers(labels: pa.Table) -> list[tuple[int, float, bool]]:
    rows = labels.to_pylist()
    day = timedelta(days=1)
    return [
        (row["subject_id"], (row["prediction_time"] - DAY0) / day, row["boolean_value"])
        for row in rows
    ]


@pytest.mark.parametrize("end", ["null", "start + 400d", "start -> _ANY_EVENT"])
def test_who_dies_inside_the_window_is_known_though_nothing_comes_after_it(tmp_path, end):
    found = Definition(task(tmp_path, end=end)).labels(cohort(tmp_path / "store", PEOPLE))
    assert answers(found.labels) == [
        (1, 1.0, True),
        (2, 1.0, False),
        (4, 1.0, False),
        (6, 1.0, True),
        (6, 1.1, True),
    ]
    assert (found.waived, found.after_death, found.unfollowed) == (3, 1, 0)


def test_of_another_outcome_the_dead_are_known_too(tmp_path):
    found = Definition(task(tmp_path, label="lab")).labels(cohort(tmp_path / "store", PEOPLE))
    assert [row for row in answers(found.labels) if row[0] in (1, 6)] == [
        (1, 1.0, False),
        (6, 1.0, True),
        (6, 1.1, True),
    ]


def test_a_label_is_defined_by_several_codes_or_by_a_value_beyond_a_limit(tmp_path):
    text = TASK.replace(
        "  lab: {{code: LAB}}\n",
        "  lab: {{code: {{any: [LAB//K, LAB//K2]}}, value_min: 5.5, value_min_inclusive: false}}\n"
        "  dx: {{code: {{any: [DX//E875, DX//E876]}}}}\n"
        "  high: {{expr: 'or(lab, dx)'}}\n",
    )
    events = [
        *((who, 0, "Visit//IP", None) for who in range(1, 6)),
        *((who, 200, "END", None) for who in range(1, 6)),
        (1, 5, "LAB//K", 5.5),
        (2, 5, "LAB//K2", 5.6),
        (3, 5, "DX//E876", None),
        (4, 5, "DX//A", 9.0),
        (5, 50, "LAB//K", 9.0),
    ]
    found = Definition(task(tmp_path, text, label="high")).labels(store_of(tmp_path / "s", events))
    assert {row[0]: row[2] for row in answers(found.labels)} == {
        1: False,
        2: True,
        3: True,
        4: False,
        5: False,
    }


def test_a_death_after_the_window_is_no_reason_to_waive_a_wish_for_what_comes_at_once(tmp_path):
    text = TASK.replace("has: {{_ANY", "has: {{lab: '(1, None)'}}\n#")
    store = cohort(tmp_path / "store", PEOPLE)
    found = Definition(task(tmp_path, text, end="start + 400d")).labels(store)
    assert [row[0] for row in answers(found.labels)] == [1, 2, 6, 6]


def test_without_a_window_after_it_those_who_were_lost_are_counted(tmp_path):
    text = TASK[: TASK.index("  followed:")]
    found = Definition(task(tmp_path, text)).labels(cohort(tmp_path / "store", PEOPLE))
    assert [row for row in answers(found.labels) if row[0] == 3] == [(3, 1.0, False)]
    assert (found.waived, found.after_death, found.unfollowed) == (0, 1, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.replace("trigger: stay", "trigger: visit"), "visit"),
        (lambda t: t.replace("    label: {label}\n", ""), "label"),
        (lambda t: t.replace("    index_timestamp: end\n", ""), "index_timestamp"),
        (lambda t: t.replace("trigger: stay", "trigger: [stay"), "it is no YAML"),
        (lambda t: t.replace("Visit//", "Besuch//"), '"stay" fits no event'),
        (lambda t: t.replace("code: LAB", "code: LAB, ward: A"), "ACES stops"),
        (lambda t: t.replace("end: trigger + 24h", "end: trigger + a day"), "day"),
        (lambda t: "- 1", "pop expected"),
    ],
)
def test_a_definition_that_cannot_be_used_is_one_code(tmp_path, change, said):
    store = cohort(tmp_path / "store", PEOPLE)
    with pytest.raises(ConfigError, match="HF-106") as caught:
        Definition(task(tmp_path, change(TASK), label="lab")).labels(store)
    assert said in caught.value.seen


def test_the_command_puts_labels_beside_the_events_once(tmp_path, capsys):
    store = cohort(tmp_path / "store", PEOPLE).path
    file = task(tmp_path)
    command = ["labels", str(store), str(file)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "a, death_30d: labels withheld, positive withheld\n" in said
    assert "fewer than 20 are of people who died before anything could come" in said
    opened = SiteStore.open(store)
    opened.check()
    assert answers(opened.labels("death_30d"))[0] == (1, 1.0, True)
    assert main(command) == IngestError.exit_code
    assert "HF-304" in capsys.readouterr().err
    before = (store / "labels" / "death_30d.parquet").read_bytes()
    assert main([*command, "--overwrite"]) == 0
    assert (store / "labels" / "death_30d.parquet").read_bytes() == before
    assert [f.name for f in (store / "labels").iterdir()] == ["death_30d.parquet"]
    assert main([*command, "--name", "next_visit"]) == ConfigError.exit_code


@pytest.mark.realdata
def test_five_year_death_after_a_visit_of_syntheas_people(ingested):
    (store,) = ingested("omop", "formats/omop_synthea27nj/Synthea27NjParquet_5.4.zip")
    events = f"'{store.path}/data/*/*.parquet'"
    wanted = duckdb.sql(f"""
        with visit as (select distinct subject_id, time + interval 1 day as asked from {events}
                       where code in ('Visit//IP', 'Visit//OP', 'Visit//ER')),
        person as (select subject_id, max(time) as last,
                   min(time) filter (code = 'MEDS_DEATH') as died from {events} group by 1)
        select subject_id, asked, coalesce(died <= asked + interval 1825 day, false)
        from visit join person using (subject_id)
        where coalesce(died > asked, true)
          and (last > asked + interval 1825 day or died <= asked + interval 1825 day)
        order by all""").fetchall()
    folder = store.path.parent
    found = Definition(task(folder, days=1825)).labels(store)
    got = [tuple(row.values())[:3] for row in found.labels.to_pylist()]
    assert got == wanted
    yes = sum(label for _, _, label in wanted)
    assert (len(wanted), yes) == (1458, 265)
    assert found.waived == 265, "every death would be lost, else"
