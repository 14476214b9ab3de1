"""Stores of one site that share people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from healthfm_core.data.store.joined_stores import JoinedStores, join_stores, people_shared
from healthfm_core.errors import StoreError
from tests.tokens.small_store import Row, Worn, write

YEAR_H = 365.25 * 24
BORN = "MEDS_BIRTH"
CLINIC: list[Row] = [
    (1, -40 * YEAR_H, BORN, None),
    (1, 1.0, "DX//A", None),
    (2, -50 * YEAR_H, BORN, None),
    (2, 5.0, "DX//B", None),
    (3, 2.0, "DX//A", None),
]
WATCH: list[Row] = [
    (1, -40.5 * YEAR_H, BORN, None),
    (1, 1.0, "DX//A", None),
    (4, 9.0, "DX//C", None),
]
WORN: list[Worn] = [(1, 10.0, "HR", 1 / 60, [60.0, 61.0]), (4, 10.0, "HR", 1 / 60, [70.0])]


def together(tmp_path: Path, rows: list[Row] = WATCH, **second: object) -> JoinedStores:
    clinic = write(tmp_path / "clinic", CLINIC, labels={"death": [(1, 3.0, True), (2, 6.0, False)]})
    watch = write(tmp_path / "watch", rows, **{"worn": WORN, **second})
    (view,) = join_stores([clinic, watch])
    assert isinstance(view, JoinedStores)
    return view


def test_a_person_in_two_stores_is_one_with_the_records_of_both(tmp_path):
    view = together(tmp_path)
    assert view.subjects().tolist() == [1, 2, 3, 4]
    assert view.subjects("train").tolist() == [1, 2, 3, 4]
    assert view.modalities == {"ehr", "wearable"}
    rows = view.events().to_pydict()
    assert list(zip(rows["subject_id"], rows["code"], strict=True)) == [
        (1, BORN),
        (1, "DX//A"),
        (2, BORN),
        (2, "DX//B"),
        (3, "DX//A"),
        (4, "DX//C"),
    ]
    assert view.wearable()["subject_id"].to_pylist() == [1, 4]
    assert view.labels("death")["boolean_value"].to_pylist() == [True, False]
    assert view.narrowed(modalities=["wearable"]).modalities == {"wearable"}


def test_of_two_births_that_may_be_one_the_first_stores_remains(tmp_path):
    born = together(tmp_path).events()["time"].cast("int64").to_pylist()[0]
    assert born == round(-40 * YEAR_H * 3.6e9)


def test_stores_that_share_nobody_stay_as_they_are(tmp_path):
    stores = [write(tmp_path / str(s), [(s, 1.0, "DX//A", None)]) for s in (1, 2)]
    assert join_stores(stores) == stores
    assert people_shared(stores) == 0


def test_stores_meet_by_way_of_a_third(tmp_path):
    ids = [(1, 2), (3, 4), (2, 3), (5,)]
    stores = [
        write(tmp_path / str(at), [(s, 1.0, "DX//A", None) for s in people])
        for at, people in enumerate(ids)
    ]
    joined, alone = join_stores(stores)
    assert joined.subjects().tolist() == [1, 2, 3, 4]
    assert alone is stores[3]
    assert people_shared(stores) == 2


def test_the_same_store_twice_is_that_store(tmp_path):
    clinic = write(tmp_path / "s", CLINIC, worn=WORN, labels={"death": [(1, 3.0, True)]})
    (view,) = join_stores([clinic, clinic])
    assert view.events().equals(clinic.events())
    assert view.wearable().equals(clinic.wearable())
    assert view.labels("death").equals(clinic.labels("death"))
    assert np.array_equal(view.subjects(), clinic.subjects())


@pytest.mark.parametrize(
    ("rows", "second", "what"),
    [
        (WATCH, {"splits": {1: "held_out"}}, "people of different splits"),
        ([(1, -42 * YEAR_H, BORN, None)], {}, "births that lie more than a year apart"),
        (WATCH, {"labels": {"death": [(1, 3.0, False)]}}, "different labels of the task death"),
    ],
)
def test_stores_that_contradict_each_other_about_a_person_are_refused(tmp_path, rows, second, what):
    with pytest.raises(StoreError, match=f"HF-212.*clinic and watch.*{what}"):
        together(tmp_path, rows, **second)


def test_deaths_that_lie_years_apart_are_two_peoples(tmp_path):
    stores = [
        write(tmp_path / str(years), [(1, years * YEAR_H, "MEDS_DEATH", None)]) for years in (1, 9)
    ]
    with pytest.raises(StoreError, match="deaths"):
        join_stores(stores)


def test_stores_agree_on_a_birth_that_neither_may_show(tmp_path):
    stores = [
        write(tmp_path / str(years), [(1, -years * YEAR_H, BORN, None)], worn=WORN[:1])
        for years in (40, 60)
    ]
    with pytest.raises(StoreError, match="births"):
        join_stores([store.narrowed(modalities=["wearable"]) for store in stores])


def test_the_refusal_says_nothing_about_a_person(tmp_path):
    rows: list[Row] = [(734_000_003, 1.0, "DX//A", None)]
    stores = [
        write(tmp_path / "a", rows),
        write(tmp_path / "b", rows, splits={734_000_003: "tuning"}),
    ]
    with pytest.raises(StoreError) as refused:
        join_stores(stores)
    assert "734000003" not in str(refused.value)
    assert "1 " not in str(refused.value).partition(":")[2]


def test_the_first_stores_parents_of_a_code_count(tmp_path):
    stores = [
        write(tmp_path / "a", CLINIC, parents={"DX//A": "DX"}),
        write(tmp_path / "b", CLINIC, parents={"DX//A": "OTHER", "DX//B": "DX"}),
    ]
    (view,) = join_stores(stores)
    assert view.parents() == {"DX//A": ["DX"], "DX//B": ["DX"]}
