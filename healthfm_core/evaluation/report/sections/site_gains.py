"""The sites: what each holds, and who gains by joining."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from healthfm_core.evaluation.metrics.metric_rows import MINUS, MetricRow
from healthfm_core.evaluation.metrics.report_metrics import METRICS, metric_title
from healthfm_core.evaluation.report import plots
from healthfm_core.evaluation.report.report_context import ReportContext
from healthfm_core.evaluation.report.sections.table_layout import (
    ReportTable,
    TableLine,
    cell,
    headline,
)
from healthfm_core.evaluation.report.wording import NOTHING, SUBSET_NAMES, count, subset_name
from healthfm_core.modalities.registry import modality_names

MOST_SITES_DRAWN: Final = 40
ALONE: Final = "local"
"""The arm of each site's own model."""
SHOWN: Final = ("average_precision", "auroc", "ece", "slope", "intercept")
"""Columns of the table of sites, where any site tells them."""


def sites_figure(context: ReportContext, arms: Sequence[str]) -> str:
    """The reference and local training at each site that tells both; else empty."""
    metric, subset = headline(context.task)
    pair = (context.reference, ALONE)
    names = {*pair, MINUS.join(pair)}
    found: dict[str, dict[str, MetricRow]] = {}
    for site, rows in context.site_rows.items():
        own = {
            row.arm: row
            for row in rows
            if (row.metric, row.subset) == (metric, subset) and row.arm in names
        }
        if own.keys() == names and all(math.isfinite(row.value) for row in own.values()):
            found[site] = own
    if not found:
        return ""
    gain = {site: own[MINUS.join(pair)].value for site, own in found.items()}
    order = sorted(found, key=lambda site: -gain[site])[:MOST_SITES_DRAWN]
    label = metric_title(metric)
    if context.task == "next_visit":
        label += f", {SUBSET_NAMES[subset]}"
    everybody = tuple(dict.fromkeys((*arms, *pair)))  # a table may lack the second of the pair
    return plots.site_pairs({site: found[site] for site in order}, pair, everybody, xlabel=label)


def site_table(context: ReportContext) -> ReportTable | None:
    """How the reference does at each site that tells it; None where none does."""
    metrics = [m for m in SHOWN if any(_row_of(context, s, m) for s in context.site_rows)]
    lines = tuple(
        TableLine(site, -1, tuple(cell(_row_of(context, site, metric)) for metric in metrics))
        for site in sorted(context.site_rows)
        if any(_row_of(context, site, metric) for metric in metrics)
    )
    if not lines:
        return None
    subset = headline(context.task)[1]
    columns = tuple(METRICS[metric].column_title for metric in metrics)
    return ReportTable(((subset_name(subset), len(columns)),), columns, lines, head="site")


def _row_of(context: ReportContext, site: str, metric: str) -> MetricRow | None:
    key = (context.reference, headline(context.task)[1], metric)
    rows = context.site_rows[site]
    return next((row for row in rows if (row.arm, row.subset, row.metric) == key), None)


@dataclass(frozen=True)
class SiteLine:
    """One line of the sites × modalities matrix."""

    name: str
    held: tuple[bool, ...]
    subjects: str
    held_out: str


def site_lines(context: ReportContext) -> list[SiteLine]:
    """The sites, small counts withheld."""
    k = context.k_subgroup
    return [
        SiteLine(
            site.name,
            tuple(name in site.modalities for name in modality_names()),
            count(site.n_subjects, k),
            NOTHING if site.n_held_out is None else count(site.n_held_out, k),
        )
        for site in context.sites
    ]
