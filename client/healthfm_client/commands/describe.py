"""``describe STORE``: what a site holds, with counts under k withheld."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from meds import birth_code

from healthfm_client.commands import Command, say
from healthfm_core.data.events import STATIC_TIME, coded, ids, times_us
from healthfm_core.data.layout import stores_below
from healthfm_core.data.schemas import SPLIT_NAMES
from healthfm_core.data.store import SiteStore, modality_of
from healthfm_core.data.wearables import hours_worn

MOST_COMMON = 10


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("store", type=Path, metavar="STORE", help="a store, or a folder of stores")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of text")
    parser.add_argument("--k", type=int, default=20, help="withhold counts under k [20]")


def run(arguments: Namespace) -> int:
    """Describe each store."""
    stores = [SiteStore.open(path) for path in stores_below(arguments.store)]
    found = [describe(store, max(arguments.k, 1)) for store in stores]
    if arguments.json:
        say(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        say("\n\n".join(as_text(one, arguments.k) for one in found))
    return 0


def describe(store: SiteStore, k: int) -> dict[str, Any]:
    """Return what `store` holds; a count of 1 to k - 1 is None, as is one that would give it away.

    Args:
        store: The store, or a view of it.
        k: The site's threshold, in people (or rows set aside).
    """
    events = store.events()
    code, names = coded(events["code"])
    subject = ids(events)
    carried = _subjects_per_code(subject, code, len(names))
    splits = _together([len(store.subjects(name)) for name in SPLIT_NAMES], k)
    return {
        "name": store.name,
        "subjects": _withheld(len(store.subjects()), k),
        "splits": dict(zip(SPLIT_NAMES, splits, strict=True)),
        "modalities": _modalities(store, subject, code, names, k),
        "years": _years(subject, times_us(events), code, names, k),
        "codes": _codes(code, names, carried, k),
        "labels": {task: label_counts(store.labels(task), k) for task in store.tasks},
        "rejected": {reason: _withheld(n, k) for reason, n in store.rejected.items()},
    }


def _withheld(count: int, k: int, *, people: int | None = None) -> int | None:
    return None if 0 < (count if people is None else people) < k else count


def _together(counts: list[int], k: int) -> list[int | None]:
    """Return counts whose sum is known: one withheld would follow from the others, so all are."""
    few = any(_withheld(count, k) is None for count in counts)
    return [None if few else count for count in counts]


def _subjects_per_code(subject: np.ndarray, code: np.ndarray, codes: int) -> np.ndarray:
    index = np.unique(subject, return_inverse=True)[1]
    pairs = np.unique(index.astype(np.int64) * max(codes, 1) + code)
    return np.bincount(pairs % max(codes, 1), minlength=codes)


def _modalities(
    store: SiteStore, subject: np.ndarray, code: np.ndarray, names: list[str], k: int
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for kind in ("ehr", "genomics"):
        rows = np.array([modality_of(name) == kind for name in names], np.bool_)[code]
        people = len(np.unique(subject[rows]))
        if people:
            result[kind] = {
                "subjects": _withheld(people, k),
                "events": _withheld(int(rows.sum()), k, people=people),
            }
    for device in store.devices:
        table = store.wearable(device)
        people = len(np.unique(ids(table)))
        hours = round(hours_worn(table))
        result[f"wearable/{device}"] = {
            "subjects": _withheld(people, k),
            "channels": sorted(table["channel"].unique().to_pylist()),
            "hours": _withheld(hours, k, people=people),
        }
    return result


def _years(
    subject: np.ndarray, time_us: np.ndarray, code: np.ndarray, names: list[str], k: int
) -> list[int] | None:
    """Return the first and last year in which k subjects or more have an event."""
    later = np.array([name != birth_code for name in names], np.bool_)[code]
    rows = later & (time_us != STATIC_TIME)
    year = time_us[rows].astype("datetime64[us]").astype("datetime64[Y]").astype(np.int64) + 1970
    pairs = np.unique(np.stack([year, subject[rows]]), axis=1)
    years, people = np.unique(pairs[0], return_counts=True)
    shown = years[people >= k]
    return [int(shown[0]), int(shown[-1])] if len(shown) else None


def _codes(code: np.ndarray, names: list[str], carried: np.ndarray, k: int) -> dict[str, Any]:
    enough = carried >= k
    rows = np.bincount(code, minlength=len(names))
    top = sorted(np.flatnonzero(enough), key=lambda at: (-carried[at], names[at]))[:MOST_COMMON]
    return {
        "distinct": len(names),
        f"carried_by_{k}_or_more": int(enough.sum()),
        "share_of_events_with_those": round(float(rows[enough].sum() / max(rows.sum(), 1)), 4),
        "most_common": {names[at]: int(carried[at]) for at in top},
    }


def label_counts(table: pa.Table, k: int) -> dict[str, int | None]:
    """Return how many labels there are and how many are true; None where few would be told."""
    yes = int(np.sum(table["boolean_value"].fill_null(False).to_numpy()))
    few = None in _together([yes, table.num_rows - yes], k)
    total = _withheld(table.num_rows, k)
    return {"labels": total, "positive": None if few else yes}


def as_text(found: dict[str, Any], k: int) -> str:
    """Return a description as lines; what is withheld is shown as ``<k``."""

    def shown(count: object) -> str:
        return f"<{k}" if count is None else f"{count:,}" if isinstance(count, int) else str(count)

    def row(name: str, facts: dict[str, Any]) -> str:
        plain = {key: value for key, value in facts.items() if not isinstance(value, list | dict)}
        return f"  {name:<28}" + "  ".join(f"{key} {shown(v)}" for key, v in plain.items())

    years = found["years"]
    lines = [f"{found['name']}: {shown(found['subjects'])} subjects"]
    lines.append(row("splits", found["splits"]))
    lines += [row(name, facts) for name, facts in found["modalities"].items()]
    lines.append(f"  {'years':<28}{f'{years[0]} to {years[1]}' if years else 'withheld'}")
    lines.append(row("codes", found["codes"]))
    lines += [f"    {name:<40} {shown(n)}" for name, n in found["codes"]["most_common"].items()]
    lines += [row(f"label {task}", facts) for task, facts in found["labels"].items()]
    if found["rejected"]:
        lines.append(row("set aside", found["rejected"]))
    return "\n".join(lines)


COMMAND = Command("describe", "say what a store holds, counts under k withheld", configure, run)
