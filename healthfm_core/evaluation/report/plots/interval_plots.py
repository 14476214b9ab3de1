"""Arms and sites side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np

from healthfm_core.evaluation.metrics.metric_rows import MINUS, MetricRow
from healthfm_core.evaluation.report.plots.style import (
    FAINT,
    INK,
    STYLE,
    colours,
    markers,
    new_figure,
    svg,
)
from healthfm_core.evaluation.report.wording import arm_name

DODGE: Final = 0.16
"""How far two arms stand apart at one site, in lines."""


def interval_plot(
    rows: Sequence[MetricRow],
    panels: Sequence[tuple[str, str]],
    arms: Sequence[str],
    *,
    name: str,
    xlabel: str,
    zero: bool = False,
    marks: Mapping[str, Sequence[float]] | None = None,
) -> str:
    """Draw a point with its interval per arm, one panel per subset.

    Args:
        rows: Rows of one metric.
        panels: (subset, title) from left to right.
        arms: From top to bottom; arms without a row leave a gap.
        name: Makes the ids in the SVG its own.
        xlabel: What the horizontal axis shows.
        zero: Draw a line at 0 (for differences).
        marks: Subset → places of dashed vertical lines, for example the ceilings.
    """
    by_key = {(row.arm, row.subset): row for row in rows}
    drawn = [arm.split(MINUS)[-1] for arm in arms] if zero else list(arms)
    shade, signs = colours(drawn), markers(drawn)
    with mpl.rc_context(STYLE):
        height = 0.75 + 0.24 * len(arms)
        figure, axes = new_figure(
            max(5.6, 2.5 * len(panels) + 1.2), height, 1, len(panels), sharey=True
        )
        for axis, (subset, title) in zip(axes[0], panels, strict=True):
            axis.set_title(title)
            axis.grid(axis="x")
            axis.set_axisbelow(True)
            if zero:
                axis.axvline(0.0, color=FAINT, linewidth=0.8)
            for value in (marks or {}).get(subset, ()):
                axis.axvline(value, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
            for place, arm in enumerate(arms):
                row = by_key.get((arm, subset))
                if row is None or not np.isfinite(row.value):
                    continue
                key = drawn[place]
                axis.plot([row.low, row.high], [place, place], color=shade[key], linewidth=1.4)
                axis.plot([row.value], [place], signs[key], color=shade[key], markersize=4.5)
            axis.set_ylim(len(arms) - 0.4, -0.6)
            axis.spines["left"].set_visible(False)
            axis.tick_params(left=False)
            axis.set_yticks(range(len(arms)), [arm_name(arm) for arm in arms])
            axis.locator_params(axis="x", nbins=4)
        figure.supxlabel(xlabel, fontsize=9)
        return svg(figure, name, xlabel)


def site_pairs(
    rows: Mapping[str, Mapping[str, MetricRow]],
    arms: tuple[str, str],
    order: Sequence[str],
    *,
    xlabel: str,
) -> str:
    """Draw two arms at each site, and what the first is ahead: who gains by joining.

    Args:
        rows: Site, from top to bottom → arm, or the two arms' difference → its row.
        arms: Names of the two.
        order: All arms of the report, for the colours and markers.
        xlabel: The metric.
    """
    shade, signs = colours(order), markers(order)
    with mpl.rc_context(STYLE):
        figure, (line,) = new_figure(7.4, 1.0 + 0.34 * len(rows), 1, 2, sharey=True)
        for arm, aside in zip(arms, (-DODGE, DODGE), strict=True):
            own = [found[arm] for found in rows.values()]
            _points(line[0], own, aside, shade[arm], signs[arm], arm_name(arm))
        ahead = [found[MINUS.join(arms)] for found in rows.values()]
        line[1].axvline(0.0, color=FAINT, linewidth=0.8)
        _points(line[1], ahead, 0.0, INK, "o", "")
        line[0].set_yticks(range(len(rows)), list(rows))
        line[0].set_xlabel(xlabel)
        line[1].set_xlabel(f"{arm_name(arms[0])} − {arm_name(arms[1])}")
        for axis in line:
            axis.set_ylim(len(rows) - 0.4, -0.6)
            axis.grid(axis="x")
            axis.set_axisbelow(True)
            axis.spines["left"].set_visible(False)
            axis.tick_params(left=False)
            axis.locator_params(axis="x", nbins=4)
        figure.legend(loc="outside upper left", ncols=2, fontsize=8)
        return svg(figure, "sites", f"{arms[0]} and {arms[1]} at each site, and their difference")


def _points(
    axis: Any, rows: Sequence[MetricRow], aside: float, colour: str, marker: str, label: str
) -> None:
    places = np.arange(len(rows)) + aside
    axis.hlines(
        places, [row.low for row in rows], [row.high for row in rows], color=colour, linewidth=1.4
    )
    values = [row.value for row in rows]
    axis.plot(values, places, marker, color=colour, markersize=4.5, label=label or None)
