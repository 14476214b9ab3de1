"""How evenly the state moves from day to day, and whether it leaps when something happens.

Never shown alone: a state that is constant is perfectly smooth and knows nothing. Every row
carries the score of a probe on the same states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Int

from healthfm_core.arrays import Bool, Float64, Floats, Int64
from healthfm_core.evaluation.metrics.bootstrap import Draws, Estimate, draw_subjects
from healthfm_core.evaluation.metrics.metric_rows import MetricRow

DAY: Final = 1.0
TOLERANCE_DAYS: Final = 0.25
"""A state within this of a day later stands for the state a day later."""


@dataclass(frozen=True)
class StateTrace:
    """n states of subjects at times, in any order.

    Attributes:
        subject: [n] int64.
        t_days: [n] days from any common start.
        z: [n, d].
    """

    subject: Int[np.ndarray, " n"]
    t_days: Float[np.ndarray, " n"]
    z: Float[np.ndarray, "n d"]


@dataclass(frozen=True)
class EventTimes:
    """m major events: an admission, a first diagnosis.

    Attributes:
        subject: [m] int64.
        t_days: [m] days from the same start as the states'.
    """

    subject: Int[np.ndarray, " m"]
    t_days: Float[np.ndarray, " m"]


@dataclass(frozen=True)
class SmoothnessRow:
    """One arm's smoothness beside what its states are worth.

    Attributes:
        arm: Whose states.
        step: Mean of ‖z(t + 1 d) − z(t)‖ / ‖z(t)‖ over days without a major event.
        step_low: Lower end of the 95 % interval.
        step_high: Upper end.
        spike: The same over days with one, divided by `step`; 1 is no leap.
        spike_low: Lower end.
        spike_high: Upper end.
        n_subjects: People with a day to judge.
        probe: What the probe was asked.
        probe_metric: The probe's metric.
        probe_value: Its value on the same states.
        probe_low: Lower end.
        probe_high: Upper end.
    """

    arm: str
    step: float
    step_low: float
    step_high: float
    spike: float
    spike_low: float
    spike_high: float
    n_subjects: int
    probe: str
    probe_metric: str
    probe_value: float
    probe_low: float
    probe_high: float


def smoothness_row(
    states: StateTrace,
    happenings: EventTimes,
    probe: MetricRow,
    *,
    bootstraps: int,
    rng: np.random.Generator,
    tolerance_days: float = TOLERANCE_DAYS,
) -> SmoothnessRow:
    """Return the smoothness of an arm's states, beside its probe.

    Args:
        states: The path of each subject; pairs a day apart are compared.
        happenings: A day from t to t + 1 d has a major event if one lies in (t, t + 1 d].
        probe: The score of a probe on this arm's states; names the arm.
        bootstraps: Number of replicates over subjects.
        rng: Where the draws come from.
        tolerance_days: How far from a day later a state may be.
    """
    subject, step, eventful = _steps(states, happenings, tolerance_days)
    draws = draw_subjects(subject, bootstraps, rng)
    quiet, spike = _estimates(subject, step, eventful, draws)
    return SmoothnessRow(
        probe.arm,
        quiet.value,
        *quiet.interval(),
        spike.value,
        *spike.interval(),
        len(draws.subjects),
        probe.task,
        probe.metric,
        probe.value,
        probe.low,
        probe.high,
    )


def _steps(
    states: StateTrace, happenings: EventTimes, tolerance_days: float
) -> tuple[Int64, Float64, Bool]:
    """Subject, relative step and whether something happened, for each pair a day apart."""
    order = np.lexsort((states.t_days, states.subject))
    subject, z = states.subject[order].astype(np.int64), states.z[order].astype(np.float64)
    at, happened = _on_one_line(subject, states.t_days[order], happenings)
    later, length = _nearest(at, at + DAY), np.linalg.norm(z, axis=1)
    near = np.abs(at[later] - at - DAY) <= tolerance_days
    first = np.flatnonzero(near & (later > np.arange(len(at))) & (length > 0))
    step = np.linalg.norm(z[later[first]] - z[first], axis=1) / length[first]
    until = np.searchsorted(happened, at[first] + DAY, side="right")
    before = np.searchsorted(happened, at[first], side="right")
    return subject[first], step, until > before


def _on_one_line(subject: Int64, t_days: Floats, happenings: EventTimes) -> tuple[Float64, Float64]:
    """Times of states [n] and of what happened to them, person after person, days apart."""
    people = np.unique(subject)
    known = np.isin(happenings.subject, people)
    when = happenings.t_days[known].astype(np.float64)
    every = np.r_[t_days.astype(np.float64), when]
    whose = np.searchsorted(people, np.r_[subject, happenings.subject[known]])
    apart = np.ptp(every) + 4.0 * DAY if len(every) else 0.0
    line = whose * apart + every
    return line[: len(subject)], np.sort(line[len(subject) :])


def _nearest(key: Float64, wanted: Float64) -> Int64:
    """Return the place in ascending `key` that is nearest to each wanted value."""
    right = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
    left = np.maximum(right - 1, 0)
    is_left = np.abs(key[left] - wanted) <= np.abs(key[right] - wanted)
    return np.where(is_left, left, right).astype(np.int64)


def _estimates(
    subject: Int64, step: Float64, eventful: Bool, draws: Draws
) -> tuple[Estimate, Estimate]:
    """Mean step of quiet days, and that of eventful days divided by it."""
    cell = eventful.astype(np.int64)
    index = draws.index(subject) if len(subject) else subject
    total, days = draws.sums(index, cell, 2, step), draws.sums(index, cell, 2)
    means = _ratio(total, days)
    whole = _ratio(
        np.bincount(cell, weights=step, minlength=2)[None].astype(np.float64),
        np.bincount(cell, minlength=2)[None].astype(np.float64),
    )
    quiet = Estimate(whole[0, 0].item(), means[:, 0])
    spike = Estimate(_ratio(whole[:, 1], whole[:, 0]).item(), _ratio(means[:, 1], means[:, 0]))
    return quiet, spike


def _ratio(above: Float64, below: Float64) -> Float64:
    """Quotient; NaN where the divisor is not above 0."""
    return np.asarray(np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0))
