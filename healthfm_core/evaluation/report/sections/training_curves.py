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


def curves_figure(context: ReportContext, arms: Sequence[str]) -> str:
    """Learning curves over rounds; empty where no arm has a number in two rounds."""
    curves = {arm: _series(records) for arm, records in context.history.items()}
    names = list(dict.fromkeys(name for series in curves.values() for name in series))
    first = [name for name in CURVES_FIRST if name in names]
    losses = [name for name in names if name.startswith("loss")]
    chosen = (first + [name for name in losses if name not in first])[:MOST_CURVES]
    drawn = {
        arm: {name: series[name] for name in chosen if name in series}
        for arm, series in curves.items()
    }
    if not any(drawn.values()):
        return ""
    return plots.learning_curves(drawn, list(dict.fromkeys([*arms, *drawn])))


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
