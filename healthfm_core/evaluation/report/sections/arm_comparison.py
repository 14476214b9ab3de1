"""The arms against each other: tables, intervals, and the result in a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from healthfm_core.evaluation.metrics.metric_rows import MINUS, MetricRow, subsets_of
from healthfm_core.evaluation.metrics.report_metrics import metric_title, metrics_in
from healthfm_core.evaluation.report import plots
from healthfm_core.evaluation.report.report_context import ReportContext
from healthfm_core.evaluation.report.sections.table_layout import (
    ReportTable,
    arms_of,
    discrimination,
    grid,
    headline,
    headline_first,
)
from healthfm_core.evaluation.report.wording import (
    SUBSET_NAMES,
    arm_name,
    bracketed,
    inputs_of,
    interval,
    number,
    subset_name,
)


def main_table(rows: Sequence[MetricRow], context: ReportContext) -> ReportTable:
    """Discrimination of every arm and of the oracle, by subset."""
    arms = arms_of(rows, context.reference)
    ceilings = list(dict.fromkeys(row.arm for row in context.ceiling))
    pairs = discrimination(context.task)
    every = [*rows, *context.ceiling]
    said = context.remarks.get("all", {})
    shown = [*arms, *(arm for arm in said if arm not in arms), *ceilings]
    return grid(every, shown, pairs, context.reference, apart=ceilings, palette=arms, remarks=said)


def difference_table(rows: Sequence[MetricRow], context: ReportContext) -> ReportTable | None:
    """Paired differences of the reference to each other arm; None where there is none."""
    arms = list(dict.fromkeys(row.arm for row in rows if MINUS in row.arm))
    if not arms:
        return None
    pairs = discrimination(context.task)
    return grid(rows, arms, pairs, context.reference)


def subset_table(rows: Sequence[MetricRow], context: ReportContext) -> ReportTable | None:
    """Subsets beside the three: fewer inputs, people with a reference score; None without any.

    Of a next-visit task only all rows and new onsets are shown.
    """
    further = dict.fromkeys(row.subset for row in rows if row.subset not in SUBSET_NAMES)
    shown = [subset for subset in further if not subset.endswith("/repeat")]
    if not shown:
        return None
    metrics = headline_first(metrics_in("discrimination"), context.task)
    pairs = [(subset, metric) for subset in shown for metric in metrics]
    held = {row.arm for row in rows if row.subset in shown}
    arms = arms_of(rows, context.reference)
    said = _given(context, dict.fromkeys(inputs_of(subset) for subset in shown))
    lines = [arm for arm in (*arms, *said) if arm in held or arm in said]
    return grid(
        rows,
        list(dict.fromkeys(lines)),
        pairs,
        context.reference,
        palette=arms,
        remarks=said,
    )


def _given(context: ReportContext, inputs: Iterable[str]) -> dict[str, str]:
    """Return arm → its remarks on several input subsets, each with the inputs' name."""
    said: dict[str, list[str]] = {}
    for given in inputs:
        for arm, remark in context.remarks.get(given, {}).items():
            said.setdefault(arm, []).append(f"given {subset_name(given)}: {remark}")
    return {arm: ". ".join(remarks) for arm, remarks in said.items()}


def interval_figure(rows: Sequence[MetricRow], context: ReportContext) -> str:
    """The headline metric of every arm, by subset, with the ceiling."""
    metric, _ = headline(context.task)
    marks: dict[str, list[float]] = {}
    for row in context.ceiling:
        if row.metric == metric and math.isfinite(row.value):
            marks.setdefault(row.subset, []).append(row.value)
    return plots.interval_plot(
        [row for row in rows if row.metric == metric and not row.is_difference],
        [(subset, SUBSET_NAMES[subset]) for subset in subsets_of(context.task)],
        arms_of(rows, context.reference),
        name="arms",
        xlabel=metric_title(metric),
        marks=marks,
    )


def shares(rows: Sequence[MetricRow], context: ReportContext) -> list[str]:
    """Say what share of each ceiling the reference reaches, by the headline metric."""
    metric, subset = headline(context.task)
    value = {row.arm: row.value for row in rows if (row.metric, row.subset) == (metric, subset)}
    reached = value.get(context.reference, math.nan)
    floor = value.get("marginal", math.nan)
    said = []
    for row in context.ceiling:
        if (row.metric, row.subset) != (metric, subset) or not math.isfinite(reached):
            continue
        text = (
            f"{arm_name(context.reference).capitalize()} reaches {reached / row.value:.0%} of "
            f"“{arm_name(row.arm)}” ({number(reached)} of {number(row.value)}) in "
            f"{metric_title(metric)} on {SUBSET_NAMES[subset]}"
        )
        if math.isfinite(floor) and row.value > floor:
            text += f", {(reached - floor) / (row.value - floor):.0%} of the way from the marginal"
        said.append(text + ".")
    return said


def opening(rows: Sequence[MetricRow], context: ReportContext) -> str:
    """The result in one sentence."""
    metric, subset = headline(context.task)
    by_arm = {row.arm: row for row in rows if (row.metric, row.subset) == (metric, subset)}
    own = by_arm.get(context.reference)
    if own is None or not math.isfinite(own.value):
        return ""
    others = [
        f"{arm_name(row.arm)} {number(row.value)}"
        for row in by_arm.values()
        if not row.is_difference and row.arm != context.reference and math.isfinite(row.value)
    ]
    text = (
        f"{arm_name(context.reference).capitalize()} reaches {metric_title(metric)} "
        f"{number(own.value)} ({interval(own)})"
    )
    if context.task == "next_visit":
        text += f" on {SUBSET_NAMES[subset]}"
    return text + (f"; {', '.join(others)}." if others else ".")


def figure_lines(context: ReportContext) -> list[tuple[str, str, str]]:
    """Return (what, of which arm, value with its interval) of each single figure."""
    return [
        (
            f"{row.task.replace('_', ' ')}: {metric_title(row.metric)}, {subset_name(row.subset)}",
            arm_name(row.arm),
            bracketed(row),
        )
        for row in context.figures
    ]
