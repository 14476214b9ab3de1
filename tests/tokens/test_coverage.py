"""What a vocabulary covers of a site's record, and what of it another site has too."""

from __future__ import annotations

import pytest

from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.tokens.coverage import coverage
from healthfm_core.tokens.statistics import merge, site_statistics
from healthfm_core.tokens.vocabulary import Vocabulary, build_vocabulary
from tests.tokens.small_store import Row, write

ONE = TokensConfig(k_min=1, value_bins=2)
TWO = TokensConfig(k_min=2, value_bins=2)
ROWS: list[Row] = [
    (1, -1000.0, "MEDS_BIRTH", None),
    (1, None, "PRS//PGS1", 1.5),
    (1, 1.0, "LAB//K", 3.0),
    (1, 1.0, "DX//A", None),
    (2, 2.0, "DX//B", None),
    (2, 2.0, "LAB//K", 4.0),
]


def vocabulary_of(stores: list[SiteStore], config: TokensConfig = ONE) -> Vocabulary:
    each = [site_statistics([store], config, split=None) for store in stores]
    return build_vocabulary(merge(each), config)


def of(store: SiteStore, vocabulary: Vocabulary, k_min: int = 1) -> dict[str, float]:
    return coverage([store], vocabulary, None, k_min=k_min)


def test_a_sites_events_are_covered_exactly_by_an_ancestor_by_a_domain_or_not(tmp_path):
    rows: list[Row] = [
        (1, 1.0, "DX//A1", None),
        (1, 2.0, "LAB//OTHER", 7.0),
        (1, 3.0, "odd", 7.0),
        (1, 4.0, "LAB//K1", 5.0),
    ]
    site = write(tmp_path / "s", rows, parents={"DX//A1": "DX//A", "LAB//K1": "LAB//K"})
    found = of(site, vocabulary_of([write(tmp_path / "t", ROWS)]))
    assert {name: found[f"coverage_{name}"] for name in ("exact", "ancestor")} == {
        "exact": 0.0,
        "ancestor": 0.5,
    }
    assert {name: found[f"coverage_{name}"] for name in ("domain", "unknown")} == {
        "domain": 0.25,
        "unknown": 0.25,
    }


def test_births_and_scores_are_no_part_of_coverage(tmp_path):
    store = write(tmp_path / "s", ROWS)
    vocabulary = vocabulary_of([store])
    assert of(store, vocabulary)["coverage_exact"] == 1.0
    only = write(tmp_path / "t", [(1, None, "PRS//PGS1", 1.0)])
    assert of(only, vocabulary) == {}


def test_a_site_whose_codes_nobody_else_has_is_covered_whole_and_shares_nothing(tmp_path):
    here = write(tmp_path / "here", [(1, 1.0, "ICD10//I10", None), (2, 1.0, "ICD10//I10", None)])
    there = write(tmp_path / "there", [(1, 1.0, "SNOMED//1", None), (2, 1.0, "SNOMED//1", None)])
    found = of(here, vocabulary_of([here, there]))
    assert found["coverage_exact"] == 1.0
    assert found["coverage_shared"] == 0.0
    assert found["coverage_shared/ICD10"] == 0.0
    assert "coverage_events/SNOMED" not in found


def test_what_is_shared_is_told_by_domain(tmp_path):
    here = write(tmp_path / "here", [*ROWS, (1, 5.0, "LOCAL//X", None), (1, 6.0, "odd", None)])
    there = write(tmp_path / "there", ROWS)
    found = of(here, vocabulary_of([here, there]))
    assert found["coverage_shared"] == pytest.approx(4 / 6)
    assert found["coverage_events/DX"] == pytest.approx(2 / 6)
    assert (found["coverage_shared/DX"], found["coverage_shared/LAB"]) == (1.0, 1.0)
    assert (found["coverage_shared/LOCAL"], found["coverage_shared/other"]) == (0.0, 0.0)


def test_a_code_too_rare_to_be_let_out_here_is_shared_with_the_one_site_that_did(tmp_path):
    small = write(tmp_path / "small", [(1, 1.0, "DX//A", None), (1, 2.0, "DX//B", None)])
    large = write(tmp_path / "large", [(1, 1.0, "DX//A", None), (2, 1.0, "DX//A", None)])
    vocabulary = vocabulary_of([small, large], TWO)
    assert vocabulary.sites == (1,)
    assert of(small, vocabulary, k_min=2)["coverage_shared"] == 0.5
    assert of(large, vocabulary, k_min=2)["coverage_shared"] == 0.0


def test_a_domain_of_fewer_people_than_k_is_not_told(tmp_path):
    here = write(tmp_path / "here", [*ROWS, (1, 5.0, "LOCAL//X", None)])
    found = of(here, vocabulary_of([here, write(tmp_path / "there", ROWS)]), k_min=2)
    assert "coverage_shared/LOCAL" not in found
    assert "coverage_events/LOCAL" not in found
    assert "coverage_shared/DX" in found


def test_a_vocabulary_from_before_says_nothing_of_what_is_shared(tmp_path):
    store = write(tmp_path / "s", ROWS)
    text = vocabulary_of([store]).to_json()
    start = text.index('"sites":')
    old = Vocabulary.from_json(text[:start] + text[text.index("]", start) + 2 :])
    assert old.sites == ()
    assert '"sites"' not in old.to_json()
    assert set(of(store, old)) == {
        "coverage_exact",
        "coverage_ancestor",
        "coverage_domain",
        "coverage_unknown",
    }
