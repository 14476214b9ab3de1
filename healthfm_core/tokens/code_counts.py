"""How many of a site's people have each code, counted over some of them at a time.

The people are gone through twice. First whoever has each code is counted, which says what each code
is counted as: itself, or where fewer than k have it an ancestor. Then everything is counted under
what it counts as. A person is in one part, so that counts of parts add up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypedDict

import numpy as np
from meds import birth_code

from healthfm_core.arrays import Bool, Int64, Integers
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.modalities.registry import column_of, is_panel_code, modality_of, specs
from healthfm_core.tokens import values
from healthfm_core.tokens.lineage import lineage_of, with_forms
from healthfm_core.tokens.records import Events, visit_starts
from healthfm_core.tokens.values import Sketch

_MAX_DEPTH: Final = 32


class CodeCounts(TypedDict):
    """The fields of `SiteStatistics` that are over codes."""

    codes: tuple[str, ...]
    subjects: Int64
    timed_subjects: Int64
    visits: Int64
    reached: Int64
    sites: Int64
    all_visits: Int64
    sketch: Sketch
    lineage: tuple[tuple[str, str], ...]
    lineage_sites: Int64


class CodeHolders:
    """Who has each code, the first time that the people are gone through.

    Of codes that fewer than k people have it is known who they are, of the others how many.

    Args:
        k: Fewer are counted as an ancestor.
    """

    def __init__(self, k: int) -> None:
        self._k = k
        self._number: dict[str, int] = {}
        self._subjects = np.zeros(0, np.int64)
        self._pairs = np.zeros((2, 0), np.int64)
        self._everyone = 0
        self.people_of_modality = dict.fromkeys((s.name for s in specs()), 0)

    def add(self, events: Events) -> None:
        """Add the events of some people, all that they have."""
        for name in events.codes:
            self._number.setdefault(name, len(self._number))
        number = np.array([self._number[name] for name in events.codes], np.int64)
        self._subjects = _at_least(self._subjects, len(self._number))
        people = len(events.subjects)
        pairs = np.unique(number[events.code] * people + events.subject)
        code, subject = np.divmod(pairs, max(1, people))
        self._subjects += np.bincount(code, minlength=len(self._number))
        more = np.stack([code, subject + self._everyone])
        both = np.concatenate([self._pairs, more], axis=1)
        self._pairs = both[:, self._subjects[both[0]] < self._k]
        self._everyone += people
        self._count_modalities(events)

    def _count_modalities(self, events: Events) -> None:
        panels, clinical = of_panels(events), clinical_of(events)
        for spec in specs():
            if spec.form != "panel":
                self.people_of_modality[spec.name] += distinct(clinical.subject)
                continue
            own = np.array([modality_of(code) == spec.name for code in panels.codes], np.bool_)
            self.people_of_modality[spec.name] += distinct(panels.subject[own[panels.code]])

    def counted_as(self, parents: Mapping[str, str]) -> CountedAs:
        """Return what each code is counted as.

        Args:
            parents: Code → the one above it.
        """
        clinical = [n for n in self._number if not is_panel_code(n) and n != birth_code]
        codes = sorted(name for name in clinical if self._subjects[self._number[name]])
        place = np.full(len(self._number), -1, np.int64)
        place[[self._number[name] for name in codes]] = np.arange(len(codes))
        common = self._subjects[[self._number[name] for name in codes]] >= self._k
        few = place[self._pairs[0]]
        return CountedAs.of(
            codes, common, few[few >= 0], self._pairs[1][few >= 0], parents, self._k
        )

    def with_forms(self, parents: Mapping[str, str]) -> dict[str, str]:
        """Return `parents`, and what the forms of codes say besides."""
        return with_forms(parents, sorted(self._number))


@dataclass(frozen=True)
class CountedAs:
    """What each code is counted as.

    Attributes:
        codes: The clinical codes that occur, by name, then those above them.
        place: [.] for each, which of them it is counted as: itself or an ancestor.
    """

    codes: Sequence[str]
    place: Int64

    @classmethod
    def of(
        cls,
        codes: Sequence[str],
        common: Bool,
        code: Int64,
        subject: Int64,
        parents: Mapping[str, str],
        k: int,
    ) -> CountedAs:
        """Return it once no code of fewer than `k` people has one above it.

        Args:
            codes: C codes that occur, by name.
            common: [C] which of them k people have.
            code: [n] of each pair of one of the others and somebody who has it: which code.
            subject: [n] and who.
            parents: Code → the one above it.
            k: People a code needs.
        """
        every, index = list(codes), {code: i for i, code in enumerate(codes)}
        parent: list[int] = []
        for name in every:  # grows while it runs: a parent has a parent
            above = parents.get(name)
            if above is not None and above not in index:
                index[above] = len(every)
                every.append(above)
            parent.append(-1 if above is None else index[above])
        above_of = np.array(parent, np.int64)
        known = np.append(common, np.zeros(len(every) - len(codes), np.bool_))
        place = np.arange(len(every))
        for _ in range(_MAX_DEPTH):
            enough = known | (subjects_per(place[code], subject, len(every)) >= k)
            rare = ~enough[place] & (above_of[place] >= 0)
            if not rare[: len(codes)].any():
                break
            place = np.where(rare, above_of[place], place)
        return cls(every, place)


class CountsOfPeople:
    """What is counted the second time that the people are gone through.

    Args:
        counted_as: What each code is counted as.
        config: Thresholds and gaps.
    """

    def __init__(self, counted_as: CountedAs, config: TokensConfig) -> None:
        self._codes, self._counted_as, self._config = counted_as.codes, counted_as.place, config
        self._index = {code: i for i, code in enumerate(counted_as.codes)}
        self._subjects, self._timed, self._visits = (
            np.zeros(len(counted_as.codes), np.int64) for _ in range(3)
        )
        self._reached = self._with_time = self._all_visits = 0
        self._sketch = values.add([])

    def add(self, events: Events) -> None:
        """Add the events of some people, all that they have."""
        if not len(self._codes):
            return
        events = clinical_of(events)
        own = np.array([self._index.get(name, 0) for name in events.codes], np.int64)
        code, size = self._counted_as[own[events.code]], len(self._codes)
        timed = ~events.static
        timed_code, timed_subject = code[timed], events.subject[timed]
        gap = self._config.visit_gap_hours
        starts = visit_starts(timed_subject, events.time_us[timed], gap)
        self._subjects += subjects_per(code, events.subject, size)
        self._timed += subjects_per(timed_code, timed_subject, size)
        self._visits += subjects_per(timed_code, np.cumsum(starts), size)
        self._reached += distinct(events.subject)
        self._with_time += distinct(timed_subject)
        self._all_visits += int(starts.sum())
        as_itself = (self._counted_as[own] == own)[events.code]
        measured = events.where(as_itself & ~np.isnan(events.value))
        self._sketch = values.add([self._sketch, _sketch(measured, own)])

    def total(self, parents: Mapping[str, str]) -> CodeCounts:
        """Return the counts, with small ones taken out.

        Args:
            parents: Code → the one above it, for the lineage where the study asks for it.
        """
        k = self._config.k_min
        enough = np.flatnonzero(self._subjects >= k).tolist()
        kept = np.array(sorted(enough, key=lambda at: self._codes[at]), np.int64)
        names = tuple(self._codes[i] for i in kept)
        sketch = _let_out(self._sketch, kept, len(self._codes), k)
        lineage = _lineage(names, sketch, parents) if self._config.common_share else ()
        visits = self._all_visits if self._with_time >= k else 0
        return CodeCounts(
            codes=names,
            subjects=self._subjects[kept],
            timed_subjects=_without_small_rests(self._timed[kept], self._subjects[kept], k),
            visits=self._visits[kept],
            reached=np.full(len(kept), self._reached, np.int64),
            sites=np.ones(len(kept), np.int64),
            all_visits=np.array([visits]),
            sketch=sketch,
            lineage=lineage,
            lineage_sites=np.ones(len(lineage), np.int64),
        )


class PanelHolders:
    """How many people have a value of each column of a panel."""

    def __init__(self) -> None:
        self._subjects: dict[str, int] = {}

    def add(self, events: Events) -> None:
        """Add the events of some people, all that they have."""
        events = of_panels(events)
        events = events.where(~np.isnan(events.value))
        subjects = subjects_per(events.code, events.subject, len(events.codes))
        for name, count in zip(events.codes, subjects.tolist(), strict=True):
            self._subjects[name] = self._subjects.get(name, 0) + count

    def columns(self, k: int) -> tuple[tuple[str, ...], Int64]:
        """Return the columns that `k` people have a value of, by name, and how many have it."""
        held = sorted((column_of(name), n) for name, n in self._subjects.items() if n >= k)
        return tuple(name for name, _ in held), np.array([n for _, n in held], np.int64)


def clinical_of(events: Events) -> Events:
    """Return the events without births and the values of panels."""
    own = np.array([c != birth_code and not is_panel_code(c) for c in events.codes], np.bool_)
    return events.where(own[events.code]) if len(own) else events


def of_panels(events: Events) -> Events:
    """Return the values of panels."""
    own = np.array([is_panel_code(code) for code in events.codes], np.bool_)
    return events.where(own[events.code]) if len(own) else events


def distinct(keys: Int64) -> int:
    """Return how many different numbers there are."""
    return len(np.unique(keys))


def subjects_per(code: Integers, other: Int64, n_codes: int) -> Int64:
    """Count the distinct `other` of each code."""
    width = int(other.max()) + 1 if len(other) else 1
    pairs = np.unique(code.astype(np.int64) * width + other)
    return np.bincount(pairs // width, minlength=n_codes).astype(np.int64)


def _at_least(counts: Int64, size: int) -> Int64:
    return np.append(counts, np.zeros(max(0, size - len(counts)), np.int64))


def _without_small_rests(count: Int64, of: Int64, k: int) -> Int64:
    """Return counts of which neither they nor what is left of `of` is 1 to k - 1.

    One that is nearly all is told as all, one that is nearly none as none.
    """
    return np.where(of - count < k, of, np.where(count >= k, count, 0))


def _lineage(
    codes: Iterable[str], sketch: Sketch, parents: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    numeric = {*sketch.code.tolist()}
    return lineage_of((code for i, code in enumerate(codes) if i not in numeric), parents)


def _sketch(events: Events, place: Int64) -> Sketch:
    """Sketch one value per subject and code; `place` is what each code is called in the sketch."""
    if not len(events.code):
        return values.add([])
    keys = [hashlib.blake2b(code.encode(), digest_size=8).digest() for code in events.codes]
    code_key = np.frombuffer(b"".join(keys), np.int64)
    rows = values.one_per_subject(
        events.subjects[events.subject], events.code.astype(np.int64), code_key
    )
    return values.sketch(place[events.code[rows]], events.value[rows])


def _let_out(sketch: Sketch, kept: Int64, n_codes: int, k: int) -> Sketch:
    """Return what leaves of a sketch: the kept codes' buckets, none of fewer than `k` people."""
    place = np.full(n_codes, -1, np.int64)
    place[kept] = np.arange(len(kept))
    at = place[sketch.code]
    own = at >= 0
    known = values.add([Sketch(at[own].astype(np.int32), sketch.bucket[own], sketch.count[own])])
    merged = values.merge_small(known, k)
    return values.spread(merged, values.stands_alone(merged, known, k))
