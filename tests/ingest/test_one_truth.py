"""One truth in three forms, in other units, times and words, is one and the same store."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from healthfm_client.__main__ import main as client
from healthfm_core.data.store.site_store import SiteStore
from tests.ingest.one_truth.fhir_form import write_fhir
from tests.ingest.one_truth.made_people import ZONE, Event, Person, made_people, true_events
from tests.ingest.one_truth.meds_form import write_meds
from tests.ingest.one_truth.omop_form import write_omop

Write = Callable[..., Path]
FORMS: dict[str, tuple[str, Write, dict[str, bool]]] = {
    "OMOP, Parquet in UTC": ("omop", write_omop, {}),
    "OMOP, CSV by the wall's clock": ("omop", write_omop, {"as_csv": True}),
    "FHIR, a bulk export": ("fhir", write_fhir, {}),
    "FHIR, bundles": ("fhir", write_fhir, {"as_bundles": True}),
    "MEDS, units behind the codes": ("meds", write_meds, {}),
    "MEDS, as ETLs from OMOP write it": ("meds", write_meds, {"as_of_omop": True}),
}


@pytest.fixture(scope="module")
def people() -> list[Person]:
    """Enough for each fact to occur."""
    return made_people(60, seed=5)


def events_of(store: Path) -> list[Event]:
    files = f"'{store}/data/*/*.parquet'"
    return duckdb.sql(f"select subject_id, time, code, numeric_value from {files}").fetchall()


def as_facts(events: list[Event]) -> Counter[tuple[object, ...]]:
    """Events to be counted, numbers to the six digits that a float32 keeps."""
    return Counter(
        (who, at, code, None if v is None else f"{v:.6g}") for who, at, code, v in events
    )


def mean_of_codes(events: list[Event]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for _, _, code, value in events:
        values.setdefault(code, []).append(math.nan if value is None else value)
    return {code: sum(of) / len(of) for code, of in values.items()}


def ingested(form: str, people: list[Person], folder: Path) -> Path:
    reader, write, how = FORMS[form]
    source = write(people, folder / "source", **how)
    out = folder / "store"
    client(["ingest", reader, str(source), "--out", str(out), "--time-zone", ZONE])
    return out


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_one_truth_is_read_as_that_truth(form, people, tmp_path):
    store = ingested(form, people, tmp_path)
    read, true = events_of(store), true_events(people)
    assert sorted({code for *_, code, _ in read}) == sorted({code for *_, code, _ in true})
    assert mean_of_codes(read) == pytest.approx(mean_of_codes(true), rel=1e-5, nan_ok=True)
    assert as_facts(read) == as_facts(true)
    assert SiteStore.open(store).rejected == {}
