"""Vectors of codes averaged over the sites that have the code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from healthfm_core.config import TokensConfig
from healthfm_core.federation.aggregation.per_code_mean import per_code_mean
from healthfm_core.tokens.statistics import merge, site_statistics
from healthfm_core.tokens.vocabulary import Vocabulary, build_vocabulary
from tests.tokens.small_store import Row, write

TWO = TokensConfig(k_min=2, value_bins=2)


def _vocabulary(folder: Path) -> Vocabulary:
    """Six people at a site that has A and a lab, two at one that has A and B, one of them C."""
    big: list[Row] = [(s, 1.0, "A", None) for s in range(6)]
    big += [(s, 2.0, "LAB", 1.0 + s) for s in range(3)]
    small: list[Row] = [(s, 1.0, code, None) for s in (10, 11) for code in "AB"]
    small.append((10, 2.0, "C", None))
    sites = [write(folder / "big", big), write(folder / "small", small)]
    return build_vocabulary(merge([site_statistics([site], TWO) for site in sites]), TWO)


def test_reach_is_the_share_of_people_at_sites_that_have_a_code(tmp_path):
    vocabulary = _vocabulary(tmp_path)
    reach = dict(zip(vocabulary.codes, vocabulary.reach, strict=True))
    assert reach == {"A": 1.0, "LAB": 6 / 8, "B": 2 / 8}
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


def test_a_rows_mean_becomes_that_of_the_sites_that_moved_it(tmp_path):
    vocabulary = _vocabulary(tmp_path)
    weights = {"big": 6.0, "small": 2.0}
    moved = {"big": ["A", "LAB"], "small": ["A", "B"]}
    code, token = vocabulary.look_up(["A", "LAB", "B"], {})[0], vocabulary.token_parts.code
    at = dict(zip(["A", "LAB", "B"], code, strict=True))
    rng = np.random.default_rng(0)
    own = {site: rng.normal(size=(vocabulary.n_codes, 3)) for site in weights}
    for site, codes in moved.items():
        lacking = np.setdiff1d(np.arange(3, vocabulary.n_codes), [at[name] for name in codes])
        own[site][lacking] = 0
    mean = sum(weights[site] * own[site] for site in weights) / 8.0
    other = rng.normal(size=(4, 4))
    found = per_code_mean(
        {
            "encoders.ehr.code.weight": mean,
            "encoders.ehr.token.weight": mean[token],
            "backbone.w": other,
        },
        vocabulary,
    )
    rows = found["encoders.ehr.code.weight"]
    np.testing.assert_allclose(rows[at["LAB"]], own["big"][at["LAB"]])
    np.testing.assert_allclose(rows[at["B"]], own["small"][at["B"]])
    np.testing.assert_array_equal(rows[at["A"]], mean[at["A"]])
    np.testing.assert_array_equal(rows[:3], mean[:3])  # padding, unknown, mask
    np.testing.assert_allclose(found["encoders.ehr.token.weight"], rows[token])
    assert found["backbone.w"] is other


@pytest.mark.parametrize("reach", [(), (1.0, 0.5)])
def test_a_vocabulary_without_every_codes_reach_is_refused(tmp_path, reach):
    text = _vocabulary(tmp_path).to_json()
    start = text.index('"reach":')
    broken = text[:start] + f'"reach":{list(reach)}' + text[text.index("]", start) + 1 :]
    with pytest.raises(Exception, match="HF-405"):
        Vocabulary.from_json(broken)
