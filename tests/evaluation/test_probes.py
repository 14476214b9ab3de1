"""Linear probes: how the k are drawn, and that what is found is what scikit-learn finds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from healthfm_core.evaluation.analyses import probes
from healthfm_core.evaluation.analyses.probes import ProbeData, linear_probe, standardise
from healthfm_core.evaluation.metrics.calibration_error import recalibrate
from healthfm_core.evaluation.metrics.ranking import auroc


def states(n: int, seed: int, *, d: int = 6, signal: float = 2.0, rate: float = 0.4) -> ProbeData:
    """States whose first column tells the outcome, on very different scales."""
    rng = np.random.default_rng(seed)
    outcome = rng.random(n) < rate
    x = rng.normal(size=(n, d))
    x[:, 0] += signal * outcome
    return ProbeData((x * 10.0 ** np.arange(d) + 5.0), outcome, np.arange(n))


TRAIN, TUNING, TEST = states(300, 0), states(200, 1), states(400, 2)


def probed(**changes):
    given = {"arm": "federated", "task": "death", "rng": np.random.default_rng(0)} | changes
    return linear_probe(TRAIN, TUNING, TEST, **given)


def test_rows_are_three_draws_of_every_k_that_both_classes_fill_and_all_rows_once():
    found = probed(strengths=(0.1,))
    ks = [row.k for row in found.rows]
    assert ks[:-1] == [k for k in probes.SHOTS if k <= 128 for _ in range(3)][: len(ks) - 1]
    cases = min(TRAIN.outcome.sum(), (~TRAIN.outcome).sum())
    assert max(k for k in ks if k) == max(k for k in probes.SHOTS if k <= cases)
    assert found.rows[-1].k is None
    assert found.rows[-1].n_train == 300
    assert [row.n_train for row in found.rows[:6]] == [2, 2, 2, 4, 4, 4]


def test_more_labels_find_what_the_states_hold():
    found = {(row.k, row.replicate): row for row in probed().rows}
    few = np.mean([found[1, i].auroc for i in range(3)])
    assert found[None, 0].auroc > 0.9 > few
    assert np.mean([found[64, i].auroc for i in range(3)]) > few


def test_smaller_draws_lie_within_larger_ones_of_the_same_replicate():
    drawn = list(probes._nested(TRAIN, TUNING, (1, 4, 16), np.random.default_rng(0)))
    for _, fitted, chosen in drawn:
        assert fitted.outcome.sum() * 2 == len(fitted.outcome)
        assert chosen.outcome.sum() * 2 == len(chosen.outcome)
    for (_, small, few), (_, large, more) in pairwise(drawn):
        assert set(small.subject) < set(large.subject)
        assert set(few.subject) < set(more.subject)


def test_the_probe_on_all_rows_is_scikit_learns_regression():
    train, tuning, test = standardise(TRAIN.x, TUNING.x, TEST.x)
    parts = [ProbeData(x, of.outcome, of.subject) for x, of in ((train, TRAIN), (tuning, TUNING))]
    _, score, _ = probes._fit(
        *parts, ProbeData(test, TEST.outcome, TEST.subject), strengths=(0.01,)
    )
    model = LogisticRegression(C=0.01).fit(train, TRAIN.outcome)
    wanted = model.decision_function(test)
    assert score == pytest.approx(wanted, abs=1e-3)
    found = probed(strengths=(0.01,))
    assert found.rows[-1].auroc == pytest.approx(auroc(wanted, TEST.outcome))
    assert found.predictions.outcome.tolist() == TEST.outcome.tolist()
    assert found.predictions.subject.tolist() == TEST.subject.tolist()


def test_predictions_keep_their_order_and_are_calibrated_under_any_penalty():
    """At C = 1e-8 the regression's own probabilities all but equal the prevalence."""
    found = probed(strengths=(1e-8,))
    of = found.predictions
    assert auroc(of.score, of.outcome) == pytest.approx(found.rows[-1].auroc, abs=1e-4)
    assert of.score.std() > 0.2
    assert of.score.mean() == pytest.approx(of.outcome.mean(), abs=0.06)
    assert recalibrate(of.score, of.outcome)[1] == pytest.approx(1.0, abs=0.3)


def test_scores_that_cannot_be_fitted_keep_their_order():
    outcome = np.arange(10) >= 5
    asked = np.linspace(-1, 1, 7)
    separated = probes.risks(np.arange(10.0), outcome, asked)
    turned = probes.risks(-np.arange(10.0) % 7, outcome, asked)
    assert (np.diff(separated) > 0).all()
    assert (np.diff(turned) > 0).all()
    assert probes.risks(np.ones(10), outcome, asked) == pytest.approx(0.5)


def test_fewer_rows_than_columns_are_fitted_in_their_own_span_to_the_same_answer():
    wide = [states(n, i, d=40, signal=1.0) for i, n in enumerate((24, 60, 80))]
    wide = [ProbeData(part.x / 10.0 ** np.arange(40), part.outcome, part.subject) for part in wide]
    _, score, strength = probes._fit(*wide, strengths=(0.3,))
    direct = LogisticRegression(C=0.3, tol=1e-8).fit(wide[0].x, wide[0].outcome)
    assert strength == 0.3
    assert probes._rotation(wide[0].x).shape == (40, 24)
    assert score == pytest.approx(direct.decision_function(wide[2].x), abs=1e-2)


def test_the_penalty_is_chosen_by_the_tuning_rows():
    """Ten signal-free states for 30 rows: a weak penalty fits noise."""
    rng = np.random.default_rng(3)
    parts = []
    for n in (30, 400, 400):
        outcome = rng.random(n) < 0.5
        x = rng.normal(size=(n, 25))
        x[:, :20] += 0.35 * outcome[:, None]
        parts.append(ProbeData(x, outcome, np.arange(n)))
    _, _, strength = probes._fit(*parts, strengths=probes.STRENGTHS)
    by_strength = {}
    for c in (strength, 1e4):
        _, score, _ = probes._fit(*parts, strengths=(c,))
        by_strength[c] = auroc(score, parts[2].outcome)
    assert strength < 1e4
    assert by_strength[strength] > by_strength[1e4]


def test_a_column_without_spread_is_nothing():
    train, other = standardise(np.array([[1.0, 7.0], [3.0, 7.0]]), np.array([[2.0, 9.0]]))
    assert train.tolist() == [[-1, 0], [1, 0]]
    assert other.tolist() == [[0, 0]]


def test_without_both_classes_there_is_no_probe():
    only = ProbeData(TUNING.x, np.zeros(len(TUNING.outcome), bool), TUNING.subject)
    found = linear_probe(
        TRAIN, only, TEST, arm="a", task="t", rng=np.random.default_rng(0), strengths=(1.0,)
    )
    assert found.rows == ()
    assert len(found.predictions) == 0
