"""What sites that use other codes are told before round 1, and who takes no part."""

from __future__ import annotations

from pathlib import Path

import pytest

import tests.quiet_flower  # noqa: F401
from healthfm_client.core_local_work import CoreLocalWork
from healthfm_core.config.compose import compose
from healthfm_core.config.run import RunConfig
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ProtocolError
from healthfm_core.federation.code_overlap import (
    CodeOverlap,
    overlap_sentence,
    told_coverage,
)
from healthfm_core.federation.overlap_table import overlap_lines
from healthfm_core.tokens.statistics import merge, site_statistics
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.arms.arm_training import FixedVocabularySetup
from healthfm_simulations.engine import Apps, NodeSpec, run_federation
from tests.tokens.small_store import Row, write

PEOPLE = range(1, 31)


def records(*codes: str) -> list[Row]:
    """Every person has every code on two days, the second a year later."""
    return [(n, day, code, None) for n in PEOPLE for day in (1.0, 366.0) for code in codes]


def site(folder: Path, name: str, *codes: str) -> NodeSpec:
    write(folder / name, records(*codes))
    return NodeSpec(name, [(folder / name, None)])


def config(*settings: str) -> RunConfig:
    small = ["model=tiny", "tokens.k_min=5", "train.max_steps=1", "federation.rounds=1"]
    return compose([*small, *settings])


def overlap(folder: Path, *sites: tuple[str, ...]) -> CodeOverlap:
    tokens = TokensConfig(k_min=1)
    stores = [write(folder / f"{n}", records(*codes)) for n, codes in enumerate(sites)]
    return CodeOverlap.of(merge([site_statistics([s], tokens, split=None) for s in stores]))


def test_the_share_of_what_is_recorded_under_shared_codes_is_counted_by_domain(tmp_path):
    found = overlap(tmp_path, ("DX//A", "DX//B", "LAB//K"), ("DX//A", "LAB//L"))
    assert found.share == pytest.approx(2 / 5)
    by_name = {domain.domain: domain for domain in found.domains}
    assert (by_name["DX"].codes, by_name["DX"].shared) == (2, 1)
    assert by_name["DX"].share == pytest.approx(2 / 3)
    assert (by_name["LAB"].codes, by_name["LAB"].shared, by_name["LAB"].share) == (2, 0, 0.0)


def test_a_lab_in_units_that_do_not_meet_is_named_and_no_code_without_values(tmp_path):
    def of(name: str, *codes: str) -> SiteStore:
        wards: list[Row] = [(n, 1.0, f"WARD//ICU//{name}", None) for n in PEOPLE]
        return write(tmp_path / name, [*wards, *((n, 1.0, c, 2.0) for n in PEOPLE for c in codes)])

    here = of("here", "LOINC//1//mg/dL", "LOINC//2//g/L", "LOINC//2//[arb]")
    there = of("there", "LOINC//1//mmol/L", "LOINC//2//g/L")
    tokens = TokensConfig(k_min=1)
    merged = merge([site_statistics([store], tokens, split=None) for store in (here, there)])
    assert CodeOverlap.of(merged).units == ("LOINC//1 in mg/dL and mmol/L",)


def test_sites_without_a_code_in_common_do_not_begin(tmp_path):
    nodes = [site(tmp_path, "a", "ICD10//I10"), site(tmp_path, "b", "SNOMED//38341003")]
    with pytest.raises(ProtocolError) as caught:
        run_federation(config(), nodes, tmp_path / "run")
    assert caught.value.number == 410
    assert "ICD10: 0 of 1 codes; SNOMED: 0 of 1 codes" in str(caught.value)
    assert "--even-so" in str(caught.value)


def test_they_begin_all_the_same_where_the_coordinator_says_so(tmp_path):
    nodes = [site(tmp_path, "a", "ICD10//I10"), site(tmp_path, "b", "SNOMED//38341003")]
    result = run_federation(config("federation.min_shared_codes=0"), nodes, tmp_path / "run")
    assert [row["answered"] for row in result.history] == [["a", "b"]]


def test_sums_tell_that_sites_share_no_code_and_not_which_site(tmp_path):
    nodes = [site(tmp_path, n, f"{n.upper()}//1") for n in ("a", "b", "c")]
    with pytest.raises(ProtocolError) as caught:
        run_federation(
            config("federation.aggregation.secure.enabled=true"), nodes, tmp_path / "run"
        )
    assert caught.value.number == 410


def test_a_site_that_shares_next_to_nothing_is_left_out_by_name(tmp_path):
    nodes = [
        site(tmp_path, "a", "DX//A"),
        site(tmp_path, "b", "DX//A"),
        site(tmp_path, "c", "X//1"),
    ]
    result = run_federation(config(), nodes, tmp_path / "run")
    assert [row["answered"] for row in result.history] == [["a", "b"]]
    events = RunStore.open(tmp_path / "run").events()
    out = [event for event in events if event["event"] == "set aside"]
    assert [event["site"] for event in out] == ["c"]
    assert "HF-410" in out[0]["reason"]
    assert "0.0 % of its events stand under codes that another site has" in out[0]["reason"]


def test_one_site_alone_shares_with_nobody_and_trains(tmp_path):
    result = run_federation(config(), [site(tmp_path, "a", "DX//A")], tmp_path / "run")
    assert [row["answered"] for row in result.history] == [["a"]]


def test_a_site_trained_alone_with_everybodys_vocabulary_trains(tmp_path):
    nodes = [
        site(tmp_path, name, code)
        for name, code in zip("abc", ("D//1", "D//1", "X//1"), strict=True)
    ]
    together = run_federation(config(), nodes, tmp_path / "together").study.vocabulary
    apps = Apps(FixedVocabularySetup(together), CoreLocalWork())
    alone = run_federation(config(), [nodes[2]], tmp_path / "alone", apps=apps)
    assert [row["answered"] for row in alone.history] == [["c"]]


def test_a_table_shows_sites_and_domains(tmp_path):
    nodes = [site(tmp_path, "a", "DX//A", "LAB//K"), site(tmp_path, "b", "DX//A", "LAB//L")]
    run_federation(config(), nodes, tmp_path / "run")
    told = told_coverage(RunStore.open(tmp_path / "run").events())
    assert list(overlap_lines(told)) == [
        "site  all codes     DX    LAB",
        "a          50 %  100 %    0 %",
        "b          50 %  100 %    0 %",
    ]
    assert overlap_sentence(told) == (
        "Codes: 50 % (at a) to 50 % of a site's events stand under codes that another site has too"
    )
    assert overlap_sentence(told, enough=0.5) == ""
