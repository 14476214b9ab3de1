"""Figures of the report, as SVG text that takes its colours from the page."""

from healthfm_core.evaluation.report.plots.band_plots import Curve, band_curves, heat_map, in_order
from healthfm_core.evaluation.report.plots.curve_plots import (
    half_life_plot,
    learning_curves,
    reliability_diagram,
)
from healthfm_core.evaluation.report.plots.interval_plots import interval_plot, site_pairs
from healthfm_core.evaluation.report.plots.style import ARM_COLOURS

__all__ = [
    "ARM_COLOURS",
    "Curve",
    "band_curves",
    "half_life_plot",
    "heat_map",
    "in_order",
    "interval_plot",
    "learning_curves",
    "reliability_diagram",
    "site_pairs",
]
