"""How the training went: curves, the kernel's half-lives, the clock."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from healthfm_core.evaluation.report import plots
from healthfm_core.evaluation.report.report_context import ReportContext
from healthfm_core.evaluation.report.wording import arm_name, duration

CURVES_FIRST: Final = (
    "tuning_average_precision_new_onset",
    "tuning_average_precision",
    "tuning_auroc_new_onset",
    "tuning_auroc",
)
MOST_CURVES: Final = 4
MOST_SITES: Final = 8
"""Sites that have a line each: more lines than colours and markers cannot be told apart."""


def curves_figure(context: ReportContext, arms: Sequence[str]) -> str:
    """Learning curves over rounds; empty where no arm has a number in two rounds."""
    return _curves(context.history, arms, "curves", MOST_CURVES)


def site_curves_figure(context: ReportContext) -> str:
    """Each site's own curve; empty where none tells one, or they are too many to tell apart."""
    if len(context.site_history) > MOST_SITES:
        return ""
    return _curves(context.site_history, sorted(context.site_history), "site-curves", 2)


def _curves(
    history: Mapping[str, Sequence[Mapping[str, object]]],
    arms: Sequence[str],
    name: str,
    most: int,
) -> str:
    curves = {arm: _series(records) for arm, records in history.items()}
    found = list(dict.fromkeys(metric for series in curves.values() for metric in series))
    first = [metric for metric in CURVES_FIRST if metric in found]
    losses = [metric for metric in found if metric.startswith("loss")]
    chosen = (first + [metric for metric in losses if metric not in first])[:most]
    drawn = {
        arm: {metric: series[metric] for metric in chosen if metric in series}
        for arm, series in curves.items()
    }
    if not any(drawn.values()):
        return ""
    return plots.learning_curves(drawn, list(dict.fromkeys([*arms, *drawn])), name=name)


def _series(
    records: Sequence[Mapping[str, object]],
) -> dict[str, tuple[list[float], list[float]]]:
    """Turn a record per round into (rounds, values) by name; nested names lose their parents."""
    by_name: dict[str, tuple[list[float], list[float]]] = {}
    for place, record in enumerate(records):
        flat = dict(_numbers(record))
        at = flat.pop("round", float(place + 1))
        for name, value in flat.items():
            if math.isfinite(value):
                rounds, values = by_name.setdefault(name, ([], []))
                rounds.append(at)
                values.append(value)
    return {name: points for name, points in by_name.items() if len(points[0]) > 1}


def _numbers(record: Mapping[str, object]) -> list[tuple[str, float]]:
    numbers: list[tuple[str, float]] = []
    for name, value in record.items():
        if isinstance(value, Mapping):
            numbers += _numbers(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers.append((name, float(value)))
    return numbers


def half_life_figure(context: ReportContext) -> str:
    """The kernel's half-lives; empty where none are given."""
    if context.half_lives is None or not context.half_lives.learned:
        return ""
    return plots.half_life_plot(context.half_lives.learned, context.half_lives.true)


def clock(context: ReportContext) -> list[tuple[str, str, float]]:
    """(arm, duration, share of the longest) per arm."""
    longest = max(context.seconds.values(), default=1.0) or 1.0
    return [(arm_name(a), duration(s), s / longest) for a, s in context.seconds.items()]
