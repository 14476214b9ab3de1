"""Ingests killed in the middle, for real, and what the next one makes of what they left."""

from __future__ import annotations

import signal
import subprocess
import sys
import tarfile

import pytest

from healthfm_client.__main__ import main
from healthfm_client.ingest import ingest, interrupted
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError

KILLED = """
import os, signal, sys
from pathlib import Path
from healthfm_client.ingest import ingest
from healthfm_client.ingest.tables import archives
from healthfm_core.data.store import draft_folder, store_draft

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

where, source, out = sys.argv[1:]
if where == "writing":
    store_draft.check_store = die
elif where == "unpacking":
    archives._members = die
else:
    draft_folder.names_swapped = lambda *_: False  # as on a file system that cannot
    rename = Path.rename
    Path.rename = lambda path, to: die() if to == Path(out) else rename(path, to)
ingest("auto", Path(source), Path(out), overwrite=True, site_column="")
"""


def kill(where: str, source, out) -> None:
    command = [sys.executable, "-c", KILLED, where, str(source), str(out)]
    assert subprocess.run(command).returncode == -signal.SIGKILL


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("where", ["writing", "unpacking"])
def test_what_a_killed_ingest_left_is_removed_and_said(source, tmp_path, capsys, where):
    path = source
    if where == "unpacking":
        path = tmp_path / "all.tgz"
        with tarfile.open(path, "w:gz") as tar:
            tar.add(source, "events.parquet")
    out = tmp_path / "out"
    before = names(tmp_path)
    kill(where, path, out)
    assert len(names(tmp_path)) == len(before) + 2  # the lock, and a folder
    command = ["ingest", "event_table", str(path), "--out", str(out), "--site-column", ""]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith("Removed what a killed ingest left beside out, 0.0 MB.\n")
    assert names(tmp_path) == sorted([*before, "out"])


def test_a_store_that_was_about_to_be_replaced_is_back(source, tmp_path):
    out = tmp_path / "out"
    ingest("event_table", source, out, site_column="")
    kill("renaming", source, out)
    assert not out.exists()
    told: list[str] = []
    with pytest.raises(IngestError, match="HF-304"):
        ingest("event_table", source, out, notify=told.append, site_column="")
    assert [sentence[:11] for sentence in told] == ["out is back", "Removed wha"]
    SiteStore.open(out).check()
    assert names(tmp_path) == ["events.parquet", "out"]


def test_two_ingests_of_one_folder_do_not_meet(source, tmp_path):
    out = tmp_path / "new" / "out"
    with interrupted.output_lock(out):
        (tmp_path / "new" / ".out.partial-00000000").mkdir()
        with pytest.raises(IngestError, match="HF-313"):
            ingest("event_table", source, out)
        ingest("event_table", source, tmp_path / "new" / "other")
        assert names(tmp_path / "new") == [".out.lock", ".out.partial-00000000", "other"]


def test_a_folder_made_for_nothing_is_gone(tmp_path):
    with pytest.raises(IngestError, match="HF-301"):
        ingest("auto", tmp_path / "nowhere", tmp_path / "new" / "out")
    assert names(tmp_path) == []


def test_what_was_read_for_resume_is_said_and_goes_in_the_end(source, tmp_path):
    (tmp_path / ".out.work-0123456789abcdef").mkdir()
    told: list[str] = []
    ingest("event_table", source, tmp_path / "out", notify=told.append)
    assert told == ["What an interrupted ingest had read is still there; with --resume it is used."]
    assert names(tmp_path) == ["events.parquet", "out"]
