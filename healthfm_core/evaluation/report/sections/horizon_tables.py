"""Tables of events within a horizon, and of the order of times to events."""

from __future__ import annotations

from collections.abc import Sequence

from healthfm_core.evaluation.metrics.horizons import HORIZONS_DAYS, TIME_TO_EVENT, horizon_task
from healthfm_core.evaluation.metrics.metric_rows import MetricRow
from healthfm_core.evaluation.metrics.report_metrics import metric_title, metrics_in
from healthfm_core.evaluation.predictions import SUBSETS
from healthfm_core.evaluation.report.report_context import ReportContext
from healthfm_core.evaluation.report.sections.table_layout import (
    ReportTable,
    arm_line,
    arms_of,
    cell,
    grid,
)
from healthfm_core.evaluation.report.wording import span, subset_name


def horizon_tables(context: ReportContext, palette: Sequence[str]) -> list[ReportTable]:
    """A table per metric, arms by horizon, of new onsets where there are any, else of all rows."""
    rows = [row for row in context.horizons if row.task != TIME_TO_EVENT]
    subset = "new_onset" if any(row.subset == "new_onset" for row in rows) else "overall"
    by_key = {(r.arm, r.task, r.metric): r for r in rows if r.subset == subset}
    days = [d for d in _days(rows) if any(horizon_task(d) == task for _, task, _ in by_key)]
    arms, columns = arms_of(rows, context.reference), tuple(span(d) for d in days)
    tables = []
    for metric in metrics_in("horizon"):
        lines = tuple(
            arm_line(
                arm,
                [cell(by_key.get((arm, horizon_task(d), metric))) for d in days],
                context.reference,
                palette,
            )
            for arm in arms
        )
        if any(name == metric for _, _, name in by_key):
            groups = ((f"{metric_title(metric)}, {subset_name(subset)}", len(columns)),)
            tables.append(ReportTable(groups, columns, lines))
    return tables


def _days(rows: Sequence[MetricRow]) -> list[float]:
    """The horizons in the rows, ascending; a horizon of one's own is read from its task's name."""
    known = {horizon_task(days): days for days in HORIZONS_DAYS}
    tasks = dict.fromkeys(row.task for row in rows)
    return sorted(known[t] if t in known else float(t.split("_")[1]) for t in tasks)


def concordance_table(context: ReportContext, palette: Sequence[str]) -> ReportTable | None:
    """Harrell's and Uno's C by subset; None without any."""
    rows = [row for row in context.horizons if row.task == TIME_TO_EVENT]
    if not rows:
        return None
    held = {row.subset for row in rows}
    pairs = [
        (subset, metric)
        for subset in SUBSETS
        if subset in held
        for metric in metrics_in("concordance")
    ]
    return grid(rows, arms_of(rows, context.reference), pairs, context.reference, palette=palette)
