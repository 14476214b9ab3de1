"""Curves with a band, and a matrix of shaded cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.patches import Rectangle

from healthfm_core.arrays import Float64
from healthfm_core.evaluation.report.plots.style import (
    ARM_COLOURS,
    RULE,
    STYLE,
    colours,
    markers,
    new_figure,
    svg,
)
from healthfm_core.evaluation.report.wording import arm_name

FAINTEST: Final = 0.06
STRONGEST: Final = 0.5
"""Opacity of the lowest and the highest cell; ink stays readable on both."""
COLUMNS: Final = 2


@dataclass(frozen=True)
class Curve:
    """Values with a band at ascending places, all of one length."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def in_order(palette: Sequence[str], arms: Sequence[str]) -> list[str]:
    """Return the report's arms, then those that only a part of it has: the order of colours."""
    return list(dict.fromkeys([*palette, *arms]))


def band_curves(
    panels: Mapping[str, Mapping[str, Curve]],
    arms: Sequence[str],
    *,
    name: str,
    xlabel: str,
    ylabel: str,
    ticks: Mapping[float, str] | None = None,
    log: bool = False,
) -> str:
    """Draw title → arm → curve, two panels to a line, on one vertical scale.

    Args:
        panels: What to draw.
        arms: All arms in the order of their colours.
        name: Makes the ids in the SVG its own.
        xlabel: Under each panel.
        ylabel: Beside the first of each line.
        ticks: Place → text on the horizontal axis.
        log: Whether that axis is logarithmic.
    """
    shade, signs = colours(arms), markers(arms)
    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(
            4.2 * columns + 0.4, 2.7 * lines, lines, columns, sharey=True, sharex=True
        )
        for axis, (title, curves) in zip(axes.ravel(), panels.items(), strict=False):
            axis.set_title(title)
            for arm in [arm for arm in arms if arm in curves]:
                _band(axis, curves[arm], shade[arm], signs[arm], arm_name(arm))
            _scale(axis, ticks, log=log)
            axis.set_xlabel(xlabel)
        for axis in axes.ravel()[len(panels) :]:
            axis.set_visible(False)
        for line in axes:
            line[0].set_ylabel(ylabel)
        axes[0, 0].legend(fontsize=8)
        return svg(figure, name, f"{ylabel} by {xlabel}")


def _band(axis: Any, curve: Curve, colour: str, marker: str, label: str) -> None:
    axis.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    axis.plot(curve.x, curve.y, color=colour, marker=marker, markersize=4, label=label)


def _scale(axis: Any, ticks: Mapping[float, str] | None, *, log: bool) -> None:
    axis.grid(axis="y")
    axis.set_axisbelow(True)
    if log:
        axis.set_xscale("log", base=2)
        axis.minorticks_off()
    if ticks:
        axis.set_xticks(list(ticks), list(ticks.values()))


def heat_map(
    values: Float64,
    texts: Sequence[Sequence[tuple[str, str]]],
    down_names: Sequence[str],
    across_names: Sequence[str],
    *,
    name: str,
    title: str,
    down: str,
    across: str,
) -> str:
    """Draw a matrix, the higher the darker; what is not there stays blank.

    Args:
        values: [rows, columns], NaN where there is none.
        texts: What stands in each cell, in two lines.
        down_names: Of the rows.
        across_names: Of the columns.
        name: Makes the ids in the SVG its own.
        title: What the values are.
        down: What the rows are.
        across: What the columns are.
    """
    rows, columns = values.shape
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(2.0 + 1.25 * columns, 1.1 + 0.52 * rows, 1, 1)
        axis = axes[0, 0]
        for i, j in np.ndindex(rows, columns):
            _cell(axis, i, j, _opacity(values, float(values[i, j])), texts[i][j])
        axis.set_xlim(0, columns)
        axis.set_ylim(rows, 0)
        axis.set_xticks(np.arange(columns) + 0.5, [_folded(text) for text in across_names])
        axis.set_yticks(np.arange(rows) + 0.5, down_names)
        axis.tick_params(length=0)
        for spine in axis.spines.values():
            spine.set_visible(False)
        axis.set_title(title)
        axis.set_xlabel(across)
        axis.set_ylabel(down)
        return svg(figure, name, f"{title} by {down} and {across}")


def _folded(text: str) -> str:
    return text.replace(" + ", "\n+ ")


def _opacity(values: Float64, value: float) -> float:
    if not np.isfinite(value):
        return 0.0
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    share = (value - low) / (high - low) if high > low else 0.5
    return FAINTEST + (STRONGEST - FAINTEST) * share


def _cell(axis: Any, row: int, column: int, opacity: float, text: tuple[str, str]) -> None:
    box = Rectangle((column + 0.02, row + 0.04), width=0.96, height=0.92, linewidth=0.6)
    if opacity > 0:
        box.set(facecolor=ARM_COLOURS[0], alpha=opacity, linewidth=0.0)
    else:
        box.set(facecolor="none", edgecolor=RULE)
    axis.add_patch(box)
    middle = (column + 0.5, row + (0.5 if not text[1] else 0.38))
    axis.text(*middle, text[0], ha="center", va="center", fontsize=9)
    if text[1]:
        under = (column + 0.5, row + 0.7)
        axis.text(*under, text[1], ha="center", va="center", fontsize=7)
