"""How good the predictions are for women, for the old, for each ancestry and site.

A group of fewer than k people is withheld: its name is given and nothing else. Where the people of
all withheld groups together are fewer than k, the smallest of the others is withheld too, or
subtracting the shown counts from the total would tell how many they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from healthfm_core.arrays import Int64, Text
from healthfm_core.evaluation.metrics.bootstrap import Draws, draw_subjects
from healthfm_core.evaluation.metrics.report_metrics import estimates
from healthfm_core.evaluation.predictions import Predictions, Subset

SHOWN: Final = ("auroc", "average_precision", "ece")
AGE_EDGES_YEARS: Final = (18.0, 40.0, 65.0, 80.0)
UNKNOWN: Final = "not recorded"


@dataclass(frozen=True)
class Groups:
    """S subjects and what is known of them.

    Attributes:
        subject: [S] int64, each once; those of `Predictions.subject`.
        labels: Attribute (``sex``, ``age``, ``ancestry``, ``site``) → [S] names of groups. A
            subject that is predicted for but not among these is `UNKNOWN` in all.
    """

    subject: Int[np.ndarray, " S"]
    labels: Mapping[str, npt.NDArray[np.generic]]

    def __post_init__(self) -> None:
        if len(np.unique(self.subject)) != len(self.subject):
            raise ValueError("a subject is in the groups twice")
        if any(len(names) != len(self.subject) for names in self.labels.values()):
            raise ValueError("an attribute does not have one label per subject")

    def of(self, attribute: str, subject: Int64) -> Text:
        """Return the group of each subject [n]."""
        if not len(self.subject):
            return np.full(len(subject), UNKNOWN)
        order = np.argsort(self.subject)
        place = np.searchsorted(self.subject, subject, sorter=order)
        place = order[np.minimum(place, len(order) - 1)]
        names = np.asarray(self.labels[attribute], np.str_)[place]
        known = (self.subject[place] == subject) & (names != "")
        return np.where(known, names, UNKNOWN)


@dataclass(frozen=True)
class SubgroupRow:
    """One number about one group, or that the group is withheld.

    Attributes:
        attribute: What the people are grouped by.
        group: The group's name.
        arm: Whose predictions; empty for a withheld group.
        metric: A key of `resampling.METRICS`; empty for a withheld group.
        value: Point estimate; None where withheld, NaN where not defined.
        low: Lower end of the 95 % interval.
        high: Upper end.
        n_subjects: People in the group; None where withheld.
        n_cases: People with the outcome; None where withheld or fewer than k.
        withheld: Whether the group is too small to be shown.
    """

    attribute: str
    group: str
    arm: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n_subjects: int | None
    n_cases: int | None
    withheld: bool


def subgroup_rows(
    arms: Mapping[str, Predictions],
    groups: Groups,
    *,
    k: int,
    bootstraps: int,
    rng: np.random.Generator,
    metrics: Sequence[str] = SHOWN,
    subset: Subset = "overall",
) -> list[SubgroupRow]:
    """Return every arm's metrics in every group of at least `k` people with predictions.

    Args:
        arms: Arm → predictions.
        groups: Who is in which group.
        k: ``evaluation.k_subgroup``.
        bootstraps: Number of replicates over the group's people.
        rng: Where the draws come from; all arms of a group share theirs.
        metrics: Keys of `resampling.METRICS`.
        subset: Which rows of the predictions.
    """
    parts = {arm: predictions.subset(subset) for arm, predictions in arms.items()}
    subjects = np.unique(np.concatenate([p.subject for p in parts.values()] or [np.zeros(0, int)]))
    rows: list[SubgroupRow] = []
    for attribute in groups.labels:
        group_of = groups.of(attribute, subjects)
        names, counts = np.unique(group_of, return_counts=True)
        hidden = withheld(dict(zip(names.tolist(), counts.tolist(), strict=True)), k)
        for name in names.tolist():
            if name in hidden:
                rows.append(_withheld_row(attribute, name))
                continue
            draws = draw_subjects(subjects[group_of == name], bootstraps, rng)
            for arm, part in parts.items():
                rows += _group_rows(attribute, name, arm, part, draws, metrics, k)
    return rows


def withheld(counts: Mapping[str, int], k: int) -> frozenset[str]:
    """Return the groups that may not be shown, given the people of each.

    Those under `k`; and, while the withheld together are under `k`, the smallest shown one.
    """
    ordered = sorted(counts, key=lambda name: (counts[name], name))
    hidden = [name for name in ordered if counts[name] < k]
    while hidden and len(hidden) < len(ordered) and sum(counts[name] for name in hidden) < k:
        hidden.append(ordered[len(hidden)])
    return frozenset(hidden)


def age_bands(
    age_years: Float[np.ndarray, " S"], edges_years: Sequence[float] = AGE_EDGES_YEARS
) -> Text:
    """Return each subject's band, ``under 18``, ``18-39``, …, ``80 and over``; NaN is unknown."""
    whole = [f"{edge:g}" for edge in edges_years]
    between = [f"{a:g}-{b - 1:g}" for a, b in pairwise(edges_years)]
    names = np.array([f"under {whole[0]}", *between, f"{whole[-1]} and over"])
    band = names[np.searchsorted(np.asarray(edges_years), np.nan_to_num(age_years), side="right")]
    return np.where(np.isnan(age_years), UNKNOWN, band)


def site_groups(predictions: Predictions, names: Sequence[str]) -> Groups:
    """Return the subjects of the predictions, grouped by their site's name."""
    subject, first = np.unique(predictions.subject, return_index=True)
    return Groups(subject, {"site": np.array(names, np.str_)[predictions.site[first]]})


def _withheld_row(attribute: str, name: str) -> SubgroupRow:
    return SubgroupRow(attribute, name, "", "", None, None, None, None, None, withheld=True)


def _group_rows(
    attribute: str,
    name: str,
    arm: str,
    part: Predictions,
    draws: Draws,
    metrics: Sequence[str],
    k: int,
) -> list[SubgroupRow]:
    """One arm's rows in one group; none where it predicts for fewer than `k` of its people."""
    part = part.where(np.isin(part.subject, draws.subjects))
    people, cases = part.n_subjects, part.where(part.outcome).n_subjects
    if people < k:
        return []
    shown = cases if cases >= k or cases == 0 else None
    return [
        SubgroupRow(
            attribute, name, arm, metric, e.value, *e.interval(), people, shown, withheld=False
        )
        for metric, e in estimates(tuple(metrics), part, draws).items()
    ]
