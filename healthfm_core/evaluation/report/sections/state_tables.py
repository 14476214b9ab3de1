"""What frozen states hold: probes by number of labels, measured quantities, smoothness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from healthfm_core.evaluation.analyses.probes import ProbeRow
from healthfm_core.evaluation.metrics.report_metrics import metric_title
from healthfm_core.evaluation.report import plots
from healthfm_core.evaluation.report.report_context import ReportContext
from healthfm_core.evaluation.report.sections.table_layout import (
    ReportTable,
    TableCell,
    arm_line,
    cell,
    shown,
    spread,
)
from healthfm_core.evaluation.report.wording import NOTHING, number

SHOTS_SHOWN: Final = (1, 8, 32, 128)
MOST_TASKS_DRAWN: Final = 4
ALL: Final = "all"


def probe_figure(context: ReportContext, palette: Sequence[str]) -> str:
    """AUROC by labels of each class, a panel per task; empty without probes."""
    panels = {}
    for task in _tasks(context)[:MOST_TASKS_DRAWN]:
        curves = {arm: _curve(context, task, arm) for arm in _arms(context, task)}
        panels[task.replace("_", " ")] = curves
    if not panels:
        return ""
    shots = sorted({row.k for row in context.probes if row.k is not None})
    end = 2.0 * shots[-1] if shots else 1.0
    ticks = {float(k): str(k) for k in shots if k & (k - 1) == 0} | {end: ALL}
    return plots.band_curves(
        panels,
        plots.in_order(palette, [row.arm for row in context.probes]),
        name="probes",
        xlabel="labels of each class",
        ylabel="AUROC",
        ticks=ticks,
        log=True,
    )


def probe_tables(context: ReportContext, palette: Sequence[str]) -> list[ReportTable]:
    """A table per task: AUROC by labels of each class, the mean and range over the draws."""
    scores = {(r.arm, r.task): r for r in context.probe_scores if r.metric == "auroc"}
    tables = []
    for task in _tasks(context):
        held = {row.k for row in context.probes if row.task == task}
        ks = [k for k in (*SHOTS_SHOWN, None) if k in held]
        lines = []
        for arm in _arms(context, task):
            cells = [_draws(_of(context, task, arm, k)) for k in ks]
            whole = scores.get((arm, task))
            if ks and ks[-1] is None and whole is not None:
                cells[-1] = cell(whole)
            lines.append(arm_line(arm, cells, context.reference, palette))
        names = tuple(ALL if k is None else f"{k} of each" for k in ks)
        groups = ((task.replace("_", " "), len(ks)),)
        tables.append(ReportTable(groups, names, tuple(lines)))
    return tables


def physiology_table(context: ReportContext, palette: Sequence[str]) -> ReportTable | None:
    """R² and RMSE of every channel's worn days, read or not; None without any."""
    rows = {(r.arm, r.task, r.metric): r for r in context.physiology if not r.is_difference}
    if not rows:
        return None
    targets = list(dict.fromkeys(task for _, task, _ in rows))
    arms = dict.fromkeys(arm for arm, _, _ in rows)
    pairs = [(target, metric) for target in targets for metric in ("r2", "rmse")]
    lines = tuple(
        arm_line(arm, [cell(rows.get((arm, *pair))) for pair in pairs], context.reference, palette)
        for arm in sorted(arms, key=lambda arm: arm != context.reference)
    )
    groups = tuple((target.replace("_", " "), 2) for target in targets)
    return ReportTable(groups, tuple(metric_title(metric) for _, metric in pairs), lines)


def smoothness_table(context: ReportContext, palette: Sequence[str]) -> ReportTable | None:
    """The daily step and the leap at events, each arm's probe beside them; None without any."""
    if not context.smoothness:
        return None
    lines = tuple(
        arm_line(
            row.arm,
            [
                shown(row.step, row.step_low, row.step_high),
                shown(row.spike, row.spike_low, row.spike_high),
                shown(row.probe_value, row.probe_low, row.probe_high),
            ],
            context.reference,
            palette,
        )
        for row in context.smoothness
    )
    asked = dict.fromkeys(
        f"{metric_title(row.probe_metric)}, {row.probe.replace('_', ' ')}"
        for row in context.smoothness
    )
    names = ("step in a day", "leap at an event", f"probe: {' / '.join(asked)}")
    return ReportTable((("overall", 3),), names, lines)


def _tasks(context: ReportContext) -> list[str]:
    return list(dict.fromkeys(row.task for row in context.probes))


def _arms(context: ReportContext, task: str) -> list[str]:
    """Arms with a probe of the task, the reference first."""
    arms = dict.fromkeys(row.arm for row in context.probes if row.task == task)
    return sorted(arms, key=lambda arm: arm != context.reference)


def _of(context: ReportContext, task: str, arm: str, k: int | None) -> list[ProbeRow]:
    return [row for row in context.probes if (row.task, row.arm, row.k) == (task, arm, k)]


def _draws(rows: Sequence[ProbeRow]) -> TableCell:
    """Mean AUROC over the draws and their range."""
    values = [row.auroc for row in rows]
    if not values:
        return TableCell(NOTHING, "")
    several = len(values) > 1
    return TableCell(
        number(float(np.mean(values))), spread(min(values), max(values)) if several else ""
    )


def _curve(context: ReportContext, task: str, arm: str) -> plots.Curve:
    """Mean and range of AUROC by k; all labels stand at twice the largest k of any arm."""
    own = [row for row in context.probes if (row.task, row.arm) == (task, arm)]
    largest = max((row.k for row in context.probes if row.k is not None), default=0)
    place = {k: float(k) if k is not None else 2.0 * largest or 1.0 for k in {r.k for r in own}}
    ks = sorted(place, key=lambda k: place[k])
    values = [[row.auroc for row in own if row.k == k] for k in ks]
    return plots.Curve(
        [place[k] for k in ks],
        [float(np.mean(v)) for v in values],
        [min(v) for v in values],
        [max(v) for v in values],
    )
