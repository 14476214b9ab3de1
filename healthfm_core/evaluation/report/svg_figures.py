"""The report's figures one by one, in colours of their own instead of the page's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

from healthfm_core.evaluation.metrics.metric_rows import MetricRow
from healthfm_core.evaluation.report.report_context import ReportContext
from healthfm_core.evaluation.report.report_page import figures


@dataclass(frozen=True)
class SvgFigure:
    """A figure, which a notebook shows by itself.

    Attributes:
        name: Its name.
        svg: The ``<svg>`` element, in the colours of the report's light page.
    """

    name: str
    svg: str = field(repr=False)

    def save(self, file: Path) -> None:
        """Write the figure to a file, which a browser or a paper takes."""
        file.write_text(self.svg, encoding="utf-8")

    def _repr_html_(self) -> str:
        return f'<div style="background:{page_colours()["paper"]}">{self.svg}</div>'


def svg_figures(rows: Sequence[MetricRow], context: ReportContext) -> Mapping[str, SvgFigure]:
    """Return the figures of a report that has something to draw, by name.

    Args:
        rows: Every arm's rows and their paired differences, as `write_report` takes them.
        context: What is shown beside them.
    """
    colours = page_colours()
    return {
        name: SvgFigure(name, re.sub(r"var\(--(\w+)\)", lambda found: colours[found[1]], svg))
        for name, svg in figures(rows, context).items()
        if svg
    }


@cache
def page_colours() -> Mapping[str, str]:
    """Return the colours of the report's light page, by their names in its style sheet."""
    style = files("healthfm_core.evaluation.report") / "templates" / "style.css"
    light = style.read_text("utf-8").partition("}")[0]
    return dict(re.findall(r"--(\w+): (#\w+);", light))
