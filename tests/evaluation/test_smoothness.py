"""Steps of a state from day to day, and the leap when something happens."""

from __future__ import annotations

import numpy as np
import pytest

from healthfm_core.evaluation.analyses.smoothness import EventTimes, StateTrace, smoothness_row
from healthfm_core.evaluation.metrics.metric_rows import MetricRow

PROBE = MetricRow("federated", "death", "overall", "auroc", 0.8, 0.7, 0.9, 50)


def row(subject, t_days, z, events=(), **changes):
    whose, when = zip(*events, strict=True) if events else ((), ())
    states = StateTrace(np.array(subject, np.int64), np.array(t_days, float), np.array(z, float))
    happenings = EventTimes(np.array(whose, np.int64), np.array(when, float))
    given = {"bootstraps": 20, "rng": np.random.default_rng(0)} | changes
    return smoothness_row(states, happenings, PROBE, **given)


def test_a_step_is_relative_to_the_state_it_starts_from():
    """‖(0, 2)‖ / ‖(4, 0)‖ = 1/2, then ‖(0, 0)‖ / …= 0: a mean of 1/4."""
    found = row([1, 1, 1], [0, 1, 2], [[4, 0], [4, 2], [4, 2]])
    assert found.step == pytest.approx(0.25)
    assert np.isnan(found.spike)
    assert found.n_subjects == 1


def test_the_spike_is_how_much_larger_a_step_over_an_event_is():
    found = row([1] * 4, [0, 1, 2, 3], [[10], [11], [22], [24.2]], events=[(1, 1.5)])
    assert found.step == pytest.approx(0.1)
    assert found.spike == pytest.approx(10.0)


def test_an_event_counts_on_the_day_that_ends_with_it_and_not_on_the_next():
    z = [[1], [2], [2.2]]
    assert row([1] * 3, [0, 1, 2], z, events=[(1, 1.0)]).spike == pytest.approx(1.0 / 0.1)
    assert row([1] * 3, [0, 1, 2], z, events=[(1, 1.001)]).spike == pytest.approx(0.1 / 1.0)


def test_events_of_others_do_not_count():
    found = row([1] * 2, [0, 1], [[1], [2]], events=[(2, 0.5), (9, 0.5)])
    assert np.isnan(found.spike)
    assert found.step == pytest.approx(1.0)


def test_states_further_than_the_tolerance_from_a_day_later_are_no_pair():
    t = [0, 1.2, 5, 5.6]
    assert row([1] * 4, t, [[1], [1.5], [1], [9]]).step == pytest.approx(0.5)
    assert np.isnan(row([1] * 4, t, [[1], [1.5], [1], [9]], tolerance_days=0.1).step)


def test_the_nearest_state_to_a_day_later_is_taken():
    """Of .8, 1.05 and 1.2 days after the first; those three have no pair of their own."""
    assert row([1] * 4, [0, 0.8, 1.05, 1.2], [[1], [5], [1.1], [5]]).step == pytest.approx(0.1)


def test_no_pair_holds_two_people_whatever_the_order_of_rows():
    found = row([2, 1, 2, 1], [1, 0, 0, 1], [[3], [1], [2], [1.1]])
    assert found.step == pytest.approx((0.1 + 0.5) / 2)
    assert found.n_subjects == 2
    assert np.isnan(row([1, 2], [0, 1], [[1], [2]]).step)


def test_a_constant_is_perfectly_smooth_and_stands_beside_its_probe():
    found = row([1] * 5, range(5), [[3, 3]] * 5, events=[(1, 2.5)])
    assert found.step == 0.0
    assert np.isnan(found.spike)
    assert (found.arm, found.probe, found.probe_metric) == ("federated", "death", "auroc")
    assert (found.probe_value, found.probe_low, found.probe_high) == (0.8, 0.7, 0.9)


def test_the_interval_is_over_people():
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(60), 30)
    t = np.tile(np.arange(30.0), 60)
    z = 5 + np.cumsum(rng.normal(size=(1800, 3)) * 0.1, axis=0)
    events = [(s, 10.5) for s in range(60)]
    z[t > 10] += 2.0
    found = row(subject, t, z, events=events, bootstraps=200)
    assert found.step_low < found.step < found.step_high
    assert 1 < found.spike_low < found.spike < found.spike_high


def test_without_states_there_is_nothing_to_say():
    found = row([], [], np.zeros((0, 2)))
    assert np.isnan(found.step)
    assert found.n_subjects == 0
