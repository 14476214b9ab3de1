"""What a site lets out: counts over k, additive, the same over the wire."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from healthfm_core.config.tokens import TokensConfig
from healthfm_core.errors import ProtocolError
from healthfm_core.tokens import values
from healthfm_core.tokens.coverage import coverage
from healthfm_core.tokens.statistics import SiteStatistics, merge, site_statistics
from healthfm_core.tokens.tokenizer import tokenize
from healthfm_core.tokens.vocabulary import build_vocabulary
from tests.tokens.small_store import Row, write

TWO = TokensConfig(k_min=2)

ROWS: list[Row] = [
    *((s, -1000.0, "MEDS_BIRTH", None) for s in (1, 2, 3)),
    *((s, None, "SEX//F", None) for s in (1, 2)),
    (3, None, "SEX//M", None),
    *((s, None, "PRS//PGS1", 0.5) for s in (1, 2, 3)),
    (1, None, "PRS//PGS2", 9.0),
    *((1, t, "DX//A", None) for t in (0.0, 5.0, 6.0)),
    (2, 7.0, "DX//A", None),
    (3, 7.0, "DX//B", None),
    *((s, 8.0, "LAB//K", 4.0) for s in (1, 2, 3)),
    (1, 9.0, "LAB//K", 4.0),
]


def arrays_equal(one: SiteStatistics, other: SiteStatistics) -> bool:
    a, b = one.to_arrays(), other.to_arrays()
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_codes_of_fewer_than_k_subjects_stay_at_the_site(tmp_path):
    found = site_statistics([write(tmp_path / "s", ROWS)], TWO)
    assert found.codes == ("DX//A", "LAB//K", "SEX//F")
    assert found.subjects.tolist() == [2, 3, 2]
    assert found.timed_subjects.tolist() == [2, 3, 0]
    assert found.visits.tolist() == [4, 4, 0]
    assert found.reached.tolist() == [3, 3, 3]
    assert found.panel == ("PGS1",)
    assert found.panel_subjects.tolist() == [3]
    assert found.modality_subjects.tolist() == [3, 0, 3]
    text = b"".join(array.tobytes() for array in found.to_arrays().values())
    assert b"DX//B" not in text
    assert b"SEX//M" not in text


@pytest.mark.parametrize(
    ("timed", "told"), [(9, 9), (8, 9), (6, 9), (5, 5), (4, 4), (3, 0), (0, 0)]
)
def test_no_two_counts_of_a_code_differ_by_fewer_than_k_subjects(tmp_path, timed, told):
    with_time: list[Row] = [(s, 1.0, "SMOKES", None) for s in range(timed)]
    without: list[Row] = [(s, None, "SMOKES", None) for s in range(timed, 9)]
    store = write(tmp_path / "s", [*with_time, *without])
    found = site_statistics([store], TokensConfig(k_min=4))
    assert found.subjects.tolist() == [9]
    assert found.timed_subjects.tolist() == [told]


def test_visits_go_by_the_gap(tmp_path):
    store = write(tmp_path / "s", ROWS)
    found = site_statistics([store], TokensConfig(k_min=2, visit_gap_hours=1))
    assert found.visits.tolist() == [3, 3, 0]  # hours 5 and 6 are one visit, 7 to 9 too


def test_each_subject_gives_a_numeric_code_one_value(tmp_path):
    found = site_statistics([write(tmp_path / "s", ROWS)], TWO).sketch
    assert found.code.tolist() == [1]
    assert found.count.tolist() == [3]
    assert values.upper_edge(found.bucket)[0] == pytest.approx(4.0, rel=1e-3)


def test_a_numeric_code_that_few_have_a_value_of_lets_out_no_value(tmp_path):
    rows: list[Row] = [(s, 1.0, "LAB//X", 1.0 if s == 1 else None) for s in (1, 2, 3)]
    found = site_statistics([write(tmp_path / "s", rows)], TWO)
    assert found.codes == ("LAB//X",)
    assert len(found.sketch.code) == 0


@pytest.mark.parametrize(("ones", "wanted"), [(2, [3, 2]), (1, [0, 0])])
def test_labels_are_counted_where_enough_subjects_have_each_value(tmp_path, ones, wanted):
    labels = {"death": [(s, 9.0, s < ones) for s in range(5 if ones == 2 else 4)]}
    rows: list[Row] = [(s, 1.0, "DX//A", None) for s in range(5)]
    store = write(tmp_path / "s", rows, labels=labels)
    assert site_statistics([store], TWO, task="death").label_values.tolist() == wanted
    assert site_statistics([store], TWO).label_values.tolist() == [0, 0]
    assert site_statistics([store], TWO, task="stroke").label_values.tolist() == [0, 0]


def test_rare_codes_count_as_their_ancestor(tmp_path):
    rows: list[Row] = [(1, 1.0, "DX//A1", None), (2, 1.0, "DX//A2", None), (3, 1.0, "DX//C", None)]
    parents = {"DX//A1": "DX//A", "DX//A2": "DX//A", "DX//A": "DX", "DX//C": "DX"}
    store = write(tmp_path / "s", rows, parents=parents)
    found = site_statistics([store], TWO)
    assert found.codes == ("DX//A",)
    assert found.subjects.tolist() == [2]
    assert found.timed_subjects.tolist() == [2]
    three = site_statistics([store], TokensConfig(k_min=3))
    assert three.codes == ("DX",)
    assert three.subjects.tolist() == [3]


def test_a_circle_of_parents_ends(tmp_path):
    parents = {"A": "B", "B": "A"}
    store = write(tmp_path / "s", [(1, 1.0, "A", None)], parents=parents)
    assert site_statistics([store], TWO).codes == ()


def test_thresholds_hold_for_the_site_not_for_each_of_its_stores(tmp_path):
    stores = [write(tmp_path / str(s), [(s, 1.0, "DX//A", None)]) for s in (1, 2)]
    assert site_statistics(stores, TWO).codes == ("DX//A",)
    assert site_statistics(stores[:1], TWO).codes == ()


def test_only_the_split_asked_for_counts(tmp_path):
    rows: list[Row] = [(s, 1.0, "DX//A", None) for s in range(4)]
    store = write(tmp_path / "s", rows, splits={3: "held_out"})
    assert site_statistics([store], TWO).subjects.tolist() == [3]
    assert site_statistics([store], TWO, split=None).subjects.tolist() == [4]


def test_channel_moments_weigh_every_subject_the_same(tmp_path):
    worn = [
        (1, 0.0, "hr", 1.0, [60.0] * 100),
        (2, 0.0, "hr", 1.0, [80.0, None, 100.0]),
        (1, 0.0, "steps", 1.0, [3.0]),
    ]
    found = site_statistics([write(tmp_path / "s", ROWS, worn=worn)], TWO)
    assert found.channels == (("wrist", "hr"),)
    assert found.channel_subjects.tolist() == [2]
    assert found.channel_sum.tolist() == [60 + 90]
    assert found.channel_square.tolist() == [3600 + (6400 + 10000) / 2]
    assert found.channel_hz.tolist() == [1.0]
    assert found.modality_subjects.tolist() == [3, 2, 3]


def test_statistics_add_up_in_any_order(tmp_path):
    worn = [(s, 0.0, "hr", 1.0, [60.0 + s]) for s in (1, 2)]
    sites = [
        site_statistics([write(tmp_path / "a", ROWS, worn=worn)], TWO),
        site_statistics([write(tmp_path / "b", ROWS[:9])], TWO),
        site_statistics([write(tmp_path / "c", [(1, 1.0, "X", 2.0), (2, 1.0, "X", 3.0)])], TWO),
    ]
    total = merge(sites)
    assert arrays_equal(merge(sites[::-1]), total)
    assert arrays_equal(merge([merge(sites[:2]), sites[2]]), total)
    assert total.codes == ("DX//A", "LAB//K", "SEX//F", "X")
    assert total.subjects.tolist() == [2, 3, 4, 2]
    assert total.modality_subjects.tolist() == [8, 2, 6]
    assert arrays_equal(merge([]), merge([merge([])]))


def test_the_wire_keeps_every_number(tmp_path):
    worn = [(s, 0.0, "hr", 1.0, [60.0 + s]) for s in (1, 2)]
    found = site_statistics([write(tmp_path / "s", ROWS, worn=worn)], TWO)
    arrays = found.to_arrays()
    assert all(array.dtype.kind in "iuf" for array in arrays.values())
    again = SiteStatistics.from_arrays(arrays)
    assert arrays_equal(again, found)
    for field in fields(SiteStatistics):
        assert type(getattr(again, field.name)) is type(getattr(found, field.name))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("subjects", np.array([1])),
        ("subjects", np.array([-1, 2, 3])),
        ("channel_sum", np.array([np.nan])),
        ("sketch_code", np.array([7], np.int32)),
        ("sketch_count", np.array([1, 2])),
        ("names", np.frombuffer(b"{", np.uint8)),
        ("modality_subjects", None),
    ],
)
def test_statistics_that_do_not_fit_are_refused(tmp_path, name, array):
    worn = [(s, 0.0, "hr", 1.0, [60.0 + s]) for s in (1, 2)]
    arrays = site_statistics([write(tmp_path / "s", ROWS, worn=worn)], TWO).to_arrays()
    arrays.pop(name)
    if array is not None:
        arrays[name] = array
    with pytest.raises(ProtocolError, match="HF-402"):
        SiteStatistics.from_arrays(arrays)


def test_codes_of_other_domains_take_no_part(tmp_path):
    store = write(tmp_path / "s", ROWS)
    config = TokensConfig(k_min=2, domains=("DX",))
    found = site_statistics([store], config)
    assert found.codes == ("DX//A",)
    assert found.panel == ("PGS1",)
    vocabulary = build_vocabulary(merge([found]), config)
    people = tokenize([store], vocabulary, config, split=None)
    unknown = vocabulary.look_up(["DX//B"], {})[0][0]
    kept = {vocabulary.look_up(["DX//A"], {})[0][0], unknown}
    assert set(people.code[people.code > 0].tolist()) == kept
    assert (
        people.birth_us.tolist() == tokenize([store], vocabulary, TWO, split=None).birth_us.tolist()
    )
    assert coverage([store], vocabulary, None, ("DX",))["coverage_domain"] == pytest.approx(1 / 5)
