"""Groups of people: a table per attribute, and who is withheld."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from healthfm_core.evaluation.analyses.subgroups import SubgroupRow
from healthfm_core.evaluation.metrics.report_metrics import metric_title
from healthfm_core.evaluation.report.report_context import ReportContext
from healthfm_core.evaluation.report.sections.table_layout import (
    ReportTable,
    TableCell,
    TableLine,
    shown,
)
from healthfm_core.evaluation.report.wording import NOTHING, arm_name, count

MOST_ARMS: Final = 4


@dataclass(frozen=True)
class SubgroupAttribute:
    """One attribute's groups.

    Attributes:
        name: ``sex``, ``age``, ``ancestry``, ``site``.
        table: The groups that are shown; None where all are withheld.
        withheld: The names of those that are not.
    """

    name: str
    table: ReportTable | None
    withheld: tuple[str, ...]


def attributes(context: ReportContext) -> list[SubgroupAttribute]:
    """The attributes in their order of appearance."""
    names = dict.fromkeys(row.attribute for row in context.subgroups)
    return [_attribute(name, context) for name in names]


def _attribute(name: str, context: ReportContext) -> SubgroupAttribute:
    rows = [row for row in context.subgroups if row.attribute == name]
    hidden = tuple(row.group for row in rows if row.withheld)
    rows = [row for row in rows if not row.withheld]
    if not rows:
        return SubgroupAttribute(name, None, hidden)
    metric = rows[0].metric
    rows = [row for row in rows if row.metric == metric]
    arms = sorted(dict.fromkeys(r.arm for r in rows), key=lambda arm: arm != context.reference)
    arms = arms[:MOST_ARMS]
    groups = dict.fromkeys(row.group for row in rows)
    cases = any(row.n_cases is not None for row in context.subgroups)
    lines = tuple(_line(group, rows, arms, context.k_subgroup, cases=cases) for group in groups)
    counted = ("people", "with the outcome") if cases else ("people",)
    columns = (*counted, *(arm_name(arm) for arm in arms))
    spans = (("", len(counted)), (metric_title(metric), len(arms)))
    return SubgroupAttribute(
        name, ReportTable(spans, columns, lines, head=name.replace("_", " ")), hidden
    )


def _line(
    group: str, rows: Sequence[SubgroupRow], arms: Sequence[str], k: int, *, cases: bool
) -> TableLine:
    own = {row.arm: row for row in rows if row.group == group}
    first = next(iter(own.values()))
    counted = [TableCell(count(first.n_subjects or 0, k), "")]
    if cases:
        few = f"< {k}" if first.n_cases is None else count(first.n_cases, k)
        counted.append(TableCell(few, ""))
    return TableLine(group, -1, (*counted, *(_cell(own.get(arm)) for arm in arms)))


def _cell(row: SubgroupRow | None) -> TableCell:
    if row is None or row.value is None or row.low is None or row.high is None:
        return TableCell(NOTHING, "")
    return shown(row.value, row.low, row.high)
