"""Codes that few sites know become an ancestor that more know: by whom, which, and what is told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

import tests.quiet_flower  # noqa: F401
from healthfm_core.config.compose import compose
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.errors import ProtocolError
from healthfm_core.federation.secure.statistics_codec import StatisticsLayout, mark_sizes, marks
from healthfm_core.tokens.code_forms import parent_by_form
from healthfm_core.tokens.common_ancestors import roll_ups, rolled_up
from healthfm_core.tokens.coverage import coverage
from healthfm_core.tokens.lineage import lineage_of, with_forms
from healthfm_core.tokens.statistics import SiteStatistics, merge, site_statistics
from healthfm_core.tokens.tokenizer import tokenize
from healthfm_core.tokens.vocabulary import ANCESTOR, EXACT, Vocabulary, build_vocabulary
from healthfm_server.run_folder.run_description import describe_run
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.engine import NodeSpec, run_federation
from tests.tokens.small_store import Row, write

PEOPLE = range(1, 7)
SHARED = TokensConfig(k_min=3, common_share=0.5)


def records(*codes: str, people: Sequence[int] = PEOPLE) -> list[Row]:
    """Everybody has every code on two days."""
    return [(n, day, code, None) for n in people for day in (24.0, 48.0) for code in codes]


def statistics(
    folder: Path,
    sites: Sequence[Sequence[str]],
    config: TokensConfig = SHARED,
    parents: Mapping[str, str] | None = None,
) -> list[SiteStatistics]:
    stores = [
        write(folder / f"{n}", records(*codes), parents=parents) for n, codes in enumerate(sites)
    ]
    return [site_statistics([store], config, split=None) for store in stores]


def become(
    folder: Path,
    *sites: Sequence[str],
    share: float = 0.5,
    parents: Mapping[str, str] | None = None,
) -> dict[str, str]:
    config = TokensConfig(k_min=3, common_share=share)
    return roll_ups(merge(statistics(folder, sites, config, parents)), config)


@pytest.mark.parametrize(
    ("code", "above"),
    [
        ("ICD10CM//E11.65", ["ICD10CM//E11.6", "ICD10CM//E11"]),
        ("ICD10CM//T39.1X1A", ["ICD10CM//T39.1X1", "ICD10CM//T39.1", "ICD10CM//T39"]),
        ("ICD9CM//250.02", ["ICD9CM//250.0", "ICD9CM//250"]),
        ("ICD9CM//E980.0", ["ICD9CM//E980"]),
        ("DIAGNOSIS//ICD//10//E1165", ["DIAGNOSIS//ICD//10//E116", "DIAGNOSIS//ICD//10//E11"]),
        ("ATC//A10BA02", ["ATC//A10BA", "ATC//A10B", "ATC//A10"]),
        *((code, []) for code in ("ICD10//I10", "ICD10//A00-B99", "ICD10//", "ATC//A10BA0")),
        *((code, []) for code in ("LOINC//2345-7", "SNOMED//44054006", "E11.65", "")),
    ],
)
def test_a_codes_form_says_what_is_above_it(code, above):
    found = []
    while (code := parent_by_form(code) or "") != "":
        found.append(code)
    assert found == above


def test_a_sites_own_table_comes_before_the_form():
    own = {"ICD10//E11.65": "ICD10//SUGAR", "ICD10//SUGAR": "ICD10//E11.65"}
    assert with_forms(own, ["ICD10//E11.65"]) == own
    assert with_forms({}, ["ICD10//E11.65"])["ICD10//E11.6"] == "ICD10//E11"


def test_neither_a_unit_nor_an_answer_nor_a_loinc_part_is_told_as_above():
    parents = {
        "SNOMED//1//Positive": "SNOMED//1",
        "LOINC//2": "LOINC//LP1",
        "SNOMED//1": "SNOMED//0",
    }
    assert lineage_of(["SNOMED//1//Positive", "LOINC//2", "SNOMED//1"], parents) == (
        ("LOINC//2", ""),
        ("SNOMED//0", ""),
        ("SNOMED//1", "SNOMED//0"),
        ("SNOMED//1//Positive", ""),
    )


def test_two_sites_that_split_a_diagnosis_meet_above_it(tmp_path):
    assert become(tmp_path, ["ICD10//E11.65", "ICD10//I10"], ["ICD10//E11.9", "ICD10//I10"]) == {
        "ICD10//E11.65": "ICD10//E11",
        "ICD10//E11.9": "ICD10//E11",
    }


def test_a_code_that_enough_sites_know_keeps_its_token(tmp_path):
    sites = ["ICD10//E11.9"], ["ICD10//E11.9"], ["ICD10//E11.65"], ["ICD10//E11.42"]
    expected = dict.fromkeys(("ICD10//E11.42", "ICD10//E11.65"), "ICD10//E11")
    assert become(tmp_path / "half", *sites) == expected
    assert become(tmp_path / "all", *sites, share=1.0) == expected | {"ICD10//E11.9": "ICD10//E11"}


def test_an_ancestor_that_would_stand_for_one_sites_code_alone_takes_nothing(tmp_path):
    sites = ["ICD10//E11.9"], ["ICD10//E11.9"], ["ICD10//E11.65"]
    assert become(tmp_path, *sites) == {}


def test_a_coarse_code_of_one_site_takes_the_fine_ones_of_another(tmp_path):
    assert become(tmp_path, ["ICD10//E11"], ["ICD10//E11.65"]) == {"ICD10//E11.65": "ICD10//E11"}


def test_codes_meet_at_the_nearest_ancestor_that_enough_know(tmp_path):
    sites = ["ATC//A10BA02"], ["ATC//A10BA03"], ["ATC//A10BB01", "ATC//C03CA01"], ["ATC//A10BA02"]
    assert become(tmp_path / "two", *sites) == dict.fromkeys(
        ("ATC//A10BA03", "ATC//A10BB01"), "ATC//A10B"
    )
    assert become(tmp_path / "three", *sites, share=0.75) == {
        "ATC//A10BA02": "ATC//A10BA",
        "ATC//A10BA03": "ATC//A10BA",
    }
    assert become(tmp_path / "all", *sites, share=1.0) == dict.fromkeys(
        ("ATC//A10BA02", "ATC//A10BA03", "ATC//A10BB01"), "ATC//A10B"
    )


def test_snomed_rolls_up_by_the_table_that_a_site_brings_four_levels_at_most(tmp_path):
    parents = {f"SNOMED//{n}": f"SNOMED//{n + 1}" for n in range(1, 5)} | {
        f"SNOMED//1{n}": f"SNOMED//{n + 1 if n == 4 else f'1{n + 1}'}" for n in range(1, 5)
    }
    near = become(tmp_path / "near", ["SNOMED//1"], ["SNOMED//11"], parents=parents)
    assert near == {"SNOMED//1": "SNOMED//5", "SNOMED//11": "SNOMED//5"}
    further = parents | {"SNOMED//0": "SNOMED//1", "SNOMED//10": "SNOMED//11"}
    assert become(tmp_path / "far", ["SNOMED//0"], ["SNOMED//10"], parents=further) == {}
    assert become(tmp_path / "bare", ["SNOMED//1"], ["SNOMED//11"]) == {}


def test_what_one_sites_table_says_holds_for_a_site_without_one(tmp_path):
    parents = {"SNOMED//1": "SNOMED//9", "SNOMED//2": "SNOMED//9"}
    with_table = site_statistics(
        [write(tmp_path / "a", records("SNOMED//1", "SNOMED//2"), parents=parents)], SHARED, None
    )
    without = [
        site_statistics([write(tmp_path / name, records(code))], SHARED, None)
        for name, code in (("b", "SNOMED//9"), ("c", "SNOMED//9"))
    ]
    assert roll_ups(merge([with_table, *without]), SHARED) == {
        "SNOMED//1": "SNOMED//9",
        "SNOMED//2": "SNOMED//9",
    }


def test_what_has_a_value_at_one_site_rolls_up_nowhere_and_takes_nothing(tmp_path):
    valued = [(n, 24.0, "ICD10//E11.65", 1.0) for n in PEOPLE]
    stores = [write(tmp_path / "a", valued), write(tmp_path / "b", records("ICD10//E11.9"))]
    assert roll_ups(merge([site_statistics([s], SHARED, None) for s in stores]), SHARED) == {}


def test_a_table_with_a_circle_ends_and_is_the_same_whoever_answers_first(tmp_path):
    circle = {"X//1": "X//2", "X//2": "X//3", "X//3": "X//1", "Y//1": "X//1"}
    sites = statistics(tmp_path, [["X//1", "Y//1"], ["X//2"], ["X//3"]], parents=circle)
    assert roll_ups(merge(sites), SHARED) == roll_ups(merge(sites[::-1]), SHARED) != {}


def test_off_nothing_more_is_told_and_the_vocabulary_is_what_it_was(tmp_path):
    config = TokensConfig(k_min=3)
    merged = merge(statistics(tmp_path, [["ICD10//E11.65"], ["ICD10//E11.9"]], config))
    assert merged.lineage == ()
    vocabulary = build_vocabulary(merged, config)
    assert vocabulary.codes == ("ICD10//E11.65", "ICD10//E11.9")
    assert "become" not in json.loads(vocabulary.to_json())


def test_names_of_what_is_above_are_all_that_is_told_besides(tmp_path):
    sites = [["ICD10//E11.65"]]
    off = statistics(tmp_path / "off", sites, TokensConfig(k_min=3))[0].to_arrays()
    on = statistics(tmp_path / "on", sites)[0].to_arrays()
    assert on.keys() == off.keys()
    assert [name for name in on if on[name].tolist() != off[name].tolist()] == ["names"]
    names = json.loads(on["names"].tobytes())
    assert names.pop("lineage") == [
        ["ICD10//E11", ""],
        ["ICD10//E11.6", "ICD10//E11"],
        ["ICD10//E11.65", "ICD10//E11.6"],
    ]
    assert names == json.loads(off["names"].tobytes())


def test_nothing_is_told_of_what_is_above_a_code_of_fewer_than_k(tmp_path):
    rows = [*records("ICD10//E11.65"), *records("ICD10//F20.0", people=PEOPLE[:2])]
    found = site_statistics([write(tmp_path / "a", rows)], SHARED, None)
    assert {code for pair in found.lineage for code in pair if "F20" in code} == set()


def test_a_rare_code_counts_as_its_category_by_its_form(tmp_path):
    rows = [row for n in PEOPLE for row in records(f"ICD10//E11.{n}", people=[n])]
    found = site_statistics([write(tmp_path / "a", rows)], SHARED, None)
    assert (found.codes, found.subjects.tolist()) == (("ICD10//E11",), [6])
    off = site_statistics([write(tmp_path / "b", rows)], TokensConfig(k_min=3), None)
    assert off.codes == ()


def test_no_count_contains_another(tmp_path):
    rare = [row for n in PEOPLE for row in records(f"ICD10//E11.{n}", people=[n])]
    rows = [*records("ICD10//E11.9", people=range(7, 12)), *rare]
    found = site_statistics([write(tmp_path / "a", rows)], SHARED, None)
    assert found.codes == ("ICD10//E11", "ICD10//E11.9")
    assert (found.subjects.tolist(), found.timed_subjects.tolist()) == ([6, 5], [6, 5])


def test_a_site_says_one_parent_of_each_code(tmp_path):
    arrays = statistics(tmp_path, [["ICD10//E11.65"]])[0].to_arrays()
    names = json.loads(arrays["names"].tobytes())
    names["lineage"].append(["ICD10//E11.65", "ICD10//I10"])
    arrays["names"] = np.frombuffer(json.dumps(names).encode(), np.uint8)
    with pytest.raises(ProtocolError) as caught:
        SiteStatistics.from_arrays(arrays)
    assert caught.value.number == 402


def test_sums_that_hide_the_sites_decide_as_the_clear_does(tmp_path):
    sites = statistics(
        tmp_path,
        [["ICD10//E11.65", "ATC//A10BA02"], ["ICD10//E11.9"], ["ATC//A10BA03", "ICD10//E11.9"]],
    )
    arrays = [SiteStatistics.from_arrays(site.to_arrays()) for site in sites]
    met = {
        name: sum(marks(site, 7)[name].astype(np.uint32) for site in arrays)
        for name in mark_sizes()
    }
    layout = StatisticsLayout.for_totals(met, 7)
    parts = [layout.encode(site, ["ehr"]) for site in arrays]
    summed, _, _ = layout.decode({name: sum(p[name] for p in parts) for name in parts[0]})
    clear = merge(arrays)
    assert summed.lineage == clear.lineage
    assert summed.lineage_sites.tolist() == clear.lineage_sites.tolist()
    assert roll_ups(summed, SHARED) == roll_ups(clear, SHARED) != {}


def test_counts_of_an_ancestor_are_sums_and_never_more_people_than_there_are(tmp_path):
    both = ["ICD10//E11.65", "ICD10//E11.9", "ICD10//I10"]
    merged = merge(statistics(tmp_path, [both, ["ICD10//E11.42", "ICD10//I10"], ["ICD10//I10"]]))
    found = rolled_up(merged, roll_ups(merged, SHARED))
    assert found.codes == ("ICD10//E11", "ICD10//I10")
    assert (found.sites.tolist(), found.reached.tolist()) == ([2, 3], [12, 18])
    assert (found.subjects.tolist(), found.visits.tolist()) == ([12, 18], [36, 36])


@pytest.fixture
def split_vocabulary(tmp_path) -> Vocabulary:
    sites = [["ICD10//E11.65", "ICD10//I10"], ["ICD10//E11.9", "ICD10//I10"]]
    return build_vocabulary(merge(statistics(tmp_path / "sites", sites)), SHARED)


def test_a_site_reads_its_codes_as_what_the_study_says_they_become(split_vocabulary):
    asked = ["ICD10//E11.65", "ICD10//E11.42", "ICD10//I10", "ICD10//E11"]
    index, how = split_vocabulary.look_up(asked, {})
    assert index[0] == index[1] == index[3] != index[2]
    assert how.tolist() == [ANCESTOR, ANCESTOR, EXACT, EXACT]


def test_a_vocabulary_that_rolls_up_comes_back_from_its_text(split_vocabulary):
    text = split_vocabulary.to_json()
    assert Vocabulary.from_json(text) == split_vocabulary
    raw = json.loads(text) | {"become": {"ICD10//E11.9": "ICD10//Z"}}
    with pytest.raises(ProtocolError):
        Vocabulary.from_json(json.dumps(raw))


def test_people_of_both_sites_have_one_token_and_it_is_shared(tmp_path, split_vocabulary):
    stores = [
        write(tmp_path / name, records(code))
        for name, code in (("a", "ICD10//E11.65"), ("b", "ICD10//E11.9"))
    ]
    tokens = {
        int(token)
        for store in stores
        for token in tokenize([store], split_vocabulary, SHARED, split=None).token
    }
    assert len(tokens) == 1
    for store in stores:
        assert coverage([store], split_vocabulary, None)["coverage_shared"] == 1.0


@pytest.mark.parametrize("secure", [False, True])
def test_sites_without_a_code_in_common_train_together_and_all_are_told(tmp_path, secure):
    nodes = []
    for name, code in (("a", "ICD10//E11.65"), ("b", "ICD10//E11.9"), ("c", "ICD10//E11.42")):
        write(tmp_path / name, records(code, people=range(1, 31)))
        nodes.append(NodeSpec(name, [(tmp_path / name, None)]))
    small = ["model=tiny", "tokens.k_min=5", "train.max_steps=1", "federation.rounds=1"]
    settings = [*small, "tokens.common_share=.5", f"federation.aggregation.secure.enabled={secure}"]
    result = run_federation(compose(settings), nodes, tmp_path / "run")
    assert [row["answered"] for row in result.history] == [["a", "b", "c"]]
    assert result.study.vocabulary.codes == ("ICD10//E11",)
    told = [e for e in RunStore.open(tmp_path / "run").events() if e["event"] == "codes rolled up"]
    assert [(e["codes_before"], e["codes_after"]) for e in told] == [(3, 1)]
    assert (
        "Codes that few sites know rolled up to ancestors that more know: 3 codes became 1; of "
        "what is recorded of people 0 % to 100 % stand under codes that more than one site has"
    ) in list(describe_run(tmp_path / "run"))
