"""Figures of the report, as SVG text that takes its colours from the page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from healthfm_core.evaluation.calibration import Reliability
from healthfm_core.evaluation.tables import MINUS, MetricRow
from healthfm_core.evaluation.wording import arm_name

INK: Final = "#010101"
FAINT: Final = "#020202"
RULE: Final = "#030303"
ARM_COLOURS: Final = tuple(f"#0404{i:02x}" for i in range(8))
"""Stand-ins, exchanged for the page's own colours when the SVG is written."""

PIXELS: Final = 100
PIXELS_AT_LEAST: Final = 62
"""Width of an inch on a wide page, and on a phone, where a figure scrolls rather than shrink."""

_STYLE: Final[dict[str, Any]] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def colours(arms: Sequence[str]) -> dict[str, str]:
    """Give each arm its colour, the first arm the first."""
    return {arm: ARM_COLOURS[i % len(ARM_COLOURS)] for i, arm in enumerate(arms)}


def _svg(figure: Figure, name: str, title: str) -> str:
    """Return the figure as an ``<svg>`` element that scales and follows the page's colours."""
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = (
        text.replace(INK, "var(--ink)").replace(FAINT, "var(--faint)").replace(RULE, "var(--rule)")
    )
    for index, stand_in in enumerate(ARM_COLOURS):
        text = text.replace(stand_in, f"var(--arm{index})")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<svg [^>]*?width="[^"]*pt"', lambda m: m[0].rsplit(" width", 1)[0], text)
    text = re.sub(r'^(<svg [^>]*?) height="[^"]*pt"', r"\1", text, count=1)
    width = figure.get_size_inches()[0]
    style = f"max-width:{PIXELS * width:.0f}px;min-width:{PIXELS_AT_LEAST * width:.0f}px"
    opening = f'<svg role="img" aria-label="{title}" style="{style}" '
    return text.replace("<svg ", opening, 1).strip()


def _figure(
    width: float, height: float, rows: int, columns: int, **options: Any
) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, axes


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
    found = {(row.arm, row.subset): row for row in rows}
    shade = colours([arm.split(MINUS)[-1] for arm in arms] if zero else arms)
    with mpl.rc_context(_STYLE):
        height = 0.75 + 0.24 * len(arms)
        figure, axes = _figure(
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
                row = found.get((arm, subset))
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
        return _svg(figure, name, xlabel)


def learning_curves(
    curves: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    arms: Sequence[str],
) -> str:
    """Draw arm → metric → (rounds, values), one panel per metric."""
    metrics = list(dict.fromkeys(metric for found in curves.values() for metric in found))
    shade = colours(arms)
    with mpl.rc_context(_STYLE):
        columns = min(2, len(metrics))
        lines = -(-len(metrics) // columns)
        figure, axes = _figure(4.2 * columns, 2.4 * lines, lines, columns)
        for axis, metric in zip(axes.ravel(), metrics, strict=False):
            axis.set_title(metric.replace("_", " "))
            axis.grid(axis="y")
            for arm, found in curves.items():
                if metric in found:
                    rounds, values = found[metric]
                    axis.plot(
                        rounds, values, color=shade[arm], marker="o", markersize=2.5, label=arm
                    )
            axis.set_xlabel("round")
            axis.xaxis.get_major_locator().set_params(integer=True)
        for axis in axes.ravel()[len(metrics) :]:
            axis.set_visible(False)
        axes[0, 0].legend(fontsize=8)
        return _svg(figure, "curves", "learning curves")


def reliability_diagram(
    found: Mapping[str, Reliability], arms: Sequence[str], *, title: str, fewest: int
) -> str:
    """Draw observed against predicted risk per decile, without bins of under `fewest` rows."""
    shade = colours(arms)
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(4.2, 3.6, 1, 1)
        axis = axes[0, 0]
        top = 1e-3
        for arm, curve in found.items():
            keep = curve.count >= fewest
            x, y = curve.predicted[keep], curve.observed[keep]
            top = max(top, *x.tolist(), *y.tolist())
            axis.plot(
                x,
                y,
                color=shade[arm],
                marker="o",
                markersize=3.5,
                linewidth=1.1,
                label=arm_name(arm),
            )
        axis.plot(
            [0, top * 1.05], [0, top * 1.05], color=FAINT, linewidth=0.8, linestyle=(0, (2, 2))
        )
        axis.grid(True)
        axis.set_axisbelow(True)
        axis.set_title(title)
        axis.set_xlabel("predicted risk, mean of the decile")
        axis.set_ylabel("observed share")
        axis.legend(fontsize=8, loc="upper left")
        return _svg(figure, "reliability", "reliability diagram")


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
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(5.6, 0.8 + 0.22 * len(names), 1, 1)
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
        return _svg(figure, "sites", f"{arms[0]} and {arms[1]} at each site")


def half_life_plot(learned: Mapping[str, Sequence[float]], true: Sequence[float]) -> str:
    """Draw the kernel's half-lives in days, a line of dots per layer, the true ones as lines."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(5.6, 0.9 + 0.24 * len(learned), 1, 1)
        axis = axes[0, 0]
        for place, values in enumerate(learned.values()):
            axis.plot(
                values, [place] * len(values), "o", color=ARM_COLOURS[0], alpha=0.6, markersize=4
            )
        for value in sorted(set(true)):
            axis.axvline(value, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
        axis.set_xscale("log")
        axis.set_yticks(range(len(learned)), list(learned))
        axis.set_ylim(len(learned) - 0.4, -0.6)
        axis.grid(axis="x")
        axis.set_axisbelow(True)
        axis.spines["left"].set_visible(False)
        axis.tick_params(left=False)
        axis.set_xlabel("half-life, days" + (" (dashed: the true ones)" if true else ""))
        return _svg(figure, "half-lives", "half-lives of the attention kernel")
