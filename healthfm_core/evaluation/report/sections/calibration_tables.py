"""Whether predicted risks are right: over all rows, per decile, and among high risks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from healthfm_core.evaluation.metrics.calibration_error import reliability
from healthfm_core.evaluation.metrics.metric_rows import MetricRow
from healthfm_core.evaluation.metrics.report_metrics import METRICS, PEOPLE_ABOVE, metrics_in
from healthfm_core.evaluation.report import plots
from healthfm_core.evaluation.report.report_context import ReportContext
from healthfm_core.evaluation.report.sections.table_layout import (
    ReportTable,
    arm_line,
    arms_of,
    cell,
    grid,
)
from healthfm_core.evaluation.report.wording import arm_name, number

WITHOUT_FEATURES: Final = ("repeat_history", "marginal")
"""Baselines that know no more than counts; not drawn in the reliability diagram."""


def calibration_table(rows: Sequence[MetricRow], context: ReportContext) -> ReportTable:
    """Calibration of every arm over all rows."""
    arms = arms_of(rows, context.reference)
    pairs = [("overall", metric) for metric in metrics_in("calibration")]
    return grid(rows, arms, pairs, context.reference, palette=arms)


def high_risk_table(rows: Sequence[MetricRow], context: ReportContext) -> ReportTable | None:
    """The same among predictions above 20 %; None where no arm has any.

    An arm whose predictions above 20 % are of fewer people than the threshold is left out.
    """
    metrics = metrics_in("high_risk")
    by_arm = {
        (row.arm, row.metric): row
        for row in rows
        if row.subset == "overall" and row.metric in metrics and not row.is_difference
    }
    palette, lines = arms_of(rows, context.reference), []
    for arm in palette:
        people = by_arm.get((arm, PEOPLE_ABOVE))
        if people is None or people.value < max(context.k_subgroup, 1):
            continue
        cells = [cell(by_arm.get((arm, metric))) for metric in metrics]
        lines.append(arm_line(arm, cells, context.reference, palette))
    columns = tuple(METRICS[metric].column_title for metric in metrics)
    return ReportTable((("overall", len(columns)),), columns, tuple(lines)) if lines else None


def reliability_figure(context: ReportContext, arms: Sequence[str]) -> str:
    """Reliability of the arms whose predictions are at hand."""
    drawn = {
        arm: reliability(context.predictions[arm].score, context.predictions[arm].outcome)
        for arm in arms
        if arm not in WITHOUT_FEATURES and len(context.predictions.get(arm, ()))
    }
    if not drawn and context.reliabilities:
        return plots.reliability_diagram(
            context.reliabilities, list(context.reliabilities), title="by site", fewest=0
        )
    if not drawn:
        return ""
    return plots.reliability_diagram(
        drawn, arms, title="all predictions, deciles", fewest=context.k_subgroup
    )


def observed_over_expected(
    context: ReportContext, arms: Sequence[str]
) -> list[tuple[str, list[str]]]:
    """Arm → observed over expected per decile of risk, lowest first; small bins withheld."""
    lines = []
    for arm in arms:
        if arm in WITHOUT_FEATURES or not len(context.predictions.get(arm, ())):
            continue
        curve = reliability(context.predictions[arm].score, context.predictions[arm].outcome)
        ratios = zip(curve.count, curve.observed_over_expected, strict=True)
        shown = [number(float(r), digits=2) if n >= context.k_subgroup else "–" for n, r in ratios]
        lines.append((arm_name(arm), shown))
    return lines
