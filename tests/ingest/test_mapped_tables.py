"""Any tables by a mapping file in the form of MEDS_extract."""

from __future__ import annotations

import gzip
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.ingest import ingest
from healthfm_client.ingest.readers.mapped_tables import MappedTablesOptions
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError

MAPPING = """
subject_id_col: patient
patients:
  subject_id_col: mrn
  sex:
    code: [GENDER, col(sex)]
    time: null
  birth:
    code: MEDS_BIRTH
    time: col(born)
    time_format: "%d.%m.%Y"
stays/labs:
  lab:
    code: [LAB, col(test), col(fluid)]
    time: col(taken)
    time_format: ["%d.%m.%Y %H:%M", "%d.%m.%Y"]
    numeric_value: result
    unit: unit
    ordered_by: doctor
"""
PATIENTS = "mrn,sex,born\n7,F,02.03.1950\n8,m,\n9,,01.01.1960\n"
LABS = (
    "patient,test,fluid,taken,result,unit,doctor\n"
    "7,Glucose,blood,01.07.2020 08:30,5.5,mmol/L,x\n"
    "7,Glucose,,01.07.2020,<2,mmol/L,\n"
    "8,Note,blood,02.07.2020 09:00,see below,,y\n"
    "8,,blood,02.07.2020 09:00,1,,\n"
    "8,Glucose,blood,,1,mg/dL,\n"
    ",Glucose,blood,02.07.2020 09:00,1,mg/dL,\n"
    "8,Glucose,blood,yesterday,1,mg/dL,\n"
)


def folder(tmp_path: Path, mapping: str = MAPPING, **files: str | pa.Table) -> Path:
    raw = tmp_path / "raw"
    files = files or {"patients.csv": PATIENTS, "stays/labs.csv": LABS}
    for name, content in {"events.yaml": mapping, **files}.items():
        file = raw / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pa.Table):
            pq.write_table(content, file)
        elif name.endswith(".gz"):
            file.write_bytes(gzip.compress(content.encode()))
        else:
            file.write_text(content)
    return raw


def store_of(tmp_path: Path, raw: Path, source: str = "tables", **options) -> SiteStore:
    options = {"max_set_aside": 1, **options}
    (out,) = ingest(source, raw, tmp_path / "out", overwrite=True, **options)
    store = SiteStore.open(out)
    store.check()
    return store


def rows(store: SiteStore) -> list[tuple]:
    return [
        (e["subject_id"], e["time"], e["code"], e["numeric_value"], e.get("text_value"))
        for e in store.events().to_pylist()
    ]


def test_rows_of_tables_become_the_events_that_the_file_says(tmp_path):
    store = store_of(tmp_path, folder(tmp_path), source="auto")
    assert rows(store) == [
        (7, None, "Gender//F", None, None),
        (7, datetime(1950, 3, 2), "MEDS_BIRTH", None, None),
        (7, datetime(2020, 7, 1), "LAB//Glucose//UNK//<mmol/L", 2.0, None),
        (7, datetime(2020, 7, 1, 8, 30), "LAB//Glucose//blood//mmol/L", 5.5, None),
        (8, None, "Gender//M", None, None),
        (8, datetime(2020, 7, 2, 9), "LAB//Note//blood", None, None),
        (8, datetime(2020, 7, 2, 9), "LAB//UNK//blood", 1.0, None),
        (9, None, "Gender//unknown", None, None),
        (9, datetime(1960, 1, 1), "MEDS_BIRTH", None, None),
    ]


def test_what_gives_no_event_is_counted_or_set_aside(tmp_path):
    raw = folder(
        tmp_path,
        **{"patients.csv": PATIENTS, "stays/labs.csv": LABS, "wards.csv": "ward\na\nb\n"},
    )
    store = store_of(tmp_path, raw)
    assert store.not_read == {
        "patients/birth: no time": 1,
        "stays/labs/lab: no time": 1,
        "stays/labs/lab: ordered_by": 2,
        "stays/labs/lab: value that is no number": 1,
        "wards": 2,
    }
    assert store.rejected == {"no_date": 1, "unknown_person": 1}


def test_a_form_of_times_that_is_not_the_tables_ends_in_an_error(tmp_path):
    labs = LABS + "".join(f"7,Glucose,,1.{n}.2020,1,,\n" for n in range(1, 13)) * 2
    raw = folder(tmp_path, MAPPING.replace("%d.%m.%Y", "%m/%Y"), **{"stays/labs.csv": labs})
    with pytest.raises(IngestError, match=r"HF-315"):
        store_of(tmp_path, raw, max_set_aside=0.05)


def test_units_meet_under_a_shared_code_and_stay_apart_under_a_sites_own(tmp_path):
    mapping = """
labs:
  shared: {code: [LOINC, $loinc], time: $at, numeric_value: $n, unit: $u}
  own: {code: [LAB, $name], time: $at, numeric_value: n, unit: u}
"""
    text = "subject_id,loinc,name,at,n,u\n1,2345-7,glu,2020-01-01,5,mmol/L\n"
    text += "1,2345-7,glu,2020-01-02,90,MG/DL\n"
    found = rows(store_of(tmp_path, folder(tmp_path, mapping, **{"labs.csv": text})))
    assert [(code, round(value, 2)) for _, _, code, value, _ in found] == [
        ("LOINC//2345-7//mg/dL", 90.08),
        ("LAB//glu//mmol/L", 5.0),
        ("LOINC//2345-7//mg/dL", 90.0),
        ("LAB//glu//mg/dL", 90.0),
    ]


LATER = """
_defaults: {subject_id: hash($who)}
people:
  _table:
    cols: {born_in: $year - $age}
    join:
      visits: {key: who, cols: {died: max}}
  birth: {code: MEDS_BIRTH, time: $born_in::year}
  death: {code: MEDS_DEATH, time: 'coalesce($died::?"%Y-%m-%d %H:%M", $gone as "%d/%m/%Y")'}
readings:
  _table:
    join:
      visits: {left_on: [visit], right_on: [id], cols: [who, start]}
  reading:
    code: f"R//{$kind ?? 'UNK'}//{$place}"
    time: $start + $minute::minutes
    numeric_value: $value
    text_value: $value
  later:
    code: '"LATER"'
    time: $start - ($minute + 1)::hours
"""


def test_the_later_form_of_the_file_says_the_same(tmp_path):
    visits = "id,who,start,died\nv1,a,2020-01-01 08:00,\nv2,b,2020-02-01 08:00,2020-02-03 10:00\n"
    visits += "v3,b,2020-01-01 08:00,2020-01-03 10:00\n"
    files = {
        "people.csv": "who,year,age,gone\na,2000,50,03/05/2021\nb,2001,40,\n",
        "visits.csv": visits,
        "readings.tsv": "visit\tkind\tminute\tvalue\tplace\nv1\thr\t90\t60\tarm\n"
        "v2\t\t-30\tlow\tleg\nv2\thr\t1\t1\t\n",
    }
    store = store_of(tmp_path, folder(tmp_path, LATER, **files))
    one, two = sorted(
        {e[0] for e in rows(store)}, key=lambda who: min(e[1] for e in rows(store) if e[0] == who)
    )
    births = {who: time for who, time, code, *_ in rows(store) if code == "MEDS_BIRTH"}
    assert births == {one: datetime(1950, 1, 1), two: datetime(1961, 1, 1)}
    assert {e[1:] for e in rows(store) if e[2] not in ("MEDS_BIRTH", "LATER")} == {
        (datetime(2020, 1, 1, 9, 30), "R//hr//arm", 60.0, None),
        (datetime(2020, 2, 1, 7, 30), "R//UNK//leg", None, "low"),
        (datetime(2020, 2, 3, 10), "MEDS_DEATH", None, None),
        (datetime(2021, 5, 3), "MEDS_DEATH", None, None),
    }
    assert {e[1] for e in rows(store) if e[2] == "LATER"} == {
        datetime(2019, 12, 28, 13),
        datetime(2020, 2, 1, 6),
        datetime(2020, 2, 2, 13),
    }
    assert store.not_read["readings/reading: no code"] == 1


def test_a_table_is_joined_by_two_keys_of_which_one_is_a_constant(tmp_path):
    mapping = """
given:
  _table:
    cols: {kind: "'MAIN'"}
    join: {orders: {left_on: [order, kind], right_on: [order, kind], cols: [drug]}}
  drug: {code: 'f"D//{$drug}"', time: null}
"""
    orders = "order,kind,drug\n1,MAIN,a\n1,BASE,water\n2,BASE,water\n"
    files = {"given.csv": "subject_id,order\n5,1\n6,2\n", "orders.csv": orders}
    store = store_of(tmp_path, folder(tmp_path, mapping, **files))
    assert rows(store) == [(5, None, "D//a", None, None)]
    assert store.not_read == {"given/drug: no code": 1}


def test_a_condition_says_which_cells_of_a_wide_table_are_events(tmp_path):
    mapping = """
vitals:
  _table:
    cols:
      age: 90 if $old == "> 89" else regex_extract("^[0-9]+$", $old)::float64
  hr: {code: HR if $hr == $hr, time: $at, numeric_value: $hr}
  celsius: {code: TEMP if $f != 'x' and $f == $f, time: $at, numeric_value: ($f - 32) * 5 / 9}
  age: {code: AGE, time: null, numeric_value: $age}
  gone: {code: GONE, time: $at if $left == 'yes' or $left == 'Yes'}
  before: {code: BEFORE, time: $at - (-$hr)::minutes}
"""
    text = "subject_id,at,hr,f,old,left\n1,2020-01-01,60,,> 89,no\n2,2020-01-02,,212,45,Yes\n"
    text += "3,never,9,x,old,yes\n"
    store = store_of(tmp_path, folder(tmp_path, mapping, **{"vitals.csv": text}))
    assert {event[:4] for event in rows(store)} == {
        (1, None, "AGE", 90.0),
        (1, datetime(2020, 1, 1), "HR", 60.0),
        (1, datetime(2020, 1, 1, 1), "BEFORE", None),
        (2, None, "AGE", 45.0),
        (2, datetime(2020, 1, 2), "TEMP", 100.0),
        (2, datetime(2020, 1, 2), "GONE", None),
        (3, None, "AGE", None),
    }
    assert store.rejected == {"no_date": 3}
    assert store.not_read == {
        "vitals/hr: no code": 1,
        "vitals/celsius: no code": 2,
        "vitals/gone: no time": 1,
        "vitals/before: no time": 1,
        "vitals/age: value that is no number": 1,
    }


def test_a_key_that_says_several_things_is_refused_and_the_same_thing_twice_is_not(tmp_path):
    mapping = """
vitals:
  join: {input_prefix: stays, left_on: stay, right_on: stay, columns_from_right: [subject_id]}
  hr: {code: HR, time: col(at), numeric_value: hr}
"""
    vitals = "stay,at,hr\n1,2020-01-01,60\n2,2020-01-01,70\n3,2020-01-01,80\n"
    stays = "stay,subject_id\n1,5\n1,5\n2,6\n"
    raw = folder(tmp_path, mapping, **{"vitals.csv": vitals, "stays.csv": stays})
    store = store_of(tmp_path, raw)
    assert [e[0] for e in rows(store)] == [5, 6]
    assert (store.rejected, store.not_read) == ({"unknown_person": 1}, {})
    (raw / "stays.csv").write_text(stays + "2,7\n")
    with pytest.raises(IngestError, match=r"HF-338\]: stays: keys \(stay\)"):
        store_of(tmp_path, raw)


def test_csv_compressed_csv_and_a_folder_of_parquet_are_the_same_table(tmp_path):
    mapping = "big/labs:\n  lab: {code: [LAB, col(item)], time: col(at), numeric_value: n}\n"
    at = pa.array([datetime(2020, 1, 1), datetime(2020, 1, 2, 3, 4)], pa.timestamp("us"))
    table = pa.table({"subject_id": [1.0, 2.0], "Item": [220045.0, 5.0], "AT": at, "n": [1, 2]})
    text = "subject_id,item,at,n\n1,220045,2020-01-01,1\n2,5,2020-01-02 03:04:00,2\n"
    forms = (
        {"big/labs.csv": text},
        {"big/LABS.csv.gz": text},
        {"big/labs/0.parquet": table.slice(0, 1), "big/labs/1.parquet": table.slice(1)},
    )
    found = []
    for n, files in enumerate(forms):
        place = tmp_path / str(n)
        place.mkdir()
        found.append(rows(store_of(place, folder(place, mapping, **files))))
    assert found[0] == found[1] == found[2]
    assert [e[2] for e in found[0]] == ["LAB//220045", "LAB//5"]


def test_an_id_is_one_person_in_every_table_and_two_never_become_one(tmp_path):
    mapping = "a:\n  e: {code: A, time: null}\nb:\n  e: {code: B, time: null}\n"
    first, second = "subject_id\n7\nx1\n", "subject_id\nx1\n7\n8\n"
    store = store_of(tmp_path, folder(tmp_path, mapping, **{"a.csv": first, "b.csv": second}))
    by_code = {code: {e[0] for e in rows(store) if e[2] == code} for code in "AB"}
    assert by_code["A"] < by_code["B"]
    assert {7, 8} < by_code["B"]
    assert len(by_code["B"]) == 3
    raw = folder(tmp_path, mapping, **{"a.csv": first, "b.csv": "subject_id\n07\n"})
    with pytest.raises(IngestError, match="HF-305"):
        store_of(tmp_path, raw)
    keyed = store_of(
        tmp_path,
        folder(tmp_path, mapping, **{"a.csv": first, "b.csv": second}),
        key=tmp_path / "key",
    )
    assert not {e[0] for e in rows(keyed)} & by_code["B"]
    assert len(keyed.subjects()) == 3


@pytest.mark.parametrize("zone", [None, "Europe/Vienna"])
def test_a_time_with_an_offset_is_the_sites_clock(tmp_path, zone):
    mapping = """
a:
  written: {code: W, time: $w, time_format: "%d.%m.%Y %H:%M %z"}
  iso: {code: I, time: $i}
"""
    text = "subject_id,w,i\n1,01.07.2020 21:30 +00:00,2020-07-01T21:30:00Z\n"
    raw = folder(tmp_path, mapping, **{"a.csv": text})
    hour = 21 if zone is None else 23
    store = store_of(tmp_path, raw, **({} if zone is None else {"time_zone": zone}))
    assert {e[1] for e in rows(store)} == {datetime(2020, 7, 1, hour, 30)}


def test_a_form_says_nothing_of_a_column_that_holds_times(tmp_path):
    mapping = 'a:\n  e: {code: A, time: col(at), time_format: "%d/%m/%Y"}\n'
    at = pa.array([datetime(2020, 1, 2, 3, 4, 5)], pa.timestamp("us"))
    table = pa.table({"subject_id": [1], "at": at})
    store = store_of(tmp_path, folder(tmp_path, mapping, **{"a.parquet": table}))
    assert [event[1] for event in rows(store)] == [datetime(2020, 1, 2, 3, 4, 5)]


WRONG = {
    "[": ("335", "line 1"),
    "[]": ("335", "no list of tables"),
    "_defaults: {subject_id: $a}": ("335", "names no table"),
    "a: 5": ("336", "no events"),
    "a: {}": ("336", "no events"),
    "a: {e: {code: A}}": ("336", "no time"),
    "a: {e: {time: null}}": ("336", "no code"),
    "a:\n  e: {code: A, time: null}\n  e: {code: B, time: null}": ("335", "stands twice"),
    "a: {e: {code: A, time: 2020}}": ("307", '"2020"') ,
    "a: {join: {input_prefix: b}, e: {code: A, time: null}}": ("336", "column"),
    "a: {_table: {filter: x}, e: {code: A, time: null}}": ("336", "'filter' is not known"),
    "a: {e: {code: col(), time: null}}": ("337", "a/e, code"),
    "a: {e: {code: [], time: null}}": ("337", "a/e, code"),
    "a: {e: {code: 'regex_extract(\"(\", $x)', time: null}}": ("337", "no regular expression"),
    f"a: {{e: {{code: '$x + {'-' * 900}1', time: null}}}}": ("337", "is not understood"),
    f"a: {{e: {{code: '{'(' * 900}$x', time: null}}}}": ("337", "is not understood"),
    "a: {e: {code: '$x if $y', time: null}}": ("337", "is not understood"),
    "a: {e: {code: '$x[0:3]', time: null}}": ("337", "is not understood"),
    "a: {e: {code: 'exec($x)', time: null}}": ("337", "is not understood"),
    "a: {e: {code: A, time: $t, time_format: none}}": ("337", "no form of a time"),
    "a: {e: {code: A, time: '$t::?int9'}}": ("337", "is not understood"),
    "a: {e: {code: A, time: col(nowhere)}}": ("307", "nowhere"),
    "a: {e: {code: col(subject_id), time: null, numeric_value: nowhere}}": ("307", "nowhere"),
    "b: {e: {code: A, time: null}}": ("306", "no table of the mapping file"),
    "../raw/a: {e: {code: A, time: null}}": ("306", "no table of the mapping file"),
    "a: {join: {input_prefix: c, left_on: x, right_on: x, columns_from_right: [y]},"
    " e: {code: A, time: null}}": ("306", "no such table"),
}  # fmt: skip


@pytest.mark.parametrize("mapping", WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_with_a_mapping_file_is_said_with_its_place(tmp_path, mapping):
    number, said = WRONG[mapping]
    raw = folder(tmp_path, mapping, **{"a.csv": "subject_id,x,y\n1,1,1\n"})
    with pytest.raises(IngestError, match=f"HF-{number}") as refused:
        store_of(tmp_path, raw)
    assert said in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_mapping_file_says_what_to_name(tmp_path):
    (tmp_path / "a.csv").write_text("subject_id\n1\n")
    with pytest.raises(IngestError, match=r"HF-335.*--events FILE"):
        ingest("tables", tmp_path, tmp_path / "out")


def test_tables_of_the_file_that_are_not_there_are_told(tmp_path):
    told: list[str] = []
    raw = folder(tmp_path, **{"patients.csv": PATIENTS})
    store_of(tmp_path, raw, notify=told.append)
    assert told == ["These tables of the mapping file are not there: stays/labs."]


def test_an_interrupted_ingest_does_not_go_on_under_another_mapping_file(tmp_path):
    file = tmp_path / "map.yaml"
    file.write_text(MAPPING)
    options = MappedTablesOptions(events=file)
    assert file in options.files_beside()
