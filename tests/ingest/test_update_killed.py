"""An update killed anywhere, for real, leaves the old store or the new one, whole."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from healthfm_client.ingest import ingest, update_store
from healthfm_core.data.store.draft_folder import draft_beside, names_swapped
from healthfm_core.data.store.site_store import SiteStore
from tests.ingest.test_update_store import BORN, DAY, FIRST, Row, held, inodes, table

KILLED = """
import os, signal, sys
from pathlib import Path
import healthfm_client.ingest
from healthfm_client.ingest import update_writing
from healthfm_core.data.store import compacted_store, draft_folder, store_draft

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

point, how, file, store = sys.argv[1:]
update_store = sys.modules["healthfm_client.ingest.update_store"]
if point == "putting together":
    update_store.MOST_IN_UPDATES = 0.0
of = {
    "writing events": (store_draft, "_write_group"),
    "writing the rest": (update_writing, "rejected_by_reason"),
    "putting together": (compacted_store, "sorted_and_cleaned"),
    "swapping": (draft_folder, "names_swapped"),
}
place, name = of[point]
done = getattr(place, name)
setattr(place, name, (lambda *given: (done(*given), die())) if point == "swapping" else die)
healthfm_client.ingest.update_store(
    "event_table", Path(file), Path(store), how, site_column="", max_set_aside=1
)
"""
DELTA: list[Row] = [
    (1, DAY, "NEW", 1.0),
    (2, datetime(2999, 1, 1), "NEW", 1.0),
    (9, BORN, "MEDS_BIRTH", None),
    (9, DAY, "NEW", 1.0),
]


def bytes_of(store: Path) -> dict[str, bytes]:
    return {name: (store / name).read_bytes() for name in inodes(store)}


@pytest.mark.parametrize(
    ("point", "how"),
    [
        ("writing events", "rows"),
        ("writing the rest", "people"),
        ("putting together", "rows"),
        ("swapping", "rows"),
    ],
)
def test_whatever_an_update_was_doing(tmp_path: Path, point: str, how: str) -> None:
    out, other = tmp_path / "store", tmp_path / "other" / "store"
    for path in (out, other):
        ingest("event_table", table(tmp_path / "first.parquet", FIRST), path, site_column="")
    delta = table(tmp_path / "delta.parquet", DELTA)
    before = bytes_of(out)
    given = {"site_column": "", "max_set_aside": 1}
    update_store("event_table", delta, other, how, **given)
    done = subprocess.run([sys.executable, "-c", KILLED, point, how, str(delta), str(out)])
    assert done.returncode == -signal.SIGKILL
    with draft_beside(other) as one, draft_beside(other) as two:
        swaps = names_swapped(one, two)
    if point == "swapping" and swaps:
        assert held(out) == held(other), "the new one is there"
    else:
        assert bytes_of(out) == before
    told: list[str] = []
    update_store("event_table", delta, out, how, notify=told.append, **given)
    assert told[0].startswith("Removed what a killed ingest left") or "is back" in told[0]
    SiteStore.open(out).check()
    assert held(out) == held(other)
    assert SiteStore.open(out).rejected == SiteStore.open(other).rejected
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
