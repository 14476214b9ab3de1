"""Ridge probes of measured quantities."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from healthfm_core.evaluation.analyses import physiology
from healthfm_core.evaluation.analyses.physiology import QuantityData, ridge_probe


def heart_rates(n: int, seed: int, *, noise: float = 5.0, d: int = 4) -> QuantityData:
    """Beats per minute that two of the states' columns tell but for noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * 3.0
    bpm = 65 + 2 * x[:, 0] - x[:, 1] + noise * rng.normal(size=n)
    return QuantityData(x, bpm, np.arange(n) // 2)


PARTS = (heart_rates(200, 0), heart_rates(100, 1), heart_rates(400, 2))


def rows(parts=PARTS, **changes):
    given = {"arm": "federated", "target": "resting_heart_rate", "bootstraps": 200} | changes
    found = ridge_probe(*parts, rng=np.random.default_rng(0), **given)
    return {row.metric: row for row in found}


def test_the_probe_with_one_penalty_is_scikit_learns_ridge():
    train, _, test = PARTS
    mean, spread = train.x.mean(0), train.x.std(0)
    model = Ridge(alpha=7.0).fit((train.x - mean) / spread, train.value)
    said = model.predict((test.x - mean) / spread)
    found = rows(penalties=(7.0,))
    assert found["r2"].value == pytest.approx(r2_score(test.value, said))
    rmse = np.sqrt(np.mean((said - test.value) ** 2)) / train.value.std()
    assert found["rmse"].value == pytest.approx(rmse)
    assert found["rmse"].n_subjects == 200


def test_most_intervals_hold_what_the_same_probe_scores_on_very_many():
    """18 of these 20 do, 185 of 200; and all know less than 45 / 70, the signal's share."""
    truth = rows((*PARTS[:2], heart_rates(100_000, 7)), bootstraps=2)["r2"].value
    assert 0.62 < truth < 45 / 70
    held = 0
    for seed in range(20):
        found = rows((*PARTS[:2], heart_rates(400, 100 + seed)))["r2"]
        assert found.low < found.value < found.high
        held += found.low < truth < found.high
    assert held >= 17


def test_replicates_are_the_scores_of_the_drawn_rows():
    rng = np.random.default_rng(0)
    y, said = rng.normal(size=60), rng.normal(size=60)
    subject = np.repeat(np.arange(20), 3)
    draws = physiology.draw_subjects(subject, 4, rng)
    found = physiology._scores(y, said, subject, draws)
    for i in range(4):
        times = np.repeat(np.arange(60), draws.weight[i][subject].astype(int))
        assert found["r2"].replicates[i] == pytest.approx(r2_score(y[times], said[times]), abs=1e-4)


def test_states_that_hold_nothing_say_the_training_mean():
    blind = [QuantityData(np.zeros_like(part.x), part.value, part.subject) for part in PARTS]
    found = rows(blind)
    train, _, test = (part.value for part in PARTS)
    wanted = np.sqrt(np.mean((test - train.mean()) ** 2)) / train.std()
    assert found["rmse"].value == pytest.approx(wanted)
    assert -0.02 < found["r2"].value <= 0.0


def test_the_penalty_that_tunes_best_is_taken():
    wide = tuple(heart_rates(n, i, d=60, noise=10.0) for i, n in enumerate((70, 200, 400)))
    assert rows(wide)["rmse"].value < rows(wide, penalties=(1e-3,))["rmse"].value


def test_rows_that_were_not_measured_are_left_out():
    gaps = [
        QuantityData(p.x, np.where(np.arange(len(p.value)) % 2, p.value, np.nan), p.subject)
        for p in PARTS
    ]
    assert rows(gaps)["rmse"].n_subjects == 200
    assert np.isfinite(rows(gaps)["rmse"].value)


def test_a_quantity_that_never_differs_is_not_probed():
    flat = QuantityData(PARTS[0].x, np.full(200, 60.0), PARTS[0].subject)
    assert rows((flat, *PARTS[1:])) == {}
