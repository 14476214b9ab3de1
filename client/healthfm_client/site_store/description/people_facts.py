"""Who has what, and when."""

from __future__ import annotations

from typing import Any

import numpy as np
from meds import birth_code

from healthfm_client.site_store.description.event_arrays import EventArrays
from healthfm_client.site_store.description.withholding import apart, counted, quartiles
from healthfm_core.arrays import Bool
from healthfm_core.data.store.events import STATIC_TIME, ids
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.wearables import hours_worn
from healthfm_core.modalities.registry import modality_names, modality_of
from healthfm_core.modalities.wearable import WEARABLES

YEAR_US = 365.25 * 86_400e6


def modalities(store: SiteStore, rows: EventArrays, k: int) -> dict[str, Any]:
    """Return people and rows of each modality that has any, wearables by device."""
    result: dict[str, Any] = {}
    for kind in (*modality_names("codes"), *modality_names("panel")):
        of = rows.named([modality_of(name) == kind for name in rows.names])
        people = len(np.unique(rows.subject[of]))
        if people:
            result[kind] = {
                "subjects": counted(people, k, of=rows.people),
                "events": counted(int(of.sum()), k, people=people),
            }
    for device in store.devices:
        table = store.wearable(device)
        people = len(np.unique(ids(table)))
        result[f"{WEARABLES}/{device}"] = {
            "subjects": counted(people, k, of=rows.people),
            "channels": sorted(table["channel"].unique().to_pylist()),
            "hours": counted(round(hours_worn(table)), k, people=people),
        }
    return result


def combinations(store: SiteStore, rows: EventArrays, k: int) -> dict[str, int | None]:
    """Return the people who have each combination of modalities, ``ehr + wearable``."""
    has: dict[str, Bool] = {}
    for kind in modality_names():
        whose = rows.subject[rows.named([modality_of(name) == kind for name in rows.names])]
        has[kind] = np.isin(np.arange(rows.people), whose)
    for device in store.devices:
        has[WEARABLES] |= np.isin(rows.everyone, ids(store.wearable(device)))
    names = [kind for kind, held in has.items() if held.any()]
    key = np.zeros(rows.people, np.int64)
    for at, name in enumerate(names):
        key |= has[name].astype(np.int64) << at
    kinds, counts = np.unique(key, return_counts=True)
    said = [" + ".join(n for at, n in enumerate(names) if int(one) >> at & 1) for one in kinds]
    shown = apart(counts.tolist(), k)
    return dict(zip([one or "none of them" for one in said], shown, strict=True))


def _dated(rows: EventArrays) -> Bool:
    return rows.named([name != birth_code for name in rows.names]) & (rows.time_us != STATIC_TIME)


def years(rows: EventArrays, k: int) -> dict[str, Any]:
    """Return first and last year in which k people or more have an event, and each such year."""
    dated = _dated(rows)
    year = rows.time_us[dated].astype("datetime64[us]").astype("datetime64[Y]").astype(np.int64)
    known, at = np.unique(year + 1970, return_inverse=True)
    group = np.full(len(rows.code), -1, np.int64)
    group[dated] = at
    people = rows.people_per(group, len(known))
    events = np.bincount(at, minlength=len(known))
    shown = np.flatnonzero(people >= k)
    return {
        "years": [int(known[shown[0]]), int(known[shown[-1]])] if len(shown) else None,
        "by_year": {
            str(known[one]): {"subjects": int(people[one]), "events": int(events[one])}
            for one in shown
        },
    }


def history(rows: EventArrays, k: int) -> dict[str, Any]:
    """Return quartiles over people of their record's length and events, and who has no birth."""
    dated = _dated(rows)
    subject, time = rows.subject[dated], rows.time_us[dated]
    first = np.full(rows.people, np.iinfo(np.int64).max)
    last = np.full(rows.people, STATIC_TIME, np.int64)
    np.minimum.at(first, subject, time)
    np.maximum.at(last, subject, time)
    there = np.flatnonzero(last != STATIC_TIME)
    span = (last[there] - first[there]) / YEAR_US
    events = np.bincount(subject, minlength=rows.people)[there].astype(np.float64)
    born = rows.subject[rows.named([name == birth_code for name in rows.names])]
    without = rows.people - len(np.unique(born))
    return {
        "years_quartiles": quartiles(span, k),
        "events_quartiles": quartiles(events, k),
        "subjects_without_birth": counted(without, k, of=rows.people),
        "subjects_without_dated_event": counted(rows.people - len(there), k, of=rows.people),
    }
