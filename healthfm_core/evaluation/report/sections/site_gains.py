"""The sites: what each holds, and who gains by joining."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from healthfm_core.evaluation.metrics.ranking import RANK_METRICS
from healthfm_core.evaluation.metrics.report_metrics import metric_title
from healthfm_core.evaluation.report import plots
from healthfm_core.evaluation.report.report_context import ReportContext
from healthfm_core.evaluation.report.sections.table_layout import headline
from healthfm_core.evaluation.report.wording import NOTHING, SUBSET_NAMES, count
from healthfm_core.modalities.registry import modality_names

MOST_SITES_DRAWN: Final = 40


def sites_figure(context: ReportContext, arms: Sequence[str]) -> str:
    """The reference and local training at each site that is large enough; else empty."""
    pair = (context.reference, "local")
    if any(arm not in context.predictions for arm in pair) or not context.sites:
        return ""
    metric, subset = headline(context.task)
    names: list[str] = []
    values: list[tuple[float, float]] = []
    for index, site in enumerate(context.sites):
        parts = [context.predictions[arm] for arm in pair]
        parts = [part.where(part.site == index) for part in parts]
        if subset == "new_onset":
            parts = [part.subset("new_onset") for part in parts]
        scores = [RANK_METRICS[metric].exact(part.score, part.outcome) for part in parts]
        if all(part.n_subjects >= context.k_subgroup for part in parts) and np.all(
            np.isfinite(scores)
        ):
            names.append(site.name)
            values.append((scores[0], scores[1]))
    if not names:
        return ""
    order = sorted(range(len(names)), key=lambda i: values[i][1] - values[i][0])[:MOST_SITES_DRAWN]
    label = metric_title(metric)
    if context.task == "next_visit":
        label += f", {SUBSET_NAMES[subset]}"
    return plots.site_pairs(
        [names[i] for i in order],
        [values[i][0] for i in order],
        [values[i][1] for i in order],
        pair,
        arms,
        xlabel=label,
    )


@dataclass(frozen=True)
class SiteLine:
    """One line of the sites × modalities matrix."""

    name: str
    held: tuple[bool, ...]
    subjects: str
    held_out: str


def site_lines(context: ReportContext) -> list[SiteLine]:
    """The sites, small counts withheld."""
    k = context.k_subgroup
    return [
        SiteLine(
            site.name,
            tuple(name in site.modalities for name in modality_names()),
            count(site.n_subjects, k),
            NOTHING if site.n_held_out is None else count(site.n_held_out, k),
        )
        for site in context.sites
    ]
