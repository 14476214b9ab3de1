"""The arms' tables for a terminal of 100 columns."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from healthfm_core.evaluation.metrics.metric_rows import MINUS, MetricRow
from healthfm_core.evaluation.metrics.report_metric import ReportMetric
from healthfm_core.evaluation.metrics.report_metrics import METRICS, NEXT_VISIT, metric_title
from healthfm_core.evaluation.report.sections import (
    arms_of,
    headline,
    headline_first,
    network_course,
)
from healthfm_core.evaluation.report.wording import (
    NOTHING,
    SUBSET_NAMES,
    arm_name,
    bracketed,
    subset_name,
)
from healthfm_core.evaluation.time_to_accuracy import CourseRow

TRAINED = ("twin", "fedavg", "imputed", "local", "ensemble", "centralised")
BASELINES = ("logistic_regression", "gradient_boosting")
"""Simpler models that read the same inputs on the same rows, pooled over the sites."""
Columns = Sequence[tuple[str, ReportMetric]]
"""(subset, metric) of each column of a table."""
Remarks = Mapping[str, Mapping[str, str]]


def arms_table(
    rows: Sequence[MetricRow],
    *,
    reference: str = "federated",
    within: str | None = None,
    seeds: int = 1,
    remarks: Remarks = MappingProxyType({}),
) -> Table:
    """Return a table of arms with 95 % intervals, at most 100 columns wide.

    Args:
        rows: Rows of one task; paired differences are left out.
        reference: The arm put first.
        within: A further subset (fewer inputs, people with a reference score); None is everyone.
        seeds: How many the values are means over, and the intervals over.
        remarks: input subset → arm → what its row leaves out, or why it has none; said below.
    """
    said = remarks.get("all" if within is None else within, {})
    plain = [row for row in rows if not row.is_difference and _lies_within(row, within)]
    is_label = all(row.subset != "new_onset" for row in rows)
    columns = _label_columns() if is_label else _next_visit_columns()
    people = max((row.n_subjects for row in plain), default=0)
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption="\n".join([*_remarked(said), _intervals_over(people, seeds)]),
        caption_justify="left",
    )
    table.add_column("arm" if within is None else subset_name(within), max_width=20)
    for subset, metric in columns:
        name = metric.short_title
        head = name if is_label else f"{SUBSET_NAMES[subset]}\n{name}"
        table.add_column(head, justify="right", no_wrap=True)
    inside = [(_named(subset, within), metric) for subset, metric in columns]
    held = arms_of(plain, reference)
    _add_arms(table, plain, [*held, *(arm for arm in said if arm not in held)], inside)
    return table


def _remarked(said: Mapping[str, str]) -> Iterator[str]:
    for arm, remark in said.items():
        yield f"{arm_name(arm)}: {remark}"


def _intervals_over(people: int, seeds: int) -> str:
    over = f"{people} held-out people" if seeds == 1 else f"{seeds} seeds of {people} people"
    return f"95 % intervals over {over}"


def _next_visit_columns() -> Columns:
    metrics = headline_first(list(METRICS), NEXT_VISIT)
    return [(s, METRICS[name]) for name in metrics for s in METRICS[name].next_visit_columns]


def _label_columns() -> Columns:
    return [("overall", metric) for metric in METRICS.values() if metric.label_column]


def _secondary_columns() -> Columns:
    metrics = headline_first(list(METRICS), NEXT_VISIT)
    return [(s, METRICS[name]) for name in metrics for s in METRICS[name].secondary_columns]


def _add_arms(
    table: Table, rows: Sequence[MetricRow], arms: Sequence[str], columns: Columns
) -> None:
    """Add a line per arm, with a dash where there is no number."""
    by_key = {(row.arm, row.subset, row.metric): row for row in rows}
    for arm in arms:
        cells = [by_key.get((arm, subset, metric.name)) for subset, metric in columns]
        table.add_row(arm_name(arm), *(NOTHING if row is None else bracketed(row) for row in cells))


def subset_tables(
    rows: Sequence[MetricRow],
    *,
    reference: str = "federated",
    seeds: int = 1,
    remarks: Remarks = MappingProxyType({}),
) -> list[Table]:
    """Return one table per further subset: fewer inputs, people with a reference score."""
    named = dict.fromkeys(row.subset.partition("/")[0] for row in rows if not row.is_difference)
    return [
        arms_table(rows, reference=reference, within=subset, seeds=seeds, remarks=remarks)
        for subset in named
        if subset not in SUBSET_NAMES
    ]


def task_tables(rows: Sequence[MetricRow]) -> list[Table]:
    """Return one table per secondary task (a horizon, a probe), with the columns that it has."""
    tables = []
    for task in dict.fromkeys(row.task for row in rows):
        plain = [row for row in rows if row.task == task and not row.is_difference]
        held = {(row.subset, row.metric) for row in plain}
        columns = [c for c in _secondary_columns() if (c[0], c[1].name) in held]
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column(task.replace("_", " "), max_width=22)
        for subset, metric in columns:
            name = metric.short_title
            head = f"{SUBSET_NAMES[subset]}\n{name}" if metric.has_subsets else name
            table.add_column(head, justify="right", no_wrap=True)
        _add_arms(table, plain, list(dict.fromkeys(row.arm for row in plain)), columns)
        tables.append(table)
    return tables


def contrasts(rows: Sequence[MetricRow], *, reference: str = "federated") -> list[str]:
    """Return a line per paired difference that a run is made for, by the headline metric.

    The reference against every other trained arm and against the baselines given the same inputs;
    and what each input adds to the others in it.
    """
    if not rows:
        return []
    metric, subset = headline(rows[0].task)
    lines = []
    for row in rows:
        if row.metric != metric or row.value == row.low == row.high == 0:  # one run, two names
            continue
        name = _contrast(row, reference, subset)
        if name:
            lines.append(f"{name} {bracketed(row)}")
    return lines


def _contrast(row: MetricRow, reference: str, subset: str) -> str:
    """Return what a row tells apart and by which metric; nothing where no run is made for it."""
    first, _, other = row.arm.partition(MINUS)
    name, metric = arm_name(row.arm), metric_title(row.metric)
    if first != reference:
        return ""
    if other in (*TRAINED, *BASELINES) and row.subset == subset:
        return f"{name}: {metric}" + ("" if subset == "overall" else f" on {SUBSET_NAMES[subset]}")
    if other in BASELINES and MINUS not in row.subset and "/" not in row.subset:
        given = row.subset not in SUBSET_NAMES
        return f"{name}: {metric} given {subset_name(row.subset)}" if given else ""
    if not other and MINUS in row.subset:
        return f"{name}, {subset_name(row.subset)}: {metric}"
    return ""


def _lies_within(row: MetricRow, within: str | None) -> bool:
    first = row.subset.partition("/")[0]
    return first in SUBSET_NAMES if within is None else first == within


def _named(subset: str, within: str | None) -> str:
    if within is None:
        return subset
    return within if subset == "overall" else f"{within}/{subset}"


def arms_text(rows: Sequence[MetricRow], *, reference: str = "federated", width: int = 100) -> str:
    """Return `arms_table` as plain text without colours."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=width, no_color=True, force_terminal=False)
    console.print(arms_table(rows, reference=reference))
    return buffer.getvalue()


def course_table(rows: Sequence[CourseRow]) -> Table | None:
    """Return what it took each arm to be as good as a target; None without a simulated network."""
    if not rows:
        return None
    heads, *lines = network_course.course_table(rows)
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption=network_course.caption(rows),
        caption_justify="left",
    )
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place == 0 else "right")
    for line in lines:
        table.add_row(*line)
    return table
