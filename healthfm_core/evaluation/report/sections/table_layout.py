"""Tables and their cells as plain values, and what a task is judged by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from healthfm_core.evaluation.metrics.metric_rows import MetricRow, subsets_of
from healthfm_core.evaluation.metrics.report_metrics import METRICS, metrics_in
from healthfm_core.evaluation.report import plots
from healthfm_core.evaluation.report.wording import (
    arm_name,
    count,
    interval,
    number,
    subset_name,
)


@dataclass(frozen=True)
class TableCell:
    """A number and its interval, as written.

    Of a difference, also whether its interval says clearly better or clearly worse.
    """

    value: str
    interval: str
    is_better: bool = False
    is_worse: bool = False


@dataclass(frozen=True)
class TableLine:
    """One line of a table: its arm, the arm's colour (-1: none), its cells, what it leaves out."""

    arm: str
    colour: int
    cells: tuple[TableCell, ...]
    strong: bool = False
    apart: bool = False
    remark: str = ""


@dataclass(frozen=True)
class ReportTable:
    """A table with grouped columns: ((group, number of columns), …) over the column names.

    Attributes:
        groups: Not shown where there is only ``overall``.
        columns: One name per cell of a line.
        lines: From top to bottom.
        head: What stands over the lines' names.
    """

    groups: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    lines: tuple[TableLine, ...]
    head: str = "arm"


def arms_of(rows: Sequence[MetricRow], reference: str) -> list[str]:
    """Arms in their order of appearance, the reference first."""
    arms = list(dict.fromkeys(row.arm for row in rows if not row.is_difference))
    return sorted(arms, key=lambda arm: arm != reference)


def headline(task: str) -> tuple[str, str]:
    """The (metric, subset) a task is judged by."""
    return ("average_precision", "new_onset") if task == "next_visit" else ("auroc", "overall")


def discrimination(task: str) -> list[tuple[str, str]]:
    """The (subset, metric) columns of the first tables, the headline metric first."""
    metrics = headline_first(metrics_in("discrimination"), task)
    return [(subset, metric) for subset in subsets_of(task) for metric in metrics]


def headline_first(metrics: Sequence[str], task: str) -> list[str]:
    """Return metrics in their order, but the one that the task is judged by before all others."""
    first, _ = headline(task)
    return sorted(metrics, key=lambda metric: metric != first)


def cell(row: MetricRow | None) -> TableCell:
    """Write a row's value and interval; a dash where there is none."""
    if row is None:
        return TableCell("–", "")
    metric = METRICS.get(row.metric)
    if metric is not None and metric.is_count and math.isfinite(row.value):
        return TableCell(count(round(row.value), 1), "")
    better = "neither" if metric is None else metric.better
    above, below = row.is_difference and row.low > 0, row.is_difference and row.high < 0
    return TableCell(
        number(row.value, signed=row.is_difference),
        interval(row),
        is_better=(above and better == "higher") or (below and better == "lower"),
        is_worse=(below and better == "higher") or (above and better == "lower"),
    )


def grid(
    rows: Sequence[MetricRow],
    arms: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    reference: str,
    *,
    apart: Sequence[str] = (),
    palette: Sequence[str] = (),
    remarks: Mapping[str, str] = MappingProxyType({}),
) -> ReportTable:
    """Lay out (subset, metric) `pairs` as columns, arms as lines, each with its remark."""
    by_key = {(row.arm, row.subset, row.metric): row for row in rows}
    groups: list[tuple[str, int]] = []
    for subset, _ in pairs:
        name = subset_name(subset)
        if groups and groups[-1][0] == name:
            groups[-1] = (name, groups[-1][1] + 1)
        else:
            groups.append((name, 1))
    lines = tuple(
        arm_line(
            arm,
            [cell(by_key.get((arm, subset, metric))) for subset, metric in pairs],
            reference,
            palette,
            apart=arm in apart,
            remark=remarks.get(arm, ""),
        )
        for arm in arms
    )
    return ReportTable(
        tuple(groups), tuple(METRICS[metric].column_title for _, metric in pairs), lines
    )


def arm_line(
    arm: str,
    cells: Sequence[TableCell],
    reference: str,
    palette: Sequence[str],
    *,
    apart: bool = False,
    remark: str = "",
) -> TableLine:
    """Return an arm's line, the reference in bold and with a dot of the arm's colour."""
    return TableLine(
        arm=arm_name(arm),
        colour=palette.index(arm) % len(plots.ARM_COLOURS) if arm in palette else -1,
        cells=tuple(cells),
        strong=arm == reference,
        apart=apart,
        remark=remark,
    )


def shown(value: float, low: float, high: float) -> TableCell:
    """Write a value and its interval."""
    return TableCell(number(value), spread(low, high))


def spread(low: float, high: float) -> str:
    """Write an interval as ``.131 to .155``; nothing where it is not defined."""
    return f"{number(low)} to {number(high)}" if math.isfinite(low) else ""
