"""One person's explanation: computed at the site, about the person, and kept there."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from healthfm_core.arrays import Bool, Float64, Int64
from healthfm_core.data.batch.row_plan import RowPlan
from healthfm_core.data.batch.sequences import WEARABLE, Sequences
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import RunError
from healthfm_core.explain.kernel_curves import HeadMemory, memories
from healthfm_core.explain.naming import CodeNames
from healthfm_core.explain.occlusion import Contribution, OcclusionModel
from healthfm_core.explain.record_parts import US_PER_DAY, RecordPart, parts_of
from healthfm_core.tokens.vocabulary import Vocabulary
from healthfm_core.trained import StoreReading, TrainedModel

ALONE: Final = 512
"""Events hidden one by one, at most; where there are more, those of the visits that matter most."""


@dataclass(frozen=True)
class TargetRisk:
    """One target's risk over n visits, and what moved the chosen one.

    Attributes:
        code: The target.
        name: In plain words.
        risk: [n] within the horizon, after each visit.
        recorded: [n] whether the visit itself holds the target.
        contributions: Of every part, in the order of the record.
    """

    code: str
    name: str
    risk: Float64
    recorded: Bool
    contributions: tuple[Contribution, ...]


@dataclass(frozen=True)
class Explanation:
    """What a model says of one person, and why.

    Attributes:
        subject_id: Whose.
        horizon_days: Risks are of an occurrence within so many days.
        time_us: [n] ends of the visits, µs since 1970; without any, the end of the record.
        chosen: The one whose risk is explained.
        worn_us: [d] ends of the days on which a device was worn.
        targets: One for each target asked for.
        memories: The kernel's half-lives.
        with_visit_only: Events that were hidden with their visit but not alone.
    """

    subject_id: int
    horizon_days: float
    time_us: Int64
    chosen: int
    worn_us: Int64
    targets: tuple[TargetRisk, ...]
    memories: tuple[HeadMemory, ...]
    with_visit_only: int


def explain(
    model: TrainedModel,
    store: SiteStore,
    subject_id: int,
    *,
    targets: Sequence[str],
    horizon_days: float,
    at_us: int | None = None,
    alone: int = ALONE,
) -> Explanation:
    """Explain a model's risks of one person.

    After each visit the record up to then is read, as in training. The risk after one visit is then
    taken apart: each event, day of wearing, score and static fact is hidden in turn, as if it had
    never been, and the whole model asked again.

    Args:
        model: The model; it needs hazards.
        store: The site's.
        subject_id: The person, by the store's own number.
        targets: Codes of the model's targets, at least one.
        horizon_days: Risk within so many days.
        at_us: The last visit that ended by then is taken apart, µs since 1970; None: the last.
        alone: Events hidden one by one, at most.

    Raises:
        RunError: The model cannot say so (HF-708), has no such target (HF-709), or there is no
            visit by then (HF-710).
        StoreError: The store has no such subject (HF-210).
    """
    model.check_horizon(horizon_days)
    vocabulary = model.study.vocabulary
    columns = tuple(_column(vocabulary, target) for target in targets)
    view = store.narrowed(subjects=[subject_id])
    reading = model.read(view)
    names = CodeNames.of(vocabulary, store)
    rows = reading.loader.after_visits(0)
    chosen = _chosen(rows, at_us, store)
    asker = OcclusionModel(reading, columns, model.study.config.train.horizons_days, horizon_days)
    row = rows.take(np.array([chosen]))
    parts = parts_of(reading.people, 0, int(row.stop[0]), names)
    moved, left_out = _taken_apart(asker, row, parts, alone)
    risk, recorded = asker.risks(rows), _recorded(reading.people, len(rows), columns)
    return Explanation(
        subject_id=subject_id,
        horizon_days=horizon_days,
        time_us=rows.time_us,
        chosen=chosen,
        worn_us=_worn_us(reading),
        targets=tuple(
            TargetRisk(code, names.of_code(code), risk[:, v], recorded[:, v], tuple(moved[v]))
            for v, code in enumerate(targets)
        ),
        memories=memories(reading.model),
        with_visit_only=left_out,
    )


def _taken_apart(
    asker: OcclusionModel, row: RowPlan, parts: Sequence[RecordPart], alone: int
) -> tuple[list[list[Contribution]], int]:
    """Return each target's contributions, and how many events were too many to hide alone."""
    events = [part for part in parts if part.kind == "event"]
    if len(events) <= alone:
        return asker.contributions(row, parts), 0
    others = [part for part in parts if part.kind != "event"]
    coarse = asker.contributions(row, others)
    effect: dict[int, float] = {}
    for contribution in (
        contribution
        for target in coarse
        for contribution in target
        if contribution.part.kind == "visit"
    ):
        effect[contribution.part.visit] = max(
            effect.get(contribution.part.visit, 0.0), abs(contribution.log_odds)
        )
    order = sorted(events, key=lambda part: (-effect[part.visit], part.visit))
    kept = set(map(id, order[:alone]))
    fine = asker.contributions(row, [part for part in events if id(part) in kept])
    return [a + b for a, b in zip(fine, coarse, strict=True)], len(events) - alone


def _column(vocabulary: Vocabulary, target: str) -> int:
    if target in vocabulary.targets:
        return vocabulary.targets.index(target)
    close = difflib.get_close_matches(target, vocabulary.targets, n=1, cutoff=0.0)
    raise RunError(
        709,
        where=target,
        seen="the model predicts no such code",
        wanted=(
            f"one of its {len(vocabulary.targets)} targets"
            + (f", the nearest of which is {close[0]}" if close else "")
        ),
    )


def _chosen(rows: RowPlan, at_us: int | None, store: SiteStore) -> int:
    by_then = len(rows) if at_us is None else int(np.sum(rows.time_us <= at_us))
    if not by_then:
        raise RunError(
            710,
            where=store.name,
            seen="the subject has no visit" + ("" if at_us is None else " by then"),
        )
    return by_then - 1


def _recorded(people: Sequences, n_rows: int, columns: tuple[int, ...]) -> Bool:
    """Return [n, V] which visits of the only subject hold each target."""
    count = np.diff(people.visit_target_offsets)
    visit = np.repeat(np.arange(len(count)), count)
    recorded = np.zeros((n_rows, len(columns)), np.bool_)
    for v, column in enumerate(columns):
        recorded[visit[people.visit_target == column], v] = True
    return recorded


def _worn_us(reading: StoreReading) -> Int64:
    """Return the end of each day's wearing."""
    time = reading.people.time_us[reading.people.kind == WEARABLE]
    day = (time - 1) // US_PER_DAY
    return time[np.append(np.flatnonzero(np.diff(day)), len(time) - 1)] if len(time) else time
