"""Concept sets: targets that a set of codes, their descendants or a limit on values define.

An event of a set's codes brings a further event at its time, ``CONCEPT//<name>``, and from there on
that is a code like any other: counted under `k_min`, a token, a target. So every place that takes a
code takes a concept set.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import numpy as np

from healthfm_core.arrays import Bool
from healthfm_core.config.tokens import CodeCondition, ConceptSets, TokensConfig
from healthfm_core.data.batch.segments import run_starts
from healthfm_core.data.store.joined_stores import StoreView
from healthfm_core.tokens.records import Events, in_domains, read_events

CONCEPT_PREFIX: Final = "CONCEPT//"


def concept_code(name: str) -> str:
    """Return the code of the events that a concept set brings."""
    return CONCEPT_PREFIX + name


def study_events(store: StoreView, split: str | None, config: TokensConfig) -> Events:
    """Return what a study reads of a store: the events of its domains, and its concept sets'.

    A set's own codes need not be of the study's domains.

    Args:
        store: The store.
        split: Whose events; None is everyone's.
        config: The study's domains and concept sets.
    """
    if not config.concept_sets:
        return read_events(store, split, config.domains)
    events = with_concepts(read_events(store, split), config.concept_sets, store.parents())
    wanted = [
        not config.domains or code.startswith(CONCEPT_PREFIX) or in_domains(code, config.domains)
        for code in events.codes
    ]
    return events.where(np.array(wanted, np.bool_)[events.code])


def with_concepts(
    events: Events, concept_sets: ConceptSets, parents: Mapping[str, Collection[str]]
) -> Events:
    """Return the events with one more for each time at which a subject has something of a set.

    Events without a time bring none. The further event stands after those of its time.

    Args:
        events: The events under the site's own codes.
        concept_sets: Name → conditions, of which one suffices.
        parents: The site's code → all its parents.
    """
    for name, conditions in concept_sets.items():
        events = _with_concept(events, concept_code(name), conditions, parents)
    return events


def _with_concept(
    events: Events,
    code: str,
    conditions: Sequence[CodeCondition],
    parents: Mapping[str, Collection[str]],
) -> Events:
    holds = np.zeros(len(events.code), np.bool_)
    for condition in conditions:
        holds |= _holds(events, condition, parents)
    rows = np.flatnonzero(holds & ~events.static)
    rows = rows[run_starts(events.subject[rows], events.time_us[rows])]
    codes = events.codes if code in events.codes else (*events.codes, code)
    further = Events(
        events.subjects,
        codes,
        events.subject[rows],
        np.full(len(rows), codes.index(code), np.int32),
        events.time_us[rows],
        np.zeros(len(rows), np.bool_),
        np.full(len(rows), np.nan),
    )
    return _merged(events, further)


def _holds(
    events: Events, condition: CodeCondition, parents: Mapping[str, Collection[str]]
) -> Bool:
    """Return which events fulfil a condition."""
    wanted = set(condition.codes)
    fits = [_is_of(code, wanted, condition, parents) for code in events.codes]
    holds = np.array(fits, np.bool_)[events.code]
    if condition.above is not None:
        holds &= events.value > condition.above
    if condition.below is not None:
        holds &= events.value < condition.below
    return holds


def _is_of(
    code: str,
    wanted: Collection[str],
    condition: CodeCondition,
    parents: Mapping[str, Collection[str]],
) -> bool:
    """Whether a code is one of `wanted`, or a descendant of one where these count."""
    seen, left = set[str](), [code]
    while left:
        at = left.pop()
        if at in wanted:
            return True
        seen.add(at)
        if condition.descendants:
            left += [above for above in parents.get(at, ()) if above not in seen]
    return False


def _merged(events: Events, further: Events) -> Events:
    """Return both by subject and time, `further` behind what is there at the same time."""
    names = ("subject", "code", "time_us", "static", "value")
    both = {name: np.concatenate([getattr(events, name), getattr(further, name)]) for name in names}
    order = np.lexsort((both["time_us"], ~both["static"], both["subject"]))
    in_order = {name: column[order] for name, column in both.items()}
    return Events(events.subjects, further.codes, **in_order)
