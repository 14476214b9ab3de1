"""Figures of missing modalities and of corrupted wearing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from healthfm_core.evaluation.analyses.missing_inputs import CorruptionRow
from healthfm_core.evaluation.metrics.report_metrics import metric_title
from healthfm_core.evaluation.report import plots
from healthfm_core.evaluation.report.report_context import ReportContext
from healthfm_core.evaluation.report.sections.table_layout import spread
from healthfm_core.evaluation.report.wording import NOTHING, inputs_name, number

KINDS: Final = {"removed": "hours removed", "noised": "hours with noise added"}


def matrix_figure(context: ReportContext) -> str:
    """Trained on (rows) by given (columns), the fewest modalities first; empty without cells."""
    if not context.missing:
        return ""
    metric = context.missing[0].metric
    cells = {(c.trained, c.given): c for c in context.missing if c.metric == metric}
    down = sorted({trained for trained, _ in cells}, key=_size)
    across = sorted({given for _, given in cells}, key=_size)
    values = np.full((len(down), len(across)), np.nan)
    texts = [[(NOTHING, "")] * len(across) for _ in down]
    for (trained, given), own in cells.items():
        if own.n_subjects < context.k_subgroup:
            continue
        place = down.index(trained), across.index(given)
        values[place] = own.value
        texts[place[0]][place[1]] = (number(own.value), spread(own.low, own.high))
    return plots.heat_map(
        values,
        texts,
        [inputs_name(name) for name in down],
        [inputs_name(name) for name in across],
        name="missing",
        title=metric_title(metric),
        down="trained on",
        across="given",
    )


def corruption_figure(context: ReportContext, palette: Sequence[str]) -> str:
    """A panel per kind of corruption, a curve per arm; empty without rows."""
    rows = [row for row in context.corruption if row.n_subjects >= context.k_subgroup]
    if not rows:
        return ""
    metric = rows[0].metric
    rows = [row for row in rows if row.metric == metric]
    panels = {}
    for kind in dict.fromkeys(row.kind for row in rows):
        of = [row for row in rows if row.kind == kind]
        arms = dict.fromkeys(row.arm for row in of)
        panels[KINDS.get(kind, kind)] = {arm: _curve(of, arm) for arm in arms}
    return plots.band_curves(
        panels,
        plots.in_order(palette, [row.arm for row in rows]),
        name="corruption",
        xlabel="share of the hours of wearing",
        ylabel=metric_title(metric),
    )


def _curve(rows: Sequence[CorruptionRow], arm: str) -> plots.Curve:
    own = sorted((row for row in rows if row.arm == arm), key=lambda row: row.share)
    return plots.Curve(
        [row.share for row in own],
        [row.value for row in own],
        [row.low for row in own],
        [row.high for row in own],
    )


def _size(inputs: str) -> tuple[int, str]:
    return inputs.count("+"), inputs
