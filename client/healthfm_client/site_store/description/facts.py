"""All facts about a store, as one object that JSON can hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from healthfm_client.site_store.description.code_facts import (
    clashes,
    code_facts,
    unnumbered,
    vocabularies,
)
from healthfm_client.site_store.description.event_arrays import EventArrays
from healthfm_client.site_store.description.people_facts import (
    combinations,
    history,
    modalities,
    years,
)
from healthfm_client.site_store.description.score_facts import score_facts
from healthfm_client.site_store.description.wearing_facts import wearing
from healthfm_client.site_store.description.withholding import counted, together
from healthfm_core.data.store.schemas import SPLIT_NAMES
from healthfm_core.data.store.site_store import SiteStore


def describe(store: SiteStore, k: int, panel: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Return what `store` holds; a count of 1 to k - 1 is None, as is one that would give it away.

    Args:
        store: The store, or a view of it.
        k: The site's threshold, in people (or rows set aside).
        panel: The study's polygenic scores, to hold the store's against.
    """
    rows = EventArrays.of(store)
    splits = together([len(store.subjects(name)) for name in SPLIT_NAMES], k)
    return {
        "name": store.name,
        "withheld_under": k,
        "subjects": counted(rows.people, k),
        "splits": dict(zip(SPLIT_NAMES, splits, strict=True)),
        "modalities": modalities(store, rows, k),
        "together": combinations(store, rows, k),
        **years(rows, k),
        "history": history(rows, k),
        "codes": code_facts(rows, k),
        "vocabularies": vocabularies(rows, k),
        "without_number": unnumbered(rows, k),
        "units_apart": clashes(rows, k),
        "wearing": wearing(store, k),
        "scores": score_facts(rows, panel, k),
        "labels": {task: label_counts(store.labels(task), k) for task in store.tasks},
        "set_aside_share": round(store.set_aside.share, 4),
        "rejected": {reason: counted(n, k) for reason, n in store.rejected.items()},
        "not_read": {kind: counted(n, k) for kind, n in store.not_read.items()},
    }


def label_counts(table: pa.Table, k: int) -> dict[str, int | None]:
    """Return how many labels there are and how many are true; None where few would be told."""
    yes = int(np.sum(table["boolean_value"].fill_null(False).to_numpy()))
    few = None in together([yes, table.num_rows - yes], k)
    total = counted(table.num_rows, k)
    return {"labels": total, "positive": None if few else yes}
