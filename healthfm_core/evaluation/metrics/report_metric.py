"""What a metric of the report is: how it is measured, named, printed and plotted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from healthfm_core.evaluation.metrics.bootstrap import Estimate
from healthfm_core.evaluation.metrics.resampled import Resampled
from healthfm_core.evaluation.predictions import Subset

PageTable = Literal["discrimination", "calibration", "high_risk", "horizon", "concordance"]
"""The tables of the page that list metrics as columns."""


@dataclass(frozen=True)
class ReportMetric:
    """One metric, as an entry of `report_metrics.METRICS`.

    Attributes:
        name: Its key in ``metrics.json``.
        title: As written in sentences, table headings and axes of figures.
        better: Which values are better; ``neither`` where a certain value is ideal.
        estimate: Measures predictions, with replicates; None where an analysis of its own does,
            such as `concordance` or `physiology`.
        short: As written where there is little room; empty is the title.
        column: Heading in the page's tables; empty is the title.
        tables: The page's tables that have it as a column.
        is_paired: Whether the differences between arms are estimated too.
        is_count: Whether it is a number of people or rows, written without an interval.
        next_visit_only: Whether it makes no sense for a label.
        needs_probability: False for metrics that use only the ranks of the scores.
        next_visit_columns: Subsets with a column in the terminal's table of a next-visit task.
        label_column: Whether the terminal's table of a label task has a column of it.
        secondary_columns: Subsets with a column in the terminal's tables of secondary evaluations.
        has_subsets: False for what is measured of everybody only; then no subset is written.
    """

    name: str
    title: str
    better: Literal["higher", "lower", "neither"]
    estimate: Callable[[Resampled], Estimate] | None = None
    short: str = ""
    column: str = ""
    tables: tuple[PageTable, ...] = ()
    is_paired: bool = False
    is_count: bool = False
    next_visit_only: bool = False
    needs_probability: bool = True
    next_visit_columns: tuple[Subset, ...] = ()
    label_column: bool = False
    secondary_columns: tuple[Subset, ...] = ()
    has_subsets: bool = True

    @property
    def short_title(self) -> str:
        """The shortest way to write it."""
        return self.short or self.title

    @property
    def column_title(self) -> str:
        """Its heading in a table of the page."""
        return self.column or self.title
