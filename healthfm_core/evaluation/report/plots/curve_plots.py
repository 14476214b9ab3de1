"""What moves along an axis: rounds, risk, labels, corruption, half-lives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import matplotlib as mpl

from healthfm_core.evaluation.metrics.calibration_error import Reliability
from healthfm_core.evaluation.report.plots.style import (
    ARM_COLOURS,
    FAINT,
    INK,
    STYLE,
    colours,
    dashes,
    markers,
    new_figure,
    svg,
)
from healthfm_core.evaluation.report.wording import arm_name

MOST_MARKERS: Final = 20
"""On one curve: more of them hide the line."""


def learning_curves(
    curves: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    arms: Sequence[str],
    *,
    name: str = "curves",
) -> str:
    """Draw arm → metric → (rounds, values), one panel per metric.

    Args:
        curves: What to draw.
        arms: All arms in the order of their colours.
        name: Makes the ids in the SVG its own.
    """
    metrics = list(dict.fromkeys(metric for by_metric in curves.values() for metric in by_metric))
    shade, signs, lines_of = colours(arms), markers(arms), dashes(arms)
    with mpl.rc_context(STYLE):
        columns = min(2, len(metrics))
        lines = -(-len(metrics) // columns)
        figure, axes = new_figure(4.2 * columns, 2.4 * lines, lines, columns)
        for axis, metric in zip(axes.ravel(), metrics, strict=False):
            axis.set_title(metric.replace("_", " "))
            axis.grid(axis="y")
            for arm, by_metric in curves.items():
                if metric in by_metric:
                    rounds, values = by_metric[metric]
                    look = {"color": shade[arm], "marker": signs[arm], "ls": lines_of[arm]}
                    every = max(1, len(rounds) // MOST_MARKERS)
                    axis.plot(
                        rounds, values, **look, markersize=3.5, markevery=every, label=arm_name(arm)
                    )
            axis.set_xlabel("round")
            axis.xaxis.get_major_locator().set_params(integer=True)
        for axis in axes.ravel()[len(metrics) :]:
            axis.set_visible(False)
        axes[0, 0].legend(fontsize=8)
        return svg(figure, name, "learning curves")


def reliability_diagram(
    curves: Mapping[str, Reliability], arms: Sequence[str], *, title: str, fewest: int
) -> str:
    """Draw observed against predicted risk per decile, without bins of under `fewest` rows."""
    shade, signs = colours(arms), markers(arms)
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(4.2, 3.6, 1, 1)
        axis = axes[0, 0]
        top = 1e-3
        for arm, curve in curves.items():
            keep = curve.count >= fewest
            x, y = curve.predicted[keep], curve.observed[keep]
            top = max([top, *x.tolist(), *y.tolist()])
            axis.plot(
                x,
                y,
                color=shade[arm],
                marker=signs[arm],
                markersize=4,
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
        return svg(figure, "reliability", "reliability diagram")


def half_life_plot(learned: Mapping[str, Sequence[float]], true: Sequence[float]) -> str:
    """Draw the kernel's half-lives in days, a line of dots per layer, the true ones as lines."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(5.6, 0.9 + 0.24 * len(learned), 1, 1)
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
        return svg(figure, "half-lives", "half-lives of the attention kernel")
