"""One page a person can read: every number with its interval, and the figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import jinja2

from healthfm_core.evaluation import sections
from healthfm_core.evaluation.context import HalfLives, ReportContext, SiteSummary
from healthfm_core.evaluation.tables import MetricRow, write_rows

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


def write_report(
    folder: Path, *, title: str, rows: Sequence[MetricRow], context: ReportContext
) -> Path:
    """Write ``report.html``, one file that needs no other, and ``metrics.json``.

    Args:
        folder: Where to; made if it is not there.
        title: The page's heading.
        rows: Every arm's rows and their paired differences (see `tables.metric_rows`).
        context: What is shown beside them.

    Returns:
        The page's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / METRICS_FILE, [*rows, *context.ceiling])
    page = folder / REPORT_FILE
    page.write_text(render(title, rows, context), encoding="utf-8")
    return page


def render(title: str, rows: Sequence[MetricRow], context: ReportContext) -> str:
    """Return the page's HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("healthfm_core.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    arms = sections.arms_of(rows, context.reference)
    figures = {
        "arms": sections.interval_figure(rows, context),
        "sites": sections.sites_figure(context, arms),
        "curves": sections.curves_figure(context, arms),
        "reliability": sections.reliability_figure(context, arms),
        "half_lives": sections.half_life_figure(context),
    }
    return environment.get_template("report.html.j2").render(
        title=title,
        context=context,
        opening=sections.opening(rows, context),
        main=sections.main_table(rows, context),
        shares=sections.shares(rows, context),
        differences=sections.difference_table(rows, context),
        further=sections.further_table(rows, context),
        calibration=sections.calibration_table(rows, context),
        deciles=sections.observed_over_expected(context, arms),
        modalities=sections.MODALITIES,
        sites=sections.site_lines(context),
        clock=sections.clock(context),
        figures=figures,
        n_subjects=max((row.n_subjects for row in rows), default=0),
    )
