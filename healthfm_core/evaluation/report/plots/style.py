"""The figures' common look, and SVG text that takes its colours from the page."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from typing import Any, Final

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK: Final = "#010101"
FAINT: Final = "#020202"
RULE: Final = "#030303"
ARM_COLOURS: Final = tuple(f"#0404{i:02x}" for i in range(8))
"""Stand-ins, exchanged for the page's own colours when the SVG is written."""

MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: Final[tuple[Any, ...]] = ("-", (0, (4, 1.5)), (0, (1, 1)))

PIXELS: Final = 100
PIXELS_AT_LEAST: Final = 62
"""Width of an inch on a wide page, and on a phone, where a figure scrolls rather than shrink."""

STYLE: Final[dict[str, Any]] = {
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


def markers(arms: Sequence[str]) -> dict[str, str]:
    """Give each arm a marker too, so that no two arms are told apart by colour alone."""
    return {arm: MARKERS[i % len(MARKERS)] for i, arm in enumerate(arms)}


def dashes(arms: Sequence[str]) -> dict[str, Any]:
    """Give each arm's line its dashes; the second eight arms differ from the first by these."""
    return {arm: DASHES[(i // len(MARKERS)) % len(DASHES)] for i, arm in enumerate(arms)}


def svg(figure: Figure, name: str, title: str) -> str:
    """Return the figure as an ``<svg>`` element that scales and follows the page's colours."""
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
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
    opening = f'<svg role="img" aria-label="{escape(title)}" style="{style}" '
    return text.replace("<svg ", opening, 1).strip()


def new_figure(
    width: float, height: float, rows: int, columns: int, **options: Any
) -> tuple[Figure, Any]:
    """Return a figure of so many inches and its [rows, columns] axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, axes
