"""Plain observations as columns: the same as each line read by itself, whatever the lines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthfm_client.ingest.fhir_r4.fhir_columns import line_ends, plain_observations
from healthfm_client.ingest.readers import fhir
from healthfm_core.data.store.event_stream import CodeTexts, NotRead, RejectedRows

LOINC = "http://loinc.org"
TIMES = (
    *("2020-01-02T08:00:00+02:00", "2020-01-02T08:00:00Z", "2020-01-02T08:00:00", "2020-01"),
    *("2020-01-02T08:00:00.123-05:00", "2020-02-30T08:00:00Z", "2020-01-02T24:00:00Z", "2020"),
    *("0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2020-01-02T08:00:00+99:00", "", "later"),
    *("2020-01-02T23:59:60Z", "20200102T080000Z", "2020-01-02t08:00:00z"),
)
concepts = st.one_of(
    st.builds(
        lambda system, code, more: {"coding": [{"system": system, "code": code} | more]},
        st.sampled_from([LOINC, "http://snomed.info/sct", "urn:oid:1.2", ""]),
        st.sampled_from(["2345-7", "14749-6", "85354-9", "a/b", " ", "ü\n"]),
        st.sampled_from([{}, {"display": "Sugar"}, {"display": "Glucose\tin blood"}]),
    ),
    st.sampled_from([{"text": "Wound  care"}, {"coding": []}, {}, {"coding": "odd"}]),
)
quantities = st.fixed_dictionaries(
    {},
    optional={
        "value": st.one_of(
            st.floats(allow_nan=False, allow_infinity=False),
            st.integers(-(10**30), 10**30),
            st.sampled_from(["90", None]),
        ),
        "unit": st.sampled_from(["mg/dL", "mmol/L", "Cel", "odd unit", ""]),
        "code": st.sampled_from(["mg/dL", "mmol/L", "[degF]", None]),
    },
)
observations = st.fixed_dictionaries(
    {"resourceType": st.sampled_from(["Observation"] * 9 + ["Condition", "CarePlan"])},
    optional={
        "code": concepts,
        "subject": st.sampled_from(
            [{"reference": f"Patient/{n}"} for n in range(4)] + [{}, {"reference": ""}]
        ),
        "effectiveDateTime": st.sampled_from(TIMES),
        "issued": st.sampled_from(TIMES[:4]),
        "status": st.sampled_from(["final", "amended", "entered-in-error", "cancelled"]),
        "valueQuantity": st.one_of(quantities, st.just("odd")),
        "valueCodeableConcept": concepts,
        "valueInteger": st.integers(-5, 5),
        "valueBoolean": st.booleans(),
        "component": st.lists(st.fixed_dictionaries({"code": concepts}), max_size=2),
        "category": st.just([{"text": '{"resourceType": "Observation"}\\'}]),
    },
)
USUAL = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"coding": [{"system": LOINC, "code": "2345-7"}]},
    "subject": {"reference": "Patient/7"},
    "effectiveDateTime": "2020-01-02T08:00:00Z",
}
lines = st.one_of(
    observations.map(json.dumps),
    observations.map(lambda one: json.dumps(USUAL | one)),
    st.sampled_from(["", "  ", "{odd", "5", '["Observation"]', "{}", "null", "\ufeff{}"]),
)


def read(text: bytes, folder: Path, monkeypatch, *, zone: str | None, columns: bool) -> list:
    """Return what is made of a file with these lines: rows, names, and what is set aside."""
    file = folder / "Observation.ndjson"
    file.write_bytes(text)
    chosen = plain_observations if columns else (lambda *_: None)
    monkeypatch.setattr(fhir, "plain_observations", chosen)
    options = fhir.FhirOptions(time_zone=zone)
    (site,) = fhir.read(file, options)
    found = []
    for part in site.stream.parts:
        for one in part.tables:
            if isinstance(one, CodeTexts):
                found.append(dict(sorted(one.of.items())))
            elif isinstance(one, NotRead):
                found.append(dict(sorted(one.kinds.items())))
            elif isinstance(one, RejectedRows):
                found.append((one.reason, one.rows.to_pylist()))
            else:
                code = one["code"].cast(pa.string())
                at = one.column_names.index("code")
                found.append(one.set_column(at, "code", code).to_pydict())
    return found


def assert_same(text: bytes, tmp_path_factory, zone: str | None) -> None:
    folder = tmp_path_factory.mktemp("lines")
    with pytest.MonkeyPatch.context() as patch:
        ours = read(text, folder, patch, zone=zone, columns=True)
        theirs = read(text, folder, patch, zone=zone, columns=False)
    assert repr(ours) == repr(theirs)  # NaN equals itself


@given(st.lists(lines, min_size=1, max_size=30), st.sampled_from([None, "Europe/London"]))
def test_lines_mean_what_each_means_by_itself(tmp_path_factory, some, zone):
    assert_same("\n".join(some).encode(), tmp_path_factory, zone)


ODD = [
    *(b"\xff", b'"\xff', b"{", b"\x00", b'{"a": "\\ud800"}', b'{"a": 1} x'),
    *(b'{"a": "\xa8"}', b'{"a\xa8": }', b'{"resourceType": "Observation", \xa8code": {}}'),
]


@pytest.mark.parametrize("odd", ODD)
def test_a_line_that_is_no_text_or_json_spoils_no_other(tmp_path_factory, odd):
    usual = json.dumps(USUAL).encode()
    assert_same(b"\n".join([usual, odd, usual, usual]), tmp_path_factory, None)
    assert taken(b"\n".join([usual, odd, usual, usual])) == [0, 2, 3]


def taken(text: bytes) -> list[int]:
    block = np.frombuffer(text, np.uint8)
    plain = plain_observations(block, line_ends(block), None)
    return [] if plain is None else plain.line.tolist()


def test_what_is_plain_is_taken_and_what_is_not_is_left():
    more = [
        {},
        {"valueQuantity": {"value": 90, "code": "mg/dL"}, "id": "1", "issued": "2020"},
        {"valueCodeableConcept": {"text": "yes"}},
        {"component": []},
        {"valueQuantity": {"value": "90"}},
        {"status": "entered-in-error"},
        {"effectiveDateTime": "2020-01-02T08:00:00.5Z"},
        {"resourceType": "Condition"},
    ]
    text = "\n".join(json.dumps(USUAL | one) for one in more)
    assert taken(text.encode()) == [0, 1, 2, 6]


def test_line_ends():
    for text, ends in ((b"", []), (b"a", [1]), (b"a\n", [2]), (b"a\n\nb", [2, 3, 4]), (b"\n", [1])):
        assert line_ends(np.frombuffer(text, np.uint8)).tolist() == ends
