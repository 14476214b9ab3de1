from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from healthfm_core.data.store.genetics import score_events, site_z
from healthfm_core.errors import StoreError


def scores(z: list[float | None], score: str = "PGS000018") -> pa.Table:
    ids = pa.array(range(len(z)), pa.int64())
    return pa.table({"subject_id": ids, "score": [score] * len(z), "z": pa.array(z, pa.float64())})


def test_scores_are_clipped_and_an_absent_one_is_no_row():
    rows = score_events(scores([0.5, -9.0, None, float("nan")]))
    assert rows["subject_id"].to_pylist() == [0, 1]
    assert rows["numeric_value"].to_pylist() == [0.5, -6.0]
    assert rows["code"].to_pylist() == ["PRS//PGS000018"] * 2
    assert rows["time"].null_count == 2


@pytest.mark.parametrize(("mean", "sd"), [(-1069.0, 300.0), (0.0, 40.0), (3.0, 0.5)])
def test_raw_sums_are_refused(mean, sd):
    raw = np.random.default_rng(0).normal(mean, sd, 200)
    with pytest.raises(StoreError, match=r"HF-211.*do not look like z"):
        score_events(scores(raw.tolist()))


def test_normalised_scores_of_a_shifted_site_pass():
    z = np.random.default_rng(0).normal(0.8, 1.1, 200)
    assert score_events(scores(z.tolist())).num_rows == 200


def test_a_score_twice_is_refused():
    with pytest.raises(StoreError, match="HF-204"):
        score_events(pa.concat_tables([scores([0.1]), scores([0.2])]))


def test_site_z_has_mean_zero_and_spread_one():
    z = site_z(np.array([1.0, 3.0, np.nan]))
    np.testing.assert_allclose(z, [-1.0, 1.0, np.nan])


@pytest.mark.parametrize("total", [[1.0], [2.0, 2.0], []])
def test_a_score_without_spread_cannot_be_standardised(total):
    with pytest.raises(StoreError, match="HF-211"):
        site_z(np.array(total))
