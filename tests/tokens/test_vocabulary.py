"""The study's codes: layout of tokens, back-off, bins, targets, JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from healthfm_core.config.tokens import TokensConfig
from healthfm_core.errors import ConfigError, ProtocolError
from healthfm_core.tokens import values
from healthfm_core.tokens.statistics import SiteStatistics
from healthfm_core.tokens.vocabulary import (
    ANCESTOR,
    DOMAIN,
    EXACT,
    MASK_TOKEN,
    UNKNOWN,
    Vocabulary,
    build_vocabulary,
)

FIVE_BINS = TokensConfig(value_bins=5)


def statistics() -> SiteStatistics:
    codes = ("AGE", "DX//A", "DX//B", "LAB//K", "MEDS_DEATH", "SEX//F", "WEARABLE//HR")
    uniform = np.arange(1, 1001) / 10
    return SiteStatistics(
        codes=codes,
        subjects=np.array([900, 30, 50, 1000, 40, 60, 70]),
        timed_subjects=np.array([900, 30, 50, 1000, 40, 0, 70]),
        visits=np.array([900, 30, 50, 1000, 40, 0, 70]),
        sites=np.array([3, 1, 2, 3, 2, 1, 1]),
        reached=np.array([1000, 250, 1000, 1000, 1000, 500, 1000]),
        all_visits=np.array([2000]),
        sketch=values.add(
            [
                values.sketch(np.full(1000, 3), uniform),
                values.sketch(np.zeros(900, np.int64), np.repeat([40.0, 50.0, 60.0], 300)),
            ]
        ),
        panel=("PGS1", "PGS2"),
        panel_subjects=np.array([5, 5]),
        panel_sites=np.array([1, 1]),
        channels=(("band", "hr"), ("wrist", "hr"), ("wrist", "steps")),
        channel_subjects=np.array([3, 4, 2]),
        channel_sum=np.array([3.0, 400.0, 8.0]),
        channel_square=np.array([3.0, 40400.0, 32.0]),
        channel_hz=np.array([1.0, 1 / 60, 1 / 60]),
        channel_sites=np.array([1, 1, 1]),
        modality_subjects=np.array([1000, 7, 5]),
        label_values=np.array([900, 100]),
    )


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return build_vocabulary(statistics(), FIVE_BINS)


def test_tokens_are_specials_then_domains_then_codes_by_frequency(vocabulary):
    assert vocabulary.domains == ("DX", "LAB", "SEX", "WEARABLE")
    assert vocabulary.codes[:3] == ("LAB//K", "AGE", "WEARABLE//HR")
    assert vocabulary.n_codes == 3 + 4 + 7
    assert vocabulary.n_tokens == 3 + 4 + 7 + 2 * 5
    assert vocabulary.first_token.tolist() == [*range(8), 13, 19, 20, 21, 22, 23]
    assert MASK_TOKEN == 2


def test_targets_are_timed_codes_without_values_by_frequency(vocabulary):
    assert vocabulary.targets == ("DX//B", "MEDS_DEATH", "DX//A")
    where = vocabulary.target_of_code
    assert [vocabulary.codes[i - 7] for i in np.flatnonzero(where >= 0)] == list(vocabulary.targets)
    fewer = build_vocabulary(statistics(), TokensConfig(max_targets=1, max_codes=5))
    assert fewer.targets == ("DX//B",)
    assert len(fewer.codes) == 5


def test_an_unseen_code_becomes_its_nearest_ancestor_then_its_domain_then_unknown(vocabulary):
    parents = {"DX//A11": "DX//A1", "DX//A1": "DX//A", "X": "Y", "Y": "X"}
    codes = ("DX//A", "DX//A11", "DX//ZZ", "RX//1", "X")
    index, how = vocabulary.look_up(codes, parents)
    place = 7 + vocabulary.codes.index("DX//A")
    assert index.tolist() == [place, place, 3, 1, 1]
    assert how.tolist() == [EXACT, ANCESTOR, DOMAIN, UNKNOWN, UNKNOWN]


def test_values_fall_into_quantile_bins(vocabulary):
    index, _ = vocabulary.look_up(["LAB//K"], {})
    value = np.array([0.1, 19.9, 20.1, 50.05, 99.9, 500.0, np.nan])
    token, quantile = vocabulary.place(np.repeat(index, 7), value)
    assert (token - vocabulary.first_token[index[0]]).tolist() == [1, 1, 2, 3, 5, 5, 0]
    np.testing.assert_allclose(quantile, [-0.99, -0.6, -0.6, 0, 0.99, 0.99, 0], atol=0.011)
    assert vocabulary.edges("LAB//K") == pytest.approx((20, 40, 60, 80), rel=2e-3)


def test_values_that_tie_share_a_bin_in_the_middle_of_their_ranks(vocabulary):
    index, _ = vocabulary.look_up(["AGE"], {})
    value = np.array([39.0, 40.0, 45.0, 50.0, 60.0, 61.0])
    token, quantile = vocabulary.place(np.repeat(index, 6), value)
    assert (token - vocabulary.first_token[index[0]]).tolist() == [1, 1, 2, 3, 5, 5]
    np.testing.assert_allclose(quantile, [-0.99, -2 / 3, -1 / 3, 0, 2 / 3, 0.99], atol=0.011)


def test_a_value_of_a_code_without_bins_is_no_value(vocabulary):
    index, _ = vocabulary.look_up(["DX//A"], {})
    token, quantile = vocabulary.place(index, np.array([3.0]))
    assert token.tolist() == [vocabulary.first_token[index[0]]]
    assert quantile.tolist() == [0]


def test_the_device_most_people_wear_is_the_study_s(vocabulary):
    spec = vocabulary.wearable
    assert spec is not None
    assert (spec.device, spec.channels) == ("wrist", ("hr", "steps"))
    assert spec.mean == (100.0, 4.0)
    assert spec.sd == (10.0, 1.0)  # steps never vary: left as they are
    assert (spec.windows, spec.samples, spec.features) == (4, 15, 30)
    band = build_vocabulary(statistics(), TokensConfig(device="band")).wearable
    assert band is not None
    assert band.device == "band"
    assert build_vocabulary(statistics(), TokensConfig(device="none")).wearable is None


def test_a_device_slower_than_a_token_makes_a_token_per_sample():
    given = replace(statistics(), channel_hz=np.full(3, 1 / 86400))
    spec = build_vocabulary(given, TokensConfig()).wearable
    assert spec is not None
    assert spec.token_s == pytest.approx(86400)
    assert (spec.windows, spec.samples) == (1, 1)


@pytest.mark.parametrize("asked", [{"wearable_window_s": 30.0}, {"wearable_token_s": 600.0}])
def test_a_device_too_slow_for_what_is_asked_is_refused_by_name(asked):
    given = replace(statistics(), channel_hz=np.full(3, 1 / 900))
    ((name, span_s),) = asked.items()
    with pytest.raises(ConfigError) as caught:
        build_vocabulary(given, TokensConfig(**asked))
    assert str(caught.value) == (
        f'ConfigError[HF-103]: tokens.{name}={span_s:g}: device "wrist" gives one sample every '
        f"900 s; at least one sample in each. Write tokens.{name}=900 or more, or leave it out"
    )
    spec = build_vocabulary(given, TokensConfig(**{name: 900.0})).wearable
    assert spec is not None
    assert spec.window_s == 900.0


def test_a_window_longer_than_a_token_is_refused():
    with pytest.raises(ConfigError, match=r"HF-103.*a token is 600 s"):
        build_vocabulary(statistics(), TokensConfig(wearable_token_s=600, wearable_window_s=900))
    spec = build_vocabulary(statistics(), TokensConfig(wearable_window_s=7200)).wearable
    assert spec is not None
    assert (spec.token_s, spec.window_s) == (7200, 7200)


def test_json_brings_the_same_vocabulary_and_hash(vocabulary):
    again = Vocabulary.from_json(vocabulary.to_json())
    assert again == vocabulary
    assert again.hash == vocabulary.hash
    assert again.to_json() == vocabulary.to_json()
    other = build_vocabulary(statistics(), TokensConfig(value_bins=6))
    assert other.hash != vocabulary.hash


@pytest.mark.parametrize("change", [{"codes": None}, {"targets": ["NEW"]}, {"percentiles": 3}])
def test_what_is_no_vocabulary_is_refused(vocabulary, change):
    text = json.dumps(json.loads(vocabulary.to_json()) | change)
    with pytest.raises(ProtocolError, match="HF-405"):
        Vocabulary.from_json(text)


def test_nothing_to_count_gives_an_empty_vocabulary():
    from healthfm_core.tokens.statistics import merge

    empty = build_vocabulary(merge([]), TokensConfig())
    assert (empty.n_tokens, empty.n_codes, empty.targets, empty.wearable) == (3, 3, (), None)
    token, quantile = empty.place(np.array([1]), np.array([2.0]))
    assert (token.tolist(), quantile.tolist()) == ([1], [0])


def test_target_rates_are_shares_of_all_visits():
    vocabulary = build_vocabulary(statistics(), FIVE_BINS)
    rates = dict(zip(vocabulary.targets, vocabulary.target_rates, strict=True))
    assert rates["DX//B"] == 50 / 2000
    assert rates["MEDS_DEATH"] == 40 / 2000
    assert vocabulary.onset_rates == vocabulary.target_rates  # each subject had one visit with it
    assert vocabulary.label_rate == 100 / 1000
