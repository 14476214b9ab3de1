"""Arms and sites side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np

from healthfm_core.evaluation.metrics.metric_rows import MINUS, MetricRow
from healthfm_core.evaluation.report.plots.style import (
    FAINT,
    INK,
    RULE,
    STYLE,
    colours,
    new_figure,
    svg,
)
from healthfm_core.evaluation.report.wording import arm_name


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
    shade = colours([arm.split(MINUS)[-1] for arm in arms] if zero else arms)
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
                colour = shade[arm.split(MINUS)[-1] if zero else arm]
                axis.plot([row.low, row.high], [place, place], color=colour, linewidth=1.4)
                axis.plot([row.value], [place], "o", color=colour, markersize=4.5)
            axis.set_ylim(len(arms) - 0.4, -0.6)
            axis.spines["left"].set_visible(False)
            axis.tick_params(left=False)
            axis.set_yticks(range(len(arms)), [arm_name(arm) for arm in arms])
            axis.locator_params(axis="x", nbins=4)
        figure.supxlabel(xlabel, fontsize=9)
        return svg(figure, name, xlabel)


def site_pairs(
    names: Sequence[str],
    first: Sequence[float],
    second: Sequence[float],
    arms: tuple[str, str],
    order: Sequence[str],
    *,
    xlabel: str,
) -> str:
    """Draw two arms' scores at each site, joined: who gains by joining.

    Args:
        names: Sites, from top to bottom.
        first: Score of ``arms[0]`` at each.
        second: Score of ``arms[1]``.
        arms: Names of the two.
        order: All arms of the report, for the colours.
        xlabel: The metric.
    """
    shade = colours(order)
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(5.6, 0.8 + 0.22 * len(names), 1, 1)
        axis = axes[0, 0]
        places = np.arange(len(names))
        axis.hlines(places, first, second, color=RULE, linewidth=2.5)
        axis.plot(
            second, places, "o", color=shade[arms[1]], markersize=4.5, label=arm_name(arms[1])
        )
        axis.plot(first, places, "o", color=shade[arms[0]], markersize=4.5, label=arm_name(arms[0]))
        axis.set_yticks(places, names)
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.grid(axis="x")
        axis.set_axisbelow(True)
        axis.spines["left"].set_visible(False)
        axis.tick_params(left=False)
        axis.set_xlabel(xlabel)
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return svg(figure, "sites", f"{arms[0]} and {arms[1]} at each site")
