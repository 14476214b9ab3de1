"""What a fair baseline reads: every modality, up to where a model may know, in exact numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from healthfm_core.data.batch.sequences import EVENT, STATIC, WEARABLE, Sequences
from healthfm_core.evaluation.baselines.history_features import (
    FeatureColumns,
    HistoryCuts,
    history_features,
)
from healthfm_core.modalities.registry import modality_names

HOUR = 3_600_000_000
DAY = 24 * HOUR


@pytest.fixture
def person() -> Sequences:
    """One person born at 0: sex, a visit on day 100, worn hours, visits on days 150 and 160."""
    rows = [  # kind, code, time, visit, worn row, quantile, has value
        (STATIC, 9, 0, -1, -1, 0.0, False),
        (WEARABLE, 0, 100 * DAY - 30 * HOUR, -1, 0, 0.0, False),
        (WEARABLE, 0, 100 * DAY - HOUR, -1, 1, 0.0, False),
        (EVENT, 3, 100 * DAY, 0, -1, 0.5, True),
        (EVENT, 4, 100 * DAY, 0, -1, 0.0, False),
        (WEARABLE, 0, 150 * DAY - HOUR, -1, 2, 0.0, False),
        (EVENT, 3, 150 * DAY, 1, -1, -0.5, True),
        (EVENT, 4, 160 * DAY, 2, -1, 0.0, False),
    ]
    kind, code, time, visit, worn, quantile, valued = (np.array(c) for c in zip(*rows, strict=True))
    value = np.array([[[1.0, 3.0]], [[5.0, 0.0]], [[9.0, 9.0]]], np.float32)
    return Sequences(
        subject_id=np.array([70]),
        site=np.array([1], np.int32),
        birth_us=np.array([0]),
        offsets=np.array([0, len(rows)]),
        kind=kind.astype(np.uint8),
        token=code.astype(np.int32),
        code=code.astype(np.int32),
        quantile=quantile.astype(np.float32),
        spread=np.zeros((len(rows), 0), np.float32),
        has_value=valued.astype(np.bool_),
        time_us=time.astype(np.int64),
        visit=visit.astype(np.int32),
        wearable_row=worn.astype(np.int64),
        wearable=value,
        wearable_mask=value > 0,
        panel=np.array([[1.5, 0.0]], np.float32),
        panel_mask=np.array([[True, False]]),
        visit_offsets=np.array([0, 3]),
        visit_time_us=np.array([100, 150, 160]) * DAY,
        visit_target_offsets=np.array([0, 2, 3, 4]),
        visit_target=np.array([0, 1, 0, 1], np.int32),
        label_subject=np.zeros(0, np.int64),
        label_time_us=np.zeros(0, np.int64),
        label_value=np.zeros(0, np.float32),
        panel_names=("PGS1", "PGS2"),
    )


@pytest.fixture
def columns(person: Sequences) -> FeatureColumns:
    return FeatureColumns.choose(person, channels=2, sites=3)


def at_visits(person: Sequences, columns: FeatureColumns, visits: list[int]):
    found = history_features(person, HistoryCuts.before_visits(person, np.array(visits)), columns)
    return {name: found.x[:, block] for name, block in found.blocks.items()}


def test_every_modality_has_numbers(person: Sequences, columns: FeatureColumns):
    found = at_visits(person, columns, [1])
    assert set(found) == {"query", "site", *modality_names()}
    assert all(found[name].any() for name in modality_names())


def test_each_code_is_counted_by_window_with_when_it_was_last_and_its_values(
    person: Sequences, columns: FeatureColumns
):
    assert columns.codes.tolist() == [3, 4, 9]
    before_third = at_visits(person, columns, [2])["ehr"].reshape(7, 3)
    np.testing.assert_allclose(np.expm1(before_third[0]), [2, 1, 1], rtol=1e-6)  # ever
    np.testing.assert_allclose(np.expm1(before_third[1]), [1, 0, 0], rtol=1e-6)  # 30 days
    np.testing.assert_allclose(np.expm1(before_third[2]), [2, 1, 0], rtol=1e-6)  # a year
    assert before_third[3].tolist() == [1, 0, 0]  # the last visit
    np.testing.assert_allclose(np.expm1(before_third[4]), [0, 50, 0], atol=1e-4)  # days since
    assert before_third[5].tolist() == [-0.5, 0, 0]  # last value
    assert before_third[6].tolist() == [0, 0, 0]  # mean value


def test_each_channel_is_averaged_and_counted_by_window(person: Sequences, columns: FeatureColumns):
    second = at_visits(person, columns, [1])["wearable"][0]
    since, worn = second[:2]
    assert np.expm1(since) == pytest.approx(1 / 24, rel=1e-5)
    assert worn == 1
    windows = second[2:].reshape(8, 2, 2)  # window, channel, (mean, count)
    means, counts = windows[..., 0], np.expm1(windows[..., 1])
    np.testing.assert_allclose(means[0], [5, 0])  # the last hour
    np.testing.assert_allclose(means[2], [5, 0])  # the last day
    np.testing.assert_allclose(means[3], [3, 3])  # three days
    np.testing.assert_allclose(means[6], [5, 0])  # the last worn hour
    np.testing.assert_allclose(means[7], [3, 3])  # ever
    np.testing.assert_allclose(counts[7], [2, 1], rtol=1e-6)


def test_a_score_stands_beside_whether_it_is_there(person: Sequences, columns: FeatureColumns):
    assert at_visits(person, columns, [1])["genomics"].tolist() == [[1.5, 0.0, 1.0, 0.0]]


def test_age_gap_and_visits_so_far_and_the_site(person: Sequences, columns: FeatureColumns):
    found = at_visits(person, columns, [1, 2])
    np.testing.assert_allclose(found["query"][:, 0] * 3652.5, [150, 160], rtol=1e-5)
    assert found["query"][:, 1].tolist() == [1, 1]
    np.testing.assert_allclose(np.expm1(found["query"][:, 2]), [50, 10], rtol=1e-5)
    np.testing.assert_allclose(np.expm1(found["query"][:, 3]), [1, 2], rtol=1e-5)
    assert found["site"].tolist() == [[0, 1, 0], [0, 1, 0]]


def test_nothing_after_the_visit_before_is_read(person: Sequences, columns: FeatureColumns):
    later = person.time_us > 100 * DAY
    other = replace(
        person,
        code=np.where(later & (person.kind == EVENT), 9, person.code).astype(np.int32),
        quantile=np.where(later, 0.9, person.quantile).astype(np.float32),
        wearable=np.where(np.arange(3)[:, None, None] == 2, 77, person.wearable).astype(np.float32),
    )
    as_it_was, changed = (at_visits(s, columns, [1]) for s in (person, other))
    for name in as_it_was:
        np.testing.assert_array_equal(as_it_was[name], changed[name])


def test_who_lacks_a_modality_has_zeros_there(person: Sequences, columns: FeatureColumns):
    worn = person.kind == WEARABLE
    bare = replace(
        person,
        kind=person.kind[~worn],
        token=person.token[~worn],
        code=person.code[~worn],
        quantile=person.quantile[~worn],
        spread=person.spread[~worn],
        has_value=person.has_value[~worn],
        time_us=person.time_us[~worn],
        visit=person.visit[~worn],
        wearable_row=person.wearable_row[~worn],
        wearable=person.wearable[:0],
        wearable_mask=person.wearable_mask[:0],
        offsets=np.array([0, int((~worn).sum())]),
        panel_mask=np.zeros((1, 2), np.bool_),
        panel=np.zeros((1, 2), np.float32),
    )
    found = at_visits(bare, columns, [1, 2])
    assert not found["wearable"].any()
    assert not found["genomics"].any()
    assert found["ehr"].any()
