"""From stores to sequences: tokens, visits, bins, wearing, scores, labels."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.batch.loader import BatchLoader
from healthfm_core.data.batch.sequences import (
    COUNT_SCALE,
    EVENT,
    STATIC,
    UNKNOWN_TIME,
    WEARABLE,
    Sequences,
)
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.tokens.statistics import site_statistics
from healthfm_core.tokens.tokenizer import tokenize
from healthfm_core.tokens.vocabulary import Vocabulary, build_vocabulary
from tests.tokens.small_store import HOUR_US, Row, write

ONE = TokensConfig(k_min=1, value_bins=2)

ROWS: list[Row] = [
    (1, -1000.0, "MEDS_BIRTH", None),
    (1, None, "SEX//F", None),
    (1, None, "PRS//PGS1", 1.5),
    (1, 1.0, "LAB//K", 3.0),
    (1, 1.0, "DX//A", None),
    (1, 3.0, "LAB//K", 5.0),
    (1, 30.0, "DX//A", None),
    (1, 30.0, "DX//B", None),
    (2, 2.0, "DX//B", None),
    (2, 2.0, "LAB//K", 4.0),
    (2, None, "PRS//PGS2", -9.0),
]
LABELS = {"death": [(1, 20.0, True), (2, 3.0, False), (1, 40.0, False)]}


def study(stores: list[SiteStore], config: TokensConfig = ONE) -> Vocabulary:
    return build_vocabulary(site_statistics(stores, config, split=None), config)


def names(sequences: Sequences, vocabulary: Vocabulary) -> list[str]:
    """The code of every item, its bin behind it where it has a value."""
    first = 3 + len(vocabulary.domains)
    found = []
    for kind, token, code in zip(sequences.kind, sequences.token, sequences.code, strict=True):
        if kind == WEARABLE:
            found.append("worn")
            continue
        name = vocabulary.codes[code - first] if code >= first else f"#{code}"
        bin_ = token - vocabulary.first_token[code]
        found.append(name + (f"/{bin_ - 1}" if bin_ else ""))
    return found


def test_a_store_becomes_sequences(tmp_path):
    store = write(tmp_path / "s", ROWS, labels=LABELS)
    vocabulary = study([store])
    found = tokenize([store], vocabulary, ONE, split="train", task="death")
    assert found.subject_id.tolist() == [1, 2]
    assert found.birth_us.tolist() == [-1000 * HOUR_US, UNKNOWN_TIME]
    assert found.offsets.tolist() == [0, 6, 8]
    assert names(found, vocabulary) == [
        "SEX//F",
        *("LAB//K/0", "DX//A"),
        "LAB//K/1",
        *("DX//A", "DX//B"),
        *("DX//B", "LAB//K/1"),
    ]
    assert found.kind.tolist() == [STATIC] + [EVENT] * 7
    assert (found.time_us / HOUR_US).tolist() == [0, 1, 1, 3, 30, 30, 2, 2]
    assert found.visit.tolist() == [-1, 0, 0, 1, 2, 2, 0, 0]
    assert found.has_value.tolist() == [False, True, False, True, False, False, False, True]
    # one value of each subject was drawn, 3 and 4: 3 lies at 1/4 and 4 at 3/4
    assert found.quantile[found.has_value].tolist() == pytest.approx([-0.5, 0.99, 0.5], abs=0.02)
    assert found.visit_offsets.tolist() == [0, 3, 4]
    assert (found.visit_time_us / HOUR_US).tolist() == [1, 3, 30, 2]
    assert vocabulary.targets == ("DX//B", "DX//A")
    assert found.visit_target_offsets.tolist() == [0, 1, 1, 3, 4]
    assert found.visit_target.tolist() == [1, 0, 1, 0]
    assert vocabulary.panel == ("PGS1", "PGS2")
    assert found.panel.tolist() == [[1.5, 0], [0, -6]]
    assert found.panel_mask.tolist() == [[True, False], [False, True]]
    assert found.label_subject.tolist() == [0, 0, 1]
    assert (found.label_time_us / HOUR_US).tolist() == [20, 40, 3]
    assert found.label_value.tolist() == [1, 0, 0]
    assert found.wearable.shape == (0, 1, 1)


def test_visits_bridge_gaps_up_to_the_configured_one(tmp_path):
    store = write(tmp_path / "s", ROWS)
    config = replace_config(visit_gap_hours=2.0)
    found = tokenize([store], study([store]), config, split=None)
    assert found.visit.tolist() == [-1, 0, 0, 0, 1, 1, 0, 0]
    assert (found.visit_time_us / HOUR_US).tolist() == [1, 30, 2]


def replace_config(**change: float) -> TokensConfig:
    return ONE.model_copy(update=change)


def test_values_in_one_bin_become_their_mean_at_the_last_one_s_time(tmp_path):
    rows: list[Row] = [
        *((1, h, "LAB//K", v) for h, v in ((0.0, 1.0), (1.0, 2.0), (3.0, 6.0), (4.0, 100.0))),
        (1, 1.0, "DX//A", None),
        (1, 3.5, "DX//A", None),
        (1, 2.0, "LAB//K", None),
        (2, 1.0, "LAB//K", 3.0),
    ]
    store = write(tmp_path / "s", rows)
    vocabulary = study([write(tmp_path / "t", [(s, 1.0, "LAB//K", 1.0 * s) for s in range(7)])])
    found = tokenize([store], vocabulary, replace_config(bin_hours=4.0), split=None)
    first = 3 + len(vocabulary.domains)
    assert first == 4
    assert found.code.tolist() == [1, 4, 4, 1, 4, 4]
    assert (found.time_us / HOUR_US).tolist() == [1, 2, 3, 3.5, 4, 1]
    assert found.has_value.tolist() == [False, False, True, False, True, True]
    assert found.quantile[2] == found.quantile[5] == 0  # (1 + 2 + 6) / 3 = 3 is the median of 0…6
    assert found.visit.tolist() == [0, 1, 2, 3, 4, 0]


def test_a_bin_tells_its_mean_lowest_highest_first_last_and_count(tmp_path):
    rows: list[Row] = [
        *((1, h, "LAB//K", v) for h, v in ((0.0, 2.0), (1.0, 1.0), (3.0, 6.0), (4.0, 90.0))),
        (1, 1.0, "DX//A", None),
        (1, None, "LAB//K", 3.0),
    ]
    store = write(tmp_path / "s", rows)
    vocabulary = study([write(tmp_path / "t", [(s, 1.0, "LAB//K", 1.0 * s) for s in range(7)])])
    config = replace_config(bin_hours=4.0, bin_spread=True)
    found = tokenize([store], vocabulary, config, split=None)
    known = found.has_value
    assert known.tolist() == [True, False, True, True]
    code = np.full(1, found.code[0], np.int64)

    def scaled(value: float) -> float:
        return float(vocabulary.standardise(code, np.array([value]))[0])

    several = [3.0, 1.0, 6.0, 2.0, 6.0]
    for row, values in ((0, [3.0] * 5), (2, several), (3, [90.0] * 5)):
        assert found.spread[row, :5].tolist() == [scaled(value) for value in values]
    assert found.spread[:, 5] * COUNT_SCALE == pytest.approx(np.log([2, 2, 4, 2]))
    assert found.spread[1, :5].tolist() == [0] * 5
    assert tokenize([store], vocabulary, ONE, split=None).spread.shape == (6, 0)


def test_codes_the_study_lacks_back_off_and_lose_their_value(tmp_path):
    site = write(
        tmp_path / "s",
        [
            (1, 1.0, "DX//A1", None),
            (1, 2.0, "LAB//OTHER", 7.0),
            (1, 3.0, "odd", 7.0),
            (1, 4.0, "LAB//K1", 5.0),
        ],
        parents={"DX//A1": "DX//A", "LAB//K1": "LAB//K"},
    )
    vocabulary = study([write(tmp_path / "t", ROWS)])
    found = tokenize([site], vocabulary, ONE, split=None)
    assert names(found, vocabulary) == ["DX//A", "#4", "#1", "LAB//K"]
    assert not found.has_value.any()
    assert found.visit_target.tolist() == [vocabulary.targets.index("DX//A")]


# Two windows of 30 min per hour, one sample per 10 min: F = 2 channels × 3 samples.
WORN_CONFIG = ONE.model_copy(update={"wearable_window_s": 1800.0})
WORN = [
    (1, 0.5, "hr", 1 / 600, [60.0, 70.0, None, 80.0]),  # 0:30, 0:40, 0:50, 1:00
    (1, 0.5, "steps", 1 / 600, [None, 4.0]),
    (2, 5.0, "hr", 1 / 600, [None, None]),  # nothing observed: no token
    (2, 7.0, "hr", 1 / 600, [90.0]),
]


def test_wearing_becomes_tokens_of_windows_with_their_masks(tmp_path):
    store = write(tmp_path / "s", ROWS, worn=WORN)
    vocabulary = study([store], WORN_CONFIG)
    spec = vocabulary.wearable
    assert spec is not None
    assert (spec.windows, spec.features, spec.channels) == (2, 6, ("hr", "steps"))
    assert spec.mean[0] == pytest.approx((70 + 90) / 2)
    found = tokenize([store], vocabulary, WORN_CONFIG, split=None)
    assert names(found, vocabulary) == [
        "SEX//F",
        *("LAB//K/0", "DX//A", "worn", "worn"),  # ends at 1 h: behind the events of 1 h; then 2 h
        *("LAB//K/1", "DX//A", "DX//B"),
        *("DX//B", "LAB//K/1", "worn"),
    ]
    worn = found.kind == WEARABLE
    assert (found.time_us[worn] / HOUR_US).tolist() == [1, 2, 8]
    assert found.visit[worn].tolist() == [-1, -1, -1]
    assert found.wearable_row[worn].tolist() == [0, 1, 2]
    seen = np.zeros((3, 2, 6), np.bool_)
    seen[0, 1, [0, 1, 4]] = seen[1, 0, 0] = seen[2, 0, 0] = True
    np.testing.assert_array_equal(found.wearable_mask, seen)
    raw = found.wearable * np.repeat(spec.sd, 3) + np.repeat(spec.mean, 3)
    assert raw[seen].tolist() == pytest.approx([60, 70, 4, 80, 90], rel=1e-6)
    assert not found.wearable[~seen].any()


def test_a_channel_or_device_the_study_lacks_is_left_out(tmp_path):
    vocabulary = study([write(tmp_path / "t", ROWS, worn=WORN[:1])], WORN_CONFIG)
    site = write(tmp_path / "s", ROWS, worn=WORN)
    found = tokenize([site], vocabulary, WORN_CONFIG, split=None)
    assert found.wearable.shape == (3, 2, 3)
    other = write(tmp_path / "o", ROWS, worn=WORN, device="ring")
    assert tokenize([other], vocabulary, WORN_CONFIG, split=None).wearable.shape == (0, 2, 3)


def test_a_day_level_device_gives_a_token_per_day(tmp_path):
    day = 24.0
    worn = [(1, d * day, "steps", 1 / 86400, [d]) for d in (1.0, 2.0)]
    worn += [(1, 3 * day, "steps", 1 / 86400, [3.0, None, 5.0])]
    store = write(tmp_path / "s", ROWS, worn=worn)
    vocabulary = study([store])
    assert vocabulary.wearable is not None
    assert vocabulary.wearable.token_s == pytest.approx(86400)
    found = tokenize([store], vocabulary, ONE, split=None)
    worn_at = found.time_us[found.kind == WEARABLE] / HOUR_US / 24
    assert worn_at.tolist() == [2, 3, 4, 6]
    assert found.wearable.shape == (4, 1, 1)


def test_long_recordings_are_read_in_pieces(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    samples = [float(x) for x in rng.normal(size=500)]
    worn = [(s, 0.25 * s, "hr", 1 / 60, samples[: 100 * s]) for s in range(1, 6)]
    store = write(tmp_path / "s", ROWS, worn=worn)
    whole = tokenize([store], study([store]), ONE, split=None)
    monkeypatch.setattr("healthfm_core.tokens.wearing._SAMPLES_AT_ONCE", 150)
    assert_same(tokenize([store], study([store]), ONE, split=None), whole)


def test_a_view_without_a_modality_is_as_if_the_site_never_had_it(tmp_path):
    store = write(tmp_path / "s", ROWS, worn=WORN, labels=LABELS)
    vocabulary = study([store], WORN_CONFIG)
    only = SiteStore.open(store.path, modalities=("wearable",))
    found = tokenize([only], vocabulary, WORN_CONFIG, split=None, task="death")
    assert set(found.kind.tolist()) == {WEARABLE}
    assert not found.panel_mask.any()
    assert found.visit_offsets.tolist() == [0, 0, 0]
    assert found.birth_us[0] == UNKNOWN_TIME
    assert len(found.label_subject) == 3
    clinic = SiteStore.open(store.path, modalities=("ehr",))
    assert WEARABLE not in tokenize([clinic], vocabulary, WORN_CONFIG, split=None).kind


def test_stores_follow_one_another_and_keep_their_site(tmp_path):
    parts = [
        write(tmp_path / "a", ROWS, worn=WORN, labels=LABELS),
        write(tmp_path / "b", [(9, 1.0, "DX//A", None)]),
        write(tmp_path / "c", ROWS, worn=WORN, labels=LABELS),
    ]
    vocabulary = study(parts, WORN_CONFIG)
    found = tokenize(parts, vocabulary, WORN_CONFIG, split=None, task="death")
    assert found.site.tolist() == [0, 0, 1, 2, 2]
    alone = tokenize(parts[2:], vocabulary, WORN_CONFIG, split=None, task="death")
    n, h = len(alone.kind), len(alone.wearable)
    assert np.array_equal(found.token[-n:], alone.token)
    assert np.array_equal(found.offsets[-3:] - found.offsets[-3], alone.offsets)
    worn = alone.wearable_row >= 0
    assert np.array_equal(
        found.wearable_row[-n:][worn] - (len(found.wearable) - h), alone.wearable_row[worn]
    )
    assert np.array_equal(found.label_subject[-3:] - 3, alone.label_subject)
    assert found.visit_offsets[-1] == len(found.visit_time_us)
    assert found.visit_target_offsets[-1] == len(found.visit_target)
    columns = (np.asarray(getattr(found, field.name)) for field in fields(Sequences))
    assert all(column.flags.c_contiguous for column in columns)


def test_a_split_holds_its_people_only_and_an_empty_one_is_empty(tmp_path):
    store = write(tmp_path / "s", ROWS, worn=WORN, labels=LABELS, splits={2: "tuning"})
    vocabulary = study([store], WORN_CONFIG)
    found = tokenize([store], vocabulary, WORN_CONFIG, split="tuning", task="death")
    assert found.subject_id.tolist() == [2]
    assert found.label_subject.tolist() == [0]
    assert found.label_value.tolist() == [0]
    empty = tokenize([store], vocabulary, WORN_CONFIG, split="held_out", task="death")
    assert empty.n_subjects == 0
    loader = BatchLoader(
        empty, ONE, n_targets=2, windows=2, features=6, soft_tokens={"genomics": 1}
    )
    for query in ("sep", "now", "label"):
        assert loader.n_rows(query) == 0
        assert list(loader.in_order(batch_size=2, query=query)) == []
        assert list(loader.epoch(np.random.default_rng(0), batch_size=2, query=query)) == []


def test_the_same_record_gives_the_same_sequences_and_dtypes(tmp_path):
    store = write(tmp_path / "s", ROWS, worn=WORN, labels=LABELS)
    vocabulary = study([store], WORN_CONFIG)
    one, two = (
        tokenize([store], vocabulary, WORN_CONFIG, split=None, task="death") for _ in range(2)
    )
    assert_same(one, two)
    wanted = {
        "site": np.int32,
        "kind": np.uint8,
        "token": np.int32,
        "quantile": np.float32,
        "visit": np.int32,
        "visit_target": np.int32,
        "label_value": np.float32,
    }
    assert {name: getattr(one, name).dtype for name in wanted} == wanted


def assert_same(one: Sequences, other: Sequences) -> None:
    for field in fields(Sequences):
        a, b = (np.asarray(getattr(part, field.name)) for part in (one, other))
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_a_bin_ends_at_a_prediction_time_so_that_nothing_known_by_then_is_hidden(tmp_path):
    rows: list[Row] = [(1, h, "LAB//K", v) for h, v in ((1.0, 1.0), (2.0, 3.0), (3.0, 6.0))]
    store = write(tmp_path / "s", rows, labels={"death": [(1, 2.0, True)]})
    vocabulary = study([write(tmp_path / "t", [(s, 1.0, "LAB//K", 1.0 * s) for s in range(7)])])
    config = replace_config(bin_hours=1000.0)
    asked = tokenize([store], vocabulary, config, split=None, task="death")
    assert (asked.time_us / HOUR_US).tolist() == [2, 3]
    at_two, at_six = vocabulary.place(asked.code.astype(np.int64), np.array([2.0, 6.0]))[1]
    assert asked.quantile.tolist() == [at_two, at_six]
    assert len(tokenize([store], vocabulary, config, split=None).kind) == 1


def test_codes_without_values_fall_into_bins_where_their_number_is_told(tmp_path):
    rows: list[Row] = [(1, h, "DX//A", None) for h in (1.0, 2.0, 3.0, 5.0)]
    store = write(tmp_path / "s", rows)
    found = tokenize(
        [store], study([store]), replace_config(bin_hours=4.0, bin_spread=True), split=None
    )
    assert (found.time_us / HOUR_US).tolist() == [3, 5]
    assert found.spread[:, :5].tolist() == [[0] * 5] * 2
    assert found.spread[:, 5] * COUNT_SCALE == pytest.approx(np.log([4, 2]))
