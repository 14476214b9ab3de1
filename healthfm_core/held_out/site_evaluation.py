"""What one site may tell of how a model does on its held-out people, and how it travels.

It travels as metrics, a name and a number each, so that a site's policy holds for it by its
patterns as for every other metric, and its log shows each number that left:

``held_out/overall/auroc`` with ``_low`` and ``_high``, its 95 % interval over people;
``held_out/overall/n_subjects``; ``held_out/risk/3/predicted``, ``observed`` and ``rows``;
``held_out/sex=F/auroc`` and ``n_subjects``, or ``held_out/sex=X/withheld``.
``own_model/`` and ``gain/`` stand for the site's own model, and for what joining gains, paired.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from healthfm_core.evaluation import MetricRow, Predictions, metric_rows
from healthfm_core.evaluation.analyses.subgroups import Groups, SubgroupRow
from healthfm_core.evaluation.metrics.metric_rows import MINUS, subsets_of
from healthfm_core.evaluation.predictions import Subset
from healthfm_core.held_out.group_rows import told_group_rows
from healthfm_core.held_out.risk_bins import RiskBin, is_enough, risk_bins

METRICS: Final = ("average_precision", "auroc", "brier", "ece", "slope", "intercept")
"""What a site tells of each subset of its rows."""
FEDERATED: Final = "federated"
ALONE: Final = "local"
GAIN: Final = f"{FEDERATED}{MINUS}{ALONE}"
PREFIXES: Final[Mapping[str, str]] = {
    FEDERATED: "held_out",
    ALONE: "own_model",
    GAIN: "gain",
}
"""Arm, or difference of two, → how the names of its metrics begin."""
PEOPLE: Final = "n_subjects"
WITHHELD: Final = "withheld"
ENDS: Final[Mapping[str, str]] = {"": "value", "_low": "low", "_high": "high"}
MOST_BINS: Final = 100
MOST_GROUPS: Final = 200


@dataclass(frozen=True)
class SiteEvaluation:
    """What a site tells of its held-out people.

    Attributes:
        rows: Of the shared model and, where the site trained one, of its own and of their paired
            difference; ``federated``, ``local``, ``federated - local``. Their `n_subjects` is how
            many people were asked about: of a subset it might be a few less, and the few told of.
        bins: Predicted against observed risk by the shared model.
        groups: By sex, ancestry and age, of the shared model.
    """

    rows: tuple[MetricRow, ...] = ()
    bins: tuple[RiskBin, ...] = ()
    groups: tuple[SubgroupRow, ...] = ()

    @classmethod
    def of(
        cls,
        arms: Mapping[str, Predictions],
        groups: Groups,
        *,
        task: str,
        k: int,
        bootstraps: int,
        rng: np.random.Generator,
    ) -> Self:
        """Judge predictions of the same people.

        Args:
            arms: ``federated`` and perhaps ``local`` → predictions, row by row of the same.
            groups: Who is in which group.
            task: ``next_visit`` or a label's name.
            k: Nothing is told of a subset, a bin or a group in which fewer people have the outcome,
                or fewer have it not: it would speak of those few.
            bootstraps: Replicates over people.
            rng: Where their draws come from.
        """
        shared = arms[FEDERATED]
        subsets = [name for name in subsets_of(task) if _may_be_told(shared.subset(name), k)]
        if not subsets:
            return cls()
        rows = metric_rows(
            arms, task=task, bootstraps=bootstraps, rng=rng, metrics=METRICS, subsets=subsets
        )
        headline: Subset = "new_onset" if "new_onset" in subsets else "overall"
        by_group = told_group_rows(
            shared, groups, subset=headline, arm=FEDERATED, k=k, bootstraps=bootstraps, rng=rng
        )
        asked = shared.n_subjects
        told = (replace(row, n_subjects=asked) for row in rows if math.isfinite(row.value))
        return cls(tuple(told), risk_bins(shared, k), tuple(by_group))

    def to_metrics(self) -> dict[str, float]:
        """Return name → number, of what is defined."""
        found = dict(self._of_rows()) | dict(self._of_bins()) | dict(self._of_groups())
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _of_rows(self) -> Iterator[tuple[str, float]]:
        for row in self.rows:
            name = f"{PREFIXES[row.arm]}/{row.subset}/{row.metric}"
            yield from ((f"{name}{end}", getattr(row, of)) for end, of in ENDS.items())
            yield f"{PREFIXES[row.arm]}/{row.subset}/{PEOPLE}", float(row.n_subjects)

    def _of_bins(self) -> Iterator[tuple[str, float]]:
        for number, one in enumerate(self.bins):
            name = f"{PREFIXES[FEDERATED]}/risk/{number}"
            yield f"{name}/predicted", one.predicted
            yield f"{name}/observed", one.observed
            yield f"{name}/rows", float(one.rows)

    def _of_groups(self) -> Iterator[tuple[str, float]]:
        for row in self.groups:
            name = f"{PREFIXES[FEDERATED]}/{row.attribute}={row.group}"
            if row.withheld:
                yield f"{name}/{WITHHELD}", 1.0
            elif row.value is not None and row.low is not None and row.high is not None:
                yield from (
                    (f"{name}/{row.metric}{end}", getattr(row, of)) for end, of in ENDS.items()
                )
                yield f"{name}/{PEOPLE}", float(row.n_subjects or 0)

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, float], task: str) -> Self:
        """Return what a site told, of what its policy let out; anything else is left out.

        Args:
            metrics: Name → number, as the site sent them; it may send what it likes.
            task: ``next_visit`` or a label's name.
        """
        by_place: dict[tuple[str, str], dict[str, float]] = {}
        for name, value in metrics.items():
            prefix, _, rest = name.partition("/")
            place, _, what = rest.rpartition("/")
            if prefix in PREFIXES.values() and place and math.isfinite(value):
                by_place.setdefault((prefix, place), {})[what] = float(value)
        arms = {prefix: arm for arm, prefix in PREFIXES.items()}
        rows = [
            row
            for (prefix, place), told in by_place.items()
            if place in subsets_of(task)
            for row in _rows(arms[prefix], task, place, told)
        ]
        of_shared = {p: told for (prefix, p), told in by_place.items() if arms[prefix] == FEDERATED}
        return cls(tuple(rows), tuple(_bins(of_shared)), tuple(_groups(of_shared)))


def _may_be_told(predictions: Predictions, k: int) -> bool:
    return is_enough(predictions, np.ones(len(predictions), np.bool_), k)


def _rows(arm: str, task: str, subset: str, told: Mapping[str, float]) -> Iterator[MetricRow]:
    """Yield the metrics of one arm and subset that came with a value."""
    people = round(told.get(PEOPLE, 0.0))
    for metric in METRICS:
        if metric in told:
            low, high = told.get(f"{metric}_low", math.nan), told.get(f"{metric}_high", math.nan)
            yield MetricRow(arm, task, subset, metric, told[metric], low, high, people)


def _bins(told: Mapping[str, Mapping[str, float]]) -> Iterator[RiskBin]:
    for number in range(MOST_BINS):
        found = told.get(f"risk/{number}", {})
        if {"predicted", "observed", "rows"} <= found.keys():
            yield RiskBin(found["predicted"], found["observed"], round(found["rows"]))


def _groups(told: Mapping[str, Mapping[str, float]]) -> Iterator[SubgroupRow]:
    places = [place for place in told if "=" in place][:MOST_GROUPS]
    for place in places:
        attribute, _, group = place.partition("=")
        found = told[place]
        nothing = SubgroupRow(attribute, group, "", "", None, None, None, None, None, withheld=True)
        if WITHHELD in found:
            yield nothing
            continue
        for metric in ("auroc", "average_precision", "ece"):
            if metric in found:
                yield replace(
                    nothing,
                    arm=FEDERATED,
                    metric=metric,
                    value=found[metric],
                    low=found.get(f"{metric}_low", math.nan),
                    high=found.get(f"{metric}_high", math.nan),
                    n_subjects=round(found.get(PEOPLE, 0.0)),
                    withheld=False,
                )
