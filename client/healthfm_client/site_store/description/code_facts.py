"""Which codes there are, how well they are described, and what lacks its number or its unit."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from healthfm_client.ingest.codes.distinct_codes import SEPARATOR
from healthfm_client.ingest.codes.omop_vocabulary import bare
from healthfm_client.site_store.description.event_arrays import EventArrays
from healthfm_client.site_store.description.withholding import counted
from healthfm_core.arrays import Int64
from healthfm_core.modalities.ehr import EHR
from healthfm_core.modalities.registry import modality_of

MOST_COMMON: Final = 10
LISTED: Final = 25
"""Codes of a table."""


def code_facts(rows: EventArrays, k: int) -> dict[str, Any]:
    """Return how many codes there are, how many k people carry, and the most common."""
    enough = rows.carried >= k
    events = rows.events_per_code
    order = sorted(np.flatnonzero(enough), key=lambda at: (-rows.carried[at], rows.names[at]))
    return {
        "distinct": len(rows.names),
        f"carried_by_{k}_or_more": int(enough.sum()),
        "share_of_events_with_those": _share(events[enough].sum(), events.sum()),
        "most_common": {rows.names[at]: int(rows.carried[at]) for at in order[:MOST_COMMON]},
    }


def vocabularies(rows: EventArrays, k: int) -> dict[str, Any]:
    """Return by what a code begins with: codes, events, people, and shares of events.

    The shares are of events whose code has a description, and of those whose code has one above
    it, which a model can fall back on.
    """
    first = [name.partition(SEPARATOR)[0] for name in rows.names]
    names = sorted({f for f, name in zip(first, rows.names, strict=True) if modality_of(name)})
    place = {name: at for at, name in enumerate(names)}
    of_code = np.array([place.get(name, -1) for name in first], np.int64)
    people = rows.people_per(_of_rows(of_code, rows), len(names))
    described = np.array(
        [name in rows.described or bare(name) in rows.described for name in rows.names], np.bool_
    )
    above = np.array([name in rows.parents for name in rows.names], np.bool_)
    events = rows.events_per_code
    facts = {}
    for at in sorted(range(len(names)), key=lambda at: (-people[at], names[at])):
        its = of_code == at
        if people[at] < k:
            continue
        facts[names[at]] = {
            "codes": int(its.sum()),
            "events": int(events[its].sum()),
            "subjects": counted(int(people[at]), k, of=rows.people),
            "described": _share(events[its & described].sum(), events[its].sum()),
            "with_parents": _share(events[its & above].sum(), events[its].sum()),
        }
    return facts


def unnumbered(rows: EventArrays, k: int) -> dict[str, Any]:
    """Return of each measurement k people have: events, people, and the share without a number.

    A measurement is a code without its unit or answer, some of whose events have a number; by
    people, `LISTED` at most.
    """
    names, of_code = _families(rows)
    family = _of_rows(of_code, rows)
    people = rows.people_per(family, len(names))
    events = np.bincount(family[family >= 0], minlength=len(names))
    numbers = np.bincount(family[(family >= 0) & rows.has_number], minlength=len(names))
    measured = np.flatnonzero((numbers > 0) & (people >= k))
    order = sorted(measured, key=lambda at: (-people[at], names[at]))
    return {
        names[at]: {
            "description": rows.described.get(names[at]),
            "subjects": counted(int(people[at]), k, of=rows.people),
            "events": int(events[at]),
            "share_without_number": _share(events[at] - numbers[at], events[at]),
        }
        for at in order[:LISTED]
    }


def clashes(rows: EventArrays, k: int) -> dict[str, dict[str, int | None]]:
    """Return measurements whose numbers stand in several units: unit → people.

    Units of one kind were brought to one when they were read; what is left cannot be, such as a
    mass and an amount of something whose molar mass is not known.
    """
    with_number = np.bincount(rows.code[rows.has_number], minlength=len(rows.names)) > 0
    units_of: dict[str, dict[str, int | None]] = {}
    for at in np.flatnonzero(with_number & (rows.carried >= k)):
        name = rows.names[at]
        if modality_of(name) == EHR:
            unit = name.removeprefix(bare(name)).removeprefix(SEPARATOR) or "no unit"
            units_of.setdefault(bare(name), {})[unit] = int(rows.carried[at])
    several = {name: units for name, units in units_of.items() if len(units) > 1}
    return dict(sorted(several.items(), key=lambda item: -sum(n or 0 for n in item[1].values())))


def _families(rows: EventArrays) -> tuple[list[str], Int64]:
    """Return (codes without unit or answer, [C] which of them a code is of, -1 for none).

    What has an end is a visit, not a measurement.
    """
    over = {bare(name) for name in rows.names if name.endswith(f"{SEPARATOR}END")}
    base = [bare(name) if modality_of(name) == EHR else "" for name in rows.names]
    base = ["" if name in over else name for name in base]
    names = sorted({name for name in base if name})
    place = {name: at for at, name in enumerate(names)}
    return names, np.array([place.get(name, -1) for name in base], np.int64)


def _of_rows(of_code: Int64, rows: EventArrays) -> Int64:
    return of_code[rows.code] if len(of_code) else np.zeros(0, np.int64)


def _share(part: float, whole: float) -> float:
    return round(float(part) / max(float(whole), 1.0), 4)
