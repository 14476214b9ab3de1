"""Figures of an explanation: the risk over time, what moved it, what the kernel remembers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.ticker import FuncFormatter

from healthfm_core.arrays import Int64
from healthfm_core.evaluation.report.plots.style import (
    ARM_COLOURS,
    FAINT,
    INK,
    RULE,
    STYLE,
    new_figure,
    svg,
)
from healthfm_core.explain.kernel_curves import HeadMemory
from healthfm_core.explain.person_explanation import Explanation, TargetRisk

RAISES: Final = ARM_COLOURS[7]
LOWERS: Final = ARM_COLOURS[0]
WORN: Final = ARM_COLOURS[6]
_PLAIN: Final = {**STYLE, "text.parse_math": False}
"""A code's description may hold a dollar sign."""
_UNITS: Final = (
    (0.99, 1 / 24, "hour"),
    (59.5, 1.0, "day"),
    (360.0, 30.4375, "month"),
    (np.inf, 365.25, "year"),
)
"""Spans under so many days are shown in units of so many days."""


def risk_figure(explanation: Explanation, target: TargetRisk, name: str) -> str:
    """Draw one target's risk as steps from visit to visit, with the visits and the wearing."""
    when, risk = _moments(explanation.time_us), 100 * target.risk
    with mpl.rc_context(_PLAIN):
        figure, axes = new_figure(7.6, 2.9, 1, 1)
        axis = axes[0, 0]
        axis.step(when, risk, where="post", color=LOWERS)
        axis.plot(when, risk, "o", color=LOWERS, markersize=3.5, label="after a visit")
        if target.recorded.any():
            held = target.recorded
            axis.plot(
                when[held],
                risk[held],
                "D",
                color=RAISES,
                markersize=5,
                label="recorded in the visit",
            )
        chosen = when[explanation.chosen]
        axis.axvline(chosen, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
        if len(explanation.worn_us):
            _mark_wearing(axis, _moments(explanation.worn_us))
        axis.set_ylim(bottom=0, top=max(1.08 * float(risk.max()), 1e-3))
        axis.grid(axis="y")
        axis.set_axisbelow(True)
        axis.set_ylabel(f"risk within {explanation.horizon_days:g} days, %")
        figure.legend(fontsize=8, ncols=3, loc="outside upper left")
        return svg(figure, name, "risk over time")


def _mark_wearing(axis: Any, when: npt.NDArray[Any]) -> None:
    axis.plot(
        when,
        np.full(len(when), 0.0),
        "|",
        color=WORN,
        markersize=7,
        markeredgewidth=1.2,
        transform=axis.get_xaxis_transform(),
        clip_on=False,
        label="a day of wearing",
    )


def _moments(time_us: Int64) -> npt.NDArray[Any]:
    return time_us.astype("datetime64[us]")


def bars_figure(bars: Sequence[tuple[str, float]], name: str) -> str:
    """Draw (label, change in log-odds) as signed bars from top to bottom."""
    values = [value for _, value in bars]
    with mpl.rc_context(_PLAIN):
        figure, axes = new_figure(7.6, 0.7 + 0.24 * len(bars), 1, 1)
        axis = axes[0, 0]
        colours = [RAISES if value > 0 else LOWERS for value in values]
        axis.barh(range(len(bars)), values, color=colours, height=0.62)
        axis.axvline(0.0, color=FAINT, linewidth=0.8)
        axis.set_yticks(range(len(bars)), [label for label, _ in bars])
        axis.set_ylim(len(bars) - 0.4, -0.6)
        axis.grid(axis="x")
        axis.set_axisbelow(True)
        axis.spines["left"].set_visible(False)
        axis.tick_params(left=False)
        axis.set_xlabel("← lowers the risk · change in log-odds · raises it →")
        return svg(figure, name, "what moved the risk")


def memory_figure(heads: Sequence[HeadMemory]) -> str:
    """Draw each head's half-lives on a line of its own, dots as large as their weights."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(7.6, 0.8 + 0.2 * len(heads), 1, 1)
        axis = axes[0, 0]
        for place, head in enumerate(heads):
            shown = [
                (d, w)
                for d, w in zip(head.half_life_days, head.weight, strict=True)
                if np.isfinite(d)
            ]
            axis.scatter(
                [d for d, _ in shown],
                [place] * len(shown),
                s=[70 * w for _, w in shown],
                color=ARM_COLOURS[head.layer % 2],
                alpha=0.75,
                linewidths=0,
            )
            if np.isfinite(head.half_at_days):
                axis.plot([head.half_at_days], [place], "|", color=INK, markersize=9)
        _head_labels(axis, heads)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda days, _: span(days)))
        axis.set_xticks([1 / 24, 1, 7, 30, 365.25, 3652.5])
        axis.xaxis.minorticks_off()
        axis.grid(axis="x")
        axis.set_axisbelow(True)
        axis.set_xlabel("half-life")
        return svg(figure, "memories", "half-lives of each layer and head")


def _head_labels(axis: Any, heads: Sequence[HeadMemory]) -> None:
    names = [f"layer {head.layer + 1} · head {head.head + 1}" for head in heads]
    axis.set_yticks(range(len(heads)), names)
    axis.set_ylim(len(heads) - 0.4, -0.6)
    for place in range(1, len(heads)):
        if heads[place].layer != heads[place - 1].layer:
            axis.axhline(place - 0.5, color=RULE, linewidth=0.8)
    axis.spines["left"].set_visible(False)
    axis.tick_params(left=False)


def span(days: float) -> str:
    """Write a span of days in the unit that reads best."""
    if not np.isfinite(days):
        return "for ever"
    unit_days, unit = next((size, name) for limit, size, name in _UNITS if days < limit)
    number = f"{days / unit_days:.2g}"
    return f"{number} {unit}{'' if number == '1' else 's'}"
