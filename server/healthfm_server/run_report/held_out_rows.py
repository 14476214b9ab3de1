"""What the sites told of a model on their held-out people, put together for a report.

Nobody's predictions are at the coordinator, so a value over all sites is the mean of the sites' own
by their people, and its interval follows from theirs: the sites' people are others, so that the
variances add up. It is of these sites, and says nothing of one that is not among them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Final, Protocol

from healthfm_core.evaluation.analyses.subgroups import SubgroupRow
from healthfm_core.evaluation.metrics.metric_rows import MetricRow
from healthfm_core.held_out.site_evaluation import ALONE, FEDERATED, SiteEvaluation
from healthfm_server.run_folder.held_out_file import HeldOutTold

NORMAL: Final = 1.959964
"""Standard deviations from the middle of a 95 % interval to its ends."""


class _Row(Protocol):
    @property
    def value(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...
    @property
    def n_subjects(self) -> int | None: ...


@dataclass(frozen=True)
class Pooled:
    """A mean over sites with its 95 % interval, and how many people it is of."""

    value: float
    low: float
    high: float
    n_subjects: int


def site_evaluations(
    told: HeldOutTold | None,
    task: str,
    gains: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> dict[str, SiteEvaluation]:
    """Return site → what it told of its held-out people, and of its own model's answers to them."""
    shared = {} if told is None else told.metrics
    return {
        site: SiteEvaluation.from_metrics({**shared.get(site, {}), **gains.get(site, {})}, task)
        for site in sorted({*shared, *gains})
    }


def row_values(row: MetricRow) -> dict[str, Any]:
    """Return a row as JSON has it: an undefined number is null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(row).items()
    }


def pooled(rows: Iterable[_Row]) -> Pooled | None:
    """Return the mean of several sites' values by their people; None where none has any."""
    known = [
        (float(row.value), _number(row.low), _number(row.high), row.n_subjects)
        for row in rows
        if row.value is not None and math.isfinite(row.value) and row.n_subjects
    ]
    people = sum(n for *_, n in known)
    if not people:
        return None
    value = sum(v * n for v, _, _, n in known) / people
    deviations = [(high - low) / (2 * NORMAL) * n / people for _, low, high, n in known]
    half = NORMAL * math.sqrt(sum(d * d for d in deviations))
    return Pooled(value, value - half, value + half, people)


def pooled_rows(told: Mapping[str, SiteEvaluation]) -> list[MetricRow]:
    """Return the rows over all sites: of the shared model, and of the gain where sites tell it.

    The sites' own models stand beside the shared one only where every site told both, or the two
    would be of other people.
    """
    by_key: dict[tuple[str, str, str], list[MetricRow]] = {}
    for evaluation in told.values():
        for row in evaluation.rows:
            by_key.setdefault((row.arm, row.subset, row.metric), []).append(row)
    found = [row for rows in by_key.values() for row in _over_sites(rows)]
    told_by = {arm: {s for s, e in told.items() if _has(e, arm)} for arm in (FEDERATED, ALONE)}
    if told_by[ALONE] != told_by[FEDERATED]:
        found = [row for row in found if row.arm != ALONE]
    return sorted(found, key=lambda row: (row.is_difference, row.arm != FEDERATED))


def pooled_groups(told: Mapping[str, SiteEvaluation]) -> list[SubgroupRow]:
    """Return the rows of groups over all sites; one that every site withholds is withheld."""
    by_key: dict[tuple[str, str, str], list[SubgroupRow]] = {}
    hidden: dict[tuple[str, str], SubgroupRow] = {}
    for evaluation in told.values():
        for row in evaluation.groups:
            if row.withheld:
                hidden[row.attribute, row.group] = row
            else:
                by_key.setdefault((row.attribute, row.group, row.metric), []).append(row)
    shown = [row for rows in by_key.values() for row in _group_over_sites(rows)]
    known = {(row.attribute, row.group) for row in shown}
    everything = [*shown, *(row for key, row in hidden.items() if key not in known)]
    return sorted(everything, key=lambda row: (row.attribute, row.group))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _has(evaluation: SiteEvaluation, arm: str) -> bool:
    return any(row.arm == arm for row in evaluation.rows)


def _over_sites(rows: Sequence[MetricRow]) -> Iterator[MetricRow]:
    mean = pooled(rows)
    if mean is not None:
        yield replace(
            rows[0], value=mean.value, low=mean.low, high=mean.high, n_subjects=mean.n_subjects
        )


def _group_over_sites(rows: Sequence[SubgroupRow]) -> Iterator[SubgroupRow]:
    mean = pooled(rows)
    if mean is not None:
        yield replace(
            rows[0],
            value=mean.value,
            low=mean.low,
            high=mean.high,
            n_subjects=mean.n_subjects,
        )
