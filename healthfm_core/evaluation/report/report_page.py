"""One page a person can read: every number with its interval, and the figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import jinja2

from healthfm_core.evaluation.metrics.metric_rows import MetricRow, write_parquet, write_rows
from healthfm_core.evaluation.report.report_context import HalfLives, ReportContext, SiteSummary
from healthfm_core.evaluation.report.sections import (
    arm_comparison,
    arms_of,
    calibration_tables,
    horizon_tables,
    missing_figures,
    network_course,
    participation_table,
    site_gains,
    state_tables,
    subgroup_tables,
    training_curves,
)
from healthfm_core.federation.overlap_table import overlap_table
from healthfm_core.modalities.registry import modality_names

__all__ = [
    "METRICS_FILE",
    "REPORT_FILE",
    "HalfLives",
    "ReportContext",
    "SiteSummary",
    "render",
    "write_report",
]

REPORT_FILE: Final = "report.html"
METRICS_FILE: Final = "metrics.json"
SECONDARY_TABLES: Final = ("probes", "smoothness", "subgroups", "missing", "corruption")
"""Parts of the context whose rows get a Parquet file of their own name."""


def write_report(
    folder: Path, *, title: str, rows: Sequence[MetricRow], context: ReportContext
) -> Path:
    """Write ``report.html``, one file that needs no other, and its numbers.

    ``metrics.json`` and ``metrics.parquet`` hold every `MetricRow`; each of `SECONDARY_TABLES` that
    is given is a Parquet file of its own.

    Args:
        folder: Where to; made if it is not there.
        title: The page's heading.
        rows: Every arm's rows and their paired differences (see `tables.metric_rows`).
        context: What is shown beside them.

    Returns:
        The page's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    beside = (context.horizons, context.probe_scores, context.physiology, context.figures)
    every = [*rows, *context.ceiling, *(row for part in beside for row in part)]
    write_rows(folder / METRICS_FILE, every)
    tables: dict[str, Sequence[Any]] = {name: getattr(context, name) for name in SECONDARY_TABLES}
    for name, table in {Path(METRICS_FILE).stem: every, **tables}.items():
        if table:
            write_parquet(folder / f"{name}.parquet", table)
    page = folder / REPORT_FILE
    page.write_text(render(title, rows, context), encoding="utf-8")
    return page


def render(title: str, rows: Sequence[MetricRow], context: ReportContext) -> str:
    """Return the page's HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("healthfm_core.evaluation.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    arms = arms_of(rows, context.reference)
    return environment.get_template("report.html.j2").render(
        title=title,
        context=context,
        figures=figures(rows, context),
        n_subjects=max((row.n_subjects for row in rows), default=0),
        **_arm_parts(rows, context, arms),
        **_context_parts(context, arms),
    )


def figures(rows: Sequence[MetricRow], context: ReportContext) -> dict[str, str]:
    """Return every figure as SVG in the page's colours; empty where there is nothing to draw."""
    arms = arms_of(rows, context.reference)
    return {
        "arms": arm_comparison.interval_figure(rows, context),
        "sites": site_gains.sites_figure(context, arms),
        "curves": training_curves.curves_figure(context, arms),
        "site_curves": training_curves.site_curves_figure(context),
        "reliability": calibration_tables.reliability_figure(context, arms),
        "half_lives": training_curves.half_life_figure(context),
        "probes": state_tables.probe_figure(context, arms),
        "missing": missing_figures.matrix_figure(context),
        "corruption": missing_figures.corruption_figure(context, arms),
    }


def _arm_parts(
    rows: Sequence[MetricRow], context: ReportContext, arms: Sequence[str]
) -> dict[str, Any]:
    """What is made of the rows of metrics."""
    return {
        "opening": arm_comparison.opening(rows, context),
        "main": arm_comparison.main_table(rows, context),
        "shares": arm_comparison.shares(rows, context),
        "differences": arm_comparison.difference_table(rows, context),
        "subsets": arm_comparison.subset_table(rows, context),
        "calibration": calibration_tables.calibration_table(rows, context),
        "high_risk": calibration_tables.high_risk_table(rows, context),
        "deciles": calibration_tables.observed_over_expected(context, arms),
    }


def _context_parts(context: ReportContext, arms: Sequence[str]) -> dict[str, Any]:
    """What is made of the context alone."""
    return {
        "horizons": horizon_tables.horizon_tables(context, arms),
        "concordance": horizon_tables.concordance_table(context, arms),
        "probes": state_tables.probe_tables(context, arms),
        "physiology": state_tables.physiology_table(context, arms),
        "smoothness": state_tables.smoothness_table(context, arms),
        "course": network_course.course_table(context.course),
        "course_caption": network_course.caption(context.course),
        "single_figures": arm_comparison.figure_lines(context),
        "attributes": subgroup_tables.attributes(context),
        "modalities": modality_names(),
        "sites": site_gains.site_lines(context),
        "by_site": site_gains.site_table(context),
        "participation": participation_table.participation_lines(context),
        "tells_epsilon": participation_table.tells_epsilon(context),
        "input_sentences": []
        if context.inputs is None
        else [*context.inputs.sentences(), *context.inputs.of_devices()],
        "overlap": overlap_table(context.coverage, context.inputs),
        "clock": training_curves.clock(context),
    }
